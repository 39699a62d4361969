//! What the server asks of the scheduler behind it.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use weir_engine::{
    Failure, RunRecord, RunStatus, Workspace,
    history::{
        tasks::{Origin, TaskStatus},
        tokens::Token,
    },
    scheduler::{Catalogue, Request, Scheduler},
};
use weir_pipelines::{Diagnostic, cron::Tz};

use super::control::{Accepted, Ask, Control, Gauges, LastEnded, Pool, Refused, RunsQuery};
use crate::{
    cli::{run::interval_in, schedule},
    watch::Files,
};

/// Runs that are looked through for those of a status.
const RUNS_SEARCHED: u32 = 5_000;

/// A scheduler, as the server asks it.
#[derive(Debug)]
pub struct Scheduled {
    /// The scheduler.
    pub scheduler: Arc<Scheduler>,
    /// The project.
    pub workspace: Workspace,
    /// Its pipelines.
    pub files: Arc<Files>,
}

impl Scheduled {
    async fn ask(&self, ask: Ask) -> Result<Accepted, Refused> {
        let files = self.files.clone();
        let look = tokio::task::spawn_blocking(move || files.look()).await;
        let pipelines = look.map_err(|_| Failure::error("panic", "reading the pipelines panicked"))?.pipelines;
        let Some(pipeline) = pipelines.get(&ask.pipeline) else {
            let found = Diagnostic::error("unknown-pipeline", format!("there is no pipeline \"{}\"", ask.pipeline));
            return Err(Refused::unknown(found.did_you_mean(&ask.pipeline, pipelines.keys().map(String::as_str))));
        };
        let zone = pipeline.schedule.as_ref().map_or(Tz::UTC, |schedule| schedule.timezone);
        let interval = ask.interval.as_deref().map(|text| interval_in(text, "interval", zone)).transpose()?;
        let key = ask.key.map(|key| format!("asked:{key}"));
        let before = match &key {
            Some(key) => self.scheduler.history().task_by_key(&ask.pipeline, key).await?,
            None => None,
        };
        let request = Request {
            pipeline: ask.pipeline,
            params: ask.params.into_iter().collect::<BTreeMap<_, _>>(),
            interval: interval.map(|interval| (interval.start, interval.end)),
            key,
        };
        let new = before.is_none();
        let task = match before {
            Some(task) => task,
            None => self.scheduler.request(request, Origin::Trigger).await?,
        };
        tracing::info!(pipeline = task.pipeline, task = task.id, by = ask.by, new, "a run is asked for");
        Ok(Accepted { task: task.id, run: task.run, status: task.status.as_str().to_owned(), new })
    }

    async fn stop(&self, id: &str, by: &str) -> Result<(), Refused> {
        let history = self.scheduler.history();
        let unknown =
            || Refused::unknown(Failure::error("unknown-task", format!("no task of a server, and no run of one, is called \"{id}\"")));
        let task = history.task(id).await?.ok_or_else(unknown)?;
        if !matches!(task.status, TaskStatus::Waiting | TaskStatus::Running) {
            let status = task.status.as_str();
            return Err(Refused::conflict(Failure::error("task-over", format!("it is {status} already: there is nothing to stop"))));
        }
        history.cancel_task(&task.id, &format!("cancelled over HTTP, with the token \"{by}\""), Utc::now()).await?;
        Ok(())
    }

    async fn list(&self, query: RunsQuery) -> Result<Vec<Value>, Refused> {
        let limit = u32::try_from(query.limit).unwrap_or(u32::MAX);
        let searched = if query.status.is_some() { RUNS_SEARCHED } else { limit };
        let status = match query.status.as_deref().map(str::parse::<RunStatus>) {
            Some(Err(())) => return Err(Refused::wrong(Failure::error("unknown-status", "there is no such status of a run"))),
            status => status.and_then(Result::ok),
        };
        let runs = self.scheduler.history().runs(query.pipeline.as_deref(), searched).await?;
        let meant = runs.into_iter().filter(|run| status.is_none_or(|status| run.status == status)).take(query.limit);
        Ok(meant.map(|run| serde_json::to_value(run).expect("a run is plain data")).collect())
    }

    async fn show(&self, id: &str) -> Result<Value, Refused> {
        let history = self.scheduler.history();
        if let Some(run) = history.run(id).await? {
            return Ok(serde_json::to_value(run).expect("a run is plain data"));
        }
        match history.task(id).await? {
            Some(task) => Ok(json!({ "task": task })),
            None => Err(Refused::unknown(Failure::error("unknown-run", format!("there is no run \"{id}\"")))),
        }
    }

    async fn scheduled(&self) -> Result<Vec<Value>, Refused> {
        let history = self.scheduler.history();
        let standings = history.standings().await?;
        let files = self.files.clone();
        let look = tokio::task::spawn_blocking(move || files.look()).await;
        let pipelines = look.map_err(|_| Failure::error("panic", "reading the pipelines panicked"))?.pipelines;
        let now = (self.workspace.clock)();
        let mut entries = Vec::new();
        for (name, pipeline) in pipelines.iter() {
            let Some(of) = &pipeline.schedule else { continue };
            let last = history.runs(Some(name), 1).await?.into_iter().next();
            entries.push(schedule::entry(pipeline, of, standings.get(name), last.as_ref(), now));
        }
        Ok(entries)
    }
}

fn ended(run: RunRecord) -> Option<LastEnded> {
    let at = DateTime::parse_from_rfc3339(run.finished_at.as_deref()?).ok()?.to_utc();
    let published = run.status == RunStatus::Published;
    Some(LastEnded { pipeline: run.pipeline, run: run.run, at, published, code: run.code, error: run.error })
}

impl Control for Scheduled {
    fn ready(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.scheduler.history().ping())
    }

    fn trigger(&self, ask: Ask) -> BoxFuture<'_, Result<Accepted, Refused>> {
        Box::pin(self.ask(ask))
    }

    fn cancel(&self, run: String, by: String) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(async move { self.stop(&run, &by).await })
    }

    fn runs(&self, query: RunsQuery) -> BoxFuture<'_, Result<Vec<Value>, Refused>> {
        Box::pin(self.list(query))
    }

    fn run(&self, id: String) -> BoxFuture<'_, Result<Value, Refused>> {
        Box::pin(async move { self.show(&id).await })
    }

    fn schedules(&self) -> BoxFuture<'_, Result<Vec<Value>, Refused>> {
        Box::pin(self.scheduled())
    }

    fn token(&self, hash: String) -> BoxFuture<'_, Result<Option<Token>, Failure>> {
        Box::pin(async move { self.scheduler.history().token_by_hash(&hash).await })
    }

    fn token_named(&self, name: String) -> BoxFuture<'_, Result<Option<Token>, Failure>> {
        Box::pin(async move { self.scheduler.history().token_by_name(&name).await })
    }

    fn gauges(&self) -> BoxFuture<'_, Result<Gauges, Failure>> {
        Box::pin(async move {
            let gauges = self.scheduler.gauges();
            let (open, idle) = self.scheduler.history().connections();
            let pool = |state, count: u32| Pool { connection: "state".to_owned(), state, count: u64::from(count) };
            let files = self.files.clone();
            let look = tokio::task::spawn_blocking(move || files.look()).await;
            let pipelines = look.map_err(|_| Failure::error("panic", "reading the pipelines panicked"))?.pipelines;
            #[expect(clippy::cast_precision_loss, reason = "seconds of a gauge")]
            let lag = |name: &String| gauges.lag_ms.get(name).copied().unwrap_or(0) as f64 / 1000.0;
            let scheduled = pipelines.iter().filter(|(_, pipeline)| pipeline.schedule.is_some());
            Ok(Gauges {
                lag: scheduled.map(|(name, _)| (name.clone(), lag(name))).collect(),
                waiting: gauges.queued.clone().into_iter().collect(),
                running: gauges.running,
                leading: gauges.leading,
                pools: vec![pool("idle", idle), pool("used", open.saturating_sub(idle))],
            })
        })
    }

    fn last_ended(&self) -> BoxFuture<'_, Result<Vec<LastEnded>, Failure>> {
        Box::pin(async move { Ok(self.scheduler.history().last_ended().await?.into_iter().filter_map(ended).collect()) })
    }
}
