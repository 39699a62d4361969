//! The SQL prompt: a line editor with history and completion, and the few backslash commands that psql's users expect.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufWriter},
    time::Instant,
};

use rustyline::{
    Completer, CompletionType, Config, Context as LineContext, Editor, Helper, Highlighter, Hinter,
    completion::{Completer, Pair},
    error::ReadlineError,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};
use weir_engine::{Workspace, query::Session};

use super::{
    context::{Answer, Context, Stop, to_stderr},
    sql::{copy, query},
    statements::{is_complete, split},
};
use crate::render::{Table, error, number::duration_ms, rows::Format, table::Look};

const HELP: &str = "\
  select …;      ask; a query ends with a semicolon and may take several lines
  \\dt            list tables
  \\d             list tables; \\d TABLE lists its columns
  \\timing        show how long each query took, or stop showing it
  \\?             this help
  \\q             leave, as Ctrl-D does
  Ctrl-C         cancels a running query, or empties the line
  Tab            completes names and keywords";

const KEYWORDS: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "avg",
    "between",
    "by",
    "case",
    "cast",
    "coalesce",
    "count",
    "cross",
    "date",
    "desc",
    "describe",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "explain",
    "extract",
    "false",
    "filter",
    "first_value",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "intersect",
    "interval",
    "is",
    "join",
    "last_value",
    "lateral",
    "left",
    "like",
    "limit",
    "max",
    "min",
    "natural",
    "not",
    "null",
    "nulls",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "row_number",
    "rows",
    "right",
    "select",
    "sum",
    "then",
    "timestamp",
    "true",
    "union",
    "unnest",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
];

/// Statements kept from one session to the next.
const HISTORY: usize = 5000;

/// Reads statements until the person leaves.
pub async fn answer(context: &Context, workspace: &Workspace, session: &Session, format: Format) -> Answer {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY)
        .and_then(|config| config.history_ignore_dups(true));
    let config = config.map_err(|error| broken(&error))?.history_ignore_space(true).build();
    let mut editor: Editor<Words, FileHistory> = Editor::with_config(config).map_err(|error| broken(&error))?;
    editor.set_helper(Some(Words::new(session.names().await)));
    let history = workspace.state_dir.join("sql_history");
    // The first session has none yet.
    let _ = editor.load_history(&history);
    context.say("type \\? for help, \\q to leave");
    let mut timing = false;
    loop {
        let line = tokio::task::block_in_place(|| editor.readline("weir> "));
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(broken(&error)),
        };
        if line.trim().is_empty() {
            continue;
        }
        // A history that cannot be kept is no reason not to answer.
        let _ = editor.add_history_entry(line.trim());
        let result = match line.trim().strip_prefix('\\') {
            Some("q" | "quit") => break,
            Some("timing") => {
                timing = !timing;
                context.say(if timing { "timing is on" } else { "timing is off" });
                Ok(())
            }
            Some(command) => backslash(context, session, command).await,
            None => statements(context, session, &line, format, timing).await,
        };
        match result {
            Ok(()) => {}
            Err(Stop::Failure(failure)) => context.show(&failure),
            Err(Stop::PipeClosed) => return Err(Stop::PipeClosed),
        }
    }
    let _ = fs::create_dir_all(&workspace.state_dir);
    if let Err(error) = editor.save_history(&history) {
        context.say(&format!("the history was not kept: {error}"));
    }
    Ok(error::DONE)
}

fn broken(error: &ReadlineError) -> Stop {
    Stop::Failure(
        weir_engine::Failure::error("terminal", format!("cannot read from the terminal: {error}")).help("use -c, a file or standard input"),
    )
}

async fn statements(context: &Context, session: &Session, text: &str, format: Format, timing: bool) -> Result<(), Stop> {
    for statement in split(text) {
        let cancel = context.signals.work("");
        let started = Instant::now();
        let whole = async {
            let stream = query(session, "<sql>", text, statement).await?;
            copy(vec![stream], BufWriter::with_capacity(1 << 16, io::stdout()), format, context.out, |batch| Ok(Some(batch))).await
        };
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Stop::Failure(weir_engine::Failure::error("cancelled", "the query was cancelled"))),
            result = whole => result,
        };
        // What comes while nobody works is for the editor.
        context.signals.work("");
        result?;
        if timing {
            to_stderr(&format!("took {}", duration_ms(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))));
        }
    }
    Ok(())
}

async fn backslash(context: &Context, session: &Session, command: &str) -> Result<(), Stop> {
    let mut words = command.split_whitespace();
    match (words.next().unwrap_or(""), words.next()) {
        ("?" | "h" | "help", _) => context.answer(&format!("{HELP}\n")),
        ("dt", _) | ("d", None) => {
            let tables = session.tables().await?;
            if tables.is_empty() {
                context.say("there are no tables yet; a run makes them");
                return Ok(());
            }
            let mut table = Table::new(Look::Lines, &["table", ">columns"]);
            for name in &tables {
                table.row([qualified(&name.catalog, &name.schema, &name.table), name.columns.len().to_string()]);
            }
            context.answer(&table.render(context.out))
        }
        ("d", Some(name)) => {
            let name = name.trim_end_matches(';').replace('"', "");
            let tables = session.tables().await?;
            let meant: Vec<_> =
                tables.iter().filter(|table| is_meant(&name, &qualified(&table.catalog, &table.schema, &table.table))).collect();
            if meant.is_empty() {
                let known: Vec<String> = tables.iter().map(|table| qualified(&table.catalog, &table.schema, &table.table)).collect();
                return Err(weir_pipelines::Diagnostic::error("unknown-table", format!("there is no table \"{name}\""))
                    .did_you_mean(&name, known.iter().map(String::as_str))
                    .help("\\dt lists the tables")
                    .into());
            }
            for table in meant {
                let mut columns = Table::new(Look::Lines, &["column", "type", "nullable"]);
                for column in &table.columns {
                    columns.row([column.name.as_str(), &column.r#type, if column.nullable { "yes" } else { "no" }]);
                }
                let name = qualified(&table.catalog, &table.schema, &table.table);
                context.answer(&format!("{}\n{}", context.out.bold(&name), columns.render(context.out)))?;
            }
            Ok(())
        }
        (other, _) => Err(weir_pipelines::Diagnostic::error("unknown-command", format!("there is no command \"\\{other}\""))
            .help("\\? lists the commands")
            .into()),
    }
}

fn qualified(catalog: &str, schema: &str, table: &str) -> String {
    format!("{catalog}.{schema}.{table}")
}

/// `delays`, `flights.delays` and `lake.flights.delays` all mean the last.
fn is_meant(name: &str, qualified: &str) -> bool {
    qualified == name || qualified.strip_suffix(name).is_some_and(|rest| !name.is_empty() && rest.ends_with('.'))
}

/// Completes words, and waits for the semicolon.
#[derive(Helper, Completer, Hinter, Highlighter)]
struct Words {
    #[rustyline(Completer)]
    words: Completions,
}

struct Completions {
    words: BTreeSet<String>,
}

impl Words {
    fn new(names: Vec<String>) -> Self {
        let mut words: BTreeSet<String> = KEYWORDS.iter().map(|word| (*word).to_owned()).collect();
        // After `lake.flights.` the next part is offered by the whole name; a part alone is offered too, for columns behind an alias.
        words.extend(names.iter().flat_map(|name| name.rsplit('.').next().map(str::to_owned)));
        words.extend(names);
        Self { words: Completions { words } }
    }
}

impl Completions {
    /// Where the word under the cursor begins, and what it may become.
    fn candidates(&self, line: &str, pos: usize) -> (usize, Vec<&str>) {
        let before = &line[..pos];
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '"' | '-')))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = &before[start..];
        if word.is_empty() {
            return (start, Vec::new());
        }
        let fits = |candidate: &&String| {
            candidate.len() >= word.len() && candidate.is_char_boundary(word.len()) && candidate[..word.len()].eq_ignore_ascii_case(word)
        };
        let found: Vec<&str> = self.words.iter().filter(fits).map(String::as_str).collect();
        if found.is_empty()
            && let Some(dot) = word.rfind('.')
        {
            // Behind an alias: complete the part after the dot.
            let (inner, found) = (start + dot + 1, &word[dot + 1..]);
            let fits = |candidate: &&String| !candidate.contains('.') && !found.is_empty() && candidate.starts_with(found);
            return (inner, self.words.iter().filter(fits).map(String::as_str).collect());
        }
        (start, found)
    }
}

impl Completer for Completions {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &LineContext<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, found) = self.candidates(line, pos);
        Ok((start, found.into_iter().map(|word| Pair { display: word.to_owned(), replacement: word.to_owned() }).collect()))
    }
}

impl Validator for Words {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let done = text.trim_start().starts_with('\\') || is_complete(text);
        Ok(if done { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keywords_and_columns_behind_an_alias_are_completed() {
        let words = Words::new(vec!["lake.flights.delays".into(), "lake.flights.delays.carrier".into(), "weir.main.runs".into()]).words;
        assert_eq!(words.candidates("sel", 3), (0, vec!["select"]));
        assert_eq!(words.candidates("select * from lake.fl", 21).1, ["lake.flights.delays", "lake.flights.delays.carrier"]);
        assert_eq!(words.candidates("select d.carr", 13), (9, vec!["carrier"]));
        assert_eq!(words.candidates("select ü", 9).1, Vec::<&str>::new());
        assert_eq!(words.candidates("select ", 7).1, Vec::<&str>::new());
    }

    #[test]
    fn a_table_is_meant_by_the_end_of_its_name() {
        assert!(is_meant("delays", "lake.flights.delays"));
        assert!(is_meant("flights.delays", "lake.flights.delays"));
        assert!(is_meant("lake.flights.delays", "lake.flights.delays"));
        assert!(!is_meant("elays", "lake.flights.delays"));
        assert!(!is_meant("", "lake.flights.delays"));
    }
}
