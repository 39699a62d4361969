//! Do two queries mean the same? Their logical plans say so: with columns known by where they come from rather than by name, names in
//! between are no difference, nor are layout, comments and the case of words. Where the plans as written differ, the optimized ones are
//! compared.

use std::{fmt::Write as _, sync::Arc};

use datafusion::{
    common::{
        Column, DFSchema, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::Result as DfResult,
    logical_expr::{Distinct, Expr, LogicalPlan, Projection, expr::Alias},
    prelude::SessionContext,
    sql::sqlparser::{dialect::GenericDialect, parser::Parser},
};
use weir_pipelines::{Operator, SourceFile, Transform};

use crate::{
    plan::{self, Dataflow},
    step::StepTable,
    transforms,
};

/// Whether a query of before would make of the same rows what it makes now. False where it can no longer be planned.
pub async fn same(before: &Transform, now: &Transform, flow: &Dataflow, file_before: &Arc<SourceFile>) -> bool {
    let alike = match (&before.operator, &now.operator) {
        (Operator::Sql(old), Operator::Sql(new)) => tidied(&old.text) == tidied(&new.text),
        (Operator::Filter(old), Operator::Filter(new)) => tidied_expression(&old.text) == tidied_expression(&new.text),
        _ => false,
    };
    if alike {
        return true;
    }
    let (Some(old), Some(new)) = (planned(before, flow, file_before).await, planned(now, flow, file_before).await) else { return false };
    if canonical(&old) == canonical(&new) {
        return true;
    }
    let state = plan::fork(&flow.session).state();
    match (state.optimize(&old), state.optimize(&new)) {
        (Ok(old), Ok(new)) => canonical(&old) == canonical(&new),
        _ => false,
    }
}

/// A transform's plan over the steps as they are now.
async fn planned(transform: &Transform, flow: &Dataflow, file: &Arc<SourceFile>) -> Option<LogicalPlan> {
    let session: SessionContext = plan::fork(&flow.session);
    for input in &transform.inputs {
        let found = flow.steps.iter().find(|planned| planned.step.name == input.value)?;
        let name = TableReference::bare(input.value.as_str());
        // The same table twice is the same table.
        let _ = session.register_table(name, Arc::new(StepTable::new(found.step.clone(), Arc::default())));
    }
    transforms::plan(&session, transform, file).await.ok().map(|planned| planned.plan)
}

/// A query as its parser understood it, on one line: without comments, and with words in one case.
pub fn tidied(sql: &str) -> String {
    match Parser::parse_sql(&GenericDialect {}, sql) {
        Ok(statements) => statements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        Err(_) => sql.trim().to_owned(),
    }
}

fn tidied_expression(sql: &str) -> String {
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(sql).and_then(|mut parser| parser.parse_expr());
    parsed.map_or_else(|_| sql.trim().to_owned(), |expression| expression.to_string())
}

/// A plan as a text that is equal for plans that differ in names in between alone.
pub fn canonical(plan: &LogicalPlan) -> String {
    let mut out = String::new();
    for field in plan.schema().fields() {
        let _ = write!(out, "{} {} {};", field.name(), field.data_type(), field.is_nullable());
    }
    whole(plan, &[], &mut out);
    out
}

/// The columns of a plan as those of what is really made below it: names, and an order given by a projection that computes nothing, are
/// seen through.
struct Space<'a> {
    schema: &'a DFSchema,
    /// For each column of the schema its place.
    places: Vec<usize>,
    /// How many places there are.
    len: usize,
}

impl<'a> Space<'a> {
    fn of(plan: &'a LogicalPlan) -> Self {
        let schema = plan.schema().as_ref();
        let own = || Space { schema, places: (0..schema.fields().len()).collect(), len: schema.fields().len() };
        match plan {
            LogicalPlan::SubqueryAlias(alias) => Space { schema, ..Space::of(&alias.input) },
            LogicalPlan::Subquery(query) => Space { schema, ..Space::of(&query.subquery) },
            LogicalPlan::Filter(filter) => Space { schema, ..Space::of(&filter.input) },
            LogicalPlan::Sort(sort) => Space { schema, ..Space::of(&sort.input) },
            LogicalPlan::Limit(limit) => Space { schema, ..Space::of(&limit.input) },
            LogicalPlan::Projection(projection) => match chosen(projection) {
                Some(columns) => {
                    let below = Space::of(&projection.input);
                    Space { schema, places: columns.into_iter().map(|at| below.places[at]).collect(), len: below.len }
                }
                None => own(),
            },
            LogicalPlan::Window(window) => {
                let mut below = Space::of(&window.input);
                below.places.extend((0..window.window_expr.len()).map(|at| below.len + at));
                Space { schema, places: below.places, len: below.len + window.window_expr.len() }
            }
            LogicalPlan::Join(join) => {
                let (left, right) = (Space::of(&join.left), Space::of(&join.right));
                let both = Space::beside(schema, left, &right);
                // Semi, anti and mark joins have another set of columns.
                if both.places.len() == schema.fields().len() { both } else { own() }
            }
            _ => own(),
        }
    }

    fn beside(schema: &'a DFSchema, left: Space<'_>, right: &Space<'_>) -> Self {
        let mut places = left.places;
        places.extend(right.places.iter().map(|place| left.len + place));
        Space { schema, places, len: left.len + right.len }
    }

    fn place(&self, column: &Column) -> Option<usize> {
        self.schema.maybe_index_of_column(column).and_then(|at| self.places.get(at).copied())
    }
}

/// The columns of its input that a projection gives, where it computes nothing.
fn chosen(projection: &Projection) -> Option<Vec<usize>> {
    let input = projection.input.schema();
    let column = |expression: &Expr| match expression {
        Expr::Column(column) => input.maybe_index_of_column(column),
        Expr::Alias(alias) => match alias.expr.as_ref() {
            Expr::Column(column) => input.maybe_index_of_column(column),
            _ => None,
        },
        _ => None,
    };
    projection.expr.iter().map(column).collect()
}

/// Writes a plan all of whose columns count, in their order.
fn whole(plan: &LogicalPlan, outer: &[&Space<'_>], out: &mut String) {
    let _ = write!(out, " {:?}", Space::of(plan).places);
    node(plan, outer, out);
}

/// Writes a node: its kind, what is its own, and its inputs. `outer` are the columns of the queries around it, the innermost last.
fn node(plan: &LogicalPlan, outer: &[&Space<'_>], out: &mut String) {
    let mut counts = false;
    match plan {
        // Names, and an order, of what is below.
        LogicalPlan::SubqueryAlias(alias) => return node(&alias.input, outer, out),
        LogicalPlan::Subquery(query) => return node(&query.subquery, outer, out),
        LogicalPlan::Projection(projection) if chosen(projection).is_some() => return node(&projection.input, outer, out),
        LogicalPlan::TableScan(scan) => {
            let columns: Vec<&String> = scan.projected_schema.fields().iter().map(|field| field.name()).collect();
            let _ = write!(out, "\nscan {} {columns:?} {:?}", scan.table_name.table(), scan.fetch);
            let own = Space::of(plan);
            scan.filters.iter().for_each(|filter| expression(filter, &own, outer, out));
        }
        LogicalPlan::Join(join) => {
            let _ = write!(out, "\njoin {:?} {:?}", join.join_type, join.null_equality);
            let (left, right) = (Space::of(&join.left), Space::of(&join.right));
            for (one, other) in &join.on {
                expression(one, &left, outer, out);
                expression(other, &right, outer, out);
            }
            if let (Some(filter), Ok(both)) = (&join.filter, join.left.schema().join(join.right.schema())) {
                expression(filter, &Space::beside(&both, left, &right), outer, out);
            }
        }
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_) => {
            let kind = plan.display().to_string();
            let _ = write!(out, "\n{}", kind.split(':').next().unwrap_or_default());
            if let LogicalPlan::Sort(sort) = plan {
                let _ = write!(out, " {:?}", sort.fetch);
                sort.expr.iter().for_each(|key| _ = write!(out, " {} {}", key.asc, key.nulls_first));
            }
            if let LogicalPlan::Aggregate(aggregate) = plan {
                let _ = write!(out, " {}", aggregate.group_expr.len());
            }
            if let Some(input) = plan.inputs().first() {
                let below = Space::of(input);
                plan.expressions().iter().for_each(|one| expression(one, &below, outer, out));
            }
        }
        LogicalPlan::Limit(limit) => {
            out.push_str("\nlimit");
            let below = Space::of(&limit.input);
            for one in [&limit.skip, &limit.fetch] {
                match one {
                    Some(one) => expression(one, &below, outer, out),
                    None => out.push_str(" none"),
                }
            }
        }
        LogicalPlan::Union(_) => {
            counts = true;
            out.push_str("\nunion");
            plan.schema().fields().iter().for_each(|field| _ = write!(out, " {}", field.data_type()));
        }
        LogicalPlan::Distinct(Distinct::All(_)) => {
            counts = true;
            out.push_str("\ndistinct");
        }
        LogicalPlan::Values(values) => {
            out.push_str("\nvalues");
            values.values.iter().for_each(|row| _ = write!(out, " {row:?}"));
        }
        LogicalPlan::EmptyRelation(empty) => _ = write!(out, "\nempty {}", empty.produce_one_row),
        // Nodes with names of their own: what they say of themselves is taken as it is. That may call equal queries different, never
        // the other way.
        other => {
            counts = true;
            let _ = write!(out, "\n{}", other.display());
        }
    }
    let inputs = plan.inputs();
    let _ = write!(out, " ({}", inputs.len());
    inputs.into_iter().for_each(|input| if counts { whole(input, outer, out) } else { node(input, outer, out) });
    out.push(')');
}

/// Writes an expression over the columns of `input`.
fn expression(expression: &Expr, input: &Space<'_>, outer: &[&Space<'_>], out: &mut String) {
    let mut queries: Vec<LogicalPlan> = Vec::new();
    let unnamed: DfResult<Transformed<Expr>> = expression.clone().transform_up(|one| {
        Ok(match one {
            Expr::Alias(Alias { expr, .. }) => Transformed::yes(*expr),
            other => Transformed::no(other),
        })
    });
    let replaced: DfResult<Transformed<Expr>> = unnamed.and_then(|unnamed| {
        unnamed.data.transform_down(|one| {
            Ok(match one {
                Expr::Column(column) => {
                    let name = input.place(&column).map_or_else(|| column.flat_name(), |at| format!("#{at}"));
                    Transformed::new(Expr::Column(Column::new_unqualified(name)), true, TreeNodeRecursion::Jump)
                }
                Expr::OuterReferenceColumn(field, column) => {
                    let found = outer.iter().rev().enumerate().find_map(|(up, space)| Some((up, space.place(&column)?)));
                    let name = found.map_or_else(|| column.flat_name(), |(up, at)| format!("#{up}.{at}"));
                    Transformed::new(Expr::OuterReferenceColumn(field, Column::new_unqualified(name)), true, TreeNodeRecursion::Jump)
                }
                other => {
                    match &other {
                        Expr::ScalarSubquery(query) => queries.push(query.subquery.as_ref().clone()),
                        Expr::Exists(exists) => queries.push(exists.subquery.subquery.as_ref().clone()),
                        Expr::InSubquery(within) => queries.push(within.subquery.subquery.as_ref().clone()),
                        Expr::SetComparison(comparison) => queries.push(comparison.subquery.subquery.as_ref().clone()),
                        _ => {}
                    }
                    Transformed::no(other)
                }
            })
        })
    });
    let _ = match replaced {
        Ok(replaced) => write!(out, " [{:?}]", replaced.data),
        Err(_) => write!(out, " [{expression:?}]"),
    };
    let within: Vec<&Space<'_>> = outer.iter().copied().chain([input]).collect();
    queries.iter().for_each(|query| whole(query, &within, out));
}

#[cfg(test)]
#[path = "meaning_tests.rs"]
mod tests;
