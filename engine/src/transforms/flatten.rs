//! `flatten`: nested records become columns; with `array`, each element becomes a row that carries its parent's key. A parent
//! whose array is empty or null has no child rows.

use std::collections::HashSet;

use arrow::datatypes::{DataType, Fields};
use datafusion::{
    functions::core::expr_fn::get_field,
    functions_nested::expr_fn::{array_length, range},
    logical_expr::{Expr, cast},
    prelude::{Column, DataFrame, lit},
};
use weir_pipelines::{Diagnostic, Diagnostics, FlattenArray, Spanned};

use super::{Account, Cx, Planned, listed};

const ELEMENT: &str = "__weir_element";
const POSITION: &str = "__weir_position";

pub(super) fn plan(cx: Cx<'_>, separator: &str, array: Option<&FlattenArray>) -> Result<Planned, Diagnostics> {
    match array {
        None => {
            let mut columns = Vec::new();
            for field in cx.input.schema().fields() {
                leaves(column(field.name()), field.name().clone(), field.data_type(), separator, &mut columns);
            }
            let frame = select(&cx, cx.input.clone(), columns)?;
            Ok(Planned {
                kind: "flatten",
                plan: frame.into_unoptimized_plan(),
                checks: Vec::new(),
                account: Account::Same,
                doubts: Vec::new(),
            })
        }
        Some(array) => children(&cx, separator, array),
    }
}

fn children(cx: &Cx<'_>, separator: &str, array: &FlattenArray) -> Result<Planned, Diagnostics> {
    let missing = cx.missing(&array.key);
    if !missing.is_empty() {
        return Err(missing);
    }
    let (list, list_type) = nested(cx, &array.column)?;
    let element = match &list_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => field.data_type().clone(),
        other => {
            return Err(vec![Diagnostic::error("wrong-type", format!("\"{}\" is {other}, not a list", array.column.value)).at(
                cx.file,
                array.column.span.clone(),
                "must be a list",
            )]);
        }
    };
    let mut parent: Vec<Expr> = array.key.iter().map(|key| column(&key.value)).collect();
    parent.push(list.alias(ELEMENT));
    let mut columns: Vec<(String, Expr)> = array.key.iter().map(|key| (key.value.clone(), column(&key.value))).collect();
    let frame = match &array.position {
        None => cx.input.clone().select(parent).and_then(|frame| frame.unnest_columns(&[ELEMENT])),
        Some(position) => {
            columns.push((position.value.clone(), column(POSITION)));
            let length = cast(array_length(column(ELEMENT)), DataType::Int64);
            cx.input
                .clone()
                .select(parent)
                .and_then(|frame| frame.with_column(POSITION, range(lit(0_i64), length, lit(1_i64))))
                .and_then(|frame| frame.unnest_columns(&[ELEMENT, POSITION]))
        }
    };
    let frame = frame.map_err(|error| cx.internal(&error))?;
    let name = array.column.value.rsplit('.').next().unwrap_or_default().to_owned();
    match &element {
        DataType::Struct(fields) => {
            for field in fields {
                let value = get_field(column(ELEMENT), field.name().as_str());
                leaves(value, field.name().clone(), field.data_type(), separator, &mut columns);
            }
        }
        _ => columns.push((name, column(ELEMENT))),
    }
    let frame = select(cx, frame, columns)?;
    Ok(Planned { kind: "flatten", plan: frame.into_unoptimized_plan(), checks: Vec::new(), account: Account::Remakes, doubts: Vec::new() })
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The expression and the type of a dotted path.
fn nested(cx: &Cx<'_>, path: &Spanned<String>) -> Result<(Expr, DataType), Diagnostics> {
    let mut parts = path.value.split('.');
    let first = parts.next().unwrap_or_default();
    let top: Fields = cx.input.schema().as_arrow().fields().clone();
    let unknown = |part: &str, fields: &Fields| {
        let names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        vec![
            Diagnostic::error("unknown-column", format!("no column \"{part}\" in step \"{}\"", cx.from))
                .at(cx.file, path.span.clone(), "not found")
                .did_you_mean(part, names.iter().map(String::as_str))
                .help(format!("columns are: {}", listed(&names))),
        ]
    };
    let Some((_, field)) = top.find(first) else { return Err(unknown(first, &top)) };
    let (mut expression, mut found) = (column(first), field.data_type().clone());
    for part in parts {
        let DataType::Struct(fields) = &found else { return Err(unknown(part, &Fields::empty())) };
        let Some((_, field)) = fields.find(part) else { return Err(unknown(part, fields)) };
        expression = get_field(expression, part);
        found = field.data_type().clone();
    }
    Ok((expression, found))
}

/// The columns that a value becomes: itself, or its fields' columns where it is a record.
fn leaves(value: Expr, name: String, data_type: &DataType, separator: &str, columns: &mut Vec<(String, Expr)>) {
    match data_type {
        DataType::Struct(fields) if !fields.is_empty() => {
            for field in fields {
                let inner = get_field(value.clone(), field.name().as_str());
                leaves(inner, format!("{name}{separator}{}", field.name()), field.data_type(), separator, columns);
            }
        }
        _ => columns.push((name, value)),
    }
}

fn select(cx: &Cx<'_>, frame: DataFrame, columns: Vec<(String, Expr)>) -> Result<DataFrame, Diagnostics> {
    let mut taken = HashSet::new();
    for (name, _) in &columns {
        if !taken.insert(name.as_str()) {
            return Err(vec![
                Diagnostic::error("duplicate-column", format!("two columns would be called \"{name}\""))
                    .at(cx.file, cx.span.clone(), "")
                    .help("choose another separator, or rename one before"),
            ]);
        }
    }
    let expressions: Vec<Expr> = columns.into_iter().map(|(name, value)| value.alias(name)).collect();
    frame.select(expressions).map_err(|error| cx.internal(&error))
}
