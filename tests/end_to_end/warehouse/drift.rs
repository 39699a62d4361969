//! Tables that somebody alters between two runs: what the source's words make of it, and that nothing is asked of the server twice for it.

use super::{BOTH, Warehouse};
use crate::servers::Kind;

impl Warehouse {
    /// Writes a pipeline that appends the table `rows` to `lake.out.rows`, and reads it once. `more`: settings of the step.
    fn follow(&self, more: &str) {
        let kind = self.kind.name();
        self.project.write(
            "drift.toml",
            format!(
                "weir = 1\nname = \"drift\"\n[source.rows]\n{more}\n[source.rows.{kind}]\nconnection = \"wh\"\ntable = \"rows\"\n\
                 [sink.lake]\nfrom = \"rows\"\nmode = \"append\"\non_schema_change = \"add_columns\"\n[sink.lake.lake]\ntable = \"out.rows\"\n"
            ),
        );
        self.project.run(&["drift.toml"]);
    }

    /// The sentences about drift of a plan, which the run after it says too.
    fn drifts(&self) -> Vec<String> {
        let lines =
            |text: &str| -> Vec<String> { text.lines().filter_map(|line| line.strip_prefix("  drift: ")).map(str::to_owned).collect() };
        let planned = self.project.weir(&["plan", "drift.toml"]);
        assert_eq!(planned.code, 0, "{planned}");
        let ran = self.project.weir(&["run", "drift.toml"]);
        assert_eq!(ran.code, 0, "{ran}");
        assert_eq!(lines(&planned.stdout), lines(&ran.stdout));
        lines(&ran.stdout)
    }

    fn altered(&self, postgres: &[&str], clickhouse: &[&str]) {
        self.db.execute(self.pick(postgres, clickhouse));
    }
}

#[test]
fn a_table_that_gains_a_column_is_followed_or_kept() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'a')");
        warehouse.follow("");
        let add = warehouse.pick("alter table rows add note text default 'new'", "alter table rows add column note String default 'new'");
        warehouse.db.execute(&[add]);
        assert_eq!(warehouse.drifts(), ["\"rows\" has a new column \"note\" (Utf8): it is added"]);
        assert_eq!(warehouse.drifts(), [""; 0]);
        assert_eq!(
            warehouse.project.sql("select id, name, note from lake.out.rows order by note").split_off(1),
            ["1,a,", "1,a,new", "1,a,new"]
        );

        // Left out, the column is not read at all.
        let more = warehouse.pick("alter table rows add more bigint default 5", "alter table rows add column more Int64 default 5");
        warehouse.db.execute(&[more]);
        let ignored = warehouse.project.weir(&["run", "--json", "drift.toml", "--set", "source.rows.on_new_column=ignore"]);
        ignored.says(&["\"rows\" has a new column \"more\" (Int64): it is left out"]);
        let aside = warehouse.project.weir(&["run", "--json", "drift.toml", "--set", "source.rows.on_new_column=quarantine"]);
        assert_eq!(aside.code, 1, "{aside}");
        for words in ["1 of 1 rows are invalid", "is a new column and holds"] {
            assert!(aside.stdout.contains(words), "{aside}");
        }
        let failed = warehouse.project.weir(&["run", "drift.toml", "--set", "source.rows.on_new_column=fail"]);
        assert_eq!(failed.code, 2, "{failed}");
        failed
            .says(&["error[new-column]: source \"rows\" has a new column \"more\" (Int64)", "the last published run had: id, name, note"]);
    }
}

#[test]
fn a_table_that_loses_a_column_is_followed_or_kept() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(1, 'a')");
        warehouse.follow("on_missing_column = \"null\"");
        warehouse.altered(&["alter table rows drop column name"], &["alter table rows drop column name"]);
        assert_eq!(warehouse.drifts(), ["\"rows\" lacks the column \"name\" (Utf8): it is null in every row"]);
        assert_eq!(warehouse.drifts(), [""; 0]);
        assert_eq!(warehouse.project.sql("select id, name from lake.out.rows order by name").split_off(1), ["1,", "1,", "1,a"]);
        let failed = warehouse.project.weir(&["run", "drift.toml", "--set", "source.rows.on_missing_column=fail"]);
        assert_eq!(failed.code, 2, "{failed}");
        failed.says(&["error[missing-column]: source \"rows\" lacks the column \"name\" (Utf8), which its last published run had"]);
        warehouse.follow("");
        assert_eq!(warehouse.drifts(), [""; 0], "it was let go by the run before");
    }
}

#[test]
fn a_column_that_takes_another_type_is_widened_or_kept() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.db.execute(&[
            warehouse
                .pick("create table rows (id bigint, size int)", "create table rows (id Int64, size Int32) engine = MergeTree order by id"),
            "insert into rows values (1, 5)",
        ]);
        warehouse.follow("on_type_change = \"quarantine\"");
        warehouse.altered(
            &["alter table rows alter column size type bigint", "insert into rows values (2, 9000000000)"],
            &["alter table rows modify column size Int64", "insert into rows values (2, 9000000000)"],
        );
        assert_eq!(warehouse.drifts(), ["\"size\" of \"rows\" was Int32 and is Int64: rows whose value is not Int32 are set aside"]);
        let aside = warehouse.project.sql("select code, \"column\" from quarantine.drift.rows").split_off(1);
        assert_eq!(aside, ["type-change,size"]);
        assert_eq!(warehouse.project.sql("select id, size from lake.out.rows order by id").split_off(1), ["1,5", "1,5"]);
        let failed = warehouse.project.weir(&["run", "drift.toml", "--set", "source.rows.on_type_change=fail"]);
        assert_eq!(failed.code, 2, "{failed}");
        failed.says(&["error[type-change]: column \"size\" of source \"rows\" was Int32 and is Int64"]);
        // Widened, its rows are the source's; that the table in the lake holds narrower ones is the sink's to say.
        let refused = warehouse.project.weir(&["run", "drift.toml", "--set", "source.rows.on_type_change=widen"]);
        assert_eq!(refused.code, 2, "{refused}");
        refused.says(&["\"size\" of \"rows\" was Int32 and is Int64: it becomes Int64", "error[column-type-changed]"]);
    }
}

#[test]
fn a_source_that_has_not_drifted_still_leaves_columns_and_filters_to_the_server() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.table("rows", "(1, 'a'), (2, 'b')");
    warehouse.read("table = \"rows\"", "on_new_column = \"ignore\"\non_type_change = \"quarantine\"", "select id from rows where id = 2");
    warehouse.project.run(&["read.toml"]);
    // Left out, a column costs no more: what is read is what SQL asks for.
    warehouse.db.execute(&["alter table rows add note text default 'new'"]);
    for _ in 0..2 {
        let ran = warehouse.project.run(&["read.toml"]);
        assert_eq!((&ran["rows_read"], &ran["rows_loaded"]), (&1.into(), &1.into()), "{ran}");
    }
}

#[test]
fn a_cursor_goes_on_where_its_source_keeps_a_type_and_not_where_rows_cannot_be_known_again() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.db.execute(&["create table rows (id bigint not null, size int)", "insert into rows values (1, 5), (2, 6)"]);
    warehouse.follow("incremental = { cursor = \"id\" }\non_missing_column = \"null\"\non_type_change = \"quarantine\"");
    warehouse.db.execute(&["alter table rows alter column size type bigint", "insert into rows values (3, 7), (4, 9000000000)"]);
    let ran = warehouse.project.run(&["drift.toml"]);
    assert_eq!((&ran["rows_loaded"], &ran["rows_quarantined"]), (&1.into(), &1.into()), "{ran}");
    assert_eq!(ran["drift"][0]["action"], "quarantine", "{ran}");
    assert_eq!(warehouse.in_lake("id, size"), "1,5 2,6 3,7");
    // Without its size, the last row would be taken for another one, and loaded twice.
    warehouse.db.execute(&["alter table rows drop column size", "insert into rows values (10)"]);
    for word in ["null", "remove"] {
        let refused = warehouse.project.weir(&["run", "drift.toml", "--set", &format!("source.rows.on_missing_column={word}")]);
        assert_eq!(refused.code, 2, "{refused}");
        refused.says(&["error[cursor-changed]: column \"size\" is gone, without which rows loaded before cannot be known again"]);
    }
    assert_eq!(warehouse.in_lake("id, size"), "1,5 2,6 3,7");
}

#[test]
fn a_cursor_does_not_go_on_without_a_column_that_its_contract_declares() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.table("rows", "(1, 'a'), (2, 'b')");
    let contract = r#"{"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}"#;
    warehouse.project.write("row.schema.json", contract);
    warehouse.follow("incremental = { cursor = \"id\" }\ncontract = \"row.schema.json\"");
    warehouse.db.execute(&["alter table rows drop column name"]);
    let refused = warehouse.project.weir(&["run", "drift.toml"]);
    assert_eq!(refused.code, 2, "{refused}");
    refused.says(&["error[cursor-changed]: column \"name\" is gone, without which rows loaded before cannot be known again"]);
    assert_eq!(warehouse.in_lake("id, name"), "1,a 2,b");
}
