//! What a crash, or a server that is away, has left: runs that no process is at, and staged tables that no run knows of.
//! Looks only; finishing and discarding is [`crate::publish`]'s.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde::Serialize;
use weir_connectors::{CONNECTIONS, Leftover, RunContext};

use crate::{
    error::{Failure, Result},
    history::{History, LoadRecord, RunRecord, RunStatus},
    workspace::Workspace,
};

/// A connection that has not answered by then is away.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// The project's connections.
    pub connections: Vec<ConnectionFinding>,
    /// Runs that are not over.
    pub runs: Vec<RunFinding>,
    /// Staged tables that belong to no run that is not over.
    pub orphans: Vec<Orphan>,
}

/// A connection.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionFinding {
    /// Its name.
    pub connection: String,
    /// Its kind.
    pub kind: String,
    /// The server and its version, where it answered.
    pub server: Option<String>,
    /// Why it did not answer.
    pub error: Option<String>,
    /// What to do about that.
    pub help: Option<String>,
    /// How long the answer took.
    pub took_ms: u64,
}

/// A run that is not over.
#[derive(Debug, Clone, Serialize)]
pub struct RunFinding {
    /// Its id.
    pub run: String,
    /// Its pipeline.
    pub pipeline: String,
    /// Where it stands.
    pub status: RunStatus,
    /// True: a process is at it now, so nothing is wrong.
    pub alive: bool,
    /// What happened and what is visible where.
    pub explanation: String,
    /// What to do; empty for a run that a process is at.
    pub commands: Vec<String>,
}

/// A staged table that nobody will take up.
#[derive(Debug, Clone, Serialize)]
pub struct Orphan {
    /// The connection it was found through.
    pub connection: String,
    /// As the server calls it.
    pub name: String,
    /// The run that it says it belongs to.
    pub run: Option<String>,
}

impl Findings {
    /// True when nothing needs a person.
    pub fn healthy(&self) -> bool {
        self.orphans.is_empty() && self.connections.iter().all(|found| found.error.is_none()) && self.runs.iter().all(|run| run.alive)
    }
}

/// Looks round. Changes nothing.
pub async fn look(workspace: &Workspace) -> Result<Findings> {
    let history = workspace.history().await?;
    let context = workspace.dry_context("doctor")?;
    let mut runs = Vec::new();
    for (record, loads) in history.unfinished(None).await? {
        runs.push(explain(workspace, &history, &record, &loads).await);
    }
    let mut connections = Vec::new();
    let mut staged: Vec<(String, Leftover)> = Vec::new();
    for (name, connection) in &workspace.project.connections {
        let (finding, found) = probe(name, &connection.settings.kind.value, &context).await;
        connections.push(finding);
        staged.extend(found.into_iter().map(|leftover| (name.clone(), leftover)));
    }
    let known: HashSet<&str> = runs.iter().map(|run| run.run.as_str()).collect();
    let mut seen = HashSet::new();
    let orphans = staged
        .into_iter()
        .filter(|(_, leftover)| leftover.run.as_deref().is_none_or(|run| !known.contains(run)))
        // Two connections may lead to one server.
        .filter(|(_, leftover)| seen.insert(leftover.name.clone()))
        .map(|(connection, Leftover { name, run })| Orphan { connection, name, run })
        .collect();
    Ok(Findings { connections, runs, orphans })
}

async fn probe(name: &str, kind: &str, context: &Arc<RunContext>) -> (ConnectionFinding, Vec<Leftover>) {
    let started = std::time::Instant::now();
    let mut finding =
        ConnectionFinding { connection: name.to_owned(), kind: kind.to_owned(), server: None, error: None, help: None, took_ms: 0 };
    let mut staged = Vec::new();
    match CONNECTIONS.iter().find(|known| known.kind == kind) {
        None => finding.error = Some(format!("\"{kind}\" is not a kind of connection")),
        Some(known) => match tokio::time::timeout(PROBE_TIMEOUT, (known.probe)(name, context)).await {
            Ok(Ok(probe)) => {
                finding.server = Some(probe.server);
                staged = probe.staged;
            }
            Ok(Err(error)) => {
                finding.error = Some(error.message);
                finding.help = error.help;
            }
            Err(_) => finding.error = Some(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())),
        },
    }
    finding.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    (finding, staged)
}

async fn explain(workspace: &Workspace, history: &History, record: &RunRecord, loads: &[LoadRecord]) -> RunFinding {
    let alive = match workspace.lane(history, &record.pipeline, record.lane).await {
        Ok(lane) => {
            lane.release().await;
            false
        }
        Err(failure) => matches!(failure, Failure::Error(error) if error.code == "already-running"),
    };
    let list = |published: bool| {
        let names: Vec<&str> = loads.iter().filter(|load| load.published == published).map(|load| load.sink.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let explanation = match record.status {
        _ if alive => "a process is at it now".to_owned(),
        RunStatus::Deciding => {
            "its process ended while a destination was committing it; whether it did is found out before anything else".to_owned()
        }
        RunStatus::Publishing => {
            format!("it is decided, and its rows are staged everywhere; published in: {}; not yet in: {}", list(true), list(false))
        }
        _ => format!("its process ended while it was staging; nothing of it is visible anywhere; staged for: {}", list(false)),
    };
    let mut commands = Vec::new();
    if !alive {
        commands.push(format!("weir runs resume {}", record.run));
        if record.status != RunStatus::Running {
            commands.push(format!("weir runs resume {} --discard", record.run));
        }
    }
    RunFinding { run: record.run.clone(), pipeline: record.pipeline.clone(), status: record.status, alive, explanation, commands }
}
