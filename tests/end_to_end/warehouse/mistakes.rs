//! What a person gets wrong about a server's tables, one mistake each: the message names the thing and the connection, and says what to do.

use super::Warehouse;
use crate::servers::Kind;

const AT: &str = "incremental = { cursor = \"at\" }";
const NULL_CURSOR: &str = "error[null-cursor]: step \"rows\": column \"at\" is null in a row, so the row has no place to be read by";
const MERGE: &str = "merge\nkey = [\"id\"]";

impl Warehouse {
    /// A source that is wrong is told by `weir check`, with exactly this message, at exactly this text of the file.
    fn source_is_wrong(&self, source: &str, more: &str, message: &str, at: &str) {
        self.read(source, more, "select * from rows");
        let outcome = self.project.weir(&["check", "read.toml"]);
        self.says(&outcome, 2, message);
        let marks = outcome.stderr.lines().find(|line| line.contains('^')).unwrap_or_else(|| panic!("nothing is pointed at\n{outcome}"));
        let line = outcome.stderr.lines().skip_while(|line| !line.trim_start().starts_with("-->")).nth(2).unwrap_or_default();
        let from = marks.find('^').expect("a mark");
        assert_eq!(&line[from..marks.rfind('^').expect("a mark") + 1], at, "{outcome}");
    }

    /// Rows that are read and are wrong fail the run.
    fn rows_are_wrong(&self, source: &str, more: &str, message: &str) {
        self.read(source, more, "select * from rows");
        self.says(&self.project.weir(&["run", "read.toml"]), 1, message);
    }
}

#[test]
fn a_wrong_source_of_postgres_is_told_by_check() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&[
        "create table rows (id bigint, name text, at timestamptz, day date)",
        "insert into rows values (1, 'a', null, '2024-05-05')",
    ]);
    for (source, more, message, at) in [
        (
            "query = \"selec id from rows\"",
            "",
            "error[wrong-sql]: cannot read the query of \"wh\": syntax error at or near \"from\"",
            "\"selec id from rows\"",
        ),
        (
            "query = \"select idd from rows\"",
            "",
            "error[unknown-column]: cannot read the query of \"wh\": column \"idd\" does not exist",
            "\"select idd from rows\"",
        ),
        (
            "query = \"select id, id from rows\"",
            "",
            "error[column-twice]: the query has two columns called \"id\"",
            "\"select id, id from rows\"",
        ),
        (
            "query = \"select null::nowhere.t as id\"",
            "",
            "error[schema-missing]: cannot read the query of \"wh\": schema \"nowhere\" does not exist",
            "\"select null::nowhere.t as id\"",
        ),
        ("table = \"nowhere.rows\"", "", "error[table-missing]: connection \"wh\" has no table \"nowhere.rows\"", "\"nowhere.rows\""),
        (
            "table = \"rows\"",
            "incremental = { files = \"new\" }",
            "error[incremental-unsupported]: this source has no files",
            "{ files = \"new\" }",
        ),
        (
            "table = \"rows\"",
            "incremental = { cursor = \"changed\" }",
            "error[cursor-missing]: no column \"changed\" to read by",
            "{ cursor = \"changed\" }",
        ),
        (
            "table = \"rows\"",
            "incremental = { cursor = \"name\" }",
            "error[cursor-type]: column \"name\" is Utf8, which cannot be a cursor",
            "{ cursor = \"name\" }",
        ),
        (
            "table = \"rows\"",
            "incremental = { cursor = \"id\", lag = \"5m\" }",
            "error[cursor-lag]: the cursor \"id\" is Int64, which no \"lag\" can be taken from",
            "{ cursor = \"id\", lag = \"5m\" }",
        ),
        (
            "table = \"rows\"",
            "incremental = { cursor = \"day\", start = \"yesterday\" }",
            "error[wrong-start]: \"start\" is \"yesterday\", and the cursor \"day\" is Date32",
            "{ cursor = \"day\", start = \"yesterday\" }",
        ),
    ] {
        warehouse.source_is_wrong(source, more, message, at);
    }
    warehouse.rows_are_wrong("table = \"rows\"", AT, NULL_CURSOR);
    warehouse.rows_are_wrong(
        "query = \"select 'infinity'::date as day\"",
        "",
        "error[infinity]: step \"rows\": cannot read the query of \"wh\": column \"day\" holds an infinity, which Arrow has not",
    );
}

#[test]
fn a_wrong_source_of_clickhouse_is_told_by_check() {
    let Some(warehouse) = Warehouse::fresh(Kind::Clickhouse) else { return };
    warehouse.db.execute(&[
        "create table rows (id Int64, name String, at Nullable(DateTime64(6, 'UTC'))) engine = MergeTree order by id",
        "insert into rows values (1, 'a', null)",
        "create table odd (id Int64, sum AggregateFunction(sum, Int64)) engine = MergeTree order by id",
    ]);
    for (source, more, message, at) in [
        (
            "query = \"select idd from rows\"",
            "",
            "error[unknown-column]: cannot read the query of \"wh\": Unknown expression identifier `idd`. Maybe you meant: ['id']. In scope SELECT idd FROM rows",
            "\"select idd from rows\"",
        ),
        (
            "query = \"selec id from rows\"",
            "",
            "error[wrong-sql]: cannot read the query of \"wh\": Syntax error: failed at position 24 (id) (line 2, col 7): id from rows )",
            "\"selec id from rows\"",
        ),
        (
            "query = \"select id, id from rows\"",
            "",
            "error[column-twice]: the query of \"wh\" has two columns \"id\"",
            "\"select id, id from rows\"",
        ),
        (
            "table = \"odd\"",
            "",
            "error[type-unsupported]: column \"sum\" of \"<db>.odd\" of \"wh\" is AggregateFunction(sum, Int64): the state of an aggregation, not a value",
            "\"odd\"",
        ),
        (
            "table = \"rows\"",
            "incremental = { cursor = \"changed\" }",
            "error[cursor-missing]: no column \"changed\" to read by",
            "{ cursor = \"changed\" }",
        ),
    ] {
        warehouse.source_is_wrong(source, more, message, at);
    }
    warehouse.rows_are_wrong("table = \"rows\"", AT, NULL_CURSOR);
    warehouse
        .db
        .execute(&["create table bytes (id Int64, b String) engine = MergeTree order by id", "insert into bytes values (1, unhex('ff'))"]);
    warehouse.rows_are_wrong("table = \"bytes\"", "", "error[not-utf8]: step \"rows\": column \"b\" holds bytes that are not UTF-8 text");
}

#[test]
fn a_connection_to_a_database_that_is_not_there_is_told() {
    for kind in super::BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let connection = warehouse.db.connection("wh");
        warehouse.project.write("weir.toml", connection.replace(&warehouse.db.name, "nowhere"));
        warehouse.read("table = \"rows\"", "", "select * from rows");
        let outcome = warehouse.project.weir(&["check", "read.toml"]);
        let message = warehouse.pick(
            "error[database-missing]: cannot connect to \"wh\" (<place>): database \"nowhere\" does not exist",
            "error[database-missing]: cannot connect to \"<place>\": Database nowhere does not exist",
        );
        warehouse.says(&outcome, 2, message);
    }
}

#[test]
fn a_table_of_postgres_that_cannot_take_the_rows_is_told() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&[
        "create table made (id bigint, name text generated always as ('a') stored)",
        "create table plain (id bigint, name text)",
        "create table apart (id bigint, name text, constraint no_two exclude using btree (id with =))",
    ]);
    for (table, mode, sql, exit, message) in [
        (
            "made",
            "append",
            "select * from rows",
            2,
            "error[generated-column]: column \"name\" of table \"public.made\" is always generated by the database, so rows cannot give it",
        ),
        (
            "plain",
            "snapshot\nkey = [\"id\"]",
            "select coalesce(id, 0) as id, name from rows",
            2,
            "error[not-a-snapshot]: the table has no column \"valid_from\" of type timestamp with time zone",
        ),
        (
            "apart",
            "append",
            "select 7 as id, name from rows union all select 7, name from rows",
            1,
            "error[exclusion]: step \"out\": cannot load table \"public.apart\": conflicting key value violates exclusion constraint \"no_two\" (row 2 of what was sent)",
        ),
    ] {
        warehouse.project.write("rows.csv", "id,name\n1,a\n");
        warehouse.transformed(table, mode, sql);
        warehouse.fails(exit, message);
    }
}

#[test]
fn a_table_of_clickhouse_that_cannot_take_the_rows_is_told() {
    let Some(warehouse) = Warehouse::fresh(Kind::Clickhouse) else { return };
    warehouse.db.execute(&["create table plain (id Int64, name String) engine = MergeTree order by id"]);
    for (table, mode, sql, exit, message) in [
        (
            "plain",
            MERGE,
            "select coalesce(id, 0) as id, name from rows",
            2,
            "error[not-a-merge-table]: mode = \"merge\" needs a table of the engine ReplacingMergeTree(_weir_version), and this one is MergeTree",
        ),
        (
            "plain",
            "snapshot\nkey = [\"id\"]",
            "select coalesce(id, 0) as id, name from rows",
            2,
            "error[not-a-snapshot]: the table has no column \"valid_from\" of type DateTime64(6, 'UTC')",
        ),
    ] {
        warehouse.project.write("rows.csv", "id,name\n1,a\n");
        warehouse.transformed(table, mode, sql);
        warehouse.fails(exit, message);
    }
}

#[test]
fn a_query_that_takes_longer_than_it_may_is_ended_with_the_setting() {
    for kind in super::BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let connection = warehouse.db.connection("wh");
        let limit = warehouse.pick("statement_timeout = \"1s\"", "query_timeout = \"1s\"");
        warehouse.project.write("weir.toml", format!("{connection}\n{limit}\n"));
        let query = warehouse.pick(
            "select id, pg_sleep(30)::text as s from generate_series(1, 2) id",
            "select number as id, sleepEachRow(1) as s from numbers(30) settings max_block_size = 1",
        );
        let message = warehouse.pick(
            "error[statement-timeout]: step \"rows\": cannot read the query of \"wh\": it took longer than the statement timeout",
            "error[statement-timeout]: step \"rows\": cannot read the query of \"wh\": it took longer than the query timeout",
        );
        warehouse.rows_are_wrong(&format!("query = {query:?}"), "", message);
    }
}

#[test]
fn a_database_of_clickhouse_whose_tables_cannot_be_exchanged_is_told() {
    let Some(warehouse) = Warehouse::fresh(Kind::Clickhouse) else { return };
    let name = format!("{}_memory", warehouse.db.name);
    warehouse.db.execute(&[&format!("create database {name} engine = Memory")]);
    warehouse.load(&format!("{name}.rows"), "append", "id,name\n1,a\n");
    warehouse
        .fails(2, "error[database-engine]: database \"<db>_memory\" has the engine Memory, whose tables cannot be exchanged in one step");
    warehouse.db.execute(&[&format!("drop database {name}")]);
}
