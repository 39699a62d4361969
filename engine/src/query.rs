//! Ad-hoc SQL, read-only: `lake.<schema>.<table>` (and `"<table>@<version>"` for an older state), `quarantine.<pipeline>.<step>`,
//! the tables of `weir.` (`query/own.rs`), and table functions (`query/functions.rs`). Whatever would change something is refused.
//!
//! A [`Catalogue`] is what a process knows, a [`Session`] is one person at one door. Guards, limits, the queue and the log of statements are
//! in the session, so that no door can go round them.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    catalog::CatalogProvider,
    common::{ScalarValue, TableReference},
    error::DataFusionError,
    execution::{
        SendableRecordBatchStream, SessionState, SessionStateBuilder,
        context::SQLOptions,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::LogicalPlan,
    physical_plan::{
        execute_stream,
        stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter},
    },
    prelude::{DataFrame, SessionConfig, SessionContext},
};
use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use weir_connectors::spill::join::SpillJoins;
use weir_connectors::{browse::TimeLimit, lake::Tables, remote::PushDown};
use weir_pipelines::{SourceFile, SqlText};

use crate::{
    check::Column,
    error::{Failure, Result},
    scheduler::Catalogue as Files,
    sql::diagnose,
    workspace::Workspace,
};

mod answer;
mod bounded;
mod columns;
mod connections;
pub mod functions;
mod guard;
mod information;
mod lake;
mod like;
mod limits;
mod listing;
mod memory;
mod own;
mod parameters;
mod places;
pub mod postgres;
mod queue;
mod results;
mod saved;
mod travel;
pub mod weight;
mod yielding;

use answer::{Answer, Statement, cancelled, too_slow};
use guard::{finite, is_own, lists, read_only, refuse, several};
use information::Known;
use lake::DeltaCatalog;
use memory::Total;
use parameters::{bound, parameters};
use queue::Queue;
use results::{Keeping, Results};
use travel::time_travel;

pub use answer::{Counts, Ending};
pub use limits::{Door, Limits, SCOPES, Scopes, Who};
pub use saved::{CheckedQuery, Promised};

/// Bytes of a statement: a longer one is `too-long`.
pub const TEXT_MAX: usize = 1 << 20;
/// A prepared statement that is older is planned anew: tables may have new commits.
const PLAN_FRESH: Duration = Duration::from_millis(500);
/// A join keeps this share of a statement's memory; DataFusion needs about three times that.
const BUILD_SHARE: usize = 4;
/// Why a plan is there.
const IN_TURN: &str = "a statement whose turn it is is planned";
/// Batches that wait for a reader.
const BATCHES_AHEAD: usize = 2;

/// What a process answers with: tables that stay open, memory and threads that all statements share, and whose turn it is.
pub struct Catalogue {
    workspace: Workspace,
    files: Option<Arc<dyn Files>>,
    lake: Arc<Tables>,
    quarantine: Arc<Tables>,
    connections: connections::Connections,
    /// Functions and rules of every session; without tables.
    base: SessionState,
    runtime: Arc<RuntimeEnv>,
    total: Arc<Total>,
    queue: Queue,
    counts: Arc<Counts>,
    results: Arc<Results>,
    threads: Option<Threads>,
}

/// Threads of their own, so that work on a statement holds up nobody who only listens.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        // Whoever drops it may be in the middle of something that must not block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue").field("lake", &self.lake).finish_non_exhaustive()
    }
}

/// How a process answers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Statements that are answered at once.
    pub queries_max: usize,
    /// Bytes that all statements may hold in memory.
    pub memory_bytes: u64,
    /// True: statements are worked on by threads of their own.
    pub apart: bool,
    /// Where pipelines are read from, for `step()` and `weir.steps`.
    pub files: Option<Arc<dyn Files>>,
}

impl Settings {
    /// For one person at one machine.
    pub fn local(workspace: &Workspace) -> Self {
        Self { queries_max: usize::MAX, memory_bytes: workspace.memory_limit_bytes, apart: false, files: None }
    }
}

/// A table a query may name.
#[derive(Debug, Clone, Serialize)]
pub struct TableName {
    /// `lake`, `quarantine`, or a connection.
    pub catalog: String,
    /// The schema, or the pipeline.
    pub schema: String,
    /// The table, or the step.
    pub table: String,
    /// Whether its rows are made when they are asked for: a live database's view, or a table of `weir.`.
    pub is_view: bool,
    /// Its columns.
    pub columns: Vec<Column>,
}

impl Catalogue {
    /// Makes ready to answer. Nothing is listed or opened yet.
    pub fn open(workspace: &Workspace, settings: Settings) -> Result<Arc<Self>> {
        let runtime = workspace.runtime(None)?;
        let mut config = SessionConfig::new().with_create_default_catalog_and_schema(false).with_target_partitions(workspace.cpus);
        config.options_mut().sql_parser.collect_spans = true;
        config.options_mut().execution.parquet.pushdown_filters = true;
        let mut base = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime.clone())
            .with_default_features()
            .with_optimizer_rule(Arc::new(PushDown))
            .with_physical_optimizer_rule(Arc::new(SpillJoins { share: BUILD_SHARE }))
            .build();
        datafusion_functions_json::register_all(&mut base).map_err(|error| crate::run::explain(&error))?;
        bounded::bound(&mut base).map_err(|error| crate::run::explain(&error))?;
        let threads = match settings.apart {
            true => Some(threads(workspace.cpus)?),
            false => None,
        };
        let quarantine = workspace.state_dir.join("quarantine").display().to_string();
        let lake = Arc::new(Tables::new(&workspace.lake, workspace.environment.clone()));
        let quarantine = Arc::new(Tables::new(quarantine, workspace.environment.clone()));
        Ok(Arc::new(Self {
            connections: connections::Connections::new(workspace)?,
            base,
            runtime,
            total: Total::new(settings.memory_bytes),
            queue: Queue::new(settings.queries_max),
            counts: Arc::default(),
            results: Arc::new(Results::new([lake.clone(), quarantine.clone()])),
            lake,
            quarantine,
            threads,
            files: settings.files,
            workspace: workspace.clone(),
        }))
    }

    /// A session for somebody at a door.
    pub fn session(self: &Arc<Self>, who: Who) -> Session {
        let (catalog, schema) = (who.default_catalog.clone(), who.default_schema.clone());
        let config = self.base.config().clone().with_default_catalog_and_schema(catalog, schema);
        let catalogs = Arc::new(Known::new(&self.base));
        let state = SessionStateBuilder::new_from_existing(self.base.clone()).with_config(config).with_catalog_list(catalogs).build();
        let context = SessionContext::new_with_state(state);
        let lake = DeltaCatalog::new(self.lake.clone());
        let own = own::Own { workspace: self.workspace.clone(), lake: self.lake.clone(), files: self.files.clone() };
        let _ = lake.register_schema("weir", Arc::new(own));
        context.register_catalog("lake", Arc::new(lake));
        context.register_catalog("quarantine", Arc::new(DeltaCatalog::new(self.quarantine.clone())));
        for (name, catalogue) in self.connections.catalogues(&who.scopes) {
            context.register_catalog(name, catalogue);
        }
        let time = Mutex::new(who.limits.time);
        Session {
            inner: Arc::new(Inner {
                catalogue: self.clone(),
                who,
                context: RwLock::new(context),
                time,
                postgres: postgres::Asked::default(),
            }),
        }
    }

    /// Statements that are answered now, and that wait for their turn.
    pub fn at_work(&self) -> (usize, usize) {
        self.queue.counts()
    }

    /// How statements have ended, by all doors.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Does work on the threads of statements; it ends when nobody waits for it any more.
    async fn work<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let Some(Threads(Some(runtime))) = &self.threads else { return Ok(work.await) };
        let done = AbortOnDropHandle::new(runtime.spawn(work)).await;
        done.map_err(|_| Failure::error("panic", "a thread panicked while it worked on the statement"))
    }

    /// What a statement runs in: caches and stores that all share, and memory of its own.
    fn runtime(&self, limits: &Limits) -> Result<Arc<RuntimeEnv>> {
        let pool = self.total.pool(limits.memory);
        RuntimeEnvBuilder::from_runtime_env(&self.runtime).with_memory_pool(pool).build_arc().map_err(|error| crate::run::explain(&error))
    }
}

fn threads(cpus: usize) -> Result<Threads> {
    // As much stack as the threads of runs have: planners go down into expressions by recursion.
    let made = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cpus)
        .thread_name("statement")
        .thread_stack_size(8 << 20)
        .enable_all()
        .build();
    made.map(|runtime| Threads(Some(runtime))).map_err(|error| Failure::error("threads", format!("cannot start threads: {error}")))
}

/// One person at one door. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

impl Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("who", &self.inner.who).finish_non_exhaustive()
    }
}

/// What a session and its work share.
pub(crate) struct Inner {
    catalogue: Arc<Catalogue>,
    who: Who,
    context: RwLock<SessionContext>,
    /// The limit of time, which the person may lower.
    time: Mutex<Option<Duration>>,
    /// What `pg_catalog` tells, once it has been asked.
    postgres: postgres::Asked,
}

/// A statement that is parsed, allowed and planned.
#[derive(Debug, Clone)]
pub struct Prepared {
    sql: String,
    plan: LogicalPlan,
    schema: SchemaRef,
    parameters: Vec<Option<DataType>>,
    made: Instant,
    /// Its text alone would not make it again: it is asked as it is.
    is_fixed: bool,
}

impl Prepared {
    /// The columns of the answer.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The types of `$1`, `$2` and so on; None where the statement does not tell.
    pub fn parameters(&self) -> &[Option<DataType>] {
        &self.parameters
    }

    /// The plan, with parameters in it.
    pub fn plan(&self) -> &LogicalPlan {
        &self.plan
    }
}

impl Session {
    /// Opens a session of one's own over the lake, the quarantine and the run history.
    pub fn open(workspace: &Workspace) -> Result<Self> {
        Ok(Catalogue::open(workspace, Settings::local(workspace))?.session(Who::local()))
    }

    /// Who asks.
    pub fn who(&self) -> &Who {
        &self.inner.who
    }

    /// DataFusion's session, for who registers functions or tables in it.
    pub fn context(&self) -> SessionContext {
        self.inner.context.read().clone()
    }

    /// Lowers the limit of time of the statements to come; None takes the user's own again. It is never raised.
    pub fn set_time_limit(&self, limit: Option<Duration>) {
        let own = self.inner.who.limits.time;
        *self.inner.time.lock() = match (limit, own) {
            (Some(limit), Some(own)) => Some(limit.min(own)),
            (limit, own) => limit.or(own),
        };
    }

    /// Sets catalogue and schema of names without one.
    pub fn set_default(&self, catalog: &str, schema: &str) {
        let mut context = self.inner.context.write();
        let config = context.copied_config().with_default_catalog_and_schema(catalog, schema);
        *context = SessionContext::new_with_state(SessionStateBuilder::new_from_existing(context.state()).with_config(config).build());
    }

    fn limits(&self) -> Limits {
        Limits { time: *self.inner.time.lock(), ..self.inner.who.limits.clone() }
    }

    fn statement(&self, sql: &str) -> Statement {
        Statement::new(&self.inner.who.user, self.inner.who.door.as_str(), sql, self.inner.catalogue.counts.clone())
    }

    /// Parses a statement, refuses what is no question, and plans it. Nothing is executed; what table functions must read to know their columns is
    /// read in the statement's turn.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        let mut unplanned = Unplanned { session: self, sql, ended: false };
        let prepared = self.planned_in_turn(sql).await;
        unplanned.ended = true;
        if let Err(failure) = &prepared {
            self.statement(sql).failed(failure);
        }
        prepared
    }

    async fn planned_in_turn(&self, sql: &str) -> Result<Prepared> {
        // What reads nothing need not wait.
        if let Some(prepared) = self.planned(sql, None, false).await? {
            return Ok(prepared);
        }
        let limits = self.limits();
        // Whoever gives up drops this, and waits no longer.
        let never = CancellationToken::new();
        let _turn = self.inner.catalogue.queue.turn(&self.inner.who.user, limits.queries, limits.wait, &never).await?;
        Ok(self.planned(sql, None, true).await?.expect(IN_TURN))
    }

    /// Notes in the log a statement that a door has refused by itself.
    pub fn refused(&self, sql: &str, failure: &Failure) {
        self.statement(sql).failed(failure);
    }

    /// None where it is not the statement's turn, and planning it reads.
    async fn planned(&self, sql: &str, deadline: Option<tokio::time::Instant>, has_turn: bool) -> Result<Option<Prepared>> {
        // Doors turn such users away before; this holds where one should forget to.
        if !self.inner.who.scopes.has("sql") {
            let message = format!("the token \"{}\" does not open \"sql\"", self.inner.who.user);
            return Err(Failure::error("not-allowed", message).help("make one that does with: weir serve token new NAME --scope sql"));
        }
        if sql.len() > TEXT_MAX {
            return Err(Failure::error("too-long", format!("the statement has more than {TEXT_MAX} bytes")));
        }
        let (inner, text) = (self.inner.clone(), sql.to_owned());
        let planning = self.inner.catalogue.work(async move { inner.plan(&text, has_turn).await });
        let time = self.limits().time;
        match deadline.or_else(|| time.map(|time| tokio::time::Instant::now() + time)) {
            None => planning.await?,
            Some(at) => match tokio::time::timeout_at(at, planning).await {
                Ok(planned) => planned?,
                Err(_) => Err(Failure::from_connector(&too_slow(time.unwrap_or_default()))),
            },
        }
    }

    /// Answers a prepared statement. Cancelling ends its stream with an error, and dropping the stream ends the work.
    pub async fn execute(
        &self,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
        cancel: CancellationToken,
    ) -> Result<SendableRecordBatchStream> {
        Ok(self.begin(prepared, parameters, cancel).await?.0)
    }

    /// Answers a prepared statement for a door that may have to break the answer off itself: then it says why.
    pub async fn begin(
        &self,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
        cancel: CancellationToken,
    ) -> Result<(SendableRecordBatchStream, Ending)> {
        self.answered(&prepared.sql, Some(prepared), parameters, cancel).await
    }

    /// Answers one query. Cancelling ends its stream with an error, and dropping the stream ends the work.
    pub async fn query(&self, sql: &str, cancel: CancellationToken) -> Result<SendableRecordBatchStream> {
        Ok(self.answered(sql, None, vec![], cancel).await?.0)
    }

    async fn answered(
        &self,
        sql: &str,
        prepared: Option<&Prepared>,
        parameters: Vec<ScalarValue>,
        cancel: CancellationToken,
    ) -> Result<(SendableRecordBatchStream, Ending)> {
        let mut statement = self.statement(sql);
        let limits = self.limits();
        let begun = async {
            let turn = self.inner.catalogue.queue.turn(&self.inner.who.user, limits.queries, limits.wait, &cancel).await?;
            let deadline = limits.time.map(|time| tokio::time::Instant::now() + time);
            let began = self.begun(sql, prepared, parameters, deadline, &limits);
            let late = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                begun = began => Ok::<_, Failure>((begun?, turn, deadline)),
                () = cancel.cancelled() => Err(cancelled()),
                () = late => Err(Failure::from_connector(&too_slow(limits.time.unwrap_or_default()))),
            }
        };
        match begun.await {
            Ok(((stream, keeping), turn, deadline)) => {
                let answer = Answer::new(stream, keeping, limits, deadline, cancel, statement, turn);
                let ending = answer.ending();
                Ok((Box::pin(answer), ending))
            }
            Err(failure) => {
                statement.failed(&failure);
                Err(failure)
            }
        }
    }

    async fn begun(
        &self,
        sql: &str,
        prepared: Option<&Prepared>,
        parameters: Vec<ScalarValue>,
        deadline: Option<tokio::time::Instant>,
        limits: &Limits,
    ) -> Result<(SendableRecordBatchStream, Option<Keeping>)> {
        let planned = match prepared {
            Some(prepared) if prepared.is_fixed || prepared.made.elapsed() < PLAN_FRESH => prepared.clone(),
            Some(prepared) => {
                let planned = self.planned(sql, deadline, true).await?.expect(IN_TURN);
                if planned.schema != prepared.schema {
                    return Err(
                        Failure::error("changed", "the statement has other columns now than when it was prepared").help("prepare it again")
                    );
                }
                planned
            }
            None => self.planned(sql, deadline, true).await?.expect(IN_TURN),
        };
        let (inner, runtime) = (self.inner.clone(), self.inner.catalogue.runtime(limits)?);
        let plan = bound(&planned, parameters)?;
        let catalogue = &self.inner.catalogue;
        let question = catalogue.results.question(&planned.sql, &plan);
        if let Some(batches) = question.as_ref().and_then(|question| catalogue.results.get(question)) {
            let rows = futures::stream::iter(batches.into_iter().map(Ok));
            return Ok((Box::pin(RecordBatchStreamAdapter::new(planned.schema(), rows)), None));
        }
        let stream = catalogue.work(async move { inner.run(&planned.sql, plan, runtime).await }).await??;
        let keeping = question.map(|question| Keeping::new(catalogue.results.clone(), question));
        Ok((stream, keeping))
    }

    /// Answers one query with all its rows.
    pub async fn collect(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let mut stream = self.query(sql, CancellationToken::new()).await?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            batches.push(batch.map_err(|error| crate::run::explain(&error))?);
        }
        Ok(batches)
    }

    /// A quarantine table.
    pub async fn quarantined(&self, pipeline: &str, step: &str) -> Result<DataFrame> {
        self.context().table(TableReference::full("quarantine", pipeline, step)).await.map_err(|error| crate::run::explain(&error))
    }

    /// A session with the same memory and stores that knows no tables.
    pub fn apart(&self) -> SessionContext {
        crate::plan::fork(&self.context())
    }
}

impl Inner {
    /// Parses, guards and plans. None where it is not the statement's turn, and planning it reads.
    async fn plan(&self, sql: &str, has_turn: bool) -> Result<Option<Prepared>> {
        let text = SqlText::plain(SourceFile::new("<sql>", time_travel(sql)));
        text.check_depth()?;
        let mut context = self.context.read().clone();
        let asks_postgres = postgres::asks(&text.text);
        let mut statement = if asks_postgres {
            context = self.postgres.context(&context, &self.who.user).map_err(|error| diagnose(&error, &text))?;
            postgres::parse(&text)?
        } else {
            let dialect = context.state().config().options().sql_parser.dialect;
            context.state().sql_to_statement(&text.text, &dialect).map_err(|error| several(&error, &text))?
        };
        let state = context.state();
        read_only(&statement, &text)?;
        finite(&statement, &text)?;
        like::escaped(&mut statement);
        let calls = functions::take(&state, &mut statement, &text)?;
        if !has_turn && calls.iter().any(reads) {
            return Ok(None);
        }
        let context = match calls.is_empty() {
            true => context,
            false => {
                // What is read already now is held in memory that the statement may have.
                let runtime = self.catalogue.runtime(&self.who.limits)?;
                let state = SessionStateBuilder::new_from_existing(copied(&context).state()).with_runtime_env(runtime).build();
                let own = SessionContext::new_with_state(state);
                functions::answer(self, &own, &calls, &text).await?;
                own
            }
        };
        if lists(&statement, &text) {
            self.list().await?;
        }
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let planned = context.state().statement_to_plan(statement).await.and_then(|plan| options.verify_plan(&plan).map(|()| plan));
        let plan = match planned {
            Ok(plan) => plan,
            // What was planned is not what stands in the text: calls are tables, and `pg_catalog` is asked in our words.
            Err(error) if (asks_postgres || !calls.is_empty()) && !is_own(&error) => return Err(diagnose(&error, &text).into()),
            Err(error) => return Err(refuse(&context, &error, &text).await),
        };
        let parameters = parameters(&plan).map_err(|error| diagnose(&error, &text))?;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Ok(Some(Prepared { sql: sql.to_owned(), plan, schema, parameters, made: Instant::now(), is_fixed: false }))
    }

    /// Starts to execute.
    async fn run(&self, sql: &str, plan: LogicalPlan, runtime: Arc<RuntimeEnv>) -> Result<SendableRecordBatchStream> {
        let context = self.context.read().clone();
        let mut state = SessionStateBuilder::new_from_existing(context.state()).with_runtime_env(runtime).build();
        if let Some(time) = *self.time.lock() {
            state.config_mut().set_extension(Arc::new(TimeLimit(time)));
        }
        let physical = match state.create_physical_plan(&plan).await {
            Ok(physical) => physical,
            Err(error) => {
                let text = SqlText::plain(SourceFile::new("<sql>", time_travel(sql)));
                if postgres::asks(&text.text) && !is_own(&error) {
                    return Err(diagnose(&error, &text).into());
                }
                return Err(refuse(&context, &error, &text).await);
            }
        };
        // Whoever drops the stream ends the work, also where it is in the middle of something long.
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        let physical =
            columns::measured(physical).and_then(|plan| yielding::yielding(plan, &over)).map_err(|error| crate::run::explain(&error))?;
        let mut rows = execute_stream(physical, state.task_ctx()).map_err(|error| crate::run::explain(&error))?;
        // On a task of its own, which goes on while whoever asked is busy with what came before.
        let mut stream = RecordBatchReceiverStream::builder(rows.schema(), BATCHES_AHEAD);
        let sender = stream.tx();
        stream.spawn(async move {
            while let Some(batch) = rows.next().await {
                // Nobody waits any more: the answer was given up.
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        let stream = stream.build();
        Ok(Box::pin(RecordBatchStreamAdapter::new(stream.schema(), stream.inspect(move |_| _ = &guard))))
    }

    /// Lists the tables there are.
    async fn list(&self) -> Result<()> {
        self.catalogue.connections.list(&self.who.scopes).await;
        self.catalogue.lake.list().await?;
        Ok(self.catalogue.quarantine.list().await?)
    }
}

/// Whether a call reads files or systems while the statement is planned. A saved query may call what does.
fn reads(call: &functions::Call) -> bool {
    matches!(call.name.as_str(), "file" | "step") || call.name.starts_with("query.")
}

/// Logs a statement that is given up before it is planned.
struct Unplanned<'a> {
    session: &'a Session,
    sql: &'a str,
    ended: bool,
}

impl Drop for Unplanned<'_> {
    fn drop(&mut self) {
        if !self.ended {
            drop(self.session.statement(self.sql));
        }
    }
}

/// A session that knows the same, in which more can be registered.
fn copied(context: &SessionContext) -> SessionContext {
    let state = context.state();
    let catalogs = Known::new(&state);
    for name in context.catalog_names() {
        context.catalog(&name).map(|catalog| datafusion::catalog::CatalogProviderList::register_catalog(&catalogs, name, catalog));
    }
    SessionContext::new_with_state(SessionStateBuilder::new_from_existing(state).with_catalog_list(Arc::new(catalogs)).build())
}

/// A failure as DataFusion hands it on.
fn external(failure: Failure) -> DataFusionError {
    let error = match failure {
        Failure::Error(error) => {
            let said = weir_connectors::Error::user(error.code, error.message.clone());
            error.help.iter().fold(said, |said, help| said.help(help))
        }
        Failure::Diagnostics(all) => {
            let (code, message) = all.first().map_or(("interrupted", "interrupted"), |first| (first.code, first.message.as_str()));
            let help = all.first().map(|first| first.help.as_slice()).unwrap_or_default();
            help.iter().fold(weir_connectors::Error::user(code, message), |said, help| said.help(help))
        }
        Failure::Interrupted => weir_connectors::Error::user("interrupted", "interrupted"),
    };
    error.into()
}

#[cfg(test)]
#[path = "query/query_tests.rs"]
mod session_tests;
