//! `weir state`: takes the state to another place.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use serde_json::json;
use weir_engine::Failure;

use super::context::{Answer, Context};
use crate::{
    project,
    render::{error, number::counted},
};

const EXAMPLES: &str = "\
Examples:
  weir state export state.ndjson
  weir --profile prod state import state.ndjson    into the Postgres of [profile.prod.state]";

/// Take the state to another place: runs, cursors, schedules, tasks
///
/// Stop what runs before: a run that is exported while it is under way is taken up by whoever imports it, and by whoever made it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct State {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the state as a text, one row a line
    #[command(after_help = "Example:\n  weir state export state.ndjson")]
    Export {
        /// The file to write; - is standard output
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Take over a state that was exported, into an empty one
    #[command(after_help = "Example:\n  weir state import state.ndjson")]
    Import {
        /// The file to read; - is standard input
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
}

impl State {
    /// Writes or reads, and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let workspace = context.existing_workspace()?;
        let history = workspace.history().await?;
        let failed = |file: &PathBuf| {
            let name = file.display().to_string();
            move |error: std::io::Error| Failure::error("output-failed", format!("cannot write \"{name}\": {error}"))
        };
        match self.command {
            Command::Export { file } if file.as_os_str() == "-" => {
                let mut text = Vec::new();
                history.export(&mut text).await?;
                context.answer(&String::from_utf8(text).expect("it is JSON"))?;
            }
            Command::Export { file } => {
                let path = project::absolute(&file, &context.folder);
                let mut out = BufWriter::new(File::create(&path).map_err(failed(&file))?);
                let rows = history.export(&mut out).await?;
                out.flush().and_then(|()| out.get_ref().sync_all()).map_err(failed(&file))?;
                self::say(context, "exported", rows, &file)?;
            }
            Command::Import { file } if file.as_os_str() == "-" => {
                let rows = history.import(&mut BufReader::new(std::io::stdin())).await?;
                self::say(context, "imported", rows, &file)?;
            }
            Command::Import { file } => {
                let path = project::absolute(&file, &context.folder);
                let missing = |error| Failure::error("file-unreadable", format!("cannot read \"{}\": {error}", file.display()));
                let rows = history.import(&mut BufReader::new(File::open(&path).map_err(missing)?)).await?;
                self::say(context, "imported", rows, &file)?;
            }
        }
        Ok(error::DONE)
    }
}

fn say(context: &Context, did: &str, rows: u64, file: &std::path::Path) -> Result<(), super::context::Stop> {
    if context.global.json {
        return context.answer_json(&json!({ "did": did, "rows": rows, "file": file }));
    }
    context.answer(&format!("{did} {} ({})\n", counted(rows, "row", "rows"), file.display()))
}
