//! `rename`: other names for columns; the order and the other columns stay.

use std::collections::HashSet;

use datafusion::{logical_expr::Expr, prelude::Column};
use weir_pipelines::{Diagnostic, Diagnostics, Spanned};

use super::{Account, Cx, Planned};

pub(super) fn plan(cx: Cx<'_>, names: &[(Spanned<String>, Spanned<String>)]) -> Result<Planned, Diagnostics> {
    let columns = cx.columns();
    let mut wrong = cx.missing(names.iter().map(|(old, _)| old));
    let mut taken = HashSet::new();
    let mut expressions = Vec::with_capacity(columns.len());
    for column in &columns {
        let new = names.iter().find(|(old, _)| old.value == *column).map(|(_, new)| new);
        let name = new.map_or(column, |new| &new.value);
        if !taken.insert(name.clone()) {
            let taken_by = names.iter().find(|(_, new)| new.value == *name);
            let span = taken_by.map_or(cx.span.clone(), |(_, new)| new.span.clone());
            let message = format!("two columns would be called \"{name}\"");
            wrong.push(
                Diagnostic::error("duplicate-column", message)
                    .at(cx.file, span, "a column is called so already")
                    .help("rename that one too, or leave it out with \"select\" before"),
            );
        }
        let expression = Expr::Column(Column::new_unqualified(column));
        expressions.push(if name == column { expression } else { expression.alias(name) });
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let frame = cx.input.clone().select(expressions).map_err(|error| cx.internal(&error))?;
    Ok(Planned { kind: "rename", plan: frame.into_unoptimized_plan(), checks: Vec::new(), account: Account::Same, doubts: Vec::new() })
}
