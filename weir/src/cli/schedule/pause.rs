//! `weir schedule pause` and `resume`: whether a schedule goes on.

use chrono::Utc;
use clap::Args;
use serde_json::json;
use weir_engine::{
    Failure,
    history::{
        stamp,
        tasks::{Pause, Standing},
    },
};

use super::meant;
use crate::{
    cli::context::{Answer, Context},
    render::error,
};

/// Let a schedule pause: nothing of it is started until it is resumed
///
/// What runs is let end, and what is cut into tasks already is run. Ticks that come during the pause are caught up as `catch_up` says when it ends.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weir schedule pause flights --reason \"the source is being migrated\"")]
pub struct PauseCommand {
    /// The pipeline by file, folder or name
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipeline: String,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Let a schedule that pauses go on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weir schedule resume flights")]
pub struct ResumeCommand {
    /// The pipeline by file, folder or name
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipeline: String,
}

impl PauseCommand {
    /// Notes the pause and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        if self.reason.trim().is_empty() {
            return Err(Failure::error("empty-reason", "--reason is empty: say why the schedule pauses").into());
        }
        let by = context.environment.get("USER").cloned().unwrap_or_else(|| "somebody".to_owned());
        let pause = Pause { at: stamp(Utc::now()), by, reason: self.reason.trim().to_owned() };
        set(context, &self.pipeline, Some(&pause)).await
    }
}

impl ResumeCommand {
    /// Notes its end and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        set(context, &self.pipeline, None).await
    }
}

async fn set(context: &Context, argument: &str, pause: Option<&Pause>) -> Answer {
    let workspace = context.workspace(Some(argument))?;
    let pipelines = meant(context, &workspace, argument)?;
    let history = workspace.history().await?;
    let now = Utc::now();
    let mut answers = Vec::new();
    for (pipeline, schedule) in &pipelines {
        let name = &pipeline.name.value;
        let before = history.standings().await?.remove(name).and_then(|standing: Standing| standing.pause);
        // A schedule that no server has seen yet begins where it would have begun now.
        let covered = weir_engine::schedule::begin(schedule, now).unwrap_or(now);
        history.pause(name, pause, now, covered).await?;
        let sentence = match (pause, &before) {
            (Some(_), Some(known)) => format!("pauses already, since {}; the reason is changed", known.at),
            (Some(_), None) => "pauses".to_owned(),
            (None, Some(known)) => format!("goes on; it paused since {}, by {}: {}", known.at, known.by, known.reason),
            (None, None) => "does not pause".to_owned(),
        };
        if context.global.json {
            answers.push(json!({ "pipeline": name, "did": sentence, "pause": pause }));
        } else {
            context.answer(&format!("{name} {sentence}\n"))?;
        }
    }
    if context.global.json {
        context.answer_json(&json!({ "schedules": answers }))?;
    }
    Ok(error::DONE)
}
