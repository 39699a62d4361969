//! What is certain about a step's contract before the run: which columns come unchanged from earlier steps, so that what these made sure of
//! holds still, and what is said of a contract that no row can satisfy. The reasoning itself is `weir_schemas::prove`'s.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::logical_expr::{Distinct, Expr, JoinType, LogicalPlan};
use weir_pipelines::{Diagnostic, Diagnostics, SourceFile, Span};
use weir_schemas::{
    Contract,
    prove::{Held, Known, Never, Why},
};

use crate::{plan::PlannedStep, transforms::listed};

/// A contract and where it is written.
#[derive(Debug)]
pub struct Written {
    /// The contract, compiled.
    pub contract: Contract,
    /// Its text.
    pub file: Arc<SourceFile>,
    /// Where the pipeline names it.
    pub named: Span,
}

/// A step's contract, less what can never fail.
#[derive(Debug)]
pub struct StepContract {
    /// What is left to be checked.
    pub contract: Arc<Contract>,
    /// Its text.
    pub file: Arc<SourceFile>,
    /// How many rules it has.
    pub rules: usize,
    /// Those that are not executed, since they can never fail.
    pub held: Vec<Held>,
    /// What is worth a word though it is no error.
    pub doubts: Diagnostics,
}

impl Written {
    /// Proves what can be proved for a step of these columns. Fails where no row can satisfy the contract.
    pub fn prove(
        mut self,
        step: &str,
        columns: &Schema,
        known: &Known,
        pipeline: &Arc<SourceFile>,
    ) -> Result<(StepContract, Known), Diagnostics> {
        let proof = self.contract.prove(step, columns, known);
        if !proof.never.is_empty() {
            return Err(proof.never.iter().map(|never| self.never(never, step, columns, pipeline)).collect());
        }
        let doubts = proof.hollow.iter().map(|hollow| self.hollow(hollow, step, pipeline)).collect();
        let Self { contract, file, .. } = self;
        Ok((StepContract { contract: Arc::new(contract), file, rules: proof.rules, held: proof.held, doubts }, proof.known))
    }

    fn never(&self, never: &Never, step: &str, columns: &Schema, pipeline: &Arc<SourceFile>) -> Diagnostic {
        let names: Vec<String> = columns.fields().iter().map(|field| field.name().clone()).collect();
        let why = match &never.why {
            Why::Lacks(column) if names.contains(column) => format!("it requires \"{column}\", which is always null"),
            Why::Lacks(column) => format!("it requires \"{column}\", and there is no such column"),
            Why::Extra(column) => format!("it allows no column \"{column}\""),
            Why::Value(column, data_type) => self.no_value(never, column, &data_type.to_string()),
            Why::Contradiction(column) => format!("its rules for \"{column}\" contradict one another"),
            Why::Rule if never.rule.is_empty() => "its rules contradict one another".to_owned(),
            Why::Rule => format!("{} never holds", self.quoted(&never.rule)),
        };
        let label = match &never.why {
            Why::Lacks(_) => "required here",
            Why::Extra(_) => "no other columns",
            Why::Contradiction(_) => "these rules",
            Why::Value(..) | Why::Rule => "never holds",
        };
        let message = format!("no row of step \"{step}\" can satisfy its contract: {why}");
        let diagnostic = self.pointing(Diagnostic::error("contract-never", message), never, label, pipeline);
        match &never.why {
            Why::Lacks(column) if !names.contains(column) => {
                diagnostic.did_you_mean(column, names.iter().map(String::as_str)).help(format!("columns are: {}", listed(&names)))
            }
            Why::Extra(column) => diagnostic.help(format!("add \"{column}\" to its \"properties\", or leave the column out of the step")),
            _ => diagnostic,
        }
    }

    fn hollow(&self, hollow: &Never, step: &str, pipeline: &Arc<SourceFile>) -> Diagnostic {
        let what = match &hollow.why {
            Why::Value(column, data_type) => self.no_value(hollow, column, &data_type.to_string()),
            Why::Contradiction(column) => format!("the rules for \"{column}\" contradict one another"),
            _ => format!("{} never holds", self.quoted(&hollow.rule)),
        };
        let message = format!("in step \"{step}\" {what}: only rows without one satisfy its contract");
        self.pointing(Diagnostic::warning("contract-nulls-only", message), hollow, "never holds", pipeline)
    }

    fn no_value(&self, never: &Never, column: &str, data_type: &str) -> String {
        let after = match never.by.as_slice() {
            [] => String::new(),
            by => format!(" that {} lets through", steps(by)),
        };
        format!("no value of \"{column}\" ({data_type}){after} satisfies {}", self.quoted(&never.rule))
    }

    fn pointing(&self, diagnostic: Diagnostic, never: &Never, label: &str, pipeline: &Arc<SourceFile>) -> Diagnostic {
        diagnostic.at(&self.file, self.contract.span(&never.rule), label).at(pipeline, self.named.clone(), "the contract")
    }

    /// A rule as it is written, cut where it grows long.
    fn quoted(&self, rule: &str) -> String {
        const CHARS_MAX: usize = 60;
        let text = self.file.text.get(self.contract.span(rule)).unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// Steps in a sentence.
fn steps(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!("{} {}", if names.len() == 1 { "step" } else { "steps" }, quoted.join(" and "))
}

/// What earlier steps have made sure of in the rows of a plan over them.
pub fn inherited(plan: &LogicalPlan, steps: &[PlannedStep]) -> Known {
    let mut known = Known::default();
    for (at, field) in plan.schema().fields().iter().enumerate() {
        let Some(origin) = origin(plan, at) else { continue };
        let from: Option<Vec<(&Known, &str)>> = origin
            .columns
            .iter()
            .map(|(table, column)| Some((&steps.iter().find(|step| step.step.name == *table)?.known, column.as_str())))
            .collect();
        if let Some(from) = from {
            known.inherit(field.name(), &from, origin.nullable);
        }
    }
    known
}

/// Where the values of a column come from, unchanged: one column, or those that a union brings together.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    /// Table and column.
    columns: Vec<(String, String)>,
    /// Rows without a partner in an outer join have a null there.
    nullable: bool,
}

/// Follows one column of a plan down to the tables.
fn origin(plan: &LogicalPlan, at: usize) -> Option<Origin> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let column = scan.projected_schema.fields().get(at)?.name().clone();
            Some(Origin { columns: vec![(scan.table_name.table().to_owned(), column)], nullable: false })
        }
        LogicalPlan::Projection(projection) => through(&projection.expr, at, &projection.input),
        LogicalPlan::Aggregate(aggregate) => {
            // Grouping sets leave columns out, row by row.
            let sets = aggregate.group_expr.iter().any(|expression| matches!(expression, Expr::GroupingSet(_)));
            if sets { None } else { through(&aggregate.group_expr, at, &aggregate.input) }
        }
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, at),
        LogicalPlan::Subquery(subquery) => origin(&subquery.subquery, at),
        LogicalPlan::Filter(filter) => origin(&filter.input, at),
        LogicalPlan::Sort(sort) => origin(&sort.input, at),
        LogicalPlan::Limit(limit) => origin(&limit.input, at),
        LogicalPlan::Repartition(repartition) => origin(&repartition.input, at),
        LogicalPlan::Distinct(Distinct::All(input)) => origin(input, at),
        LogicalPlan::Distinct(Distinct::On(on)) => through(&on.select_expr, at, &on.input),
        // What a window computes stands behind the columns it is computed from.
        LogicalPlan::Window(window) if at < window.input.schema().fields().len() => origin(&window.input, at),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            let (side, at, nullable) = match join.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti => (&join.left, at, false),
                JoinType::RightSemi | JoinType::RightAnti => (&join.right, at, false),
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full if at < left => {
                    (&join.left, at, matches!(join.join_type, JoinType::Right | JoinType::Full))
                }
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                    (&join.right, at - left, matches!(join.join_type, JoinType::Left | JoinType::Full))
                }
                _ => return None,
            };
            let origin = origin(side, at)?;
            Some(Origin { nullable: origin.nullable || nullable, ..origin })
        }
        LogicalPlan::Union(union) => {
            let mut all = Origin { columns: Vec::new(), nullable: false };
            for input in &union.inputs {
                let origin = origin(input, at)?;
                all.columns.extend(origin.columns);
                all.nullable |= origin.nullable;
            }
            Some(all)
        }
        _ => None,
    }
}

/// Goes through an expression that is a plain column, under whatever name.
fn through(expressions: &[Expr], at: usize, input: &LogicalPlan) -> Option<Origin> {
    let mut expression = expressions.get(at)?;
    while let Expr::Alias(alias) = expression {
        expression = &alias.expr;
    }
    let Expr::Column(column) = expression else { return None };
    origin(input, input.schema().index_of_column(column).ok()?)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::{datasource::empty::EmptyTable, prelude::SessionContext};

    use super::*;

    async fn origins(sql: &str) -> Vec<String> {
        let session = SessionContext::new();
        for table in ["a", "b"] {
            let fields = ["id", "x", "y"].map(|name| Field::new(name, DataType::Int64, true));
            session.register_table(table, Arc::new(EmptyTable::new(Arc::new(Schema::new(fields.to_vec()))))).expect("a table");
        }
        let (state, plan) = session.sql(sql).await.expect("is planned").into_parts();
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).expect("is right");
        let words = |origin: Origin| {
            let columns: Vec<String> = origin.columns.iter().map(|(table, column)| format!("{table}.{column}")).collect();
            format!("{}{}", columns.join("|"), if origin.nullable { "?" } else { "" })
        };
        (0..plan.schema().fields().len()).map(|at| origin(&plan, at).map_or("-".to_owned(), words)).collect()
    }

    #[tokio::test]
    async fn a_column_is_followed_to_where_it_comes_from() {
        for (sql, expected) in [
            ("select id, x as z, x + 1, cast(y as text), coalesce(x, 0) from a", "a.id a.x - - -"),
            ("select * from a where x > 1 order by y limit 3", "a.id a.x a.y"),
            ("select a.id, b.x from a join b on a.id = b.id", "a.id b.x"),
            ("select a.id, b.x from a left join b on a.id = b.id", "a.id b.x?"),
            ("select a.id, b.x from a right join b on a.id = b.id", "a.id? b.x"),
            ("select a.id, b.x from a full join b on a.id = b.id", "a.id? b.x?"),
            ("select id, x from a join b using (id, x)", "a.id a.x"),
            // It takes the left one, and no `coalesce`.
            ("select id from a full join b using (id)", "a.id?"),
            ("select id from a where x in (select x from b)", "a.id"),
            ("select x, count(*), max(y) from a group by x", "a.x - -"),
            ("select x, y, count(*) from a group by rollup (x, y)", "- - -"),
            ("select id, row_number() over (partition by x order by y) from a", "a.id -"),
            ("select id, x from a union all select x, y from b", "a.id|b.x a.x|b.y"),
            ("select id, x from a union all select id, 1 from b", "a.id|b.id -"),
            ("select distinct x from (select y as x from a) as b", "a.y"),
            ("select distinct on (x) y, x from a", "a.y a.x"),
            ("with a as (select x as id from b) select id from a", "b.x"),
            ("with recursive a as (select id from b union all select id from a) select id from a", "-"),
            ("select (select max(x) from b) as x, y from a", "- a.y"),
        ] {
            assert_eq!(origins(sql).await.join(" "), expected, "{sql}");
        }
    }
}
