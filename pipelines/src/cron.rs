//! When a pipeline runs by itself: cron expression or period, time zone, what happens to missed ticks and overlaps.
//! What time it is now is left to the scheduler.

mod expression;
mod odd_days;
mod wall;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use self::expression::Expression;
use crate::diagnostic::{Span, Spanned};

use self::wall::instant;
pub use self::wall::moment;
pub use chrono_tz::Tz;

/// A `[schedule]` table.
///
/// Its ticks are where its intervals end, and the next ones begin: half-open, without a gap. The first tick that is not before `start` only
/// begins one.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The expression: five fields, or six with seconds first.
    pub cron: Option<Cron>,
    /// A fixed period in place of `cron`, counted from 1970-01-01T00:00:00Z: `1h` is every full hour.
    pub every: Option<Duration>,
    /// The zone whose clock `cron` means. Default UTC.
    pub timezone: chrono_tz::Tz,
    /// What happens to ticks missed while nothing ran. Default latest.
    pub catch_up: CatchUp,
    /// What happens when the run before still runs. Default skip.
    pub overlap: Overlap,
    /// Pipelines that must have published for the interval first.
    pub after: Vec<Spanned<String>>,
    /// A run longer than this is stopped.
    pub timeout: Option<Duration>,
    /// An interval that is not published so long after its tick is late, which is told.
    pub deadline: Option<Duration>,
    /// A run starts later than its tick by up to this: see [`Schedule::jitter_of`].
    pub jitter: Option<Duration>,
    /// No interval begins before it.
    pub start: Option<DateTime<Utc>>,
    /// No interval ends after it.
    pub end: Option<DateTime<Utc>>,
    /// How failures outside the pipeline are tried again.
    pub retry: Option<Retry>,
}

/// A cron expression as written, and what it means.
#[derive(Debug, Clone)]
pub struct Cron {
    text: Spanned<String>,
    expression: Expression,
}

impl Cron {
    /// Parses an expression, or says what is wrong with it.
    pub fn parse(text: Spanned<String>) -> Result<Self, String> {
        Ok(Self { expression: Expression::parse(&text.value)?, text })
    }

    /// The expression as written.
    pub fn text(&self) -> &str {
        &self.text.value
    }

    /// Where it was written.
    pub fn span(&self) -> Span {
        self.text.span.clone()
    }

    /// True when some day matches.
    pub(crate) fn fires(&self) -> bool {
        self.expression.fires()
    }
}

/// What happens to ticks missed while nothing ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// Each is run.
    All,
    /// One run covers them.
    #[default]
    Latest,
    /// They are skipped.
    None,
}

/// What happens when the run before still runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlap {
    /// The tick is skipped.
    #[default]
    Skip,
    /// It waits.
    Queue,
    /// The run before is cancelled.
    Cancel,
}

/// How failures are tried again: exponential backoff with full jitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, at least 1.
    pub attempts: u32,
    /// The first wait's upper bound.
    pub backoff: Duration,
    /// No wait is longer than this.
    pub backoff_max: Duration,
}

impl Default for Schedule {
    /// One that has no ticks, and of the rest what holds where nothing is written.
    fn default() -> Self {
        Self {
            cron: None,
            every: None,
            timezone: chrono_tz::UTC,
            catch_up: CatchUp::default(),
            overlap: Overlap::default(),
            after: vec![],
            timeout: None,
            deadline: None,
            jitter: None,
            start: None,
            end: None,
            retry: None,
        }
    }
}

impl CatchUp {
    /// The word a person writes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Latest => "latest",
            Self::None => "none",
        }
    }
}

impl Overlap {
    /// The word a person writes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Cancel => "cancel",
        }
    }
}

impl Schedule {
    /// The first tick after an instant; none where `end` comes first, when it never comes (`parse` refuses such schedules), or beyond the
    /// year 2100.
    ///
    /// `cron` means the clock on the wall of `timezone`. A time that the wall clock jumps over (daylight saving begins) ticks once, at the first
    /// instant after the jump; a time that it shows twice (daylight saving ends) ticks once, the first time.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let after = match self.start {
            Some(start) if after < start => start.checked_sub_signed(TimeDelta::nanoseconds(1))?,
            _ => after,
        };
        let tick = match (&self.cron, self.every) {
            (Some(cron), _) => {
                let mut wall = after.with_timezone(&self.timezone).naive_local();
                loop {
                    // Within the second showing of an hour, what comes next on the clock has been already.
                    wall = cron.expression.next(wall)?;
                    let tick = instant(wall, self.timezone)?;
                    if tick > after {
                        break tick;
                    }
                }
            }
            (None, Some(every)) => {
                let period_ms = period_ms(every)?;
                let past = after.timestamp_millis().div_euclid(period_ms);
                DateTime::from_timestamp_millis(past.checked_add(1)?.checked_mul(period_ms)?)?
            }
            (None, None) => return None,
        };
        (self.end.is_none_or(|end| tick <= end)).then_some(tick)
    }

    /// The last tick that is not after an instant; none where it would lie before `start`, or before the year 1970.
    pub fn last_at_or_before(&self, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let until = self.end.map_or(until, |end| until.min(end));
        let tick = match (&self.cron, self.every) {
            (Some(cron), _) => {
                // No zone's clock was ever set back by more than a day: what it showed a day ago, it will not show again.
                let wall = until.with_timezone(&self.timezone).naive_local();
                let mut tick = instant(cron.expression.last(wall)?, self.timezone)?;
                // In the second showing of an hour, times that are later on the clock have been already.
                while let Some(next) = self.next_after(tick).filter(|next| *next <= until) {
                    tick = next;
                }
                tick
            }
            (None, Some(every)) => {
                let period_ms = period_ms(every)?;
                DateTime::from_timestamp_millis(until.timestamp_millis().div_euclid(period_ms).checked_mul(period_ms)?)?
            }
            (None, None) => return None,
        };
        (self.start.is_none_or(|start| tick >= start)).then_some(tick)
    }

    /// How much later than its tick a pipeline's run starts: from nothing to `jitter`, spread evenly over pipelines and ticks. It is a function
    /// of both, so that each server and each attempt comes to the same.
    pub fn jitter_of(&self, pipeline: &str, tick: DateTime<Utc>) -> Duration {
        let Some(jitter) = self.jitter else { return Duration::ZERO };
        // FNV-1a, then the end of splitmix64: ticks that differ in one bit lie far apart. The hash must never change: servers of two versions
        // share a state.
        let bytes = pipeline.bytes().chain([0]).chain(tick.timestamp_millis().to_be_bytes());
        let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        let most_ms = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(hash % most_ms.saturating_add(1))
    }
}

fn period_ms(every: Duration) -> Option<i64> {
    i64::try_from(every.as_millis()).ok().filter(|ms| *ms > 0)
}

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;
