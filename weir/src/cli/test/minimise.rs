//! `weir test --minimise`: a failed run's input, reduced to the few rows that still fail, becomes a test in the pipeline's file.

use serde_json::json;
use weir_engine::{
    Failure,
    minimise::{self, Progress, search::End},
};
use weir_pipelines::Diagnostic;

use super::{
    super::context::{Answer, Context, Stop},
    Test,
    written::{Written, appended},
};
use crate::{
    project,
    render::{
        error,
        number::{count, counted},
        text,
    },
};

impl Test {
    /// Makes a test of a failed run and answers.
    pub(super) async fn minimised(&self, run: &str, context: &Context) -> Answer {
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
        let place = project::find_pipeline(&argument, &workspace.project.root, &context.folder).map_err(|wrong| vec![wrong])?;
        let pipeline = context.parse(&workspace.project, &place, &self.set)?;
        let own = pipeline.file.own();
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
        let text = appended(&own.text, &found.test.to_toml(&found.remarks));
        let what = "the smallest failing input cannot be said as a test";
        Written { set: &self.set, row: place.row.clone(), what }.prove(&workspace, &pipeline, &found.test, &text, token).await?;
        let test = found.test.to_toml(&found.remarks);
        if !self.dry_run {
            project::replace(&place.path, &own.text, &text)?;
        }
        let shown = project::shown(&place.path, &context.folder);
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
}
