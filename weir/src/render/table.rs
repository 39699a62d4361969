//! Rows of text as a table: plain columns, lines between them as psql draws them, or Markdown.

use super::{Style, text};

/// How the columns are set apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Two spaces.
    Plain,
    /// ` | ` and a line under the header.
    Lines,
    /// A GitHub table.
    Markdown,
}

/// A table whose rows are known.
#[derive(Debug, Clone)]
pub struct Table {
    look: Look,
    header: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
    indent: usize,
    widths: Vec<usize>,
}

impl Table {
    /// Starts a table. A header that begins with `>` stands over numbers: its column is set right.
    pub fn new(look: Look, header: &[&str]) -> Self {
        let right = header.iter().map(|name| name.starts_with('>')).collect();
        let header = header.iter().map(|name| name.strip_prefix('>').unwrap_or(name).to_owned()).collect();
        Self::of(look, header, right)
    }

    /// Starts a table whose header is data.
    pub fn of(look: Look, header: Vec<String>, right: Vec<bool>) -> Self {
        let mut table = Self { look, header: Vec::new(), right, rows: Vec::new(), indent: 0, widths: Vec::new() };
        table.header = header.iter().map(|name| table.cell(name)).collect();
        table.widths = table.header.iter().map(|name| text::width(name)).collect();
        table
    }

    /// Sets the table so many columns in.
    #[must_use]
    pub fn indent(mut self, columns: usize) -> Self {
        self.indent = columns;
        self
    }

    /// Adds a row; missing cells are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| self.cell(cell.as_ref())).collect();
        for (at, cell) in cells.iter().enumerate() {
            let width = text::width(cell);
            match self.widths.get_mut(at) {
                Some(widest) => *widest = width.max(*widest),
                None => self.widths.push(width),
            }
        }
        self.rows.push(cells);
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Removes the columns that hold nothing in any row, but for the first.
    #[must_use]
    pub fn without_empty_columns(mut self) -> Self {
        let keep: Vec<bool> = (0..self.header.len())
            .map(|at| at == 0 || self.rows.iter().any(|row| row.get(at).is_some_and(|cell| !cell.is_empty())))
            .collect();
        let pick = |cells: &[String]| -> Vec<String> {
            cells.iter().enumerate().filter(|(at, _)| keep.get(*at).copied().unwrap_or(true)).map(|(_, cell)| cell.clone()).collect()
        };
        self.header = pick(&self.header);
        self.rows = self.rows.iter().map(|row| pick(row)).collect();
        self.right = self.right.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(right, _)| *right).collect();
        self.widths = self.widths.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(width, _)| *width).collect();
        self
    }

    fn cell(&self, value: &str) -> String {
        let value = text::visible(value);
        match self.look {
            Look::Markdown => value.replace('|', "\\|"),
            _ => value.into_owned(),
        }
    }

    /// Draws header and rows; ends in a line break.
    pub fn render(&self, style: Style) -> String {
        let mut out = self.render_header(style);
        out.push_str(&self.render_rows());
        out
    }

    /// Draws the header with the widths of the rows known so far.
    pub fn render_header(&self, style: Style) -> String {
        let indent = " ".repeat(self.indent);
        let mut out = self.line(&self.header, |cell| style.bold(cell));
        match self.look {
            Look::Plain => {}
            Look::Lines => {
                let rule: Vec<String> = self.widths.iter().map(|width| "-".repeat(width + 2)).collect();
                out.push_str(&format!("{indent}{}\n", rule.join("+")));
            }
            Look::Markdown => {
                let rule: Vec<String> = self
                    .widths
                    .iter()
                    .enumerate()
                    .map(|(at, width)| {
                        let width = (*width).max(3);
                        if self.is_right(at) { format!("{}:", "-".repeat(width - 1)) } else { "-".repeat(width) }
                    })
                    .collect();
                out.push_str(&format!("{indent}| {} |\n", rule.join(" | ")));
            }
        }
        out
    }

    /// Draws the rows.
    pub fn render_rows(&self) -> String {
        self.rows.iter().map(|row| self.line(row, str::to_owned)).collect()
    }

    /// Forgets the rows but keeps the widths, so that more rows can follow those already drawn.
    pub fn clear_rows(&mut self) {
        self.rows.clear();
    }

    fn is_right(&self, at: usize) -> bool {
        self.right.get(at).copied().unwrap_or(false)
    }

    fn line(&self, cells: &[String], paint: impl Fn(&str) -> String) -> String {
        let last = self.widths.len().saturating_sub(1);
        let mut parts = Vec::with_capacity(self.widths.len());
        for (at, width) in self.widths.iter().enumerate() {
            let cell = cells.get(at).map_or("", String::as_str);
            let width = if self.look == Look::Markdown { (*width).max(3) } else { *width };
            let blank = " ".repeat(width.saturating_sub(text::width(cell)));
            parts.push(match (self.is_right(at), at == last && self.look != Look::Markdown) {
                (true, _) => format!("{blank}{}", paint(cell)),
                (false, true) => paint(cell),
                (false, false) => format!("{}{blank}", paint(cell)),
            });
        }
        let line = match self.look {
            Look::Plain => parts.join("  "),
            Look::Lines => format!(" {}", parts.join(" | ")),
            Look::Markdown => format!("| {} |", parts.join(" | ")),
        };
        format!("{}{}\n", " ".repeat(self.indent), line.trim_end_matches(' '))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(look: Look) -> Table {
        let mut table = Table::new(look, &["carrier", ">flights", "note"]);
        table.row(["UA", "58,665", ""]);
        table.row(["東京", "7", "a|b\nc"]);
        table
    }

    #[test]
    fn plain_columns_line_up_also_under_wide_characters() {
        assert_eq!(
            sample(Look::Plain).render(Style::PLAIN),
            "carrier  flights  note\n\
             UA        58,665\n\
             東京           7  a|b\\nc\n"
        );
    }

    #[test]
    fn lines_look_like_psql() {
        assert_eq!(
            sample(Look::Lines).render(Style::PLAIN),
            concat!(
                " carrier | flights | note\n",
                "---------+---------+--------\n",
                " UA      |  58,665 |\n",
                " 東京    |       7 | a|b\\nc\n"
            )
        );
    }

    #[test]
    fn markdown_escapes_its_bars() {
        assert_eq!(
            sample(Look::Markdown).render(Style::PLAIN),
            concat!(
                "| carrier | flights | note    |\n",
                "| ------- | ------: | ------- |\n",
                "| UA      |  58,665 |         |\n",
                "| 東京    |       7 | a\\|b\\nc |\n"
            )
        );
    }

    #[test]
    fn columns_that_hold_nothing_can_be_left_out() {
        let mut table = Table::new(Look::Plain, &["step", ">dropped", ">out"]);
        table.row(["a", "", "1"]);
        assert_eq!(table.without_empty_columns().indent(2).render(Style::PLAIN), "  step  out\n  a       1\n");
    }
}
