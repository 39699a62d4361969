//! Tests of `contract` and of the type table in `arrow`.

use ::arrow::datatypes::{DataType, Field, TimeUnit};
use serde_json::json;

use super::*;
use crate::arrow::{WORDS, is_json_text};

fn compile(schema: &Value) -> Contract {
    Contract::compile("test", &schema.to_string()).unwrap_or_else(|error| panic!("{schema} does not compile: {error}"))
}

fn refuse(schema: &Value) -> ContractError {
    Contract::compile("test", &schema.to_string()).expect_err("must not compile")
}

/// The type of one property; `null` in the schema of the property means nothing declared.
fn declared(property: &Value) -> Option<Field> {
    let contract = compile(&json!({"type": "object", "properties": {"x": property}}));
    contract.columns().fields().first().map(|field| field.as_ref().clone())
}

fn data_type(property: &Value) -> Option<DataType> {
    declared(property).map(|field| field.data_type().clone())
}

#[test]
fn the_shipped_contracts_compile_and_declare_every_column() {
    for (name, columns) in [("flight", 19), ("plane", 9), ("airport", 8), ("airline", 2), ("weather", 15)] {
        let path = format!("{}/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect("shipped");
        let contract = Contract::compile(&path, &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(contract.columns().fields().len(), columns, "{name}");
    }
}

#[test]
fn plain_types_have_their_arrow_types() {
    let micros = TimeUnit::Microsecond;
    for (property, expected) in [
        (json!({"type": "integer"}), DataType::Int64),
        (json!({"type": "number"}), DataType::Float64),
        (json!({"type": ["integer", "number"]}), DataType::Float64),
        (json!({"type": "boolean"}), DataType::Boolean),
        (json!({"type": "string"}), DataType::Utf8),
        (json!({"type": "string", "format": "date"}), DataType::Date32),
        (json!({"type": "string", "format": "time"}), DataType::Time64(micros)),
        (json!({"type": ["null", "string"], "format": "date-time"}), DataType::Timestamp(micros, Some("UTC".into()))),
        (json!({"type": "string", "format": "uuid"}), DataType::Utf8),
        (json!({"type": "object"}), DataType::Utf8),
        (json!({"type": "string", "x-weir-type": "decimal(12, 2)", "$comment": "see below"}), DataType::Null),
    ] {
        if expected == DataType::Null {
            refuse(&json!({"type": "object", "properties": {"x": property}}));
            continue;
        }
        assert_eq!(data_type(&property), Some(expected), "{property}");
    }
    assert!(is_json_text(&declared(&json!({"type": "object"})).expect("declared")));
    assert!(!is_json_text(&declared(&json!({"type": "string"})).expect("declared")));
}

#[test]
fn every_word_of_x_weir_type_has_a_type_and_holds_with_its_json_type() {
    for (word, json_type) in WORDS {
        let word = word.replace("(p,s)", "(12,2)");
        assert!(data_type(&json!({"type": json_type, "x-weir-type": word})).is_some(), "{word}");
        assert!(data_type(&json!({"x-weir-type": word})).is_some(), "{word} alone");
        refuse(&json!({"type": "object", "properties": {"x": {"type": "array", "x-weir-type": word}}}));
    }
    assert_eq!(data_type(&json!({"x-weir-type": "decimal(12,2)"})), Some(DataType::Decimal128(12, 2)));
    assert_eq!(data_type(&json!({"x-weir-type": "decimal(60, 3)"})), Some(DataType::Decimal256(60, 3)));
    assert_eq!(data_type(&json!({"x-weir-type": "decimal(9)"})), Some(DataType::Decimal128(9, 0)));
    assert_eq!(data_type(&json!({"x-weir-type": "timestamp"})), Some(DataType::Timestamp(TimeUnit::Microsecond, None)));
    for wrong in [json!("int"), json!("decimal"), json!("decimal(0,0)"), json!("decimal(77,0)"), json!("decimal(5,6)"), json!(7)] {
        let error = refuse(&json!({"type": "object", "properties": {"x": {"x-weir-type": wrong}}}));
        assert!(error.help.expect("help").contains("timestamptz"), "{wrong}");
    }
    let error =
        refuse(&json!({"type": "object", "properties": {"x": {"type": "string", "format": "date-time", "x-weir-type": "timestamp"}}}));
    assert!(error.message.starts_with("no value can hold"), "{error}");
}

#[test]
fn lists_and_structs_nest_and_an_open_part_leaves_the_whole_open() {
    let item = |data_type| DataType::List(Arc::new(Field::new("item", data_type, true)));
    assert_eq!(data_type(&json!({"type": "array", "items": {"type": "integer"}})), Some(item(DataType::Int64)));
    let point =
        json!({"type": "object", "properties": {"lat": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}}});
    let fields = vec![Field::new("lat", DataType::Float64, true), Field::new("tags", item(DataType::Utf8), true)];
    assert_eq!(data_type(&point), Some(DataType::Struct(fields.into())));
    for open in [
        json!({"type": "array"}),
        json!({"type": "array", "items": {}}),
        json!({"type": "array", "prefixItems": [{"type": "integer"}]}),
        json!({"type": "object", "properties": {"a": {}}}),
        json!({}),
        json!(true),
        json!({"type": ["string", "integer"]}),
        json!({"enum": ["a", 1]}),
        json!({"type": "null"}),
        json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        json!({"$ref": "#/properties/x"}),
        json!({"minimum": 3}),
    ] {
        assert_eq!(data_type(&open), None, "{open}");
    }
}

#[test]
fn enum_and_const_without_a_type_give_the_type_of_their_values() {
    assert_eq!(data_type(&json!({"enum": ["a", null, "b"]})), Some(DataType::Utf8));
    assert_eq!(data_type(&json!({"enum": [1, 2.5]})), Some(DataType::Float64));
    assert_eq!(data_type(&json!({"const": 7})), Some(DataType::Int64));
    assert_eq!(data_type(&json!({"const": true})), Some(DataType::Boolean));
}

#[test]
fn references_and_all_of_are_merged_and_any_of_may_add_null() {
    let schema = json!({
        "$id": "https://example.com/row",
        "$defs": {
            "code": {"$anchor": "code", "type": "string", "maxLength": 3},
            "base": {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            "tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}},
        },
        "type": "object",
        "allOf": [{"$ref": "#/$defs/base"}],
        "properties": {
            "b": {"$ref": "#code"},
            "c": {"$ref": "https://example.com/row#/$defs/code"},
            "d": {"anyOf": [{"$ref": "#/$defs/code"}, {"type": "null"}]},
            "e": {"allOf": [{"type": ["integer", "string"]}, {"type": "integer"}]},
            "f": {"oneOf": [{"const": "x"}, {"type": "string", "minLength": 5}]},
            "g": {"$ref": "#/$defs/tree"},
        },
        "required": ["d", "b"],
    });
    let contract = compile(&schema);
    let columns: Vec<_> = contract.columns().fields().iter().map(|f| (f.name().as_str(), f.data_type().clone(), f.is_nullable())).collect();
    let text = DataType::Utf8;
    let expected = [
        ("a", DataType::Int64, false),
        ("b", text.clone(), false),
        ("c", text.clone(), true),
        ("d", text.clone(), true),
        ("e", DataType::Int64, true),
        ("f", text, true),
    ];
    assert_eq!(columns, expected);
}

#[test]
fn every_draft_is_known_by_its_name() {
    for (draft, definitions) in [
        ("http://json-schema.org/draft-04/schema#", "definitions"),
        ("http://json-schema.org/draft-06/schema#", "definitions"),
        ("http://json-schema.org/draft-07/schema#", "definitions"),
        ("https://json-schema.org/draft/2019-09/schema", "$defs"),
        ("https://json-schema.org/draft/2020-12/schema", "$defs"),
    ] {
        let mut schema = json!({"$schema": draft, "type": "object", "properties": {"x": {"$ref": format!("#/{definitions}/n")}}});
        schema[definitions] = json!({"n": {"type": "integer", "minimum": 1}});
        assert_eq!(compile(&schema).columns().field(0).data_type(), &DataType::Int64, "{draft}");
    }
    // An `exclusiveMinimum` of draft 4 is a boolean, and of every later one a number.
    let property = json!({"type": "object", "properties": {"x": {"type": "integer", "minimum": 1, "exclusiveMinimum": true}}});
    refuse(&property);
    let mut old = property;
    old["$schema"] = json!("http://json-schema.org/draft-04/schema#");
    compile(&old);
    assert!(Contract::compile("test", r#"{"$schema": "https://example.com/my-own", "type": "object"}"#).is_err());
}

#[test]
fn a_text_that_is_not_json_is_refused_at_its_byte() {
    let text = "{\n  \"type\": \"object\",,\n}";
    let error = Contract::compile("test", text).expect_err("not JSON");
    assert_eq!(error.offset, text.find(",,").map(|at| at + 1));
    assert!(error.message.starts_with("not JSON: "), "{error}");
    assert_eq!(Contract::compile("test", "").expect_err("empty").offset, Some(0));
}

#[test]
fn a_wrong_schema_is_refused_with_its_pointer_and_byte() {
    let text = r#"{"type": "object", "properties": {"a/b": {"type": "integer", "minimum": "1"}}}"#;
    let error = Contract::compile("test", text).expect_err("not a schema");
    assert!(error.message.contains("/properties/a~1b/minimum"), "{error}");
    assert_eq!(error.offset, text.find("\"1\""));
    let error = refuse(&json!({"type": "object", "properties": {"a": {"type": "int"}}}));
    assert!(error.message.contains("\"int\""), "{error}");
    refuse(&json!({"type": "object", "properties": {"a": {"pattern": "("}}}));
}

#[test]
fn a_reference_out_of_the_file_is_refused_and_nothing_is_fetched() {
    for reference in ["https://example.com/other.json", "other.json", "file:///etc/passwd", "#/$defs/none", "#none"] {
        let error = refuse(&json!({"type": "object", "properties": {"a": {"$ref": reference}}}));
        assert!(error.help.is_some(), "{reference}: {error}");
    }
}

#[test]
fn a_schema_that_is_not_about_objects_is_refused() {
    let not_rows =
        [json!(true), json!(false), json!([]), json!("x"), json!({}), json!({"type": "array"}), json!({"items": {"type": "object"}})];
    for schema in not_rows {
        assert!(refuse(&schema).help.expect("help").contains("a row is an object"), "{schema}");
    }
    refuse(&json!({"type": ["array", "string"]}));
    compile(&json!({"type": ["object", "null"]}));
    compile(&json!({"required": ["a"]}));
}

/// The contract's own types for Arrow's CSV reader: every column nullable, and UTC spelt as the offset that reader knows.
fn readable(contract: &Contract) -> Arc<Schema> {
    let fields = contract.columns().fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(unit, Some(_)) => Field::new(field.name(), DataType::Timestamp(*unit, Some("+00:00".into())), true),
        _ => field.as_ref().clone().with_nullable(true),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Reads a file of the shipped data.
fn read(contract: &Contract, file: &str) -> Vec<::arrow::array::RecordBatch> {
    let path = format!("{}/../pipelines/flights/data/{file}", env!("CARGO_MANIFEST_DIR"));
    let reader = ::arrow::csv::ReaderBuilder::new(readable(contract))
        .with_header(true)
        .with_null_regex(regex::Regex::new("^NA$").expect("a pattern"))
        .build(std::fs::File::open(path).expect("shipped"))
        .expect("CSV");
    reader.map(|batch| batch.expect("the contract's types fit the data")).collect()
}

#[test]
fn the_shipped_contracts_refuse_as_many_real_rows_as_another_validator_does() {
    // Counted with the Python package jsonschema 4.26 on the same rows, nulls left out where the property does not accept null.
    let counted = [("airline", "airlines.csv", 16, 0), ("airport", "airports.csv", 1458, 5), ("plane", "planes.csv", 3322, 23)];
    for (name, file, rows, invalid) in counted.into_iter().chain([("weather", "weather.csv", 26_115, 6)]) {
        let text = std::fs::read_to_string(format!("{}/{name}.schema.json", env!("CARGO_MANIFEST_DIR"))).expect("shipped");
        let contract = Contract::compile(name, &text).expect("compiles");
        let (mut rows_found, mut invalid_found) = (0, 0);
        for batch in read(&contract, file) {
            rows_found += batch.num_rows();
            invalid_found += contract.check(&batch).valid.map_or(0, |valid| valid.len() - valid.count_set_bits());
        }
        assert_eq!((rows_found, invalid_found), (rows, invalid), "{name}");
    }
}

#[test]
fn the_flight_contract_knows_what_a_flight_is() {
    let text = std::fs::read_to_string(format!("{}/flight.schema.json", env!("CARGO_MANIFEST_DIR"))).expect("shipped");
    let contract = Contract::compile("flight", &text).expect("compiles");
    let lines = [
        ("", "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"),
        ("", "2013,1,1,,515,,,819,,UA,1545,,EWR,IAH,,1400,5,15,2013-01-01T10:00:00Z"),
        ("", "2013,1,1,517,515,2,,819,,UA,1545,N14228,EWR,IAH,,1400,5,15,2013-01-01T10:00:00Z"),
        ("maximum dep_time", "2013,1,1,2400,2359,1,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,23,59,2013-01-01T10:00:00Z"),
        ("required arr_delay", "2013,1,1,517,515,2,830,819,,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"),
        ("pattern tailnum", "2013,1,1,517,515,2,830,819,11,UA,1545,D942DN,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"),
        ("minimum distance", "2013,1,1,,106,,,245,,US,1632,,EWR,LGA,,17,1,6,2013-07-27T05:00:00Z"),
        ("required tailnum", "2013,1,1,517,515,2,830,819,11,UA,1545,,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"),
        ("falseSchema air_time", "2013,1,1,,515,,,819,,UA,1545,,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"),
        ("enum origin", "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,BOS,IAH,227,1400,5,15,2013-01-01T10:00:00Z"),
    ];
    let csv = lines.map(|(_, line)| line).join("\n");
    let mut reader = ::arrow::csv::ReaderBuilder::new(readable(&contract)).build(csv.as_bytes()).expect("CSV");
    let verdict = contract.check(&reader.next().expect("a batch").expect("the types fit"));
    let found: Vec<(usize, String)> =
        verdict.violations.iter().map(|v| (v.row, format!("{} {}", v.keyword, v.column.as_deref().unwrap_or("")))).collect();
    let expected = lines.iter().enumerate().filter(|(_, (why, _))| !why.is_empty());
    assert_eq!(found, expected.map(|(row, (why, _))| (row, (*why).to_owned())).collect::<Vec<_>>());
}
