//! The numbers of a server: one set of instruments, read by Prometheus at `/metrics` and sent by OTLP. docs/guides/serving.md lists them.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Stream};
use prometheus::TextEncoder;
use weir_connectors::Blame;
use weir_engine::{
    Failure, Summary,
    query::Catalogue,
    scheduler::{Notice, Outcome},
};

use super::control::Gauges;
use crate::telemetry::{self, Otlp};

/// Label values of one metric. What comes after them is counted together, under `otel_metric_overflow="true"`.
const SERIES_MAX: usize = 20_000;
/// Pipelines that are told apart.
const PIPELINES_MAX: usize = 5_000;
/// Seconds: from a run over a few rows to one over a night.
const DURATIONS: [f64; 13] = [0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 43_200.0];
/// Seconds: from at once to never again.
const DELAYS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];
/// How often metrics go to an OTLP receiver.
const SENT_EVERY: Duration = Duration::from_secs(30);
/// At the end, no receiver is waited for longer.
const LAST_SENT: Duration = Duration::from_secs(5);

/// The instruments.
#[derive(Debug)]
pub struct Metrics {
    provider: SdkMeterProvider,
    registry: prometheus::Registry,
    runs: Counter<u64>,
    rows: Counter<u64>,
    bytes: Counter<u64>,
    durations: Histogram<f64>,
    delays: Histogram<f64>,
    retries: Counter<u64>,
    skipped: Counter<u64>,
    late: Counter<u64>,
    alerts: Counter<u64>,
    shown: Arc<Mutex<Shown>>,
    known: Mutex<HashSet<String>>,
}

/// What gauges show.
#[derive(Debug, Default)]
struct Shown {
    gauges: Gauges,
    broken: BTreeSet<String>,
    unreachable: bool,
}

impl Metrics {
    /// Makes the instruments. With `otlp`, they are sent as well.
    pub fn new(otlp: Option<&Otlp>) -> Result<Self, Failure> {
        let failed = |error: String| Failure::error("metrics", format!("metrics cannot be set up: {error}")).blame(Blame::Weir);
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).without_target_info().scope_info_enabled(false);
        let exporter = exporter.build().map_err(|error| failed(error.to_string()))?;
        let mut provider = SdkMeterProvider::builder()
            .with_resource(telemetry::resource())
            .with_reader(exporter)
            .with_view(|_| Stream::builder().with_cardinality_limit(SERIES_MAX).build().ok());
        if let Some(otlp) = otlp {
            provider = provider.with_reader(PeriodicReader::builder(otlp.metrics()?).with_interval(SENT_EVERY).build());
        }
        let provider = provider.build();
        let meter = provider.meter("weir");
        let shown: Arc<Mutex<Shown>> = Arc::default();
        observe(&meter, &shown);
        let counter = |name: &'static str, about: &'static str| meter.u64_counter(name).with_description(about).build();
        let histogram = |name: &'static str, about: &'static str, boundaries: &[f64]| {
            meter.f64_histogram(name).with_description(about).with_unit("s").with_boundaries(boundaries.to_vec()).build()
        };
        Ok(Self {
            runs: counter("weir.runs", "Runs that have ended, by outcome"),
            rows: counter("weir.rows", "Rows of published runs: read, loaded, or left out under a rule"),
            bytes: counter("weir.bytes", "Bytes of published runs, read from sources and loaded into destinations"),
            durations: histogram("weir.run.duration", "From a run's start to its end", &DURATIONS),
            delays: histogram("weir.start.delay", "From the instant that a run was due to its start", &DELAYS),
            retries: counter("weir.retries", "Runs that failed and are tried again"),
            skipped: counter("weir.ticks.skipped", "Ticks that led to no run"),
            late: counter("weir.late", "Intervals that were not published within their deadline"),
            alerts: counter("weir.alerts", "Messages of alerts: sent, tried in vain, or given up"),
            provider,
            registry,
            shown,
            known: Mutex::default(),
        })
    }

    /// Counts statements, by all doors, from here on.
    pub fn watch(&self, catalogue: &Arc<Catalogue>) {
        let meter = self.provider.meter("weir");
        let seen = catalogue.clone();
        meter
            .u64_observable_counter("weir.statements")
            .with_description("SQL statements that have ended, by outcome")
            .with_callback(move |observer| {
                let counts = seen.counts();
                for (outcome, count) in [("answered", &counts.answered), ("failed", &counts.failed), ("cancelled", &counts.cancelled)] {
                    observer.observe(count.load(Ordering::Relaxed), &[KeyValue::new("outcome", outcome)]);
                }
            })
            .build();
        let total = |name: &'static str, about: &'static str, of: fn(&Catalogue) -> u64| {
            let seen = catalogue.clone();
            let counter = meter.u64_observable_counter(name).with_description(about);
            counter.with_callback(move |observer| observer.observe(of(&seen), &[])).build();
        };
        total("weir.statement.rows", "Rows that SQL statements were answered with", |seen| seen.counts().rows.load(Ordering::Relaxed));
        total("weir.statement.bytes", "Bytes of these rows, as Arrow holds them", |seen| seen.counts().bytes.load(Ordering::Relaxed));
        let gauge = |name: &'static str, about: &'static str, of: fn((usize, usize)) -> usize| {
            let seen = catalogue.clone();
            let gauge = meter.u64_observable_gauge(name).with_description(about);
            gauge.with_callback(move |observer| observer.observe(of(seen.at_work()) as u64, &[])).build();
        };
        gauge("weir.statements.running", "SQL statements that are answered now", |(running, _)| running);
        gauge("weir.statements.waiting", "SQL statements that wait for their turn", |(_, waiting)| waiting);
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("nothing panics while it holds this lock")
    }

    /// The label of a pipeline. The first time, its counters begin at nothing: only what rises from something known is seen to rise.
    fn pipeline(&self, name: &str) -> KeyValue {
        let mut known = self.known.lock().expect("nothing panics while it holds this lock");
        if !known.contains(name) {
            if known.len() >= PIPELINES_MAX {
                return KeyValue::new("pipeline", "other");
            }
            known.insert(name.to_owned());
            let pipeline = KeyValue::new("pipeline", name.to_owned());
            for outcome in [Outcome::Published, Outcome::Failed, Outcome::Cancelled] {
                self.runs.add(0, &[pipeline.clone(), KeyValue::new("outcome", outcome.as_str())]);
            }
            for counter in [&self.retries, &self.skipped, &self.late] {
                counter.add(0, std::slice::from_ref(&pipeline));
            }
        }
        KeyValue::new("pipeline", name.to_owned())
    }

    /// Counts what has happened.
    pub fn take(&self, notice: &Notice) {
        match notice {
            Notice::Started { task, delay_ms } => {
                self.pipeline(&task.pipeline);
                self.delays.record(seconds(*delay_ms), &[KeyValue::new("origin", task.origin.clone())]);
            }
            Notice::Ended { task, outcome, summary, duration_ms, retry_at, .. } => {
                let pipeline = self.pipeline(&task.pipeline);
                self.runs.add(1, &[pipeline.clone(), KeyValue::new("outcome", outcome.as_str())]);
                self.durations.record(seconds(*duration_ms), std::slice::from_ref(&pipeline));
                if retry_at.is_some() {
                    self.retries.add(1, std::slice::from_ref(&pipeline));
                }
                if let (Outcome::Published, Some(summary)) = (outcome, summary) {
                    self.rows_of(&pipeline, summary);
                }
            }
            Notice::Skipped { task, .. } => self.skipped.add(1, &[self.pipeline(&task.pipeline)]),
            Notice::Late { task, .. } => self.late.add(1, &[self.pipeline(&task.pipeline)]),
            Notice::Broken { pipeline, .. } => {
                let mut shown = self.shown();
                if shown.broken.len() < PIPELINES_MAX {
                    shown.broken.insert(pipeline.clone());
                }
            }
            Notice::Mended { pipeline } => {
                self.shown().broken.remove(pipeline);
            }
            Notice::Leading(leading) => self.shown().gauges.leading = *leading,
            Notice::State { reachable, .. } => self.shown().unreachable = !reachable,
            Notice::TookOver { .. } | Notice::ClockJumped { .. } => {}
        }
    }

    fn rows_of(&self, pipeline: &KeyValue, summary: &Summary) {
        let rows = [
            ("read", summary.rows_read),
            ("loaded", summary.rows_loaded),
            ("quarantined", summary.rows_quarantined),
            ("dropped", summary.rows_dropped),
            ("filtered", summary.rows_filtered),
            ("deduplicated", summary.rows_deduplicated),
        ];
        for (direction, rows) in rows {
            self.rows.add(rows, &[pipeline.clone(), KeyValue::new("direction", direction)]);
        }
        for (direction, bytes) in [("read", summary.bytes_read), ("loaded", summary.bytes_loaded)] {
            self.bytes.add(bytes, &[pipeline.clone(), KeyValue::new("direction", direction)]);
        }
    }

    /// Counts a message of an alert: `sent`, `failed` (it is tried again) or `given_up`.
    pub fn alerted(&self, alert: &str, outcome: &'static str) {
        self.alerts.add(1, &[KeyValue::new("alert", alert.to_owned()), KeyValue::new("outcome", outcome)]);
    }

    /// Takes the numbers of this instant; without them, the state cannot be reached and the last ones stay.
    pub fn show(&self, gauges: Option<Gauges>) {
        for (pipeline, _) in gauges.iter().flat_map(|gauges| &gauges.lag) {
            self.pipeline(pipeline);
        }
        let mut shown = self.shown();
        shown.unreachable = gauges.is_none();
        if let Some(mut gauges) = gauges {
            gauges.lag.truncate(PIPELINES_MAX);
            let waiting: HashSet<String> = gauges.waiting.iter().map(|(pipeline, _)| pipeline.clone()).collect();
            let idle = gauges.lag.iter().filter(|(pipeline, _)| !waiting.contains(pipeline)).map(|(pipeline, _)| (pipeline.clone(), 0));
            gauges.waiting.extend(idle.collect::<Vec<_>>());
            gauges.waiting.truncate(PIPELINES_MAX);
            shown.gauges = gauges;
        }
    }

    /// All of it in Prometheus's text format.
    pub fn text(&self) -> Result<String, Failure> {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .map_err(|error| Failure::error("metrics", format!("metrics cannot be written: {error}")).blame(Blame::Weir))
    }

    /// Sends what was not sent yet. Blocks for some seconds at most.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_SENT) {
            tracing::debug!(%error, "the last metrics were not sent");
        }
    }
}

fn observe(meter: &Meter, shown: &Arc<Mutex<Shown>>) {
    let look = |shown: &Arc<Mutex<Shown>>| {
        let shown = shown.clone();
        move || shown.lock().ok().map(|shown| (shown.gauges.clone(), shown.broken.clone(), shown.unreachable))
    };
    let by = |pipeline: String| [KeyValue::new("pipeline", pipeline)];
    let see = look(shown);
    meter
        .f64_observable_gauge("weir.schedule.lag")
        .with_description("How far the oldest interval that is due and not published is behind its tick; 0 where none is")
        .with_unit("s")
        .with_callback(move |observer| {
            let lags = see().into_iter().flat_map(|(gauges, ..)| gauges.lag);
            lags.for_each(|(pipeline, seconds)| observer.observe(seconds, &by(pipeline)));
        })
        .build();
    let see = look(shown);
    meter
        .u64_observable_gauge("weir.queue.length")
        .with_description("Runs that wait for their turn")
        .with_callback(move |observer| {
            let waiting = see().into_iter().flat_map(|(gauges, ..)| gauges.waiting);
            waiting.for_each(|(pipeline, tasks)| observer.observe(tasks, &by(pipeline)));
        })
        .build();
    let see = look(shown);
    meter
        .u64_observable_gauge("weir.pool.connections")
        .with_description("Connections to databases, idle and used")
        .with_callback(move |observer| {
            for pool in see().into_iter().flat_map(|(gauges, ..)| gauges.pools) {
                observer.observe(pool.count, &[KeyValue::new("connection", pool.connection), KeyValue::new("state", pool.state)]);
            }
        })
        .build();
    let see = look(shown);
    meter
        .u64_observable_gauge("weir.pipeline.broken")
        .with_description("1 where a pipeline's file is wrong, and its last good version goes on")
        .with_callback(move |observer| {
            see().into_iter().flat_map(|(_, broken, _)| broken).for_each(|pipeline| observer.observe(1, &by(pipeline)));
        })
        .build();
    let single = |name: &'static str, about: &'static str, of: fn(&Gauges, bool) -> u64| {
        let see = look(shown);
        meter
            .u64_observable_gauge(name)
            .with_description(about)
            .with_callback(move |observer| {
                if let Some((gauges, _, unreachable)) = see() {
                    observer.observe(of(&gauges, unreachable), &[]);
                }
            })
            .build();
    };
    single("weir.runs.running", "Runs that this process makes now", |gauges, _| gauges.running);
    single("weir.leading", "1 where this server cuts time into runs", |gauges, _| gauges.leading.into());
    single("weir.state.reachable", "1 where the state answers", |_, unreachable| (!unreachable).into());
    meter
        .u64_observable_gauge("weir.memory")
        .with_description("Resident memory of the process")
        .with_unit("By")
        .with_callback(|observer| {
            if let Some(bytes) = resident_bytes() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("weir.build.info")
        .with_description("1, with the version")
        .with_callback(|observer| observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]))
        .build();
}

/// What the process holds in memory; none where the system does not say it as Linux does.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "a duration in milliseconds is far below 2^52")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{control::Pool, examples};

    fn line<'t>(text: &'t str, start: &str) -> Option<&'t str> {
        text.lines().find_map(|line| line.strip_prefix(start))
    }

    #[test]
    fn what_happens_is_counted_under_the_names_that_are_documented() {
        let metrics = Metrics::new(None).expect("metrics");
        metrics.take(&examples::started("orders", 1500));
        metrics.take(&examples::published("orders", 10, 1));
        metrics.take(&examples::failed("orders", "timeout", false));
        metrics.take(&examples::failed("orders", "timeout", true));
        metrics.take(&examples::skipped("orders"));
        metrics.take(&examples::late("orders"));
        metrics.take(&examples::broken("prices"));
        metrics.alerted("ops", "sent");
        let pool = Pool { connection: "warehouse".into(), state: "idle", count: 3 };
        let lag = vec![("orders".to_owned(), 2.5), ("idle".to_owned(), 0.0)];
        metrics.show(Some(Gauges { waiting: vec![("orders".into(), 7)], lag, running: 1, leading: true, pools: vec![pool] }));
        let text = metrics.text().expect("text");
        for (start, value) in [
            ("weir_runs_total{outcome=\"published\",pipeline=\"orders\"}", "1"),
            ("weir_runs_total{outcome=\"failed\",pipeline=\"orders\"}", "2"),
            ("weir_runs_total{outcome=\"failed\",pipeline=\"idle\"}", "0"),
            ("weir_rows_total{direction=\"read\",pipeline=\"orders\"}", "10"),
            ("weir_rows_total{direction=\"loaded\",pipeline=\"orders\"}", "9"),
            ("weir_rows_total{direction=\"quarantined\",pipeline=\"orders\"}", "1"),
            ("weir_bytes_total{direction=\"read\",pipeline=\"orders\"}", "1000"),
            ("weir_run_duration_seconds_count{pipeline=\"orders\"}", "3"),
            ("weir_start_delay_seconds_sum{origin=\"schedule\"}", "1.5"),
            ("weir_start_delay_seconds_bucket{origin=\"schedule\",le=\"1\"}", "0"),
            ("weir_start_delay_seconds_bucket{origin=\"schedule\",le=\"2\"}", "1"),
            ("weir_schedule_lag_seconds{pipeline=\"orders\"}", "2.5"),
            ("weir_queue_length{pipeline=\"orders\"}", "7"),
            ("weir_queue_length{pipeline=\"idle\"}", "0"),
            ("weir_retries_total{pipeline=\"orders\"}", "1"),
            ("weir_ticks_skipped_total{pipeline=\"orders\"}", "1"),
            ("weir_late_total{pipeline=\"orders\"}", "1"),
            ("weir_pipeline_broken{pipeline=\"prices\"}", "1"),
            ("weir_pool_connections{connection=\"warehouse\",state=\"idle\"}", "3"),
            ("weir_alerts_total{alert=\"ops\",outcome=\"sent\"}", "1"),
            ("weir_runs_running", "1"),
            ("weir_leading", "1"),
            ("weir_state_reachable", "1"),
            ("weir_build_info{version=\"0.1.0\"}", "1"),
        ] {
            assert_eq!(line(&text, start).map(str::trim), Some(value), "{start} in\n{text}");
        }
        metrics.take(&examples::mended("prices"));
        metrics.show(None);
        let text = metrics.text().expect("text");
        assert_eq!(line(&text, "weir_pipeline_broken{"), None);
        assert_eq!(line(&text, "weir_state_reachable"), Some(" 0"));
        assert_eq!(line(&text, "weir_leading"), Some(" 1"), "the last numbers stay");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_what_the_system_says() {
        let bytes = resident_bytes().expect("Linux says it");
        assert!(bytes > 1 << 20 && bytes < 1 << 36, "{bytes}");
    }

    #[test]
    fn there_are_never_more_series_than_the_limit() {
        let metrics = Metrics::new(None).expect("metrics");
        for at in 0..PIPELINES_MAX + 10 {
            metrics.take(&examples::skipped(&format!("p{at}")));
        }
        let text = metrics.text().expect("text");
        assert_eq!(text.lines().filter(|line| line.starts_with("weir_ticks_skipped_total{")).count(), PIPELINES_MAX + 1);
        assert_eq!(line(&text, "weir_ticks_skipped_total{pipeline=\"other\"}"), Some(" 10"));
    }
}
