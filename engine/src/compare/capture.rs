//! What the sources of two versions of a pipeline hold: read once, kept on disk, and given to both. A source that both read alike is read
//! once; where it has changed, each version reads its own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::{
    datatypes::SchemaRef,
    row::{RowConverter, SortField},
};
use futures::StreamExt;
use serde::Serialize;
use weir_connectors::spill::{SpillWriter, Spilled};
use weir_connectors::{Coordinates, Purpose, RunContext, incremental::fingerprint};
use weir_pipelines::{OnInvalid, Pipeline, Source};

use crate::{
    changes::facets,
    contracts::Contracts,
    error::Result,
    plan::{self, Frugality, Inputs},
    run::explain_step,
    step,
    unjudged::{self, Wanted},
};

/// The rows of one source.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The rows that could be read, with their places where there is a contract.
    pub rows: Spilled,
    /// How many could be read, before a sample was taken.
    pub read: u64,
    /// How many could not be read.
    pub unreadable: u64,
}

/// What is told of a source's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Captures {
    /// The source.
    pub source: String,
    /// `both`, `before` or `now`: for which version it was read.
    pub of: &'static str,
    /// Rows that could be read.
    pub rows: u64,
    /// Rows that are compared: fewer where a sample was taken.
    pub taken: u64,
}

/// Reads some sources of a pipeline. Incremental ones are read from their start. `seen` says which columns they are known by.
pub async fn capture(
    pipeline: &Pipeline,
    wanted: &[String],
    contracts: &Arc<Contracts>,
    seen: &HashMap<String, BTreeMap<String, String>>,
    context: &Arc<RunContext>,
    sample: Option<u64>,
) -> Result<HashMap<String, Captured>> {
    let mut part = pipeline.clone();
    part.sources.retain(|source| wanted.contains(&source.name.value));
    part.transforms.clear();
    part.sinks.clear();
    part.tests.clear();
    part.expectations.clear();
    for source in &mut part.sources {
        source.rules.max_invalid = None;
        source.rules.on_invalid = OnInvalid::Drop;
    }
    let inputs = Inputs { seen: seen.clone(), contracts: contracts.clone(), ..Inputs::default() };
    let flow = plan::plan(&part, context, Purpose::Run, Frugality::Fast, &inputs).await?;
    let mut captured = HashMap::new();
    for planned in &flow.steps {
        let Some(rows) = unjudged::read(planned, &flow.session, context, Wanted { rows: None, places: true }).await? else { continue };
        let name = &planned.step.name;
        let read = rows.rows();
        let rows = match sample.filter(|sample| *sample < read) {
            Some(sample) => sampled(&rows, sample, context).await.map_err(|error| explain_step(&step::mark(name, error)))?,
            None => rows,
        };
        captured.insert(name.clone(), Captured { rows, read, unreadable: planned.desk.rejected() });
    }
    Ok(captured)
}

/// About so many of the rows: those whose fingerprint is small enough. The same rows of the same input, in whatever order they come.
async fn sampled(rows: &Spilled, sample: u64, context: &RunContext) -> datafusion::error::Result<Spilled> {
    let schema: &SchemaRef = rows.schema();
    let places = Coordinates::fields();
    let own: Vec<usize> = (0..schema.fields().len()).filter(|at| !places.contains(&schema.fields()[*at])).collect();
    let converter = RowConverter::new(own.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect())?;
    let all = u128::from(rows.rows());
    let is_taken = |bytes: &[u8]| (fingerprint::of(0, bytes) >> 64) * all < u128::from(sample) << 64;
    let mut writer = SpillWriter::create(&context.runtime, schema, "a sample")?;
    let mut stream = rows.stream();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let columns: Vec<_> = own.iter().map(|at| batch.column(*at).clone()).collect();
        let mask: arrow::array::BooleanArray = match columns.is_empty() {
            true => vec![true; batch.num_rows()].into(),
            false => converter.convert_columns(&columns)?.iter().map(|row| Some(is_taken(row.as_ref()))).collect(),
        };
        if mask.true_count() > 0 {
            writer.write(&arrow::compute::filter_record_batch(&batch, &mask)?)?;
        }
        debug_assert_eq!(mask.len(), batch.num_rows());
    }
    writer.finish()
}

/// Whether two versions of a source read the same rows as the same columns: then one reading does for both.
pub fn read_alike(before: &Source, now: &Source, contracts: [(&Contracts, &Pipeline); 2]) -> bool {
    let reading = |source: &Source| {
        let mut source = source.clone();
        // What is made of rows once they are read.
        source.rules.on_invalid = OnInvalid::Drop;
        source.rules.max_invalid = None;
        source.rules.contract = None;
        facets::of_source(&source)
    };
    let columns = |source: &Source, (contracts, pipeline): (&Contracts, &Pipeline)| match &source.rules.contract {
        None => Ok(None),
        Some(path) => contracts.read(pipeline, path).map(|written| Some(written.contract.columns().clone())),
    };
    reading(before) == reading(now)
        && match (columns(before, contracts[0]), columns(now, contracts[1])) {
            (Ok(before), Ok(now)) => before == now,
            _ => false,
        }
}
