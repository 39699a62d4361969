//! `weir doctor`: whether the connections answer, and what a crash left, with the command that mends it.

use clap::Args;
use serde_json::json;
use weir_engine::doctor::{self, Findings};

use super::context::{Answer, Context};
use crate::render::{Style, Table, error, number::duration_ms, table::Look};

const EXAMPLES: &str = "\
Examples:
  weir doctor
  weir doctor --json
  weir --profile prod doctor        the connections as that profile has them";

/// Look at connections, and for what a crash left behind; say what to do
///
/// Changes nothing. Exit code 1 where something needs a person.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {}

impl Doctor {
    /// Looks round and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let workspace = context.existing_workspace()?;
        let wrong = context.check_connections(&workspace.project);
        if !wrong.is_empty() {
            return Err(wrong.into());
        }
        let findings = doctor::look(&workspace).await?;
        if context.global.json {
            let mut answer = json!(findings);
            answer["healthy"] = json!(findings.healthy());
            context.answer_json(&answer)?;
        } else {
            context.answer(&render(&findings, context.out))?;
        }
        Ok(if findings.healthy() { error::DONE } else { error::FAILED })
    }
}

fn render(findings: &Findings, style: Style) -> String {
    let mut out = String::new();
    if !findings.connections.is_empty() {
        let mut table = Table::new(Look::Plain, &["connection", "kind", "answers", "server"]);
        for found in &findings.connections {
            let (word, server) = match (&found.error, &found.server) {
                (None, server) => (style.green(&format!("in {}", duration_ms(found.took_ms))), server.clone().unwrap_or_default()),
                (Some(error), _) => (style.red("no"), error.clone()),
            };
            table.row([found.connection.clone(), found.kind.clone(), word, server]);
        }
        out.push_str(&table.render(style));
        for found in &findings.connections {
            if let Some(help) = &found.help {
                out.push_str(&format!("  {}: {help}\n", found.connection));
            }
        }
        out.push('\n');
    }
    for run in &findings.runs {
        let status = run.status.as_str();
        let status = if run.alive { style.green(status) } else { style.yellow(status) };
        out.push_str(&format!("run {} of \"{}\" is {status}: {}\n", run.run, run.pipeline, run.explanation));
        for command in &run.commands {
            out.push_str(&format!("  {command}\n"));
        }
        if !run.commands.is_empty() {
            out.push_str(&format!("  or just run it again: weir run {}\n", run.pipeline));
        }
    }
    for orphan in &findings.orphans {
        let run = orphan.run.as_ref().map_or_else(String::new, |run| format!(" (of run {run})"));
        out.push_str(&format!(
            "staged table {} in \"{}\"{run} belongs to no run that this project knows of; no reader looks at it\n  \
             drop it by hand, unless another project loads through this connection\n",
            orphan.name, orphan.connection
        ));
    }
    out.push_str(&match findings.healthy() {
        true => style.green("nothing is wrong"),
        false => style.red("something needs you"),
    });
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use weir_engine::{
        RunStatus,
        doctor::{ConnectionFinding, Orphan, RunFinding},
    };

    use super::*;

    #[test]
    fn what_was_found_comes_with_what_to_do() {
        let mut findings = Findings { connections: vec![], runs: vec![], orphans: vec![] };
        assert_eq!(render(&findings, Style::PLAIN), "nothing is wrong\n");
        findings.connections = vec![ConnectionFinding {
            connection: "warehouse".into(),
            kind: "postgres".into(),
            server: None,
            error: Some("connection refused".into()),
            help: Some("start it".into()),
            took_ms: 3,
        }];
        findings.runs = vec![RunFinding {
            run: "0193a".into(),
            pipeline: "flights".into(),
            status: RunStatus::Publishing,
            alive: false,
            explanation: "it is decided".into(),
            commands: vec!["weir runs resume 0193a".into()],
        }];
        findings.orphans = vec![Orphan { connection: "olap".into(), name: "default.a__weir_1".into(), run: None }];
        assert_eq!(
            render(&findings, Style::PLAIN),
            "connection  kind      answers  server\n\
             warehouse   postgres  no       connection refused\n  \
             warehouse: start it\n\n\
             run 0193a of \"flights\" is publishing: it is decided\n  \
             weir runs resume 0193a\n  \
             or just run it again: weir run flights\n\
             staged table default.a__weir_1 in \"olap\" belongs to no run that this project knows of; no reader looks at it\n  \
             drop it by hand, unless another project loads through this connection\n\
             something needs you\n"
        );
    }
}
