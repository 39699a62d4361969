//! The `[schedule]` table.

use chrono::{DateTime, Utc};
use toml::de::DeValue;

use super::walk::{Table, Walk, is_name, suggest, type_name};
use crate::{
    cron::{CatchUp, Cron, Overlap, Retry, Schedule, moment},
    diagnostic::Spanned,
    units,
};

pub(crate) const KEYS: [&str; 12] =
    ["cron", "every", "timezone", "start", "end", "catch_up", "overlap", "after", "timeout", "deadline", "jitter", "retry"];
const RETRY_KEYS: [&str; 3] = ["attempts", "backoff", "backoff_max"];

/// Reads a schedule. `pipeline` is the pipeline's own name, which it cannot wait for.
pub(crate) fn schedule(walk: &mut Walk<'_>, table: Table<'_, '_>, pipeline: Option<&str>) -> Option<Schedule> {
    walk.unknown_keys(table, &KEYS);
    let before = walk.found.len();
    let cron = walk.string(table, "cron");
    let every = walk.some_duration(table, "every");
    match (table.entries.get_key_value("cron"), table.entries.get_key_value("every")) {
        (Some((cron, _)), Some((every, _))) => {
            let file = walk.file().clone();
            let found = walk.error("two-schedules", "a schedule has either \"cron\" or \"every\", not both", every.span(), "");
            *found = found.clone().at(&file, cron.span(), "");
        }
        (None, None) => {
            let found = walk.error("missing-key", "[schedule] needs the key \"cron\" or the key \"every\"", table.span.clone(), "");
            found.help.push("write cron = \"15 6 * * *\" or every = \"1h\"".into());
        }
        _ => {}
    }
    let has_cron = cron.is_some();
    let cron = cron.and_then(|text| {
        let span = text.span.clone();
        match Cron::parse(text) {
            Err(message) => {
                walk.error("bad-cron", message, span, "");
                None
            }
            Ok(cron) if !cron.fires() => {
                walk.error("never-fires", "this schedule never fires", span, "no such date");
                None
            }
            Ok(cron) => Some(cron),
        }
    });
    let timezone = walk.string(table, "timezone").and_then(|zone| timezone(walk, &zone));
    if timezone.is_some_and(|zone| zone != chrono_tz::UTC)
        && let Some((key, _)) = table.entries.get_key_value("timezone")
        && every.is_some()
        && !has_cron
        // A start on the clock of the zone is one that the zone changes.
        && !["start", "end"].iter().any(|key| table.entries.get(*key).is_some_and(|value| is_local(value.get_ref())))
    {
        walk.warning("no-effect", "\"timezone\" changes nothing beside \"every\"", key.span(), "")
            .help
            .push("\"every\" counts from 1970-01-01T00:00:00Z; use \"cron\" for times of the day".into());
    }
    let catch_up = walk.word(table, "catch_up", &[("all", CatchUp::All), ("latest", CatchUp::Latest), ("none", CatchUp::None)]);
    let overlap = walk.word(table, "overlap", &[("skip", Overlap::Skip), ("queue", Overlap::Queue), ("cancel", Overlap::Cancel)]);
    let after = walk.strings(table, "after").unwrap_or_default();
    for name in &after {
        if !is_name(&name.value, false) {
            walk.error("bad-name", format!("\"{}\" is not the name of a pipeline", name.value), name.span.clone(), "");
        } else if pipeline == Some(name.value.as_str()) {
            walk.wrong_value("a pipeline cannot wait for itself", name.span.clone());
        }
    }
    let timeout = walk.some_duration(table, "timeout").map(|timeout| timeout.value);
    let deadline = walk.some_duration(table, "deadline");
    let jitter = walk.some_duration(table, "jitter");
    if let (Some(every), Some(jitter)) = (&every, &jitter)
        && jitter.value >= every.value
    {
        let message = format!("\"jitter\" must be shorter than \"every\", which is {}", units::shown(every.value));
        walk.wrong_value(message, jitter.span.clone()).help.push("a run starts later than its tick by up to this".into());
    }
    if let (Some(deadline), Some(jitter)) = (&deadline, &jitter)
        && jitter.value >= deadline.value
    {
        let message = format!("\"deadline\" must be longer than \"jitter\", which is {}", units::shown(jitter.value));
        walk.wrong_value(message, deadline.span.clone()).help.push("both count from the tick".into());
    }
    // Where the zone is wrong, it is told, and nothing is said of what its clock would show.
    let zone = timezone.unwrap_or(chrono_tz::UTC);
    let (start, end) = (bound(walk, table, "start", zone), bound(walk, table, "end", zone));
    let retry = match table.entries.get_key_value("retry") {
        Some((key, value)) => {
            let span = match value.get_ref() {
                DeValue::Table(_) => value.span(),
                _ => key.span(),
            };
            walk.as_table("retry", value).and_then(|entries| retry(walk, Table { entries, what: "[schedule.retry]", span: &span }))
        }
        None => None,
    };
    let schedule = Schedule {
        cron,
        every: every.map(|every| every.value),
        timezone: zone,
        catch_up: catch_up.map(|word| word.value).unwrap_or_default(),
        overlap: overlap.map(|word| word.value).unwrap_or_default(),
        after,
        timeout,
        deadline: deadline.map(|deadline| deadline.value),
        jitter: jitter.map(|jitter| jitter.value),
        start: start.as_ref().map(|start| start.value),
        end: end.as_ref().map(|end| end.value),
        retry,
    };
    let is_wrong = |walk: &Walk<'_>| walk.found[before..].iter().any(|found| found.severity == crate::Severity::Error);
    if let (Some(end), false) = (end, is_wrong(walk)) {
        let early = schedule.start.is_some_and(|start| start >= end.value);
        // The interval that the first two ticks enclose is the first one. Without a start there is always an earlier tick.
        let first = schedule.start.and_then(|start| schedule.next_after(start - chrono::TimeDelta::nanoseconds(1)));
        if early {
            walk.wrong_value("\"end\" must be later than \"start\"", end.span);
        } else if schedule.start.is_some() && first.and_then(|first| schedule.next_after(first)).is_none() {
            let message = "this schedule never fires: no whole interval lies between its start and its end";
            walk.error("never-fires", message, end.span, "too early");
        }
    }
    (!is_wrong(walk)).then_some(schedule)
}

/// Whether a value is a datetime on the clock of a zone that it does not name.
fn is_local(value: &DeValue<'_>) -> bool {
    matches!(value, DeValue::Datetime(moment) if moment.offset.is_none())
}

/// Reads a datetime or a date: an instant where it has an offset, else a time on the clock of the schedule's zone.
fn bound(walk: &mut Walk<'_>, table: Table<'_, '_>, key: &str, zone: chrono_tz::Tz) -> Option<Spanned<DateTime<Utc>>> {
    let value = table.entries.get(key)?;
    let DeValue::Datetime(written) = value.get_ref() else {
        let message = format!("expected a date or a datetime for \"{key}\", found {}", type_name(value.get_ref()));
        walk.error("wrong-type", message, value.span(), "").help.push(format!("write {key} = 2026-01-31 or {key} = 2026-01-31T06:00:00Z"));
        return None;
    };
    let text = written.to_string();
    let Some(at) = moment(&text, zone) else {
        let message = format!("\"{key}\" must be a date or a datetime, such as 2026-01-31 or 2026-01-31T06:00:00Z, not {text}");
        walk.wrong_value(message, value.span());
        return None;
    };
    Some(Spanned::new(at, value.span()))
}

fn timezone(walk: &mut Walk<'_>, zone: &Spanned<String>) -> Option<chrono_tz::Tz> {
    if let Ok(known) = zone.value.parse() {
        return Some(known);
    }
    let names: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
    let found = walk.error("unknown-timezone", format!("no time zone \"{}\"", zone.value), zone.span.clone(), "not known");
    // A city alone is the likeliest mistake, and no spelling away from its full name.
    let city = |name: &&&str| name.rsplit_once('/').is_some_and(|(_, city)| city.eq_ignore_ascii_case(&zone.value.replace(' ', "_")));
    match names.iter().find(city) {
        Some(name) => found.help.push(format!("did you mean \"{name}\"?")),
        None => suggest(found, &zone.value, &names),
    }
    found.help.push("time zones have IANA names such as \"Europe/Berlin\", or \"UTC\"".into());
    None
}

fn retry(walk: &mut Walk<'_>, table: Table<'_, '_>) -> Option<Retry> {
    walk.unknown_keys(table, &RETRY_KEYS);
    let attempts = walk.whole_number(table, "attempts").and_then(|attempts| match u32::try_from(attempts.value) {
        Ok(number @ 1..) => Some(number),
        _ => {
            walk.wrong_value("\"attempts\" counts the first try too, so it is 1 or more (and at most 4294967295)", attempts.span);
            None
        }
    });
    let backoff = walk.duration(table, "backoff");
    let backoff_max = walk.duration(table, "backoff_max");
    let retry = Retry {
        attempts: attempts.unwrap_or(3),
        backoff: backoff.as_ref().map_or(std::time::Duration::from_secs(30), |backoff| backoff.value),
        backoff_max: backoff_max.as_ref().map_or(std::time::Duration::from_secs(600), |backoff| backoff.value),
    };
    if retry.backoff > retry.backoff_max
        && let Some(place) = backoff_max.or(backoff)
    {
        walk.wrong_value("\"backoff\" is longer than \"backoff_max\"", place.span)
            .help
            .push("\"backoff_max\" is 10m unless written".into());
    }
    Some(retry)
}
