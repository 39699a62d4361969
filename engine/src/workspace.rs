//! What every command works with: the project, its state folder, its lake, its memory and the clock.

use std::{collections::HashMap, fs::File, io::ErrorKind, num::NonZeroUsize, path::PathBuf, sync::Arc};

use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::execution::{
    disk_manager::{DiskManagerBuilder, DiskManagerMode},
    memory_pool::{FairSpillPool, TrackConsumersPool},
    runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_connectors::{Blame, Connections, RunContext};
use weir_pipelines::Project;

use crate::{
    contracts::Contracts,
    error::{Failure, Result},
    history::History,
};

/// Rows per batch between steps.
const BATCH_ROWS: usize = 8192;

/// What the machine offers; read once at the edge.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Memory of the machine or of the cgroup, whichever is less.
    pub memory_bytes: u64,
    /// Processors that may be used.
    pub cpus: usize,
}

/// What every command works with.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The project.
    pub project: Project,
    /// `.weir`, absolute.
    pub state_dir: PathBuf,
    /// The lake's root: an absolute path or a URL.
    pub lake: String,
    /// The environment, read once at the edge.
    pub environment: Arc<HashMap<String, String>>,
    /// What runs and queries may hold in memory.
    pub memory_limit_bytes: u64,
    /// Processors that may be used.
    pub cpus: usize,
    /// Tells the time.
    pub clock: fn() -> DateTime<Utc>,
    /// Contracts that have been compiled.
    pub contracts: Arc<Contracts>,
}

impl Workspace {
    /// Puts a workspace together. Touches nothing outside.
    pub fn new(project: Project, environment: HashMap<String, String>, machine: Machine, clock: fn() -> DateTime<Utc>) -> Self {
        let lake = if project.lake_path.contains("://") {
            project.lake_path.clone()
        } else {
            project.root.join(&project.lake_path).display().to_string()
        };
        Self {
            state_dir: project.root.join(".weir"),
            lake,
            environment: Arc::new(environment),
            memory_limit_bytes: project.memory_limit_bytes.unwrap_or(machine.memory_bytes / 2),
            cpus: machine.cpus.max(1),
            clock,
            contracts: Arc::default(),
            project,
        }
    }

    /// Opens the run history, making `.weir` and the database where they are missing.
    pub async fn history(&self) -> Result<History> {
        std::fs::create_dir_all(&self.state_dir).map_err(|error| {
            Failure::error("state", format!("cannot make the folder \"{}\": {error}", self.state_dir.display()))
                .blame(Blame::System)
                .help("the project's folder must be writable")
        })?;
        History::open(&self.state_dir.join("state.db"), &Uuid::now_v7().to_string()).await
    }

    /// Opens the run history where there is one already, as a look at it does.
    pub async fn existing_history(&self) -> Result<Option<History>> {
        if self.state_dir.join("state.db").is_file() { self.history().await.map(Some) } else { Ok(None) }
    }

    /// Holds a pipeline's lock file, which the system lets go however the process ends. Refuses while another process holds it.
    pub fn lock(&self, pipeline: &str) -> Result<File> {
        let folder = self.state_dir.join("locks");
        let path = folder.join(format!("{pipeline}.lock"));
        let failed =
            |error: std::io::Error| Failure::error("state", format!("cannot lock \"{}\": {error}", path.display())).blame(Blame::System);
        let file = std::fs::create_dir_all(&folder)
            .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Failure::error("already-running", format!("pipeline \"{pipeline}\" is running already"))
                    .help("wait until it has ended, or stop it; \"weir runs list\" shows it"))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// The time as the history keeps it: RFC 3339, UTC, milliseconds.
    pub fn now(&self) -> String {
        (self.clock)().to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// A memory pool of the workspace's limit, and spill files in the folder `spill`, or the system's where none is given.
    pub fn runtime(&self, spill: Option<PathBuf>) -> Result<Arc<RuntimeEnv>> {
        let limit = usize::try_from(self.memory_limit_bytes).unwrap_or(usize::MAX);
        let consumers = NonZeroUsize::new(3).expect("three is not zero");
        let pool = TrackConsumersPool::new(FairSpillPool::new(limit), consumers);
        let disk = match spill {
            Some(folder) => DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![folder])),
            None => DiskManagerBuilder::default().with_mode(DiskManagerMode::OsTmpDirectory),
        };
        RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(disk.with_max_temp_directory_size(u64::MAX))
            .build_arc()
            .map_err(|error| crate::run::explain(&error))
    }

    /// What a run of a pipeline shares. The caller holds the pipeline's lock: spill files an earlier process left are removed.
    pub fn context(&self, pipeline: &str, history: &History, cancel: CancellationToken) -> Result<Arc<RunContext>> {
        let spill = self.state_dir.join("tmp").join(pipeline);
        let made = match std::fs::remove_dir_all(&spill) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir_all(&spill),
        };
        made.map_err(|error| {
            Failure::error("state", format!("cannot make the folder \"{}\": {error}", spill.display())).blame(Blame::System)
        })?;
        self.context_in(pipeline, &history.id, self.runtime(Some(spill))?, cancel)
    }

    /// What a check of a pipeline shares: nothing is written anywhere.
    pub fn dry_context(&self, pipeline: &str) -> Result<Arc<RunContext>> {
        self.context_in(pipeline, "", self.runtime(None)?, CancellationToken::new())
    }

    fn context_in(&self, pipeline: &str, state: &str, runtime: Arc<RuntimeEnv>, cancel: CancellationToken) -> Result<Arc<RunContext>> {
        Ok(Arc::new(RunContext {
            run: Uuid::now_v7().to_string(),
            pipeline: pipeline.to_owned(),
            state: state.to_owned(),
            started_at: (self.clock)(),
            root: self.project.root.clone(),
            state_dir: self.state_dir.clone(),
            lake: self.lake.clone(),
            profile: self.project.profile.clone(),
            environment: self.environment.clone(),
            connections: Arc::new(Connections::new(
                self.project.connections.iter().map(|(name, connection)| (name.clone(), connection.settings.clone())).collect(),
            )),
            runtime,
            partitions: self.cpus,
            batch_rows: BATCH_ROWS,
            cancel,
        }))
    }
}
