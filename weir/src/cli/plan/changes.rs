//! How `weir plan` tells what has changed since a pipeline was published last, and what a run reads and uses.

use weir_connectors::extent::{Extent, Rows};
use weir_engine::{
    changes::{Change, Changes, Since, What},
    needs::{Connection, Needs},
};

use crate::render::{
    Style, Table,
    number::{bytes, count, counted},
    table::Look,
    text,
};

/// Values are shown up to this width.
const VALUE_WIDTH: usize = 60;

/// What has changed.
pub fn changes(changes: &Changes, style: Style) -> String {
    let (run, at) = match &changes.since {
        Since::Never => return "never published: all of it is new\n".to_owned(),
        Since::Unknown { run, at, why } => return format!("changes since run {run} ({at}) are not known: {why}\n"),
        Since::Known { run, at, .. } => (run, at),
    };
    if changes.changes.is_empty() {
        return format!("no changes since run {run} ({at})\n");
    }
    let mut out = format!("changes since run {run} ({at})\n");
    for change in &changes.changes {
        out.push_str(&one(change, style));
    }
    out
}

fn one(change: &Change, style: Style) -> String {
    let word = match change.change {
        "added" => style.green("added  "),
        "removed" => style.red("removed"),
        _ => style.yellow("changed"),
    };
    let mut out = format!("  {word} {} {}\n", change.role, style.bold(&text::visible(&change.name)));
    for what in &change.what {
        out.push_str(&format!("    {}\n", said(what)));
        for detail in &what.details {
            out.push_str(&format!("      {}\n", text::visible(detail)));
        }
    }
    let mut touched = Vec::new();
    if !change.steps.is_empty() {
        touched.push(change.steps.join(", "));
    }
    if !change.sinks.is_empty() {
        touched.push(format!("{} {}", if change.sinks.len() == 1 { "sink" } else { "sinks" }, change.sinks.join(", ")));
    }
    if !touched.is_empty() {
        out.push_str(&format!("    {}\n", style.dim(&format!("touches {}", touched.join("; ")))));
    }
    out
}

fn said(what: &What) -> String {
    let value = |value: &String| text::cut(&text::visible(value), VALUE_WIDTH).into_owned();
    match (&what.before, &what.now) {
        (None, None) if what.key == "contract" => "the rules of its contract".to_owned(),
        (None, None) => format!("what its {} means", what.key),
        (Some(before), Some(now)) => format!("{}: {} -> {}", what.key, value(before), value(now)),
        (None, Some(now)) => format!("{}: {}, which was not said before", what.key, value(now)),
        (Some(before), None) => format!("{}: no longer {}", what.key, value(before)),
    }
}

/// What a run reads and uses.
pub fn needs(needs: &Needs) -> String {
    let mut out = String::new();
    if !needs.reads.is_empty() {
        out.push_str("\nreads\n");
        let mut table = Table::new(Look::Plain, &["", ""]).indent(2);
        for reads in &needs.reads {
            table.row([reads.source.as_str(), extent(&reads.extent).as_str()]);
        }
        out.push_str(&table.render_rows());
    }
    if !needs.connections.is_empty() || !needs.object_stores.is_empty() {
        out.push_str("\nuses\n");
    }
    for used in &needs.connections {
        out.push_str(&connection(used));
    }
    if !needs.object_stores.is_empty() {
        out.push_str(&format!("  object stores, by the variables {}\n", needs.object_stores.join(", ")));
    }
    out
}

fn extent(extent: &Extent) -> String {
    let mut parts = Vec::new();
    if let Some(files) = &extent.files {
        let mut names = files.first.iter().map(|name| text::visible(name).into_owned()).collect::<Vec<_>>().join(", ");
        if files.count > files.first.len() as u64 {
            names.push_str(", …");
        }
        let names = if names.is_empty() { names } else { format!(": {names}") };
        parts.push(format!("{}, {}{names}", counted(files.count, "file", "files"), bytes(files.bytes)));
        if files.read_before > 0 {
            parts.push(format!("{} read before", count(files.read_before)));
        }
    }
    match extent.rows {
        Some(Rows::Exact(rows)) => parts.push(counted(rows, "row", "rows")),
        Some(Rows::Estimated(rows)) => {
            // The server knows how many there are, not how many of them are new.
            let of = if extent.cursor.as_ref().is_some_and(|cursor| cursor.value.is_some()) { "of " } else { "" };
            parts.push(format!("{of}about {}, as the server estimates", counted(rows, "row", "rows")));
        }
        None => {}
    }
    if let Some(cursor) = &extent.cursor {
        parts.push(match &cursor.value {
            Some(value) => format!("from {} {value} on", cursor.column),
            None => format!("from the first {} on", cursor.column),
        });
    }
    if parts.is_empty() { "not known before it is read".to_owned() } else { parts.join("; ") }
}

fn connection(used: &Connection) -> String {
    let mut out = format!("  connection {} ({}), by {}\n", used.connection, used.kind, used.steps.join(", "));
    for secret in &used.secrets {
        let what = match secret.place {
            "env" => "the variable",
            "file" => "the file",
            _ => "the command",
        };
        let missing = match secret.present {
            Some(false) if secret.place == "env" => ", which is not set",
            Some(false) => ", which is not there",
            _ => "",
        };
        out.push_str(&format!("    {} from {what} {}{missing}\n", secret.setting, text::visible(&secret.name)));
    }
    out
}

#[cfg(test)]
mod tests {
    use weir_connectors::extent::{Files, From};
    use weir_engine::needs::{Reads, Secret};

    use super::*;

    fn known(all: Vec<Change>) -> Changes {
        Changes { since: Since::Known { run: "r1".into(), at: "then".into(), weir: "0.1.0".into(), profile: None }, changes: all }
    }

    #[test]
    fn changes_say_what_and_what_they_touch() {
        let what = |key: &str, before: Option<&str>, now: Option<&str>| What {
            key: key.into(),
            before: before.map(Into::into),
            now: now.map(Into::into),
            details: Vec::new(),
        };
        let change = |change, role, name: &str, what, steps: &[&str], sinks: &[&str]| Change {
            change,
            role,
            name: name.into(),
            what,
            steps: steps.iter().map(|step| (*step).into()).collect(),
            sinks: sinks.iter().map(|sink| (*sink).into()).collect(),
        };
        let rules = What { details: vec!["breaking: \"id\" is required".into()], ..what("contract", None, None) };
        let all = known(vec![
            change("changed", "source", "raw", vec![what("file.path", Some("\"a\""), Some("\"b\"")), rules], &["late"], &["out", "olap"]),
            change("added", "transform", "late", vec![], &[], &["out"]),
            change("changed", "transform", "daily", vec![what("sql", None, None), what("contract", None, Some("c.json"))], &[], &[]),
            change("removed", "sink", "old", vec![], &[], &[]),
        ]);
        assert_eq!(
            changes(&all, Style::PLAIN),
            "changes since run r1 (then)\n\
             \x20 changed source raw\n    file.path: \"a\" -> \"b\"\n    the rules of its contract\n      breaking: \"id\" is required\n    touches late; sinks out, olap\n\
             \x20 added   transform late\n    touches sink out\n\
             \x20 changed transform daily\n    what its sql means\n    contract: c.json, which was not said before\n\
             \x20 removed sink old\n"
        );
        assert_eq!(changes(&known(vec![]), Style::PLAIN), "no changes since run r1 (then)\n");
        assert_eq!(changes(&Changes { since: Since::Never, changes: vec![] }, Style::PLAIN), "never published: all of it is new\n");
    }

    #[test]
    fn needs_name_files_cursors_and_secrets() {
        let files = Files::of([("a", 1000), ("b", 2), ("c", 3), ("d", 4)], 2);
        let reads = |source: &str, extent| Reads { source: source.into(), extent };
        let secret = |setting: &str, place, name: &str, present| Secret { setting: setting.into(), place, name: name.into(), present };
        let needs = Needs {
            reads: vec![
                reads("raw", Extent { files: Some(files), rows: Some(Rows::Exact(7)), cursor: None }),
                reads(
                    "crm",
                    Extent {
                        files: None,
                        rows: Some(Rows::Estimated(1200)),
                        cursor: Some(From { column: "id".into(), value: Some("9".into()) }),
                    },
                ),
                reads("olap", Extent::default()),
            ],
            connections: vec![Connection {
                connection: "w".into(),
                kind: "postgres".into(),
                steps: vec!["crm".into(), "out".into()],
                secrets: vec![secret("url", "env", "W_URL", Some(false)), secret("password", "file", "/run/pg", Some(true))],
            }],
            object_stores: vec!["AWS_REGION".into()],
        };
        assert_eq!(
            super::needs(&needs),
            "\nreads\n  raw   4 files, 1.0 kB: a, b, c, …; 2 read before; 7 rows\n  crm   of about 1,200 rows, as the server estimates; from id 9 on\n  \
             olap  not known before it is read\n\nuses\n  connection w (postgres), by crm, out\n    url from the variable W_URL, which is not set\n    \
             password from the file /run/pg\n  object stores, by the variables AWS_REGION\n"
        );
    }
}
