//! Statements that mean harm, through every door that takes them: none does what it is there for, each is refused by its code, and after each the
//! server answers.

use std::{fs, os::unix::fs::symlink, time::Instant};

use serde_json::json;

use crate::{asked::Asked, project::Project};

const DOORS: [&str; 3] = ["postgres", "http", "flight"];

/// No statement of these users takes longer, holds more, or gives more.
const LIMITS: &str = "queries_max = 4\nmemory = \"400MB\"\n[server.sql.limits]\nrows = 100_000\nbytes = \"50MB\"\ntime = \"3s\"\nmemory = \"200MB\"\nqueries = 2\nwait = \"5s\"\n";

/// A statement, and the codes that may refuse it: ours, by which each door has its own.
struct Attack {
    sql: String,
    codes: &'static [&'static str],
}

fn attack(sql: impl Into<String>, codes: &'static [&'static str]) -> Attack {
    Attack { sql: sql.into(), codes }
}

const READ_ONLY: &[&str] = &["read-only"];
const SCOPE: &[&str] = &["not-allowed"];
const NO_TABLE: &[&str] = &["unknown-table"];
const NO_FUNCTION: &[&str] = &["unknown-function"];
const COSTS: &[&str] = &["too-slow", "memory-limit", "too-many-rows", "too-many-bytes", "too-much"];
const TORN: &[&str] = &["too-slow", "memory-limit", "too-many-rows", "too-many-bytes", "broken-off"];

/// What would change something.
fn writes() -> Vec<Attack> {
    [
        "insert into lake.shop.orders values (1, 2)",
        "insert into lake.shop.orders select * from lake.shop.orders",
        "update lake.shop.orders set id = 1",
        "delete from lake.shop.orders",
        "truncate table lake.shop.orders",
        "merge into lake.shop.orders o using lake.shop.orders n on o.id = n.id when matched then delete",
        "drop table lake.shop.orders",
        "drop schema lake.shop cascade",
        "drop view lake.shop.orders",
        "alter table lake.shop.orders add column x int",
        "create table lake.shop.x (id int)",
        "create table x as select * from lake.shop.orders",
        "create view x as select 1",
        "create or replace view lake.shop.orders as select 1 as id",
        "create schema lake.x",
        "create database x",
        "create external table x stored as csv location '/etc/passwd'",
        "create function x() returns int return 1",
        "create index x on lake.shop.orders (id)",
        "copy lake.shop.orders to 'OUT.csv'",
        "copy (select * from lake.shop.orders) to 'OUT.parquet' stored as parquet",
        "copy lake.shop.orders from '/etc/passwd'",
        "explain analyze insert into lake.shop.orders values (1, 2)",
        "explain drop table lake.shop.orders",
        "with x as (select 1) insert into lake.shop.orders select 1, 2",
        "prepare x as insert into lake.shop.orders values (1, 2)",
        "set datafusion.runtime.memory_limit = '100G'",
        "set datafusion.catalog.default_catalog = 'x'",
        "set datafusion.sql_parser.dialect = 'mysql'",
        "set datafusion.execution.batch_size = 100000000",
        "reset datafusion.runtime.memory_limit",
        "grant all on lake.shop.orders to bob",
        "create role x",
        "lock table lake.shop.orders",
        "vacuum",
        "call x()",
        "attach 'x.db' as x",
        "install httpfs",
        "load 'x.so'",
    ]
    .into_iter()
    .map(|sql| match sql {
        // What the parser, or the planner, does not take to begin with.
        _ if sql.contains(" from '/etc/passwd'") => attack(sql, &["sql-syntax", "read-only"]),
        _ if sql.starts_with("with ") => attack(sql, &["sql", "read-only"]),
        _ => attack(sql, READ_ONLY),
    })
    .collect()
}

/// What would read what is not this user's: files, other connections, steps, folders beside the lake.
fn reads(secret: &str, elsewhere: &str) -> Vec<Attack> {
    vec![
        attack("select * from file('/etc/passwd')", SCOPE),
        attack(format!("select * from file('{secret}')"), SCOPE),
        attack("select * from file('../secret.csv')", SCOPE),
        attack("select * from file('weir.toml', format => 'csv')", SCOPE),
        attack("select * from file('http://127.0.0.1:1/x.csv')", SCOPE),
        attack("select * from step('shop', 'rows')", SCOPE),
        attack("select * from '/etc/passwd'", NO_TABLE),
        attack(format!("select * from '{secret}'"), NO_TABLE),
        attack(format!("select * from \"{secret}\""), NO_TABLE),
        attack("select * from lake.\"..\".state", NO_TABLE),
        attack("select * from lake.shop.\"../../../secret\"", NO_TABLE),
        attack("select * from lake.\"../quarantine/shop\".rows", NO_TABLE),
        attack("select * from lake.shop.\"orders@../../x\"", &["unknown-table", "sql-invalid", "run", "version"]),
        attack(format!("select * from lake.\"{elsewhere}\".secret"), NO_TABLE),
        attack(format!("select * from lake.\"{elsewhere}\".secret version as of 0"), NO_TABLE),
        attack(format!("select * from history('{elsewhere}.secret')"), NO_TABLE),
        attack(format!("select * from changes('{elsewhere}.secret', 0)"), NO_TABLE),
        attack("select * from other.public.accounts", NO_TABLE),
        attack("select * from read_csv('/etc/passwd')", NO_FUNCTION),
        attack("select * from read_parquet('/etc/passwd')", NO_FUNCTION),
        attack("select * from parquet_metadata('/etc/passwd')", NO_FUNCTION),
        attack("select pg_read_file('/etc/passwd')", NO_FUNCTION),
        attack("select lo_import('/etc/passwd')", NO_FUNCTION),
        attack("select load_extension('x')", NO_FUNCTION),
    ]
}

/// What would take all memory, all time, or all of a stack.
fn costs() -> Vec<Attack> {
    let series = "generate_series(1, 100000000)";
    let mut all = vec![
        attack(format!("select count(*) from {series} a, {series} b where a.value * b.value % 7 = 9"), COSTS),
        // The first rows have gone out by then: over HTTP the answer breaks off, and does not look whole.
        attack(format!("select * from {series}"), TORN),
        attack(format!("select a.value, b.value from {series} a, {series} b order by a.value + b.value"), COSTS),
        attack(format!("select array_agg(value) from {series}"), COSTS),
        attack(format!("select string_agg(cast(value as varchar), ',') from {series}"), COSTS),
        attack(format!("select count(distinct cast(value as varchar) || 'x') from {series}"), COSTS),
        attack(format!("select value, row_number() over (order by -value) from {series}"), TORN),
        attack("select repeat('x', 2000000000)", COSTS),
        attack("select repeat(repeat('x', 100000), 100000)", COSTS),
        // A constant that many rows share is none of the functions' own: it is the thread that makes the column that gives up.
        attack(
            format!("select repeat('x', 1000000) from {series}"),
            &["panic", "too-much", "too-many-bytes", "memory-limit", "broken-off"],
        ),
        attack("select lpad('x', 2000000000, 'y')", COSTS),
        attack("select rpad('x', 2000000000, 'y')", COSTS),
        attack("select array_repeat(1, 10000000000)", COSTS),
        attack("select array_repeat(array_repeat(1, 100000), 100000)", COSTS),
        attack("select array_resize(make_array(1), 10000000000)", COSTS),
        attack("select generate_series(1, 100000000000)", COSTS),
        attack("select range(1, 100000000000)", COSTS),
        attack("select replace(repeat('x', 1000000), 'x', repeat('y', 100000))", COSTS),
        attack("with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n", COSTS),
        attack("with recursive n(i) as (select 1 union all select i from n) select * from n", TORN),
        attack("with recursive n(t) as (select 'x' union all select t || t from n) select max(length(t)) from n", COSTS),
        attack(format!("select regexp_replace(repeat('a', 100000), '(a*)*b', 'x') from {series}"), COSTS),
        attack("select pg_sleep(1000)", NO_FUNCTION),
    ];
    let deep =
        |open: &str, middle: &str, close: &str, times: usize| format!("select {}{middle}{}", open.repeat(times), close.repeat(times));
    let nested: &[&str] = &["sql-too-deep", "too-long", "sql-syntax"];
    all.push(attack(deep("(", "1", ")", 20_000), nested));
    all.push(attack(deep("(select ", "1", ")", 5_000), nested));
    all.push(attack(deep("abs(", "1", ")", 20_000), nested));
    all.push(attack(deep("case when true then ", "1", " end", 20_000), nested));
    all.push(attack(format!("select {}true", "not ".repeat(100_000)), nested));
    all.push(attack(format!("select 1{}", " + 1".repeat(100_000)), nested));
    all.push(attack(format!("select '{}'", "x".repeat(3_000_000)), &["too-long"]));
    all.push(attack(format!("select {}", "9".repeat(500_000)), &["sql"]));
    all
}

/// What is two statements where one is looked at.
fn two() -> Vec<Attack> {
    let several: &[&str] = &["read-only", "sql-several", "sql-syntax"];
    ["select 1; drop table lake.shop.orders", "drop table lake.shop.orders; select 1", "select 1 /* ; */; delete from lake.shop.orders -- "]
        .into_iter()
        .map(|sql| attack(sql, several))
        .collect()
}

fn project() -> Project {
    let project = Project::new();
    project.write("rows.csv", "id,person\n1,2\n3,4\n");
    project.write(
        "pipeline.toml",
        "weir = 1\nname = \"shop\"\n[source.rows.file]\npath = \"rows.csv\"\n[sink.out]\nfrom = \"rows\"\n[sink.out.lake]\ntable = \"shop.orders\"\n",
    );
    project.run(&["pipeline.toml"]);
    project.write("secret.csv", "secret\nthe-word-that-nobody-sees\n");
    let log = fs::read(project.path(".weir/lake/shop/orders/_delta_log/00000000000000000000.json")).unwrap();
    project.write("elsewhere/secret/_delta_log/00000000000000000000.json", log);
    project
}

/// What the code of a refusal is over Postgres.
fn sqlstate(code: &str) -> &'static [&'static str] {
    match code {
        // Postgres's own answers to COPY of files, to settings that it has not, and to words that it does not know.
        "read-only" => &["25006", "42501", "42704", "0A000", "42601"],
        "panic" => &["XX000"],
        "not-allowed" => &["42501"],
        "unknown-table" => &["42P01", "3F000"],
        "unknown-function" => &["42883", "42P01"],
        "too-slow" => &["57014"],
        "memory-limit" | "too-much" => &["53200", "54000"],
        "too-many-rows" | "too-many-bytes" | "too-long" | "sql-too-deep" => &["54000", "54001", "53400"],
        _ => &["42601", "42000", "42703", "22023"],
    }
}

fn refused(asked: &mut Asked, door: &str, attack: &Attack) -> Result<(), String> {
    let shown: String = attack.sql.chars().take(100).collect();
    let since = Instant::now();
    let answer = asked.ask(&json!({ "door": door, "user": "bob", "sql": attack.sql, "seconds": 60 }));
    let took = since.elapsed().as_secs();
    let Some(error) = answer.get("error") else {
        return Err(format!("{door}: {shown}: answered: {}", answer.to_string().chars().take(300).collect::<String>()));
    };
    let code = error["code"].as_str().unwrap_or_default();
    let known = match door {
        "postgres" => attack.codes.iter().any(|wanted| *wanted == code || sqlstate(wanted).contains(&code)),
        _ => attack.codes.contains(&code),
    };
    let text = error.to_string();
    if !known || took > 20 || text.contains("the-word-that-nobody-sees") || text.contains("root:") {
        return Err(format!("{door}: {shown}: {took} s: {}", text.chars().take(400).collect::<String>()));
    }
    Ok(())
}

/// The largest that the server's process has been, in MB.
fn peak_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}

#[test]
fn no_statement_writes_reads_files_takes_all_memory_or_runs_for_ever() {
    let project = project();
    let secret = project.path("secret.csv").display().to_string();
    let out = project.path("OUT").display().to_string();
    let elsewhere = project.path("elsewhere").display().to_string();
    let Some(mut asked) = Asked::start(project, LIMITS, &[("bob", "sql")]) else { return };
    let attacks: Vec<Attack> = [writes(), reads(&secret, &elsewhere), costs(), two()].into_iter().flatten().collect();
    assert!(attacks.len() >= 40, "{}", attacks.len());
    let mut wrong = Vec::new();
    let (mut peak, mut rises) = (peak_mb(asked.pid()), Vec::new());
    for attack in &attacks {
        let attack = Attack { sql: attack.sql.replace("OUT", &out), codes: attack.codes };
        for door in DOORS {
            let before = std::mem::replace(&mut peak, peak_mb(asked.pid()));
            if peak > before + 100 {
                rises.push(format!("to {peak} MB before {door} {}", attack.sql.chars().take(100).collect::<String>()));
            }
            if let Err(why) = refused(&mut asked, door, &attack) {
                wrong.push(why);
            }
            assert!(asked.alive(), "the server has ended after {}\n{}", attack.sql.chars().take(200).collect::<String>(), asked.log());
            let after = asked.ask(&json!({ "door": door, "user": "bob", "sql": "select 1 as one" }));
            if after["rows"] != json!([["1"]]) {
                wrong.push(format!("{door} after {}: {after}", attack.sql.chars().take(100).collect::<String>()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), attacks.len() * DOORS.len(), wrong.join("\n"));
    // Nothing has come of any of it.
    assert_eq!(asked.project.sql("select * from lake.shop.orders"), ["id,person", "1,2", "3,4"]);
    let left: Vec<String> = fs::read_dir(asked.project.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("OUT"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let peak = peak_mb(asked.pid());
    assert!(peak < 2000, "the server has taken {peak} MB: {rises:#?}");
    asked.end();
}

/// Who may read files reads files of rows in the project alone, and no link leads further. At the prompt a person reads what is theirs.
#[test]
fn the_scope_of_files_opens_files_of_rows_in_the_project_alone() {
    let project = project();
    let outside = tempfile::tempdir().unwrap();
    let word = "secret\nthe-word-that-nobody-sees\n";
    fs::write(outside.path().join("rows.csv"), word).unwrap();
    project.write(".hidden/rows.csv", word);
    project.write("data/own.csv", "id\n1\n");
    project.write("mixed/own.csv", "id\n2\n");
    let parquet = outside.path().join("rows.parquet").display().to_string();
    project.ok(&["sql", "-o", &parquet, "-c", "select 'the-word-that-nobody-sees' as secret"]);
    for folder in ["links", "folders", "ends"] {
        fs::create_dir(project.path(folder)).unwrap();
    }
    symlink("own.csv", project.path("data/link.csv")).unwrap();
    symlink(outside.path().join("rows.csv"), project.path("links/rows.csv")).unwrap();
    symlink(&parquet, project.path("links/rows.parquet")).unwrap();
    symlink("../.hidden/rows.csv", project.path("links/hidden.csv")).unwrap();
    symlink("../.weir", project.path("links/state")).unwrap();
    symlink(outside.path(), project.path("folders/out")).unwrap();
    symlink(outside.path(), project.path("ends/like.csv")).unwrap();
    symlink(outside.path().join("rows.csv"), project.path("mixed/rows.csv")).unwrap();
    let secret = project.path("secret.csv").display().to_string();
    let Some(mut asked) = Asked::start(project, "", &[("ann", "sql,files")]) else { return };
    for (call, rows) in [
        ("file('data/own.csv')", json!([["1"]])),
        ("file('data/*.csv')", json!([["1"], ["1"]])),
        ("file('{data,.hidden}/*.csv')", json!([["1"], ["1"]])),
        ("file('mixed/o*.csv')", json!([["2"]])),
    ] {
        for door in DOORS {
            let answer = asked.sql(door, &format!("select * from {call}"));
            assert_eq!(answer["rows"], rows, "{door}: {call}: {answer}");
        }
    }
    let name_rows = "name files of rows in the project's folder, by a relative path such as data/flights/*.parquet";
    let linked = "a link on the way to it leads out of the project's folder, or into a hidden folder";
    let refused = [
        ("/etc/passwd", "", name_rows),
        (secret.as_str(), "", name_rows),
        ("../rows.csv", "", name_rows),
        ("data/../secret.csv", "", name_rows),
        ("data/own.csv/../../../rows.csv", "", name_rows),
        (".hidden/rows.csv", "", name_rows),
        ("data/.*.csv", "", name_rows),
        (".weir/*/*.parquet", "", name_rows),
        ("weir.toml", ", format => 'csv'", name_rows),
        ("data", ", format => 'csv'", name_rows),
        ("http://127.0.0.1:1/rows.csv", "", name_rows),
        ("file:///etc/rows.csv", "", name_rows),
        ("links/rows.csv", "", linked),
        ("links/rows.parquet", "", linked),
        ("links/*.csv", "", linked),
        ("links/hidden.csv", "", linked),
        ("links/state/lake/shop/orders/*.parquet", "", linked),
        ("folders/out/rows.csv", "", linked),
        ("folders/out/row.csv", "", linked),
        ("folders/out/*.csv", "", linked),
        ("folders/*/*.csv", "", linked),
        ("folders/**/*.parquet", "", linked),
        ("ends/like.csv", "", linked),
        ("mixed/*.csv", "", linked),
        ("{mixed,data}/*.csv", "", linked),
    ];
    for (path, more, hint) in refused {
        let sql = format!("select * from file('{path}'{more})");
        let text = format!("the file \"{path}\" is not open to who asks through a port");
        for door in ["http", "postgres"] {
            assert_eq!(asked.refused(&json!({ "door": door, "sql": sql })), ("not-allowed".to_owned(), text.clone()), "{door}: {sql}");
        }
        assert_eq!(asked.sql("postgres", &sql)["error"]["hint"], hint, "{sql}");
        let (code, said) = asked.refused(&json!({ "door": "flight", "sql": sql }));
        assert!(code == "not-allowed" && said.contains(&text), "flight: {sql}: {code}: {said}");
    }
    let one_of_two = "select * from file(['data/own.csv', 'links/rows.csv'])";
    let text = "the file \"links/rows.csv\" is not open to who asks through a port";
    assert_eq!(asked.refused(&json!({ "door": "http", "sql": one_of_two })), ("not-allowed".to_owned(), text.to_owned()));
    assert!(!asked.log().contains("the-word-that-nobody-sees"), "{}", asked.log());
    let at_home = asked.sql("prompt", "select * from file('links/*.csv')");
    assert_eq!(at_home["rows"], json!([["the-word-that-nobody-sees"], ["the-word-that-nobody-sees"]]), "{at_home}");
    asked.end();
}

#[test]
fn the_prompt_changes_nothing_either() {
    let project = project();
    for attack in writes().into_iter().chain(two()) {
        let outcome = project.weir(&["sql", "-c", &attack.sql]);
        // Several statements are one after another there: the first may be a question.
        assert_ne!(outcome.code, 0, "{}: {outcome}", attack.sql);
        outcome.one_screen();
    }
    assert_eq!(project.sql("select * from lake.shop.orders"), ["id,person", "1,2", "3,4"]);
}

#[test]
fn lists_of_thousands_of_values_are_answered() {
    let Some(mut asked) = Asked::start(project(), "", &[("bob", "sql")]) else { return };
    let list = (1..20_000).map(|value| value.to_string()).collect::<Vec<_>>().join(",");
    for door in DOORS {
        for (filter, rows) in [
            (format!("id in ({list})"), json!([["1"], ["3"]])),
            (format!("id not in ({list})"), json!([])),
            (format!("id in ({list}) and person in (1, {list}) and not (person = 2 or id in (7, {list}, 8) and id < 2)"), json!([["3"]])),
        ] {
            let sql = format!("select id from lake.shop.orders where {filter} order by id");
            let answer = asked.ask(&json!({ "door": door, "user": "bob", "sql": sql, "seconds": 60 }));
            assert!(asked.alive(), "the server has ended\n{}", asked.log());
            assert_eq!(answer["rows"], rows, "{door}: {answer}");
        }
    }
    asked.end();
}

#[test]
fn nobody_reaches_into_anothers_session() {
    let Some(mut asked) = Asked::start(project(), "", &[("ann", "sql"), ("bob", "sql"), ("eve", "runs")]) else { return };
    // A token opens what its scopes say, under its own name.
    for door in DOORS {
        let refused = asked.ask(&json!({ "door": door, "user": "eve", "sql": "select 1" }));
        assert!(refused["error"].is_object(), "{door}: {refused}");
        let stranger = asked.ask(&json!({ "door": door, "user": "nobody", "sql": "select 1" }));
        assert!(stranger["error"].is_object(), "{door}: {stranger}");
    }
    let borrowed = asked.ask(&json!({ "op": "postgres_as", "name": "bob", "token_of": "ann" }));
    assert_eq!(borrowed["error"]["code"], "28P01", "{borrowed}");
    // Another's prepared statement, portal, cursor and cancel key.
    let others = asked.op(&json!({ "op": "postgres_others", "one": "ann", "other": "bob" }));
    for (what, state) in [("statement", "26000"), ("cursor", "34000")] {
        assert_eq!(others[what], state, "{what}: {others}");
    }
    assert_eq!(others["cancelled_by_a_guess"], false, "{others}");
    assert_eq!(others["cancelled_by_its_own"], true, "{others}");
    asked.end();
}

#[test]
fn many_hungry_users_do_not_starve_one() {
    let Some(mut asked) = Asked::start(project(), LIMITS, &[("ann", "sql"), ("bob", "sql")]) else { return };
    let hungry = "select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000000) b where a.value * b.value % 7 = 9";
    let answers =
        asked.op(&json!({ "op": "crowd", "user": "bob", "sql": hungry, "times": 8, "meanwhile": "select 1 as one", "as": "ann" }));
    let meanwhile = &answers["meanwhile"];
    assert_eq!(meanwhile["rows"], json!([["1"]]), "{answers}");
    let codes: Vec<&str> = answers["codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap_or_default()).collect();
    assert_eq!(codes.len(), 8);
    assert!(codes.iter().all(|code| ["too-slow", "busy", "memory-limit"].contains(code)), "{codes:?}");
    assert_eq!(asked.sql("http", "select 2 as two")["rows"], json!([["2"]]));
    asked.end();
}

#[test]
fn cursors_that_nobody_fetches_from_end_at_their_limit_and_hold_up_nobody() {
    let Some(mut asked) = Asked::start(project(), LIMITS, &[("bob", "sql")]) else { return };
    // Twice as many as may be at work at once: each of the later ones has its turn when one before it has ended.
    let answers = asked.op(&json!({
        "op": "silent", "user": "bob", "sql": "select value from generate_series(1, 100000000)", "times": 4, "limit": 3,
    }));
    assert_eq!((answers["first"].as_array().map(Vec::len), &answers["meanwhile"]), (Some(4), &json!(1)), "{answers}");
    assert_eq!(answers["told"], json!(["57014", "57014", "57014", "57014"]), "{answers}");
    let log = asked.log();
    let ended = log.lines().filter(|line| line.contains("generate_series") && line.contains("too-slow")).count();
    assert_eq!(ended, 4, "each is logged once\n{log}");
    asked.end();
}
