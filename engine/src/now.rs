//! SQL's `now()` and its kin: the instant that the run started, the same in every step, and the one that a test sets.

use chrono::{DateTime, Utc};
use datafusion::{
    arrow::datatypes::DataType,
    common::ScalarValue,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, simplify::ExprSimplifyResult},
    logical_expr::{Expr, simplify::SimplifyContext},
    prelude::SessionContext,
};

/// Makes `now()`, `current_date` and `current_time` answer with this instant, in UTC.
pub fn fix(session: &SessionContext, instant: DateTime<Utc>) {
    let nanos = instant.timestamp_nanos_opt();
    let days = instant.date_naive().signed_duration_since(DateTime::UNIX_EPOCH.date_naive()).num_days();
    let of_day = instant.timestamp().rem_euclid(86_400) * 1_000_000_000 + i64::from(instant.timestamp_subsec_nanos());
    let zone = session.state().config().options().execution.time_zone.as_deref().map(std::sync::Arc::from);
    for (name, aliases, value) in [
        ("now", &["current_timestamp"][..], ScalarValue::TimestampNanosecond(nanos, zone)),
        ("current_date", &["today"], ScalarValue::Date32(i32::try_from(days).ok())),
        ("current_time", &[], ScalarValue::Time64Nanosecond(Some(of_day))),
    ] {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        session.register_udf(ScalarUDF::new_from_impl(Fixed { name, aliases, value, signature: Signature::nullary(Volatility::Stable) }));
    }
}

/// A function of nothing that always gives one value.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fixed {
    name: &'static str,
    aliases: Vec<String>,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Fixed {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }

    fn simplify(&self, _: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(self.value.clone(), None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_word_for_the_present_means_the_same_instant() {
        let session = SessionContext::new();
        fix(&session, DateTime::parse_from_rfc3339("1969-12-31T22:15:00.5Z").expect("an instant").to_utc());
        let mut row = Vec::new();
        for word in ["now()", "current_timestamp", "current_timestamp()", "current_date", "today()", "current_time"] {
            let rows = session.sql(&format!("select {word} as x")).await.expect("plans").collect().await.expect("runs");
            row.push(arrow::util::display::array_value_to_string(rows[0].column(0), 0).expect("is shown"));
        }
        let time = "1969-12-31T22:15:00.500";
        assert_eq!(row, [time, time, time, "1969-12-31", "1969-12-31", "22:15:00.500"]);
    }
}
