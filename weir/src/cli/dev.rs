//! `weir dev`, hidden: writes the generated files of this repository, or compares them with what they should be.

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand, builder::StyledStr};
use serde_json::json;
use weir_connectors::SINKS;
use weir_engine::Failure;

use super::{
    connectors,
    context::{Answer, Context, Stop},
    grammar, keys, pages,
    schema::{pipeline_schema, project_schema},
    types,
};
use crate::render::error;

/// For those who work on Weir itself
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weir dev generate --check", subcommand_required = true, arg_required_else_help = true)]
pub struct Dev {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write docs/reference and the schemas of pipeline files and weir.toml
    #[command(after_help = "Example:\n  weir dev generate --check")]
    Generate {
        /// Write nothing; fail where a file is not what it should be
        #[arg(long)]
        check: bool,
        /// The repository's folder
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
}

impl Dev {
    /// Writes or compares.
    pub fn answer(self, context: &Context) -> Answer {
        let Command::Generate { check, dir } = self.command;
        let mut stale = Vec::new();
        let mut written = Vec::new();
        for (path, text) in generated() {
            let full = dir.join(&path);
            if fs::read_to_string(&full).is_ok_and(|old| old == text) {
                continue;
            }
            if check {
                stale.push(path);
                continue;
            }
            let made = full.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&full, text));
            made.map_err(|error| Failure::error("output-failed", format!("cannot write \"{path}\": {error}")))?;
            written.push(path);
        }
        if !stale.is_empty() {
            let failure = Failure::error(
                "stale",
                format!("{} not what the code says", if stale.len() == 1 { "one file is" } else { "some files are" }),
            );
            let failure = stale.into_iter().fold(failure, Failure::detail).help("write them again with: weir dev generate");
            return Err(Stop::Failure(failure));
        }
        if context.global.json {
            context.answer_json(&json!({ "written": written }))?;
        } else {
            for path in written {
                context.answer(&format!("{path}\n"))?;
            }
        }
        Ok(error::DONE)
    }
}

const PIPELINE: &str = "A key with a dot stands in a table of its own or in an inline one: `row_count.min` is `row_count = { min = 1 }`.
`docs/guides/first-pipeline.md` writes one from nothing.";
const PROJECT: &str = "`weir.toml` marks the project's root; everything in it is optional. `docs/guides/projects.md` says how it is used.";

/// Every generated file: its path in the repository and its text.
pub fn generated() -> Vec<(String, String)> {
    let (pipeline, project) = (pipeline_schema(), project_schema());
    let mut files = vec![
        ("schemas/pipeline.schema.json".to_owned(), format!("{pipeline:#}\n")),
        ("schemas/project.schema.json".to_owned(), format!("{project:#}\n")),
        ("docs/reference/pipeline.md".to_owned(), keys::page("Keys of a pipeline file", PIPELINE, &pipeline)),
        ("docs/reference/project.md".to_owned(), keys::page("Keys of weir.toml", PROJECT, &project)),
        ("docs/reference/cli.md".to_owned(), cli()),
    ];
    files.push(("docs/reference/types.md".to_owned(), types::page(SINKS)));
    files.push(("docs/reference/contracts.md".to_owned(), weir_schemas::coverage::page()));
    for page in connectors::all() {
        files.push((format!("docs/reference/connectors/{}.md", page.kind), pages::markdown(&page)));
    }
    files
}

/// The reference of the command line.
fn cli() -> String {
    let mut grammar = grammar();
    grammar.build();
    let mut out = "# The command\n\n<!-- Made by `weir dev generate` from the command's own help. -->\n".to_owned();
    describe(&grammar, "", &mut out);
    out
}

fn describe(command: &clap::Command, parent: &str, out: &mut String) {
    let name = format!("{parent}{}", command.get_name());
    let text = |text: Option<&StyledStr>| text.map(ToString::to_string).unwrap_or_default();
    let about = command.get_long_about().or_else(|| command.get_about());
    out.push_str(&format!("\n## `{name}`\n\n{}\n", text(about).trim()));
    let is_root = parent.is_empty();
    let arguments: Vec<&clap::Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && (is_root || !argument.is_global_set()))
        .filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
        .collect();
    if !arguments.is_empty() {
        out.push('\n');
    }
    for argument in arguments {
        let help = text(argument.get_long_help().or_else(|| argument.get_help()));
        let mut notes = Vec::new();
        let values: Vec<String> = argument
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !values.is_empty() && argument.get_action().takes_values() {
            notes.push(format!("one of {}", values.join(", ")));
        }
        let defaults: Vec<String> = argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        if !defaults.is_empty() && argument.get_action().takes_values() {
            notes.push(format!("default {}", defaults.join(", ")));
        }
        if let Some(variable) = argument.get_env() {
            notes.push(format!("environment `{}`", variable.to_string_lossy()));
        }
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
        out.push_str(&format!("- `{}`: {}{notes}\n", spelling(argument), help.trim().replace('\n', " ")));
    }
    let after = text(command.get_after_help());
    if !after.trim().is_empty() {
        out.push_str(&format!("\n```text\n{}\n```\n", after.trim_end()));
    }
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        describe(inner, &format!("{name} "), out);
    }
}

/// `-o, --output <FILE>`, `<PIPELINE>`, `[PIPELINE]...`.
fn spelling(argument: &clap::Arg) -> String {
    let value = argument.get_value_names().map(|names| names.join(" ")).unwrap_or_else(|| argument.get_id().as_str().to_uppercase());
    let many = argument.get_num_args().is_some_and(|range| range.max_values() > 1);
    if argument.is_positional() {
        let dots = if many { "..." } else { "" };
        return if argument.is_required_set() { format!("<{value}>{dots}") } else { format!("[{value}]{dots}") };
    }
    let names: Vec<String> = argument
        .get_short()
        .map(|short| format!("-{short}"))
        .into_iter()
        .chain(argument.get_long().map(|long| format!("--{long}")))
        .collect();
    let names = names.join(", ");
    if argument.get_action().takes_values() { format!("{names} <{value}>") } else { names }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_holds_every_command_that_is_not_hidden() {
        let text = cli();
        for heading in ["## `weir`", "## `weir run`", "## `weir runs list`", "## `weir quarantine export`", "## `weir connectors show`"] {
            assert!(text.contains(&format!("\n{heading}\n")), "{heading} is missing in:\n{text}");
        }
        assert!(!text.contains("## `weir dev"), "a hidden command is in the reference");
        assert!(text.contains("- `--set <KEY=VALUE>`: Change one value"), "{text}");
        assert!(text.contains("- `<PIPELINE>`: The pipeline by file, folder or name\n"), "{text}");
        assert!(text.contains("- `[PIPELINE]...`: Pipelines by file"), "{text}");
    }

    #[test]
    fn generated_files_are_named_once_and_end_in_a_line_break() {
        let files = generated();
        let mut names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), files.len());
        assert!(files.iter().all(|(_, text)| text.ends_with('\n') && !text.ends_with("\n\n")));
    }
}
