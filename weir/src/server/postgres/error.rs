//! What does a client see of an error? Postgres's fields: a code of five characters (SQLSTATE), the message, its place, and a hint.
//! The code of ours, which docs/reference/errors.md explains, goes along as the error's detail.

use datafusion::error::DataFusionError;
use weir_engine::Failure;

use super::{values::ValueError, wire::Out};

/// An error on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgError {
    /// The client's connection ends with it.
    pub fatal: bool,
    /// SQLSTATE.
    pub state: &'static str,
    /// One line.
    pub message: String,
    /// More.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the text that was sent, in bytes.
    pub at: Option<usize>,
    /// The engine has noted its statement, and how that ended, in the log.
    pub logged: bool,
}

/// Results of this door.
pub type Result<T, E = PgError> = std::result::Result<T, E>;

/// Messages of a client are answered by so many characters at most.
const MESSAGE_MAX: usize = 20_000;

impl PgError {
    /// An error of one statement.
    pub fn new(state: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: false, state, message: message.into(), detail: None, hint: None, at: None, logged: false }
    }

    /// An error that ends the connection.
    pub fn fatal(state: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::new(state, message) }
    }

    /// Something of Postgres's that this server has not.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new("0A000", message)
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, at: usize) -> Self {
        self.at = Some(at);
        self
    }

    /// What the engine says of a statement that begins at byte `start` of what was sent, and has logged.
    pub fn of(failure: &Failure, start: usize) -> Self {
        Self { logged: true, ..Self::said(failure, start) }
    }

    fn said(failure: &Failure, start: usize) -> Self {
        match failure {
            Failure::Interrupted => Self::new("57014", "the query was cancelled"),
            Failure::Diagnostics(all) => {
                let Some(first) = all.first() else { return Self::new("XX000", "an error without a word") };
                let mut error = Self::new(state(first.code, &first.message), &first.message);
                error.hint = joined(&first.help, " ");
                // Further ones would be lost: Postgres's clients show one.
                let others = all[1..].iter().map(|other| other.message.clone());
                error.detail = joined(&others.chain([format!("code: {}", first.code)]).collect::<Vec<_>>(), "\n");
                error.at = first.labels.first().map(|label| start + label.span.start);
                error
            }
            Failure::Error(cause) => {
                let message = cause.to_string();
                let mut error = Self::new(state(cause.code, &message), message);
                error.hint = joined(&cause.help, " ");
                let details = cause.details.iter().cloned().chain([format!("code: {}", cause.code)]);
                error.detail = joined(&details.collect::<Vec<_>>(), "\n");
                error
            }
        }
    }

    /// What ended a stream of rows.
    pub fn of_stream(error: &DataFusionError) -> Self {
        Self::of(&weir_engine::run::explain(error), 0)
    }

    /// Sends it. `sent` is the text that it points into.
    pub fn send<W: tokio::io::AsyncWrite + Unpin>(&self, out: &mut Out<W>, sent: Option<&str>) {
        let severity = if self.fatal { "FATAL" } else { "ERROR" };
        let position = self.at.zip(sent).map(|(at, sent)| {
            let before = sent.char_indices().take_while(|(byte, _)| *byte < at).count();
            (before + 1).to_string()
        });
        let fields = [
            (b'S', Some(severity)),
            (b'V', Some(severity)),
            (b'C', Some(self.state)),
            (b'M', Some(self.message.as_str())),
            (b'D', self.detail.as_deref()),
            (b'H', self.hint.as_deref()),
            (b'P', position.as_deref()),
        ];
        out.message(b'E', |body| {
            for (kind, value) in fields {
                if let Some(value) = value {
                    body.extend_from_slice(&[kind]);
                    let end = value.char_indices().nth(MESSAGE_MAX).map_or(value.len(), |(at, _)| at);
                    super::wire::text(body, &value[..end]);
                }
            }
            body.extend_from_slice(&[0]);
        });
    }
}

fn joined(lines: &[String], between: &str) -> Option<String> {
    (!lines.is_empty()).then(|| lines.join(between))
}

impl From<ValueError> for PgError {
    fn from(error: ValueError) -> Self {
        let state = match error {
            ValueError::Range(_) => "22003",
            ValueError::Arrow(_) => "XX000",
        };
        // The rows of a statement that are not taken to their end: that is logged when they are dropped.
        Self { logged: true, ..Self::new(state, error.to_string()) }
    }
}

/// SQLSTATE of our codes. <https://www.postgresql.org/docs/18/errcodes-appendix.html>
fn state(code: &str, message: &str) -> &'static str {
    let lower = message.to_ascii_lowercase();
    // Errors of values have one code of ours, and several of Postgres's, which clients tell apart.
    let of_message = || {
        let known: &[(&str, &'static str)] = &[
            ("divide by zero", "22012"),
            ("division by zero", "22012"),
            ("overflow", "22003"),
            ("out of range", "22003"),
            ("too large to store", "22003"),
            ("cannot cast string", "22P02"),
            ("error parsing timestamp", "22007"),
            ("error parsing date", "22007"),
            ("invalid function", "42883"),
            ("no function matches", "42883"),
            ("ambiguous", "42702"),
        ];
        known.iter().find(|(words, _)| lower.contains(words)).map(|(_, state)| *state)
    };
    match code {
        "read-only" => "25006",
        "not-allowed" => "42501",
        "too-slow" | "cancelled" | "interrupted" => "57014",
        "out-of-memory" | "memory-limit" => "53200",
        "busy" => "53300",
        "too-many-rows" | "too-many-bytes" | "too-long" | "too-much" => "54000",
        "sql-too-deep" => "54001",
        "unknown-table" | "unknown-step" | "unknown-pipeline" | "unknown-qualifier" => "42P01",
        "unknown-column" => "42703",
        "unknown-function" => "42883",
        "unknown-type" => "42704",
        "unknown-position" => "42P10",
        "ambiguous-column" => "42702",
        "duplicate-column" => "42701",
        "missing-group-by" | "misplaced-aggregate" => "42803",
        "misplaced-window" | "missing-over" => "42P20",
        "wrong-type" | "unlike-types" | "not-boolean" | "text-beside-number" => "42804",
        "argument" | "wrong-argument" => "22023",
        "wrong-literal" | "parameters" => "22P02",
        // As Postgres answers where a plan that it keeps would have other columns now.
        "changed" => "0A000",
        _ if code.starts_with("sql") => of_message().unwrap_or("42601"),
        _ => of_message().unwrap_or("58000"),
    }
}

#[cfg(test)]
mod tests {
    use weir_pipelines::{Diagnostic, SourceFile};

    use super::*;

    #[test]
    fn a_place_is_told_in_characters_of_what_was_sent() {
        let file = SourceFile::new("<sql>", "select größe from t");
        let diagnostic = Diagnostic::error("unknown-column", "no column \"größe\"").at(&file, 7..14, "").help("did you mean \"x\"?");
        let sent = "select 'ä'; select größe from t";
        let error = PgError::of(&diagnostic.into(), "select 'ä'; ".len());
        assert_eq!((error.state, error.hint.as_deref()), ("42703", Some("did you mean \"x\"?")));
        let mut out = Out::new(tokio::io::sink());
        error.send(&mut out, Some(sent));
        let text = String::from_utf8_lossy(&out.buffer).into_owned();
        assert!(text.contains("\0P20\0"), "{text:?}");
        assert!(text.contains("\0C42703\0"), "{text:?}");
    }

    #[test]
    fn errors_of_values_are_told_apart() {
        assert_eq!(state("query-failed", "Arrow error: Divide by zero error"), "22012");
        assert_eq!(state("query-failed", "Cannot cast string 'x' to value of Int64 type"), "22P02");
        assert_eq!(state("out-of-memory", "anything"), "53200");
        assert_eq!(state("something-else", "anything"), "58000");
    }
}
