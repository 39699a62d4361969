//! The state as a text, one row a line, to move it to another place: from SQLite to Postgres, or to another machine.
//! Leases and servers are not in it: they are of the moment.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, Column, Row, TypeInfo, ValueRef, any::AnyRow};

use super::{History, store::failed};
use crate::error::{Failure, Result};

/// The form that this version writes, and the greatest that it reads. The second one has scopes of tokens.
const VERSION: u32 = 2;

/// The tables, and their columns: no name of the text becomes SQL.
const TABLES: [(&str, &[&str]); 12] = [
    (
        "runs",
        &[
            "run",
            "pipeline",
            "status",
            "started_at",
            "finished_at",
            "error",
            "summary",
            "code",
            "step",
            "definition",
            "lane",
            "task",
            "interval_start",
            "interval_end",
        ],
    ),
    ("loads", &["run", "sink", "kind", "state", "published"]),
    ("run_cursors", &["run", "source", "key", "value"]),
    ("run_forgets", &["run", "source"]),
    ("cursors", &["pipeline", "source", "key", "value"]),
    ("definitions", &["hash", "text"]),
    ("schedules", &["pipeline", "since", "covered", "paused_at", "paused_by", "pause_reason"]),
    (
        "tasks",
        &[
            "id",
            "pipeline",
            "origin",
            "status",
            "interval_start",
            "interval_end",
            "joined",
            "due_at",
            "not_before",
            "attempts",
            "crashes",
            "params",
            "reason",
            "run",
            "lane",
            "server",
            "backfill",
            "origin_key",
            "cancel",
            "late",
            "created_at",
            "updated_at",
        ],
    ),
    (
        "backfills",
        &["id", "pipeline", "interval_start", "interval_end", "reprocess", "parallel", "backwards", "status", "created_at", "updated_at"],
    ),
    ("arrivals", &["pipeline", "source", "item", "mark"]),
    ("tokens", &["name", "hash", "created_at", "scopes", "salt", "salted_password"]),
    ("events", &["id", "at", "kind", "pipeline", "run", "text"]),
];

/// The columns that hold whole numbers. All others hold texts.
const NUMBERS: [&str; 9] = ["published", "lane", "joined", "attempts", "crashes", "cancel", "late", "parallel", "backwards"];

#[derive(Serialize, Deserialize)]
struct First {
    weir_state: u32,
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    table: String,
    row: Map<String, Value>,
}

impl History {
    /// Writes the state, all of it as of one instant. Returns how many rows that are.
    pub async fn export(&self, out: &mut (dyn Write + Send)) -> Result<u64> {
        let unwritten = |error: std::io::Error| Failure::error("output-failed", format!("cannot write the state: {error}"));
        let mut tx = self.store.begin().await?;
        let snapshot = self.store.is_shared().then_some("set transaction isolation level repeatable read, read only");
        if let Some(snapshot) = snapshot {
            sqlx::query(snapshot).execute(&mut *tx).await.map_err(failed)?;
        }
        let first = First { weir_state: VERSION, id: self.id.clone() };
        writeln!(out, "{}", serde_json::to_string(&first).expect("plain data")).map_err(unwritten)?;
        let mut rows = 0;
        for (table, columns) in TABLES {
            let question = format!("select {} from {table}", columns.join(", "));
            let mut answer = sqlx::query(AssertSqlSafe(question)).fetch(&mut *tx);
            while let Some(row) = futures::TryStreamExt::try_next(&mut answer).await.map_err(failed)? {
                let line = Line { table: table.to_owned(), row: values(&row)? };
                writeln!(out, "{}", serde_json::to_string(&line).expect("plain data")).map_err(unwritten)?;
                rows += 1;
            }
        }
        Ok(rows)
    }

    /// Takes over a state that was written by [`Self::export`], all of it or nothing. This one must be empty. Returns how many rows that were.
    pub async fn import(&self, text: &mut (dyn BufRead + Send)) -> Result<u64> {
        let wrong = |line: u64, why: &str| {
            Failure::error("state-import", format!("line {line} is not of an exported state: {why}"))
                .help("write one with: weir state export; nothing was taken over")
        };
        let mut tx = self.store.begin().await?;
        for (table, _) in TABLES {
            let any = sqlx::query(AssertSqlSafe(format!("select 1 from {table} limit 1")));
            if any.fetch_optional(&mut *tx).await.map_err(failed)?.is_some() {
                return Err(Failure::error("state-import", format!("the state is not empty: there is something in \"{table}\""))
                    .help("take it over into a new .weir folder, or another [state] schema"));
            }
        }
        let (mut at, mut rows, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            at += 1;
            if text.read_line(&mut line).map_err(|error| wrong(at, &error.to_string()))? == 0 {
                break;
            }
            if at == 1 {
                let first: First = serde_json::from_str(&line).map_err(|error| wrong(at, &error.to_string()))?;
                if first.weir_state > VERSION {
                    return Err(wrong(at, &format!("it was written by a newer Weir (its form is {})", first.weir_state)));
                }
                sqlx::query("update state set id = $1").bind(first.id).execute(&mut *tx).await.map_err(failed)?;
                continue;
            }
            let Line { table, row } = serde_json::from_str(&line).map_err(|error| wrong(at, &error.to_string()))?;
            let Some((table, columns)) = TABLES.into_iter().find(|(known, _)| *known == table) else {
                return Err(wrong(at, &format!("there is no table \"{table}\"")));
            };
            if let Some(unknown) = row.keys().find(|name| !columns.contains(&name.as_str())) {
                return Err(wrong(at, &format!("\"{table}\" has no column \"{unknown}\"")));
            }
            let names: Vec<&str> = columns.iter().copied().filter(|name| row.get(*name).is_some_and(|value| !value.is_null())).collect();
            let places: Vec<String> = (1..=names.len()).map(|at| format!("${at}")).collect();
            let insert = format!("insert into {table} ({}) values ({})", names.join(", "), places.join(", "));
            let mut insert = sqlx::query(AssertSqlSafe(insert));
            for name in names {
                insert = match (&row[name], NUMBERS.contains(&name)) {
                    (Value::String(text), false) => insert.bind(text.clone()),
                    (Value::Number(number), true) if number.is_i64() => insert.bind(number.as_i64()),
                    (other, true) => return Err(wrong(at, &format!("\"{name}\" is {other} in place of a whole number"))),
                    (other, false) => return Err(wrong(at, &format!("\"{name}\" is {other} in place of a text"))),
                };
            }
            insert.execute(&mut *tx).await.map_err(|error| wrong(at, &error.to_string()))?;
            rows += 1;
        }
        if at == 1 {
            return Err(wrong(1, "it is empty"));
        }
        tx.commit().await.map_err(failed)?;
        Ok(rows)
    }
}

fn values(row: &AnyRow) -> Result<Map<String, Value>> {
    let mut values = Map::new();
    for column in row.columns() {
        let name = column.name();
        let raw = row.try_get_raw(name).map_err(failed)?;
        let value = if raw.is_null() {
            Value::Null
        } else if matches!(raw.type_info().name(), "TEXT" | "text") {
            row.try_get::<String, _>(name).map_err(failed)?.into()
        } else {
            row.try_get::<i64, _>(name).map_err(failed)?.into()
        };
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}
