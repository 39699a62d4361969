//! Draws a [`Diagnostic`]: message, place, the source lines with their labels, help. Also as JSON, with lines and columns.

use serde_json::{Value, json};
use weir_pipelines::{Diagnostic, Severity, SourceFile};

use super::{
    Style,
    text::{self, TAB},
};

/// Source lines wider than this are shown around their first label only.
const LINE_WIDTH: usize = 160;
/// A label over more lines than this is shown by its first two and its last.
const LABEL_LINES: usize = 4;

/// Draws a diagnostic; ends in a line break.
pub fn render(diagnostic: &Diagnostic, style: Style) -> String {
    let severity = |text: &str| match diagnostic.severity {
        Severity::Error => style.red(text),
        Severity::Warning => style.yellow(text),
    };
    let word = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let message = text::visible_lines(&diagnostic.message);
    let mut out = format!("{}: {}\n", severity(&format!("{word}[{}]", diagnostic.code)), style.bold(&message));
    // The first label's file first.
    let mut files: Vec<&SourceFile> = diagnostic.file.as_deref().into_iter().collect();
    for label in &diagnostic.labels {
        if !files.contains(&&*label.file) {
            files.push(&label.file);
        }
    }
    let drawn: Vec<_> = files.into_iter().map(|file| (file, Lines::of(file))).collect();
    let drawn: Vec<_> = drawn.iter().map(|(file, lines)| (file, lines, pieces(diagnostic, file, lines))).collect();
    let numbers = drawn.iter().flat_map(|(.., pieces)| pieces).map(|piece| (piece.line + 1).to_string().len());
    let gutter = numbers.max().unwrap_or(1);
    for (at, (file, lines, pieces)) in drawn.iter().enumerate() {
        let place = match diagnostic.labels.iter().find(|label| *label.file == ***file) {
            Some(label) => {
                let (line, column) = file.line_column(label.span.start);
                format!("{}:{line}:{column}", file.path)
            }
            None => file.path.clone(),
        };
        let arrow = if at == 0 { "-->" } else { ":::" };
        out.push_str(&format!("{}{} {}\n", " ".repeat(gutter), style.blue(arrow), text::visible(&place)));
        if !pieces.is_empty() {
            draw(&mut out, lines, pieces, gutter, style, &severity);
        }
    }
    for help in &diagnostic.help {
        push_note(&mut out, gutter, "help", help, style);
    }
    out
}

/// Adds a `= help: …` line; further lines of the text stand under its first.
pub fn push_note(out: &mut String, gutter: usize, word: &str, note: &str, style: Style) {
    let note = text::visible_lines(note);
    let mut lines = note.lines();
    let first = lines.next().unwrap_or("");
    out.push_str(&format!("{} {} {}: {first}\n", " ".repeat(gutter), style.blue("="), style.bold(word)));
    for line in lines {
        out.push_str(&format!("{}{line}\n", " ".repeat(gutter + 5 + word.len())));
    }
}

/// The diagnostic as an object: code, severity, message, file, line, column, labels, help.
pub fn to_json(diagnostic: &Diagnostic) -> Value {
    let file = diagnostic.file.as_deref();
    let first = diagnostic.labels.first().map(|label| label.file.line_column(label.span.start));
    let labels: Vec<Value> = diagnostic
        .labels
        .iter()
        .map(|label| {
            let (start, end) = (label.file.line_column(label.span.start), label.file.line_column(label.span.end));
            json!({
                "file": label.file.path, "line": start.0, "column": start.1, "end_line": end.0, "end_column": end.1,
                "start": label.span.start, "end": label.span.end, "text": label.text,
            })
        })
        .collect();
    json!({
        "code": diagnostic.code,
        "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "message": diagnostic.message,
        "file": file.map(|file| file.path.as_str()),
        "line": first.map(|at| at.0),
        "column": first.map(|at| at.1),
        "labels": labels,
        "help": diagnostic.help,
    })
}

/// The lines of a text: where each starts, and its bytes without the line break.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(file: &'a SourceFile) -> Self {
        let starts = std::iter::once(0).chain(file.text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text: &file.text, starts }
    }

    fn line(&self, index: usize) -> &'a str {
        let start = self.starts[index];
        let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        let line = &self.text[start..end];
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn index_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset) - 1
    }
}

/// The part of a label that lies on one line: byte columns in that line.
#[derive(Debug)]
struct Piece<'a> {
    line: usize,
    start: usize,
    end: usize,
    text: &'a str,
    primary: bool,
}

/// Cuts the labels in one file into pieces, sorted by line, then by column.
fn pieces<'a>(diagnostic: &'a Diagnostic, file: &SourceFile, lines: &Lines<'_>) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    for (at, label) in diagnostic.labels.iter().enumerate().filter(|(_, label)| *label.file == *file) {
        let primary = at == 0;
        let start = floor(lines.text, label.span.start);
        let mut end = floor(lines.text, label.span.end.max(label.span.start));
        // A span that takes a line break with it does not reach into the next line.
        while end > start && lines.text[..end].ends_with(['\n', '\r']) {
            end -= 1;
        }
        let (first, last) = (lines.index_of(start), lines.index_of(end));
        for line in first..=last {
            if last - first >= LABEL_LINES && line > first + 1 && line < last {
                continue;
            }
            let content = lines.line(line);
            let line_start = lines.starts[line];
            let from = if line == first { start - line_start } else { content.len() - content.trim_start().len() };
            let to = if line == last { end - line_start } else { content.trim_end().len() };
            if line != first && line != last && to <= from {
                continue;
            }
            let (from, to) = (from.min(content.len()), to.min(content.len()));
            let text = if line == last { label.text.as_str() } else { "" };
            pieces.push(Piece { line, start: from, end: to.max(from), text, primary });
        }
    }
    pieces.sort_by_key(|piece| (piece.line, piece.start, !piece.primary));
    pieces
}

fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A source line as it is shown: its text, and the display column of byte offsets.
struct Shown {
    text: String,
    /// Byte offset and display column, for every character and for the end.
    columns: Vec<(usize, usize)>,
}

impl Shown {
    /// Expands tabs, hides secrets and what steers a terminal, and cuts a long line to a window that holds `focus`.
    fn of(line: &str, focus: usize) -> Self {
        let secrets = text::secrets(line);
        let mut cells: Vec<(usize, String, usize)> = Vec::new();
        let mut column = 0;
        for (at, c) in line.char_indices() {
            let (cell, width) = match c {
                c if secrets.iter().any(|secret| secret.contains(&at)) => {
                    let width = text::char_width(c);
                    ("*".repeat(width), width)
                }
                '\t' => {
                    let width = TAB - column % TAB;
                    (" ".repeat(width), width)
                }
                c if text::steers(c) => ("\u{fffd}".to_owned(), 1),
                c => (c.to_string(), text::char_width(c)),
            };
            column += width;
            cells.push((at, cell, width));
        }
        let mut shown = Shown { text: String::new(), columns: Vec::with_capacity(cells.len() + 1) };
        let mut window = 0..usize::MAX;
        if column > LINE_WIDTH {
            let at = cells.iter().take_while(|cell| cell.0 < focus).map(|cell| cell.2).sum::<usize>();
            let from = at.saturating_sub(LINE_WIDTH / 4);
            window = from..from + LINE_WIDTH;
        }
        let (mut at, mut shown_at) = (0, 0);
        if window.start > 0 {
            shown.text.push('…');
            shown_at = 1;
        }
        let mut cut = false;
        for (offset, cell, width) in cells {
            shown.columns.push((offset, shown_at));
            if window.contains(&at) {
                shown.text.push_str(&cell);
                shown_at += width;
            } else if at >= window.end {
                cut = true;
            }
            at += width;
        }
        shown.columns.push((line.len(), shown_at));
        if cut {
            shown.text.push('…');
        }
        shown
    }

    fn column(&self, offset: usize) -> usize {
        let at = self.columns.partition_point(|(byte, _)| *byte < offset);
        self.columns.get(at).or(self.columns.last()).map_or(0, |(_, column)| *column)
    }
}

fn draw(out: &mut String, lines: &Lines<'_>, pieces: &[Piece<'_>], gutter: usize, style: Style, severity: &dyn Fn(&str) -> String) {
    let bar = format!("{} {}", " ".repeat(gutter), style.blue("|"));
    out.push_str(&bar);
    out.push('\n');
    let mut previous: Option<usize> = None;
    for group in pieces.chunk_by(|a, b| a.line == b.line) {
        let line = group[0].line;
        match previous.map(|previous| line - previous) {
            // One line between two that are shown is shown too: it takes the room that dots would.
            Some(2) => {
                let between = Shown::of(lines.line(line - 1), 0);
                push_source(out, line - 1, &between.text, gutter, style);
            }
            Some(gap) if gap > 2 => out.push_str(&format!("{}\n", style.blue("..."))),
            _ => {}
        }
        previous = Some(line);
        let shown = Shown::of(lines.line(line), group[0].start);
        push_source(out, line, &shown.text, gutter, style);
        let marks: Vec<Mark<'_>> = group
            .iter()
            .map(|piece| {
                let start = shown.column(piece.start);
                Mark { start, end: shown.column(piece.end).max(start + 1), text: piece.text, primary: piece.primary }
            })
            .collect();
        let paint = |primary: bool, text: &str| if primary { severity(text) } else { style.blue(text) };
        for row in label_rows(&marks) {
            out.push_str(&bar);
            out.push(' ');
            out.push_str(&row.paint(&paint));
            out.push('\n');
        }
    }
}

fn push_source(out: &mut String, line: usize, text: &str, gutter: usize, style: Style) {
    let number = format!("{:>gutter$} |", line + 1);
    out.push_str(&style.blue(&number));
    let text = text.trim_end();
    if !text.is_empty() {
        out.push(' ');
        out.push_str(text);
    }
    out.push('\n');
}

struct Mark<'a> {
    start: usize,
    end: usize,
    text: &'a str,
    primary: bool,
}

/// One row under a source line: display columns with a character and whether it belongs to the primary label.
#[derive(Default)]
struct Row {
    cells: Vec<Option<(char, bool)>>,
}

impl Row {
    fn put(&mut self, at: usize, c: char, primary: bool) {
        if self.cells.len() <= at {
            self.cells.resize(at + 1, None);
        }
        self.cells[at] = Some((c, primary));
    }

    /// Nothing is put behind a text, so its characters may be wider than a cell.
    fn put_text(&mut self, at: usize, text: &str, primary: bool) {
        for (index, c) in text::visible(text).chars().enumerate() {
            self.put(at + index, c, primary);
        }
    }

    fn paint(&self, paint: &dyn Fn(bool, &str) -> String) -> String {
        let mut out = String::new();
        for run in self.cells.chunk_by(|a, b| a.map(|cell| cell.1) == b.map(|cell| cell.1)) {
            let text: String = run.iter().map(|cell| cell.map_or(' ', |(c, _)| c)).collect();
            match run[0] {
                Some((_, primary)) => out.push_str(&paint(primary, &text)),
                None => out.push_str(&text),
            }
        }
        out
    }
}

/// Underlines, the rightmost label's text beside its underline, the others' on rows beneath, each under its start.
fn label_rows(marks: &[Mark<'_>]) -> Vec<Row> {
    let mut first = Row::default();
    for mark in marks.iter().filter(|mark| !mark.primary).chain(marks.iter().filter(|mark| mark.primary)) {
        for at in mark.start..mark.end {
            first.put(at, if mark.primary { '^' } else { '-' }, mark.primary);
        }
    }
    let mut waiting: Vec<&Mark<'_>> = marks.iter().filter(|mark| !mark.text.is_empty()).collect();
    if let Some(last) = waiting.pop() {
        if marks.iter().all(|mark| mark.end <= last.end) {
            first.put_text(last.end + 1, last.text, last.primary);
        } else {
            waiting.push(last);
        }
    }
    let mut rows = vec![first];
    let bars = |marks: &[&Mark<'_>]| {
        let mut row = Row::default();
        for mark in marks {
            row.put(mark.start, '|', mark.primary);
        }
        row
    };
    if !waiting.is_empty() {
        rows.push(bars(&waiting));
    }
    while let Some(mark) = waiting.pop() {
        let mut row = bars(&waiting);
        row.put_text(mark.start, mark.text, mark.primary);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
#[path = "diagnostic_tests.rs"]
mod tests;
