//! `weir plan --data`: it shows exactly the rows that a comparison written by hand in SQL shows, within the memory limit, and leaves nothing
//! behind.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::project::{Project, Running, copy, repository};

fn shipped() -> Project {
    let project = Project::new();
    let root = repository();
    copy(&root.join("pipelines/flights"), &project.path("pipelines/flights"));
    copy(&root.join("schemas"), &project.path("schemas"));
    let settings = fs::read_to_string(root.join("weir.toml")).unwrap();
    assert!(!settings.contains("[memory]"), "it has a limit of its own");
    project.write("weir.toml", settings + "\n[memory]\nlimit = \"256MB\"\n");
    project
}

/// Puts one text in the place of another, which stands there.
fn edit(project: &Project, path: &str, edits: &[(&str, &str)]) {
    let mut text = fs::read_to_string(project.path(path)).unwrap();
    for (old, new) in edits {
        assert!(text.contains(old), "{path} does not say: {old}");
        text = text.replace(old, new);
    }
    project.write(path, text);
}

/// Every file below a folder, with what is in it.
fn files(folder: &Path) -> BTreeSet<(String, Vec<u8>)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
        }
    }
    found
}

/// The values of some columns of each row, as `weir sql` writes them.
fn keys(rows: &Value, columns: &[&str], inner: Option<&str>) -> BTreeSet<String> {
    let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |row: &Value| {
        let row = inner.map_or(row, |inner| &row[inner]);
        columns.iter().map(|column| cell(&row[*column])).collect::<Vec<_>>().join(",")
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

/// What a comparison of two tables by hand finds: the keys added, removed and changed, and for each column the number of keys.
fn by_hand(project: &Project, before: &str, now: &str, key: &[&str], columns: &[&str]) -> (Vec<BTreeSet<String>>, Vec<u64>) {
    let on = key.iter().map(|column| format!("(o.{column} is not distinct from n.{column})")).collect::<Vec<_>>().join(" and ");
    let select = |side: &str| key.iter().map(|column| format!("{side}.{column}")).collect::<Vec<_>>().join(", ");
    let differs = columns.iter().map(|column| format!("(o.{column} is distinct from n.{column})")).collect::<Vec<_>>();
    let ask = |sql: String| project.sql(&sql)[1..].iter().cloned().collect::<BTreeSet<String>>();
    let found = vec![
        ask(format!("select {} from {now} n where not exists (select 1 from {before} o where {on})", select("n"))),
        ask(format!("select {} from {before} o where not exists (select 1 from {now} n where {on})", select("o"))),
        ask(format!("select {} from {before} o join {now} n on {on} where {}", select("n"), differs.join(" or "))),
    ];
    let counts = differs.iter().map(|differs| format!("count(*) filter (where {differs})")).collect::<Vec<_>>().join(", ");
    let counts = project.value(&format!("select {counts} from {before} o join {now} n on {on}"));
    (found, counts.split(',').map(|count| count.parse().unwrap()).collect())
}

#[test]
fn a_plan_shows_exactly_the_rows_that_sql_shows() {
    const PIPELINE: &str = "pipelines/flights/pipeline.toml";
    let project = shipped();
    project.run(&["flights"]);
    let outcome = project.ok(&["plan", "--data", "--json", "flights"]);
    for sink in outcome.json()["sinks"].as_array().unwrap() {
        assert!(sink["added"] == 0 && sink["removed"] == 0 && sink["changed"] == 0, "nothing has changed: {outcome}");
        assert_eq!(sink["same"], sink["rows_before"]);
    }

    edit(
        &project,
        PIPELINE,
        &[
            // A filter, a join, an expression, a column that goes and one that comes.
            ("\"dep_time is not null\"", "\"dep_time is not null and not (month = 2 and day < 3)\""),
            ("left join planes p on p.tailnum = f.tailnum", "left join planes p on p.tailnum = f.tailnum and p.seats > 55"),
            ("f.air_time, f.distance,", "f.air_time, case when f.origin = 'LGA' then f.distance + 1 else f.distance end as distance,"),
            ("w.temp, w.wind_speed, w.precip, w.visib", "w.temp, w.wind_speed, w.precip, f.sched_dep_time"),
            // An aggregate over what has changed and what has not.
            ("avg(arr_delay) as mean_arr_delay", "avg(case when carrier = 'AS' then 0 else arr_delay end) as mean_arr_delay"),
            // Rows with another key in the daily numbers.
            ("from delays\ngroup by", "from delays where date <> '2013-07-04'\ngroup by"),
        ],
    );
    // A contract that refuses flights it took, and takes some that it refused.
    let contract = fs::read_to_string(project.path("schemas/flight.schema.json")).unwrap();
    let mut changed: Value = serde_json::from_str(&contract).unwrap();
    changed["properties"]["dep_delay"]["maximum"] = 300.into();
    project.write("schemas/flight.schema.json", serde_json::to_string(&changed).unwrap());

    let lake = files(&project.path(".weir/lake"));
    let runs = project.ok(&["runs", "list", "--json"]).stdout;
    let outcome = project.ok(&["plan", "--data", "--json", "--examples", "1000000", "flights"]);
    assert_eq!(files(&project.path(".weir/lake")), lake, "the lake has changed");
    assert_eq!(project.ok(&["runs", "list", "--json"]).stdout, runs, "the history has changed");
    assert!(!project.path(".weir/tmp/flights.plan").exists(), "something is left behind");

    let shown = outcome.json();
    for input in shown["input"].as_array().unwrap() {
        assert_eq!(input["of"], "both", "a source was read twice");
    }
    let summary = project.run(&["flights", "--set", "sink.lake.lake.table=next.delays", "--set", "sink.lake_daily.lake.table=next.daily"]);
    let rejected = shown["rejected"].as_array().unwrap().iter().find(|rejected| rejected["step"] == "flights").unwrap();
    let steps = summary["books"]["steps"].as_array().unwrap();
    let flights = steps.iter().find(|step| step["step"] == "flights").unwrap();
    assert_eq!(rejected["now"], flights["rows_quarantined"]);
    assert!(rejected["now"].as_u64() > rejected["before"].as_u64(), "{rejected}");

    for (sink, table, key, gone, new) in [
        ("lake", "delays", &["date", "carrier", "flight", "origin"][..], &["visib"][..], &["sched_dep_time"][..]),
        ("lake_daily", "daily", &["date", "carrier", "airline"][..], &[][..], &[][..]),
    ] {
        let shown = shown["sinks"].as_array().unwrap().iter().find(|shown| shown["sink"] == sink).unwrap();
        assert_eq!(shown["key"], serde_json::json!(key));
        assert_eq!((&shown["columns_removed"], &shown["columns_added"]), (&serde_json::json!(gone), &serde_json::json!(new)));
        let columns: Vec<&str> = shown["columns"].as_array().unwrap().iter().map(|column| column["column"].as_str().unwrap()).collect();
        let (before, now) = (format!("lake.flights.{table}"), format!("lake.next.{table}"));
        let own = project.sql(&format!("select * from {now} limit 1"));
        let others: BTreeSet<&str> = own[0].split(',').filter(|name| !key.contains(name) && !new.contains(name)).collect();
        assert_eq!(columns.iter().copied().collect::<BTreeSet<_>>(), others, "{sink}: every column is told");

        let (found, counts) = by_hand(&project, &before, &now, key, &columns);
        for ((kind, found), inner) in ["added", "removed", "changed"].into_iter().zip(&found).zip([None, None, Some("key")]) {
            assert_eq!(shown[kind], found.len(), "{sink}: {kind}");
            assert_eq!(&keys(&shown["examples"][kind], key, inner), found, "{sink}: {kind}");
        }
        assert!(!found[1].is_empty() && !found[2].is_empty(), "{sink}: the test compares nothing");
        let told: Vec<u64> = shown["columns"].as_array().unwrap().iter().map(|column| column["changed"].as_u64().unwrap()).collect();
        assert_eq!(told, counts, "{sink}: {columns:?}");
        // Every daily number of some day differs; of the flights, most columns are as they were.
        assert!(told.iter().any(|count| *count > 0) && (sink != "lake" || told.contains(&0)), "{sink}: {told:?}");
        let rows = |table: &str| project.value(&format!("select count(*) from {table}"));
        assert_eq!((shown["rows_before"].to_string(), shown["rows_now"].to_string()), (rows(&before), rows(&now)));
    }
}

#[test]
fn a_sample_is_the_same_each_time_and_leaves_small_sources_whole() {
    let project = shipped();
    project.run(&["flights"]);
    edit(&project, "pipelines/flights/pipeline.toml", &[("f.air_time, f.distance,", "f.air_time, f.distance + 1 as distance,")]);
    let ask = || {
        let mut answer = project.ok(&["plan", "--data", "--json", "--sample", "20000", "--examples", "5", "flights"]).json();
        assert!(answer["clock"].is_string());
        answer.as_object_mut().unwrap().remove("clock");
        answer
    };
    let first = ask();
    assert_eq!(first, ask());
    let input = |source: &str| {
        let inputs = first["input"].as_array().unwrap();
        let input = inputs.iter().find(|input| input["source"] == source).unwrap();
        (input["rows"].as_u64().unwrap(), input["taken"].as_u64().unwrap())
    };
    let (rows, taken) = input("flights");
    assert!(rows > 300_000 && (18_000..22_000).contains(&taken), "{rows} {taken}");
    assert_eq!(input("planes").0, input("planes").1);
    let sink = &first["sinks"][0];
    assert_eq!(sink["changed"], sink["rows_now"]);
    assert_eq!(sink["examples"]["changed"].as_array().unwrap().len(), 5);
}

#[test]
fn an_interrupted_comparison_leaves_nothing_and_only_one_goes_on_at_a_time() {
    let project = shipped();
    project.run(&["flights"]);
    let folder = project.path(".weir/tmp/flights.plan");
    project.write(".weir/tmp/flights.plan/left/by-a-crash", "x");
    let running = project.start(&["plan", "--data", "flights"]);
    let started = Instant::now();
    while !folder.exists() || folder.join("left").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    let second = project.weir(&["plan", "--data", "flights"]);
    assert_eq!(second.code, 1, "{second}");
    second.says(&["error[already-running]: another comparison of \"flights\" is under way"]);
    interrupt(running, &folder);
    // A run goes on beside a comparison, and neither minds the other.
    let running = project.start(&["plan", "--data", "flights"]);
    project.run(&["flights"]);
    let outcome = running.wait(Duration::from_secs(120));
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(!folder.exists(), "something is left behind");
}

fn interrupt(running: Running, folder: &Path) {
    running.signal("INT");
    let outcome = running.wait(Duration::from_secs(60));
    assert_eq!(outcome.code, 130, "{outcome}");
    assert!(!folder.exists(), "something is left behind");
}
