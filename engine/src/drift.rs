//! What changed in a source's columns since its last published run, what is made of it, and what is remembered for the next.
//! A change is judged once, when the source is opened; where the step is to have other columns than the data, the source is opened
//! again and told them, so that values are read as the step's types by its own reader, which sets aside those that do not fit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use arrow::{
    datatypes::{Field, FieldRef, Schema, SchemaRef},
    ipc::{
        convert::{IpcSchemaEncoder, fb_to_schema},
        root_as_schema,
        writer::DictionaryTracker,
    },
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::Result as DfResult,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use serde::{Deserialize, Serialize};
use weir_connectors::{ColumnsBy, Coordinates, Error, Opened, Purpose, Reject, Rejects, SourceContext};
use weir_pipelines::{Diagnostic, Diagnostics, Incremental, OnMissingColumn, OnNewColumn, OnTypeChange, Pipeline, Source, Span};
use weir_schemas::{
    Contract,
    widen::{type_name, widen},
};

use crate::{
    checks::NewColumnCheck,
    error::{Failure, Result},
    history::History,
    step::RowCheck,
    transforms::listed,
};

/// Among what a source remembers, the key of its columns. No connector's key starts with `#`.
pub const MEMORY_KEY: &str = "#columns";

/// One change of a source's columns, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The source.
    pub source: String,
    /// `new_column`, `missing_column` or `type_change`.
    pub change: String,
    /// The column.
    pub column: String,
    /// The type it had; none of a new column.
    pub from: Option<String>,
    /// The type it has in the data; none of a missing one.
    pub to: Option<String>,
    /// The type it has in the step's rows; none where it is not among them.
    pub becomes: Option<String>,
    /// The file that a new column was first met in.
    pub file: Option<String>,
    /// What is done about it: `add`, `ignore`, `quarantine`, `remove`, `null` or `widen`.
    pub action: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, column, .. } = self;
        let kind = |kind: &Option<String>| kind.clone().unwrap_or_default();
        match self.change.as_str() {
            "new_column" => {
                write!(f, "\"{source}\" has a new column \"{column}\" ({})", kind(&self.to))?;
                if let Some(file) = &self.file {
                    write!(f, ", first in \"{file}\"")?;
                }
            }
            "missing_column" => write!(f, "\"{source}\" lacks the column \"{column}\" ({})", kind(&self.from))?,
            _ => write!(f, "\"{column}\" of \"{source}\" was {} and is {}", kind(&self.from), kind(&self.to))?,
        }
        f.write_str(": ")?;
        match self.action.as_str() {
            "add" => f.write_str("it is added"),
            "ignore" => f.write_str("it is left out"),
            "remove" => f.write_str("it is removed"),
            "null" => f.write_str("it is null in every row"),
            "widen" => write!(f, "it becomes {}", kind(&self.becomes)),
            _ if self.change == "new_column" => f.write_str("rows with a value in it are set aside"),
            _ => write!(f, "rows whose value is not {} are set aside", kind(&self.becomes)),
        }
    }
}

/// The columns of a source as a published run left them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    columns: SchemaRef,
    /// Those that the data lacked.
    absent: BTreeSet<String>,
}

/// A shape as the history keeps it: the columns as an Arrow IPC schema in hexadecimal digits.
#[derive(Serialize, Deserialize)]
struct Kept {
    columns: String,
    absent: BTreeSet<String>,
}

impl Shape {
    /// The columns of a step's rows, but for those that say where a row came from.
    pub fn of(rows: &SchemaRef, absent: BTreeSet<String>) -> Self {
        let columns: Vec<FieldRef> = rows.fields().iter().filter(|field| !is_coordinate(field)).cloned().collect();
        Self { columns: Arc::new(Schema::new(columns)), absent }
    }

    /// The text that the history keeps.
    pub fn encode(&self) -> String {
        let mut dictionaries = DictionaryTracker::new(false);
        let bytes = IpcSchemaEncoder::new().with_dictionary_tracker(&mut dictionaries).schema_to_fb(&self.columns);
        let columns = bytes.finished_data().iter().map(|byte| format!("{byte:02x}")).collect();
        serde_json::to_string(&Kept { columns, absent: self.absent.clone() }).expect("two plain fields")
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(text: &str) -> Result<Self> {
        let broken = || {
            Failure::error("state", "the remembered columns of a source cannot be read")
                .help("weir run --full-refresh forgets them, and learns the columns anew")
        };
        let kept: Kept = serde_json::from_str(text).map_err(|_| broken())?;
        let pair = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Vec<u8> = kept.columns.as_bytes().chunks(2).map(pair).collect::<Option<_>>().ok_or_else(broken)?;
        let columns = root_as_schema(&bytes).map(fb_to_schema).map_err(|_| broken())?;
        Ok(Self { columns: Arc::new(columns), absent: kept.absent })
    }

    /// The columns.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }
}

/// The columns that a pipeline's sources are known by, among what each remembers, by source.
pub async fn remembered(history: &History, pipeline: &Pipeline) -> Result<HashMap<String, BTreeMap<String, String>>> {
    let mut known = HashMap::new();
    for source in &pipeline.sources {
        let mut entries = history.cursors(&pipeline.name.value, &source.name.value).await?;
        entries.retain(|key, _| key == MEMORY_KEY);
        known.insert(source.name.value.clone(), entries);
    }
    Ok(known)
}

/// A source, opened, with its columns as the step is to have them.
#[derive(Debug)]
pub struct Settled {
    /// What its rows are read from.
    pub table: Arc<dyn TableProvider>,
    /// The source as it was opened last.
    pub opened: Opened,
    /// Sets rows aside that have a value in a new column.
    pub check: Option<Arc<dyn RowCheck>>,
    /// What changed.
    pub drift: Vec<Drift>,
    /// The step's columns that the data lack.
    pub absent: BTreeSet<String>,
    /// The types of its columns, and so what changed, are a guess.
    pub guessed: bool,
}

/// Opens a source and settles what becomes of changes of its columns. `context` is left as the source was opened last.
pub async fn settle(
    source: &Source,
    contract: Option<&Contract>,
    known: Option<&Shape>,
    context: &mut SourceContext,
    open: impl AsyncFn(&SourceContext) -> Result<Opened, Error>,
    failed: impl Fn(Error) -> Failure,
) -> Result<Settled> {
    let told = context.clone();
    let settled = settle_once(source, contract, known, context, &open, &failed).await;
    // What has changed, or is wrong, is not judged by a guess.
    let unsure = match &settled {
        Ok(settled) => settled.guessed && (!settled.drift.is_empty() || context.shape.is_some()),
        Err(failure) => matches!(failure, Failure::Diagnostics(_)),
    };
    if told.purpose != Purpose::Try || !unsure {
        return settled;
    }
    *context = SourceContext { purpose: Purpose::Run, ..told };
    settle_once(source, contract, known, context, &open, &failed).await
}

async fn settle_once(
    source: &Source,
    contract: Option<&Contract>,
    known: Option<&Shape>,
    context: &mut SourceContext,
    open: &impl AsyncFn(&SourceContext) -> Result<Opened, Error>,
    failed: &impl Fn(Error) -> Failure,
) -> Result<Settled> {
    let (mut opened, refused) = match open(context).await {
        // A cursor knows rows again by their columns: whether the step keeps them as they were is settled here first.
        Err(error) if error.code == "cursor-changed" && known.is_some() => {
            let learning = SourceContext { incremental: None, ..context.clone() };
            (open(&learning).await.map_err(failed)?, Some(error))
        }
        opened => (opened.map_err(failed)?, None),
    };
    let guessed = opened.columns.guessed;
    let data = data_columns(&opened, context.coordinates);
    let judged = Judge { source, contract, known, opened: &opened, judged: Judged::default() }.judge(&data)?;
    let Judged { drift, columns, told, hidden, aside, strict, absent, .. } = judged;
    // A row without a value that it had is another row to the cursor: it would be loaded twice.
    let reads_on = matches!(context.incremental, Some(Incremental::Cursor { .. })) && !context.seen.is_empty();
    if let Some(gone) = drift.iter().find(|drift| drift.change == "missing_column").filter(|_| reads_on) {
        return Err(failed(refused.unwrap_or_else(|| {
            let message = format!("column \"{}\" is gone, without which rows loaded before cannot be known again", gone.column);
            Error::user("cursor-changed", message).help("change it back, or read everything anew, once: weir run PIPELINE --full-refresh")
        })));
    }
    let again = refused.is_some();
    if told || again {
        context.shape = Some(Arc::new(Schema::new(columns)));
        context.coordinates |= !aside.is_empty();
        if !strict.is_empty() {
            context.rejects = Arc::new(Renamed { desk: context.rejects.clone(), columns: strict });
        }
        let own = opened.columns.own.take();
        opened = open(context).await.map_err(|error| match error.code {
            // No value of the one type can be of the other.
            "wrong-type" | "csv-type" => Failure::from(
                Diagnostic::error("type-change", error.message.clone())
                    .at(&source.settings.file, type_span(source), format!("source \"{}\" has drifted", source.name.value))
                    .help(FORGET),
            ),
            _ => failed(error),
        })?;
        // One that was told its columns had no need to look for them.
        opened.columns.own = opened.columns.own.or(own);
    }
    let mut table = opened.table.clone();
    if !hidden.is_empty() {
        table = Arc::new(Narrowed::without(table, &hidden));
    }
    let check = (!aside.is_empty()).then(|| {
        let keeps = contract.is_some();
        Arc::new(NewColumnCheck::new(&table.schema(), &aside, keeps)) as Arc<dyn RowCheck>
    });
    Ok(Settled { table, opened, check, drift, absent, guessed })
}

const FORGET: &str = "weir run --full-refresh forgets which columns the source had, and takes them as they are";

/// What is settled of a source's columns.
#[derive(Debug, Default)]
struct Judged {
    drift: Vec<Drift>,
    wrong: Diagnostics,
    /// All columns, as they are to be read, in order.
    columns: Vec<Field>,
    /// The source has to be told of them.
    told: bool,
    /// New columns that are left out.
    hidden: Vec<String>,
    /// New columns whose values set their rows aside.
    aside: Vec<String>,
    /// Columns that keep their type.
    strict: HashSet<String>,
    absent: BTreeSet<String>,
}

struct Judge<'a> {
    source: &'a Source,
    contract: Option<&'a Contract>,
    known: Option<&'a Shape>,
    opened: &'a Opened,
    judged: Judged,
}

impl Judge<'_> {
    fn judge(mut self, data: &[FieldRef]) -> Result<Judged, Diagnostics> {
        let known = self.known.map(|known| known.columns.clone()).unwrap_or_else(|| Arc::new(Schema::empty()));
        let contract = self.contract;
        let typed = |name: &str| contract.is_some_and(|contract| contract.columns().index_of(name).is_ok());
        let mut columns: Vec<Field> = self.contract.iter().flat_map(|c| c.columns().fields()).map(|field| field.as_ref().clone()).collect();
        let others: Vec<&FieldRef> = data.iter().filter(|field| !typed(field.name())).collect();
        let (new, old): (Vec<&FieldRef>, Vec<&FieldRef>) = others.into_iter().partition(|field| self.is_new(field.name()));
        let mut told = false;
        // In the order in which they are known.
        let remembered = known.fields().iter().filter(|field| !typed(field.name()));
        for field in remembered {
            match old.iter().find(|found| found.name() == field.name()) {
                Some(found) => {
                    let column = self.changed(field, found);
                    told |= column != ***found;
                    columns.push(column);
                }
                None if self.is_new(field.name()) => {}
                None => {
                    let column = self.missing(field);
                    told |= column.is_some();
                    columns.extend(column);
                }
            }
        }
        columns.extend(old.iter().filter(|field| known.index_of(field.name()).is_err()).map(|field| field.as_ref().clone()));
        for field in new {
            self.new_column(field);
            columns.push(field.as_ref().clone());
        }
        self.declared_and_absent();
        if matches!(self.opened.columns.by, ColumnsBy::Memory | ColumnsBy::Sample)
            && let Some(known) = self.known
        {
            self.judged.absent.extend(known.absent.iter().cloned());
        }
        if !self.judged.wrong.is_empty() {
            return Err(self.judged.wrong);
        }
        let told = told || !self.judged.aside.is_empty();
        Ok(Judged { columns, told, ..self.judged })
    }

    /// True of a column that neither the contract names nor, where there is none, an earlier run had. With `add`, what earlier runs had
    /// beside the contract is known too.
    fn is_new(&self, name: &str) -> bool {
        let remembered = self.known.is_none_or(|known| known.columns.index_of(name).is_ok());
        match self.contract {
            Some(contract) if contract.declares(name) => false,
            Some(_) => self.on_new() != OnNewColumn::Add || !remembered,
            None => !remembered,
        }
    }

    fn on_new(&self) -> OnNewColumn {
        self.source.drift.new_column.as_ref().map_or(OnNewColumn::Add, |word| word.value)
    }

    fn note(&mut self, change: &str, column: &str, types: [Option<String>; 3], action: &str) {
        let [from, to, becomes] = types;
        let file = (change == "new_column").then(|| self.opened.columns.first_in.get(column).cloned()).flatten();
        let source = self.source.name.value.clone();
        let (change, column, action) = (change.to_owned(), column.to_owned(), action.to_owned());
        self.judged.drift.push(Drift { source, change, column, from, to, becomes, file, action });
    }

    fn wrong(&mut self, code: &'static str, message: String, span: Span, help: String) {
        self.judged.wrong.push(Diagnostic::error(code, message).at(&self.source.settings.file, span, "").help(help));
    }

    fn new_column(&mut self, field: &Field) {
        let (name, kind) = (field.name().as_str(), type_name(field));
        match self.on_new() {
            OnNewColumn::Add => self.note("new_column", name, [None, Some(kind.clone()), Some(kind)], "add"),
            OnNewColumn::Ignore => {
                self.judged.hidden.push(name.to_owned());
                self.note("new_column", name, [None, Some(kind), None], "ignore");
            }
            OnNewColumn::Quarantine => {
                self.judged.aside.push(name.to_owned());
                self.note("new_column", name, [None, Some(kind), None], "quarantine");
            }
            OnNewColumn::Fail => {
                let source = &self.source.name.value;
                let first = self.opened.columns.first_in.get(name).map(|file| format!(", first in \"{file}\"")).unwrap_or_default();
                let message = format!("source \"{source}\" has a new column \"{name}\" ({kind}){first}");
                let help = match (self.contract, self.known) {
                    (Some(contract), _) => format!("declare it in \"{}\", or write on_new_column = \"ignore\"", contract.path()),
                    (None, known) => {
                        let columns: Vec<String> = known.iter().flat_map(|known| names(&known.columns)).collect();
                        format!(
                            "the last published run had: {}; take the new one once with --set source.{source}.on_new_column=add",
                            listed(&columns)
                        )
                    }
                };
                let span = self.source.drift.new_column.as_ref().map_or_else(|| self.source.name.span.clone(), |word| word.span.clone());
                self.wrong("new-column", message, span, help);
            }
        }
    }

    /// A known column that the data lack, where it stays.
    fn missing(&mut self, field: &Field) -> Option<Field> {
        let (name, kind) = (field.name().as_str(), type_name(field));
        let stays = field.clone().with_nullable(true);
        if self.opened.columns.by == ColumnsBy::Sample {
            return Some(stays);
        }
        let only_new_files = self.source.incremental.as_ref().is_some_and(|incremental| incremental.value == Incremental::Files);
        let word = match &self.source.drift.missing_column {
            Some(word) => word.value,
            None if only_new_files || self.opened.columns.by != ColumnsBy::Source => OnMissingColumn::Null,
            None => OnMissingColumn::Remove,
        };
        match word {
            OnMissingColumn::Null => {
                self.gone(name, kind);
                Some(stays)
            }
            OnMissingColumn::Remove => {
                self.note("missing_column", name, [Some(kind), None, None], "remove");
                None
            }
            OnMissingColumn::Fail => {
                let source = &self.source.name.value;
                let message = format!("source \"{source}\" lacks the column \"{name}\" ({kind}), which its last published run had");
                let help = format!("let it go once with --set source.{source}.on_missing_column=remove, or keep it as nulls with \"null\"");
                self.wrong("missing-column", message, self.missing_span(), help);
                None
            }
        }
    }

    /// A column that stays, without values. That is told once.
    fn gone(&mut self, name: &str, kind: String) {
        let told = self.known.is_none_or(|known| known.absent.contains(name) || known.columns.index_of(name).is_err());
        self.judged.absent.insert(name.to_owned());
        if !told {
            self.note("missing_column", name, [Some(kind.clone()), None, Some(kind)], "null");
        }
    }

    /// Columns that the contract declares stay whatever the data have; what `required` says is the contract's.
    fn declared_and_absent(&mut self) {
        let Some(contract) = self.contract.filter(|_| self.opened.columns.by != ColumnsBy::Sample) else { return };
        for name in &self.opened.columns.absent {
            let Ok(field) = contract.columns().field_with_name(name) else { continue };
            let fails = self.source.drift.missing_column.as_ref().is_some_and(|word| word.value == OnMissingColumn::Fail);
            if fails {
                let message = format!(
                    "source \"{}\" lacks the column \"{name}\" ({}), which its contract declares",
                    self.source.name.value,
                    type_name(field)
                );
                let help = format!("take it out of \"{}\", or write on_missing_column = \"null\"", contract.path());
                self.wrong("missing-column", message, self.missing_span(), help);
            } else {
                self.gone(name, type_name(field));
            }
        }
    }

    fn missing_span(&self) -> Span {
        self.source.drift.missing_column.as_ref().map_or_else(|| self.source.name.span.clone(), |word| word.span.clone())
    }

    /// A known column as it is to be read.
    fn changed(&mut self, known: &Field, found: &Field) -> Field {
        let guessed = self.opened.columns.untyped.contains(found.name());
        let same = known.data_type() == found.data_type() && type_name(known) == type_name(found);
        let name = known.name().as_str();
        if same {
            return found.clone();
        }
        if guessed {
            return known.clone().with_nullable(true);
        }
        let (was, is) = (type_name(known), type_name(found));
        let wide = widen(known, found);
        if let Some(wide) = &wide
            && type_name(wide) == was
        {
            return wide.clone();
        }
        let source = &self.source.name.value;
        let message = format!("column \"{name}\" of source \"{source}\" was {was} and is {is}");
        match (self.source.drift.type_change.as_ref().map_or(OnTypeChange::Widen, |word| word.value), wide) {
            (OnTypeChange::Widen, Some(wide)) => {
                self.note("type_change", name, [Some(was), Some(is), Some(type_name(&wide))], "widen");
                wide
            }
            (OnTypeChange::Widen, None) => {
                self.wrong("type-change", format!("{message}: no type holds both"), type_span(self.source), FORGET.to_owned());
                known.clone()
            }
            (OnTypeChange::Quarantine, _) => {
                self.judged.strict.insert(name.to_owned());
                self.note("type_change", name, [Some(was.clone()), Some(is), Some(was)], "quarantine");
                known.clone()
            }
            (OnTypeChange::Fail, _) => {
                let help = format!("take the wider type once with --set source.{source}.on_type_change=widen");
                self.wrong("type-change", message, type_span(self.source), help);
                known.clone()
            }
        }
    }
}

fn type_span(source: &Source) -> Span {
    source.drift.type_change.as_ref().map_or_else(|| source.name.span.clone(), |word| word.span.clone())
}

fn names(schema: &SchemaRef) -> impl Iterator<Item = String> {
    schema.fields().iter().map(|field| field.name().clone())
}

/// The columns of the record: not those that say where a row came from.
fn data_columns(opened: &Opened, coordinates: bool) -> Vec<FieldRef> {
    let schema = opened.table.schema();
    let width = schema.fields().len() - if coordinates { Coordinates::fields().len() } else { 0 };
    schema.fields()[..width].iter().filter(|field| !is_coordinate(field)).cloned().collect()
}

fn is_coordinate(field: &FieldRef) -> bool {
    [Coordinates::FILE, Coordinates::ROW].contains(&field.name().as_str())
}

/// Gives values that are not of a column's known type the code of a drift.
#[derive(Debug)]
struct Renamed {
    desk: Arc<dyn Rejects>,
    columns: HashSet<String>,
}

impl Rejects for Renamed {
    fn reject(&self, mut rejects: Vec<Reject>) -> Result<(), Error> {
        for reject in &mut rejects {
            // A reader may name a place inside the column: `items[1].n`.
            let inside =
                |column: &str, at: &str| at.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
            let place = reject.column.as_deref().unwrap_or_default();
            if reject.code == "wrong-type" && self.columns.iter().any(|column| inside(column, place)) {
                "type-change".clone_into(&mut reject.code);
            }
        }
        self.desk.reject(rejects)
    }
}

/// A table without some of its columns. Everything else goes through.
#[derive(Debug)]
struct Narrowed {
    table: Arc<dyn TableProvider>,
    /// The columns that stay.
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl Narrowed {
    fn without(table: Arc<dyn TableProvider>, hidden: &[String]) -> Self {
        let all = table.schema();
        let columns: Vec<usize> = (0..all.fields().len()).filter(|&at| !hidden.contains(all.field(at).name())).collect();
        let schema = Arc::new(all.project(&columns).expect("columns of its own"));
        Self { table, columns, schema }
    }
}

#[async_trait]
impl TableProvider for Narrowed {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let columns = match projection {
            Some(wanted) => wanted.iter().map(|&at| self.columns[at]).collect(),
            None => self.columns.clone(),
        };
        self.table.scan(session, Some(&columns), filters, limit).await
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn a_shape_is_kept_as_it_was() {
        let json = Field::new("note", DataType::Utf8, true).with_metadata([("weir:json".to_owned(), "true".to_owned())].into());
        let inner = DataType::Struct(vec![Field::new("a", DataType::Decimal128(12, 2), true)].into());
        let fields = vec![Field::new("id", DataType::Int64, false), json, Field::new("deep", inner, true)];
        let all = [fields.clone(), vec![Field::new("_file", DataType::Utf8, false)]].concat();
        let shape = Shape::of(&Arc::new(Schema::new(all)), ["note".to_owned()].into());
        assert_eq!(shape.columns().as_ref(), &Schema::new(fields));
        assert_eq!(Shape::decode(&shape.encode()).expect("reads"), shape);
        for broken in ["", "{}", r#"{"columns":"0","absent":[]}"#, r#"{"columns":"zz","absent":[]}"#, r#"{"columns":"00ff","absent":[]}"#] {
            let Err(Failure::Error(error)) = Shape::decode(broken) else { panic!("it read {broken}") };
            assert_eq!(error.message, "the remembered columns of a source cannot be read");
        }
    }
}
