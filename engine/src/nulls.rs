//! Which columns of a query hold no null, whatever their types say? Those that a filter or a join lets no null through, and what is made of
//! such columns alone. What contracts make sure of is `proof.rs`'s.

use std::collections::BTreeSet;

use datafusion::{
    common::{Column, DFSchema, NullEquality},
    logical_expr::{Distinct, Expr, ExprSchemable, JoinType, LogicalPlan, Operator},
};

use crate::plan::PlannedStep;

/// Functions whose outcome is null only where an argument is.
const STRICT: &[&str] =
    &["abs", "btrim", "ceil", "date_part", "date_trunc", "floor", "lower", "ltrim", "md5", "replace", "round", "rtrim", "substr", "upper"];

/// The columns of a query over steps that hold no null though their types allow it.
pub fn filled(plan: &LogicalPlan, steps: &[PlannedStep]) -> BTreeSet<String> {
    let held = |table: &str, column: &str| {
        let step = steps.iter().find(|step| step.step.name == table);
        step.is_some_and(|step| step.filled.contains(column) || step.known.never_null(column))
    };
    let proof = Proof { held: &held };
    let fields = plan.schema().fields().iter().enumerate();
    fields.filter(|(at, field)| field.is_nullable() && proof.column(plan, *at)).map(|(_, field)| field.name().clone()).collect()
}

struct Proof<'a> {
    /// Whether a column of a table holds no null, beyond its type.
    held: &'a dyn Fn(&str, &str) -> bool,
}

impl Proof<'_> {
    /// Whether a column of a plan, by its place, holds no null.
    fn column(&self, plan: &LogicalPlan, at: usize) -> bool {
        let Some(field) = plan.schema().fields().get(at) else { return false };
        if !field.is_nullable() {
            return true;
        }
        match plan {
            LogicalPlan::TableScan(scan) => (self.held)(scan.table_name.table(), field.name()),
            LogicalPlan::Projection(projection) => self.listed(&projection.expr, at, &projection.input),
            LogicalPlan::Aggregate(aggregate) => {
                // Grouping sets leave columns out, row by row.
                let sets = aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
                !sets && self.listed(&aggregate.group_expr, at, &aggregate.input)
            }
            LogicalPlan::Filter(filter) => lets_no_null(&filter.predicate, filter.input.schema(), at) || self.column(&filter.input, at),
            LogicalPlan::SubqueryAlias(alias) => self.column(&alias.input, at),
            LogicalPlan::Subquery(subquery) => self.column(&subquery.subquery, at),
            LogicalPlan::Sort(sort) => self.column(&sort.input, at),
            LogicalPlan::Limit(limit) => self.column(&limit.input, at),
            LogicalPlan::Repartition(repartition) => self.column(&repartition.input, at),
            LogicalPlan::Distinct(Distinct::All(input)) => self.column(input, at),
            LogicalPlan::Distinct(Distinct::On(on)) => self.listed(&on.select_expr, at, &on.input),
            LogicalPlan::Window(window) => at < window.input.schema().fields().len() && self.column(&window.input, at),
            LogicalPlan::Union(union) => union.inputs.iter().all(|input| self.column(input, at)),
            LogicalPlan::Join(join) => {
                let left = join.left.schema().fields().len();
                let (side, inner, below) = match join.join_type {
                    JoinType::LeftSemi | JoinType::LeftAnti => (&join.left, at, true),
                    JoinType::RightSemi | JoinType::RightAnti => (&join.right, at, true),
                    JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                        let is_left = at < left;
                        // A row without a partner has nulls on the other side.
                        let stays = match join.join_type {
                            JoinType::Inner => true,
                            JoinType::Left => is_left,
                            JoinType::Right => !is_left,
                            _ => false,
                        };
                        (if is_left { &join.left } else { &join.right }, if is_left { at } else { at - left }, stays)
                    }
                    _ => return false,
                };
                // Where both partners have to be there, nothing equals a null.
                let meets = matches!(join.join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi);
                let equal = join.null_equality == NullEquality::NullEqualsNothing
                    && join.on.iter().any(|(a, b)| [a, b].into_iter().any(|key| is_column(key, side.schema(), inner)));
                let filtered = join.filter.as_ref().is_some_and(|filter| lets_no_null(filter, join.schema.as_ref(), at));
                (meets && equal) || (join.join_type == JoinType::Inner && filtered) || (below && self.column(side, inner))
            }
            _ => false,
        }
    }

    fn listed(&self, exprs: &[Expr], at: usize, input: &LogicalPlan) -> bool {
        exprs.get(at).is_some_and(|expr| self.expression(expr, input))
    }

    fn expression(&self, expr: &Expr, input: &LogicalPlan) -> bool {
        match expr {
            Expr::Alias(alias) => self.expression(&alias.expr, input),
            Expr::Column(column) => input.schema().index_of_column(column).is_ok_and(|at| self.column(input, at)),
            Expr::Cast(cast) => self.expression(&cast.expr, input),
            Expr::Negative(inner) | Expr::Not(inner) => self.expression(inner, input),
            Expr::BinaryExpr(binary) => self.expression(&binary.left, input) && self.expression(&binary.right, input),
            Expr::ScalarFunction(call) if call.name() == "coalesce" => call.args.iter().any(|value| self.expression(value, input)),
            Expr::ScalarFunction(call) if STRICT.contains(&call.name()) => call.args.iter().all(|value| self.expression(value, input)),
            other => other.nullable(input.schema().as_ref()).is_ok_and(|nullable| !nullable),
        }
    }
}

/// Whether a condition is never true of a row that has a null in the column at this place.
fn lets_no_null(condition: &Expr, schema: &DFSchema, at: usize) -> bool {
    let is_it = |expr: &Expr| is_column(expr, schema, at);
    match condition {
        Expr::Alias(alias) => lets_no_null(&alias.expr, schema, at),
        Expr::IsNotNull(inner) => is_it(inner),
        Expr::Not(inner) => matches!(inner.as_ref(), Expr::IsNull(inner) if is_it(inner)),
        Expr::Between(between) => is_it(&between.expr),
        Expr::InList(list) => is_it(&list.expr),
        // Of no rows at all, even a null is no member.
        Expr::InSubquery(query) => !query.negated && is_it(&query.expr),
        Expr::Like(like) | Expr::SimilarTo(like) => is_it(&like.expr),
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::And => lets_no_null(&binary.left, schema, at) || lets_no_null(&binary.right, schema, at),
            Operator::Or => lets_no_null(&binary.left, schema, at) && lets_no_null(&binary.right, schema, at),
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                is_it(&binary.left) || is_it(&binary.right)
            }
            _ => false,
        },
        _ => false,
    }
}

/// Whether an expression is a column, or something that is null wherever it is.
fn is_column(expr: &Expr, schema: &DFSchema, at: usize) -> bool {
    let here = |column: &Column| schema.index_of_column(column).is_ok_and(|found| found == at);
    match expr {
        Expr::Column(column) => here(column),
        Expr::Alias(alias) => is_column(&alias.expr, schema, at),
        Expr::Cast(cast) => is_column(&cast.expr, schema, at),
        Expr::ScalarFunction(call) if STRICT.contains(&call.name()) => call.args.iter().any(|value| is_column(value, schema, at)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::{datasource::empty::EmptyTable, prelude::SessionContext};

    use super::*;

    /// The columns that hold no null: all of `a` and `b` may, but for `a.n`.
    async fn held(sql: &str) -> String {
        let session = SessionContext::new();
        for table in ["a", "b"] {
            let fields = ["id", "x", "n"].map(|name| Field::new(name, DataType::Int64, true));
            let text = Field::new("t", DataType::Utf8, true);
            let schema = Schema::new(fields.into_iter().chain([text]).collect::<Vec<_>>());
            session.register_table(table, Arc::new(EmptyTable::new(Arc::new(schema)))).expect("a table");
        }
        let (state, plan) = session.sql(sql).await.expect("is planned").into_parts();
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).expect("is right");
        let proof = Proof { held: &|table, column| (table, column) == ("a", "n") };
        let fields = plan.schema().fields().iter().enumerate();
        let held = fields.filter(|(at, _)| proof.column(&plan, *at)).map(|(_, field)| field.name().clone());
        held.collect::<Vec<_>>().join(" ")
    }

    #[tokio::test]
    async fn a_null_is_followed_to_where_it_could_come_from() {
        for (sql, expected) in [
            ("select id, n, n + 1 as m, n + x as o from a", "n m"),
            ("select n from b", ""),
            ("select id, x from a where id is not null", "id"),
            ("select id, x from a where not (id is null) and x > 3", "id x"),
            ("select id, x from a where id is not null or x > 3", ""),
            ("select id, x from a where id = 1 or id = 2", "id"),
            ("select id from a where id in (1, 2)", "id"),
            ("select id from a where id not in (1, 2)", "id"),
            ("select id from a where id between 1 and 2", "id"),
            ("select id, t from a where lower(t) like 'a%'", "t"),
            ("select id, t from a where lower(t) = 'a'", "t"),
            ("select id from a where id is distinct from 1", ""),
            ("select id from a where coalesce(id, 1) = 1", ""),
            ("select coalesce(id, 0) as id, coalesce(id, x) as x, coalesce(x, n) as n from a", "id n"),
            ("select upper(trim(t)) as t from a where t is not null", "t"),
            ("select cast(id as text) as id, try_cast(t as bigint) as t from a where id is not null and t is not null", "id"),
            ("select nullif(n, 1) as id, case when n > 1 then n end as x from a", ""),
            ("select a.id, b.x from a join b on a.id = b.id", "id"),
            ("select a.id, b.id as i from a left join b on a.id = b.id", ""),
            ("select a.n, b.n as m from a left join b on a.id = b.id", "n"),
            ("select a.n from a right join b on a.id = b.id", ""),
            ("select a.id from a, b where a.id = b.id", "id"),
            ("select id, x from a where x in (select x from b)", "x"),
            ("select x, count(*) as c, sum(n) as s from a where x is not null group by x", "x c"),
            ("select x, id from a where x is not null group by rollup (x, id)", ""),
            ("select n from a union all select n from b", ""),
            ("select n from a union all select n from b where n is not null", "n"),
            ("select distinct id from (select n as id from a order by 1 limit 3) as q", "id"),
            ("select id, row_number() over (order by id) as r from a where id > 0", "id r"),
            ("with c as (select id from a where id is not null) select id from c", "id"),
        ] {
            assert_eq!(held(sql).await, expected, "{sql}");
        }
    }
}
