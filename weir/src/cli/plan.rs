//! `weir plan`: what has changed, the dataflow, each step's columns, and what each destination would gain. Nothing is changed.

mod changes;
mod data;

use clap::Args;
use serde_json::{Value, json};
use weir_engine::check::{Checked, CheckedContract, CheckedSink, CheckedStep, Checker, Depth};
use weir_pipelines::Diagnostics;

use super::context::{Answer, Context, Set, add_new, parse_partial};
use crate::project;
use crate::render::{Style, Table, diagnostic, error, number::counted, table::Look};

const EXAMPLES: &str = "\
Examples:
  weir plan flights                 what has changed, the dataflow, columns and destinations
  weir plan flights --logical       with each step's query plan
  weir plan flights --json | jq '.sinks[].change'
  weir plan flights --data          rows that would be loaded otherwise than by the published version
  weir plan flights --data --sample 10000 --json | jq '.sinks[].changed'";

/// Show what a run would do: what has changed, the dataflow, columns, and changes of destinations
///
/// Asks each destination how it compares with the rows that would come, and changes nothing there. What systems outside have is kept in
/// .weir/schemas, by which weir check goes where they are not asked. With --data, the version that was published last and the one in the
/// file are both executed on the same input, and what they would load is compared; no destination is asked then, and nothing is written
/// where a reader looks.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Plan {
    /// The pipeline by file, folder or name
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipeline: String,
    #[command(flatten)]
    set: Set,
    /// Show each step's logical query plan too
    #[arg(long, conflicts_with = "data")]
    logical: bool,
    /// Execute the published version and this one on the same input, and show which rows they would load otherwise
    #[arg(long)]
    data: bool,
    /// Of a source with more rows than this, take about so many: always the same of the same input
    #[arg(long, value_name = "ROWS", requires = "data", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    /// Rows of each kind to show [default: 3, and 1000 with --json]
    #[arg(long, value_name = "ROWS", requires = "data")]
    examples: Option<usize>,
}

impl Plan {
    /// Plans and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        if self.data {
            return data::answer(&self.pipeline, &self.set, self.sample, self.examples, context).await;
        }
        let workspace = context.workspace(Some(&self.pipeline))?;
        let found = project::find_pipelines(&self.pipeline, &workspace.project.root, &context.folder)?;
        let checker = Checker::new(workspace, false).await?;
        let (mut all, mut told, mut outside) = (Vec::new(), checker.doubts.clone(), Vec::new());
        for found in &found {
            let partial = parse_partial(&checker.workspace.project, found, &context.folder, &self.set)?;
            let outcome = checker.check(partial, Depth::Destinations).await?;
            all.extend(outcome.checked);
            told.extend(outcome.diagnostics);
            outside.extend(outcome.outside);
        }
        let code = error::exit_code_of(&told, &outside);
        // What the rows of a matrix share is said once.
        let mut once = Diagnostics::new();
        add_new(&mut once, told);
        if all.len() < found.len() {
            context.show(&once.into());
            return Ok(code);
        }
        if context.global.json {
            match all.as_slice() {
                [checked] => context.answer_json(&as_json(checked))?,
                all => context.answer_json(&all.iter().map(as_json).collect::<Vec<_>>())?,
            }
            return Ok(error::DONE);
        }
        context.warn(&once);
        let shown: Vec<String> = all.iter().map(|checked| render(checked, self.logical, context.out)).collect();
        context.answer(&shown.join("\n"))?;
        Ok(error::DONE)
    }
}

fn as_json(checked: &Checked) -> Value {
    let warnings: Vec<_> = checked.warnings.iter().map(diagnostic::to_json).collect();
    let mut answer = json!({ "pipeline": checked.pipeline, "steps": checked.steps, "sinks": checked.sinks, "diagnostics": warnings });
    if let (Some(changes), Some(needs)) = (&checked.changes, &checked.needs) {
        answer["since"] = json!(changes.since);
        answer["changes"] = json!(changes.changes);
        answer["reads"] = json!(needs.reads);
        answer["connections"] = json!(needs.connections);
        answer["object_stores"] = json!(needs.object_stores);
    }
    answer
}

fn render(checked: &Checked, logical: bool, style: Style) -> String {
    let mut out = format!("{}\n", style.bold(&checked.pipeline));
    if let Some(found) = &checked.changes {
        out.push('\n');
        out.push_str(&changes::changes(found, style));
    }
    for step in &checked.steps {
        out.push('\n');
        out.push_str(&render_step(step, logical, style));
    }
    for sink in &checked.sinks {
        out.push('\n');
        out.push_str(&render_sink(sink, style));
    }
    if let Some(needs) = &checked.needs {
        out.push_str(&changes::needs(needs));
    }
    out
}

fn render_step(step: &CheckedStep, logical: bool, style: Style) -> String {
    let reads = if step.reads.is_empty() { String::new() } else { format!(" <- {}", step.reads.join(", ")) };
    let shared = if step.readers > 1 { format!("; computed once for {} readers", step.readers) } else { String::new() };
    let mut out = format!("{} {} ({}){reads}{}\n", step.role, style.bold(&step.step), step.kind, style.dim(&shared));
    let mut table = Table::new(Look::Plain, &["column", "type", ""]).indent(2);
    for column in &step.columns {
        table.row([column.name.as_str(), column.r#type.as_str(), if column.nullable { "" } else { "not null" }]);
    }
    out.push_str(&table.render_rows());
    for drift in &step.drift {
        out.push_str(&format!("  {}: {drift}\n", style.yellow("drift")));
    }
    if let Some(contract) = &step.contract {
        out.push_str(&format!("  contract {}\n", describe(contract)));
    }
    if logical {
        for line in step.plan.lines() {
            out.push_str(&format!("  {}\n", style.dim(&format!("| {line}"))));
        }
    }
    out
}

/// A contract's path, and how much of it is left to be checked.
pub fn describe(contract: &CheckedContract) -> String {
    let proved = match contract.proved.len() as u64 {
        0 => String::new(),
        1 => ", of which 1 can never fail and is not executed".to_owned(),
        many => format!(", of which {many} can never fail and are not executed"),
    };
    format!("{}: {}{proved}", contract.path, counted(contract.rules as u64, "rule", "rules"))
}

fn render_sink(sink: &CheckedSink, style: Style) -> String {
    let mut out = format!("sink {} ({}) <- {}, {}\n", style.bold(&sink.step), sink.kind, sink.from, sink.mode);
    let Some(change) = &sink.change else { return out };
    let state = match (change.creates, change.adds.is_empty()) {
        (true, _) => style.green("is made"),
        (false, true) => "keeps its columns".to_owned(),
        (false, false) => style.yellow(&format!("gains {}", change.adds.join(", "))),
    };
    out.push_str(&format!("  {} {state}\n", change.destination));
    let mut table = Table::new(Look::Plain, &["column", "type"]).indent(2);
    for (name, kind) in &change.columns {
        table.row([name, kind]);
    }
    out.push_str(&table.render_rows());
    for (at, step) in change.steps.iter().enumerate() {
        out.push_str(&format!("  {}. {step}\n", at + 1));
    }
    out
}

#[cfg(test)]
mod tests {
    use weir_connectors::Change;
    use weir_engine::{
        Drift,
        check::{CheckedContract, Column, ProvedRule},
    };

    use super::*;

    fn checked() -> Checked {
        let column = |name: &str, kind: &str, nullable| Column { name: name.into(), r#type: kind.into(), nullable };
        Checked {
            pipeline: "flights".into(),
            steps: vec![
                CheckedStep {
                    step: "raw".into(),
                    role: "source".into(),
                    kind: "file".into(),
                    reads: vec![],
                    columns: vec![column("carrier", "Utf8", false), column("delay", "Int64", true)],
                    drift: vec![Drift {
                        source: "raw".into(),
                        change: "missing_column".into(),
                        column: "delay".into(),
                        from: Some("Int64".into()),
                        to: None,
                        becomes: Some("Int64".into()),
                        file: None,
                        action: "null".into(),
                    }],
                    contract: Some(CheckedContract {
                        path: "flight.schema.json".into(),
                        rules: 9,
                        proved: vec![ProvedRule { rule: "/properties/delay/type".into(), column: Some("delay".into()), by: vec![] }],
                    }),
                    readers: 2,
                    plan: "TableScan: raw".into(),
                },
                CheckedStep {
                    step: "late".into(),
                    role: "transform".into(),
                    kind: "sql".into(),
                    reads: vec!["raw".into()],
                    columns: vec![column("carrier", "Utf8", false)],
                    drift: vec![],
                    contract: None,
                    readers: 1,
                    plan: "Projection: carrier\n  TableScan: raw".into(),
                },
            ],
            sinks: vec![CheckedSink {
                step: "out".into(),
                kind: "lake".into(),
                from: "late".into(),
                mode: "append".into(),
                change: Some(Change {
                    destination: "lake.flights.late".into(),
                    creates: false,
                    adds: vec!["carrier".into()],
                    columns: vec![("carrier".into(), "string".into())],
                    not_null: vec![],
                    steps: vec!["add the column carrier".into(), "append rows".into()],
                }),
            }],
            changes: None,
            needs: None,
            warnings: vec![],
        }
    }

    #[test]
    fn a_plan_shows_steps_columns_and_changes() {
        assert_eq!(
            render(&checked(), true, Style::PLAIN),
            "flights\n\nsource raw (file); computed once for 2 readers\n  carrier  Utf8   not null\n  delay    Int64\n  drift: \"raw\" lacks the column \"delay\" (Int64): it is null in every row\n  \
             contract flight.schema.json: 9 rules, of which 1 can never fail and is not executed\n  | TableScan: raw\n\n\
             transform late (sql) <- raw\n  carrier  Utf8  not null\n  | Projection: carrier\n  |   TableScan: raw\n\n\
             sink out (lake) <- late, append\n  lake.flights.late gains carrier\n  carrier  string\n  1. add the column carrier\n  2. append rows\n"
        );
    }
}
