//! Who asks, by which door, and what an answer may cost.

use std::{collections::BTreeSet, fmt, time::Duration};

/// The doors that statements come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// `weir sql`, and commands that look at tables.
    Prompt,
    /// The Postgres wire protocol.
    Postgres,
    /// `/api/sql`.
    Http,
    /// Arrow Flight SQL.
    Flight,
}

impl Door {
    /// The word of logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Door::Prompt => "prompt",
            Door::Postgres => "postgres",
            Door::Http => "http",
            Door::Flight => "flight",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Who {
    /// The token's name.
    pub user: String,
    /// By which door.
    pub door: Door,
    /// What is open to them.
    pub scopes: Scopes,
    /// What each of their statements may cost.
    pub limits: Limits,
    /// The catalogue of names without one.
    pub default_catalog: String,
    /// The schema of names without one.
    pub default_schema: String,
}

impl Who {
    /// The person at the machine: everything is open, and nothing is limited but the memory of all.
    pub fn local() -> Self {
        Self {
            user: "local".into(),
            door: Door::Prompt,
            scopes: Scopes::all(),
            limits: Limits::default(),
            default_catalog: "lake".into(),
            default_schema: "main".into(),
        }
    }
}

/// What is open to a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    all: bool,
    words: BTreeSet<String>,
}

/// The scopes there are; `connection:NAME` is one connection of `connections`.
pub const SCOPES: [&str; 5] = ["runs", "sql", "files", "pipelines", "connections"];

impl Scopes {
    /// Everything.
    pub fn all() -> Self {
        Self { all: true, words: BTreeSet::new() }
    }

    /// Reads words; the error is the first that is none.
    pub fn parse<T: AsRef<str>>(words: &[T]) -> Result<Self, String> {
        let mut scopes = Self::default();
        for word in words.iter().map(AsRef::as_ref) {
            let is_connection = word.strip_prefix("connection:").is_some_and(|name| !name.is_empty());
            if !is_connection && !SCOPES.contains(&word) {
                return Err(word.to_owned());
            }
            scopes.words.insert(word.to_owned());
        }
        Ok(scopes)
    }

    /// Whether a scope is open.
    pub fn has(&self, word: &str) -> bool {
        self.all || self.words.contains(word)
    }

    /// Whether a connection may be looked through.
    pub fn connection(&self, name: &str) -> bool {
        self.has("connections") || self.words.contains(&format!("connection:{name}"))
    }

    /// The words, sorted.
    pub fn words(&self) -> Vec<String> {
        if self.all { SCOPES.iter().map(|word| (*word).to_owned()).collect() } else { self.words.iter().cloned().collect() }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(","))
    }
}

/// What a statement may cost. None: it is not limited by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Rows of the answer.
    pub rows: Option<u64>,
    /// Bytes of the answer, as Arrow holds it.
    pub bytes: Option<u64>,
    /// From the first step of the work to the last row taken.
    pub time: Option<Duration>,
    /// Bytes in memory while it is answered.
    pub memory: Option<u64>,
    /// Statements of the user that are answered at once; others wait.
    pub queries: Option<u32>,
    /// A statement waits no longer for its turn.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: None, bytes: None, time: None, memory: None, queries: None, wait: Duration::from_secs(30) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_words_and_single_connections() {
        let scopes = Scopes::parse(&["sql", "connection:crm"]).expect("known");
        assert!(scopes.has("sql") && scopes.connection("crm"));
        assert!(!scopes.has("files") && !scopes.connection("olap") && !scopes.has("connections"));
        assert_eq!(scopes.to_string(), "connection:crm,sql");
        assert!(Scopes::parse(&["connections"]).expect("known").connection("any"));
        assert_eq!(Scopes::parse(&["sql", "fly"]), Err("fly".to_owned()));
        assert_eq!(Scopes::parse(&["connection:"]), Err("connection:".to_owned()));
        assert!(Scopes::all().has("files") && Scopes::all().connection("any"));
    }
}
