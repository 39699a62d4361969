//! Does one expression hold by itself, where it stands? It is planned and typed over the columns that are in scope there, as DataFusion
//! would do with the whole query, so that what does not hold is the smallest part of the query that is wrong.

use std::collections::{HashMap, HashSet};

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        Column, DFSchema, DFSchemaRef, TableReference,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result as DfResult},
    logical_expr::{
        Expr, ExprSchemable, LogicalPlan, UNNAMED_TABLE,
        expr_rewriter::normalize_col_with_schemas_and_ambiguity_check,
        utils::{find_aggregate_exprs, find_window_exprs},
    },
    optimizer::analyzer::type_coercion::TypeCoercionRewriter,
    sql::{
        planner::{ParserOptions, PlannerContext, SqlToRel},
        sqlparser::ast::{self, Ident, Query, Statement},
    },
};

use super::{constants, names::Names};
use crate::params;

/// What can be named at a place in a query.
#[derive(Clone)]
pub struct Scope {
    /// The columns.
    pub schema: DFSchemaRef,
    /// Columns that a join made one.
    pub using: Vec<HashSet<Column>>,
    /// Queries around this one, and the names of its `with`.
    pub context: PlannerContext,
    /// Tables that go by another name here.
    pub renamed: HashMap<String, String>,
}

impl Scope {
    /// A place where no column can be named.
    pub fn empty(context: &PlannerContext) -> Self {
        Self::of(DFSchema::empty(), context)
    }

    /// A place where these columns can be named.
    pub fn of(schema: DFSchema, context: &PlannerContext) -> Self {
        Self { schema: schema.into(), using: Vec::new(), context: context.clone(), renamed: HashMap::new() }
    }

    /// The tables that columns are of, each once.
    pub fn qualifiers(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for schema in std::iter::once(&self.schema).chain(self.context.outer_schemas_iter()) {
            for (qualifier, _) in schema.iter() {
                if let Some(name) = qualifier.map(|qualifier| qualifier.table().to_owned())
                    && name != UNNAMED_TABLE
                    && !found.contains(&name)
                {
                    found.push(name);
                }
            }
        }
        found
    }

    /// The columns called so.
    pub fn named(&self, name: &str) -> Vec<Option<&TableReference>> {
        self.schema.iter().filter(|(_, field)| field.name() == name).map(|(qualifier, _)| qualifier).collect()
    }

    /// The names of a table's columns, or of all.
    pub fn columns(&self, table: Option<&str>) -> Vec<String> {
        let of = |qualifier: Option<&TableReference>| table.is_none_or(|table| qualifier.is_some_and(|of| of.table() == table));
        let mut found: Vec<String> = Vec::new();
        for (qualifier, field) in self.schema.iter() {
            if of(qualifier) && !field.name().starts_with("__weir_") && !found.contains(field.name()) {
                found.push(field.name().clone());
            }
        }
        found
    }
}

/// Why an expression does not hold.
#[derive(Debug)]
pub enum Fault {
    /// DataFusion does not plan or type it.
    Plan(DataFusionError),
    /// It aggregates where rows are looked at one by one.
    Aggregate,
    /// It looks at a window where rows are looked at one by one.
    Window,
    /// A constant in it has no value.
    Constant(DataFusionError),
    /// It compares values that are never equal.
    Unlike(DataType, DataType),
    /// It casts a value to a type that it cannot take.
    Cast(DataType, DataType),
    /// It compares a text with a number.
    Doubtful(DataType, DataType),
    /// A subquery in it has so many columns, not one.
    Columns(usize),
    /// It is of this type and must be true or false.
    NotBoolean(DataType),
    /// It is neither grouped nor aggregated.
    NotGrouped,
    /// It plans, and does not hold in its query.
    Whole(DataFusionError),
}

/// What may stand in an expression.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Anything.
    Any,
    /// No aggregates and no windows: it is asked row by row.
    Rows,
}

/// Plans parts of a query.
pub struct Judge<'a> {
    pub names: &'a Names<'a>,
    planner: SqlToRel<'a, Names<'a>>,
    /// Whether what is right and doubtful is a fault too.
    doubts: bool,
}

impl<'a> Judge<'a> {
    pub fn new(names: &'a Names<'a>, doubts: bool) -> Self {
        let options = ParserOptions::from(&names.state.config_options().sql_parser);
        Self { names, planner: SqlToRel::new_with_options(names, options), doubts }
    }

    /// A query's plan.
    pub fn plan(&self, query: &Query, context: &PlannerContext) -> DfResult<LogicalPlan> {
        let statement = Statement::Query(Box::new(query.clone()));
        let plan = self.planner.sql_statement_to_plan_with_context(statement, &mut context.clone())?;
        params::bind(self.names.state, plan)
    }

    /// A query's plan as far as types go.
    pub fn analyzed(&self, query: &Query, context: &PlannerContext) -> DfResult<LogicalPlan> {
        let plan = self.plan(query, context)?;
        self.names.state.analyzer().execute_and_check(plan, self.names.state.config_options(), |_, _| {})
    }

    /// An expression as planned, and its type.
    pub fn typed(&self, expr: &ast::Expr, scope: &Scope, rule: Rule) -> Result<(Expr, DataType), Fault> {
        let planned = self.planner.sql_to_expr(expr.clone(), &scope.schema, &mut scope.context.clone()).map_err(Fault::Plan)?;
        let planned =
            normalize_col_with_schemas_and_ambiguity_check(planned, &[&[scope.schema.as_ref()]], &scope.using).map_err(Fault::Plan)?;
        let planned = params::bind_expression(self.names.state, planned).map_err(Fault::Plan)?;
        if rule == Rule::Rows {
            if !find_aggregate_exprs([&planned]).is_empty() {
                return Err(Fault::Aggregate);
            }
            if !find_window_exprs([&planned]).is_empty() {
                return Err(Fault::Window);
            }
        }
        let (mut columns, mut unnests) = (None, false);
        let _ = planned.apply(|part| {
            let fields = match part {
                Expr::ScalarSubquery(subquery) => subquery.subquery.schema().fields().len(),
                Expr::InSubquery(of) => of.subquery.subquery.schema().fields().len(),
                Expr::Unnest(_) => {
                    unnests = true;
                    1
                }
                _ => 1,
            };
            if fields != 1 {
                columns.get_or_insert(fields);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        if let Some(columns) = columns {
            return Err(Fault::Columns(columns));
        }
        if unnests {
            return Ok((planned, DataType::Null));
        }
        if let Some((one, other)) = constants::unlike(&planned, &scope.schema) {
            return Err(Fault::Unlike(one, other));
        }
        if self.doubts
            && let Some((one, other)) = constants::text_beside_number(&planned, &scope.schema)
        {
            return Err(Fault::Doubtful(one, other));
        }
        let coerced = planned.clone().rewrite(&mut TypeCoercionRewriter::new(&scope.schema)).map_err(Fault::Plan)?.data;
        let kind = coerced.get_type(&scope.schema).map_err(Fault::Plan)?;
        if let Some((from, to)) = constants::uncastable(&coerced, &scope.schema) {
            return Err(Fault::Cast(from, to));
        }
        if let Some(error) = constants::without_value(&coerced, self.names.state.execution_props()) {
            return Err(Fault::Constant(error));
        }
        Ok((planned, kind))
    }
}

/// A name as DataFusion takes it: in lower case, unless in quotes.
pub fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}
