//! Rows that a table refuses: each with its exact message, the table as it was, nothing staged left, and a run of better rows that works.

use super::{BOTH, Warehouse};
use crate::servers::Kind;

const MERGE: &str = "merge\nkey = [\"id\"]";

/// The rows fail; the table keeps what it had; better rows are loaded.
fn refused(warehouse: &Warehouse, mode: &str, bad: &str, message: &str) {
    warehouse.load("rows", mode, bad);
    warehouse.fails(1, message);
    assert_eq!(warehouse.rows("rows"), "1,old", "{message}");
    warehouse.load("rows", mode, "id,name\n2,new\n");
    warehouse.runs();
    assert_eq!(warehouse.rows("rows"), "1,old 2,new", "{message}");
    let gone = warehouse.pick("delete from rows where id = 2", "alter table rows delete where id = 2 settings mutations_sync = 2");
    warehouse.db.execute(&[gone]);
}

/// A table that a merge made, with a row in it.
fn merged(kind: Kind) -> Option<Warehouse> {
    let warehouse = Warehouse::fresh(kind)?;
    warehouse.load("rows", MERGE, "id,name\n1,old\n");
    warehouse.runs();
    Some(warehouse)
}

#[test]
fn a_key_twice_in_one_run_of_merge_is_named() {
    for kind in BOTH {
        // Into a new table, and into one that is there.
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let twice = "id,name\n7,x\n8,y\n7,z\n";
        warehouse.load("rows", MERGE, twice);
        let message = match kind {
            Kind::Postgres => "error[duplicate-key]: step \"out\": sink \"out\" got several rows with the same key: \"id\" = 7",
            Kind::Clickhouse => "error[duplicate-key]: step \"out\": sink \"out\" got several rows with the same key: \"id\" = 7",
        };
        warehouse.fails(1, message).says(&["put a deduplicate step before the sink"]);
        assert!(!warehouse.exists("rows"));
        warehouse.load("rows", MERGE, "id,name\n1,old\n");
        warehouse.runs();
        refused(&warehouse, MERGE, twice, message);
    }
}

#[test]
fn a_key_of_several_columns_is_named_whole() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.load("rows", "merge\nkey = [\"id\", \"name\"]", "id,name\n7,x y\n7,z\n7,x y\n");
        warehouse
            .fails(1, "error[duplicate-key]: step \"out\": sink \"out\" got several rows with the same key: \"id\" = 7, \"name\" = x y");
        assert!(!warehouse.exists("rows"));
    }
}

#[test]
fn a_null_in_the_key_is_told() {
    for kind in BOTH {
        let Some(warehouse) = merged(kind) else { return };
        for mode in ["merge", "delete_insert"] {
            let mode = format!("{mode}\nkey = [\"id\"]");
            refused(
                &warehouse,
                &mode,
                "id,name\n7,x\n,y\n",
                "error[null-key]: step \"out\": sink \"out\" got a row whose key column \"id\" is null",
            );
        }
        warehouse.load("new", "snapshot\nkey = [\"id\"]", "id,name\n7,x\n,y\n");
        warehouse.fails(1, "error[null-key]: step \"out\": sink \"out\" got a row whose key column \"id\" is null");
        assert!(!warehouse.exists("new"));
    }
}

#[test]
fn a_null_where_the_table_takes_none_is_told() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'old')");
        let message = warehouse.pick(
            "error[null-in-column]: step \"out\": column \"id\" holds a null, which the table does not allow",
            "error[null-in-column]: step \"out\": column \"id\" holds a null, which the table does not allow",
        );
        for mode in ["append", "delete_insert\nkey = [\"name\"]"] {
            refused(&warehouse, mode, "id,name\n7,x\n,y\n", message);
        }
    }
}

#[test]
fn text_that_is_too_long_is_told() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&["create table rows (id bigint, name varchar(5))", "insert into rows values (1, 'old')"]);
    let message = "error[value-too-long]: step \"out\": column \"name\": the value \"seven77\" is longer than character varying(5) allows";
    for mode in ["append", MERGE] {
        refused(&warehouse, mode, "id,name\n7,fünfü\n8,seven77\n", message);
    }
    // Five characters of two bytes each fit.
    warehouse.load("rows", "append", "id,name\n9,äöüßé\n");
    warehouse.runs();
    assert_eq!(warehouse.rows("rows"), "1,old 9,äöüßé");
}

#[test]
fn a_nul_byte_is_told_by_postgres_and_kept_by_clickhouse() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'old')");
        warehouse.project.write("rows.csv", "id\n7\n");
        warehouse.transformed("rows", "append", "select id, 'a' || chr(0) || 'b' as name from rows");
        match kind {
            Kind::Postgres => {
                warehouse.fails(1, "error[nul-byte]: step \"out\": column \"name\" holds a NUL byte, which Postgres cannot hold in text, in the value \"a\\0b\"");
                assert_eq!(warehouse.rows("rows"), "1,old");
            }
            Kind::Clickhouse => {
                warehouse.runs();
                assert_eq!(warehouse.db.value("select hex(name) from rows where id = 7"), "610062");
            }
        }
    }
}

#[test]
fn a_check_of_the_table_holds_for_what_is_loaded() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let make = warehouse.pick(
            "create table rows (id bigint, name text, constraint positive check (id > 0))",
            "create table rows (id Int64, name Nullable(String), constraint positive check id > 0) engine = MergeTree order by id",
        );
        warehouse.db.execute(&[make, "insert into rows values (1, 'old')"]);
        let message = warehouse.pick(
            "error[check-failed]: step \"out\": cannot load table \"public.rows\": new row for relation \"rows\" violates check constraint \"positive\"",
            "error[check-failed]: step \"out\": cannot load table \"<db>.rows\": Constraint `positive` for table <db>.rows is violated at row",
        );
        for mode in ["append", "replace", "delete_insert\nkey = [\"id\"]"] {
            warehouse.load("rows", mode, "id,name\n7,x\n-1,y\n");
            let outcome = warehouse.run();
            assert_eq!(outcome.code, 1, "{outcome}");
            let said = outcome.stderr.replace(&warehouse.db.name, "<db>");
            // Where a staged table is named, its name differs from run to run.
            let said = said.lines().find(|line| line.starts_with("error")).unwrap_or_default();
            let common =
                said.starts_with(&message[..message.find("new row").or(message.find("Constraint")).unwrap()]) && said.contains("positive");
            assert!(common, "{mode}: not {message}\n{outcome}");
            outcome.says(&["positive", "refuses a row"]);
            warehouse.tidy();
            assert_eq!(warehouse.rows("rows"), "1,old", "{mode}");
        }
        warehouse.load("rows", "append", "id,name\n2,new\n");
        warehouse.runs();
        assert_eq!(warehouse.rows("rows"), "1,old 2,new");
    }
}

#[test]
fn a_foreign_key_without_its_row_is_told() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&[
        "create table kinds (id bigint primary key)",
        "insert into kinds values (1), (2)",
        "create table rows (id bigint constraint known references kinds, name text)",
        "insert into rows values (1, 'old')",
    ]);
    let message = "error[foreign-key]: step \"out\": cannot load table \"public.rows\": insert or update on table \"rows\" violates foreign key constraint \"known\"";
    for mode in ["append", "delete_insert\nkey = [\"id\"]", MERGE] {
        refused(&warehouse, mode, "id,name\n2,x\n7,y\n", message);
    }
}

#[test]
fn a_key_that_the_table_has_already_is_named() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&["create table rows (id bigint primary key, name text)", "insert into rows values (1, 'old')"]);
    let message = "error[duplicate-key]: step \"out\": cannot load table \"public.rows\": a row with the key (id)=(1) is there already (row 2 of what was sent)";
    refused(&warehouse, "append", "id,name\n2,x\n1,y\n", message);
}

#[test]
fn numbers_that_do_not_fit_are_told() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let make = warehouse.pick(
            "create table rows (id bigint, name text, small smallint)",
            "create table rows (id Int64, name Nullable(String), small Nullable(Int16)) engine = MergeTree order by id",
        );
        warehouse.db.execute(&[make, "insert into rows values (1, 'old', 1)"]);
        warehouse.load("rows", "append", "id,name,small\n2,x,70000\n");
        let message = warehouse.pick(
            "error[column-type]: other types than the table's: column \"small\" (bigint in the rows, smallint in the table)",
            "error[column-type-changed]: other types than the table's: column \"small\" (Int64 in the rows, Nullable(Int16) in the table)",
        );
        warehouse.fails(2, message);
        assert_eq!(warehouse.rows("rows"), "1,old");
        // A decimal that is one number too long for the column, of a type that fits it.
        warehouse.transformed("rows", "append", "select id, name, cast(small as smallint) as small from rows");
        let outcome = warehouse.run();
        assert_eq!(outcome.code, 1, "{outcome}");
        assert_eq!(warehouse.rows("rows"), "1,old");
    }
}

#[test]
fn a_sink_that_fails_keeps_every_other_sink_from_publishing() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'old')");
        warehouse.load("rows", "append", "id,name\n7,x\n,y\n");
        let pipeline = std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap();
        let more = warehouse.sink("other", "rows", "other", "append\non_schema_change = \"ignore\"")
            + "[sink.lake]\nfrom = \"rows\"\nmode = \"append\"\n[sink.lake.lake]\ntable = \"out.rows\"\n";
        warehouse.project.write("pipeline.toml", pipeline + &more);
        let outcome = warehouse.run();
        assert_eq!(outcome.code, 1, "{outcome}");
        warehouse.tidy();
        assert_eq!(warehouse.rows("rows"), "1,old");
        assert!(!warehouse.exists("other"));
        assert_eq!(crate::lake::strays(&warehouse.project.path(".weir/lake")), Vec::<std::path::PathBuf>::new());
        assert!(crate::lake::tables(&warehouse.project.path(".weir/lake")).is_empty());
    }
}

#[test]
fn what_a_second_postgres_table_has_against_its_rows_keeps_the_first_from_publishing() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&[
        "create table first (id bigint, name text)",
        "create table second (id bigint primary key, name text check (name <> 'bad'))",
        "insert into second values (2, 'old')",
    ]);
    let both = |csv: &str| {
        warehouse.load("first", "append", csv);
        let pipeline = std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap();
        let lake = "[sink.lake]\nfrom = \"rows\"\n[sink.lake.lake]\ntable = \"out.rows\"\n";
        warehouse.project.write("pipeline.toml", pipeline + &warehouse.sink("other", "rows", "second", "append") + lake);
    };
    both("id,name\n1,a\n2,b\n");
    warehouse.fails(
        1,
        "error[duplicate-key]: step \"other\": cannot load table \"public.second\": a row with the key (id)=(2) is there already",
    );
    both("id,name\n1,a\n3,bad\n");
    warehouse.fails(1, "error[check-failed]: step \"other\": cannot load table \"public.second\": new row for relation \"second\" violates check constraint \"second_name_check\"");
    assert_eq!((warehouse.rows("first"), warehouse.rows("second")), (String::new(), "2,old".to_owned()));
    assert!(crate::lake::tables(&warehouse.project.path(".weir/lake")).is_empty());
    both("id,name\n1,a\n3,c\n");
    warehouse.runs();
    assert_eq!(
        (warehouse.rows("first"), warehouse.columns("id, name", "second order by id")),
        ("1,a 3,c".to_owned(), "1,a 2,old 3,c".to_owned())
    );
}

#[test]
fn a_parent_and_its_children_may_come_in_one_run() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&[
        "create table parents (id bigint primary key, name text)",
        "create table children (id bigint references parents, name text)",
        "create table strangers (id bigint references parents, name text)",
    ]);
    warehouse.load("parents", "append", "id,name\n1,a\n2,b\n");
    let pipeline = std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap();
    warehouse.project.write("pipeline.toml", pipeline + &warehouse.sink("children", "rows", "children", "append"));
    warehouse.runs();
    assert_eq!((warehouse.rows("parents"), warehouse.rows("children")), ("1,a 2,b".to_owned(), "1,a 2,b".to_owned()));
    // A parent that the run replaces is locked by it until it has published.
    warehouse.db.execute(&["insert into parents values (3, 'old')"]);
    warehouse.load("parents", "delete_insert\nkey = [\"id\"]", "id,name\n3,c\n");
    let pipeline = std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap();
    warehouse.project.write("pipeline.toml", pipeline + &warehouse.sink("children", "rows", "children", "append"));
    warehouse.runs();
    assert_eq!((warehouse.rows("parents"), warehouse.rows("children")), ("1,a 2,b 3,c".to_owned(), "1,a 2,b 3,c".to_owned()));
    // A parent that does not come with the run is missed before anything is published.
    warehouse.db.execute(&["create table first (id bigint, name text)"]);
    warehouse.load("first", "append", "id,name\n1,a\n7,x\n");
    let pipeline = std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap();
    warehouse.project.write("pipeline.toml", pipeline + &warehouse.sink("strangers", "rows", "strangers", "append"));
    let outcome = warehouse.run();
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.says(&["error[foreign-key]: step \"strangers\": cannot load table \"public.strangers\""]);
    warehouse.tidy();
    assert_eq!(warehouse.rows("first"), "");
}
