//! Tables and queries as sources: what is missing is named, what a filter leaves out is not read, and a cursor brings each row once.

use super::{BOTH, Warehouse};
use crate::servers::Kind;

impl Warehouse {
    /// Writes a pipeline that appends to `lake.out.rows` what `sql` makes of a source. `more`: settings of the step.
    pub(super) fn read(&self, source: &str, more: &str, sql: &str) {
        let kind = self.kind.name();
        self.project.write(
            "read.toml",
            format!(
                "weir = 1\nname = \"read\"\n[source.rows]\n{more}\n[source.rows.{kind}]\nconnection = \"wh\"\n{source}\n[transform.some]\nsql = {sql:?}\n\
                 [sink.lake]\nfrom = \"some\"\nmode = \"append\"\n[sink.lake.lake]\ntable = \"out.rows\"\n"
            ),
        );
    }

    pub(super) fn in_lake(&self, columns: &str) -> String {
        self.project.sql(&format!("select {columns} from lake.out.rows")).split_off(1).join(" ")
    }
}

#[test]
fn a_source_table_that_is_missing_is_named() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'a')");
        warehouse.read("table = \"Rows\"", "", "select * from rows");
        let outcome = warehouse.project.weir(&["run", "read.toml"]);
        let message = warehouse.pick(
            "error[table-missing]: connection \"wh\" has no table \"Rows\"",
            "error[table-missing]: cannot read \"<db>.Rows\" of \"wh\": Table <db>.Rows does not exist. Maybe you meant <db>.rows?",
        );
        warehouse.says(&outcome, 2, message);
        warehouse.read("query = \"select * from nowhere\"", "", "select * from rows");
        let outcome = warehouse.project.weir(&["run", "read.toml"]);
        assert_eq!(outcome.code, 2, "{outcome}");
        outcome.says(&["error[table-missing]: cannot read the query of \"wh\": ", "nowhere"]);
        // A query may do nothing but read.
        warehouse.read(
            &format!("query = {:?}", warehouse.pick("delete from rows returning *", "alter table rows delete where 1")),
            "",
            "select * from rows",
        );
        let outcome = warehouse.project.weir(&["run", "read.toml"]);
        assert_ne!(outcome.code, 0, "{outcome}");
        outcome.one_screen();
        assert_eq!(warehouse.rows("rows"), "1,a");
        // The right one works.
        warehouse.read("table = \"rows\"", "", "select * from rows");
        warehouse.project.run(&["read.toml"]);
        assert_eq!(warehouse.in_lake("id, name"), "1,a");
    }
}

#[test]
fn a_filter_is_made_by_the_server() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let (make, fill) = warehouse.pick(
            (
                "create table rows (id bigint, name text, at timestamptz, amount numeric(10, 2))",
                "insert into rows select n, 'name ' || n % 10, timestamptz '2024-01-01' + n * interval '1 hour', n / 4.0 from generate_series(1, 10000) n",
            ),
            (
                "create table rows (id Int64, name String, at DateTime64(6, 'UTC'), amount Decimal(10, 2)) engine = MergeTree order by id",
                "insert into rows select number + 1 as n, 'name ' || toString(n % 10), toDateTime64('2024-01-01', 6, 'UTC') + interval n hour, n / 4 from numbers(10000)",
            ),
        );
        warehouse.db.execute(&[make, fill]);
        for (condition, rows) in [
            ("id > 9990", 10),
            ("id between 5 and 7 and name <> 'name 6'", 2),
            ("name = 'name 3'", 1000),
            ("name in ('name 3', 'name 4') and id < 100", 20),
            ("at >= timestamp '2024-02-01T00:00:00Z' and at < timestamp '2024-02-02T00:00:00Z'", 24),
            ("amount = 2.50", 1),
            ("id is null", 0),
            ("id = 1 or id = 10000", 2),
        ] {
            warehouse.read("table = \"rows\"", "", &format!("select id from rows where {condition}"));
            let summary = warehouse.project.run(&["read.toml"]);
            assert_eq!(summary["rows_loaded"], rows, "{condition}");
            assert_eq!(summary["rows_read"], rows, "{condition}: the server sent rows that the filter leaves out");
        }
        // A condition that the server has no words for is weir's to make, and as right.
        warehouse.read("table = \"rows\"", "", "select id from rows where regexp_like(name, '^name [12]$')");
        assert_eq!(warehouse.project.run(&["read.toml"])["rows_loaded"], 2000);
        // A limit reaches it too.
        warehouse.read("table = \"rows\"", "", "select id from rows limit 7");
        let summary = warehouse.project.run(&["read.toml"]);
        assert_eq!(summary["rows_loaded"], 7);
        assert!(summary["rows_read"].as_u64().unwrap() < 10_000, "the whole table was read for seven rows");
    }
}

#[test]
fn a_cursor_with_lag_brings_each_row_once_and_late_ones_too() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let make = warehouse.pick(
            "create table rows (id bigint, at timestamptz)",
            "create table rows (id Int64, at DateTime64(6, 'UTC')) engine = MergeTree order by id",
        );
        warehouse.db.execute(&[make]);
        let add = |rows: &[(i64, &str)]| {
            for (id, time) in rows {
                warehouse.db.execute(&[&format!("insert into rows values ({id}, '2024-05-05 {time}')")]);
            }
        };
        warehouse.read(
            "table = \"rows\"",
            "incremental = { cursor = \"at\", lag = \"10m\", start = \"2024-05-05T08:00:00Z\" }",
            "select * from rows",
        );
        // The first is before the start.
        add(&[(0, "07:59:59"), (1, "08:00:00"), (2, "09:00:00"), (3, "10:00:00"), (4, "10:00:00")]);
        let mut expected = vec!["1", "2", "3", "4"];
        let check = |loaded: usize, expected: &[&str]| {
            let summary = warehouse.project.run(&["read.toml"]);
            assert_eq!(summary["rows_loaded"], loaded, "{kind:?} {expected:?}");
            assert_eq!(warehouse.in_lake("id"), expected.join(" "));
        };
        check(4, &expected);
        check(0, &expected);
        // At the cursor itself, within the lag, and new.
        add(&[(5, "10:00:00"), (6, "09:55:00"), (7, "10:30:00")]);
        expected.extend(["5", "6", "7"]);
        check(3, &expected);
        check(0, &expected);
        // Within the lag of the new cursor; and too late, which is what a lag means.
        add(&[(8, "10:25:00"), (9, "10:00:00")]);
        expected.push("8");
        check(1, &expected);
        check(0, &expected);
        // A row that was loaded and changed within the lag is a new version of it.
        let change = warehouse.pick(
            "update rows set at = at + interval '1 minute' where id = 7",
            "alter table rows update at = at + interval 1 minute where id = 7 settings mutations_sync = 2",
        );
        warehouse.db.execute(&[change]);
        expected.push("7");
        expected.sort_unstable();
        check(1, &expected);
    }
}

#[test]
fn a_change_that_leaves_the_cursor_alone_is_brought_too_and_a_full_refresh_brings_everything() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let make = warehouse.pick(
            "create table rows (id bigint primary key, day date, state text)",
            "create table rows (id Int64, day Date32, state String) engine = MergeTree order by id",
        );
        let change = warehouse.pick(
            "update rows set state = 'paid' where id = 2",
            "alter table rows update state = 'paid' where id = 2 settings mutations_sync = 2",
        );
        warehouse.db.execute(&[make, "insert into rows values (1, '2024-05-04', 'paid'), (2, '2024-05-05', 'open')"]);
        warehouse.read("table = \"rows\"", "incremental = { cursor = \"day\" }", "select id, state from rows");
        assert_eq!(warehouse.project.run(&["read.toml"])["rows_loaded"], 2);
        // The same row on the same day: only its content says that it is another.
        warehouse.db.execute(&[change]);
        assert_eq!(warehouse.project.run(&["read.toml"])["rows_loaded"], 1);
        assert_eq!(warehouse.project.run(&["read.toml"])["rows_loaded"], 0);
        assert_eq!(warehouse.in_lake("id, state"), "1,paid 2,open 2,paid");
        let again = warehouse.project.run(&["read.toml", "--full-refresh"]);
        assert_eq!(again["rows_loaded"], 2);
        assert_eq!(warehouse.project.run(&["read.toml"])["rows_loaded"], 0);
        assert_eq!(warehouse.in_lake("id, state"), "1,paid 1,paid 2,open 2,paid 2,paid");
    }
}

#[test]
fn an_infinity_that_is_read_as_null_is_found_as_null() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&[
        "create table rows (id bigint, at timestamptz, day date)",
        "insert into rows values (1, 'infinity', '-infinity'), (2, null, null), (3, '2024-05-05 08:00:00+00', '2024-05-05')",
    ]);
    for (condition, ids) in [
        ("at is null", "1 2"),
        ("at is not null", "3"),
        ("at > timestamp '2000-01-01'", "3"),
        ("day is null", "1 2"),
        ("day < date '2030-01-01'", "3"),
        ("id < 3 and at is null", "1 2"),
    ] {
        let sql = format!("select id from rows where {condition}");
        warehouse.read("table = \"rows\"\ninfinity = \"null\"", "", &sql);
        warehouse.project.run(&["read.toml"]);
        assert_eq!(warehouse.in_lake("id"), ids, "{condition}");
        std::fs::remove_dir_all(warehouse.project.path(".weir/lake")).unwrap();
    }
}

#[test]
fn a_failed_run_leaves_the_cursor_where_it_was() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'a'), (2, 'b')");
        let cursor = "incremental = { cursor = \"id\" }";
        warehouse.read("table = \"rows\"", cursor, "select id, 1 / (id - 2) as broken from rows");
        assert_eq!(warehouse.project.weir(&["run", "read.toml"]).code, 1);
        warehouse.read("table = \"rows\"", cursor, "select id, name from rows");
        assert_eq!(warehouse.project.run(&["read.toml"])["rows_loaded"], 2);
        warehouse.db.execute(&["insert into rows values (3, 'c')"]);
        assert_eq!(warehouse.project.run(&["read.toml"])["rows_loaded"], 1);
        assert_eq!(warehouse.in_lake("id, name"), "1,a 2,b 3,c");
    }
}

#[test]
fn values_that_arrow_has_no_place_for_are_named() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&[
        "create table rows (id bigint, at timestamptz, n numeric(10, 2))",
        "insert into rows values (1, 'infinity', 1), (2, '2024-01-01', 'NaN')",
    ]);
    for (column, value) in [("at", "infinity"), ("n", "NaN")] {
        warehouse.read("table = \"rows\"", "", &format!("select id, {column} from rows"));
        let outcome = warehouse.project.weir(&["run", "read.toml"]);
        assert_eq!(outcome.code, 1, "{outcome}");
        outcome.says(&[&format!("\"{column}\""), value]);
    }
}

#[test]
fn types_of_the_servers_own_are_read_as_what_they_are() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&[
        "create type mood as enum ('fine', 'so so')",
        "create domain positive as integer check (value > 0)",
        "create type pair as (a integer, b text)",
        "create table rows (id bigint, mood mood, age positive, pair pair, host inet, big numeric, span interval, tags text[], grid integer[], doc jsonb, at timestamptz, cash money)",
        "insert into rows values (1, 'so so', 7, row(1, 'x, \"y\"')::pair, '10.0.0.1/8', 12345678901234567890.5, '1 mon 2 days 03:00', '{a,NULL,\"b c\"}', '{1,2}', '{\"k\": [1]}', '2024-01-01 12:00+02', 12.5), \
         (2, null, null, null, null, 'NaN', null, '{}', null, 'null', null, null)",
    ]);
    warehouse.read(
        "table = \"rows\"",
        "",
        "select id, mood, age, pair, host, big, cast(span as varchar) as span, tags, grid, doc, at, cash from rows",
    );
    warehouse.project.run(&["read.toml"]);
    let found =
        warehouse.project.sql("select id, mood, age, pair.a as a, pair.b as b, host, big, tags, grid, doc, at, cash from lake.out.rows");
    assert_eq!(
        found[1..],
        [
            "1,so so,7,1,\"x, \"\"y\"\"\",10.0.0.1/8,12345678901234567890.5,\"[\"\"a\"\",null,\"\"b c\"\"]\",\"[1,2]\",\"{\"\"k\"\": [1]}\",2024-01-01T10:00:00Z,12.50",
            "2,,,,,,NaN,[],,null,,"
        ]
    );
}

#[test]
fn a_source_brings_the_rows_of_the_interval_of_its_run() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.db.execute(warehouse.pick(
            &[
                "create table rows (id bigint, at timestamptz, plain timestamp, day date)",
                "insert into rows select n, timestamptz '2024-01-01T00:00:00Z' + n * interval '1 hour', timestamp '2024-01-01' + n * interval '1 hour', \
                 date '2024-01-01' + n / 24 from generate_series(0, 71) n",
            ],
            &[
                "create table rows (id Int64, at DateTime64(6, 'UTC'), plain DateTime64(3, 'UTC'), day Date32) engine = MergeTree order by id",
                "insert into rows select number, toDateTime64('2024-01-01', 6, 'UTC') + interval number hour, toDateTime64('2024-01-01', 3, 'UTC') + \
                 interval number hour, toDate32('2024-01-01') + intDiv(number, 24) from numbers(72)",
            ],
        ));
        for column in ["at", "plain", "day"] {
            let _ = std::fs::remove_dir_all(warehouse.project.path(".weir"));
            warehouse.read(
                "table = \"rows\"",
                &format!("incremental = {{ interval = {column:?} }}"),
                "select id, $interval_end as until from rows",
            );
            warehouse.project.ok(&["check", "read.toml"]);
            let run = |interval: &str| warehouse.project.run(&["read.toml", "--interval", interval]);
            // The start belongs to an interval, the end does not; the server sends no other row.
            let summary = run("2024-01-02/2024-01-03");
            assert_eq!((&summary["rows_read"], &summary["rows_loaded"]), (&24.into(), &24.into()), "{column}");
            assert_eq!(warehouse.in_lake("min(id) as a, max(id) as b, max(until) as c"), "24,47,2024-01-03T00:00:00Z");
            // Nothing is remembered: the same again reads the same again, and what comes late is found.
            assert_eq!(run("2024-01-02/2024-01-03")["rows_read"], 24, "{column}");
            assert_eq!(run("2024-01-01/2024-01-04")["rows_read"], 72, "{column}");
            assert_eq!(run("2025-01-01/2025-01-02")["rows_read"], 0, "{column}");
            if column != "day" {
                assert_eq!(run("2024-01-02T05:00:00Z/2024-01-02T07:30:00Z")["rows_read"], 3, "{column}");
            }
        }
    }
}

#[test]
fn a_source_that_an_interval_cannot_bound_says_why() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.db.execute(warehouse.pick(
            &["create table rows (id bigint, at timestamptz, day date)", "insert into rows values (1, null, '2024-01-01')"],
            &[
                "create table rows (id Int64, at Nullable(DateTime64(6, 'UTC')), day Date32) engine = MergeTree order by id",
                "insert into rows values (1, null, '2024-01-01')",
            ],
        ));
        let by = |column: &str| format!("incremental = {{ interval = {column:?} }}");
        for (column, message) in [
            ("changed", "error[cursor-missing]: no column \"changed\" to read by"),
            ("id", "error[interval-type]: column \"id\" is Int64, which has no place in an interval of time"),
        ] {
            warehouse.read("table = \"rows\"", &by(column), "select * from rows");
            warehouse.says(&warehouse.project.weir(&["check", "read.toml"]), 2, message);
        }
        let run = |column: &str| {
            warehouse.read("table = \"rows\"", &by(column), "select * from rows");
            warehouse.project.weir(&["run", "read.toml", "--interval", "2024-01-01T05:00:00Z/2024-01-02T05:00:00Z"])
        };
        warehouse.says(
            &run("day"),
            2,
            "error[interval-date]: column \"day\" is a date, and the interval 2024-01-01T05:00:00Z/2024-01-02T05:00:00Z begins or ends within a day of UTC",
        );
        warehouse.says(&run("at"), 1, "error[null-cursor]: step \"rows\": column \"at\" is null in a row, so the row lies in no interval");
        // Without an interval it is not run.
        let outcome = warehouse.project.weir(&["run", "read.toml"]);
        warehouse.says(&outcome, 2, "error[interval-missing]: \"read\" is run for an interval, and none is given");
    }
}
