//! What every command works with: the project, its state folder, its lake, its memory and the clock.

use std::{
    collections::HashMap,
    fs::File,
    io::ErrorKind,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::execution::{
    disk_manager::{DiskManagerBuilder, DiskManagerMode},
    memory_pool::{FairSpillPool, TrackConsumersPool},
    runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_connectors::{Blame, Connections, Retry, RunContext};
use weir_pipelines::Project;

use crate::{
    contracts::Contracts,
    error::{Failure, Result},
    history::{
        History, Place,
        lanes::{self, Lane},
    },
    state,
};

/// How often a run looks for a lane that it waits for.
const LANE_LOOK: Duration = Duration::from_millis(50);
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
    /// The run history, once it is open.
    history: Arc<OnceCell<History>>,
}

/// What a lane's files and marks are called. No pipeline has a tilde in its name.
fn lane_name(name: &str, lane: u32) -> String {
    if lane == 0 { name.to_owned() } else { format!("{name}~{lane}") }
}

/// A failure of the state's folder. A disk that is full has room again some day; what may not be written never may.
fn unusable(what: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::error("state", format!("{what}: {error}")).blame(Blame::System);
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => failure.retry(Retry::Later),
        _ => failure,
    }
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
            history: Arc::default(),
            project,
        }
    }

    /// Opens the run history, making `.weir` and the database where they are missing. It is opened once.
    pub async fn history(&self) -> Result<History> {
        let open = async {
            std::fs::create_dir_all(&self.state_dir).map_err(|error| {
                unusable(&format!("cannot make the folder \"{}\"", self.state_dir.display()), &error)
                    .help("the project's folder must be writable")
            })?;
            let place = match &self.project.state {
                None => Place::File(self.state_dir.join("state.db")),
                Some(settings) => state::place(settings, &self.environment, &self.project.root).await?,
            };
            History::open(&place, &Uuid::now_v7().to_string()).await
        };
        self.history.get_or_try_init(|| open).await.cloned()
    }

    /// Opens the run history where there is one already, as a look at it does.
    pub async fn existing_history(&self) -> Result<Option<History>> {
        let is_there = self.project.state.is_some() || self.state_dir.join("state.db").is_file();
        if is_there { self.history().await.map(Some) } else { Ok(None) }
    }

    /// Takes a lane of a pipeline. Refuses while another process has it: one on this machine, or with a shared state on any.
    pub async fn lane(&self, history: &History, pipeline: &str, lane: u32) -> Result<Lane> {
        let file = self.lock(&lane_name(pipeline, lane))?;
        history.take_lane(file, pipeline, lane).await
    }

    /// The same, and waits a while for it where another run has it.
    pub async fn lane_within(
        &self,
        patience: Duration,
        history: &History,
        pipeline: &str,
        lane: u32,
        cancel: &CancellationToken,
    ) -> Result<Lane> {
        let began = Instant::now();
        loop {
            match self.lane(history, pipeline, lane).await {
                Err(Failure::Error(error)) if error.code == "already-running" && began.elapsed() < patience => {}
                lane => return lane,
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(Failure::Interrupted),
                () = tokio::time::sleep(LANE_LOOK) => {}
            }
        }
    }

    /// Holds a lock file, which the system lets go however the process ends. Refuses while another process holds it. It is named after a pipeline or what is done of one.
    pub fn lock(&self, name: &str) -> Result<File> {
        let folder = self.state_dir.join("locks");
        let path = folder.join(format!("{name}.lock"));
        let failed = |error: std::io::Error| unusable(&format!("cannot lock \"{}\"", path.display()), &error);
        let file = std::fs::create_dir_all(&folder)
            .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(lanes::taken(name.split('~').next().unwrap_or(name))),
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

    /// The folder of spill files of a lane.
    pub fn spill(&self, pipeline: &str, lane: u32) -> PathBuf {
        self.state_dir.join("tmp").join(lane_name(pipeline, lane))
    }

    /// What a run of a pipeline shares. The caller holds the lane: spill files an earlier process left are removed.
    pub fn context(&self, pipeline: &str, lane: u32, history: &History, cancel: CancellationToken) -> Result<Arc<RunContext>> {
        let spill = self.spill(pipeline, lane);
        let made = match std::fs::remove_dir_all(&spill) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir_all(&spill),
        };
        made.map_err(|error| unusable(&format!("cannot make the folder \"{}\"", spill.display()), &error))?;
        // Lanes write the same destinations side by side, as other states do.
        let state = if lane == 0 { history.id.clone() } else { lane_name(&history.id, lane) };
        self.context_in(pipeline, &state, self.runtime(Some(spill))?, cancel)
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
            interval: None,
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
