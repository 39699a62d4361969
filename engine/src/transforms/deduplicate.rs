//! `deduplicate`: one row per key. Ties of `order_by` are broken by the other columns, so that the same rows in another
//! order of arrival give the same outcome.

use arrow::datatypes::DataType;
use datafusion::{
    functions_window::expr_fn::row_number,
    logical_expr::{Expr, ExprFunctionExt, expr::Sort},
    prelude::{Column, lit},
};
use weir_pipelines::{Diagnostics, Keep, SortKey, Spanned};

use super::{Account, Cx, Planned};

/// A column name that no person writes.
const NUMBER: &str = "__weir_number";

pub(super) fn plan(cx: Cx<'_>, key: &[Spanned<String>], keep: Keep, order_by: &[SortKey]) -> Result<Planned, Diagnostics> {
    let missing = cx.missing(key.iter().chain(order_by.iter().map(|sort| &sort.column)));
    if !missing.is_empty() {
        return Err(missing);
    }
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let last = keep == Keep::Last;
    // Nulls sort as the smallest value whichever end is kept.
    let mut order: Vec<Sort> = order_by
        .iter()
        .map(|sort| {
            let ascending = sort.descending == last;
            column(&sort.column).sort(ascending, ascending)
        })
        .collect();
    let named = |name: &str| key.iter().any(|key| key.value == name) || order_by.iter().any(|sort| sort.column.value == name);
    order.extend(
        cx.input
            .schema()
            .fields()
            .iter()
            .filter(|field| !named(field.name()) && sortable(field.data_type()))
            .map(|field| column(field.name()).sort(true, true)),
    );
    let columns: Vec<Expr> = cx.columns().iter().map(|name| column(name)).collect();
    let partition: Vec<Expr> = key.iter().map(|key| column(&key.value)).collect();
    let planned = row_number()
        .partition_by(partition)
        .order_by(order)
        .build()
        .and_then(|number| cx.input.clone().window(vec![number.alias(NUMBER)]))
        .and_then(|frame| frame.filter(column(NUMBER).eq(lit(1_u64))))
        .and_then(|frame| frame.select(columns));
    let frame = planned.map_err(|error| cx.internal(&error))?;
    Ok(Planned {
        kind: "deduplicate",
        plan: frame.into_unoptimized_plan(),
        checks: Vec::new(),
        account: Account::Deduplicated,
        doubts: Vec::new(),
    })
}

fn sortable(data_type: &DataType) -> bool {
    !data_type.is_nested()
}
