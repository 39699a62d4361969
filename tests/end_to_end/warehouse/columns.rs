//! Tables whose columns are not the rows': every kind of difference under every `on_schema_change`.

use super::{BOTH, Warehouse};

const ROWS: &str = "id,name,more\n2,b,x\n";

fn with(change: &str) -> String {
    format!("append\non_schema_change = \"{change}\"")
}

#[test]
fn a_column_that_the_table_lacks_fails_is_added_or_is_left_out() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'a')");
        warehouse.load("rows", &with("fail"), ROWS);
        let told = warehouse.fails(2, "error[columns-differ]: the table has no column \"more\"");
        told.says(&["on_schema_change = \"add_columns\" (or \"ignore\")"]);
        assert_eq!(warehouse.rows("rows"), "1,a");
        warehouse.load("rows", &with("ignore"), ROWS);
        warehouse.runs();
        assert_eq!(warehouse.rows("rows"), "1,a 2,b");
        warehouse.load("rows", &with("add_columns"), "id,name,more\n3,c,x\n");
        let plan = warehouse.project.ok(&["plan", "pipeline.toml"]);
        let ddl = warehouse.pick(
            "alter table \"public\".\"rows\" add column \"more\" text".to_owned(),
            format!("alter table `{}`.`rows` add column if not exists `more` Nullable(String)", warehouse.db.name),
        );
        assert!(plan.stdout.to_lowercase().contains(&ddl.to_lowercase()), "the plan does not say: {ddl}\n{plan}");
        assert_eq!(warehouse.rows("rows"), "1,a 2,b", "a plan changed the table");
        warehouse.runs();
        assert_eq!(warehouse.columns("id, name, more", "rows"), "1,a, 2,b, 3,c,x");
        // The same again adds nothing more.
        warehouse.runs();
        assert_eq!(warehouse.columns("id, name, more", "rows"), "1,a, 2,b, 3,c,x 3,c,x");
    }
}

#[test]
fn a_column_that_the_rows_lack_fails_or_is_null() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'a')");
        warehouse.load("rows", &with("fail"), "id\n2\n");
        warehouse.fails(2, "error[columns-differ]: the rows have no column \"name\"");
        assert_eq!(warehouse.rows("rows"), "1,a");
        for change in ["ignore", "add_columns"] {
            warehouse.load("rows", &with(change), "id\n2\n");
            warehouse.runs();
        }
        assert_eq!(warehouse.rows("rows"), "1,a 2, 2,");
        // One that must not be null is an error under each.
        for change in ["fail", "ignore", "add_columns"] {
            warehouse.load("rows", &with(change), "name\nc\n");
            let message = match (change, kind) {
                ("fail", _) => "error[columns-differ]: the rows have no column \"id\"",
                (_, crate::servers::Kind::Postgres) => {
                    "error[columns-differ]: the rows have no column \"id\", which the table does not let be null and has no default for"
                }
                _ => "error[columns-differ]: the rows have no column \"id\", which the table does not let be null",
            };
            warehouse.fails(2, message);
            assert_eq!(warehouse.rows("rows"), "1,a 2, 2,");
        }
    }
}

#[test]
fn a_column_of_another_type_fails_and_is_named_with_both_types() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'a')");
        for change in ["fail", "ignore", "add_columns"] {
            warehouse.load("rows", &with(change), "id,name\nx,b\n");
            let message = warehouse.pick(
                "error[column-type]: other types than the table's: column \"id\" (text in the rows, bigint in the table)",
                "error[column-type-changed]: other types than the table's: column \"id\" (String in the rows, Int64 in the table)",
            );
            warehouse.fails(2, message);
            assert_eq!(warehouse.rows("rows"), "1,a");
        }
        // A narrower type fits a wider one, as it is.
        warehouse.load("rows", "append", "id,name\n3,c\n");
        warehouse.transformed("rows", "append", "select arrow_cast(id, 'Int16') as id, name from rows");
        warehouse.runs();
        assert_eq!(warehouse.rows("rows"), "1,a 3,c");
    }
}

#[test]
fn a_table_that_is_no_table_is_refused() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'a')");
        warehouse.db.execute(&["create view seen as select * from rows"]);
        warehouse.load("seen", "append", "id,name\n2,b\n");
        let message = warehouse.pick(
            "error[not-a-table]: \"public.seen\" is a view, which rows cannot be loaded into",
            "error[table-engine]: table \"<db>.seen\" has the engine View, which cannot be loaded",
        );
        warehouse.fails(2, message);
        assert_eq!(warehouse.rows("rows"), "1,a");
    }
}

#[test]
fn a_schema_or_database_that_is_missing_is_made_or_named() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        let absent = format!("absent_{}", warehouse.db.name);
        warehouse.load(&format!("{absent}.rows"), "append", "id,name\n1,a\n");
        let outcome = warehouse.run();
        match kind {
            // A schema is part of the database that the connection names.
            crate::servers::Kind::Postgres => {
                assert_eq!(outcome.code, 0, "{outcome}");
                assert_eq!(warehouse.rows(&format!("{absent}.rows")), "1,a");
            }
            crate::servers::Kind::Clickhouse => {
                warehouse.says(&outcome, 2, "error[unknown-database]: there is no database \"absent_<db>\"")
            }
        }
        warehouse.tidy();
    }
}
