//! Removes rows from the quarantine by age: on demand, and after a run where the project says how long they are kept.

use std::{sync::Arc, time::Instant};

use chrono::{DateTime, Utc};
use datafusion::{
    common::ScalarValue,
    prelude::{col, in_list, lit},
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_connectors::spill::SpillWriter;
use weir_connectors::{RunContext, lake};

use super::ending::Ending;
use crate::{books::Mends, error::Result, history::History, publish, quarantine, query::Session, workspace::Workspace};

/// Removes rows of a pipeline's quarantine that were set aside before `before`: the mended and discarded ones, with `open` those that wait too.
/// Returns how many, by step.
pub async fn purge(
    workspace: &Workspace,
    name: &str,
    step: Option<&str>,
    before: DateTime<Utc>,
    open: bool,
    (by, dry_run): (&str, bool),
    cancel: CancellationToken,
) -> Result<Vec<(String, u64)>> {
    let history = workspace.history().await?;
    let lane = workspace.lane(&history, name, 0).await?;
    let history = history.in_lane(&lane);
    let context = workspace.context(name, 0, &history, cancel)?;
    publish::recover(workspace, &history, &context, 0).await?;
    let removed = Purging { workspace, history: &history, context, by, thorough: true }.purge(step, before, open, dry_run).await;
    lane.release().await;
    removed
}

/// Removes what the project does not keep so long, after a run. The caller holds the pipeline's lock. Returns a sentence, where there is something to say.
pub(crate) async fn purge_by_age(workspace: &Workspace, history: &History, context: Arc<RunContext>) -> Result<Option<String>> {
    let Some(keep) = workspace.project.quarantine_keep else { return Ok(None) };
    let Some(before) = chrono::Duration::from_std(keep).ok().and_then(|keep| context.started_at.checked_sub_signed(keep)) else {
        return Ok(None);
    };
    let removed =
        Purging { workspace, history, context, by: "[quarantine] keep", thorough: false }.purge(None, before, false, false).await?;
    let rows: u64 = removed.iter().map(|(_, rows)| rows).sum();
    Ok((rows > 0).then(|| format!("{rows} row{} older than \"keep\" left the quarantine", if rows == 1 { "" } else { "s" })))
}

struct Purging<'a> {
    workspace: &'a Workspace,
    history: &'a History,
    context: Arc<RunContext>,
    by: &'a str,
    /// Looks for files of earlier purges even where no row goes.
    thorough: bool,
}

impl Purging<'_> {
    async fn purge(&self, step: Option<&str>, before: DateTime<Utc>, open: bool, dry_run: bool) -> Result<Vec<(String, u64)>> {
        let Self { workspace, history, context, by, .. } = self;
        let name = context.pipeline.as_str();
        let tables = quarantine::list(workspace, Some(name)).await?;
        let steps: Vec<&str> = tables.iter().map(|table| table.step.as_str()).collect();
        if let Some(step) = step.filter(|step| !steps.contains(step)) {
            return Err(quarantine::unknown_step(step, name, &steps).into());
        }
        let session = Session::open(workspace)?;
        let explain = |error| crate::run::explain(&error);
        let mut removed = Vec::new();
        for at in steps.into_iter().filter(|at| step.is_none_or(|step| step == *at)) {
            let frame = session.quarantined(name, at).await?;
            let limit = lit(ScalarValue::TimestampMicrosecond(Some(before.timestamp_micros()), Some("UTC".into())));
            let mut goes = col("at").lt(limit);
            match frame.schema().field_with_unqualified_name("status") {
                Ok(_) if !open => goes = goes.and(in_list(col("status"), vec![lit("mended"), lit("discarded")], false)),
                // Of an earlier version: all of them wait.
                Err(_) if !open => continue,
                _ => {}
            }
            let count = frame.clone().filter(goes.clone()).map_err(explain)?.count().await.map_err(explain)? as u64;
            removed.push((at.to_owned(), count));
            if dry_run {
                continue;
            }
            if count == 0 {
                // What an earlier purge that was killed has left is gone for good, too.
                if self.thorough {
                    vacuum(context, at).await?;
                }
                continue;
            }
            let started = Instant::now();
            let mut stays = frame.filter(goes.is_not_true()).map_err(explain)?.execute_stream().await.map_err(explain)?;
            let mut rows = SpillWriter::create(&context.runtime, &stays.schema(), "rows of the quarantine").map_err(explain)?;
            while let Some(batch) = stays.next().await {
                rows.write(&batch.map_err(explain)?).map_err(explain)?;
            }
            // A run for each table.
            let context = Arc::new(RunContext { run: Uuid::now_v7().to_string(), ..context.as_ref().clone() });
            let mends = Mends {
                step: at.to_owned(),
                rows: count,
                status: "purged".to_owned(),
                changes: Vec::new(),
                by: (*by).to_owned(),
                anew: false,
            };
            let sink = quarantine::keeping_sink(at, &context);
            let ending = Ending { workspace, history, context: &context, sink, mends };
            ending.carry_out(rows.finish().map_err(explain)?, started).await?;
            vacuum(&context, at).await?;
        }
        Ok(removed)
    }
}

/// What is purged is to be gone: from earlier versions of the table too.
async fn vacuum(context: &RunContext, step: &str) -> Result<()> {
    let root = context.state_dir.join("quarantine").display().to_string();
    match lake::open_table(&root, &context.environment, &context.pipeline, step, lake::Version::Newest).await? {
        Some(table) => Ok(lake::vacuum(table).await?),
        None => Ok(()),
    }
}
