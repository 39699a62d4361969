//! `weir schedule`: when what runs by itself, and what would happen if it did.

mod pause;
mod simulate;

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use serde_json::json;
use weir_engine::{Failure, RunRecord, Workspace, history::tasks::Standing};
use weir_pipelines::{
    Diagnostic, Diagnostics, Pipeline, Schedule,
    cron::{Tz, moment},
    units,
};

use super::context::{Answer, Context, Set, Stop, add_new};
use crate::{
    project,
    render::{Table, error, table::Look},
};

const EXAMPLES: &str = "\
Examples:
  weir schedule list                          each pipeline with a schedule, and its next tick
  weir schedule next flights --count 10       its next ten ticks, each with its interval
  weir schedule pause flights --reason \"the source moves\"
  weir schedule simulate flights --from 2027-03-27 --to 2027-03-30
                                              what would happen on the days around a change of the clocks";

/// Show when pipelines run by themselves, simulate it, let it pause
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct ScheduleCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the pipelines that have a schedule
    ///
    /// Each with its expression, its time zone, its next tick and how its last run ended.
    #[command(after_help = "Examples:\n  weir schedule list\n  weir schedule list --json | jq '.schedules[].next'")]
    List,
    /// Show the next ticks of a pipeline, each with the interval that is run then
    #[command(after_help = "Examples:\n  weir schedule next flights\n  weir schedule next flights --count 3 --after 2027-03-27")]
    Next {
        /// The pipeline by file, folder or name
        #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
        pipeline: String,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
        /// The instant, or the date or time on the clock of the schedule's time zone, after which they come [default: now]
        #[arg(long, value_name = "TIME")]
        after: Option<String>,
    },
    Simulate(simulate::Simulate),
    Pause(pause::PauseCommand),
    Resume(pause::ResumeCommand),
}

impl ScheduleCommand {
    /// Answers.
    pub async fn answer(self, context: &Context) -> Answer {
        match self.command {
            Command::List => list(context).await,
            Command::Next { pipeline, count, after } => next(context, &pipeline, count, after.as_deref()),
            Command::Simulate(simulate) => simulate.answer(context).await,
            Command::Pause(pause) => pause.answer(context).await,
            Command::Resume(resume) => resume.answer(context).await,
        }
    }
}

/// The pipelines of a project that have a schedule. What is wrong with others does not keep these from being told: it goes to the second.
fn scheduled(context: &Context, workspace: &Workspace) -> (Vec<Pipeline>, Diagnostics) {
    let (mut pipelines, mut wrong) = (Vec::new(), Diagnostics::new());
    let files = project::pipelines(&workspace.project.root);
    for found in files.iter().flat_map(|path| project::rows(path)) {
        match context.parse(&workspace.project, &found, &Set::default()) {
            Ok(pipeline) => pipelines.extend(Some(pipeline).filter(|pipeline| pipeline.schedule.is_some())),
            Err(found) => add_new(&mut wrong, found),
        }
    }
    (pipelines, wrong)
}

/// The one pipeline that an argument means, and its schedule.
fn meant(context: &Context, workspace: &Workspace, argument: &str) -> Result<Vec<(Pipeline, Schedule)>, Failure> {
    let pipelines = context.pipelines(workspace, argument, &Set::default())?;
    let schedule = |pipeline: Pipeline| match pipeline.schedule.clone() {
        Some(schedule) => Ok((pipeline, schedule)),
        None => Err(vec![without(&pipeline)].into()),
    };
    pipelines.into_iter().map(schedule).collect()
}

fn without(pipeline: &Pipeline) -> Diagnostic {
    Diagnostic::error("no-schedule", format!("\"{}\" has no schedule", pipeline.name.value))
        .at(&pipeline.file, pipeline.name.span.clone(), "")
        .help("add one: [schedule] with cron = \"15 6 * * *\" or every = \"1h\"")
}

/// `15 6 * * *`, or `every 1h`.
fn expression(schedule: &Schedule) -> String {
    match (&schedule.cron, schedule.every) {
        (Some(cron), _) => cron.text().to_owned(),
        (None, Some(every)) => format!("every {}", units::shown(every)),
        (None, None) => String::new(),
    }
}

/// An instant on the clock of a zone, as `--json` has it.
fn stamp(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::AutoSi, zone == Tz::UTC)
}

/// The same for people.
fn shown(at: DateTime<Utc>, zone: Tz) -> String {
    let fraction = if at.timestamp_subsec_nanos() == 0 { "" } else { "%.3f" };
    at.with_timezone(&zone).format(&format!("%a %Y-%m-%d %H:%M:%S{fraction} %:z")).to_string()
}

/// Reads a moment of an option.
pub(super) fn moment_of(text: &str, option: &str, zone: Tz) -> Result<DateTime<Utc>, Failure> {
    moment(text, zone).ok_or_else(|| {
        let found = Diagnostic::error("bad-moment", format!("{option} is \"{text}\", which is neither a date nor a datetime"));
        vec![found.help(format!("write {option} 2026-01-31T06:00:00Z, or {option} 2026-01-31 for the beginning of a day"))].into()
    })
}

async fn list(context: &Context) -> Answer {
    let workspace = context.existing_workspace()?;
    let (pipelines, wrong) = scheduled(context, &workspace);
    let history = workspace.existing_history().await?;
    let standings = match &history {
        Some(history) => history.standings().await?,
        None => BTreeMap::new(),
    };
    let now = (workspace.clock)();
    let mut answers = Vec::new();
    let mut table = Table::new(Look::Plain, &["pipeline", "schedule", "time zone", "next tick", "last run", "pauses"]);
    for pipeline in &pipelines {
        let Some(schedule) = &pipeline.schedule else { continue };
        let (name, zone) = (&pipeline.name.value, schedule.timezone);
        let last = match &history {
            Some(history) => history.runs(Some(name), 1).await?.into_iter().next(),
            None => None,
        };
        let standing = standings.get(name);
        answers.push(entry(pipeline, schedule, standing, last.as_ref(), now));
        let pause = standing.and_then(|standing| standing.pause.as_ref());
        let pause = pause.map_or_else(String::new, |pause| format!("since {}, by {}: {}", pause.at, pause.by, pause.reason));
        let next = schedule.next_after(now);
        let last = last.map(|run| run.status.as_str().to_owned()).unwrap_or_default();
        let next = next.map_or_else(|| "never again".to_owned(), |at| shown(at, zone));
        table.row([name, &expression(schedule), zone.name(), &next, &last, &pause]);
    }
    if context.global.json {
        context.answer_json(&json!({ "schedules": answers }))?;
    } else if table.is_empty() {
        context.say("no pipeline has a schedule; add one: [schedule] with cron = \"15 6 * * *\" or every = \"1h\"");
    } else {
        context.answer(&table.without_empty_columns().render(context.out))?;
    }
    if wrong.is_empty() { Ok(error::DONE) } else { Err(Stop::Failure(wrong.into())) }
}

/// What is told of a schedule, as `--json` has it.
pub fn entry(
    pipeline: &Pipeline,
    schedule: &Schedule,
    standing: Option<&Standing>,
    last: Option<&RunRecord>,
    now: DateTime<Utc>,
) -> serde_json::Value {
    let zone = schedule.timezone;
    json!({
        "pipeline": pipeline.name.value,
        "cron": schedule.cron.as_ref().map(weir_pipelines::Cron::text),
        "every": schedule.every.map(units::shown),
        "timezone": zone.name(),
        "next": schedule.next_after(now).map(|at| stamp(at, zone)),
        "covered": standing.map(|standing| stamp(standing.covered, zone)),
        "pause": standing.and_then(|standing| standing.pause.as_ref()),
        "last_run": last.map(|run| json!({ "run": run.run, "status": run.status, "started_at": run.started_at })),
    })
}

fn next(context: &Context, argument: &str, count: u32, after: Option<&str>) -> Answer {
    let workspace = context.workspace(Some(argument))?;
    let pipelines = meant(context, &workspace, argument)?;
    let mut answers = Vec::new();
    let mut table = Table::new(Look::Plain, &["pipeline", "tick", "interval begins"]);
    for (pipeline, schedule) in &pipelines {
        let (name, zone) = (&pipeline.name.value, schedule.timezone);
        let after = after.map_or_else(|| Ok((workspace.clock)()), |text| moment_of(text, "--after", zone))?;
        // The first tick behind a start only begins an interval.
        let begun = schedule.last_at_or_before(after).or_else(|| schedule.next_after(after));
        let ticks = std::iter::successors(begun, |tick| schedule.next_after(*tick)).take(count as usize + 1).collect::<Vec<_>>();
        for pair in ticks.windows(2) {
            answers.push(json!({
                "pipeline": name,
                "at": stamp(pair[1], zone),
                "interval_start": stamp(pair[0], zone),
                "interval_end": stamp(pair[1], zone),
            }));
            table.row([name, &shown(pair[1], zone), &shown(pair[0], zone)]);
        }
        if ticks.len() < 2 && !context.global.json {
            context.say(&format!("\"{name}\" does not run again"));
        }
    }
    if context.global.json {
        context.answer_json(&answers)?;
    } else if !table.is_empty() {
        context.answer(&table.render(context.out))?;
    }
    Ok(error::DONE)
}
