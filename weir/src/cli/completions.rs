//! `weir completions`: what a shell needs to complete the command line.

use clap::Args;
use clap_complete::Shell;
use serde_json::json;

use super::{
    context::{Answer, Context},
    grammar,
};
use crate::render::error;

const EXAMPLES: &str = "\
Examples:
  weir completions bash > ~/.local/share/bash-completion/completions/weir
  weir completions zsh > \"${fpath[1]}/_weir\"
  weir completions fish > ~/.config/fish/completions/weir.fish";

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Completions {
    /// Answers.
    pub fn answer(self, context: &Context) -> Answer {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut grammar(), "weir", &mut script);
        let script = String::from_utf8_lossy(&script);
        if context.global.json {
            context.answer_json(&json!({ "shell": self.shell.to_string(), "script": script }))?;
        } else {
            context.answer(&script)?;
        }
        Ok(error::DONE)
    }
}
