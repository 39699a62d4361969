//! `query.NAME(…)`: the saved queries of a project as tables. They are planned in the session that asks, so that nothing is open to them that is
//! closed to whoever asks, and their parameters are bound as values.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, SchemaProvider, TableProvider},
    datasource::{ViewTable, empty::EmptyTable},
    error::Result as DfResult,
    execution::context::SQLOptions,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
    sql::parser::Statement as Parsed,
};
use futures::future::BoxFuture;
use serde::Serialize;
use weir_pipelines::{Diagnostic, Diagnostics, Saved, SavedDefault, SavedParam, SourceFile, SqlText};

use super::{
    Inner, Prepared, Session, copied, finite,
    functions::{self, Argument, Call},
    is_own, like, lists, read_only, refuse, time_travel,
};
use crate::{
    check::{Column, columns},
    error::{Failure, Result},
    params::{self, Named},
    sql::{diagnose, duplicates},
};

/// The schema of saved queries, before their names.
pub(super) const SCHEMA: &str = "query";

/// Saved queries that are being planned, one in the other.
#[derive(Debug, Default)]
struct Within(Vec<String>);

/// A saved query that can be asked.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedQuery {
    /// Its name.
    pub query: String,
    /// What it is for.
    pub description: String,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// The columns of its answer; none where its tables could not be looked at.
    pub columns: Vec<Column>,
}

/// A parameter of a saved query.
#[derive(Debug, Clone, Serialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type, as the header has it.
    pub r#type: String,
    /// Whether it must be given.
    pub required: bool,
    /// What it is where nothing is given, as the header has it.
    pub default: Option<String>,
    /// What it is for.
    pub description: String,
}

/// A lake table that a pipeline will make.
#[derive(Debug, Clone)]
pub struct Promised {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its columns.
    pub columns: SchemaRef,
}

impl From<&SavedParam> for Parameter {
    fn from(param: &SavedParam) -> Self {
        let default = match &param.default {
            SavedDefault::None => None,
            SavedDefault::Null => Some("null".to_owned()),
            SavedDefault::Value(value) => Some(value.to_string()),
        };
        Self {
            name: param.name.value.clone(),
            r#type: param.kind.to_string(),
            required: param.default == SavedDefault::None,
            default,
            description: param.description.clone(),
        }
    }
}

impl CheckedQuery {
    /// What its file says of it.
    pub fn new(saved: &Saved) -> Self {
        Self {
            query: saved.name.value.clone(),
            description: saved.description.clone(),
            parameters: saved.params.iter().map(Parameter::from).collect(),
            columns: vec![],
        }
    }
}

impl Inner {
    /// The saved queries there are, and what is wrong with the files of others.
    async fn queries(&self) -> (Vec<Saved>, Diagnostics) {
        let Some(files) = self.catalogue.files.clone() else { return Default::default() };
        tokio::task::spawn_blocking(move || files.queries()).await.unwrap_or_default()
    }

    /// The saved query of this name, or why there is none.
    async fn query(&self, name: &str) -> Result<Saved, Box<Diagnostic>> {
        let (saved, wrong) = self.queries().await;
        let names: Vec<String> = saved.iter().map(|saved| saved.name.value.clone()).collect();
        saved.into_iter().find(|saved| saved.name.value == name).ok_or_else(|| {
            let missing = Diagnostic::error("unknown-query", format!("there is no saved query \"{name}\""));
            let missing = missing.did_you_mean(name, names.iter().map(String::as_str));
            let missing = match names.is_empty() {
                true => missing.help(format!("save one: a file queries/{name}.sql whose first line is -- name: {name}")),
                false => missing.help(format!("saved queries are: {}", crate::transforms::listed(&names))),
            };
            let is_wrong = wrong.iter().any(|one| one.severity == weir_pipelines::Severity::Error);
            Box::new(if is_wrong { missing.help("weir check says what is wrong with files in queries/") } else { missing })
        })
    }
}

impl Session {
    /// The saved queries there are, in the order of their names, and what is wrong with the files of others.
    pub async fn queries(&self) -> (Vec<Saved>, Diagnostics) {
        self.inner.queries().await
    }

    /// Prepares a saved query with values as a command line has them: bare text, read as each parameter's type says.
    pub async fn saved(&self, name: &str, given: &[(String, String)]) -> Result<Prepared> {
        let prepared = self.prepared(name, given).await;
        if let Err(failure) = &prepared {
            self.statement(&shown(name)).failed(failure);
        }
        prepared
    }

    async fn prepared(&self, name: &str, given: &[(String, String)]) -> Result<Prepared> {
        let saved = self.inner.query(name).await.map_err(|missing| *missing)?;
        let values = read(&saved, given)?;
        let (inner, context) = (self.inner.clone(), self.context());
        let plan = self.inner.catalogue.work(async move { planned(&inner, &context, &saved, values).await }).await??;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Ok(Prepared { sql: shown(name), plan, schema, parameters: vec![], made: Instant::now(), is_fixed: true })
    }

    /// Plans a saved query, whatever its parameters will be. Where that fails, once more with the tables that pipelines will make.
    pub async fn check_saved(&self, saved: &Saved, promised: &[Promised]) -> Result<CheckedQuery> {
        let (inner, context) = (self.inner.clone(), self.context());
        let (saved, promised) = (saved.clone(), promised.to_vec());
        let checked = async move {
            let open = || saved.params.iter().map(|param| Named::open(&param.name.value, param.kind)).collect::<Vec<_>>();
            let plan = match planned(&inner, &context, &saved, open()).await {
                Err(Failure::Diagnostics(found)) if !promised.is_empty() => {
                    let later = copied(&context);
                    if let Some(lake) = later.catalog("lake") {
                        later.register_catalog("lake", Arc::new(Later { lake, promised }));
                    }
                    // Where a table was missing, what is wrong besides is known only now.
                    let is_missing = found.iter().any(|one| one.code == "unknown-table");
                    planned(&inner, &later, &saved, open()).await.map_err(|other| match is_missing {
                        true => other,
                        false => Failure::Diagnostics(found),
                    })
                }
                planned => planned,
            }?;
            Ok(CheckedQuery { columns: columns(&Arc::new(plan.schema().as_arrow().clone())), ..CheckedQuery::new(&saved) })
        };
        self.inner.catalogue.work(checked).await?
    }
}

/// What the log says of a saved query: its values stay out of it.
fn shown(name: &str) -> String {
    format!("select * from {SCHEMA}.{name}(…)")
}

/// Opens the call of a saved query as a table.
pub(super) async fn open(inner: &Inner, session: &SessionContext, call: &Call, text: &SqlText) -> Result<Arc<dyn TableProvider>> {
    let name = call.name.split_once('.').map_or(call.name.as_str(), |(_, name)| name);
    let saved = inner.query(name).await.map_err(|missing| missing.at(&text.file, call.span.clone(), "not found"))?;
    let values = values(&saved, call, text)?;
    let plan = planned(inner, session, &saved, values).await?;
    Ok(Arc::new(ViewTable::new(plan, Some(saved.sql.text))))
}

/// Plans a saved query in a session, and binds its parameters.
fn planned<'a>(inner: &'a Inner, session: &'a SessionContext, saved: &'a Saved, values: Vec<Named>) -> BoxFuture<'a, Result<LogicalPlan>> {
    // A call in its text may be that of another saved query, and so on.
    Box::pin(plan(inner, session, saved, values))
}

async fn plan(inner: &Inner, session: &SessionContext, saved: &Saved, values: Vec<Named>) -> Result<LogicalPlan> {
    let name = &saved.name.value;
    let before = session.state().config().get_extension::<Within>().unwrap_or_default();
    let mut within = before.0.clone();
    within.push(name.clone());
    if before.0.contains(name) {
        let message = format!("the saved query \"{name}\" asks itself: {}", within.join(" -> "));
        return Err(Diagnostic::error("query-cycle", message).at(&saved.sql.file, saved.name.span.clone(), "").into());
    }
    let text = match time_travel(&saved.sql.text) {
        same if same == saved.sql.text => saved.sql.clone(),
        // Places behind an older version are those of the text as it is planned.
        other => SqlText::plain(SourceFile::new(saved.sql.file.path.clone(), other)),
    };
    text.check_depth()?;
    let own = copied(session);
    own.state_ref().write().config_mut().set_extension(Arc::new(Within(within)));
    params::name(&own, values);
    let state = own.state();
    let dialect = state.config().options().sql_parser.dialect;
    let mut statement = state.sql_to_statement(&text.text, &dialect).map_err(|error| diagnose(&error, &text))?;
    read_only(&statement, &text)?;
    finite(&statement, &text)?;
    like::escaped(&mut statement);
    let calls = functions::take(&state, &mut statement, &text)?;
    if !calls.is_empty() {
        functions::answer(inner, &own, &calls, &text).await?;
    }
    if lists(&statement, &text) {
        inner.list().await?;
    }
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let bound = match saved.params.is_empty() {
        true => own.state().statement_to_plan(statement).await,
        false => {
            reachable(&own, &statement).await?;
            params::statement(&own, statement).await
        }
    };
    let plan = match bound.and_then(|plan| options.verify_plan(&plan).map(|()| plan)) {
        Ok(plan) => plan,
        // What stands in the text are calls; what was planned names their tables.
        Err(error) if !calls.is_empty() && !is_own(&error) => return Err(diagnose(&error, &text).into()),
        Err(error) => return Err(refuse(&own, &error, &text).await),
    };
    let twice = duplicates(&own, &text, &plan).await;
    if twice.is_empty() { Ok(plan) } else { Err(twice.into()) }
}

/// Fails where a table of a statement says itself why it cannot be opened.
async fn reachable(session: &SessionContext, statement: &Parsed) -> Result<()> {
    for reference in session.state().resolve_table_references(statement).unwrap_or_default() {
        match session.table_provider(reference).await {
            Err(error) if is_own(&error) => return Err(crate::run::explain(&error)),
            _ => {}
        }
    }
    Ok(())
}

/// The values of a call, each of its parameter's type.
fn values(saved: &Saved, call: &Call, text: &SqlText) -> Result<Vec<Named>> {
    let function = &call.name;
    let names: Vec<&str> = saved.params.iter().map(|param| param.name.value.as_str()).collect();
    let takes = || match names.is_empty() {
        true => "it takes none".to_owned(),
        false => format!("it takes {}", saved.params.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    let mut given: BTreeMap<&str, &Argument> = BTreeMap::new();
    for (at, argument) in call.arguments.iter().enumerate() {
        let wrong = |message: String| Diagnostic::error("argument", message).at(&text.file, argument.span.clone(), "");
        let name = match &argument.name {
            Some(name) => *names.iter().find(|known| *known == name).ok_or_else(|| {
                wrong(format!("{function} has no argument \"{name}\"")).did_you_mean(name, names.iter().copied()).help(takes())
            })?,
            None => *names.get(at).ok_or_else(|| {
                let most = names.len();
                wrong(format!("{function} takes {most} argument{} at most", if most == 1 { "" } else { "s" })).help(takes())
            })?,
        };
        if given.insert(name, argument).is_some() {
            return Err(wrong(format!("\"{name}\" is given twice")).into());
        }
    }
    let value = |param: &SavedParam| -> Result<Named> {
        let name = param.name.value.as_str();
        let Some(argument) = given.get(name) else {
            let missing = || Diagnostic::error("argument", format!("{function} needs \"{name}\"")).at(&text.file, call.span.clone(), "");
            return by_default(param).ok_or_else(|| missing().help(takes()).into());
        };
        let read = as_text(param, argument).and_then(|text| text.map(|text| param.read(&text)).transpose());
        let read = read.map_err(|message| {
            Diagnostic::error("argument", format!("\"{name}\" of {function}: {message}"))
                .at(&text.file, argument.span.clone(), "")
                .help(format!("\"{name}\" is of type {}", param.kind))
        })?;
        Ok(Named::bound(name, param.kind, read.as_ref()))
    };
    saved.params.iter().map(value).collect()
}

/// A value of SQL as text, which the parameter's type reads; none where it is null.
fn as_text(param: &SavedParam, argument: &Argument) -> Result<Option<String>, String> {
    let value = &argument.value;
    if value.is_null() {
        return Ok(None);
    }
    let is_text = matches!(value.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if param.kind == weir_pipelines::ParamKind::Text && !is_text {
        return Err(format!("expected a text, found {value}"));
    }
    if let Some(written) = &argument.written {
        return Ok(Some(written.clone()));
    }
    let shown = value.to_array().and_then(|array| Ok(arrow::util::display::array_value_to_string(&array, 0)?));
    shown.map(Some).map_err(|_| "this is no value of it".to_owned())
}

fn by_default(param: &SavedParam) -> Option<Named> {
    match &param.default {
        SavedDefault::None => None,
        SavedDefault::Null => Some(Named::bound(&param.name.value, param.kind, None)),
        SavedDefault::Value(value) => Some(Named::bound(&param.name.value, param.kind, Some(value))),
    }
}

/// Values from a command line. All that is wrong with them is told at once.
fn read(saved: &Saved, given: &[(String, String)]) -> Result<Vec<Named>, Diagnostics> {
    let (name, file) = (&saved.name.value, &saved.sql.file);
    let names: Vec<&str> = saved.params.iter().map(|param| param.name.value.as_str()).collect();
    let mut wrong = Diagnostics::new();
    for (unknown, _) in given.iter().filter(|(given, _)| !names.contains(&given.as_str())) {
        let found = Diagnostic::error("unknown-param", format!("the saved query \"{name}\" has no parameter \"{unknown}\""));
        let found = found.did_you_mean(unknown, names.iter().copied());
        wrong.push(match names.as_slice() {
            [] => found.help("it has no parameters"),
            names => found.help(format!("parameters are: {}", names.join(", "))),
        });
    }
    let mut values = Vec::new();
    for param in &saved.params {
        let name = &param.name.value;
        // Of several, the last one counts, as with any option.
        match (given.iter().rev().find(|(given, _)| given == name), by_default(param)) {
            (Some((_, text)), _) => match param.read(text) {
                Ok(value) => values.push(Named::bound(name, param.kind, Some(&value))),
                Err(message) => wrong.push(
                    Diagnostic::error("wrong-type", format!("\"{name}\": {message}"))
                        .at(file, param.name.span.clone(), "")
                        .help(format!("\"{name}\" is of type {}", param.kind)),
                ),
            },
            (None, Some(default)) => values.push(default),
            (None, None) => wrong.push(
                Diagnostic::error("missing-param", format!("the parameter \"{name}\" has no value"))
                    .at(file, param.name.span.clone(), "not given")
                    .help(format!("give it one with --{name} …, or write a default")),
            ),
        }
    }
    if wrong.is_empty() { Ok(values) } else { Err(wrong) }
}

/// The lake, with the tables that pipelines will make.
#[derive(Debug)]
struct Later {
    lake: Arc<dyn CatalogProvider>,
    promised: Vec<Promised>,
}

impl CatalogProvider for Later {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.lake.schema_names();
        names.extend(self.promised.iter().map(|promised| promised.schema.clone()));
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let promised: Vec<Promised> = self.promised.iter().filter(|promised| promised.schema == name).cloned().collect();
        match (self.lake.schema(name), promised.is_empty()) {
            (known, true) => known,
            (known, false) => Some(Arc::new(LaterSchema { known, promised })),
        }
    }
}

#[derive(Debug)]
struct LaterSchema {
    known: Option<Arc<dyn SchemaProvider>>,
    promised: Vec<Promised>,
}

#[async_trait]
impl SchemaProvider for LaterSchema {
    fn table_names(&self) -> Vec<String> {
        self.promised.iter().map(|promised| promised.table.clone()).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let bare = name.split_once('@').map_or(name, |(table, _)| table);
        match (self.promised.iter().find(|promised| promised.table == bare), &self.known) {
            (Some(promised), _) => Ok(Some(Arc::new(EmptyTable::new(promised.columns.clone())))),
            (None, Some(known)) => known.table(name).await,
            (None, None) => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        let bare = name.split_once('@').map_or(name, |(table, _)| table);
        self.promised.iter().any(|promised| promised.table == bare) || self.known.as_ref().is_some_and(|known| known.table_exist(name))
    }
}
