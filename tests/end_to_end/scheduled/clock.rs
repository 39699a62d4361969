//! A scheduler under a clock of the test's own: an hour forward, an hour back, and what becomes of ticks then.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use weir_engine::{
    History, Workspace,
    history::{
        stamp,
        tasks::{Task, TaskStatus},
    },
    scheduler::{
        Catalogue, Notice, Scheduler, Settings,
        backfill::{self, Asked, Reprocess},
    },
    workspace::Machine,
};

use crate::project::Project;

/// By how much the test's clock is ahead of the machine's. Tests of one process take turns.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);
static TURN: Mutex<()> = Mutex::new(());

fn clock() -> DateTime<Utc> {
    Utc::now() + TimeDelta::milliseconds(AHEAD_MS.load(Ordering::SeqCst))
}

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// A server in this process, on SQLite.
pub struct Serving {
    pub history: History,
    pub project: Project,
    pub notices: Arc<Mutex<Vec<Notice>>>,
    runtime: Runtime,
    drain: CancellationToken,
    served: Option<JoinHandle<weir_engine::Result<()>>>,
    _turn: MutexGuard<'static, ()>,
}

impl Serving {
    /// Serves a pipeline with this schedule from an instant on.
    pub fn start(from: &str, schedule: &str) -> Self {
        Self::with(at(from), schedule, "append")
    }

    /// The same, with the mode of the pipeline's sink.
    pub fn with(from: DateTime<Utc>, schedule: &str, mode: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let project = Project::new();
        project.write("one.csv", "n\n1\n");
        let pipeline = format!(
            "weir = 1\nname = \"p\"\n[schedule]\n{schedule}\n[source.one.file]\npath = \"one.csv\"\n[transform.cut]\n\
             sql = \"select $interval_start as interval_start, $interval_end as interval_end, n from one\"\n\
             [sink.out]\nfrom = \"cut\"\nmode = \"{mode}\"\n[sink.out.lake]\ntable = \"out.rows\"\n"
        );
        project.write("p.pipeline.toml", pipeline);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        jump_to(from);
        let parsed = weir::project::read_project(project.root(), project.root(), None).unwrap();
        let machine = Machine { memory_bytes: 1 << 30, cpus: 2 };
        let workspace = Workspace::new(parsed.clone(), HashMap::new(), machine, clock);
        let notices: Arc<Mutex<Vec<Notice>>> = Arc::default();
        let told = notices.clone();
        let settings = Settings { name: "one".to_owned(), runs_max: 4, connection_runs_max: Default::default() };
        let files = Arc::new(weir::watch::Files::new(parsed));
        let tell = Arc::new(move |notice: &Notice| told.lock().unwrap().push(notice.clone()));
        let scheduler = runtime.block_on(Scheduler::new(workspace, files, settings, tell)).unwrap();
        let history = scheduler.history().clone();
        let drain = CancellationToken::new();
        let (handle, until) = (runtime.handle().clone(), drain.clone());
        let served = std::thread::spawn(move || handle.block_on(scheduler.serve(until, CancellationToken::new())));
        Self { history, project, notices, runtime, drain, served: Some(served), _turn: turn }
    }

    /// The pipeline's tasks, the oldest interval first, as `start/end action`.
    pub fn tasks(&self) -> Vec<Task> {
        let mut tasks = self.runtime.block_on(self.history.tasks(None, 100_000)).unwrap();
        tasks.sort_by_key(|task| task.interval);
        tasks
    }

    /// Waits until there are so many tasks, and all of them have ended; then a little longer, in which no more may come.
    pub fn settled(&self, count: usize) -> Vec<String> {
        let began = Instant::now();
        loop {
            let tasks = self.tasks();
            let is_open = |task: &Task| matches!(task.status, TaskStatus::Waiting | TaskStatus::Running);
            if tasks.len() >= count && !tasks.iter().any(is_open) {
                std::thread::sleep(Duration::from_millis(1500));
                return self.tasks().iter().map(line).collect();
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{:#?}", tasks.iter().map(line).collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the tasks are as they should be.
    fn until(&self, are: impl Fn(&[Task]) -> bool) {
        let began = Instant::now();
        while !are(&self.tasks()) {
            assert!(began.elapsed() < Duration::from_secs(60), "{:#?}", self.tasks().iter().map(line).collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What was said of the clock.
    fn jumps(&self) -> Vec<i64> {
        let notices = self.notices.lock().unwrap();
        notices
            .iter()
            .filter_map(|notice| if let Notice::ClockJumped { by_ms } = notice { Some((by_ms + 500).div_euclid(1000)) } else { None })
            .collect()
    }

    /// Ends it, and returns the intervals that the lake has.
    pub fn end(mut self) -> Vec<String> {
        self.drain.cancel();
        self.served.take().unwrap().join().unwrap().unwrap();
        let rows = self.project.sql("select interval_start, interval_end from lake.out.rows");
        rows[1..].iter().map(|row| row.replace(":00Z", "").replace(":00+00:00", "")).collect()
    }
}

/// `12:10-12:20 published`, with how many intervals are joined where that is more than one.
fn line(task: &Task) -> String {
    let (start, end) = task.interval.unwrap();
    let joined = if task.joined > 1 { format!(" of {}", task.joined) } else { String::new() };
    let reason = task.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{}-{} {}{joined}{reason}", start.format("%H:%M"), end.format("%H:%M"), task.status.as_str())
}

/// Sets the clock to an instant.
pub fn jump_to(instant: DateTime<Utc>) {
    AHEAD_MS.store((instant - Utc::now()).num_milliseconds(), Ordering::SeqCst);
}

/// An hour forward at 12:10, an hour back, and then to 13:20: what there is after each, under a rule for missed ticks.
fn jumps(catch_up: &str, after_the_hour: &[&str]) {
    let serving = Serving::start("2026-03-01T12:09:58Z", &format!("every = \"10m\"\ncatch_up = \"{catch_up}\"\noverlap = \"queue\""));
    let mut expected = vec!["12:00-12:10 published".to_owned()];
    assert_eq!(serving.settled(1), expected, "{catch_up}: a tick on time");

    jump_to(clock() + TimeDelta::hours(1));
    expected.extend(after_the_hour.iter().map(|line| (*line).to_owned()));
    assert_eq!(serving.settled(expected.len()), expected, "{catch_up}: an hour forward");

    jump_to(clock() - TimeDelta::hours(1));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(serving.settled(expected.len()), expected, "{catch_up}: an hour back");
    jump_to(at("2026-03-01T12:29:59Z"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(serving.settled(expected.len()), expected, "{catch_up}: a tick that was run before the clock was set back");

    jump_to(at("2026-03-01T13:19:59Z"));
    expected.push("13:10-13:20 published".to_owned());
    assert_eq!(serving.settled(expected.len()), expected, "{catch_up}: time goes on");

    let jumps = serving.jumps();
    assert!(jumps.contains(&3600) && jumps.contains(&-3600), "{jumps:?}");
    let published: Vec<String> = expected.iter().filter(|line| line.contains("published")).cloned().collect();
    let rows = serving.end();
    assert_eq!(rows.len(), published.len(), "{catch_up}: {rows:?}");
    for (row, line) in rows.iter().zip(published) {
        let (start, end) = (&line[..5], &line[6..11]);
        assert!(row.contains(start) && row.contains(end), "{catch_up}: {rows:?}");
    }
}

#[test]
fn a_clock_an_hour_forward_and_back_under_catch_up_all() {
    let all = ["12:10-12:20", "12:20-12:30", "12:30-12:40", "12:40-12:50", "12:50-13:00", "13:00-13:10"];
    let all = all.map(|interval| format!("{interval} published"));
    jumps("all", &all.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_clock_an_hour_forward_and_back_under_catch_up_latest() {
    jumps("latest", &["12:10-13:10 published of 6"]);
}

#[test]
fn a_clock_an_hour_forward_and_back_under_catch_up_none() {
    jumps(
        "none",
        &[
            "12:10-12:20 skipped (missed: nothing ran then)",
            "12:20-12:30 skipped (missed: nothing ran then)",
            "12:30-12:40 skipped (missed: nothing ran then)",
            "12:40-12:50 skipped (missed: nothing ran then)",
            "12:50-13:00 skipped (missed: nothing ran then)",
            "13:00-13:10 published",
        ],
    );
}

#[test]
fn a_backfill_in_the_lane_of_its_pipeline_yields_to_what_is_scheduled() {
    let serving = Serving::with(Utc::now(), "every = \"1s\"\ncatch_up = \"all\"\noverlap = \"queue\"", "replace");
    serving.until(|tasks| tasks.iter().any(|task| task.status == TaskStatus::Published));
    let project = weir::project::read_project(serving.project.root(), serving.project.root(), None).unwrap();
    let pipeline = weir::watch::Files::new(project).pipeline("p", &BTreeMap::new()).unwrap();
    let asked = Asked {
        interval: (at("2026-01-01T00:00:00Z"), at("2026-07-20T00:00:00Z")),
        step: Some(Duration::from_secs(86400)),
        reprocess: Reprocess::Missing,
        parallel: 1,
        backwards: false,
    };
    let added = async {
        let plan = backfill::plan(&serving.history, &pipeline, &asked, clock()).await.unwrap();
        backfill::add(&serving.history, &pipeline, &asked, &plan, clock()).await.unwrap()
    };
    let record = serving.runtime.block_on(added);
    serving.until(|tasks| {
        let of_backfill = tasks.iter().filter(|task| task.backfill.is_some());
        of_backfill.filter(|task| task.status == TaskStatus::Published).count() == 200
    });
    let tasks = serving.tasks();
    let runs = serving.runtime.block_on(serving.history.runs(None, 10_000)).unwrap();
    let started = |task: &Task| runs.iter().find(|run| run.task.as_ref() == Some(&task.id)).map(|run| run.started_at.clone());
    let of_backfill: Vec<String> = tasks.iter().filter(|task| task.backfill.is_some()).filter_map(started).collect();
    let mut seen = 0;
    for task in tasks.iter().filter(|task| task.backfill.is_none() && stamp(task.due_at) > record.created_at) {
        let (due, Some(began)) = (stamp(task.due_at), started(task)) else { continue };
        // The run of the backfill that was going on, and one that was chosen in the same instant.
        let before = of_backfill.iter().filter(|other| **other > due && **other < began).count();
        assert!(before <= 1, "{before} runs of the backfill began between {due} and {began}");
        seen += 1;
    }
    assert!(seen >= 2, "the backfill was over before a tick came");
    serving.end();
}
