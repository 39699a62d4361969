//! Several SQL statements in one text: where each begins and ends. Knows quotes and comments; what a statement means is the engine's.

/// One statement, without its semicolon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The text, trimmed.
    pub text: &'a str,
    /// Where it begins, in bytes of the whole text.
    pub start: usize,
    /// True where a semicolon ends it.
    pub closed: bool,
}

/// Splits a text at the semicolons that end statements. Pieces of blanks and comments only are left out.
pub fn split(text: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut has_words = false;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let first = rest.chars().next().expect("the rest is not empty");
        at += match first {
            ';' => {
                push(&mut found, text, start..at, has_words, true);
                start = at + 1;
                has_words = false;
                1
            }
            '\'' | '"' | '`' => {
                has_words = true;
                quoted(rest, first)
            }
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            other => {
                has_words |= !other.is_whitespace();
                other.len_utf8()
            }
        };
    }
    push(&mut found, text, start..text.len(), has_words, false);
    found
}

/// True where every statement of the text is ended by a semicolon, or there is none.
pub fn is_complete(text: &str) -> bool {
    split(text).last().is_none_or(|last| last.closed)
}

/// Where the first backslash outside quotes and comments stands: what follows it is a command of the prompt.
pub fn backslash(text: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        at += match first {
            '\\' => return Some(at),
            '\'' | '"' | '`' => quoted(rest, first),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            other => other.len_utf8(),
        };
    }
    None
}

/// A piece of a script: SQL or a command of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A statement.
    Sql(Statement<'a>),
    /// A statement, and the command that stands in the place of its semicolon; or a command alone.
    Command(Option<Statement<'a>>, &'a str),
}

/// Splits a text that has commands of the prompt between its statements. A command ends with its line.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut start = 0;
    loop {
        let rest = &text[start..];
        let at = backslash(rest);
        let mut statements = split(&rest[..at.unwrap_or(rest.len())]);
        statements.iter_mut().for_each(|statement| statement.start += start);
        let Some(at) = at else {
            found.extend(statements.into_iter().map(Piece::Sql));
            return found;
        };
        let open = statements.pop_if(|last| !last.closed);
        found.extend(statements.into_iter().map(Piece::Sql));
        let command = &rest[at + 1..];
        let end = command.find('\n').unwrap_or(command.len());
        found.push(Piece::Command(open, command[..end].trim()));
        start += at + 1 + end;
    }
}

fn push<'a>(found: &mut Vec<Statement<'a>>, text: &'a str, range: std::ops::Range<usize>, has_words: bool, closed: bool) {
    if has_words {
        let piece = &text[range.clone()];
        let start = range.start + (piece.len() - piece.trim_start().len());
        found.push(Statement { text: piece.trim(), start, closed });
    }
}

/// Bytes of a quoted text; a doubled quote does not end it.
fn quoted(rest: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(found) = rest[at..].find(quote) {
        at += found + 1;
        if !rest[at..].starts_with(quote) {
            return at;
        }
        at += 1;
    }
    rest.len()
}

/// Bytes of a `/* … */` comment, in which others may be nested.
fn comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        split(text).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_split_but_not_inside_quotes_and_comments() {
        assert_eq!(texts("select 1; select 2"), ["select 1", "select 2"]);
        assert_eq!(texts("select ';', \"a;b\", 'it''s;'; x"), ["select ';', \"a;b\", 'it''s;'", "x"]);
        assert_eq!(texts("select 1 -- no; end\n; /* a; /* b; */ ; */ select 2"), ["select 1 -- no; end", "/* a; /* b; */ ; */ select 2"]);
        assert_eq!(texts(" ;; -- nothing\n ; "), Vec::<&str>::new());
        assert_eq!(texts("select 'ä;ö'; 東京"), ["select 'ä;ö'", "東京"]);
    }

    #[test]
    fn a_statement_knows_where_it_begins() {
        let text = "select 1;\n  select 2;";
        let statements = split(text);
        assert_eq!(statements[1].start, 12);
        assert_eq!(&text[statements[1].start..][..statements[1].text.len()], "select 2");
    }

    #[test]
    fn a_text_is_complete_when_its_last_statement_is_closed() {
        assert!(is_complete("select 1;"));
        assert!(is_complete("select 1; -- done"));
        assert!(is_complete("  "));
        assert!(!is_complete("select 1"));
        assert!(!is_complete("select 1; select ';"));
        assert!(!is_complete("select /* ;"));
    }

    #[test]
    fn commands_stand_between_statements_or_end_them() {
        let shown = |text| {
            let mut words = Vec::new();
            for piece in pieces(text) {
                words.push(match piece {
                    Piece::Sql(sql) => format!("{} at {}", sql.text, sql.start),
                    Piece::Command(None, command) => format!("\\{command}"),
                    Piece::Command(Some(sql), command) => format!("{} at {} \\{command}", sql.text, sql.start),
                });
            }
            words
        };
        assert_eq!(
            shown("\\x on\nselect 1; select 2 \\gx\n  select '\\n'"),
            ["\\x on", "select 1 at 6", "select 2 at 16 \\gx", "select '\\n' at 31"]
        );
        assert_eq!(shown("-- \\x\n\\dt ;"), ["\\dt ;"]);
        assert_eq!(shown("select 1; \\g a.csv"), ["select 1 at 0", "\\g a.csv"]);
        assert_eq!(shown(""), Vec::<String>::new());
        assert_eq!(backslash("select \"a\\\" /* \\ */ \\g"), Some(20));
    }
}
