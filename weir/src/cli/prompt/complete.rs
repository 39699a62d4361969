//! How may the word under the cursor go on? Tables behind `from` and `join`, columns behind an alias, commands behind a backslash, else keywords,
//! functions and the columns of the tables that the query names.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use rustyline::{
    Completer, Context as LineContext, Helper, Highlighter, Hinter,
    completion::{Completer, FilenameCompleter, Pair},
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{
    command::{self, Takes},
    keywords::KEYWORDS,
};
use crate::cli::statements::{backslash, is_complete};

/// Candidates that are offered at most; with more, the word is to be longer first.
const OFFERED_MAX: usize = 500;

/// What the catalogue has, as far as it has answered.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Tables by their whole names, each with its columns where they are known.
    pub tables: Vec<(String, Vec<String>)>,
    /// Functions.
    pub functions: Vec<String>,
}

/// The names, which are fetched while the person types.
pub type Shared = Arc<RwLock<Arc<Names>>>;

/// Completes words, and waits for the semicolon.
#[derive(Helper, Completer, Hinter, Highlighter)]
pub struct Words {
    #[rustyline(Completer)]
    completions: Completions,
}

pub struct Completions {
    names: Shared,
    files: FilenameCompleter,
}

impl Words {
    /// Completes with these names, as they become known.
    pub fn new(names: Shared) -> Self {
        Self { completions: Completions { names, files: FilenameCompleter::new() } }
    }
}

impl Completer for Completions {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &LineContext<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner).clone();
        match candidates(line, pos, &names) {
            Found::Words(start, words) => {
                let words = words.into_iter().take(OFFERED_MAX);
                Ok((start, words.map(|word| Pair { display: word.clone(), replacement: word }).collect()))
            }
            Found::File => self.files.complete_path(line, pos),
        }
    }
}

impl Validator for Words {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let done = text.trim_start().starts_with('\\') || is_complete(text) || backslash(text).is_some();
        Ok(if done { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// What a word may become.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// From this byte of the line on, one of these.
    Words(usize, Vec<String>),
    /// The name of a file.
    File,
}

fn candidates(line: &str, pos: usize, names: &Names) -> Found {
    let before = &line[..pos];
    let command = before.trim_start().strip_prefix('\\').or_else(|| backslash(before).map(|at| &before[at + 1..]));
    if let Some(command) = command {
        return of_command(command, pos, names);
    }
    let start = word_start(before);
    let word = &before[start..];
    if follows_from(&before[..start]) {
        return Found::Words(start, tables(word, names));
    }
    if word.is_empty() {
        return Found::Words(start, Vec::new());
    }
    let read = Read::of(line, names);
    if let Some((owner, part)) = word.rsplit_once('.') {
        let inner = start + owner.len() + 1;
        let columns = read.columns_of(owner, names);
        if !columns.is_empty() {
            return Found::Words(inner, fitting(part, columns));
        }
        return match tables(word, names) {
            found if found.is_empty() => Found::Words(inner, fitting(part, names.tables.iter().flat_map(|(_, columns)| columns))),
            found => Found::Words(start, found),
        };
    }
    let mut found: BTreeSet<String> = fitting(word, &names.functions).into_iter().collect();
    let columns = read.columns(names);
    if columns.is_empty() {
        found.extend(fitting(word, names.tables.iter().flat_map(|(_, columns)| columns)));
    } else {
        found.extend(fitting(word, columns));
        found.extend(fitting(word, read.tables.iter().map(|(alias, _)| alias)));
    }
    // Who writes keywords in capitals gets them so.
    let is_upper = word.chars().all(|c| !c.is_lowercase());
    found.extend(KEYWORDS.iter().filter(|keyword| has_prefix(keyword, word)).map(|keyword| match is_upper {
        true => keyword.to_uppercase(),
        false => (*keyword).to_owned(),
    }));
    let mut found: Vec<String> = found.into_iter().collect();
    found.extend(tables(word, names).into_iter().filter(|table| has_prefix(table, word)));
    Found::Words(start, found)
}

/// Behind a backslash: the command, then what it takes.
fn of_command(command: &str, pos: usize, names: &Names) -> Found {
    let Some((name, rest)) = command.split_once(char::is_whitespace) else {
        return Found::Words(pos - command.len(), command::names().filter(|name| name.starts_with(command)).map(str::to_owned).collect());
    };
    // Not all blanks are of one byte.
    let start = rest.char_indices().rev().find(|(_, c)| c.is_whitespace()).map_or(0, |(at, c)| at + c.len_utf8());
    let word = &rest[start..];
    let start = pos - word.len();
    match command::takes(name) {
        Takes::Nothing => Found::Words(start, Vec::new()),
        Takes::File => Found::File,
        Takes::Table => Found::Words(start, tables(word, names)),
        Takes::Schema => {
            let parts = tables(word, names).into_iter().map(|table| table.trim_end_matches('.').to_owned());
            Found::Words(start, parts.filter(|part| part.matches('.').count() < 2).collect())
        }
        Takes::Words(words) => Found::Words(start, fitting(word, words)),
    }
}

/// Where the word that ends here begins.
fn word_start(before: &str) -> usize {
    let outside = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '"' | '@'));
    before.rfind(outside).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))
}

/// Whether a table stands next: behind `from` or `join`, and behind a comma between tables.
fn follows_from(before: &str) -> bool {
    let trimmed = before.trim_end();
    if let Some(list) = trimmed.strip_suffix(',') {
        // Of the words that open a clause, the last one says what the comma is between.
        let openers = ["from", "select", "where", "by", "on", "values", "having", "with", "limit", "join"];
        let mut words = list.split(|c: char| !(c.is_alphanumeric() || c == '_')).rev();
        return words
            .find(|word| openers.iter().any(|opener| word.eq_ignore_ascii_case(opener)))
            .is_some_and(|word| word.eq_ignore_ascii_case("from"))
            && list.matches('(').count() == list.matches(')').count();
    }
    let word = trimmed.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
    trimmed.len() < before.len() && ["from", "join", "describe"].iter().any(|opener| word.eq_ignore_ascii_case(opener))
}

/// Tables that begin with a word, each up to the part of its name after the one under the cursor. A word that begins no name may begin the last
/// part of one, or the last two.
fn tables(word: &str, names: &Names) -> Vec<String> {
    let parts = word.matches('.').count();
    let mut found = BTreeSet::new();
    for (table, _) in names.tables.iter().filter(|(table, _)| has_prefix(table, word)) {
        let end = table.match_indices('.').nth(parts).map_or(table.len(), |(at, _)| at + 1);
        found.insert(table[..end].to_owned());
    }
    if found.is_empty() && !word.is_empty() {
        let ends_so = |table: &str| table.match_indices('.').any(|(at, _)| has_prefix(&table[at + 1..], word));
        found.extend(names.tables.iter().filter(|(table, _)| ends_so(table)).map(|(table, _)| table.clone()));
    }
    found.into_iter().collect()
}

fn fitting(word: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let found: BTreeSet<String> =
        known.into_iter().filter(|known| has_prefix(known.as_ref(), word)).map(|known| known.as_ref().to_owned()).collect();
    found.into_iter().collect()
}

fn has_prefix(candidate: &str, word: &str) -> bool {
    candidate.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// The tables that a query names: what it calls each, and where it is among those known.
struct Read {
    tables: Vec<(String, usize)>,
}

impl Read {
    /// Looks for names behind `from`, `join` and commas, with what follows them as their alias. The query need not be whole.
    fn of(line: &str, names: &Names) -> Self {
        let apart = line.replace(',', " , ").replace(['(', ')', ';'], " ; ");
        let words: Vec<&str> = apart.split_whitespace().collect();
        let mut tables = Vec::new();
        let mut is_from = false;
        for (at, word) in words.iter().enumerate() {
            let lower = word.to_lowercase();
            if is_from
                && (at == 0 || [",", "from", "join"].contains(&words[at - 1].to_lowercase().as_str()))
                && let Some(table) = find(word, names)
            {
                let next = match words.get(at + 1) {
                    Some(next) if next.eq_ignore_ascii_case("as") => words.get(at + 2),
                    next => next,
                };
                let is_name = |word: &&&str| {
                    !KEYWORDS.contains(&word.to_lowercase().as_str()) && word.chars().all(|c| c.is_alphanumeric() || c == '_')
                };
                let last = word.rsplit('.').next().unwrap_or(word);
                tables.push((next.filter(is_name).map_or(last, |alias| alias).to_owned(), table));
            }
            match lower.as_str() {
                "from" | "join" => is_from = true,
                "select" | "where" | "group" | "order" | "having" | "limit" | ";" => is_from = false,
                _ => {}
            }
        }
        Self { tables }
    }

    /// The columns of what a query calls by this name: an alias, or a table.
    fn columns_of<'n>(&self, owner: &str, names: &'n Names) -> &'n [String] {
        let known = self.tables.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(owner)).map(|(_, at)| *at);
        known.or_else(|| find(owner, names)).map_or(&[], |at| names.tables[at].1.as_slice())
    }

    fn columns<'n>(&self, names: &'n Names) -> Vec<&'n String> {
        self.tables.iter().flat_map(|(_, at)| &names.tables[*at].1).collect()
    }
}

/// The table of this name, or of a name that ends so.
fn find(name: &str, names: &Names) -> Option<usize> {
    let is_it = |table: &str| match table.len().checked_sub(name.len()) {
        Some(0) => table.eq_ignore_ascii_case(name),
        Some(at) => table.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(name)) && table[..at].ends_with('.'),
        None => false,
    };
    (!name.is_empty()).then(|| names.tables.iter().position(|(table, _)| is_it(table))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let table = |name: &str, columns: &[&str]| (name.to_owned(), columns.iter().map(|column| (*column).to_owned()).collect());
        Names {
            tables: vec![
                table("crm.public.planes", &["tailnum", "manufacturer"]),
                table("lake.flights.delays", &["carrier", "dep_delay", "tailnum"]),
                table("lake.flights.late", &["carrier"]),
                table("weir.main.runs", &["run", "status"]),
            ],
            functions: ["count", "coalesce"].map(str::to_owned).to_vec(),
        }
    }

    /// The candidates at the `|` of a line.
    fn at(line: &str) -> Vec<String> {
        let pos = line.find('|').expect("a cursor");
        let line = line.replace('|', "");
        match candidates(&line, pos, &names()) {
            Found::Words(start, words) => {
                assert!(line.is_char_boundary(start) && start <= pos);
                words
            }
            Found::File => vec!["a file".to_owned()],
        }
    }

    #[test]
    fn tables_follow_from_and_join_part_by_part() {
        assert_eq!(at("select * from |"), ["crm.", "lake.", "weir."]);
        assert_eq!(at("select * from lake.|"), ["lake.flights."]);
        assert_eq!(at("select * from lake.flights.|"), ["lake.flights.delays", "lake.flights.late"]);
        assert_eq!(at("select * from a join CRM|"), ["crm."]);
        assert_eq!(at("select a, b from lake.flights.delays d, |"), ["crm.", "lake.", "weir."]);
        assert_eq!(at("select a, |"), Vec::<String>::new());
        // A part of a name that no name begins with.
        assert_eq!(at("select * from del|"), ["lake.flights.delays"]);
        assert_eq!(at("select * from flights.l|"), ["lake.flights.late"]);
    }

    #[test]
    fn columns_are_those_of_the_tables_that_the_query_names() {
        assert_eq!(at("select d.| from lake.flights.delays d"), ["carrier", "dep_delay", "tailnum"]);
        assert_eq!(at("select p.| from flights.delays d join crm.public.planes as p on true"), ["manufacturer", "tailnum"]);
        assert_eq!(at("select * from lake.flights.delays where delays.c|"), ["carrier"]);
        assert_eq!(at("select man| from crm.public.planes"), ["manufacturer"]);
        assert_eq!(at("select man| from lake.flights.late"), Vec::<String>::new());
        // Where nothing is named yet, all columns are offered.
        assert_eq!(at("select man|"), ["manufacturer"]);
        assert_eq!(at("select x.man|"), ["manufacturer"]);
        assert_eq!(at("select * from lake.flights.delays d, crm.public.planes p where p.t|"), ["tailnum"]);
    }

    #[test]
    fn keywords_keep_the_case_of_whoever_types() {
        assert_eq!(at("sel|"), ["select"]);
        assert_eq!(at("SEL|"), ["SELECT"]);
        assert_eq!(at("select cou|"), ["count"]);
        assert_eq!(at("select ü|"), Vec::<String>::new());
        assert_eq!(at("|"), Vec::<String>::new());
        assert_eq!(at("describe w|"), ["weir."]);
    }

    #[test]
    fn commands_and_what_they_take() {
        assert_eq!(at("\\ti|"), ["timing"]);
        assert_eq!(at("\\d lake.flights.d|"), ["lake.flights.delays"]);
        assert_eq!(at("\\dn la|"), ["lake"]);
        assert_eq!(at("\\dn a\u{a0}la|"), ["lake"]);
        assert_eq!(at("\\x a|"), ["auto"]);
        assert_eq!(at("\\format |"), ["csv", "expanded", "json", "markdown", "ndjson", "table"]);
        assert_eq!(at("\\i |"), ["a file"]);
        assert_eq!(at("select 1 \\wa|"), ["watch"]);
        assert_eq!(at("select '\\wa|"), Vec::<String>::new());
    }
}
