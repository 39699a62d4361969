//! What a failure of ClickHouse means: a stable code, whose fault it is, whether trying again may help, what to do.
//! No message holds a password: the server never says one, and credentials are no part of the URL.

use std::{error::Error as StdError, io};

use crate::error::{Beneath, Error};

/// Says what a failure while `doing` something ("read \"delays\"", …) means. The message is `cannot {doing}: {why}`.
pub fn failed(error: clickhouse::error::Error, doing: &str) -> Error {
    use clickhouse::error::Error as E;
    let told = match &error {
        E::BadResponse(text) => from_server(text, doing),
        E::Network(inner) => from_network(inner.as_ref(), doing),
        E::TimedOut => is_slow(doing),
        E::Compression(why) | E::Decompression(why) => {
            Error::system("clickhouse-protocol", format!("cannot {doing}: the answer cannot be decompressed: {why}"))
                .help("set compression = \"none\" of the connection")
        }
        E::InvalidParams(why) => Error::weir("clickhouse-request", format!("cannot {doing}: {why}")),
        other => Error::system("clickhouse", format!("cannot {doing}: {other}")),
    };
    told.because(Beneath(error))
}

/// A query took longer than the connection allows.
pub fn is_slow(doing: &str) -> Error {
    Error::system("statement-timeout", format!("cannot {doing}: it took longer than the query timeout"))
        .help("raise \"query_timeout\" of the connection, or the limit of the user's profile on the server")
}

/// An answer ended before its end.
pub fn cut(doing: &str) -> Error {
    Error::system("connection-lost", format!("cannot {doing}: the answer broke off")).later()
}

/// ClickHouse's number of an error, where the server told one.
#[cfg(test)]
pub fn number(error: &Error) -> Option<u32> {
    match &error.source.as_deref()?.downcast_ref::<Beneath<clickhouse::error::Error>>()?.0 {
        clickhouse::error::Error::BadResponse(text) => taken_apart(text).0,
        _ => None,
    }
}

/// The number and what was said, without number, name and version: `Code: 60. DB::Exception: Table … (UNKNOWN_TABLE) (version …)`.
fn taken_apart(text: &str) -> (Option<u32>, String) {
    let Some((_, rest)) = text.split_once("Code: ") else { return (None, one_line(text)) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest[..digits].parse().ok();
    let said = rest[digits..].trim_start_matches('.').trim_start();
    let said =
        ["DB::Exception: ", "DB::NetException: ", "DB::ErrnoException: "].iter().find_map(|what| said.strip_prefix(what)).unwrap_or(said);
    let said = said.rsplit_once(" (version ").map_or(said, |(said, _)| said).trim_end();
    let named = |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let said = match said.strip_suffix(')').and_then(|said| said.rsplit_once(" (")) {
        Some((said, name)) if named(name) => said,
        _ => said,
    };
    (number, one_line(said.trim_end().trim_end_matches('.')))
}

fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(1000) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn from_server(text: &str, doing: &str) -> Error {
    let (number, why) = taken_apart(text);
    let Some(number) = number else { return from_proxy(text, doing) };
    // Of a syntax error, all words that could stand there are hundreds.
    let why: &str = if number == 62 { why.split(". Expected one of: ").next().unwrap_or_default() } else { &why };
    let user = |code| Error::user(code, format!("cannot {doing}: {why}"));
    let system = |code| Error::system(code, format!("cannot {doing}: {why}"));
    match number {
        // No password, a wrong one, an unknown user: the server does not say which.
        192 | 193 | 194 | 516 => user("wrong-password").help("correct the user or the password of the connection"),
        81 => user("database-missing").help("correct \"database\" of the connection, or create it"),
        60 => user("table-missing").help("correct the name: it is case-sensitive, and database.table says which database it is in"),
        16 | 47 | 10 | 8 => user("unknown-column").help("correct the column's name: capitals and small letters differ"),
        497 | 291 => user("no-privilege").help("let an administrator grant it to the connection's user"),
        164 => user("read-only").help("give the connection's user a profile with readonly = 0, or 2 where it only reads"),
        115 => user("unknown-setting").help("the server is too old, or its profile does not allow the setting"),
        469 => user("check-failed").help("the table's constraint refuses a row: leave such rows out"),
        57 => user("table-exists").help("another program makes the table in this moment: run again"),
        62 | 43 | 53 | 42 | 46 | 48 | 36 | 44 | 179 | 184 | 215 => {
            user("wrong-sql").help("correct the SQL: it goes to the server as it is written")
        }
        6 | 27 | 38 | 41 | 69 | 70 | 72 | 117 | 321 | 349 | 407 | 131 | 691 => {
            user("wrong-value").help("correct the value, or cast the column to another type")
        }
        241 | 173 => system("server-memory").help("lower what the query needs, or raise max_memory_usage on the server"),
        243 | 396 => system("disk-full").help("make room on the server's disk"),
        252 => system("too-many-parts").later().help("the table is merging: load less often, or partition it less finely"),
        202 | 203 => system("too-many-queries").later().help("lower \"pool_max\", or raise max_concurrent_queries on the server"),
        159 => is_slow(doing),
        160 => system("too-slow").help("the server expects the query to take longer than its profile allows"),
        158 | 307 | 397 | 398 => user("too-many-rows").help("the user's profile on the server limits what a query may read or return"),
        201 => system("quota").later().help("the quota of the connection's user is used up"),
        394 => system("cancelled"),
        209 | 210 | 279 | 1000 | 3 | 33 => system("connection-lost").later(),
        236 | 735 => system("server-stopping").later(),
        242 => system("table-read-only").later().help("the table's replica has lost its keeper"),
        999 | 319 | 225 => system("keeper").later(),
        439 => system("server-resources").later(),
        _ => system("clickhouse"),
    }
}

/// Whatever answered was not ClickHouse, or did not say its number.
fn from_proxy(text: &str, doing: &str) -> Error {
    let (_, why) = taken_apart(text);
    let system = |code| Error::system(code, format!("cannot {doing}: {why}"));
    match text.get(..3) {
        Some("429") => system("too-many-queries").later(),
        Some("502" | "503" | "504") => system("server-resources").later(),
        Some("401" | "403") => {
            Error::user("wrong-password", format!("cannot {doing}: {why}")).help("correct the user or the password of the connection")
        }
        _ => system("clickhouse-protocol").help("is there a ClickHouse server's HTTP interface behind the connection's \"url\"?"),
    }
}

fn from_network(error: &(dyn StdError + 'static), doing: &str) -> Error {
    let mut chain: Vec<&(dyn StdError + 'static)> = vec![error];
    let mut next = error.source();
    while let Some(error) = next {
        chain.push(error);
        next = error.source();
    }
    let why = chain.last().map_or_else(String::new, |error| one_line(&error.to_string()));
    let whole = chain.iter().map(|error| error.to_string()).collect::<Vec<_>>().join(": ");
    // An io error hides what it was made of from `source`.
    let tls = chain.iter().any(|error| {
        error.is::<rustls::Error>()
            || error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<rustls::Error>())
    });
    if tls || whole.contains("invalid peer certificate") {
        return Error::user("tls", format!("cannot {doing}: no encrypted connection: {why}"))
            .help("check the host's name, and \"ca\", \"client_cert\" and \"client_key\" of the connection");
    }
    if whole.contains("dns error") || whole.contains("failed to lookup address") {
        return Error::user("unknown-host", format!("cannot {doing}: no such host")).help("correct the host in the connection's \"url\"");
    }
    let kind = chain.iter().find_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::ConnectionRefused) => Error::system("connection-refused", format!("cannot {doing}: nobody answers there"))
            .later()
            .help("is the server up, and host and port of the connection's \"url\" right?"),
        Some(io::ErrorKind::TimedOut) => Error::system("connect-timeout", format!("cannot {doing}: no answer in time"))
            .later()
            .help("is the server up, and nothing in the way? \"connect_timeout\" of the connection gives it longer"),
        _ => Error::system("connection-lost", format!("cannot {doing}: the connection broke: {why}")).later(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Blame, Retry};

    fn told(text: &str) -> Error {
        failed(clickhouse::error::Error::BadResponse(text.into()), "read \"t\"")
    }

    #[test]
    fn the_servers_own_words_are_kept_without_its_frills() {
        let error = told(
            "Code: 60. DB::Exception: Unknown table expression identifier 'x' in scope SELECT 1. (UNKNOWN_TABLE) (version 26.9.2.1 (official build))\n",
        );
        assert_eq!(error.message, "cannot read \"t\": Unknown table expression identifier 'x' in scope SELECT 1");
        assert_eq!((error.code, error.blame, error.retry), ("table-missing", Blame::User, Retry::Never));
        assert_eq!(number(&error), Some(60));
        assert_eq!(
            told("Code: 1001. DB::Exception: std::exception. Code: 7, type: X (x).").message,
            "cannot read \"t\": std::exception. Code: 7, type: X (x)"
        );
        assert_eq!(told("<html>Not\n here</html>").message, "cannot read \"t\": <html>Not here</html>");
    }

    #[test]
    fn codes_say_whose_fault_it_is_and_whether_to_try_again() {
        for (number, code, blame, retry) in [
            (516, "wrong-password", Blame::User, Retry::Never),
            (81, "database-missing", Blame::User, Retry::Never),
            (47, "unknown-column", Blame::User, Retry::Never),
            (497, "no-privilege", Blame::User, Retry::Never),
            (241, "server-memory", Blame::System, Retry::Never),
            (243, "disk-full", Blame::System, Retry::Never),
            (252, "too-many-parts", Blame::System, Retry::Later),
            (202, "too-many-queries", Blame::System, Retry::Later),
            (159, "statement-timeout", Blame::System, Retry::Never),
            (210, "connection-lost", Blame::System, Retry::Later),
            (999, "keeper", Blame::System, Retry::Later),
            (4711, "clickhouse", Blame::System, Retry::Never),
        ] {
            let error = told(&format!("Code: {number}. DB::Exception: Why. (NAME) (version 26.9.2.1)"));
            assert_eq!((error.code, error.blame, error.retry), (code, blame, retry), "{number}");
        }
        assert_eq!((told("503 Service Unavailable").code, told("503 Service Unavailable").retry), ("server-resources", Retry::Later));
        assert_eq!((told("429 Too Many Requests").code, told("429 Too Many Requests").retry), ("too-many-queries", Retry::Later));
    }
}
