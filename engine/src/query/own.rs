//! The tables of `weir.`: what Weir remembers, as rows. The latest of each, newest first.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{BooleanArray, RecordBatch, StringArray, UInt64Array},
    datatypes::{DataType, Field, Schema},
};
use chrono::{DateTime, Utc};
use datafusion::{
    catalog::{MemTable, MemorySchemaProvider, SchemaProvider, streaming::StreamingTable},
    error::Result as DfResult,
};

use crate::{
    error::Result,
    failing,
    history::{
        RunRecord, stamp,
        tasks::{Pause, Standing, Task},
    },
    workspace::Workspace,
};

/// More rows of a table are not shown.
const ROWS_MAX: u32 = 10_000;

/// The tables of `weir.`: what the state holds, and `weir.failing_rows`, from the files beside it.
pub(super) async fn history_schema(workspace: &Workspace) -> Result<Arc<dyn SchemaProvider>> {
    let (mut runs, mut tasks, mut standings) = (Vec::new(), Vec::new(), BTreeMap::new());
    if let Some(history) = workspace.existing_history().await? {
        (runs, tasks) = (history.runs(None, ROWS_MAX).await?, history.tasks(None, ROWS_MAX).await?);
        standings = history.standings().await?;
    }
    let schema = MemorySchemaProvider::new();
    let register = |name: &str, batch: DfResult<RecordBatch>| -> DfResult<()> {
        let batch = batch?;
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        schema.register_table(name.to_owned(), Arc::new(table)).map(|_| ())
    };
    register("runs", runs_table(&runs))
        .and_then(|()| register("books", books_table(&runs)))
        .and_then(|()| register("tasks", tasks_table(&tasks)))
        .and_then(|()| register("schedules", schedules_table(&standings)))
        .and_then(|()| {
            let rows = StreamingTable::try_new(failing::SCHEMA.clone(), vec![Arc::new(failing::Files::list(&workspace.state_dir)?)])?;
            schema.register_table("failing_rows".to_owned(), Arc::new(rows)).map(|_| ())
        })
        .map_err(|error| crate::run::explain(&error))?;
    Ok(Arc::new(schema))
}

fn batch(columns: Vec<(&str, Arc<dyn arrow::array::Array>)>) -> DfResult<RecordBatch> {
    let fields: Vec<Field> = columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, values)| values).collect())?)
}

fn instants(texts: Vec<Option<String>>) -> DfResult<Arc<dyn arrow::array::Array>> {
    let to = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    Ok(arrow::compute::cast(&StringArray::from(texts), &to)?)
}

fn runs_table(runs: &[RunRecord]) -> DfResult<RecordBatch> {
    let text = |of: fn(&RunRecord) -> Option<String>| Arc::new(StringArray::from(runs.iter().map(of).collect::<Vec<_>>())) as _;
    let count = |of: fn(&crate::Summary) -> u64| {
        Arc::new(UInt64Array::from(runs.iter().map(|run| run.summary.as_ref().map(of)).collect::<Vec<_>>())) as _
    };
    batch(vec![
        ("run", text(|run| Some(run.run.clone()))),
        ("pipeline", text(|run| Some(run.pipeline.clone()))),
        ("status", text(|run| Some(run.status.as_str().to_owned()))),
        ("started_at", instants(runs.iter().map(|run| Some(run.started_at.clone())).collect())?),
        ("finished_at", instants(runs.iter().map(|run| run.finished_at.clone()).collect())?),
        ("interval_start", instants(runs.iter().map(|run| run.interval_start.clone()).collect())?),
        ("interval_end", instants(runs.iter().map(|run| run.interval_end.clone()).collect())?),
        ("task", text(|run| run.task.clone())),
        ("error", text(|run| run.error.clone())),
        ("duration_ms", count(|summary| summary.duration_ms)),
        ("rows_read", count(|summary| summary.rows_read)),
        ("rows_loaded", count(|summary| summary.rows_loaded)),
        ("rows_quarantined", count(|summary| summary.rows_quarantined)),
        ("rows_dropped", count(|summary| summary.rows_dropped)),
        ("rows_filtered", count(|summary| summary.rows_filtered)),
        ("rows_deduplicated", count(|summary| summary.rows_deduplicated)),
        ("bytes_read", count(|summary| summary.bytes_read)),
        ("bytes_loaded", count(|summary| summary.bytes_loaded)),
    ])
}

fn books_table(runs: &[RunRecord]) -> DfResult<RecordBatch> {
    let steps: Vec<(&RunRecord, &crate::StepBooks)> = runs
        .iter()
        .filter_map(|run| Some((run, run.summary.as_ref()?)))
        .flat_map(|(run, summary)| summary.books.steps.iter().map(move |step| (run, step)))
        .collect();
    let text = |of: fn(&RunRecord, &crate::StepBooks) -> String| {
        Arc::new(StringArray::from_iter_values(steps.iter().map(|(run, step)| of(run, step)))) as _
    };
    let count = |of: fn(&crate::StepBooks) -> u64| Arc::new(UInt64Array::from_iter_values(steps.iter().map(|(_, step)| of(step)))) as _;
    batch(vec![
        ("run", text(|run, _| run.run.clone())),
        ("pipeline", text(|run, _| run.pipeline.clone())),
        ("step", text(|_, step| step.step.clone())),
        ("role", text(|_, step| step.role.clone())),
        ("kind", text(|_, step| step.kind.clone())),
        ("rows_in", count(|step| step.rows_in)),
        ("rows_out", count(|step| step.rows_out)),
        ("rows_quarantined", count(|step| step.rows_quarantined)),
        ("rows_dropped", count(|step| step.rows_dropped)),
        ("rows_filtered", count(|step| step.rows_filtered)),
        ("rows_deduplicated", count(|step| step.rows_deduplicated)),
        ("conserves", Arc::new(BooleanArray::from(steps.iter().map(|(_, step)| step.conserves).collect::<Vec<_>>()))),
    ])
}

fn tasks_table(tasks: &[Task]) -> DfResult<RecordBatch> {
    let text = |of: fn(&Task) -> Option<String>| Arc::new(StringArray::from(tasks.iter().map(of).collect::<Vec<_>>())) as _;
    let count = |of: fn(&Task) -> u32| Arc::new(UInt64Array::from_iter_values(tasks.iter().map(|task| u64::from(of(task))))) as _;
    let instant = |of: fn(&Task) -> Option<DateTime<Utc>>| instants(tasks.iter().map(|task| of(task).map(stamp)).collect());
    batch(vec![
        ("task", text(|task| Some(task.id.clone()))),
        ("pipeline", text(|task| Some(task.pipeline.clone()))),
        ("origin", text(|task| Some(task.origin.as_str().to_owned()))),
        ("status", text(|task| Some(task.status.as_str().to_owned()))),
        ("interval_start", instant(|task| task.interval.map(|(start, _)| start))?),
        ("interval_end", instant(|task| task.interval.map(|(_, end)| end))?),
        ("due_at", instant(|task| Some(task.due_at))?),
        ("not_before", instant(|task| Some(task.not_before))?),
        ("intervals", count(|task| task.joined)),
        ("tries", count(|task| task.attempts)),
        ("crashes", count(|task| task.crashes)),
        ("run", text(|task| task.run.clone())),
        ("backfill", text(|task| task.backfill.clone())),
        ("reason", text(|task| task.reason.clone())),
    ])
}

fn schedules_table(standings: &BTreeMap<String, Standing>) -> DfResult<RecordBatch> {
    let instant = |of: fn(&Standing) -> DateTime<Utc>| instants(standings.values().map(|standing| Some(stamp(of(standing)))).collect());
    let pause = |of: fn(&Pause) -> &str| {
        Arc::new(StringArray::from(standings.values().map(|standing| standing.pause.as_ref().map(of)).collect::<Vec<_>>())) as _
    };
    batch(vec![
        ("pipeline", Arc::new(StringArray::from_iter_values(standings.keys()))),
        ("since", instant(|standing| standing.since)?),
        ("covered", instant(|standing| standing.covered)?),
        ("paused_at", instants(standings.values().map(|standing| standing.pause.as_ref().map(|pause| pause.at.clone())).collect())?),
        ("paused_by", pause(|pause| pause.by.as_str())),
        ("pause_reason", pause(|pause| pause.reason.as_str())),
    ])
}
