//! `weir test --record`: a few real rows, with made-up values in place of personal ones, become a test in the pipeline's file.

use serde_json::json;
use weir_engine::{minimise::search::End, record};
use weir_pipelines::{Diagnostic, Pipeline};

use super::{
    super::context::{Answer, Context},
    Test,
    written::{Written, appended},
};
use crate::{
    project::{self, Found},
    render::{
        error,
        number::{count, counted},
        text,
    },
};

impl Test {
    /// Makes a test of real rows and answers.
    pub(super) async fn recorded(&self, step: &str, context: &Context) -> Answer {
        let workspace = context.workspace(self.pipelines.first().map(String::as_str))?;
        let argument = match self.pipelines.as_slice() {
            [] => None,
            [one] => Some(one.as_str()),
            _ => return Err(Diagnostic::error("usage", "a step is of one pipeline, and several are named").into()),
        };
        let mut found: Vec<(Found, Pipeline)> = match argument {
            Some(argument) => {
                let place = project::find_pipeline(argument, &workspace.project.root, &context.folder).map_err(|wrong| vec![wrong])?;
                let pipeline = context.parse(&workspace.project, &place, &self.set)?;
                vec![(place, pipeline)]
            }
            // Of a file that is wrong nobody knows whether it has the step.
            None => {
                let places = project::pipelines(&workspace.project.root).into_iter().flat_map(|path| project::rows(&path));
                places.filter_map(|place| context.parse(&workspace.project, &place, &self.set).ok().map(|one| (place, one))).collect()
            }
        };
        let of = |pipeline: &Pipeline| recordable(pipeline, step);
        if argument.is_none() {
            let known: Vec<String> = found.iter().flat_map(|(_, pipeline)| steps(pipeline)).collect();
            found.retain(|(_, pipeline)| of(pipeline).is_some());
            match found.as_slice() {
                [_] => {}
                [] => {
                    let missing = Diagnostic::error("unknown-step", format!("no pipeline has a step \"{step}\""));
                    return Err(missing
                        .did_you_mean(step, known.iter().map(String::as_str))
                        .help("name the pipeline too: weir test PIPELINE --record STEP")
                        .into());
                }
                several => {
                    let names: Vec<&str> = several.iter().map(|(_, pipeline)| pipeline.name.value.as_str()).collect();
                    let message = format!("several pipelines have a step \"{step}\": {}", names.join(", "));
                    return Err(Diagnostic::error("ambiguous-pipeline", message)
                        .help(format!("name one: weir test {} --record {step}", names[0]))
                        .into());
                }
            }
        }
        let (place, pipeline) = found.remove(0);
        let own = pipeline.file.own();
        let Some(of) = of(&pipeline) else {
            let known = steps(&pipeline);
            let missing = Diagnostic::error("unknown-step", format!("pipeline \"{}\" has no step \"{step}\"", pipeline.name.value));
            let missing = missing.did_you_mean(step, known.iter().map(String::as_str));
            return Err(missing.help(format!("steps are: {}", known.join(", "))).into());
        };
        let token = context.signals.token();
        let rows = usize::try_from(self.rows).unwrap_or(usize::MAX);
        let made = record::record(&workspace, &pipeline, &of, rows, self.timeout, token.clone()).await?;
        let test = made.test.to_toml(&made.remarks);
        let text = appended(&own.text, &test);
        let what = "the recorded rows cannot be said as a test";
        Written { set: &self.set, row: place.row.clone(), what }.prove(&workspace, &pipeline, &made.test, &text, token).await?;
        if !self.dry_run {
            project::replace(&place.path, &own.text, &text)?;
        }
        let shown = project::shown(&place.path, &context.folder);
        if context.global.json {
            context.answer_json(&json!({
                "pipeline": pipeline.name.value,
                "step": of,
                "file": shown,
                "written": !self.dry_run,
                "name": made.test.name.value,
                "test": test,
                "rows": made.rows,
                "rows_given": made.given,
                "made_up": made.made_up.iter().map(|(step, column)| format!("{step}.{column}")).collect::<Vec<_>>(),
                "smallest": made.end == End::Smallest,
            }))?;
            return Ok(error::DONE);
        }
        if made.end == End::OutOfTime {
            context.say("time ran out: fewer rows of the sources may be enough; --timeout gives the search longer");
        }
        if made.rows < self.rows {
            context.say(&format!("\"{of}\" gives {} only", counted(made.rows, "row", "rows")));
        }
        if self.dry_run {
            context.answer(&test)?;
        } else {
            let given = counted(made.given, "row", "rows");
            let name = text::visible(&made.test.name.value).into_owned();
            context.answer(&format!("{shown}: added the test \"{name}\" ({given} given, {} expected)\n", count(made.rows)))?;
            context.say("it says what the pipeline does today: read it, and put right what is not meant");
        }
        Ok(error::DONE)
    }
}

/// The step whose rows are meant: of a sink, the one that it takes them from.
fn recordable(pipeline: &Pipeline, step: &str) -> Option<String> {
    let is_step = weir_engine::survey::steps(pipeline).contains(&step);
    let sink = pipeline.sinks.iter().find(|sink| sink.name.value == step).map(|sink| sink.from.value.clone());
    is_step.then(|| step.to_owned()).or(sink)
}

fn steps(pipeline: &Pipeline) -> Vec<String> {
    weir_engine::survey::steps(pipeline).into_iter().map(str::to_owned).collect()
}
