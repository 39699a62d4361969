//! Reading by the interval of a run: rows whose time, in one column, is the interval's start or later, and earlier than its end. Nothing is
//! remembered: the same interval reads the same rows again, as far as the source still has them.
//!
//! The column is a timestamp or a date. A timestamp without zone is taken as UTC, as SQL takes it where the two meet. A date has no place
//! in an interval that begins or ends within a day of UTC, and is refused there rather than read a day too early.

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{DataType, Schema},
};
use datafusion::common::ScalarValue;

use super::{broken, lost, value};
use crate::{
    context::Interval,
    error::{Error, Result},
    pushdown::{Comparison, Filter},
};

/// One run's reading of an interval.
#[derive(Debug)]
pub struct IntervalReader {
    column: String,
    data_type: DataType,
    /// In the column's own unit; none where there is no interval, as in a check.
    bounds: Option<(i128, i128)>,
}

impl IntervalReader {
    /// Prepares to read the rows of an interval. Without one, all rows pass: whoever executes sees to it that there is one.
    /// Fails with Blame::User for a column that is not there, that has no place in time, or whose days an interval cuts.
    pub fn new(column: &str, schema: &Schema, interval: Option<Interval>) -> Result<Self> {
        Self::prepare(column, schema, interval).map_err(|error| error.setting("incremental"))
    }

    fn prepare(column: &str, schema: &Schema, interval: Option<Interval>) -> Result<Self> {
        let Ok(field) = schema.field_with_name(column) else {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let error = Error::user("cursor-missing", format!("no column \"{column}\" to read by"));
            return Err(error.help(format!("the columns are: {}", names.join(", "))));
        };
        let data_type = field.data_type().clone();
        let Some(unit_nanos) = value::unit_of(&data_type) else {
            let message = format!("column \"{column}\" is {data_type}, which has no place in an interval of time");
            return Err(
                Error::user("interval-type", message).help("choose a column of timestamps or dates, or write a \"query\" that makes one")
            );
        };
        // The first value that is not before an instant.
        let place = |nanos: i128| nanos.div_euclid(unit_nanos) + i128::from(nanos.rem_euclid(unit_nanos) > 0);
        let nanos =
            |at: chrono::DateTime<chrono::Utc>| i128::from(at.timestamp()) * 1_000_000_000 + i128::from(at.timestamp_subsec_nanos());
        let bounds = interval.map(|interval| (nanos(interval.start), nanos(interval.end)));
        if let Some((start, end)) = bounds
            && data_type == DataType::Date32
            && (start % unit_nanos != 0 || end % unit_nanos != 0)
        {
            let interval = interval.map(|interval| interval.to_string()).unwrap_or_default();
            let message = format!("column \"{column}\" is a date, and the interval {interval} begins or ends within a day of UTC");
            return Err(
                Error::user("interval-date", message).help("choose a column of timestamps, or a schedule whose ticks are midnights in UTC")
            );
        }
        Ok(Self { column: column.to_owned(), data_type, bounds: bounds.map(|(start, end)| (place(start), place(end))) })
    }

    /// The column.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Ask for rows for which this holds: those of the interval, and those whose column is null, so that a null is found rather than
    /// missed. None: ask for all.
    pub fn asks(&self) -> Option<Filter> {
        let (start, end) = self.bounds?;
        let compare = |op, bound: i128| Filter::Compare { column: self.column.clone(), op, value: self.scalar(bound) };
        let within = Filter::And(vec![compare(Comparison::GtEq, start), compare(Comparison::Lt, end)]);
        Some(Filter::Or(vec![within, Filter::IsNull(self.column.clone())]))
    }

    fn scalar(&self, bound: i128) -> ScalarValue {
        value::scalar(bound, &self.data_type)
    }

    /// Takes out the rows that are not of the interval. Rows taken out do not count as read. Fails with Blame::User at a null.
    pub fn pass(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let column = batch.column_by_name(&self.column).ok_or_else(|| lost(&self.column))?;
        if column.null_count() > 0 {
            return Err(Error::user("null-cursor", format!("column \"{}\" is null in a row, so the row lies in no interval", self.column))
                .help(format!("fill it, or write a \"query\" with: where \"{}\" is not null", self.column)));
        }
        let Some((start, end)) = self.bounds else { return Ok(batch.clone()) };
        let times = value::all(column.as_ref(), &self.data_type).ok_or_else(|| lost(&self.column))?;
        if times.iter().all(|time| (start..end).contains(time)) {
            return Ok(batch.clone());
        }
        let keep = BooleanArray::from(times.iter().map(|time| (start..end).contains(time)).collect::<Vec<_>>());
        filter_record_batch(batch, &keep).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Date32Array, TimestampMicrosecondArray, TimestampSecondArray},
        datatypes::{Field, TimeUnit},
    };

    use super::*;

    fn interval(start: &str, end: &str) -> Interval {
        let at = |text: &str| text.parse().expect("an instant");
        Interval { start: at(start), end: at(end) }
    }

    fn schema(data_type: DataType) -> Schema {
        Schema::new(vec![Field::new("at", data_type, true)])
    }

    /// How many of these pass.
    fn passing(rows: ArrayRef, interval: Interval) -> Result<usize> {
        let schema = schema(rows.data_type().clone());
        let reader = IntervalReader::new("at", &schema, Some(interval))?;
        let batch = RecordBatch::try_new(Arc::new(schema), vec![rows]).expect("a batch");
        reader.pass(&batch).map(|passed| passed.num_rows())
    }

    #[test]
    fn the_start_belongs_to_an_interval_and_the_end_does_not() {
        let hour = interval("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        let base = hour.start.timestamp();
        let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![base - 1, base, base + 3599, base + 3600]).with_timezone("UTC"));
        assert_eq!(passing(seconds, hour).expect("reads"), 2);
        // Before 1970, and without a zone.
        let old = interval("1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00.000001Z");
        let micros: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-500_001, -500_000, -1, 0, 1]));
        assert_eq!(passing(micros, old).expect("reads"), 3);
        // Bounds between two values of the column's unit.
        let halves = interval("1970-01-01T00:00:00.5Z", "1970-01-01T00:00:02.5Z");
        let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0, 1, 2, 3]));
        assert_eq!(passing(seconds, halves).expect("reads"), 2);
    }

    #[test]
    fn a_date_is_read_by_whole_days_only() {
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![-1, 0, 1, 2]));
        assert_eq!(passing(dates.clone(), interval("1970-01-01T00:00:00Z", "1970-01-03T00:00:00Z")).expect("reads"), 2);
        let error = passing(dates, interval("1970-01-01T05:00:00Z", "1970-01-02T05:00:00Z")).expect_err("is refused");
        assert_eq!((error.code, error.setting.as_deref()), ("interval-date", Some("incremental")));
        assert_eq!(
            error.message,
            "column \"at\" is a date, and the interval 1970-01-01T05:00:00Z/1970-01-02T05:00:00Z begins or ends within a day of UTC"
        );
    }

    #[test]
    fn what_cannot_be_read_by_an_interval_says_why() {
        let none = None;
        let why = |data_type, column: &str| {
            let error = IntervalReader::new(column, &schema(data_type), none).expect_err("is refused");
            (error.code, error.message)
        };
        assert_eq!(why(DataType::Date32, "day"), ("cursor-missing", "no column \"day\" to read by".into()));
        let message = "column \"at\" is Int64, which has no place in an interval of time".to_owned();
        assert_eq!(why(DataType::Int64, "at"), ("interval-type", message));
        let nulls: ArrayRef = Arc::new(Date32Array::from(vec![Some(1), None]));
        let error = passing(nulls, interval("1970-01-01T00:00:00Z", "1970-01-03T00:00:00Z")).expect_err("is refused");
        assert_eq!((error.code, error.message.as_str()), ("null-cursor", "column \"at\" is null in a row, so the row lies in no interval"));
    }

    #[test]
    fn a_server_is_asked_for_the_interval_and_for_nulls() {
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let hour = interval("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        let reader = IntervalReader::new("at", &schema(zoned.clone()), Some(hour)).expect("reads");
        let Some(Filter::Or(parts)) = reader.asks() else { panic!("it asks for rows or nulls") };
        let bound = |value: ScalarValue, op| Filter::Compare { column: "at".into(), op, value };
        let micros = |at: chrono::DateTime<chrono::Utc>| ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()));
        let within = Filter::And(vec![bound(micros(hour.start), Comparison::GtEq), bound(micros(hour.end), Comparison::Lt)]);
        assert_eq!(parts, [within, Filter::IsNull("at".into())]);
        assert!(IntervalReader::new("at", &schema(zoned), None).expect("reads").asks().is_none());
    }
}
