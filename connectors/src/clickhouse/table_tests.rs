//! Names, definitions, and how rows meet a table: without a server.

use arrow::datatypes::{Field, TimeUnit};

use super::*;

fn rules(mode: Mode, key: &[&str], on_schema_change: OnSchemaChange) -> Rules {
    rules_with(mode, key, on_schema_change, "")
}

fn rules_with(mode: Mode, key: &[&str], on_schema_change: OnSchemaChange, settings: &str) -> Rules {
    let settings: ClickhouseSink = toml::from_str(&format!("connection = \"olap\"\ntable = \"t\"\n{settings}")).expect("settings");
    let key = key.iter().map(ToString::to_string).collect();
    Rules { step: "out".into(), mode, key, on_schema_change, settings: Arc::new(settings) }
}

fn rows(fields: &[(&str, DataType)]) -> Vec<RowColumn> {
    let fields: Vec<Field> = fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
    columns(&Schema::new(fields), &[]).expect("columns")
}

fn there(columns: &[(&str, &str)], engine: &str, sorting: &[&str]) -> Existing {
    let (engine, arguments, _) = split_engine(engine);
    let column = |(name, column): &(&str, &str)| There {
        name: (*name).to_owned(),
        column: Type::parse(column),
        kind: String::new(),
        partitions: false,
    };
    Existing {
        uuid: "u".into(),
        engine: engine.into(),
        arguments: arguments.into(),
        tail: " ORDER BY tuple()".into(),
        sorting: Some(sorting.iter().map(ToString::to_string).collect()),
        partition_key: String::new(),
        columns: columns.iter().map(column).collect(),
    }
}

const FACTS: Facts = Facts { wide: true, utc: true };

fn refused(rows: &[RowColumn], existing: Option<&Existing>, rules: &Rules) -> (&'static str, String) {
    let error = fit(rows, existing, rules, &FACTS).expect_err("it does not fit");
    (error.code, error.message)
}

#[test]
fn an_engine_is_told_from_what_follows_it() {
    assert_eq!(split_engine("MergeTree ORDER BY a"), ("MergeTree", "", " ORDER BY a"));
    let full = "ReplicatedReplacingMergeTree('/t/(x)', '{replica}', v) PARTITION BY (a) ORDER BY a";
    assert_eq!(split_engine(full), ("ReplicatedReplacingMergeTree", "'/t/(x)', '{replica}', v", " PARTITION BY (a) ORDER BY a"));
    assert_eq!((base_engine("SharedMergeTree"), base_engine("ReplicatedSummingMergeTree")), ("MergeTree", "SummingMergeTree"));
    assert_eq!(plain_columns("a, `b, c`, d_1"), Some(vec!["a".into(), "b, c".into(), "d_1".into()]));
    assert_eq!((plain_columns(""), plain_columns("(id)")), (Some(vec![]), Some(vec!["id".into()])));
    assert_eq!(plain_columns("(a), (b)"), None);
    assert_eq!((plain_columns("a, toDate(b)"), plain_columns("a + 1"), plain_columns("1")), (None, None, None));
}

#[test]
fn an_expression_mentions_the_columns_in_it() {
    for (expression, column, expected) in [
        ("toYYYYMM(at)", "at", true),
        ("toYYYYMM(at)", "to", false),
        ("(a, `b c`)", "b c", true),
        ("if(a = 'at', 1, 2)", "at", false),
        ("größe", "größe", false),
        ("`größe`", "größe", true),
    ] {
        assert_eq!(mentions(expression, column), expected, "{expression} {column}");
    }
}

#[test]
fn a_new_table_has_nullable_columns_except_those_that_order_it() {
    let columns = rows(&[("id", DataType::Int64), ("name", DataType::Utf8), ("at", DataType::Timestamp(TimeUnit::Microsecond, None))]);
    let settings =
        "order_by = [\"name\"]\npartition_by = \"toYYYYMM(at)\"\nttl = \"at + interval 1 year\"\nsettings = { index_granularity = 1024 }";
    let made = fit(&columns, None, &rules_with(Mode::Append, &[], OnSchemaChange::Fail, settings), &FACTS).expect("fits");
    assert_eq!(
        column_list(&made.table, 7),
        "`id` Nullable(Int64), `name` String, `at` DateTime64(6, 'UTC'), _weir_version UInt64 MATERIALIZED 7"
    );
    let new = made.new.expect("a definition");
    assert_eq!(new.engine, "MergeTree");
    assert_eq!(new.tail, " PARTITION BY toYYYYMM(at) ORDER BY (`name`) TTL at + interval 1 year SETTINGS index_granularity = 1024");
    let merged = fit(&columns, None, &rules(Mode::Merge, &["id"], OnSchemaChange::Fail), &FACTS).expect("fits");
    let new = merged.new.expect("a definition");
    assert_eq!((new.engine.as_str(), new.tail.as_str()), ("ReplacingMergeTree(_weir_version)", " ORDER BY (`id`)"));
    let kept = fit(&columns, None, &rules(Mode::Snapshot, &["id"], OnSchemaChange::Fail), &FACTS).expect("fits");
    assert_eq!(kept.table.last().expect("columns").name, IS_CURRENT);
}

#[test]
fn merge_orders_and_partitions_by_its_key_alone() {
    let columns = rows(&[("id", DataType::Int64), ("at", DataType::Date32)]);
    let with = |settings: &str| rules_with(Mode::Merge, &["id"], OnSchemaChange::Fail, settings);
    assert_eq!(
        refused(&columns, None, &with("order_by = [\"at\"]")),
        ("order-by-key", "mode = \"merge\" replaces rows by what the table is ordered by, so order_by has to hold the key \"id\"".into())
    );
    assert_eq!(
        refused(&columns, None, &with("partition_by = \"toYYYYMM(at)\"")),
        (
            "partition-column",
            "mode = \"merge\" cannot partition by \"at\", which is not of the key: a row would not meet its older version".into()
        )
    );
    assert!(fit(&columns, None, &with("partition_by = \"id % 8\""), &FACTS).is_ok());
    assert_eq!(refused(&columns, None, &rules_with(Mode::Append, &[], OnSchemaChange::Fail, "order_by = [\"nix\"]")).0, "unknown-column");
}

#[test]
fn merge_takes_no_other_table_than_one_that_replaces_by_its_key() {
    let columns = rows(&[("id", DataType::Int64), ("v", DataType::Utf8)]);
    let list = [("id", "Int64"), ("v", "Nullable(String)")];
    let merge = rules(Mode::Merge, &["id"], OnSchemaChange::Fail);
    assert!(fit(&columns, Some(&there(&list, "ReplacingMergeTree(_weir_version)", &["id"])), &merge, &FACTS).is_ok());
    for (engine, why) in [
        ("MergeTree", "mode = \"merge\" needs a table of the engine ReplacingMergeTree(_weir_version), and this one is MergeTree"),
        (
            "ReplacingMergeTree",
            "mode = \"merge\" needs a table of the engine ReplacingMergeTree(_weir_version), and this one is ReplacingMergeTree",
        ),
        (
            "ReplacingMergeTree(v)",
            "mode = \"merge\" needs a table of the engine ReplacingMergeTree(_weir_version), and this one is ReplacingMergeTree(v)",
        ),
    ] {
        assert_eq!(refused(&columns, Some(&there(&list, engine, &["id"])), &merge), ("not-a-merge-table", why.into()));
    }
    assert_eq!(
        refused(&columns, Some(&there(&list, "ReplacingMergeTree(_weir_version)", &["id", "v"])), &merge).1,
        "mode = \"merge\" replaces rows by what the table is sorted by, and that is not the key \"id\""
    );
    let mut partitioned = there(&list, "ReplacingMergeTree(_weir_version)", &["id"]);
    partitioned.columns[1].partitions = true;
    assert_eq!(
        refused(&columns, Some(&partitioned), &merge).1,
        "the table is partitioned by \"v\", which is not of the key \"id\": a row would not meet its older version"
    );
    let wider = there(&[("id", "Int64"), ("v", "Nullable(String)"), ("w", "Nullable(Int8)")], "ReplacingMergeTree(_weir_version)", &["id"]);
    assert_eq!(
        refused(&columns, Some(&wider), &rules(Mode::Merge, &["id"], OnSchemaChange::Ignore)).1,
        "mode = \"merge\" puts whole rows in the place of older ones, and the rows have no \"w\""
    );
}

#[test]
fn new_and_missing_columns_are_both_named() {
    let columns = rows(&[("id", DataType::Int64), ("city", DataType::Utf8)]);
    let table = there(&[("id", "Int64"), ("name", "Nullable(String)")], "MergeTree", &[]);
    let error = fit(&columns, Some(&table), &rules(Mode::Append, &[], OnSchemaChange::Fail), &FACTS).expect_err("they differ");
    assert_eq!(error.message, "the table has no column \"city\"; the rows have no column \"name\"");
    assert_eq!((error.code, error.setting.as_deref()), ("columns-differ", Some("on_schema_change")));
    let added = fit(&columns, Some(&table), &rules(Mode::Append, &[], OnSchemaChange::AddColumns), &FACTS).expect("fits");
    assert_eq!(added.added, [Column { name: "city".into(), column: Type::parse("Nullable(String)") }]);
    assert_eq!(names(added.table.iter().map(|column| &column.name)), "\"id\", \"name\", \"city\"");
    let ignored = fit(&columns, Some(&table), &rules(Mode::Append, &[], OnSchemaChange::Ignore), &FACTS).expect("fits");
    assert_eq!((ignored.targets.len(), ignored.added.len()), (1, 0));
    let strict = there(&[("id", "Int64"), ("name", "String")], "MergeTree", &[]);
    assert_eq!(
        refused(&columns, Some(&strict), &rules(Mode::Append, &[], OnSchemaChange::Ignore)).1,
        "the rows have no column \"name\", which the table does not let be null"
    );
}

#[test]
fn replace_keeps_a_table_of_the_same_columns_and_makes_one_of_others_anew() {
    let columns = rows(&[("id", DataType::Int32), ("v", DataType::Utf8)]);
    let replace = rules(Mode::Replace, &[], OnSchemaChange::Fail);
    let same = there(&[("id", "Int64"), ("v", "LowCardinality(Nullable(String))")], "MergeTree", &["id"]);
    assert!(fit(&columns, Some(&same), &replace, &FACTS).expect("fits").new.is_none());
    let other = there(&[("id", "String"), ("w", "Int8")], "MergeTree", &["id"]);
    let made = fit(&columns, Some(&other), &replace, &FACTS).expect("fits");
    assert_eq!(made.new.expect("a definition").tail, " ORDER BY (`id`)");
    assert_eq!(column_list(&made.table, 1), "`id` Int32, `v` Nullable(String), _weir_version UInt64 MATERIALIZED 1");
}

#[test]
fn a_changed_type_is_named_with_both_types() {
    let columns = rows(&[("id", DataType::Float64)]);
    let table = there(&[("id", "Int64")], "MergeTree", &[]);
    for change in [OnSchemaChange::Fail, OnSchemaChange::AddColumns, OnSchemaChange::Ignore] {
        assert_eq!(
            refused(&columns, Some(&table), &rules(Mode::Append, &[], change)),
            ("column-type-changed", "other types than the table's: column \"id\" (Float64 in the rows, Int64 in the table)".into())
        );
    }
}

#[test]
fn keys_are_checked_before_anything_is_written() {
    let columns = rows(&[("id", DataType::Float64), ("name", DataType::Utf8)]);
    let keyed = |key: &str| rules(Mode::DeleteInsert, &[key], OnSchemaChange::Fail);
    assert_eq!(
        refused(&columns, None, &keyed("id")),
        ("key-type", "column \"id\" cannot be a key: it is a floating-point number, and two of them are seldom equal".into())
    );
    assert_eq!(refused(&columns, None, &keyed("nix")), ("unknown-column", "no column \"nix\" in the rows of sink \"out\"".into()));
}

#[test]
fn a_column_that_cannot_be_written_is_named() {
    let one = |data_type: DataType, name: &str, lossy: &[String]| columns(&Schema::new(vec![Field::new(name, data_type, true)]), lossy);
    let error = one(DataType::Time32(TimeUnit::Second), "at", &[]).expect_err("lossy");
    assert_eq!(error.message, "writing would lose something of column \"at\" (Time32(s) to String: a time of day becomes text)");
    assert_eq!(error.help.as_deref(), Some("cast in a transform, or accept it: allow_lossy = [\"at\"]"));
    assert!(one(DataType::Time32(TimeUnit::Second), "at", &["at".into()]).is_ok());
    let error = one(DataType::Struct(arrow::datatypes::Fields::empty()), "s", &[]).expect_err("no type");
    assert_eq!((error.code, error.message.starts_with("column \"s\" has the type Struct")), ("unsupported-type", true));
    assert_eq!(one(DataType::Int8, VERSION, &[]).expect_err("reserved").code, "reserved-column");
    let versions = rows(&[("id", DataType::Int8), (VALID_TO, DataType::Int8)]);
    assert_eq!(
        refused(&versions, None, &rules(Mode::Snapshot, &["id"], OnSchemaChange::Fail)).1,
        "column \"valid_to\" is one that mode = \"snapshot\" makes itself"
    );
}

#[test]
fn snapshot_and_replicated_tables_know_their_limits() {
    let columns = rows(&[("id", DataType::Int64)]);
    let snapshot = rules(Mode::Snapshot, &["id"], OnSchemaChange::Fail);
    let table = there(&[("id", "Int64")], "MergeTree", &[]);
    assert_eq!(
        refused(&columns, Some(&table), &snapshot),
        ("not-a-snapshot", "the table has no column \"valid_from\" of type DateTime64(6, 'UTC')".into())
    );
    let replicated = there(&[("id", "Int64")], "ReplicatedMergeTree", &[]);
    assert_eq!(
        refused(&columns, Some(&replicated), &rules(Mode::Replace, &[], OnSchemaChange::Fail)).1,
        "mode = \"replace\" cannot load the table, whose engine is ReplicatedMergeTree"
    );
    assert!(fit(&columns, Some(&replicated), &rules(Mode::Append, &[], OnSchemaChange::Fail), &FACTS).is_ok());
}
