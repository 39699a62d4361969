//! What a merge, delete_insert or snapshot changes in a table: the files that hold a key of the run, and what takes their place.
//! Everything runs in DataFusion under the run's memory limit; the commit is `publish.rs`'s.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::DataType,
    util::display::array_value_to_string,
};
use datafusion::{
    common::JoinType,
    error::{DataFusionError, Result as DataFusionResult},
    execution::{SendableRecordBatchStream, SessionStateBuilder, memory_pool::MemoryLimit},
    functions_aggregate::expr_fn::{count, first_value, max, min},
    logical_expr::{Expr, Operator, binary_expr, cast, ident, lit, when},
    physical_plan::stream::RecordBatchStreamAdapter,
    prelude::{DataFrame, SessionConfig, SessionContext},
    scalar::ScalarValue,
};
use deltalake::{DeltaTable, kernel::Add};
use futures::StreamExt;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use url::Url;
use weir_pipelines::Mode;

use super::{
    files::Files,
    from_datafusion,
    keys::Keys,
    publish,
    publish::LakeLoad,
    schema::{Column, Fit, IS_CURRENT, VALID_FROM, VALID_TO},
    stage::{Spec, Stage},
    table::Place,
};
use crate::{
    error::{Error, Result},
    spill::join::SpillJoins,
};

/// The name of the column that says which file a row of the table came from.
const FILE: &str = "__weir_file";
/// A join keeps this share of the memory limit in memory, and sets aside on disk what is more.
const JOIN_SHARE: usize = 16;

/// Works out what `load` does to `table` (none: it is to be made). `direct`: staged files may be added as they are.
pub(super) async fn rewrite(
    load: &LakeLoad,
    table: Option<&DeltaTable>,
    fit: &Fit,
    staged: &[Add],
    direct: bool,
    changes: &mut publish::Changes,
) -> Result<()> {
    let columns = load.state.columns()?;
    let work = Work { load, fit, cx: session(load), staged: columns };
    match load.state.mode()? {
        Mode::Snapshot => work.snapshot(table, staged, changes).await,
        _ => work.merge(table, staged, direct, changes).await,
    }
}

/// The first key column of staged files that holds a null.
pub(super) async fn null_key(load: &LakeLoad, staged: &[Add]) -> Result<Option<String>> {
    let cx = session(load);
    for key in &load.state.key {
        let rows = read_staged(&cx, load, staged)?.filter(ident(key).is_null()).and_then(|rows| rows.limit(0, Some(1)));
        if rows.map_err(from_datafusion)?.count().await.map_err(from_datafusion)? > 0 {
            return Ok(Some(key.clone()));
        }
    }
    Ok(None)
}

/// A key that staged files hold more than once, as text.
pub(super) async fn duplicate_key(load: &LakeLoad, staged: &[Add]) -> Result<Option<String>> {
    let cx = session(load);
    let keys: Vec<Expr> = load.state.key.iter().map(ident).collect();
    let found = async {
        let rows = read_staged_df(&cx, load, staged)?.select(keys.clone())?;
        rows.aggregate(keys, vec![count(lit(1)).alias("__weir_rows")])?
            .filter(ident("__weir_rows").gt(lit(1)))?
            .limit(0, Some(1))?
            .collect()
            .await
    };
    let found = found.await.map_err(from_datafusion)?;
    let Some(batch) = found.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
    let mut parts = Vec::new();
    for (index, key) in load.state.key.iter().enumerate() {
        let value = array_value_to_string(batch.column(index), 0).unwrap_or_else(|_| "?".into());
        parts.push(format!("\"{key}\" = {value}"));
    }
    Ok(Some(parts.join(", ")))
}

/// A session whose joins go to disk.
fn session(load: &LakeLoad) -> SessionContext {
    let partitions = load.cx.partitions.max(1);
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(load.cx.batch_rows.max(1));
    // It is the keys that are held, whatever is thought to be smaller: rows of the table have no known width. Each stream holds its part: what is
    // copied to all does not go to disk.
    let optimizer = &mut config.options_mut().optimizer;
    optimizer.join_reordering = false;
    optimizer.hash_join_single_partition_threshold = 0;
    optimizer.hash_join_single_partition_threshold_rows = 0;
    if let MemoryLimit::Finite(limit) = load.cx.runtime.memory_pool.memory_limit() {
        // Each aggregate sets some memory aside to merge what it spilled; several run at once, and all of them need to start.
        config = config.with_sort_spill_reservation_bytes((limit / (16 * partitions)).clamp(64 << 10, 10 << 20));
    }
    if load.place.local.is_none() {
        load.cx.runtime.register_object_store(load.place.store_url().as_ref(), load.place.store.clone());
    }
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(load.cx.runtime.clone())
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(SpillJoins { share: JOIN_SHARE }));
    SessionContext::new_with_state(state.build())
}

fn read_staged(cx: &SessionContext, load: &LakeLoad, staged: &[Add]) -> Result<DataFrame> {
    read_staged_df(cx, load, staged).map_err(from_datafusion)
}

fn read_staged_df(cx: &SessionContext, load: &LakeLoad, staged: &[Add]) -> DataFusionResult<DataFrame> {
    let columns = load.state.columns().map_err(DataFusionError::from)?;
    cx.read_table(Arc::new(Files::staged(&load.place, &columns, load.state.partitions(), staged)?))
}

struct Work<'a> {
    load: &'a LakeLoad,
    fit: &'a Fit,
    cx: SessionContext,
    /// The columns of staged files.
    staged: Vec<Column>,
}

impl Work<'_> {
    async fn merge(&self, table: Option<&DeltaTable>, staged: &[Add], direct: bool, changes: &mut publish::Changes) -> Result<()> {
        if staged.is_empty() {
            return Ok(());
        }
        let mut touched = BTreeSet::new();
        let mut old = None;
        if let Some(table) = table {
            let keys = self.learn(staged).await?;
            touched = self.touched(table, staged, &keys).await?;
            old = (!touched.is_empty()).then_some((table, keys));
        }
        if let Some((table, keys)) = &old {
            let columns = self.old_columns();
            let survivors = async {
                let rows = self.table_rows(table, &columns, Some(&touched)).await?;
                let others = |rows| self.each_key_of(staged)?.join_on(rows, JoinType::RightAnti, self.on_keys("k", &columns));
                keys.change(&self.cx, rows, numbered(&columns), self.key(&columns), others).await
            };
            let written = columns.iter().cloned().enumerate().map(|(index, column)| (column, index)).collect();
            self.write(survivors.await.map_err(from_datafusion)?, written, changes).await?;
            changes.removes = removes(table, &touched, &self.load.place)?;
        }
        let keeps = self.load.state.mode()? == Mode::Merge && !self.fit.missing.is_empty() && old.is_some();
        if direct && !keeps {
            changes.adds.extend_from_slice(staged);
            return Ok(());
        }
        // Where rows lack columns of the table, the row that was there gives them.
        let kept: Vec<Column> = if keeps { self.fit.missing.clone() } else { Vec::new() };
        let merged = async {
            let rows = self.staged_rows(staged)?;
            let Some((table, keys)) = old.as_ref().filter(|_| keeps) else { return rows.execute_stream().await };
            let own = self.key_columns();
            let columns: Vec<Column> = own.iter().chain(&kept).cloned().collect();
            // A key that the table holds twice, which an append may have done, gives one row's values.
            let olds = self.table_rows(table, &columns, Some(&touched)).await?.filter(keys.may_have(self.key(&columns)))?;
            let group: Vec<Expr> = (0..own.len()).map(|index| ident(format!("t{index}"))).collect();
            let firsts = (own.len()..columns.len()).map(|index| first_value(ident(format!("t{index}")), vec![]).alias(format!("t{index}")));
            let olds = olds.aggregate(group, firsts.collect())?;
            let joined = rows.join_on(olds, JoinType::Left, self.on_staged(&columns))?;
            let mut out: Vec<Expr> = (0..self.fit.written.len()).map(|index| ident(format!("s{index}"))).collect();
            out.extend((own.len()..columns.len()).map(|index| ident(format!("t{index}"))));
            joined.select(out)?.execute_stream().await
        };
        let written =
            self.fit.written.iter().map(|(column, _)| column).chain(&kept).cloned().enumerate().map(|(index, column)| (column, index));
        self.write(merged.await.map_err(from_datafusion)?, written.collect(), changes).await?;
        Ok(())
    }

    async fn snapshot(&self, table: Option<&DeltaTable>, staged: &[Add], changes: &mut publish::Changes) -> Result<()> {
        if staged.is_empty() {
            return Ok(());
        }
        let started = || lit(ScalarValue::TimestampMicrosecond(Some(self.load.state.started_at), Some("UTC".into())));
        let versions: Vec<Column> = self.fit.table[self.fit.table.len() - 3..].to_vec();
        let open = [
            started().alias(VALID_FROM),
            lit(ScalarValue::TimestampMicrosecond(None, Some("UTC".into()))).alias(VALID_TO),
            lit(true).alias(IS_CURRENT),
        ];
        let width = self.fit.written.len();
        let old = match table {
            Some(table) => Some((table, self.learn(staged).await?)),
            None => None,
        };
        let fresh = async {
            let rows = self.staged_rows(staged)?;
            let mut out: Vec<Expr> = (0..width).map(|index| ident(format!("s{index}"))).collect();
            out.extend(open);
            let Some((table, keys)) = &old else {
                out.push(lit(ScalarValue::Utf8(None)).alias(FILE));
                return rows.select(out)?.execute_stream().await;
            };
            let mut columns: Vec<Column> = Vec::new();
            let mut differs = ident(FILE).is_null();
            for (index, (column, _)) in self.fit.written.iter().enumerate() {
                let new = self.fit.added.iter().any(|added| added.name == column.name);
                let staged = ident(format!("s{index}"));
                if new {
                    differs = differs.or(staged.is_not_null());
                    continue;
                }
                differs = differs.or(binary_expr(staged, Operator::IsDistinctFrom, ident(format!("t{}", columns.len()))));
                columns.push(column.clone());
            }
            let current = columns.len();
            columns.push(versions[2].clone());
            let current = ident(format!("t{current}")).and(keys.may_have(self.key(&columns)));
            let olds = self.table_rows(table, &columns, None).await?.filter(current)?;
            let joined = rows.join_on(olds, JoinType::Left, self.on_staged(&columns))?.filter(differs)?;
            out.push(ident(FILE));
            joined.select(out)?.execute_stream().await
        };
        let fresh = fresh.await.map_err(from_datafusion)?;
        let touched: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (schema, seen) = (fresh.schema(), touched.clone());
        let fresh = fresh.inspect(move |batch| {
            if let Ok(batch) = batch {
                seen.lock().extend(files_in(batch, batch.num_columns() - 1));
            }
        });
        let fresh: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, fresh));
        let written: Vec<(Column, usize)> = self
            .fit
            .written
            .iter()
            .map(|(column, _)| column)
            .chain(&versions)
            .cloned()
            .enumerate()
            .map(|(index, column)| (column, index))
            .collect();
        let added = self.write(fresh, written.clone(), changes).await?;
        let touched = std::mem::take(&mut *touched.lock());
        let Some((table, keys)) = old.filter(|_| !touched.is_empty()) else { return Ok(()) };

        let columns: Vec<Column> = self.old_columns().into_iter().chain(versions).collect();
        let closed = async {
            let inside: Vec<Column> = written.iter().map(|(column, _)| column.clone()).collect();
            let news = self.cx.read_table(Arc::new(Files::staged(&self.load.place, &inside, &self.fit.partitions, &added)?))?;
            let key = self.load.state.key.iter().enumerate().map(|(index, key)| ident(key).alias(format!("k{index}")));
            let news = news.select(key.collect::<Vec<_>>())?;
            let rows = self.table_rows(table, &columns, Some(&touched)).await?;
            let close = |rows: DataFrame| {
                let joined = news.join_on(rows, JoinType::Right, self.on_keys("k", &columns))?;
                let (to, current) = (columns.len() - 2, columns.len() - 1);
                let closes = || ident("k0").is_not_null().and(ident(format!("t{current}")));
                let mut out = numbered(&columns);
                out[to] = when(closes(), started()).otherwise(ident(format!("t{to}")))?.alias(VALID_TO);
                out[current] = when(closes(), lit(false)).otherwise(ident(format!("t{current}")))?.alias(IS_CURRENT);
                joined.select(out)
            };
            keys.change(&self.cx, rows, numbered(&columns), self.key(&columns), close).await
        };
        let written = columns.iter().cloned().enumerate().map(|(index, column)| (column, index)).collect();
        self.write(closed.await.map_err(from_datafusion)?, written, changes).await?;
        changes.removes = removes(table, &touched, &self.load.place)?;
        Ok(())
    }

    /// The keys of the run.
    async fn learn(&self, staged: &[Add]) -> Result<Keys> {
        let learnt = async {
            let typed = self.key_columns().into_iter().enumerate().map(|(index, column)| cast(ident(format!("k{index}")), column.lake));
            let rows = self.keys_of(staged)?.select(typed.collect::<Vec<_>>())?.execute_stream().await?;
            Keys::learn(rows, staged.iter().map(super::stats::rows).sum(), &self.load.cx.runtime.memory_pool).await
        };
        learnt.await.map_err(from_datafusion)
    }

    /// The files that hold a key of the run.
    async fn touched(&self, table: &DeltaTable, staged: &[Add], keys: &Keys) -> Result<BTreeSet<String>> {
        let found = async {
            let columns = self.key_columns();
            let mut rows = self.table_rows(table, &columns, None).await?;
            // Files whose bounds lie outside those of the run's keys are not even opened.
            for (index, bounds) in self.key_bounds(staged).await?.into_iter().enumerate() {
                if let Some((low, high)) = bounds {
                    rows = rows.filter(ident(format!("t{index}")).between(lit(low), lit(high)))?;
                }
            }
            rows = rows.filter(keys.may_have(self.key(&columns)))?;
            let found = self.each_key_of(staged)?.join_on(rows, JoinType::RightSemi, self.on_keys("k", &columns))?;
            found.select(vec![ident(FILE)])?.distinct()?.collect().await
        };
        let found = found.await.map_err(from_datafusion)?;
        Ok(found.iter().flat_map(|batch| files_in(batch, 0)).collect())
    }

    async fn key_bounds(&self, staged: &[Add]) -> DataFusionResult<Vec<Option<(ScalarValue, ScalarValue)>>> {
        let keys = self.load.state.key.len();
        let ordered = |column: &Column| {
            use DataType::*;
            matches!(column.lake, Int8 | Int16 | Int32 | Int64 | Utf8 | Date32 | Timestamp(..) | Decimal128(..))
        };
        if !self.key_columns().iter().all(ordered) {
            return Ok(vec![None; keys]);
        }
        let bounds = (0..keys).flat_map(|index| {
            let key = || ident(format!("k{index}"));
            [min(key()).alias(format!("l{index}")), max(key()).alias(format!("h{index}"))]
        });
        let found = self.keys_of(staged)?.aggregate(vec![], bounds.collect())?.collect().await?;
        let Some(batch) = found.iter().find(|batch| batch.num_rows() > 0) else { return Ok(vec![None; keys]) };
        (0..keys)
            .map(|index| {
                let low = ScalarValue::try_from_array(batch.column(2 * index), 0)?;
                let high = ScalarValue::try_from_array(batch.column(2 * index + 1), 0)?;
                Ok((!low.is_null() && !high.is_null()).then_some((low, high)))
            })
            .collect()
    }

    /// Rows of the table: its `columns` as t0, t1, … and the file they came from. `files`: of these alone.
    async fn table_rows(&self, table: &DeltaTable, columns: &[Column], files: Option<&BTreeSet<String>>) -> DataFusionResult<DataFrame> {
        let mut provider = table.table_provider().with_file_column(FILE);
        if let Some(files) = files {
            provider = provider.with_file_paths(files.iter().cloned());
        }
        let rows = self.cx.read_table(provider.await?)?;
        let mut out: Vec<Expr> = columns.iter().enumerate().map(|(index, column)| ident(&column.name).alias(format!("t{index}"))).collect();
        out.push(ident(FILE));
        rows.select(out)
    }

    /// Staged rows: what is written of them as s0, s1, …
    fn staged_rows(&self, staged: &[Add]) -> DataFusionResult<DataFrame> {
        let out =
            self.fit.written.iter().enumerate().map(|(index, (_, source))| ident(&self.staged[*source].name).alias(format!("s{index}")));
        read_staged_df(&self.cx, self.load, staged)?.select(out.collect::<Vec<_>>())
    }

    /// The keys of staged rows as k0, k1, …
    fn keys_of(&self, staged: &[Add]) -> DataFusionResult<DataFrame> {
        let keys = self.load.state.key.iter().enumerate().map(|(index, key)| ident(key).alias(format!("k{index}")));
        read_staged_df(&self.cx, self.load, staged)?.select(keys.collect::<Vec<_>>())
    }

    /// The same, each once: many rows of one key could not be told apart on disk.
    fn each_key_of(&self, staged: &[Add]) -> DataFusionResult<DataFrame> {
        let keys = self.keys_of(staged)?;
        // Of other modes no key comes twice.
        if self.load.state.mode().is_ok_and(|mode| mode == Mode::DeleteInsert) { keys.distinct() } else { Ok(keys) }
    }

    /// The table's own key columns.
    fn key_columns(&self) -> Vec<Column> {
        let find = |key: &String| self.fit.table.iter().find(|column| column.name == *key).expect("a fit has every key column").clone();
        self.load.state.key.iter().map(find).collect()
    }

    /// The columns that the table has before this run, without those of versions.
    fn old_columns(&self) -> Vec<Column> {
        let versioned = self.load.state.mode().is_ok_and(|mode| mode == Mode::Snapshot);
        let own = self.fit.table.len() - if versioned { 3 } else { 0 };
        self.fit.table[..own].iter().filter(|column| self.fit.added.iter().all(|added| added.name != column.name)).cloned().collect()
    }

    /// The key among `columns` as t0, t1, …, in the table's types.
    fn key(&self, columns: &[Column]) -> Vec<Expr> {
        let find = |key: Column| {
            let there = columns.iter().position(|column| column.name == key.name).expect("the key columns are among them");
            cast(ident(format!("t{there}")), key.lake)
        };
        self.key_columns().into_iter().map(find).collect()
    }

    /// Equal keys: k0, k1, … and those of `columns` as t0, t1, …
    fn on_keys(&self, prefix: &str, columns: &[Column]) -> Vec<Expr> {
        let on = self.load.state.key.iter().enumerate().map(|(index, key)| {
            let there = columns.iter().position(|column| column.name == *key).expect("the key columns are among them");
            ident(format!("{prefix}{index}")).eq(ident(format!("t{there}")))
        });
        on.collect()
    }

    /// Equal keys: s0, s1, … and those of `columns` as t0, t1, …
    fn on_staged(&self, columns: &[Column]) -> Vec<Expr> {
        let on = self.load.state.key.iter().map(|key| {
            let here = self.fit.written.iter().position(|(column, _)| column.name == *key).expect("a fit has every key column");
            let there = columns.iter().position(|column| column.name == *key).expect("the key columns are among them");
            ident(format!("s{here}")).eq(ident(format!("t{there}")))
        });
        on.collect()
    }

    /// Writes rows into files of the table's own folder, and notes them in `changes`.
    async fn write(
        &self,
        rows: SendableRecordBatchStream,
        written: Vec<(Column, usize)>,
        changes: &mut publish::Changes,
    ) -> Result<Vec<Add>> {
        let attempt = uuid::Uuid::new_v4().simple().to_string();
        let spec = Spec {
            place: self.load.place.clone(),
            folder: String::new(),
            label: format!("{}-r{}", self.load.state.token, &attempt[..8]),
            written,
            partitions: self.fit.partitions.clone(),
            file_bytes: self.load.state.file_bytes,
            writers: self.load.cx.partitions.max(1),
        };
        let stage = Arc::new(Stage::new(spec, &rows.schema(), self.load.cx.runtime.clone()));
        let added = stage.write(rows, &self.load.cx.cancel).await;
        stage.stopped().await;
        let added = added?;
        changes.written.extend(added.iter().map(|add| add.path.clone()));
        changes.adds.extend_from_slice(&added);
        Ok(added)
    }
}

/// `columns` as t0, t1, …
fn numbered(columns: &[Column]) -> Vec<Expr> {
    (0..columns.len()).map(|index| ident(format!("t{index}"))).collect()
}

fn files_in(batch: &RecordBatch, column: usize) -> Vec<String> {
    let Ok(files) = super::types::cast(batch.column(column), &DataType::Utf8) else { return Vec::new() };
    let mut found: Vec<String> = files.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
    found.dedup();
    found
}

/// The log's entries that take files out of the table.
fn removes(table: &DeltaTable, files: &BTreeSet<String>, place: &Place) -> Result<Vec<deltalake::kernel::Remove>> {
    let state = table.snapshot().map_err(|error| place.failed("read", error))?;
    let decoded = |path: &str| percent_decode_str(path).decode_utf8_lossy().into_owned();
    let root = decoded(table.table_url().path());
    let views: HashMap<String, _> = state.log_data().iter().map(|file| (file.path().into_owned(), file)).collect();
    let mut found = Vec::with_capacity(files.len());
    for file in files {
        let path = Url::parse(file).map_or_else(|_| decoded(file), |url| decoded(url.path()));
        let relative = path.strip_prefix(root.trim_end_matches('/')).map_or(path.as_str(), |rest| rest.trim_start_matches('/'));
        let view = views.get(relative).ok_or_else(|| {
            Error::system(
                "lake-table",
                format!("table \"{}\" names a file outside its folder, which weir cannot rewrite: {file}", place.name),
            )
        })?;
        found.push(view.remove_action(true));
    }
    Ok(found)
}
