//! What a failure of Postgres means: a stable code, whose fault it is, whether trying again may help, what to do.
//! No message holds a password: the server never says one, and what a person wrote as a URL is never repeated.

use std::io;

use sqlx::postgres::PgDatabaseError;

use crate::error::{Beneath, Error, Result};

/// Says what a failure while `doing` something ("connect to …", "read table …") means. The message is `cannot {doing}: {why}`.
pub fn failed(error: sqlx::Error, doing: &str) -> Error {
    let told = match &error {
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(database) => from_server(database, doing),
            None => Error::system("postgres", format!("cannot {doing}: {database}")),
        },
        sqlx::Error::Io(error) => from_network(error, doing),
        sqlx::Error::Tls(why) => from_tls(&why.to_string(), doing),
        sqlx::Error::Protocol(why) => {
            Error::system("postgres-protocol", format!("cannot {doing}: the server's answer is not understood: {why}"))
                .help("is there a Postgres server behind the URL's host and port?")
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            Error::weir("postgres", format!("cannot {doing}: {error}"))
        }
        other => Error::system("postgres", format!("cannot {doing}: {other}")),
    };
    told.because(Beneath(error))
}

/// True where the connection itself is gone, so that nothing more can be done through it.
pub fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            code.starts_with("08") || matches!(code.as_ref(), "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04")
        }
        _ => false,
    }
}

/// The error's SQLSTATE, where the server sent one.
pub fn sqlstate(error: &Error) -> Option<String> {
    let error = error.source.as_deref()?.downcast_ref::<Beneath<sqlx::Error>>()?;
    Some(error.0.as_database_error()?.code()?.into_owned())
}

/// What a failure from the server is: [`PgDatabaseError`] taken apart, so that a test can make one.
struct Told<'a> {
    sqlstate: &'a str,
    message: &'a str,
    detail: Option<&'a str>,
    hint: Option<&'a str>,
    column: Option<&'a str>,
    table: Option<&'a str>,
    constraint: Option<&'a str>,
    place: Option<&'a str>,
}

fn from_server(error: &PgDatabaseError, doing: &str) -> Error {
    meaning(
        &Told {
            sqlstate: error.code(),
            message: error.message(),
            detail: error.detail(),
            hint: error.hint(),
            column: error.column(),
            table: error.table(),
            constraint: error.constraint(),
            place: error.r#where(),
        },
        doing,
    )
}

fn meaning(told: &Told<'_>, doing: &str) -> Error {
    let why = told.message;
    let user = |code| Error::user(code, format!("cannot {doing}: {why}"));
    let system = |code| Error::system(code, format!("cannot {doing}: {why}"));
    let column = told.column.unwrap_or("?");
    let error = match told.sqlstate {
        "28P01" => user("wrong-password").help("correct the user or the password in the connection's \"url\" or \"password\""),
        "28000" => user("not-admitted")
            .help("the server admits nobody with this user, database, address and encryption: see pg_hba.conf there, and \"tls\" here"),
        "3D000" => user("database-missing").help("correct the database in the connection's \"url\", or create it"),
        "3F000" => user("schema-missing").help("create the schema, or correct its name"),
        "42P01" => user("table-missing").help("correct the name: it is case-sensitive, and schema.table says which schema it is in"),
        "42703" => user("unknown-column"),
        "42501" => privilege(told, doing),
        "23502" => {
            Error::user("not-null", format!("cannot {doing}: column \"{column}\" is null in a row and the table's column is not null"))
                .help(format!("leave such rows out, fill the column, or say: alter table … alter column \"{column}\" drop not null"))
        }
        "23505" => duplicate(told, doing),
        "23503" => user("foreign-key").help("load the table that is referred to first, or leave such rows out"),
        "23514" => user("check-failed")
            .help(format!("the table's constraint \"{}\" refuses a row: leave such rows out", told.constraint.unwrap_or("?"))),
        "23P01" => user("exclusion"),
        "22001" => user("value-too-long").help("shorten the value, or widen the table's column"),
        "22003" => user("value-out-of-range"),
        "22P05" | "22021" => user("text-invalid").help("Postgres text holds neither NUL nor what the database's encoding lacks"),
        "53100" => system("disk-full").help("make room on the server's disk"),
        "53200" => system("server-memory").later(),
        "53300" => system("too-many-connections").later().help("lower \"pool_max\", or raise max_connections on the server"),
        "40001" | "40P01" => system("conflict").later(),
        "55P03" => system("locked").later().help("another session holds a lock on the table"),
        "57014" => cancelled(told, doing),
        "57P01" | "57P02" | "57P05" => system("connection-lost").later(),
        "57P03" => system("starting").later(),
        "25P03" | "25P04" => system("connection-lost").later(),
        "25P02" => Error::weir("transaction-failed", format!("cannot {doing}: something in its transaction had failed before")),
        "25006" => user("read-only").help("the server is a standby or read-only: name the primary"),
        // What pgbouncer says itself has this state.
        "08P01" if why.contains("no such database") => user("database-missing").help("correct the database in the connection's \"url\""),
        "08P01" if why.contains("no such user") => user("wrong-password").help("correct the user in the connection's \"url\""),
        code if code.starts_with("08") => system("connection-lost").later(),
        code if code.starts_with("53") => system("server-resources").later(),
        code if code.starts_with("58") || code.starts_with("XX") => system("server-broken"),
        code if code.starts_with("22") => user("wrong-value"),
        code if code.starts_with("42") => user("wrong-sql"),
        _ => system("postgres"),
    };
    finish(error, told)
}

/// Adds what else the server said: the row a COPY was at, and its own hint where there is no better help.
fn finish(mut error: Error, told: &Told<'_>) -> Error {
    // `COPY planes, line 3, column year: "x"`: line and column are worth having, the statement's name is not news.
    if let Some(place) = told.place.and_then(|place| place.lines().next())
        && let Some((_, at)) = place.split_once(", line ").filter(|_| place.starts_with("COPY "))
    {
        let at = at.split_once(": ").map_or(at, |(at, _)| at);
        error.message.push_str(&format!(" (row {at} of what was sent)"));
    }
    if error.help.is_none() {
        let own = match error.code {
            "unknown-column" => Some("correct the column's name; in SQL, one with capitals stands in double quotes"),
            "wrong-sql" => Some("correct the SQL: it goes to the server as it is written"),
            "wrong-value" => Some("correct the value, or cast the column to another type"),
            "value-out-of-range" => Some("leave such rows out, or take a wider type"),
            "exclusion" => Some("the table's constraint refuses a row: leave such rows out"),
            _ => None,
        };
        error.help = told.hint.or(own).map(str::to_owned);
    }
    error
}

fn duplicate(told: &Told<'_>, doing: &str) -> Error {
    // `Key (id, day)=(7, 2024-01-01) already exists.` or `… is duplicated.`
    let key = told.detail.and_then(|detail| detail.strip_prefix("Key "));
    let why = match key {
        Some(key) if key.ends_with(" is duplicated.") => {
            format!("several rows have the key {}", key.trim_end_matches(" is duplicated."))
        }
        Some(key) if key.ends_with(" already exists.") => {
            format!("a row with the key {} is there already", key.trim_end_matches(" already exists."))
        }
        _ => told.message.to_owned(),
    };
    Error::user("duplicate-key", format!("cannot {doing}: {why}"))
        .help("put a \"deduplicate\" step before the sink, or choose a \"key\" that tells rows apart")
}

fn privilege(told: &Told<'_>, doing: &str) -> Error {
    let error = Error::user("no-privilege", format!("cannot {doing}: {}", told.message));
    let Some(what) = told.message.strip_prefix("permission denied for ") else { return error };
    let Some((kind, name)) = what.split_once(' ') else { return error };
    let rights = match kind {
        "schema" if doing.starts_with("read") => "usage",
        "schema" => "usage, create",
        "table" | "view" | "relation" if doing.starts_with("read") => "select",
        "table" | "view" | "relation" => "select, insert, update, delete",
        "sequence" => "usage",
        "function" => "execute",
        "database" => "connect, create, temporary",
        _ => return error,
    };
    let kind = if matches!(kind, "view" | "relation") { "table" } else { kind };
    error.help(format!("let its owner say: grant {rights} on {kind} {name} to the connection's user"))
}

fn cancelled(told: &Told<'_>, doing: &str) -> Error {
    if told.message.contains("statement timeout") {
        return Error::system("statement-timeout", format!("cannot {doing}: it took longer than the statement timeout"))
            .help("raise \"statement_timeout\" of the connection, or the role's on the server");
    }
    if told.message.contains("lock timeout") {
        return Error::system("locked", format!("cannot {doing}: another session holds a lock on {}", told.table.unwrap_or("the table")))
            .later();
    }
    Error::system("cancelled", format!("cannot {doing}: somebody cancelled it on the server"))
}

fn from_network(error: &io::Error, doing: &str) -> Error {
    use io::ErrorKind as K;
    let text = error.to_string();
    if let Some(tls) = error.get_ref().filter(|inner| inner.is::<rustls::Error>()) {
        return from_tls(&tls.to_string(), doing);
    }
    if text.contains("failed to lookup address") || text.contains("nodename nor servname") {
        let told =
            Error::user("unknown-host", format!("cannot {doing}: no such host")).help("correct the host in the connection's \"url\"");
        // A resolver that is away for the moment says so; one that knows no such name is sure of it.
        return if text.contains("Temporary failure") { told.later() } else { told };
    }
    match error.kind() {
        K::ConnectionRefused => Error::system("connection-refused", format!("cannot {doing}: nobody listens there"))
            .later()
            .help("is the server up, and are host and port of the connection's \"url\" right?"),
        K::NotFound => Error::system("connection-refused", format!("cannot {doing}: there is no such socket")).later(),
        K::PermissionDenied => Error::system("connection-refused", format!("cannot {doing}: permission denied")),
        K::TimedOut => Error::system("connect-timeout", format!("cannot {doing}: the network timed out")).later(),
        K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown => {
            Error::system("unreachable", format!("cannot {doing}: the host cannot be reached")).later()
        }
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof | K::NotConnected | K::WriteZero => {
            Error::system("connection-lost", format!("cannot {doing}: the connection was lost")).later()
        }
        _ => Error::system("connection-lost", format!("cannot {doing}: {text}")).later(),
    }
}

fn from_tls(why: &str, doing: &str) -> Error {
    let help = if why.contains("does not support TLS") {
        "the server has no TLS: set tls = \"off\" where the network between is trusted"
    } else if why.contains("UnknownIssuer") {
        "name the authority that signed the server's certificate: ca = \"certs/ca.pem\""
    } else if why.contains("NotValidForName") || why.contains("not valid for name") {
        "the certificate is another host's: write the name in the certificate as the URL's host"
    } else {
        "see \"tls\", \"ca\", \"client_cert\" and \"client_key\" of the connection"
    };
    Error::system("tls", format!("cannot {doing}: no encrypted connection: {why}")).help(help)
}

/// Maps a failure while `doing` something.
pub trait Doing<T> {
    /// Says what a failure means.
    fn doing(self, doing: &str) -> Result<T>;
}

impl<T> Doing<T> for sqlx::Result<T> {
    fn doing(self, doing: &str) -> Result<T> {
        self.map_err(|error| failed(error, doing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Blame, Retry};

    fn told<'a>(sqlstate: &'a str, message: &'a str, detail: Option<&'a str>) -> Told<'a> {
        Told { sqlstate, message, detail, hint: None, column: Some("year"), table: None, constraint: Some("positive"), place: None }
    }

    #[test]
    fn every_state_has_its_code_its_blame_and_its_retry() {
        use Blame::{System, User};
        use Retry::{Later, Never};
        for (sqlstate, code, blame, retry) in [
            ("28P01", "wrong-password", User, Never),
            ("28000", "not-admitted", User, Never),
            ("3D000", "database-missing", User, Never),
            ("3F000", "schema-missing", User, Never),
            ("42P01", "table-missing", User, Never),
            ("42703", "unknown-column", User, Never),
            ("42501", "no-privilege", User, Never),
            ("23502", "not-null", User, Never),
            ("23505", "duplicate-key", User, Never),
            ("23503", "foreign-key", User, Never),
            ("23514", "check-failed", User, Never),
            ("22001", "value-too-long", User, Never),
            ("22021", "text-invalid", User, Never),
            ("22P02", "wrong-value", User, Never),
            ("42601", "wrong-sql", User, Never),
            ("25006", "read-only", User, Never),
            ("53100", "disk-full", System, Never),
            ("53300", "too-many-connections", System, Later),
            ("40001", "conflict", System, Later),
            ("40P01", "conflict", System, Later),
            ("55P03", "locked", System, Later),
            ("57P01", "connection-lost", System, Later),
            ("57P02", "connection-lost", System, Later),
            ("57P03", "starting", System, Later),
            ("08006", "connection-lost", System, Later),
            ("08P01", "connection-lost", System, Later),
            ("25P02", "transaction-failed", Blame::Weir, Never),
            ("57014", "cancelled", System, Never),
            ("XX001", "server-broken", System, Never),
            ("P0001", "postgres", System, Never),
        ] {
            let error = meaning(&told(sqlstate, "why", None), "read it");
            assert_eq!((error.code, error.blame, error.retry), (code, blame, retry), "{sqlstate}");
            assert!(error.message.starts_with("cannot read it: "), "{}", error.message);
        }
    }

    #[test]
    fn what_a_person_can_mend_is_said_exactly() {
        let exact = |told: Told<'_>, doing: &str| {
            let error = meaning(&told, doing);
            (error.message, error.help.unwrap_or_default())
        };
        assert_eq!(
            exact(told("23505", "x", Some("Key (id, day)=(7, 2024-01-01) already exists.")), "load \"a.b\"").0,
            "cannot load \"a.b\": a row with the key (id, day)=(7, 2024-01-01) is there already"
        );
        assert_eq!(
            exact(told("23505", "could not create unique index", Some("Key (id)=(7) is duplicated.")), "load \"a.b\""),
            (
                "cannot load \"a.b\": several rows have the key (id)=(7)".into(),
                "put a \"deduplicate\" step before the sink, or choose a \"key\" that tells rows apart".into()
            )
        );
        assert_eq!(
            exact(told("23502", "null value in column", None), "load \"a.b\"").0,
            "cannot load \"a.b\": column \"year\" is null in a row and the table's column is not null"
        );
        assert_eq!(
            exact(told("42501", "permission denied for table planes", None), "read \"planes\""),
            (
                "cannot read \"planes\": permission denied for table planes".into(),
                "let its owner say: grant select on table planes to the connection's user".into()
            )
        );
        assert_eq!(
            exact(told("42501", "permission denied for schema s", None), "load \"s.t\"").1,
            "let its owner say: grant usage, create on schema s to the connection's user"
        );
        assert_eq!(
            exact(told("57014", "canceling statement due to statement timeout", None), "read \"t\"").0,
            "cannot read \"t\": it took longer than the statement timeout"
        );
        let mut at = told("22001", "value too long for type character varying(3)", None);
        at.place = Some("COPY t, line 3, column year: \"secret value\"");
        assert_eq!(
            exact(at, "load \"t\"").0,
            "cannot load \"t\": value too long for type character varying(3) (row 3, column year of what was sent)"
        );
    }

    #[test]
    fn the_network_has_its_own_words() {
        for (error, code, retry) in [
            (io::Error::from(io::ErrorKind::ConnectionRefused), "connection-refused", Retry::Later),
            (io::Error::from(io::ErrorKind::ConnectionReset), "connection-lost", Retry::Later),
            (io::Error::from(io::ErrorKind::UnexpectedEof), "connection-lost", Retry::Later),
            (io::Error::other("failed to lookup address information: Name or service not known"), "unknown-host", Retry::Never),
            (io::Error::other("failed to lookup address information: Temporary failure in name resolution"), "unknown-host", Retry::Later),
        ] {
            let error = failed(sqlx::Error::Io(error), "connect to \"crm\" at db:5432");
            assert_eq!((error.code, error.retry), (code, retry), "{}", error.message);
            assert!(error.message.starts_with("cannot connect to \"crm\" at db:5432: "));
        }
        let error = failed(sqlx::Error::Tls("server does not support TLS".into()), "connect");
        assert_eq!(error.message, "cannot connect: no encrypted connection: server does not support TLS");
        assert_eq!(error.help.as_deref(), Some("the server has no TLS: set tls = \"off\" where the network between is trusted"));
    }
}
