//! The `[schedule]` table.

use toml::de::DeValue;

use super::walk::{Table, Walk, is_name, suggest};
use crate::{
    cron::{CatchUp, Expression, Overlap, Retry, Schedule},
    diagnostic::Spanned,
};

pub(crate) const KEYS: [&str; 8] = ["cron", "every", "timezone", "catch_up", "overlap", "after", "timeout", "retry"];
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
    if let Some(cron) = &cron {
        match Expression::parse(&cron.value) {
            Err(message) => {
                walk.error("bad-cron", message, cron.span.clone(), "");
            }
            Ok(expression) if !expression.fires() => {
                walk.error("never-fires", "this schedule never fires", cron.span.clone(), "no such date");
            }
            Ok(_) => {}
        }
    }
    let timezone = walk.string(table, "timezone").and_then(|zone| timezone(walk, &zone));
    if timezone.is_some_and(|zone| zone != chrono_tz::UTC)
        && let (Some(every), Some((key, _))) = (&every, table.entries.get_key_value("timezone"))
        && cron.is_none()
    {
        let _ = every;
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
    let wrong = walk.found[before..].iter().any(|found| found.severity == crate::Severity::Error);
    (!wrong).then(|| Schedule {
        cron,
        every: every.map(|every| every.value),
        timezone: timezone.unwrap_or(chrono_tz::UTC),
        catch_up: catch_up.map_or(CatchUp::Latest, |word| word.value),
        overlap: overlap.map_or(Overlap::Skip, |word| word.value),
        after,
        timeout,
        retry,
    })
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
