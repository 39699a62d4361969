//! Formats that carry their own schema: Parquet, Arrow IPC (file or stream), Avro. Learns schemas, yields batches, and
//! brings each file's columns to the types that are wanted, row by row. Who reads what when is `scan.rs`'s.

use std::{
    io::{BufReader, Read},
    ops::Range,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt64Array, new_null_array},
    buffer::{BooleanBuffer, NullBuffer},
    compute::{CastOptions, can_cast_types, cast_with_options, filter, filter_record_batch, kernels::cmp::not_distinct},
    datatypes::{DataType, Decimal128Type, Field, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
    ipc::reader::StreamReader,
};
use arrow_avro::reader::ReaderBuilder;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryFutureExt, future::BoxFuture, stream::BoxStream};
use object_store::{GetOptions, OBJECT_STORE_COALESCE_DEFAULT, ObjectStore, coalesce_ranges, path::Path as ObjectPath};
use parking_lot::Mutex;
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
        async_reader::AsyncFileReader,
    },
    errors::{ParquetError, Result as ParquetResult},
    file::metadata::{ParquetMetaData, ParquetMetaDataReader, ParquetStatisticsPolicy},
};

use super::{
    bytes::{Input, Opening, unwrap_io},
    list::{self, FoundFile, Location},
};
use crate::error::{Error, Result};

/// What stands at the start and the end of an Arrow IPC file, as opposed to a stream.
const ARROW_MAGIC: &[u8] = b"ARROW1";
/// Rows per batch that Avro is decoded in.
const AVRO_BATCH_ROWS: usize = 4096;

fn corrupt(file: &FoundFile, what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::user("corrupt", format!("\"{}\" is not a readable {what} file: {error}", file.name))
        .setting("path")
        .help("the file is damaged or of another format; see \"format\"")
        .because(error)
}

/// Takes [`Input`]'s own error out of Arrow's, or says that the file is damaged.
fn arrow_error(file: &FoundFile, what: &str, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, inner) if inner.get_ref().is_some_and(|inner| inner.is::<Error>()) => unwrap_io(inner),
        other => corrupt(file, what, other),
    }
}

/// An object read by ranges, which are all of one version.
struct Ranges {
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    file: FoundFile,
}

impl Ranges {
    async fn get(&self, range: Range<u64>) -> Result<Bytes> {
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        let remote = |error| list::remote_error(&self.file.name, error);
        let got = self.store.get_opts(&self.path, options).await.map_err(remote)?;
        self.file.expect_remote(&got.meta)?;
        got.bytes().await.map_err(remote)
    }
}

impl AsyncFileReader for Ranges {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.get(range).map_err(|error| ParquetError::External(Box::new(error))).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        let fetched = async move { coalesce_ranges(&ranges, |range| self.get(range), OBJECT_STORE_COALESCE_DEFAULT).await };
        fetched.map_err(|error| ParquetError::External(Box::new(error))).boxed()
    }

    fn get_metadata<'a>(&'a mut self, options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size_bytes = self.file.size_bytes;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size_bytes).await?))
        }
        .boxed()
    }
}

/// Says that an object could not be read, or that what was read is damaged.
fn parquet_error(file: &FoundFile, error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<Error>() {
            Ok(inner) => *inner,
            Err(inner) => corrupt(file, "parquet", ParquetError::External(inner)),
        },
        other => corrupt(file, "parquet", other),
    }
}

/// Reads a Parquet file's footer, without the statistics in it: they grow with the row groups, and nobody asks for them.
pub async fn parquet_footer(file: &FoundFile) -> Result<ArrowReaderMetadata> {
    if file.size_bytes == 0 {
        return Err(Error::user("corrupt", format!("\"{}\" is not a readable parquet file: it is empty", file.name))
            .setting("path")
            .help("write or fetch the file again"));
    }
    let options = ArrowReaderOptions::new()
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    match &file.location {
        Location::Local(path) => {
            let opened = file.open_local(path, true)?;
            let footer = tokio::task::spawn_blocking(move || ArrowReaderMetadata::load(&opened, options)).await;
            footer.map_err(|error| Error::weir("panic", "reading a footer panicked").because(error))?
        }
        Location::Remote(store, path) => {
            let mut reader = Ranges { store: store.clone(), path: path.clone(), file: file.clone() };
            ArrowReaderMetadata::load_async(&mut reader, options).await
        }
    }
    .map_err(|error| parquet_error(file, error))
}

/// The row groups that a footer tells of, each with a footer of its own: what is said of a group goes when the group has been read.
pub fn row_groups(file: &FoundFile, footer: ArrowReaderMetadata) -> impl Iterator<Item = Result<ArrowReaderMetadata>> {
    let metadata = footer.metadata().clone();
    drop(footer);
    let mut metadata = Arc::unwrap_or_clone(metadata).into_builder();
    let groups = metadata.take_row_groups();
    let about = metadata.build().file_metadata().clone();
    groups.into_iter().map(move |group| {
        let one = Arc::new(ParquetMetaData::new(about.clone(), vec![group]));
        ArrowReaderMetadata::try_new(one, ArrowReaderOptions::new()).map_err(|error| corrupt(file, "parquet", error))
    })
}

/// Streams the wanted columns of a footer's row groups, and says how many stored bytes that takes.
pub async fn parquet_rows(
    file: Arc<FoundFile>,
    footer: ArrowReaderMetadata,
    wanted: &SchemaRef,
    batch_rows: usize,
) -> Result<(BoxStream<'static, Result<RecordBatch>>, u64)> {
    let schema = footer.schema();
    let roots = wanted.fields().iter().filter_map(|field| schema.index_of(field.name()).ok());
    let mask = ProjectionMask::roots(footer.parquet_schema(), roots);
    let leaves = footer.metadata().row_groups().iter().flat_map(|group| group.columns().iter().enumerate());
    let bytes = leaves.filter(|(leaf, _)| mask.leaf_included(*leaf)).map(|(_, column)| column.compressed_size().max(0) as u64).sum();
    let rows: BoxStream<'static, Result<RecordBatch>> = match &file.location {
        Location::Local(path) => {
            let opened = file.open_local(path, true)?;
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(opened, footer)
                .with_projection(mask)
                .with_batch_size(batch_rows)
                .build()
                .map_err(|error| corrupt(&file, "parquet", error))?;
            futures::stream::iter(reader).map(move |batch| batch.map_err(|error| corrupt(&file, "parquet", error))).boxed()
        }
        Location::Remote(store, path) => {
            let reader = Ranges { store: store.clone(), path: path.clone(), file: file.as_ref().clone() };
            let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, footer)
                .with_projection(mask)
                .with_batch_size(batch_rows)
                .build()
                .map_err(|error| parquet_error(&file, error))?;
            stream.map(move |batch| batch.map_err(|error| parquet_error(&file, error))).boxed()
        }
    };
    Ok((rows, bytes))
}

/// Learns an Arrow IPC file's or stream's columns.
pub fn arrow_schema(file: &FoundFile, opening: &Opening) -> Result<SchemaRef> {
    Ok(arrow_reader(file, opening, None)?.0.schema())
}

/// Learns an Avro file's columns.
pub fn avro_schema(file: &FoundFile, opening: &Opening) -> Result<SchemaRef> {
    let reader = ReaderBuilder::new().build(BufReader::new(Input::open(file, opening)?));
    Ok(reader.map_err(|error| arrow_error(file, "avro", error))?.schema())
}

/// An Arrow IPC or Avro file being read in order, on a blocking thread.
pub struct Batches(Box<dyn Iterator<Item = Result<RecordBatch>>>);

impl Batches {
    /// Opens an Arrow IPC file or stream that has the columns `schema`.
    pub fn arrow(file: &Arc<FoundFile>, opening: &Opening, schema: &Schema, wanted: &SchemaRef) -> Result<Self> {
        let (mut reader, is_file) = arrow_reader(file, opening, projection(schema, wanted))?;
        let (file, mut ended) = (file.clone(), false);
        Ok(Self(Box::new(std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let next = reader.next().map(|batch| batch.map_err(|error| arrow_error(&file, "arrow", error)));
            ended = !matches!(next, Some(Ok(_)));
            if next.is_none() && is_file {
                let mut tail = Vec::new();
                if let Err(error) = reader.get_mut().read_to_end(&mut tail) {
                    return Some(Err(unwrap_io(error)));
                }
                if !tail.ends_with(ARROW_MAGIC) {
                    let cut = Error::user("truncated", format!("\"{}\" ends before its footer", file.name)).setting("path");
                    return Some(Err(cut.help("the file was cut short; write or fetch it again")));
                }
            }
            next
        }))))
    }

    /// Opens an Avro object container file that has the columns `schema`.
    pub fn avro(file: &Arc<FoundFile>, opening: &Opening, schema: &Schema, wanted: &SchemaRef) -> Result<Self> {
        let mut builder = ReaderBuilder::new().with_batch_size(AVRO_BATCH_ROWS);
        if let Some(columns) = projection(schema, wanted) {
            builder = builder.with_projection(columns);
        }
        let last = Arc::new(Mutex::new(Vec::new()));
        let input = Tail { inner: Input::open(file, opening)?, last: last.clone() };
        let mut reader = builder.build(BufReader::new(input)).map_err(|error| arrow_error(file, "avro", error))?;
        let sync = reader.avro_header().sync();
        let (file, mut ended) = (file.clone(), false);
        Ok(Self(Box::new(std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let next = reader.next().map(|batch| batch.map_err(|error| arrow_error(&file, "avro", error)));
            ended = !matches!(next, Some(Ok(_)));
            // The reader takes a block that breaks off for the end of the file, but every whole block ends with this mark.
            if next.is_none() && *last.lock() != sync {
                let cut = Error::user("truncated", format!("\"{}\" ends in the middle of a block", file.name)).setting("path");
                return Some(Err(cut.help("the file was cut short; write or fetch it again")));
            }
            next
        }))))
    }
}

/// Remembers the last 16 bytes read.
struct Tail<R> {
    inner: R,
    last: Arc<Mutex<Vec<u8>>>,
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let got = self.inner.read(to)?;
        let mut last = self.last.lock();
        last.extend_from_slice(&to[got.saturating_sub(16)..got]);
        let surplus = last.len().saturating_sub(16);
        last.drain(..surplus);
        Ok(got)
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// The file's columns that are wanted, where that is not all of them. At least one, since rows are counted by it.
fn projection(schema: &Schema, wanted: &SchemaRef) -> Option<Vec<usize>> {
    let mut columns: Vec<usize> = wanted.fields().iter().filter_map(|field| schema.index_of(field.name()).ok()).collect();
    columns.sort_unstable();
    if columns.is_empty() && !schema.fields().is_empty() {
        columns.push(0);
    }
    (columns.len() < schema.fields().len()).then_some(columns)
}

type Rewound = std::io::Chain<std::io::Cursor<Vec<u8>>, Input>;

/// Opens an IPC file past its magic: what follows is a stream with an end mark, then a footer that only random access needs.
fn arrow_reader(file: &FoundFile, opening: &Opening, columns: Option<Vec<usize>>) -> Result<(StreamReader<BufReader<Rewound>>, bool)> {
    let mut input = Input::open(file, opening)?;
    let mut head = Vec::with_capacity(8);
    (&mut input).take(8).read_to_end(&mut head).map_err(unwrap_io)?;
    if head.is_empty() {
        return Err(Error::user("corrupt", format!("\"{}\" is not a readable arrow file: it is empty", file.name))
            .setting("path")
            .help("write or fetch the file again"));
    }
    let is_file = head.starts_with(ARROW_MAGIC);
    // Writers align the first message to 8 bytes, or to more: no message starts with zeros.
    while is_file && (head.starts_with(ARROW_MAGIC) || head == [0; 8]) {
        head.clear();
        (&mut input).take(8).read_to_end(&mut head).map_err(unwrap_io)?;
    }
    let reader = StreamReader::try_new_buffered(std::io::Cursor::new(head).chain(input), columns);
    Ok((reader.map_err(|error| arrow_error(file, "arrow", error))?, is_file))
}

/// Brings a file's batches to the wanted columns and types.
#[derive(Debug)]
pub struct Adapter {
    wanted: SchemaRef,
}

/// A row that could not be brought to the wanted types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Its index in the batch as it came.
    pub row: usize,
    /// The column at fault.
    pub column: String,
    /// What is wrong, in words.
    pub reason: String,
}

impl Adapter {
    /// Makes one for a file, or says which column can never become what is wanted.
    pub fn new(file: &FoundFile, schema: &Schema, wanted: &SchemaRef) -> Result<Self> {
        for field in wanted.fields() {
            let Ok(theirs) = schema.field_with_name(field.name()) else { continue };
            let (from, to) = (theirs.data_type(), field.data_type());
            if from != to && !can_cast_types(from, to) {
                return Err(Error::user(
                    "wrong-type",
                    format!("\"{}\" is {from} in \"{}\", which cannot become {to}", field.name(), file.name),
                )
                .setting("path")
                .help("declare another type for it in the contract"));
            }
        }
        Ok(Self { wanted: wanted.clone() })
    }

    /// Returns the good rows as wanted with their numbers, and the bad ones. The batch's first row has the number `first_row`.
    pub fn adapt(&self, batch: &RecordBatch, first_row: u64) -> Result<(RecordBatch, UInt64Array, Vec<BadRow>)> {
        let rows = batch.num_rows();
        let mut good: Option<BooleanBuffer> = None;
        let mut bad = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.wanted.fields().len());
        for field in self.wanted.fields() {
            let Some(theirs) = batch.column_by_name(field.name()) else {
                columns.push(new_null_array(field.data_type(), rows));
                continue;
            };
            let (column, fits) = cast_exactly(theirs, field.data_type())?;
            if let Some(fits) = fits {
                let options = arrow::util::display::FormatOptions::new().with_display_error(true);
                let show = arrow::util::display::ArrayFormatter::try_new(theirs, &options).map_err(unfit)?;
                for row in (0..rows).filter(|&row| !fits.value(row)) {
                    let reason = format!("{} is not {}", show.value(row), field.data_type());
                    bad.push(BadRow { row, column: field.name().clone(), reason });
                }
                good = Some(match good {
                    Some(good) => &good & &fits,
                    None => fits,
                });
            }
            columns.push(column);
        }
        let numbers = UInt64Array::from_iter_values(first_row..first_row + rows as u64);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let whole = RecordBatch::try_new_with_options(self.wanted.clone(), columns, &options).map_err(unfit)?;
        let Some(good) = good else { return Ok((whole, numbers, bad)) };
        // One reject per row: the first column at fault stands for it.
        bad.sort_by_key(|bad| bad.row);
        bad.dedup_by_key(|bad| bad.row);
        let good = BooleanArray::new(good, None);
        let kept = filter(&numbers, &good).map_err(unfit)?;
        let kept = kept.as_any().downcast_ref::<UInt64Array>().expect("filtering keeps the type").clone();
        Ok((filter_record_batch(&whole, &good).map_err(unfit)?, kept, bad))
    }
}

fn unfit(error: ArrowError) -> Error {
    Error::weir("arrow", format!("columns do not fit together: {error}")).because(error)
}

/// Casts without losing anything: the second result says, where some rows do not fit, which ones do.
fn cast_exactly(from: &ArrayRef, to: &DataType) -> Result<(ArrayRef, Option<BooleanBuffer>)> {
    if from.data_type() == to {
        return Ok((from.clone(), None));
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = cast_with_options(from, to, &options).map_err(unfit)?;
    let nulls = |array: &ArrayRef| array.logical_nulls().unwrap_or_else(|| NullBuffer::new_valid(array.len()));
    let (before, after) = (nulls(from), nulls(&cast));
    let mut fits = &!before.inner() | after.inner();
    if may_lose(from.data_type(), to) && !all_exact(from, to) && can_cast_types(to, from.data_type()) {
        let back = cast_with_options(&cast, from.data_type(), &options).map_err(unfit)?;
        fits = &fits & not_distinct(&back, from).map_err(unfit)?.values();
    }
    let all = fits.count_set_bits() == fits.len();
    Ok((cast, (!all).then_some(fits)))
}

/// Whether each value is so small that the cast back is known to give it again: less than 2^53, its float is off by a part in 2^53 at most,
/// and so is that times the power of ten, which up to the 22nd is exact: together less than half of the last digit.
fn all_exact(from: &ArrayRef, to: &DataType) -> bool {
    const LIMIT: u128 = 1_000_000_000_000_000;
    match (from.data_type(), to) {
        (DataType::Decimal128(_, 0..=22), DataType::Float64) => {
            from.as_primitive::<Decimal128Type>().values().iter().all(|value| value.unsigned_abs() <= LIMIT)
        }
        _ => false,
    }
}

/// Says whether a cast may change a value without making it null: 1.5 to an integer, nanoseconds to milliseconds.
fn may_lose(from: &DataType, to: &DataType) -> bool {
    let measures = |kind: &DataType| kind.is_numeric() || kind.is_temporal();
    measures(from) && measures(to) && !(from.is_floating() && to.is_floating())
}

/// The narrowest type that holds what two files call by one name.
pub fn widen(a: &DataType, b: &DataType) -> DataType {
    use DataType::*;
    let text = |kind: &DataType| matches!(kind, Utf8 | LargeUtf8 | Utf8View);
    match (a, b) {
        _ if a == b => a.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (Dictionary(_, a), b) | (b, Dictionary(_, a)) => widen(a, b),
        _ if text(a) && text(b) => Utf8,
        _ if a.is_integer() && b.is_integer() => match (a.is_signed_integer(), b.is_signed_integer()) {
            (true, true) | (false, false) if a.primitive_width() >= b.primitive_width() => a.clone(),
            (true, true) | (false, false) => b.clone(),
            _ if *a == UInt64 || *b == UInt64 => Decimal128(20, 0),
            _ => Int64,
        },
        _ if (a.is_integer() || a.is_floating()) && (b.is_integer() || b.is_floating()) => Float64,
        // A date is no instant: where one has a zone, only text holds both.
        (Date32 | Date64, Timestamp(unit, None)) | (Timestamp(unit, None), Date32 | Date64) => Timestamp(*unit, None),
        (Timestamp(x, None), Timestamp(y, None)) => Timestamp(finer(x, y), None),
        (Timestamp(x, Some(zone)), Timestamp(y, Some(_))) => Timestamp(finer(x, y), Some(zone.clone())),
        (Struct(left), Struct(right)) => {
            let mut fields: Vec<Field> = left.iter().map(|field| field.as_ref().clone()).collect();
            for field in right {
                match fields.iter_mut().find(|known| known.name() == field.name()) {
                    Some(known) => *known = widen_field(known, field),
                    None => fields.push(field.as_ref().clone().with_nullable(true)),
                }
            }
            Struct(fields.into())
        }
        (List(left), List(right)) => List(Arc::new(widen_field(left, right))),
        _ => Utf8,
    }
}

/// The same for fields of one name; what is JSON text in one of them is so in both.
pub fn widen_field(a: &Field, b: &Field) -> Field {
    let mut metadata = a.metadata().clone();
    metadata.extend(b.metadata().clone());
    a.clone().with_data_type(widen(a.data_type(), b.data_type())).with_nullable(true).with_metadata(metadata)
}

fn finer(a: &TimeUnit, b: &TimeUnit) -> TimeUnit {
    *a.max(b)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampNanosecondArray};
    use proptest::strategy::Strategy;

    use super::*;

    fn file() -> FoundFile {
        FoundFile {
            name: "a.parquet".into(),
            location: Location::Local("a.parquet".into()),
            size_bytes: 1,
            version: String::new(),
            partitions: Vec::new(),
        }
    }

    fn adapt(column: ArrayRef, to: DataType) -> (ArrayRef, Vec<u64>, Vec<BadRow>) {
        let theirs = Schema::new(vec![Field::new("x", column.data_type().clone(), true)]);
        let batch = RecordBatch::try_new(Arc::new(theirs.clone()), vec![column]).expect("a batch");
        let wanted = Arc::new(Schema::new(vec![Field::new("x", to, true)]));
        let (rows, numbers, bad) = Adapter::new(&file(), &theirs, &wanted).expect("an adapter").adapt(&batch, 1).expect("adapts");
        (rows.column(0).clone(), numbers.values().to_vec(), bad)
    }

    #[test]
    fn a_value_that_does_not_fit_leaves_its_row_out() {
        let (rows, numbers, bad) = adapt(Arc::new(Float64Array::from(vec![Some(1.0), Some(1.5), None, Some(1e300)])), DataType::Int64);
        assert_eq!(rows.as_ref(), &Int64Array::from(vec![Some(1), None]) as &dyn Array);
        assert_eq!(numbers, [1, 3]);
        assert_eq!(bad.iter().map(|bad| (bad.row, bad.column.as_str())).collect::<Vec<_>>(), [(1, "x"), (3, "x")]);
        assert_eq!(bad[0].reason, "1.5 is not Int64");
    }

    #[test]
    fn text_becomes_numbers_where_it_is_one() {
        let (rows, _, bad) = adapt(Arc::new(StringArray::from(vec!["7", "x"])), DataType::Int32);
        assert_eq!(rows.as_ref(), &Int32Array::from(vec![7]) as &dyn Array);
        assert_eq!(bad[0].reason, "x is not Int32");
    }

    #[test]
    fn finer_time_than_the_type_holds_is_not_cut() {
        let (_, numbers, bad) =
            adapt(Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001])), DataType::Timestamp(TimeUnit::Microsecond, None));
        assert_eq!((numbers, bad.len()), (vec![1], 1));
    }

    #[test]
    fn integers_that_a_float_cannot_hold_are_refused() {
        let (_, numbers, bad) = adapt(Arc::new(Int64Array::from(vec![1 << 53, (1 << 53) + 1])), DataType::Float64);
        assert_eq!((numbers, bad[0].row), (vec![1], 1));
    }

    proptest::proptest! {
        #[test]
        fn decimals_of_few_digits_are_floats_that_give_them_again(
            values in proptest::collection::vec(
                proptest::option::of(proptest::prop_oneof![-1_000_000_000_000_000_i128..=1_000_000_000_000_000, -2000_i128..2000, proptest::num::i64::ANY.prop_map(i128::from)]),
                1..200,
            ),
            scale in 0_i8..=30,
        ) {
            let from = Decimal128Array::from(values.clone()).with_precision_and_scale(38, scale).expect("a type");
            let from: ArrayRef = Arc::new(from);
            let floats = arrow::compute::cast(&from, &DataType::Float64).expect("floats");
            let back = arrow::compute::cast(&floats, from.data_type()).expect("decimals");
            let back = back.as_primitive::<Decimal128Type>();
            // What is not looked back at would have been found to fit, and what does not fit is refused.
            let misfits: Vec<usize> = (0..values.len()).filter(|&row| values[row] != back.is_valid(row).then(|| back.value(row))).collect();
            let (_, _, bad) = adapt(from, DataType::Float64);
            proptest::prop_assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), misfits);
        }
    }

    #[test]
    fn a_column_that_can_never_fit_is_an_error_at_once() {
        let theirs = Schema::new(vec![Field::new("x", DataType::Date32, true)]);
        let wanted = Arc::new(Schema::new(vec![Field::new("x", DataType::Boolean, true)]));
        let error = Adapter::new(&file(), &theirs, &wanted).expect_err("no cast");
        assert_eq!(error.message, "\"x\" is Date32 in \"a.parquet\", which cannot become Boolean");
        assert_eq!(error.code, "wrong-type");
    }

    #[test]
    fn widening_holds_both_types() {
        use DataType::*;
        for (a, b, both) in [
            (Int32, Int64, Int64),
            (UInt8, Int32, Int64),
            (Int64, Float64, Float64),
            (Date32, Timestamp(TimeUnit::Microsecond, None), Timestamp(TimeUnit::Microsecond, None)),
            (Utf8, Int64, Utf8),
            (Date32, Timestamp(TimeUnit::Microsecond, Some("UTC".into())), Utf8),
            (Timestamp(TimeUnit::Second, None), Timestamp(TimeUnit::Nanosecond, None), Timestamp(TimeUnit::Nanosecond, None)),
            (Boolean, Int64, Utf8),
            (Null, Date32, Date32),
            (LargeUtf8, Utf8View, Utf8),
        ] {
            assert_eq!(widen(&a, &b), both);
            assert_eq!(widen(&b, &a), both);
        }
    }
}
