//! `weir runs failing`: the rows that broke a run's expectations, as tables or as JSON.

use arrow::array::AsArray;
use futures::StreamExt;
use serde_json::{Map, Value, json};
use weir_engine::{Failure, RunRecord, Workspace, books::ExpectationOutcome, failing::Failing};
use weir_pipelines::Diagnostic;

use super::context::{Context, Stop};
use crate::render::{
    Style, Table,
    number::{count, counted},
    summary,
    table::Look,
    text::cut,
};

/// Columns that a value takes at most.
const VALUE_WIDTH: usize = 60;

/// What is kept of a run's expectations.
pub fn of(workspace: &Workspace, run: &RunRecord) -> Result<Option<Failing>, Failure> {
    Failing::of(&workspace.state_dir, &run.pipeline, &run.run)
        .map_err(|error| Failure::error("failing-unreadable", format!("the failing rows of run {} cannot be read: {error}", run.run)))
}

/// Answers with the failing rows of a run, at most `limit` of each expectation.
pub async fn answer(workspace: &Workspace, run: &RunRecord, name: Option<&str>, limit: usize, context: &Context) -> Result<(), Stop> {
    let Some(failing) = of(workspace, run)? else {
        if context.global.json {
            return context.answer_json(&json!({ "run": run.run, "pipeline": run.pipeline, "expectations": [] }));
        }
        context.say(&format!("nothing is kept of run {}: no expectation failed, or it is too long ago", run.run));
        return Ok(());
    };
    if let Some(name) = name
        && !failing.outcomes.iter().any(|outcome| outcome.name == name)
    {
        let names: Vec<&str> = failing.outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
        return Err(Diagnostic::error("unknown-expectation", format!("no expectation \"{name}\" failed in run {}", run.run))
            .did_you_mean(name, names.iter().copied())
            .help(format!("those that failed are: {}", names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")))
            .into());
    }
    let wanted = |outcome: &ExpectationOutcome| name.is_none_or(|name| name == outcome.name);
    let mut shown: Vec<(&ExpectationOutcome, Vec<String>)> =
        failing.outcomes.iter().filter(|outcome| wanted(outcome)).map(|outcome| (outcome, Vec::new())).collect();
    let mut rows = failing.rows();
    // Rows lie in the order of their expectations; of two with one name, each has as many as its outcome says.
    let mut left: Vec<(&ExpectationOutcome, u64)> = failing.outcomes.iter().map(|outcome| (outcome, outcome.rows_kept)).collect();
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| weir_engine::run::explain(&error))?;
        let texts = batch.column(batch.num_columns() - 1).as_string::<i32>();
        for text in texts.iter().flatten() {
            let Some((outcome, left)) = left.iter_mut().find(|(_, left)| *left > 0) else { break };
            *left -= 1;
            if let Some((_, rows)) = shown.iter_mut().find(|(shown, _)| std::ptr::eq(*shown, *outcome))
                && rows.len() < limit
            {
                rows.push(text.to_owned());
            }
        }
    }
    if context.global.json {
        let expectations: Vec<Value> = shown
            .into_iter()
            .map(|(outcome, rows)| {
                let mut value = json!(outcome);
                value["failing"] = rows.into_iter().map(|row| serde_json::from_str(&row).unwrap_or(Value::String(row))).collect();
                value
            })
            .collect();
        return context.answer_json(&json!({ "run": run.run, "pipeline": run.pipeline, "expectations": expectations }));
    }
    let texts: Vec<String> = shown.iter().map(|(outcome, rows)| render(outcome, rows, context.out)).collect();
    context.answer(&texts.join("\n"))
}

fn render(outcome: &ExpectationOutcome, rows: &[String], style: Style) -> String {
    let mut out = summary::unmet(outcome, style).trim_start().to_owned();
    if rows.is_empty() {
        return out;
    }
    let parsed: Option<Vec<Map<String, Value>>> = rows.iter().map(|row| serde_json::from_str(row).ok()).collect();
    let table = match &parsed {
        Some(rows) => {
            let header: Vec<&str> = rows.first().into_iter().flat_map(|row| row.keys().map(String::as_str)).collect();
            let mut table = Table::new(Look::Plain, &header).indent(2);
            rows.iter().for_each(|row| table.row(header.iter().map(|name| cell(row.get(*name)))));
            table
        }
        // A row was so long that it is not whole.
        None => {
            let mut table = Table::new(Look::Plain, &["row"]).indent(2);
            rows.iter().for_each(|row| table.row([cut(row, 2 * VALUE_WIDTH)]));
            table
        }
    };
    out.push_str(&table.render(style));
    let all = counted(outcome.rows, "row fails", "rows fail");
    out.push_str(&match (rows.len() as u64, outcome.rows_kept) {
        (shown, kept) if shown == kept && kept == outcome.rows => format!("  {all}\n"),
        (shown, kept) if kept == outcome.rows => format!("  {all}, {shown} shown\n"),
        (shown, kept) => format!("  {all}, {} kept, {shown} shown\n", count(kept)),
    });
    out
}

fn cell(value: Option<&Value>) -> String {
    let text = match value {
        Some(Value::Null) => "NULL".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    cut(&text, VALUE_WIDTH).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rows: u64, rows_kept: u64) -> ExpectationOutcome {
        ExpectationOutcome {
            on: "orders".into(),
            name: "amounts are there".into(),
            outcome: "failed".into(),
            detail: "3 rows found, such as (id = 1, amount = null)".into(),
            rows,
            rows_kept,
            ..ExpectationOutcome::default()
        }
    }

    #[test]
    fn rows_are_drawn_as_the_table_they_come_from() {
        let rows = [r#"{"id":1,"amount":null}"#.to_owned(), r#"{"id":20,"amount":"x\ny"}"#.to_owned()];
        assert_eq!(
            render(&outcome(2, 2), &rows, Style::PLAIN),
            "failed \"amounts are there\" on \"orders\": 3 rows found, such as (id = 1, amount = null)\n\
             \x20 id  amount\n\
             \x20 1   NULL\n\
             \x20 20  x\\ny\n\
             \x20 2 rows fail\n"
        );
        assert!(render(&outcome(9, 9), &rows, Style::PLAIN).ends_with("  9 rows fail, 2 shown\n"));
        assert!(render(&outcome(90_000, 10_000), &rows, Style::PLAIN).ends_with("  90,000 rows fail, 10,000 kept, 2 shown\n"));
    }

    #[test]
    fn a_row_that_was_cut_is_drawn_as_text() {
        let rows = [r#"{"id":1}"#.to_owned(), r#"{"text":"xxxx… (cut; 80001 bytes in all)"#.to_owned()];
        let drawn = render(&outcome(2, 2), &rows, Style::PLAIN);
        assert!(drawn.contains("\n  {\"text\":\"xxxx… (cut; 80001 bytes in all)\n"), "{drawn}");
    }
}
