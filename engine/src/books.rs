//! The row account of a run: read = loaded + quarantined + filtered + deduplicated, per step, and the check that it balances.

use serde::{Deserialize, Serialize};

/// What a run did, for people and for `--json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    /// The run's id.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// `published`, `failed`, `interrupted`, or `dry_run`.
    pub status: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Wall time.
    pub duration_ms: u64,
    /// Rows read by all sources.
    pub rows_read: u64,
    /// Rows loaded by all sinks.
    pub rows_loaded: u64,
    /// Rows set aside, all steps.
    pub rows_quarantined: u64,
    /// Invalid rows left out by `on_invalid = "drop"`, all steps.
    pub rows_dropped: u64,
    /// Rows filtered, all steps.
    pub rows_filtered: u64,
    /// Rows deduplicated, all steps.
    pub rows_deduplicated: u64,
    /// Bytes taken from outside, compressed where the input is.
    pub bytes_read: u64,
    /// Bytes staged in destinations.
    pub bytes_loaded: u64,
    /// Rows read per second of wall time.
    pub rows_per_second: u64,
    /// The account, step by step.
    pub books: Books,
    /// What changed in the columns of sources.
    #[serde(default)]
    pub drift: Vec<crate::Drift>,
    /// Expectations and their outcome.
    pub expectations: Vec<ExpectationOutcome>,
    /// The parameters it was given, by name.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub params: std::collections::BTreeMap<String, String>,
    /// What the run wants said: no new files, a retried plan.
    pub notes: Vec<String>,
    /// Of a run that ends rows of the quarantine: which, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mends: Option<Mends>,
}

/// Rows of the quarantine that a run has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mends {
    /// The step that had set them aside.
    pub step: String,
    /// How many.
    pub rows: u64,
    /// `mended` or `discarded`.
    pub status: String,
    /// How they were changed, one assignment each.
    pub changes: Vec<String>,
    /// Who did it.
    pub by: String,
    /// True where the pipeline read everything anew besides.
    pub anew: bool,
}

/// The account of every step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Books {
    /// Sources and transforms, in the order of the dataflow.
    pub steps: Vec<StepBooks>,
    /// Sinks, as written.
    pub sinks: Vec<SinkBooks>,
}

/// One source's or transform's account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepBooks {
    /// The step.
    pub step: String,
    /// `source` or `transform`.
    pub role: String,
    /// `file`, `sql`, `filter`, …
    pub kind: String,
    /// Rows that came in: read from outside, or taken from all inputs.
    pub rows_in: u64,
    /// Rows that went out.
    pub rows_out: u64,
    /// Invalid rows set aside.
    pub rows_quarantined: u64,
    /// Invalid rows left out.
    pub rows_dropped: u64,
    /// Rows that a filter left out; for SQL, where it only selects from one input.
    pub rows_filtered: u64,
    /// Rows that a deduplicate left out.
    pub rows_deduplicated: u64,
    /// Invalid rows that the run took in their mended form, and which are not set aside once more for it.
    #[serde(default)]
    pub rows_mended: u64,
    /// True where `rows_in = rows_out + quarantined + dropped + filtered + deduplicated + mended` must hold; false for SQL that joins or groups, and `flatten` with an array.
    pub conserves: bool,
    /// Bytes taken from outside; sources only.
    pub bytes: u64,
}

/// One sink's account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkBooks {
    /// The step.
    pub step: String,
    /// `lake`, `file`, …
    pub kind: String,
    /// The step it reads.
    pub from: String,
    /// Rows that the step gave it.
    pub rows_in: u64,
    /// Rows staged, counted from what was written.
    pub rows_loaded: u64,
    /// Bytes staged.
    pub bytes: u64,
    /// The destination as a person names it.
    pub destination: String,
    /// Version, commit or path after publishing.
    pub version: String,
}

/// An expectation and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExpectationOutcome {
    /// The step.
    pub on: String,
    /// The expectation, in words.
    pub name: String,
    /// `passed`, `failed` or `warned`.
    pub outcome: String,
    /// What was found, with examples.
    pub detail: String,
    /// Rows that fail; 0 where it is not about single rows.
    #[serde(default)]
    pub rows: u64,
    /// Failing rows that are kept and can be seen.
    #[serde(default)]
    pub rows_kept: u64,
    /// The number that later runs are compared with; of a change only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// A number of a run's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// `row_count`, or the aggregate as written.
    pub of: String,
    /// Finite.
    pub value: f64,
}

impl Books {
    /// Returns one sentence per step whose account does not balance.
    pub fn imbalances(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for step in self.steps.iter().filter(|step| step.conserves) {
            let accounted =
                step.rows_out + step.rows_quarantined + step.rows_dropped + step.rows_filtered + step.rows_deduplicated + step.rows_mended;
            if step.rows_in != accounted {
                wrong.push(format!(
                    "\"{}\" took {} rows and accounts for {} ({} out, {} quarantined, {} dropped, {} filtered, {} deduplicated)",
                    step.step,
                    step.rows_in,
                    accounted,
                    step.rows_out,
                    step.rows_quarantined,
                    step.rows_dropped,
                    step.rows_filtered,
                    step.rows_deduplicated
                ));
            }
        }
        for sink in self.sinks.iter().filter(|sink| sink.rows_in != sink.rows_loaded) {
            wrong.push(format!("\"{}\" was given {} rows and staged {}", sink.step, sink.rows_in, sink.rows_loaded));
        }
        wrong
    }
}
