//! `weir quarantine fix`, `discard` and `purge`: what ends rows of the quarantine.

use std::io::{self, BufRead, IsTerminal};

use chrono::Utc;
use clap::Args;
use serde_json::json;
use weir_engine::{
    Failure, Workspace,
    mend::select::Assignment,
    mend::{self, Preview, Request},
};
use weir_pipelines::{Diagnostic, SourceFile, Spanned, SqlText, units};

use super::{Which, groups, name_of};
use crate::{
    cli::context::{Answer, Context, Params, Set, Stop},
    render::{
        Style, error,
        number::counted,
        progress::{Progress, Show},
        summary,
    },
};

pub(super) const FIX_EXAMPLES: &str = "\
Examples:
  weir quarantine fix users --set \"zip = lpad(zip, 5, '0')\" --where \"length(zip) < 5\" --dry-run
  weir quarantine fix users --set \"zip = lpad(zip, 5, '0')\" --where \"length(zip) < 5\" --yes
  weir quarantine fix users --set \"id = 3\" --where \"quarantine.row = 4\"
  weir quarantine fix users --set \"price = try_cast(replace(quarantine.raw ->> 'price', ',', '.') as double)\"";

pub(super) const DISCARD_EXAMPLES: &str = "\
Examples:
  weir quarantine discard users --code malformed --reason \"torn by the vendor, ticket 4711\" --yes
  weir quarantine discard users --where \"quarantine.at < '2026-01-01'\" --reason \"too late\" --dry-run";

pub(super) const PURGE_EXAMPLES: &str = "\
Examples:
  weir quarantine purge users --older-than 90d --dry-run
  weir quarantine purge users --older-than 30d --open      rows that wait, too";

/// Which rows, and who says so.
#[derive(Debug, Args)]
struct Chosen {
    #[command(flatten)]
    which: Which,
    /// Only what this run set aside, by its id or its start
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Only rows for which this SQL condition is true
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Who does it, for the quarantine's memory [default: the user's name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Look only: nothing is changed anywhere
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// `weir quarantine fix`.
#[derive(Debug, Args)]
pub(super) struct Fix {
    #[command(flatten)]
    chosen: Chosen,
    /// What a column is to be: an SQL expression; may be given several times
    #[arg(long = "set", value_name = "COLUMN = EXPRESSION", required = true)]
    assignments: Vec<String>,
    /// A word for the quarantine's memory
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    params: Params,
}

/// `weir quarantine discard`.
#[derive(Debug, Args)]
pub(super) struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// `weir quarantine purge`.
#[derive(Debug, Args)]
pub(super) struct Purge {
    /// The pipeline by file, folder or name
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipeline: String,
    /// Only this step's
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Rows that were set aside longer ago than this, such as 90d
    #[arg(long, value_name = "AGE")]
    older_than: String,
    /// Remove rows that wait for somebody, too
    #[arg(long)]
    open: bool,
    /// Count only: nothing is removed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Fix {
    pub(super) async fn answer(self, context: &Context) -> Answer {
        let workspace = context.workspace(Some(&self.chosen.which.pipeline))?;
        let wrong = context.check_connections(&workspace.project);
        if !wrong.is_empty() {
            return Err(wrong.into());
        }
        let pipeline = context.pipeline(&workspace, &self.chosen.which.pipeline, &self.params.clone().into())?;
        let (mut assignments, mut wrong) = (Vec::new(), Vec::new());
        for text in &self.assignments {
            match assignment(text) {
                Ok(assignment) => assignments.push(assignment),
                Err(diagnostic) => wrong.push(diagnostic),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong.into());
        }
        let name = pipeline.name.value.clone();
        let request = self.chosen.request(context, &workspace, assignments, self.note.clone()).await?;
        self.chosen.carry_out(context, &workspace, &name, Some(&pipeline), request).await
    }
}

impl Discard {
    pub(super) async fn answer(self, workspace: &Workspace, context: &Context) -> Answer {
        if self.reason.trim().is_empty() {
            return Err(Diagnostic::error("wrong-value", "the reason is empty").help("say in a few words why: --reason \"…\"").into());
        }
        let name = name_of(&self.chosen.which.pipeline, workspace, context)?;
        // Whatever has become of the pipeline, its rows can be given up.
        let pipeline = context.pipeline(workspace, &self.chosen.which.pipeline, &Set::default()).ok();
        let request = self.chosen.request(context, workspace, Vec::new(), Some(self.reason.clone())).await?;
        self.chosen.carry_out(context, workspace, &name, pipeline.as_ref(), request).await
    }
}

impl Chosen {
    async fn request(
        &self,
        context: &Context,
        workspace: &Workspace,
        assignments: Vec<Assignment>,
        note: Option<String>,
    ) -> Result<Request, Stop> {
        let run = match &self.run {
            Some(run) => match workspace.history().await?.run(run).await? {
                Some(record) => Some(record.run),
                None => {
                    return Err(Failure::error("unknown-run", format!("there is no run \"{run}\""))
                        .help("see the runs with: weir runs list")
                        .into());
                }
            },
            None => None,
        };
        Ok(Request {
            step: self.which.step.clone(),
            run,
            code: self.which.code.clone(),
            condition: self.condition.as_ref().map(|text| SqlText::plain(SourceFile::new("--where", text.as_str()))),
            assignments,
            by: who(self.by.as_deref(), context),
            note,
        })
    }

    async fn carry_out(
        &self,
        context: &Context,
        workspace: &Workspace,
        name: &str,
        pipeline: Option<&weir_pipelines::Pipeline>,
        request: Request,
    ) -> Answer {
        let discards = request.assignments.is_empty();
        let cancel = context.signals.work("stopping at the next batch; a second Ctrl-C ends at once");
        let Some(prepared) = mend::prepare(workspace, name, pipeline, request, cancel).await? else {
            context.say(&format!("no row of \"{name}\" waits in quarantine"));
            return match context.global.json {
                true => context.answer("{}\n").map(|()| error::DONE),
                false => Ok(error::DONE),
            };
        };
        prepared.notes.iter().for_each(|note| context.say(note));
        let text = preview(&prepared.preview, discards, if self.dry_run { context.out } else { context.talk });
        if self.dry_run {
            match context.global.json {
                true => context.answer_json(&prepared.preview)?,
                false => context.answer(&text)?,
            }
            return Ok(error::DONE);
        }
        if !context.global.json || !self.yes {
            context.say(text.trim_end());
        }
        let ready = prepared.preview.ready;
        if ready == 0 {
            if context.global.json {
                context.answer_json(&prepared.preview)?;
            }
            // Nothing that is meant could be done is a failure; nothing being there is none.
            return Ok(if prepared.preview.rows > 0 { error::FAILED } else { error::DONE });
        }
        let question = format!("{} {}?", if discards { "Discard" } else { "Load" }, counted(ready, "row", "rows"));
        if !self.yes && !confirmed(&question)? {
            context.say("nothing was changed");
            return Ok(error::DONE);
        }
        let show = if context.global.quiet || discards { Show::Nothing } else { Show::Lines };
        let progress = std::sync::Arc::new(Progress::new(show));
        let watcher = progress.clone();
        let result = prepared.carry_out(std::sync::Arc::new(move |event| watcher.take(&event))).await;
        progress.finish();
        if matches!(result, Err(Failure::Interrupted)) {
            context.say("what was staged is discarded; nothing was published");
        }
        let summary = result?;
        match (context.global.json, discards) {
            (true, _) => context.answer_json(&summary)?,
            (false, true) => context.answer(&format!("{} discarded\n", counted(ready, "row is", "rows are")))?,
            (false, false) => context.answer(&summary::render(&summary, context.out))?,
        }
        Ok(error::DONE)
    }
}

impl Purge {
    pub(super) async fn answer(self, workspace: &Workspace, context: &Context) -> Answer {
        let age = units::duration(&self.older_than).map_err(|message| {
            Diagnostic::error("bad-duration", format!("--older-than: {message}")).help("write a number and a unit, such as 90d")
        })?;
        let before = chrono::Duration::from_std(age).ok().and_then(|age| Utc::now().checked_sub_signed(age)).unwrap_or_default();
        let name = name_of(&self.pipeline, workspace, context)?;
        let by = who(None, context);
        let cancel = context.signals.work("stopping; a second Ctrl-C ends at once");
        let purge = |dry_run: bool| mend::purge(workspace, &name, self.step.as_deref(), before, self.open, (&by, dry_run), cancel.clone());
        let total = |removed: &[(String, u64)]| removed.iter().map(|(_, rows)| rows).sum::<u64>();
        if !self.dry_run && !self.yes {
            let rows = total(&purge(true).await?);
            if rows > 0 && !confirmed(&format!("Remove {} for good?", counted(rows, "row", "rows")))? {
                context.say("nothing was changed");
                return Ok(error::DONE);
            }
        }
        let removed = purge(self.dry_run).await?;
        if context.global.json {
            let steps: Vec<_> = removed.iter().map(|(step, rows)| json!({ "step": step, "rows": rows })).collect();
            context.answer_json(&json!({ "pipeline": name, "dry_run": self.dry_run, "purged": steps }))?;
        } else {
            let rows = counted(total(&removed), "row", "rows");
            context.answer(&format!("{rows} {}\n", if self.dry_run { "would be removed" } else { "removed" }))?;
        }
        Ok(error::DONE)
    }
}

/// Asks on the terminal. Without one, nobody has said yes.
fn confirmed(question: &str) -> Result<bool, Stop> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Diagnostic::error(
            "not-confirmed",
            format!("{} nobody is here to ask", question.trim_end_matches('?').to_owned() + "?"),
        )
        .help("say --yes to go on, or --dry-run to look only")
        .into());
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Stop::output(&error))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn who(by: Option<&str>, context: &Context) -> String {
    let known = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| context.environment.get(*name).filter(|name| !name.is_empty()));
    by.or(known.map(String::as_str)).unwrap_or("unknown").to_owned()
}

/// Reads `column = expression`.
fn assignment(text: &str) -> Result<Assignment, Diagnostic> {
    let file = SourceFile::new("--set", text);
    let wrong = |message: &str| {
        Diagnostic::error("wrong-value", message.to_owned())
            .at(&file, 0..text.len(), "")
            .help("write a column, \"=\" and an SQL expression: --set \"zip = lpad(zip, 5, '0')\"")
    };
    let start = text.len() - text.trim_start().len();
    let (name, end, rest) = match text[start..].strip_prefix('"') {
        Some(quoted) => {
            let close = quoted.find('"').ok_or_else(|| wrong("the column's name is not closed"))?;
            let after = start + 1 + close + 1;
            let equals = text[after..].trim_start().strip_prefix('=').ok_or_else(|| wrong("no \"=\" follows the column"))?;
            (&quoted[..close], after, equals)
        }
        None => {
            let (name, rest) = text.split_once('=').ok_or_else(|| wrong("there is no \"=\" in it"))?;
            (name.trim(), name.trim_end().len(), rest)
        }
    };
    if name.is_empty() {
        return Err(wrong("it names no column"));
    }
    if rest.trim().is_empty() {
        return Err(wrong("no expression follows the \"=\""));
    }
    let value = SqlText::plain(SourceFile::new(format!("--set {name}"), rest.trim()));
    Ok(Assignment { column: Spanned::new(name.to_owned(), start..end.max(start)), file, value })
}

/// What would become of the rows.
fn preview(preview: &Preview, discards: bool, style: Style) -> String {
    let place = format!("{}.{}", preview.pipeline, preview.step);
    if preview.rows == 0 {
        return format!("{}: no row that waits in quarantine is meant\n", style.bold(&place));
    }
    let mut out = format!("{}: {} chosen", style.bold(&place), counted(preview.rows, "row is", "rows are"));
    out.push_str(&match discards {
        true => "\n".to_owned(),
        false => {
            let stay = if preview.invalid == 1 { "stays" } else { "stay" };
            format!(", {} valid now, {} {stay} in quarantine\n", preview.ready, preview.invalid)
        }
    });
    for row in &preview.examples {
        let changes: Vec<String> = row
            .changes
            .iter()
            .map(|(column, old, new)| format!("{column}: {} → {}", shown(old.as_deref()), shown(new.as_deref())))
            .collect();
        let what = match (discards, changes.is_empty()) {
            (true, _) => groups::cut(&row.raw),
            (false, true) => "valid as it is".to_owned(),
            (false, false) => changes.join(", "),
        };
        out.push_str(&format!("  {}{what}\n", groups::place(row.file.as_deref(), row.row)));
    }
    if !preview.invalid_examples.is_empty() {
        out.push_str(&format!("{}\n", style.yellow("still invalid")));
        for row in &preview.invalid_examples {
            let reason = row.reason.as_deref().unwrap_or_default();
            out.push_str(&format!("  {}{reason}\n", groups::place(row.file.as_deref(), row.row)));
            out.push_str(&format!("    {}\n", style.dim(&groups::cut(&row.raw))));
        }
    }
    if !discards && preview.ready > 0 {
        out.push_str(&format!("to {}\n", preview.destinations.join(", ")));
        if preview.anew {
            out.push_str(&format!(
                "{}: what stands behind \"{}\" does not go row by row: everything is read and loaded anew\n",
                style.dim("note"),
                preview.step
            ));
        }
        if preview.read_again {
            out.push_str(&format!(
                "{}: the pipeline reads its whole input each time; mend these rows there too, or the next run sets them aside again\n",
                style.dim("note")
            ));
        }
    }
    out
}

fn shown(cell: Option<&str>) -> String {
    cell.map_or_else(|| "null".to_owned(), groups::cut)
}
