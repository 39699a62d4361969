//! How a sealed load becomes visible exactly once, in steps that another process can take up anywhere: [`find`] what there is, [`fence`]
//! off requests of a process that died, [`attach`] or [`exchange`], [`note`] the run in the ledger, [`tidy`] up. How the tables were
//! filled is `load.rs` and `rewrite.rs`.
//!
//! A request of a process that died may arrive at any time. Every one that could do harm names a table of the load; `fence` gives these
//! tables new names, so that such a request finds nothing, and waits for those that run already. Tables are told apart by their
//! identity (`uuid`), which stays when they are renamed or exchanged: the load is published by exchange when its next table no longer
//! bears a name of the load. It is published by attaching when the target holds as many rows of the load's version as the stage. The first
//! attempt of the process that staged asks for none of this: nobody can have published yet.

use std::time::Duration;

use weir_pipelines::Mode;

use super::{
    load::{ClickhouseLoad, Db, SealedStage},
    rewrite,
    table::VERSION,
};
use crate::{
    Published,
    error::{Error, Result},
    quote::clickhouse as quote,
    retry,
};

/// The ledger's name.
const LEDGER: &str = "weir_load";
/// A request of another process gets so long to end.
const REQUESTS_MAX: Duration = Duration::from_mins(5);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(200);
/// How often the next table is built again when other writers come first.
const BUILDS: u32 = 10;

/// What there is of a load in the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The stage's name.
    pub(super) stage: Option<String>,
    /// The next table's name, while it is one of the load's.
    pub(super) next: Option<String>,
    /// The target's identity.
    pub(super) target: Option<String>,
    /// Every table with a name of the load's.
    pub(super) own: Vec<String>,
    /// True: a table that was the target bears a name of the load's.
    pub(super) exchanged: bool,
    /// True: the database has a ledger.
    pub(super) ledger: bool,
    /// True: nobody can have published any of it yet.
    pub(super) fresh: bool,
}

fn sealed(load: &ClickhouseLoad) -> Result<SealedStage> {
    load.sealed.lock().clone().ok_or_else(|| Error::weir("clickhouse-state", "a load that was not sealed cannot be published"))
}

fn missing(load: &ClickhouseLoad) -> Error {
    Error::system("stage-lost", format!("the staged rows of run {} are gone from the server", load.state.run))
        .help("discard the run and run again")
}

fn changed(load: &ClickhouseLoad, what: &str) -> Error {
    let table = load.state.place().shown();
    Error::user("clickhouse-changed", format!("another writer changed table \"{table}\" while this run went on: {what}")).help("run again")
}

/// Publishes, or finds that it is.
pub(super) async fn publish(load: &ClickhouseLoad) -> Result<Published> {
    sealed(load)?;
    // Each try begins with a new look: after a lost answer nobody knows what was done.
    retry::retry(&load.cx.cancel, || attempt(load)).await
}

async fn attempt(load: &ClickhouseLoad) -> Result<Published> {
    let version = load.state.version.to_string();
    let mut found = find(load).await?;
    // The first to ask, of the process that staged the rows: there is nothing to find, and no request to fence off.
    found.fresh = load.begins_to_publish();
    if !found.fresh {
        if noted(load, &found).await? {
            tidy(load).await?;
            return Ok(Published { version, already: true });
        }
        found = fence(load).await?;
    }
    let already = if load.state.attaches { attach(load, &found).await? } else { exchange(load, &found).await? };
    note(load).await?;
    tidy(load).await?;
    tracing::info!(run = %load.cx.run, table = %load.state.place().shown(), version = load.state.version, "clickhouse table published");
    Ok(Published { version, already })
}

/// Looks for the load's tables.
pub(super) async fn find(load: &ClickhouseLoad) -> Result<Found> {
    let (state, db, prefix) = (&load.state, load.db().await?, load.state.prefix());
    let sealed = load.sealed.lock().clone();
    let values = [("d", state.database.clone()), ("p", prefix.clone()), ("t", state.table.clone()), ("l", LEDGER.to_owned())];
    let rest = "from system.tables where database = {d:String} and (startsWith(name, {p:String}) or name in ({t:String}, {l:String}))";
    let mut found = Found::default();
    for row in db.rows(&["name", "uuid"], rest, &values).await? {
        let [name, uuid] = <[String; 2]>::try_from(row)
            .map_err(|_| Error::system("clickhouse-protocol", "the server names tables in another way than asked"))?;
        found.ledger |= name == LEDGER;
        if name == state.table {
            found.target = Some(uuid);
        } else if name.starts_with(&prefix) {
            if let Some(sealed) = &sealed {
                if uuid == sealed.stage {
                    found.stage = Some(name.clone());
                } else if Some(&uuid) == sealed.next.as_ref() {
                    found.next = Some(name.clone());
                } else {
                    found.exchanged = true;
                }
            }
            found.own.push(name);
        }
    }
    Ok(found)
}

/// True where the ledger has the run.
async fn noted(load: &ClickhouseLoad, found: &Found) -> Result<bool> {
    if !found.ledger {
        return Ok(false);
    }
    let state = &load.state;
    let ledger = quote::table(&state.database, LEDGER);
    let rest = format!("from {ledger} where run = {{r:String}} and sink = {{s:String}} and target = {{t:String}}");
    let values = [("r", state.run.clone()), ("s", state.step.clone()), ("t", state.table.clone())];
    Ok(load.db().await?.number("count()", &rest, &values).await? > 0)
}

/// Makes sure that no request of another process can touch anything from here on. Returns what there is then.
pub(super) async fn fence(load: &ClickhouseLoad) -> Result<Found> {
    let (state, db) = (&load.state, load.db().await?);
    let before = find(load).await?;
    for (name, kind) in [(&before.stage, "s"), (&before.next, "n")] {
        let Some(name) = name else { continue };
        let fresh = format!("{}_{kind}_{:08x}", state.prefix(), uuid::Uuid::new_v4().as_fields().0);
        db.run(&format!("rename table {} to {}", state.own(name), state.own(&fresh)), &[], &state.request()).await?;
    }
    quiet(load).await?;
    find(load).await
}

/// Ends the load's requests that still run, and waits for those that cannot be ended.
async fn quiet(load: &ClickhouseLoad) -> Result<()> {
    let (state, db) = (&load.state, load.db().await?);
    let ours = [("q", state.requests())];
    let running = "from system.processes where startsWith(query_id, {q:String})";
    if db.number("count()", running, &ours).await? == 0 {
        return Ok(());
    }
    if let Err(error) =
        db.run("kill query where startsWith(query_id, {q:String}) async", &ours, &format!("weir_{}", uuid::Uuid::new_v4())).await
    {
        tracing::debug!(%error, "a request of the load cannot be ended; waiting for it");
    }
    let ended = async {
        while db.number("count()", running, &ours).await? > 0 {
            tokio::time::sleep(LOOK).await;
        }
        Ok::<(), Error>(())
    };
    tokio::time::timeout(REQUESTS_MAX, ended).await.unwrap_or_else(|_| {
        let message = format!("a request of the load into table \"{}\" does not end", state.place().shown());
        Err(Error::system("clickhouse-busy", message).help("look into system.processes").later())
    })
}

/// Rows of the load's version in the target.
async fn visible(load: &ClickhouseLoad) -> Result<u64> {
    let rest = format!("from {} where {VERSION} = {{v:UInt64}}", load.state.place().sql());
    load.db().await?.number("count()", &rest, &[("v", load.state.version.to_string())]).await
}

/// Removes what a server that died in the middle of attaching shows of the load. The statement names the stage, so that it does nothing
/// when it arrives after another process has fenced it off.
async fn withdraw(load: &ClickhouseLoad, stage: &str) -> Result<()> {
    let sql = format!(
        "alter table {} delete where {VERSION} = {} and (select count() from {}) >= 0 settings mutations_sync = 2",
        load.state.place().sql(),
        load.state.version,
        load.state.own(stage)
    );
    load.db().await?.run(&sql, &[], &load.state.request()).await
}

/// Attaches the stage's parts to the target. True: they were.
pub(super) async fn attach(load: &ClickhouseLoad, found: &Found) -> Result<bool> {
    let (state, db, sealed) = (&load.state, load.db().await?, sealed(load)?);
    let target = state.place().sql();
    match (&found.target, &state.next) {
        (Some(_), _) => {}
        (None, Some(made)) => load.make(made, &state.table).await?,
        (None, None) => return Err(changed(load, "it is gone")),
    }
    for alteration in &state.alterations {
        db.run(&format!("alter table {target} {alteration}"), &[], &state.request()).await?;
    }
    if sealed.rows == 0 {
        return Ok(false);
    }
    let visible = if found.fresh { 0 } else { visible(load).await? };
    if visible == sealed.rows {
        return Ok(true);
    }
    let Some(stage) = &found.stage else {
        return Err(missing(load));
    };
    if visible > 0 {
        withdraw(load, stage).await?;
    }
    db.run(&format!("alter table {target} attach partition all from {}", state.own(stage)), &[], &state.request()).await?;
    Ok(false)
}

/// Puts the next table in the target's place. True: it was.
pub(super) async fn exchange(load: &ClickhouseLoad, found: &Found) -> Result<bool> {
    let (state, db, sealed) = (&load.state, load.db().await?, sealed(load)?);
    let Some(next) = &found.next else {
        // Exchanged for it, and perhaps for another load's since; or it was dropped by somebody.
        if found.exchanged || (found.target.is_some() && found.target == sealed.next) {
            return Ok(true);
        }
        return Err(missing(load));
    };
    let (own, target) = (state.own(next), state.place().sql());
    let replaces = state.mode()? == Mode::Replace;
    let takes_over = rewrite::takes_over(load)?;
    match &found.target {
        None if takes_over => return Err(changed(load, "it is gone")),
        None => {
            db.run(&format!("rename table {own} to {target}"), &[], &state.request()).await?;
            return Ok(false);
        }
        Some(_) if state.base.is_none() && !replaces => return Err(changed(load, "there was none when it began")),
        Some(_) => {}
    }
    if takes_over {
        let mut built_from = sealed.built_from.clone().unwrap_or_default();
        let mut builds = 0;
        loop {
            let now = rewrite::fingerprint(load).await?;
            if now == built_from {
                break;
            }
            if rewrite::definition(&now) != rewrite::definition(&built_from) {
                return Err(changed(load, "it is defined otherwise"));
            }
            let Some(stage) = found.stage.as_ref().filter(|_| builds < BUILDS) else {
                let message = format!("other writers change table \"{}\" all the time", state.place().shown());
                return Err(Error::system("clickhouse-busy", message).later());
            };
            builds += 1;
            built_from = rewrite::rebuild(load, stage, next).await?.unwrap_or_default();
            if let Some(sealed) = load.sealed.lock().as_mut() {
                sealed.built_from = Some(built_from.clone());
            }
        }
    }
    db.run(&format!("exchange tables {own} and {target}"), &[], &state.request()).await?;
    Ok(false)
}

/// The statement that makes a database's ledger.
pub(super) fn ledger_ddl(database: &str) -> String {
    format!(
        "create table if not exists {} (run String, sink String, pipeline String, target String, rows UInt64, version UInt64, \
         at DateTime64(3, 'UTC') default now64(3)) engine = ReplacingMergeTree order by (run, sink, target) \
         ttl toDateTime(at) + interval 1 year comment 'what weir has published here'",
        quote::table(database, LEDGER)
    )
}

/// True where a database has a ledger.
pub(super) async fn has_ledger(db: &Db, database: &str) -> Result<bool> {
    let values = [("d", database.to_owned()), ("l", LEDGER.to_owned())];
    Ok(db.number("count()", "from system.tables where database = {d:String} and name = {l:String}", &values).await? > 0)
}

/// Notes the run in the ledger.
pub(super) async fn note(load: &ClickhouseLoad) -> Result<()> {
    let (state, db, sealed) = (&load.state, load.db().await?, sealed(load)?);
    let ledger = quote::table(&state.database, LEDGER);
    db.run(&ledger_ddl(&state.database), &[], &state.request()).await?;
    let values = [
        ("r", state.run.clone()),
        ("s", state.step.clone()),
        ("p", state.pipeline.clone()),
        ("t", state.table.clone()),
        ("n", sealed.rows.to_string()),
        ("v", state.version.to_string()),
    ];
    let sql = format!(
        "insert into {ledger} (run, sink, pipeline, target, rows, version) \
         select {{r:String}}, {{s:String}}, {{p:String}}, {{t:String}}, {{n:UInt64}}, {{v:UInt64}} settings async_insert = 0"
    );
    db.run(&sql, &values, &state.request()).await
}

/// Drops what is left of a load that is published. Not before this is done does the load count as published: nobody would come back.
pub(super) async fn tidy(load: &ClickhouseLoad) -> Result<()> {
    let found = find(load).await?;
    drop_all(load, &found).await
}

async fn drop_all(load: &ClickhouseLoad, found: &Found) -> Result<()> {
    let (state, db) = (&load.state, load.db().await?);
    for name in &found.own {
        let sql = format!("drop table if exists {} settings max_table_size_to_drop = 0", state.own(name));
        db.run(&sql, &[], &state.request()).await?;
    }
    Ok(())
}

/// Removes what was staged, and what a server that died while publishing shows of it. What was published stays.
pub(super) async fn discard(load: &ClickhouseLoad) -> Result<()> {
    let work = || async {
        let found = fence(load).await?;
        let sealed = load.sealed.lock().clone();
        if let Some(sealed) = sealed
            && let Some(stage) = &found.stage
            && load.state.attaches
            && found.target.is_some()
            && !noted(load, &found).await?
        {
            let values = [("d", load.state.database.clone()), ("t", load.state.table.clone())];
            let rest = format!("from system.columns where database = {{d:String}} and table = {{t:String}} and name = '{VERSION}'");
            if load.db().await?.number("count()", &rest, &values).await? > 0 && (1..sealed.rows).contains(&visible(load).await?) {
                withdraw(load, stage).await?;
            }
        }
        drop_all(load, &found).await
    };
    // A run that is stopped discards too, so that its cancellation does not end this.
    retry::retry(&tokio_util::sync::CancellationToken::new(), work).await
}
