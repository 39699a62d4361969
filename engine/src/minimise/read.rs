//! What do the sources of some steps hold now? Their rows, read into files of their own, as they are before contracts are held against them.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use weir_connectors::{Coordinates, Purpose, RunContext};
use weir_pipelines::{OnInvalid, Pipeline};

use super::search::Input;
use crate::{
    error::{Failure, Result},
    history::History,
    plan::{self, Frugality, Inputs},
    run::explain_step,
    spill::SpillWriter,
    step::Input as StepInput,
    trial,
};

/// How much of the sources is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent<'a> {
    /// What a run after these would read.
    OfRun(&'a History),
    /// So many rows of each from its start, or all.
    Rows(Option<u64>),
}

/// Reads what the sources of `targets` hold: nothing is judged yet. Also what each source could not read, by its count.
pub(crate) async fn read(
    extent: Extent<'_>,
    pipeline: &Pipeline,
    targets: &[String],
    context: &Arc<RunContext>,
) -> Result<(Input, BTreeMap<String, u64>)> {
    let (mut part, _) = trial::part(pipeline, targets, |_| false);
    part.transforms.clear();
    part.expectations.clear();
    let mut inputs = Inputs::default();
    for source in &mut part.sources {
        source.rules.max_invalid = None;
        source.rules.on_invalid = OnInvalid::Drop;
        match extent {
            Extent::OfRun(history) => {
                inputs.seen.insert(source.name.value.clone(), history.cursors(&pipeline.name.value, &source.name.value).await?);
            }
            Extent::Rows(_) => source.incremental = None,
        }
    }
    let flow = plan::plan(&part, context, Purpose::Run, Frugality::Fast, &inputs).await?;
    let (mut input, mut unreadable) = (Input::new(), BTreeMap::new());
    for planned in &flow.steps {
        let StepInput::Provider(table) = &planned.step.input else { continue };
        let name = &planned.step.name;
        let failed = |error| explain_step(&crate::step::mark(name, error));
        // All that is done to the rows before their contract is part of reading them.
        let checks = &planned.step.checks[..planned.step.checks.len() - usize::from(planned.contract.is_some())];
        let schema = checks.last().map_or_else(|| table.schema(), |check| check.schema());
        let mut columns = schema.fields().len();
        // With a contract, the rows carry their places.
        if part.sources.iter().any(|source| source.name.value == *name && source.rules.contract.is_some()) {
            columns -= Coordinates::fields().len();
        }
        let kept: Vec<usize> = (0..columns).collect();
        let mut frame = flow.session.read_table(table.clone()).map_err(failed)?;
        if let Extent::Rows(Some(most)) = extent {
            frame = frame.limit(0, Some(usize::try_from(most).unwrap_or(usize::MAX))).map_err(failed)?;
        }
        let rows = frame.create_physical_plan().await.map_err(failed)?;
        let mut rows = execute_stream(rows, flow.session.task_ctx()).map_err(failed)?;
        let schema = Arc::new(schema.project(&kept).expect("the columns are there"));
        let mut writer = SpillWriter::create(&context.runtime, &schema, "the input of a failed run").map_err(failed)?;
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
        input.insert(name.clone(), writer.finish().map_err(failed)?);
        unreadable.insert(name.clone(), planned.desk.rejected());
    }
    Ok((input, unreadable))
}
