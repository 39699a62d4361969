//! `weir runs`: what ran, when, and what came of it; and what becomes of a run that its process left.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::json;
use weir_engine::{
    Failure, History, RunRecord, RunStatus, Workspace,
    books::ExpectationOutcome,
    history::tasks::{Task, TaskStatus},
};

use super::{
    context::{Answer, Context, Stop},
    failing,
};
use crate::{
    project,
    render::{
        Style, Table, error,
        number::{count, duration_ms},
        summary,
        table::Look,
    },
};

const EXAMPLES: &str = "\
Examples:
  weir runs list                    the last 20 runs
  weir runs list flights --limit 5
  weir runs show 0193a              one run's account, by the start of its id
  weir runs failing 0193a           the rows that broke its expectations
  weir runs resume 0193a            finish what a crash left in the middle
  weir runs cancel 0193a            stop what a server runs, or what waits
  weir runs retry 0193a             let what has failed or was skipped be run once more
  weir sql -c \"select status, count(*) from weir.runs group by 1\"";

const FAILING_EXAMPLES: &str = "\
Examples:
  weir runs failing 0193a
  weir runs failing 0193a \"ids are unique\" --limit 100
  weir sql -c 'select step, expectation, \"row\" from weir.failing_rows'";

/// List runs, show what one of them did and which rows failed it, finish one that a crash left; stop one, or try it again
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Runs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List runs, newest first
    #[command(after_help = "Example:\n  weir runs list flights --limit 5")]
    List {
        /// Only this pipeline's, by name
        #[arg(value_name = "PIPELINE")]
        pipeline: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u32,
    },
    /// Show what one run did
    #[command(after_help = "Example:\n  weir runs show 0193a")]
    Show {
        /// The run's id, or as much of its start as is unique
        #[arg(value_name = "RUN")]
        run: String,
    },
    /// Show the rows that broke a run's expectations
    ///
    /// They are kept whether the run published or not: up to 10,000 rows and 8 MiB an expectation, for the last 20 runs of a pipeline that
    /// had any. All of them are the table weir.failing_rows.
    #[command(after_help = FAILING_EXAMPLES)]
    Failing {
        /// The run's id, or as much of its start as is unique
        #[arg(value_name = "RUN")]
        run: String,
        /// Only this expectation's, by its name
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// At most so many rows of each expectation
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Finish a run that a crash left in the middle, or discard it
    ///
    /// A run that was decided is published, one that was not is discarded, as the pipeline's next run would do. With --discard, a
    /// decided run is given up: what is staged is removed, what is published stays, and the answer says where.
    #[command(after_help = "Examples:\n  weir doctor\n  weir runs resume 0193a\n  weir runs resume 0193a --discard")]
    Resume {
        /// The run's id, or as much of its start as is unique
        #[arg(value_name = "RUN")]
        run: String,
        /// Give it up instead, decided or not
        #[arg(long)]
        discard: bool,
    },
    /// List what servers have to run and have run: scheduled, triggered, backfilled; newest first
    #[command(after_help = "Examples:\n  weir runs tasks\n  weir runs tasks flights --limit 100")]
    Tasks {
        /// Only this pipeline's, by name
        #[arg(value_name = "PIPELINE")]
        pipeline: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u32,
    },
    /// Stop a run of a server, or take a task that waits out of its queue
    ///
    /// A run that is decided is published all the same. One that was started with weir run is stopped by Ctrl-C.
    #[command(after_help = "Example:\n  weir runs cancel 0193a")]
    Cancel {
        /// The id of the run or of its task, or as much of its start as is unique
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Let a task of a server that has failed, was skipped or cancelled be run once more
    #[command(after_help = "Example:\n  weir runs retry 0193a")]
    Retry {
        /// The id of the task or of its last run, or as much of its start as is unique
        #[arg(value_name = "ID")]
        id: String,
    },
}

impl Runs {
    /// Looks into the history and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let workspace = context.existing_workspace()?;
        let history = workspace.history().await?;
        match self.command {
            Command::List { pipeline, limit } => {
                let runs = match pipeline.map(|name| several(&name, &workspace, context)) {
                    None => history.runs(None, limit).await?,
                    Some(names) => {
                        let mut runs = Vec::new();
                        for name in &names {
                            runs.extend(history.runs(Some(name), limit).await?);
                        }
                        // Ids are in the order of time.
                        runs.sort_by(|one, other| other.run.cmp(&one.run));
                        runs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                        runs
                    }
                };
                if context.global.json {
                    context.answer_json(&json!({ "runs": runs }))?;
                } else if runs.is_empty() {
                    context.say("nothing has run yet; start with: weir run PIPELINE");
                } else {
                    context.answer(&list(&runs, context.out))?;
                }
            }
            Command::Show { run } => {
                let record = known(&history, &run).await?;
                let failing = failing::of(&workspace, &record)?.map(|failing| failing.outcomes).unwrap_or_default();
                if context.global.json {
                    let mut answer = serde_json::to_value(&record).expect("a run is plain data");
                    answer["failing"] = json!(failing);
                    context.answer_json(&answer)?;
                } else {
                    context.answer(&show(&record, &failing, context.out))?;
                }
            }
            Command::Failing { run, name, limit } => {
                let record = known(&history, &run).await?;
                failing::answer(&workspace, &record, name.as_deref(), limit, context).await?;
            }
            Command::Tasks { pipeline, limit } => {
                let tasks = history.tasks(pipeline.as_deref(), limit).await?;
                if context.global.json {
                    context.answer_json(&json!({ "tasks": tasks }))?;
                } else if tasks.is_empty() {
                    context.say("nothing was given to a server yet; start one with: weir serve");
                } else {
                    context.answer(&tasks_table(&tasks, context.out))?;
                }
            }
            Command::Cancel { id } => {
                let task = known_task(&history, &id).await?;
                let sentence = match history.cancel_task(&task.id, "cancelled by hand", Utc::now()).await? {
                    Some(TaskStatus::Cancelled) if task.status == TaskStatus::Waiting => "it is taken out of the queue".to_owned(),
                    Some(TaskStatus::Running) => "its server is asked to stop it".to_owned(),
                    status => format!("it is {} already: there is nothing to stop", status.unwrap_or(task.status).as_str()),
                };
                did(context, &history, &task, &sentence).await?;
            }
            Command::Retry { id } => {
                let task = known_task(&history, &id).await?;
                let sentence = match history.retry_task(&task.id, Utc::now()).await? {
                    true => "it waits for a server to run it once more".to_owned(),
                    false => format!("it is {}: only what has failed, was skipped or cancelled is run once more", task.status.as_str()),
                };
                did(context, &history, &task, &sentence).await?;
            }
            Command::Resume { run, discard } => {
                let cancel = context.signals.token();
                let sentence = weir_engine::publish::take_up_by_id(&workspace, &run, discard, cancel).await?;
                if context.global.json {
                    let record = history.run(&run).await?;
                    context.answer_json(&json!({ "did": sentence, "run": record }))?;
                } else {
                    context.answer(&format!("{sentence}\n"))?;
                }
            }
        }
        Ok(error::DONE)
    }
}

/// The pipelines that a name means: those of all rows, where it is of a file with a matrix.
fn several(name: &str, workspace: &Workspace, context: &Context) -> Vec<String> {
    match project::find_pipelines(name, &workspace.project.root, &context.folder) {
        Ok(found) if found.len() > 1 => found.iter().map(project::Found::name).collect(),
        _ => vec![name.to_owned()],
    }
}

async fn known_task(history: &History, id: &str) -> Result<Task, Stop> {
    let unknown = || {
        Failure::error("unknown-task", format!("no task of a server, and no run of one, is called \"{id}\""))
            .help("see them with: weir runs tasks")
    };
    history.task(id).await?.ok_or_else(|| unknown().into())
}

async fn did(context: &Context, history: &History, task: &Task, sentence: &str) -> Result<(), Stop> {
    if context.global.json {
        let task = history.task(&task.id).await?;
        return context.answer_json(&json!({ "did": sentence, "task": task }));
    }
    context.answer(&format!("task {} of {}: {sentence}\n", task.id, task.pipeline))
}

fn tasks_table(tasks: &[Task], style: Style) -> String {
    let mut table = Table::new(Look::Plain, &["task", "pipeline", "from", "to", "origin", "status", ">tries", "why"]);
    for task in tasks {
        let instant = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S").to_string();
        let (from, to) = task.interval.map(|(from, to)| (instant(from), instant(to))).unwrap_or_default();
        table.row([
            task.id.clone(),
            task.pipeline.clone(),
            from,
            to,
            task.origin.as_str().to_owned(),
            task.status.as_str().to_owned(),
            count(u64::from(task.attempts)),
            first_line(task.reason.as_deref().unwrap_or("")),
        ]);
    }
    table.without_empty_columns().render(style)
}

async fn known(history: &History, run: &str) -> Result<RunRecord, Stop> {
    history
        .run(run)
        .await?
        .ok_or_else(|| Failure::error("unknown-run", format!("there is no run \"{run}\"")).help("see the runs with: weir runs list").into())
}

fn list(runs: &[RunRecord], style: Style) -> String {
    let mut table = Table::new(
        Look::Plain,
        &["run", "pipeline", "interval", "status", "started", ">took", ">read", ">loaded", ">quarantined", "error"],
    );
    for run in runs {
        let rows = |rows: fn(&weir_engine::Summary) -> u64| run.summary.as_ref().map(|summary| count(rows(summary))).unwrap_or_default();
        table.row([
            run.run.clone(),
            run.pipeline.clone(),
            interval(run),
            run.status.as_str().to_owned(),
            minute(&run.started_at),
            took(run),
            rows(|summary| summary.rows_read),
            rows(|summary| summary.rows_loaded),
            rows(|summary| summary.rows_quarantined),
            first_line(run.error.as_deref().unwrap_or("")),
        ]);
    }
    table.without_empty_columns().render(style)
}

fn show(run: &RunRecord, failing: &[ExpectationOutcome], style: Style) -> String {
    let mut out = format!(
        "run       {}\npipeline  {}\nstatus    {}\nstarted   {}\n",
        run.run,
        run.pipeline,
        status(run.status, style),
        run.started_at
    );
    if let Some(finished) = &run.finished_at {
        out.push_str(&format!("finished  {finished}\n"));
    }
    if let (Some(from), Some(to)) = (&run.interval_start, &run.interval_end) {
        out.push_str(&format!("interval  {from} to {to}\n"));
    }
    if let Some(error) = &run.error {
        out.push_str(&format!("error     {}\n", error.trim_end().replace('\n', "\n          ")));
    }
    if let Some(account) = &run.summary {
        out.push('\n');
        out.push_str(&summary::render(account, style));
    } else if !failing.is_empty() {
        out.push('\n');
        failing.iter().for_each(|outcome| out.push_str(&summary::unmet(outcome, style)));
    }
    if failing.iter().any(|outcome| outcome.rows_kept > 0) {
        out.push_str(&format!("  see the rows that fail with: weir runs failing {}\n", run.run));
    }
    out
}

fn status(status: RunStatus, style: Style) -> String {
    match status {
        RunStatus::Published => style.green(status.as_str()),
        RunStatus::Failed | RunStatus::Interrupted => style.red(status.as_str()),
        RunStatus::Running | RunStatus::Deciding | RunStatus::Publishing | RunStatus::DryRun => style.yellow(status.as_str()),
    }
}

/// `2026-11-23T00:00:00.123Z` as `2026-11-23 00:00:00`; what is no such time stays as it is.
fn minute(time: &str) -> String {
    DateTime::parse_from_rfc3339(time).map_or_else(|_| time.to_owned(), |time| time.to_utc().format("%Y-%m-%d %H:%M:%S").to_string())
}

/// From where to where, the second without what it shares with the first.
fn interval(run: &RunRecord) -> String {
    let (Some(from), Some(to)) = (&run.interval_start, &run.interval_end) else { return String::new() };
    let (from, to) = (minute(from), minute(to));
    let to = to.strip_prefix(from.split(' ').next().unwrap_or("")).map_or(to.as_str(), str::trim_start);
    format!("{from} to {to}")
}

fn took(run: &RunRecord) -> String {
    let (Ok(start), Some(Ok(end))) =
        (DateTime::parse_from_rfc3339(&run.started_at), run.finished_at.as_deref().map(DateTime::parse_from_rfc3339))
    else {
        return String::new();
    };
    u64::try_from((end - start).num_milliseconds()).map(duration_ms).unwrap_or_default()
}

fn first_line(text: &str) -> String {
    crate::render::text::cut(text.lines().next().unwrap_or(""), 80).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: RunStatus, finished_at: Option<&str>, error: Option<&str>) -> RunRecord {
        RunRecord {
            run: "0193a".into(),
            pipeline: "flights".into(),
            status,
            started_at: "2026-11-23T00:00:00.250Z".into(),
            finished_at: finished_at.map(str::to_owned),
            error: error.map(str::to_owned),
            code: None,
            step: None,
            summary: None,
            lane: 0,
            task: None,
            interval_start: None,
            interval_end: None,
        }
    }

    #[test]
    fn runs_are_listed_with_what_is_known_of_them() {
        let runs = [
            record(RunStatus::Failed, Some("2026-11-23T00:01:05.250Z"), Some("the disk is full\nwrote 12 MB")),
            record(RunStatus::Running, None, None),
        ];
        assert_eq!(
            list(&runs, Style::PLAIN),
            "run    pipeline  status   started                took  error\n\
             0193a  flights   failed   2026-11-23 00:00:00  1m 05s  the disk is full\n\
             0193a  flights   running  2026-11-23 00:00:00\n"
        );
    }

    #[test]
    fn one_run_shows_its_error_whole() {
        assert_eq!(
            show(&record(RunStatus::Failed, None, Some("the disk is full\nwrote 12 MB")), &[], Style::PLAIN),
            "run       0193a\npipeline  flights\nstatus    failed\nstarted   2026-11-23T00:00:00.250Z\nerror     the disk is full\n          wrote 12 MB\n"
        );
    }
}
