//! What would schedules do between two instants, if runs took so long and nothing ran for a while? A clock that is moved from event to event,
//! and [`due`](super::due()) asked at each as the scheduler asks it.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use weir_connectors::Interval;
use weir_pipelines::cron::{Overlap, Schedule};

use super::due::{Action, Slot, Standing, awaited, begin, due};
use crate::scheduler::Outcome;

/// More ticks are not simulated at once.
pub const TICKS_MAX: usize = 1_000_000;
/// A tick that is seen so much later was missed.
pub const GRACE: TimeDelta = TimeDelta::seconds(60);

/// A pipeline that is simulated.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Its name.
    pub pipeline: &'a str,
    /// Its schedule.
    pub schedule: &'a Schedule,
    /// How long a run of it takes.
    pub takes: Duration,
}

/// What became of an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which of the plans.
    pub plan: usize,
    /// The interval, and what becomes of it.
    pub slot: Slot,
    /// When its run began; the last one, where it was begun again after an outage.
    pub started: Option<DateTime<Utc>>,
    /// When that ended.
    pub finished: Option<DateTime<Utc>>,
    /// How.
    pub outcome: Option<Outcome>,
    /// How often it was begun.
    pub attempts: u32,
}

/// So many ticks lie between two instants that they are not simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// Where one pipeline stands.
struct State {
    standing: Standing,
    /// Its next tick.
    next: Option<DateTime<Utc>>,
    /// What waits, in order, each with the instant that it does not begin before.
    queue: VecDeque<(usize, DateTime<Utc>)>,
    /// What runs.
    running: Option<Running>,
    /// Where what it has published ends.
    published: DateTime<Utc>,
}

#[derive(Clone, Copy)]
struct Running {
    /// Which of what is settled.
    run: usize,
    /// When it began first.
    began: DateTime<Utc>,
    /// When it ends.
    end: DateTime<Utc>,
}

struct Simulation<'a> {
    plans: &'a [Plan<'a>],
    outages: &'a [Interval],
    states: Vec<Option<State>>,
    settled: Vec<Settled>,
    /// Instants at which something may happen, and to which plan.
    wakes: BinaryHeap<Reverse<(DateTime<Utc>, usize)>>,
}

/// Lets schedules run from one instant to another. All before `from` is taken as published. A run that an outage ends is begun again behind it,
/// as a server takes up what another one left. A run publishes, unless its time limit is shorter than it takes. Returns every tick that lies
/// after `from` and not after `to`, in order; those that are joined to one run, as one.
pub fn simulate(plans: &[Plan<'_>], from: DateTime<Utc>, to: DateTime<Utc>, outages: &[Interval]) -> Result<Vec<Settled>, TooMany> {
    let outages = apart(outages);
    let states = plans.iter().map(|plan| {
        let covered = plan.schedule.last_at_or_before(from).or_else(|| begin(plan.schedule, from))?;
        let next = plan.schedule.next_after(covered);
        Some(State { standing: Standing { covered }, next, queue: VecDeque::new(), running: None, published: covered })
    });
    let states: Vec<_> = states.collect();
    let wakes = states.iter().enumerate().filter_map(|(plan, state)| Some(Reverse((state.as_ref()?.next?, plan)))).collect();
    let mut simulation = Simulation { plans, outages: &outages, states, settled: Vec::new(), wakes };
    while let Some(Reverse((now, plan))) = simulation.wakes.pop() {
        if now > to {
            break;
        }
        match simulation.outage_at(now) {
            Some(outage) => simulation.wakes.push(Reverse((outage.end, plan))),
            None => simulation.wake(plan, now, to)?,
        }
    }
    let mut settled = simulation.settled;
    settled.sort_by_key(|settled| (settled.slot.at, settled.plan));
    Ok(settled)
}

/// Outages in order, those that touch as one.
fn apart(outages: &[Interval]) -> Vec<Interval> {
    let mut all = outages.to_vec();
    all.sort_by_key(|outage| outage.start);
    let mut apart: Vec<Interval> = Vec::new();
    for outage in all {
        match apart.last_mut().filter(|last| outage.start <= last.end) {
            Some(last) => last.end = last.end.max(outage.end),
            None => apart.push(outage),
        }
    }
    apart
}

impl Simulation<'_> {
    fn outage_at(&self, now: DateTime<Utc>) -> Option<Interval> {
        self.outages.iter().find(|outage| outage.start <= now && now < outage.end).copied()
    }

    /// Lets a pipeline do what it can at an instant.
    fn wake(&mut self, plan: usize, now: DateTime<Utc>, to: DateTime<Utc>) -> Result<(), TooMany> {
        self.end(plan, now);
        self.look(plan, now, to)?;
        self.start(plan, now);
        Ok(())
    }

    /// Ends a run that has come to its end.
    fn end(&mut self, plan: usize, now: DateTime<Utc>) {
        let Some(state) = &mut self.states[plan] else { return };
        let Some(Running { run, .. }) = state.running.filter(|running| running.end <= now) else { return };
        state.running = None;
        if self.settled[run].outcome == Some(Outcome::Published) {
            state.published = state.published.max(self.settled[run].slot.end);
        }
        // Whoever waits for it looks again.
        let own = self.plans[plan].pipeline;
        let waiting = self.plans.iter().enumerate().filter(|(_, other)| other.schedule.after.iter().any(|name| name.value == own));
        self.wakes.extend(waiting.map(|(other, _)| Reverse((now, other))));
    }

    /// Settles what is due.
    fn look(&mut self, plan: usize, now: DateTime<Utc>, to: DateTime<Utc>) -> Result<(), TooMany> {
        let Some(state) = self.states[plan].as_mut().filter(|state| state.next.is_some_and(|next| next <= now)) else { return Ok(()) };
        let (name, schedule) = (self.plans[plan].pipeline, self.plans[plan].schedule);
        loop {
            let busy = state.running.is_some() || !state.queue.is_empty();
            let slots = due(schedule, &mut state.standing, busy, now, GRACE);
            if slots.is_empty() {
                break;
            }
            for slot in slots {
                if slot.action == Action::Run
                    && schedule.overlap == Overlap::Cancel
                    && let Some(Running { run, began, .. }) = state.running.take()
                {
                    let cancelled = &mut self.settled[run];
                    // What an outage would have done to it later does not happen.
                    if cancelled.started.is_some_and(|started| started > now) {
                        (cancelled.started, cancelled.attempts) = (Some(began), 1);
                    }
                    (cancelled.finished, cancelled.outcome) = (Some(now), Some(Outcome::Cancelled));
                }
                if slot.action != Action::Skip {
                    let jitter = TimeDelta::from_std(schedule.jitter_of(name, slot.at)).unwrap_or_default();
                    let ready = slot.at.checked_add_signed(jitter).unwrap_or(now);
                    state.queue.push_back((self.settled.len(), ready));
                }
                self.settled.push(Settled { plan, slot, started: None, finished: None, outcome: None, attempts: 0 });
            }
            if self.settled.len() > TICKS_MAX {
                return Err(TooMany);
            }
        }
        state.next = schedule.next_after(state.standing.covered);
        if let Some(next) = state.next.filter(|next| *next <= to) {
            self.wakes.push(Reverse((next, plan)));
        }
        Ok(())
    }

    /// Starts what waits first, where nothing stands in its way.
    fn start(&mut self, plan: usize, now: DateTime<Utc>) {
        let Some((run, ready)) =
            self.states[plan].as_ref().filter(|state| state.running.is_none()).and_then(|state| state.queue.front().copied())
        else {
            return;
        };
        if ready > now {
            self.wakes.push(Reverse((ready, plan)));
            return;
        }
        let schedule = self.plans[plan].schedule;
        let end = self.settled[run].slot.end;
        let is_open = |name: &str| {
            let other = self.plans.iter().position(|other| other.pipeline == name);
            let state = other.and_then(|other| Some((self.plans[other].schedule, self.states[other].as_ref()?)));
            state.is_some_and(|(schedule, state)| awaited(schedule, end).is_some_and(|tick| tick > state.published))
        };
        // The end of the run that it waits for wakes it.
        if schedule.after.iter().any(|name| is_open(&name.value)) {
            return;
        }
        let takes = schedule.timeout.map_or(self.plans[plan].takes, |timeout| timeout.min(self.plans[plan].takes));
        let outcome = if takes < self.plans[plan].takes { Outcome::Failed } else { Outcome::Published };
        let takes = TimeDelta::from_std(takes).unwrap_or(TimeDelta::MAX);
        let (mut started, mut attempts) = (now, 1);
        let mut finished = started.checked_add_signed(takes).unwrap_or(DateTime::<Utc>::MAX_UTC);
        // Outages stand in order.
        for outage in self.outages.iter().filter(|outage| outage.start >= now) {
            if outage.start >= finished {
                break;
            }
            (started, attempts) = (outage.end, attempts + 1);
            finished = started.checked_add_signed(takes).unwrap_or(DateTime::<Utc>::MAX_UTC);
        }
        let settled = &mut self.settled[run];
        (settled.started, settled.finished, settled.outcome, settled.attempts) = (Some(started), Some(finished), Some(outcome), attempts);
        if let Some(state) = &mut self.states[plan] {
            state.queue.pop_front();
            state.running = Some(Running { run, began: now, end: finished });
        }
        self.wakes.push(Reverse((finished, plan)));
    }
}

#[cfg(test)]
#[path = "simulate_tests.rs"]
mod tests;
