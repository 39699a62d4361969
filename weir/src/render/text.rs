//! Text as a terminal shows it: how wide it is, and what of it must not reach a terminal as it stands.

use std::{borrow::Cow, ops::Range};

use unicode_width::UnicodeWidthChar;

/// Columns between tab stops in source lines.
pub const TAB: usize = 4;

/// Returns how many columns a text takes on a terminal; it holds no tabs or control characters.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Returns how many columns a character takes: 0, 1 or 2.
pub fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// True for characters that steer a terminal or reorder text, and so would show something other than what is there.
pub fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// Writes characters that steer a terminal as escapes (`\n`, `\t`, `\u{1b}`), so that a value stays on its line.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Like [`visible`], but lets line breaks and tabs stand: for messages of several lines.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| steers(c) && c != '\n' && c != '\t') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(visible).collect::<Vec<_>>().join("\n"))
}

/// Cuts a text to at most `max` columns, the last of which then is `…`.
pub fn cut(text: &str, max: usize) -> Cow<'_, str> {
    let mut used = 0;
    let mut keep = 0;
    for (at, c) in text.char_indices() {
        let columns = char_width(c);
        if used + columns > max {
            return Cow::Owned(format!("{}…", &text[..keep]));
        }
        used += columns;
        if used < max {
            keep = at + c.len_utf8();
        }
    }
    Cow::Borrowed(text)
}

/// Breaks a text at spaces into lines of at most `max` columns; a longer word stands alone.
pub fn wrap(text: &str, max: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && width(&line) + 1 + width(word) > max {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// Where a line of a file holds what is nobody's to see: the password of a URL, the values behind its `?`, and what `password` is set to.
pub fn secrets(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, mark) in line.match_indices("://") {
        let start = at + mark.len();
        let rest = &line[start..];
        let url = &rest[..rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(rest.len())];
        if let Some(host) = url.rfind('@')
            && let Some(colon) = url[..host].find(':')
        {
            found.push(start + colon + 1..start + host);
        }
        if let Some(query) = url.find('?') {
            let mut pair_start = start + query + 1;
            for pair in url[query + 1..].split('&') {
                let value = pair.find('=').map_or(pair.len(), |equals| equals + 1);
                found.push(pair_start + value..pair_start + pair.len());
                pair_start += pair.len() + 1;
            }
        }
    }
    for (at, key) in line.match_indices("password") {
        let start = at + key.len();
        let value = line[start..].trim_start_matches([' ', '\t', '"', '\'']);
        let Some(value) = value.strip_prefix('=').map(str::trim_start) else { continue };
        if let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let text = &value[1..];
            let from = line.len() - text.len();
            found.push(from..from + text.find(quote).unwrap_or(text.len()));
        }
    }
    found.retain(|secret| !secret.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns_and_marks_none() {
        assert_eq!(width("abc"), 3);
        assert_eq!(width("東京"), 4);
        assert_eq!(width("e\u{301}"), 1);
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(visible("a\u{1b}[31mb\n\tc"), "a\\u{1b}[31mb\\n\\tc");
        assert_eq!(visible("ab\u{202e}cd"), "ab\\u{202e}cd");
        assert_eq!(visible("Zürich"), "Zürich");
        assert_eq!(visible_lines("a\nb\u{7}"), "a\nb\\u{7}");
    }

    #[test]
    fn a_cut_text_ends_in_an_ellipsis_within_the_width() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("東京都", 5), "東京…");
        assert_eq!(cut("東京都", 4), "東…");
    }

    #[test]
    fn secrets_of_a_line_are_found() {
        for (line, expected) in [
            ("url = \"postgres://me:hush@db/x\"", "url = \"postgres://me:****@db/x\""),
            ("url = 'postgres://me:h@sh@db/x' # a@b:c", "url = 'postgres://me:****@db/x' # a@b:c"),
            ("path = [\"https://h/a?sig=ab&x=é\", \"https://h/b\"]", "path = [\"https://h/a?sig=**&x=*\", \"https://h/b\"]"),
            ("password = \"hush\" # mine", "password = \"****\" # mine"),
            ("\"password\"='hush", "\"password\"='****"),
            ("password = { env = \"PG\" }", "password = { env = \"PG\" }"),
            ("path = \"s3://bucket/a.csv\"", "path = \"s3://bucket/a.csv\""),
            ("sql = \"select password from users where a = 'b'\"", "sql = \"select password from users where a = 'b'\""),
        ] {
            let secrets = secrets(line);
            let hidden = |(at, c)| if secrets.iter().any(|secret| secret.contains(&at)) { '*' } else { c };
            assert_eq!(line.char_indices().map(hidden).collect::<String>(), expected);
        }
    }

    #[test]
    fn words_are_wrapped_and_long_words_stand_alone() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensibilities are", 5), ["incomprehensibilities", "are"]);
        assert_eq!(wrap("a\nb", 5), ["a", "b"]);
    }
}
