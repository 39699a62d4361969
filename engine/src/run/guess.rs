//! Types that the first records of a file suggest, so that a run reads it once: what becomes of the run where other records do not bear them out.
//! Who guesses, and holds each record against the guess, is the connector.

use arrow::datatypes::SchemaRef;
use weir_connectors::Purpose;

use super::Attempt;
use crate::{
    error::{Failure, Result},
    plan::{self, Dataflow, Frugality, Inputs},
};

/// The code of a scan that met a record of another type.
pub(super) const REFUTED: &str = "types-guessed";

/// A source, and the columns that it was taken to have.
pub(super) type Guess = (String, SchemaRef);

/// What a flow goes by that is a guess.
pub(super) fn made(flow: &Dataflow) -> Vec<Guess> {
    let guessed = flow.steps.iter().filter(|planned| planned.guessed);
    guessed.map(|planned| (planned.step.name.clone(), planned.step.schema.clone())).collect()
}

/// What the run says when it tries again.
pub(super) fn refuted(failure: &Failure) -> String {
    format!("{}; nothing was published, a second try learns all types from all records first", failure.sentence())
}

impl Attempt<'_> {
    /// The dataflow, by a guess where that is allowed. Files are wrong by what all records say, not by what the first suggest.
    pub(super) async fn flow(&mut self, inputs: &Inputs, frugality: Frugality) -> Result<Dataflow> {
        match self.plan(inputs, self.purpose, frugality).await {
            Err(Failure::Diagnostics(_)) if self.purpose == Purpose::Try => {
                self.purpose = Purpose::Run;
                self.plan(inputs, self.purpose, frugality).await
            }
            planned => planned,
        }
    }

    /// Whether all records tell the types that the first had suggested. What cannot be asked now is tried once more.
    pub(super) async fn bears_out(&self, guessed: &[Guess], frugality: Frugality) -> bool {
        let learnt = async { self.plan(&self.inputs().await?, Purpose::Run, frugality).await }.await;
        let is_so = |flow: &Dataflow, (name, schema): &Guess| {
            flow.steps.iter().any(|planned| planned.step.name == *name && planned.step.schema == *schema)
        };
        learnt.is_ok_and(|flow| guessed.iter().all(|guess| is_so(&flow, guess)))
    }

    async fn plan(&self, inputs: &Inputs, purpose: Purpose, frugality: Frugality) -> Result<Dataflow> {
        self.unless_cancelled(plan::plan(self.pipeline, &self.context, purpose, frugality, inputs)).await
    }

    /// What the dataflow takes besides what the pipeline says.
    pub(super) async fn inputs(&self) -> Result<Inputs> {
        let mut inputs = Inputs::default();
        for source in self.pipeline.sources.iter().filter(|_| !self.options.full_refresh) {
            inputs.seen.insert(source.name.value.clone(), self.history.cursors(&self.pipeline.name.value, &source.name.value).await?);
        }
        if let Some(mending) = &self.mending {
            inputs.given.insert(mending.step.clone(), mending.given.clone());
        }
        Ok(inputs)
    }
}
