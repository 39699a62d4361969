//! What the scheduler tells whoever watches it: metrics, alerts, the log.

use chrono::{DateTime, Utc};

use crate::books::Summary;

/// One thing to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRef {
    /// Its id.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The run that it is about, once there is one.
    pub run: Option<String>,
    /// `schedule`, `backfill`, `trigger` or `manual`.
    pub origin: String,
    /// The interval that is run; none where a trigger asked for no interval.
    pub interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Which try this is, from 1.
    pub attempt: u32,
}

/// How a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every destination has it.
    Published,
    /// Nothing of it is visible anywhere.
    Failed,
    /// It was stopped: by a person, by the next run, or by its time limit.
    Cancelled,
}

impl Outcome {
    /// The word of the state, of metrics and of `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Something that has happened.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A run starts.
    Started {
        /// What is run.
        task: TaskRef,
        /// Milliseconds since it was due.
        delay_ms: u64,
    },
    /// A run has ended.
    Ended {
        /// What was run.
        task: TaskRef,
        /// How.
        outcome: Outcome,
        /// What it did, where it published.
        summary: Option<Box<Summary>>,
        /// The code of the error it failed with.
        code: Option<String>,
        /// That error, in a sentence.
        error: Option<String>,
        /// Milliseconds from its start to its end.
        duration_ms: u64,
        /// When it is tried again, where it is.
        retry_at: Option<DateTime<Utc>>,
    },
    /// A tick does not lead to a run.
    Skipped {
        /// What is not run.
        task: TaskRef,
        /// Why.
        reason: String,
    },
    /// A task was not published within its deadline.
    Late {
        /// Which.
        task: TaskRef,
        /// The deadline, in milliseconds after it was due.
        deadline_ms: u64,
    },
    /// A pipeline's file is wrong; the last version that was right goes on.
    Broken {
        /// The pipeline's name, or its file's where it never had one.
        pipeline: String,
        /// What is wrong with it, first.
        message: String,
    },
    /// The file of such a pipeline is right again.
    Mended {
        /// The pipeline's name.
        pipeline: String,
    },
    /// A run that another process left was finished or discarded.
    TookOver {
        /// The pipeline's name.
        pipeline: String,
        /// What was done, in a sentence.
        sentence: String,
    },
    /// This server leads from now on, or does not.
    Leading(bool),
    /// The clock went forward or back by more than time passed.
    ClockJumped {
        /// By how many milliseconds; less than zero: back.
        by_ms: i64,
    },
    /// The state cannot be reached, or can again.
    State {
        /// Whether it can.
        reachable: bool,
        /// Why not.
        why: Option<String>,
    },
}
