//! Tests of `parse.rs` and its parts: each message word for word (`golden/`), what a right file becomes, and that no text panics.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    cron::{CatchUp, Overlap, Retry},
    golden::{check, render},
    pipeline::{Expected, Incremental, Keep, Measure, Mode, OnInvalid, OnSchemaChange, Operator, Reference, ShareMax},
    test::{Given, GivenRows, Literal, Moment, Row, Rows, StepRows, Test},
};

const KINDS: Vocabulary<'_> = Vocabulary {
    sources: &["file", "postgres", "http"],
    sinks: &["file", "lake", "postgres", "clickhouse"],
    connections: &["crm", "warehouse", "olap"],
    profiles: &["servers"],
    check_source: |_| Vec::new(),
    check_sink: |_| Vec::new(),
};

/// The file of the design, whole.
const DESIGN: &str = r#"
#:schema ../../schemas/pipeline.schema.json
weir = 1
name = "flights"
description = "Delays of flights out of New York, by carrier"
owner = "data@example.com"
tags = ["demo"]

[schedule]
cron = "15 6 * * *"
timezone = "America/New_York"
catch_up = "latest"
overlap = "skip"
after = ["airports"]
timeout = "30m"
[schedule.retry]
attempts = 3
backoff = "30s"
backoff_max = "10m"

[source.flights]
contract = "../../schemas/flight.schema.json"
on_invalid = "quarantine"
max_invalid = "1%"
[source.flights.file]
path = "data/flights/*.csv.gz"
format = "csv"
csv.null = ["NA"]

[source.planes]
incremental = { cursor = "updated_at", lag = "10m", start = "2013-01-01T00:00:00Z" }
[source.planes.postgres]
connection = "crm"
table = "public.planes"

[transform.latest]
from = "delays"
deduplicate = { key = ["time_hour", "carrier", "flight"], keep = "last", order_by = ["dep_delay"] }

[transform.delays]
sql = """
select f.time_hour, f.carrier, f.flight, f.origin, f.dest, f.dep_delay, p.manufacturer
from flights f left join planes p on p.tailnum = f.tailnum
where f.dep_delay is not null
"""

[[expect]]
on = "latest"
name = "every carrier is known"
sql = "select * from latest where carrier is null"
severity = "error"

[sink.lake]
from = "latest"
mode = "append"
[sink.lake.lake]
table = "flights.delays"

[sink.warehouse]
from = "latest"
mode = "merge"
key = ["time_hour", "carrier", "flight"]
on_schema_change = "add_columns"
[sink.warehouse.postgres]
connection = "warehouse"
table = "analytics.delays"

[sink.olap]
from = "latest"
mode = "append"
[sink.olap.clickhouse]
connection = "olap"
table = "delays"
order_by = ["carrier", "time_hour"]

[[test]]
name = "a flight without a departure delay is left out"
[test.given]
flights = [{ carrier = "UA", flight = 1, dep_delay = 4 }, { carrier = "UA", flight = 2 }]
planes = []
[test.expect]
delays = [{ carrier = "UA", flight = 1, dep_delay = 4 }]
"#;

fn read(text: &str, overrides: &[(&str, &str)]) -> Result<Pipeline, Diagnostics> {
    let overrides: Vec<(String, String)> = overrides.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect();
    parse(SourceFile::new("pipeline.toml", text), "pipelines/flights".into(), &overrides, KINDS)
}

/// A small right file with `more` in it.
fn small(more: &str) -> String {
    format!("weir = 1\nname = \"p\"\n[source.a.file]\n{more}\n[sink.z]\nfrom = \"a\"\n[sink.z.lake]\n")
}

fn transform(operator: &str) -> Operator {
    let text = format!("weir = 1\nname = \"p\"\n[source.a.file]\n[transform.t]\n{operator}\n[sink.z]\nfrom = \"t\"\n[sink.z.lake]\n");
    let pipeline = read(&text, &[]).unwrap_or_else(|found| panic!("{}", render(&found)));
    pipeline.transforms[0].operator.clone()
}

#[test]
fn every_mistake_has_its_words() {
    for file in ["golden/pipeline.txt", "golden/expect.txt"] {
        check(file, |text| match read(text, &[]) {
            Ok(pipeline) => format!("right\n{}", render(&pipeline.warnings)),
            Err(found) => render(&found),
        });
    }
}

#[test]
fn the_file_of_the_design_is_read_whole() {
    let pipeline = read(DESIGN, &[]).unwrap_or_else(|found| panic!("{}", render(&found)));
    assert_eq!(render(&pipeline.warnings), "");
    assert_eq!((pipeline.name.value.as_str(), pipeline.owner.as_deref(), pipeline.tags.len()), ("flights", Some("data@example.com"), 1));
    let schedule = pipeline.schedule.expect("a schedule");
    assert_eq!(schedule.cron.as_ref().map(|cron| cron.text()), Some("15 6 * * *"));
    assert_eq!((schedule.timezone, schedule.catch_up, schedule.overlap), (chrono_tz::America::New_York, CatchUp::Latest, Overlap::Skip));
    assert_eq!((schedule.after[0].value.as_str(), schedule.timeout), ("airports", Some(Duration::from_secs(1800))));
    assert_eq!(schedule.retry, Some(Retry { attempts: 3, backoff: Duration::from_secs(30), backoff_max: Duration::from_secs(600) }));
    let [flights, planes] = pipeline.sources.as_slice() else { panic!("two sources") };
    assert_eq!(
        (flights.name.value.as_str(), flights.settings.kind.value.as_str(), planes.name.value.as_str()),
        ("flights", "file", "planes")
    );
    assert_eq!((flights.rules.on_invalid, flights.rules.max_invalid), (OnInvalid::Quarantine, Some(ShareMax::Share(0.01))));
    assert_eq!(&DESIGN[flights.settings.span_of("csv.null")], "[\"NA\"]");
    let cursor =
        Incremental::Cursor { column: "updated_at".into(), lag: Duration::from_secs(600), start: Some("2013-01-01T00:00:00Z".into()) };
    assert_eq!(planes.incremental.as_ref().map(|incremental| &incremental.value), Some(&cursor));
    let transforms: Vec<&str> = pipeline.transforms.iter().map(|transform| transform.name.value.as_str()).collect();
    assert_eq!(transforms, ["delays", "latest"], "each after what it reads");
    let inputs: Vec<&str> = pipeline.transforms[0].inputs.iter().map(|input| input.value.as_str()).collect();
    assert_eq!(inputs, ["flights", "planes"]);
    assert_eq!(&DESIGN[pipeline.transforms[0].inputs[1].span.clone()], "planes");
    assert!(matches!(pipeline.expectations[0].expected, Expected::NoRows(_)) && pipeline.expectations[0].stops);
    let [lake, warehouse, _] = pipeline.sinks.as_slice() else { panic!("three sinks") };
    assert_eq!((lake.mode.value, lake.on_schema_change, lake.key.len()), (Mode::Append, OnSchemaChange::Fail, 0));
    assert_eq!((warehouse.mode.value, warehouse.on_schema_change, warehouse.key.len()), (Mode::Merge, OnSchemaChange::AddColumns, 3));
    assert_eq!(pipeline.tests.len(), 1);
    let test = &pipeline.tests[0];
    assert_eq!(test.name.value, "a flight without a departure delay is left out");
    assert!(matches!(&test.given[0].rows, GivenRows::Rows(rows) if rows.len() == 2 && rows[1].cells.len() == 2));
    assert_eq!((test.given[1].step.value.as_str(), test.expect[0].rows.listed().len(), test.fails.is_none()), ("planes", 1, true));
}

#[test]
fn operators_have_their_defaults() {
    let Operator::Deduplicate { keep: Keep::Any, order_by, .. } = transform("from = 'a'\ndeduplicate = { key = ['id'] }") else { panic!() };
    assert!(order_by.is_empty());
    let text = "from = 'a'\ndeduplicate = { key = ['id'], order_by = ['b desc', 'a day', ' c  ASC '] }";
    let Operator::Deduplicate { keep: Keep::First, order_by, .. } = transform(text) else { panic!() };
    let order: Vec<_> = order_by.iter().map(|key| (key.column.value.as_str(), key.descending)).collect();
    assert_eq!(order, [("b", true), ("a day", false), ("c", false)]);
    let Operator::Flatten { separator, array: None } = transform("from = 'a'\nflatten = {}") else { panic!() };
    assert_eq!(separator, "_");
    let text = "from = 'a'\nflatten = { separator = '.', array = 'items', key = ['id'], position = 'n' }";
    let Operator::Flatten { array: Some(array), .. } = transform(text) else { panic!() };
    assert_eq!((array.column.value.as_str(), array.key.len(), array.position.map(|n| n.value).as_deref()), ("items", 1, Some("n")));
    let Operator::Cast(types) = transform("from = 'a'\n[transform.t.cast]\nz = 'bigint'\na = 'decimal(10, 2)'") else { panic!() };
    assert_eq!(types.iter().map(|(column, _)| column.value.as_str()).collect::<Vec<_>>(), ["z", "a"], "in the order written");
    assert!(matches!(transform("from = 'a'\nselect = ['x']"), Operator::Select(columns) if columns[0].value == "x"));
    assert!(
        matches!(transform("from = 'a'\nrename = { x = 'y' }"), Operator::Rename(names) if names[0].0.value == "x" && names[0].1.value == "y")
    );
    assert!(matches!(transform("from = 'a'\nfilter = 'x > 0'"), Operator::Filter(sql) if sql.text == "x > 0"));
}

#[test]
fn every_kind_of_expectation_is_read() {
    let tables = [
        "accepted_values = { column = 's', values = ['x', 0x10, 1_0.5, true, 2026-01-31, 2026-01-31 06:00:00Z, 06:00:00] }",
        "foreign_key = { columns = ['x', 'y'], references = 'a', to = ['v', 'w'] }",
        "foreign_key = { columns = ['x'], references = 'lake.shop.orders' }",
        "freshness = { column = 'at', max_age = '1d12h' }",
        "change = { of = ' row_count ' }",
        "change = { of = 'sum(x)', z_max = 2, runs = 4 }",
    ];
    let text = tables.map(|table| format!("[[expect]]\non = 'a'\n{table}\n")).concat();
    let pipeline = read(&small(&text), &[]).unwrap_or_else(|found| panic!("{}", render(&found)));
    let names: Vec<&str> = pipeline.expectations.iter().map(|expectation| expectation.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "accepted values: s",
            "foreign key: x, y in a",
            "foreign key: x in lake.shop.orders",
            "fresh: at within 1d12h",
            "change of row_count",
            "change of sum(x)"
        ]
    );
    let [values, step, lake, fresh, count, sum] = pipeline.expectations.as_slice() else { panic!("six") };
    let Expected::AcceptedValues { values, .. } = &values.expected else { panic!("values") };
    let values: Vec<String> = values.iter().map(|value| value.value.to_string()).collect();
    assert_eq!(values, ["\"x\"", "16", "10.5", "true", "2026-01-31", "2026-01-31T06:00:00Z", "06:00:00"]);
    assert!(matches!(&step.expected, Expected::ForeignKey { references: Reference::Step(_), to, .. } if to[1].value == "w"));
    assert!(matches!(&lake.expected, Expected::ForeignKey { references: Reference::Lake { schema, table, .. }, to, .. }
        if schema == "shop" && table == "orders" && to[0].value == "x"));
    assert!(matches!(fresh.expected, Expected::Freshness { age_max, .. } if age_max == Duration::from_secs(36 * 3600)));
    assert!(matches!(count.expected, Expected::Change { of: Measure::RowCount, z_max: 3.5, runs: 20, runs_min: 5 }));
    assert!(matches!(&sum.expected, Expected::Change { of: Measure::Aggregate(_), z_max: 2.0, runs: 4, runs_min: 4 }));
}

#[test]
fn expectations_have_their_defaults() {
    let text = small("[[expect]]\non = 'a'\nrow_count.min = 3\n[[expect]]\non = 'a'\nunique = ['x', 'y']\nseverity = 'warn'");
    let pipeline = read(&text, &[]).unwrap_or_else(|found| panic!("{}", render(&found)));
    let [count, unique] = pipeline.expectations.as_slice() else { panic!("two") };
    assert!(matches!(count.expected, Expected::RowCount { min: 3, max: None }) && count.stops && count.name == "at least 3 rows");
    assert!(matches!(&unique.expected, Expected::Unique(columns) if columns.len() == 2) && !unique.stops && unique.name == "unique: x, y");
}

#[test]
fn set_takes_toml_or_bare_text() {
    let text = small("path = 'a.csv'\n[schedule]\nevery = '1h'");
    let overrides = [("source.a.file.path", "b.csv"), ("sink.z.mode", "replace"), ("tags", "['x']"), ("source.a.max_invalid", "5")];
    let pipeline = read(&text, &overrides).unwrap_or_else(|found| panic!("{}", render(&found)));
    assert_eq!(pipeline.sinks[0].mode.value, Mode::Replace);
    assert_eq!(pipeline.tags, ["x"]);
    assert_eq!(pipeline.sources[0].rules.max_invalid, Some(ShareMax::Rows(5)));
    assert_eq!(pipeline.sources[0].settings.table().get("path").and_then(|path| path.get_ref().as_str()), Some("b.csv"));
}

#[test]
fn a_wrong_set_is_told_with_what_it_gave() {
    let text = small("[schedule]\nevery = '1h'");
    let found = read(&text, &[("schedule.every", "soon"), ("schedule.overlap", "run"), ("ownr", "me"), ("a..b", "1")]).expect_err("wrong");
    assert_eq!(
        render(&found),
        r#"error[bad-override]: "a..b" is not a dotted path of keys, such as "sink.lake.mode"
error[unknown-key]: a pipeline has no key "ownr"
  1:1 "": not a key
  = help: did you mean "owner"?
  = help: keys are: weir, name, description, owner, tags, extends, params, matrix, schedule, trigger, source, transform, sink, expect, test
  = help: --set gave "ownr" the value "me"
error[unknown-word]: "overlap" cannot be "run"
  1:1 "": not known
  = help: words are: skip, queue, cancel
  = help: --set gave "schedule.overlap" the value "run"
error[bad-duration]: "soon" is not a duration: write one such as 500ms, 90s, 10m, 1h30m or 2d
  5:9 "'1h'"
  = help: --set gave "schedule.every" the value "soon"
"#
    );
}

#[test]
fn sql_from_the_command_line_is_told_as_a_whole() {
    let text = "weir = 1\nname = 'p'\n[source.a.file]\n[transform.t]\nsql = 'select 1 from a'\n[sink.z]\nfrom = 't'\n[sink.z.lake]\n";
    let found = read(text, &[("transform.t.sql", "select * from b")]).expect_err("wrong");
    assert!(render(&found).starts_with(
        "error[unknown-step]: transform \"t\" reads \"b\", which does not exist\n  5:7 \"'select 1 from a'\": no such step\n"
    ));
}

#[test]
fn a_file_without_known_kinds_has_none() {
    let none = Vocabulary { sources: &[], sinks: &[], connections: &[], ..KINDS };
    let found = parse(SourceFile::new("p.toml", small("")), "".into(), &[], none).expect_err("wrong");
    assert_eq!(found.iter().map(|found| found.code).collect::<Vec<_>>(), ["unknown-kind", "unknown-kind"]);
}

fn cell() -> impl Strategy<Value = Literal> {
    let leaf = prop_oneof![
        any::<String>().prop_map(Literal::Text),
        any::<i64>().prop_map(|number| Literal::Integer(number.into())),
        any::<f64>().prop_filter("NaN is not itself", |number| !number.is_nan()).prop_map(Literal::Float),
        any::<bool>().prop_map(Literal::Boolean),
        Just(Literal::Moment(Moment::Instant("2026-01-31T10:00:00.000001Z".into()))),
        Just(Literal::Moment(Moment::Date("0001-01-01".into()))),
    ];
    let place = |value: Literal| Spanned::new(value, 0..0);
    leaf.prop_recursive(2, 8, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone().prop_map(place), 0..4).prop_map(Literal::List),
            prop::collection::btree_map(any::<String>(), inner.prop_map(place), 0..4)
                .prop_map(|cells| Literal::Record(cells.into_iter().map(|(name, value)| (Spanned::new(name, 0..0), value)).collect())),
        ]
    })
}

/// A value without its places, keys sorted.
fn bare(value: &Literal) -> Literal {
    match value {
        Literal::List(items) => Literal::List(items.iter().map(|item| Spanned::new(bare(&item.value), 0..0)).collect()),
        Literal::Record(cells) => {
            let mut cells: Vec<_> = cells
                .iter()
                .map(|(name, value)| (Spanned::new(name.value.clone(), 0..0), Spanned::new(bare(&value.value), 0..0)))
                .collect();
            cells.sort_by(|(a, _), (b, _)| a.value.cmp(&b.value));
            Literal::Record(cells)
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn a_test_that_was_written_reads_the_same(values in prop::collection::vec(cell(), 0..5), name in "[a-z].{0,20}", remark in any::<String>()) {
        let place = |text: &str| Spanned::new(text.to_owned(), 0..0);
        let rows: Vec<Row> =
            values.iter().map(|value| Row { span: 0..0, cells: vec![(place("x y"), Spanned::new(value.clone(), 0..0))] }).collect();
        let columns = [("x y".to_owned(), place("text"))].into_iter().collect();
        let typed = Given { step: place("a"), rows: GivenRows::Typed { columns, rows: rows.clone() } };
        let test = Test {
            name: place(&name), span: 0..0, given: vec![typed], expect: vec![
                StepRows { step: place("a"), of: "a".to_owned(), rows: Rows::Any(rows.clone()) },
                StepRows { step: place("z"), of: "a".to_owned(), rows: Rows::Ordered(rows) },
            ],
            quarantine: vec![], fails: None, now: None, interval: None, params: vec![], made: None,
        };
        let text = format!("{}\n{}", small(""), test.to_toml(&[remark]));
        let pipeline = read(&text, &[]).unwrap_or_else(|found| panic!("{text}\n{}", render(&found)));
        let found = &pipeline.tests[0];
        prop_assert_eq!(&found.name.value, &name);
        let GivenRows::Typed { rows: given, .. } = &found.given[0].rows else { panic!("typed") };
        prop_assert_eq!(&found.expect[1].of, "a");
        prop_assert!(matches!(found.expect[1].rows, Rows::Ordered(_)));
        for rows in [given, found.expect[0].rows.listed(), found.expect[1].rows.listed()] {
            let found: Vec<Literal> = rows.iter().map(|row| bare(&row.cells[0].1.value)).collect();
            prop_assert_eq!(found, values.iter().map(bare).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}|([a-z\\[\\]{}=\".,#'\\n 0-9-]|source|sink|from){0,40}") {
        let _ = read(&text, &[]);
    }

    #[test]
    fn no_mutation_of_a_right_file_panics(cuts in prop::collection::vec((0usize..3000, 0usize..40, "[a-z\\[\\]{}=\".,'\n 0-9é]{0,4}"), 1..5)) {
        let mut text = DESIGN.to_owned();
        for (at, len, with) in cuts {
            let clamp = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let (start, end) = (clamp(at), clamp(at + len));
            text.replace_range(start..end, &with);
        }
        if let Err(found) = read(&text, &[]) {
            prop_assert!(!found.is_empty());
            for found in &found {
                for label in &found.labels {
                    prop_assert!(text.get(label.span.clone()).is_some(), "{:?} of {}", label, found.message);
                }
            }
        }
    }

    #[test]
    fn lines_left_out_panic_nowhere_and_order_stays(skip in prop::collection::vec(0usize..80, 0..20)) {
        let lines = DESIGN.lines().enumerate().filter(|(at, _)| !skip.contains(at));
        let text: String = lines.map(|(_, line)| format!("{line}\n")).collect();
        if let Err(found) = read(&text, &[]) {
            let places: Vec<usize> = found.iter().map(|found| found.labels.first().map_or(0, |label| label.span.start)).collect();
            prop_assert!(places.is_sorted());
        }
    }

    #[test]
    fn no_override_panics(path in "(schedule|source|a|file|every|tags|expect|0|z|\\.){0,8}", value in "\\PC{0,10}|\\{ a = [0-9]+ \\}|\\[1, 2\\]") {
        let _ = read(&small("[schedule]\nevery = '1h'\n[[expect]]\non = 'a'\nunique = ['x']"), &[(&path, &value)]);
    }
}

/// The names of the steps that are whole, and the codes of what is wrong.
fn partial(text: &str) -> (Vec<String>, Vec<&'static str>) {
    let Partial { pipeline, found } = parse_partial(SourceFile::new("p.toml", text), PathBuf::from("/p"), &[], KINDS);
    let steps = pipeline.sources.iter().map(|step| &step.name).chain(pipeline.transforms.iter().map(|step| &step.name));
    let steps = steps.chain(pipeline.sinks.iter().map(|step| &step.name)).map(|name| name.value.clone());
    (steps.collect(), found.iter().map(|found| found.code).collect())
}

#[test]
fn what_is_whole_of_a_wrong_file_is_handed_on() {
    let top = "weir = 1\nname = \"p\"\n[source.a.file]\n[source.b.file]\n";
    let rest = "[sink.x]\nfrom = \"a\"\n[sink.x.lake]\n";
    let whole = |middle: &str| partial(&format!("{top}{middle}{rest}"));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    // A word that its columns do not depend on leaves a step whole, and one that they do depend on does not.
    assert_eq!(whole("[source.c]\non_invalid = \"x\"\n[source.c.file]\n"), (names(&["a", "b", "c", "x"]), vec!["unknown-word"]));
    assert_eq!(whole("[source.c]\ncontract = 1\n[source.c.file]\n"), (names(&["a", "b", "x"]), vec!["wrong-type"]));
    assert_eq!(whole("[transform.t]\nsql = \"select from\"\n"), (names(&["a", "b", "x"]), vec!["sql-syntax"]));
    assert_eq!(whole("[transform.t]\ndescripton = \"\"\nsql = \"select 1 from a\"\n"), (names(&["a", "b", "t", "x"]), vec!["unknown-key"]));
    assert_eq!(whole("[transform.t]\nsql = \"select 1 from a, s.b\"\n"), (names(&["a", "b", "x"]), vec!["not-a-step"]));
    assert_eq!(whole("[transform.t]\nsql = \"select 1 from nobody\"\n"), (names(&["a", "b", "t", "x"]), vec!["unknown-step"]));
    assert_eq!(whole("[transform.b]\nsql = \"select 1 from a\"\n"), (names(&["a", "x"]), vec!["duplicate-name"]));
    assert_eq!(whole("[sink.y]\nfrom = \"a\"\nmode = \"mrge\"\n[sink.y.lake]\n"), (names(&["a", "b", "x"]), vec!["unknown-word"]));
    // A line that is no TOML leaves in doubt its own table, or all where that is not known.
    assert_eq!(whole("[source.c.file]\npath = \n"), (names(&["a", "b", "x"]), vec!["toml-syntax"]));
    assert_eq!(whole("[source.c.file\n").0, names(&[]));
}

#[test]
fn a_test_whose_rows_are_wrong_is_left_out_and_its_name_is_still_taken() {
    let text = "weir = 1\nname = \"p\"\n[source.a.file]\n[sink.x]\nfrom = \"a\"\n[sink.x.lake]\n\
        [[test]]\nname = \"t\"\ngiven.a = 1\nexpect.a = []\n[[test]]\nname = \"t\"\nnmae = 1\ngiven.a = []\nexpect.a = []\n";
    let Partial { pipeline, found } = parse_partial(SourceFile::new("p.toml", text), PathBuf::from("/p"), &[], KINDS);
    assert_eq!(found.iter().map(|found| found.code).collect::<Vec<_>>(), ["wrong-type", "duplicate-name", "unknown-key"]);
    assert_eq!(pipeline.tests.len(), 1);
}
