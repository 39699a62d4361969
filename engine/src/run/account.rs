//! The account of a run: what each step took and gave, and whether every edge agrees. What must balance is `books.rs`'s.

use std::{collections::HashMap, sync::atomic::Ordering};

use super::Attempt;
use crate::{
    books::{Books, ExpectationOutcome, StepBooks, Summary},
    plan::{self, Dataflow},
    step::Role,
    transforms::Account,
};

impl Attempt<'_> {
    pub(super) fn rows_in(&self, planned: &plan::PlannedStep) -> u64 {
        let own: u64 = match &planned.read {
            Some(read) => read.rows(),
            None => planned.taken.iter().map(|(_, reader)| reader.rows.load(Ordering::Relaxed)).sum(),
        };
        own + planned.given
    }

    pub(super) fn book(&self, planned: &plan::PlannedStep, quarantined: &HashMap<String, u64>) -> StepBooks {
        let step = &planned.step;
        let rows_in = self.rows_in(planned);
        let rows_out = step.rows_out.load(Ordering::Relaxed);
        let rejected = planned.desk.rejected();
        let rows_quarantined = quarantined.get(&step.name).copied().unwrap_or(0);
        let rows_mended = planned.desk.mended();
        let missing = rows_in.saturating_sub(rows_out + rejected + rows_mended);
        // A step that a `limit` downstream stopped has no account: what it was not asked for it did not make.
        let stopped = planned.taken.iter().any(|(_, reader)| reader.stopped_early.load(Ordering::Relaxed));
        StepBooks {
            step: step.name.clone(),
            role: step.role.as_str().to_owned(),
            kind: step.kind.clone(),
            rows_in,
            rows_out,
            rows_quarantined,
            rows_dropped: if planned.desk.keeps() { 0 } else { rejected },
            rows_filtered: if planned.account == Account::Filtered { missing } else { 0 },
            rows_deduplicated: if planned.account == Account::Deduplicated { missing } else { 0 },
            rows_mended,
            conserves: planned.account != Account::Remakes && !stopped && !step.partial.load(Ordering::Relaxed),
            bytes: planned.read.as_ref().map_or(0, |read| read.bytes()),
        }
    }

    /// Every reader that read to the end took what the step gave, once for each of its scans.
    pub(super) fn torn_edges(&self, flow: &Dataflow) -> Vec<String> {
        let sinks = flow.sinks.iter().map(|sink| (sink.from.as_ref(), sink.name.as_str(), &sink.taken));
        let taps = flow.checks.taps.iter().map(|tap| (tap.step.as_ref(), "an expectation", &tap.taken));
        sinks
            .chain(taps)
            .filter(|(_, _, reader)| !reader.stopped_early.load(Ordering::Relaxed))
            .filter_map(|(step, name, reader)| {
                let (gave, took) = (step.rows_out.load(Ordering::Relaxed), reader.rows.load(Ordering::Relaxed));
                (gave != took).then(|| format!("\"{}\" gave {gave} rows and \"{name}\" took {took}", step.name))
            })
            .collect()
    }

    /// Writes how long it took so far.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    pub(super) fn clock(&self, summary: &mut Summary) {
        let elapsed = self.started.elapsed();
        summary.duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        summary.rows_per_second = (summary.rows_read as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
    }

    pub(super) fn summarize(&self, books: Books, expectations: Vec<ExpectationOutcome>) -> Summary {
        let sources = || books.steps.iter().filter(|step| step.role == Role::Source.as_str());
        let rows_read: u64 = sources().map(|step| step.rows_in).sum();
        let sum = |count: fn(&StepBooks) -> u64| books.steps.iter().map(count).sum();
        let mut summary = Summary {
            run: self.context.run.clone(),
            pipeline: self.context.pipeline.clone(),
            status: "staged".to_owned(),
            started_at: self.context.started_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            rows_read,
            rows_loaded: books.sinks.iter().map(|sink| sink.rows_loaded).sum(),
            rows_quarantined: sum(|step| step.rows_quarantined),
            rows_dropped: sum(|step| step.rows_dropped),
            rows_filtered: sum(|step| step.rows_filtered),
            rows_deduplicated: sum(|step| step.rows_deduplicated),
            bytes_read: sources().map(|step| step.bytes).sum(),
            bytes_loaded: books.sinks.iter().map(|sink| sink.bytes).sum(),
            books,
            expectations,
            params: self
                .pipeline
                .params
                .iter()
                .filter_map(|param| Some((param.name.value.clone(), param.value.as_ref()?.to_string())))
                .collect(),
            notes: self.notes.clone(),
            mends: self.mending.as_ref().map(|mending| mending.mends.clone()),
            ..Summary::default()
        };
        self.clock(&mut summary);
        summary
    }
}
