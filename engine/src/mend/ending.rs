//! A run whose only destination is a quarantine table: rows of it are ended, or leave it.

use std::{sync::Arc, time::Instant};

use datafusion::prelude::SessionContext;
use weir_connectors::spill::Spilled;
use weir_connectors::{RunContext, Sink, SinkContext, lake};

use crate::{
    books::{Mends, Summary},
    error::{Failure, Result},
    history::{Cursors, History, LoadRecord, RunStatus, Start},
    publish::{self, Destination, Undecided},
    workspace::Workspace,
};

/// Such a run. The caller holds the pipeline's lock.
pub(super) struct Ending<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) history: &'a History,
    pub(super) context: &'a Arc<RunContext>,
    pub(super) sink: (Arc<dyn Sink>, SinkContext),
    pub(super) mends: Mends,
}

impl Ending<'_> {
    /// Stages the rows, decides, publishes.
    pub(super) async fn carry_out(self, rows: Spilled, started: Instant) -> Result<Summary> {
        let run = &self.context.run;
        let (pipeline, started_at) = (&self.context.pipeline, &self.workspace.now());
        self.history.begin(Start { run, pipeline, started_at, lane: 0, task: None, interval: None }).await?;
        let mut destinations = Vec::new();
        let outcome = match self.stage(rows, &mut destinations).await {
            Ok(mut summary) => match publish::decide(self.history, run, &mut destinations, &Cursors::default(), None, &mut summary).await {
                Ok(()) => {
                    summary.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    return publish::publish(self.history, run, &destinations, &mut summary, || self.workspace.now())
                        .await
                        .map(|()| summary);
                }
                // Whoever comes next finds out.
                Err(Undecided { failure, unknown: true }) => return Err(failure),
                Err(Undecided { failure, .. }) => failure,
            },
            Err(failure) => failure,
        };
        publish::discard(self.history, run, &destinations).await?;
        let (status, text) = match &outcome {
            Failure::Interrupted => (RunStatus::Interrupted, None),
            other => (RunStatus::Failed, Some(other.sentence())),
        };
        self.history.end(run, status, &self.workspace.now(), text.as_deref()).await?;
        Err(outcome)
    }

    async fn stage(&self, rows: Spilled, destinations: &mut Vec<Destination>) -> Result<Summary> {
        let (sink, context) = &self.sink;
        let failed = |error: weir_connectors::Error| Failure::from_connector(&error).in_step(&self.mends.step);
        let load = sink.open(rows.schema(), context).await.map_err(failed)?;
        let record = LoadRecord { sink: context.step.clone(), kind: lake::SINK.kind.to_owned(), state: load.stage(), published: false };
        self.history.stage(&self.context.run, &record).await?;
        destinations.push(Destination { record, load: load.clone() });
        let tasks = SessionContext::new_with_config_rt(Default::default(), self.context.runtime.clone()).task_ctx();
        load.write_all(rows.stream(), &tasks).await.map_err(|error| crate::run::explain(&error))?;
        let sealed = load.seal().await.map_err(failed)?;
        destinations[0].record.state = sealed.state;
        Ok(Summary {
            run: self.context.run.clone(),
            pipeline: self.context.pipeline.clone(),
            status: "staged".to_owned(),
            started_at: self.context.started_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            mends: Some(self.mends.clone()),
            ..Summary::default()
        })
    }
}
