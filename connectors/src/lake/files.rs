//! The Parquet files of a table, for DataFusion's own scan: it reads no more of them than it must, by what the table's log and the files say, by what
//! a statement asks, and by what a join or a limit above it has found out while it runs.

use std::{borrow::Cow, collections::HashSet, fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, UInt64Array},
    compute::{SortOptions, sort_to_indices},
    datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, UInt64Type},
};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Column as ColumnName, ColumnStatistics, DFSchema, ScalarValue, Statistics, pruning::PruningStatistics, stats::Precision},
    config::TableParquetOptions,
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource, parquet::CachedParquetFileReaderFactory},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::Result as DataFusionResult,
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_expr_adapter::PhysicalExprAdapterFactory,
    physical_optimizer::pruning::PruningPredicateBuilder,
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};
use deltalake::{DeltaTable, kernel::Add};
use object_store::{ObjectMeta, ObjectStore, path::Path};
use url::{Position, Url};

use super::{
    schema::{Column, arrow_schema},
    stats,
    table::Place,
};
use crate::floats::{is_float, unbounded};

/// Features of a table that ask nothing of who reads its files; how deletion vectors and column mapping are used is looked at.
const PLAIN_FEATURES: [&str; 5] = ["columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"];
/// The longest a bound of a decimal may be: some writers write them as doubles, which hold 15 digits.
const DECIMAL_DIGITS: u8 = 15;

/// Files of one table.
pub(super) struct Files {
    /// The columns in the table's order.
    schema: SchemaRef,
    /// The columns that are in the files, then those that a file has one value of.
    read: TableSchema,
    /// For each column of `schema`, where it is in `read`.
    positions: Vec<usize>,
    store_url: ObjectStoreUrl,
    store: Arc<dyn ObjectStore>,
    files: Vec<PartitionedFile>,
    /// Rows of each file, where it is known.
    rows: Int64Array,
    /// What is known of each column of `read` in each file.
    bounds: Vec<Bounds>,
    statistics: Statistics,
    /// Where columns may hold NaN, what no filter passes over rows of theirs through.
    unbounded: Option<Arc<dyn PhysicalExprAdapterFactory>>,
}

/// A column in each file: its least and greatest value and how many are null, each null where it is not known.
#[derive(Debug, Clone, Default)]
struct Bounds {
    least: Option<ArrayRef>,
    greatest: Option<ArrayRef>,
    nulls: Option<ArrayRef>,
}

impl Files {
    /// Those of an opened table, with columns in the types of `schema`. `None`: rows are more than what its files hold, so that Delta's own scan has
    /// to read them.
    pub(super) fn of(table: &DeltaTable, schema: SchemaRef) -> Option<Self> {
        let state = table.snapshot().ok()?;
        let protocol = serde_json::to_value(state.protocol()).ok()?;
        let features = protocol["readerFeatures"].as_array().map_or(&[][..], Vec::as_slice);
        let is_plain = |feature: &serde_json::Value| feature.as_str().is_some_and(|feature| PLAIN_FEATURES.contains(&feature));
        let is_mapped = state.metadata().configuration().get("delta.columnMapping.mode").is_some_and(|mode| mode != "none");
        if is_mapped || !features.iter().all(is_plain) || !schema.fields().iter().all(|field| has_nullable_parts(field.data_type())) {
            return None;
        }
        let partitions = state.metadata().partition_columns();
        let (mut inside, mut outside): (Vec<FieldRef>, Vec<FieldRef>) = (Vec::new(), Vec::new());
        for field in schema.fields() {
            if partitions.contains(field.name()) { outside.push(field.clone()) } else { inside.push(field.clone()) }
        }
        outside.sort_by_key(|field| partitions.iter().position(|name| name == field.name()));
        let adds = state.add_actions_table(false).ok()?;
        let (files, bounds, rows) = described(&adds, table.table_url(), &inside, &outside)?;
        let log = table.log_store();
        let url = log.root_url().clone();
        let store_url = match url.scheme() {
            "file" => ObjectStoreUrl::local_filesystem(),
            _ => ObjectStoreUrl::parse(&url[..Position::BeforePath]).ok()?,
        };
        let read = TableSchema::builder(Arc::new(Schema::new(inside))).with_table_partition_cols(outside).build();
        Some(Self::new(schema, read, (store_url, log.root_object_store(None)), files, rows, bounds))
    }

    /// Those that a load wrote and no table has yet.
    pub(super) fn staged(place: &Place, columns: &[Column], partitions: &[String], adds: &[Add]) -> DataFusionResult<Self> {
        let inside: Vec<Column> = columns.iter().filter(|column| !partitions.contains(&column.name)).cloned().collect();
        // A partition column that rows lack is in no row: nobody asks for it.
        let outside: Vec<&Column> = partitions.iter().filter_map(|name| columns.iter().find(|column| column.name == *name)).collect();
        let fields: Vec<_> = outside.iter().map(|column| Arc::new(Field::new(&column.name, column.lake.clone(), true))).collect();
        let mut files = Vec::with_capacity(adds.len());
        for add in adds {
            let mut values = Vec::with_capacity(outside.len());
            for column in &outside {
                let text = add.partition_values.get(&column.name).cloned().flatten();
                values.push(ScalarValue::Utf8(text).cast_to(&column.lake)?);
            }
            // Nobody asks when it was modified: the file is the run's own.
            files.push(file(place.path(&add.path), add.size, 0, values));
        }
        let rows = adds.iter().map(|add| i64::try_from(stats::rows(add)).unwrap_or(i64::MAX)).collect();
        let read = TableSchema::builder(arrow_schema(&inside)).with_table_partition_cols(fields).build();
        let bounds = vec![Bounds::default(); read.table_schema().fields().len()];
        Ok(Self::new(read.table_schema().clone(), read, (place.store_url(), place.store.clone()), files, rows, bounds))
    }

    fn new(
        schema: SchemaRef,
        read: TableSchema,
        (store_url, store): (ObjectStoreUrl, Arc<dyn ObjectStore>),
        files: Vec<PartitionedFile>,
        rows: Int64Array,
        bounds: Vec<Bounds>,
    ) -> Self {
        let position = |field: &FieldRef| read.table_schema().index_of(field.name()).expect("both have the table's columns");
        let positions = schema.fields().iter().map(position).collect();
        let statistics = Statistics {
            num_rows: Precision::Absent,
            total_byte_size: Precision::Absent,
            column_statistics: bounds.iter().map(Bounds::estimate).collect(),
        };
        let floats = read
            .file_schema()
            .fields()
            .iter()
            .zip(&bounds)
            .filter(|(field, bounds)| is_float(field.data_type()) && !bounds.are_known(&rows));
        let floats: Vec<String> = floats.map(|(field, _)| field.name().clone()).collect();
        let unbounded = (!floats.is_empty()).then(|| unbounded(floats));
        let mut files = Self { schema, read, positions, store_url, store, files, rows, bounds, statistics, unbounded };
        let every: Vec<usize> = (0..files.files.len()).collect();
        files.statistics = files.statistics_of(&every);
        files
    }

    /// What is known of some of the files. How many rows they have is exact; what is known of columns is so of all files, and an estimate, by which
    /// nothing is answered.
    fn statistics_of(&self, kept: &[usize]) -> Statistics {
        let rows: Option<i64> = kept.iter().map(|at| self.rows.is_valid(*at).then(|| self.rows.value(*at))).sum();
        let bytes =
            kept.iter().map(|at| usize::try_from(self.files[*at].object_meta.size).unwrap_or(usize::MAX)).fold(0, usize::saturating_add);
        Statistics {
            num_rows: rows.and_then(|rows| usize::try_from(rows).ok()).map_or(Precision::Absent, Precision::Exact),
            total_byte_size: Precision::Inexact(bytes),
            column_statistics: self.statistics.column_statistics.clone(),
        }
    }

    /// The files that may hold a row which passes the filters.
    fn kept(&self, state: &dyn Session, filters: &[Expr]) -> Vec<usize> {
        let every = || (0..self.files.len()).collect();
        let Some(filter) = conjunction(filters.iter().cloned()) else { return every() };
        let built = DFSchema::try_from(self.schema.clone()).and_then(|schema| state.create_physical_expr(filter, &schema));
        let Ok(filter) = built else { return every() };
        let pruning = PruningPredicateBuilder::new().with_file_schema(self.schema.clone()).try_build(filter);
        let Some(kept) = pruning.ok().and_then(|pruning| pruning.prune(self).ok()) else { return every() };
        (0..self.files.len()).filter(|at| kept[*at]).collect()
    }

    fn bounds(&self, column: &ColumnName) -> Option<&Bounds> {
        self.bounds.get(self.read.table_schema().index_of(&column.name).ok()?)
    }
}

fn file(location: Path, size: i64, modified_ms: i64, partitions: Vec<ScalarValue>) -> PartitionedFile {
    let last_modified = DateTime::from_timestamp_millis(modified_ms).unwrap_or(DateTime::UNIX_EPOCH);
    let meta = ObjectMeta { location, last_modified, size: size.unsigned_abs(), e_tag: None, version: None };
    PartitionedFile::new_from_meta(meta).with_partition_values(partitions)
}

/// Files may say of parts of values that they can be null where the table says that they cannot; Delta's scan knows how to take that.
fn has_nullable_parts(kind: &DataType) -> bool {
    let part = |field: &FieldRef| field.is_nullable() && has_nullable_parts(field.data_type());
    match kind {
        DataType::Struct(fields) => fields.iter().all(part),
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => part(item),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => fields.iter().skip(1).all(part),
            _ => false,
        },
        other => !other.is_nested(),
    }
}

/// What the log says of the files: where they are, the bounds of the columns `inside` them and of those `outside`, and their rows.
fn described(
    adds: &RecordBatch,
    root: &Url,
    inside: &[FieldRef],
    outside: &[FieldRef],
) -> Option<(Vec<PartitionedFile>, Vec<Bounds>, Int64Array)> {
    if adds.column_by_name("deletion_vector").is_some_and(|vectors| vectors.null_count() < vectors.len()) {
        return None;
    }
    let numbers = |name: &str| adds.column_by_name(name)?.as_primitive_opt::<Int64Type>();
    let rows = numbers("num_records").cloned().unwrap_or_else(|| Int64Array::new_null(adds.num_rows()));
    let within = |what: &str, name: &str| adds.column_by_name(what)?.as_struct_opt()?.column_by_name(name).cloned();

    let mut bounds: Vec<Bounds> = Vec::with_capacity(inside.len() + outside.len());
    for field in inside {
        let is_bounded = !field.data_type().is_nested();
        let bound = |what: &str| is_bounded.then(|| within(what, field.name())).flatten();
        bounds.push(Bounds {
            least: bound("min").and_then(|values| least(&values, field.data_type())),
            greatest: bound("max").and_then(|values| greatest(&values, field.data_type())),
            nulls: bound("null_count").and_then(|counts| arrow::compute::cast(&counts, &DataType::UInt64).ok()),
        });
    }
    let mut values = Vec::with_capacity(outside.len());
    for field in outside {
        let each = arrow::compute::cast(&within("partition", field.name())?, field.data_type()).ok()?;
        let nulls: UInt64Array = (0..each.len())
            .map(|at| if each.is_null(at) { rows.is_valid(at).then(|| rows.value(at).unsigned_abs()) } else { Some(0) })
            .collect();
        bounds.push(Bounds { least: Some(each.clone()), greatest: Some(each.clone()), nulls: Some(Arc::new(nulls)) });
        values.push(each);
    }

    let paths = arrow::compute::cast(adds.column_by_name("path")?, &DataType::Utf8).ok()?;
    let (paths, sizes, modified) = (paths.as_string_opt::<i32>()?, numbers("size_bytes")?, numbers("modification_time")?);
    let mut files = Vec::with_capacity(adds.num_rows());
    for at in 0..adds.num_rows() {
        let url = root.join(paths.value(at)).ok()?;
        // A file of another table, as a clone has them, may be in another store.
        if !url.as_str().starts_with(root.as_str()) {
            return None;
        }
        let partitions: DataFusionResult<Vec<ScalarValue>> = values.iter().map(|each| ScalarValue::try_from_array(each, at)).collect();
        files.push(file(Path::from_url_path(url.path()).ok()?, sizes.value(at), modified.value(at), partitions.ok()?));
    }
    Some((files, bounds, rows))
}

/// Bounds in the column's own type.
fn in_type(values: &ArrayRef, kind: &DataType) -> Option<ArrayRef> {
    match kind {
        DataType::Decimal128(digits, _) if *digits > DECIMAL_DIGITS => None,
        kind => arrow::compute::cast(values, kind).ok(),
    }
}

/// The least is -0 where it is said to be 0: writers do not tell one from the other, rows do.
fn least(values: &ArrayRef, kind: &DataType) -> Option<ArrayRef> {
    with_zero(in_type(values, kind)?, -0.0)
}

fn with_zero(values: ArrayRef, zero: f64) -> Option<ArrayRef> {
    let kind = values.data_type().clone();
    if !is_float(&kind) {
        return Some(values);
    }
    let doubles = arrow::compute::cast(&values, &DataType::Float64).ok()?;
    let doubles: Float64Array = doubles.as_primitive::<Float64Type>().unary(|value| if value == 0.0 { zero } else { value });
    arrow::compute::cast(&doubles, &kind).ok()
}

/// Writers cut instants off after the milliseconds, so the greatest may be up to one more.
fn greatest(values: &ArrayRef, kind: &DataType) -> Option<ArrayRef> {
    let values = with_zero(in_type(values, kind)?, 0.0)?;
    let DataType::Timestamp(TimeUnit::Microsecond, _) = kind else { return Some(values) };
    let micros = arrow::compute::cast(&values, &DataType::Int64).ok()?;
    let more: Int64Array = micros.as_primitive::<Int64Type>().unary(|micros| micros.saturating_add(999));
    arrow::compute::cast(&more, kind).ok()
}

impl Bounds {
    /// Whether each file that has a value has both bounds.
    fn are_known(&self, rows: &Int64Array) -> bool {
        let nulls = self.nulls.as_ref().and_then(|nulls| nulls.as_primitive_opt::<UInt64Type>());
        let has_no_value = |at: usize| {
            rows.is_valid(at) && nulls.is_some_and(|nulls| nulls.is_valid(at) && nulls.value(at) == rows.value(at).unsigned_abs())
        };
        let is_known = |at: usize| [&self.least, &self.greatest].iter().all(|bound| bound.as_ref().is_some_and(|bound| bound.is_valid(at)));
        (0..rows.len()).all(|at| is_known(at) || has_no_value(at))
    }

    /// What is known of the column in all files.
    fn estimate(&self) -> ColumnStatistics {
        let extreme = |values: &Option<ArrayRef>, descending: bool| {
            let values = values.as_ref()?;
            let order = SortOptions { descending, nulls_first: false };
            let first = sort_to_indices(values, Some(order), Some(1)).ok()?;
            let first = ScalarValue::try_from_array(values, first.values().first().copied()? as usize).ok()?;
            (!first.is_null()).then_some(Precision::Inexact(first))
        };
        let nulls = self.nulls.as_ref().and_then(|counts| arrow::compute::sum(counts.as_primitive_opt::<UInt64Type>()?));
        ColumnStatistics {
            min_value: extreme(&self.least, false).unwrap_or(Precision::Absent),
            max_value: extreme(&self.greatest, true).unwrap_or(Precision::Absent),
            null_count: nulls.and_then(|nulls| usize::try_from(nulls).ok()).map_or(Precision::Absent, Precision::Inexact),
            ..ColumnStatistics::new_unknown()
        }
    }
}

impl PruningStatistics for Files {
    fn min_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        self.bounds(column)?.least.clone()
    }

    fn max_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        self.bounds(column)?.greatest.clone()
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &ColumnName) -> Option<ArrayRef> {
        self.bounds(column)?.nulls.clone()
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        arrow::compute::cast(&self.rows, &DataType::UInt64).ok()
    }

    fn contained(&self, _: &ColumnName, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("store", &self.store_url).field("files", &self.files.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let columns = self.positions.iter().map(|at| self.statistics.column_statistics[*at].clone()).collect();
        Some(Statistics { column_statistics: columns, ..self.statistics.clone() })
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // The scan is given filters as a plan's, when it is made; it says then which it applies to each row.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let positions: Cow<'_, [usize]> = match projection {
            Some(wanted) => wanted.iter().map(|at| self.positions[*at]).collect(),
            None => Cow::Borrowed(&self.positions),
        };
        let kept = self.kept(state, filters);
        if kept.is_empty() {
            let columns: Vec<FieldRef> = positions.iter().map(|at| self.read.table_schema().fields()[*at].clone()).collect();
            return Ok(Arc::new(EmptyExec::new(Arc::new(Schema::new(columns)))));
        }
        let runtime = state.runtime_env();
        if runtime.object_store(&self.store_url).is_err() {
            runtime.register_object_store(self.store_url.as_ref(), self.store.clone());
        }
        let mut options = TableParquetOptions { global: state.config().options().execution.parquet.clone(), ..Default::default() };
        // Timestamps of old writers are UTC, and of more years than nanoseconds hold.
        options.global.coerce_int96 = Some("us".to_owned());
        options.global.coerce_int96_tz = Some("UTC".to_owned());
        let footers =
            CachedParquetFileReaderFactory::new(runtime.object_store(&self.store_url)?, runtime.cache_manager.get_file_metadata_cache());
        let source =
            ParquetSource::new(self.read.clone()).with_table_parquet_options(options).with_parquet_file_reader_factory(Arc::new(footers));
        let files: FileGroup = FileGroup::new(kept.iter().map(|at| self.files[*at].clone()).collect());
        let config = FileScanConfigBuilder::new(self.store_url.clone(), Arc::new(source))
            .with_file_groups(files.split_files(state.config().target_partitions().max(1)))
            .with_statistics(self.statistics_of(&kept))
            .with_projection_indices(Some(positions.into_owned()))?
            .with_limit(limit)
            .with_expr_adapter(self.unbounded.clone())
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
