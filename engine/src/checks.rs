//! The two checks made at a step's boundary: a contract, and casts that may not fit. Both split a batch into good rows and rejects.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::{CastOptions, cast_with_options, filter_record_batch},
    datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, UInt64Type},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::error::Result as DfResult;
use weir_connectors::{Coordinates, Reject};
use weir_schemas::{Contract, json};

use crate::step::RowCheck;

/// Every row must satisfy a contract. With coordinates, the last two columns say where a row came from and are taken off.
#[derive(Debug)]
pub struct ContractCheck {
    contract: Option<Arc<Contract>>,
    coordinates: bool,
    rows: SchemaRef,
    data: Vec<usize>,
}

impl ContractCheck {
    /// Checks rows of `input` against `contract`, where there is one.
    pub fn new(contract: Option<Arc<Contract>>, input: &SchemaRef, coordinates: bool) -> Self {
        let columns = if coordinates { input.fields().len() - 2 } else { input.fields().len() };
        let rows = Arc::new(Schema::new(input.fields()[..columns].to_vec()));
        let data = (0..columns).filter(|&at| is_data(rows.field(at)));
        Self { contract, coordinates, data: data.collect(), rows }
    }
}

/// The columns that a contract is shown of those that its check is given.
pub fn properties(input: &SchemaRef, coordinates: bool) -> Schema {
    let columns = if coordinates { input.fields().len() - 2 } else { input.fields().len() };
    Schema::new(input.fields()[..columns].iter().filter(|field| is_data(field)).cloned().collect::<Vec<_>>())
}

/// False of asked-for provenance columns, which are no properties of the record.
fn is_data(column: &Field) -> bool {
    ![Coordinates::FILE, Coordinates::ROW].contains(&column.name().as_str())
}

impl RowCheck for ContractCheck {
    fn schema(&self) -> SchemaRef {
        self.rows.clone()
    }

    fn apply(&self, batch: RecordBatch) -> DfResult<(RecordBatch, Vec<Reject>)> {
        let width = self.rows.fields().len();
        let places = self.coordinates.then(|| (batch.column(width).clone(), batch.column(width + 1).clone()));
        let rows = RecordBatch::try_new_with_options(
            self.rows.clone(),
            batch.columns()[..width].to_vec(),
            &arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
        )?;
        let Some(contract) = &self.contract else { return Ok((rows, Vec::new())) };
        let properties = rows.project(&self.data)?;
        let verdict = contract.check(&properties);
        let Some(valid) = verdict.valid else { return Ok((rows, Vec::new())) };
        let mut rejects: Vec<Reject> = Vec::new();
        let mut last = None;
        for violation in verdict.violations {
            if last == Some(violation.row) {
                let reject = rejects.last_mut().expect("a row was rejected before");
                reject.reason.push_str("; ");
                reject.reason.push_str(&violation.message);
                continue;
            }
            last = Some(violation.row);
            let (file, row) = places.as_ref().map_or((None, None), |(file, row)| coordinates(file, row, violation.row));
            rejects.push(Reject {
                file,
                row,
                code: violation.keyword,
                column: violation.column,
                reason: violation.message,
                raw: cut(json::text(&rows, violation.row)),
                fields: None,
            });
        }
        Ok((filter_record_batch(&rows, &BooleanArray::new(valid, None))?, rejects))
    }
}

/// A row as it is kept for people: whole up to 64 KiB, and past that its start and a word on its length.
pub(crate) fn cut(mut text: String) -> String {
    const RAW_BYTES_MAX: usize = 64 << 10;
    if text.len() > RAW_BYTES_MAX {
        let note = format!("… (cut; {} bytes in all)", text.len());
        text.truncate(text.floor_char_boundary(RAW_BYTES_MAX));
        text.push_str(&note);
    }
    text
}

fn coordinates(file: &ArrayRef, row: &ArrayRef, at: usize) -> (Option<String>, Option<u64>) {
    let file = file.as_dictionary_opt::<Int32Type>().and_then(|file| {
        let key = file.key(at)?;
        Some(file.values().as_string_opt::<i32>()?.value(key).to_owned())
    });
    (file, row.as_primitive_opt::<UInt64Type>().map(|row| row.value(at)))
}

/// Columns take other types; a row with a value that does not fit is rejected.
#[derive(Debug)]
pub struct CastCheck {
    casts: Vec<(usize, DataType)>,
    rows: SchemaRef,
}

impl CastCheck {
    /// Casts the columns at these indexes of `input`.
    pub fn new(input: &SchemaRef, casts: Vec<(usize, DataType)>) -> Self {
        let mut fields: Vec<Field> = input.fields().iter().map(|field| field.as_ref().clone()).collect();
        for (at, to) in &casts {
            fields[*at] = fields[*at].clone().with_data_type(to.clone());
        }
        Self { casts, rows: Arc::new(Schema::new(fields)) }
    }
}

impl RowCheck for CastCheck {
    fn schema(&self) -> SchemaRef {
        self.rows.clone()
    }

    fn apply(&self, batch: RecordBatch) -> DfResult<(RecordBatch, Vec<Reject>)> {
        let mut columns = batch.columns().to_vec();
        let mut bad: Vec<Option<Reject>> = Vec::new();
        let options = CastOptions { safe: true, format_options: FormatOptions::default() };
        for (at, to) in &self.casts {
            let before = &batch.columns()[*at];
            let after = cast_with_options(before, to, &options)?;
            if after.null_count() > before.null_count() {
                bad.resize(batch.num_rows(), None);
                let format = ArrayFormatter::try_new(before.as_ref(), &options.format_options)?;
                for row in (0..batch.num_rows()).filter(|&row| after.is_null(row) && before.is_valid(row)) {
                    let value: String = format.value(row).to_string().chars().take(60).collect();
                    let column = self.rows.field(*at).name().clone();
                    bad[row].get_or_insert_with(|| Reject {
                        file: None,
                        row: None,
                        code: "wrong-type".to_owned(),
                        reason: format!("\"{value}\" in \"{column}\" does not fit {to}"),
                        column: Some(column),
                        raw: cut(json::text(&batch, row)),
                        fields: None,
                    });
                }
            }
            columns[*at] = after;
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        if bad.is_empty() {
            return Ok((RecordBatch::try_new_with_options(self.rows.clone(), columns, &options)?, Vec::new()));
        }
        let good = BooleanBuffer::collect_bool(batch.num_rows(), |row| bad[row].is_none());
        // Rows go first: a column that may not be null would refuse the nulls that mark them.
        let mask = BooleanArray::new(good, None);
        let columns: Vec<ArrayRef> = columns.iter().map(|column| arrow::compute::filter(column, &mask)).collect::<Result<_, _>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(mask.true_count()));
        let rows = RecordBatch::try_new_with_options(self.rows.clone(), columns, &options)?;
        Ok((rows, bad.into_iter().flatten().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_row_is_cut_between_characters_and_says_how_long_it_was() {
        assert_eq!(cut("x".repeat(65_536)), "x".repeat(65_536));
        let long = format!("x{}", "é".repeat(40_000));
        let kept = cut(long);
        assert_eq!(kept, format!("x{}… (cut; 80001 bytes in all)", "é".repeat(32_767)));
    }
}
