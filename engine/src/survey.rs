//! What the rows of a file, a table or a step look like, as a contract for a person to edit. Rows are read and thrown away: nothing is
//! staged, nothing is published, no cursor moves. What a contract made from rows says is `weir_schemas::infer`'s.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{array::AsArray, datatypes::Int64Type};
use datafusion::{
    catalog::TableProvider,
    common::TableReference,
    error::{DataFusionError, Result as DfResult},
    execution::{SendableRecordBatchStream, runtime_env::RuntimeEnv},
    physical_plan::execute_stream,
    prelude::{DataFrame, SessionContext},
};
use futures::StreamExt;
use serde_json::{Map, Value, json};
use weir_connectors::{Blame, Purpose, RunContext, SOURCES, SourceContext, quote};
use weir_pipelines::{Diagnostic, OnInvalid, Pipeline, Rules, Settings};
use weir_schemas::infer::{Observer, Options};

use crate::{
    error::{Failure, Result},
    interval,
    plan::{self, Frugality, fork},
    quarantine::Desk,
    query::Session,
    run::explain,
    share,
    step::{Reader, StepTable, marked},
    workspace::Workspace,
};

/// The name under which the rows are a table.
const ROWS: &str = "rows";

/// Where the rows are.
#[derive(Debug)]
pub enum Origin {
    /// What a source with these settings reads; relative paths start from `folder`.
    Source {
        /// As under a source's kind.
        settings: Settings,
        /// Where relative paths start.
        folder: PathBuf,
    },
    /// A table that `weir sql` knows.
    Table(String),
    /// What leaves a step, all of its input read from the start.
    Step {
        /// The pipeline.
        pipeline: Box<Pipeline>,
        /// The step's name.
        step: String,
    },
}

/// How rows are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Survey {
    /// No more rows than this; all without it.
    pub limit: Option<u64>,
    /// How the contract is written.
    pub options: Options,
}

/// A contract and how it came about.
#[derive(Debug)]
pub struct Surveyed {
    /// The contract.
    pub contract: Value,
    /// Rows it was made from.
    pub rows: u64,
    /// Rows that could not be read, or broke a contract on their way.
    pub rejected: u64,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

/// Rows as a table that is read once.
struct Opened {
    session: SessionContext,
    table: Arc<dyn TableProvider>,
    desks: Vec<Arc<Desk>>,
}

/// Reads the rows and makes a contract that all of them keep.
pub async fn survey(workspace: &Workspace, origin: &Origin, title: &str, survey: Survey) -> Result<Surveyed> {
    let opened = open(workspace, origin, None).await?;
    let told = |error: &DataFusionError| {
        let failure = explain(error);
        match marked(error) {
            Some(step) => failure.in_step(step),
            None => failure,
        }
    };
    let arrow = |error: arrow::error::ArrowError| told(&error.into());
    let schema = opened.table.schema();
    if schema.fields().is_empty() {
        return Err(Failure::error("no-columns", "the data has no columns, so there is nothing to say of them"));
    }
    let mut observer = Observer::new(&schema, survey.options).map_err(arrow)?;
    let read = async {
        let mut frame = frame(&opened).await?;
        if let Some(limit) = survey.limit {
            frame = frame.limit(0, Some(usize::try_from(limit).unwrap_or(usize::MAX)))?;
        }
        stream(frame).await
    };
    let mut rows = read.await.map_err(|error| told(&error))?;
    while let Some(batch) = rows.next().await {
        observer.observe(&batch.map_err(|error| told(&error))?).map_err(arrow)?;
        // Batches may be ready one after another: whoever waits for Ctrl-C gets a turn.
        tokio::task::yield_now().await;
    }
    let limited = survey.limit.is_some_and(|limit| observer.rows() >= limit);
    // Readers read ahead: what was rejected may lie behind the limit.
    let rejected = if limited { 0 } else { opened.desks.iter().map(|desk| desk.rejected()).sum() };
    if observer.rows() == 0 {
        let empty = Failure::error("no-rows", format!("there is no row in {title} to learn from"));
        let empty =
            if rejected > 0 { empty.detail(format!("rows that could not be read, or broke a contract: {rejected}")) } else { empty };
        return Err(empty.help("a contract is made from rows; where there are none, write it by hand"));
    }
    let mut notes = Vec::new();
    let (mut keys, whole) = observer.keys();
    if !whole {
        keys = match survey.limit {
            Some(_) => {
                notes.push("keys were not looked for: that takes all rows, or no more than 65,536".to_owned());
                vec![]
            }
            None => unique(workspace, origin, keys, &mut notes).await?,
        };
    }
    let mut seen = Map::new();
    if rejected > 0 {
        seen.insert("rejected".into(), json!(rejected));
    }
    if limited {
        seen.insert("limited".into(), json!(true));
    }
    Ok(Surveyed { contract: observer.contract(title, &keys, seen), rows: observer.rows(), rejected, notes })
}

/// Keeps the candidates that tell all rows apart, by reading these columns again.
async fn unique(workspace: &Workspace, origin: &Origin, candidates: Vec<Vec<String>>, notes: &mut Vec<String>) -> Result<Vec<Vec<String>>> {
    let mut keys = Vec::new();
    for candidate in candidates {
        let opened = open(workspace, origin, None).await?;
        let twice = async {
            frame(&opened).await?;
            let columns = quote::identifiers(&candidate);
            let sql =
                format!("select count(*) from (select 1 from {} group by {columns} having count(*) > 1 limit 1)", quote::identifier(ROWS));
            let mut found = stream(opened.session.sql(&sql).await?).await?;
            let mut count = 0;
            while let Some(batch) = found.next().await {
                count += batch?.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
            }
            Ok::<i64, DataFusionError>(count)
        };
        match twice.await {
            Ok(0) => keys.push(candidate),
            Ok(_) => {}
            // A person who asks for a contract gets one, whether the count of a key fits into memory or not.
            Err(error) => notes.push(format!("cannot tell whether {} is a key: {}", candidate.join(", "), explain(&error).sentence())),
        }
    }
    Ok(keys)
}

async fn frame(opened: &Opened) -> DfResult<DataFrame> {
    opened.session.register_table(TableReference::bare(ROWS), opened.table.clone())?;
    opened.session.table(TableReference::bare(ROWS)).await
}

/// Plans and runs on other threads, so that whoever waits can stop waiting.
async fn stream(frame: DataFrame) -> DfResult<SendableRecordBatchStream> {
    let tasks = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await?;
    share::arm(&plan);
    execute_stream(plan, tasks)
}

/// The rows of a step as a table that is read once, in the memory of `runtime`. Planned on a thread that may wait.
pub(crate) async fn rows(workspace: &Workspace, origin: &Arc<Origin>, runtime: Arc<RuntimeEnv>) -> Result<Arc<dyn TableProvider>> {
    let (workspace, origin, handle) = (workspace.clone(), origin.clone(), tokio::runtime::Handle::current());
    let opening = move || handle.block_on(open(&workspace, &origin, Some(runtime))).map(|opened| opened.table);
    let opened = tokio::task::spawn_blocking(opening).await;
    opened.map_err(|_| Failure::error("panic", "planning a step panicked"))?
}

/// Opens the rows. A step is evaluated in the memory of `runtime`, where there is one.
async fn open(workspace: &Workspace, origin: &Origin, runtime: Option<Arc<RuntimeEnv>>) -> Result<Opened> {
    match origin {
        Origin::Source { settings, folder } => source(workspace, settings, folder).await,
        Origin::Table(name) => {
            let session = Session::open(workspace)?;
            let table = session.table(name).await?;
            Ok(Opened { session: session.apart(), table, desks: vec![] })
        }
        Origin::Step { pipeline, step } => {
            let mut context = RunContext::clone(&*workspace.dry_context(&pipeline.name.value)?);
            context.interval = interval::last_whole(pipeline, context.started_at);
            if let Some(runtime) = runtime {
                context.runtime = runtime;
            }
            let context = Arc::new(context);
            let (session, steps) = plan::plan_step(pipeline, &context, step).await?;
            let desks = steps.iter().map(|planned| planned.desk.clone()).collect();
            let planned = steps.into_iter().find(|planned| planned.step.name == *step).expect("it was planned");
            planned.step.announce_reader();
            let table = Arc::new(StepTable::new(planned.step, Arc::<Reader>::default()));
            Ok(Opened { session: fork(&session), table, desks })
        }
    }
}

async fn source(workspace: &Workspace, settings: &Settings, folder: &Path) -> Result<Opened> {
    let run: Arc<RunContext> = workspace.dry_context(ROWS)?;
    let kind = SOURCES.iter().find(|kind| kind.kind == settings.kind.value).ok_or_else(|| {
        let known = SOURCES.iter().map(|kind| kind.kind);
        let message = format!("rows are not read from a connection of kind \"{}\"", settings.kind.value);
        Diagnostic::error("unknown-kind", message).help(format!("kinds of sources are: {}", known.collect::<Vec<_>>().join(", ")))
    })?;
    let rules = Rules { contract: None, on_invalid: OnInvalid::Drop, max_invalid: None };
    let desk = Arc::new(Desk::new(&run.run, &run.pipeline, ROWS, run.started_at, rules, run.runtime.clone()));
    let context = SourceContext {
        run: run.clone(),
        step: ROWS.to_owned(),
        folder: folder.to_path_buf(),
        declared: None,
        shape: None,
        known: None,
        coordinates: false,
        incremental: None,
        seen: BTreeMap::new(),
        rejects: desk.clone(),
        purpose: Purpose::Run,
    };
    let opened = (kind.read)(settings)?.open(&context).await.map_err(|error| match error.blame {
        // There is no file to point into: the settings came from the command line.
        Blame::User => {
            let mut diagnostic = Diagnostic::error(error.code, error.message.clone());
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                let text = inner.to_string();
                if !error.message.contains(&text) {
                    diagnostic = diagnostic.help(format!("cause: {text}"));
                }
                cause = inner.source();
            }
            Failure::from(error.help.iter().fold(diagnostic, Diagnostic::help))
        }
        _ => Failure::from_connector(&error),
    })?;
    let session = plan::session(run.runtime.clone(), run.partitions, run.batch_rows, Frugality::Fast);
    Ok(Opened { session, table: opened.table, desks: vec![desk] })
}

/// The steps of a pipeline, by name.
pub fn steps(pipeline: &Pipeline) -> Vec<&str> {
    let sources = pipeline.sources.iter().map(|source| source.name.value.as_str());
    sources.chain(pipeline.transforms.iter().map(|transform| transform.name.value.as_str())).collect()
}
