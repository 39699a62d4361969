//! What `weir.toml` says of a server: where it listens, how much it runs at once, what a query may cost, and whom it alerts of what.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use indexmap::IndexMap;

use crate::{pipeline::ShareMax, settings::Settings};

/// The `[server]` table.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where the HTTP port is. Default `127.0.0.1:8484`.
    pub listen: SocketAddr,
    /// Whether it may be one that other machines reach.
    pub expose: bool,
    /// Runs at once in one process. Default 4.
    pub runs_max: u32,
    /// Runs at once of pipelines that use a connection, by its name.
    pub connection_runs_max: IndexMap<String, u32>,
    /// The base URL of an OTLP receiver, over HTTP.
    pub otlp: Option<String>,
    /// The form of log lines. None: text on a terminal, else JSON.
    pub log: Option<LogForm>,
    /// How it answers SQL.
    pub sql: Sql,
    /// The `[server.tls]` table: the certificate of its ports. None: they speak in the clear.
    pub tls: Option<Settings>,
}

/// The `[server.sql]` table: where SQL is answered beside HTTP, and what queries may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    /// Where the port is that speaks Postgres's protocol. None: there is none.
    pub postgres: Option<SocketAddr>,
    /// Where the port of Arrow Flight SQL is. None: there is none.
    pub flight: Option<SocketAddr>,
    /// Queries at once, of all users. Default 8.
    pub queries_max: u32,
    /// What all queries may hold in memory together. None: half of what runs may hold.
    pub memory_bytes: Option<u64>,
    /// What each query, and each user, may cost.
    pub limits: QueryLimits,
    /// The same of single users, by the names of their tokens.
    pub users: IndexMap<String, QueryLimits>,
}

impl Sql {
    /// What the queries of a user may cost.
    pub fn limits_of(&self, user: &str) -> QueryLimits {
        self.users.get(user).copied().unwrap_or(self.limits)
    }
}

impl Default for Sql {
    fn default() -> Self {
        Self { postgres: None, flight: None, queries_max: 8, memory_bytes: None, limits: QueryLimits::default(), users: IndexMap::new() }
    }
}

/// The `[server.sql.limits]` table. None is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// Rows of an answer.
    pub rows: Option<u64>,
    /// Bytes of an answer, as Arrow holds them.
    pub bytes: Option<u64>,
    /// From a query's start to its last row.
    pub time: Option<Duration>,
    /// What a query may hold in memory.
    pub memory_bytes: Option<u64>,
    /// Queries at once, of one user.
    pub queries: u32,
    /// How long a query waits for its turn.
    pub wait: Duration,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            rows: Some(10_000_000),
            bytes: Some(4_000_000_000),
            time: Some(Duration::from_secs(300)),
            memory_bytes: Some(1_000_000_000),
            queries: 4,
            wait: Duration::from_secs(30),
        }
    }
}

/// Reads an IP address and a port; `localhost` is the one of IPv4.
pub fn address(text: &str) -> Option<SocketAddr> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().ok()
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8484),
            expose: false,
            runs_max: 4,
            connection_runs_max: IndexMap::new(),
            otlp: None,
            log: None,
            sql: Sql::default(),
            tls: None,
        }
    }
}

/// An `[alert.NAME]` table: whom to tell what.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// What it tells.
    pub on: Vec<Cause>,
    /// Names of the pipelines it is about, `*` for any letters. Empty: all.
    pub pipelines: Vec<String>,
    /// How long until what still stands is told again. None: the kind's own.
    pub repeat: Option<Duration>,
    /// How long the first of several waits for the others. None: the kind's own.
    pub group: Option<Duration>,
    /// More rejected rows than this are told.
    pub max_rejected: ShareMax,
    /// Who is told: the kind and its own table.
    pub settings: Settings,
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A run has failed, and is not tried again.
    Failed,
    /// It was not published within its deadline.
    Late,
    /// It has published, and loaded nothing.
    NoRows,
    /// It has published, and rejected more rows than it may.
    Rejected,
    /// The pipeline's file is wrong.
    Broken,
    /// One of the others is over.
    Recovered,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 6] = [Cause::Failed, Cause::Late, Cause::NoRows, Cause::Rejected, Cause::Recovered, Cause::Broken];

    /// The word of `weir.toml` and of messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Failed => "failed",
            Cause::Late => "late",
            Cause::NoRows => "no_rows",
            Cause::Rejected => "rejected",
            Cause::Broken => "broken",
            Cause::Recovered => "recovered",
        }
    }
}

impl Alert {
    /// Whether it is about a pipeline.
    pub fn covers(&self, pipeline: &str) -> bool {
        self.pipelines.is_empty() || self.pipelines.iter().any(|pattern| is_like(pattern.as_bytes(), pipeline.as_bytes()))
    }
}

/// Whether a name has the form of a pattern, in which `*` stands for any bytes, also none.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    // Where the last star stands, and how far into the name it reaches by now.
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(of) {
            Some(b'*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(byte) if *byte == name[at] => {
                at += 1;
                of += 1;
            }
            _ => match star {
                Some((begin, reach)) => {
                    star = Some((begin, reach + 1));
                    at = reach + 1;
                    of = begin + 1;
                }
                None => return false,
            },
        }
    }
    pattern[of..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, name, is) in [
            ("orders", "orders", true),
            ("orders", "orders-eu", false),
            ("orders*", "orders", true),
            ("orders*", "orders-eu", true),
            ("*-eu", "orders-eu", true),
            ("*-eu", "orders-eu-old", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("**a", "ba", true),
        ] {
            assert_eq!(is_like(pattern.as_bytes(), name.as_bytes()), is, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_with_parts_left_out_for_stars_is_like_it(parts in proptest::collection::vec("[ab]{0,3}", 1..5), between in "[ab]{0,3}") {
            let name = parts.join(&between);
            prop_assert!(is_like(parts.join("*").as_bytes(), name.as_bytes()));
            let other = format!("{}c*", parts.join("*"));
            prop_assert!(!is_like(other.as_bytes(), name.as_bytes()));
        }
    }
}
