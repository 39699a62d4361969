//! What is a saved query? A file of SQL, `queries/NAME.sql`, whose first comment lines say its name, what it is for and its parameters:
//!
//! ```sql
//! -- name: delays
//! -- description: delays of one carrier
//! -- param carrier: text            the carrier's code
//! -- param since: date = '2013-01-01'
//! select * from flights.delays where carrier = $carrier and day >= $since
//! ```
//!
//! Which tables and columns there are, and how values are bound, is the engine's.

use std::sync::Arc;

use sqlparser::tokenizer::Token;

use crate::{
    diagnostic::{Diagnostic, Diagnostics, SourceFile, Span, Spanned, nearest},
    params::{ParamKind, ParamValue, TYPES},
    sql::{SqlText, names_a_table},
};

/// The keys of the header.
const KEYS: [&str; 3] = ["name", "description", "param"];
/// Bytes of a name at most: those of an identifier of Postgres, whose clients may ask for it.
const NAME_MAX: usize = 63;

/// A saved query: one `select`, and what is said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Its name, which needs no quotes in SQL.
    pub name: Spanned<String>,
    /// What it is for; empty where nothing is said.
    pub description: String,
    /// Its parameters, in the order in which values without a name are given.
    pub params: Vec<SavedParam>,
    /// The whole file, which is SQL: the header is its comments.
    pub sql: SqlText,
}

/// A parameter of a saved query.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedParam {
    /// Its name, which needs no quotes in SQL.
    pub name: Spanned<String>,
    /// What it holds.
    pub kind: ParamKind,
    /// What it is where nothing is given.
    pub default: SavedDefault,
    /// What it is for; empty where nothing is said.
    pub description: String,
}

/// What a parameter is where nothing is given.
#[derive(Debug, Clone, PartialEq)]
pub enum SavedDefault {
    /// It must be given.
    None,
    /// Null.
    Null,
    /// A value of its type.
    Value(ParamValue),
}

impl SavedParam {
    /// Reads a value from bare text, as a command line has it, or says what was expected.
    pub fn read(&self, text: &str) -> Result<ParamValue, String> {
        self.kind.read(text)
    }
}

impl std::fmt::Display for SavedParam {
    /// As the header has it, without the description: `since: date = '2013-01-01'`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name.value, self.kind)?;
        match &self.default {
            SavedDefault::None => Ok(()),
            SavedDefault::Null => f.write_str(" = null"),
            SavedDefault::Value(
                value @ (ParamValue::Bigint(_) | ParamValue::Double(_) | ParamValue::Decimal { .. } | ParamValue::Boolean(_)),
            ) => {
                write!(f, " = {value}")
            }
            SavedDefault::Value(value) => write!(f, " = '{}'", value.to_string().replace('\'', "''")),
        }
    }
}

impl Saved {
    /// Reads one file. What is wrong is told all at once; warnings come with a query that is right.
    pub fn parse(file: &Arc<SourceFile>) -> Result<(Self, Diagnostics), Diagnostics> {
        let mut header = Header { file, found: Diagnostics::new(), name: None, description: None, params: Vec::new(), is_named: false };
        for (start, line) in comment_lines(&file.text) {
            header.line(start, line);
        }
        let Header { mut found, name, description, params, is_named, .. } = header;
        if !is_named {
            found.push(
                Diagnostic::error("missing-key", "a saved query needs a name")
                    .at(file, 0..0, "")
                    .help(format!("write a first line such as: -- name: {}", suggested(&file.path))),
            );
        }
        let sql = SqlText::plain(file.clone());
        let is_sql = check_query(&sql, &mut found);
        if is_sql {
            check_uses(&sql, &params, &mut found);
        }
        found.sort_by_cached_key(Diagnostic::place);
        let params: Option<Vec<SavedParam>> = params.into_iter().map(|(_, param)| param).collect();
        match (name, params) {
            (Some(name), Some(params)) if found.iter().all(|one| one.severity == crate::Severity::Warning) => {
                Ok((Self { name, description: description.map(|text| text.value).unwrap_or_default(), params, sql }, found))
            }
            _ => Err(found),
        }
    }

    /// Reads the files of a project. Of two queries with one name, the second is told and left out.
    pub fn parse_all(files: &[Arc<SourceFile>]) -> (Vec<Self>, Diagnostics) {
        let (mut all, mut found): (Vec<Self>, Diagnostics) = Default::default();
        for file in files {
            match Self::parse(file) {
                Ok((saved, warnings)) => {
                    found.extend(warnings);
                    match all.iter().find(|known| known.name.value == saved.name.value) {
                        Some(known) => found.push(
                            Diagnostic::error("duplicate-name", format!("two saved queries are called \"{}\"", saved.name.value))
                                .at(file, saved.name.span.clone(), "the second one")
                                .at(&known.sql.file, known.name.span.clone(), "the first one"),
                        ),
                        None => all.push(saved),
                    }
                }
                Err(wrong) => found.extend(wrong),
            }
        }
        all.sort_by(|one, other| one.name.value.cmp(&other.name.value));
        (all, found)
    }
}

/// What has been read of a header.
struct Header<'a> {
    file: &'a Arc<SourceFile>,
    found: Diagnostics,
    name: Option<Spanned<String>>,
    description: Option<Spanned<String>>,
    /// The name of each parameter, and the parameter where it is right.
    params: Vec<(Spanned<String>, Option<SavedParam>)>,
    /// A name stands there, right or wrong.
    is_named: bool,
}

/// The lines of comments before the first word of SQL, without their dashes, each with the byte that it begins at.
fn comment_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    let lines = text.split_inclusive('\n').map(move |line| {
        let start = at;
        at += line.len();
        (start, line.trim_end_matches(['\n', '\r']))
    });
    lines
        .map(|(start, line)| (start + (line.len() - line.trim_start().len()), line.trim()))
        .take_while(|(_, line)| line.is_empty() || line.starts_with("--"))
        .filter_map(|(start, line)| {
            let dashes = line.len() - line.trim_start_matches('-').len();
            (dashes == 2).then(|| (start + dashes, &line[dashes..]))
        })
}

impl Header<'_> {
    fn error(&mut self, code: &'static str, message: impl Into<String>, span: Span, label: &str) -> &mut Diagnostic {
        self.found.push(Diagnostic::error(code, message).at(self.file, span, label));
        self.found.last_mut().expect("was just added")
    }

    /// Reads one line of comment. One without a key is a comment like any other.
    fn line(&mut self, start: usize, line: &str) {
        let lead = line.len() - line.trim_start().len();
        let (start, line) = (start + lead, line[lead..].trim_end());
        let word_end = line.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(line.len());
        let word = &line[..word_end];
        let key = start..start + word_end;
        let colon = line.find(':');
        if word == "param" && line[word_end..].starts_with([' ', '\t', ':']) {
            self.param(start, line, colon);
            return;
        }
        // `word:` is a key; so is `two words:` where the first is nearly one.
        let is_key = colon == Some(word_end) && word_end > 0;
        if !is_key {
            let second = line[word_end..].trim_start();
            let is_pair = colon.is_some_and(|at| !second.is_empty() && line[word_end..at].split_whitespace().count() == 1);
            if is_pair && word_end > 0 && nearest(word, ["param"]).is_some() {
                self.unknown(word, key);
            }
            return;
        }
        let rest = &line[word_end + 1..];
        let value = rest.trim();
        let value_start = start + word_end + 1 + (rest.len() - rest.trim_start().len());
        let place = value_start..value_start + value.len();
        match word {
            "name" => {
                let earlier = self.name.as_ref().map(|name| name.span.clone());
                if std::mem::replace(&mut self.is_named, true) {
                    self.repeated("name", key, earlier);
                } else if is_identifier(value) {
                    self.name = Some(Spanned::new(value.to_owned(), place));
                } else {
                    let help = if value.is_empty() { suggested(&self.file.path) } else { identifier(value) };
                    self.error("bad-name", format!("\"{value}\" cannot be the name of a saved query"), place, "")
                        .help
                        .extend([NAME_RULE.to_owned(), format!("write for instance: {help}")]);
                }
            }
            "description" => match &self.description {
                Some(known) => {
                    let earlier = known.span.clone();
                    self.repeated("description", key, Some(earlier));
                }
                None => self.description = Some(Spanned::new(value.to_owned(), place)),
            },
            _ => self.unknown(word, key),
        }
    }

    fn unknown(&mut self, word: &str, place: Span) {
        let near = nearest(word, KEYS).map(|near| format!("did you mean \"{near}\"?"));
        let found = self.error("unknown-key", format!("the header of a saved query has no key \"{word}\""), place, "not a key");
        found.help.extend(near);
        found.help.push(format!("keys are: {}; a comment of another kind stands below the first line of SQL", KEYS.join(", ")));
    }

    fn repeated(&mut self, key: &str, place: Span, earlier: Option<Span>) {
        let file = self.file.clone();
        let found = Diagnostic::error("query-header", format!("\"{key}\" stands twice")).at(&file, place, "the second one");
        self.found.push(match earlier {
            Some(earlier) => found.at(&file, earlier, "the first one"),
            None => found,
        });
    }

    /// Reads `param NAME: TYPE [= DEFAULT] [DESCRIPTION]`.
    fn param(&mut self, start: usize, line: &str, colon: Option<usize>) {
        const FORM: &str = "write it as: -- param since: date = '2013-01-31'   what it is for";
        let Some(colon) = colon else {
            self.error("query-header", "a parameter needs its type", start..start + line.len(), "no \":\"").help.push(FORM.to_owned());
            return;
        };
        let after = &line["param".len()..colon];
        let name = after.trim();
        let name_start = start + "param".len() + (after.len() - after.trim_start().len());
        let name = Spanned::new(name.to_owned(), name_start..name_start + name.len());
        if !is_identifier(&name.value) {
            let found = self.error("bad-name", format!("\"{}\" cannot be the name of a parameter", name.value), name.span, "");
            found.help.extend([NAME_RULE.to_owned(), FORM.to_owned()]);
            return;
        }
        if let Some(earlier) = self.params.iter().find(|(known, _)| known.value == name.value).map(|(known, _)| known.span.clone()) {
            let file = self.file.clone();
            self.found.push(
                Diagnostic::error("duplicate-name", format!("two parameters are called \"{}\"", name.value))
                    .at(&file, name.span, "the second one")
                    .at(&file, earlier, "the first one"),
            );
            return;
        }
        let param = self.typed(&name, start + colon + 1, &line[colon + 1..], FORM);
        self.params.push((name, param));
    }

    /// Reads what stands behind the colon of a parameter.
    fn typed(&mut self, name: &Spanned<String>, start: usize, text: &str, form: &str) -> Option<SavedParam> {
        let trimmed = text.trim_start();
        let start = start + (text.len() - trimmed.len());
        let word = trimmed.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(trimmed.len());
        let behind = trimmed[word..].trim_start();
        // The parentheses of a decimal belong to its type.
        let is_long = behind.starts_with('(') && trimmed[..word].eq_ignore_ascii_case("decimal");
        let end = match is_long.then(|| trimmed.find(')')).flatten() {
            Some(at) => at + 1,
            None => word,
        };
        let (kind, place) = (&trimmed[..end], start..start + end);
        if kind.is_empty() {
            self.error("query-header", format!("the parameter \"{}\" needs its type", name.value), name.span.clone(), "")
                .help
                .extend([form.to_owned(), format!("types are: {}", TYPES.join(", "))]);
            return None;
        }
        let Some(kind) = ParamKind::parse(kind) else {
            let near = nearest(kind, TYPES).map(|near| format!("did you mean \"{near}\"?"));
            let found = self.error("unknown-type", format!("\"{kind}\" is no type of a parameter"), place, "not a type");
            found.help.extend(near);
            found.help.push(format!("types are: {}", TYPES.join(", ")));
            return None;
        };
        let rest = &trimmed[end..];
        let behind = rest.trim_start();
        let start = start + end + (rest.len() - behind.len());
        let Some(behind_sign) = behind.strip_prefix('=') else {
            return Some(SavedParam { name: name.clone(), kind, default: SavedDefault::None, description: behind.trim().to_owned() });
        };
        let value = behind_sign.trim_start();
        let start = start + 1 + (behind_sign.len() - value.len());
        let (default, description) = self.default(name, kind, start, value)?;
        Some(SavedParam { name: name.clone(), kind, default, description })
    }

    /// Reads a default: a text in single quotes, a bare word, or `null`. What follows it describes the parameter.
    fn default(&mut self, name: &Spanned<String>, kind: ParamKind, start: usize, text: &str) -> Option<(SavedDefault, String)> {
        let (read, is_bare, end) = match text.strip_prefix('\'') {
            Some(rest) => {
                let Some((value, length)) = unquoted(rest) else {
                    self.error("query-header", "the quote is never closed", start..start + text.len(), "opened here");
                    return None;
                };
                (value, false, 1 + length)
            }
            None => {
                let end = text.find(char::is_whitespace).unwrap_or(text.len());
                (text[..end].to_owned(), true, end)
            }
        };
        let place = start..start + end;
        let description = text[end..].trim().to_owned();
        if is_bare && read.eq_ignore_ascii_case("null") {
            return Some((SavedDefault::Null, description));
        }
        let value = match kind {
            ParamKind::Text if is_bare => Err(format!("a text stands in single quotes, found \"{read}\"")),
            kind => kind.read(&read),
        };
        match value {
            Ok(value) => Some((SavedDefault::Value(value), description)),
            Err(message) => {
                self.error("wrong-type", format!("\"{}\": {message}", name.value), place, "")
                    .help
                    .push(format!("\"{}\" is of type {kind}", name.value));
                None
            }
        }
    }
}

const NAME_RULE: &str = "a name is a lower-case letter or _, then lower-case letters, digits and _: it needs no quotes in SQL";

fn is_identifier(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// A text made a name.
fn identifier(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = text.chars().map(plain).take(NAME_MAX - 1).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// The name that a file suggests.
fn suggested(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    match identifier(name.strip_suffix(".sql").unwrap_or(name)) {
        name if name.is_empty() => "delays".to_owned(),
        name => name,
    }
}

/// What stands in single quotes, of which the first is left out, and how many bytes it takes with the closing one.
fn unquoted(rest: &str) -> Option<(String, usize)> {
    let (mut value, mut at) = (String::new(), 0);
    loop {
        let found = at + rest[at..].find('\'')?;
        value.push_str(&rest[at..found]);
        if !rest[found + 1..].starts_with('\'') {
            return Some((value, found + 1));
        }
        value.push('\'');
        at = found + 2;
    }
}

/// Checks that the text is one query. False where it is not.
fn check_query(sql: &SqlText, found: &mut Diagnostics) -> bool {
    // The engine reads `version as of 3` before the SQL is parsed.
    let plain = SqlText { text: without_versions(sql), file: sql.file.clone(), span: sql.span.clone() };
    let plain = SqlText { file: SourceFile::new(sql.file.path.clone(), plain.text.clone()), ..plain };
    let Err(wrong) = plain.relations() else { return true };
    let end = sql.text.trim_end().len();
    let first = sql.tokens().first().map(|token| token.span);
    let first = first.map_or(end..end, |span| {
        let (start, end) = (span.start, span.end);
        sql.span_of_line_column(start.line, start.column, Some((end.line, end.column)))
    });
    found.extend(wrong.into_iter().map(|mut one| {
        let (message, help) = match one.code {
            "sql-several" => ("a file holds one saved query, and this one holds several statements", "put each into a file of its own"),
            "sql-not-a-query" => ("only queries can be saved", "write a select: nothing is changed by a saved query"),
            "sql-empty" => ("there is no SQL in the file", "write a select below the header"),
            _ => (one.message.as_str(), ""),
        };
        one.message = message.to_owned();
        if !help.is_empty() {
            one.help = vec![help.to_owned()];
        }
        // The same bytes, of the file as it is; the header is nothing to point at.
        one.file = Some(sql.file.clone());
        for label in &mut one.labels {
            label.file = sql.file.clone();
            match one.code {
                "sql-empty" => label.span = end..end,
                "sql-not-a-query" if label.span.is_empty() => label.span = first.clone(),
                _ => {}
            }
        }
        one
    }));
    false
}

/// The text with blanks in the place of each `version as of 3` and `timestamp as of '2026-01-31'`.
fn without_versions(sql: &SqlText) -> String {
    let tokens = sql.tokens();
    let is = |at: usize, words: &[&str]| match tokens.get(at).map(|token| &token.token) {
        Some(Token::Word(word)) => word.quote_style.is_none() && words.iter().any(|known| word.value.eq_ignore_ascii_case(known)),
        _ => false,
    };
    let mut text = sql.text.clone();
    for at in 1..tokens.len() {
        if !(is(at, &["version", "timestamp"]) && is(at + 1, &["as"]) && is(at + 2, &["of"])) {
            continue;
        }
        if !names_a_table(&tokens, at) {
            continue;
        }
        let Some(value) = tokens.get(at + 3) else { continue };
        if !matches!(value.token, Token::Number(..) | Token::SingleQuotedString(_)) {
            continue;
        }
        let (from, to) = (tokens[at].span.start, value.span.end);
        let range = sql.span_of_line_column(from.line, from.column, Some((to.line, to.column)));
        let blank: String =
            text[range.clone()].chars().map(|c| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) }).collect();
        text.replace_range(range, &blank);
    }
    text
}

/// Notes each `$name` that is no parameter, and each parameter that is no `$name`.
fn check_uses(sql: &SqlText, params: &[(Spanned<String>, Option<SavedParam>)], found: &mut Diagnostics) {
    let names: Vec<&str> = params.iter().map(|(name, _)| name.value.as_str()).collect();
    let mut used = Vec::new();
    for (placeholder, span) in sql.placeholders() {
        let name = placeholder.trim_start_matches(['$', '?', ':', '@']).to_owned();
        if placeholder.starts_with('$') && names.contains(&name.as_str()) {
            used.push(name);
            continue;
        }
        let message = match placeholder.strip_prefix('$').filter(|name| is_identifier(name)) {
            Some(name) => format!("the query has no parameter \"{name}\""),
            None => format!("\"{placeholder}\" is no parameter: they are used by name"),
        };
        let unknown =
            Diagnostic::error("unknown-param", message).at(&sql.file, span, "not a parameter").did_you_mean(&name, names.iter().copied());
        let shown = if is_identifier(&name) { name } else { "carrier".to_owned() };
        found.push(match names.as_slice() {
            [] => unknown.help(format!("declare it above the query: -- param {shown}: text")),
            names => unknown.help(format!("parameters are: {}", names.join(", "))),
        });
    }
    for (name, _) in params {
        if !used.contains(&name.value) {
            found.push(
                Diagnostic::warning("unused-param", format!("the query does not use the parameter \"{}\"", name.value))
                    .at(&sql.file, name.span.clone(), "")
                    .help(format!("use it as ${}, or take its line out", name.value)),
            );
        }
    }
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
