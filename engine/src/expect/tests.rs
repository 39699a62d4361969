//! Tests of what is said of a newest value and of a change: the words, and where the bounds lie.

use std::sync::Arc;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

fn micros(text: &str, zone: Option<&str>) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(at(text).timestamp_micros()), zone.map(Into::into))
}

/// What is said of a newest value, with a day allowed and the run at six in the morning of the second.
fn said(newest: &ScalarValue) -> String {
    let answer = fresh("at", newest, 3, TimeDelta::days(1), at("2026-01-02T06:00:00Z"));
    assert_eq!(answer.holds, answer.detail.is_empty());
    answer.detail
}

#[test]
fn the_newest_value_is_held_against_the_runs_clock() {
    for fresh in [
        micros("2026-01-01T06:00:00Z", None),
        micros("2026-01-01T06:00:00Z", Some("UTC")),
        micros("2026-01-01T06:00:00Z", Some("America/New_York")),
        micros("9999-01-01T00:00:00Z", None),
        ScalarValue::Date32(Some(20_455)),
        ScalarValue::Date64(Some(20_455 * 86_400_000)),
        ScalarValue::TimestampSecond(Some(at("2026-01-02T00:00:00Z").timestamp()), None),
        ScalarValue::TimestampMillisecond(Some(at("2026-01-02T00:00:00Z").timestamp_millis()), None),
        ScalarValue::TimestampNanosecond(at("2026-01-02T00:00:00Z").timestamp_nanos_opt(), None),
    ] {
        assert_eq!(said(&fresh), "", "{fresh}");
    }
    assert_eq!(
        said(&micros("2026-01-01T05:59:59.999999Z", None)),
        "the newest \"at\" is 2026-01-01T05:59:59.999999Z, 1d before the run, and 1d is allowed"
    );
    // A date is its first instant.
    assert_eq!(
        said(&ScalarValue::Date32(Some(20_454))),
        "the newest \"at\" is 2026-01-01T00:00:00Z, 1d6h before the run, and 1d is allowed"
    );
    assert_eq!(
        said(&ScalarValue::TimestampSecond(Some(0), None)),
        "the newest \"at\" is 1970-01-01T00:00:00Z, 20455d6h before the run, and 1d is allowed"
    );
    assert_eq!(
        said(&ScalarValue::TimestampSecond(Some(i64::MIN), None)),
        "the newest \"at\", -9223372036854775808, is out of the range of dates"
    );
}

#[test]
fn nothing_is_not_fresh() {
    let now = at("2026-01-02T06:00:00Z");
    let none = ScalarValue::TimestampSecond(None, None);
    assert_eq!(fresh("at", &none, 0, TimeDelta::days(1), now).detail, "there are no rows, so nothing is fresh");
    assert_eq!(fresh("at", &none, 2, TimeDelta::days(1), now).detail, "\"at\" is null in every row, so nothing is fresh");
}

#[test]
fn a_change_says_what_it_was_held_against() {
    let said = |value: f64, earlier: &[f64]| {
        let answer = compared(&Measure::RowCount, value, earlier, 3.5, 3);
        format!("{} {}", answer.holds, answer.detail)
    };
    assert_eq!(said(7.0, &[]), "true learning: row_count is 7, with 0 earlier values of the 3 it takes");
    assert_eq!(said(7.0, &[1.0]), "true learning: row_count is 7, with 1 earlier value of the 3 it takes");
    assert_eq!(said(7.0, &[7.0, 7.0, 7.0]), "true ");
    assert_eq!(said(8.0, &[7.0, 7.0, 7.0]), "false row_count is 8, and was 7 in each of the last 3 runs");
    assert_eq!(
        said(20.0, &[1.0, 2.0, 3.0, 4.0, 5.0]),
        "false row_count is 20, and its median over the last 5 runs is 3: a z-score of 11.5 where 3.5 is allowed"
    );
    assert_eq!(said(8.0, &[1.0, 2.0, 3.0, 4.0, 5.0]), "true ");
}

#[test]
fn a_long_row_is_cut_in_messages() {
    let batch =
        RecordBatch::try_from_iter([("a", Arc::new(arrow::array::StringArray::from(vec!["é".repeat(300)])) as arrow::array::ArrayRef)]);
    assert_eq!(render(&batch.expect("fits")), [format!("(a = {}…)", "é".repeat(196))]);
}
