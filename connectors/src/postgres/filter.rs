//! Filters as Postgres evaluates them inside a COPY, which takes no parameters: values are bound to settings of the transaction
//! (`set_config('weir.p1', $1, true)`) and read there (`current_setting('weir.p1')::int8`). Which filters mean the same here and there is
//! `pushdown`'s; which columns they may ask about is decided here.

use std::cell::Cell;

use chrono::{DateTime, Datelike, Days, NaiveDate};
use datafusion::common::ScalarValue;

use super::{source::Column, types::Compared};
use crate::{pushdown::Filter, quote};

/// Conditions and the values they read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// SQL, all of it to be true.
    pub sql: Vec<String>,
    /// The value of `weir.p1` and so on.
    pub values: Vec<String>,
}

impl Conditions {
    /// Adds a filter over columns that `column` finds. False, and nothing changed, where Postgres might understand it otherwise.
    pub(super) fn add<'a>(&mut self, filter: &Filter, column: &dyn Fn(&str) -> Option<&'a Column>) -> bool {
        let before = self.values.len();
        // A value follows the column it is compared with, so the column says how.
        let compared = Cell::new(Compared::Never);
        let name = |name: &str| {
            let column = column(name)?;
            compared.set(column.compared);
            expression(column, &quote::identifier(&column.name))
        };
        let values = &mut self.values;
        let mut bind = |value: &ScalarValue| {
            let (text, cast) = written(value, compared.get())?;
            values.push(text);
            Some(setting(values.len(), cast))
        };
        match filter.render(&name, &mut bind) {
            Some(sql) => {
                self.sql.push(sql);
                true
            }
            None => {
                self.values.truncate(before);
                false
            }
        }
    }

    /// The statement that binds the values, and what to bind; none without values.
    pub(super) fn binding(&self) -> Option<(String, Vec<&str>)> {
        binding(&self.values)
    }
}

/// The statement that binds these values, and what to bind; none without values.
pub(super) fn binding(values: &[String]) -> Option<(String, Vec<&str>)> {
    let calls: Vec<String> = (1..=values.len()).map(|n| format!("set_config('weir.p{n}', ${n}, true)")).collect();
    (!calls.is_empty()).then(|| (format!("select {}", calls.join(", ")), values.iter().map(String::as_str).collect()))
}

/// The `number`-th value, as one of a type.
pub(super) fn setting(number: usize, cast: &str) -> String {
    format!("current_setting('weir.p{number}')::pg_catalog.{cast}")
}

/// What a filter compares of a column, which SQL calls `name`.
pub(super) fn expression(column: &Column, name: &str) -> Option<String> {
    Some(match column.compared {
        Compared::Never => return None,
        Compared::Plainly | Compared::Uuid => name.to_owned(),
        Compared::Text if column.deterministic => name.to_owned(),
        Compared::Text => format!("{name}::pg_catalog.text collate \"C\""),
        Compared::AsText => format!("{name}{}::pg_catalog.text collate \"C\"", column.cast),
    })
}

/// A value as text, and the type to read it as.
pub(super) fn written(value: &ScalarValue, compared: Compared) -> Option<(String, &'static str)> {
    use ScalarValue as V;
    Some(match value {
        V::Boolean(Some(value)) => (value.to_string(), "bool"),
        V::Int16(Some(value)) => (value.to_string(), "int8"),
        V::Int32(Some(value)) => (value.to_string(), "int8"),
        V::Int64(Some(value)) => (value.to_string(), "int8"),
        V::Decimal128(Some(value), _, scale) => (decimal(&value.to_string(), *scale)?, "numeric"),
        V::Decimal256(Some(value), _, scale) => (decimal(&value.to_string(), *scale)?, "numeric"),
        V::Date32(Some(days)) => {
            let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
            let distance = Days::new(days.unsigned_abs().into());
            let date = if *days < 0 { epoch.checked_sub_days(distance) } else { epoch.checked_add_days(distance) }?;
            (1..=9999).contains(&date.year()).then(|| (date.to_string(), "date"))?
        }
        V::TimestampMicrosecond(Some(us), zone) => {
            let instant = DateTime::from_timestamp_micros(*us)?;
            (1..=9999).contains(&instant.year()).then_some(())?;
            let text = instant.format("%Y-%m-%d %H:%M:%S%.6f");
            if zone.is_some() { (format!("{text}+00"), "timestamptz") } else { (text.to_string(), "timestamp") }
        }
        V::Utf8(Some(text)) if compared == Compared::Uuid => {
            // Postgres reads a UUID in many spellings, and a text is equal in one of them only.
            let uuid = uuid::Uuid::parse_str(text).ok()?;
            (uuid.hyphenated().to_string() == *text).then(|| (text.clone(), "uuid"))?
        }
        V::Utf8(Some(text)) if !text.contains('\0') => (text.clone(), "text"),
        _ => return None,
    })
}

/// Puts the point into an unscaled number.
fn decimal(unscaled: &str, scale: i8) -> Option<String> {
    let scale = usize::try_from(scale).ok()?;
    let (sign, digits) = unscaled.strip_prefix('-').map_or(("", unscaled), |digits| ("-", digits));
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use datafusion::{
        common::DFSchema,
        logical_expr::{Expr, col, lit},
        prelude::SessionContext,
    };

    use super::*;
    use crate::postgres::types::Kind;

    fn columns() -> Vec<Column> {
        let column = |name: &str, kind: Kind, cast: &str, compared| Column {
            name: name.to_owned(),
            field: Arc::new(kind.field(name, true)),
            kind,
            cast: cast.to_owned(),
            compared,
            deterministic: name == "t",
        };
        vec![
            column("i\"", Kind::Int4, "::pg_catalog.int4", Compared::Plainly),
            column("t", Kind::Text, "::pg_catalog.text", Compared::Text),
            column("u", Kind::Text, "::pg_catalog.text", Compared::Text),
            column("e", Kind::Text, "::pg_catalog.text", Compared::AsText),
            column("c", Kind::Text, "::pg_catalog.bpchar", Compared::Never),
            column("id", Kind::Uuid, "::pg_catalog.uuid", Compared::Uuid),
            column("p", Kind::Decimal(10, 2), "::pg_catalog.numeric", Compared::Plainly),
            column("at", Kind::Timestamptz, "::pg_catalog.timestamptz", Compared::Plainly),
        ]
    }

    fn written(expr: &Expr) -> Option<(String, Vec<String>)> {
        let columns = columns();
        let schema = Schema::new(columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>());
        let filter = Filter::of(expr, &schema)?;
        let mut conditions = Conditions::default();
        conditions
            .add(&filter, &|name| columns.iter().find(|column| column.name == name))
            .then(|| (conditions.sql.join(" and "), conditions.values))
    }

    #[test]
    fn values_are_bound_and_columns_compared_as_their_type_allows() {
        let ok = |expr: Expr, sql: &str, values: &[&str]| {
            let (found, bound) = written(&expr).unwrap_or_else(|| panic!("{expr} is not pushed down"));
            assert_eq!((found.as_str(), bound.iter().map(String::as_str).collect::<Vec<_>>()), (sql, values.to_vec()), "{expr}");
        };
        ok(col("i\"").gt(lit(7_i32)), "(\"i\"\"\" > current_setting('weir.p1')::pg_catalog.int8)", &["7"]);
        ok(
            col("t").eq(lit("it's")).and(col("u").eq(lit("x"))),
            "((\"t\" = current_setting('weir.p1')::pg_catalog.text) and \
             (\"u\"::pg_catalog.text collate \"C\" = current_setting('weir.p2')::pg_catalog.text))",
            &["it's", "x"],
        );
        ok(
            col("e").eq(lit("x")),
            "(\"e\"::pg_catalog.text::pg_catalog.text collate \"C\" = current_setting('weir.p1')::pg_catalog.text)",
            &["x"],
        );
        ok(
            col("id").eq(lit("0190a5b0-0000-7000-8000-00000000000a")),
            "(\"id\" = current_setting('weir.p1')::pg_catalog.uuid)",
            &["0190a5b0-0000-7000-8000-00000000000a"],
        );
        ok(
            col("p").lt_eq(lit(ScalarValue::Decimal128(Some(-5), 10, 2))),
            "(\"p\" <= current_setting('weir.p1')::pg_catalog.numeric)",
            &["-0.05"],
        );
        ok(
            col("at").gt_eq(lit(ScalarValue::TimestampMicrosecond(Some(1_500_000), Some("UTC".into())))),
            "(\"at\" >= current_setting('weir.p1')::pg_catalog.timestamptz)",
            &["1970-01-01 00:00:01.500000+00"],
        );
        ok(col("at").is_null(), "(\"at\" is null)", &[]);
    }

    #[test]
    fn what_postgres_might_understand_otherwise_stays_here() {
        for expr in [
            col("c").eq(lit("a")),
            col("id").eq(lit("0190A5B0-0000-7000-8000-00000000000A")),
            col("id").eq(lit("no uuid")),
            col("t").eq(lit("a\0b")),
            col("t").gt(lit("a")),
            col("at").gt(lit(ScalarValue::TimestampMicrosecond(Some(i64::MAX), Some("UTC".into())))),
            col("i\"").eq(lit(1_i32)).or(col("c").eq(lit("a"))),
        ] {
            assert_eq!(written(&expr), None, "{expr}");
        }
    }

    #[tokio::test]
    async fn what_a_plan_coerces_is_still_pushed_down() {
        let columns = columns();
        let schema = Schema::new(columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>());
        let df_schema = DFSchema::try_from(schema.clone()).expect("a schema");
        let context = SessionContext::new();
        let expr = context.parse_sql_expr("p = 0", &df_schema).expect("SQL");
        assert!(Filter::of(&expr, &schema).is_some());
    }
}
