//! About how many bytes are rows, once each of their values is written out? What the limits of answers count, and what doors cut batches by.

use std::sync::Arc;

use arrow::{
    array::{AnyDictionaryArray, Array, ArrayRef, AsArray, GenericListViewArray, OffsetSizeTrait, RecordBatch, RunArray, UnionArray},
    datatypes::{DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType, UnionMode},
};

/// Bytes of a view, which has short values in itself.
const VIEW: usize = 16;

/// The bytes of all columns of a batch. What several rows share counts for each of them, and what a slice does not show does not count.
pub fn of_batch(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(of).sum()
}

/// The bytes of an array.
pub fn of(array: &ArrayRef) -> usize {
    let rows = array.len();
    match array.data_type() {
        DataType::Null => 0,
        DataType::Boolean => rows.div_ceil(8),
        DataType::Utf8View => VIEW * rows + array.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => VIEW * rows + array.as_binary_view().total_buffer_bytes_used(),
        DataType::Utf8 => 4 * rows + span(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => 8 * rows + span(array.as_string::<i64>().value_offsets()),
        DataType::Binary => 4 * rows + span(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => 8 * rows + span(array.as_binary::<i64>().value_offsets()),
        DataType::FixedSizeBinary(size) => rows * usize::try_from(*size).unwrap_or(0),
        DataType::List(_) => 4 * rows + within(array.as_list::<i32>().values(), array.as_list::<i32>().value_offsets()),
        DataType::LargeList(_) => 8 * rows + within(array.as_list::<i64>().values(), array.as_list::<i64>().value_offsets()),
        DataType::ListView(_) => 8 * rows + of_list_view(array.as_list_view::<i32>()),
        DataType::LargeListView(_) => 16 * rows + of_list_view(array.as_list_view::<i64>()),
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            4 * rows + within(&entries, map.value_offsets())
        }
        DataType::FixedSizeList(..) => of(array.as_fixed_size_list().values()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(of).sum(),
        DataType::Dictionary(..) => of_dictionary(array.as_any_dictionary()),
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => of_runs(array.as_run::<Int16Type>()),
            DataType::Int32 => of_runs(array.as_run::<Int32Type>()),
            _ => of_runs(array.as_run::<Int64Type>()),
        },
        DataType::Union(_, mode) => of_union(array.as_union(), *mode),
        other => rows * other.primitive_width().unwrap_or(0),
    }
}

fn span<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => last.as_usize().saturating_sub(first.as_usize()),
        _ => 0,
    }
}

fn within<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &[O]) -> usize {
    let start = offsets.first().map_or(0, |first| first.as_usize());
    of(&values.slice(start, span(offsets)))
}

fn of_list_view<O: OffsetSizeTrait>(array: &GenericListViewArray<O>) -> usize {
    let places = array.offsets().iter().zip(array.sizes().iter());
    places.map(|(offset, size)| of(&array.values().slice(offset.as_usize(), size.as_usize()))).sum()
}

fn of_dictionary(array: &dyn AnyDictionaryArray) -> usize {
    let values = array.values();
    if values.is_empty() {
        return 0;
    }
    let one = |at: usize| of(&values.slice(at, 1));
    // A null's key is whatever it is.
    let keys = array.normalized_keys();
    if keys.len() < values.len() {
        return keys.into_iter().map(one).sum();
    }
    let weights: Vec<usize> = (0..values.len()).map(one).collect();
    keys.into_iter().filter_map(|key| weights.get(key)).sum()
}

fn of_runs<R: RunEndIndexType>(array: &RunArray<R>) -> usize {
    let (values, mut sum, mut last) = (array.values(), 0, None);
    for row in 0..array.len() {
        let at = array.get_physical_index(row);
        let weight = match last {
            Some((before, weight)) if before == at => weight,
            _ => of(&values.slice(at, 1)),
        };
        last = Some((at, weight));
        sum += weight;
    }
    sum
}

fn of_union(array: &UnionArray, mode: UnionMode) -> usize {
    let rows = array.len();
    match (mode, array.data_type()) {
        (UnionMode::Sparse, DataType::Union(fields, _)) => rows + fields.iter().map(|(id, _)| of(array.child(id))).sum::<usize>(),
        _ => 5 * rows + (0..rows).map(|row| of(&array.value(row))).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{
            BinaryViewArray, BooleanArray, DictionaryArray, FixedSizeListArray, Int32Array, Int64Array, LargeStringArray, ListArray,
            MapBuilder, StringArray, StringBuilder, StringViewArray, StructArray,
        },
        buffer::OffsetBuffer,
        datatypes::Field,
    };

    use super::*;

    fn views() -> ArrayRef {
        Arc::new(StringViewArray::from(vec![Some("x".repeat(20_000)), Some("short".into()), None]))
    }

    fn list_of(values: ArrayRef, lengths: [usize; 2]) -> ListArray {
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        ListArray::new(item, OffsetBuffer::from_lengths(lengths), values, None)
    }

    #[test]
    fn the_texts_of_views_count() {
        assert_eq!(of(&views()), 3 * 16 + 20_000);
        assert_eq!(of(&views().slice(1, 2)), 2 * 16, "not what a slice does not show");
        let bytes: ArrayRef = Arc::new(BinaryViewArray::from_iter_values([b"a view of more than twelve bytes"]));
        assert_eq!(of(&bytes), 16 + 32);
    }

    #[test]
    fn they_count_within_lists_structs_maps_and_dictionaries() {
        let list: ArrayRef = Arc::new(list_of(views(), [1, 2]));
        assert_eq!(of(&list), 2 * 4 + 3 * 16 + 20_000);
        assert_eq!(of(&list.slice(1, 1)), 4 + 2 * 16);
        let item = Arc::new(Field::new("item", DataType::Utf8View, true));
        let fixed: ArrayRef = Arc::new(FixedSizeListArray::new(item, 3, views(), None));
        assert_eq!(of(&fixed), 3 * 16 + 20_000);
        let parts: ArrayRef = Arc::new(StructArray::from(vec![(Arc::new(Field::new("text", DataType::Utf8View, true)), views())]));
        assert_eq!(of(&parts), 3 * 16 + 20_000);
        let nested: ArrayRef = Arc::new(list_of(parts, [3, 0]));
        assert_eq!(of(&nested), 2 * 4 + 3 * 16 + 20_000);
        let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        map.keys().append_value("key");
        map.values().append_value("value");
        map.append(true).expect("as many keys as values");
        let map: ArrayRef = Arc::new(map.finish());
        assert_eq!(of(&map), 4 + 4 + 3 + 4 + 5);
        // A value counts in each row that shows it, whether there are more rows or more values.
        let same: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0, 0, 1, 0]), views()));
        assert_eq!(of(&same), 4 * 16 + 3 * 20_000);
        assert_eq!(of(&same.slice(1, 2)), 2 * 16 + 20_000);
    }

    #[test]
    fn rare_types_count_too() {
        let runs: ArrayRef = Arc::new(RunArray::<Int32Type>::try_new(&Int32Array::from(vec![2, 5]), &views().slice(0, 2)).expect("runs"));
        assert_eq!(of(&runs), 5 * 16 + 2 * 20_000);
        assert_eq!(of(&runs.slice(1, 2)), 2 * 16 + 20_000);
    }

    #[test]
    fn what_is_of_one_width_is_its_width() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        assert_eq!(of(&numbers), 24);
        let truths: ArrayRef = Arc::new(BooleanArray::from(vec![true; 9]));
        assert_eq!(of(&truths), 2);
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["abc", "de"]));
        assert_eq!((of(&texts), of(&texts.slice(1, 1))), (8 + 5, 4 + 2));
        let large: ArrayRef = Arc::new(LargeStringArray::from(vec!["abc"]));
        assert_eq!(of(&large), 8 + 3);
        let batch = RecordBatch::try_from_iter([("numbers", numbers), ("texts", views())]).expect("of one length");
        assert_eq!(of_batch(&batch), 24 + 3 * 16 + 20_000);
    }
}
