//! `weir test`: runs the tests in pipeline files, and makes one of a failed run.

use std::time::Duration;

use clap::Args;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use weir_engine::{
    Failure, Workspace,
    minimise::{self, Found, Progress, search::End},
    test::{self, Report, Verdict},
};
use weir_pipelines::{Diagnostic, Diagnostics, Pipeline, SourceFile, Test as PipelineTest, units};

use super::context::{Answer, Context, Set, Stop, to_stderr};
use crate::{
    project,
    render::{
        Style, diagnostic, error,
        number::{count, counted},
        text,
    },
};

const EXAMPLES: &str = "\
Examples:
  weir test                          every test of the project
  weir test flights -k delay         tests of one pipeline with \"delay\" in their names
  weir test --json | jq '.tests[] | select(.outcome != \"passed\")'
  weir test --minimise 0193a         make a test of the few rows on which a failed run fails

A test fails: exit 1. A test, or its pipeline, is wrong: exit 2.";

/// So many differences of one step are shown; --json has all.
const DIFFERENCES_MAX: usize = 20;
/// Rows are shown up to this width.
const ROW_WIDTH: usize = 200;

/// Run the tests in pipeline files: given these rows, expect those
///
/// Sources are replaced by the rows that a [[test]] gives, contracts and SQL are applied as in a run, and what steps make is compared with what
/// the test expects. Nothing outside is touched: no source is read, nothing is staged, no state is written. Tests run side by side.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Test {
    /// Pipelines by file, folder or name [default: all of the project]
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipelines: Vec<String>,
    /// Only tests with this text in their names
    #[arg(short = 'k', long, value_name = "TEXT")]
    name: Option<String>,
    #[command(flatten)]
    set: Set,
    /// Reduce a failed run's input to the few rows that still fail, and add them to its pipeline as a test
    ///
    /// Reads the run's sources again, as they are now, and leaves out rows and then columns as long as what is left fails with the same error in
    /// the same step. A run is named by its id, or as much of its start as is unique.
    #[arg(long, value_name = "RUN", conflicts_with = "name")]
    minimise: Option<String>,
    /// How long to search; then the smallest input so far is taken
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = units::duration, requires = "minimise")]
    timeout: Duration,
    /// Show the test in place of adding it to the file
    #[arg(long, requires = "minimise")]
    dry_run: bool,
}

impl Test {
    /// Runs the tests, or makes one, and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        match &self.minimise {
            Some(run) => self.minimised(run, context).await,
            None => self.tested(context).await,
        }
    }

    async fn tested(&self, context: &Context) -> Answer {
        let workspace = context.workspace(self.pipelines.first().map(String::as_str))?;
        let mut wrong = context.check_connections(&workspace.project);
        let mut pipelines = Vec::new();
        let mut take = |parsed: Result<Pipeline, Diagnostics>| match parsed {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(found) => wrong.extend(found),
        };
        if self.pipelines.is_empty() {
            let found = project::pipelines(&workspace.project.root);
            found.iter().for_each(|path| take(context.parse(&workspace.project, path, &self.set.set)));
        } else {
            self.pipelines.iter().for_each(|argument| take(context.pipeline(&workspace, argument, &self.set.set)));
        }
        pipelines.iter().for_each(|pipeline| context.warn(&pipeline.warnings));
        let is_meant = |test: &&PipelineTest| self.name.as_ref().is_none_or(|text| test.name.value.contains(text.as_str()));
        let chosen: Vec<(&Pipeline, &PipelineTest)> =
            pipelines.iter().flat_map(|pipeline| pipeline.tests.iter().filter(is_meant).map(move |test| (pipeline, test))).collect();
        if let (Some(text), true, true) = (&self.name, chosen.is_empty(), wrong.is_empty()) {
            let names = pipelines.iter().flat_map(|pipeline| &pipeline.tests).map(|test| test.name.value.as_str());
            return Err(Diagnostic::error("no-tests", format!("no test has \"{text}\" in its name")).did_you_mean(text, names).into());
        }
        let reports = reports(&workspace, chosen, &context.signals.token()).await?;
        let outcome = |wanted: &str| reports.iter().filter(|report| word(&report.verdict) == wanted).count() as u64;
        let (passed, failed, broken) = (outcome("passed"), outcome("failed"), outcome("wrong"));
        let code = match (wrong.is_empty() && broken == 0, failed) {
            (false, _) => error::WRONG,
            (true, 0) => error::DONE,
            _ => error::FAILED,
        };
        let parts = [(passed, "passed"), (failed, "failed"), (broken, "wrong")];
        let parts: Vec<String> = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{} {word}", count(n))).collect();
        let sum = format!("{}: {}", counted(reports.len() as u64, "test", "tests"), parts.join(", "));
        if context.global.json {
            let tests: Vec<Value> = reports.iter().map(to_json).collect();
            let diagnostics: Vec<_> = wrong.iter().map(diagnostic::to_json).collect();
            context
                .answer_json(&json!({ "passed": passed, "failed": failed, "wrong": broken, "tests": tests, "diagnostics": diagnostics }))?;
            if code != error::DONE {
                context.say(if reports.is_empty() { "nothing was tested" } else { &sum });
            }
            return Ok(code);
        }
        let mut talk: Vec<String> = Vec::new();
        if !wrong.is_empty() {
            talk.push(error::render_diagnostics(&wrong, context.talk));
        }
        for report in &reports {
            context.answer(&line(report, context.out))?;
            match &report.verdict {
                Verdict::Passed => {}
                Verdict::Wrong(found) => talk.push(error::render_diagnostics(found, context.talk)),
                Verdict::Failed(found) => talk.extend(found.iter().map(|(one, differences)| failure(one, differences, context.talk))),
            }
        }
        if !talk.is_empty() {
            to_stderr(talk.join("\n").trim_end_matches('\n'));
        }
        if reports.is_empty() && wrong.is_empty() {
            context.say("no tests were found; add a [[test]] table to a pipeline");
        } else if !reports.is_empty() {
            context.answer(&format!("{sum}\n"))?;
        }
        Ok(code)
    }

    async fn minimised(&self, run: &str, context: &Context) -> Answer {
        let workspace = context.existing_workspace()?;
        let history = workspace.history().await?;
        let Some(record) = history.run(run).await? else {
            return Err(Stop::from(
                Failure::error("unknown-run", format!("there is no run \"{run}\"")).help("see the runs with: weir runs list"),
            ));
        };
        let argument = match self.pipelines.as_slice() {
            [] => record.pipeline.clone(),
            [one] => one.clone(),
            _ => return Err(Diagnostic::error("usage", "a run is of one pipeline, and several are named").into()),
        };
        let path = project::find_pipeline(&argument, &workspace.project.root, &context.folder).map_err(|wrong| vec![wrong])?;
        let pipeline = context.parse(&workspace.project, &path, &self.set.set)?;
        if pipeline.name.value != record.pipeline {
            let message = format!("run {} is of the pipeline \"{}\", not of \"{}\"", record.run, record.pipeline, pipeline.name.value);
            return Err(Failure::error("unknown-run", message)
                .help("leave out the pipeline, or see its runs with: weir runs list PIPELINE")
                .into());
        }
        let token = context.signals.token();
        let mut told = u64::MAX;
        let mut tell = |progress: Progress| match progress {
            Progress::Read { rows } => {
                told = rows;
                context.say(&format!("{} read; they fail as the run did", counted(rows, "row", "rows")));
            }
            // Each halving is news; what goes one by one is not.
            Progress::Smaller { rows, tries } if rows <= told / 2 => {
                told = rows;
                context.say(&format!(
                    "{} still {} (after {} tries)",
                    counted(rows, "row", "rows"),
                    if rows == 1 { "fails" } else { "fail" },
                    count(tries)
                ));
            }
            Progress::Smaller { .. } => {}
        };
        let found = minimise::minimise(&workspace, &history, &pipeline, &record, self.timeout, token.clone(), &mut tell).await?;
        let text = appended(&pipeline.file.text, &found.test.to_toml(&found.remarks));
        self.proved(&workspace, &pipeline, &found, &text, token).await?;
        let test = found.test.to_toml(&found.remarks);
        if !self.dry_run {
            project::replace(&path, &pipeline.file.text, &text)?;
        }
        let shown = project::shown(&path, &context.folder);
        if context.global.json {
            context.answer_json(&json!({
                "run": record.run,
                "pipeline": pipeline.name.value,
                "file": shown,
                "written": !self.dry_run,
                "name": found.test.name.value,
                "test": test,
                "code": found.error.code,
                "step": found.error.step,
                "rows": found.rows,
                "rows_before": found.rows_before,
                "tries": found.tries,
                "smallest": found.end == End::Smallest,
            }))?;
            return Ok(error::DONE);
        }
        if found.end == End::OutOfTime {
            context.say("time ran out: a smaller input may exist; --timeout gives the search longer");
        }
        if self.dry_run {
            context.answer(&test)?;
        } else {
            let rows = format!("{} of {}", count(found.rows), counted(found.rows_before, "row", "rows"));
            context.answer(&format!("{shown}: added the test \"{}\" ({rows})\n", text::visible(&found.test.name.value)))?;
            context.say(
                "it passes as long as these rows fail: once the cause is mended, expect the rows that are right in place of \"fails\"",
            );
        }
        Ok(error::DONE)
    }

    /// The test as it will stand in the file has to pass, or it is not written.
    async fn proved(
        &self,
        workspace: &Workspace,
        pipeline: &Pipeline,
        found: &Found,
        text: &str,
        token: CancellationToken,
    ) -> Result<(), Stop> {
        let cannot = |why: String| {
            Failure::error("not-sayable", format!("the smallest failing input cannot be said as a test of \"{}\"", pipeline.name.value))
                .detail(why)
                .help("the file is as it was")
        };
        let file = SourceFile::new(pipeline.file.path.clone(), text);
        let connections: Vec<&str> = workspace.project.connections.keys().map(String::as_str).collect();
        let profiles: Vec<&str> = workspace.project.profiles.iter().map(String::as_str).collect();
        let vocabulary = weir_connectors::vocabulary(&connections, &profiles);
        let parsed = weir_pipelines::parse(file, pipeline.folder.clone(), &self.set.set, vocabulary);
        let parsed = parsed.map_err(|wrong| cannot(wrong.first().map(|one| one.message.clone()).unwrap_or_default()))?;
        let added = parsed.tests.last().filter(|test| test.name.value == found.test.name.value);
        let Some(added) = added else { return Err(cannot("it is not found again in the file".to_owned()).into()) };
        let report = test::run(workspace, &parsed, added, token).await?;
        let why = match report.verdict {
            Verdict::Passed => return Ok(()),
            Verdict::Failed(found) => found.into_iter().next().map(|(one, _)| one.message),
            Verdict::Wrong(found) => found.into_iter().next().map(|one| one.message),
        };
        Err(cannot(why.unwrap_or_default()).into())
    }
}

/// Runs tests side by side and hands their reports out in order.
async fn reports(
    workspace: &Workspace,
    chosen: Vec<(&Pipeline, &PipelineTest)>,
    token: &CancellationToken,
) -> Result<Vec<Report>, Failure> {
    let work = chosen.into_iter().map(|(pipeline, test)| {
        let (workspace, pipeline, test, token) = (workspace.clone(), pipeline.clone(), test.clone(), token.clone());
        // Planning is work for a processor: each test has a thread of its own. The token ends it.
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(test::run(&workspace, &pipeline, &test, token)))
    });
    // Each task is spawned when its turn comes.
    let mut running = stream::iter(work).buffered(workspace.cpus * 2);
    let mut reports = Vec::new();
    while let Some(ended) = running.next().await {
        let ended = ended.map_err(|error| Failure::error("panic", format!("a test ended: {error}")).blame(weir_connectors::Blame::Weir))?;
        reports.push(ended?);
    }
    Ok(reports)
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed(_) => "failed",
        Verdict::Wrong(_) => "wrong",
    }
}

fn line(report: &Report, style: Style) -> String {
    let word = match report.verdict {
        Verdict::Passed => style.green("ok"),
        Verdict::Failed(_) => style.red("FAILED"),
        Verdict::Wrong(_) => style.red("WRONG"),
    };
    format!("{}: {}: {word}\n", report.pipeline, text::visible(&report.test))
}

/// A diagnostic with the rows that differ below it.
fn failure(one: &Diagnostic, differences: &[test::compare::Difference], style: Style) -> String {
    let mut out = diagnostic::render(one, style);
    for difference in differences.iter().take(DIFFERENCES_MAX) {
        let row = text::visible(&difference.row);
        out.push_str(&format!("  {:<10}  {}\n", difference.kind, text::cut(&row, ROW_WIDTH)));
        for cell in &difference.cells {
            out.push_str(&format!("  {:<10}    {}\n", "", style.yellow(&text::cut(&text::visible(cell), ROW_WIDTH))));
        }
    }
    if differences.len() > DIFFERENCES_MAX {
        out.push_str(&format!("  and {} more\n", count((differences.len() - DIFFERENCES_MAX) as u64)));
    }
    out
}

fn to_json(report: &Report) -> Value {
    let failures: Vec<Value> = match &report.verdict {
        Verdict::Passed => Vec::new(),
        Verdict::Wrong(found) => found.iter().map(diagnostic::to_json).collect(),
        Verdict::Failed(found) => found
            .iter()
            .map(|(one, differences)| {
                let mut one = diagnostic::to_json(one);
                one["differences"] = json!(differences);
                one
            })
            .collect(),
    };
    json!({
        "pipeline": report.pipeline,
        "test": report.test,
        "outcome": word(&report.verdict),
        "duration_ms": u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        "failures": failures,
    })
}

/// A file's text with a test below all that is there, in the file's own line breaks.
fn appended(text: &str, test: &str) -> String {
    let crlf = text.contains("\r\n");
    let test = if crlf { test.replace('\n', "\r\n") } else { test.to_owned() };
    let end = if crlf { "\r\n" } else { "\n" };
    let gap = if text.is_empty() || text.ends_with('\n') { end.to_owned() } else { end.repeat(2) };
    format!("{text}{gap}{test}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_added_below_in_the_files_own_line_breaks() {
        assert_eq!(appended("a = 1\n", "[[test]]\n"), "a = 1\n\n[[test]]\n");
        assert_eq!(appended("a = 1", "[[test]]\n"), "a = 1\n\n[[test]]\n");
        assert_eq!(appended("a = 1\r\n", "[[test]]\nb = 2\n"), "a = 1\r\n\r\n[[test]]\r\nb = 2\r\n");
    }
}
