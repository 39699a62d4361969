//! What do the sources of some steps hold now? Their rows, read into files of their own, as they are before contracts are held against them.

use std::{collections::BTreeMap, sync::Arc};

use weir_connectors::{Purpose, RunContext};
use weir_pipelines::{OnInvalid, Pipeline};

use super::search::Input;
use crate::{
    error::Result,
    history::History,
    plan::{self, Frugality, Inputs},
    trial,
    unjudged::{self, Wanted},
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
    let wanted = Wanted { rows: if let Extent::Rows(most) = extent { most } else { None }, places: false };
    for planned in &flow.steps {
        let Some(rows) = unjudged::read(planned, &flow.session, context, wanted).await? else { continue };
        input.insert(planned.step.name.clone(), rows);
        unreadable.insert(planned.step.name.clone(), planned.desk.rejected());
    }
    Ok((input, unreadable))
}
