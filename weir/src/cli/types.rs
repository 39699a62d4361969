//! The page of types: which Arrow type a contract gives a column and back, and which column type each Arrow type becomes in each
//! destination, as contracts and destinations themselves say.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use serde_json::{Value, json};
use weir_connectors::SinkKind;
use weir_schemas::{
    Contract,
    arrow::WORDS,
    field::{self, Fit},
};

/// Writes the matrix of all sinks that have column types of their own, and what happens to values.
pub fn page(sinks: &[SinkKind]) -> String {
    let destinations: Vec<&SinkKind> = sinks.iter().filter(|sink| !(sink.types)().is_empty()).collect();
    let mut out = "# Types\n\n<!-- Made by `weir dev generate` from the tables in the code. -->\n\n".to_owned();
    contracts(&mut out);
    out.push_str(
        "\n## From Arrow to destinations\n\n\
        Which column type each Arrow type becomes. A mapping marked *lossy* is a `weir check` error unless the sink names the column in `allow_lossy`. In every exact\n\
        mapping a value that does not fit (a date that the destination cannot hold, a null list where it has none) fails the run and names the column; nothing is clamped or cut.\n\n",
    );
    out.push_str(&format!("| Arrow | {} |\n", destinations.iter().map(|sink| sink.kind).collect::<Vec<_>>().join(" | ")));
    out.push_str(&format!("|---|{}\n", "---|".repeat(destinations.len())));
    for (name, field) in arrow_types() {
        let cells: Vec<String> = destinations.iter().map(|sink| escape(&cell((sink.column)(&field)))).collect();
        out.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    }
    for sink in &destinations {
        out.push_str(&format!("\n## What happens to values in `{}`\n\n", sink.kind));
        for row in (sink.types)().iter().filter(|row| !row.note.is_empty()) {
            out.push_str(&format!("- {}: {}\n", row.arrow, row.note));
        }
    }
    out
}

/// Writes how contracts and Arrow types go together, in both directions.
fn contracts(out: &mut String) {
    out.push_str(
        "## From a contract to Arrow\n\n\
        What a property's subschema makes of its column. `null` beside a type, and a branch of `anyOf` or `oneOf` that takes only null, change nothing but\n\
        that the column may be null. `x-weir-type` says what JSON Schema cannot. Where a subschema leaves the type open, the reader infers one.\n\n\
        | subschema | Arrow |\n|---|---|\n",
    );
    let plain = [
        json!({ "type": "boolean" }),
        json!({ "type": "integer" }),
        json!({ "type": "number" }),
        json!({ "type": "number", "format": "decimal" }),
        json!({ "type": "integer", "format": "decimal" }),
        json!({ "type": "string" }),
        json!({ "type": "string", "format": "date" }),
        json!({ "type": "string", "format": "time" }),
        json!({ "type": "string", "format": "date-time" }),
        json!({ "type": "string", "format": "duration" }),
        json!({ "type": "string", "format": "uuid" }),
        json!({ "type": "string", "format": "decimal" }),
        json!({ "type": "object" }),
        json!({ "type": "object", "properties": { "a": { "type": "integer" } } }),
        json!({ "type": "array", "items": { "type": "integer" } }),
        json!({ "type": ["string", "integer"] }),
    ];
    let words = WORDS.iter().map(|(word, kind)| json!({ "type": kind, "x-weir-type": word.replace("(p,s)", "(12,2)") }));
    for schema in plain.into_iter().chain(words) {
        let columns = columns_of(&json!({ "type": "object", "properties": { "c": schema } }));
        let column = columns.first().map_or_else(|| "open".to_owned(), |field| shown(field));
        out.push_str(&format!("| `{schema}` | {} |\n", escape(&column)));
    }
    out.push_str(
        "\n`format` `duration` stays text: a duration of months or years is no length of time, which is what `x-weir-type` `duration` is. `format` `uuid` is text, as\n\
        everywhere in Weir. `format` `decimal` is a number of 38 digits, nine of them after the point (none for integers); of a text it says nothing, so that the text keeps its digits.\n\n\
        ## From Arrow to a contract\n\n\
        The subschema that declares each type, as `weir schema infer` writes it, and what becomes of the type on the way back: *exact* is the same type again,\n\
        *same values* another type that holds them all, *lossy* one that does not or that holds them as something else.\n\n\
        | Arrow | subschema | back | |\n|---|---|---|---|\n",
    );
    for (name, field) in arrow_types() {
        let declared = field::subschema(&field);
        let back = columns_of(&field::contract(&arrow::datatypes::Schema::new(vec![field])));
        let back = back.first().map_or_else(|| "open".to_owned(), |field| shown(field));
        let fit = match declared.fit {
            Fit::Exact => "exact",
            Fit::Same => "same values",
            Fit::Lossy => "*lossy*",
            Fit::Open => "open",
        };
        let note = if declared.note.is_empty() { fit.to_owned() } else { format!("{fit}: {}", declared.note) };
        out.push_str(&format!("| {} | `{}` | {} | {note} |\n", escape(&name), Value::Object(declared.schema), escape(&back)));
    }
    out.push_str(
        "\nA float that is not a number, or infinite, is text in JSON and breaks `\"type\": \"number\"`; a date or an instant outside the years 1 to 9999 breaks its `format`.\n\
        `weir schema infer` lets such values in where it has seen them.\n",
    );
}

fn columns_of(contract: &Value) -> arrow::datatypes::Fields {
    Contract::compile("the page of types", &contract.to_string()).expect("an example is a contract").columns().fields().clone()
}

/// A type as the page names it.
fn shown(field: &Field) -> String {
    match field.metadata().get("ARROW:extension:name") {
        Some(mark) => format!("{} marked {mark}", field.data_type()),
        None => field.data_type().to_string(),
    }
}

/// What a destination makes of a type.
fn cell(column: Option<(String, bool)>) -> String {
    match column {
        None => "refused".to_owned(),
        Some((column, true)) => column,
        Some((column, false)) => format!("{column} *lossy*"),
    }
}

/// Every type of Arrow, as an example where it has parameters.
fn arrow_types() -> Vec<(String, Field)> {
    use DataType::*;
    use TimeUnit::*;
    let item = |of: DataType| Arc::new(Field::new("item", of, true));
    let pair = |key: DataType, value: DataType| {
        let fields = vec![Field::new("key", key, false), Field::new("value", value, true)];
        Map(Arc::new(Field::new("entries", Struct(fields.into()), false)), false)
    };
    let structure = |of: DataType| Struct(vec![Field::new("a", of, true), Field::new("b", Utf8, true)].into());
    let plain = |data_type: DataType| (data_type.to_string(), Field::new("c", data_type, true));
    let marked = |data_type: DataType, name: &str| {
        let metadata = HashMap::from([("ARROW:extension:name".to_owned(), name.to_owned())]);
        (format!("{data_type} marked {name}"), Field::new("c", data_type, true).with_metadata(metadata))
    };
    let mut types: Vec<(String, Field)> = Vec::new();
    types.extend([Boolean, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float16, Float32, Float64].map(plain));
    types.extend([Decimal32(9, 2), Decimal64(18, 2), Decimal128(38, 9), Decimal256(38, 9), Decimal256(76, 9)].map(plain));
    types.extend([Utf8, LargeUtf8, Utf8View].map(plain));
    types.push(marked(Utf8, "arrow.json"));
    types.extend([Binary, LargeBinary, BinaryView, FixedSizeBinary(16)].map(plain));
    types.push(marked(FixedSizeBinary(16), "arrow.uuid"));
    types.extend([Date32, Date64].map(plain));
    for unit in [Second, Millisecond, Microsecond, Nanosecond] {
        types.extend([Timestamp(unit, Some("UTC".into())), Timestamp(unit, None)].map(plain));
    }
    types.extend([Time32(Second), Time32(Millisecond), Time64(Microsecond), Time64(Nanosecond)].map(plain));
    types.extend([Duration(Second), Duration(Millisecond), Duration(Microsecond), Duration(Nanosecond)].map(plain));
    types.extend(
        [Interval(IntervalUnit::YearMonth), Interval(IntervalUnit::DayTime), Interval(IntervalUnit::MonthDayNano), Null].map(plain),
    );
    let lists: [(&str, fn(Arc<Field>) -> DataType); 5] = [
        ("List", List),
        ("LargeList", LargeList),
        ("ListView", ListView),
        ("LargeListView", LargeListView),
        ("FixedSizeList", |item| FixedSizeList(item, 3)),
    ];
    types.extend(lists.map(|(name, of)| (format!("{name} of Int64"), Field::new("c", of(item(Int64)), true))));
    for (name, data_type) in [
        ("List of List of Int64", List(item(List(item(Int64))))),
        ("Struct of Int64 and Utf8", structure(Int64)),
        ("Struct of Timestamp and Utf8", structure(Timestamp(Microsecond, None))),
        ("Map of Utf8 to Int64", pair(Utf8, Int64)),
        ("Map of Utf8 to Timestamp", pair(Utf8, Timestamp(Microsecond, None))),
        ("Dictionary of Utf8", Dictionary(Box::new(Int32), Box::new(Utf8))),
        (
            "RunEndEncoded of Utf8",
            RunEndEncoded(Arc::new(Field::new("run_ends", Int32, false)), Arc::new(Field::new("values", Utf8, true))),
        ),
    ] {
        types.push((name.to_owned(), Field::new("c", data_type, true)));
    }
    types
}

fn escape(cell: &str) -> String {
    cell.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use weir_connectors::SINKS;

    use super::*;

    #[test]
    fn what_the_notes_speak_of_is_in_the_matrix() {
        let page = page(SINKS);
        let matrix = page.split("## From Arrow to destinations").nth(1).and_then(|rest| rest.split("## ").next()).expect("a matrix");
        for row in SINKS.iter().flat_map(|sink| (sink.types)()) {
            let name: String = row.arrow.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(matrix.contains(&format!("\n| {name}")), "{name}");
        }
    }

    #[test]
    fn every_destination_has_a_word_on_the_common_types() {
        let page = page(SINKS);
        for name in ["Boolean", "Int64", "UInt64", "Utf8", "Date32", "Struct of Int64 and Utf8", "Map of Utf8 to Int64"] {
            let mut lines = page.lines().filter(|line| line.starts_with(&format!("| {name} |"))).peekable();
            assert!(lines.peek().is_some(), "{name} is missing");
            assert!(lines.all(|line| !line.contains("refused")), "{name}");
        }
    }
}
