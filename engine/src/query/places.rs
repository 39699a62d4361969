//! Which byte of a text stands at a line and column? The text is gone through once, however many places are asked for, and in whatever order.

use datafusion::sql::sqlparser::tokenizer::Location;

/// The characters of a text, by their lines.
#[derive(Debug)]
pub(super) struct Places {
    /// The byte that each character begins at; behind them, the text's end.
    bytes: Vec<usize>,
    /// The character that each line begins with.
    lines: Vec<usize>,
}

impl Places {
    /// Goes through a text.
    pub fn new(text: &str) -> Self {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        let mut lines = vec![0];
        for (at, c) in text.char_indices() {
            bytes.push(at);
            if c == '\n' {
                lines.push(bytes.len());
            }
        }
        bytes.push(text.len());
        Self { bytes, lines }
    }

    /// The byte of a 1-based line and column (in characters); the text's end for what lies behind it.
    pub fn byte(&self, place: Location) -> usize {
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
        let character = self.lines.get(number(place.line)).map(|line| line.saturating_add(number(place.column)));
        let end = self.bytes.last().copied().unwrap_or_default();
        character.and_then(|character| self.bytes.get(character)).copied().unwrap_or(end)
    }
}

#[cfg(test)]
mod tests {
    use weir_pipelines::{SourceFile, SqlText};

    use super::*;

    #[test]
    fn a_place_is_the_byte_that_a_text_of_sql_says() {
        for text in ["", "select 1", "é\n\n  sélect\r\n'ü' from t\n", "\n"] {
            let (places, sql) = (Places::new(text), SqlText::plain(SourceFile::new("<sql>", text)));
            for line in 0..7 {
                for column in 0..20 {
                    let expected = sql.span_of_line_column(line, column, Some((line, column))).start;
                    assert_eq!(places.byte(Location { line, column }), expected, "{text:?} {line}:{column}");
                }
            }
        }
    }
}
