//! The page of types: which column type each Arrow type becomes in each destination, as the destinations themselves say.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use weir_connectors::SinkKind;

/// Writes the matrix of all sinks that have column types of their own, and what happens to values.
pub fn page(sinks: &[SinkKind]) -> String {
    let destinations: Vec<&SinkKind> = sinks.iter().filter(|sink| !(sink.types)().is_empty()).collect();
    let mut out = "# Types\n\n<!-- Made by `weir dev generate` from the tables in the connectors. -->\n\n\
        Which column type each Arrow type becomes. A mapping marked *lossy* is a `weir check` error unless the sink names the column in `allow_lossy`. In every exact\n\
        mapping a value that does not fit (a date that the destination cannot hold, a null list where it has none) fails the run and names the column; nothing is clamped or cut.\n\n"
        .to_owned();
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
        let matrix = page.split("## ").next().expect("a matrix");
        for row in SINKS.iter().flat_map(|sink| (sink.types)()) {
            let name: String = row.arrow.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(matrix.contains(&format!("\n| {name}")), "{name}");
        }
    }

    #[test]
    fn every_destination_has_a_word_on_the_common_types() {
        let page = page(SINKS);
        for name in ["Boolean", "Int64", "UInt64", "Utf8", "Date32", "Struct of Int64 and Utf8", "Map of Utf8 to Int64"] {
            let line = page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap_or_else(|| panic!("{name} is missing"));
            assert!(!line.contains("refused"), "{line}");
        }
    }
}
