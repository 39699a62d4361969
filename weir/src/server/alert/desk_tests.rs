//! Whether an alert tells what it should, when it should, and nothing twice.

use super::*;
use crate::server::examples::{broken, cancelled, failed, instant, late, mended, published};

/// An alert as `weir.toml` would say it, of a webhook with these keys.
pub(in crate::server) fn alert(keys: &str) -> Alert {
    let text = format!("[alert.ops]\n{keys}\n[alert.ops.webhook]\nurl = \"http://127.0.0.1:9\"\n");
    let file = weir_pipelines::SourceFile::new("weir.toml", text.as_str());
    let mut project = weir_pipelines::Project::parse(file, "/".into(), None).expect("right");
    project.alerts.remove(0)
}

fn desk(keys: &str) -> Desk {
    Desk::new(alert(keys), Duration::from_secs(30), Duration::from_secs(3600))
}

fn at(seconds: u64) -> Now {
    Now { at: instant() + Duration::from_secs(seconds), since: Duration::from_secs(seconds) }
}

/// What is told until an instant, with each instant: `orders failed`, `orders failed 2 times`, `orders failed again`, `orders failed over`.
fn told(desk: &mut Desk, until: u64) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    while let Some(due) = desk.due().filter(|due| due.as_secs() <= until) {
        let now = at(due.as_secs());
        let message = desk.message(now, false).expect("it is due");
        desk.sent();
        all.push((due.as_secs(), said(&message)));
        assert!(all.len() < 1000, "it never ends: {all:?}");
    }
    assert!(desk.message(at(until), false).is_none());
    all
}

fn said(message: &Message) -> String {
    let say = |item: &Item| {
        let Item { incident, over, is_repeat } = item;
        let times = if incident.times > 1 { format!(" {} times", incident.times) } else { String::new() };
        let what = if over.is_some() {
            " over"
        } else if *is_repeat {
            " again"
        } else {
            ""
        };
        format!("{} {}{times}{what}", incident.pipeline, incident.cause.as_str())
    };
    message.items.iter().map(say).collect::<Vec<_>>().join(", ")
}

fn one(at: u64, said: &str) -> Vec<(u64, String)> {
    vec![(at, said.to_owned())]
}

#[test]
fn the_first_waits_for_the_others_of_its_group() {
    let mut desk = desk("");
    desk.take(&failed("orders", "x", false), at(100));
    desk.take(&failed("prices", "x", false), at(110));
    desk.take(&late("stock"), at(129));
    assert_eq!(told(&mut desk, 129), []);
    desk.take(&failed("orders", "x", false), at(129));
    assert_eq!(told(&mut desk, 200), one(130, "orders failed 2 times, prices failed, stock late"));
    desk.take(&late("other"), at(131));
    assert_eq!(told(&mut desk, 200), one(161, "other late"));
}

#[test]
fn what_still_stands_is_told_again_after_the_time_and_not_for_each_time_it_happens() {
    let mut desk = desk("repeat = \"1h\"\ngroup = \"0s\"");
    let mut all = Vec::new();
    for minute in 0..150 {
        desk.take(&failed("orders", "x", false), at(minute * 60));
        all.extend(told(&mut desk, minute * 60 + 59));
    }
    let expected = [(0, "orders failed"), (3600, "orders failed 61 times again"), (7200, "orders failed 121 times again")];
    assert_eq!(all, expected.map(|(at, said)| (at, said.to_owned())));
}

#[test]
fn what_is_over_is_told_once_and_what_never_stood_is_not() {
    let mut desk = desk("group = \"0s\"\nrepeat = \"1h\"");
    desk.take(&published("orders", 5, 0), at(0));
    assert_eq!(told(&mut desk, 10), []);
    desk.take(&failed("orders", "x", false), at(10));
    assert_eq!(told(&mut desk, 10), one(10, "orders failed"));
    desk.take(&published("orders", 5, 0), at(20));
    desk.take(&published("orders", 5, 0), at(30));
    assert_eq!(told(&mut desk, 99_999), one(20, "orders failed over"));
    assert!(!desk.is_standing());
}

#[test]
fn what_fails_and_recovers_within_a_group_is_told_as_both() {
    let mut desk = desk("");
    desk.take(&failed("orders", "x", false), at(0));
    desk.take(&failed("orders", "x", false), at(1));
    desk.take(&published("orders", 5, 0), at(2));
    assert_eq!(told(&mut desk, 60), one(30, "orders failed 2 times over"));
    let mut quiet = self::desk("on = [\"failed\"]");
    quiet.take(&failed("orders", "x", false), at(0));
    quiet.take(&published("orders", 5, 0), at(2));
    assert_eq!(told(&mut quiet, 99_999), one(30, "orders failed"), "who does not ask for recoveries is told what happened, once");
}

#[test]
fn what_is_tried_again_has_not_failed_yet() {
    let mut desk = desk("group = \"0s\"");
    desk.take(&failed("orders", "x", true), at(0));
    assert_eq!(told(&mut desk, 10), []);
    desk.take(&failed("orders", "x", false), at(10));
    assert_eq!(told(&mut desk, 10), one(10, "orders failed"));
}

#[test]
fn what_a_person_stopped_is_no_failure() {
    let mut desk = desk("group = \"0s\"");
    desk.take(&cancelled("orders"), at(0));
    assert_eq!(told(&mut desk, 10), []);
}

#[test]
fn a_run_without_rows_and_one_with_too_many_bad_ones_are_told() {
    let mut desk = desk("group = \"0s\"\nmax_rejected = \"10%\"");
    desk.take(&published("orders", 0, 0), at(0));
    assert_eq!(told(&mut desk, 0), one(0, "orders no_rows"));
    desk.take(&published("orders", 100, 10), at(1));
    assert_eq!(told(&mut desk, 1), one(1, "orders no_rows over"));
    desk.take(&published("orders", 100, 11), at(2));
    assert_eq!(told(&mut desk, 2), one(2, "orders rejected"));
    desk.take(&published("orders", 100, 100), at(3));
    assert_eq!(told(&mut desk, 3), one(3, "orders no_rows"));
    desk.take(&published("orders", 100, 0), at(4));
    assert_eq!(told(&mut desk, 4), one(4, "orders no_rows over, orders rejected 2 times over"));
    let mut strict = self::desk("group = \"0s\"");
    strict.take(&published("orders", 100, 1), at(0));
    assert_eq!(told(&mut strict, 0), one(0, "orders rejected"));
    let mut some = self::desk("group = \"0s\"\nmax_rejected = 1");
    some.take(&published("orders", 100, 1), at(0));
    assert_eq!(told(&mut some, 0), []);
}

#[test]
fn a_file_that_is_wrong_is_told_until_it_is_right() {
    let mut desk = desk("group = \"0s\"");
    desk.take(&broken("orders"), at(0));
    desk.take(&published("orders", 5, 0), at(1));
    assert_eq!(told(&mut desk, 1), one(0, "orders broken"), "its last good version publishes, and it is wrong still");
    desk.take(&mended("orders"), at(2));
    assert_eq!(told(&mut desk, 2), one(2, "orders broken over"));
}

#[test]
fn an_alert_is_about_its_pipelines_and_its_causes() {
    let mut desk = desk("group = \"0s\"\npipelines = [\"sales-*\", \"orders\"]\non = [\"late\", \"recovered\"]");
    for pipeline in ["orders", "orders2", "sales-eu"] {
        desk.take(&late(pipeline), at(0));
        desk.take(&failed(pipeline, "x", false), at(0));
        desk.take(&broken(pipeline), at(0));
    }
    assert_eq!(told(&mut desk, 0), one(0, "orders late, sales-eu late"));
}

#[test]
fn a_receiver_that_is_down_is_tried_less_and_less_often_and_gets_what_has_happened_meanwhile() {
    let mut desk = desk("");
    desk.take(&failed("orders", "x", false), at(0));
    let mut tries = Vec::new();
    let given_up = loop {
        let now = at(desk.due().expect("it waits").as_secs());
        let message = desk.message(now, false).expect("it is due");
        tries.push(now.since.as_secs());
        match tries.len() {
            3 => desk.take(&late("prices"), now),
            4 => assert_eq!(said(&message), "orders failed, prices late"),
            5 => desk.take(&published("orders", 5, 0), now),
            6 => assert_eq!(said(&message), "orders failed over, prices late"),
            _ => {}
        }
        if desk.unsent(message, now) {
            break now.since.as_secs();
        }
        assert!(tries.len() < 100, "{tries:?}");
    };
    assert_eq!(tries[..10], [30, 31, 33, 37, 45, 61, 93, 157, 285, 541]);
    assert!(tries.windows(2).skip(9).all(|pair| pair[1] - pair[0] == 300), "{tries:?}");
    assert!((3630..3900 + 30).contains(&given_up), "{given_up}");
    // What still stands is told again when its time comes.
    assert_eq!(told(&mut desk, 20_000).first(), Some(&(given_up + 3600, "prices late again".to_owned())));
}

#[test]
fn a_receiver_that_answers_again_is_told_at_once() {
    let mut desk = desk("");
    desk.take(&failed("orders", "x", false), at(0));
    let message = desk.message(at(30), false).expect("it is due");
    assert!(!desk.unsent(message, at(40)));
    assert_eq!(desk.due(), Some(at(41).since));
    let message = desk.message(at(41), false).expect("it is due");
    assert_eq!(said(&message), "orders failed");
    desk.sent();
    desk.take(&late("orders"), at(50));
    assert_eq!(desk.due(), Some(at(80).since), "the next group has its own time");
}

#[test]
fn what_failed_before_this_server_began_is_not_told_anew_and_its_recovery_is() {
    let ended = |published: bool, seconds: u64| LastEnded {
        pipeline: "orders".into(),
        run: "r1".into(),
        at: at(seconds).at,
        published,
        code: None,
        error: Some("no".into()),
    };
    let mut desk = desk("group = \"0s\"\nrepeat = \"1h\"");
    desk.recall(&[ended(false, 0), LastEnded { pipeline: "fine".into(), ..ended(true, 0) }], at(100));
    assert_eq!(told(&mut desk, 3699), []);
    assert_eq!(told(&mut desk, 3700), one(3700, "orders failed again"));
    desk.take(&published("orders", 5, 0), at(3701));
    assert_eq!(told(&mut desk, 9999), one(3701, "orders failed over"));
}

#[test]
fn what_another_server_has_published_is_over() {
    let mut desk = desk("group = \"0s\"");
    desk.take(&failed("orders", "x", false), at(100));
    assert_eq!(told(&mut desk, 100), one(100, "orders failed"));
    let ended = |seconds: u64| LastEnded {
        pipeline: "orders".into(),
        run: "r2".into(),
        at: at(seconds).at,
        published: true,
        code: None,
        error: None,
    };
    desk.settle(&[ended(99)], at(110));
    assert_eq!(told(&mut desk, 110), [], "it had published before");
    desk.settle(&[ended(105)], at(120));
    assert_eq!(told(&mut desk, 120), one(120, "orders failed over"));
}

#[test]
fn a_clock_that_jumps_changes_no_time_until_something_is_told() {
    let mut desk = desk("repeat = \"1h\"");
    desk.take(&failed("orders", "x", false), at(0));
    let jumped = |since: u64| Now { at: instant() - Duration::from_secs(86_400), since: Duration::from_secs(since) };
    assert!(desk.message(jumped(29), false).is_none());
    assert_eq!(said(&desk.message(jumped(30), false).expect("it is due")), "orders failed");
    desk.sent();
    assert_eq!(desk.due(), Some(Duration::from_secs(3630)));
}

#[test]
fn at_the_end_a_group_is_not_waited_for() {
    let mut desk = desk("");
    desk.take(&failed("orders", "x", false), at(0));
    assert!(desk.message(at(1), false).is_none());
    assert_eq!(said(&desk.message(at(1), true).expect("all")), "orders failed");
    assert!(desk.message(at(1), true).is_none());
}

#[test]
fn a_text_is_no_longer_than_a_screen_and_stays_text() {
    let short = shortened("é".repeat(2000));
    assert!(short.len() <= TEXT_MAX + 3 && short.ends_with("é…"), "{}", short.len());
    assert_eq!(shortened("a".into()), "a");
}

#[test]
fn incidents_are_bounded_whatever_happens() {
    let mut desk = desk("");
    for pipeline in 0..INCIDENTS_MAX + 100 {
        desk.take(&late(&format!("p{pipeline}")), at(0));
    }
    assert!(desk.standing.len() + desk.waiting.len() <= INCIDENTS_MAX + 1, "{} {}", desk.standing.len(), desk.waiting.len());
}
