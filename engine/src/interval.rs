//! For which stretch of time is a run, and what is said where none is given?

use chrono::{DateTime, TimeDelta, Utc};
use weir_connectors::Interval;
use weir_pipelines::{Diagnostic, Pipeline};

use crate::{error::Result, history::RunRecord};

/// The last interval of a pipeline's schedule that is over; none without a schedule, and before its first one is.
pub fn last_whole(pipeline: &Pipeline, now: DateTime<Utc>) -> Option<Interval> {
    let schedule = pipeline.schedule.as_ref()?;
    let end = schedule.last_at_or_before(now)?;
    let start = schedule.last_at_or_before(end.checked_sub_signed(TimeDelta::nanoseconds(1))?)?;
    Some(Interval { start, end })
}

/// The interval that a run was for.
pub fn of_run(run: &RunRecord) -> Option<Interval> {
    let instant = |text: &Option<String>| Some(DateTime::parse_from_rfc3339(text.as_deref()?).ok()?.to_utc());
    Some(Interval { start: instant(&run.interval_start)?, end: instant(&run.interval_end)? })
}

/// Refuses to execute steps that read the interval of a run, and the expectations of `pipeline` that do, where none is given.
pub fn demand(pipeline: &Pipeline, is_meant: impl Fn(&str) -> bool, interval: Option<Interval>, now: DateTime<Utc>) -> Result<()> {
    let Some(place) = pipeline.interval_use(is_meant).filter(|_| interval.is_none()) else { return Ok(()) };
    let name = &pipeline.name.value;
    let found = Diagnostic::error("interval-missing", format!("\"{name}\" is run for an interval, and none is given")).at(
        &pipeline.file,
        place,
        "the interval is used here",
    );
    let found = match last_whole(pipeline, now) {
        Some(last) => found.help(format!("run the last whole interval of its schedule: weir run {name} --interval {last}")),
        None => found.help(format!("say which: weir run {name} --interval 2026-01-31/2026-02-01")),
    };
    Err(vec![found].into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_pipelines::{Schedule, SourceFile, parse};

    use super::*;

    #[test]
    fn the_last_whole_interval_is_between_the_last_two_ticks() {
        let text = "weir = 1\nname = \"p\"\n[source.a.file]\npath = \"a.csv\"\n[sink.z]\nfrom = \"a\"\n[sink.z.lake]\ntable = \"t\"\n";
        let vocabulary = weir_connectors::vocabulary(&[], &[]);
        let mut pipeline = parse(SourceFile::new("p.toml", text), ".".into(), [].as_slice(), vocabulary).expect("is right");
        let at = |text: &str| -> DateTime<Utc> { text.parse().expect("an instant") };
        assert_eq!(last_whole(&pipeline, at("2026-01-01T00:30:00Z")), None);
        let start = Some(at("2026-01-01T00:00:00Z"));
        pipeline.schedule = Some(Schedule { every: Some(Duration::from_secs(3600)), start, ..Schedule::default() });
        let last = |now| last_whole(&pipeline, at(now)).map(|interval| interval.to_string());
        assert_eq!(last("2026-01-01T00:30:00Z"), None);
        assert_eq!(last("2026-01-01T01:00:00Z").as_deref(), Some("2026-01-01T00:00:00Z/2026-01-01T01:00:00Z"));
        assert_eq!(last("2026-01-01T02:59:59Z").as_deref(), Some("2026-01-01T01:00:00Z/2026-01-01T02:00:00Z"));
    }
}
