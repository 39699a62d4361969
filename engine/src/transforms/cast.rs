//! `cast`: columns take other types; a row with a value that does not fit is invalid, by the step's `on_invalid`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{common::DFSchema, logical_expr::ExprSchemable};
use weir_pipelines::{Diagnostic, Diagnostics, Spanned};

use super::{Account, Cx, Planned, unknown_column};
use crate::{checks::CastCheck, sql::sql_name};

pub(super) fn plan(cx: Cx<'_>, types: &[(Spanned<String>, Spanned<String>)]) -> Result<Planned, Diagnostics> {
    let columns = cx.columns();
    let input: SchemaRef = Arc::new(cx.input.schema().as_arrow().clone());
    let mut casts = Vec::new();
    let mut wrong = Vec::new();
    for (column, word) in types {
        let Some(at) = columns.iter().position(|name| *name == column.value) else {
            wrong.push(unknown_column(column, cx.from, &columns, cx.file));
            continue;
        };
        let schema = DFSchema::empty();
        let to = cx
            .session
            .parse_sql_expr(&format!("cast(null as {})", word.value), &schema)
            .and_then(|expression| expression.get_type(&schema));
        match to {
            Ok(to) if arrow::compute::can_cast_types(input.field(at).data_type(), &to) => casts.push((at, to)),
            Ok(to) => {
                let (from, to) = (sql_name(input.field(at).data_type()), sql_name(&to));
                wrong.push(
                    Diagnostic::error("wrong-type", format!("\"{}\" is of type {from}, which cannot become {to}", column.value))
                        .at(cx.file, word.span.clone(), "not a type that it can become")
                        .at(cx.file, column.span.clone(), format!("of type {from}"))
                        .help("make it another column with \"sql\""),
                );
            }
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
    Ok(Planned { kind: "cast", plan: cx.input.into_unoptimized_plan(), checks: vec![check], account: Account::Same, doubts: Vec::new() })
}
