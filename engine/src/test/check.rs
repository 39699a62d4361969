//! Are a pipeline's tests right? Each is planned with the rows it gives, and nothing is executed: values of a wrong type, columns that a step
//! does not have, a source without rows. Whether a test holds is told by running it.

use std::{collections::HashSet, sync::Arc};

use arrow::datatypes::{DataType, SchemaRef};
use weir_connectors::{Coordinates, RunContext};
use weir_pipelines::{Diagnostic, Diagnostics, GivenRows, Pipeline, Test};

use super::{compare, give, given::Asked, is_inside, judge_of, reject_schema, session, targets, with_help, without_interval};
use crate::{
    plan::{Frugality, Inputs, Outside, PlannedStep, Replaced},
    step::Step,
    trial::{self, Judge, Keeps, Trial},
};

/// What is wrong with a pipeline's tests, and failures of systems outside that a file which a test names is in. `steps` are those of the
/// pipeline itself, as far as they can be planned with `inputs`; what is in `told` is not said again. `is_whole`: nothing of the pipeline had to be left out.
pub async fn check(
    pipeline: &Pipeline,
    steps: &[PlannedStep],
    context: &RunContext,
    inputs: &Inputs,
    told: &Diagnostics,
    is_whole: bool,
) -> (Diagnostics, Vec<Outside>) {
    let mut found = Found { wrong: Vec::new(), outside: Vec::new(), told: told.iter().map(mark).collect() };
    if pipeline.tests.is_empty() {
        return (found.wrong, found.outside);
    }
    let context = Arc::new(RunContext { partitions: 1, ..context.clone() });
    let session = session(&context);
    let planned: Vec<Arc<Step>> = steps.iter().map(|planned| planned.step.clone()).collect();
    let mut drafts: Vec<(Given, Vec<Arc<Step>>)> = Vec::new();
    let (contracts, offline) = (&inputs.contracts, inputs.known.as_ref().is_some_and(|known| known.offline));
    // A file that lies elsewhere cannot be looked into without asking.
    let is_out_of_reach = |test: &&Test| offline && files(test).iter().any(|(_, path)| path.contains("://"));
    for test in pipeline.tests.iter().filter(|test| !is_out_of_reach(test)) {
        let pipeline = test.of(pipeline);
        let (part, given) = match give(pipeline, test, &session, contracts, Asked::Columns).await {
            Ok(given) => given,
            // Nothing is executed that could fail otherwise.
            Err(failure) => {
                found.add(failure.into_diagnostics(&pipeline.file, test.name.span.clone()));
                continue;
            }
        };
        let targets = targets(&part, test);
        let (_, missing) = trial::part(&part, &targets, |name| test.given.iter().any(|given| given.step.value == name));
        if !missing.is_empty() {
            found.add(trial::missing(&part, &missing, test.name.span.clone()));
            continue;
        }
        let given_as = Given { columns: columns(&given), files: files(test), params: params(test), targets };
        let is_own = |(name, columns): &(String, SchemaRef)| planned.iter().any(|step| step.name == *name && same(step, columns));
        let known = drafts.iter().position(|(known, _)| *known == given_as).filter(|_| test.fails.is_none());
        let trial = Trial {
            pipeline: &part,
            context: context.clone(),
            given,
            targets: given_as.targets.clone(),
            keeps: Keeps::Nothing,
            judge: test.fails.as_ref().map_or(Judge::Nothing, judge_of),
            frugality: Frugality::Fast,
            contracts: contracts.clone(),
        };
        found.add(without_interval(&trial, test).into_iter().collect());
        let steps = match known {
            // With the columns that the steps have anyway, all that comes after them is as it was planned.
            _ if given_as.files.is_empty() && given_as.params.is_empty() && given_as.columns.iter().all(is_own) => &planned,
            Some(known) => &drafts[known].1,
            None => {
                let draft = trial.draft().await;
                // With a part of the pipeline missing, what is wrong with its own SQL may follow from that.
                let wrong = draft.wrong.into_iter().filter(|one| is_whole || is_inside(one, pipeline, test));
                found.add(with_help(wrong.collect(), pipeline, test));
                found.outside.extend(draft.outside);
                drafts.push((given_as, draft.flow.steps.iter().map(|planned| planned.step.clone()).collect()));
                &drafts[drafts.len() - 1].1
            }
        };
        found.add(expected(pipeline, test, steps));
    }
    (found.wrong, found.outside)
}

/// What a test's plan depends on; another test that gives the same needs no plan of its own.
#[derive(PartialEq)]
struct Given {
    /// By step.
    columns: Vec<(String, SchemaRef)>,
    /// By step.
    files: Vec<(String, String)>,
    /// By name.
    params: Vec<(String, String)>,
    targets: Vec<String>,
}

struct Found {
    wrong: Diagnostics,
    outside: Vec<Outside>,
    told: HashSet<(&'static str, (String, usize, usize))>,
}

impl Found {
    fn add(&mut self, wrong: Diagnostics) {
        self.wrong.extend(wrong.into_iter().filter(|one| self.told.insert(mark(one))));
    }
}

/// One mistake is one code at one place, whatever else is said of it.
fn mark(diagnostic: &Diagnostic) -> (&'static str, (String, usize, usize)) {
    (diagnostic.code, diagnostic.place())
}

fn columns(given: &Replaced) -> Vec<(String, SchemaRef)> {
    let mut columns: Vec<_> = given.iter().map(|(name, table)| (name.clone(), table.schema())).collect();
    columns.sort_by(|a, b| a.0.cmp(&b.0));
    columns
}

fn files(test: &Test) -> Vec<(String, String)> {
    let file = |given: &weir_pipelines::Given| match &given.rows {
        GivenRows::File(path) => Some((given.step.value.clone(), path.value.clone())),
        _ => None,
    };
    test.given.iter().filter_map(file).collect()
}

fn params(test: &Test) -> Vec<(String, String)> {
    test.params.iter().map(|(name, value)| (name.value.clone(), value.to_toml())).collect()
}

/// True where given rows have a step's own columns, in the same order. Whether one may be null does not matter to what is planned over them.
fn same(step: &Step, given: &SchemaRef) -> bool {
    let given = given.fields();
    let given = given.strip_suffix(&Coordinates::fields()).unwrap_or(given);
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    let alike = |a: &DataType, b: &DataType| a == b || (is_text(a) && is_text(b));
    let own = step.schema.fields();
    own.len() == given.len() && own.iter().zip(given).all(|(a, b)| a.name() == b.name() && alike(a.data_type(), b.data_type()))
}

/// Rows that a test expects and that can never be.
fn expected(pipeline: &Pipeline, test: &Test, steps: &[Arc<Step>]) -> Diagnostics {
    let mut wrong = Diagnostics::new();
    for rows in &test.expect {
        if let Some(step) = steps.iter().find(|step| step.name == rows.of) {
            wrong.extend(compare::Wanted::of(pipeline, rows, &step.schema).err().into_iter().flatten());
        }
    }
    for rows in &test.quarantine {
        wrong.extend(compare::Wanted::of(pipeline, rows, &reject_schema()).err().into_iter().flatten());
    }
    wrong
}
