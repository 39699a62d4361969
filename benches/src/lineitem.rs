//! Rows that the benches of parts share: TPC-H's lineitem in memory, as a block of CSV and as a batch.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use tpchgen::{csv::LineItemCsv, generators::LineItemGenerator};
use weir_connectors::file::{block::BlockFormat, csv::CsvFormat};
use weir_schemas::Contract;

use crate::spoil::{LINEITEM, Spoiler};

/// Rows of a batch between steps. As CSV they are a megabyte.
pub const ROWS: usize = 8192;

/// The header and [`ROWS`] lines, of which a share, from 0 to 1, breaks the contract. The last column, and no other, is quoted.
pub fn csv(share: f64) -> String {
    let mut spoiler = Spoiler::new(LineItemCsv::header(), LINEITEM, share);
    let mut text = format!("{}\n", LineItemCsv::header());
    for row in LineItemGenerator::new(1.0, 1, 1).iter().take(ROWS) {
        spoiler.line(&LineItemCsv::new(row).to_string(), &mut text);
    }
    text
}

/// Compiles `contracts/lineitem.schema.json`.
///
/// # Panics
/// When it is no contract.
pub fn contract() -> Contract {
    Contract::compile("lineitem.schema.json", include_str!("../contracts/lineitem.schema.json")).expect("it is a contract")
}

/// The contract's columns. Each may be null, for to lack a cell is one way to break the contract.
pub fn columns(contract: &Contract) -> SchemaRef {
    let fields = contract.columns().fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Reads CSV as one batch of these columns.
///
/// # Panics
/// When a record cannot be read.
pub fn batch(csv: &str, columns: &SchemaRef) -> RecordBatch {
    let start = CsvFormat::default().decoder(csv.as_bytes(), columns.clone(), None).expect("there is a header");
    let decoded = start.decoder.decode(&csv.as_bytes()[start.skipped_bytes..], start.skipped_lines + 1).expect("a block of records");
    assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
    decoded.rows
}
