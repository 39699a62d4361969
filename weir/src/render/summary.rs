//! What a run did, on one screen: the account of each step, totals, where the rows went, expectations, notes.

use weir_engine::{SinkBooks, StepBooks, Summary, books::ExpectationOutcome};

use super::{
    Style, Table,
    number::{bytes, count, counted, duration_ms, rate},
    table::Look,
    text,
};

/// Draws a summary; ends in a line break.
pub fn render(summary: &Summary, style: Style) -> String {
    let status = match summary.status.as_str() {
        "published" => style.green("published"),
        "dry_run" => style.yellow("dry run, nothing was published"),
        other => style.red(other),
    };
    let mut out =
        format!("{}: {status} in {}  {}\n\n", style.bold(&summary.pipeline), duration_ms(summary.duration_ms), style.dim(&summary.run));
    out.push_str(&account(summary).render(style));
    out.push_str(&format!(
        "\n  {} read ({}) at {}; {} staged\n",
        counted(summary.rows_read, "row", "rows"),
        bytes(summary.bytes_read),
        rate(summary.rows_per_second),
        bytes(summary.bytes_loaded),
    ));
    for sink in summary.books.sinks.iter().filter(|sink| !sink.destination.is_empty()) {
        let version = match sink.version.as_str() {
            "" => String::new(),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => format!(" (version {number})"),
            other if other == sink.destination => String::new(),
            other => format!(" ({other})"),
        };
        out.push_str(&format!("  \"{}\" went to {}{version}\n", sink.from, sink.destination));
    }
    if !summary.params.is_empty() {
        let values: Vec<String> = summary.params.iter().map(|(name, value)| format!("{name} = {}", text::visible(value))).collect();
        out.push_str(&format!("  with {}\n", values.join(", ")));
    }
    let passed = summary.expectations.iter().filter(|outcome| outcome.outcome == "passed").count() as u64;
    if passed > 0 {
        out.push_str(&format!("  {} passed\n", counted(passed, "expectation", "expectations")));
    }
    for outcome in summary.expectations.iter().filter(|outcome| outcome.outcome != "passed" || !outcome.detail.is_empty()) {
        out.push_str(&unmet(outcome, style));
    }
    if summary.expectations.iter().any(|outcome| outcome.rows_kept > 0) {
        out.push_str(&format!("  see the rows that fail with: weir runs failing {}\n", summary.run));
    }
    if summary.rows_quarantined > 0 {
        let rows = counted(summary.rows_quarantined, "row was", "rows were");
        out.push_str(&format!("  {rows} set aside; see them with: weir quarantine show {}\n", summary.pipeline));
    }
    if let Some(mends) = &summary.mends {
        let how = if mends.changes.is_empty() { String::new() } else { format!(": {}", mends.changes.join(", ")) };
        out.push_str(&format!(
            "  {} of \"{}\" {} {}{how}\n",
            counted(mends.rows, "row", "rows"),
            mends.step,
            if mends.rows == 1 { "was" } else { "were" },
            mends.status
        ));
    }
    for drift in &summary.drift {
        out.push_str(&format!("  {}: {drift}\n", style.yellow("drift")));
    }
    for note in &summary.notes {
        out.push_str(&format!("  {}: {note}\n", style.dim("note")));
    }
    for wrong in summary.books.imbalances() {
        out.push_str(&format!("  {}: {wrong}\n", style.red("books do not balance")));
    }
    out
}

/// One expectation that does not hold, or has a word to say though it does.
pub fn unmet(outcome: &ExpectationOutcome, style: Style) -> String {
    let word = match outcome.outcome.as_str() {
        "passed" => style.dim("passed"),
        "warned" => style.yellow("warned"),
        other => style.red(other),
    };
    let detail = if outcome.detail.is_empty() { String::new() } else { format!(": {}", outcome.detail) };
    format!("  {word} \"{}\" on \"{}\"{detail}\n", outcome.name, outcome.on)
}

fn account(summary: &Summary) -> Table {
    let header =
        ["step", "kind", ">read", ">out", ">loaded", ">quarantined", ">dropped", ">filtered", ">deduplicated", ">mended", ">bytes"];
    let mut table = Table::new(Look::Plain, &header).indent(2);
    for step in &summary.books.steps {
        table.row(step_cells(step));
    }
    for sink in &summary.books.sinks {
        table.row(sink_cells(sink));
    }
    table.row([
        "total".to_owned(),
        String::new(),
        count(summary.rows_read),
        String::new(),
        count(summary.rows_loaded),
        some(summary.rows_quarantined),
        some(summary.rows_dropped),
        some(summary.rows_filtered),
        some(summary.rows_deduplicated),
        String::new(),
        String::new(),
    ]);
    table.without_empty_columns()
}

fn step_cells(step: &StepBooks) -> [String; 11] {
    [
        step.step.clone(),
        step.kind.clone(),
        count(step.rows_in),
        count(step.rows_out),
        String::new(),
        some(step.rows_quarantined),
        some(step.rows_dropped),
        some(step.rows_filtered),
        some(step.rows_deduplicated),
        some(step.rows_mended),
        if step.role == "source" { bytes(step.bytes) } else { String::new() },
    ]
}

fn sink_cells(sink: &SinkBooks) -> [String; 11] {
    let none = String::new;
    [
        sink.step.clone(),
        sink.kind.clone(),
        count(sink.rows_in),
        none(),
        count(sink.rows_loaded),
        none(),
        none(),
        none(),
        none(),
        none(),
        bytes(sink.bytes),
    ]
}

/// A count, or nothing where it is nought: the eye finds what happened.
fn some(rows: u64) -> String {
    if rows == 0 { String::new() } else { count(rows) }
}

#[cfg(test)]
mod tests {
    use weir_engine::Books;

    use super::*;

    fn summary() -> Summary {
        let flights = StepBooks {
            step: "flights".into(),
            role: "source".into(),
            kind: "file".into(),
            rows_in: 336_776,
            rows_out: 336_000,
            rows_quarantined: 776,
            conserves: true,
            bytes: 8_500_000,
            ..StepBooks::default()
        };
        let delays = StepBooks {
            step: "delays".into(),
            role: "transform".into(),
            kind: "sql".into(),
            rows_in: 336_000,
            rows_out: 328_000,
            rows_filtered: 8_000,
            conserves: true,
            ..StepBooks::default()
        };
        let lake = SinkBooks {
            step: "lake".into(),
            kind: "lake".into(),
            from: "delays".into(),
            rows_in: 328_000,
            rows_loaded: 328_000,
            bytes: 2_500_000,
            destination: "lake.flights.delays".into(),
            version: "version 3".into(),
        };
        let outcome = |name: &str, outcome: &str, detail: &str| ExpectationOutcome {
            on: "delays".into(),
            name: name.into(),
            outcome: outcome.into(),
            detail: detail.into(),
            ..ExpectationOutcome::default()
        };
        Summary {
            run: "0193-run".into(),
            pipeline: "flights".into(),
            status: "published".into(),
            started_at: "2026-11-23T00:00:00Z".into(),
            duration_ms: 3_240,
            rows_read: 336_776,
            rows_loaded: 328_000,
            rows_quarantined: 776,
            rows_dropped: 0,
            rows_filtered: 8_000,
            rows_deduplicated: 0,
            bytes_read: 8_500_000,
            bytes_loaded: 2_500_000,
            rows_per_second: 103_943,
            books: Books { steps: vec![flights, delays], sinks: vec![lake] },
            expectations: vec![
                outcome("rows exist", "passed", ""),
                outcome("carriers are known", "warned", "2 rows, such as carrier = XX"),
            ],
            drift: vec![weir_engine::Drift {
                source: "flights".into(),
                change: "type_change".into(),
                column: "dep_delay".into(),
                from: Some("Int64".into()),
                to: Some("Utf8".into()),
                becomes: Some("Int64".into()),
                file: None,
                action: "quarantine".into(),
            }],
            params: [("day".to_owned(), "2013-01-01".to_owned())].into(),
            notes: vec!["2 new files".into()],
            mends: None,
        }
    }

    #[test]
    fn a_published_run_fits_one_screen() {
        assert_eq!(
            render(&summary(), Style::PLAIN),
            r#"flights: published in 3.2 s  0193-run

  step     kind     read      out   loaded  quarantined  filtered   bytes
  flights  file  336,776  336,000                   776            8.5 MB
  delays   sql   336,000  328,000                           8,000
  lake     lake  328,000           328,000                         2.5 MB
  total          336,776           328,000          776     8,000

  336,776 rows read (8.5 MB) at 104 k rows/s; 2.5 MB staged
  "delays" went to lake.flights.delays (version 3)
  with day = 2013-01-01
  1 expectation passed
  warned "carriers are known" on "delays": 2 rows, such as carrier = XX
  776 rows were set aside; see them with: weir quarantine show flights
  drift: "dep_delay" of "flights" was Int64 and is Utf8: rows whose value is not Int64 are set aside
  note: 2 new files
"#
        );
    }

    #[test]
    fn books_that_do_not_balance_are_said_to() {
        let mut summary = summary();
        summary.status = "failed".into();
        summary.books.sinks[0].rows_loaded = 1;
        let text = render(&summary, Style::PLAIN);
        assert!(text.starts_with("flights: failed in 3.2 s"), "{text}");
        assert!(text.contains("books do not balance: \"lake\" was given 328000 rows and staged 1"), "{text}");
    }
}
