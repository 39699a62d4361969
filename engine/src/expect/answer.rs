//! What a check found and how it is said: the rows that break an expectation, a newest value's age, a number's distance from earlier ones.

use arrow::{
    array::RecordBatch,
    datatypes::TimeUnit,
    util::display::{ArrayFormatter, FormatOptions},
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use datafusion::{
    error::{DataFusionError, Result as DfResult},
    prelude::DataFrame,
    scalar::ScalarValue,
};
use futures::StreamExt;
use tokio_util::task::AbortOnDropHandle;
use weir_pipelines::{Measure, units};
use weir_schemas::json;

use super::{EXAMPLES_MAX, change};
use crate::{
    books::Measured,
    checks::cut,
    failing::{ROWS_BYTES_MAX, ROWS_MAX},
};

/// Characters of a row in a message.
const EXAMPLE_CHARS_MAX: usize = 200;

/// What one check found.
pub struct Answer {
    /// Whether the expectation holds.
    pub holds: bool,
    /// What is to be said of it.
    pub detail: String,
    /// Rows that fail.
    pub rows: u64,
    /// Some of them, as JSON.
    pub kept: Vec<String>,
    /// What later runs are compared with.
    pub measured: Option<Measured>,
}

impl Answer {
    /// One that is not about single rows.
    pub fn of(holds: bool, detail: String) -> Self {
        Self { holds, detail, rows: 0, kept: Vec::new(), measured: None }
    }

    /// Nothing is to be said.
    pub fn holds() -> Self {
        Self::of(true, String::new())
    }
}

/// Holds a number against those of earlier runs.
pub fn compared(of: &Measure, value: f64, earlier: &[f64], z_max: f64, runs_min: u32) -> Answer {
    if earlier.len() < usize::try_from(runs_min).unwrap_or(usize::MAX) {
        let s = if earlier.len() == 1 { "" } else { "s" };
        return Answer::of(
            true,
            format!("learning: {} is {value}, with {} earlier value{s} of the {runs_min} it takes", of.text(), earlier.len()),
        );
    }
    let (of, runs, median) = (of.text(), earlier.len(), change::median(earlier));
    let z = change::z_score(value, earlier);
    if z.abs() <= z_max {
        return Answer::holds();
    }
    Answer::of(
        false,
        if z.is_infinite() {
            format!("{of} is {value}, and was {median} in each of the last {runs} runs")
        } else {
            format!("{of} is {value}, and its median over the last {runs} runs is {median}: a z-score of {z:.1} where {z_max} is allowed")
        },
    )
}

/// Says whether the newest value of a column is new enough.
pub fn fresh(column: &str, newest: &ScalarValue, rows: u64, age_max: TimeDelta, now: DateTime<Utc>) -> Answer {
    if rows == 0 {
        return Answer::of(false, "there are no rows, so nothing is fresh".to_owned());
    }
    if newest.is_null() {
        return Answer::of(false, format!("\"{column}\" is null in every row, so nothing is fresh"));
    }
    let Some(at) = instant(newest) else {
        return Answer::of(false, format!("the newest \"{column}\", {newest}, is out of the range of dates"));
    };
    let age = now.signed_duration_since(at);
    if age <= age_max {
        return Answer::holds();
    }
    let shown = |age: TimeDelta| units::shown(age.to_std().unwrap_or_default());
    let at = at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let seconds = TimeDelta::seconds(age.num_seconds());
    Answer::of(false, format!("the newest \"{column}\" is {at}, {} before the run, and {} is allowed", shown(seconds), shown(age_max)))
}

/// The instant of a date or a timestamp. Without a zone it is in UTC; a date is its first instant.
fn instant(value: &ScalarValue) -> Option<DateTime<Utc>> {
    let of = |unit: TimeUnit, ticks: i64| match unit {
        TimeUnit::Second => DateTime::from_timestamp(ticks, 0),
        TimeUnit::Millisecond => DateTime::from_timestamp_millis(ticks),
        TimeUnit::Microsecond => DateTime::from_timestamp_micros(ticks),
        TimeUnit::Nanosecond => Some(DateTime::from_timestamp_nanos(ticks)),
    };
    match value {
        ScalarValue::Date32(Some(days)) => of(TimeUnit::Second, i64::from(*days) * 86_400),
        ScalarValue::Date64(Some(ms)) => of(TimeUnit::Millisecond, *ms),
        ScalarValue::TimestampSecond(Some(ticks), _) => of(TimeUnit::Second, *ticks),
        ScalarValue::TimestampMillisecond(Some(ticks), _) => of(TimeUnit::Millisecond, *ticks),
        ScalarValue::TimestampMicrosecond(Some(ticks), _) => of(TimeUnit::Microsecond, *ticks),
        ScalarValue::TimestampNanosecond(Some(ticks), _) => of(TimeUnit::Nanosecond, *ticks),
        _ => None,
    }
}

/// Rows that break an expectation.
#[derive(Default)]
pub struct Found {
    /// How many.
    pub rows: u64,
    /// The first few, for people.
    pub examples: Vec<String>,
    /// More of them, as JSON.
    pub kept: Vec<String>,
    kept_bytes: usize,
}

impl Found {
    /// Counts a query's rows and holds on to the first of them.
    pub async fn of(frame: DataFrame) -> DfResult<Self> {
        apart(async move {
            let mut found = Self::default();
            let mut rows = frame.execute_stream().await?;
            while let Some(batch) = rows.next().await {
                found.take(&batch?);
            }
            Ok(found)
        })
        .await
    }

    fn take(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        self.examples.extend(render(&batch.slice(0, batch.num_rows().min(EXAMPLES_MAX - self.examples.len()))));
        for row in 0..batch.num_rows() {
            if self.kept.len() >= ROWS_MAX || self.kept_bytes >= ROWS_BYTES_MAX {
                break;
            }
            let text = cut(json::text(batch, row));
            self.kept_bytes += text.len();
            self.kept.push(text);
        }
    }
}

/// All of a query's rows: for few.
pub async fn collect(frame: DataFrame) -> DfResult<Vec<RecordBatch>> {
    apart(frame.collect()).await
}

/// Works on another thread, so that whoever waits can stop waiting: a query may be at one batch for minutes.
async fn apart<T: Send + 'static>(work: impl Future<Output = DfResult<T>> + Send + 'static) -> DfResult<T> {
    let work = AbortOnDropHandle::new(tokio::spawn(work));
    work.await.map_err(|error| DataFusionError::External(Box::new(error)))?
}

fn render(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let formats: Vec<_> = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect();
    (0..batch.num_rows())
        .map(|row| {
            let cells: Vec<String> = formats
                .iter()
                .zip(batch.schema().fields())
                .filter_map(|(format, field)| Some(format!("{} = {}", field.name(), format.as_ref().ok()?.value(row))))
                .collect();
            let mut text = cells.join(", ");
            if let Some((at, _)) = text.char_indices().nth(EXAMPLE_CHARS_MAX) {
                text.truncate(at);
                text.push('…');
            }
            format!("({text})")
        })
        .collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
