//! Names that would be something else if they were pasted into SQL: tables, schemas and columns are what they are called.

use super::{BOTH, Warehouse};
use crate::servers::Kind;

const NAMES: [&str; 9] = [
    "x\"; drop table x; --",
    "x'; drop table x; --",
    "x`; drop table x; --",
    "has spaces",
    "MixedCase",
    "dotted.name",
    "it's \\ back\\slashed",
    "größe 漢字",
    "select",
];

/// As SQL of the server's own.
fn sql(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
        Kind::Clickhouse => format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`")),
    }
}

fn as_toml(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[test]
fn tables_and_columns_are_what_they_are_called() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("x", "(1, 'bystander')");
        for name in NAMES {
            // Columns: the id, and one that is called as the table is.
            let header = format!("id,\"{}\"", name.replace('"', "\"\""));
            for (mode, csv, expected) in [
                ("append", "1,a\n", "1,a"),
                ("append", "2,b\n", "1,a 2,b"),
                ("delete_insert\nkey = [\"id\"]", "2,c\n", "1,a 2,c"),
                ("replace", "3,d\n4,e\n", "3,d 4,e"),
            ] {
                let (mode, more) = mode.split_once('\n').unwrap_or((mode, ""));
                warehouse.project.write("rows.csv", format!("{header}\n{csv}"));
                let kind = warehouse.kind.name();
                warehouse.project.write(
                    "pipeline.toml",
                    format!(
                        "weir = 1\nname = \"names\"\n[source.rows.file]\npath = \"rows.csv\"\n[sink.out]\nfrom = \"rows\"\nmode = \"{mode}\"\n{more}\n\
                         [sink.out.{kind}]\nconnection = \"wh\"\ntable = {}\n",
                        as_toml(&sql(warehouse.kind, name))
                    ),
                );
                warehouse.runs();
                let (table, column) = (sql(warehouse.kind, name), sql(warehouse.kind, name));
                let found = warehouse.answers(&format!("select id, {column} as value from {table}")).join(" ");
                assert_eq!(found, expected, "{name}");
            }
            // Merge and snapshot by a key of that name, into tables of their own.
            for mode in ["merge", "snapshot"] {
                let (table, kind) = (format!("{name} {mode}"), warehouse.kind.name());
                for value in ["a", "b"] {
                    warehouse.project.write("rows.csv", format!("id,\"{}\"\n{value},k\n", name.replace('"', "\"\"")));
                    let key = as_toml(name);
                    warehouse.project.write(
                        "pipeline.toml",
                        format!(
                            "weir = 1\nname = \"names\"\n[source.rows.file]\npath = \"rows.csv\"\n[sink.out]\nfrom = \"rows\"\nmode = \"{mode}\"\nkey = [{key}]\n\
                             [sink.out.{kind}]\nconnection = \"wh\"\ntable = {}\n",
                            as_toml(&sql(warehouse.kind, &table))
                        ),
                    );
                    warehouse.runs();
                }
                let last = if (mode, warehouse.kind) == ("merge", Kind::Clickhouse) { " final" } else { "" };
                let found = warehouse.answers(&format!("select id from {}{last}", sql(warehouse.kind, &table))).join(" ");
                assert_eq!(found, if mode == "merge" { "b" } else { "a b" }, "{table}");
            }
            // Read back by the same name.
            let kind = warehouse.kind.name();
            warehouse.project.write(
                "back.toml",
                format!(
                    "weir = 1\nname = \"back\"\n[source.rows.{kind}]\nconnection = \"wh\"\ntable = {}\n[transform.some]\nsql = {}\n\
                     [sink.lake]\nfrom = \"some\"\nmode = \"replace\"\n[sink.lake.lake]\ntable = \"back.rows\"\n",
                    as_toml(&sql(warehouse.kind, name)),
                    as_toml(&format!("select id, \"{0}\" as value from rows where \"{0}\" <> 'd'", name.replace('"', "\"\""))),
                ),
            );
            warehouse.project.run(&["back.toml"]);
            assert_eq!(warehouse.project.sql("select * from lake.back.rows"), ["id,value", "4,e"], "{name}");
        }
        assert_eq!(warehouse.rows("x"), "1,bystander");
    }
}

#[test]
fn a_schema_is_what_it_is_called() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.table("x", "(1, 'bystander')");
    for name in NAMES {
        let schema = format!("in {name}");
        warehouse.load(&format!("{}.{}", sql(warehouse.kind, &schema), sql(warehouse.kind, name)), "append", "id,name\n1,a\n");
        warehouse.runs();
        warehouse.runs();
        let table = format!("{}.{}", sql(Kind::Postgres, &schema), sql(Kind::Postgres, name));
        assert_eq!(warehouse.rows(&table), "1,a 1,a", "{table}");
    }
    assert_eq!(warehouse.rows("x"), "1,bystander");
}

#[test]
fn names_that_cannot_be_are_refused_before_anything_runs() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    let long = "x".repeat(64);
    for (table, message) in [
        ("a.b.c", "\"table\" is not the name of a table: it has more than two parts".to_owned()),
        (".b", "\"table\" is not the name of a table: a part of it is empty".to_owned()),
        (&long, format!("\"table\" is not the name of a table: \"{long}\" is longer than the 63 bytes that Postgres keeps of a name")),
    ] {
        warehouse.load(table, "append", "id,name\n1,a\n");
        let outcome = warehouse.project.weir(&["check", "pipeline.toml"]);
        assert_eq!(outcome.code, 2, "{outcome}");
        assert!(outcome.stderr.contains(&message), "not \"{message}\"\n{outcome}");
    }
    // A column's name that Postgres would cut, and one that it has of itself.
    for (column, why) in
        [(long.as_str(), "has 64 bytes, and Postgres keeps only 63"), ("ctid", "is one that Postgres itself has in every table")]
    {
        warehouse.load("rows", "append", &format!("{column}\n1\n"));
        let outcome = warehouse.run();
        assert!(outcome.code != 0 && outcome.stderr.contains(&format!("the column name \"{column}\" {why}")), "{outcome}");
        assert!(!warehouse.exists("rows"));
    }
}
