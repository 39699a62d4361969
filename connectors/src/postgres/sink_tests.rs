//! Tests of the settings and of what is known without a server.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use chrono::DateTime;
use datafusion::execution::runtime_env::RuntimeEnv;
use weir_pipelines::{OnSchemaChange, Settings, diagnostic::SourceFile, settings::Document};

use super::*;
use crate::{Connections, context::RunContext};

fn cx(mode: Mode) -> SinkContext {
    let run = RunContext {
        run: "r".into(),
        pipeline: "p".into(),
        state: "s".into(),
        started_at: DateTime::UNIX_EPOCH,
        interval: None,
        root: "/".into(),
        state_dir: "/".into(),
        lake: String::new(),
        connections: Arc::new(Connections::new(HashMap::new())),
        profile: None,
        environment: Arc::default(),
        runtime: Arc::new(RuntimeEnv::default()),
        partitions: 1,
        batch_rows: 1,
        cancel: tokio_util::sync::CancellationToken::new(),
    };
    SinkContext {
        run: Arc::new(run),
        step: "out".into(),
        folder: "/".into(),
        mode,
        key: if by_key(mode) { vec!["id".into()] } else { vec![] },
        on_schema_change: OnSchemaChange::Fail,
        allow_lossy: vec![],
        may_decide: true,
        beside: Vec::new(),
    }
}

fn sink(table: &str) -> PostgresSink {
    PostgresSink { connection: "pg".into(), table: table.into(), primary_key: true, parallel: None }
}

fn read(toml: &str) -> Result<Arc<dyn Sink>, Vec<String>> {
    let text = format!("[sink.out.postgres]\n{toml}\n");
    let document = Arc::new(Document::new(SourceFile::new("p.toml", text)));
    let path = ["sink", "out", "postgres"].map(str::to_owned).to_vec();
    let settings = Settings::new(&document, path, weir_pipelines::Spanned::new("postgres".into(), 0..0), 0..0);
    (SINK.read)(&settings).map_err(|wrong| wrong.into_iter().map(|wrong| wrong.message).collect())
}

#[test]
fn two_spellings_of_one_table_are_one_destination() {
    let of = |table: &str| sink(table).destination(&cx(Mode::Append));
    assert_eq!(of("delays"), "pg.public.delays");
    assert_eq!(of("public.delays"), of("delays"));
    assert_eq!(of("\"public\".\"delays\""), of("delays"));
    assert_ne!(of("Delays"), of("delays"), "names are as written");
    assert_ne!(of("\"a.b\".c"), of("a.\"b.c\""));
}

#[test]
fn wrong_settings_are_told_all_at_once() {
    assert!(read("connection = \"w\"\ntable = \"a.b\"\nparallel = 2\nprimary_key = false").is_ok());
    let wrong = read("connection = \"w\"\ntable = \"a.b.c\"\nparallel = 0").expect_err("wrong");
    assert_eq!(wrong, ["\"table\" is not the name of a table: it has more than two parts", "\"parallel\" is 1 or more"]);
}

#[test]
fn check_tells_what_can_be_known_without_the_table() {
    let rows = |fields: Vec<Field>| Arc::new(Schema::new(fields)) as SchemaRef;
    let messages = |rows: &SchemaRef, mode: Mode| -> Vec<String> {
        sink("t").check(rows, &cx(mode)).expect_err("wrong").into_iter().map(|error| error.message).collect()
    };
    let nanos = Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, None), true);
    let lossy =
        "writing would lose something of column \"at\" (Timestamp(ns) to timestamp without time zone: nanoseconds are cut to microseconds)";
    assert_eq!(messages(&rows(vec![nanos.clone()]), Mode::Append), [lossy]);
    let allowed = SinkContext { allow_lossy: vec!["at".into()], ..cx(Mode::Append) };
    assert!(sink("t").check(&rows(vec![nanos]), &allowed).is_ok());
    assert_eq!(messages(&rows(vec![Field::new("a", DataType::Int8, true)]), Mode::Merge), ["no column \"id\" in the rows of sink \"out\""]);
}
