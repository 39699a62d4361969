//! The JSON Schemas of a pipeline file and of `weir.toml`, for completion and hints in editors. What they cannot say (names, cycles,
//! SQL) `parse` says. They keep to what the validators of taplo and tombi understand: see tests/end_to_end/editors.rs.

mod project;

use serde_json::{Map, Value, json};

use crate::parse::{CHECKS, MISSING_COLUMN, MODES, NEW_COLUMN, OPERATORS, RUNS, RUNS_MIN, TRIGGER_KINDS, TYPE_CHANGE, Z_MAX};

pub use project::project_schema;

/// A kind of source, sink or connection, as the schema shows it.
#[derive(Debug, Clone)]
pub struct KindSchema {
    /// The key that names the kind.
    pub kind: String,
    /// One line on what it is.
    pub summary: String,
    /// The JSON Schema of its own table, draft 2020-12, complete in itself.
    pub settings: Value,
}

/// Builds the JSON Schema (draft 2020-12) of a pipeline file, with the settings of these kinds in it.
pub fn pipeline_schema(sources: &[KindSchema], sinks: &[KindSchema]) -> Value {
    let mut defs = Map::new();
    for (role, kinds) in [("source", sources), ("sink", sinks)] {
        for kind in kinds {
            add_kind(&mut defs, role, kind);
        }
    }
    defs.insert("duration".into(), duration_text());
    defs.insert(
        "columns".into(),
        json!({ "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1, "uniqueItems": true }),
    );
    defs.insert("expectation".into(), expectation());
    defs.insert("test".into(), test());
    defs.insert("param".into(), param());
    defs.insert("schedule".into(), schedule());
    defs.insert("trigger".into(), trigger());
    defs.insert("source".into(), step("Where rows come from.", source_keys(), "source", sources));
    defs.insert("sink".into(), step("Where rows go.", sink_keys(), "sink", sinks));
    defs.insert("transform".into(), transform());
    crate::schema_params::allow(&mut defs);
    let some = |definition: &str, description: &str| {
        let mut tables = named(definition, description);
        merge(&mut tables, json!({ "minProperties": 1 }));
        tables
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Weir pipeline",
        "type": "object",
        "required": ["name"],
        "anyOf": [{ "required": ["weir", "source", "sink"] }, { "required": ["extends"] }],
        "additionalProperties": false,
        "properties": {
            "weir": { "const": 1, "description": "The version of the file format." },
            "name": string("The pipeline's name: letters, digits, _ and -.", Some("^[A-Za-z0-9_-]+$")),
            "description": string("What the pipeline is for.", None),
            "owner": string("Whom to ask.", None),
            "tags": { "type": "array", "items": { "type": "string" }, "description": "Free words to find it by." },
            "extends": string("A base: a file whose tables lie below this one's. Its path, from this file's folder.", None),
            "params": {
                "type": "object",
                "description": "What a run is given: used as $name in SQL and as { param = \"name\" } in settings.",
                "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
                "additionalProperties": { "anyOf": [
                    { "type": ["string", "number", "boolean"] },
                    // What dates and datetimes are to tombi.
                    { "type": "string", "format": "date" },
                    { "type": "string", "format": "date-time" },
                    { "type": "string", "format": "date-time-local" },
                    { "$ref": "#/$defs/param" },
                ] },
            },
            "matrix": {
                "type": "array",
                "items": { "type": "object", "properties": { "name": string("What the row's pipeline is called behind the file's name.", Some("^[A-Za-z0-9_-]+$")) }, "required": ["name"], "additionalProperties": true, "description": "A row: its name, and values of parameters." },
                "minItems": 1,
                "description": "One pipeline for each row of values of parameters.",
            },
            "schedule": { "$ref": "#/$defs/schedule" },
            "trigger": named("trigger", "What starts the pipeline beside the clock: one table per trigger, [trigger.NAME.KIND]."),
            "source": some("source", "Where rows come from: one table per step, [source.NAME], with its kind below it, [source.NAME.KIND]."),
            "transform": named("transform", "What changes rows: one table per step, [transform.NAME]."),
            "sink": some("sink", "Where rows go: one table per step, [sink.NAME], with its kind below it, [sink.NAME.KIND]."),
            "expect": { "type": "array", "items": { "$ref": "#/$defs/expectation" }, "description": "Checks over a step's whole output, made before publishing." },
            "test": { "type": "array", "items": { "$ref": "#/$defs/test" }, "description": "Given these rows, expect those: run by `weir test`." },
        },
        "$defs": defs,
    })
}

/// Adds a kind's settings to the definitions, as `ROLE-KIND`.
fn add_kind(defs: &mut Map<String, Value>, role: &str, kind: &KindSchema) {
    let name = format!("{role}-{}", kind.kind);
    let mut settings = kind.settings.clone();
    if let Value::Object(settings) = &mut settings {
        settings.remove("$schema");
        settings.remove("title");
        settings.insert("description".into(), json!(kind.summary));
    }
    move_references(&mut settings, &format!("#/$defs/{name}"));
    defs.insert(name, settings);
}

/// Tables of these definitions under names that a person chooses.
fn named(definition: &str, description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$" },
        "additionalProperties": { "$ref": format!("#/$defs/{definition}") },
    })
}

/// A schema that was complete in itself now stands below `base`.
fn move_references(schema: &mut Value, base: &str) {
    match schema {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(inner) = target.strip_prefix('#') {
                            *target = format!("{base}{inner}");
                        }
                    }
                    other => move_references(other, base),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, base)),
        _ => {}
    }
}

fn string(description: &str, pattern: Option<&str>) -> Value {
    match pattern {
        Some(pattern) => json!({ "type": "string", "pattern": pattern, "description": description }),
        None => json!({ "type": "string", "description": description }),
    }
}

fn words(words: &[&str], default: &str, description: &str) -> Value {
    json!({ "enum": words, "default": default, "description": description })
}

/// The words alone.
fn written<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}

fn duration_text() -> Value {
    string("A duration such as 500ms, 90s, 10m, 1h30m or 2d.", Some("^(\\d+d)?(\\d+h)?(\\d+m)?(\\d+s)?(\\d+ms)?$"))
}

fn duration(description: &str) -> Value {
    json!({ "$ref": "#/$defs/duration", "description": format!("{description} Written as 90s, 10m, 1h30m or 2d.") })
}

fn columns(description: &str) -> Value {
    json!({ "$ref": "#/$defs/columns", "description": description })
}

fn table(description: &str, properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "description": description, "properties": properties, "required": required, "additionalProperties": false })
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn rules() -> Value {
    json!({
        "description": string("What the step is.", None),
        "contract": string("The JSON Schema that every row must satisfy: a path, relative to this file.", None),
        "on_invalid": words(&["fail", "drop", "quarantine"], "quarantine", "What becomes of a row that breaks the contract."),
        "max_invalid": {
            "description": "More invalid rows than this fail the run before publishing: a number, or a share such as \"1%\".",
            "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^\\d+(\\.\\d+)?\\s*%$|^\\d+$" }],
        },
    })
}

fn source_keys() -> Value {
    let mut keys = rules();
    merge(
        &mut keys,
        json!({
            "on_new_column": words(&written(&NEW_COLUMN), "add", "What becomes of a column that was not known."),
            "on_missing_column": {
                "enum": written(&MISSING_COLUMN),
                "description": "What becomes of a known column that the data lack. Default remove where the source itself says its columns and all of it is read, else null.",
            },
            "on_type_change": words(&written(&TYPE_CHANGE), "widen", "What becomes of a known column with values that are not of its type."),
            "incremental": {
                "description": "Only what is new since the last published run.",
                "oneOf": [
                    table("Each file once, known by path, size and modification time or entity tag.", json!({ "files": { "const": "new", "description": "Only those that are new or have changed." } }), &["files"]),
                    table(
                        "Rows whose cursor column lies beyond the last published position.",
                        json!({
                            "cursor": string("The column.", None),
                            "lag": duration("How far behind the last position to start again. Default none."),
                            "start": { "type": ["string", "number"], "description": "Where to start when there is no position yet." },
                        }),
                        &["cursor"],
                    ),
                    table("Rows whose column lies within the interval that the run is for.", json!({ "interval": string("The column.", None) }), &["interval"]),
                ],
            },
        }),
    );
    keys
}

fn sink_keys() -> Value {
    let modes = written(&MODES);
    json!({
        "description": string("What the step is.", None),
        "from": string("The step whose rows it takes.", None),
        "mode": words(&modes, "append", "How rows meet what is there."),
        "key": columns("The columns that identify a row: for merge, delete_insert and snapshot."),
        "on_schema_change": words(&["fail", "add_columns", "ignore"], "fail", "What happens when rows have other columns than the destination."),
        "allow_lossy": columns("Columns whose lossy mapping is accepted."),
        "profiles": columns("Profiles of weir.toml under which the sink takes part. Default: always."),
    })
}

/// The keys that name these kinds.
fn kind_keys(role: &str, kinds: &[KindSchema]) -> Value {
    let key =
        |kind: &KindSchema| (kind.kind.clone(), json!({ "$ref": format!("#/$defs/{role}-{}", kind.kind), "description": kind.summary }));
    Value::Object(kinds.iter().map(key).collect())
}

/// A source or sink: its own keys and exactly one kind.
fn step(description: &str, mut keys: Value, role: &str, kinds: &[KindSchema]) -> Value {
    merge(&mut keys, kind_keys(role, kinds));
    let required: Vec<Value> = kinds.iter().map(|kind| json!({ "required": [kind.kind] })).collect();
    let own: &[&str] = if role == "sink" { &["from"] } else { &[] };
    let mut step = table(description, keys, own);
    if !required.is_empty() {
        merge(&mut step, json!({ "oneOf": required }));
    }
    if role == "sink" {
        // Not `if` and `then`: tombi forgets the keys of a table that has them.
        let without_key: Vec<&str> = MODES.iter().filter(|(_, mode)| !mode.needs_key()).map(|(word, _)| *word).collect();
        merge(
            &mut step,
            json!({ "anyOf": [
            { "required": ["key"] },
            { "properties": { "mode": { "enum": without_key, "description": "How rows meet what is there, without a key." } } },
        ] }),
        );
    }
    step
}

fn transform() -> Value {
    let pairs = |description: &str| json!({ "type": "object", "description": description, "additionalProperties": { "type": "string", "minLength": 1 }, "minProperties": 1 });
    let mut keys = rules();
    merge(
        &mut keys,
        json!({
            "from": string("The step it reads. SQL names the steps it reads itself.", None),
            "sql": string("A query over other steps, which are its tables.", None),
            "filter": string("A condition: rows for which it is true are kept, the others are counted as filtered.", None),
            "deduplicate": table(
                "Keeps one row per key.",
                json!({
                    "key": columns("The columns that identify a row."),
                    "keep": { "enum": ["first", "last", "any"], "description": "Which one is kept. Default first with order_by, else any." },
                    "order_by": { "type": "array", "items": { "type": "string" }, "description": "The order that first and last are meant in: \"column\" or \"column desc\"." },
                }),
                &["key"],
            ),
            "cast": pairs("Changes types: column = \"SQL type\". A value that does not fit makes its row invalid."),
            "rename": pairs("Renames columns: old = \"new\". The others stay."),
            "select": columns("Keeps these columns, in this order."),
            "flatten": table(
                "Nested records to columns; with array, one row per element.",
                json!({
                    "separator": { "type": "string", "default": "_", "description": "Stands between the names of nesting levels." },
                    "array": string("The list column whose elements become rows.", None),
                    "key": columns("The parent's columns that each child row carries."),
                    "position": string("A column that holds the element's position, from 0.", None),
                }),
                &[],
            ),
        }),
    );
    let mut step = table("What changes rows.", keys, &[]);
    let kinds: Vec<Value> = OPERATORS.iter().map(|kind| json!({ "required": [kind] })).collect();
    merge(&mut step, json!({ "oneOf": kinds, "anyOf": [{ "required": ["sql"] }, { "required": ["from"] }] }));
    step
}

fn schedule() -> Value {
    let moment = |description: &str| {
        let format = |format: &str| json!({ "type": "string", "format": format });
        json!({ "anyOf": [format("date"), format("date-time"), format("date-time-local")], "description": description })
    };
    let mut schedule = table(
        "When the pipeline runs by itself.",
        json!({
            "cron": string("Minute, hour, day of month, month, day of week (0 and 7 are Sunday); or six fields with seconds first.", None),
            "every": duration("A fixed period in place of cron."),
            "timezone": { "type": "string", "default": "UTC", "description": "The zone whose clock cron means, such as Europe/Berlin." },
            "catch_up": words(&["all", "latest", "none"], "latest", "What happens to ticks missed while nothing ran."),
            "overlap": words(&["skip", "queue", "cancel"], "skip", "What happens when the run before still runs."),
            "after": { "type": "array", "items": { "type": "string" }, "description": "Pipelines that must have published for the interval first." },
            "start": moment("No interval begins before it: a date or a datetime, on the clock of timezone unless it has an offset."),
            "end": moment("No interval ends after it: a date or a datetime, on the clock of timezone unless it has an offset."),
            "timeout": duration("A run longer than this is stopped."),
            "deadline": duration("An interval that is not published so long after its tick is late, which is told."),
            "jitter": duration("A run starts later than its tick by up to this: the same for a pipeline and tick each time."),
            "retry": table(
                "How failures outside the pipeline are tried again: exponential backoff with full jitter.",
                json!({
                    "attempts": { "type": "integer", "minimum": 1, "default": 3, "description": "Tries in all." },
                    "backoff": duration("The first wait's upper bound. Default 30s."),
                    "backoff_max": duration("No wait is longer than this. Default 10m."),
                }),
                &[],
            ),
        }),
        &[],
    );
    merge(&mut schedule, json!({ "oneOf": [{ "required": ["cron"] }, { "required": ["every"] }] }));
    schedule
}

fn trigger() -> Value {
    let file = table(
        "Files come.",
        json!({
            "path": string("A file, folder, pattern or URL, as a file source's path.", None),
            "debounce": duration("A file has come when its name and size have not changed for so long. Default 10s."),
            "param": string("The parameter, of type text, that is given the path of the file: one run for each file. Default: one run for all that have come.", None),
        }),
        &["path"],
    );
    let pipeline = table("Another pipeline publishes.", json!({ "name": string("Its name.", Some("^[A-Za-z0-9_-]+$")) }), &["name"]);
    let mut trigger = table("What starts the pipeline beside the clock.", json!({ "file": file, "pipeline": pipeline }), &[]);
    let required: Vec<Value> = TRIGGER_KINDS.iter().map(|kind| json!({ "required": [kind] })).collect();
    merge(&mut trigger, json!({ "oneOf": required }));
    trigger
}

fn expectation() -> Value {
    let runs = |default: u32, description: &str| json!({ "type": "integer", "minimum": 3, "maximum": 1000, "default": default, "description": description });
    let mut expectation = table(
        "A check over a step's whole output, made before publishing.",
        json!({
            "on": string("The step.", None),
            "name": string("What is expected, in words.", None),
            "severity": words(&["error", "warn"], "error", "error stops publishing; warn is recorded."),
            "sql": string("A query; a row it returns is a failure.", None),
            "row_count": table(
                "How many rows there are.",
                json!({
                    "min": { "type": "integer", "minimum": 0, "description": "No fewer." },
                    "max": { "type": "integer", "minimum": 0, "description": "No more." },
                }),
                &[],
            ),
            "unique": columns("No two rows agree in all of these columns."),
            "not_null": columns("None of these columns holds a null."),
            "accepted_values": table(
                "A column holds these values and nulls alone.",
                json!({
                    "column": string("The column.", None),
                    "values": {
                        "type": "array",
                        // Not a type: for tombi a date is none of the four that are allowed.
                        "items": { "additionalProperties": true },
                        "minItems": 1,
                        "description": "The values, compared by value with the column's type: strings, numbers, booleans, datetimes.",
                    },
                }),
                &["column", "values"],
            ),
            "foreign_key": table(
                "Each row's values are those of a row elsewhere, unless one of them is null.",
                json!({
                    "columns": columns("The step's columns."),
                    "references": string("A step of the pipeline, or lake.SCHEMA.TABLE: the table as it was before the run.", None),
                    "to": columns("The columns there, as many. Default: of the same names."),
                }),
                &["columns", "references"],
            ),
            "freshness": table(
                "The newest value of a column is no older than this when the run starts.",
                json!({
                    "column": string("A column of dates or timestamps; without a zone they are UTC.", None),
                    "max_age": duration("How old the newest value may be, such as \"1d\"."),
                }),
                &["column", "max_age"],
            ),
            "change": table(
                "A number lies near those of the last published runs, by its robust z-score.",
                json!({
                    "of": string("row_count, or an aggregate over the step such as avg(amount).", None),
                    "z_max": { "type": "number", "exclusiveMinimum": 0, "default": Z_MAX, "description": "The score's bound." },
                    "runs": runs(RUNS, "How many published runs are looked at."),
                    "runs_min": runs(RUNS_MIN, "With fewer earlier values it holds, and says that it is learning."),
                }),
                &["of"],
            ),
        }),
        &["on"],
    );
    let kinds: Vec<Value> = CHECKS.iter().map(|kind| json!({ "required": [kind] })).collect();
    merge(&mut expectation, json!({ "oneOf": kinds }));
    expectation
}

fn param() -> Value {
    // Values of any type, dates among them, which no type of JSON is for.
    let of = |description: &str| json!({ "description": description });
    table(
        "A parameter: its type, its default and what it may be.",
        json!({
            "type": string("text, bigint, double, decimal(12, 2), boolean, date, timestamp or timestamptz. Default that of \"default\".", None),
            "default": of("Its value where none is given. Without one it must be given."),
            "min": of("It is no less than this."),
            "max": of("It is no more than this."),
            "values": { "type": "array", "minItems": 1, "description": "It is one of these." },
            "description": string("What it is for.", None),
        }),
        &[],
    )
}

fn test() -> Value {
    // Tombi calls unknown keys doubtful unless a schema says that they are welcome.
    let rows =
        json!({ "type": "array", "description": "Rows: column = value.", "items": { "type": "object", "additionalProperties": true } });
    let steps = |description: &str, rows: Value| json!({ "type": "object", "description": description, "additionalProperties": rows });
    let given = json!({ "anyOf": [
        rows,
        table("The rows of a file, read as the source reads its own.", json!({ "file": string("The path, relative to this file.", None) }), &["file"]),
        table("The outcome of a query that reads no table.", json!({ "sql": string("The query, such as select 1 as id union all select 2.", None) }), &["sql"]),
        table(
            "Exactly these columns, and rows of them.",
            json!({
                "columns": { "type": "object", "description": "Column = \"SQL type\".", "additionalProperties": { "type": "string", "minLength": 1 } },
                "rows": rows,
            }),
            &["columns"],
        ),
    ] });
    let fails = json!({ "description": "How a run of these rows fails: an error's code, or the code with the step and the expectation.", "anyOf": [
        { "type": "string", "minLength": 1 },
        table(
            "An error's code, and where it comes from.",
            json!({
                "code": string("The error's code, such as expectation-failed.", None),
                "step": string("The step it fails in. Default any.", None),
                "expectation": string("The name of the expectation that does not hold. Default any.", None),
            }),
            &["code"],
        ),
    ] });
    let count =
        || table("So many rows.", json!({ "count": { "type": "integer", "minimum": 0, "description": "How many rows." } }), &["count"]);
    let listed = |mut keys: Value| {
        merge(&mut keys, json!({ "rows": rows }));
        table("These rows.", keys, &["rows"])
    };
    let ordered = json!({ "ordered": { "type": "boolean", "default": false, "description": "Whether the rows come in this order." } });
    let (expected, rejected) =
        (json!({ "anyOf": [rows, listed(ordered), count()] }), json!({ "anyOf": [rows, listed(json!({})), count()] }));
    let mut test = table(
        "Given these rows, expect those.",
        json!({
            "name": string("What holds, in a sentence.", None),
            "given": steps("Rows in place of those that a step would read or make.", given),
            "expect": steps("Rows that a step makes, or a sink takes, in any order; only the columns they name are compared.", expected),
            "quarantine": steps("Rows that a step rejects, as the quarantine shows them: code, column, reason, row, raw.", rejected),
            "fails": fails,
            "now": { "description": "The time it is: a date or a datetime. Default: when the test is run." },
            "interval": { "description": "The interval that is run: two datetimes or dates, on the clock of the schedule's timezone unless they have an offset." },
            "params": { "type": "object", "description": "Values of parameters for this test.", "additionalProperties": true },
        }),
        &["name", "given"],
    );
    merge(&mut test, json!({ "anyOf": [{ "required": ["expect"] }, { "required": ["quarantine"] }, { "required": ["fails"] }] }));
    test
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        let file = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "File",
            "type": "object",
            "properties": { "csv": { "$ref": "#/$defs/Csv" }, "all": { "anyOf": [{ "$ref": "#" }] } },
            "$defs": { "Csv": { "type": "object" } },
        });
        let kind = |kind: &str| KindSchema { kind: kind.into(), summary: format!("The {kind}."), settings: file.clone() };
        pipeline_schema(&[kind("file"), kind("postgres")], &[kind("lake")])
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, root: &Value, count: &mut usize) {
            if let Some(target) = value.get("$ref").and_then(Value::as_str) {
                assert!(root.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                *count += 1;
            }
            value.as_object().into_iter().flat_map(|entries| entries.values()).for_each(|value| walk(value, root, count));
            value.as_array().into_iter().flatten().for_each(|value| walk(value, root, count));
        }
        let schema = schema();
        let mut count = 0;
        walk(&schema, &schema, &mut count);
        assert!(count > 20, "{count}");
        assert_eq!(schema["$defs"]["source-file"]["properties"]["csv"]["$ref"], "#/$defs/source-file/$defs/Csv");
        assert_eq!(schema["$defs"]["source-file"]["properties"]["all"]["anyOf"][0]["$ref"], "#/$defs/source-file");
    }

    #[test]
    fn the_schema_has_every_key_that_the_parser_knows_and_no_other() {
        let schema = schema();
        let keys = |def: &Value| {
            let mut keys: Vec<String> = def["properties"].as_object().expect("a table").keys().cloned().collect();
            keys.sort();
            keys
        };
        let sorted = |lists: &[&[&str]]| {
            let mut keys: Vec<String> = lists.iter().flat_map(|list| list.iter().map(|key| (*key).to_owned())).collect();
            keys.sort();
            keys
        };
        let known = crate::parse::known_keys();
        assert_eq!(keys(&schema), sorted(&[known.pipeline]));
        assert_eq!(keys(&schema["$defs"]["schedule"]), sorted(&[known.schedule]));
        let [kinds, file, pipeline] = known.triggers;
        assert_eq!(keys(&schema["$defs"]["trigger"]), sorted(&[kinds]));
        assert_eq!(keys(&schema["$defs"]["trigger"]["properties"]["file"]), sorted(&[file]));
        assert_eq!(keys(&schema["$defs"]["trigger"]["properties"]["pipeline"]), sorted(&[pipeline]));
        assert_eq!(keys(&schema["$defs"]["source"]), sorted(&[known.source, &["file", "postgres"]]));
        assert_eq!(keys(&schema["$defs"]["transform"]), sorted(&[known.transform, known.operators]));
        assert_eq!(keys(&schema["$defs"]["sink"]), sorted(&[known.sink, &["lake"]]));
        assert_eq!(keys(&schema["$defs"]["expectation"]), sorted(&[known.expect, known.checks]));
        assert_eq!(keys(&schema["$defs"]["test"]), sorted(&[known.test]));
        assert_eq!(keys(&schema["$defs"]["param"]), sorted(&[known.param]));
    }
}
