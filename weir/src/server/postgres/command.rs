//! Which statements are in a text, and what does each ask for? Commands of a session (transactions, parameters, cursors, prepared
//! statements, COPY) are the door's own and are read here; everything else is the engine's to read, and to refuse.

use std::sync::Arc;

use datafusion::sql::sqlparser::{
    dialect::PostgreSqlDialect,
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};
use tokio::sync::Semaphore;

use super::{
    copy::{Copy, CopyFormat},
    error::{PgError, Result},
};

/// Bytes of a text that is cut at once. A longer one is cut on a thread that may be busy with it.
const SHORT: usize = 16 << 10;
/// Long texts that are cut at once: the words of one take up to 200 times its bytes meanwhile.
static CUTTING: Semaphore = Semaphore::const_new(2);
/// Bytes of a dotted name, and of a type's.
const NAME_MAX: usize = 256;

/// One statement of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// The byte of the text that it begins at.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
    /// What it asks for.
    pub command: Command,
}

/// A query within a statement, and the byte of the text that it begins at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    /// The query.
    pub sql: String,
    /// Where it begins.
    pub start: usize,
}

/// How far a cursor is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// So many rows.
    Rows(u64),
    /// To the end.
    All,
}

/// What a statement asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Rows, of the engine.
    Query(Inner),
    /// Nothing: comments and white space.
    Empty,
    /// `begin`.
    Begin,
    /// `commit`.
    Commit,
    /// `rollback`.
    Rollback,
    /// `savepoint NAME`, `release`, `rollback to`: the word that is answered.
    Savepoint(&'static str),
    /// `set NAME = VALUES`; none is `default`.
    Set { name: String, values: Option<Vec<String>> },
    /// `set transaction …`, `set session characteristics …`, `set constraints …`: accepted, as they change nothing of reading.
    SetTransaction,
    /// `show NAME`.
    Show(String),
    /// `reset NAME`; none is all.
    Reset(Option<String>),
    /// `discard all`, or a part of it.
    Discard { all: bool },
    /// `prepare NAME (types) as QUERY`.
    Prepare { name: String, types: Vec<String>, query: Inner },
    /// `execute NAME (values)`.
    Execute { name: String, values: Option<Inner> },
    /// `deallocate NAME`; none is all.
    Deallocate(Option<String>),
    /// `declare NAME cursor for QUERY`.
    Declare { name: String, binary: bool, hold: bool, query: Inner },
    /// `fetch`; `move` shows no rows.
    Fetch { name: String, steps: Steps, shows: bool },
    /// `close NAME`; none is all.
    Close(Option<String>),
    /// `copy … to stdout`.
    Copy(Copy),
    /// `unlisten`: there is nothing to unlisten to.
    Unlisten,
    /// Refused before anybody looks further.
    Refused(PgError),
}

/// Cuts a text into its statements, and does not hold up others meanwhile.
pub async fn cut(text: &Arc<str>) -> Result<Vec<Statement>> {
    if text.len() <= SHORT {
        return Ok(statements(text));
    }
    let place = CUTTING.acquire().await.expect("the semaphore is never closed");
    let text = text.clone();
    let cutting = tokio::task::spawn_blocking(move || {
        let found = statements(&text);
        drop(place);
        found
    });
    cutting.await.map_err(|_| PgError::new("XX000", "a thread panicked while it read the statement"))
}

/// Cuts a text into its statements. One that cannot be cut is the engine's, whole: it says what is wrong with it.
pub fn statements(text: &str) -> Vec<Statement> {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location() else {
        let command = Command::Query(Inner { sql: text.to_owned(), start: 0 });
        return vec![Statement { start: 0, end: text.len(), command }];
    };
    let mut places = Places::new(text);
    let words: Vec<Word> = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        .map(|TokenWithSpan { token, span }| Word { token, start: places.byte(span.start), end: places.byte(span.end) })
        .collect();
    let parts = words.split(|word| word.token == Token::SemiColon).filter(|part| !part.is_empty());
    let statement = |part: &[Word]| {
        let (start, end) = (part[0].start, part[part.len() - 1].end);
        Statement { start, end, command: Reader { text, words: part, at: 0 }.command() }
    };
    parts.map(statement).collect()
}

struct Word {
    token: Token,
    start: usize,
    end: usize,
}

/// Finds the bytes of places that come one after another: a text is gone through once, however long its lines are.
struct Places<'a> {
    text: &'a str,
    byte: usize,
    line: u64,
    column: u64,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, byte: 0, line: 1, column: 1 }
    }

    /// The byte of a 1-based line and column (in characters), which does not come before the last one asked for.
    fn byte(&mut self, place: Location) -> usize {
        for c in self.text[self.byte..].chars() {
            if (self.line, self.column) >= (place.line, place.column) {
                break;
            }
            self.byte += c.len_utf8();
            (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.byte
    }
}

struct Reader<'a> {
    text: &'a str,
    words: &'a [Word],
    at: usize,
}

impl Reader<'_> {
    fn command(mut self) -> Command {
        let whole = || Command::Query(self.rest(0));
        let Some(first) = self.unquoted(0) else { return whole() };
        match first.as_str() {
            "begin" => self.done(Command::Begin),
            "start" if self.unquoted(1).as_deref() == Some("transaction") => Command::Begin,
            "commit" | "end" => self.done(Command::Commit),
            "abort" => Command::Rollback,
            "rollback" => match self.words.iter().any(|word| is_word(word, "to")) {
                true => Command::Savepoint("ROLLBACK"),
                false => Command::Rollback,
            },
            "savepoint" => Command::Savepoint("SAVEPOINT"),
            "release" => Command::Savepoint("RELEASE"),
            "unlisten" => Command::Unlisten,
            "discard" => Command::Discard { all: self.unquoted(1).as_deref() == Some("all") },
            "set" | "show" | "reset" | "prepare" | "execute" | "deallocate" | "declare" | "fetch" | "move" | "close" | "copy" => {
                self.at = 1;
                let read = match first.as_str() {
                    "set" => self.set(),
                    "show" => return self.show(),
                    "reset" => self.reset(),
                    "prepare" => self.prepare(),
                    "execute" => self.execute(),
                    "deallocate" => self.deallocate(),
                    "declare" => self.declare(),
                    "fetch" => self.fetch(true),
                    "move" => self.fetch(false),
                    "close" => self.close(),
                    _ => self.copy(),
                };
                read.unwrap_or_else(Command::Refused)
            }
            _ => whole(),
        }
    }

    /// `begin` and `end` stand alone, or before words about transactions.
    fn done(&self, command: Command) -> Command {
        let known = ["transaction", "work", "isolation", "level", "read", "only", "write", "committed", "uncommitted", "repeatable"];
        let known = |word: &Word| {
            let Token::Word(word) = &word.token else { return word.token == Token::Comma };
            let word = word.value.to_ascii_lowercase();
            known.contains(&word.as_str()) || ["serializable", "not", "deferrable", "and", "no", "chain"].contains(&word.as_str())
        };
        if self.words[1..].iter().all(known) { command } else { Command::Query(self.rest(0)) }
    }

    /// The text from a word on, to the statement's end.
    fn rest(&self, from: usize) -> Inner {
        let (Some(first), Some(last)) = (self.words.get(from), self.words.last()) else {
            let end = self.words.last().map_or(0, |word| word.end);
            return Inner { sql: String::new(), start: end };
        };
        Inner { sql: self.text[first.start..last.end].to_owned(), start: first.start }
    }

    fn unquoted(&self, at: usize) -> Option<String> {
        match &self.words.get(at)?.token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_lowercase()),
            _ => None,
        }
    }

    fn peek(&self) -> Option<String> {
        self.unquoted(self.at)
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.peek().as_deref() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn takes_token(&mut self, token: &Token) -> bool {
        let found = self.words.get(self.at).is_some_and(|word| word.token == *token);
        self.at += usize::from(found);
        found
    }

    /// A name: lower case, unless it is in quotes.
    fn name(&mut self) -> Result<String> {
        let name = match self.words.get(self.at).map(|word| &word.token) {
            Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_lowercase(),
            Some(Token::Word(word)) => word.value.clone(),
            _ => return Err(self.wrong("a name is missing")),
        };
        self.at += 1;
        Ok(name)
    }

    fn wrong(&self, what: &str) -> PgError {
        let at = self.words.get(self.at).or(self.words.last()).map_or(0, |word| word.start);
        PgError::new("42601", format!("{what} in this statement")).at(at)
    }

    fn too_long(&self) -> PgError {
        PgError { state: "42622", message: format!("a name has at most {NAME_MAX} bytes"), ..self.wrong("") }
    }

    fn ends(&self, command: Command) -> Result<Command> {
        if self.at < self.words.len() { Err(self.wrong("nothing more is expected")) } else { Ok(command) }
    }

    /// A value of a parameter: a word, a number with its sign, or a text.
    fn value(&mut self) -> Result<String> {
        let mut sign = "";
        if self.takes_token(&Token::Minus) {
            sign = "-";
        } else {
            self.takes_token(&Token::Plus);
        }
        let value = match self.words.get(self.at).map(|word| &word.token) {
            Some(Token::Word(word)) => word.value.clone(),
            Some(Token::Number(number, _)) => format!("{sign}{number}"),
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => text.clone(),
            _ => return Err(self.wrong("a value is missing")),
        };
        self.at += 1;
        Ok(value)
    }

    fn set(&mut self) -> Result<Command> {
        if self.takes("session") {
            match self.peek().as_deref() {
                Some("characteristics") => return Ok(Command::SetTransaction),
                Some("authorization") => return Err(PgError::new("42501", "a session stays with the user of its token")),
                _ => {}
            }
        } else {
            self.takes("local");
        }
        if matches!(self.peek().as_deref(), Some("transaction" | "constraints")) {
            return Ok(Command::SetTransaction);
        }
        let name = if self.takes("time") {
            if !self.takes("zone") {
                return Err(self.wrong("\"zone\" is missing"));
            }
            "timezone".to_owned()
        } else {
            let mut name = self.name()?;
            while self.takes_token(&Token::Period) {
                name.push('.');
                name.push_str(&self.name()?);
                if name.len() > NAME_MAX {
                    return Err(self.too_long());
                }
            }
            if name != "names" && name != "role" && !self.takes_token(&Token::Eq) && !self.takes("to") {
                return Err(self.wrong("\"=\" is missing"));
            }
            name
        };
        if self.takes("default") {
            return self.ends(Command::Set { name, values: None });
        }
        self.takes("interval");
        let mut values = vec![self.value()?];
        while self.takes_token(&Token::Comma) {
            values.push(self.value()?);
        }
        self.ends(Command::Set { name, values: Some(values) })
    }

    /// `show tables`, `show columns` and `show functions` are the engine's.
    fn show(&mut self) -> Command {
        let engine = matches!(self.peek().as_deref(), Some("tables" | "columns" | "functions" | "schemas" | "databases" | "create"));
        let name = match (self.peek().as_deref(), self.unquoted(2).as_deref()) {
            (Some("time"), Some("zone")) => Some("timezone".to_owned()),
            (Some("transaction"), Some("isolation")) => Some("transaction_isolation".to_owned()),
            (Some("session"), Some("authorization")) => Some("session_authorization".to_owned()),
            _ if self.words.len() == 2 => self.name().ok(),
            _ => None,
        };
        match name {
            Some(name) if !engine => Command::Show(name),
            _ => Command::Query(self.rest(0)),
        }
    }

    fn reset(&mut self) -> Result<Command> {
        if self.takes("all") {
            return self.ends(Command::Reset(None));
        }
        if self.takes("time") {
            self.takes("zone");
            return self.ends(Command::Reset(Some("timezone".to_owned())));
        }
        if self.takes("session") {
            self.takes("authorization");
            return self.ends(Command::SetTransaction);
        }
        let name = self.name()?;
        self.ends(Command::Reset(Some(name)))
    }

    fn prepare(&mut self) -> Result<Command> {
        let name = self.name()?;
        let mut types = Vec::new();
        if self.takes_token(&Token::LParen) {
            while !self.takes_token(&Token::RParen) {
                let mut kind = String::new();
                while let Some(word) = self.words.get(self.at).filter(|word| !matches!(word.token, Token::Comma | Token::RParen)) {
                    if !kind.is_empty() {
                        kind.push(' ');
                    }
                    kind.push_str(&word.token.to_string());
                    self.at += 1;
                    if kind.len() > NAME_MAX {
                        return Err(self.too_long());
                    }
                }
                types.push(kind.to_ascii_lowercase());
                self.takes_token(&Token::Comma);
                if self.at >= self.words.len() {
                    return Err(self.wrong("\")\" is missing"));
                }
            }
        }
        if !self.takes("as") {
            return Err(self.wrong("\"as\" is missing"));
        }
        let query = self.query()?;
        Ok(Command::Prepare { name, types, query })
    }

    fn query(&self) -> Result<Inner> {
        if self.at >= self.words.len() { Err(self.wrong("a query is missing")) } else { Ok(self.rest(self.at)) }
    }

    fn execute(&mut self) -> Result<Command> {
        let name = self.name()?;
        if !self.takes_token(&Token::LParen) {
            return self.ends(Command::Execute { name, values: None });
        }
        let (from, to) = (self.at, self.words.len() - 1);
        if to < from || self.words[to].token != Token::RParen {
            return Err(self.wrong("\")\" is missing"));
        }
        if from == to {
            return Ok(Command::Execute { name, values: None });
        }
        let (start, end) = (self.words[from].start, self.words[to - 1].end);
        Ok(Command::Execute { name, values: Some(Inner { sql: self.text[start..end].to_owned(), start }) })
    }

    fn deallocate(&mut self) -> Result<Command> {
        self.takes("prepare");
        if self.takes("all") {
            return self.ends(Command::Deallocate(None));
        }
        let name = self.name()?;
        self.ends(Command::Deallocate(Some(name)))
    }

    fn declare(&mut self) -> Result<Command> {
        let name = self.name()?;
        let (mut binary, mut hold) = (false, false);
        while !self.takes("cursor") {
            match self.name()?.as_str() {
                "binary" => binary = true,
                "no" | "insensitive" | "asensitive" => {}
                // A cursor here only goes forward; one that is asked to go both ways says so when it is asked to go back.
                "scroll" => {}
                _ => return Err(self.wrong("\"cursor\" is missing")),
            }
        }
        if self.takes("with") {
            hold = true;
            self.takes("hold");
        } else if self.takes("without") {
            self.takes("hold");
        }
        if !self.takes("for") {
            return Err(self.wrong("\"for\" is missing"));
        }
        let query = self.query()?;
        Ok(Command::Declare { name, binary, hold, query })
    }

    fn fetch(&mut self, shows: bool) -> Result<Command> {
        let back = || {
            PgError::new("55000", "a cursor goes forward only")
                .hint("declare it again to read from the beginning, or order the query otherwise")
        };
        let number = |reader: &mut Self| -> Result<Option<u64>> {
            if reader.words.get(reader.at).is_some_and(|word| word.token == Token::Minus) {
                return Err(back());
            }
            let Some(Token::Number(number, _)) = reader.words.get(reader.at).map(|word| &word.token) else { return Ok(None) };
            let number = number.parse().map_err(|_| reader.wrong("a number of rows is missing"))?;
            reader.at += 1;
            Ok(Some(number))
        };
        let steps = match self.peek().as_deref() {
            Some("next") => {
                self.at += 1;
                Steps::Rows(1)
            }
            Some("all") => {
                self.at += 1;
                Steps::All
            }
            Some("forward") => {
                self.at += 1;
                if self.takes("all") { Steps::All } else { Steps::Rows(number(self)?.unwrap_or(1)) }
            }
            Some("prior" | "first" | "last" | "absolute" | "relative" | "backward") if self.words.len() > 2 => return Err(back()),
            _ => Steps::Rows(number(self)?.unwrap_or(1)),
        };
        if !self.takes("from") {
            self.takes("in");
        }
        let name = self.name()?;
        self.ends(Command::Fetch { name, steps, shows })
    }

    fn close(&mut self) -> Result<Command> {
        if self.takes("all") {
            return self.ends(Command::Close(None));
        }
        let name = self.name()?;
        self.ends(Command::Close(Some(name)))
    }

    fn copy(&mut self) -> Result<Command> {
        let source = if self.takes_token(&Token::LParen) {
            let (from, mut depth) = (self.at, 1);
            while depth > 0 {
                match self.words.get(self.at).map(|word| &word.token) {
                    Some(Token::LParen) => depth += 1,
                    Some(Token::RParen) => depth -= 1,
                    Some(_) => {}
                    None => return Err(self.wrong("\")\" is missing")),
                }
                self.at += 1;
            }
            if self.at - 1 == from {
                return Err(self.wrong("a query is missing"));
            }
            let (start, end) = (self.words[from].start, self.words[self.at - 2].end);
            Inner { sql: self.text[start..end].to_owned(), start }
        } else {
            let from = self.at;
            self.name()?;
            while self.takes_token(&Token::Period) {
                self.name()?;
            }
            let table = &self.text[self.words[from].start..self.words[self.at - 1].end];
            let mut columns = "*";
            if self.takes_token(&Token::LParen) {
                let begin = self.at;
                while !self.takes_token(&Token::RParen) {
                    self.name()?;
                    self.takes_token(&Token::Comma);
                }
                if self.at - 1 > begin {
                    columns = &self.text[self.words[begin].start..self.words[self.at - 2].end];
                }
            }
            // The table's place, so that what is wrong with it is pointed at there or near.
            Inner { sql: format!("select {columns} from {table}"), start: self.words[from].start }
        };
        if self.takes("from") {
            return Err(PgError::unsupported("nothing is copied into tables here").hint("tables change by running pipelines"));
        }
        if !self.takes("to") {
            return Err(self.wrong("\"to stdout\" is missing"));
        }
        if self.takes("program") {
            return Err(PgError::new("42501", "no program is run for a COPY")
                .hint("write 'to stdout', or \\copy in psql: the client then has the rows"));
        }
        if !self.takes("stdout") {
            return Err(PgError::new("42501", "no file of the server is written")
                .hint("write 'to stdout', or \\copy in psql: the client then writes the file"));
        }
        let format = self.copy_options()?;
        Ok(Command::Copy(Copy { query: source, format }))
    }

    fn copy_options(&mut self) -> Result<CopyFormat> {
        let mut options = Vec::new();
        self.takes("with");
        if self.takes_token(&Token::LParen) {
            while !self.takes_token(&Token::RParen) {
                let name = self.name()?;
                let value = match self.words.get(self.at).map(|word| &word.token) {
                    Some(Token::Comma | Token::RParen) => None,
                    Some(Token::Mul) => {
                        self.at += 1;
                        Some("*".to_owned())
                    }
                    Some(Token::LParen) => {
                        while !self.takes_token(&Token::RParen) {
                            self.name()?;
                            self.takes_token(&Token::Comma);
                        }
                        Some(String::new())
                    }
                    _ => Some(self.value()?),
                };
                options.push((name, value));
                self.takes_token(&Token::Comma);
                if self.at >= self.words.len() && self.words.last().is_none_or(|word| word.token != Token::RParen) {
                    return Err(self.wrong("\")\" is missing"));
                }
            }
        } else {
            // The way of Postgres before 9: `csv header delimiter ';'`.
            while self.at < self.words.len() {
                let name = self.name()?;
                match name.as_str() {
                    "csv" | "binary" => options.push(("format".to_owned(), Some(name))),
                    "header" => options.push((name, None)),
                    "delimiter" | "null" | "quote" | "escape" | "encoding" => {
                        self.takes("as");
                        options.push((name, Some(self.value()?)));
                    }
                    _ => options.push((name, None)),
                }
            }
        }
        if self.at < self.words.len() {
            return Err(self.wrong("nothing more is expected"));
        }
        CopyFormat::read(&options)
    }
}

fn is_word(word: &Word, known: &str) -> bool {
    matches!(&word.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(known))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
