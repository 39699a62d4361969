//! Which of some rows are valid: their cells fit the step's columns, and the step's own checks take them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions},
    compute::{CastOptions, cast_with_options, filter, is_not_null},
    datatypes::SchemaRef,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::error::Result as DfResult;

use super::select::Rows;
use crate::step::RowCheck;

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// As in the quarantine.
    pub code: String,
    /// The column at fault.
    pub column: Option<String>,
    /// In words.
    pub reason: String,
}

/// Rows after they were changed.
pub struct Sifted {
    /// The valid ones, as the step's checks take them.
    pub rows: RecordBatch,
    /// For each row: nothing, or what is wrong with it.
    pub wrong: Vec<Option<Wrong>>,
}

/// Sifts a batch. `schema` is what the checks take.
pub fn sift(selected: &Rows, schema: &SchemaRef, checks: &[Arc<dyn RowCheck>]) -> DfResult<Sifted> {
    let unfit = selected.unfit()?;
    let mut wrong: Vec<Option<Wrong>> = unfit
        .iter()
        .map(|reason| {
            let wrong = |reason: &str| Wrong { code: "wrong-type".to_owned(), column: None, reason: reason.to_owned() };
            reason.map(wrong)
        })
        .collect();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    let options = CastOptions { safe: true, format_options: FormatOptions::default() };
    for (at, field) in schema.fields().iter().enumerate() {
        let (value, _) = selected.cell(at);
        let column = cast_with_options(value, field.data_type(), &options)?;
        if column.null_count() > value.null_count() || (!field.is_nullable() && column.null_count() > 0) {
            let format = ArrayFormatter::try_new(value.as_ref(), &options.format_options)?;
            for (row, slot) in wrong.iter_mut().enumerate().filter(|(row, slot)| column.is_null(*row) && slot.is_none()) {
                let reason = match value.is_null(row) {
                    false => {
                        let text: String = format.value(row).to_string().chars().take(60).collect();
                        format!("\"{text}\" in \"{}\" does not fit {}", field.name(), field.data_type())
                    }
                    true if field.is_nullable() => continue,
                    true => format!("\"{}\" may not be null", field.name()),
                };
                *slot = Some(Wrong { code: "wrong-type".to_owned(), column: Some(field.name().clone()), reason });
            }
        }
        columns.push(column);
    }
    let rows = keep(schema, &columns, &wrong)?;
    let places: Vec<usize> = (0..wrong.len()).filter(|row| wrong[*row].is_none()).collect();
    let mut found = Vec::new();
    refuse(&rows, 0, checks, &mut found)?;
    if found.is_empty() {
        return Ok(Sifted { rows, wrong });
    }
    for (row, reason) in found {
        wrong[places[row]] = Some(reason);
    }
    Ok(Sifted { rows: keep(schema, &columns, &wrong)?, wrong })
}

fn keep(schema: &SchemaRef, columns: &[ArrayRef], wrong: &[Option<Wrong>]) -> DfResult<RecordBatch> {
    let good: BooleanArray = wrong.iter().map(|wrong| Some(wrong.is_none())).collect();
    let columns: Vec<ArrayRef> = columns.iter().map(|column| filter(column, &good)).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(good.true_count()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Notes the rows that a check refuses. A check says which rows it leaves, not which it takes out: halves are asked until one row is left.
fn refuse(rows: &RecordBatch, first: usize, checks: &[Arc<dyn RowCheck>], found: &mut Vec<(usize, Wrong)>) -> DfResult<()> {
    if rows.num_rows() == 0 {
        return Ok(());
    }
    let mut left = rows.clone();
    let mut rejects = Vec::new();
    for check in checks {
        let (good, mut refused) = check.apply(left)?;
        rejects.append(&mut refused);
        left = good;
    }
    match (rejects.pop(), rows.num_rows()) {
        (None, _) => Ok(()),
        (Some(reject), 1) => {
            found.push((first, Wrong { code: reject.code, column: reject.column, reason: reject.reason }));
            Ok(())
        }
        (Some(_), count) => {
            let half = count / 2;
            refuse(&rows.slice(0, half), first, checks, found)?;
            refuse(&rows.slice(half, count - half), first + half, checks, found)
        }
    }
}

/// True where a value is not what it was.
pub fn changed(before: &ArrayRef, after: &ArrayRef) -> DfResult<BooleanArray> {
    let before = match before.data_type() == after.data_type() {
        true => before.clone(),
        false => cast_with_options(before, after.data_type(), &CastOptions { safe: true, format_options: FormatOptions::default() })?,
    };
    let format = FormatOptions::default();
    let (old, new) = (ArrayFormatter::try_new(before.as_ref(), &format)?, ArrayFormatter::try_new(after.as_ref(), &format)?);
    let (had, has) = (is_not_null(&before)?, is_not_null(after)?);
    Ok((0..after.len())
        .map(|row| Some(had.value(row) != has.value(row) || (has.value(row) && old.value(row).to_string() != new.value(row).to_string())))
        .collect())
}
