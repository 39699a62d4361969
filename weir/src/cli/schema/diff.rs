//! `weir schema diff`: two contracts side by side. What changed and whether it breaks anything is `weir_schemas`' to say.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use serde_json::{Value, json};
use weir_pipelines::{Diagnostic, SourceFile};
use weir_schemas::{
    Contract,
    diff::{self, Change, Side, Verdict},
};

use super::super::context::{Answer, Context, Stop};
use crate::{
    project,
    render::{Style, Table, error, number::counted, table::Look},
};

const EXAMPLES: &str = "\
Examples:
  weir schema diff order-1.schema.json order-2.schema.json
  weir schema diff --closed old.json new.json                  rows had no columns but those that the old one names
  weir schema diff --json old.json new.json | jq .verdict

Exit codes: 0 compatible, 1 breaking or not to be told, 2 a file is no contract.";

/// Compare two contracts: is every row that was valid still valid, and do columns keep their types
///
/// A column that the contract before does not name may have been anything, so that naming it breaks rows; with --closed it is taken that
/// there was none. Where both contracts have an "x-weir-version", says whether the number fits the change.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Diff {
    /// The contract before
    #[arg(value_name = "BEFORE", value_hint = clap::ValueHint::FilePath)]
    before: PathBuf,
    /// The contract after
    #[arg(value_name = "AFTER", value_hint = clap::ValueHint::FilePath)]
    after: PathBuf,
    /// Take it that rows had no columns but those that BEFORE names
    #[arg(long)]
    closed: bool,
}

impl Diff {
    /// Compares and answers.
    pub fn answer(self, context: &Context) -> Answer {
        let read = |path: &PathBuf| -> Result<(Arc<SourceFile>, Contract), Stop> {
            let file = project::read(&project::absolute(path, &context.folder), &context.folder)?;
            let contract = Contract::compile(&file.path, &file.text).map_err(|error| {
                let mut diagnostic = Diagnostic::error("contract", error.message.clone());
                let offset = error.offset.unwrap_or_default().min(file.text.len());
                diagnostic = diagnostic.at(&file, offset..(offset + 1).min(file.text.len()), "");
                error.help.iter().fold(diagnostic, |diagnostic, help| diagnostic.help(help))
            })?;
            Ok((file, contract))
        };
        let (before, after) = (read(&self.before)?, read(&self.after)?);
        let diff =
            diff::diff(Side { contract: &before.1, text: &before.0.text }, Side { contract: &after.1, text: &after.0.text }, self.closed);
        if context.global.json {
            context.answer_json(&as_json(&diff, &before.0, &after.0))?;
        } else {
            context.answer(&render(&diff, &before.0, &after.0, context.out))?;
        }
        if diff.verdict == Verdict::Compatible {
            return Ok(error::DONE);
        }
        let count = |verdict| diff.changes.iter().filter(|change| change.verdict == verdict).count() as u64;
        let (breaking, unknown) = (count(Verdict::Breaking), count(Verdict::Unknown));
        context.say(&format!(
            "not compatible: {breaking} breaking, {unknown} not to be told, of {}",
            counted(diff.changes.len() as u64, "change", "changes")
        ));
        Ok(error::FAILED)
    }
}

fn as_json(diff: &diff::Diff, before: &SourceFile, after: &SourceFile) -> Value {
    let place = |file: &SourceFile, offset: Option<usize>| {
        offset.map(|offset| {
            let (line, column) = file.line_column(offset);
            json!({ "file": file.path, "line": line, "column": column })
        })
    };
    let change = |change: &Change| {
        json!({
            "verdict": change.verdict.as_str(),
            "pointer": change.pointer,
            "keyword": change.keyword,
            "message": change.message,
            "before": place(before, change.before),
            "after": place(after, change.after),
        })
    };
    let version = diff.numbers.map(|numbers| {
        json!({
            "before": numbers.before.to_string(),
            "after": numbers.after.to_string(),
            "least": numbers.least.to_string(),
            "fits": numbers.fit(),
        })
    });
    json!({
        "verdict": diff.verdict.as_str(),
        "rows": diff.rows.as_str(),
        "changes": diff.changes.iter().map(change).collect::<Vec<_>>(),
        "refused": diff.refused,
        "version": version,
    })
}

fn render(diff: &diff::Diff, before: &SourceFile, after: &SourceFile, style: Style) -> String {
    let (old, new) = (&before.path, &after.path);
    let verdict = |verdict: Verdict| match verdict {
        Verdict::Compatible => style.green(verdict.as_str()),
        Verdict::Unknown => style.yellow(verdict.as_str()),
        Verdict::Breaking => style.red(verdict.as_str()),
    };
    let sentence = match (diff.verdict, diff.rows) {
        (Verdict::Compatible, _) if diff.changes.is_empty() => "nothing that concerns rows changed".to_owned(),
        (Verdict::Compatible, _) => format!("every row that is valid under {old} is valid under {new}"),
        (_, Verdict::Compatible) => format!("every row that is valid under {old} is valid under {new}, but its columns change"),
        (_, Verdict::Breaking) => format!("some rows that are valid under {old} are not valid under {new}"),
        (_, Verdict::Unknown) => format!("whether every row that is valid under {old} is valid under {new}; it counts as breaking"),
    };
    let mut out = format!("{}: {sentence}\n", verdict(diff.verdict));
    let mut table = Table::new(Look::Plain, &["verdict", "change", "before", "after"]).indent(2);
    for change in &diff.changes {
        let place = |file: &SourceFile, offset: Option<usize>| {
            offset.map_or_else(String::new, |offset| {
                let (line, column) = file.line_column(offset);
                format!("{}:{line}:{column}", file.path)
            })
        };
        table.row([change.verdict.as_str().to_owned(), change.message.clone(), place(before, change.before), place(after, change.after)]);
    }
    out.push_str(&table.render_rows());
    if let Some(numbers) = diff.numbers {
        let (from, to, least) = (numbers.before, numbers.after, numbers.least);
        out.push_str(&match numbers.fit() {
            true => format!("version {from} -> {to} fits\n"),
            false => format!("version {from} -> {to} {}: it must be {least} or later\n", style.red("does not fit")),
        });
    }
    out
}
