//! Serves a project's pipelines in this process and says how late runs start, or what days do to memory: `schedule delay FOLDER SECONDS` by the
//! machine's clock, `schedule days FOLDER SPEED HOURS` by one that goes SPEED times as fast. Where the state is, is the project's affair; its files
//! are watched as `weir serve` does. Prints JSON.

use std::{
    path::Path,
    process::ExitCode,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weir_engine::{
    Failure, Workspace,
    scheduler::{Notice, Outcome, Scheduler, Settings},
};

/// How many times as fast as the machine's clock this one goes.
static SPEED: AtomicU64 = AtomicU64::new(1);
static BEGAN: LazyLock<(Instant, DateTime<Utc>)> = LazyLock::new(|| (Instant::now(), Utc::now()));

fn clock() -> DateTime<Utc> {
    let (began, at) = *BEGAN;
    match SPEED.load(Ordering::Relaxed) {
        1 => Utc::now(),
        speed => at + TimeDelta::from_std(began.elapsed()).unwrap_or_default() * i32::try_from(speed).unwrap_or(1),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let numbers: Vec<u32> = words.iter().skip(2).filter_map(|word| word.parse().ok()).collect();
    let (folder, task) = match (&words[..], &numbers[..]) {
        (["delay", folder, _], &[seconds]) => (folder, Task::Delay { seconds }),
        (["days", folder, _, _], &[speed, hours]) if speed > 0 => (folder, Task::Days { speed, hours }),
        _ => {
            eprintln!("usage: schedule delay FOLDER SECONDS | schedule days FOLDER SPEED HOURS");
            return ExitCode::from(2);
        }
    };
    if let Task::Days { speed, .. } = task {
        SPEED.store(u64::from(speed), Ordering::Relaxed);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    match runtime.block_on(measure(task, Path::new(folder))) {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("schedule: {}", failure.sentence());
            ExitCode::FAILURE
        }
    }
}

/// What is measured.
#[derive(Clone, Copy)]
enum Task {
    Delay { seconds: u32 },
    Days { speed: u32, hours: u32 },
}

/// What has been told.
#[derive(Debug, Default)]
struct Told {
    delays_ms: Vec<u64>,
    published: u64,
    others: u64,
    skipped: u64,
}

async fn measure(task: Task, folder: &Path) -> Result<Value, Failure> {
    let _ = *BEGAN;
    let project = weir::project::read_project(folder, folder, None)?;
    let files = Arc::new(weir::watch::Files::new(project.clone()));
    let workspace = Workspace::new(project, weir::project::environment(), weir::project::machine(), clock);
    let told: Arc<Mutex<Told>> = Arc::default();
    let watcher = told.clone();
    let tell = Arc::new(move |notice: &Notice| {
        let mut told = watcher.lock().expect("nothing panics while it holds this lock");
        match notice {
            Notice::Started { delay_ms, .. } => told.delays_ms.push(*delay_ms),
            Notice::Ended { outcome: Outcome::Published, .. } => told.published += 1,
            Notice::Ended { .. } => told.others += 1,
            Notice::Skipped { .. } => told.skipped += 1,
            _ => {}
        }
    });
    let settings = Settings { name: "bench".to_owned(), runs_max: 4, connection_runs_max: Default::default() };
    let scheduler = Scheduler::new(workspace, files, settings, tell).await?;
    let drain = CancellationToken::new();
    let mut memory = Vec::new();
    let watching = async {
        match task {
            Task::Delay { seconds } => tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await,
            Task::Days { speed, hours } => {
                for _ in 0..hours {
                    tokio::time::sleep(Duration::from_secs(3600) / speed).await;
                    memory.push(resident_bytes());
                }
            }
        }
        drain.cancel();
    };
    let (served, ()) = tokio::join!(scheduler.serve(drain.clone(), CancellationToken::new()), watching);
    served?;
    let told = std::mem::take(&mut *told.lock().expect("nothing panics while it holds this lock"));
    let mut delays = told.delays_ms;
    delays.sort_unstable();
    let share = |share: usize| delays.get((delays.len() * share / 1000).min(delays.len().saturating_sub(1))).copied().unwrap_or(0);
    Ok(json!({
        "started": delays.len(), "published": told.published, "others": told.others, "skipped": told.skipped,
        "p50_ms": share(500), "p99_ms": share(990), "max_ms": delays.last().copied().unwrap_or(0),
        "memory_bytes": memory, "resident_bytes": resident_bytes(),
    }))
}

/// Memory of this process that is not swapped out.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
