//! Reading `[server.sql]` and `[server.tls]` of `weir.toml`: where SQL is answered, what queries may cost, and the certificate of the ports.
//! Certificates and keys themselves are read by who listens.

use std::{net::SocketAddr, time::Duration};

use toml::de::{DeTable, DeValue};

use super::{
    server::{at_once, listening},
    walk::{Table, Value, Walk, in_order, integer, type_name},
};
use crate::{
    diagnostic::{Span, Spanned},
    server::{QueryLimits, Server, Sql},
    settings::{Settings, is_secret},
    units,
};

/// Keys of `[server.sql]`.
pub(crate) const SQL_KEYS: [&str; 6] = ["postgres", "flight", "queries_max", "memory", "limits", "user"];
/// Keys of `[server.sql.limits]` and of each `[server.sql.user.NAME]`.
pub(crate) const LIMIT_KEYS: [&str; 6] = ["rows", "bytes", "time", "memory", "queries", "wait"];
/// Keys of `[server.tls]`.
pub(crate) const TLS_KEYS: [&str; 3] = ["certificate", "key", "client_ca"];
/// The word for no limit.
pub(crate) const NONE: &str = "none";

/// Reads `[server.sql]`: what is wrong is noted, and the default stands in its place.
pub(super) fn sql(walk: &mut Walk<'_>, value: &Value<'_>) -> Sql {
    let mut sql = Sql::default();
    let span = value.span();
    let Some(entries) = walk.as_table("sql", value) else { return sql };
    let table = Table { entries, what: "[server.sql]", span: &span };
    walk.unknown_keys(table, &SQL_KEYS);
    sql.postgres = listening(walk, table, "postgres", "127.0.0.1:5484");
    sql.flight = listening(walk, table, "flight", "127.0.0.1:8485");
    if let Some(value) = entries.get("queries_max")
        && let Some(queries) = at_once(walk, "queries_max", value)
    {
        sql.queries_max = queries;
    }
    if let Some(value) = entries.get("memory") {
        sql.memory_bytes = size(walk, "memory", value);
    }
    if let Some(value) = entries.get("limits") {
        sql.limits = limits(walk, "limits", "[server.sql.limits]", value, sql.limits);
    }
    if let Some(value) = entries.get("user")
        && let Some(users) = walk.as_table("user", value)
    {
        for (name, value) in in_order(users) {
            let what = format!("[server.sql.user.{}]", name.value);
            let limits = limits(walk, &name.value, &what, value, sql.limits);
            sql.users.insert(name.value, limits);
        }
    }
    sql
}

/// Reads limits, which stand over others.
fn limits(walk: &mut Walk<'_>, key: &str, what: &str, value: &Value<'_>, mut limits: QueryLimits) -> QueryLimits {
    let span = value.span();
    let Some(entries) = walk.as_table(key, value) else { return limits };
    let table = Table { entries, what, span: &span };
    walk.unknown_keys(table, &LIMIT_KEYS);
    let or_none = |key: &str| entries.get(key).map(|value| (value, value.get_ref().as_str() == Some(NONE)));
    if let Some((value, is_none)) = or_none("rows") {
        limits.rows = if is_none { None } else { rows(walk, value).or(limits.rows) };
    }
    if let Some((value, is_none)) = or_none("bytes") {
        limits.bytes = if is_none { None } else { size(walk, "bytes", value).or(limits.bytes) };
    }
    if let Some((_, is_none)) = or_none("time") {
        limits.time = if is_none { None } else { walk.some_duration(table, "time").map(|time| time.value).or(limits.time) };
    }
    if let Some((value, is_none)) = or_none("memory") {
        limits.memory_bytes = if is_none { None } else { size(walk, "memory", value).or(limits.memory_bytes) };
    }
    if let Some(value) = entries.get("queries")
        && let Some(queries) = at_once(walk, "queries", value)
    {
        limits.queries = queries;
    }
    if let Some(Spanned { value: wait, .. }) = walk.duration(table, "wait") {
        limits.wait = wait.min(WAIT_MAX);
    }
    limits
}

/// Nobody waits longer for a query's turn, whatever is written.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

fn rows(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value.get_ref() else {
        walk.wrong_type("rows", value, "an integer or \"none\"");
        return None;
    };
    let rows = integer(number).and_then(|rows| u64::try_from(rows).ok()).filter(|rows| *rows > 0);
    if rows.is_none() {
        walk.wrong_value("\"rows\" must be 1 or more", value.span()).help.push("write \"none\" for no limit".into());
    }
    rows
}

fn size(walk: &mut Walk<'_>, key: &str, value: &Value<'_>) -> Option<u64> {
    let read = match value.get_ref() {
        DeValue::String(text) => units::size_bytes(text),
        DeValue::Integer(number) => Ok(integer(number).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)),
        other => Err(format!("expected a size such as \"2GB\" for \"{key}\", found {}", type_name(other))),
    };
    let read = read.and_then(|bytes| if bytes == 0 { Err(format!("\"{key}\" must be more than nothing")) } else { Ok(bytes) });
    read.map_err(|message| walk.error("bad-size", message, value.span(), "").code).ok()
}

/// Reads `[server.tls]`; none where it cannot be used.
pub(super) fn tls(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<Settings> {
    let span = value.span();
    let entries = walk.as_table("tls", value)?;
    let table = Table { entries, what: "[server.tls]", span: &span };
    walk.unknown_keys(table, &TLS_KEYS);
    for key in ["certificate", "client_ca"] {
        if let Some(path) = walk.string(table, key)
            && path.value.trim().is_empty()
        {
            walk.wrong_value(format!("\"{key}\" is empty"), path.span);
        }
    }
    if let Some(key) = entries.get("key") {
        let help = "name its file, as key = { file = \"server.key\" }";
        match key.get_ref() {
            DeValue::String(text) if text.contains("-----BEGIN ") => {}
            DeValue::String(_) => walk.wrong_value("\"key\" is no private key as PEM", key.span()).help.push(help.into()),
            DeValue::Table(table) if is_secret(table) => {}
            other => {
                let message = format!(
                    "expected {{ file = \"…\" }}, {{ env = \"…\" }} or {{ command = […] }} for \"key\", found {}",
                    type_name(other)
                );
                walk.error("wrong-type", message, key.span(), "").help.push(help.into());
            }
        }
    }
    let kind = Spanned::new("tls".to_owned(), span.clone());
    Some(Settings::new(walk.document, vec!["server".into(), "tls".into()], kind, span))
}

/// Checks what only the whole file can say of both: the profile is laid over it.
pub(super) fn check(walk: &mut Walk<'_>, entries: &DeTable<'_>, server: &Server) {
    let below = |key: &str| entries.get(key).and_then(|value| Some((value, value.get_ref().as_table()?)));
    if let Some((value, tls)) = below("tls") {
        let span = value.span();
        let table = Table { entries: tls, what: "[server.tls]", span: &span };
        for (key, help) in [("certificate", "certificate = \"server.pem\""), ("key", "key = { file = \"server.key\" }")] {
            if !tls.contains_key(key) {
                walk.missing_key(table, key, &format!("write {help}, relative to weir.toml"));
            }
        }
    }
    let Some((_, sql)) = below("sql") else { return };
    let span_of = |key: &str| sql.get(key).map(toml::Spanned::span);
    let mut taken: Vec<(&str, SocketAddr)> = vec![("listen", server.listen)];
    for (key, address) in [("postgres", server.sql.postgres), ("flight", server.sql.flight)] {
        let (Some(address), Some(span)) = (address, span_of(key)) else { continue };
        if !address.ip().is_loopback() {
            exposed(walk, address, span.clone(), server);
        }
        if let Some((other, _)) = taken.iter().find(|(_, other)| *other == address && address.port() != 0) {
            walk.wrong_value(format!("\"{key}\" and \"{other}\" are both at {address}"), span)
                .help
                .push("each needs a port of its own".into());
        }
        taken.push((key, address));
    }
}

fn exposed(walk: &mut Walk<'_>, address: SocketAddr, span: Span, server: &Server) {
    if !server.expose {
        let help = [
            "whoever reaches the port and has a token can read what it may read: say expose = true in [server] if that is meant".into(),
            "or listen on 127.0.0.1".into(),
        ];
        walk.error("listen-exposed", format!("other machines reach \"{address}\""), span, "no loopback address").help.extend(help);
    } else if server.tls.is_none() {
        let message = format!("other machines reach \"{address}\", and nothing is encrypted on the way");
        walk.error("tls-required", message, span, "no loopback address").help.extend([
            "name a certificate: [server.tls] with certificate = \"server.pem\" and key = { file = \"server.key\" }".into(),
            "or listen on 127.0.0.1".into(),
        ]);
    }
}
