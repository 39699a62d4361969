//! Which forms of SQL that clients of Postgres ask `pg_catalog` in has DataFusion not, and what means the same? What
//! `datafusion-pg-catalog`'s parser leaves of them.
//!
//! - `array(select x …)` is `(select array_agg(x) …)`.
//! - A subquery that gives one value is `max` of it: the value itself, and DataFusion can join it.
//! - A subquery of a table that is empty here gives null; so do the elements of an array of one, before they are counted.
//! - `$1::regclass` is `to_regclass($1)`.
//! - `typinput = 'array_in'::regproc`, whose right side the parser has made a look-up of a number, compares names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    GroupByExpr, Ident, ObjectName, Query, SelectItem, SetExpr, Statement, TableFactor, Value, VisitMut, VisitorMut,
};

use super::tables::EMPTY;

/// Turns a statement into one that means the same.
pub(super) fn adapt(statement: &mut Statement) {
    let _ = statement.visit(&mut Adapt);
}

struct Adapt;

impl VisitorMut for Adapt {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut()
            && select.from.iter().any(|from| is_empty(&from.relation) || from.joins.iter().any(|join| is_empty(&join.relation)))
        {
            for item in &mut select.projection {
                let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
                if is_call(expr, "unnest") || is_call(expr, "generate_subscripts") {
                    *expr = number_null();
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if takes_keys_apart(expr) {
            *expr = places_null();
        }
        compare_function_names(expr);
        // Not one value, but any of several.
        if let Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } = expr
            && let Expr::Subquery(query) = right.as_ref()
        {
            *expr = Expr::InSubquery { expr: left.clone(), subquery: query.clone(), negated: false };
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let changed = match &*expr {
            Expr::Function(function) => match &function.args {
                FunctionArguments::Subquery(query) if takes_options_apart(query) => Some(Expr::Value(Value::Null.into())),
                FunctionArguments::Subquery(query) if function.name.to_string().eq_ignore_ascii_case("array") => {
                    gathered(query, "array_agg")
                }
                _ => None,
            },
            // `(f(x)).n`, a field of what is no column.
            Expr::CompoundFieldAccess { root, access_chain } => match &access_chain[..] {
                [AccessExpr::Dot(Expr::Identifier(field))] if matches!(root.as_ref(), Expr::Nested(_) | Expr::Function(_)) => {
                    let name = Expr::Value(Value::SingleQuotedString(field.value.clone()).into());
                    Some(called("get_field", vec![root.as_ref().clone(), name]))
                }
                _ => None,
            },
            Expr::Subquery(query) if gives_nothing(query) => Some(Expr::Value(Value::Null.into())),
            Expr::Subquery(query) => gathered(query, "max"),
            Expr::Cast { kind: CastKind::DoubleColon | CastKind::Cast, expr: inner, data_type, .. } if is_regclass(data_type) => {
                match inner.as_ref() {
                    Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => Some(call("to_regclass", inner.as_ref().clone())),
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(changed) = changed {
            *expr = changed;
        }
        ControlFlow::Continue(())
    }
}

fn is_ungrouped(group_by: &GroupByExpr) -> bool {
    matches!(group_by, GroupByExpr::Expressions(columns, _) if columns.is_empty())
}

fn is_regclass(kind: &DataType) -> bool {
    match kind {
        DataType::Regclass => true,
        DataType::Custom(name, _) => name.to_string().to_ascii_lowercase().ends_with("regclass"),
        _ => false,
    }
}

fn is_empty(table: &TableFactor) -> bool {
    match table {
        TableFactor::Table { name, .. } => {
            let name = name.to_string().to_ascii_lowercase();
            EMPTY.contains(&name.strip_prefix("pg_catalog.").unwrap_or(&name))
        }
        _ => false,
    }
}

fn is_call(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case(name))
}

/// `_pg_expandarray(i.indkey)`: numbers and their places, of a table that is empty here.
fn takes_keys_apart(expr: &Expr) -> bool {
    let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = expr else { return false };
    let of_keys = match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(column)))] => KEYS.contains(&column.value.as_str()),
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(path)))] => {
            path.last().is_some_and(|column| KEYS.contains(&column.value.as_str()))
        }
        _ => false,
    };
    of_keys && (is_call(expr, "_pg_expandarray") || is_call(expr, "information_schema._pg_expandarray"))
}

/// Columns of keys in tables that are empty here.
const KEYS: [&str; 3] = ["indkey", "conkey", "confkey"];

/// Columns of `pg_type` that say which function does something: they hold its name.
const FUNCTIONS: [&str; 7] = ["typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze"];

fn compare_function_names(expr: &mut Expr) {
    let Expr::BinaryOp { left, op: BinaryOperator::Eq | BinaryOperator::NotEq, right } = expr else { return };
    let is_function = |side: &Expr| match side {
        Expr::Identifier(column) => FUNCTIONS.contains(&column.value.as_str()),
        Expr::CompoundIdentifier(path) => path.last().is_some_and(|column| FUNCTIONS.contains(&column.value.as_str())),
        _ => false,
    };
    let other = if is_function(left) {
        right
    } else if is_function(right) {
        left
    } else {
        return;
    };
    if let Expr::Subquery(query) = other.as_ref()
        && let Some(name) = function_looked_up(query)
    {
        **other = Expr::Value(Value::SingleQuotedString(name).into());
    }
}

/// The name of `SELECT oid FROM pg_catalog.pg_proc WHERE proname = 'name'`, without its schema.
fn function_looked_up(query: &Query) -> Option<String> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let Some(Expr::BinaryOp { left, op: BinaryOperator::Eq, right }) = &select.selection else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Identifier(column), Expr::Value(value)) if column.value == "proname" => match &value.value {
            Value::SingleQuotedString(name) => Some(name.strip_prefix("pg_catalog.").unwrap_or(name).to_owned()),
            _ => None,
        },
        _ => None,
    }
}

fn number_null() -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(Value::Null.into())),
        data_type: DataType::Int(None),
        array: false,
        format: None,
    }
}

/// A record of two numbers that are not there.
fn places_null() -> Expr {
    let name = |text: &str| Expr::Value(Value::SingleQuotedString(text.to_owned()).into());
    called("named_struct", vec![name("x"), number_null(), name("n"), number_null()])
}

fn call(name: &str, argument: Expr) -> Expr {
    called(name, vec![argument])
}

fn called(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// `select … from unnest(c.reloptions)`: no table here has options, and DataFusion joins no function to a row.
fn takes_options_apart(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let text = |table: &TableFactor| table.to_string().to_ascii_lowercase();
    select.from.iter().any(|from| text(&from.relation).contains("unnest(") && text(&from.relation).contains("reloptions"))
}

/// A subquery that has no row, whose value therefore is null: a number of rows would be 0.
fn gives_nothing(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let counts = select.projection.iter().any(|item| item.to_string().to_ascii_lowercase().contains("count("));
    !counts && is_ungrouped(&select.group_by) && select.from.iter().any(|from| is_empty(&from.relation))
}

/// The subquery with its one column gathered into one row. None where it has several, or gathers already.
fn gathered(query: &Query, by: &str) -> Option<Expr> {
    let mut query = query.clone();
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] = select.projection.as_slice() else { return None };
    let gathers = ["array_agg", "string_agg", "count", "max", "min", "sum", "bool_and", "bool_or", "avg"];
    let text = item.to_string().to_ascii_lowercase();
    if !is_ungrouped(&select.group_by) || gathers.iter().any(|name| text.contains(&format!("{name}("))) {
        return None;
    }
    let is_from_a_table = !select.from.is_empty();
    if !is_from_a_table {
        return None;
    }
    select.projection = vec![SelectItem::UnnamedExpr(call(by, item.clone()))];
    // One row has no order.
    query.order_by = None;
    Some(Expr::Subquery(Box::new(query)))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    use super::*;

    fn adapted(sql: &str) -> String {
        let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).expect("SQL").remove(0);
        adapt(&mut statement);
        statement.to_string()
    }

    #[test]
    fn what_datafusion_has_not_is_said_otherwise() {
        for (sql, expected) in [
            (
                "SELECT array(SELECT b.n FROM pg_roles AS b WHERE b.oid = r.oid ORDER BY 1) FROM pg_roles AS r",
                "SELECT (SELECT array_agg(b.n) FROM pg_roles AS b WHERE b.oid = r.oid) FROM pg_roles AS r",
            ),
            (
                "SELECT CASE WHEN a.x THEN (SELECT t.c FROM pg_type AS t WHERE t.oid = a.t) ELSE NULL END FROM pg_attribute AS a",
                "SELECT CASE WHEN a.x THEN (SELECT max(t.c) FROM pg_type AS t WHERE t.oid = a.t) ELSE NULL END FROM pg_attribute AS a",
            ),
            (
                "SELECT (SELECT d.x FROM pg_catalog.pg_attrdef AS d WHERE d.y = a.y) FROM pg_attribute AS a",
                "SELECT NULL FROM pg_attribute AS a",
            ),
            (
                "SELECT unnest(i.indkey) AS k, generate_subscripts(i.indkey, 1) AS o FROM pg_catalog.pg_index AS i",
                "SELECT CAST(NULL AS INT) AS k, CAST(NULL AS INT) AS o FROM pg_catalog.pg_index AS i",
            ),
            ("SELECT array(SELECT 'toast.' || x FROM unnest(tc.reloptions) AS x) FROM pg_class AS tc", "SELECT NULL FROM pg_class AS tc"),
            (
                "SELECT _pg_expandarray(i.indkey) AS keys FROM pg_class AS c JOIN pg_index AS i ON i.indrelid = c.oid",
                "SELECT named_struct('x', CAST(NULL AS INT), 'n', CAST(NULL AS INT)) AS keys FROM pg_class AS c JOIN pg_index AS i ON i.indrelid = c.oid",
            ),
            ("SELECT CAST($1 AS REGCLASS), $2::pg_catalog.regclass", "SELECT to_regclass($1), to_regclass($2)"),
            (
                "SELECT r.n = ANY((SELECT b.n FROM pg_roles AS b)) FROM pg_roles AS r",
                "SELECT r.n IN (SELECT b.n FROM pg_roles AS b) FROM pg_roles AS r",
            ),
            ("SELECT (SELECT count(*) FROM pg_index)", "SELECT (SELECT count(*) FROM pg_index)"),
            (
                "SELECT t.typinput = (SELECT oid FROM pg_catalog.pg_proc WHERE proname = 'pg_catalog.array_in') FROM pg_type AS t",
                "SELECT t.typinput = 'array_in' FROM pg_type AS t",
            ),
        ] {
            assert_eq!(adapted(sql), expected);
        }
    }
}
