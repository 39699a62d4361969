//! Answers as Flight sends them: in pieces that clients take, of types that they know.

use arrow::{
    array::{
        ArrayRef, AsArray, BinaryViewArray, DictionaryArray, Int32Array, Int64Array, ListArray, StringArray, StringViewArray, StructArray,
    },
    buffer::OffsetBuffer,
    compute::concat_batches,
    datatypes::Int32Type,
};
use arrow_flight::utils::flight_data_to_batches;

use super::*;

fn sent(batch: &RecordBatch) -> (Vec<FlightData>, RecordBatch) {
    let mut encoder = Encoder::new(&batch.schema());
    let mut messages = vec![encoder.head()];
    messages.extend(encoder.encode(batch).expect("encodes"));
    let read = flight_data_to_batches(&messages).expect("reads");
    let whole = concat_batches(&plain(&batch.schema()), &read).expect("one schema");
    (messages, whole)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

#[test]
fn views_and_dictionaries_become_what_every_client_reads() {
    let words: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
    let inner: ArrayRef = Arc::new(StringViewArray::from(vec![Some("x"), None, Some("a text that is longer than a view")]));
    let item = Arc::new(Field::new("item", DataType::Utf8View, true));
    let list = ListArray::new(item, OffsetBuffer::from_lengths([1, 0, 2]), inner.clone(), None);
    let parts = StructArray::from(vec![(Arc::new(Field::new("text", DataType::Utf8View, true)), inner.clone())]);
    let (_, read) = sent(&batch(vec![
        ("word", Arc::new(words)),
        ("text", inner),
        ("bytes", Arc::new(BinaryViewArray::from(vec![Some(b"\0\xff".as_slice()), None, Some(b"")]))),
        ("list", Arc::new(list)),
        ("parts", Arc::new(parts)),
    ]));
    let text = Arc::new(Field::new("item", DataType::Utf8, true));
    let kinds: Vec<DataType> = read.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    let named = Fields::from(vec![Field::new("text", DataType::Utf8, true)]);
    assert_eq!(kinds, [DataType::Utf8, DataType::Utf8, DataType::Binary, DataType::List(text), DataType::Struct(named)]);
    assert_eq!(read.column(0).as_ref(), &StringArray::from(vec![Some("a"), None, Some("a")]) as &dyn Array);
    assert_eq!(read.column(1).as_string::<i32>().value(2), "a text that is longer than a view");
    assert_eq!(read.column(2).as_binary::<i32>().value(0), b"\0\xff");
    assert_eq!(read.column(3).as_list::<i32>().value(2).len(), 2);
}

#[test]
fn no_message_is_larger_than_clients_take() {
    // Rows of very different sizes: most of the bytes lie in the first few.
    let texts: Vec<String> = (0..4000).map(|row| "é".repeat(if row < 20 { 500_000 } else { 10 })).collect();
    let numbers: Vec<i64> = (0..4000).collect();
    for text in [Arc::new(StringArray::from(texts.clone())) as ArrayRef, Arc::new(StringViewArray::from_iter_values(&texts))] {
        let (messages, read) = sent(&batch(vec![("number", Arc::new(Int64Array::from(numbers.clone()))), ("text", text)]));
        let largest = messages.iter().map(|message| message.data_body.len()).max().unwrap_or(0);
        assert!(largest <= PIECE_MAX, "{largest}");
        assert!(messages.len() > 5 && messages.len() < 100, "{}", messages.len());
        assert_eq!(read.num_rows(), 4000);
        assert_eq!(read.column(1).as_string::<i32>().value(19), texts[19]);
    }
}

#[test]
fn a_value_that_stands_in_many_rows_is_split_by_what_it_will_take() {
    let values = StringArray::from(vec!["x".repeat(1 << 20)]);
    let same = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0; 64]), Arc::new(values));
    let (messages, read) = sent(&batch(vec![("same", Arc::new(same))]));
    assert_eq!((messages.len(), read.num_rows()), (65, 64));
}

#[test]
fn rows_without_columns_and_no_rows_are_sent() {
    let rows = RecordBatchOptions::new().with_row_count(Some(7));
    let empty = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &rows).expect("a batch");
    let mut encoder = Encoder::new(&empty.schema());
    assert_eq!(encoder.encode(&empty).expect("encodes").len(), 1);
    assert_eq!(encoder.encode(&empty.slice(0, 0)).expect("encodes").len(), 0);
}
