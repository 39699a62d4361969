//! `weir run`: runs one pipeline once and shows its account.

use std::{io::IsTerminal, sync::Arc};

use clap::Args;
use serde_json::json;
use weir_connectors::Interval;
use weir_engine::{Event, Failure, Summary, Workspace, run::RunOptions};
use weir_pipelines::{
    Diagnostic, Diagnostics, Pipeline,
    cron::{Tz, moment},
};

use super::context::{Answer, Context, Set, add_new};
use crate::render::{
    error,
    progress::{Progress, Show},
    summary,
};

const EXAMPLES: &str = "\
Examples:
  weir run flights                                        run it and show its account
  weir run flights --dry-run                              everything but publishing
  weir run flights --full-refresh                         read incremental sources from their start
  weir run flights --set source.flights.file.path=new.csv
  weir run flights --interval 2026-01-31/2026-02-01       the day that $interval_start and $interval_end stand for
  weir run flights --param day=2013-01-31                 give a parameter its value
  weir run sales-eu                                       the pipeline of one row of a matrix; sales: all in turn
  weir run flights --profile prod --json | jq .rows_loaded

Ctrl-C stops at the next batch and discards what is staged; a second one ends at once.
A run that was ended at any instant is rolled forward or back by the next one.";

/// Run a pipeline once: read, check, stage, balance the books, publish
///
/// Either every destination shows the whole run, or none shows any of it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// The pipeline by file, folder or name
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipeline: String,
    #[command(flatten)]
    pub(super) set: Set,
    /// Do everything but publish, then discard what was staged
    #[arg(long)]
    dry_run: bool,
    /// Read incremental sources from their start, and take the columns of all as they are: what they remember is replaced once this run has
    /// published
    ///
    /// A table that is loaded by append gains rows that it has already; with merge, delete_insert and snapshot it does not.
    #[arg(long)]
    full_refresh: bool,
    /// The stretch of time that the run is for, from its start to before its end: what SQL knows as $interval_start and $interval_end
    ///
    /// Two instants such as 2026-01-31T06:00:00Z, or dates and times on the clock of the schedule's time zone (UTC without one).
    #[arg(long, value_name = "START/END")]
    interval: Option<String>,
}

impl Run {
    /// Runs and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let workspace = context.workspace(Some(&self.pipeline))?;
        let wrong = context.check_connections(&workspace.project);
        if !wrong.is_empty() {
            return Err(wrong.into());
        }
        let pipelines = context.pipelines(&workspace, &self.pipeline, &self.set)?;
        let mut warnings = Diagnostics::new();
        pipelines.iter().for_each(|pipeline| add_new(&mut warnings, pipeline.warnings.clone()));
        context.warn(&warnings);
        if let [pipeline] = pipelines.as_slice() {
            let summary = self.run(context, &workspace, pipeline).await?;
            if context.global.json {
                context.answer_json(&summary)?;
            } else {
                context.answer(&summary::render(&summary, context.out))?;
            }
            return Ok(code(&summary));
        }
        // Each is a run of its own, and the failure of one does not keep the others from running.
        let (mut answers, mut worst) = (Vec::new(), error::DONE);
        for pipeline in &pipelines {
            match self.run(context, &workspace, pipeline).await {
                Ok(summary) => {
                    worst = worst.max(code(&summary));
                    if context.global.json {
                        answers.push(json!(summary));
                    } else {
                        context.answer(&format!("{}\n", summary::render(&summary, context.out)))?;
                    }
                }
                Err(failure) => {
                    worst = worst.max(error::exit_code(&failure));
                    let mut answer = error::to_json(&failure);
                    answer["pipeline"] = json!(pipeline.name.value);
                    answers.push(answer);
                    if !context.global.json {
                        context.say(&format!("{}:", pipeline.name.value));
                        context.show(&failure);
                    }
                    if matches!(failure, Failure::Interrupted) {
                        break;
                    }
                }
            }
        }
        if context.global.json {
            context.answer_json(&answers)?;
        }
        Ok(worst)
    }

    async fn run(&self, context: &Context, workspace: &Workspace, pipeline: &Pipeline) -> Result<Summary, Failure> {
        let show = match (context.global.quiet, std::io::stderr().is_terminal() && context.global.verbose == 0) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Terminal,
            // Log lines and a moving line would write over one another.
            (false, false) => Show::Lines,
        };
        let progress = Arc::new(Progress::new(show));
        let watcher = progress.clone();
        let cancel = context.signals.work("stopping at the next batch; a second Ctrl-C ends at once");
        let interval = self.interval.as_deref().map(|text| interval_of(text, "--interval", pipeline)).transpose()?;
        let options = RunOptions { dry_run: self.dry_run, full_refresh: self.full_refresh, interval, assignment: None };
        let events: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(move |event| watcher.take(&event));
        let result = weir_engine::run::run(workspace, pipeline, options, cancel, events).await;
        progress.finish();
        if matches!(result, Err(Failure::Interrupted)) {
            context.say("what was staged is discarded; nothing was published");
        }
        result
    }
}

/// Reads a stretch of time, written `START/END`, of an option; what has no offset is on the clock of the pipeline's schedule.
pub(super) fn interval_of(text: &str, option: &str, pipeline: &Pipeline) -> Result<Interval, Failure> {
    interval_in(text, option, pipeline.schedule.as_ref().map(|schedule| schedule.timezone).unwrap_or_default())
}

/// Reads a stretch of time, written `START/END`; what has no offset is on the clock of a zone.
pub fn interval_in(text: &str, option: &str, zone: Tz) -> Result<Interval, Failure> {
    let wrong = |why: String| {
        let found = Diagnostic::error("bad-interval", format!("{option} is \"{text}\", {why}"));
        Failure::from(vec![
            found.help(format!("write {option} 2026-01-31T06:00:00Z/2026-02-01T06:00:00Z, or {option} 2026-01-31/2026-02-01")),
        ])
    };
    let (start, end) = text.split_once('/').ok_or_else(|| wrong("which is no start and end with a \"/\" between".to_owned()))?;
    let read = |text: &str| moment(text, zone).ok_or_else(|| wrong(format!("and \"{text}\" is neither a date nor a datetime")));
    let interval = Interval { start: read(start)?, end: read(end)? };
    if interval.start >= interval.end {
        return Err(wrong("which ends no later than it begins".to_owned()));
    }
    Ok(interval)
}

fn code(summary: &Summary) -> u8 {
    match summary.status.as_str() {
        "interrupted" => error::INTERRUPTED,
        "failed" => error::FAILED,
        _ => error::DONE,
    }
}
