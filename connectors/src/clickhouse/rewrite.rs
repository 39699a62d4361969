//! What the next table of a load holds: the stage, and of the target what the run leaves as it is. Putting it in the target's place is
//! `publish.rs`'s. All of this runs in the server; partitions that hold no key of the run are attached, not copied.

use std::time::Duration;

use weir_pipelines::Mode;

use super::{
    load::ClickhouseLoad,
    table::{IS_CURRENT, VALID_FROM, VALID_TO, VERSION},
    write_types::Type,
};
use crate::{
    error::{Error, Result},
    quote::clickhouse as quote,
};

/// Partitions attached by one statement at most.
const PARTITIONS_PER_STATEMENT: usize = 100;
/// Mutations that others have begun get so long to end.
const MUTATIONS_MAX: Duration = Duration::from_mins(10);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(500);

/// Fails with `duplicate-key` where two staged rows have one key.
pub(super) async fn check_duplicates(load: &ClickhouseLoad, staged: &str) -> Result<()> {
    let state = &load.state;
    let keys = quote::identifiers(&state.key);
    let shown: Vec<String> = state.key.iter().map(|key| quote::identifier(key)).collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    // Where the stage is sorted by the key, groups end as they are read.
    let rest = format!(
        "from (select {keys} from {staged} group by {keys} having count() > 1 limit 1) \
         settings optimize_aggregation_in_order = 1, max_bytes_before_external_group_by = 1000000000"
    );
    let Some(row) = load.db().await?.rows(&shown, &rest, &[]).await?.into_iter().next() else { return Ok(()) };
    let value: Vec<String> = state.key.iter().zip(row).map(|(key, value)| format!("\"{key}\" = {value}")).collect();
    Err(Error::user("duplicate-key", format!("sink \"{}\" got several rows with the same key: {}", state.step, value.join(", ")))
        .setting("key")
        .help("put a deduplicate step before the sink, or add the column that tells the rows apart to the key"))
}

/// True where the next table takes over rows of the target.
pub(super) fn takes_over(load: &ClickhouseLoad) -> Result<bool> {
    Ok(load.state.base.is_some() && matches!(load.state.mode()?, Mode::DeleteInsert | Mode::Snapshot))
}

/// Fills the empty next table. Returns the state of the target that it was built from, where it takes over rows of it.
pub(super) async fn build(load: &ClickhouseLoad, stage: &str, next: &str) -> Result<Option<String>> {
    let work = Work { load, stage: load.state.own(stage), next: load.state.own(next), target: load.state.place().sql() };
    let built_from = if takes_over(load)? { Some(fingerprint(load).await?) } else { None };
    match load.state.mode()? {
        Mode::Snapshot => work.snapshot().await?,
        mode => {
            if built_from.is_some() && mode == Mode::DeleteInsert {
                let key = work.key_in(&format!("select {} from {}", quote::identifiers(&load.state.key), work.stage));
                let columns = work.columns().await?;
                work.take_over(&key, &format!("not ifNull({key}, false)"), &columns, &columns).await?;
            }
            work.run(&format!("alter table {} attach partition all from {}", work.next, work.stage)).await?;
        }
    }
    if load.state.versioned {
        // What others insert once the table is the target is no load of Weir's.
        work.run(&format!("alter table {} modify column {VERSION} UInt64 materialized 0", work.next)).await?;
    }
    Ok(built_from)
}

/// Empties the next table and fills it again.
pub(super) async fn rebuild(load: &ClickhouseLoad, stage: &str, next: &str) -> Result<Option<String>> {
    let db = load.db().await?;
    let table = load.state.own(next);
    db.run(&format!("truncate table {table} settings max_table_size_to_drop = 0"), &[], &load.state.request()).await?;
    if load.state.versioned {
        let version = load.state.version;
        let sql = format!("alter table {table} modify column {VERSION} UInt64 materialized {version}");
        db.run(&sql, &[], &load.state.request()).await?;
    }
    build(load, stage, next).await
}

/// The target's identity, definition and content, as far as they tell whether anybody has changed it: merges of parts do not count.
/// Waits for mutations that others have begun.
pub(super) async fn fingerprint(load: &ClickhouseLoad) -> Result<String> {
    let (state, db) = (&load.state, load.db().await?);
    let here = [("d", state.database.clone()), ("t", state.table.clone())];
    let pending = "from system.mutations where database = {d:String} and table = {t:String} and not is_done";
    let waited = async {
        while db.number("count()", pending, &here).await? > 0 {
            tokio::time::sleep(LOOK).await;
        }
        Ok::<(), Error>(())
    };
    tokio::select! {
        biased;
        () = load.cx.cancel.cancelled() => return Err(Error::system("interrupted", "the run was stopped")),
        waited = tokio::time::timeout(MUTATIONS_MAX, waited) => waited.map_err(|_| {
            Error::system("clickhouse-busy", format!("mutations of table \"{}\" do not end", state.place().shown()))
                .help("look into system.mutations")
                .later()
        })??,
    }
    // A part's name ends in the mutation it has been through, where there was one. Rows count where no merge may drop any.
    let rows = if state.expires { "0" } else { "if(any(engine) = 'MergeTree', sum(rows), 0)" };
    let content = format!(
        "(select toString(cityHash64(groupArray((p, b, m, r)))) from \
         (select partition_id as p, max(max_block_number) as b, \
                 max(toUInt64OrZero(splitByChar('_', substring(name, length(partition_id) + 2))[4])) as m, {rows} as r \
          from system.parts where database = {{d:String}} and table = {{t:String}} and active group by partition_id order by partition_id))"
    );
    let described = ["uuid", "cityHash64(create_table_query)", &content];
    let row = db.row(&described, "from system.tables where database = {d:String} and name = {t:String}", &here).await?;
    Ok(row.join(" "))
}

/// The part of a fingerprint that says how the table is defined.
pub(super) fn definition(fingerprint: &str) -> Option<&str> {
    fingerprint.split(' ').nth(1)
}

struct Work<'a> {
    load: &'a ClickhouseLoad,
    stage: String,
    next: String,
    target: String,
}

impl Work<'_> {
    async fn run(&self, sql: &str) -> Result<()> {
        self.load.db().await?.run(sql, &[], &self.load.state.request()).await
    }

    /// `key in (subquery)`.
    fn key_in(&self, subquery: &str) -> String {
        let keys = quote::identifiers(&self.load.state.key);
        if self.load.state.key.len() == 1 { format!("{keys} in ({subquery})") } else { format!("({keys}) in ({subquery})") }
    }

    /// The target's columns that hold what was written to them.
    async fn columns(&self) -> Result<Vec<String>> {
        let rest =
            "from system.columns where database = {d:String} and table = {t:String} and default_kind in ('', 'DEFAULT') order by position";
        let state = &self.load.state;
        let rows = self.load.db().await?.rows(&["name"], rest, &[("d", state.database.clone()), ("t", state.table.clone())]).await?;
        Ok(rows.into_iter().flatten().map(|name| quote::identifier(&name)).collect())
    }

    /// Takes over the target's rows: partitions in which nothing is `touching` as they are, of the others what is `kept`.
    async fn take_over(&self, touching: &str, kept: &str, columns: &[String], values: &[String]) -> Result<()> {
        let (state, db) = (&self.load.state, self.load.db().await?);
        let here = [("d", state.database.clone()), ("t", state.table.clone())];
        let rest =
            "from system.parts where database = {d:String} and table = {t:String} and active group by partition_id order by partition_id";
        let all: Vec<String> = db.rows(&["partition_id"], rest, &here).await?.into_iter().flatten().collect();
        let touched: Vec<String> = if state.added.is_empty() {
            let rest = format!("from {} where {touching} group by _partition_id", self.target);
            db.rows(&["_partition_id"], &rest, &[]).await?.into_iter().flatten().collect()
        } else {
            // Parts without the new columns cannot be attached to a table that has them.
            all.clone()
        };
        if !touched.is_empty() {
            let list = touched.iter().map(|id| quote::literal(id)).collect::<Vec<_>>().join(", ");
            let (mut columns, mut values) = (columns.to_vec(), values.to_vec());
            if state.versioned {
                columns.push(VERSION.to_owned());
                values.push(VERSION.to_owned());
            }
            self.run(&format!(
                "insert into {} ({}) select {} from {} where _partition_id in ({list}) and {kept} \
                 settings insert_allow_materialized_columns = 1, optimize_on_insert = 0, max_partitions_per_insert_block = 0",
                self.next,
                columns.join(", "),
                values.join(", "),
                self.target
            ))
            .await?;
        }
        let untouched: Vec<String> = all
            .iter()
            .filter(|id| !touched.contains(id))
            .map(|id| format!("attach partition id {} from {}", quote::literal(id), self.target))
            .collect();
        for some in untouched.chunks(PARTITIONS_PER_STATEMENT) {
            self.run(&format!("alter table {} {}", self.next, some.join(", "))).await?;
        }
        Ok(())
    }

    async fn snapshot(&self) -> Result<()> {
        let state = &self.load.state;
        let at = format!("fromUnixTimestamp64Micro({}, 'UTC')", state.started_at);
        let written = quote::identifiers(&state.written);
        let staged: Vec<String> = state.written.iter().map(|name| format!("s.{}", quote::identifier(name))).collect();
        let into = format!("insert into {} ({written}, {VALID_FROM}, {VALID_TO}, {IS_CURRENT})", self.next);
        let select = format!("select {}, {at}, null, true from {} as s", staged.join(", "), self.stage);
        if state.base.is_none() {
            return self.run(&format!("{into} {select} settings optimize_on_insert = 0, max_partitions_per_insert_block = 0")).await;
        }
        let (mut olds, mut differs) = (Vec::new(), vec!["t.__weir_found = 0".to_owned()]);
        for (index, name) in state.written.iter().enumerate() {
            let (own, column) = (quote::identifier(name), Type::parse(state.types.get(index).map_or("", String::as_str)));
            let (s, t) = (format!("s.{own}"), format!("t.__weir_t{index}"));
            if state.added.contains(name) {
                differs.push(match column.bare() {
                    Type::Array(_) | Type::Map(..) => format!("notEmpty({s})"),
                    Type::Tuple(_) => "true".to_owned(),
                    _ => format!("{s} is not null"),
                });
                continue;
            }
            olds.push(format!("{own} as __weir_t{index}"));
            differs.push(match column.bare() {
                // As text, nulls and NaNs inside equal each other, and differ from every text.
                Type::Array(_) | Type::Tuple(_) | Type::Map(..) => format!("toString({s}) != toString({t})"),
                Type::Float(_) => {
                    format!("not ifNull({s} = {t} or ({s} is null and {t} is null) or (isNaN({s}) and isNaN({t})), false)")
                }
                _ => format!("not ifNull({s} = {t} or ({s} is null and {t} is null), false)"),
            });
        }
        let on: Vec<String> = state
            .key
            .iter()
            .filter_map(|key| state.written.iter().position(|name| name == key).map(|index| (key, index)))
            .map(|(key, index)| format!("s.{} = t.__weir_t{index}", quote::identifier(key)))
            .collect();
        let keys = quote::identifiers(&state.key);
        let current = self.key_in(&format!("select {keys} from {}", self.stage));
        self.run(&format!(
            "{into} {select} left any join (select 1 as __weir_found, {} from {} where {IS_CURRENT} and {current}) as t on {} where {} \
             settings join_use_nulls = 0, optimize_on_insert = 0, max_partitions_per_insert_block = 0",
            olds.join(", "),
            self.target,
            on.join(" and "),
            differs.join(" or ")
        ))
        .await?;
        // The next table holds nothing but new versions until the old ones are taken over: what it is asked for is asked first.
        let closes = format!("{IS_CURRENT} and {}", self.key_in(&format!("select {keys} from {}", self.next)));
        let columns = self.columns().await?;
        let values: Vec<String> = columns
            .iter()
            .map(|column| match column.trim_matches('`') {
                VALID_TO => format!("if({closes}, {at}, {VALID_TO})"),
                IS_CURRENT => format!("if({closes}, false, {IS_CURRENT})"),
                _ => column.clone(),
            })
            .collect();
        self.take_over(&closes, "true", &columns, &values).await
    }
}
