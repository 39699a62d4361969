//! The tables of `weir.`: what Weir remembers, as rows. The latest of each, newest first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{BooleanArray, RecordBatch, StringArray, UInt64Array},
    datatypes::{DataType, Field, Schema},
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::{
    catalog::{MemTable, SchemaProvider, TableProvider, streaming::StreamingTable},
    datasource::TableType,
    error::Result as DfResult,
};

use weir_connectors::lake::Tables;
use weir_pipelines::{Saved, Schedule, units};

use super::external;
use crate::{
    failing,
    history::{
        RunRecord, stamp,
        tasks::{Pause, Standing, Task},
    },
    scheduler::{Catalogue as Files, Pipelines},
    workspace::Workspace,
};

mod columns;

/// More rows of a table are not shown.
const ROWS_MAX: u32 = 10_000;

/// The tables of `weir.`, each read when a query names it.
#[derive(Debug)]
pub(super) struct Own {
    pub workspace: Workspace,
    pub lake: Arc<Tables>,
    pub files: Option<Arc<dyn Files>>,
}

/// Their names, sorted.
const TABLES: [&str; 9] = ["books", "columns", "failing_rows", "intervals", "queries", "runs", "schedules", "steps", "tasks"];

#[async_trait]
impl SchemaProvider for Own {
    fn table_names(&self) -> Vec<String> {
        TABLES.iter().map(|name| (*name).to_owned()).collect()
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.contains(&name)
    }

    /// Their rows are made when they are asked for. Nothing is read for it.
    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::View))
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        if !self.table_exist(name) {
            return Ok(None);
        }
        if name == "failing_rows" {
            let files = failing::Files::list(&self.workspace.state_dir)?;
            return Ok(Some(Arc::new(StreamingTable::try_new(failing::SCHEMA.clone(), vec![Arc::new(files)])?)));
        }
        if name == "queries" {
            let files = self.files.clone();
            let saved = tokio::task::spawn_blocking(move || files.map(|files| files.queries().0).unwrap_or_default()).await;
            return table(queries_table(&saved.unwrap_or_default())?);
        }
        if matches!(name, "steps" | "columns" | "schedules") {
            let files = self.files.clone();
            let pipelines = tokio::task::spawn_blocking(move || files.map(|files| files.look().pipelines).unwrap_or_default()).await;
            let pipelines = pipelines.unwrap_or_default();
            return match name {
                "steps" => table(steps_table(&pipelines)?),
                "schedules" => {
                    let standings = match self.workspace.existing_history().await.map_err(external)? {
                        Some(history) => history.standings().await.map_err(external)?,
                        None => BTreeMap::new(),
                    };
                    table(schedules_table(&pipelines, &standings, (self.workspace.clock)())?)
                }
                _ => table(columns::table(&self.workspace, &self.lake, &pipelines).await?),
            };
        }
        let history = self.workspace.existing_history().await.map_err(external)?;
        let (mut runs, mut tasks) = (Vec::new(), Vec::new());
        if let Some(history) = history {
            match name {
                "runs" | "books" => runs = history.runs(None, ROWS_MAX).await.map_err(external)?,
                _ => tasks = history.tasks(None, ROWS_MAX).await.map_err(external)?,
            }
        }
        table(match name {
            "runs" => runs_table(&runs)?,
            "books" => books_table(&runs)?,
            "tasks" => tasks_table(&tasks)?,
            _ => intervals_table(&tasks)?,
        })
    }
}

fn table(batch: RecordBatch) -> DfResult<Option<Arc<dyn TableProvider>>> {
    Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
}

/// The steps of the pipelines there are, in the order in which they are written.
fn steps_table(pipelines: &Pipelines) -> DfResult<RecordBatch> {
    let mut rows: Vec<[Option<String>; 5]> = Vec::new();
    for (name, pipeline) in pipelines.iter() {
        let mut row = |step: &str, role: &str, kind: &str, contract: Option<String>| {
            rows.push([Some(name.clone()), Some(step.to_owned()), Some(role.to_owned()), Some(kind.to_owned()), contract]);
        };
        let contract = |rules: &weir_pipelines::Rules| rules.contract.as_ref().map(|contract| contract.value.clone());
        for source in &pipeline.sources {
            row(&source.name.value, "source", &source.settings.kind.value, contract(&source.rules));
        }
        for transform in &pipeline.transforms {
            row(&transform.name.value, "transform", crate::transforms::kind(&transform.operator), contract(&transform.rules));
        }
        for sink in &pipeline.sinks {
            row(&sink.name.value, "sink", &sink.settings.kind.value, None);
        }
    }
    let column = |at: usize| Arc::new(rows.iter().map(|row| row[at].clone()).collect::<StringArray>()) as _;
    batch(vec![("pipeline", column(0)), ("step", column(1)), ("role", column(2)), ("kind", column(3)), ("contract", column(4))])
}

/// The saved queries, each with its parameters as its header has them.
fn queries_table(saved: &[Saved]) -> DfResult<RecordBatch> {
    let text = |of: fn(&Saved) -> String| Arc::new(StringArray::from_iter_values(saved.iter().map(of))) as _;
    let params = |saved: &Saved| saved.params.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    batch(vec![
        ("name", text(|saved| saved.name.value.clone())),
        ("description", text(|saved| saved.description.clone())),
        ("parameters", text(params)),
        ("file", text(|saved| saved.sql.file.path.clone())),
        ("sql", text(|saved| saved.sql.text.clone())),
    ])
}

/// What has become of each interval that was to be run.
fn intervals_table(tasks: &[Task]) -> DfResult<RecordBatch> {
    let tasks: Vec<&Task> = tasks.iter().filter(|task| task.interval.is_some()).collect();
    let text = |of: fn(&Task) -> Option<String>| Arc::new(tasks.iter().map(|task| of(task)).collect::<StringArray>()) as _;
    let instant = |of: fn(&Task) -> Option<DateTime<Utc>>| instants(tasks.iter().map(|task| of(task).map(stamp)).collect());
    batch(vec![
        ("pipeline", text(|task| Some(task.pipeline.clone()))),
        ("interval_start", instant(|task| task.interval.map(|(start, _)| start))?),
        ("interval_end", instant(|task| task.interval.map(|(_, end)| end))?),
        ("status", text(|task| Some(task.status.as_str().to_owned()))),
        ("origin", text(|task| Some(task.origin.as_str().to_owned()))),
        ("run", text(|task| task.run.clone())),
        ("task", text(|task| Some(task.id.clone()))),
    ])
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

/// What runs by itself, and how far it has come. A schedule that no server has seen has come nowhere; one that is no longer written is there by
/// what was made of it.
fn schedules_table(pipelines: &Pipelines, standings: &BTreeMap<String, Standing>, now: DateTime<Utc>) -> DfResult<RecordBatch> {
    let scheduled = pipelines.iter().filter(|(_, pipeline)| pipeline.schedule.is_some()).map(|(name, _)| name);
    let names: BTreeSet<&String> = scheduled.chain(standings.keys()).collect();
    let schedule_of = |name: &String| pipelines.get(name).and_then(|pipeline| pipeline.schedule.as_ref());
    let rows: Vec<(&String, Option<&Schedule>, Option<&Standing>)> =
        names.into_iter().map(|name| (name, schedule_of(name), standings.get(name))).collect();
    let text = |of: fn(&Schedule) -> Option<String>| {
        Arc::new(rows.iter().map(|(_, schedule, _)| schedule.and_then(of)).collect::<StringArray>()) as _
    };
    let instant = |of: fn(&Standing) -> DateTime<Utc>| {
        instants(rows.iter().map(|(_, _, standing)| standing.map(|standing| stamp(of(standing)))).collect())
    };
    let pauses: Vec<Option<&Pause>> = rows.iter().map(|(_, _, standing)| standing.and_then(|standing| standing.pause.as_ref())).collect();
    let pause = |of: fn(&Pause) -> &str| Arc::new(StringArray::from(pauses.iter().map(|pause| pause.map(of)).collect::<Vec<_>>())) as _;
    let next = rows.iter().map(|(_, schedule, _)| schedule.and_then(|schedule| schedule.next_after(now)).map(stamp)).collect();
    batch(vec![
        ("pipeline", Arc::new(StringArray::from_iter_values(rows.iter().map(|(name, _, _)| name)))),
        ("cron", text(|schedule| schedule.cron.as_ref().map(|cron| cron.text().to_owned()))),
        ("every", text(|schedule| schedule.every.map(units::shown))),
        ("timezone", text(|schedule| Some(schedule.timezone.name().to_owned()))),
        ("next_at", instants(next)?),
        ("since", instant(|standing| standing.since)?),
        ("covered", instant(|standing| standing.covered)?),
        ("paused_at", instants(pauses.iter().map(|pause| pause.map(|pause| pause.at.clone())).collect())?),
        ("paused_by", pause(|pause| pause.by.as_str())),
        ("pause_reason", pause(|pause| pause.reason.as_str())),
    ])
}
