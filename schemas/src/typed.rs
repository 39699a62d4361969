//! Which Arrow column holds these JSON values? For tests: the suite's cases and generated ones are JSON, contracts judge columns.

use std::{collections::HashMap, sync::Arc};

use ::arrow::{
    array::{
        ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, NullArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
        UInt64Array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{Field, Schema},
};
use serde_json::{Map, Value};

use crate::arrow::JSON_TEXT;

/// A column that holds all of the values, each in a type of its own; none where no one type does. A member that an object lacks is a null.
pub(crate) fn column(values: &[Option<&Value>]) -> Option<ArrayRef> {
    let there: Vec<&Value> = values.iter().copied().flatten().filter(|value| !value.is_null()).collect();
    let all = |is: fn(&Value) -> bool| there.iter().all(|value| is(value));
    let each = || values.iter().map(|value| value.filter(|value| !value.is_null()));
    let nulls = || NullBuffer::from_iter(each().map(|value| value.is_some()));
    Some(if there.is_empty() {
        Arc::new(NullArray::new(values.len()))
    } else if all(Value::is_boolean) {
        Arc::new(each().map(|value| value.and_then(Value::as_bool)).collect::<BooleanArray>())
    } else if all(Value::is_i64) {
        Arc::new(each().map(|value| value.and_then(Value::as_i64)).collect::<Int64Array>())
    } else if all(Value::is_u64) {
        Arc::new(each().map(|value| value.and_then(Value::as_u64)).collect::<UInt64Array>())
    } else if all(Value::is_f64) {
        Arc::new(each().map(|value| value.and_then(Value::as_f64)).collect::<Float64Array>())
    } else if all(Value::is_string) {
        Arc::new(each().map(|value| value.and_then(Value::as_str)).collect::<StringArray>())
    } else if all(Value::is_array) {
        let items: Vec<Option<&Value>> = there.iter().flat_map(|value| value.as_array().into_iter().flatten().map(Some)).collect();
        let items = column(&items)?;
        let lengths = each().map(|value| value.and_then(Value::as_array).map_or(0, Vec::len));
        let field = Field::new_list_field(items.data_type().clone(), true);
        Arc::new(ListArray::new(Arc::new(field), OffsetBuffer::from_lengths(lengths), items, Some(nulls())))
    } else if all(Value::is_object) {
        let mut names: Vec<&String> = there.iter().flat_map(|value| value.as_object().into_iter().flat_map(Map::keys)).collect();
        names.sort();
        names.dedup();
        let (mut fields, mut columns) = (vec![], vec![]);
        for name in names {
            let members: Vec<Option<&Value>> = each().map(|value| value.and_then(|value| value.get(name))).collect();
            let member = column(&members)?;
            fields.push(Field::new(name, member.data_type().clone(), true));
            columns.push(member);
        }
        match fields.is_empty() {
            true => Arc::new(StructArray::new_empty_fields(values.len(), Some(nulls()))),
            false => Arc::new(StructArray::new(fields.into(), columns, Some(nulls()))),
        }
    } else {
        return None;
    })
}

/// A column of JSON texts.
pub(crate) fn json_texts(values: &[Option<&Value>]) -> ArrayRef {
    Arc::new(values.iter().map(|value| value.map(Value::to_string)).collect::<StringArray>())
}

/// A field that says that its text is JSON.
pub(crate) fn json_field(name: &str, array: &ArrayRef) -> Field {
    Field::new(name, array.data_type().clone(), true).with_metadata(HashMap::from([(JSON_TEXT.0.to_owned(), JSON_TEXT.1.to_owned())]))
}

/// A batch of one column.
pub(crate) fn batch_of(field: Field, array: ArrayRef) -> RecordBatch {
    RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).expect("a column fits its field")
}

/// A batch whose rows are these objects, a column for each of their members: typed where one type holds all, else JSON text.
pub(crate) fn batch_of_rows(rows: &[&Map<String, Value>]) -> RecordBatch {
    let mut names: Vec<&String> = rows.iter().flat_map(|row| row.keys()).collect();
    names.sort();
    names.dedup();
    let (mut fields, mut columns) = (vec![], vec![]);
    for name in names {
        let members: Vec<Option<&Value>> = rows.iter().map(|row| row.get(name)).collect();
        let (field, array) = match column(&members) {
            Some(array) => (Field::new(name, array.data_type().clone(), true), array),
            None => {
                let array = json_texts(&members);
                (json_field(name, &array), array)
            }
        };
        fields.push(field);
        columns.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).expect("columns fit their fields")
}
