//! How long does it take to parse a cron expression, and to find its next thousand ticks? In UTC, and in a zone whose clock is set twice a year.

use std::hint::black_box;

use chrono::{DateTime, Utc};
use criterion::{Criterion, Throughput, criterion_group};
use weir_pipelines::{Cron, Schedule, Spanned};

const TICKS: u64 = 1000;

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cron/parse");
    for (name, text) in [("daily", "15 6 * * *"), ("lists", "0,20,40 8-18/2 1-7,15 jan-jun mon-fri"), ("seconds", "*/5 * * * * *")] {
        group.bench_function(name, |bencher| bencher.iter(|| cron(black_box(text))));
    }
    group.finish();
}

fn ticks(criterion: &mut Criterion) {
    let after: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().expect("an instant");
    let mut group = criterion.benchmark_group("cron/ticks");
    group.throughput(Throughput::Elements(TICKS));
    for (name, text, zone) in [
        ("every_minute", "* * * * *", "UTC"),
        ("daily", "30 2 * * *", "UTC"),
        ("daily_new_york", "30 2 * * *", "America/New_York"),
        ("every_second_new_york", "* * * * * *", "America/New_York"),
        ("weekdays_in_quarters", "0 9 * 1,4,7,10 mon-fri", "UTC"),
    ] {
        let schedule = Schedule { cron: Some(cron(text)), timezone: zone.parse().expect("a zone"), ..Schedule::default() };
        group.bench_function(name, |bencher| bencher.iter(|| last_of(&schedule, black_box(after))));
    }
    group.finish();
}

fn cron(text: &str) -> Cron {
    Cron::parse(Spanned::new(text.to_owned(), 0..0)).expect("an expression")
}

/// The last of so many ticks.
fn last_of(schedule: &Schedule, after: DateTime<Utc>) -> DateTime<Utc> {
    (0..TICKS).fold(after, |at, _| schedule.next_after(at).expect("it ticks"))
}

criterion_group!(benches, parse, ticks);
