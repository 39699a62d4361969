//! `weir backfill`: runs a pipeline for the intervals of a time that lies behind.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use serde_json::json;
use weir_engine::{
    Failure, History, Workspace,
    history::{
        backfills::BackfillRecord,
        tasks::{Task, TaskStatus},
    },
    scheduler::{
        Notice, Outcome, Scheduler, Settings, Tell,
        backfill::{self, Asked, PARALLEL_MAX, Plan, Reprocess},
    },
};
use weir_pipelines::{Diagnostic, Pipeline};

use super::{
    context::{Answer, Context, Set},
    schedule::moment_of,
};
use crate::{
    render::{
        Style, Table, error,
        number::{counted, duration_ms},
        table::Look,
    },
    watch::Files,
};

const EXAMPLES: &str = "\
Examples:
  weir backfill flights --from 2026-01-01 --to 2026-02-01 --dry-run
  weir backfill flights --from 2026-01-01 --to 2026-02-01 --parallel 4
  weir backfill flights --from 2026-01-01 --to 2026-02-01 --reprocess all --backwards
  weir backfill --list
  weir backfill --resume 0193a          go on with what is left of one
  weir backfill --cancel 0193a";

/// Run a pipeline for the intervals of a time that lies behind
///
/// The schedule cuts the time into intervals, or --step does. Those that have published are left alone, unless --reprocess all asks for them.
/// What is left when this command is stopped waits: --resume goes on with it, and so does a `weir serve` of the same state, behind what is scheduled.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Backfill {
    /// The pipeline: its file, its folder or its name
    #[arg(value_name = "PIPELINE", required_unless_present_any = ["list", "resume", "cancel"])]
    pipeline: Option<String>,
    /// From here on: a date, or an instant such as 2026-01-01T06:00:00Z; a date and one without an offset are on the schedule's clock
    #[arg(long, value_name = "INSTANT", required_unless_present_any = ["list", "resume", "cancel"])]
    from: Option<String>,
    /// Up to here, not included; now where it is later
    #[arg(long, value_name = "INSTANT", required_unless_present_any = ["list", "resume", "cancel"])]
    to: Option<String>,
    /// Intervals of this length, such as 1d, in place of those of the schedule
    #[arg(long, value_name = "DURATION", value_parser = weir_pipelines::units::duration)]
    step: Option<Duration>,
    /// Which intervals are run
    #[arg(long, value_enum, default_value_t = Which::Missing)]
    reprocess: Which,
    /// So many runs side by side; only where they cannot come in one another's way
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(PARALLEL_MAX)))]
    parallel: u32,
    /// The latest interval first
    #[arg(long)]
    backwards: bool,
    /// Show the intervals and what is known of each; run nothing
    #[arg(long)]
    dry_run: bool,
    /// Add it and leave it to a running `weir serve`
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
    /// List the last 20 backfills
    #[arg(long, conflicts_with_all = ["pipeline", "from", "to", "resume", "cancel"])]
    list: bool,
    /// Go on with a backfill that was stopped, cancelled or has failed in part
    #[arg(long, value_name = "ID", conflicts_with_all = ["pipeline", "from", "to", "cancel"])]
    resume: Option<String>,
    /// Cancel what is left of a backfill
    #[arg(long, value_name = "ID", conflicts_with_all = ["pipeline", "from", "to"])]
    cancel: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// Those that no published run was for
    Missing,
    /// Those whose last run failed
    Failed,
    /// Each, also what is published
    All,
}

impl From<Which> for Reprocess {
    fn from(which: Which) -> Self {
        match which {
            Which::Missing => Self::Missing,
            Which::Failed => Self::Failed,
            Which::All => Self::All,
        }
    }
}

impl Backfill {
    /// Plans, runs and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        if self.list {
            let history = context.existing_workspace()?.history().await?;
            return list(&history, context).await;
        }
        if let Some(id) = &self.cancel {
            let history = context.existing_workspace()?.history().await?;
            let record = known(&history, id).await?;
            let tasks = history.cancel_backfill(&record.id, "cancelled by hand", Utc::now()).await?;
            return answer_one(context, &history, &record, &format!("{} cancelled", counted(tasks, "run is", "runs are"))).await;
        }
        if let Some(id) = &self.resume {
            let workspace = context.existing_workspace()?;
            let history = workspace.history().await?;
            let record = known(&history, id).await?;
            history.resume_backfill(&record.id, Utc::now()).await?;
            let parallel = usize::try_from(record.parallel).unwrap_or(1);
            return self.work_off(context, workspace, &history, &record, parallel).await;
        }
        let name = self.pipeline.clone().unwrap_or_default();
        let workspace = context.workspace(Some(&name))?;
        let wrong = context.check_connections(&workspace.project);
        if !wrong.is_empty() {
            return Err(wrong.into());
        }
        let pipeline = context.pipeline(&workspace, &name, &Set::default())?;
        let asked = self.asked(&pipeline)?;
        let history = workspace.history().await?;
        let plan = backfill::plan(&history, &pipeline, &asked, Utc::now()).await?;
        if self.dry_run {
            if context.global.json {
                context.answer_json(&plan)?;
            } else {
                context.answer(&show(&plan, context.out))?;
            }
            return Ok(error::DONE);
        }
        if !plan.intervals.iter().any(|interval| interval.taken) {
            context.say("no interval is left to run; see them with --dry-run, or take all with --reprocess all");
            if context.global.json {
                context.answer_json(&json!({ "backfill": null, "tasks": {} }))?;
            }
            return Ok(error::DONE);
        }
        let record = backfill::add(&history, &pipeline, &asked, &plan, Utc::now()).await?;
        context.say(&format!("backfill {}: {}", record.id, intervals(&plan)));
        if self.detach {
            return answer_one(context, &history, &record, "added; a running weir serve takes it").await;
        }
        self.work_off(context, workspace, &history, &record, usize::try_from(self.parallel).unwrap_or(1)).await
    }

    fn asked(&self, pipeline: &Pipeline) -> Result<Asked, Failure> {
        let zone = pipeline.schedule.as_ref().map(|schedule| schedule.timezone).unwrap_or_default();
        let read = |option: &str, text: &Option<String>| moment_of(text.as_deref().unwrap_or_default(), option, zone);
        let interval = (read("--from", &self.from)?, read("--to", &self.to)?);
        if interval.0 >= interval.1 {
            return Err(Diagnostic::error("no-intervals", "--from is not before --to").into());
        }
        Ok(Asked { interval, step: self.step, reprocess: self.reprocess.into(), parallel: self.parallel, backwards: self.backwards })
    }

    /// Runs what is left of it here.
    async fn work_off(
        &self,
        context: &Context,
        workspace: Workspace,
        history: &History,
        record: &BackfillRecord,
        runs_max: usize,
    ) -> Answer {
        let stop = context.signals.work("stopping; what is left of the backfill waits");
        let (quiet, json) = (context.global.quiet, context.global.json);
        let tell: Tell = Arc::new(move |notice| {
            if let (Notice::Ended { task, outcome, error, duration_ms: took, retry_at, .. }, false) = (notice, quiet || json) {
                let interval = task.interval.map(span).unwrap_or_default();
                let more = match (outcome, error, retry_at) {
                    (Outcome::Published, ..) => String::new(),
                    (_, Some(error), Some(at)) => format!(": {error}; it is tried again at {}", at.format("%H:%M:%S")),
                    (_, Some(error), None) => format!(": {error}"),
                    _ => String::new(),
                };
                super::context::to_stderr(&format!("{interval}  {} in {}{more}", outcome.as_str(), duration_ms_of(*took)));
            }
        });
        let settings =
            Settings { name: "backfill".to_owned(), runs_max, connection_runs_max: super::serve::connection_runs_max(&workspace.project) };
        let files = Arc::new(Files::new(workspace.project.clone()));
        let scheduler = Scheduler::new(workspace, files, settings, tell).await?;
        scheduler.work_off(&record.id, stop.clone()).await?;
        let tasks = history.tasks_of(&record.id).await?;
        answer_one(context, history, record, "").await?;
        let is = |status: TaskStatus| tasks.iter().any(|task: &Task| task.status == status);
        Ok(match () {
            () if stop.is_cancelled() => error::INTERRUPTED,
            () if is(TaskStatus::Failed) => error::FAILED,
            () => error::DONE,
        })
    }
}

fn duration_ms_of(took: u64) -> String {
    duration_ms(took)
}

fn span((start, end): (DateTime<Utc>, DateTime<Utc>)) -> String {
    format!("{} to {}", start.format("%Y-%m-%dT%H:%M:%SZ"), end.format("%Y-%m-%dT%H:%M:%SZ"))
}

fn intervals(plan: &Plan) -> String {
    let taken = plan.intervals.iter().filter(|interval| interval.taken).count();
    format!("{} of {}", taken, counted(plan.intervals.len() as u64, "interval", "intervals"))
}

fn show(plan: &Plan, style: Style) -> String {
    let mut table = Table::new(Look::Plain, &["from", "to", "status", "version", "run"]);
    for known in &plan.intervals {
        let instant = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let run = if known.taken { "yes" } else { "no" };
        // As much of a hash as tells versions apart.
        let version = known.definition.as_deref().map_or("", |hash| hash.get(..8).unwrap_or(hash));
        table.row([instant(known.start), instant(known.end), known.status.clone(), version.to_owned(), run.to_owned()]);
    }
    format!("{}{} would be run\n", table.without_empty_columns().render(style), intervals(plan))
}

async fn known(history: &History, id: &str) -> Result<BackfillRecord, Failure> {
    let unknown =
        || Failure::error("unknown-backfill", format!("there is no backfill \"{id}\"")).help("see them with: weir backfill --list");
    history.backfill(id).await?.ok_or_else(unknown)
}

fn counts(tasks: &[Task]) -> String {
    let counts = backfill::count(tasks);
    counts.iter().map(|(status, count)| format!("{count} {status}")).collect::<Vec<_>>().join(", ")
}

async fn answer_one(context: &Context, history: &History, record: &BackfillRecord, sentence: &str) -> Answer {
    let tasks = history.tasks_of(&record.id).await?;
    if context.global.json {
        context.answer_json(&json!({ "backfill": record, "did": sentence, "tasks": backfill::count(&tasks), "intervals": tasks }))?;
    } else {
        let did = if sentence.is_empty() { String::new() } else { format!("{sentence}; ") };
        context.answer(&format!("backfill {}: {did}{}\n", record.id, counts(&tasks)))?;
        for task in tasks.iter().filter(|task| task.status == TaskStatus::Failed) {
            let interval = task.interval.map(span).unwrap_or_default();
            context.say(&format!("{interval}  failed: {}", task.reason.as_deref().unwrap_or("")));
        }
    }
    Ok(error::DONE)
}

async fn list(history: &History, context: &Context) -> Answer {
    let mut table = Table::new(Look::Plain, &["backfill", "pipeline", "from", "to", "runs"]);
    let mut answers = Vec::new();
    for record in history.backfills(20).await? {
        let tasks = history.tasks_of(&record.id).await?;
        answers.push(json!({ "backfill": record, "tasks": backfill::count(&tasks) }));
        let day = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%MZ").to_string();
        table.row([record.id, record.pipeline, day(record.interval.0), day(record.interval.1), counts(&tasks)]);
    }
    if context.global.json {
        context.answer_json(&json!({ "backfills": answers }))?;
    } else if answers.is_empty() {
        context.say("there has been no backfill yet; start one with: weir backfill PIPELINE --from DAY --to DAY");
    } else {
        context.answer(&table.render(context.out))?;
    }
    Ok(error::DONE)
}
