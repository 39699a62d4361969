//! What stands in a TOML document, written in Weir's style.

use super::{
    WIDTH,
    document::{Behind, Entry, Item, List, Value},
};

/// Spaces by which what stands in a broken array is set in.
const INDENT: usize = 2;

/// Writes a document.
pub fn print(entries: &[Entry<'_>], newline: &str) -> String {
    let mut printer = Printer { out: String::new(), newline };
    let blanks = blanks(entries);
    for (entry, blank) in entries.iter().zip(blanks) {
        if blank {
            printer.out.push_str(newline);
        }
        match entry {
            Entry::Blank => continue,
            Entry::Comment(text) => printer.out.push_str(text),
            Entry::Header { text, comment, .. } => {
                printer.out.push_str(text);
                printer.behind(*comment);
            }
            Entry::Pair { key, value, comment } => {
                printer.out.push_str(key);
                printer.out.push_str(" = ");
                printer.value(value, 0);
                printer.behind(*comment);
            }
        }
        printer.out.push_str(newline);
    }
    printer.out
}

/// Before which entries there is a blank line: where the author left one, but not at the start and not between a table's header and its
/// first key; and before each table that is not a part of the one before, with the comments that stand right above it.
fn blanks(entries: &[Entry<'_>]) -> Vec<bool> {
    let mut blanks = vec![false; entries.len()];
    for at in 1..entries.len() {
        let after_header = at >= 2 && matches!(entries[at - 2], Entry::Header { .. });
        let is_first_key = after_header && matches!(entries[at], Entry::Pair { .. });
        blanks[at] = at > 1 && entries[at - 1] == Entry::Blank && !is_first_key;
    }
    let mut table: Option<&[String]> = None;
    for (at, entry) in entries.iter().enumerate() {
        let Entry::Header { path, .. } = entry else { continue };
        if table.is_some_and(|table| path.len() > table.len() && path.starts_with(table)) {
            continue;
        }
        table = Some(path);
        let above = entries[..at].iter().rev().take_while(|entry| matches!(entry, Entry::Comment(_))).count();
        blanks[at - above] |= entries[..at - above].iter().any(|entry| *entry != Entry::Blank);
    }
    blanks
}

struct Printer<'a> {
    out: String,
    newline: &'a str,
}

impl Printer<'_> {
    fn behind(&mut self, comment: Option<Behind<'_>>) {
        if let Some(comment) = comment {
            self.out.extend(std::iter::repeat_n(' ', comment.gap.max(1)));
            self.out.push_str(comment.text);
        }
    }

    /// Writes a value on a line that is set in by `indent`.
    fn value(&mut self, value: &Value<'_>, indent: usize) {
        match value {
            Value::Scalar(text) => self.out.push_str(text),
            Value::List(list) if list.is_empty() => self.out.extend(list.brackets),
            Value::List(list) if list.is_broken() || (list.brackets[0] == '[' && !self.fits(list)) => self.broken(list, indent),
            Value::List(list) => self.on_one_line(list, indent),
        }
    }

    fn broken(&mut self, list: &List<'_>, indent: usize) {
        self.out.push(list.brackets[0]);
        self.behind(list.comment);
        let inner = indent + INDENT;
        for item in &list.items {
            self.out.push_str(self.newline);
            match item {
                Item::Blank => {}
                Item::Comment(text) => {
                    self.space(inner);
                    self.out.push_str(text);
                }
                Item::Value { key, value, comment } => {
                    self.space(inner);
                    self.pair(key.as_deref(), value, inner);
                    self.out.push(',');
                    self.behind(*comment);
                }
            }
        }
        self.out.push_str(self.newline);
        self.space(indent);
        self.out.push(list.brackets[1]);
    }

    fn on_one_line(&mut self, list: &List<'_>, indent: usize) {
        let is_table = list.brackets[0] == '{';
        self.out.push(list.brackets[0]);
        if is_table {
            self.out.push(' ');
        }
        for (at, item) in list.items.iter().enumerate() {
            let Item::Value { key, value, .. } = item else { continue };
            if at > 0 {
                self.out.push_str(", ");
            }
            self.pair(key.as_deref(), value, indent);
        }
        if is_table {
            self.out.push(' ');
        }
        self.out.push(list.brackets[1]);
    }

    fn pair(&mut self, key: Option<&str>, value: &Value<'_>, indent: usize) {
        if let Some(key) = key {
            self.out.push_str(key);
            self.out.push_str(" = ");
        }
        self.value(value, indent);
    }

    fn space(&mut self, columns: usize) {
        self.out.extend(std::iter::repeat_n(' ', columns));
    }

    /// True where an array ends on its line before the line is full, or goes over several lines whatever is done.
    fn fits(&self, list: &List<'_>) -> bool {
        // Further back than this, the line is full.
        let near = self.out.len().saturating_sub(4 * WIDTH);
        let line = self.out.as_bytes()[near..].iter().rposition(|byte| *byte == b'\n').map(|at| near + at + 1);
        let column = line.or((near == 0).then_some(0)).map_or(WIDTH, |line| self.out[line..].chars().count());
        let room = WIDTH.saturating_sub(column);
        list.width().is_none_or(|width| width <= room)
    }
}

impl List<'_> {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.comment.is_none()
    }

    fn is_broken(&self) -> bool {
        self.broken && !self.is_empty()
    }

    /// Its columns on one line; none where something in it goes over several lines.
    fn width(&self) -> Option<usize> {
        if self.is_empty() {
            return Some(2);
        }
        if self.broken {
            return None;
        }
        let space = if self.brackets[0] == '{' { 2 } else { 0 };
        let mut width = 2 + space + 2 * (self.items.len() - 1);
        for item in &self.items {
            let Item::Value { key, value, .. } = item else { continue };
            width += key.as_ref().map_or(0, |key| key.chars().count() + 3);
            width += match value {
                Value::Scalar(text) if text.contains('\n') => return None,
                Value::Scalar(text) => text.chars().count(),
                Value::List(list) => list.width()?,
            };
        }
        Some(width)
    }
}
