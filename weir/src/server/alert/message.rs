//! A message of an alert, and its forms: JSON for a webhook, a text for people, what Alertmanager takes.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};
use serde_json::{Value, json};
use weir_pipelines::Cause;

/// Items that a message says one by one; it counts the others.
const SAID_MAX: usize = 100;
/// Names in a subject.
const NAMES_MAX: usize = 5;
/// An alert that nobody repeats within so many times its period is over to Alertmanager: the server is gone.
const MISSED: u32 = 4;
/// Alertmanager's own time for the same, by default.
const RESOLVE_MIN: Duration = Duration::from_secs(300);

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// The pipeline's name.
    pub pipeline: String,
    /// What is wrong.
    pub cause: Cause,
    /// When it first was.
    pub since: DateTime<Utc>,
    /// When it last was.
    pub last: DateTime<Utc>,
    /// How often, since the pipeline was well.
    pub times: u64,
    /// What happened last, in a sentence.
    pub text: String,
    /// The code of the error.
    pub code: Option<String>,
    /// The run that it last happened to; of one that is over, the run that made it good.
    pub run: Option<String>,
    /// The interval of that run.
    pub interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

/// An incident that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub incident: Incident,
    /// Since when it is over; none while it stands.
    pub over: Option<DateTime<Utc>>,
    /// It has been told before, and still stands.
    pub is_repeat: bool,
}

/// What is told at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The alert's name.
    pub alert: String,
    /// When.
    pub at: DateTime<Utc>,
    /// What, sorted by pipeline; never empty.
    pub items: Vec<Item>,
}

fn text(at: DateTime<Utc>) -> String {
    at.trunc_subsecs(3).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

impl Item {
    /// In a line.
    fn line(&self) -> String {
        let Incident { pipeline, cause, since, times, text: what, run, interval, .. } = &self.incident;
        let interval = interval.map(|(start, end)| format!(", interval {} to {}", text(start), text(end))).unwrap_or_default();
        let run = run.as_ref().map(|run| format!(" (run {run}{interval})")).unwrap_or_default();
        if let Some(over) = self.over {
            let times = if *times > 1 { format!(", {times} times") } else { String::new() };
            return format!("{pipeline}: recovered at {}{run}; {} since {}{times}: {what}", text(over), word(*cause), text(*since));
        }
        let again = match (self.is_repeat, times) {
            (true, 1) => format!(", still, since {}", text(*since)),
            (true, times) => format!(", still, {times} times since {}", text(*since)),
            (false, 1) => String::new(),
            (false, times) => format!(", {times} times since {}", text(*since)),
        };
        format!("{pipeline}: {}{again}: {what}{run}", word(*cause))
    }

    fn json(&self) -> Value {
        let Incident { pipeline, cause, since, last, times, text: message, code, run, interval } = &self.incident;
        json!({
            "pipeline": pipeline,
            "cause": cause.as_str(),
            "status": if self.over.is_some() { "recovered" } else { "firing" },
            "repeated": self.is_repeat,
            "since": text(*since),
            "last": text(*last),
            "recovered_at": self.over.map(text),
            "times": times,
            "message": message,
            "code": code,
            "run": run,
            "interval_start": interval.map(|(start, _)| text(start)),
            "interval_end": interval.map(|(_, end)| text(end)),
        })
    }

    fn alertmanager(&self, now: DateTime<Utc>, repeat: Duration) -> Value {
        let Incident { pipeline, cause, since, run, code, .. } = &self.incident;
        let severity = if matches!(cause, Cause::Failed | Cause::Broken) { "critical" } else { "warning" };
        let alive = repeat.saturating_mul(MISSED).max(RESOLVE_MIN);
        let ends = self.over.unwrap_or(now + TimeDelta::from_std(alive).unwrap_or(TimeDelta::days(1)));
        // An alert is known by its labels: what changes from time to time is said in annotations.
        json!({
            "labels": { "alertname": alertname(*cause), "pipeline": pipeline, "cause": cause.as_str(), "severity": severity, "service": "weir" },
            "annotations": {
                "summary": format!("{pipeline}: {}", word(*cause)),
                "description": self.line(),
                "run": run.as_deref().unwrap_or_default(),
                "code": code.as_deref().unwrap_or_default(),
            },
            "startsAt": text(*since),
            "endsAt": text(ends.max(*since)),
        })
    }
}

/// What is said of a cause.
fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Failed => "failed",
        Cause::Late => "late",
        Cause::NoRows => "no rows",
        Cause::Rejected => "rows rejected",
        Cause::Broken => "file wrong",
        Cause::Recovered => "recovered",
    }
}

/// What Alertmanager knows it by.
fn alertname(cause: Cause) -> &'static str {
    match cause {
        Cause::Failed => "WeirRunFailed",
        Cause::Late => "WeirRunLate",
        Cause::NoRows => "WeirNoRows",
        Cause::Rejected => "WeirRowsRejected",
        Cause::Broken => "WeirPipelineBroken",
        Cause::Recovered => "WeirRecovered",
    }
}

impl Message {
    fn standing(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.over.is_none())
    }

    /// In a few words: how many of what, and which pipelines.
    pub fn subject(&self) -> String {
        let mut parts = Vec::new();
        for cause in Cause::ALL {
            let of = self.standing().filter(|item| item.incident.cause == cause).count();
            if of > 0 {
                parts.push(format!("{of} {}", word(cause)));
            }
        }
        let over = self.items.len() - self.standing().count();
        if over > 0 {
            parts.push(format!("{over} recovered"));
        }
        let mut names: Vec<&str> = self.items.iter().map(|item| item.incident.pipeline.as_str()).collect();
        names.dedup();
        let more = names.len().saturating_sub(NAMES_MAX);
        names.truncate(NAMES_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("weir: {}: {}{more}", parts.join(", "), names.join(", "))
    }

    /// In lines: what stands before what is over.
    pub fn text(&self) -> String {
        let (standing, over): (Vec<&Item>, Vec<&Item>) = self.items.iter().partition(|item| item.over.is_none());
        let mut lines: Vec<String> = standing.into_iter().chain(over).take(SAID_MAX).map(Item::line).collect();
        let more = self.items.len().saturating_sub(SAID_MAX);
        if more > 0 {
            lines.push(format!("and {more} more; weir runs list says which"));
        }
        lines.join("\n")
    }

    /// For a webhook.
    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "alert": self.alert,
            "status": if self.standing().next().is_some() { "firing" } else { "recovered" },
            "at": text(self.at),
            "title": self.subject(),
            "items": self.items.iter().take(SAID_MAX).map(Item::json).collect::<Vec<_>>(),
            "more": self.items.len().saturating_sub(SAID_MAX),
        })
    }

    /// For Slack, and for whoever takes what Slack takes.
    pub fn slack(&self) -> Value {
        // These three are all that Slack reads as more than a letter.
        let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        json!({ "text": format!("*{}*\n{}", escaped(&self.subject()), escaped(&self.text())) })
    }

    /// For Alertmanager's `POST /api/v2/alerts`; `repeat`: how soon it is told again that an alert stands.
    pub fn alertmanager(&self, repeat: Duration) -> Value {
        Value::Array(self.items.iter().map(|item| item.alertmanager(self.at, repeat)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::examples::instant;

    fn item(pipeline: &str, cause: Cause) -> Item {
        let incident = Incident {
            pipeline: pipeline.to_owned(),
            cause,
            since: instant(),
            last: instant(),
            times: 1,
            text: "step \"rows\": the file <a> & co is missing".to_owned(),
            code: Some("file-missing".to_owned()),
            run: Some("r1".to_owned()),
            interval: Some((instant() - TimeDelta::hours(1), instant())),
        };
        Item { incident, over: None, is_repeat: false }
    }

    fn message() -> Message {
        let mut again = item("prices", Cause::Late);
        (again.is_repeat, again.incident.times, again.incident.interval) = (true, 3, None);
        let over = Item { over: Some(instant() + TimeDelta::minutes(5)), ..item("stock", Cause::Failed) };
        Message { alert: "ops".into(), at: instant(), items: vec![item("orders", Cause::Failed), again, over] }
    }

    #[test]
    fn a_text_says_what_happened_to_what() {
        assert_eq!(message().subject(), "weir: 1 failed, 1 late, 1 recovered: orders, prices, stock");
        assert_eq!(
            message().text(),
            "orders: failed: step \"rows\": the file <a> & co is missing (run r1, interval 2027-03-28T00:00:00Z to 2027-03-28T01:00:00Z)\n\
             prices: late, still, 3 times since 2027-03-28T01:00:00Z: step \"rows\": the file <a> & co is missing (run r1)\n\
             stock: recovered at 2027-03-28T01:05:00Z (run r1, interval 2027-03-28T00:00:00Z to 2027-03-28T01:00:00Z); failed since \
             2027-03-28T01:00:00Z: step \"rows\": the file <a> & co is missing"
        );
    }

    #[test]
    fn slack_reads_no_markup_in_it() {
        let slack = message().slack();
        let text = slack["text"].as_str().expect("text");
        assert!(text.starts_with("*weir: 1 failed, 1 late, 1 recovered: orders, prices, stock*\norders: failed: "), "{text}");
        assert!(text.contains("the file &lt;a&gt; &amp; co is missing"), "{text}");
    }

    #[test]
    fn a_webhook_gets_each_as_an_object() {
        let json = message().json();
        assert_eq!((json["status"].as_str(), json["alert"].as_str(), json["more"].as_u64()), (Some("firing"), Some("ops"), Some(0)));
        assert_eq!(
            json["items"][0],
            json!({
                "pipeline": "orders", "cause": "failed", "status": "firing", "repeated": false,
                "since": "2027-03-28T01:00:00Z", "last": "2027-03-28T01:00:00Z", "recovered_at": null, "times": 1,
                "message": "step \"rows\": the file <a> & co is missing", "code": "file-missing", "run": "r1",
                "interval_start": "2027-03-28T00:00:00Z", "interval_end": "2027-03-28T01:00:00Z",
            })
        );
        assert_eq!(json["items"][2]["recovered_at"], "2027-03-28T01:05:00Z");
    }

    #[test]
    fn alertmanager_keeps_an_alert_until_it_is_over_or_the_server_is_gone() {
        let alerts = message().alertmanager(Duration::from_secs(600));
        assert_eq!(
            alerts[0]["labels"],
            json!({ "alertname": "WeirRunFailed", "pipeline": "orders", "cause": "failed", "severity": "critical", "service": "weir" })
        );
        assert_eq!(alerts[0]["endsAt"], "2027-03-28T01:40:00Z");
        assert_eq!(alerts[1]["labels"]["severity"], "warning");
        assert_eq!(alerts[2]["endsAt"], "2027-03-28T01:05:00Z");
        assert_eq!(message().alertmanager(Duration::from_secs(1))[0]["endsAt"], "2027-03-28T01:05:00Z", "no shorter than its own time");
    }

    #[test]
    fn a_thousand_incidents_are_no_longer_than_a_hundred() {
        let items: Vec<Item> = (0..1000).map(|at| item(&format!("p{at:04}"), Cause::Failed)).collect();
        let message = Message { alert: "ops".into(), at: instant(), items };
        assert_eq!(message.subject(), "weir: 1000 failed: p0000, p0001, p0002, p0003, p0004 and 995 more");
        assert_eq!(message.text().lines().count(), SAID_MAX + 1);
        assert!(message.text().ends_with("and 900 more; weir runs list says which"));
        assert_eq!((message.json()["items"].as_array().map(Vec::len), message.json()["more"].as_u64()), (Some(SAID_MAX), Some(900)));
    }
}
