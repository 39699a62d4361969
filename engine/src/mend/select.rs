//! Rows of the quarantine as rows of their step again: the ones that are meant, their cells read back, and what a person says of them done.
//! Which of them are valid now is `sift`'s.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    compute::{cast, is_null, kernels::zip::zip},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    catalog::streaming::StreamingTable,
    common::{Column, TableReference},
    error::{DataFusionError, Result as DfResult},
    execution::{SendableRecordBatchStream, TaskContext},
    functions::core::expr_fn::named_struct,
    logical_expr::Expr,
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    prelude::{DataFrame, SessionContext, col, lit},
};
use futures::StreamExt;
use parking_lot::Mutex;
use weir_connectors::{
    Coordinates,
    kept::{self, Kept},
};
use weir_pipelines::{Diagnostic, SourceFile, Spanned, SqlText};

use crate::{
    error::{Failure, Result},
    sql::{Asked, diagnose, explain_expression, verified},
};

/// The columns of the quarantine that a condition may ask about, as `quarantine.code`.
pub const ASKED: [&str; 10] = ["run", "id", "file", "row", "code", "column", "reason", "raw", "fields", "at"];
/// What stands first in a row that is read again: why it cannot be, if it cannot.
const UNFIT: &str = "__weir_unfit";

/// A column and what it is to be.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The column of the step.
    pub column: Spanned<String>,
    /// Where its name was written.
    pub file: Arc<SourceFile>,
    /// An expression over the step's columns and those of the quarantine.
    pub value: SqlText,
}

impl Assignment {
    /// As a person reads it.
    pub fn words(&self) -> String {
        format!("{} = {}", self.column.value, self.value.text.trim())
    }
}

/// Rows as a person wants them: [`UNFIT`], the columns [`ASKED`], then the step's columns, changed where an assignment says so.
pub struct Selected {
    /// The rows.
    pub frame: DataFrame,
    /// The step's columns.
    pub rows: SchemaRef,
}

/// Takes rows of the quarantine (with the columns [`ASKED`]), reads them as `rows` (see [`kept::column`] for the word beside it), keeps those for which `condition` is true and makes the assignments.
pub async fn select(
    session: &SessionContext,
    quarantined: DataFrame,
    step: &str,
    (rows, plain): (&SchemaRef, bool),
    condition: Option<&SqlText>,
    assignments: &[Assignment],
) -> Result<Selected> {
    let wrong: Vec<Diagnostic> = assignments.iter().filter_map(|assignment| unassignable(assignment, step, rows)).collect();
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    let assigned = |name: &str| assignments.iter().find(|assignment| assignment.column.value == name);
    let explain = |error: DataFusionError| crate::run::explain(&error);
    let set = rows.fields().iter().map(|field| assigned(field.name()).is_some()).collect();
    let stream = quarantined.execute_stream().await.map_err(explain)?;
    let decoding = Decoding::new(stream, rows, set, plain);
    let table = StreamingTable::try_new(decoding.schema.clone(), vec![Arc::new(decoding)]).map_err(explain)?;
    let plain = session.read_table(Arc::new(table)).map_err(explain)?;
    let of_step = TableReference::bare(step);
    let mut named = vec![col(UNFIT)];
    named.extend(ASKED.iter().map(|name| column(&asked(name))));
    // One value with fields, so that a column of the step is never mistaken for one of the quarantine.
    named.push(named_struct(ASKED.iter().flat_map(|name| [lit(*name), column(&asked(name))]).collect()).alias("quarantine"));
    named.extend(rows.fields().iter().enumerate().map(|(at, field)| match is_place(field) {
        true => column(&cell(at)),
        false => column(&cell(at)).alias_qualified(Some(of_step.clone()), field.name()),
    }));
    let mut frame = plain.select(named).map_err(explain)?;
    if let Some(condition) = condition {
        let expression = parse(&frame, condition, Asked::Filter)?;
        frame = frame.filter(expression).map_err(explain)?;
    }
    let mut last = vec![col(UNFIT)];
    last.extend(ASKED.iter().map(|name| column(&asked(name))));
    for (at, field) in rows.fields().iter().enumerate() {
        if is_place(field) {
            last.extend([column(&cell(at)), column(&cell(at)).alias(before(at))]);
            continue;
        }
        let value = match assigned(field.name()) {
            Some(assignment) => parse(&frame, &assignment.value, Asked::Value)?,
            None => Expr::Column(Column::new(Some(of_step.clone()), field.name())),
        };
        last.push(value.alias(cell(at)));
        last.push(Expr::Column(Column::new(Some(of_step.clone()), field.name())).alias(before(at)));
    }
    let asked_last = assignments.last().map(|assignment| &assignment.value).or(condition);
    let unforeseen = |error| match asked_last {
        Some(text) => Failure::from(vec![diagnose(&error, text)]),
        None => explain(error),
    };
    let changed = frame.select(last).map_err(unforeseen)?;
    // What the parts did not show by themselves is found before the first row is read.
    changed.clone().into_optimized_plan().map_err(unforeseen)?;
    Ok(Selected { frame: changed, rows: rows.clone() })
}

fn unassignable(assignment: &Assignment, step: &str, rows: &SchemaRef) -> Option<Diagnostic> {
    let name = &assignment.column;
    let known: Vec<String> = rows.fields().iter().filter(|field| !is_place(field)).map(|field| field.name().clone()).collect();
    if rows.field_with_name(&name.value).is_ok_and(is_place) {
        let message = format!("\"{}\" says where a row came from, which does not change", name.value);
        return Some(Diagnostic::error("wrong-value", message).at(&assignment.file, name.span.clone(), ""));
    }
    (!known.contains(&name.value)).then(|| crate::transforms::unknown_column(name, step, &known, &assignment.file))
}

fn parse(frame: &DataFrame, text: &SqlText, asked: Asked) -> Result<Expr> {
    text.check_expression().map_err(|wrong| {
        // It is no filter of a pipeline file that is written here.
        wrong
            .into_iter()
            .map(|found| match found.code == "filter-query" {
                true => {
                    Diagnostic::error("expression-query", "an expression here cannot hold a query").at(&text.file, text.span.clone(), "")
                }
                false => found,
            })
            .collect::<Vec<_>>()
    })?;
    let (state, _) = frame.clone().into_parts();
    let parsed = frame.parse_sql_expr(&text.text).and_then(|expression| {
        let tried = match asked {
            Asked::Filter => frame.clone().filter(expression.clone()),
            Asked::Value => frame.clone().select(vec![expression.clone()]),
        };
        // Types and constants are checked before the first row is read.
        verified(&state, tried?.into_unoptimized_plan()).map(|_| expression)
    });
    parsed.map_err(|error| explain_expression(&state, text, frame.schema(), asked, Some(&error)).into())
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The name under which a column of the quarantine goes through.
fn asked(name: &str) -> String {
    format!("__weir_{name}")
}

/// The name under which a cell of the step goes through.
fn cell(at: usize) -> String {
    format!("__weir_cell_{at}")
}

/// The same, before it was changed.
fn before(at: usize) -> String {
    format!("__weir_before_{at}")
}

/// A batch of [`Selected`] rows, taken apart.
pub struct Rows {
    batch: RecordBatch,
    width: usize,
}

impl Rows {
    /// Takes a batch of a frame apart.
    pub fn new(batch: RecordBatch, rows: &SchemaRef) -> Self {
        Self { batch, width: rows.fields().len() }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.batch.num_rows()
    }

    /// Why each row cannot be read, if it cannot.
    pub fn unfit(&self) -> DfResult<StringArray> {
        text(self.batch.column(0))
    }

    /// A column of the quarantine, as text.
    pub fn asked(&self, name: &str) -> DfResult<StringArray> {
        text(self.asked_as_it_is(name))
    }

    /// A column of the quarantine.
    pub fn asked_as_it_is(&self, name: &str) -> &ArrayRef {
        let at = ASKED.iter().position(|known| *known == name).expect("one of the columns that are asked for");
        self.batch.column(1 + at)
    }

    /// A column of the step: as it is to be, and as it was.
    pub fn cell(&self, at: usize) -> (&ArrayRef, &ArrayRef) {
        debug_assert!(at < self.width);
        let first = 1 + ASKED.len() + 2 * at;
        (self.batch.column(first), self.batch.column(first + 1))
    }
}

/// A column as text, whatever form the reader gave it.
fn text(array: &ArrayRef) -> DfResult<StringArray> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Reads batches of the quarantine as batches of the step, cell by cell.
struct Decoding {
    schema: SchemaRef,
    rows: SchemaRef,
    /// Cells that an assignment makes anew: whether they can be read does not matter.
    set: Vec<bool>,
    /// As in [`kept::column`].
    plain: bool,
    /// Read once.
    input: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Decoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoding")
    }
}

impl Decoding {
    fn new(input: SendableRecordBatchStream, rows: &SchemaRef, set: Vec<bool>, plain: bool) -> Self {
        let mut fields = vec![Field::new(UNFIT, DataType::Utf8, true)];
        fields
            .extend(input.schema().fields().iter().map(|field| field.as_ref().clone().with_name(asked(field.name())).with_nullable(true)));
        fields.extend(rows.fields().iter().enumerate().map(|(at, field)| Field::new(cell(at), field.data_type().clone(), true)));
        Self { schema: Arc::new(Schema::new(fields)), rows: rows.clone(), set, plain, input: Mutex::new(Some(input)) }
    }
}

fn decode(schema: &SchemaRef, rows: &SchemaRef, set: &[bool], plain: bool, batch: &RecordBatch) -> DfResult<RecordBatch> {
    let named = |name: &str| batch.column_by_name(name).expect("it was asked for");
    let (raw, fields) = (text(named("raw"))?, text(named("fields"))?);
    let kept: Vec<Kept<'_>> =
        (0..batch.num_rows()).map(|row| Kept { raw: raw.value(row), fields: fields.is_valid(row).then(|| fields.value(row)) }).collect();
    let mut unfit: Vec<Option<String>> = vec![None; batch.num_rows()];
    let mut cells: Vec<ArrayRef> = Vec::with_capacity(rows.fields().len());
    for (at, field) in rows.fields().iter().enumerate() {
        let (array, wrong) = kept::column(field, &kept, plain)?;
        for wrong in wrong.into_iter().filter(|_| !set[at] && !is_place(field)) {
            add(&mut unfit[wrong.row], field.name(), &wrong.reason);
        }
        cells.push(match is_place(field) {
            // What a row does not say of where it came from the quarantine knows.
            true => {
                let known = named(if field.name() == Coordinates::FILE { "file" } else { "row" });
                zip(&is_null(&array)?, &cast(known, field.data_type())?, &array)?
            }
            false => array,
        });
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(unfit))];
    columns.extend(batch.columns().iter().cloned());
    columns.extend(cells);
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// True of the columns that say where a row came from; they may be there twice.
fn is_place(field: &Field) -> bool {
    [Coordinates::FILE, Coordinates::ROW].contains(&field.name().as_str())
}

/// Adds a cell's reason to those of its row.
fn add(reasons: &mut Option<String>, name: &str, reason: &str) {
    const BYTES_MAX: usize = 300;
    let torn = reason == kept::UNREADABLE;
    match reasons {
        None if torn => *reasons = Some(format!("{reason}, and no value is given for \"{name}\"")),
        None => *reasons = Some(format!("\"{name}\": {reason}")),
        Some(before) if before.len() > BYTES_MAX => {}
        Some(before) if torn => before.push_str(&format!(", \"{name}\"")),
        Some(before) => before.push_str(&format!("; \"{name}\": {reason}")),
    }
}

impl PartitionStream for Decoding {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, rows, set, plain) = (self.schema.clone(), self.rows.clone(), self.set.clone(), self.plain);
        let Some(input) = self.input.lock().take() else {
            let error = Err(DataFusionError::Internal("the quarantine is read twice".into()));
            return Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([error])));
        };
        let inside = schema.clone();
        let batches = input.map(move |batch| batch.and_then(|batch| decode(&inside, &rows, &set, plain, &batch)));
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }
}
