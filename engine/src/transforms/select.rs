//! `select`: these columns, in this order.

use datafusion::{logical_expr::Expr, prelude::Column};
use weir_pipelines::{Diagnostic, Diagnostics, Spanned};

use super::{Account, Cx, Planned};

pub(super) fn plan(cx: Cx<'_>, columns: &[Spanned<String>]) -> Result<Planned, Diagnostics> {
    let mut wrong = cx.missing(columns);
    for (at, column) in columns.iter().enumerate() {
        if columns[..at].iter().any(|before| before.value == column.value) {
            wrong.push(Diagnostic::error("duplicate-column", format!("\"{}\" is selected twice", column.value)).at(
                cx.file,
                column.span.clone(),
                "here again",
            ));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let expressions: Vec<Expr> = columns.iter().map(|column| Expr::Column(Column::new_unqualified(&column.value))).collect();
    let frame = cx.input.clone().select(expressions).map_err(|error| cx.internal(&error))?;
    Ok(Planned { kind: "select", plan: frame.into_unoptimized_plan(), checks: Vec::new(), account: Account::Same, doubts: Vec::new() })
}
