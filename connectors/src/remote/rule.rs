//! Which parts of a plan one system answers at once: a rule of the optimizer that makes a join, a group or a sort with a limit over tables
//! of one connection one table, from the leaves up. What may be sent at all is `render`'s to say.

use std::{collections::HashSet, sync::Arc};

use arrow::datatypes::{Field, Schema};
use datafusion::{
    catalog::default_table_source::{provider_as_source, source_as_provider},
    common::{Column, DFSchema, JoinType, NullEquality, TableReference, tree_node::Transformed},
    error::Result as DataFusionResult,
    functions_aggregate::{
        count::count_udaf,
        min_max::{max_udaf, min_udaf},
        sum::sum_udaf,
    },
    logical_expr::{
        Aggregate, Expr, Join, LogicalPlan, Projection, Sort, TableScan,
        expr::{AggregateFunction, AggregateFunctionParams},
        logical_plan::TableScanBuilder,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

use super::{
    Dialect,
    query::{Function, JoinKind, Order, Query},
    table::RemoteTable,
};
use crate::{BROWSED, browse::ListedKind, pushdown};

/// The rule. It stands last, after filters and projections have found their tables.
#[derive(Debug, Default)]
pub struct PushDown;

impl OptimizerRule for PushDown {
    fn name(&self) -> &'static str {
        "push_down_to_connections"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DataFusionResult<Transformed<LogicalPlan>> {
        if matches!(plan, LogicalPlan::Join(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Sort(_)) {
            for kind in BROWSED {
                if let Some(pushed) = (kind.push)(&plan)? {
                    return Ok(Transformed::yes(pushed));
                }
            }
        }
        Ok(Transformed::no(plan))
    }
}

/// The plan with what a system of this kind answers at once made one table.
pub(crate) fn push<D: Dialect>(plan: &LogicalPlan) -> DataFusionResult<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Join(join) => {
            let Some((system, query)) = joined::<D>(join) else { return Ok(None) };
            standing_for(system, query, &join.schema)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let Some((system, query)) = grouped::<D>(aggregate) else { return Ok(None) };
            standing_for(system, query, &aggregate.schema)
        }
        LogicalPlan::Sort(sort) => {
            let Some((system, query)) = top::<D>(sort) else { return Ok(None) };
            let Some(input) = standing_for(system, query, sort.input.schema())? else { return Ok(None) };
            // The first rows are few; that they arrive in order is nobody's promise.
            Ok(Some(LogicalPlan::Sort(Sort { expr: sort.expr.clone(), input: Arc::new(input), fetch: sort.fetch })))
        }
        _ => Ok(None),
    }
}

/// What a system is asked.
type Asked<D> = (Arc<D>, Arc<Query<D>>);

/// A plan that is one query of a system, column for column.
fn remote<D: Dialect>(plan: &LogicalPlan) -> Option<Asked<D>> {
    match plan {
        LogicalPlan::TableScan(scan) => scanned(scan),
        LogicalPlan::SubqueryAlias(alias) => remote(&alias.input),
        LogicalPlan::Projection(projection) => {
            let (system, query) = remote::<D>(&projection.input)?;
            let schema = projection.input.schema();
            let columns = projection.expr.iter().map(|expr| index(expr, schema));
            Some((system, Arc::new(Query::Project(query, columns.collect::<Option<_>>()?))))
        }
        _ => None,
    }
}

fn scanned<D: Dialect>(scan: &TableScan) -> Option<Asked<D>> {
    let provider = source_as_provider(&scan.source).ok()?;
    let table = provider.downcast_ref::<RemoteTable<D>>()?;
    Some((table.system.clone(), table.scanned(scan.projection.as_deref(), &scan.filters, scan.fetch).ok()?))
}

/// The number of the column that `expr` is.
fn index(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => index(&alias.expr, schema),
        _ => None,
    }
}

fn joined<D: Dialect>(join: &Join) -> Option<Asked<D>> {
    if join.on.is_empty() || join.filter.is_some() || join.null_aware || join.null_equality != NullEquality::NullEqualsNothing {
        return None;
    }
    let (left, right) = (remote::<D>(&join.left)?, remote::<D>(&join.right)?);
    // Two connections may lead to one server, as two users who see different rows.
    if !Arc::ptr_eq(&left.0, &right.0) {
        return None;
    }
    let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
    let pairs = join.on.iter().map(|(own, their)| {
        let side = |expr: &Expr, schema: &DFSchema| schema.maybe_index_of_column(&pushdown::column(expr, schema)?);
        Some((side(own, left_schema)?, side(their, right_schema)?))
    });
    let on: Vec<(usize, usize)> = pairs.collect::<Option<_>>()?;
    let (own, their) = (left_schema.fields().len(), right_schema.fields().len());
    let query = match join.join_type {
        JoinType::Inner => Query::Join { left: left.1, right: right.1, kind: JoinKind::Inner, on },
        JoinType::Left => Query::Join { left: left.1, right: right.1, kind: JoinKind::Left, on },
        JoinType::Right => {
            let on = on.into_iter().map(|(own, their)| (their, own)).collect();
            let turned = Query::Join { left: right.1, right: left.1, kind: JoinKind::Left, on };
            Query::Project(Arc::new(turned), (their..their + own).chain(0..their).collect())
        }
        _ => return None,
    };
    Some((left.0, Arc::new(query)))
}

fn grouped<D: Dialect>(aggregate: &Aggregate) -> Option<Asked<D>> {
    let (system, input) = remote::<D>(&aggregate.input)?;
    let schema = aggregate.input.schema();
    let keys = aggregate.group_expr.iter().map(|key| index(key, schema)).collect::<Option<_>>()?;
    let aggregates = aggregate.aggr_expr.iter().map(|expr| function(expr, schema)).collect::<Option<_>>()?;
    Some((system, Arc::new(Query::Group { input, keys, aggregates })))
}

fn function(expr: &Expr, schema: &DFSchema) -> Option<(Function, Option<usize>)> {
    let call = match expr {
        Expr::Alias(alias) => return function(&alias.expr, schema),
        Expr::AggregateFunction(call) => call,
        _ => return None,
    };
    let AggregateFunction { func, params: AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } } = call;
    let [argument] = args.as_slice() else { return None };
    if filter.is_some() || !order_by.is_empty() || null_treatment.is_some() {
        return None;
    }
    let counts = *func == count_udaf();
    if let Expr::Literal(value, _) = argument {
        return (counts && !distinct && !value.is_null()).then_some((Function::CountRows, None));
    }
    let known = match distinct {
        false if counts => Function::Count,
        true if counts => Function::CountDistinct,
        false if *func == sum_udaf() => {
            // A sum of narrow integers is one of wide ones, cast before they are added.
            return Some((Function::Sum, Some(schema.maybe_index_of_column(&pushdown::column(argument, schema)?)?)));
        }
        // The least of many is the least of all different ones.
        _ if *func == min_udaf() => Function::Min,
        _ if *func == max_udaf() => Function::Max,
        _ => return None,
    };
    Some((known, Some(index(argument, schema)?)))
}

fn top<D: Dialect>(sort: &Sort) -> Option<Asked<D>> {
    // More rows than any system counts are all of them.
    let rows = sort.fetch.filter(|rows| i64::try_from(*rows).is_ok())?;
    let (system, input) = remote::<D>(&sort.input)?;
    if input.is_top() {
        return None;
    }
    let schema = sort.input.schema();
    let order = sort.expr.iter().map(|by| Some(Order { column: index(&by.expr, schema)?, ascending: by.asc, nulls_first: by.nulls_first }));
    Some((system, Arc::new(Query::Top(input, order.collect::<Option<_>>()?, rows))))
}

/// A scan of the query with the columns of a plan, names and types. None where the system cannot be asked so, or would answer with other
/// types.
fn standing_for<D: Dialect>(system: Arc<D>, query: Arc<Query<D>>, schema: &Arc<DFSchema>) -> DataFusionResult<Option<LogicalPlan>> {
    let Some(statement) = query.statement() else { return Ok(None) };
    let same = |(field, column): (&Arc<Field>, &D::Column)| field.data_type() == D::data_type(column);
    if statement.columns.len() != schema.fields().len() || !schema.fields().iter().zip(&statement.columns).all(same) {
        return Ok(None);
    }
    let mut names = HashSet::new();
    let fields = schema.fields().iter().map(|field| {
        let mut name = field.name().clone();
        while !names.insert(name.clone()) {
            name.push('\'');
        }
        field.as_ref().clone().with_name(name)
    });
    let fields: Vec<Field> = fields.collect();
    let own = Arc::new(Schema::new(fields));
    let name = system.connection().to_owned();
    let table = RemoteTable { system, query, schema: own.clone(), kind: ListedKind::Table };
    // DataFusion holds two scans of one name to be the same.
    let name = TableReference::bare(format!("{name} {:016x}", table.mark()?));
    let scan = TableScanBuilder::new(name.clone(), provider_as_source(Arc::new(table))).build()?;
    let columns = schema.iter().zip(own.fields()).map(|((qualifier, field), own)| {
        Expr::Column(Column::new(Some(name.clone()), own.name())).alias_qualified(qualifier.cloned(), field.name())
    });
    let projection = Projection::try_new_with_schema(columns.collect(), Arc::new(LogicalPlan::TableScan(scan)), schema.clone())?;
    Ok(Some(LogicalPlan::Projection(projection)))
}
