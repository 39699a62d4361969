//! Which intervals of a schedule are due at an instant, and which of them are run, joined, kept waiting or skipped?

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use weir_pipelines::cron::{CatchUp, Overlap, Schedule};

/// More slots than this are not made at one look; the rest is due at the next one.
pub const SLOTS_MAX: usize = 10_000;
/// More ticks than this are not joined in one slot.
pub const JOINED_MAX: u64 = 1_000_000;

/// Why a tick is skipped that came while nothing ran.
pub const MISSED: &str = "missed: nothing ran then";
/// Why a tick is skipped, or waits, that came while a run was going on.
pub const BUSY: &str = "the run before has not ended";
/// Why a tick waits that came right behind missed ones.
pub const BEHIND: &str = "what was missed is run first";
/// Why a tick is skipped whose run would have been cancelled at once.
pub const OVERTAKEN: &str = "the next tick has come before it could start";
/// What a run does that begins while another one is going on.
pub const CANCELS: &str = "the run before is cancelled";

/// What is remembered of a schedule: all before `covered` is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where the next interval begins.
    pub covered: DateTime<Utc>,
}

/// What becomes of an interval that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is run now; where a run is going on, that one is cancelled.
    Run,
    /// It was missed, and is run now or when what runs has ended.
    CatchUp,
    /// It is run when what runs has ended.
    Queue,
    /// It is not run.
    Skip,
}

impl Action {
    /// The word of `--json` and of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::CatchUp => "catch_up",
            Self::Queue => "queue",
            Self::Skip => "skip",
        }
    }
}

/// An interval that is due, or several that are run as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its tick: where the interval ends.
    pub at: DateTime<Utc>,
    /// Where it begins.
    pub start: DateTime<Utc>,
    /// Where it ends; rows of this instant belong to the next one.
    pub end: DateTime<Utc>,
    /// What becomes of it.
    pub action: Action,
    /// How many intervals of the schedule it holds, at least 1.
    pub joined: u64,
    /// Why it is not simply run, in a few words.
    pub reason: Option<String>,
}

/// Where a schedule begins that was first seen at `now`: with the first tick that is not before its `start`, where it has one; else with the
/// last tick that is not after `now`, so that the first interval ends with the first tick after `now`. None where it has no tick.
pub fn begin(schedule: &Schedule, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match schedule.start {
        Some(start) => first_from(schedule, start),
        None => schedule.last_at_or_before(now).or_else(|| schedule.next_after(now)),
    }
}

/// The first tick that is not before an instant.
fn first_from(schedule: &Schedule, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
    schedule.next_after(from.checked_sub_signed(TimeDelta::nanoseconds(1))?)
}

/// The tick of another pipeline that must be published before a run for an interval that ends here may begin: its last one until then. None
/// where it has had none.
pub fn awaited(other: &Schedule, end: DateTime<Utc>) -> Option<DateTime<Utc>> {
    other.last_at_or_before(end)
}

/// All that is due at `now`, in order; moves `standing` to the last tick that this settles. `busy`: a run of the pipeline is going on or waits.
/// A tick that is seen later than `grace` after its instant was missed.
///
/// - The next interval always begins where the one before ended, whatever the schedule was then: none is left out and none overlaps another,
///   but that none begins before `start`.
/// - Missed ticks are each run, joined to one run, or skipped, as `catch_up` says. What is caught up waits for what runs, whatever `overlap`
///   says, and a tick behind it at the same look waits for it.
/// - A tick on time is run. While a run is going on it is skipped, waits, or takes the place of that run, as `overlap` says. Where several are
///   on time at one look, because the scheduler was a little late, what would have been depends on how long runs take, which nobody knows.
///   Then no more is skipped than must be: they wait for one another with `overlap = "queue"`, and with `catch_up = "all"` where nothing runs;
///   they are joined with `catch_up = "latest"`; else one of them is run, the first, or the last where it would cancel the others.
/// - A clock that was set back makes nothing due until it passes `covered` again.
///
/// Makes at most [`SLOTS_MAX`] slots: call it again until it makes none.
pub fn due(schedule: &Schedule, standing: &mut Standing, busy: bool, now: DateTime<Utc>, grace: TimeDelta) -> Vec<Slot> {
    if let Some(first) = schedule.start.and_then(|start| first_from(schedule, start)) {
        standing.covered = standing.covered.max(first);
    }
    let mut look = Look { schedule, standing, now, next: None, slots: Vec::new() };
    look.next = look.schedule.next_after(look.standing.covered);
    let missed_until = now.checked_sub_signed(grace).unwrap_or(now);
    let is_missed = |tick: DateTime<Utc>| tick < missed_until;
    let mut caught_up = false;
    while let Some(tick) = look.tick().filter(|tick| is_missed(*tick)) {
        match schedule.catch_up {
            CatchUp::All => {
                caught_up = true;
                look.take(tick, Action::CatchUp, None);
            }
            CatchUp::Latest => {
                look.join(Action::CatchUp, None);
                return look.slots;
            }
            CatchUp::None => look.take(tick, Action::Skip, Some(MISSED)),
        }
        if look.slots.len() >= SLOTS_MAX {
            return look.slots;
        }
    }
    let way = match (schedule.overlap, schedule.catch_up) {
        (Overlap::Queue, _) => Way::Wait,
        _ if caught_up => Way::Wait,
        (Overlap::Skip, _) if busy => Way::First,
        (_, CatchUp::All) if !busy => Way::Wait,
        (_, CatchUp::Latest) => Way::Join,
        (Overlap::Skip, _) => Way::First,
        (Overlap::Cancel, _) => Way::Last,
    };
    let mut is_free = !busy && !caught_up;
    while let Some(tick) = look.tick() {
        let (action, reason) = match way {
            Way::Join => {
                look.join(Action::Run, busy.then_some(CANCELS));
                break;
            }
            Way::Wait | Way::First if is_free => (Action::Run, None),
            Way::Wait => (Action::Queue, Some(if caught_up { BEHIND } else { BUSY })),
            Way::First => (Action::Skip, Some(BUSY)),
            Way::Last if look.has_another(tick) => (Action::Skip, Some(OVERTAKEN)),
            Way::Last => (Action::Run, busy.then_some(CANCELS)),
        };
        look.take(tick, action, reason);
        is_free = false;
        if look.slots.len() >= SLOTS_MAX {
            break;
        }
    }
    look.slots
}

/// What becomes of ticks on time: of one at a look, and of several where the scheduler was late.
#[derive(Clone, Copy)]
enum Way {
    /// Each is run, after the one before.
    Wait,
    /// The first is run where nothing else is, the others are skipped.
    First,
    /// The last is run, the others are skipped.
    Last,
    /// They are run as one.
    Join,
}

/// One look at a schedule.
struct Look<'a> {
    schedule: &'a Schedule,
    standing: &'a mut Standing,
    now: DateTime<Utc>,
    /// The first tick that is not settled, due or not.
    next: Option<DateTime<Utc>>,
    slots: Vec<Slot>,
}

impl Look<'_> {
    /// The next tick that is due.
    fn tick(&self) -> Option<DateTime<Utc>> {
        self.next.filter(|tick| *tick <= self.now)
    }

    /// Whether the tick after this one is due too.
    fn has_another(&self, tick: DateTime<Utc>) -> bool {
        self.schedule.next_after(tick).is_some_and(|next| next <= self.now)
    }

    /// Settles the interval that ends with a tick.
    fn take(&mut self, tick: DateTime<Utc>, action: Action, reason: Option<&str>) {
        self.push(tick, action, 1, reason);
        self.next = self.schedule.next_after(tick);
    }

    /// Settles all that is due as one.
    fn join(&mut self, action: Action, reason: Option<&str>) {
        let (mut last, mut joined) = (None, 0);
        while let Some(tick) = self.tick().filter(|_| joined < JOINED_MAX) {
            (last, joined) = (Some(tick), joined + 1);
            self.next = self.schedule.next_after(tick);
        }
        if let Some(last) = last {
            self.push(last, action, joined, reason);
        }
    }

    fn push(&mut self, tick: DateTime<Utc>, action: Action, joined: u64, reason: Option<&str>) {
        let start = std::mem::replace(&mut self.standing.covered, tick);
        self.slots.push(Slot { at: tick, start, end: tick, action, joined, reason: reason.map(str::to_owned) });
    }
}

#[cfg(test)]
#[path = "due_tests.rs"]
mod tests;
