//! Reading what is new: by a cursor column, or by the interval of a run (`interval.rs`). Of a cursor: where to start, which rows have been
//! loaded before, and what is remembered. How a server is asked is the connector's; the cursor store is the engine's.
//!
//! Every published run leaves the **position**, the greatest cursor value it read. The next run asks for all rows from `position - lag`
//! on, that value included, and drops those that were loaded before. They are known by a **fingerprint** of the
//! whole row: a row that was changed without its cursor is another one, also within one tick of its clock. Fingerprints are kept for the rows from `position - lag` on, and
//! counted, because a table may hold the same row twice.
//!
//! **Guaranteed.** A row passes exactly once when its cursor value is not less than `position - lag` in the first published run after it
//! appears. A change of a row is a row of its own, whichever column it changes. A run
//! that fails, or is not read to its end, moves nothing. The position never moves backwards.
//!
//! **Not guaranteed.** A row that appears later than the lag, with a cursor value below, is missed: choose a lag longer than the longest
//! transaction, or than the delay of whoever writes the rows. A row deleted at the source is not noticed. A row that a transaction changes
//! back and forth within one lag, to what it was, is not loaded again.
//!
//! Cursors are integers, decimals of up to 38 digits, dates and timestamps. Floats round, and the order of text hangs on a collation: both are refused.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use arrow::{
    array::{
        Array, ArrowPrimitiveType, AsArray, BooleanArray, RecordBatch, UInt32Array,
        types::{
            Date32Type, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
            TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
        },
    },
    compute::{filter_record_batch, take_record_batch},
    datatypes::{DataType, Schema, TimeUnit},
    row::{RowConverter, SortField},
};
use datafusion::common::ScalarValue;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use weir_pipelines::Incremental;

use crate::{
    context::{Advance, SourceContext},
    error::{Error, Result},
    pushdown::{Comparison, Filter},
};

pub mod fingerprint;
pub mod interval;
mod value;

use fingerprint::{Fingerprint, Fingerprints};
use interval::IntervalReader;

/// Under this key the position is remembered, as JSON.
const POSITION_KEY: &str = "cursor";
/// Under this key the fingerprints are remembered.
const LOADED_KEY: &str = "loaded";
/// The way fingerprints are made. Another way needs another number.
const VERSION: u32 = 1;
/// More rows than this within the lag are too many to know one by one: about 50 MB.
const FINGERPRINTS_MAX: usize = 1_000_000;

/// What is remembered of the published runs, beside the fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    version: u32,
    /// The cursor column.
    column: String,
    /// Its type: `integer`, `date`, `decimal(2)`, `timestamp(us, zone)`.
    #[serde(rename = "type")]
    kind: String,
    /// The greatest value read, in the type's own unit.
    #[serde(with = "value::as_text")]
    position: i128,
    /// Fingerprints are known of all rows loaded from here on, and no row below was asked for since.
    #[serde(with = "value::as_optional_text")]
    since: Option<i128>,
    /// The columns whose values are in the fingerprints, each with its type.
    identity: Vec<(String, String)>,
}

/// Which rows of a table a run reads, where not all. Shared by the run's streams.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a source has one")]
pub enum Reach {
    /// Those that are new to a cursor.
    Cursor(CursorReader),
    /// Those of the interval that the run is for.
    Interval(IntervalReader),
}

impl Reach {
    /// What a step's `incremental` asks of rows of this schema; none where all are read. Fails as [`CursorReader::new`] and
    /// [`IntervalReader::new`] do.
    pub fn of(cx: &SourceContext, schema: &Schema) -> Result<Option<Self>> {
        Ok(match &cx.incremental {
            None => None,
            Some(Incremental::Interval { column }) => Some(Self::Interval(IntervalReader::new(column, schema, cx.run.interval)?)),
            Some(incremental) => Some(Self::Cursor(CursorReader::new(incremental, schema, &cx.seen)?)),
        })
    }

    /// The columns that [`Reach::pass`] needs in every batch, whatever else is projected.
    pub fn needs(&self) -> Vec<&str> {
        match self {
            Self::Cursor(cursor) => cursor.needs().collect(),
            Self::Interval(interval) => vec![interval.column()],
        }
    }

    /// Ask for rows for which this holds; none: ask for all. A row whose column is null is asked for too, so that it is found rather than
    /// missed. A limit must not be sent to the server.
    pub fn asks(&self) -> Option<Filter> {
        match self {
            Self::Cursor(cursor) => {
                let column = cursor.column().to_owned();
                let reached = Filter::Compare { column: column.clone(), op: Comparison::GtEq, value: cursor.lower()? };
                Some(Filter::Or(vec![reached, Filter::IsNull(column)]))
            }
            Self::Interval(interval) => interval.asks(),
        }
    }

    /// Takes out the rows that are not to be read, which do not count as read. Fails with Blame::User at a null. May be called by several
    /// streams at once.
    pub fn pass(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        match self {
            Self::Cursor(cursor) => cursor.pass(batch),
            Self::Interval(interval) => interval.pass(batch),
        }
    }

    /// Says that all rows of all streams have passed.
    pub fn finish(&self) -> Result<()> {
        match self {
            Self::Cursor(cursor) => cursor.finish(),
            Self::Interval(_) => Ok(()),
        }
    }

    /// Where a cursor goes on.
    pub fn from(&self) -> Option<crate::extent::From> {
        match self {
            Self::Cursor(cursor) => Some(crate::extent::From::of(cursor)),
            Self::Interval(_) => None,
        }
    }

    /// What is remembered of it once the run has published: of an interval, nothing.
    pub fn advance(self: &Arc<Self>) -> Option<Arc<dyn Advance>> {
        matches!(**self, Self::Cursor(_)).then(|| Arc::clone(self) as Arc<dyn Advance>)
    }
}

impl Advance for Reach {
    fn entries(&self) -> BTreeMap<String, String> {
        match self {
            Self::Cursor(cursor) => cursor.entries(),
            Self::Interval(_) => BTreeMap::new(),
        }
    }
}

/// One run's reading by a cursor. Shared by the run's streams.
pub struct CursorReader {
    column: String,
    data_type: DataType,
    kind: String,
    lag: i128,
    identity: Vec<(String, String)>,
    /// What the last published run left, as it is.
    seen: BTreeMap<String, String>,
    /// What it means.
    before: Option<Position>,
    /// No row below is wanted.
    lower: Option<i128>,
    /// The rows that were loaded, from `before.since` on.
    loaded: Fingerprints,
    limit: usize,
    state: Mutex<State>,
}

impl fmt::Debug for CursorReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CursorReader").field("column", &self.column).field("lower", &self.lower).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// The greatest cursor value met.
    greatest: Option<i128>,
    /// The rows met within the lag so far, and how often.
    met: Fingerprints,
    /// After so many more rows, what fell out of the lag is taken out of `met`.
    until_pruned: usize,
    /// What was the greatest then.
    pruned_at: Option<i128>,
    /// The greatest cursor value of a row that found no place in `met`.
    unplaced: Option<i128>,
    finished: bool,
}

impl CursorReader {
    /// Prepares to read rows of `schema` as `incremental` says, after what `seen` holds.
    /// Fails with Blame::User for a cursor that is no column or has no order to rely on, for a `lag` or `start` that is not of its type, and
    /// when what is remembered is of another cursor.
    pub fn new(incremental: &Incremental, schema: &Schema, seen: &BTreeMap<String, String>) -> Result<Self> {
        Self::prepare(incremental, schema, seen).map_err(|error| error.setting("incremental"))
    }

    fn prepare(incremental: &Incremental, schema: &Schema, seen: &BTreeMap<String, String>) -> Result<Self> {
        let Incremental::Cursor { column, lag, start } = incremental else {
            return Err(
                Error::user("incremental-unsupported", "this source has no files").help("write incremental = { cursor = \"column\" }")
            );
        };
        let Ok(field) = schema.field_with_name(column) else {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let error = Error::user("cursor-missing", format!("no column \"{column}\" to read by"));
            return Err(error.help(format!("the columns are: {}", names.join(", "))));
        };
        let data_type = field.data_type().clone();
        let Some(kind) = value::kind(&data_type) else {
            return Err(Error::user("cursor-type", format!("column \"{column}\" is {data_type}, which cannot be a cursor"))
                .help("choose a column of integers, decimals, dates or timestamps, or write a \"query\" that makes one"));
        };
        let lag = value::lag(column, &data_type, *lag)?;
        let before = remembered(seen)?;
        let own = identity_of(schema, column, before.as_ref())?;
        if let Some(before) = &before {
            same_cursor(before, column, &kind, &own)?;
        }
        let loaded = match seen.get(LOADED_KEY).filter(|_| before.is_some()) {
            Some(text) => Fingerprints::decode(text).ok_or_else(unreadable)?,
            None => Fingerprints::default(),
        };
        let lower = match &before {
            // Never below what fingerprints are known of, also where the lag has grown.
            Some(before) => Some(before.since.unwrap_or(i128::MIN).max(before.position.saturating_sub(lag))),
            None => start.as_deref().map(|start| value::parse_start(start, column, &data_type)).transpose()?,
        };
        Ok(Self {
            column: column.clone(),
            data_type,
            kind,
            lag,
            identity: own,
            seen: seen.clone(),
            before,
            lower,
            loaded,
            limit: FINGERPRINTS_MAX,
            state: Mutex::default(),
        })
    }

    /// The cursor column.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The columns that [`CursorReader::pass`] needs in every batch, whatever else is projected; the cursor is one of them.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        self.identity.iter().map(|(name, _)| name.as_str())
    }

    /// Ask for rows whose cursor is not less than this (of the column's type), *or is null*, so that a null is found rather than missed.
    /// None: ask for all. A limit must not be sent to the server.
    pub fn lower(&self) -> Option<ScalarValue> {
        self.lower.map(|lower| value::scalar(lower, &self.data_type))
    }

    /// Takes out the rows that were loaded before, and those below [`CursorReader::lower`]. Rows taken out do not count as read.
    /// Fails with Blame::User at a null cursor. May be called by several streams at once.
    pub fn pass(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let column = batch.column_by_name(&self.column).ok_or_else(|| lost(&self.column))?;
        if column.null_count() > 0 {
            return Err(Error::user(
                "null-cursor",
                format!("column \"{}\" is null in a row, so the row has no place to be read by", self.column),
            )
            .help(format!("fill it, or write a \"query\" with: where \"{}\" is not null", self.column)));
        }
        let cursors = value::all(column.as_ref(), &self.data_type).ok_or_else(|| lost(&self.column))?;
        let Some(greatest) = cursors.iter().copied().max() else { return Ok(batch.clone()) };
        let floor = {
            let mut state = self.state.lock();
            let greatest = state.greatest.map_or(greatest, |before| before.max(greatest));
            state.greatest = Some(greatest);
            self.floor(greatest)
        };
        // Rows between what was loaded before and what the next run will look at again need no fingerprint: most of a large load.
        let known_to = self.before.as_ref().map(|before| before.position);
        let wanted = |cursor: i128| self.lower.is_none_or(|lower| cursor >= lower);
        let rows: Vec<u32> = (0_u32..)
            .zip(&cursors)
            .filter(|(_, cursor)| wanted(**cursor) && (**cursor >= floor || known_to.is_some_and(|known| **cursor <= known)))
            .map(|(row, _)| row)
            .collect();
        let fingerprints = self.fingerprints(batch, &rows, &cursors)?;
        let mut keep: Vec<bool> = cursors.iter().map(|cursor| wanted(*cursor)).collect();
        let mut state = self.state.lock();
        for (row, fingerprint) in rows.into_iter().zip(fingerprints) {
            let cursor = cursors[row as usize];
            if let Some(times) = self.meet(&mut state, fingerprint, cursor) {
                keep[row as usize] = times > self.loaded.times(fingerprint);
            }
        }
        drop(state);
        if keep.iter().all(|keep| *keep) {
            return Ok(batch.clone());
        }
        filter_record_batch(batch, &BooleanArray::from(keep)).map_err(broken)
    }

    /// Notes one more row and says how often it has been met. None: it was not loaded before, and there is no place to note it.
    fn meet(&self, state: &mut State, fingerprint: Fingerprint, cursor: i128) -> Option<u32> {
        // Rows that were loaded before always find a place: of them there are no more than were remembered.
        if !state.met.contains(fingerprint) && !self.loaded.contains(fingerprint) {
            let slack = self.limit / 8 + 1;
            let places = self.limit + slack + self.loaded.len();
            // Seldom enough that taking out costs less than putting in did; once full, whenever the lag has moved, a batch at most.
            if state.until_pruned == 0 || state.met.len() >= places && state.pruned_at != state.greatest {
                let floor = self.floor(state.greatest.unwrap_or(cursor));
                state.met.retain(|met, cursor| cursor >= floor || self.loaded.contains(met));
                state.until_pruned = state.met.len().max(slack);
                state.pruned_at = state.greatest;
            }
            state.until_pruned -= 1;
            if state.met.len() >= places {
                state.unplaced = Some(state.unplaced.map_or(cursor, |before| before.max(cursor)));
                return None;
            }
        }
        Some(state.met.add(fingerprint, cursor))
    }

    /// The next run will not look below this if `greatest` is the greatest of all.
    fn floor(&self, greatest: i128) -> i128 {
        let greatest = self.before.as_ref().map_or(greatest, |before| before.position.max(greatest));
        greatest.saturating_sub(self.lag).max(self.lower.unwrap_or(i128::MIN))
    }

    fn fingerprints(&self, batch: &RecordBatch, rows: &[u32], cursors: &[i128]) -> Result<Vec<Fingerprint>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let indices = self.identity.iter().map(|(name, _)| batch.schema().index_of(name).map_err(|_| lost(name)));
        let identity = batch.project(&indices.collect::<Result<Vec<_>>>()?).map_err(broken)?;
        let identity = match rows.len() == batch.num_rows() {
            true => identity,
            false => take_record_batch(&identity, &UInt32Array::from(rows.to_vec())).map_err(broken)?,
        };
        let fields = identity.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let encoded = RowConverter::new(fields).and_then(|converter| converter.convert_columns(identity.columns())).map_err(broken)?;
        Ok(rows.iter().zip(&encoded).map(|(row, bytes)| fingerprint::of(cursors[*row as usize], bytes.as_ref())).collect())
    }

    /// Says that all rows of all streams have passed: only then does [`Advance::entries`] move the position.
    /// Fails with Blame::User when more rows lie within the lag than can be remembered.
    pub fn finish(&self) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(greatest) = state.greatest {
            let floor = self.floor(greatest);
            state.met.retain(|_, cursor| cursor >= floor);
            let kept =
                state.met.len() + self.loaded.iter().filter(|(met, cursor, _)| *cursor >= floor && !state.met.contains(*met)).count();
            if kept > self.limit || state.unplaced.is_some_and(|cursor| cursor >= floor) {
                let (column, limit) = (&self.column, self.limit);
                let message =
                    format!("more than {limit} rows have a \"{column}\" within the lag of the latest, too many to be known again");
                return Err(Error::user("cursor-window", message)
                    .help("make \"lag\" shorter, or choose a cursor that tells rows apart more finely"));
            }
        }
        state.finished = true;
        Ok(())
    }
}

impl Advance for CursorReader {
    fn entries(&self) -> BTreeMap<String, String> {
        let state = self.state.lock();
        let Some(greatest) = state.greatest.filter(|_| state.finished) else { return self.seen.clone() };
        let position = self.before.as_ref().map_or(greatest, |before| before.position.max(greatest));
        let floor = self.floor(greatest);
        let mut kept = Fingerprints::default();
        for (fingerprint, cursor, times) in self.loaded.iter().chain(state.met.iter()).filter(|(_, cursor, _)| *cursor >= floor) {
            kept.at_least(fingerprint, cursor, times);
        }
        let position = Position {
            version: VERSION,
            column: self.column.clone(),
            kind: self.kind.clone(),
            position,
            since: Some(floor).filter(|floor| *floor > i128::MIN),
            identity: self.identity.clone(),
        };
        let position = serde_json::to_string(&position).expect("names and numbers are JSON");
        BTreeMap::from([(POSITION_KEY.to_owned(), position), (LOADED_KEY.to_owned(), kept.encode())])
    }
}

fn remembered(seen: &BTreeMap<String, String>) -> Result<Option<Position>> {
    let Some(text) = seen.get(POSITION_KEY) else { return Ok(None) };
    let position: Position = serde_json::from_str(text).map_err(|_| unreadable())?;
    if position.version == VERSION { Ok(Some(position)) } else { Err(unreadable()) }
}

fn unreadable() -> Error {
    Error::weir("cursor-state", "the remembered cursor position cannot be read").help(ANEW)
}

const ANEW: &str = "read everything anew, once: weir run PIPELINE --full-refresh";

/// The columns that go into fingerprints, each with its type: the cursor first.
fn identity_of(schema: &Schema, cursor: &str, before: Option<&Position>) -> Result<Vec<(String, String)>> {
    let others = schema.fields().iter().map(|field| field.name().as_str()).filter(|name| *name != cursor);
    // A column that was added since is in no fingerprint yet: going on without it makes no duplicates.
    let was = |name: &str| before.is_none_or(|before| before.column != cursor || before.identity.iter().any(|(was, _)| was == name));
    std::iter::once(cursor)
        .chain(others.filter(|name| was(name)))
        .map(|name| {
            let field = schema.field_with_name(name).map_err(|_| lost(name))?;
            if !RowConverter::supports_fields(&[SortField::new(field.data_type().clone())]) {
                let message = format!("column \"{name}\" is {}, which cannot tell rows apart", field.data_type());
                return Err(Error::user("cursor-identity", message).help("leave the column out by a \"query\""));
            }
            Ok((name.to_owned(), field.data_type().to_string()))
        })
        .collect()
}

fn same_cursor(before: &Position, column: &str, kind: &str, identity: &[(String, String)]) -> Result<()> {
    let changed = |message: String| Err(Error::user("cursor-changed", message).help(format!("change it back, or {ANEW}")));
    if before.column != column {
        return changed(format!("runs so far read by \"{}\", and now the cursor is \"{column}\"", before.column));
    }
    if before.kind != kind {
        return changed(format!("the cursor \"{column}\" was of type {}, and now it is of type {kind}", before.kind));
    }
    if before.identity != identity {
        let gone = before.identity.iter().find(|was| !identity.contains(was));
        let new = identity.iter().find(|is| !before.identity.contains(is));
        return changed(match (gone, new) {
            (Some((name, was)), Some((same, is))) if name == same => {
                format!("column \"{name}\" was {was}, and now it is {is}: rows loaded before cannot be known again")
            }
            (Some((name, _)), _) => format!("column \"{name}\" is gone, without which rows loaded before cannot be known again"),
            (None, _) => "the columns that tell rows apart have another order than in runs so far".into(),
        });
    }
    Ok(())
}

fn lost(column: &str) -> Error {
    Error::weir("cursor-lost", format!("column \"{column}\" was not read as it was planned"))
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::weir("arrow", format!("rows cannot be told apart: {error}")).because(error)
}

#[cfg(test)]
mod tests;
