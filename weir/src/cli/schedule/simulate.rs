//! `weir schedule simulate`: every tick between two instants, and what would become of it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde_json::{Map, Value, json};
use weir_connectors::Interval;
use weir_engine::{
    Failure, History, RunStatus,
    schedule::simulate::{Plan, Settled, TICKS_MAX, simulate},
};
use weir_pipelines::{Diagnostic, Pipeline, Schedule, units};

use super::{meant, moment_of, shown, stamp};
use crate::{
    cli::{
        context::{Answer, Context},
        run::interval_of,
    },
    render::{Table, error, table::Look},
};

const EXAMPLES: &str = "\
Examples:
  weir schedule simulate flights --from 2027-03-27 --to 2027-03-30
  weir schedule simulate flights airports --from 2026-01-01 --to 2026-01-02 --durations 45m
  weir schedule simulate flights --from 2026-01-01 --to 2026-01-08 --outage 2026-01-03T08:00/2026-01-04T12:00
  weir schedule simulate flights --from 2026-01-01 --to 2026-02-01 --json | jq 'map(select(.action == \"skip\"))'";
/// So many published runs say how long one takes.
const RUNS: u32 = 20;

/// Show every tick between two instants, and what would become of it
///
/// Decides as the scheduler does: which intervals are run, caught up, joined, kept waiting or skipped, and when runs would begin and end. All
/// before --from is taken as published. A run that an outage ends is begun again behind it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Simulate {
    /// Pipelines by file, folder or name; those that wait for one another are simulated together
    #[arg(value_name = "PIPELINE", required = true, value_hint = clap::ValueHint::AnyPath)]
    pipelines: Vec<String>,
    /// Where to begin: an instant, or a date or time on the clock of the first pipeline's time zone
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Where to end
    #[arg(long, value_name = "TIME")]
    to: String,
    /// A stretch of time in which nothing runs; may be given several times
    #[arg(long, value_name = "START/END")]
    outage: Vec<String>,
    /// How long a run takes: a duration, or the median of each pipeline's last published runs
    #[arg(long, value_name = "from-history|DURATION", default_value = "from-history")]
    durations: String,
}

impl Simulate {
    /// Simulates and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let workspace = context.workspace(self.pipelines.first().map(String::as_str))?;
        let mut pipelines: Vec<(Pipeline, Schedule)> = Vec::new();
        for argument in &self.pipelines {
            for (pipeline, schedule) in meant(context, &workspace, argument)? {
                if !pipelines.iter().any(|(known, _)| known.name.value == pipeline.name.value) {
                    pipelines.push((pipeline, schedule));
                }
            }
        }
        let Some((first, schedule)) = pipelines.first() else { return Ok(error::DONE) };
        let zone = schedule.timezone;
        let (from, to) = (moment_of(&self.from, "--from", zone)?, moment_of(&self.to, "--to", zone)?);
        if from >= to {
            let found = Diagnostic::error("bad-moment", "--to is no later than --from");
            return Err(vec![found.help("write the earlier one first")].into());
        }
        let outages = self.outage.iter().map(|text| interval_of(text, "--outage", first)).collect::<Result<Vec<Interval>, _>>()?;
        let history = workspace.existing_history().await?;
        let mut plans = Vec::new();
        for (pipeline, schedule) in &pipelines {
            let name = pipeline.name.value.as_str();
            let takes = match self.durations.as_str() {
                "from-history" => median(history.as_ref(), name).await?.unwrap_or_else(|| {
                    context.say(&format!(
                        "\"{name}\" has no published run to learn from: its runs take no time; say how long with --durations 5m"
                    ));
                    Duration::ZERO
                }),
                text => units::duration(text).map_err(|message| {
                    let found = Diagnostic::error("bad-duration", message);
                    Failure::from(vec![found.help("write --durations 5m, or --durations from-history")])
                })?,
            };
            plans.push(Plan { pipeline: name, schedule, takes });
        }
        for (pipeline, schedule) in &pipelines {
            for name in schedule.after.iter().filter(|name| !plans.iter().any(|plan| plan.pipeline == name.value)) {
                let message = format!("\"{}\" waits for \"{}\", which is not simulated", pipeline.name.value, name.value);
                context.say(&format!("{message}: its runs are taken as published in time"));
            }
        }
        let settled = simulate(&plans, from, to, &outages).map_err(|_| {
            let found = Diagnostic::error("too-many-ticks", format!("more than {TICKS_MAX} ticks lie between --from and --to"));
            Failure::from(vec![found.help("choose a shorter stretch of time")])
        })?;
        if context.global.json {
            let answer: Vec<Value> = settled.iter().map(|settled| to_json(settled, &plans[settled.plan])).collect();
            context.answer_json(&answer)?;
        } else if settled.is_empty() {
            context.say("no tick lies between --from and --to");
        } else {
            context.answer(&table(&settled, &plans).render(context.out))?;
        }
        Ok(error::DONE)
    }
}

/// How long a pipeline's published runs took in the middle.
async fn median(history: Option<&History>, pipeline: &str) -> Result<Option<Duration>, Failure> {
    let Some(history) = history else { return Ok(None) };
    let runs = history.runs(Some(pipeline), RUNS).await?;
    let instant = |text: &str| DateTime::parse_from_rfc3339(text).ok();
    let took = |started: &str, finished: &Option<String>| (instant(finished.as_deref()?)? - instant(started)?).to_std().ok();
    let published = runs.iter().filter(|run| run.status == RunStatus::Published);
    let mut all: Vec<Duration> = published.filter_map(|run| took(&run.started_at, &run.finished_at)).collect();
    all.sort();
    Ok(all.get(all.len() / 2).copied())
}

/// How much later than its tick a run began.
fn waited(settled: &Settled) -> Option<Duration> {
    (settled.started? - settled.slot.at).to_std().ok().filter(|waited| !waited.is_zero())
}

/// Whether a run ended later after its tick than the schedule allows.
fn is_late(settled: &Settled, schedule: &Schedule) -> bool {
    let deadline = schedule.deadline.and_then(|deadline| TimeDelta::from_std(deadline).ok());
    let by = deadline.and_then(|deadline| settled.slot.at.checked_add_signed(deadline));
    settled.finished.zip(by).is_some_and(|(finished, by)| finished > by)
}

fn to_json(settled: &Settled, plan: &Plan<'_>) -> Value {
    let zone = plan.schedule.timezone;
    let (slot, at) = (&settled.slot, |at: DateTime<Utc>| json!(stamp(at, zone)));
    let mut answer = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        answer.extend(value.map(|value| (key.to_owned(), value)));
    };
    put("pipeline", Some(json!(plan.pipeline)));
    put("at", Some(at(slot.at)));
    put("interval_start", Some(at(slot.start)));
    put("interval_end", Some(at(slot.end)));
    put("action", Some(json!(slot.action)));
    put("joined", Some(json!(slot.joined)));
    put("reason", slot.reason.as_ref().map(|reason| json!(reason)));
    put("started", settled.started.map(at));
    put("finished", settled.finished.map(at));
    put("waited", waited(settled).map(|waited| json!(units::shown(waited))));
    put("outcome", settled.outcome.map(|outcome| json!(outcome.as_str())));
    put("attempts", (settled.attempts > 1).then(|| json!(settled.attempts)));
    put("late", is_late(settled, plan.schedule).then(|| json!(true)));
    Value::Object(answer)
}

fn table(settled: &[Settled], plans: &[Plan<'_>]) -> Table {
    let mut table = Table::new(
        Look::Plain,
        &["tick", "pipeline", "action", ">intervals", "interval begins", "started", "finished", "waited", "outcome", "why"],
    );
    for settled in settled {
        let plan = &plans[settled.plan];
        let zone = plan.schedule.timezone;
        let slot = &settled.slot;
        let time = |at: Option<DateTime<Utc>>| at.map(|at| shown(at, zone)).unwrap_or_default();
        let outcome = settled.outcome.map(|outcome| outcome.as_str().to_owned()).unwrap_or_default();
        let outcome = if is_late(settled, plan.schedule) { format!("{outcome}, late") } else { outcome };
        table.row([
            shown(slot.at, zone),
            if plans.len() > 1 { plan.pipeline.to_owned() } else { String::new() },
            slot.action.as_str().to_owned(),
            if slot.joined > 1 { slot.joined.to_string() } else { String::new() },
            shown(slot.start, zone),
            time(settled.started),
            time(settled.finished),
            waited(settled).map(units::shown).unwrap_or_default(),
            outcome,
            slot.reason.clone().unwrap_or_default(),
        ]);
    }
    table.without_empty_columns()
}
