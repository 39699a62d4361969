//! A SQL text inside a TOML string: the way from a place in the SQL back to the place in the file, and which steps it reads.
//! What the SQL means, its columns and types, is left to the engine.

use std::{ops::ControlFlow, sync::Arc};

use sqlparser::{
    ast::{DataType, Expr, Ident, ObjectName, Query, SetExpr, Spanned as _, Statement, TableFactor, Visit, Visitor},
    dialect::GenericDialect,
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan},
};

use crate::diagnostic::{Diagnostic, Diagnostics, SourceFile, Span};

/// The names, behind `$`, of the interval that a run is for.
pub const INTERVAL: [&str; 2] = ["interval_start", "interval_end"];

/// SQL as the parser of TOML decoded it, with where each of its bytes was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlText {
    /// The decoded text.
    pub text: String,
    /// The file it stands in.
    pub file: Arc<SourceFile>,
    /// The bytes of the TOML string, quotes included.
    pub span: Span,
}

/// A table that a SQL text reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The parts of its name. Those without quotes are in lower case, as DataFusion takes them.
    pub parts: Vec<String>,
    /// True when some part was written without quotes and not in lower case.
    pub folded: bool,
    /// Where it was written, in the file.
    pub span: Span,
}

impl SqlText {
    /// Reads the TOML string at `span` of a file.
    pub fn new(file: Arc<SourceFile>, span: Span) -> Self {
        let text = file.text.get(span.clone()).map(|raw| decode(raw).0).unwrap_or_default();
        Self { text, file, span }
    }

    /// A file that is nothing but SQL.
    pub fn plain(file: Arc<SourceFile>) -> Self {
        Self { text: file.text.clone(), span: 0..file.text.len(), file }
    }

    /// The place in the file of a byte of the text. An offset at or behind the text's end is the place behind its last character.
    pub fn span_at(&self, offset_in_text: usize) -> usize {
        match self.map() {
            Some(map) => match map.get(offset_in_text) {
                Some(place) => self.span.start + place.start,
                None => map.last().map_or(self.span.start, |last| self.span.start + last.end),
            },
            None => self.span.start,
        }
    }

    /// The place in the file of a range of bytes of the text; the whole string where the text was not written there (`--set`).
    pub fn span_of(&self, range: Span) -> Span {
        let Some(map) = self.map() else { return self.span.clone() };
        let end = map.last().map_or(0, |last| last.end);
        let start = map.get(range.start).map_or(end, |place| place.start);
        let end = match range.end.checked_sub(1).filter(|last| *last >= range.start) {
            Some(last) => map.get(last).map_or(end, |place| place.end),
            None => start,
        };
        self.span.start + start..self.span.start + end.max(start)
    }

    /// The place in the file of a 1-based line and column (in characters) of the text, as sqlparser and DataFusion name places. Without `end`
    /// (exclusive), the word that starts there, or one character.
    pub fn span_of_line_column(&self, line: u64, column: u64, end: Option<(u64, u64)>) -> Span {
        let start = self.offset_of(line, column);
        let end = match end {
            Some((line, column)) => self.offset_of(line, column).max(start),
            None => {
                let rest = &self.text[start..];
                let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                start + if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) }
            }
        };
        self.span_of(start..end)
    }

    fn offset_of(&self, line: u64, column: u64) -> usize {
        let mut start = 0;
        for _ in 1..line {
            match self.text[start..].find('\n') {
                Some(at) => start += at + 1,
                None => return self.text.len(),
            }
        }
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        self.text[start..].char_indices().nth(column.saturating_sub(1)).map_or(self.text.len(), |(at, _)| start + at)
    }

    /// Where each byte of the text was written, relative to the span; none where the text did not come from there.
    fn map(&self) -> Option<Vec<Span>> {
        if self.span == (0..self.file.text.len()) && self.text == self.file.text {
            let places = self.text.char_indices().flat_map(|(at, c)| std::iter::repeat_n(at..at + c.len_utf8(), c.len_utf8()));
            return Some(places.collect());
        }
        let (text, map) = decode(self.file.text.get(self.span.clone())?);
        (text == self.text).then_some(map)
    }

    /// The tables that a query reads, each time they are named, without those its own `with` names. Fails when the text is not one query.
    pub fn relations(&self) -> Result<Vec<Relation>, Diagnostics> {
        self.check_depth().map_err(|found| vec![found])?;
        let statements = Parser::parse_sql(&GenericDialect {}, &self.text).map_err(|error| vec![self.syntax(&error)])?;
        let query = match statements.as_slice() {
            [Statement::Query(query)] => query,
            [] => {
                return Err(vec![Diagnostic::error("sql-empty", "the SQL is empty").at(
                    &self.file,
                    self.span.clone(),
                    "write a query here",
                )]);
            }
            [_] => return Err(vec![self.not_a_query(self.first_word())]),
            [_, _, ..] => {
                let tokens = self.tokens();
                let mut behind = tokens.iter().skip_while(|token| token.token != Token::SemiColon);
                let second = behind.find(|token| token.token != Token::SemiColon).and_then(|token| self.place(token.span));
                let place = second.unwrap_or_else(|| self.span.clone());
                let message = "only one query can be a step, and this text holds several statements";
                return Err(vec![
                    Diagnostic::error("sql-several", message)
                        .at(&self.file, place, "the second one")
                        .help("make it two transforms, or one query with \"with\""),
                ]);
            }
        };
        let mut reads = Reads { text: self, scopes: vec![], relations: vec![], queries: vec![], skip: false, found: vec![] };
        let _: ControlFlow<()> = query.visit(&mut reads);
        if reads.found.is_empty() { Ok(reads.relations) } else { Err(reads.found) }
    }

    /// The names that values are to be bound to, such as `$day`, each time they stand in the text, and where.
    pub fn placeholders(&self) -> Vec<(String, Span)> {
        let name = |token: &TokenWithSpan| match &token.token {
            Token::Placeholder(name) => Some((name.clone(), self.place(token.span)?)),
            _ => None,
        };
        self.tokens().iter().filter_map(name).collect()
    }

    /// Where it uses the interval that a run is for first, if it does.
    pub fn interval_use(&self) -> Option<Span> {
        // Telling apart what is a name and what a text or comment takes longer, and is seldom needed.
        if !INTERVAL.iter().any(|name| self.text.contains(name)) {
            return None;
        }
        let is_it = |name: &str| name.strip_prefix('$').is_some_and(|name| INTERVAL.contains(&name));
        self.placeholders().into_iter().find(|(name, _)| is_it(name)).map(|(_, place)| place)
    }

    /// Checks that the text is one expression, such as `amount > 0`, that reads no table.
    pub fn check_expression(&self) -> Result<(), Diagnostics> {
        match self.queries_in("condition")?.first() {
            None => Ok(()),
            Some(query) => Err(vec![
                Diagnostic::error("filter-query", "a filter cannot hold a query")
                    .at(&self.file, query.clone(), "a query")
                    .help("write the step with \"sql\", which can read several steps"),
            ]),
        }
    }

    /// Checks that the text is one expression that reads no table, of which whoever plans it asks that it is an aggregate: `avg(amount)`.
    pub fn check_aggregate(&self) -> Result<(), Diagnostics> {
        match self.queries_in("aggregate")?.first() {
            None => Ok(()),
            Some(query) => Err(vec![
                Diagnostic::error("aggregate-query", "an aggregate cannot hold a query")
                    .at(&self.file, query.clone(), "a query")
                    .help("make the value a column of a transform, and expect something of that step"),
            ]),
        }
    }

    /// Parses the text as one expression, `what` in messages, and finds where the queries in it begin.
    fn queries_in(&self, what: &str) -> Result<Vec<Span>, Diagnostics> {
        if self.text.trim().is_empty() {
            let label = format!("write {} {what} here", if what.starts_with('a') { "an" } else { "a" });
            return Err(vec![Diagnostic::error("sql-empty", "the SQL is empty").at(&self.file, self.span.clone(), label)]);
        }
        self.check_depth().map_err(|found| vec![found])?;
        let parsed = Parser::new(&GenericDialect {}).try_with_sql(&self.text).and_then(|mut parser| {
            let expression: Expr = parser.parse_expr()?;
            match parser.peek_token().token {
                Token::EOF => Ok(expression),
                _ => parser.expected(&format!("the end of the {what}"), parser.peek_token()),
            }
        });
        let expression = parsed.map_err(|error| vec![self.syntax(&error)])?;
        let mut reads = Reads { text: self, scopes: vec![], relations: vec![], queries: vec![], skip: false, found: vec![] };
        let _: ControlFlow<()> = expression.visit(&mut reads);
        Ok(reads.queries)
    }

    /// Checks that the text is a SQL type, such as `bigint` or `decimal(10, 2)`.
    pub fn check_type(&self) -> Result<(), Diagnostics> {
        let parsed = Parser::new(&GenericDialect {}).try_with_sql(&self.text).and_then(|mut parser| {
            let parsed = parser.parse_data_type()?;
            match parser.peek_token().token {
                Token::EOF => Ok(parsed),
                _ => parser.expected("the end of the type", parser.peek_token()),
            }
        });
        match parsed {
            Ok(DataType::Custom(..)) | Err(_) => Err(vec![
                Diagnostic::error("unknown-type", format!("\"{}\" is not a SQL type", self.text))
                    .at(&self.file, self.span.clone(), "not a type")
                    .did_you_mean(&self.text, TYPES)
                    .help(format!("types are: {}, decimal(precision, scale)", TYPES.join(", "))),
            ]),
            Ok(_) => Ok(()),
        }
    }

    fn not_a_query(&self, span: Span) -> Diagnostic {
        Diagnostic::error("sql-not-a-query", "only queries can be steps")
            .at(&self.file, span, "not a query")
            .help("write a select; Weir's sinks do the writing")
    }

    fn first_word(&self) -> Span {
        let start = self.text.len() - self.text.trim_start().len();
        let rest = &self.text[start..];
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.span_of(start..start + word)
    }

    fn place(&self, span: sqlparser::tokenizer::Span) -> Option<Span> {
        (span.start.line > 0).then(|| self.span_of_line_column(span.start.line, span.start.column, Some((span.end.line, span.end.column))))
    }

    /// A syntax error, at the place that its message ends with: " at Line: 2, Column: 7".
    pub(crate) fn syntax(&self, error: &ParserError) -> Diagnostic {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
            ParserError::RecursionLimitExceeded => "the SQL is nested too deeply",
        };
        let (message, place) = match message.rsplit_once(" at Line: ") {
            Some((message, place)) => {
                let place = place.split_once(", Column: ").and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)));
                (message, place)
            }
            None => (message, None),
        };
        let span = match place {
            Some((line, column)) => self.span_of_line_column(line, column, None),
            None if message.ends_with("found: EOF") => {
                let end = self.text.trim_end().len();
                self.span_of(end..end)
            }
            None if matches!(error, ParserError::RecursionLimitExceeded) => self.deepest().unwrap_or_else(|| self.span.clone()),
            None => self.span.clone(),
        };
        let mut message = message.replace('\n', " ").replace("found: EOF", "found the end of the SQL").replace("Expected: ", "expected ");
        message = message.replace(", found: ", ", found ");
        let mut chars = message.chars();
        let lower: String = chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default();
        Diagnostic::error("sql-syntax", format!("the SQL does not parse: {lower}")).at(&self.file, span, "")
    }
}

/// The types offered when one is not known.
const TYPES: [&str; 13] =
    ["boolean", "smallint", "int", "bigint", "real", "double", "varchar", "text", "date", "time", "timestamp", "timestamptz", "bytea"];

/// Whether the name that ends before a token is a table's to read from: it stands behind `from`, `join`, a comma or a parenthesis. That of an
/// alias does not.
pub fn names_a_table(tokens: &[TokenWithSpan], at: usize) -> bool {
    let Some(mut first) = at.checked_sub(1) else { return false };
    while first >= 2 && tokens[first - 1].token == Token::Period && matches!(tokens[first - 2].token, Token::Word(_)) {
        first -= 2;
    }
    match first.checked_sub(1).map(|before| &tokens[before].token) {
        Some(Token::Comma | Token::LParen) => true,
        Some(Token::Word(word)) => {
            word.quote_style.is_none()
                && ["from", "join", "table", "describe", "lateral"].iter().any(|known| word.value.eq_ignore_ascii_case(known))
        }
        _ => false,
    }
}

/// The first word of a query's first select.
fn first_select(body: &SetExpr) -> Option<sqlparser::tokenizer::Span> {
    match body {
        SetExpr::Select(select) => Some(select.select_token.0.span),
        SetExpr::SetOperation { left, .. } => first_select(left),
        SetExpr::Query(query) => first_select(&query.body),
        _ => None,
    }
}

/// Names as DataFusion takes them: lower case, unless in quotes.
fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Collects the relations of a query outside the scope of its own `with` names.
struct Reads<'a> {
    text: &'a SqlText,
    scopes: Vec<Scope>,
    relations: Vec<Relation>,
    /// Where its queries begin.
    queries: Vec<Span>,
    /// The next relation is a table function's name.
    skip: bool,
    found: Diagnostics,
}

/// The names of one query's `with`.
struct Scope {
    visible: Vec<String>,
    /// Those that come into scope when their query, known by its address, has been visited.
    pending: Vec<(*const Query, String)>,
}

impl Visitor for Reads<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let place = first_select(&query.body).and_then(|span| self.text.place(span));
        self.queries.push(place.unwrap_or_else(|| self.text.span.clone()));
        let mut scope = Scope { visible: vec![], pending: vec![] };
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = normal(&cte.alias.name);
            // A `with` name is not in scope in its own query, unless the `with` is recursive.
            match query.with.as_ref().is_some_and(|with| with.recursive) {
                true => scope.visible.push(name),
                false => scope.pending.push((std::ptr::from_ref(cte.query.as_ref()), name)),
            }
        }
        self.scopes.push(scope);
        let mut bodies = vec![query.body.as_ref()];
        while let Some(body) = bodies.pop() {
            match body {
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                    let place = self.text.place(body.span()).unwrap_or_else(|| self.text.first_word());
                    self.found.push(self.text.not_a_query(place));
                }
                SetExpr::Table(table) => {
                    let name = table.table_name.clone().unwrap_or_default();
                    let place = self.text.place(body.span()).unwrap_or_else(|| self.text.first_word());
                    self.found.push(
                        Diagnostic::error("sql-not-a-query", format!("\"table {name}\" is not supported"))
                            .at(&self.text.file, place, "")
                            .help(format!("write \"select * from {name}\"")),
                    );
                }
                SetExpr::SetOperation { left, right, .. } => bodies.extend([left.as_ref(), right.as_ref()]),
                SetExpr::Select(select) => {
                    if let Some(into) = &select.into {
                        let place = self.text.place(into.name.span()).unwrap_or_else(|| self.text.first_word());
                        self.found.push(self.text.not_a_query(place));
                    }
                }
                SetExpr::Query(_) | SetExpr::Values(_) => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        if let Some(scope) = self.scopes.last_mut()
            && let Some(at) = scope.pending.iter().position(|(pending, _)| std::ptr::eq(*pending, query))
        {
            let (_, name) = scope.pending.remove(at);
            scope.visible.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        // The relation is the first thing visited in it.
        self.skip = matches!(factor, TableFactor::Table { args: Some(_), .. });
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        if std::mem::take(&mut self.skip) {
            return ControlFlow::Continue(());
        }
        let idents: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
        let parts: Vec<String> = idents.iter().map(|ident| normal(ident)).collect();
        if let [one] = parts.as_slice()
            && self.scopes.iter().any(|scope| scope.visible.contains(one))
        {
            return ControlFlow::Continue(());
        }
        let folded = idents.iter().any(|ident| normal(ident) != ident.value);
        let span = self.text.place(name.span()).unwrap_or_else(|| self.text.span.clone());
        self.relations.push(Relation { parts, folded, span });
        ControlFlow::Continue(())
    }
}

/// Decodes a TOML string as it was written, quotes included, and says for each byte of the outcome which bytes it came from.
/// What is not a TOML string is taken as it is.
pub(crate) fn decode(raw: &str) -> (String, Vec<Span>) {
    let quotes = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quote| raw.starts_with(quote) && raw.len() >= 2 * quote.len() && raw.ends_with(quote));
    let quote = quotes.unwrap_or("");
    let end = raw.len() - quote.len();
    let mut at = quote.len();
    if quote.len() == 3 {
        at += ["\r\n", "\n"].into_iter().find(|newline| raw[at..end].starts_with(newline)).map_or(0, str::len);
    }
    let (mut text, mut map) = (String::new(), Vec::new());
    while at < end {
        let rest = &raw[at..end];
        let Some(first) = rest.chars().next() else { break };
        let (decoded, len) = match (first, quote.starts_with('"')) {
            ('\\', true) => escape(rest),
            _ => (Some(first), first.len_utf8()),
        };
        if let Some(c) = decoded {
            text.push(c);
            map.extend(std::iter::repeat_n(at..at + len, c.len_utf8()));
        }
        at += len;
    }
    (text, map)
}

/// Decodes the escape at the start of `rest`: the character, or none for a line that continues, and how long it was written.
fn escape(rest: &str) -> (Option<char>, usize) {
    let hex = |digits: usize| match rest.get(2..2 + digits).and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32) {
        Some(c) => (Some(c), 2 + digits),
        None => (Some('\\'), 1),
    };
    match rest.as_bytes().get(1) {
        Some(b'b') => (Some('\u{8}'), 2),
        Some(b'e') => (Some('\u{1b}'), 2),
        Some(b'f') => (Some('\u{c}'), 2),
        Some(b'n') => (Some('\n'), 2),
        Some(b'r') => (Some('\r'), 2),
        Some(b't') => (Some('\t'), 2),
        Some(b'"') => (Some('"'), 2),
        Some(b'\\') => (Some('\\'), 2),
        Some(b'x') => hex(2),
        Some(b'u') => hex(4),
        Some(b'U') => hex(8),
        Some(b' ' | b'\t' | b'\r' | b'\n') => {
            let rest = &rest[1..];
            (None, 1 + rest.find(|c| !matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(rest.len()))
        }
        _ => (Some('\\'), 1),
    }
}

#[cfg(test)]
#[path = "sql_tests.rs"]
mod tests;
