//! What is wrong with a plan whose types are right? Constants that have no value, as the date of a thirteenth month, which the run would
//! only find with its first row; and values that are compared though they are never alike.

use std::sync::Arc;

use arrow::{
    datatypes::{DataType, Schema},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    common::{
        DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result as DfResult},
    execution::{SessionState, context::ExecutionProps},
    logical_expr::{
        BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, TryCast, Volatility,
        expr::InList,
        physical_planning_context::PhysicalPlanningContext,
        utils::{find_aggregate_exprs, find_window_exprs, merge_schema},
    },
    physical_expr::create_physical_expr,
};

/// Functions that make much of little: a check does not find out what they make.
pub const GROWING: [&str; 14] = [
    "array_join",
    "array_repeat",
    "array_resize",
    "array_to_string",
    "generate_series",
    "list_join",
    "list_repeat",
    "list_resize",
    "list_to_string",
    "lpad",
    "range",
    "repeat",
    "replace",
    "rpad",
];

/// Checks the types of a plan, its constants and what it compares. Gives the plan with its types settled.
pub fn verified(state: &SessionState, plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut wrong = None;
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let expressions = node.expressions();
        // DataFusion finds these when it makes the physical plan, if then.
        if matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_))
            && !(find_aggregate_exprs(&expressions).is_empty() && find_window_exprs(&expressions).is_empty())
        {
            wrong = Some(DataFusionError::Plan("a condition on rows asks of many rows".to_owned()));
            return Ok(TreeNodeRecursion::Stop);
        }
        for expr in expressions {
            if let Some((one, other)) = unlike(&expr, &schema) {
                wrong = Some(DataFusionError::Plan(format!("cannot compare {one} with {other}")));
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if let Some(error) = wrong {
        return Err(error);
    }
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    let mut wrong = None;
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        wrong = node.expressions().iter().find_map(|expr| {
            let cast = uncastable(expr, &schema).map(|(from, to)| DataFusionError::Plan(format!("{from} cannot become {to}")));
            cast.or_else(|| without_value(expr, state.execution_props()))
        });
        Ok(if wrong.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match wrong {
        Some(error) => Err(error),
        None => Ok(plan),
    }
}

/// The error of a cast of a constant that cannot be made, which DataFusion refuses to run too, wherever it stands.
pub fn without_value(expr: &Expr, props: &ExecutionProps) -> Option<DataFusionError> {
    let mut wrong = None;
    let _ = expr.apply(|part| {
        if let Expr::Cast(Cast { expr: inner, .. }) = part
            && is_constant(inner)
            && value(inner, props).is_ok()
            && let Err(error) = value(part, props)
        {
            wrong = Some(error);
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    wrong
}

/// The types of a cast that Arrow does not make, which DataFusion finds when it makes the physical plan.
pub fn uncastable(expr: &Expr, schema: &DFSchema) -> Option<(DataType, DataType)> {
    let mut found = None;
    let _ = expr.apply(|part| {
        let (inner, to) = match part {
            Expr::Cast(Cast { expr, field }) => (expr, field.data_type()),
            Expr::TryCast(TryCast { expr, field }) => (expr, field.data_type()),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        if let Ok(from) = inner.get_type(schema)
            && !from.is_nested()
            && !to.is_nested()
            && !arrow::compute::can_cast_types(&from, to)
        {
            found = Some((from, to.clone()));
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn is_constant(expr: &Expr) -> bool {
    let varies = expr.exists(|part| {
        Ok(match part {
            Expr::Literal(..) | Expr::Cast(_) | Expr::TryCast(_) | Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::Alias(_) => false,
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable || GROWING.contains(&call.func.name()),
            _ => true,
        })
    });
    !varies.unwrap_or(true)
}

fn value(expr: &Expr, props: &ExecutionProps) -> DfResult<()> {
    let physical = create_physical_expr(expr, &DFSchema::empty(), props, &PhysicalPlanningContext::default())?;
    let one = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one)?;
    physical.evaluate(&row).map(|_| ())
}

/// The types of values that are compared in an expression and are never alike: a day and a number, which DataFusion takes as the number of
/// days since 1970.
pub fn unlike(expr: &Expr, schema: &DFSchema) -> Option<(DataType, DataType)> {
    compared(expr, schema, |(_, one), (_, other)| is_day(one) && other.is_numeric() || one.is_numeric() && is_day(other))
}

/// The types of a text and a number that are compared: a run ends at the first text that is no number.
pub fn text_beside_number(expr: &Expr, schema: &DFSchema) -> Option<(DataType, DataType)> {
    let text = |(expr, kind): (&Expr, &DataType)| is_text(kind) && !is_constant(expr);
    compared(expr, schema, |one, other| text(one) && other.1.is_numeric() || one.1.is_numeric() && text(other))
}

/// Whether a plan, as it was before its types were settled, compares texts with numbers.
pub fn is_doubtful(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        found = node.expressions().iter().any(|expr| text_beside_number(expr, &schema).is_some());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

fn compared(
    expr: &Expr,
    schema: &DFSchema,
    wrong: impl Fn((&Expr, &DataType), (&Expr, &DataType)) -> bool,
) -> Option<(DataType, DataType)> {
    let mut found = None;
    let _ = expr.apply(|part| {
        let pairs: Vec<(&Expr, &Expr)> = match part {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => vec![(left, right)],
            Expr::InList(InList { expr, list, .. }) => list.iter().map(|one| (expr.as_ref(), one)).collect(),
            Expr::Between(between) => vec![(&between.expr, &between.low), (&between.expr, &between.high)],
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        for (one, other) in pairs {
            if let (Ok(left), Ok(right)) = (one.get_type(schema), other.get_type(schema))
                && wrong((one, &left), (other, &right))
            {
                found = Some((left, right));
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_day(of: &DataType) -> bool {
    matches!(of, DataType::Date32 | DataType::Date64)
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}
