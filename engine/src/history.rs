//! What is remembered between runs, in SQLite at `.weir/state.db`: runs and their decisions, loads that wait to be published,
//! cursors. A decision is one transaction here; everything after it can be rolled forward by any later process.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    str::FromStr,
    time::Duration,
};

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use weir_connectors::Blame;
use weir_pipelines::Pipeline;

use crate::{
    books::Summary,
    definition::Definition,
    error::{Failure, Result},
};

/// The state database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    pool: SqlitePool,
    /// Names this state among others that write the same destinations; made once.
    pub id: String,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Rows are being staged, or the process died while they were.
    Running,
    /// Staged and balanced; one load's own commit is the decision, and it has been asked for. Whether it came about that load can tell.
    Deciding,
    /// Decided: every destination will have it.
    Publishing,
    /// Every destination has it.
    Published,
    /// Nothing of it is visible anywhere.
    Failed,
    /// Stopped by a person; nothing of it is visible anywhere.
    Interrupted,
    /// Everything but the publish was done, as asked; nothing of it is visible anywhere.
    DryRun,
}

impl RunStatus {
    /// The word of the database and of `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Deciding => "deciding",
            RunStatus::Publishing => "publishing",
            RunStatus::Published => "published",
            RunStatus::Failed => "failed",
            RunStatus::Interrupted => "interrupted",
            RunStatus::DryRun => "dry_run",
        }
    }
}

impl FromStr for RunStatus {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Running, Self::Deciding, Self::Publishing, Self::Published, Self::Failed, Self::Interrupted, Self::DryRun]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or(())
    }
}

/// One run as it is remembered.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    /// Its id.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Where it stands.
    pub status: RunStatus,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC; none while it goes on.
    pub finished_at: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// The code of that error.
    pub code: Option<String>,
    /// The step it arose in.
    pub step: Option<String>,
    /// What it did; from the decision on.
    pub summary: Option<Summary>,
}

/// One load of a run, as recorded for whoever finishes it.
#[derive(Debug, Clone)]
pub struct LoadRecord {
    /// The sink's name, or the quarantined step's.
    pub sink: String,
    /// The kind that can resume it.
    pub kind: String,
    /// From `Load::stage` before the decision, from `Sealed::state` after it.
    pub state: Value,
    /// True once it has published.
    pub published: bool,
}

/// The run that a pipeline published last, and the text of what it was made of.
#[derive(Debug, Clone)]
pub struct PublishedText {
    /// Its id.
    pub run: String,
    /// When it started.
    pub at: String,
    /// As [`Definition::to_text`] wrote it; none where it was not kept.
    pub definition: Option<String>,
}

/// What the sources of a run will remember.
#[derive(Debug, Clone, Default)]
pub struct Cursors {
    /// By source, then by the source's own key.
    pub sources: BTreeMap<String, BTreeMap<String, String>>,
    /// These sources were read anew: what they remembered before the run is forgotten.
    pub anew: bool,
}

/// Each entry takes the database from one version to the next, and stamps it.
const MIGRATIONS: &[(&str, &str)] = &[
    (
        "
    create table state (id text not null);
    create table runs (
        run text primary key, pipeline text not null, status text not null,
        started_at text not null, finished_at text, error text, summary text
    );
    create index runs_by_pipeline on runs (pipeline, run);
    create table loads (
        run text not null, sink text not null, kind text not null, state text not null, published integer not null default 0,
        primary key (run, sink)
    );
    create table run_cursors (run text not null, source text not null, key text not null, value text not null);
    create table cursors (
        pipeline text not null, source text not null, key text not null, value text not null,
        primary key (pipeline, source, key)
    );
",
        "pragma user_version = 1",
    ),
    ("create table run_forgets (run text not null, source text not null)", "pragma user_version = 2"),
    ("alter table runs add column code text; alter table runs add column step text", "pragma user_version = 3"),
    // What ran, once for as many runs as ran it.
    (
        "create table definitions (hash text primary key, text text not null); alter table runs add column definition text",
        "pragma user_version = 4",
    ),
];

fn failed(error: sqlx::Error) -> Failure {
    Failure::error("state", format!("the run history cannot be used: {error}"))
        .blame(Blame::System)
        .help("it is the SQLite file state.db in the project's .weir folder; look whether the disk is full or read-only")
}

impl History {
    /// Opens the database at `path`, making it and bringing it to this version's form where needed. `id` names a new one.
    pub async fn open(path: &Path, id: &str) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.map_err(failed)?;
        let mut tx = pool.begin_with("begin immediate").await.map_err(failed)?;
        let version: i64 = sqlx::query_scalar("pragma user_version").fetch_one(&mut *tx).await.map_err(failed)?;
        let version = usize::try_from(version).unwrap_or(usize::MAX);
        if version > MIGRATIONS.len() {
            return Err(Failure::error("state", format!("the run history was written by a newer Weir (its form is {version})"))
                .help("use that version, or another .weir folder"));
        }
        for (at, (migration, stamp)) in MIGRATIONS.iter().enumerate().skip(version) {
            sqlx::raw_sql(*migration).execute(&mut *tx).await.map_err(failed)?;
            if at == 0 {
                sqlx::query("insert into state values (?)").bind(id).execute(&mut *tx).await.map_err(failed)?;
            }
            sqlx::raw_sql(*stamp).execute(&mut *tx).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        let id = sqlx::query_scalar("select id from state").fetch_one(&pool).await.map_err(failed)?;
        Ok(Self { pool, id })
    }

    /// Notes that a run has started.
    pub async fn begin(&self, run: &str, pipeline: &str, started_at: &str) -> Result<()> {
        sqlx::query("insert into runs (run, pipeline, status, started_at) values (?, ?, 'running', ?)")
            .bind(run)
            .bind(pipeline)
            .bind(started_at)
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Notes where a load stages, before its first row is written.
    pub async fn stage(&self, run: &str, load: &LoadRecord) -> Result<()> {
        sqlx::query("insert or replace into loads (run, sink, kind, state, published) values (?, ?, ?, ?, 0)")
            .bind(run)
            .bind(&load.sink)
            .bind(&load.kind)
            .bind(load.state.to_string())
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Forgets a run's loads: they have been discarded.
    pub async fn unstage(&self, run: &str) -> Result<()> {
        sqlx::query("delete from loads where run = ?").bind(run).execute(&self.pool).await.map_err(failed)?;
        Ok(())
    }

    /// Records everything that publishing needs, in one transaction. With `Publishing` this is the decision: from here on the run
    /// will be in every destination. With `Deciding` a load's own commit is about to be. Loads carry their sealed states, `cursors`
    /// what each source will remember, `definition` what ran.
    pub async fn decide(
        &self,
        run: &str,
        status: RunStatus,
        loads: &[LoadRecord],
        cursors: &Cursors,
        definition: Option<&Definition>,
        summary: &Summary,
    ) -> Result<()> {
        let mut tx = self.pool.begin_with("begin immediate").await.map_err(failed)?;
        for load in loads {
            sqlx::query("insert or replace into loads (run, sink, kind, state, published) values (?, ?, ?, ?, 0)")
                .bind(run)
                .bind(&load.sink)
                .bind(&load.kind)
                .bind(load.state.to_string())
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
        forget_cursors(run, &mut tx).await?;
        for (source, entries) in &cursors.sources {
            if cursors.anew {
                let sql = "insert into run_forgets (run, source) values (?, ?)";
                sqlx::query(sql).bind(run).bind(source).execute(&mut *tx).await.map_err(failed)?;
            }
            for (key, value) in entries {
                sqlx::query("insert into run_cursors (run, source, key, value) values (?, ?, ?, ?)")
                    .bind(run)
                    .bind(source)
                    .bind(key)
                    .bind(value)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
            }
        }
        let definition = definition.map(Definition::to_text);
        if let Some((hash, text)) = &definition {
            let sql = "insert into definitions (hash, text) values (?, ?) on conflict (hash) do nothing";
            sqlx::query(sql).bind(hash).bind(text).execute(&mut *tx).await.map_err(failed)?;
        }
        sqlx::query("update runs set status = ?, summary = ?, definition = ? where run = ?")
            .bind(status.as_str())
            .bind(to_text(summary))
            .bind(definition.map(|(hash, _)| hash))
            .bind(run)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Notes that the load of `sink` has published, and that the run is decided by it.
    pub async fn decided(&self, run: &str, sink: &str) -> Result<()> {
        let mut tx = self.pool.begin_with("begin immediate").await.map_err(failed)?;
        sqlx::query("update loads set published = 1 where run = ? and sink = ?")
            .bind(run)
            .bind(sink)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        sqlx::query("update runs set status = 'publishing' where run = ?").bind(run).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Notes that one load has published.
    pub async fn published(&self, run: &str, sink: &str) -> Result<()> {
        sqlx::query("update loads set published = 1 where run = ? and sink = ?")
            .bind(run)
            .bind(sink)
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Ends a run that every destination has: cursors move, loads are forgotten.
    pub async fn finish(&self, run: &str, finished_at: &str, summary: &Summary) -> Result<()> {
        let mut tx = self.pool.begin_with("begin immediate").await.map_err(failed)?;
        sqlx::query(
            "delete from cursors where (pipeline, source) in
             (select runs.pipeline, source from run_forgets join runs using (run) where run = ?)",
        )
        .bind(run)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        sqlx::query(
            "insert or replace into cursors (pipeline, source, key, value)
             select runs.pipeline, source, key, value from run_cursors join runs using (run) where run = ?",
        )
        .bind(run)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        forget_cursors(run, &mut tx).await?;
        sqlx::query("delete from loads where run = ?").bind(run).execute(&mut *tx).await.map_err(failed)?;
        sqlx::query("update runs set status = 'published', finished_at = ?, summary = ? where run = ?")
            .bind(finished_at)
            .bind(to_text(summary))
            .bind(run)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Notes the code of the error that a run fails with, and the step it arose in.
    pub async fn note_cause(&self, run: &str, code: &str, step: Option<&str>) -> Result<()> {
        let sql = "update runs set code = ?, step = ? where run = ?";
        sqlx::query(sql).bind(code).bind(step).bind(run).execute(&self.pool).await.map_err(failed)?;
        Ok(())
    }

    /// Ends a run that will not be in every destination: what it staged is gone or given up, its cursors with it.
    pub async fn end(&self, run: &str, status: RunStatus, finished_at: &str, error: Option<&str>) -> Result<()> {
        let mut tx = self.pool.begin_with("begin immediate").await.map_err(failed)?;
        sqlx::query("delete from loads where run = ?").bind(run).execute(&mut *tx).await.map_err(failed)?;
        forget_cursors(run, &mut tx).await?;
        sqlx::query("update runs set status = ?, finished_at = ?, error = ? where run = ?")
            .bind(status.as_str())
            .bind(finished_at)
            .bind(error)
            .bind(run)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Runs that a process left unfinished or is still at, oldest first, each with its loads; of one pipeline, or of all.
    pub async fn unfinished(&self, pipeline: Option<&str>) -> Result<Vec<(RunRecord, Vec<LoadRecord>)>> {
        let unfinished =
            "select * from runs where (?1 is null or pipeline = ?1) and status in ('running', 'deciding', 'publishing') order by run";
        let rows = sqlx::query(unfinished).bind(pipeline).fetch_all(&self.pool).await.map_err(failed)?;
        let mut unfinished = Vec::with_capacity(rows.len());
        for row in rows {
            let record = record(&row)?;
            let loads = self.loads(&record.run).await?;
            unfinished.push((record, loads));
        }
        Ok(unfinished)
    }

    /// A run's loads that are not forgotten yet.
    pub async fn loads(&self, run: &str) -> Result<Vec<LoadRecord>> {
        let rows = sqlx::query("select sink, kind, state, published from loads where run = ? order by sink")
            .bind(run)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        let load = |row: &SqliteRow| {
            Ok(LoadRecord {
                sink: row.try_get("sink").map_err(failed)?,
                kind: row.try_get("kind").map_err(failed)?,
                state: from_text(row.try_get("state").map_err(failed)?)?,
                published: row.try_get::<i64, _>("published").map_err(failed)? != 0,
            })
        };
        rows.iter().map(load).collect()
    }

    /// What published runs of a pipeline's source remember.
    pub async fn cursors(&self, pipeline: &str, source: &str) -> Result<BTreeMap<String, String>> {
        let rows = sqlx::query("select key, value from cursors where pipeline = ? and source = ?")
            .bind(pipeline)
            .bind(source)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| Ok((row.try_get("key").map_err(failed)?, row.try_get("value").map_err(failed)?))).collect()
    }

    /// What published runs of a pipeline's sources remember, by source.
    pub async fn all_cursors(&self, pipeline: &Pipeline) -> Result<HashMap<String, BTreeMap<String, String>>> {
        let mut all = HashMap::new();
        for source in &pipeline.sources {
            all.insert(source.name.value.clone(), self.cursors(&pipeline.name.value, &source.name.value).await?);
        }
        Ok(all)
    }

    /// The latest runs, newest first.
    pub async fn runs(&self, pipeline: Option<&str>, limit: u32) -> Result<Vec<RunRecord>> {
        let rows = sqlx::query("select * from runs where ?1 is null or pipeline = ?1 order by run desc limit ?2")
            .bind(pipeline)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(record).collect()
    }

    /// What the latest published runs of a pipeline did, newest first.
    pub async fn published_summaries(&self, pipeline: &str, limit: u32) -> Result<Vec<Summary>> {
        let published =
            "select summary from runs where pipeline = ? and status = 'published' and summary is not null order by run desc limit ?";
        let rows = sqlx::query(published).bind(pipeline).bind(limit).fetch_all(&self.pool).await.map_err(failed)?;
        rows.iter().map(|row| from_text(row.try_get("summary").map_err(failed)?)).collect()
    }

    /// The latest published run that was made of the pipeline's own definition, and that definition; none of a run by a version of Weir that
    /// did not keep it yet. A run that mended rows does not count: it made no more than a part.
    pub async fn published_definition(&self, pipeline: &str) -> Result<Option<PublishedText>> {
        let sql = "select run, started_at, summary, text from runs left join definitions on hash = definition
                   where pipeline = ? and status = 'published' order by run desc";
        let mut rows = sqlx::query(sql).bind(pipeline).fetch(&self.pool);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let definition: Option<String> = row.try_get("text").map_err(failed)?;
            let summary: Option<String> = row.try_get("summary").map_err(failed)?;
            let summary: Option<Summary> = summary.map(from_text).transpose()?;
            if definition.is_none() && summary.is_some_and(|summary| summary.mends.is_some()) {
                continue;
            }
            let (run, at) = (row.try_get("run").map_err(failed)?, row.try_get("started_at").map_err(failed)?);
            return Ok(Some(PublishedText { run, at, definition }));
        }
        Ok(None)
    }

    /// The run with this id, or the one run whose id ends or starts with it.
    pub async fn run(&self, id: &str) -> Result<Option<RunRecord>> {
        let rows = sqlx::query(
            "select * from runs where run = ?1 or substr(run, 1, length(?1)) = ?1 or substr(run, -length(?1)) = ?1
             order by run = ?1 desc, run desc limit 2",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        match rows.as_slice() {
            [] => Ok(None),
            [one] => record(one).map(Some),
            [first, ..] => {
                let first = record(first)?;
                if first.run == id {
                    return Ok(Some(first));
                }
                Err(Failure::error("ambiguous-run", format!("several runs match \"{id}\"")).help("give more of the run's id"))
            }
        }
    }
}

fn record(row: &SqliteRow) -> Result<RunRecord> {
    let status: String = row.try_get("status").map_err(failed)?;
    let summary: Option<String> = row.try_get("summary").map_err(failed)?;
    Ok(RunRecord {
        run: row.try_get("run").map_err(failed)?,
        pipeline: row.try_get("pipeline").map_err(failed)?,
        status: status.parse().map_err(|()| Failure::error("state", format!("the run history holds an unknown status \"{status}\"")))?,
        started_at: row.try_get("started_at").map_err(failed)?,
        finished_at: row.try_get("finished_at").map_err(failed)?,
        error: row.try_get("error").map_err(failed)?,
        code: row.try_get("code").map_err(failed)?,
        step: row.try_get("step").map_err(failed)?,
        summary: summary.map(from_text).transpose()?,
    })
}

fn to_text(summary: &Summary) -> String {
    serde_json::to_string(summary).expect("a summary is plain data")
}

fn from_text<T: serde::de::DeserializeOwned>(text: String) -> Result<T> {
    serde_json::from_str(&text).map_err(|error| Failure::error("state", format!("the run history holds a text Weir cannot read: {error}")))
}

/// Removes what a run would move.
async fn forget_cursors(run: &str, tx: &mut sqlx::SqliteConnection) -> Result<()> {
    for sql in ["delete from run_cursors where run = ?", "delete from run_forgets where run = ?"] {
        sqlx::query(sql).bind(run).execute(&mut *tx).await.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
impl History {
    /// How many definitions are kept.
    pub(crate) async fn definitions(&self) -> Result<i64> {
        sqlx::query_scalar("select count(*) from definitions").fetch_one(&self.pool).await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(key: &str, anew: bool) -> Cursors {
        Cursors { sources: BTreeMap::from([("src".to_owned(), BTreeMap::from([(key.to_owned(), "v".to_owned())]))]), anew }
    }

    fn summary(run: &str) -> Summary {
        Summary { run: run.into(), pipeline: "p".into(), status: "published".into(), ..Summary::default() }
    }

    #[tokio::test]
    async fn cursors_move_only_when_a_run_has_finished() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        let history = History::open(&path, "one").await.expect("opens");
        history.begin("r1", "p", "2026-01-01T00:00:00Z").await.expect("begins");
        let load = LoadRecord { sink: "s".into(), kind: "lake".into(), state: serde_json::json!({"a": 1}), published: false };
        history.stage("r1", &load).await.expect("stages");
        history.decide("r1", RunStatus::Publishing, &[load], &cursors("k", false), None, &summary("r1")).await.expect("decides");
        assert!(history.cursors("p", "src").await.expect("reads").is_empty());

        // Another process finds the decision.
        let other = History::open(&path, "two").await.expect("opens");
        assert_eq!(other.id, "one");
        let unfinished = other.unfinished(Some("p")).await.expect("reads");
        assert_eq!(unfinished.len(), 1);
        assert_eq!(unfinished[0].0.status, RunStatus::Publishing);
        assert_eq!(unfinished[0].1[0].state, serde_json::json!({"a": 1}));
        other.published("r1", "s").await.expect("notes");
        other.finish("r1", "2026-01-01T00:00:01Z", &summary("r1")).await.expect("finishes");
        assert_eq!(history.cursors("p", "src").await.expect("reads")["k"], "v");
        assert!(history.unfinished(Some("p")).await.expect("reads").is_empty());
        assert_eq!(history.run("r").await.expect("reads").expect("found").status, RunStatus::Published);
    }

    #[tokio::test]
    async fn a_source_that_was_read_anew_forgets_what_it_knew_once_the_run_has_finished() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(&folder.path().join("state.db"), "one").await.expect("opens");
        let keys = async || history.cursors("p", "src").await.expect("reads").into_keys().collect::<Vec<_>>();
        for (run, moves, after) in [
            ("r1", cursors("a", false), vec!["a"]),
            ("r2", cursors("b", false), vec!["a", "b"]),
            ("r3", cursors("c", true), vec!["c"]),
            ("r4", Cursors { sources: BTreeMap::from([("src".to_owned(), BTreeMap::new())]), anew: true }, vec![]),
        ] {
            let before = keys().await;
            history.begin(run, "p", "2026-01-01T00:00:00Z").await.expect("begins");
            history.decide(run, RunStatus::Publishing, &[], &moves, None, &summary(run)).await.expect("decides");
            assert_eq!(keys().await, before, "{run}");
            history.finish(run, "2026-01-01T00:00:01Z", &summary(run)).await.expect("finishes");
            assert_eq!(keys().await, after, "{run}");
        }
    }

    #[tokio::test]
    async fn a_failed_run_keeps_the_code_and_the_step_of_its_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(&folder.path().join("state.db"), "one").await.expect("opens");
        history.begin("r1", "p", "2026-01-01T00:00:00Z").await.expect("begins");
        history.note_cause("r1", "run", Some("s")).await.expect("notes");
        history.end("r1", RunStatus::Failed, "2026-01-01T00:00:01Z", Some("divide by zero")).await.expect("ends");
        let run = history.run("r1").await.expect("reads").expect("found");
        assert_eq!((run.status, run.code.as_deref(), run.step.as_deref()), (RunStatus::Failed, Some("run"), Some("s")));
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        let history = History::open(&path, "one").await.expect("opens");
        sqlx::raw_sql("pragma user_version = 99").execute(&history.pool).await.expect("stamps");
        drop(history);
        let Err(Failure::Error(error)) = History::open(&path, "one").await else { panic!("it opened") };
        assert_eq!(error.message, "the run history was written by a newer Weir (its form is 99)");
    }
}
