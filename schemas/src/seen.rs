//! What all texts of a column have in common: their lengths, and a format that each of them is of.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// Formats that texts may turn out to be of. The last two change the type of the column.
const FORMATS: [&str; 3] = ["uuid", "date", "date-time"];

/// The crate's word on formats.
pub(crate) struct Formats;

impl Formats {
    /// True of a value that is of a format, as a contract would see it.
    pub(crate) fn holds(format: &str, value: &Value) -> bool {
        static KNOWN: LazyLock<Vec<(&str, Validator)>> = LazyLock::new(|| {
            let options = || jsonschema::options().offline().should_validate_formats(true);
            let of = |format| (format, options().build(&json!({ "format": format })).expect("a format is a schema"));
            ["uuid", "date", "date-time", "time"].map(of).into()
        });
        KNOWN.iter().find(|(known, _)| *known == format).is_some_and(|(_, validator)| validator.is_valid(value))
    }
}

/// What was seen of texts.
#[derive(Debug)]
pub(crate) struct Text {
    lengths: Option<(u64, u64)>,
    /// Those that all texts so far are of.
    formats: Vec<&'static str>,
}

impl Text {
    /// Nothing yet. With `narrow`, formats that change the type count.
    pub(crate) fn new(narrow: bool) -> Self {
        Self { lengths: None, formats: if narrow { FORMATS.to_vec() } else { vec![FORMATS[0]] } }
    }

    pub(crate) fn observe(&mut self, text: &str) {
        let chars = text.chars().count() as u64;
        self.lengths = Some(self.lengths.map_or((chars, chars), |(least, most)| (least.min(chars), most.max(chars))));
        if !self.formats.is_empty() {
            // The longest of them is an instant.
            let value = if chars <= 64 { Value::from(text) } else { Value::from("") };
            self.formats.retain(|format| Formats::holds(format, &value) && (*format != "date-time" || is_plain_instant(text)));
        }
    }

    /// The fewest and the most characters, where there was a text.
    pub(crate) fn lengths(&self) -> Option<(u64, u64)> {
        self.lengths
    }

    /// The format that all texts are of.
    pub(crate) fn format(&self) -> Option<&'static str> {
        self.lengths.and(self.formats.first().copied())
    }
}

/// True of an instant that a column of microseconds holds: no leap second, no finer fraction.
fn is_plain_instant(text: &str) -> bool {
    let bytes = text.as_bytes();
    let fraction = bytes.get(19..).map_or(0, |rest| match rest.first() {
        Some(b'.') => rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 0,
    });
    bytes.get(10) == Some(&b'T') && bytes.get(17..19) != Some(b"60") && fraction <= 6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(texts: &[&str]) -> Option<&'static str> {
        let mut text = Text::new(true);
        texts.iter().for_each(|one| text.observe(one));
        text.format()
    }

    #[test]
    fn a_format_is_one_that_all_texts_are_of() {
        assert_eq!(format(&["2026-03-02", "1999-12-31"]), Some("date"));
        assert_eq!(format(&["2026-03-02T10:00:00Z", "2026-03-02T10:00:00.123456+02:00"]), Some("date-time"));
        assert_eq!(format(&["5f0c7a1e-0000-4000-8000-0000000000ff"]), Some("uuid"));
        for texts in [
            &["2026-03-02", "x"][..],
            &["2026-02-30"],
            &["2026-03-02T10:00:00"],
            &["2026-03-02T10:00:00.1234567Z"],
            &["2016-12-31T23:59:60Z"],
            &[],
        ] {
            assert_eq!(format(texts), None, "{texts:?}");
        }
    }

    #[test]
    fn lengths_are_in_characters() {
        let mut text = Text::new(false);
        assert_eq!(text.lengths(), None);
        ["é", "", "abc"].iter().for_each(|one| text.observe(one));
        assert_eq!(text.lengths(), Some((0, 3)));
    }
}
