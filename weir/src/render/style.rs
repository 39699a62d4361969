//! Colour, where somebody sees it: on a terminal, unless `NO_COLOR` or `--color` say otherwise.

use std::collections::HashMap;

/// When answers are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Paints text, or leaves it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    color: bool,
}

impl Style {
    /// Text as it is.
    pub const PLAIN: Style = Style { color: false };
    /// Text with ANSI colours.
    pub const COLOR: Style = Style { color: true };

    /// Decides for one stream.
    pub fn decide(when: ColorWhen, terminal: bool, environment: &HashMap<String, String>) -> Self {
        let color = match when {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => {
                let refused = environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
                terminal && !refused && environment.get("TERM").map(String::as_str) != Some("dumb")
            }
        };
        Style { color }
    }

    /// True where colours are written.
    pub fn is_color(self) -> bool {
        self.color
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// For what matters most on a line.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }
    /// For what is wrong.
    pub fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }
    /// For what may be wrong.
    pub fn yellow(self, text: &str) -> String {
        self.paint("1;33", text)
    }
    /// For what is well.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }
    /// For the frame around a source line.
    pub fn blue(self, text: &str) -> String {
        self.paint("1;34", text)
    }
    /// For what may be skipped.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_terminal_gets_colour_unless_it_is_refused() {
        assert!(Style::decide(ColorWhen::Auto, true, &environment(&[])).is_color());
        assert!(!Style::decide(ColorWhen::Auto, false, &environment(&[])).is_color());
        assert!(!Style::decide(ColorWhen::Auto, true, &environment(&[("NO_COLOR", "1")])).is_color());
        assert!(Style::decide(ColorWhen::Auto, true, &environment(&[("NO_COLOR", "")])).is_color());
        assert!(!Style::decide(ColorWhen::Auto, true, &environment(&[("TERM", "dumb")])).is_color());
        assert!(Style::decide(ColorWhen::Always, false, &environment(&[("NO_COLOR", "1")])).is_color());
        assert!(!Style::decide(ColorWhen::Never, true, &environment(&[])).is_color());
    }

    #[test]
    fn plain_text_is_left_alone() {
        assert_eq!(Style::PLAIN.red("x"), "x");
        assert_eq!(Style::COLOR.red("x"), "\u{1b}[1;31mx\u{1b}[0m");
    }
}
