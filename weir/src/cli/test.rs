//! `weir test`: runs the tests in pipeline files, once or whenever they change, and makes tests of failed runs and of real rows.

mod minimise;
mod record;
mod watch;
mod written;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::Utc;
use clap::Args;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use weir_engine::{
    Failure, Workspace,
    test::{self, Report, Verdict},
};
use weir_pipelines::{Diagnostic, Diagnostics, Partial, PartialProject, Pipeline, Severity, Test as PipelineTest, units};

use super::context::{Answer, Context, Set, Stop, add_new, check_connection, parse_partial, to_stderr};
use crate::{
    project::{self, Found},
    render::{
        Style, diagnostic, error,
        junit::{self, Case, Outcome},
        number::{count, counted},
        text,
    },
};

const EXAMPLES: &str = "\
Examples:
  weir test                          every test of the project
  weir test flights -k delay         tests of one pipeline with \"delay\" in their names
  weir test --watch                  again whenever a file that they depend on changes
  weir test --junit tests.xml        for a CI server, beside the answer
  weir test --json | jq '.tests[] | select(.outcome != \"passed\")'
  weir test --minimise 0193a         make a test of the few rows on which a failed run fails
  weir test orders --record daily    make a test of a few real rows and what the step makes of them

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
    /// Write the outcome to a file as JUnit XML too, which CI servers read
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "made")]
    junit: Option<PathBuf>,
    /// Run tests again whenever a file that they depend on changes, until Ctrl-C
    ///
    /// Watched are weir.toml, the pipeline files, their bases and contracts and the files that tests give. A changed weir.toml runs all tests, another file
    /// those of the pipelines that depend on it. A file that is wrong is shown, and watching goes on.
    #[arg(short, long, conflicts_with_all = ["made", "junit", "json"])]
    watch: bool,
    /// Reduce a failed run's input to the few rows that still fail, and add them to its pipeline as a test
    ///
    /// Reads the run's sources again, as they are now, and leaves out rows and then columns as long as what is left fails with the same error in
    /// the same step. A run is named by its id, or as much of its start as is unique.
    #[arg(long, value_name = "RUN", conflicts_with = "name", group = "made")]
    minimise: Option<String>,
    /// Add a test of real rows to the pipeline file: few rows of the sources, and what this step makes of them now
    ///
    /// Reads the sources as they are now, no more of them than it needs, and leaves out rows and then columns as long as the step gives as many rows and
    /// values. Values of columns that a contract marks with "x-weir-personal" are replaced by made-up ones, equal values by equal ones.
    #[arg(long, value_name = "STEP", conflicts_with = "name", group = "made")]
    record: Option<String>,
    /// How many rows of the step to record
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100), requires = "record")]
    rows: u64,
    /// How long to search; then the smallest input so far is taken
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = units::duration, requires = "made")]
    timeout: Duration,
    /// Show the test in place of adding it to the file
    #[arg(long, requires = "made")]
    dry_run: bool,
}

/// The project, and the pipelines of it that are meant.
struct Scope {
    workspace: Workspace,
    found: Vec<Found>,
    /// What is wrong with the project, and with how pipelines were named.
    wrong: Diagnostics,
    /// Codes of errors in pipelines that only follow from what is wrong with the project.
    follow_on: Vec<&'static str>,
}

/// What was tested, and what could not be.
#[derive(Default)]
struct Tested {
    /// What is wrong with the project and its pipeline files.
    wrong: Diagnostics,
    /// One a test, in the order of the files.
    reports: Vec<Placed>,
}

/// What came of a test, and where the test stands.
struct Placed {
    report: Report,
    file: String,
    line: usize,
}

impl Test {
    /// Runs the tests, or makes one, and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        match (&self.minimise, &self.record) {
            (Some(run), _) => self.minimised(run, context).await,
            (None, Some(step)) => self.recorded(step, context).await,
            _ if self.watch => watch::watch(&self, context).await,
            _ => {
                let scope = self.scope(context)?;
                let parsed: Vec<_> = scope.found.iter().map(|found| self.parsed(&scope, found, context)).collect();
                let tested = self.tested(scope, parsed, context).await?;
                if let Some(path) = &self.junit {
                    write_junit(&project::absolute(path, &context.folder), &tested, context)?;
                }
                self.told(&tested, context)
            }
        }
    }

    /// Reads the project as far as it can be read.
    fn scope(&self, context: &Context) -> Result<Scope, Stop> {
        let PartialProject { project, found, follow_on } = context.partial_project(self.pipelines.first().map(String::as_str))?;
        let mut wrong = found;
        for (name, connection) in &project.connections {
            let is_told = wrong.iter().any(|one| one.message.contains(&format!("connection \"{name}\"")));
            wrong.extend(check_connection(name, connection).into_iter().filter(|_| !is_told));
        }
        let mut all = Vec::new();
        for argument in &self.pipelines {
            match project::find_pipelines(argument, &project.root, &context.folder) {
                Ok(found) => all.extend(found),
                Err(unknown) => wrong.push(unknown),
            }
        }
        if self.pipelines.is_empty() {
            all = project::pipelines(&project.root).iter().flat_map(|path| project::rows(path)).collect();
        }
        let workspace = Workspace::new(project, context.environment.clone(), project::machine(), Utc::now);
        Ok(Scope { workspace, found: all, wrong, follow_on })
    }

    /// Reads a pipeline as far as it can be read.
    fn parsed(&self, scope: &Scope, found: &Found, context: &Context) -> Result<Partial, Diagnostics> {
        let mut partial = parse_partial(&scope.workspace.project, found, &context.folder, &self.set)?;
        let is_whole = partial.is_whole();
        partial.found.retain(|one| !scope.follow_on.contains(&one.code));
        if partial.is_whole() && !is_whole {
            // What it needs of weir.toml is told there.
            let shown = project::shown(&found.path, &context.folder);
            context.say(&format!("{shown} is not tested as long as weir.toml is wrong"));
            return Err(Diagnostics::new());
        }
        Ok(partial)
    }

    /// Runs the tests of these pipelines.
    async fn tested(&self, scope: Scope, parsed: Vec<Result<Partial, Diagnostics>>, context: &Context) -> Result<Tested, Stop> {
        let mut wrong = scope.wrong;
        let mut pipelines = Vec::new();
        for one in parsed {
            match one.and_then(Partial::whole) {
                Ok(pipeline) => pipelines.push(pipeline),
                Err(found) => add_new(&mut wrong, found),
            }
        }
        let mut warnings = Diagnostics::new();
        pipelines.iter().for_each(|pipeline| add_new(&mut warnings, pipeline.warnings.clone()));
        context.warn(&warnings);
        let is_meant = |test: &&PipelineTest| self.name.as_ref().is_none_or(|text| test.name.value.contains(text.as_str()));
        let chosen: Vec<(&Pipeline, &PipelineTest)> =
            pipelines.iter().flat_map(|pipeline| pipeline.tests.iter().filter(is_meant).map(move |test| (pipeline, test))).collect();
        if let (Some(text), true, true) = (&self.name, chosen.is_empty(), wrong.is_empty()) {
            let names = pipelines.iter().flat_map(|pipeline| &pipeline.tests).map(|test| test.name.value.as_str());
            return Err(Diagnostic::error("no-tests", format!("no test has \"{text}\" in its name")).did_you_mean(text, names).into());
        }
        let places = chosen.iter().map(|(pipeline, test)| {
            let (file, place) = pipeline.file.part_at(test.span.clone());
            (file.path.clone(), file.line_column(place.start).0)
        });
        let places: Vec<_> = places.collect();
        let reports = reports(&scope.workspace, chosen, &context.signals.token()).await?;
        let reports = reports.into_iter().zip(places).map(|(report, (file, line))| Placed { report, file, line });
        Ok(Tested { wrong, reports: reports.collect() })
    }

    /// Says what came of the tests, and returns the exit code.
    fn told(&self, tested: &Tested, context: &Context) -> Answer {
        let Tested { wrong, reports } = tested;
        let outcome = |wanted: &str| reports.iter().filter(|placed| word(&placed.report.verdict) == wanted).count() as u64;
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
            let tests: Vec<Value> = reports.iter().map(|placed| to_json(&placed.report)).collect();
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
            talk.push(error::render_diagnostics(wrong, context.talk));
        }
        for Placed { report, .. } in reports {
            context.answer(&line(report, context.out))?;
            talk.extend(told_of(&report.verdict, context.talk));
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

/// What there is to say of a test that did not pass.
fn told_of(verdict: &Verdict, style: Style) -> Vec<String> {
    match verdict {
        Verdict::Passed => Vec::new(),
        Verdict::Wrong(found) => vec![error::render_diagnostics(found, style)],
        Verdict::Failed(found) => found.iter().map(|(one, differences)| failure(one, differences, style)).collect(),
    }
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

/// Writes what was tested as JUnit XML. A file that is wrong is a case of its own: a server that shows only tests shows it too.
fn write_junit(path: &Path, tested: &Tested, context: &Context) -> Result<(), Stop> {
    let told = |code: &str, message: &str, body: String| (code.to_owned(), message.to_owned(), body);
    let mut cases: Vec<Case> = Vec::new();
    for one in tested.wrong.iter().filter(|one| one.severity == Severity::Error) {
        let file = one.file.as_ref().map_or_else(|| "weir.toml".to_owned(), |file| file.path.clone());
        let line = one.labels.first().map_or(1, |label| label.file.line_column(label.span.start).0);
        let outcome = Outcome::Wrong(vec![told(one.code, &one.message, diagnostic::render(one, Style::PLAIN))]);
        match cases.iter_mut().find(|case| case.file == file) {
            Some(Case { outcome: Outcome::Wrong(all), .. }) => {
                all.extend(if let Outcome::Wrong(more) = outcome { more } else { Vec::new() });
            }
            _ => cases.push(Case { suite: file.clone(), name: "the file is right".to_owned(), file, line, took: Duration::ZERO, outcome }),
        }
    }
    for Placed { report, file, line } in &tested.reports {
        let outcome = match &report.verdict {
            Verdict::Passed => Outcome::Passed,
            Verdict::Wrong(found) => {
                Outcome::Wrong(found.iter().map(|one| told(one.code, &one.message, diagnostic::render(one, Style::PLAIN))).collect())
            }
            Verdict::Failed(found) => {
                let found = found.iter().map(|(one, rows)| told(one.code, &one.message, failure(one, rows, Style::PLAIN)));
                Outcome::Failed(found.collect())
            }
        };
        let (suite, name) = (report.pipeline.clone(), report.test.clone());
        cases.push(Case { suite, name, file: file.clone(), line: *line, took: report.took, outcome });
    }
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, junit::to_xml(&cases)));
    written.map_err(|error| {
        let shown = project::shown(path, &context.folder);
        Failure::error("output-failed", format!("cannot write \"{shown}\": {error}")).into()
    })
}
