//! Alerts of `weir.toml`: the kinds there are, their settings, and one task for each alert that waits for what its desk has to tell. A receiver
//! that is slow or down holds up nobody but itself, and costs no more memory the longer it is.

mod desk;
mod message;
mod send;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chrono::Utc;
use futures::future::{BoxFuture, FutureExt};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use weir_engine::{Failure, Workspace, scheduler::Notice};
use weir_pipelines::{Alert, Diagnostic, Diagnostics, KindSchema, Project, diagnostic::drop_follow_ons};

use super::{
    control::{Control, LastEnded},
    metrics::Metrics,
};
use desk::{Desk, Now};
use message::Message;
use send::{Alertmanager, Post, Receiver, Sender, Slack, Smtp, Webhook};

/// Notices that wait for a desk. It takes them in microseconds; what is lost past these is counted and logged.
const NOTICES_MAX: usize = 4096;
/// How often what other servers have published is asked for, while anything stands.
const SETTLE_EVERY: Duration = Duration::from_secs(60);
/// At the end, a last message has this long.
const LAST_MESSAGE: Duration = Duration::from_secs(5);

/// One kind of alert.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The key that names it.
    pub kind: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// The JSON Schema of its settings.
    pub schema: fn() -> schemars::Schema,
    /// How long the first of several waits, unless the alert says it.
    group: Duration,
    /// How long until what stands is told again, unless the alert says it.
    repeat: Duration,
    /// Reads and checks its settings.
    read: fn(&Alert) -> Result<Receiver, Diagnostics>,
}

const GROUP: Duration = Duration::from_secs(30);
const REPEAT: Duration = Duration::from_secs(4 * 3600);

/// Every kind of alert.
pub static KINDS: &[Kind] = &[
    Kind {
        kind: "webhook",
        summary: "Whoever takes JSON by HTTP",
        schema: || schemars::schema_for!(Webhook),
        group: GROUP,
        repeat: REPEAT,
        read: |alert| Webhook::read(alert).map(Receiver::Webhook),
    },
    Kind {
        kind: "slack",
        summary: "A channel of Slack, Mattermost or whoever takes what Slack takes",
        schema: || schemars::schema_for!(Slack),
        group: GROUP,
        repeat: REPEAT,
        read: |alert| Slack::read(alert).map(Receiver::Slack),
    },
    Kind {
        kind: "smtp",
        summary: "People, by mail",
        schema: || schemars::schema_for!(Smtp),
        group: GROUP,
        repeat: REPEAT,
        read: |alert| Smtp::read(alert).map(|smtp| Receiver::Smtp(Box::new(smtp))),
    },
    Kind {
        kind: "alertmanager",
        summary: "An Alertmanager, which groups and repeats by its own rules",
        schema: || schemars::schema_for!(Alertmanager),
        // It wants to be told at once, and every minute that an alert stands.
        group: Duration::ZERO,
        repeat: Duration::from_secs(60),
        read: |alert| Alertmanager::read(alert).map(Receiver::Alertmanager),
    },
];

/// The kinds, for the schema of `weir.toml`.
pub fn schemas() -> Vec<KindSchema> {
    KINDS
        .iter()
        .map(|kind| KindSchema { kind: kind.kind.to_owned(), summary: format!("{}.", kind.summary), settings: (kind.schema)().to_value() })
        .collect()
}

/// Checks the settings of the project's alerts, each by its kind.
pub fn check(project: &Project) -> Diagnostics {
    project.alerts.iter().filter_map(|alert| read(alert).err()).flatten().collect()
}

fn read(alert: &Alert) -> Result<(&'static Kind, Receiver), Diagnostics> {
    let settings = &alert.settings;
    match KINDS.iter().find(|kind| kind.kind == settings.kind.value) {
        Some(kind) => match (kind.read)(alert) {
            Ok(receiver) => Ok((kind, receiver)),
            Err(mut wrong) => {
                drop_follow_ons(&mut wrong);
                Err(wrong)
            }
        },
        None => Err(vec![
            Diagnostic::error("unknown-kind", format!("alert \"{}\" is of an unknown kind \"{}\"", alert.name, settings.kind.value))
                .at(&settings.file, settings.kind.span.clone(), "")
                .did_you_mean(&settings.kind.value, KINDS.iter().map(|kind| kind.kind))
                .help(format!("kinds are: {}", KINDS.iter().map(|kind| kind.kind).collect::<Vec<_>>().join(", "))),
        ]),
    }
}

/// The project's alerts at work.
#[derive(Debug)]
pub struct Alerts {
    desks: Vec<(String, mpsc::Sender<Arc<Notice>>)>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Alerts {
    /// Starts a task for each alert. Fails where settings are wrong or a secret is missing.
    pub async fn start(workspace: &Workspace, metrics: &Arc<Metrics>, control: &Arc<dyn Control>) -> Result<Self, Failure> {
        let mut alerts = Self { desks: Vec::new(), tasks: Mutex::default(), metrics: metrics.clone(), stop: CancellationToken::new() };
        let mut ready = Vec::new();
        let mut wrong = Diagnostics::new();
        for alert in &workspace.project.alerts {
            match read(alert) {
                Ok((kind, receiver)) => ready.push((alert, kind, receiver)),
                Err(found) => wrong.extend(found),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong.into());
        }
        if ready.is_empty() {
            return Ok(alerts);
        }
        let sender = Sender::new(workspace)?;
        let before = tokio::time::timeout(SETTLE_MAX, control.last_ended()).await.ok().and_then(Result::ok).unwrap_or_default();
        for (alert, kind, receiver) in ready {
            sender.try_secrets(&receiver).await.map_err(|error| {
                let (name, settings) = (&alert.name, &alert.settings);
                let why = error.help.iter().fold(
                    Diagnostic::error(error.code, format!("alert \"{name}\": {}", error.message)).at(
                        &settings.file,
                        settings.kind.span.clone(),
                        "",
                    ),
                    |all, help| all.help(help.clone()),
                );
                Failure::from(why)
            })?;
            let (give, notices) = mpsc::channel(NOTICES_MAX);
            let mut desk = Desk::new(alert.clone(), kind.group, kind.repeat);
            let clock = Clock::start();
            desk.recall(&before, clock.now());
            let post = Post { alert: alert.name.clone(), receiver, sender: sender.clone(), repeat: desk.repeat() };
            let worker = Worker { desk, clock, post: Arc::new(post), metrics: metrics.clone(), control: control.clone() };
            alerts.desks.push((alert.name.clone(), give));
            let working = tokio::spawn(worker.work(notices, alerts.stop.clone()));
            alerts.tasks.get_mut().expect("nobody has it yet").push(working);
        }
        Ok(alerts)
    }

    /// Takes what has happened. Never waits: what a desk has no place for is lost, and said to be.
    pub fn take(&self, notice: &Notice) {
        if self.desks.is_empty() || !is_of_interest(notice) {
            return;
        }
        let notice = Arc::new(notice.clone());
        for (alert, desk) in &self.desks {
            if desk.try_send(notice.clone()).is_err() {
                tracing::error!(alert, "an alert is overrun: it does not learn of something that has happened");
                self.metrics.alerted(alert, "lost");
            }
        }
    }

    /// Tells what waits to be told, each in one try, and ends.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("nothing panics while it holds this lock"));
        for task in tasks {
            // Each bounds its own last message.
            let _ = task.await;
        }
    }
}

/// Answers of the state are waited for so long.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// Alerts are about ends of runs and what is wrong with files.
fn is_of_interest(notice: &Notice) -> bool {
    matches!(notice, Notice::Ended { .. } | Notice::Late { .. } | Notice::Broken { .. } | Notice::Mended { .. })
}

/// The time, both ways.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { started: Instant::now() }
    }

    fn now(&self) -> Now {
        Now { at: Utc::now(), since: self.started.elapsed() }
    }

    fn instant(&self, since: Duration) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + since)
    }
}

/// One alert's task.
struct Worker {
    desk: Desk,
    clock: Clock,
    post: Arc<Post>,
    metrics: Arc<Metrics>,
    control: Arc<dyn Control>,
}

type Sending = BoxFuture<'static, (Message, Result<(), String>)>;

impl Worker {
    async fn work(mut self, mut notices: mpsc::Receiver<Arc<Notice>>, stop: CancellationToken) {
        // One message is under way at most: what happens meanwhile goes into the next.
        let mut sending: Option<Sending> = None;
        let mut settle = tokio::time::interval(SETTLE_EVERY);
        settle.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        settle.reset();
        let mut settling: Option<BoxFuture<'static, Vec<LastEnded>>> = None;
        loop {
            let due = if sending.is_none() { self.desk.due() } else { None };
            tokio::select! {
                () = stop.cancelled() => break,
                notice = notices.recv() => match notice {
                    Some(notice) => self.desk.take(&notice, self.clock.now()),
                    None => break,
                },
                (message, outcome) = ready(&mut sending) => {
                    sending = None;
                    self.end(message, outcome);
                }
                () = sleep_until(due.map(|due| self.clock.instant(due))) => {
                    sending = self.desk.message(self.clock.now(), false).map(|message| self.send(message));
                }
                _ = settle.tick(), if settling.is_none() && self.desk.is_standing() => {
                    let control = self.control.clone();
                    let asked = async move { tokio::time::timeout(SETTLE_MAX, control.last_ended()).await };
                    settling = Some(asked.map(|answer| answer.ok().and_then(Result::ok).unwrap_or_default()).boxed());
                }
                ended = ready(&mut settling) => {
                    settling = None;
                    self.desk.settle(&ended, self.clock.now());
                }
            }
        }
        self.last(notices, sending).await;
    }

    /// Tells what is left, in one try.
    async fn last(mut self, mut notices: mpsc::Receiver<Arc<Notice>>, sending: Option<Sending>) {
        while let Ok(notice) = notices.try_recv() {
            self.desk.take(&notice, self.clock.now());
        }
        let (alert, metrics) = (self.post.alert.clone(), self.metrics.clone());
        let all = async {
            if let Some(sending) = sending {
                let (message, outcome) = sending.await;
                self.end(message, outcome);
            }
            if let Some(message) = self.desk.message(self.clock.now(), true) {
                let (message, outcome) = self.send(message).await;
                self.end(message, outcome);
            }
        };
        if tokio::time::timeout(LAST_MESSAGE, all).await.is_err() {
            tracing::error!(alert, "the last message of an alert was not taken in time");
            metrics.alerted(&alert, "given_up");
        }
    }

    fn send(&self, message: Message) -> Sending {
        let post = self.post.clone();
        Box::pin(async move {
            let outcome = post.send(&message).await;
            (message, outcome)
        })
    }

    fn end(&mut self, message: Message, outcome: Result<(), String>) {
        let (alert, items) = (&self.post.alert, message.items.len());
        match outcome {
            Ok(()) => {
                tracing::info!(alert, items, "alert sent");
                self.metrics.alerted(alert, "sent");
                self.desk.sent();
            }
            Err(why) => {
                let given_up = self.desk.unsent(message, self.clock.now());
                if given_up {
                    tracing::error!(alert, items, error = why, "alert given up: nobody took it for an hour");
                } else {
                    tracing::warn!(alert, items, error = why, "alert not sent, it is tried again");
                }
                self.metrics.alerted(alert, if given_up { "given_up" } else { "failed" });
            }
        }
    }
}

/// What comes of it; never, where there is nothing.
async fn ready<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "alert_tests.rs"]
mod tests;
