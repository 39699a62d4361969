//! Are these rows those that were expected? In any order, each as often; only the columns that the expected rows name. What differs is said
//! row by row, with the rows that are nearest to one another side by side.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::{cast, concat_batches},
    datatypes::{DataType, Float64Type, Schema, SchemaRef},
};
use serde::Serialize;
use weir_pipelines::{Diagnostic, Diagnostics, Literal, Pipeline, Rows, SourceFile, Spanned, StepRows};

use super::value;
use crate::transforms::{listed, unknown_column};

/// Two floats this near, for their size, are taken for one: sums depend on the order of their terms.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// So many rows without a counterpart are held against one another; more are listed as they are.
const PAIRED_MAX: usize = 200;

/// Rows that are found beside a count that is not theirs, as examples.
const FOUND_MAX: usize = 20;

/// One way in which rows differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `missing`, `unexpected`, `changed` or `moved`; `found` where only a count was expected.
    pub kind: &'static str,
    /// The row, as TOML: the expected one, or the one found.
    pub row: String,
    /// What differs, column by column, or in place; `changed` and `moved` only.
    pub cells: Vec<String>,
}

/// How a step's rows are held against those expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// They are those.
    Same,
    /// They are others.
    Other(Vec<Difference>),
    /// They are those, and come in another order.
    Moved(Vec<Difference>),
    /// They are not so many: how many they are, and the first of them.
    Counted(u64, Vec<Difference>),
}

impl Compared {
    /// What a person is told, and the rows that differ; none where nothing does. `does` is what the step does with its rows.
    pub fn into_failure(
        self,
        test: &str,
        expected: &StepRows,
        does: &str,
        file: &Arc<SourceFile>,
    ) -> Option<(Diagnostic, Vec<Difference>)> {
        let step = &expected.step.value;
        let (what, differences) = match self {
            Compared::Same => return None,
            Compared::Other(differences) => ("other rows than expected".to_owned(), differences),
            Compared::Moved(differences) => ("its rows in another order than expected".to_owned(), differences),
            Compared::Counted(count, rows) => {
                let wanted = if let Rows::Count(count) = &expected.rows { count.value } else { 0 };
                (format!("{count} row{}, expected {wanted}", if count == 1 { "" } else { "s" }), rows)
            }
        };
        let at = if let Rows::Count(count) = &expected.rows { count.span.clone() } else { expected.step.span.clone() };
        Some((Diagnostic::error("test-failed", format!("\"{test}\": \"{step}\" {does} {what}")).at(file, at, ""), differences))
    }
}

/// The rows expected of a step, as it could have them.
#[derive(Debug)]
pub struct Wanted {
    /// The columns that are compared.
    names: Vec<String>,
    /// The rows, in the types that they are compared in.
    rows: RecordBatch,
}

impl Wanted {
    /// Types the rows expected of a step with these columns. Fails on a row that can never be: a column that is not there, a value not of its
    /// type.
    pub fn of(pipeline: &Pipeline, expected: &StepRows, schema: &SchemaRef) -> Result<Self, Diagnostics> {
        let (step, listed_rows) = (&expected.of, expected.rows.listed());
        let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut named: Vec<&Spanned<String>> = Vec::new();
        for (name, _) in listed_rows.iter().flat_map(|row| &row.cells) {
            if !named.iter().any(|known| known.value == name.value) {
                named.push(name);
            }
        }
        let wrong: Diagnostics = named
            .iter()
            .filter(|name| !columns.contains(&name.value))
            .map(|name| unknown_column(name, step, &columns, &pipeline.file))
            .collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        // Where no row names a column, as with no rows, those found are shown whole.
        let names: Vec<String> = match named.is_empty() {
            true => columns.clone(),
            false => named.iter().map(|name| name.value.clone()).collect(),
        };
        let fields: Vec<_> = names.iter().filter_map(|name| schema.field_with_name(name).ok()).map(plain).collect();
        let wanted: SchemaRef = Arc::new(Schema::new(fields));
        let mut unsayable = Diagnostics::new();
        for (field, name) in wanted.fields().iter().zip(&names) {
            if let Some(mention) = named.iter().find(|mention| mention.value == *name)
                && matches!(field.data_type(), DataType::Duration(_) | DataType::Interval(_) | DataType::Map(..) | DataType::Union(..))
            {
                unsayable.push(
                    Diagnostic::error(
                        "wrong-type",
                        format!("\"{name}\" is {}, and a test cannot say values of this type", field.data_type()),
                    )
                    .at(&pipeline.file, mention.span.clone(), "")
                    .help("leave the column out, or expect another step that casts it to text"),
                );
            }
        }
        if !unsayable.is_empty() {
            return Err(unsayable);
        }
        let rows = value::batch(&wanted, listed_rows, &pipeline.file).map_err(|wrong| {
            wrong.into_iter().map(|one| one.help(format!("columns of \"{step}\" are: {}", listed(&columns)))).collect::<Vec<_>>()
        })?;
        Ok(Self { names, rows })
    }
}

/// Compares a step's rows with those expected. Fails on an expected row that can never be.
pub fn compare(pipeline: &Pipeline, expected: &StepRows, schema: &SchemaRef, found: &[RecordBatch]) -> Result<Compared, Diagnostics> {
    let found = concat_batches(schema, found)
        .map_err(|error| vec![Diagnostic::error("cannot-compare", error.to_string()).at(&pipeline.file, expected.step.span.clone(), "")])?;
    let Wanted { names, rows } = Wanted::of(pipeline, expected, schema)?;
    let wanted = rows.schema();
    let at: Vec<usize> = names.iter().filter_map(|name| schema.index_of(name).ok()).collect();
    let found = found.project(&at).expect("the columns are there");
    let found_columns: Vec<ArrayRef> = found
        .columns()
        .iter()
        .zip(wanted.fields())
        .map(|(column, field)| cast(column, field.data_type()).unwrap_or_else(|_| column.clone()))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let count = found.num_rows();
    match &expected.rows {
        Rows::Count(wanted) if wanted.value == count as u64 => Ok(Compared::Same),
        Rows::Count(_) => {
            let shown = cells(&found_columns, &wanted, count.min(FOUND_MAX + 1));
            let shown = shown.iter().map(|row| Difference { kind: "found", row: show(&names, row), cells: Vec::new() });
            Ok(Compared::Counted(count as u64, shown.collect()))
        }
        Rows::Any(listed) | Rows::Ordered(listed) => {
            let (expected_cells, found) = (cells(rows.columns(), &wanted, listed.len()), cells(&found_columns, &wanted, count));
            let other = differences(&names, &expected_cells, &found);
            if !other.is_empty() {
                return Ok(Compared::Other(other));
            }
            let moved = if let Rows::Ordered(_) = &expected.rows { moved(&names, &expected_cells, &found) } else { Vec::new() };
            Ok(if moved.is_empty() { Compared::Same } else { Compared::Moved(moved) })
        }
    }
}

/// The rows that do not come where they are expected, of rows that are the same.
fn moved(names: &[&str], expected: &[Vec<Cell>], found: &[Vec<Cell>]) -> Vec<Difference> {
    let same = |a: &[Cell], b: &[Cell]| a.iter().zip(b).all(|(a, b)| a.agrees(b));
    let mut taken: Vec<bool> = expected.iter().zip(found).map(|(a, b)| same(a, b)).collect();
    let mut out = Vec::new();
    for (at, row) in expected.iter().enumerate() {
        if same(row, &found[at]) {
            continue;
        }
        let place = (0..found.len()).find(|other| !taken[*other] && same(row, &found[*other]));
        place.into_iter().for_each(|place| taken[place] = true);
        let cells = place.map(|place| format!("comes as row {}, expected as row {}", place + 1, at + 1));
        out.push(Difference { kind: "moved", row: show(names, row), cells: cells.into_iter().collect() });
    }
    out
}

/// The type that cells are compared in.
fn plain(field: &arrow::datatypes::Field) -> arrow::datatypes::Field {
    let to = match field.data_type() {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Dictionary(_, inner) => inner.as_ref().clone(),
        other => other.clone(),
    };
    field.clone().with_data_type(to).with_nullable(true)
}

/// One cell, ready to be compared and shown.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    text: Option<String>,
    float: Option<f64>,
}

impl Cell {
    fn agrees(&self, other: &Self) -> bool {
        match (self.float, other.float) {
            (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= FLOAT_TOLERANCE * a.abs().max(b.abs()),
            _ => self.text == other.text,
        }
    }

    fn shown(&self) -> &str {
        self.text.as_deref().unwrap_or("null")
    }
}

fn cells(columns: &[ArrayRef], schema: &SchemaRef, rows: usize) -> Vec<Vec<Cell>> {
    let cell = |at: usize, row: usize| {
        let (field, column) = (schema.field(at), &columns[at]);
        let float = match column.data_type() {
            DataType::Float64 if column.is_valid(row) => Some(column.as_primitive::<Float64Type>().value(row)),
            DataType::Float32 | DataType::Float16 if column.is_valid(row) => match value::literal(field, column, row) {
                Some(Literal::Float(number)) => Some(number),
                _ => None,
            },
            _ => None,
        };
        Cell { text: value::literal(field, column, row).map(|literal| literal.to_toml()), float }
    };
    (0..rows).map(|row| (0..columns.len()).map(|at| cell(at, row)).collect()).collect()
}

fn differences(names: &[&str], expected: &[Vec<Cell>], found: &[Vec<Cell>]) -> Vec<Difference> {
    // Rows that are the same to the letter go first, by a table: there may be many.
    let key = |row: &[Cell]| row.iter().map(|cell| cell.text.clone()).collect::<Vec<_>>();
    let mut waiting: HashMap<Vec<Option<String>>, Vec<usize>> = HashMap::new();
    for (at, row) in found.iter().enumerate().rev() {
        waiting.entry(key(row)).or_default().push(at);
    }
    let mut taken = vec![false; found.len()];
    let mut missing: Vec<usize> = Vec::new();
    for (at, row) in expected.iter().enumerate() {
        match waiting.get_mut(&key(row)).and_then(Vec::pop) {
            Some(same) => taken[same] = true,
            None => missing.push(at),
        }
    }
    let mut extra: Vec<usize> = (0..found.len()).filter(|at| !taken[*at]).collect();
    if missing.len() <= PAIRED_MAX && extra.len() <= PAIRED_MAX {
        missing.retain(|at| {
            let same = extra.iter().position(|other| expected[*at].iter().zip(&found[*other]).all(|(a, b)| a.agrees(b)));
            same.map(|same| extra.remove(same)).is_none()
        });
    }
    let mut out = Vec::new();
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    if missing.len() <= PAIRED_MAX && extra.len() <= PAIRED_MAX {
        let mut near: Vec<(usize, usize, usize)> = Vec::new();
        for &a in &missing {
            for &b in &extra {
                let alike = expected[a].iter().zip(&found[b]).filter(|(a, b)| a.agrees(b)).count();
                // Fewer than half is no likeness.
                if alike > 0 && alike * 2 >= names.len() {
                    near.push((names.len() - alike, a, b));
                }
            }
        }
        near.sort_unstable();
        for (_, a, b) in near {
            if !pairs.iter().any(|(x, y)| *x == a || *y == b) {
                pairs.push((a, b));
            }
        }
    }
    pairs.sort_unstable();
    for &(a, b) in &pairs {
        let cells = names.iter().zip(expected[a].iter().zip(&found[b])).filter(|(_, (a, b))| !a.agrees(b));
        let cells = cells.map(|(name, (a, b))| format!("{name} is {}, expected {}", b.shown(), a.shown())).collect();
        out.push(Difference { kind: "changed", row: show(names, &expected[a]), cells });
    }
    let lone = |rows: Vec<usize>, pairs: Vec<usize>| rows.into_iter().filter(move |at| !pairs.contains(at));
    for at in lone(missing, pairs.iter().map(|(a, _)| *a).collect()) {
        out.push(Difference { kind: "missing", row: show(names, &expected[at]), cells: Vec::new() });
    }
    for at in lone(extra, pairs.iter().map(|(_, b)| *b).collect()) {
        out.push(Difference { kind: "unexpected", row: show(names, &found[at]), cells: Vec::new() });
    }
    out
}

/// A row as it would be written in a test.
fn show(names: &[&str], row: &[Cell]) -> String {
    let cells: Vec<String> = names.iter().zip(row).filter_map(|(name, cell)| Some(format!("{name} = {}", cell.text.as_ref()?))).collect();
    if cells.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", cells.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[&[&str]]) -> Vec<Vec<Cell>> {
        let cell = |text: &&str| Cell { text: (!text.is_empty()).then(|| (*text).to_owned()), float: text.parse().ok() };
        text.iter().map(|row| row.iter().map(cell).collect()).collect()
    }

    fn kinds(expected: &[&[&str]], found: &[&[&str]]) -> Vec<String> {
        let differences = differences(&["a", "b"], &rows(expected), &rows(found));
        differences.iter().map(|one| format!("{} {} {}", one.kind, one.row, one.cells.join(", ")).trim_end().to_owned()).collect()
    }

    #[test]
    fn rows_are_the_same_in_any_order_but_each_as_often() {
        assert_eq!(kinds(&[&["x", "1"], &["y", "2"]], &[&["y", "2"], &["x", "1"]]), [""; 0]);
        assert_eq!(kinds(&[&["x", "1"]], &[&["x", "1"], &["x", "1"]]), ["unexpected { a = x, b = 1 }"]);
        assert_eq!(kinds(&[&["x", "1"], &["x", "1"]], &[&["x", "1"]]), ["missing { a = x, b = 1 }"]);
    }

    #[test]
    fn the_nearest_rows_are_shown_side_by_side() {
        assert_eq!(kinds(&[&["x", "1"]], &[&["x", "2"]]), ["changed { a = x, b = 1 } b is 2, expected 1"]);
        assert_eq!(kinds(&[&["x", "1"]], &[&["y", "2"]]), ["missing { a = x, b = 1 }", "unexpected { a = y, b = 2 }"]);
        assert_eq!(kinds(&[&["x", ""]], &[&["x", "2"]]), ["changed { a = x } b is 2, expected null"]);
    }

    #[test]
    fn rows_in_another_order_are_told_by_their_places() {
        let told = |expected: &[&[&str]], found: &[&[&str]]| -> Vec<String> {
            let moved = moved(&["a", "b"], &rows(expected), &rows(found));
            moved.iter().map(|one| format!("{} {}", one.row, one.cells.join(", "))).collect()
        };
        let (x, y, z): (&[&str], &[&str], &[&str]) = (&["x", "1"], &["y", "2"], &["z", "3"]);
        assert_eq!(told(&[x, y, z], &[x, y, z]), [""; 0]);
        assert_eq!(
            told(&[x, y, z, x], &[y, x, x, z]),
            [
                "{ a = x, b = 1 } comes as row 2, expected as row 1",
                "{ a = y, b = 2 } comes as row 1, expected as row 2",
                "{ a = z, b = 3 } comes as row 4, expected as row 3",
                "{ a = x, b = 1 } comes as row 3, expected as row 4",
            ]
        );
    }

    #[test]
    fn floats_may_differ_in_their_last_digits() {
        assert_eq!(kinds(&[&["x", "0.3"]], &[&["x", "0.30000000000000004"]]), [""; 0]);
        assert_eq!(kinds(&[&["x", "0.3"]], &[&["x", "0.3001"]]), ["changed { a = x, b = 0.3 } b is 0.3001, expected 0.3"]);
    }
}
