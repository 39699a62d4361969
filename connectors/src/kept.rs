//! Rows that were set aside, back into columns: each cell by itself, so that one that cannot be read does not take its row along.
//! What a row is as JSON is `weir_schemas::json`'s; which rows are read again, and what becomes of them, is the engine's.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, new_null_array},
    compute::cast,
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    file::ndjson::node::{Record, json_text},
};

/// A row as the quarantine keeps it.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// [`crate::Reject::raw`].
    pub raw: &'a str,
    /// [`crate::Reject::fields`].
    pub fields: Option<&'a str>,
}

/// A cell that holds no value of its column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The row's index.
    pub row: usize,
    /// Why, in words.
    pub reason: String,
}

/// What is said of every cell of a row whose cells cannot be told apart.
pub const UNREADABLE: &str = "the row as it stood cannot be taken apart";

/// One column of some rows. A cell that is not in a row is null; one that is unfit is null too, and told. A number or a boolean of a text column
/// is its text; unless `plain`, which is for rows that were set aside in other types than they are read as, it is told all the same.
pub fn column(field: &Field, rows: &[Kept<'_>], plain: bool) -> Result<(ArrayRef, Vec<Unfit>)> {
    let Some(read) = readable(field.data_type()) else { return Ok(unread(field, rows)) };
    let json = weir_schemas::arrow::is_json_text(field);
    let wanted = if json { json_text(field.name()) } else { Field::new(field.name(), read, true) };
    let wanted = Schema::new(vec![wanted]);
    let mut record = Record::new(&wanted, rows.len())?;
    let mut unfit = Vec::new();
    for (row, kept) in rows.iter().enumerate() {
        let text = kept.fields.unwrap_or(kept.raw);
        let Err((code, _, reason)) = record.read(text.as_bytes(), true) else { continue };
        let said = match code {
            "malformed" => None,
            _ => text_of(text, field.name()).filter(|_| kept.fields.is_some() || spelt(field.data_type())),
        };
        let time = matches!(field.data_type(), DataType::Time32(_) | DataType::Time64(_));
        let said = said.as_deref().map(|said| if time { said.trim_end_matches('Z') } else { said });
        if said.is_some_and(|said| record.push_text(said.as_bytes())) {
            continue;
        }
        if code != "malformed"
            && !json
            && wanted.field(0).data_type() == &DataType::Utf8
            && let Some(scalar) = scalar_of(text, field.name())?
            && record.push_text(scalar.as_bytes())
        {
            if !plain {
                unfit.push(Unfit { row, reason });
            }
            continue;
        }
        unfit.push(Unfit { row, reason: if code == "malformed" { UNREADABLE.to_owned() } else { reason } });
        record.read(b"{}", true).map_err(|(_, _, reason)| Error::weir("kept-rows", format!("an empty row cannot be read: {reason}")))?;
    }
    let array = record.finish()?.remove(0);
    match array.data_type() == field.data_type() {
        true => Ok((array, unfit)),
        false => {
            let odd = |error| Error::weir("kept-rows", format!("column \"{}\" takes no values back", field.name())).because(error);
            Ok((cast(&array, field.data_type()).map_err(odd)?, unfit))
        }
    }
}

/// The type that a column is read as, from which it is cast; none where JSON says too little.
fn readable(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Dictionary(_, values) => readable(values)?,
        DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(TimeUnit::Nanosecond) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(item.as_ref().clone().with_data_type(readable(item.data_type())?)))
        }
        DataType::List(item) => DataType::List(Arc::new(item.as_ref().clone().with_data_type(readable(item.data_type())?))),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| Some(field.as_ref().clone().with_data_type(readable(field.data_type())?)));
            DataType::Struct(fields.collect::<Option<Vec<_>>>()?.into())
        }
        DataType::Decimal256(..)
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::Map(..)
        | DataType::Union(..)
        | DataType::RunEndEncoded(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => return None,
        other => other.clone(),
    })
}

/// True of types whose values JSON has as text though a reader of JSON takes them otherwise: NaN and infinities, times of day with their Z.
fn spelt(data_type: &DataType) -> bool {
    data_type.is_floating() || matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
}

/// The text that a row has under a name.
fn text_of(row: &str, name: &str) -> Option<String> {
    let mut members: Map<String, Value> = serde_json::from_str(row).ok()?;
    match members.remove(name)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// The number or boolean that a row has under a name, as it is written.
fn scalar_of(row: &str, name: &str) -> Result<Option<String>> {
    let mut record = Record::new(&Schema::new(vec![json_text(name)]), 1)?;
    if record.read(row.as_bytes(), true).is_err() {
        return Ok(None);
    }
    let array = record.finish()?.remove(0);
    let text = array.as_string::<i32>().value(0);
    Ok(text.starts_with(|first: char| first == '-' || first.is_ascii_digit() || matches!(first, 't' | 'f')).then(|| text.to_owned()))
}

/// A column of a type that is not read back: null, and every row that has something there is unfit.
fn unread(field: &Field, rows: &[Kept<'_>]) -> (ArrayRef, Vec<Unfit>) {
    let mut unfit = Vec::new();
    for (row, kept) in rows.iter().enumerate() {
        let members: Option<Map<String, Value>> = serde_json::from_str(kept.fields.unwrap_or(kept.raw)).ok();
        let reason = match members {
            None => UNREADABLE.to_owned(),
            Some(members) if members.get(field.name()).is_some_and(|value| !value.is_null()) => {
                format!("values of type {} are not read back from JSON", field.data_type())
            }
            Some(_) => continue,
        };
        unfit.push(Unfit { row, reason });
    }
    (new_null_array(field.data_type(), rows.len()), unfit)
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
