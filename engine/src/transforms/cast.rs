//! `cast`: columns take other types; a row with a value that does not fit is invalid, by the step's `on_invalid`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{common::DFSchema, logical_expr::ExprSchemable};
use indexmap::IndexMap;
use weir_pipelines::{Diagnostic, Diagnostics, Spanned};

use super::{Account, Cx, Planned, listed};
use crate::checks::CastCheck;

pub(super) fn plan(cx: Cx<'_>, types: &IndexMap<String, Spanned<String>>) -> Result<Planned, Diagnostics> {
    let columns = cx.columns();
    let input: SchemaRef = Arc::new(cx.input.schema().as_arrow().clone());
    let mut casts = Vec::new();
    let mut wrong = Vec::new();
    for (column, word) in types {
        let Some(at) = columns.iter().position(|name| name == column) else {
            wrong.push(
                Diagnostic::error("unknown-column", format!("no column \"{column}\" in step \"{}\"", cx.from))
                    .at(cx.file, word.span.clone(), "")
                    .did_you_mean(column, columns.iter().map(String::as_str))
                    .help(format!("columns are: {}", listed(&columns))),
            );
            continue;
        };
        let schema = DFSchema::empty();
        let to = cx
            .session
            .parse_sql_expr(&format!("cast(null as {})", word.value), &schema)
            .and_then(|expression| expression.get_type(&schema));
        match to {
            Ok(to) if arrow::compute::can_cast_types(input.field(at).data_type(), &to) => casts.push((at, to)),
            Ok(to) => wrong.push(
                Diagnostic::error("wrong-type", format!("\"{column}\" is {} and cannot become {to}", input.field(at).data_type())).at(
                    cx.file,
                    word.span.clone(),
                    "",
                ),
            ),
            Err(_) => wrong.push(
                Diagnostic::error("unknown-type", format!("\"{}\" is not a SQL type", word.value))
                    .at(cx.file, word.span.clone(), "")
                    .help("types are those of SQL: bigint, double, decimal(12,2), text, boolean, date, timestamp, …"),
            ),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let check = Arc::new(CastCheck::new(&input, casts));
    Ok(Planned { kind: "cast", plan: cx.input.into_unoptimized_plan(), checks: vec![check], account: Account::Same })
}
