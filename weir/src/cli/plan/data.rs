//! `weir plan --data`: what a changed pipeline would load otherwise than its published version.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use weir_engine::compare::{self, Comparison, Request, SinkComparison, difference::ChangedRow};

use crate::{
    cli::context::{Answer, Context, Set},
    render::{
        Style, Table, error,
        number::{count, counted},
        table::Look,
        text,
    },
};

/// Rows of each kind that are shown, and that `--json` has at most, unless `--examples` says otherwise.
const EXAMPLES: usize = 3;
const EXAMPLES_JSON: usize = 1000;
/// Rows are shown up to this width.
const ROW_WIDTH: usize = 160;

/// Compares and answers.
pub async fn answer(pipeline: &str, set: &Set, sample: Option<u64>, examples: Option<usize>, context: &Context) -> Answer {
    let workspace = context.workspace(Some(pipeline))?;
    let wrong = context.check_connections(&workspace.project);
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    let pipeline = context.pipeline(&workspace, pipeline, set)?;
    let cancel = context.signals.work("stopping; a second Ctrl-C ends at once");
    let examples = examples.unwrap_or(if context.global.json { EXAMPLES_JSON } else { EXAMPLES });
    let request = Request { sample, examples };
    let is_quiet = context.global.quiet || context.global.json;
    let tell = move |what: String| {
        if !is_quiet {
            crate::cli::context::to_stderr(&what);
        }
    };
    let comparison = compare::compare(&workspace, &pipeline, request, cancel, &tell).await?;
    if context.global.json {
        context.answer_json(&comparison)?;
    } else {
        context.warn(&pipeline.warnings);
        context.answer(&render(&comparison, context.out))?;
    }
    Ok(error::DONE)
}

fn render(comparison: &Comparison, style: Style) -> String {
    let mut out =
        format!("{}: this version against that of run {} ({})\n", style.bold(&comparison.pipeline), comparison.run, comparison.at);
    out.push_str("\ninput\n");
    let mut table = Table::new(Look::Plain, &["", ">", ""]).indent(2);
    for input in &comparison.input {
        let mut note = match input.of {
            "both" => String::new(),
            "before" => "read for the published version".to_owned(),
            _ => "read for this version".to_owned(),
        };
        if input.taken < input.rows {
            let sampled = format!("a sample of {}", counted(input.rows, "row", "rows"));
            note = if note.is_empty() { sampled } else { format!("{sampled}; {note}") };
        }
        table.row([input.source.as_str(), &count(input.taken), &note]);
    }
    out.push_str(&table.render_rows());
    if !comparison.rejected.is_empty() {
        out.push_str("\nrejected rows\n");
        let mut table = Table::new(Look::Plain, &["step", ">before", ">now"]).indent(2);
        let number = |rows: Option<u64>| rows.map_or_else(|| "no such step".to_owned(), count);
        for rejected in &comparison.rejected {
            table.row([rejected.step.clone(), number(rejected.before), number(rejected.now)]);
        }
        out.push_str(&table.render(style));
    }
    for sink in &comparison.sinks {
        out.push('\n');
        out.push_str(&render_sink(sink, style));
    }
    out
}

fn render_sink(sink: &SinkComparison, style: Style) -> String {
    let found = &sink.difference;
    let mut out = format!("sink {} <- {}", style.bold(&sink.sink), sink.from);
    match (sink.state, sink.key_by) {
        ("added", _) => {
            let _ = writeln!(out, ": {}, and no such sink in the published version", counted(found.rows_now, "row", "rows"));
            return out;
        }
        ("removed", _) => {
            let _ = writeln!(out, ": no such sink any more; it had {}", counted(found.rows_before, "row", "rows"));
            return out;
        }
        (_, Some(by)) => {
            let by = match by {
                "sink" => "its key",
                "deduplicate" => "the key of \"deduplicate\"",
                "expectation" => "columns that an expectation calls unique",
                _ => "what rows are grouped by",
            };
            let _ = writeln!(out, ", compared by {} ({by})", sink.key.join(", "));
        }
        (_, None) => {
            out.push_str(", compared row by row without a key");
            if let Some(note) = &sink.note {
                let _ = write!(out, ": {note}");
            }
            out.push('\n');
        }
    }
    let _ = writeln!(out, "  {} before, {} now", counted(found.rows_before, "row", "rows"), counted(found.rows_now, "row", "rows"));
    if found.added + found.removed + found.changed == 0 {
        out.push_str("  the rows are the same\n");
    } else {
        let _ = writeln!(
            out,
            "  {} added, {} removed, {} changed, {} the same",
            count(found.added),
            count(found.removed),
            count(found.changed),
            count(found.same)
        );
    }
    for (columns, what) in [(&sink.columns_added, "new columns"), (&sink.columns_removed, "columns that are gone")] {
        if !columns.is_empty() {
            let _ = writeln!(out, "  {what}, not compared: {}", columns.join(", "));
        }
    }
    let mut table = Table::new(Look::Plain, &["column", ">changed", "types"]).indent(2);
    let mut is_empty = true;
    for column in &found.columns {
        if column.changed.unwrap_or(0) == 0 && column.types.is_none() {
            continue;
        }
        is_empty = false;
        let types = column.types.as_ref().map(|(before, now)| format!("{before} -> {now}")).unwrap_or_default();
        table.row([column.column.as_str(), &column.changed.map(count).unwrap_or_default(), &types]);
    }
    if !is_empty {
        out.push_str(&table.render(style));
    }
    for (rows, mark, paint) in
        [(&found.examples.added, "+", Style::green as fn(Style, &str) -> String), (&found.examples.removed, "-", Style::red)]
    {
        for row in rows {
            let _ = writeln!(out, "  {} {}", paint(style, mark), cells(row));
        }
    }
    for ChangedRow { key, before, now } in &found.examples.changed {
        let _ = writeln!(out, "  {} {}", style.yellow("~"), cells(key));
        for (name, value) in now {
            let before = before.get(name).unwrap_or(&Value::Null);
            let _ =
                writeln!(out, "      {}", text::cut(&format!("{}: {} -> {}", text::visible(name), shown(before), shown(value)), ROW_WIDTH));
        }
    }
    out
}

fn cells(row: &Map<String, Value>) -> String {
    let cells: Vec<String> = row.iter().map(|(name, value)| format!("{} {}", text::visible(name), shown(value))).collect();
    text::cut(&cells.join(", "), ROW_WIDTH).into_owned()
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains([',', '"', ' ']) => text::visible(text).into_owned(),
        other => text::visible(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_engine::compare::{
        Rejected,
        capture::Captures,
        difference::{ColumnDifference, Difference, Examples},
    };

    use super::*;

    #[test]
    fn a_comparison_is_told_sink_by_sink() {
        let object = |value: Value| value.as_object().cloned().expect("an object");
        let sink = |sink: &str, state, key: &[&str], difference| SinkComparison {
            sink: sink.into(),
            from: "late".into(),
            state,
            key: key.iter().map(|name| (*name).into()).collect(),
            key_by: (!key.is_empty()).then_some("sink"),
            note: (key.is_empty() && state == "compared").then(|| "several rows have one key (id)".to_owned()),
            columns_added: if key.is_empty() { vec![] } else { vec!["new".into()] },
            columns_removed: vec![],
            difference,
        };
        let comparison = Comparison {
            pipeline: "p".into(),
            run: "r1".into(),
            at: "then".into(),
            clock: "now".into(),
            input: vec![
                Captures { source: "raw".into(), of: "both", rows: 2000, taken: 990 },
                Captures { source: "crm".into(), of: "now", rows: 3, taken: 3 },
            ],
            rejected: vec![Rejected { step: "raw".into(), before: Some(4), now: None }],
            sinks: vec![
                sink(
                    "out",
                    "compared",
                    &["id"],
                    Difference {
                        rows_before: 3,
                        rows_now: 3,
                        added: 1,
                        removed: 1,
                        changed: 1,
                        same: 1,
                        columns: vec![
                            ColumnDifference { column: "name".into(), changed: Some(1), types: None },
                            ColumnDifference { column: "n".into(), changed: Some(0), types: Some(("Int32".into(), "Int64".into())) },
                            ColumnDifference { column: "same".into(), changed: Some(0), types: None },
                        ],
                        examples: Examples {
                            added: vec![object(json!({ "id": 1, "name": "a b" }))],
                            removed: vec![object(json!({ "id": 2, "name": null }))],
                            changed: vec![ChangedRow {
                                key: object(json!({ "id": 3 })),
                                before: object(json!({ "name": "x" })),
                                now: object(json!({ "name": "" })),
                            }],
                        },
                    },
                ),
                sink("plain", "compared", &[], Difference { rows_before: 2, rows_now: 2, same: 2, ..Difference::default() }),
                sink("new", "added", &[], Difference { rows_now: 1, added: 1, ..Difference::default() }),
                sink("old", "removed", &[], Difference { rows_before: 2, removed: 2, ..Difference::default() }),
            ],
        };
        assert_eq!(
            render(&comparison, Style::PLAIN),
            "p: this version against that of run r1 (then)\n\ninput\n  raw  990  a sample of 2,000 rows\n  crm    3  read for this version\n\n\
             rejected rows\n  step  before           now\n  raw        4  no such step\n\n\
             sink out <- late, compared by id (its key)\n  3 rows before, 3 rows now\n  1 added, 1 removed, 1 changed, 1 the same\n  \
             new columns, not compared: new\n  column  changed  types\n  name          1\n  n             0  Int32 -> Int64\n  \
             + id 1, name \"a b\"\n  - id 2, name null\n  ~ id 3\n      name: x -> \"\"\n\n\
             sink plain <- late, compared row by row without a key: several rows have one key (id)\n  2 rows before, 2 rows now\n  the rows are the same\n\n\
             sink new <- late: 1 row, and no such sink in the published version\n\n\
             sink old <- late: no such sink any more; it had 2 rows\n"
        );
    }
}
