//! `weir connectors`: which kinds there are, and the settings of each, from the lists that the engine itself uses.

use clap::{Args, Subcommand};
use serde_json::json;
use weir_connectors::{CONNECTIONS, SINKS, SOURCES};
use weir_pipelines::Diagnostic;

use super::{
    context::{Answer, Context},
    pages::{self, Page, Role, settings},
    schema::SHARED,
};
use crate::render::{Table, error, table::Look};

const EXAMPLES: &str = "\
Examples:
  weir connectors list
  weir connectors show file             its settings, and a step to paste
  weir connectors show lake --markdown";

/// List the kinds of sources and sinks, and show the settings of one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Connectors {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the kinds of sources, sinks and connections
    #[command(after_help = "Example:\n  weir connectors list --json")]
    List,
    /// Show a kind's settings: name, type, default, meaning; and an example
    #[command(after_help = "Example:\n  weir connectors show file")]
    Show {
        /// The kind, as it is written in a pipeline file
        #[arg(value_name = "KIND")]
        kind: String,
        /// As Markdown
        #[arg(long)]
        markdown: bool,
    },
}

impl Connectors {
    /// Answers.
    pub fn answer(self, context: &Context) -> Answer {
        let pages = all();
        match self.command {
            Command::List if context.global.json => {
                let kinds: Vec<_> = pages
                    .iter()
                    .flat_map(|page| page.roles.iter().map(|role| json!({ "kind": page.kind, "role": role.role, "summary": role.summary })))
                    .collect();
                context.answer_json(&json!({ "connectors": kinds }))?;
            }
            Command::List => {
                let mut table = Table::new(Look::Plain, &["kind", "role", "what it is"]);
                for page in &pages {
                    for (at, role) in page.roles.iter().enumerate() {
                        table.row([if at == 0 { page.kind } else { "" }, role.role, role.summary]);
                    }
                }
                context.answer(&table.render(context.out))?;
            }
            Command::Show { kind, markdown } => {
                let Some(page) = pages.iter().find(|page| page.kind == kind) else {
                    return Err(Diagnostic::error("unknown-kind", format!("there is no kind \"{kind}\""))
                        .did_you_mean(&kind, pages.iter().map(|page| page.kind))
                        .help(format!("kinds are: {}", pages.iter().map(|page| page.kind).collect::<Vec<_>>().join(", ")))
                        .into());
                };
                if context.global.json {
                    context.answer_json(page)?;
                } else if markdown {
                    context.answer(&pages::markdown(page))?;
                } else {
                    context.answer(&pages::render(page, context.out))?;
                }
            }
        }
        Ok(error::DONE)
    }
}

/// A page for every kind, in the order of the lists.
pub fn all() -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    let mut add = |kind: &'static str, role: Role| match pages.iter_mut().find(|page| page.kind == kind) {
        Some(page) => page.roles.push(role),
        None => pages.push(Page { kind, roles: vec![role] }),
    };
    for kind in SOURCES {
        let settings = settings((kind.schema)().as_value());
        add(kind.kind, Role { role: "source", summary: kind.summary, settings, example: kind.example });
    }
    for kind in SINKS {
        let settings = settings((kind.schema)().as_value());
        add(kind.kind, Role { role: "sink", summary: kind.summary, settings, example: kind.example });
    }
    for kind in CONNECTIONS {
        let settings = settings((kind.schema)().as_value());
        add(kind.kind, Role { role: "connection", summary: SHARED, settings, example: kind.example });
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_page_whose_settings_are_explained() {
        let pages = all();
        assert!(pages.len() >= SOURCES.len().max(SINKS.len()));
        for page in &pages {
            for role in &page.roles {
                assert!(!role.summary.is_empty() && !role.example.is_empty(), "{} as a {}", page.kind, role.role);
                for setting in &role.settings {
                    assert!(!setting.description.is_empty(), "{} as a {}: \"{}\" is not explained", page.kind, role.role, setting.name);
                    assert_ne!(setting.r#type, "value", "{} as a {}: \"{}\" has no type", page.kind, role.role, setting.name);
                }
            }
        }
    }
}
