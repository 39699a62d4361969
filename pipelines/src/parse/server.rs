//! Reading `[server]` and `[alert.NAME]` of `weir.toml`; its `[server.sql]` and `[server.tls]` are read beside. What a kind of alert may hold
//! is left to those who send it.

use std::{net::SocketAddr, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::{
    doors,
    walk::{Table, Value, Walk, in_order, integer, suggest},
};
use crate::{
    diagnostic::{Diagnostic, Span, Spanned},
    pipeline::ShareMax,
    project::Connection,
    server::{Alert, Cause, LogForm, Server, address},
    settings::{Document, Settings, is_reference},
};

/// Keys of `[server]`.
pub(crate) const SERVER_KEYS: [&str; 8] = ["listen", "expose", "runs_max", "connection_runs_max", "otlp", "log", "sql", "tls"];
/// Keys of `[alert.NAME]` beside the kind.
pub(crate) const ALERT_KEYS: [&str; 5] = ["on", "pipelines", "repeat", "group", "max_rejected"];
/// Words of `log`.
pub(crate) const LOGS: [(&str, LogForm); 2] = [("json", LogForm::Json), ("text", LogForm::Text)];
/// No limit on runs or queries is larger: each holds memory and connections.
const AT_ONCE_MAX: u64 = 1024;

/// Reads `[server]`: what is wrong is noted, and the default stands in its place.
pub(crate) fn server(walk: &mut Walk<'_>, value: &Value<'_>) -> Server {
    let mut server = Server::default();
    let span = value.span();
    let Some(entries) = walk.as_table("server", value) else { return server };
    let table = Table { entries, what: "[server]", span: &span };
    walk.unknown_keys(table, &SERVER_KEYS);
    if let Some(listen) = listening(walk, table, "listen", "127.0.0.1:8484") {
        server.listen = listen;
    }
    if let Some(value) = entries.get("expose") {
        match value.get_ref() {
            DeValue::Boolean(expose) => server.expose = *expose,
            _ => walk.wrong_type("expose", value, "true or false"),
        }
    }
    if let Some(value) = entries.get("runs_max")
        && let Some(runs) = at_once(walk, "runs_max", value)
    {
        server.runs_max = runs;
    }
    if let Some(value) = entries.get("connection_runs_max")
        && let Some(limits) = walk.as_table("connection_runs_max", value)
    {
        for (name, value) in in_order(limits) {
            if let Some(runs) = at_once(walk, &name.value, value) {
                server.connection_runs_max.insert(name.value, runs);
            }
        }
    }
    if let Some(otlp) = walk.string(table, "otlp") {
        let is_url = |scheme: &str| otlp.value.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
        if is_url("http://") || is_url("https://") {
            server.otlp = Some(otlp.value);
        } else {
            let help = "it is the base of a receiver's URLs, such as \"http://127.0.0.1:4318\"";
            walk.wrong_value("\"otlp\" does not start with http:// or https://", otlp.span).help.push(help.into());
        }
    }
    server.log = walk.word(table, "log", &LOGS).map(|word| word.value);
    if let Some(value) = entries.get("sql") {
        server.sql = doors::sql(walk, value);
    }
    if let Some(value) = entries.get("tls") {
        server.tls = doors::tls(walk, value);
    }
    server
}

/// An address to listen on.
pub(super) fn listening(walk: &mut Walk<'_>, table: Table<'_, '_>, key: &str, example: &str) -> Option<SocketAddr> {
    let listen = walk.string(table, key)?;
    let address = address(&listen.value);
    if address.is_none() {
        let message = format!("\"{}\" is no address to listen on", listen.value);
        walk.wrong_value(message, listen.span).help.push(format!("write an IP address and a port, such as \"{example}\""));
    }
    address
}

/// A limit on runs, or on queries, at once.
pub(super) fn at_once(walk: &mut Walk<'_>, key: &str, value: &Value<'_>) -> Option<u32> {
    let DeValue::Integer(number) = value.get_ref() else {
        walk.wrong_type(key, value, "an integer");
        return None;
    };
    let runs = integer(number).and_then(|number| u64::try_from(number).ok()).filter(|runs| (1..=AT_ONCE_MAX).contains(runs));
    if runs.is_none() {
        walk.wrong_value(format!("\"{key}\" is from 1 to {AT_ONCE_MAX}"), value.span());
    }
    runs.and_then(|runs| u32::try_from(runs).ok())
}

/// Checks what only the whole file can say of `[server]`: the profile is laid over it.
pub(crate) fn check_server<'c>(
    walk: &mut Walk<'_>,
    entries: &DeTable<'_>,
    server: &Server,
    connections: impl Iterator<Item = (&'c String, &'c Connection)>,
) {
    if let Some(value) = entries.get("listen")
        && !server.listen.ip().is_loopback()
        && !server.expose
    {
        let message = format!("other machines reach \"{}\"", server.listen);
        walk.error("listen-exposed", message, value.span(), "no loopback address").help.extend([
            "whoever reaches the port and has a token can run pipelines: say expose = true if that is meant, with [server.tls] or a proxy that speaks TLS"
                .into(),
            "or listen on 127.0.0.1".into(),
        ]);
    }
    doors::check(walk, entries, server);
    let known: Vec<&str> = connections.map(|(name, _)| name.as_str()).collect();
    let Some(DeValue::Table(limits)) = entries.get("connection_runs_max").map(toml::Spanned::get_ref) else { return };
    for (name, _) in in_order(limits) {
        if !known.contains(&name.value.as_str()) {
            let message = format!("no connection \"{}\"", name.value);
            let found = walk.error("unknown-connection", message, name.span, "not in weir.toml");
            suggest(found, &name.value, &known);
        }
    }
}

/// Checks an `[alert.NAME]` as it is written: all that is not the kind's own. A profile may hold a part of it (`is_part`).
pub(crate) fn check_alert(walk: &mut Walk<'_>, name: &Spanned<String>, entries: &DeTable<'_>, is_part: bool) {
    let errors = walk.errors();
    let kinds = read(walk, name, entries).1;
    match kinds.as_slice() {
        [] if !is_part && walk.errors() == errors => {
            let message = format!("alert \"{}\" does not say its kind", name.value);
            walk.error("missing-kind", message, name.span.clone(), "")
                .help
                .push(format!("add a table such as [alert.{}.webhook]", name.value));
        }
        [first, second, ..] => {
            let message = format!("alert \"{}\" is of two kinds, \"{}\" and \"{}\"", name.value, first.0.value, second.0.value);
            let file = walk.file().clone();
            let found = Diagnostic::error("two-kinds", message)
                .at(&file, second.0.span.clone(), "second")
                .at(&file, first.0.span.clone(), "first")
                .help("make it two alerts");
            walk.found.push(found);
        }
        _ => {}
    }
}

/// An alert as the whole file says it; none where it has no kind.
pub(crate) fn alert(document: &Arc<Document>, name: &Spanned<String>, entries: &DeTable<'_>) -> Option<Alert> {
    let mut walk = Walk::new(document);
    let (alert, mut kinds) = read(&mut walk, name, entries);
    let (kind, span) = if kinds.is_empty() { return None } else { kinds.swap_remove(0) };
    let path = vec!["alert".into(), name.value.clone(), kind.value.clone()];
    Some(alert(Settings::new(document, path, kind, span)))
}

/// A kind's key, and where its table stands.
type Kind = (Spanned<String>, Span);

fn read(walk: &mut Walk<'_>, name: &Spanned<String>, entries: &DeTable<'_>) -> (impl FnOnce(Settings) -> Alert + use<>, Vec<Kind>) {
    let what = format!("alert \"{}\"", name.value);
    let table = Table { entries, what: &what, span: &name.span };
    let mut kinds = Vec::new();
    for (key, value) in in_order(entries) {
        match value.get_ref() {
            _ if ALERT_KEYS.contains(&key.value.as_str()) => {}
            DeValue::Table(inner) if !is_reference(inner) => kinds.push((key, value.span())),
            _ => {
                walk.unknown_key(&what, &key, &ALERT_KEYS);
                if let Some(found) = walk.found.last_mut() {
                    found.help.push(format!("what its kind needs stands below that, for instance in [alert.{}.webhook]", name.value));
                }
            }
        }
    }
    let on = walk.strings(table, "on").map(|words| causes(walk, table, words));
    let pipelines = walk.strings(table, "pipelines").unwrap_or_default();
    for pattern in &pipelines {
        if let Some(wrong) = pattern.value.chars().find(|&c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*'))) {
            walk.wrong_value(format!("no name of a pipeline has \"{wrong}\""), pattern.span.clone())
                .help
                .push("a pattern has letters, digits, \"_\", \"-\" and \"*\", which stands for any of them".into());
        } else if pattern.value.is_empty() {
            walk.wrong_value("\"pipelines\" names a pipeline without a name", pattern.span.clone());
        }
    }
    if let Some(value) = entries.get("pipelines").filter(|value| value.get_ref().as_array().is_some_and(|all| all.is_empty())) {
        walk.wrong_value("\"pipelines\" names no pipeline", value.span()).help.push("leave it out to mean all".into());
    }
    let repeat = walk.some_duration(table, "repeat").map(|repeat| repeat.value);
    let group = walk.duration(table, "group").map(|group| group.value);
    let max_rejected = walk.share_max(table, "max_rejected").unwrap_or(ShareMax::Rows(0));
    let name = name.value.clone();
    let pipelines = pipelines.into_iter().map(|pattern| pattern.value).collect();
    let alert = move |settings| Alert {
        name,
        on: on.filter(|on| !on.is_empty()).unwrap_or_else(|| Cause::ALL.to_vec()),
        pipelines,
        repeat,
        group,
        max_rejected,
        settings,
    };
    (alert, kinds)
}

fn causes(walk: &mut Walk<'_>, table: Table<'_, '_>, words: Vec<Spanned<String>>) -> Vec<Cause> {
    let known = Cause::ALL.map(Cause::as_str);
    if let (true, Some(value)) = (words.is_empty(), table.entries.get("on")) {
        walk.wrong_value("\"on\" names nothing to be told", value.span()).help.push(format!("words are: {}", known.join(", ")));
    }
    let mut causes = Vec::new();
    for word in words {
        match Cause::ALL.into_iter().find(|cause| cause.as_str() == word.value) {
            Some(cause) => causes.push(cause),
            None => {
                let found = walk.error("unknown-word", format!("\"on\" cannot be \"{}\"", word.value), word.span, "not known");
                suggest(found, &word.value, &known);
                found.help.push(format!("words are: {}", known.join(", ")));
            }
        }
    }
    causes
}
