//! The lists of a column, seen through their items: where each list starts and ends, what an answer for every item says about the lists, and
//! whether a list has an item twice. What is asked of items is `judge`'s.

use std::collections::HashMap;

use ::arrow::{
    array::{Array, ArrayRef, AsArray, OffsetSizeTrait, PrimitiveArray, UInt64Array},
    buffer::BooleanBuffer,
    compute::take,
    datatypes::{
        ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type,
    },
};

/// The lists of a column. Under a null stands a list too, of whatever items.
pub(crate) struct Lists<'a> {
    pub(crate) field: &'a Field,
    pub(crate) items: ArrayRef,
    /// The list of a row has the items from its start to the next.
    starts: Vec<usize>,
}

/// The field of a column's items, where its lists can be seen through them.
pub(crate) fn item(data_type: &DataType) -> Option<&Field> {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => Some(field),
        _ => None,
    }
}

impl<'a> Lists<'a> {
    pub(crate) fn of(array: &'a dyn Array) -> Option<Self> {
        fn of<'a, O: OffsetSizeTrait>(field: &'a Field, array: &dyn Array) -> Lists<'a> {
            let list = array.as_list::<O>();
            let offsets = list.value_offsets();
            let first = offsets[0].as_usize();
            let starts: Vec<usize> = offsets.iter().map(|offset| offset.as_usize() - first).collect();
            Lists { field, items: list.values().slice(first, starts[list.len()]), starts }
        }
        match array.data_type() {
            DataType::List(field) => Some(of::<i32>(field, array)),
            DataType::LargeList(field) => Some(of::<i64>(field, array)),
            DataType::FixedSizeList(field, size) => {
                let size = usize::try_from(*size).ok()?;
                let starts = (0..=array.len()).map(|row| row * size).collect();
                Some(Self { field, items: array.as_fixed_size_list().values().clone(), starts })
            }
            _ => None,
        }
    }

    fn each(&self, holds: impl Fn(usize, usize) -> bool) -> BooleanBuffer {
        BooleanBuffer::collect_bool(self.starts.len() - 1, |row| holds(self.starts[row], self.starts[row + 1]))
    }

    /// Which lists have from so many to so many items.
    pub(crate) fn counted(&self, least: u64, most: u64) -> BooleanBuffer {
        self.each(|start, end| (least..=most).contains(&((end - start) as u64)))
    }

    /// Which lists have an answer of yes for every item from a place on.
    pub(crate) fn all(&self, judged: &BooleanBuffer, from: usize) -> BooleanBuffer {
        if judged.count_set_bits() == judged.len() {
            return BooleanBuffer::new_set(self.starts.len() - 1);
        }
        self.each(|start, end| (start.saturating_add(from).min(end)..end).all(|item| judged.value(item)))
    }

    /// Which lists have an answer of yes for from so many to so many items.
    pub(crate) fn some(&self, judged: &BooleanBuffer, least: u64, most: u64) -> BooleanBuffer {
        self.each(|start, end| (least..=most).contains(&((start..end).filter(|item| judged.value(*item)).count() as u64)))
    }

    /// The items at a place, of the lists that have so many.
    pub(crate) fn at(&self, place: usize) -> Option<ArrayRef> {
        let rows = self.starts.windows(2).filter(|ends| ends[1] - ends[0] > place);
        let picked: UInt64Array = rows.map(|ends| (ends[0] + place) as u64).collect();
        take(&self.items, &picked, None).ok()
    }

    /// Which lists have an answer of yes for the item at a place, or no such item. The answers are those about [`Lists::at`].
    pub(crate) fn placed(&self, judged: &BooleanBuffer, place: usize) -> BooleanBuffer {
        let mut next = 0;
        BooleanBuffer::collect_bool(self.starts.len() - 1, |row| {
            if self.starts[row + 1] - self.starts[row] <= place {
                return true;
            }
            next += 1;
            judged.value(next - 1)
        })
    }

    /// Which lists have no item twice; none where equality of items is not seen here.
    pub(crate) fn unique(&self) -> Option<BooleanBuffer> {
        let keys = keys(&self.items)?;
        let mut sorted = Vec::new();
        let rows = self.starts.len() - 1;
        Some(BooleanBuffer::collect_bool(rows, |row| {
            let keys = &keys[self.starts[row]..self.starts[row + 1]];
            match keys {
                [] | [_] => true,
                [first, second] => first != second,
                keys => {
                    sorted.clear();
                    sorted.extend_from_slice(keys);
                    sorted.sort_unstable();
                    sorted.windows(2).all(|pair| pair[0] != pair[1])
                }
            }
        }))
    }
}

/// True where items of a type have keys.
pub(crate) fn has_keys(data_type: &DataType) -> bool {
    use DataType::*;
    data_type.is_integer() || matches!(data_type, Null | Boolean | Utf8 | LargeUtf8 | Utf8View | Float16 | Float32 | Float64)
}

/// A number for each item, the same for those that are equal as JSON.
fn keys(items: &ArrayRef) -> Option<Vec<u128>> {
    /// No item that is not null has this key.
    const NULL: u128 = u128::MAX;
    /// What is added to integers, so that none is negative.
    const ABOVE: i128 = 1 << 64;
    let float = |value: f64| match value {
        value if value.is_nan() => u128::from(f64::NAN.to_bits()),
        // The two zeros are one number.
        0.0 => 0,
        value => u128::from(value.to_bits()),
    };
    let mut keys: Vec<u128> = match items.data_type() {
        DataType::Null => vec![NULL; items.len()],
        DataType::Boolean => items.as_boolean().values().iter().map(u128::from).collect(),
        DataType::Float16 => items.as_primitive::<Float16Type>().values().iter().map(|value| float(value.to_f64())).collect(),
        DataType::Float32 => items.as_primitive::<Float32Type>().values().iter().map(|value| float((*value).into())).collect(),
        DataType::Float64 => items.as_primitive::<Float64Type>().values().iter().map(|value| float(*value)).collect(),
        data_type if data_type.is_integer() => wholes(items).into_iter().map(|value| (value + ABOVE).unsigned_abs()).collect(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let mut known = HashMap::new();
            let mut key = |text| {
                let next = known.len() as u128;
                *known.entry(text).or_insert(next)
            };
            match items.data_type() {
                DataType::Utf8 => (0..items.len()).map(|item| key(items.as_string::<i32>().value(item))).collect(),
                DataType::LargeUtf8 => (0..items.len()).map(|item| key(items.as_string::<i64>().value(item))).collect(),
                _ => (0..items.len()).map(|item| key(items.as_string_view().value(item))).collect(),
            }
        }
        _ => return None,
    };
    if let Some(nulls) = items.nulls() {
        keys.iter_mut().enumerate().filter(|(item, _)| nulls.is_null(*item)).for_each(|(_, key)| *key = NULL);
    }
    Some(keys)
}

/// Every integer of an array, whatever stands under its nulls included.
pub(crate) fn wholes(array: &dyn Array) -> Vec<i128> {
    fn each<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &PrimitiveArray<T>) -> Vec<i128> {
        array.values().iter().map(|value| (*value).into()).collect()
    }
    match array.data_type() {
        DataType::Int8 => each::<Int8Type>(array.as_primitive()),
        DataType::Int16 => each::<Int16Type>(array.as_primitive()),
        DataType::Int32 => each::<Int32Type>(array.as_primitive()),
        DataType::Int64 => each::<Int64Type>(array.as_primitive()),
        DataType::UInt8 => each::<UInt8Type>(array.as_primitive()),
        DataType::UInt16 => each::<UInt16Type>(array.as_primitive()),
        DataType::UInt32 => each::<UInt32Type>(array.as_primitive()),
        _ => each::<UInt64Type>(array.as_primitive()),
    }
}
