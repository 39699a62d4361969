//! What may a client set for its session? What clients of Postgres send when they connect, as far as it means something here or changes
//! nothing; whatever else is refused, not swallowed.

use std::time::Duration;

use super::{
    error::{PgError, Result},
    temporal::{Style, Zone},
};

/// The version of Postgres whose protocol and catalogue clients may expect.
pub const SERVER_VERSION: &str = "16.6";

/// A session's parameters.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How times are written.
    pub style: Style,
    /// None is no limit of the client's own.
    pub statement_timeout: Option<Duration>,
    /// Schemas in which names are looked up; the first one counts.
    pub search_path: Vec<String>,
    application_name: String,
    extra_float_digits: String,
    bytea_output: String,
    /// Set and shown, without a meaning here.
    kept: Vec<(&'static str, String)>,
}

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing that others have to know.
    Nothing,
    /// The client is told of it.
    Told(&'static str),
    /// The time a statement may take.
    Timeout,
    /// Where names are looked up.
    Path,
}

/// Names whose values change nothing here, with what they are at first. Values that ask for what is not done are in [`Settings::set`].
const KEPT: &[(&str, &str)] = &[
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),
    ("client_min_messages", "notice"),
    ("row_security", "on"),
    ("synchronize_seqscans", "on"),
    ("jit", "off"),
    ("quote_all_identifiers", "off"),
    ("default_toast_compression", "pglz"),
    ("check_function_bodies", "on"),
    ("xmloption", "content"),
    ("lc_messages", "C"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("geqo", "on"),
    ("work_mem", "4MB"),
    ("synchronous_commit", "on"),
];

/// Bytes of a value: no more than a client can send when it connects.
const VALUE_MAX: usize = 10_000;

/// What is so and stays so.
const FIXED: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("server_encoding", "UTF8"),
    ("integer_datetimes", "on"),
    ("in_hot_standby", "off"),
    ("is_superuser", "off"),
    ("max_identifier_length", "63"),
    ("block_size", "8192"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("max_index_keys", "32"),
    ("ssl", "on"),
];

impl Settings {
    /// As they are when a connection begins.
    pub fn new(schema: &str) -> Self {
        Self {
            style: Style::default(),
            statement_timeout: None,
            search_path: vec![schema.to_owned()],
            application_name: String::new(),
            extra_float_digits: "1".to_owned(),
            bytea_output: "hex".to_owned(),
            kept: KEPT.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        }
    }

    /// What a client is told when it has connected.
    pub fn greeting(&self, user: &str) -> Vec<(&'static str, String)> {
        let names = [
            ("server_version", "server_version"),
            ("server_encoding", "server_encoding"),
            ("client_encoding", "client_encoding"),
            ("application_name", "application_name"),
            ("is_superuser", "is_superuser"),
            ("DateStyle", "datestyle"),
            ("IntervalStyle", "intervalstyle"),
            ("TimeZone", "timezone"),
            ("integer_datetimes", "integer_datetimes"),
            ("standard_conforming_strings", "standard_conforming_strings"),
            ("default_transaction_read_only", "default_transaction_read_only"),
            ("in_hot_standby", "in_hot_standby"),
            ("search_path", "search_path"),
        ];
        let mut told: Vec<_> = names.iter().map(|(told, name)| (*told, self.show(name, user).unwrap_or_default())).collect();
        told.push(("session_authorization", user.to_owned()));
        told
    }

    /// Sets one. `values` are the words behind `=`, as they were written, without their quotes.
    pub fn set(&mut self, name: &str, values: &[String]) -> Result<Changed> {
        let name = name.to_ascii_lowercase();
        if values.iter().map(|value| value.len() + 2).sum::<usize>() > VALUE_MAX {
            return Err(PgError::new("22023", format!("a value of \"{name}\" has at most {VALUE_MAX} bytes")));
        }
        let value = values.join(", ");
        let word = value.trim().to_ascii_lowercase();
        let is = |known: &[&str]| known.contains(&word.as_str());
        let only = |what: &str| Err(PgError::new("22023", format!("\"{name}\" is {what} here, not \"{value}\"")));
        match name.as_str() {
            "statement_timeout" => {
                self.statement_timeout = timeout(&value).ok_or_else(|| invalid(&name, &value))?;
                return Ok(Changed::Timeout);
            }
            "timezone" => {
                self.style.zone =
                    Zone::parse(&value).ok_or_else(|| invalid(&name, &value).hint("write a name of the IANA's, as in 'Europe/Berlin'"))?;
                return Ok(Changed::Told("TimeZone"));
            }
            "application_name" => {
                // What is shown in logs is one line, and a short one.
                self.application_name = value.chars().filter(|one| !one.is_control()).take(64).collect();
                return Ok(Changed::Told("application_name"));
            }
            "search_path" => {
                if values.is_empty() || values.iter().any(|schema| schema.contains('\0')) {
                    return Err(invalid(&name, &value));
                }
                self.search_path = values.to_vec();
                return Ok(Changed::Path);
            }
            "extra_float_digits" => match word.parse::<i32>() {
                Ok(-15..=3) => self.extra_float_digits = word,
                _ => return Err(invalid(&name, &value)),
            },
            "bytea_output" if is(&["hex"]) => {}
            "bytea_output" => return only("\"hex\""),
            "client_encoding" | "names" => {
                if !is(&["utf8", "utf-8", "unicode", "'utf8'"]) {
                    return only("\"UTF8\"");
                }
            }
            "datestyle" => {
                let known = |part: &str| matches!(part.trim(), "iso" | "mdy" | "dmy" | "ymd" | "us" | "european" | "noneuropean");
                if !word.split(',').all(known) {
                    return only("\"ISO\"");
                }
            }
            "intervalstyle" if is(&["postgres", "iso_8601"]) => {
                self.style.iso_lengths = word == "iso_8601";
                return Ok(Changed::Told("IntervalStyle"));
            }
            "intervalstyle" => return only("\"postgres\" or \"iso_8601\""),
            "standard_conforming_strings" if is(&["on", "true", "yes", "1"]) => {}
            "standard_conforming_strings" => return only("\"on\""),
            "default_transaction_read_only" | "transaction_read_only" if is(&["on", "true", "yes", "1", "off", "false", "no", "0"]) => {
                // A client that asks for read-write gets it as far as transactions go; what writes is refused when it comes.
            }
            "default_transaction_isolation" | "transaction_isolation" => {
                if !is(&["serializable", "repeatable read", "read committed", "read uncommitted"]) {
                    return Err(invalid(&name, &value));
                }
            }
            "default_transaction_deferrable" | "transaction_deferrable" if is(&["on", "true", "yes", "1", "off", "false", "no", "0"]) => {}
            "session_authorization" | "role" => return Err(PgError::new("42501", "a session stays with the user of its token")),
            _ => match self.kept.iter_mut().find(|(known, _)| *known == name) {
                Some((_, kept)) => *kept = value,
                None if FIXED.iter().any(|(known, _)| *known == name) => {
                    return Err(PgError::new("55P02", format!("\"{name}\" cannot be changed")));
                }
                None => return Err(unknown(&name)),
            },
        }
        Ok(Changed::Nothing)
    }

    /// What one is.
    pub fn show(&self, name: &str, user: &str) -> Result<String> {
        let name = name.to_ascii_lowercase();
        Ok(match name.as_str() {
            "statement_timeout" => match self.statement_timeout {
                None => "0".to_owned(),
                Some(time) if time.subsec_millis() == 0 => format!("{}s", time.as_secs()),
                Some(time) => format!("{}ms", time.as_millis()),
            },
            "timezone" => self.style.zone.name(),
            "application_name" => self.application_name.clone(),
            "search_path" => self.search_path.join(", "),
            "extra_float_digits" => self.extra_float_digits.clone(),
            "bytea_output" => self.bytea_output.clone(),
            "client_encoding" | "names" => "UTF8".to_owned(),
            "datestyle" => "ISO, MDY".to_owned(),
            "intervalstyle" => if self.style.iso_lengths { "iso_8601" } else { "postgres" }.to_owned(),
            "standard_conforming_strings" | "default_transaction_read_only" | "transaction_read_only" => "on".to_owned(),
            "default_transaction_isolation" | "transaction_isolation" => "read committed".to_owned(),
            "default_transaction_deferrable" | "transaction_deferrable" => "off".to_owned(),
            "session_authorization" | "role" => user.to_owned(),
            _ => {
                let kept = self.kept.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
                let fixed = || FIXED.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
                kept.or_else(fixed).ok_or_else(|| unknown(&name))?.to_owned()
            }
        })
    }

    /// Every parameter, for `show all`.
    pub fn names() -> Vec<&'static str> {
        let own = [
            "application_name",
            "bytea_output",
            "client_encoding",
            "datestyle",
            "default_transaction_isolation",
            "default_transaction_read_only",
            "extra_float_digits",
            "intervalstyle",
            "search_path",
            "session_authorization",
            "standard_conforming_strings",
            "statement_timeout",
            "timezone",
            "transaction_isolation",
            "transaction_read_only",
        ];
        let mut names: Vec<_> = own.into_iter().chain(KEPT.iter().chain(FIXED).map(|(name, _)| *name)).collect();
        names.sort_unstable();
        names
    }
}

fn unknown(name: &str) -> PgError {
    PgError::new("42704", format!("\"{name}\" is no parameter of this server")).hint("'show all' lists those that there are")
}

fn invalid(name: &str, value: &str) -> PgError {
    PgError::new("22023", format!("\"{value}\" is no value of \"{name}\""))
}

/// A time as Postgres reads it: milliseconds, or a number with a unit. 0 is none.
fn timeout(text: &str) -> Option<Option<Duration>> {
    let text = text.trim();
    let digits = text.find(|one: char| !one.is_ascii_digit() && one != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit_ms = match text[digits..].trim() {
        "" | "ms" => 1.0,
        "us" => 0.001,
        "s" => 1_000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let ms = (number * unit_ms).round();
    if !(0.0..=f64::from(i32::MAX)).contains(&ms) {
        return None;
    }
    Some((ms > 0.0).then(|| Duration::from_millis(ms as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(settings: &mut Settings, name: &str, value: &str) -> Result<Changed> {
        settings.set(name, &[value.to_owned()])
    }

    #[test]
    fn what_clients_send_is_taken_and_what_would_change_the_engine_is_not() {
        let mut settings = Settings::new("main");
        for (name, value) in [
            ("extra_float_digits", "3"),
            ("DateStyle", "ISO"),
            ("client_encoding", "UTF8"),
            ("client_min_messages", "warning"),
            ("standard_conforming_strings", "on"),
            ("application_name", "psql"),
        ] {
            set(&mut settings, name, value).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        for (name, value, state) in [
            ("client_encoding", "LATIN1", "22023"),
            ("datestyle", "SQL", "22023"),
            ("datafusion.execution.batch_size", "1", "42704"),
            ("server_version", "9", "55P02"),
            ("role", "other", "42501"),
            ("statement_timeout", "soon", "22023"),
            ("timezone", "nowhere", "22023"),
        ] {
            assert_eq!(set(&mut settings, name, value).expect_err(name).state, state, "{name}");
        }
    }

    #[test]
    fn a_timeout_has_postgres_units() {
        let seconds = |text: &str| timeout(text).map(|time| time.map(|time| time.as_secs_f64()));
        assert_eq!(seconds("50"), Some(Some(0.05)));
        assert_eq!(seconds("50ms"), Some(Some(0.05)));
        assert_eq!(seconds("2 min"), Some(Some(120.0)));
        assert_eq!(seconds("0"), Some(None));
        assert_eq!(seconds("-1"), None);
        assert_eq!(seconds("1e99"), None);
        let mut settings = Settings::new("main");
        set(&mut settings, "statement_timeout", "1500ms").expect("a time");
        assert_eq!(settings.show("statement_timeout", "me").expect("known"), "1500ms");
    }

    #[test]
    fn every_name_that_is_listed_is_shown() {
        let settings = Settings::new("main");
        for name in Settings::names() {
            settings.show(name, "me").unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }
}
