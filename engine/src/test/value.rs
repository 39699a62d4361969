//! Between a value as a person writes it and a cell of a column: both ways, or why not.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions,
        StringArray, StructArray, UInt64Array, new_null_array,
    },
    buffer::{OffsetBuffer, ScalarBuffer},
    compute::{CastOptions, cast_with_options, concat},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit},
    util::display::{ArrayFormatter, FormatOptions},
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;
use weir_pipelines::{Diagnostic, Diagnostics, Literal, Moment, Row, SourceFile, Span, Spanned};
use weir_schemas::json;

/// RFC 4648's base64, with padding or without.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// The type of a column whose values these are; none where they are of no one type, with the one that differs.
pub fn common_type<'a>(values: impl IntoIterator<Item = &'a Spanned<Literal>>) -> Result<DataType, (Span, String)> {
    let mut found = DataType::Null;
    for value in values {
        let (before, this) = (found.clone(), own_type(value)?);
        found = both(&before, &this).ok_or_else(|| (value.span.clone(), format!("{} beside {before}", value.value.type_name())))?;
    }
    Ok(found)
}

fn own_type(value: &Spanned<Literal>) -> Result<DataType, (Span, String)> {
    Ok(match &value.value {
        Literal::Text(_) => DataType::Utf8,
        Literal::Integer(number) if i64::try_from(*number).is_err() && u64::try_from(*number).is_ok() => DataType::UInt64,
        Literal::Integer(_) => DataType::Int64,
        Literal::Float(_) => DataType::Float64,
        Literal::Boolean(_) => DataType::Boolean,
        Literal::Moment(Moment::Instant(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Literal::Moment(Moment::Local(_)) => DataType::Timestamp(TimeUnit::Microsecond, None),
        Literal::Moment(Moment::Date(_)) => DataType::Date32,
        Literal::Moment(Moment::Time(_)) => DataType::Time64(TimeUnit::Microsecond),
        Literal::List(items) => DataType::List(Arc::new(Field::new("item", common_type(items)?, true))),
        Literal::Record(cells) => {
            let fields = cells.iter().map(|(name, value)| Ok(Field::new(&name.value, own_type(value)?, true)));
            DataType::Struct(fields.collect::<Result<Vec<_>, (Span, String)>>()?.into())
        }
    })
}

fn both(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (a, b) if a == b => Some(a.clone()),
        (DataType::Int64 | DataType::UInt64, DataType::Float64) | (DataType::Float64, DataType::Int64 | DataType::UInt64) => {
            Some(DataType::Float64)
        }
        (DataType::List(a), DataType::List(b)) => {
            Some(DataType::List(Arc::new(Field::new("item", both(a.data_type(), b.data_type())?, true))))
        }
        (DataType::Struct(a), DataType::Struct(b)) => {
            let mut fields: Vec<FieldRef> = a.iter().cloned().collect();
            for field in b {
                match fields.iter_mut().find(|known| known.name() == field.name()) {
                    Some(known) => {
                        *known = Arc::new(Field::new(field.name(), both(known.data_type(), field.data_type())?, true));
                    }
                    None => fields.push(field.clone()),
                }
            }
            Some(DataType::Struct(fields.into()))
        }
        _ => None,
    }
}

/// Rows as a batch of `schema`: a column that a row leaves out is null there. A column of JSON text takes any value.
pub fn batch(schema: &SchemaRef, rows: &[Row], file: &Arc<SourceFile>) -> Result<RecordBatch, Diagnostics> {
    let mut wrong = Diagnostics::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in schema.fields() {
        let mut cells: Vec<ArrayRef> = Vec::with_capacity(rows.len());
        for row in rows {
            let value = row.cells.iter().find(|(name, _)| name.value == *field.name());
            let array = match value {
                None => Ok(new_null_array(field.data_type(), 1)),
                Some((_, value)) if is_json(field) => cell(&Literal::Text(json_text(&value.value)), field.data_type()),
                Some((_, value)) => cell(&value.value, field.data_type()),
            };
            match array {
                Ok(array) => cells.push(array),
                Err(why) => {
                    let span = value.map_or(row.span.clone(), |(_, value)| value.span.clone());
                    wrong.push(
                        Diagnostic::error("wrong-type", format!("\"{}\" is {}: {why}", field.name(), field.data_type())).at(file, span, ""),
                    );
                }
            }
        }
        let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
        columns.push(match cells.as_slice() {
            [] => new_null_array(field.data_type(), 0),
            cells => concat(cells).expect("cells of one type make a column"),
        });
    }
    if !wrong.is_empty() {
        wrong.sort_by_key(|diagnostic| diagnostic.labels[0].span.start);
        return Err(wrong);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let nullable: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(nullable)), columns, &options).expect("every column has a cell of each row"))
}

/// True of a text column that holds JSON: Arrow's canonical extension type.
fn is_json(field: &Field) -> bool {
    field.metadata().get("ARROW:extension:name").is_some_and(|name| name == "arrow.json")
}

/// A value as JSON text; a string that is JSON text already stays.
fn json_text(value: &Literal) -> String {
    match value {
        Literal::Text(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => text.clone(),
        value => to_json(value).to_string(),
    }
}

/// A value as JSON.
pub fn to_json(value: &Literal) -> Value {
    match value {
        Literal::Text(text) => text.as_str().into(),
        Literal::Integer(number) => i64::try_from(*number).map_or_else(|_| number.to_string().into(), Value::from),
        Literal::Float(number) => (*number).into(),
        Literal::Boolean(value) => (*value).into(),
        Literal::Moment(moment) => moment.text().into(),
        Literal::List(items) => items.iter().map(|item| to_json(&item.value)).collect(),
        Literal::Record(cells) => Value::Object(cells.iter().map(|(name, value)| (name.value.clone(), to_json(&value.value))).collect()),
    }
}

/// One value as an array of one cell.
pub fn cell(value: &Literal, to: &DataType) -> Result<ArrayRef, String> {
    let unfit = || Err(format!("{} does not fit", value.type_name()));
    let strict = CastOptions { safe: false, format_options: FormatOptions::default() };
    let cast = |array: ArrayRef| cast_with_options(&array, to, &strict).map_err(|_| format!("{} does not fit", value.to_toml()));
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    match (to, value) {
        (DataType::Dictionary(_, inner), _) => cast(cell(value, inner)?),
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, Literal::Text(value)) => cast(text(value)),
        (DataType::Boolean, Literal::Boolean(value)) => Ok(Arc::new(BooleanArray::from(vec![*value]))),
        (to, Literal::Integer(number)) if to.is_integer() => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => cast(Arc::new(Int64Array::from(vec![number]))),
            (_, Ok(number)) => cast(Arc::new(UInt64Array::from(vec![number]))),
            _ => unfit(),
        },
        // Past 63 bits TOML has no integers that every reader knows.
        (DataType::UInt64, Literal::Text(digits)) => match digits.parse::<u64>() {
            Ok(number) => Ok(Arc::new(UInt64Array::from(vec![number]))),
            Err(_) => unfit(),
        },
        (to, Literal::Float(number)) if to.is_floating() => cast(Arc::new(Float64Array::from(vec![*number]))),
        #[expect(clippy::cast_precision_loss, reason = "whoever writes an integer for a float means the nearest one")]
        (to, Literal::Integer(number)) if to.is_floating() => cast(Arc::new(Float64Array::from(vec![*number as f64]))),
        (
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale),
            Literal::Text(_) | Literal::Integer(_) | Literal::Float(_),
        ) => {
            let digits = match value {
                Literal::Text(digits) => digits.clone(),
                Literal::Float(number) => number.to_string(),
                other => other.to_toml(),
            };
            let fraction = digits.split_once('.').map_or("", |(_, fraction)| fraction.trim_end_matches('0'));
            // A cast would round.
            if fraction.len() > usize::try_from(*scale).unwrap_or(0) {
                return Err(format!("{digits} has more digits"));
            }
            cast(text(&digits))
        }
        (DataType::Date32 | DataType::Date64, Literal::Moment(Moment::Date(value)) | Literal::Text(value)) => cast(text(value)),
        (DataType::Time32(_) | DataType::Time64(_), Literal::Moment(Moment::Time(value)) | Literal::Text(value)) => {
            cast(text(value.trim_end_matches('Z')))
        }
        (DataType::Timestamp(..), Literal::Moment(moment)) if !matches!(moment, Moment::Time(_)) => cast(text(moment.text())),
        (DataType::Timestamp(..), Literal::Text(value)) => cast(text(value)),
        (DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_), Literal::Text(value)) => {
            match BASE64.decode(value).ok() {
                Some(bytes) => cast(Arc::new(BinaryArray::from(vec![bytes.as_slice()]))),
                None => Err("binary is written as base64".to_owned()),
            }
        }
        (DataType::List(item), Literal::List(values)) => {
            let cells = values.iter().map(|value| cell(&value.value, item.data_type())).collect::<Result<Vec<_>, _>>()?;
            let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
            let values = match cells.as_slice() {
                [] => new_null_array(item.data_type(), 0),
                cells => concat(cells).map_err(|error| error.to_string())?,
            };
            let end = i32::try_from(values.len()).map_err(|_| "the array is too long".to_owned())?;
            let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, end]));
            ListArray::try_new(item.clone(), offsets, values, None).map(|list| Arc::new(list) as _).map_err(|error| error.to_string())
        }
        (DataType::LargeList(item) | DataType::FixedSizeList(item, _), Literal::List(_)) => {
            cast(cell(value, &DataType::List(item.clone()))?)
        }
        (DataType::Struct(fields), Literal::Record(cells)) => {
            if let Some((unknown, _)) = cells.iter().find(|(name, _)| !fields.iter().any(|field| *field.name() == name.value)) {
                return Err(format!("it has no field \"{}\"", unknown.value));
            }
            let columns = fields.iter().map(|field| match cells.iter().find(|(name, _)| name.value == *field.name()) {
                Some((_, value)) => cell(&value.value, field.data_type()),
                None => Ok(new_null_array(field.data_type(), 1)),
            });
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            match fields.is_empty() {
                true => Ok(Arc::new(StructArray::new_empty_fields(1, None))),
                false => {
                    StructArray::try_new(fields.clone(), columns, None).map(|row| Arc::new(row) as _).map_err(|error| error.to_string())
                }
            }
        }
        (DataType::Duration(_) | DataType::Interval(_) | DataType::Map(..) | DataType::Union(..) | DataType::RunEndEncoded(..), _) => {
            Err("a test cannot say values of this type".to_owned())
        }
        _ => unfit(),
    }
}

/// A cell as a person would write it; none where it is null.
pub fn literal(field: &Field, array: &ArrayRef, row: usize) -> Option<Literal> {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return None;
    }
    let shown = || ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()).map(|shown| shown.value(row).to_string()).ok();
    match array.data_type() {
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            shown().map(Literal::Text)
        }
        DataType::Float64 => Some(Literal::Float(array.as_primitive::<arrow::datatypes::Float64Type>().value(row))),
        DataType::Float32 => {
            let value = array.as_primitive::<arrow::datatypes::Float32Type>().value(row);
            Some(Literal::Float(value.to_string().parse().unwrap_or_else(|_| f64::from(value))))
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let cells = fields.iter().zip(columns).filter_map(|(field, column)| {
                Some((Spanned::new(field.name().clone(), 0..0), Spanned::new(literal(field, column, row)?, 0..0)))
            });
            Some(Literal::Record(cells.collect()))
        }
        DataType::List(item) => {
            let items = array.as_list::<i32>().value(row);
            let items = (0..items.len()).map(|at| literal(item, &items, at).map(|value| Spanned::new(value, 0..0)));
            // TOML has no null: a list that holds one is told apart by whoever reads this back.
            Some(Literal::List(items.flatten().collect()))
        }
        data_type => {
            let one =
                RecordBatch::try_new(Arc::new(Schema::new(vec![field.clone().with_nullable(true)])), vec![array.slice(row, 1)]).ok()?;
            let value = json::row(&one, 0);
            from_json(value.get(field.name())?, data_type)
        }
    }
}

/// A JSON value as a person would write it in TOML for a column of this type; none for null.
pub fn from_json(value: &Value, to: &DataType) -> Option<Literal> {
    let spanned = |value: Literal| Spanned::new(value, 0..0);
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Literal::Boolean(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) if !to.is_floating() => Literal::Integer(number.into()),
            (_, Some(number)) if !to.is_floating() => Literal::Text(number.to_string()),
            _ => Literal::Float(number.as_f64()?),
        },
        // TOML's years have four digits.
        Value::String(text) if text.len() >= 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[0].is_ascii_digit() => match to {
            DataType::Date32 | DataType::Date64 => Literal::Moment(Moment::Date(text.clone())),
            DataType::Timestamp(_, Some(_)) => Literal::Moment(Moment::Instant(text.clone())),
            DataType::Timestamp(_, None) => Literal::Moment(Moment::Local(text.clone())),
            _ => Literal::Text(text.clone()),
        },
        Value::String(text) => match to {
            DataType::Time32(_) | DataType::Time64(_) => Literal::Moment(Moment::Time(text.trim_end_matches('Z').to_owned())),
            _ => Literal::Text(text.clone()),
        },
        Value::Array(items) => Literal::List(items.iter().filter_map(|item| from_json(item, &DataType::Null)).map(spanned).collect()),
        Value::Object(members) => {
            let cells = members
                .iter()
                .filter_map(|(name, value)| Some((Spanned::new(name.clone(), 0..0), spanned(from_json(value, &DataType::Null)?))));
            Literal::Record(cells.collect())
        }
    })
}

/// A batch's rows as a person would write them: nulls are left out.
pub fn rows(batch: &RecordBatch) -> Vec<Row> {
    let schema = batch.schema();
    let row = |row: usize| {
        let cells = schema.fields().iter().zip(batch.columns()).filter_map(|(field, column)| {
            Some((Spanned::new(field.name().clone(), 0..0), Spanned::new(literal(field, column, row)?, 0..0)))
        });
        Row { span: 0..0, cells: cells.collect() }
    };
    (0..batch.num_rows()).map(row).collect()
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
