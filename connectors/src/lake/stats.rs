//! The statistics that a data file carries in the Delta log: how many rows, and per column nulls, least and greatest value.
//! A bound is left out wherever a reader could take it for more than it is.

use std::{collections::HashMap, time::SystemTime};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Decimal128Type, SchemaRef},
};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::scalar::ScalarValue;
use deltalake::kernel::Add;
use parquet::{arrow::arrow_reader::statistics::StatisticsConverter, file::metadata::ParquetMetaData};
use serde_json::{Map, Value, json};

/// As many columns as Delta's own writers describe.
const COLUMNS_MAX: usize = 32;

/// The log's entry for a data file. `nan` says which of the schema's columns held a NaN, which Parquet's bounds leave out.
pub fn add(
    path: String,
    size: u64,
    partitions: HashMap<String, Option<String>>,
    file: &ParquetMetaData,
    schema: &SchemaRef,
    nan: &[bool],
) -> Add {
    #[expect(clippy::disallowed_methods, reason = "a file's modification time is the file system's clock, not the run's")]
    let modified = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Add {
        path,
        partition_values: partitions,
        size: i64::try_from(size).unwrap_or(i64::MAX),
        modification_time: i64::try_from(modified).unwrap_or(i64::MAX),
        data_change: true,
        stats: Some(stats(file, schema, nan).to_string()),
        ..Default::default()
    }
}

/// How many rows an entry says its file holds.
pub fn rows(add: &Add) -> u64 {
    let stats: Option<Value> = add.stats.as_deref().and_then(|text| serde_json::from_str(text).ok());
    stats.and_then(|stats| stats["numRecords"].as_u64()).unwrap_or(0)
}

/// How many nulls of a column an entry says its file holds. `None`: it does not say.
pub fn nulls(add: &Add, column: &str) -> Option<u64> {
    let stats: Value = serde_json::from_str(add.stats.as_deref()?).ok()?;
    stats["nullCount"].get(column)?.as_u64()
}

fn stats(file: &ParquetMetaData, schema: &SchemaRef, nan: &[bool]) -> Value {
    let (mut least, mut greatest, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (index, field) in schema.fields().iter().enumerate().take(COLUMNS_MAX) {
        if field.data_type().is_nested() {
            continue;
        }
        let Some(column) = Bounds::of(file, schema, field.name()) else { continue };
        nulls.insert(field.name().clone(), json!(column.nulls));
        if nan.get(index).copied().unwrap_or(false) {
            continue;
        }
        if let Some((low, high)) = column.values.and_then(|(low, high)| Some((bound(&low)?, bound(&high)?))) {
            least.insert(field.name().clone(), low);
            greatest.insert(field.name().clone(), high);
        }
    }
    json!({ "numRecords": file.file_metadata().num_rows(), "minValues": least, "maxValues": greatest, "nullCount": nulls })
}

struct Bounds {
    nulls: u64,
    values: Option<(ScalarValue, ScalarValue)>,
}

impl Bounds {
    fn of(file: &ParquetMetaData, schema: &SchemaRef, name: &str) -> Option<Self> {
        let converter = StatisticsConverter::try_new(name, schema, file.file_metadata().schema_descr()).ok()?;
        let groups = file.row_groups();
        let counts = converter.row_group_null_counts(groups.iter()).ok()?;
        if counts.null_count() > 0 {
            return None;
        }
        let nulls = counts.values().iter().sum();
        let whole = || -> Option<(ScalarValue, ScalarValue)> {
            let (lows, highs) = (converter.row_group_mins(groups.iter()).ok()?, converter.row_group_maxes(groups.iter()).ok()?);
            let (low_exact, high_exact) =
                (converter.row_group_is_min_value_exact(groups.iter()).ok()?, converter.row_group_is_max_value_exact(groups.iter()).ok()?);
            let text = matches!(value_type(lows.data_type()), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            let mut bounds: Option<(ScalarValue, ScalarValue)> = None;
            for (index, group) in groups.iter().enumerate() {
                if counts.value(index) == group.num_rows().unsigned_abs() {
                    continue;
                }
                let exact = |flags: &arrow::array::BooleanArray| flags.is_valid(index) && flags.value(index);
                if lows.is_null(index) || highs.is_null(index) || (text && !(exact(&low_exact) && exact(&high_exact))) {
                    return None;
                }
                let (low, high) = (ScalarValue::try_from_array(&lows, index).ok()?, ScalarValue::try_from_array(&highs, index).ok()?);
                bounds = Some(match bounds {
                    None => (low, high),
                    Some((a, b)) => (if low < a { low } else { a }, if high > b { high } else { b }),
                });
            }
            bounds
        };
        Some(Self { nulls, values: whole() })
    }
}

fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, value) => value,
        other => other,
    }
}

/// A bound as the log writes it.
fn bound(value: &ScalarValue) -> Option<Value> {
    Some(match value {
        ScalarValue::Int8(Some(n)) => json!(n),
        ScalarValue::Int16(Some(n)) => json!(n),
        ScalarValue::Int32(Some(n)) => json!(n),
        ScalarValue::Int64(Some(n)) => json!(n),
        ScalarValue::Float32(Some(n)) if n.is_finite() => json!(f64::from(*n)),
        ScalarValue::Float64(Some(n)) if n.is_finite() => json!(n),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => json!(text),
        ScalarValue::Dictionary(_, inner) => bound(inner)?,
        ScalarValue::Date32(Some(_)) | ScalarValue::TimestampMicrosecond(Some(_), _) => {
            json!(iso(&value.to_array().ok()?, 0, 'T')?)
        }
        // Readers may take a JSON number for a double, which holds 15 digits.
        ScalarValue::Decimal128(Some(n), precision, scale) if n.unsigned_abs() < 1_000_000_000_000_000 => {
            serde_json::from_str(&decimal(*n, *precision, *scale)).ok()?
        }
        _ => return None,
    })
}

fn decimal(value: i128, precision: u8, scale: i8) -> String {
    use arrow::datatypes::DecimalType;
    Decimal128Type::format_decimal(value, precision, scale)
}

/// A date or timestamp as ISO 8601 text, exact to the microsecond. `None` beyond the years 0 to 9999, which readers disagree about.
fn iso(array: &ArrayRef, index: usize, separator: char) -> Option<String> {
    use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
    let plain = |date: NaiveDate| (0..=9999).contains(&date.year());
    match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>().value(index);
            let date = NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_signed(chrono::TimeDelta::try_days(days.into())?)?;
            plain(date).then(|| date.format("%Y-%m-%d").to_string())
        }
        DataType::Timestamp(_, zone) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(index);
            let instant = DateTime::from_timestamp_micros(micros)?.naive_utc();
            let (separator, suffix) = if zone.is_some() { ('T', "Z") } else { (separator, "") };
            plain(instant.date()).then(|| format!("{}{separator}{}{suffix}", instant.format("%Y-%m-%d"), instant.format("%H:%M:%S%.6f")))
        }
        _ => None,
    }
}

/// A partition value as the log writes it. `Err`: what is wrong with the value, in words.
pub fn partition_value(array: &ArrayRef, index: usize) -> Result<Option<String>, &'static str> {
    use arrow::datatypes::{Int8Type, Int16Type, Int32Type, Int64Type};
    if array.is_null(index) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(index).to_string(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(index).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(index).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(index).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(index).to_string(),
        DataType::Decimal128(precision, scale) => decimal(array.as_primitive::<Decimal128Type>().value(index), *precision, *scale),
        DataType::Utf8 => {
            let text = array.as_string::<i32>().value(index);
            if text.is_empty() {
                return Err("the empty string, which Delta reads back as null");
            }
            text.to_owned()
        }
        DataType::Date32 | DataType::Timestamp(..) => {
            iso(array, index, ' ').ok_or("a date outside the years 0 to 9999, which readers disagree about")?
        }
        _ => return Err("of a type that no partition can have"),
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
        datatypes::{Field, Schema},
    };
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn described(columns: Vec<(&str, ArrayRef)>, nan: &[bool]) -> Value {
        let fields: Vec<_> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, array)| array).collect()).expect("a batch");
        let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), None).expect("a writer");
        writer.write(&batch.slice(0, 1)).expect("written");
        writer.flush().expect("flushed");
        writer.write(&batch.slice(1, batch.num_rows() - 1)).expect("written");
        let file = writer.finish().expect("closed");
        stats(&file, &schema, nan)
    }

    #[test]
    fn bounds_span_all_row_groups_and_skip_groups_of_nulls() {
        let found = described(
            vec![
                ("n", Arc::new(Int64Array::from(vec![None, Some(7), Some(i64::MIN)]))),
                ("d", Arc::new(Date32Array::from(vec![0, -1, 19_000]))),
                ("t", Arc::new(TimestampMicrosecondArray::from(vec![1, 0, 1_000_001]).with_timezone("UTC"))),
                ("m", Arc::new(Decimal128Array::from(vec![1250, -3, 0]).with_precision_and_scale(20, 2).expect("decimal"))),
            ],
            &[],
        );
        assert_eq!(found["numRecords"], 3);
        assert_eq!(found["minValues"], json!({"n": i64::MIN, "d": "1969-12-31", "t": "1970-01-01T00:00:00.000000Z", "m": -0.03}));
        assert_eq!(found["maxValues"], json!({"n": 7, "d": "2022-01-08", "t": "1970-01-01T00:00:01.000001Z", "m": 12.5}));
        assert_eq!(found["nullCount"], json!({"n": 1, "d": 0, "t": 0, "m": 0}));
    }

    #[test]
    fn what_cannot_be_bounded_truthfully_has_no_bounds() {
        let long = "x".repeat(500);
        let found = described(
            vec![
                ("nan", Arc::new(Float64Array::from(vec![1.0, f64::NAN]))),
                ("inf", Arc::new(Float64Array::from(vec![1.0, f64::INFINITY]))),
                ("long", Arc::new(StringArray::from(vec!["a", long.as_str()]))),
                ("far", Arc::new(Date32Array::from(vec![0, i32::MAX]))),
                ("big", Arc::new(Decimal128Array::from(vec![1, i128::from(u64::MAX)]).with_precision_and_scale(20, 0).expect("decimal"))),
            ],
            &[true, false, false, false, false],
        );
        assert_eq!(found["minValues"], json!({}));
        assert_eq!(found["maxValues"], json!({}));
        assert_eq!(found["nullCount"]["nan"], 0);
    }

    #[test]
    fn partition_values_are_written_as_the_protocol_says() {
        let instant: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]));
        assert_eq!(partition_value(&instant, 0), Ok(Some("1970-01-01 00:00:01.500000".into())));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some(""), None, Some("a/b")]));
        assert!(partition_value(&text, 0).is_err());
        assert_eq!(partition_value(&text, 1), Ok(None));
        assert_eq!(partition_value(&text, 2), Ok(Some("a/b".into())));
    }
}
