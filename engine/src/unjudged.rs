//! What does a source hold, before its contract is held against it? Its rows, read into a file of their own.

use std::sync::Arc;

use datafusion::{physical_plan::execute_stream, prelude::SessionContext};
use futures::StreamExt;
use weir_connectors::spill::{SpillWriter, Spilled};
use weir_connectors::{Coordinates, RunContext};

use crate::{
    error::{Failure, Result},
    plan::PlannedStep,
    run::explain_step,
    step::{self, Input},
};

/// How much of a source's rows is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// So many from its start, or all.
    pub rows: Option<u64>,
    /// Whether they carry their places, where there is a contract.
    pub places: bool,
}

/// Reads a planned source; none where the step is no source. What could not be read is at the step's desk.
pub async fn read(planned: &PlannedStep, session: &SessionContext, context: &RunContext, wanted: Wanted) -> Result<Option<Spilled>> {
    let Input::Provider(table) = &planned.step.input else { return Ok(None) };
    let failed = |error| explain_step(&step::mark(&planned.step.name, error));
    // All that is done to the rows before their contract is part of reading them.
    let checks = &planned.step.checks[..planned.step.checks.len() - usize::from(planned.contract.is_some())];
    let schema = checks.last().map_or_else(|| table.schema(), |check| check.schema());
    let places = if planned.contract.is_some() && !wanted.places { Coordinates::fields().len() } else { 0 };
    let kept: Vec<usize> = (0..schema.fields().len() - places).collect();
    let mut frame = session.read_table(table.clone()).map_err(failed)?;
    if let Some(most) = wanted.rows {
        frame = frame.limit(0, Some(usize::try_from(most).unwrap_or(usize::MAX))).map_err(failed)?;
    }
    let plan = frame.create_physical_plan().await.map_err(failed)?;
    let mut rows = execute_stream(plan, session.task_ctx()).map_err(failed)?;
    let schema = Arc::new(schema.project(&kept).expect("the columns are there"));
    let mut writer = SpillWriter::create(&context.runtime, &schema, "the rows of a source").map_err(failed)?;
    loop {
        let batch = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(Failure::Interrupted),
            batch = rows.next() => batch,
        };
        let Some(batch) = batch else { break };
        let mut batch = batch.map_err(failed)?;
        for check in checks {
            let (good, rejects) = check.apply(batch).map_err(failed)?;
            planned.step.rejects.reject(rejects)?;
            batch = good;
        }
        let batch = batch.project(&kept).map_err(|error| failed(error.into()))?;
        writer.write(&batch).map_err(failed)?;
    }
    writer.finish().map(Some).map_err(failed)
}
