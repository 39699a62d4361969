//! The values of `$1`, `$2` … of a statement: JSON as it was sent, to the types that the statement takes.

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use serde_json::Value;
use weir_engine::{Failure, sql::sql_name};

/// Values of the parameters. A text is read as whatever type is wanted, so that a number of many digits, a date or an instant is told exactly.
pub fn bind(types: &[Option<DataType>], values: &[Value]) -> Result<Vec<ScalarValue>, Failure> {
    if types.len() != values.len() {
        let (takes, given) = (types.len(), values.len());
        let failure = Failure::error("parameters", format!("the statement has {takes} parameters, and {given} values were given"));
        return Err(failure.help("\"parameters\" has a value for each of $1, $2 and so on, in their order"));
    }
    let numbered = types.iter().zip(values).zip(1..);
    numbered.map(|((wanted, value), at)| one(wanted.as_ref(), value).map_err(|why| wrong(at, &why))).collect()
}

fn wrong(at: usize, why: &str) -> Failure {
    Failure::error("parameters", format!("the value of ${at} cannot be taken: {why}"))
        .help("send a number, true, false, null, or a text such as \"2027-03-28\", \"2027-03-28T01:00:00Z\" or \"12.50\"")
}

fn one(wanted: Option<&DataType>, value: &Value) -> Result<ScalarValue, String> {
    let text = |text: String| ScalarValue::Utf8(Some(text));
    let given = match value {
        Value::Null => return ScalarValue::try_from(wanted.unwrap_or(&DataType::Null)).map_err(|error| error.to_string()),
        Value::Bool(value) => match wanted {
            None | Some(DataType::Boolean) => return Ok(ScalarValue::Boolean(Some(*value))),
            Some(other) => return Err(format!("{value} is no {}", sql_name(other))),
        },
        Value::Number(number) => match wanted {
            None => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => return Ok(ScalarValue::Int64(Some(whole))),
                (_, Some(whole)) => return Ok(ScalarValue::UInt64(Some(whole))),
                _ => return Ok(ScalarValue::Float64(number.as_f64())),
            },
            Some(other) if other.is_numeric() => text(number.to_string()),
            Some(other) => return Err(format!("{number} is no {}", sql_name(other))),
        },
        Value::String(given) => text(given.clone()),
        Value::Array(_) | Value::Object(_) => return Err("it is a list or an object".into()),
    };
    let Some(wanted) = wanted else { return Ok(given) };
    let unread = || format!("{value} is no {}", sql_name(wanted));
    let read = given.cast_to(wanted).map_err(|_| unread())?;
    // A cast that finds nothing to read may say so with a null.
    if read.is_null() { Err(unread()) } else { Ok(read) }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use serde_json::json;

    use super::*;

    fn bound(wanted: &DataType, value: Value) -> Result<String, String> {
        match bind(&[Some(wanted.clone())], &[value]) {
            Ok(values) => {
                assert!(values[0].data_type() == *wanted, "{wanted}");
                Ok(values[0].to_string())
            }
            Err(failure) => Err(failure.sentence()),
        }
    }

    #[test]
    fn values_are_read_as_the_types_that_are_wanted() {
        let decimal = DataType::Decimal128(20, 2);
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
        for (wanted, value, read) in [
            (DataType::Int64, json!(7), "7"),
            (DataType::Int64, json!("9007199254740993"), "9007199254740993"),
            (DataType::UInt8, json!(255), "255"),
            (DataType::Float64, json!(1), "1"),
            (DataType::Float64, json!("1.5"), "1.5"),
            (decimal.clone(), json!(12.5), "12.50"),
            (decimal.clone(), json!("123456789012345678.91"), "123456789012345678.91"),
            (DataType::Utf8, json!("o'clock"), "o'clock"),
            (DataType::Boolean, json!(true), "true"),
            (DataType::Boolean, json!("false"), "false"),
            (DataType::Date32, json!("2027-03-28"), "2027-03-28"),
            (instant.clone(), json!("2027-03-28T01:00:00+01:00"), "1806192000000000"),
            (DataType::Int32, json!(null), "NULL"),
        ] {
            assert_eq!(bound(&wanted, value.clone()).as_deref(), Ok(read), "{value} as {wanted}");
        }
    }

    #[test]
    fn what_is_no_value_of_the_type_is_told() {
        for (wanted, value, why) in [
            (DataType::Int64, json!(1.5), "1.5 is no bigint"),
            (DataType::Int8, json!(300), "300 is no tinyint"),
            (DataType::Int64, json!("seven"), "\"seven\" is no bigint"),
            (DataType::Int64, json!(true), "true is no bigint"),
            (DataType::Utf8, json!(5), "5 is no text"),
            (DataType::Date32, json!("soon"), "\"soon\" is no date"),
            (DataType::Boolean, json!(1), "1 is no boolean"),
            (DataType::Utf8, json!(["a"]), "it is a list or an object"),
            (DataType::Utf8, json!({}), "it is a list or an object"),
        ] {
            assert_eq!(bound(&wanted, value), Err(format!("the value of $1 cannot be taken: {why}")));
        }
    }

    #[test]
    fn a_value_whose_type_nobody_wants_is_of_its_own() {
        let values = [json!(1), json!(18_446_744_073_709_551_615_u64), json!(0.5), json!("a"), json!(false), json!(null)];
        let bound = bind(&[None, None, None, None, None, None], &values).expect("right");
        let types: Vec<String> = bound.iter().map(|value| sql_name(&value.data_type())).collect();
        assert_eq!(types, ["bigint", "bigint unsigned", "double", "text", "boolean", "null"]);
    }

    #[test]
    fn there_are_as_many_values_as_parameters() {
        let failure = bind(&[None, None], &[json!(1)]).expect_err("too few");
        assert_eq!(failure.sentence(), "the statement has 2 parameters, and 1 values were given");
    }
}
