//! Which filters of a plan a server may apply: a neutral tree of those that mean the same in DataFusion, Postgres and ClickHouse,
//! and its rendering with bound values. How a dialect binds a value, and which columns it vetoes, is the connector's.
//!
//! What is accepted compares one column with one value of the column's own type:
//!
//! - integers, decimals, dates and timestamps by any comparison, `in` and `between`;
//! - booleans and text by equality and `in` only, because the order of text hangs on a collation;
//! - `is null` and `is not null` of any column;
//! - `and`, `or` and `not` of these, whose three-valued logic all three share, as long as no null is written in the filter: a null
//!   inside `in (…)` is where they part, so literal nulls are refused.
//!
//! Floats are never compared, because signed zeros and NaN have another order everywhere; bytes are not, because ClickHouse pads
//! `FixedString`; times of day are not, because 24:00 exists in Postgres. A cast that DataFusion put round a column is taken away where
//! it changes no value and no order, and the value is one of the column's own type. A value with more decimals than the column has is
//! refused rather than rounded.
//!
//! The connector vetoes what it knows better, column by column: `char(n)`, whose padding counts in DataFusion and not in Postgres;
//! a nondeterministic collation; a column whose Arrow value is made from another type. It vetoes values too: a date that the server's
//! type cannot hold, a NUL in text. A timestamp `infinity` lies beyond every finite one in Postgres; a filter may therefore leave out
//! a row that could not have been read, and never one that could have been.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Schema};
use datafusion::{
    common::{Column, DFSchema, ExprSchema, ScalarValue},
    logical_expr::{Between, BinaryExpr, Cast, Expr, Operator, TryCast, expr::InList},
};

/// Filters nested deeper are not looked at: a machine wrote them, and a stack has an end.
const DEPTH_MAX: usize = 100;
/// Longer lists are not sent: they cost the server more to read than they save.
const VALUES_MAX: usize = 1000;

/// A filter that means the same to DataFusion and to a server. A row is kept where it is true, neither false nor null.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// `column op value`; neither type nor scale differ between the two, and the value is not null.
    Compare {
        /// The column.
        column: String,
        /// How.
        op: Comparison,
        /// With what.
        value: ScalarValue,
    },
    /// `column in (values)`: at least one value, none of them null.
    In {
        /// The column.
        column: String,
        /// The values.
        values: Vec<ScalarValue>,
    },
    /// `column is null`.
    IsNull(String),
    /// `column is not null`.
    IsNotNull(String),
    /// True where the filter is false, null where it is null.
    Not(Box<Filter>),
    /// False where one is false, else null where one is null. At least two.
    And(Vec<Filter>),
    /// True where one is true, else null where one is null. At least two.
    Or(Vec<Filter>),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Eq,
    /// `<>`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
}

impl Comparison {
    /// As SQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Comparison::Eq => "=",
            Comparison::NotEq => "<>",
            Comparison::Lt => "<",
            Comparison::LtEq => "<=",
            Comparison::Gt => ">",
            Comparison::GtEq => ">=",
        }
    }

    fn of(op: Operator) -> Option<Self> {
        Some(match op {
            Operator::Eq => Comparison::Eq,
            Operator::NotEq => Comparison::NotEq,
            Operator::Lt => Comparison::Lt,
            Operator::LtEq => Comparison::LtEq,
            Operator::Gt => Comparison::Gt,
            Operator::GtEq => Comparison::GtEq,
            _ => return None,
        })
    }

    /// With both sides swapped.
    fn swapped(self) -> Self {
        match self {
            Comparison::Lt => Comparison::Gt,
            Comparison::LtEq => Comparison::GtEq,
            Comparison::Gt => Comparison::Lt,
            Comparison::GtEq => Comparison::LtEq,
            same => same,
        }
    }

    fn is_equality(self) -> bool {
        matches!(self, Comparison::Eq | Comparison::NotEq)
    }
}

impl Filter {
    /// The filter that `expr` is, over columns of `schema`; none where a server might understand it otherwise.
    pub fn of(expr: &Expr, schema: &Schema) -> Option<Filter> {
        Self::at(expr, schema, 0)
    }

    fn at(expr: &Expr, schema: &Schema, depth: usize) -> Option<Filter> {
        if depth > DEPTH_MAX {
            return None;
        }
        let inner = |expr| Self::at(expr, schema, depth + 1);
        match expr {
            Expr::Alias(alias) => inner(&alias.expr),
            Expr::Column(column) => {
                let field = schema.field_with_name(&column.name).ok()?;
                (*field.data_type() == DataType::Boolean).then(|| Filter::Compare {
                    column: column.name.clone(),
                    op: Comparison::Eq,
                    value: ScalarValue::Boolean(Some(true)),
                })
            }
            Expr::Not(expr) => Some(Filter::Not(Box::new(inner(expr)?))),
            Expr::IsNull(expr) => Some(Filter::IsNull(column_of(expr, schema)?)),
            Expr::IsNotNull(expr) => Some(Filter::IsNotNull(column_of(expr, schema)?)),
            Expr::BinaryExpr(BinaryExpr { op: Operator::And | Operator::Or, .. }) => Self::joined(expr, schema, depth),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let op = Comparison::of(*op)?;
                compare(left, op, right, schema).or_else(|| compare(right, op.swapped(), left, schema))
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let low = compare(expr, Comparison::GtEq, low, schema)?;
                let high = compare(expr, Comparison::LtEq, high, schema)?;
                Some(negate_if(*negated, Filter::And(vec![low, high])))
            }
            Expr::InList(InList { expr, list, negated }) => {
                if list.is_empty() || list.len() > VALUES_MAX {
                    return None;
                }
                let mut column = None;
                let mut values = Vec::with_capacity(list.len());
                for value in list {
                    let Filter::Compare { column: name, value, .. } = compare(expr, Comparison::Eq, value, schema)? else { return None };
                    column = Some(name);
                    values.push(value);
                }
                Some(negate_if(*negated, Filter::In { column: column?, values }))
            }
            _ => None,
        }
    }

    /// `a and b and c`, or the same with `or`, which DataFusion nests to the left: taken apart without recursion.
    fn joined(expr: &Expr, schema: &Schema, depth: usize) -> Option<Filter> {
        let Expr::BinaryExpr(BinaryExpr { op: joint, .. }) = expr else { return None };
        let (mut filters, mut open) = (Vec::new(), vec![expr]);
        while let Some(expr) = open.pop() {
            match expr {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) if op == joint => open.extend([right.as_ref(), left.as_ref()]),
                other => filters.push(Self::at(other, schema, depth + 1)?),
            }
            if filters.len() > VALUES_MAX {
                return None;
            }
        }
        Some(if *joint == Operator::And { Filter::And(filters) } else { Filter::Or(filters) })
    }

    /// The same with its columns called otherwise; none where one has no such name.
    pub fn renamed(&self, name: &dyn Fn(&str) -> Option<String>) -> Option<Filter> {
        let all = |filters: &[Filter]| filters.iter().map(|filter| filter.renamed(name)).collect::<Option<Vec<_>>>();
        Some(match self {
            Filter::Compare { column, op, value } => Filter::Compare { column: name(column)?, op: *op, value: value.clone() },
            Filter::In { column, values } => Filter::In { column: name(column)?, values: values.clone() },
            Filter::IsNull(column) => Filter::IsNull(name(column)?),
            Filter::IsNotNull(column) => Filter::IsNotNull(name(column)?),
            Filter::Not(inner) => Filter::Not(Box::new(inner.renamed(name)?)),
            Filter::And(filters) => Filter::And(all(filters)?),
            Filter::Or(filters) => Filter::Or(all(filters)?),
        })
    }

    /// The columns it asks for.
    pub fn columns(&self) -> BTreeSet<&str> {
        let (mut columns, mut open) = (BTreeSet::new(), vec![self]);
        while let Some(filter) = open.pop() {
            match filter {
                Filter::Compare { column, .. } | Filter::In { column, .. } | Filter::IsNull(column) | Filter::IsNotNull(column) => {
                    columns.insert(column.as_str());
                }
                Filter::Not(inner) => open.push(inner),
                Filter::And(inner) | Filter::Or(inner) => open.extend(inner),
            }
        }
        columns
    }

    /// Writes it as SQL, in parentheses. `column` gives an expression for a column and `bind` one for a value of the compared column's
    /// type, such as `$1::int8` or `{p1:Int64}`; either vetoes with none. After a veto the caller drops what was bound meanwhile.
    pub fn render(&self, column: &dyn Fn(&str) -> Option<String>, bind: &mut dyn FnMut(&ScalarValue) -> Option<String>) -> Option<String> {
        Some(match self {
            Filter::Compare { column: name, op, value } => format!("({} {} {})", column(name)?, op.as_str(), bind(value)?),
            Filter::In { column: name, values } => {
                let name = column(name)?;
                let values = values.iter().map(bind).collect::<Option<Vec<_>>>()?;
                format!("({name} in ({}))", values.join(", "))
            }
            Filter::IsNull(name) => format!("({} is null)", column(name)?),
            Filter::IsNotNull(name) => format!("({} is not null)", column(name)?),
            Filter::Not(inner) => format!("(not {})", inner.render(column, bind)?),
            Filter::And(filters) | Filter::Or(filters) => {
                let joint = if matches!(self, Filter::And(_)) { " and " } else { " or " };
                let mut parts = Vec::with_capacity(filters.len());
                for filter in filters {
                    parts.push(filter.render(column, bind)?);
                }
                format!("({})", parts.join(joint))
            }
        })
    }
}

fn negate_if(negated: bool, filter: Filter) -> Filter {
    if negated { Filter::Not(Box::new(filter)) } else { filter }
}

/// The column that `expr` names, under casts that keep nulls null and fail for no value.
fn column_of(expr: &Expr, schema: &Schema) -> Option<String> {
    Some(bare(expr, schema)?.0)
}

/// The column and its type, without casts that change no value and no order.
fn bare(expr: &Expr, schema: &Schema) -> Option<(String, DataType)> {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr, schema),
        Expr::Column(column) => Some((column.name.clone(), schema.field_with_name(&column.name).ok()?.data_type().clone())),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            // One cast is what DataFusion inserts; a tower of them is a person's, and stays.
            let Expr::Column(column) = expr.as_ref() else { return None };
            let own = schema.field_with_name(&column.name).ok()?.data_type();
            widens(own, field.data_type()).then(|| (column.name.clone(), own.clone()))
        }
        _ => None,
    }
}

/// Whether every value of `from` is one of `to`, in the same order.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Decimal256, LargeUtf8, Utf8, Utf8View};
    if from == to {
        return true;
    }
    match (integer(from), integer(to)) {
        (Some((signed, bits)), Some((to_signed, to_bits))) => {
            return to_bits > bits && (to_signed || !signed);
        }
        (Some((_, bits)), None) => {
            let digits = match bits {
                8 => 3,
                16 => 5,
                32 => 10,
                _ => 20,
            };
            return matches!(to, Decimal128(precision, scale) | Decimal256(precision, scale)
                if *scale >= 0 && i16::from(*precision) - i16::from(*scale) >= digits);
        }
        _ => {}
    }
    match (from, to) {
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => true,
        (
            Decimal128(precision, scale) | Decimal256(precision, scale),
            Decimal128(to_precision, to_scale) | Decimal256(to_precision, to_scale),
        ) => to_scale >= scale && i16::from(*to_precision) - i16::from(*to_scale) >= i16::from(*precision) - i16::from(*scale),
        _ => false,
    }
}

/// Whether two values of the type are equal here where they are equal there.
pub fn is_equal(data_type: &DataType) -> bool {
    use DataType::{Boolean, LargeUtf8, Utf8, Utf8View};
    matches!(data_type, Boolean | Utf8 | LargeUtf8 | Utf8View) || is_ordered(data_type)
}

/// Whether values of the type have the same order here and there.
pub fn is_ordered(data_type: &DataType) -> bool {
    use DataType::{Date32, Decimal128, Decimal256, Timestamp};
    matches!(data_type, Date32 | Timestamp(_, _) | Decimal128(_, _) | Decimal256(_, _)) || integer(data_type).is_some()
}

/// Whether values of the two types may be compared for equality as they are: of one type, or integers that are both signed or both not.
pub fn is_joinable(left: &DataType, right: &DataType) -> bool {
    match (integer(left), integer(right)) {
        (Some((left, _)), Some((right, _))) => left == right,
        _ => left == right && is_equal(left),
    }
}

/// The column that `expr` is, where it is one, perhaps widened to a type that holds all of its values in the same order.
pub fn column(expr: &Expr, schema: &DFSchema) -> Option<Column> {
    match expr {
        Expr::Column(column) => Some(column.clone()),
        Expr::Alias(alias) => column(&alias.expr, schema),
        Expr::Cast(Cast { expr, field }) => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            let own = schema.field_from_column(column).ok()?;
            widens(own.data_type(), field.data_type()).then(|| column.clone())
        }
        _ => None,
    }
}

/// Whether it is signed, and its bits.
fn integer(data_type: &DataType) -> Option<(bool, u8)> {
    Some(match data_type {
        DataType::Int8 => (true, 8),
        DataType::Int16 => (true, 16),
        DataType::Int32 => (true, 32),
        DataType::Int64 => (true, 64),
        DataType::UInt8 => (false, 8),
        DataType::UInt16 => (false, 16),
        DataType::UInt32 => (false, 32),
        DataType::UInt64 => (false, 64),
        _ => return None,
    })
}

fn compare(column: &Expr, op: Comparison, value: &Expr, schema: &Schema) -> Option<Filter> {
    use DataType::{Boolean, LargeUtf8, Utf8, Utf8View};
    let Expr::Literal(value, _) = value else { return None };
    let (column, data_type) = bare(column, schema)?;
    let comparable = match &data_type {
        Boolean | Utf8 | LargeUtf8 | Utf8View => op.is_equality(),
        other => is_ordered(other),
    };
    if !comparable || value.is_null() {
        return None;
    }
    Some(Filter::Compare { column, op, value: exactly(value, &data_type)? })
}

/// The value as one of this type, where it is the very same value.
fn exactly(value: &ScalarValue, to: &DataType) -> Option<ScalarValue> {
    use DataType::{Decimal128, Decimal256, LargeUtf8, Timestamp, Utf8, Utf8View};
    let from = value.data_type();
    let akin = match (&from, to) {
        _ if from == *to => return Some(value.clone()),
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => true,
        (Decimal128(..) | Decimal256(..), Decimal128(..) | Decimal256(..)) => true,
        // A zone says how an instant is shown; a timestamp without one is no instant.
        (Timestamp(_, zone), Timestamp(_, own)) => zone.is_some() == own.is_some(),
        (Decimal128(..) | Decimal256(..), to) => integer(to).is_some(),
        (from, Decimal128(..) | Decimal256(..)) => integer(from).is_some(),
        (from, to) => integer(from).is_some() && integer(to).is_some(),
    };
    if !akin {
        return None;
    }
    let cast = value.cast_to(to).ok().filter(|cast| !cast.is_null())?;
    // Rounding and wrapping show on the way back.
    let back = cast.cast_to(&from).ok()?;
    (back == *value).then_some(cast)
}

#[cfg(test)]
mod tests;
