//! Table functions of ad-hoc SQL: `file('…')`, `step('pipeline', 'name')`, `changes('lake.s.t', 3)`, `history('lake.s.t')`, `query.NAME(…)`.
//!
//! DataFusion asks a table function for its table at once, and these have to ask files and servers first. So calls are taken out of a
//! statement before it is planned, answered, and put back as tables that nothing else can name.

use std::{cell::OnceCell, collections::HashMap, ops::ControlFlow, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::Schema,
};
use datafusion::{
    catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider},
    common::{DFSchema, ScalarValue},
    execution::SessionState,
    prelude::SessionContext,
    sql::{
        parser::Statement,
        sqlparser::ast::{
            Expr, FunctionArg, FunctionArgExpr, FunctionArgOperator, Ident, ObjectName, Spanned, TableAlias, TableFactor, UnaryOperator,
            Value, VisitMut, VisitorMut,
        },
    },
};
use weir_pipelines::{Diagnostic, Span, SqlText};

use super::{Inner, places::Places, saved};
use crate::error::Result;

mod changes;
mod file;
mod step;

/// The catalogue of tables that calls became.
const CALLS: &str = "call";
const SCHEMA: &str = "main";

/// A value that a table function is called with.
#[derive(Debug, Clone)]
pub struct Argument {
    /// `name => value`.
    pub name: Option<String>,
    /// The value.
    pub value: ScalarValue,
    /// A number as it is written: its value may be rounded.
    pub written: Option<String>,
    /// Where it is written, in the statement's file.
    pub span: Span,
}

/// Arguments by name, as a function declares them, in the order in which they may be given without one.
pub(super) struct Given<'a> {
    function: &'a str,
    values: HashMap<&'static str, (ScalarValue, Span)>,
    text: &'a SqlText,
    call: Span,
}

impl<'a> Given<'a> {
    /// Holds arguments against the names that a function takes.
    pub fn new(call: &'a Call, names: &[&'static str], text: &'a SqlText) -> Result<Self> {
        let function = call.name.as_str();
        let mut values = HashMap::new();
        for (at, argument) in call.arguments.iter().enumerate() {
            let wrong = |message: String| Diagnostic::error("argument", message).at(&text.file, argument.span.clone(), "");
            let takes = || format!("it takes {}", names.join(", "));
            let name = match &argument.name {
                Some(name) => names.iter().find(|known| *known == name).copied().ok_or_else(|| {
                    wrong(format!("{function} has no argument \"{name}\"")).did_you_mean(name, names.iter().copied()).help(takes())
                })?,
                None => {
                    *names.get(at).ok_or_else(|| wrong(format!("{function} takes no more than {}", counted(names.len()))).help(takes()))?
                }
            };
            if values.insert(name, (argument.value.clone(), argument.span.clone())).is_some() {
                return Err(wrong(format!("\"{name}\" is given twice")).into());
            }
        }
        Ok(Self { function, values, text, call: call.span.clone() })
    }

    /// A text; an error where it is missing.
    pub fn text(&self, name: &'static str) -> Result<String> {
        match self.optional_text(name)? {
            Some(text) => Ok(text),
            None => Err(self.missing(name)),
        }
    }

    /// A text.
    pub fn optional_text(&self, name: &'static str) -> Result<Option<String>> {
        match self.values.get(name) {
            None => Ok(None),
            Some((ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)), _)) => {
                Ok(Some(text.clone()))
            }
            Some((_, span)) => Err(self.wrong(name, "a text", span)),
        }
    }

    /// A whole number from 0 on.
    pub fn optional_number(&self, name: &'static str) -> Result<Option<u64>> {
        let Some((value, span)) = self.values.get(name) else { return Ok(None) };
        let number = match value {
            ScalarValue::Int64(Some(number)) => u64::try_from(*number).ok(),
            ScalarValue::UInt64(Some(number)) => Some(*number),
            ScalarValue::Int32(Some(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        number.map(Some).ok_or_else(|| self.wrong(name, "a whole number from 0 on", span))
    }

    /// A whole number from 0 on; an error where it is missing.
    pub fn number(&self, name: &'static str) -> Result<u64> {
        self.optional_number(name)?.ok_or_else(|| self.missing(name))
    }

    fn wrong(&self, name: &str, what: &str, span: &Span) -> crate::Failure {
        let message = format!("\"{name}\" of {} is {what}", self.function);
        Diagnostic::error("argument", message).at(&self.text.file, span.clone(), "").into()
    }

    fn missing(&self, name: &str) -> crate::Failure {
        let message = format!("{} needs \"{name}\"", self.function);
        Diagnostic::error("argument", message).at(&self.text.file, self.call.clone(), "").into()
    }

    /// A diagnostic at an argument, or at the call.
    pub fn point(&self, name: &'static str, diagnostic: Diagnostic) -> Diagnostic {
        let span = self.values.get(name).map_or(&self.call, |(_, span)| span);
        diagnostic.at(&self.text.file, span.clone(), "")
    }
}

fn counted(arguments: usize) -> String {
    if arguments == 1 { "1 argument".to_owned() } else { format!("{arguments} arguments") }
}

/// A call that stands where a table may.
#[derive(Debug)]
pub(super) struct Call {
    /// What is called, in lower case: `file`, or `query.delays`.
    pub name: String,
    pub arguments: Vec<Argument>,
    pub span: Span,
    table: String,
}

/// The functions there are.
pub const FUNCTIONS: [&str; 4] = ["file", "step", "changes", "history"];

/// Takes the calls out of a statement.
struct Taker<'a> {
    state: &'a SessionState,
    text: &'a SqlText,
    /// Places in the text, once there is a call; none where the text is part of a file.
    places: OnceCell<Option<Places>>,
    calls: Vec<Call>,
}

impl VisitorMut for Taker<'_> {
    type Break = Box<Diagnostic>;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        match self.take(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(diagnostic) => ControlFlow::Break(diagnostic),
        }
    }
}

impl Taker<'_> {
    fn take(&mut self, factor: &mut TableFactor) -> Result<(), Box<Diagnostic>> {
        if !matches!(factor, TableFactor::Table { args: Some(_), .. }) {
            return Ok(());
        }
        let span = self.place(factor.span());
        let TableFactor::Table { name, args, alias, .. } = factor else { return Ok(()) };
        let Some(arguments) = args else { return Ok(()) };
        let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(crate::sql::normal).collect();
        let called = match &parts[..] {
            [name] if FUNCTIONS.contains(&name.as_str()) => name.clone(),
            [schema, name] if schema == saved::SCHEMA => format!("{schema}.{name}"),
            [name] if self.state.table_functions().contains_key(name) => return Ok(()),
            _ => {
                let name = parts.join(".");
                let known: Vec<&str> = FUNCTIONS.into_iter().chain(self.state.table_functions().keys().map(String::as_str)).collect();
                let unknown = Diagnostic::error("unknown-function", format!("there is no table function \"{name}\""));
                return Err(Box::new(unknown.at(&self.text.file, span, "not found").did_you_mean(&name, known)));
            }
        };
        let arguments = arguments.args.iter().map(|argument| self.argument(argument)).collect::<Result<Vec<_>, _>>()?;
        let table = (self.calls.len() + 1).to_string();
        let unqualified = parts.last().cloned().unwrap_or_default();
        *name = ObjectName::from([CALLS, SCHEMA, &table].into_iter().map(|part| Ident::with_quote('"', part)).collect::<Vec<_>>());
        *args = None;
        if alias.is_none() {
            *alias = Some(TableAlias { explicit: true, name: Ident::with_quote('"', unqualified), columns: vec![], at: None });
        }
        self.calls.push(Call { name: called, arguments, span, table });
        Ok(())
    }

    fn argument(&self, argument: &FunctionArg) -> Result<Argument, Box<Diagnostic>> {
        let (name, value) = match argument {
            FunctionArg::Named { name, arg, operator: FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment } => {
                (Some(crate::sql::normal(name)), arg)
            }
            FunctionArg::Unnamed(value) => (None, value),
            FunctionArg::Named { name, .. } | FunctionArg::ExprNamed { name: Expr::Identifier(name), .. } => {
                let wrong = Diagnostic::error("argument", format!("a named argument is written {name} => value"));
                return Err(Box::new(wrong.at(&self.text.file, self.place(argument.span()), "")));
            }
            FunctionArg::ExprNamed { .. } => return Err(self.no_value(argument)),
        };
        let FunctionArgExpr::Expr(expr) = value else { return Err(self.no_value(argument)) };
        let value = self.value(expr).ok_or_else(|| self.no_value(argument))?;
        Ok(Argument { name, value, written: number(expr), span: self.place(argument.span()) })
    }

    /// What an expression over no columns is.
    fn value(&self, expr: &Expr) -> Option<ScalarValue> {
        let schema = DFSchema::empty();
        let planned = self.state.create_logical_expr(&expr.to_string(), &schema).ok()?;
        let computed = self.state.create_physical_expr(planned, &schema).ok()?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).ok()?;
        ScalarValue::try_from_array(&computed.evaluate(&row).ok()?.into_array(1).ok()?, 0).ok()
    }

    fn no_value(&self, argument: &FunctionArg) -> Box<Diagnostic> {
        let message = "an argument of a table function is a value that is known before the statement runs";
        Box::new(Diagnostic::error("argument", message).at(&self.text.file, self.place(argument.span()), "").help("write the value itself"))
    }

    fn place(&self, span: datafusion::sql::sqlparser::tokenizer::Span) -> Span {
        let (start, end) = (span.start, span.end);
        if start.line == 0 {
            return self.text.span.clone();
        }
        let plain = || self.text.span == (0..self.text.file.text.len()) && self.text.text == self.text.file.text;
        match self.places.get_or_init(|| plain().then(|| Places::new(&self.text.text))) {
            Some(places) => places.byte(start)..places.byte(end).max(places.byte(start)),
            None => self.text.span_of_line_column(start.line, start.column, Some((end.line, end.column))),
        }
    }
}

/// The digits of a number, with its sign.
fn number(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => Some(number.clone()),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Some(format!("-{}", number(expr)?)),
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } | Expr::Nested(expr) => number(expr),
        _ => None,
    }
}

/// Takes the calls out of a statement, which then names tables that [`answer`] makes.
pub(super) fn take(state: &SessionState, statement: &mut Statement, text: &SqlText) -> Result<Vec<Call>> {
    let mut taker = Taker { state, text, places: OnceCell::new(), calls: vec![] };
    let flow = match statement {
        Statement::Statement(statement) => VisitMut::visit(statement.as_mut(), &mut taker),
        Statement::Explain(explain) => match explain.statement.as_mut() {
            Statement::Statement(statement) => VisitMut::visit(statement.as_mut(), &mut taker),
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    };
    match flow {
        ControlFlow::Break(diagnostic) => Err((*diagnostic).into()),
        ControlFlow::Continue(()) => Ok(taker.calls),
    }
}

/// Answers calls, in a session of which nobody else knows.
pub(super) async fn answer(inner: &Inner, session: &SessionContext, calls: &[Call], text: &SqlText) -> Result<()> {
    let schema = MemorySchemaProvider::new();
    for call in calls {
        let table = call_table(inner, session, call, text).await?;
        schema.register_table(call.table.clone(), table).map_err(|error| crate::run::explain(&error))?;
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(SCHEMA, Arc::new(schema)).map_err(|error| crate::run::explain(&error))?;
    session.register_catalog(CALLS, Arc::new(catalog));
    Ok(())
}

async fn call_table(inner: &Inner, session: &SessionContext, call: &Call, text: &SqlText) -> Result<Arc<dyn TableProvider>> {
    match call.name.as_str() {
        "file" => file::open(inner, session, call, text).await,
        "step" => step::open(inner, session, call, text).await,
        "changes" => changes::changes(inner, call, text).await,
        "history" => changes::history(inner, call, text).await,
        saved if saved.starts_with("query.") => saved::open(inner, session, call, text).await,
        other => {
            let unknown = Diagnostic::error("unknown-function", format!("there is no table function \"{other}\""));
            Err(unknown.at(&text.file, call.span.clone(), "not found").into())
        }
    }
}

/// Refuses what a user's scopes do not open.
pub(super) fn allowed(inner: &Inner, scope: &str, call: &Call, text: &SqlText) -> Result<()> {
    if inner.who.scopes.has(scope) {
        return Ok(());
    }
    let message = format!("\"{}\" may not call {}: its token has no scope \"{scope}\"", inner.who.user, call.name);
    let refused = Diagnostic::error("not-allowed", message).at(&text.file, call.span.clone(), "");
    Err(refused.help(format!("make a token with it: weir serve token new NAME --scope sql --scope {scope}")).into())
}

#[cfg(test)]
mod tests {
    use weir_pipelines::SourceFile;

    use super::*;

    fn taken(sql: &str) -> Vec<Call> {
        let state = SessionContext::new().state();
        let text = SqlText::plain(SourceFile::new("<sql>", sql));
        let dialect = state.config().options().sql_parser.dialect;
        let mut statement = state.sql_to_statement(&text.text, &dialect).expect("parses");
        take(&state, &mut statement, &text).expect("no call is wrong")
    }

    #[test]
    fn a_call_is_where_it_is_written() {
        let sql = "select 'é' from t,\n  file('ü', format => 'csv') x,\n  (select * from query.late('ö')) y";
        let calls = taken(sql);
        assert_eq!(calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>(), ["file", "query.late"]);
        // As sqlparser tells it: from the name to the alias, where there is one.
        assert_eq!(calls.iter().map(|call| &sql[call.span.clone()]).collect::<Vec<_>>(), ["file('ü', format => 'csv') x", "query.late"]);
        let arguments = calls.iter().flat_map(|call| &call.arguments).map(|argument| &sql[argument.span.clone()]);
        assert_eq!(arguments.collect::<Vec<_>>(), ["'ü'", "format => 'csv'", "'ö'"]);
    }

    #[test]
    fn very_many_tables_and_calls_are_gone_through_once() {
        let sql = format!("select * from {}, {}", vec!["t"; 50_000].join(", "), vec!["file()"; 50_000].join(", "));
        let calls = taken(&sql);
        assert_eq!(calls.len(), 50_000);
        assert!(calls.iter().all(|call| &sql[call.span.clone()] == "file"));
        assert_eq!(calls[49_999].span.end, sql.len() - "()".len());
    }
}
