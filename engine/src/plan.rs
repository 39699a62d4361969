//! From a pipeline to a dataflow: sources opened, contracts compiled, transforms planned, sinks read. Everything that is
//! wrong is collected; a step that reads a broken one is passed over in silence.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::TableProvider,
    common::{TableReference, tree_node::TreeNodeRecursion},
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    prelude::SessionContext,
};
use weir_connectors::{
    Advance, Asked, Blame, Coordinates, Error, Extent, Purpose, RunContext, SINKS, SOURCES, Sink as SinkTrait, SinkContext, SourceContext,
    context::ReadCount,
};
use weir_pipelines::{Diagnostic, Diagnostics, Mode, Pipeline, Rules, Settings, Sink, Source, Span, Spanned, Transform};
use weir_schemas::prove;

use crate::{
    agree,
    checks::{ContractCheck, properties},
    contracts::Contracts,
    delta,
    drift::{self, Drift, Shape},
    error::{Failure, Result},
    expect::Checks,
    given::{Given, Place},
    interval,
    known::Known,
    now, nulls, params,
    proof::{self, StepContract, inherited},
    quarantine::Desk,
    step::{Input, Reader, Role, RowCheck, Step, StepTable},
    transforms::{self, Account},
    written::Written,
};

pub use crate::session::{Frugality, fork, session};

/// A pipeline's dataflow, ready to be executed once.
pub struct Dataflow {
    /// Sources, then transforms in dependency order.
    pub steps: Vec<PlannedStep>,
    /// Sinks, as written.
    pub sinks: Vec<PlannedSink>,
    /// What the expectations need.
    pub checks: Checks,
    /// The session that steps were planned in.
    pub session: SessionContext,
}

/// A source or transform and its accounts.
#[derive(Debug)]
pub struct PlannedStep {
    /// The table its readers scan.
    pub step: Arc<Step>,
    /// Takes its rejected rows.
    pub desk: Arc<Desk>,
    /// How missing rows are booked.
    pub account: Account,
    /// What it took from each input, by name.
    pub taken: Vec<(String, Arc<Reader>)>,
    /// Rows it was given from outside.
    pub given: u64,
    /// What its source read; sources only.
    pub read: Option<Arc<ReadCount>>,
    /// What its source will remember; incremental sources only.
    pub advance: Option<Arc<dyn Advance>>,
    /// What changed in its source's columns.
    pub drift: Vec<Drift>,
    /// The columns that its source will be known by; sources only.
    pub shape: Option<Shape>,
    /// The types of its source's columns are a guess, which its rows bear out or not.
    pub guessed: bool,
    /// What a system outside told of its source when it was opened.
    pub own: Option<Own>,
    /// Its contract, proved as far as can be.
    pub contract: Option<Arc<StepContract>>,
    /// What is known of its rows beyond their types.
    pub known: prove::Known,
    /// Columns that hold no null for what the step does, though their types allow it.
    pub filled: BTreeSet<String>,
    /// What is worth a word of its SQL though it is no error.
    pub doubts: Diagnostics,
    /// How much its source has to read; sources only.
    pub extent: Option<Extent>,
}

/// What a system outside told of a source.
#[derive(Debug)]
pub struct Own {
    /// What was asked.
    pub asked: Asked,
    /// The columns that it has.
    pub columns: SchemaRef,
}

/// A sink and the step it reads.
#[derive(Debug)]
pub struct PlannedSink {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The step it reads.
    pub from: Arc<Step>,
    /// What it takes from it.
    pub taken: Arc<Reader>,
    /// The destination.
    pub sink: Arc<dyn SinkTrait>,
    /// What the destination is told.
    pub context: SinkContext,
    /// Its table in the file, to point at.
    pub settings: Settings,
    /// The contract of the step it reads.
    pub contract: Option<Arc<StepContract>>,
    /// Where the columns of that step are written.
    pub written: Written,
}

/// What a dataflow takes besides what the pipeline says.
#[derive(Debug, Default)]
pub struct Inputs {
    /// What each source remembers.
    pub seen: HashMap<String, BTreeMap<String, String>>,
    /// Rows given to steps.
    pub given: HashMap<String, Given>,
    /// Rows that are all there is of a step, which is not opened or planned.
    pub replaced: Replaced,
    /// Contracts that have been compiled.
    pub contracts: Arc<Contracts>,
    /// What systems outside had, for a check of what is there when they cannot or may not be asked.
    pub known: Option<Known>,
}

/// Rows that take the place of those a source would read or a transform would make, by step. They are checked like the step's own. Where
/// the step has a contract, the last two columns may be [`weir_connectors::Coordinates`].
pub type Replaced = HashMap<String, Arc<dyn TableProvider>>;

/// As much of a dataflow as can be planned, and what stands in the way of the rest.
pub struct Draft {
    /// What is whole: a step that reads one that is not here is not here either.
    pub flow: Dataflow,
    /// All that is wrong with the files, in source order.
    pub wrong: Diagnostics,
    /// Failures of systems outside.
    pub outside: Vec<Outside>,
}

/// A failure of a system outside, and where the file names that system.
#[derive(Debug)]
pub struct Outside {
    /// What happened.
    pub failure: Failure,
    /// The bytes of the file that name the system.
    pub place: Span,
}

impl Draft {
    /// The dataflow, where nothing stands in its way.
    pub fn whole(self) -> Result<Dataflow> {
        if self.wrong.iter().any(|diagnostic| diagnostic.severity == weir_pipelines::Severity::Error) {
            return Err(self.wrong.into());
        }
        match self.outside.into_iter().next() {
            Some(outside) => Err(outside.failure),
            None => Ok(self.flow),
        }
    }
}

/// Plans a pipeline. Fails with every diagnostic at once; where it is to be executed, for want of the interval that it reads, too.
pub async fn plan(pipeline: &Pipeline, run: &Arc<RunContext>, purpose: Purpose, frugality: Frugality, inputs: &Inputs) -> Result<Dataflow> {
    if purpose != Purpose::Plan {
        interval::demand(pipeline, |step| !inputs.replaced.contains_key(step), run.interval, run.started_at)?;
    }
    draft(pipeline, run, purpose, frugality, inputs).await.whole()
}

/// Plans as much of a pipeline as can be. Steps that a step reads need not be there.
pub async fn draft(pipeline: &Pipeline, run: &Arc<RunContext>, purpose: Purpose, frugality: Frugality, inputs: &Inputs) -> Draft {
    let session = session(run.runtime.clone(), run.partitions, run.batch_rows, frugality);
    now::fix(&session, run.started_at);
    params::set(&session, pipeline, run.interval);
    let added =
        inputs.given.iter().filter(|(_, given)| given.place == Place::Instead).flat_map(|(step, _)| delta::downstream(pipeline, step));
    let planner = Planner { pipeline, run, purpose, session: &session, inputs, added: added.collect() };
    let mut wrong = Diagnostics::new();
    let mut outside: Vec<Outside> = Vec::new();
    let mut steps: Vec<PlannedStep> = Vec::new();
    for source in &pipeline.sources {
        let name = &source.name.value;
        let planned = match inputs.replaced.get(name) {
            Some(rows) => planner.replaced(name, Role::Source, &source.settings.kind.value, &source.rules, rows).map_err(Failure::from),
            None => planner.source(source, &mut wrong, &mut outside).await,
        };
        match planned {
            Ok(step) => steps.push(step),
            Err(Failure::Diagnostics(found)) => wrong.extend(found),
            Err(failure) => outside.push(Outside { failure, place: source.settings.kind.span.clone() }),
        }
    }
    for transform in &pipeline.transforms {
        let name = &transform.name.value;
        let planned = match inputs.replaced.get(name) {
            Some(rows) => planner.replaced(name, Role::Transform, transforms::kind(&transform.operator), &transform.rules, rows).map(Some),
            None => planner.transform(transform, &steps, &mut wrong).await,
        };
        match planned {
            Ok(step) => steps.extend(step),
            Err(found) => wrong.extend(found),
        }
    }
    let taking_part: Vec<&Sink> = taking_part(pipeline, run.profile.as_deref()).collect();
    let sinks: Vec<PlannedSink> = taking_part.iter().filter_map(|sink| planner.sink(sink, &steps, &mut wrong)).collect();
    // A pipeline as written has sinks; one that was cut down to some of its steps has none.
    if !pipeline.sinks.is_empty() && taking_part.is_empty() {
        let message = format!(
            "no sink of \"{}\" takes part {}",
            pipeline.name.value,
            match &run.profile {
                Some(profile) => format!("under the profile \"{profile}\""),
                None => "without a profile".to_owned(),
            }
        );
        wrong.push(
            Diagnostic::error("no-sink", message).at(&pipeline.file, pipeline.name.span.clone(), "").help("choose one with --profile"),
        );
    }
    wrong.extend(clashes(pipeline, &sinks));
    wrong.extend(emptied(pipeline));
    let offline = inputs.known.as_ref().is_some_and(|known| known.offline);
    let (checks, found, failed) = crate::expect::plan(pipeline, &steps, &session, run, offline).await;
    wrong.extend(found);
    outside.extend(failed);
    wrong.sort_by_cached_key(Diagnostic::place);
    Draft { flow: Dataflow { steps, sinks, checks, session }, wrong, outside }
}

/// Plans one step and those it reads, and nothing else of the pipeline. Incremental sources start from their start. Fails with every
/// diagnostic at once.
pub async fn plan_step(pipeline: &Pipeline, run: &Arc<RunContext>, name: &str) -> Result<(SessionContext, Vec<PlannedStep>)> {
    let mut needed = vec![name];
    // Transforms stand in the order of their dependencies, so that each reader comes before what it reads.
    for transform in pipeline.transforms.iter().rev() {
        if needed.contains(&transform.name.value.as_str()) {
            needed.extend(transform.inputs.iter().map(|input| input.value.as_str()));
        }
    }
    interval::demand(&Pipeline { expectations: vec![], ..pipeline.clone() }, |step| needed.contains(&step), run.interval, run.started_at)?;
    let session = session(run.runtime.clone(), run.partitions, run.batch_rows, Frugality::Fast);
    params::set(&session, pipeline, run.interval);
    let inputs = Inputs::default();
    let planner = Planner { pipeline, run, purpose: Purpose::Run, session: &session, inputs: &inputs, added: HashSet::new() };
    let mut wrong = Diagnostics::new();
    let mut steps: Vec<PlannedStep> = Vec::new();
    for source in pipeline.sources.iter().filter(|source| needed.contains(&source.name.value.as_str())) {
        match planner.source(source, &mut wrong, &mut Vec::new()).await {
            Ok(step) => steps.push(step),
            Err(Failure::Diagnostics(found)) => wrong.extend(found),
            Err(failure) => return Err(failure),
        }
    }
    for transform in pipeline.transforms.iter().filter(|transform| needed.contains(&transform.name.value.as_str())) {
        match planner.transform(transform, &steps, &mut wrong).await {
            Ok(step) => steps.extend(step),
            Err(found) => wrong.extend(found),
        }
    }
    if wrong.is_empty() { Ok((session, steps)) } else { Err(wrong.into()) }
}

/// The sinks that take part under the chosen profile.
pub(crate) fn taking_part<'a>(pipeline: &'a Pipeline, profile: Option<&str>) -> impl Iterator<Item = &'a Sink> {
    pipeline
        .sinks
        .iter()
        .filter(move |sink| sink.profiles.is_empty() || sink.profiles.iter().any(|allowed| Some(allowed.value.as_str()) == profile))
}

/// Two sinks on one destination: the second would undo or break what the first did.
fn clashes(pipeline: &Pipeline, sinks: &[PlannedSink]) -> Diagnostics {
    let mut wrong = Diagnostics::new();
    for (at, sink) in sinks.iter().enumerate() {
        let destination = sink.sink.destination(&sink.context);
        let before = sinks[..at].iter().find(|other| other.kind == sink.kind && other.sink.destination(&other.context) == destination);
        if let Some(before) = before {
            wrong.push(
                Diagnostic::error("same-destination", format!("sinks \"{}\" and \"{}\" both write {destination}", before.name, sink.name))
                    .at(&pipeline.file, sink.settings.kind.span.clone(), "second")
                    .at(&pipeline.file, before.settings.kind.span.clone(), "first")
                    .help("bring their rows together with \"union all\" in a transform, and let one sink write them"),
            );
        }
    }
    wrong
}

/// A sink that replaces, fed by a source that reads only what is new: it would keep the newest files' rows, or none.
fn emptied(pipeline: &Pipeline) -> Diagnostics {
    let mut partial: Vec<&str> =
        pipeline.sources.iter().filter(|source| source.incremental.is_some()).map(|source| source.name.value.as_str()).collect();
    for transform in &pipeline.transforms {
        if transform.inputs.iter().any(|input| partial.contains(&input.value.as_str())) {
            partial.push(&transform.name.value);
        }
    }
    let replaces = pipeline.sinks.iter().filter(|sink| sink.mode.value == Mode::Replace && partial.contains(&sink.from.value.as_str()));
    let wrong = replaces.map(|sink| {
        Diagnostic::error(
            "replace-incremental",
            format!("sink \"{}\" replaces all rows with those of an incremental source, which reads only what is new", sink.name.value),
        )
        .at(&pipeline.file, sink.mode.span.clone(), "the rows of earlier runs would be gone")
        .help("use \"append\" or \"merge\", or read all files each time: leave \"incremental\" out")
    });
    wrong.collect()
}

struct Planner<'a> {
    pipeline: &'a Pipeline,
    run: &'a Arc<RunContext>,
    purpose: Purpose,
    session: &'a SessionContext,
    inputs: &'a Inputs,
    /// Steps that hold only what given rows add.
    added: HashSet<String>,
}

impl Planner<'_> {
    fn replaced(
        &self,
        name: &str,
        role: Role,
        kind: &str,
        rules: &Rules,
        rows: &Arc<dyn TableProvider>,
    ) -> Result<PlannedStep, Diagnostics> {
        let contract = self.contract(rules)?;
        let desk = self.desk(name, rules);
        let schema = rows.schema();
        let coordinates = contract.is_some() && schema.fields().ends_with(&Coordinates::fields());
        let checks: Vec<Arc<dyn RowCheck>> = match contract {
            // What these rows lack is a row's fault here, not the contract's: nothing is proved.
            Some(written) => vec![Arc::new(ContractCheck::new(Some(Arc::new(written.contract)), &schema, coordinates))],
            None => Vec::new(),
        };
        let step =
            Step::new(name.to_owned(), role, kind.to_owned(), Input::Provider(rows.clone()), checks, desk.clone(), self.run.cancel.clone());
        Ok(PlannedStep {
            step: Arc::new(step),
            desk,
            account: Account::Same,
            taken: Vec::new(),
            given: 0,
            read: None,
            advance: None,
            drift: Vec::new(),
            shape: None,
            guessed: false,
            own: None,
            contract: None,
            known: prove::Known::default(),
            filled: BTreeSet::new(),
            doubts: Vec::new(),
            extent: None,
        })
    }

    /// Plans a source. What is wrong with it and leaves its columns as they are goes to `wrong`; so does to `outside` the failure of a system
    /// that is known from before, by which it is planned then.
    async fn source(&self, source: &Source, wrong: &mut Diagnostics, outside: &mut Vec<Outside>) -> Result<PlannedStep> {
        let contract = self.contract(&source.rules);
        let kind = SOURCES.iter().find(|kind| kind.kind == source.settings.kind.value).expect("the parser knows the kinds of sources");
        let read = (kind.read)(&source.settings);
        let (contract, settings) = match (contract, read) {
            (Ok(contract), Ok(settings)) => (contract, settings),
            (contract, read) => {
                let wrong: Diagnostics = contract.err().into_iter().flatten().chain(read.err().into_iter().flatten()).collect();
                return Err(wrong.into());
            }
        };
        let desk = self.desk(&source.name.value, &source.rules);
        let coordinates = contract.is_some();
        let given = self.inputs.given.get(&source.name.value);
        let mut seen = self.inputs.seen.get(&source.name.value).cloned().unwrap_or_default();
        let before = seen.remove(drift::MEMORY_KEY).map(|text| Shape::decode(&text)).transpose()?;
        let mut context = SourceContext {
            run: self.run.clone(),
            step: source.name.value.clone(),
            folder: self.pipeline.folder.clone(),
            declared: contract.as_ref().map(|written| written.contract.columns().clone()),
            shape: None,
            known: before.as_ref().map(|before| before.columns().clone()),
            coordinates,
            incremental: source.incremental.as_ref().map(|incremental| incremental.value.clone()),
            seen,
            rejects: desk.clone(),
            purpose: if given.is_some_and(|given| given.place == Place::Instead) { Purpose::Plan } else { self.purpose },
        };
        let failed = |error: Error| match error.blame {
            Blame::User => Failure::from(pointed_at_source(&error, source)),
            _ => Failure::from_connector(&error).in_step(&source.name.value),
        };
        let declared = contract.as_ref().map(|written| &written.contract);
        let asked = settings.outside();
        let known = asked.as_ref().and(self.inputs.known.as_ref());
        let mut recalled = match (&asked, known) {
            (Some(asked), Some(known)) if known.offline => Some(known.recalled(source, asked)?),
            _ => None,
        };
        let told = context.clone();
        let open = async |context: &SourceContext| match &recalled {
            Some(own) => settings.recall(own, context),
            None => settings.open(context).await,
        };
        let settled = match drift::settle(source, declared, before.as_ref(), &mut context, open, failed).await {
            Err(failure @ Failure::Error(_)) if recalled.is_none() => {
                recalled = Some(known.and_then(|known| known.source(source)).ok_or_else(|| failure.clone())?);
                outside.push(Outside { failure, place: source.settings.kind.span.clone() });
                context = told;
                let open = async |context: &SourceContext| match &recalled {
                    Some(own) => settings.recall(own, context),
                    None => settings.open(context).await,
                };
                drift::settle(source, declared, before.as_ref(), &mut context, open, failed).await?
            }
            settled => settled?,
        };
        let own = asked.zip(settled.opened.columns.own.filter(|_| recalled.is_none()));
        let own = own.map(|(asked, columns)| Own { asked, columns });
        let provider = match given {
            None => settled.table,
            Some(given) => match given.place {
                Place::Instead => given.rows.table(),
                Place::Beside => given.beside(settled.table),
            },
        };
        let mut checks: Vec<Arc<dyn RowCheck>> = settled.check.into_iter().collect();
        let rows = checks.last().map_or_else(|| provider.schema(), |check| check.schema());
        let (contract, known) = self.prove(contract, &source.name.value, &rows, coordinates, prove::Known::default(), wrong);
        if let Some(held) = &contract {
            checks.push(Arc::new(ContractCheck::new(Some(held.contract.clone()), &rows, coordinates)));
        }
        let step = Step::new(
            source.name.value.clone(),
            Role::Source,
            source.settings.kind.value.clone(),
            Input::Provider(provider),
            checks,
            desk.clone(),
            self.run.cancel.clone(),
        );
        let shape = Shape::of(&step.schema, settled.absent);
        Ok(PlannedStep {
            step: Arc::new(step),
            desk,
            account: Account::Same,
            taken: Vec::new(),
            given: given.map_or(0, |given| given.rows.rows()),
            read: Some(settled.opened.read),
            advance: settled.opened.advance,
            drift: settled.drift,
            shape: Some(shape),
            guessed: settled.guessed,
            own,
            contract,
            known,
            filled: BTreeSet::new(),
            doubts: Vec::new(),
            extent: Some(settled.opened.extent),
        })
    }

    /// Plans a transform; none where a step that it reads is not there. What is wrong with it and leaves its columns as they are goes to
    /// `wrong`.
    async fn transform(
        &self,
        transform: &Transform,
        steps: &[PlannedStep],
        wrong: &mut Diagnostics,
    ) -> Result<Option<PlannedStep>, Diagnostics> {
        let contract = self.contract(&transform.rules).unwrap_or_else(|found| {
            wrong.extend(found);
            None
        });
        // Each transform plans in a session of its own that knows just its inputs, with readers of its own.
        let session = fork(self.session);
        let mut taken = Vec::new();
        let mut inputs: Vec<&Arc<Step>> = Vec::new();
        for input in &transform.inputs {
            let Some(found) = steps.iter().find(|step| step.step.name == input.value) else { return Ok(None) };
            if taken.iter().any(|(name, _): &(String, _)| *name == input.value) {
                continue;
            }
            let reader = Arc::<Reader>::default();
            let table = StepTable::new(found.step.clone(), reader.clone());
            let name = TableReference::bare(input.value.as_str());
            session.register_table(name, Arc::new(table)).map_err(|error| {
                vec![Diagnostic::error("cannot-plan", crate::sql::message(&error)).at(&self.pipeline.file, input.span.clone(), "")]
            })?;
            inputs.push(&found.step);
            taken.push((input.value.clone(), reader));
        }
        let mut planned = transforms::plan(&session, transform, &self.pipeline.file).await?;
        if inputs.iter().any(|input| self.added.contains(&input.name)) {
            // What cannot go row by row has been weighed by whoever gave the rows.
            planned.plan = delta::added(&planned.plan, &|table| self.added.contains(table), true)
                .map_err(|obstacle| vec![self.odd(transform, obstacle)])?;
        }
        let given = self.inputs.given.get(&transform.name.value);
        let mut input = Input::Plan(planned.plan.clone());
        if let Some(given) = given {
            let table = given.rows.table();
            input = match given.place {
                Place::Instead => Input::Provider(table),
                Place::Beside => {
                    let own = LogicalPlanBuilder::from(planned.plan.clone());
                    let joined = session.read_table(table).and_then(|rows| own.union(rows.into_unoptimized_plan())?.build());
                    Input::Plan(joined.map_err(|error| vec![self.odd(transform, &crate::sql::message(&error))])?)
                }
            };
        }
        if given.is_some_and(|given| given.place == Place::Instead) {
            (inputs, taken) = (Vec::new(), Vec::new());
        }
        for input in inputs {
            for _ in 0..scans_of(&planned.plan, &input.name) {
                input.announce_reader();
            }
        }
        let desk = self.desk(&transform.name.value, &transform.rules);
        let mut checks = planned.checks;
        let rows = match checks.last() {
            Some(check) => check.schema(),
            None => Arc::new(planned.plan.schema().as_arrow().clone()),
        };
        // Given rows did not come by way of the steps before.
        let known = if given.is_some() { prove::Known::default() } else { inherited(&planned.plan, steps) };
        let filled = if given.is_some() { BTreeSet::new() } else { nulls::filled(&planned.plan, steps) };
        let (contract, known) = self.prove(contract, &transform.name.value, &rows, false, known, wrong);
        if let Some(held) = &contract {
            checks.push(Arc::new(ContractCheck::new(Some(held.contract.clone()), &rows, false)));
        }
        let step = Step::new(
            transform.name.value.clone(),
            Role::Transform,
            planned.kind.to_owned(),
            input,
            checks,
            desk.clone(),
            self.run.cancel.clone(),
        );
        Ok(Some(PlannedStep {
            step: Arc::new(step),
            desk,
            account: planned.account,
            taken,
            given: given.map_or(0, |given| given.rows.rows()),
            read: None,
            advance: None,
            drift: Vec::new(),
            shape: None,
            guessed: false,
            own: None,
            contract,
            known,
            filled,
            doubts: planned.doubts,
            extent: None,
        }))
    }

    fn odd(&self, transform: &Transform, why: &str) -> Diagnostic {
        Diagnostic::error("cannot-plan", why.to_owned()).at(&self.pipeline.file, transform.name.span.clone(), "")
    }

    /// Plans a sink; none where its settings are wrong or the step that it reads is not there.
    fn sink(&self, sink: &Sink, steps: &[PlannedStep], wrong: &mut Diagnostics) -> Option<PlannedSink> {
        let kind = SINKS.iter().find(|kind| kind.kind == sink.settings.kind.value).expect("the parser knows the kinds of sinks");
        let read = (kind.read)(&sink.settings).map_err(|found| wrong.extend(found)).ok()?;
        let from = steps.iter().find(|step| step.step.name == sink.from.value)?;
        let columns: Vec<String> = from.step.schema.fields().iter().map(|field| field.name().clone()).collect();
        let is_column = |column: &&Spanned<String>| columns.contains(&column.value);
        let missing: Vec<&Spanned<String>> = sink.key.iter().chain(&sink.allow_lossy).filter(|column| !is_column(column)).collect();
        wrong.extend(missing.into_iter().map(|column| transforms::unknown_column(column, &sink.from.value, &columns, &self.pipeline.file)));
        let written = Written::of(self.pipeline, &sink.from.value);
        wrong.extend(agree::nulls(sink, &read.never_null(&from.step.schema), from, &self.pipeline.file));
        wrong.extend(agree::nullable_key(sink, from, &written, self.pipeline));
        from.step.announce_reader();
        let values = |names: &[Spanned<String>]| names.iter().filter(is_column).map(|name| name.value.clone()).collect();
        Some(PlannedSink {
            name: sink.name.value.clone(),
            kind: sink.settings.kind.value.clone(),
            from: from.step.clone(),
            taken: Arc::default(),
            sink: read,
            context: SinkContext {
                run: self.run.clone(),
                step: sink.name.value.clone(),
                folder: self.pipeline.folder.clone(),
                mode: sink.mode.value,
                key: values(&sink.key),
                on_schema_change: sink.on_schema_change,
                allow_lossy: values(&sink.allow_lossy),
                may_decide: false,
                beside: Vec::new(),
            },
            settings: sink.settings.clone(),
            contract: from.contract.clone(),
            written,
        })
    }

    fn desk(&self, step: &str, rules: &Rules) -> Arc<Desk> {
        let run = self.run;
        Arc::new(Desk::new(&run.run, &run.pipeline, step, run.started_at, rules.clone(), run.runtime.clone()))
    }

    /// Proves a step's contract, where it has one. What is known of its rows comes back, and more of it where there is a contract.
    fn prove(
        &self,
        contract: Option<proof::Written>,
        step: &str,
        columns: &SchemaRef,
        coordinates: bool,
        known: prove::Known,
        wrong: &mut Diagnostics,
    ) -> (Option<Arc<StepContract>>, prove::Known) {
        let Some(written) = contract else { return (None, known) };
        match written.prove(step, &properties(columns, coordinates), &known, &self.pipeline.file) {
            Ok((contract, known)) => (Some(Arc::new(contract)), known),
            Err(found) => {
                wrong.extend(found);
                (None, known)
            }
        }
    }

    fn contract(&self, rules: &Rules) -> Result<Option<proof::Written>, Diagnostics> {
        rules.contract.as_ref().map(|path| self.inputs.contracts.read(self.pipeline, path)).transpose()
    }
}

/// How often a plan scans a table, subqueries included.
fn scans_of(plan: &LogicalPlan, table: &str) -> usize {
    let mut scans = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == table
        {
            scans += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .expect("the walk itself does not fail");
    scans
}

/// A source's error as a diagnostic that points at the setting it names, or at how the source is read anew.
fn pointed_at_source(error: &Error, source: &Source) -> Diagnostic {
    let mut found = pointed(error, &source.settings, &source.name.value);
    if error.setting.as_deref() == Some("incremental")
        && let Some(incremental) = &source.incremental
        && let Some(label) = found.labels.first_mut()
    {
        label.span = incremental.span.clone();
    }
    found
}

/// A connector's error as a diagnostic that points at the setting it names.
pub fn pointed(error: &Error, settings: &Settings, step: &str) -> Diagnostic {
    let span = match &error.setting {
        Some(path) => settings.span_of(path),
        None => settings.kind.span.clone(),
    };
    let mut diagnostic = Diagnostic::error(error.code, error.message.clone()).at(&settings.file, span, format!("step \"{step}\""));
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !error.message.contains(&text) {
            diagnostic = diagnostic.help(format!("cause: {text}"));
        }
        cause = inner.source();
    }
    error.help.iter().fold(diagnostic, Diagnostic::help)
}
