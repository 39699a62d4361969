//! What does a backslash command of the prompt ask for? Its text to a [`Command`], or to what is wrong with it.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use weir_pipelines::{Diagnostic, diagnostic::nearest};

use crate::render::rows::Format;

/// Seconds between two answers of `\watch`, where nothing is said.
const WATCH_SECONDS: f64 = 2.0;
/// Seconds between two answers of `\watch`, at least and at most.
const WATCH_RANGE: std::ops::RangeInclusive<f64> = 0.1..=86_400.0;

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `\q`
    Quit,
    /// `\?`
    Help,
    /// `\l`
    Catalogues(Option<String>),
    /// `\dn`
    Schemas(Option<String>),
    /// `\dt`, or `\d` alone
    Tables(Option<String>),
    /// `\d NAME`
    Describe(String),
    /// `\df`
    Functions(Option<String>),
    /// `\queries`
    Queries,
    /// `\x`; without a word it goes to and fro
    Expanded(Option<Expand>),
    /// `\timing`
    Timing(Option<bool>),
    /// `\pager`
    Pager(Option<bool>),
    /// `\format`; without a word it is told
    Format(Option<Format>),
    /// `\pset null`
    Null(String),
    /// `\o`; without a file, back to the terminal
    Output(Option<PathBuf>),
    /// `\g`, `\gx`
    Go {
        /// This time with a line for each value.
        expanded: bool,
        /// This time into a file.
        file: Option<PathBuf>,
    },
    /// `\watch`
    Watch(Duration),
    /// `\e`
    Edit(Option<PathBuf>),
    /// `\i`
    Include(PathBuf),
    /// `\history`
    History(Option<usize>),
}

/// When rows are drawn with a line for each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expand {
    /// Always.
    On,
    /// Never.
    #[default]
    Off,
    /// Where the table would be wider than the terminal.
    Auto,
}

/// What stands behind a command, for completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or what cannot be completed.
    Nothing,
    /// A table.
    Table,
    /// A catalogue or a schema.
    Schema,
    /// A file.
    File,
    /// One of these words.
    Words(&'static [&'static str]),
}

const SWITCH: &[&str] = &["on", "off"];

/// What a line of the help shows of each: the names of the command, what follows, what it does, and what completes it.
const COMMANDS: &[(&[&str], &str, &str, Takes)] = &[
    (&["d"], "[NAME]", "list tables, or describe those of this name: \\d flights.delays, \\d *delays*", Takes::Table),
    (&["dt"], "[NAME]", "list tables; a name may be a catalogue's, a schema's or a table's", Takes::Table),
    (&["l"], "[NAME]", "list catalogues: the lake, the quarantine, connections", Takes::Schema),
    (&["dn"], "[NAME]", "list schemas", Takes::Schema),
    (&["df"], "[NAME]", "list functions", Takes::Nothing),
    (&["queries"], "", "list the saved queries of the project, which select * from query.NAME(…) asks", Takes::Nothing),
    (&["g"], "[FILE]", "ask the last query again, this time into a file; behind a query it takes the semicolon's place", Takes::File),
    (&["gx"], "[FILE]", "the same, with a line for each value", Takes::File),
    (&["watch"], "[SECONDS]", "ask the last query again and again, every 2 seconds, until Ctrl-C", Takes::Nothing),
    (&["e", "edit"], "[FILE]", "write the query in $EDITOR; it is asked if it ends with a semicolon", Takes::File),
    (&["i", "include"], "FILE", "ask the queries of a file", Takes::File),
    (&["history"], "[N]", "show the last N lines", Takes::Nothing),
    (
        &["x"],
        "[on|off|auto]",
        "a line for each value, always, never, or where a row is wider than the terminal",
        Takes::Words(&["on", "off", "auto"]),
    ),
    (&["format"], "[FORMAT]", "how answers are written: table, expanded, csv, json, ndjson, markdown", Takes::Words(&FORMATS)),
    (&["o", "out"], "[FILE]", "write answers to a file, in the format of its extension; without one, to the terminal again", Takes::File),
    (&["pset"], "null TEXT", "show null as another text", Takes::Words(&["null"])),
    (&["pager"], "[on|off]", "whether answers longer than the screen go to $PAGER", Takes::Words(SWITCH)),
    (&["timing"], "[on|off]", "whether to say how long each query took", Takes::Words(SWITCH)),
    (&["?", "h", "help"], "", "this help", Takes::Nothing),
    (&["q", "quit"], "", "leave, as Ctrl-D does", Takes::Nothing),
];

/// The formats that go to a terminal.
const FORMATS: [&str; 6] = ["table", "expanded", "csv", "json", "ndjson", "markdown"];

/// The help of the prompt.
pub fn help() -> String {
    let mut out = String::from("  select …;              ask; a query ends with a semicolon and may take several lines\n");
    for (names, argument, about, _) in COMMANDS {
        let form = format!("\\{} {argument}", names[0]);
        out.push_str(&format!("  {:<22} {about}\n", form.trim_end()));
    }
    out.push_str("  Ctrl-C                 cancels a running query, or empties the line\n");
    out.push_str("  Tab                    completes tables, columns, keywords and commands\n");
    out
}

/// All names of commands, without the backslash.
pub fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().flat_map(|(names, ..)| names.iter().copied())
}

/// What stands behind the command of this name.
pub fn takes(name: &str) -> Takes {
    let name = name.trim_end_matches('+');
    COMMANDS.iter().find(|(names, ..)| names.contains(&name)).map_or(Takes::Nothing, |(_, _, _, takes)| *takes)
}

impl Command {
    /// Reads a command, without its backslash.
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        // `\d+` and its like say more in psql; here all is said.
        let known = match name.strip_suffix('+').filter(|bare| !bare.is_empty()) {
            Some(bare) => bare,
            None => name,
        };
        let arguments = words(rest).map_err(|quote| usage(known, &format!("the {quote} is never closed")))?;
        let mut arguments = arguments.into_iter();
        let first = arguments.next();
        let file = |first: Option<String>| first.map(PathBuf::from);
        let command = match known {
            "q" | "quit" => Self::Quit,
            "?" | "h" | "help" => Self::Help,
            "l" => Self::Catalogues(first.clone()),
            "dn" => Self::Schemas(first.clone()),
            "dt" => Self::Tables(first.clone()),
            "d" => first.clone().map_or(Self::Tables(None), Self::Describe),
            "df" => Self::Functions(first.clone()),
            "queries" => Self::Queries,
            "x" => Self::Expanded(match first.as_deref() {
                None => None,
                Some("on") => Some(Expand::On),
                Some("off") => Some(Expand::Off),
                Some("auto") => Some(Expand::Auto),
                Some(other) => return Err(one_of(known, other, &["on", "off", "auto"])),
            }),
            "timing" => Self::Timing(switch(known, first.as_deref())?),
            "pager" => Self::Pager(switch(known, first.as_deref())?),
            "format" => Self::Format(first.as_deref().map(|word| format(known, word)).transpose()?),
            "o" | "out" => Self::Output(file(first.clone())),
            "g" => Self::Go { expanded: false, file: file(first.clone()) },
            "gx" => Self::Go { expanded: true, file: file(first.clone()) },
            "watch" => Self::Watch(seconds(first.as_deref())?),
            "e" | "edit" => Self::Edit(file(first.clone())),
            "i" | "include" => Self::Include(file(first.clone()).ok_or_else(|| usage(known, "a file is missing"))?),
            "history" => Self::History(match first.as_deref() {
                None => None,
                Some(word) => Some(word.parse().map_err(|_| usage(known, &format!("\"{word}\" is not a number of lines")))?),
            }),
            "pset" => return pset(first.as_deref(), arguments.next(), arguments.next()),
            _ => return Err(unknown(name)),
        };
        let takes_none = matches!(command, Self::Quit | Self::Help | Self::Queries);
        // Help takes a word: psql's `\h select`, which has no other answer here.
        match if takes_none && command != Self::Help { first } else { arguments.next() } {
            Some(more) if command != Self::Help => Err(usage(known, &format!("\"{more}\" is one word too many"))),
            _ => Ok(command),
        }
    }
}

/// `\pset null TEXT`.
fn pset(key: Option<&str>, value: Option<String>, more: Option<String>) -> Result<Command, Diagnostic> {
    match (key, value, more) {
        (Some("null"), Some(text), None) => Ok(Command::Null(text)),
        (Some("null"), None, _) => Err(usage("pset", "the text that stands for null is missing")),
        (Some("null"), _, Some(more)) => Err(usage("pset", &format!("\"{more}\" is one word too many"))),
        (Some(other), ..) => Err(one_of("pset", other, &["null"]).help("\\x, \\format and \\pager set what psql's other options do")),
        (None, ..) => Err(usage("pset", "what is set is missing")),
    }
}

fn switch(name: &str, word: Option<&str>) -> Result<Option<bool>, Diagnostic> {
    match word {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(other) => Err(one_of(name, other, SWITCH)),
    }
}

fn format(name: &str, word: &str) -> Result<Format, Diagnostic> {
    match Format::from_str(word, true) {
        Ok(Format::Parquet) => Err(usage(name, "Parquet is not for terminals").help("write one answer to a file: \\g rows.parquet")),
        Ok(format) => Ok(format),
        Err(_) => Err(one_of(name, word, &FORMATS)),
    }
}

fn seconds(word: Option<&str>) -> Result<Duration, Diagnostic> {
    let Some(word) = word else { return Ok(Duration::from_secs_f64(WATCH_SECONDS)) };
    match word.parse::<f64>() {
        Ok(seconds) if WATCH_RANGE.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(usage("watch", &format!("\"{word}\" is no number of seconds from {} to {}", WATCH_RANGE.start(), WATCH_RANGE.end()))),
    }
}

fn usage(name: &str, why: &str) -> Diagnostic {
    let found = Diagnostic::error("usage", format!("\\{name}: {why}"));
    match COMMANDS.iter().find(|(names, ..)| names.contains(&name)) {
        Some((names, argument, about, _)) => found.help(format!("{}: {about}", format!("\\{} {argument}", names[0]).trim_end())),
        None => found,
    }
}

fn one_of(name: &str, word: &str, known: &[&'static str]) -> Diagnostic {
    let found = Diagnostic::error("usage", format!("\\{name} knows no \"{word}\"")).did_you_mean(word, known.iter().copied());
    found.help(format!("write \\{name} and one of: {}", known.join(", ")))
}

fn unknown(name: &str) -> Diagnostic {
    let found = Diagnostic::error("unknown-command", format!("there is no command \"\\{name}\""));
    let found = match nearest(name, names()) {
        Some(near) if !name.is_empty() => found.help(format!("did you mean \"\\{near}\"?")),
        _ => found,
    };
    found.help("\\? lists the commands")
}

/// Words between blanks; one in quotes may hold blanks, and a doubled quote inside is one. Fails with the kind of quote that is never closed.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(found);
        }
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
            // Double quotes are those of a name in SQL: they stay, for whoever compares names.
            if c != '\'' {
                word.push(c);
                continue;
            }
            loop {
                match chars.next() {
                    Some('\'') if chars.next_if_eq(&'\'').is_some() => word.push('\''),
                    Some('\'') => break,
                    Some(other) => word.push(other),
                    None => return Err("quote"),
                }
            }
        }
        found.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        match Command::parse(text) {
            Ok(command) => format!("{command:?}"),
            Err(found) => [format!("{}: {}", found.code, found.message)].into_iter().chain(found.help).collect::<Vec<_>>().join(" | "),
        }
    }

    #[test]
    fn commands_are_read_as_psql_has_them() {
        for (text, expected) in [
            ("q", Command::Quit),
            ("dt", Command::Tables(None)),
            ("dt+ crm.*", Command::Tables(Some("crm.*".into()))),
            ("d", Command::Tables(None)),
            ("d+ delays;", Command::Describe("delays".into())),
            ("x", Command::Expanded(None)),
            ("x auto", Command::Expanded(Some(Expand::Auto))),
            ("timing off", Command::Timing(Some(false))),
            ("format CSV", Command::Format(Some(Format::Csv))),
            ("pset null ''", Command::Null(String::new())),
            ("pset null 'it''s null'", Command::Null("it's null".into())),
            ("o 'my rows.csv'", Command::Output(Some("my rows.csv".into()))),
            ("o", Command::Output(None)),
            ("g", Command::Go { expanded: false, file: None }),
            ("gx a.json", Command::Go { expanded: true, file: Some("a.json".into()) }),
            ("watch", Command::Watch(Duration::from_secs(2))),
            ("watch 0.5", Command::Watch(Duration::from_millis(500))),
            ("i report.sql", Command::Include("report.sql".into())),
            ("history 5", Command::History(Some(5))),
            ("h select", Command::Help),
        ] {
            assert_eq!(Command::parse(text), Ok(expected), "\\{text}");
        }
    }

    #[test]
    fn a_wrong_command_says_what_it_takes() {
        for (text, expected) in [
            ("dtt", "unknown-command: there is no command \"\\dtt\" | did you mean \"\\dt\"? | \\? lists the commands"),
            ("wach 1", "unknown-command: there is no command \"\\wach\" | did you mean \"\\watch\"? | \\? lists the commands"),
            ("", "unknown-command: there is no command \"\\\" | \\? lists the commands"),
            ("drop table x", "unknown-command: there is no command \"\\drop\" | \\? lists the commands"),
            ("x maybe", "usage: \\x knows no \"maybe\" | write \\x and one of: on, off, auto"),
            ("timing oof", "usage: \\timing knows no \"oof\" | did you mean \"off\"? | write \\timing and one of: on, off"),
            (
                "format cvs",
                "usage: \\format knows no \"cvs\" | did you mean \"csv\"? | write \\format and one of: table, expanded, csv, json, ndjson, markdown",
            ),
            (
                "format parquet",
                "usage: \\format: Parquet is not for terminals | \\format [FORMAT]: how answers are written: table, expanded, csv, json, ndjson, markdown | write one answer to a file: \\g rows.parquet",
            ),
            ("i", "usage: \\i: a file is missing | \\i FILE: ask the queries of a file"),
            (
                "watch 0",
                "usage: \\watch: \"0\" is no number of seconds from 0.1 to 86400 | \\watch [SECONDS]: ask the last query again and again, every 2 seconds, until Ctrl-C",
            ),
            (
                "watch nan",
                "usage: \\watch: \"nan\" is no number of seconds from 0.1 to 86400 | \\watch [SECONDS]: ask the last query again and again, every 2 seconds, until Ctrl-C",
            ),
            ("history -1", "usage: \\history: \"-1\" is not a number of lines | \\history [N]: show the last N lines"),
            ("q now", "usage: \\q: \"now\" is one word too many | \\q: leave, as Ctrl-D does"),
            (
                "dt a b",
                "usage: \\dt: \"b\" is one word too many | \\dt [NAME]: list tables; a name may be a catalogue's, a schema's or a table's",
            ),
            (
                "o 'a",
                "usage: \\o: the quote is never closed | \\o [FILE]: write answers to a file, in the format of its extension; without one, to the terminal again",
            ),
            (
                "pset border 2",
                "usage: \\pset knows no \"border\" | write \\pset and one of: null | \\x, \\format and \\pager set what psql's other options do",
            ),
        ] {
            assert_eq!(said(text), expected, "\\{text}");
        }
    }

    #[test]
    fn the_help_names_every_command() {
        let help = help();
        for (names, ..) in COMMANDS {
            assert!(help.contains(&format!("\n  \\{} ", names[0])), "{names:?}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 140), "{help}");
    }
}
