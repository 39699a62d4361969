//! One question, one answer: queries of all shapes have the same rows through the prompt, Postgres, HTTP and Flight.

use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::{Value, json};

use crate::{
    asked::Asked,
    project::Project,
    servers::{Database, Kind, fresh_database},
};

/// A project with two tables, one of them in two versions, rows set aside, a saved query, and databases where there are any.
fn project(databases: &[(&str, &Database)]) -> (Project, String) {
    let project = Project::new();
    let connections: String = databases.iter().map(|(name, database)| database.connection(name)).collect();
    project.write("weir.toml", &connections);
    project.write("data/people.csv", "id,name,city\n1,ann,berlin\n2,Zoë,paris\n3,cid,\n4,\"d\"\"e, f\",berlin\nx,bad,rome\n");
    project.write(
        "person.schema.json",
        r#"{"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}, "city": {"type": ["string", "null"]}}, "required": ["id"]}"#,
    );
    project.write("data/orders.csv", "id,person,amount,day,at,paid\n10,1,5.25,2026-01-31,2026-01-31T06:00:00Z,true\n11,1,7.50,2026-02-01,2026-02-01T00:00:00.123456Z,false\n12,2,1.00,2024-02-29,2024-02-29T23:59:59Z,\n13,9,,2026-03-01,,true\n");
    project.write(
        "pipeline.toml",
        "weir = 1\nname = \"shop\"\n\
         [source.people]\ncontract = \"person.schema.json\"\non_invalid = \"quarantine\"\n[source.people.file]\npath = \"data/people.csv\"\n\
         [source.orders.file]\npath = \"data/orders.csv\"\n\
         [transform.typed]\nsql = \"\"\"select cast(id as bigint) as id, cast(person as int) as person, cast(amount as decimal(9,2)) as amount,\n\
           cast(day as date) as day, arrow_cast(at, 'Timestamp(Microsecond, None)') as at, cast(paid as boolean) as paid from orders\"\"\"\n\
         [sink.to_people]\nfrom = \"people\"\nmode = \"replace\"\n[sink.to_people.lake]\ntable = \"shop.people\"\n\
         [sink.to_orders]\nfrom = \"typed\"\nmode = \"append\"\n[sink.to_orders.lake]\ntable = \"shop.orders\"\n",
    );
    project.run(&["pipeline.toml"]);
    project.write("data/orders.csv", "id,person,amount,day,at,paid\n14,4,100.00,2026-04-01,2026-04-01T12:00:00Z,true\n");
    project.run(&["pipeline.toml"]);
    project.write(
        "queries/of_city.sql",
        "-- name: of_city\n-- description: who lives there\n-- param city: text\nselect id, name from lake.shop.people where city = $city order by id\n",
    );
    (project, connections)
}

/// Each with an order of its own, so that rows are compared one by one.
const QUERIES: [(&str, &str); 40] = [
    ("a constant", "select 1 as one"),
    (
        "every plain type",
        "select true as b, cast(-7 as smallint) as i2, cast(2147483647 as int) as i4, cast(-9223372036854775808 as bigint) as i8,
         cast(0.1 as real) as f4, cast(0.1 as double) as f8, cast('123456789.50' as decimal(18,2)) as d, 'Zoë ''x'' 漢字 🦀' as t,
         date '2024-02-29' as day, timestamp '2026-01-31 06:00:00.123456' as at, cast('23:59:59.5' as time) as clock, decode('00ff', 'hex') as bytes",
    ),
    (
        "nulls of every plain type",
        "select cast(null as boolean) as b, cast(null as int) as i, cast(null as double) as f, cast(null as decimal(9,2)) as d,
         cast(null as varchar) as t, cast(null as date) as day, cast(null as timestamp) as at, null as n",
    ),
    ("numbers that are none", "select cast('nan' as double) as a, cast('infinity' as double) as b, -cast('infinity' as double) as c, cast('-0' as double) as d"),
    ("an instant with its zone", "select cast('2026-01-31T06:00:00+02:00' as timestamp with time zone) as at"),
    ("a table", "select * from lake.shop.orders order by id"),
    ("a table with texts", "select * from lake.shop.people order by id"),
    ("a filter", "select id from lake.shop.orders where amount between 1 and 50 and day >= date '2026-01-01' order by id"),
    ("patterns and lists", "select id, name from lake.shop.people where name like '%o_' or city in ('berlin', 'rome') order by id"),
    ("what is null", "select id, city is null as nowhere, amount from lake.shop.people join lake.shop.orders using (id) order by id"),
    ("an inner join", "select p.name, o.amount from lake.shop.people p join lake.shop.orders o on o.person = p.id order by o.id"),
    ("a left join", "select p.name, o.id as bought from lake.shop.people p left join lake.shop.orders o on o.person = p.id order by p.id, o.id"),
    ("a full join", "select p.id as p, o.id as o from lake.shop.people p full join lake.shop.orders o on o.person = p.id order by p.id nulls last, o.id nulls first"),
    ("groups", "select city, count(*) as people, min(name) as first from lake.shop.people group by city having count(*) >= 1 order by city nulls first"),
    ("sums and averages", "select person, sum(amount) as total, avg(amount) as mean, count(distinct day) as days from lake.shop.orders group by person order by person"),
    ("averages of floats", "select avg(cast(id as double)) as mean, stddev(id) as spread, median(id) as middle from lake.shop.orders"),
    ("grouping sets", "select city, name, count(*) as n from lake.shop.people group by grouping sets ((city), (name), ()) order by city nulls last, name nulls last"),
    ("sets", "(select person from lake.shop.orders union select id from lake.shop.people) except (select 9) order by 1"),
    ("distinct", "select distinct city from lake.shop.people order by city nulls last"),
    ("windows", "select id, row_number() over (order by amount desc nulls last) as place, sum(amount) over (order by id rows unbounded preceding) as running, lag(id) over (order by id) as before from lake.shop.orders order by id"),
    ("a common table", "with rich as (select person, sum(amount) as total from lake.shop.orders group by person) select name, total from rich join lake.shop.people on id = person order by total desc"),
    ("one that names itself", "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10) select sum(i) as total, count(*) as n from n"),
    ("a correlated question", "select name from lake.shop.people p where exists (select 1 from lake.shop.orders o where o.person = p.id and o.amount > 5) order by id"),
    ("a scalar question", "select id, amount - (select avg(amount) from lake.shop.orders) as off from lake.shop.orders order by id"),
    ("cases", "select id, case when amount > 50 then 'much' when amount is null then 'none' else 'some' end as size, coalesce(amount, 0) as amount, nullif(person, 9) as person from lake.shop.orders order by id"),
    ("texts", "select upper(name) as u, length(name) as n, substr(name, 2) as rest, name || '!' as loud, reverse(name) as r, split_part('a,b,c', ',', 2) as b from lake.shop.people order by id"),
    ("days and times", "select date_trunc('month', day) as month, extract(year from day) as year, day + interval '1 month' as later, date_part('dow', day) as dow from lake.shop.orders order by id"),
    ("lists of numbers", "select make_array(1, 2, null) as some, make_array(1.5, 2.5) as reals, array_length(make_array(1, 2, 3)) as n"),
    ("lists of texts", "select city, array_agg(name order by name) as names from lake.shop.people where city is not null group by city order by city"),
    ("a list as rows", "select unnest(make_array('a', 'b', null)) as item"),
    ("an older version", "select count(*) as n, max(id) as last from lake.shop.orders version as of 0"),
    ("what a version changed", "select id, person, amount from changes('lake.shop.orders', 1) order by id"),
    ("rows set aside", "select step, \"row\", code, \"column\" from quarantine.shop.people order by \"row\", run"),
    ("the run history", "select pipeline, status, rows_read, rows_loaded, rows_quarantined from weir.runs order by started_at"),
    ("tables of the catalogue", "select table_catalog, table_schema, table_name, table_type from information_schema.tables where table_schema = 'shop' order by 3, 1"),
    ("columns of the catalogue", "select column_name, ordinal_position, is_nullable from information_schema.columns where table_name = 'orders' and table_schema = 'shop' order by 2"),
    ("a file", "select id, name from file('data/people.csv') order by name"),
    ("a step", "select id, amount from step('shop', 'typed') order by id"),
    ("a saved query", "select * from query.of_city('berlin')"),
    ("no rows", "select id, name, null as nothing from lake.shop.people where false"),
];

/// Many rows, each checked.
const MANY: &str = "select value as n, value * 7 % 1000 as m, cast(value as varchar) as t from generate_series(1, 20000) order by value";

fn compare(asked: &mut Asked, about: &str, sql: &str, parameters: &Value, doors: &[&str], wrong: &mut Vec<String>) {
    let mut first: Option<(&str, Value)> = None;
    for door in doors {
        let mut request = json!({ "door": door, "sql": sql });
        if !parameters.is_null() {
            request["parameters"] = parameters.clone();
        }
        let answer = asked.ask(&request);
        if answer.get("error").is_some() {
            wrong.push(format!("{about}, {door}: {answer}"));
            continue;
        }
        let rows = json!([answer["columns"], answer["rows"]]);
        match &first {
            None => first = Some((door, rows)),
            Some((other, expected)) if *expected != rows => {
                wrong.push(format!("{about}: {door} has\n  {}\n{other} has\n  {}", cut(&rows), cut(expected)));
            }
            Some(_) => {}
        }
    }
}

fn cut(rows: &Value) -> String {
    rows.to_string().chars().take(1500).collect()
}

const DOORS: [&str; 4] = ["prompt", "postgres", "http", "flight"];

#[test]
fn forty_queries_have_the_same_rows_through_four_doors() {
    let (project, connections) = project(&[]);
    let Some(mut asked) = Asked::start(project, &connections, &[("ann", "sql,files,pipelines")]) else { return };
    let mut wrong = Vec::new();
    for (about, sql) in QUERIES {
        compare(&mut asked, about, sql, &Value::Null, &DOORS, &mut wrong);
    }
    compare(&mut asked, "many rows", MANY, &Value::Null, &DOORS, &mut wrong);
    let many = asked.sql("flight", MANY);
    assert_eq!(many["rows"].as_array().map(Vec::len), Some(20_000));
    for (about, sql, parameters) in [
        ("a number", "select id, name from lake.shop.people where id = $1", json!([2])),
        ("a text", "select id from lake.shop.people where name = $1 order by id", json!(["Zoë"])),
        (
            "several, and one twice",
            "select id from lake.shop.orders where (person = $1 or person = $2) and person <> $1 order by id",
            json!([1, 2]),
        ),
        ("a text that is no SQL", "select count(*) as n from lake.shop.people where name = $1", json!(["' or 1 = 1 --"])),
        ("a float", "select id from lake.shop.orders where amount > $1 order by id", json!([5.5])),
    ] {
        compare(&mut asked, about, sql, &parameters, &["postgres", "http", "flight"], &mut wrong);
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n\n"));
    // Rows as JSON are the rows of the Arrow stream.
    let (arrow, json) = (
        asked.sql("http", "select id, name from lake.shop.people order by id"),
        asked.sql("json", "select id, name from lake.shop.people order by id"),
    );
    assert_eq!(arrow["rows"].as_array().map(Vec::len), json["json"]["rows"].as_array().map(Vec::len), "{json}");
    asked.end();
}

#[test]
fn tables_of_live_databases_have_the_same_rows_through_four_doors() {
    let (Some(pg), Some(ch)) = (fresh_database(Kind::Postgres), fresh_database(Kind::Clickhouse)) else { return };
    pg.execute(&[
        "create table planes (id bigint primary key, name text, price numeric(12,2), built date, at timestamptz, active boolean, tags text[])",
        "insert into planes values (1, 'a320', 110.60, '1988-03-28', '2026-01-31 06:00+00', true, array['short', 'Airbus']), (2, 'b7''47', null, null, null, false, null)",
    ]);
    ch.execute(&[
        "create table delays (id Int64, carrier String, minutes Nullable(Float64), day Date) engine = MergeTree order by id",
        "insert into delays values (1, 'UA', 12.5, '2026-01-31'), (2, 'LH', null, '2026-02-01'), (3, 'UA', -3, '2026-02-01')",
    ]);
    let (project, connections) = project(&[("crm", &pg), ("olap", &ch)]);
    let Some(mut asked) = Asked::start(project, &connections, &[("ann", "sql,connections"), ("bob", "sql,connection:olap")]) else {
        return;
    };
    let delays = format!("olap.{}.delays", ch.name);
    let mut wrong = Vec::new();
    for (about, sql) in [
        ("a table of Postgres", "select id, name, price, built, at, active from crm.public.planes order by id".to_owned()),
        ("a table of ClickHouse", format!("select id, carrier, minutes, day from {delays} order by id")),
        ("a filter inside", format!("select id from {delays} where carrier = 'UA' and minutes > 0 order by id")),
        ("groups inside", format!("select carrier, count(*) as n, sum(minutes) as total from {delays} group by carrier order by carrier")),
        (
            "a join across systems",
            format!(
                "select p.name, d.minutes, o.amount from crm.public.planes p join {delays} d on d.id = p.id left join lake.shop.orders o on o.person = p.id order by p.id, o.id"
            ),
        ),
    ] {
        compare(&mut asked, about, &sql, &Value::Null, &DOORS, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n\n"));
    // Another user's connections are not there.
    for door in ["http", "flight"] {
        let refused = asked.ask(&json!({ "door": door, "user": "bob", "sql": "select * from crm.public.planes" }));
        assert!(refused["error"]["code"].is_string(), "{door}: {refused}");
        let allowed = asked.ask(&json!({ "door": door, "user": "bob", "sql": format!("select count(*) as n from {delays}") }));
        assert_eq!(allowed["rows"], json!([["3"]]), "{door}");
    }
    asked.end();
}

/// What a log tells of its statements: who and through which door, rows, bytes, how it ended with which code, and the statement. Each has a time.
fn statements(log: &str) -> Vec<(String, u64, u64, String, String)> {
    let fields = Regex::new(
        r#" statement user="(\w+)" door="(\w+)" rows=(\d+) bytes=(\d+) duration_ms=(\d+) outcome="(\w+)"(?: code="([a-z-]+)" error="(?:.+)")? sql="(.*)"$"#,
    )
    .unwrap();
    let told = log.lines().filter(|line| line.contains(" weir::sql: ")).map(|line| {
        let found = fields.captures(line).unwrap_or_else(|| panic!("it does not say who, what, rows, time and outcome: {line}"));
        let text = |at: usize| found.get(at).map_or("", |field| field.as_str());
        let number = |at: usize| text(at).parse::<u64>().unwrap_or_else(|error| panic!("{error}: {line}"));
        // A time is not the same twice, but it is one.
        let _duration_ms = number(5);
        let outcome = format!("{} {}", text(6), text(7)).trim().to_owned();
        (format!("{} {}", text(1), text(2)), number(3), number(4), outcome, text(8).to_owned())
    });
    told.collect()
}

#[test]
fn a_statement_is_logged_with_who_what_rows_time_and_outcome_through_four_doors() {
    let some = "select value from generate_series(1, 2500) where value > 2497 order by value";
    let many = "select value from generate_series(1, 2500) order by value";
    let none = "select value from generate_series(1, 2500) where value < 0";
    let unknown = "select nope from generate_series(1, 5)";
    let broken = "select 1 / (value - 2100) as x from generate_series(1, 2500)";
    let writing = "create table x (id int)";
    // What is given, of eight bytes a row; or the code of the refusal.
    let told = [
        (some, Ok(3)),
        (many, Ok(2500)),
        (none, Ok(0)),
        (unknown, Err("failed unknown-column")),
        (broken, Err("failed run")),
        (writing, Err("failed read-only")),
    ];
    let expected = |who: &str| {
        let line = |(sql, end): (&str, Result<u64, &str>)| match end {
            Ok(rows) => (who.to_owned(), rows, rows * 8, "answered".to_owned(), sql.to_owned()),
            Err(outcome) => (who.to_owned(), 0, 0, outcome.to_owned(), sql.to_owned()),
        };
        Vec::from(told.map(line))
    };
    let Some(mut asked) = Asked::start(Project::new(), "", &[("ann", "sql"), ("bob", "sql")]) else { return };
    let mut all = Vec::new();
    for (door, user) in [("http", "ann"), ("postgres", "bob"), ("flight", "ann"), ("http", "bob")] {
        for (sql, end) in told {
            let answer = asked.ask(&json!({ "door": door, "user": user, "sql": sql }));
            assert_eq!(answer.get("error").is_none(), end.is_ok(), "{door}: {sql}: {answer}");
        }
        all.extend(expected(&format!("{user} {door}")));
        // It is logged when the answer is let go of, which may be after its last byte.
        let since = Instant::now();
        while statements(&asked.log()).len() < all.len() && since.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(statements(&asked.log()), all, "{door}\n{}", asked.log());
    }
    let mut at_home = Vec::new();
    for (sql, end) in told {
        let outcome = asked.project.weir(&["sql", "-v", "--format", "csv", "-c", sql]);
        assert_eq!(outcome.code == 0, end.is_ok(), "{outcome}");
        at_home.extend(statements(&outcome.stderr));
    }
    assert_eq!(at_home, expected("local prompt"));
    asked.end();
}

#[test]
fn a_view_is_a_view_in_all_that_tells_of_tables() {
    let Some(pg) = fresh_database(Kind::Postgres) else { return };
    pg.execute(&[
        "create table planes (id int primary key, year int)",
        "create view old as select * from planes where year < 2000",
        "create materialized view counted as select count(*) as n from planes",
    ]);
    let (project, connections) = project(&[("crm", &pg)]);
    let Some(mut asked) = Asked::start(project, &connections, &[("ann", "sql,connections")]) else { return };
    // Schema, table and kind, by what each calls the two kinds.
    let told = |rows: &Value, from: usize, table: &str, view: &str| {
        let rows = rows.as_array().unwrap_or_else(|| panic!("no rows: {rows}"));
        // A schema without tables is there by its own name alone.
        let mut told: Vec<[String; 3]> = rows
            .iter()
            .filter(|row| row.as_array().is_some_and(|row| row.len() > from + 2))
            .map(|row| {
                let text = |at: usize| row[from + at].as_str().unwrap_or_else(|| panic!("no text: {row}")).to_owned();
                let [schema, name, kind] = [0, 1, 2].map(text);
                let kind = match kind {
                    kind if kind == table => "table",
                    kind if kind == view => "view",
                    kind => panic!("{schema}.{name} is {kind}"),
                };
                [schema, name, kind.to_owned()]
            })
            .collect();
        told.sort();
        told
    };
    let mut all = Vec::new();
    for catalog in ["lake", "crm", "quarantine"] {
        let information = format!(
            "select table_schema, table_name, table_type from information_schema.tables \
             where table_catalog = '{catalog}' and table_schema <> 'information_schema'"
        );
        let information = told(&asked.sql("http", &information)["rows"], 0, "BASE TABLE", "VIEW");
        let classes = "select n.nspname, c.relname, c.relkind from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
                       where n.nspname not in ('information_schema', 'pg_catalog')";
        let classes = asked.op(&json!({ "door": "postgres", "database": catalog, "sql": classes }));
        assert_eq!(told(&classes["rows"], 0, "r", "v"), information, "{catalog}");
        let objects = asked.op(&json!({ "op": "adbc_objects", "depth": "tables", "catalog": catalog }));
        assert_eq!(told(&objects["objects"], 1, "TABLE", "VIEW"), information, "{catalog}");
        all.extend(information.into_iter().map(|[schema, name, kind]| format!("{catalog}.{schema}.{name} {kind}")));
    }
    let own = ["books", "columns", "failing_rows", "intervals", "queries", "runs", "schedules", "steps", "tasks"];
    let mut expected = vec![
        "lake.shop.orders table".to_owned(),
        "lake.shop.people table".to_owned(),
        "crm.public.counted view".to_owned(),
        "crm.public.old view".to_owned(),
        "crm.public.planes table".to_owned(),
        "quarantine.shop.people table".to_owned(),
    ];
    expected.extend(own.map(|name| format!("lake.weir.{name} view")));
    expected.sort();
    all.sort();
    assert_eq!(all, expected);
    asked.end();
}

#[test]
fn an_answer_is_given_again_until_there_is_a_newer_commit() {
    let project = Project::new();
    // Texts that are long enough for their page of the file to be larger than any answer that is kept.
    let rows: String = (0..20_000).map(|id| format!("{id},{:x>200}\n", id * 7919)).collect();
    project.write("rows.csv", format!("id,text\n{rows}"));
    project.write(
        "pipeline.toml",
        "weir = 1\nname = \"p\"\n[source.rows.file]\npath = \"rows.csv\"\n[sink.out]\nfrom = \"rows\"\nmode = \"append\"\n[sink.out.lake]\ntable = \"shop.rows\"\n",
    );
    project.run(&["pipeline.toml"]);
    let Some(mut asked) = Asked::start(project, "", &[("ann", "sql")]) else { return };
    let question = |id: u32| format!("select id, right(text, 5) as text from lake.shop.rows where id = {id}");
    let (table, aside) = (asked.project.path(".weir/lake/shop/rows"), asked.project.path("aside"));
    std::fs::create_dir(&aside).unwrap();
    let moved = |from: &std::path::Path, to: &std::path::Path| {
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            std::fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    let wanted = json!([["7", "55433"]]);
    assert_eq!(asked.sql("http", &question(7))["rows"], wanted);
    moved(&table, &aside);
    for door in ["http", "postgres", "flight"] {
        assert_eq!(asked.sql(door, &question(7))["rows"], wanted, "{door}: the answer that was given before");
    }
    let bound = json!({ "door": "postgres", "sql": question(7).replace("= 7", "= $1"), "parameters": [7] });
    assert_eq!(asked.op(&bound)["rows"], wanted);
    assert!(asked.sql("http", &question(8)).get("error").is_some(), "what was not asked before has to read the file");
    moved(&aside, &table);
    assert_eq!(asked.sql("http", &question(8))["rows"], json!([["8", "63352"]]));
    asked.project.run(&["pipeline.toml"]);
    for door in ["http", "postgres", "flight"] {
        assert_eq!(asked.sql(door, &question(7))["rows"], json!([["7", "55433"], ["7", "55433"]]), "{door}");
    }
    asked.end();
}

#[test]
fn a_file_whose_numbers_are_none_loses_no_row() {
    let project = Project::new();
    let values =
        "select column1 as id, cast(column2 as double) as x, cast(column2 as real) as y from (values (1, '1'), (2, 'nan'), (3, '-0')) t";
    project.ok(&["sql", "-o", "some.parquet", "-c", &format!("select * from ({values}) where id < 3 order by id")]);
    project.ok(&["sql", "-o", "more.parquet", "-c", &format!("select * from ({values}) order by id")]);
    for column in ["x", "y"] {
        for (file, filter, ids) in [
            ("some", "true", "1,1.0\n2,NaN\n"),
            ("some", "C > 5", "2,NaN\n"),
            ("some", "C = 'nan'", "2,NaN\n"),
            ("some", "C <= 1", "1,1.0\n"),
            ("some", "C <> 1", "2,NaN\n"),
            ("more", "C < 0.5", "3,-0.0\n"),
            ("more", "C > 0.5", "1,1.0\n2,NaN\n"),
            ("more", "C = (select max(C) from file('more.parquet'))", "2,NaN\n"),
        ] {
            let filter = filter.replace('C', column);
            let sql = format!("select id, {column} from file('{file}.parquet') where {filter} order by id");
            assert_eq!(project.ok(&["sql", "-f", "csv", "-c", &sql]).stdout, format!("id,{column}\n{ids}"), "{sql}");
        }
        let sql = format!("select max({column}), min({column}), count({column}), count(*) from file('more.parquet')");
        assert_eq!(project.ok(&["sql", "-f", "csv", "-c", &sql]).stdout.lines().last(), Some("NaN,-0.0,3,3"), "{sql}");
    }
}
