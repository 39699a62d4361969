//! From rows to a contract that all of them keep, for a person to read and edit. Which rows are read is the caller's; what one type is as
//! a subschema is `field`'s.
//!
//! What is written as a rule holds for what the data is: types, formats, and which columns are never null. What only happens to be so
//! (ranges, lengths, few distinct values, keys) stands under `x-weir-seen`, which no check looks at, unless [`Options::strict`] makes rules of it.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use ::arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::{cast, filter, is_not_null},
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
    row::{OwnedRow, RowConverter, SortField},
};
use serde_json::{Map, Value, json};

use crate::{
    arrow::is_json_text,
    field::{self, NOT_FINITE},
    json,
    keys::{ROWS_MAX, Sample},
    seen::{Formats, Text},
};

/// Distinct values are counted up to here.
const DISTINCT_MAX: usize = 1000;
/// A value of more bytes ends the counting.
const VALUE_BYTES_MAX: usize = 1024;
/// Examples of a column.
const EXAMPLES_MAX: usize = 3;
/// A longer text is no example.
const EXAMPLE_CHARS_MAX: usize = 80;
/// Values that may be all there are: no more than so many, each seen so often on average.
const ENUM_MAX: usize = 20;
const ENUM_TIMES: u64 = 10;
/// Decimals of more digits are shown to a contract as the nearest float, and get no bounds.
const EXACT_DIGITS: u8 = 15;

/// How a contract is written.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Values of the data may be shown: examples, ranges, distinct values.
    pub values: bool,
    /// Ranges, lengths, distinct values and the list of columns become rules.
    pub strict: bool,
    /// Texts that all are dates or instants are declared as such. For data whose format has no such types.
    pub narrow: bool,
}

/// Looks at rows, batch by batch, in bounded memory.
#[derive(Debug)]
pub struct Observer {
    options: Options,
    columns: Vec<Seen>,
    sample: Sample,
    rows: u64,
}

impl Observer {
    /// Prepares to see rows of a schema.
    pub fn new(schema: &Schema, options: Options) -> Result<Self, ArrowError> {
        let columns = schema.fields().iter().map(|field| Seen::new(field, options)).collect::<Result<Vec<_>, _>>()?;
        let keyed = columns.iter().enumerate().filter(|(_, seen)| seen.may_be_key()).map(|(index, _)| index);
        Ok(Self { options, sample: Sample::new(keyed.collect::<Vec<_>>()), columns, rows: 0 })
    }

    /// Looks at some rows.
    pub fn observe(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        self.rows += batch.num_rows() as u64;
        for (index, (seen, array)) in self.columns.iter_mut().zip(batch.columns()).enumerate() {
            let before = seen.nulls;
            let wanted = self.sample.wants(index);
            let hashes = seen.observe(array, wanted)?;
            if seen.nulls > before {
                self.sample.leave(index);
            } else if wanted {
                self.sample.add(index, hashes.into_iter());
            }
        }
        Ok(())
    }

    /// Rows seen.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The smallest sets of columns that may tell all rows apart, and whether all rows were held against them.
    pub fn keys(&self) -> (Vec<Vec<String>>, bool) {
        let names = |indexes: Vec<usize>| indexes.into_iter().map(|index| self.columns[index].field.name().clone()).collect();
        (self.sample.candidates().into_iter().map(names).collect(), self.rows <= ROWS_MAX as u64)
    }

    /// Writes the contract. `keys` are known to tell rows apart; `notes` goes among what was seen.
    pub fn contract(&self, title: &str, keys: &[Vec<String>], notes: Map<String, Value>) -> Value {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for seen in &self.columns {
            let name = seen.field.name();
            if properties.contains_key(name) {
                continue;
            }
            properties.insert(name.clone(), Value::Object(seen.schema(self.options, true)));
            if self.rows > 0 && seen.nulls == 0 {
                required.push(name.clone());
            }
        }
        let mut seen = Map::from_iter([("rows".to_owned(), json!(self.rows))]);
        if !keys.is_empty() {
            seen.insert("keys".into(), json!(keys));
        }
        seen.extend(notes);
        let comment = match self.options.strict {
            true => {
                "made from data: every rule holds for the rows that were seen, and ranges, lengths and lists of values may be too narrow for the next ones"
            }
            false => "made from data: types and \"required\" are rules; what stands under \"x-weir-seen\" was seen and is no rule",
        };
        let mut contract = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title,
            "$comment": comment,
            "type": "object",
            "properties": properties,
            "required": required,
        });
        if self.options.strict {
            contract["additionalProperties"] = Value::Bool(false);
        }
        contract["x-weir-seen"] = Value::Object(seen);
        contract
    }
}

/// One value among those that were counted.
#[derive(Debug)]
struct Distinct {
    value: Value,
    order: usize,
}

/// What was seen of a column, of a struct's field, or of a list's items.
#[derive(Debug)]
struct Seen {
    /// As it is once dictionaries and runs are written out.
    field: Field,
    /// Cells, those inside of nulls not counted.
    cells: u64,
    nulls: u64,
    /// Puts single values in order and makes them comparable; none of lists, structs and the like.
    rows: Option<RowConverter>,
    range: Option<[(OwnedRow, Value); 2]>,
    distinct: Option<HashMap<Box<[u8]>, Distinct>>,
    /// The first values that may be shown.
    examples: Vec<Value>,
    /// Floats that JSON writes as text.
    not_finite: bool,
    text: Option<Text>,
    /// JSON text that is no object.
    no_object: bool,
    /// Of lists, the fewest and the most items.
    items: Option<(u64, u64)>,
    inner: Vec<Seen>,
}

impl Seen {
    fn new(field: &Field, options: Options) -> Result<Self, ArrowError> {
        let field = match field.data_type() {
            DataType::Dictionary(_, values) => field.clone().with_data_type(values.as_ref().clone()),
            DataType::RunEndEncoded(_, values) => field.clone().with_data_type(values.data_type().clone()),
            _ => field.clone(),
        };
        let inner = match field.data_type() {
            DataType::Struct(fields) => fields.iter().map(|field| Self::new(field, options)).collect::<Result<_, _>>()?,
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => vec![Self::new(item, options)?],
            _ => vec![],
        };
        let mixed = is_mixed(&field);
        let single = is_single(field.data_type()) && !is_json_text(&field) && !mixed;
        let rows = if single { Some(RowConverter::new(vec![SortField::new(field.data_type().clone())])?) } else { None };
        let text = (single && is_text(field.data_type())).then(|| Text::new(options.narrow));
        Ok(Self {
            rows,
            field,
            cells: 0,
            nulls: 0,
            range: None,
            distinct: single.then(HashMap::new),
            examples: vec![],
            not_finite: false,
            text,
            no_object: false,
            items: None,
            inner,
        })
    }

    fn may_be_key(&self) -> bool {
        self.rows.is_some()
            && !self.field.data_type().is_floating()
            && !matches!(self.field.data_type(), DataType::Boolean | DataType::Null)
    }

    /// Looks at some cells. With `hash`, returns what tells them apart.
    fn observe(&mut self, array: &ArrayRef, hash: bool) -> Result<Vec<u64>, ArrowError> {
        let decoded = if array.data_type() == self.field.data_type() { array.clone() } else { cast(array, self.field.data_type())? };
        let array = &decoded;
        self.cells += array.len() as u64;
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        self.nulls += nulls.as_ref().map_or(0, |nulls| nulls.null_count() as u64);
        // From here on there are no nulls, and nothing of what may stand under them.
        let array = if nulls.is_some() { filter(array, &is_not_null(array)?)? } else { array.clone() };
        if array.is_empty() {
            return Ok(vec![]);
        }
        self.inside(&array)?;
        if is_json_text(&self.field) && !self.no_object {
            self.no_object = (0..array.len()).any(|row| !self.cell(&array, row).is_object());
        }
        let Some(converter) = &self.rows else { return Ok(vec![]) };
        let rows = converter.convert_columns(std::slice::from_ref(&array))?;
        let (mut least, mut most) = (0, 0);
        for row in 1..rows.num_rows() {
            if rows.row(row) < rows.row(least) {
                least = row;
            }
            if rows.row(row) > rows.row(most) {
                most = row;
            }
        }
        match &mut self.range {
            Some([low, high]) => {
                if rows.row(least) < low.0.row() {
                    *low = (rows.row(least).owned(), cell(&self.field, &array, least));
                }
                if rows.row(most) > high.0.row() {
                    *high = (rows.row(most).owned(), cell(&self.field, &array, most));
                }
            }
            None => {
                self.range = Some([least, most].map(|row| (rows.row(row).owned(), cell(&self.field, &array, row))));
            }
        }
        if self.distinct.is_some() {
            for row in 0..rows.num_rows() {
                self.count(rows.row(row).as_ref(), &array, row);
            }
        }
        if self.field.data_type().is_floating() && !self.not_finite {
            self.not_finite = (0..array.len()).any(|row| self.cell(&array, row).is_string());
        }
        if let Some(text) = &mut self.text {
            let texts = cast(&array, &DataType::LargeUtf8)?;
            texts.as_string::<i64>().iter().flatten().for_each(|one| text.observe(one));
        }
        if !hash {
            return Ok(vec![]);
        }
        Ok(rows.iter().map(|row| hash_of(row.as_ref())).collect())
    }

    fn cell(&self, array: &ArrayRef, row: usize) -> Value {
        cell(&self.field, array, row)
    }

    /// Notes a value among those that are counted, unless there are too many.
    fn count(&mut self, bytes: &[u8], array: &ArrayRef, row: usize) {
        let Some(distinct) = &mut self.distinct else { return };
        if distinct.contains_key(bytes) {
            return;
        }
        if distinct.len() >= DISTINCT_MAX || bytes.len() > VALUE_BYTES_MAX {
            self.distinct = None;
            return;
        }
        let value = cell(&self.field, array, row);
        let short = value.as_str().is_none_or(|text| text.chars().nth(EXAMPLE_CHARS_MAX).is_none());
        if self.examples.len() < EXAMPLES_MAX && short {
            self.examples.push(value.clone());
        }
        let order = distinct.len();
        distinct.insert(bytes.into(), Distinct { value, order });
    }

    /// Looks into structs and lists.
    fn inside(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        let (items, lengths): (ArrayRef, Vec<usize>) = match array.data_type() {
            DataType::Struct(_) => {
                for (seen, column) in self.inner.iter_mut().zip(array.as_struct().columns()) {
                    seen.observe(column, false)?;
                }
                return Ok(());
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let (from, to) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
                (list.values().slice(from, to - from), (0..list.len()).map(|row| list.value(row).len()).collect())
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let (from, to) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
                (list.values().slice(from, to - from), (0..list.len()).map(|row| list.value(row).len()).collect())
            }
            DataType::ListView(_) => {
                let list = array.as_list_view::<i32>();
                (list.values().clone(), list.sizes().iter().map(|size| *size as usize).collect())
            }
            DataType::LargeListView(_) => {
                let list = array.as_list_view::<i64>();
                (list.values().clone(), list.sizes().iter().map(|size| *size as usize).collect())
            }
            DataType::FixedSizeList(_, size) => {
                let list = array.as_fixed_size_list();
                (list.values().slice(list.value_offset(0) as usize, list.len() * *size as usize), vec![*size as usize; list.len()])
            }
            _ => return Ok(()),
        };
        for length in lengths {
            let length = length as u64;
            self.items = Some(self.items.map_or((length, length), |(least, most)| (least.min(length), most.max(length))));
        }
        self.inner[0].observe(&items, false)?;
        Ok(())
    }

    /// The subschema of what was seen.
    fn schema(&self, options: Options, column: bool) -> Map<String, Value> {
        let valued = self.cells - self.nulls;
        let mut schema = self.rules(valued);
        let mut seen = Map::new();
        if column {
            seen.insert("nulls".into(), json!(self.nulls));
            if self.nulls > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a share for people")]
                let share = (self.nulls as f64 / self.cells as f64 * 10_000.0).round() / 10_000.0;
                seen.insert("nulls_share".into(), json!(share));
            }
        }
        if valued == 0 && column {
            seen.insert("type".into(), json!("only nulls were seen: say here what it is"));
        }
        self.ranges(options, &mut schema, &mut seen);
        let few = self.few(valued);
        if let Some(distinct) = &self.distinct {
            if valued > 0 {
                seen.insert("distinct".into(), json!(distinct.len()));
            }
        } else if self.rows.is_some() {
            seen.insert("distinct".into(), json!(format!("more than {DISTINCT_MAX}")));
        }
        if let (Some(values), true) = (few, options.values) {
            let place = if options.strict { &mut schema } else { &mut seen };
            place.insert("enum".into(), Value::Array(values));
        } else if options.values && !self.examples.is_empty() {
            schema.insert("examples".into(), json!(self.examples));
        }
        if !seen.is_empty() {
            schema.insert("x-weir-seen".into(), Value::Object(seen));
        }
        schema
    }

    /// What holds for every value: its type, and its format.
    fn rules(&self, valued: u64) -> Map<String, Value> {
        // The column type of a file of nulls is a guess.
        if valued == 0 && (self.field.data_type() == &DataType::Utf8 || is_mixed(&self.field)) {
            return Map::new();
        }
        if is_mixed(&self.field) || (is_json_text(&self.field) && self.no_object) {
            return Map::from_iter([("$comment".to_owned(), json!("values of unlike kinds were seen: the type is left open"))]);
        }
        let mut schema = field::subschema(&self.field).schema;
        match self.field.data_type() {
            DataType::Struct(_) if schema.contains_key("properties") => {
                let options = Options { values: false, strict: false, narrow: false };
                let inner = self.inner.iter().map(|seen| (seen.field.name().clone(), Value::Object(seen.schema(options, false))));
                schema.insert("properties".into(), Value::Object(inner.collect()));
                let required: Vec<&str> =
                    self.inner.iter().filter(|seen| seen.cells > 0 && seen.nulls == 0).map(|seen| seen.field.name().as_str()).collect();
                schema.insert("required".into(), json!(required));
            }
            DataType::List(_)
            | DataType::LargeList(_)
            | DataType::ListView(_)
            | DataType::LargeListView(_)
            | DataType::FixedSizeList(..) => {
                let item = &self.inner[0];
                let mut items = item.schema(Options { values: false, strict: false, narrow: false }, false);
                if item.nulls > 0 {
                    field::or_null(&mut items);
                    // A format or a word without a type is silent about null; an `anyOf` is not.
                    if let Some(Value::Array(forms)) = items.get_mut("anyOf") {
                        forms.push(json!({ "type": "null" }));
                    }
                }
                schema.insert("items".into(), Value::Object(items));
            }
            _ => {}
        }
        if self.not_finite {
            let word = schema.get("x-weir-type").cloned().unwrap_or_else(|| json!("float64"));
            return Map::from_iter([
                ("anyOf".to_owned(), json!([{ "type": "number" }, { "enum": NOT_FINITE }])),
                ("x-weir-type".to_owned(), word),
            ]);
        }
        if let Some(text) = &self.text
            && let Some(format) = text.format()
        {
            schema.insert("format".into(), json!(format));
        }
        self.years(&mut schema);
        schema
    }

    /// Takes `format` away from dates and instants of years that RFC 3339 cannot write.
    fn years(&self, schema: &mut Map<String, Value>) {
        if is_text(self.field.data_type()) {
            return;
        }
        let Some(format) = schema.get("format").and_then(Value::as_str).map(str::to_owned) else { return };
        let fits = |value: &Value| Formats::holds(&format, value);
        if self.range.as_ref().is_some_and(|range| range.iter().any(|(_, value)| !fits(value))) {
            schema.remove("format");
            let word = match format.as_str() {
                "date" => "date",
                "time" => "time",
                _ => "timestamptz",
            };
            schema.insert("x-weir-type".into(), json!(word));
        }
    }

    /// Smallest and largest, shortest and longest: as rules where they may be.
    fn ranges(&self, options: Options, schema: &mut Map<String, Value>, seen: &mut Map<String, Value>) {
        let mut put = |rule: [&str; 2], word: &str, least: Value, most: Value, may_rule: bool| {
            if options.strict && may_rule {
                schema.insert(rule[0].into(), least);
                schema.insert(rule[1].into(), most);
            } else {
                seen.insert(word.into(), json!([least, most]));
            }
        };
        if let Some((least, most)) = self.items {
            put(["minItems", "maxItems"], "items", json!(least), json!(most), true);
        }
        if let Some((least, most)) = self.text.as_ref().and_then(Text::lengths) {
            put(["minLength", "maxLength"], "length", json!(least), json!(most), true);
        }
        let Some([(_, least), (_, most)]) = &self.range else { return };
        let text =
            is_text(self.field.data_type()) || matches!(self.field.data_type(), DataType::Boolean) || is_binary(self.field.data_type());
        if options.values && !text && !self.not_finite {
            let exact = match self.field.data_type() {
                DataType::Decimal32(digits, _) | DataType::Decimal64(digits, _) | DataType::Decimal128(digits, _) => {
                    *digits <= EXACT_DIGITS
                }
                DataType::Decimal256(..) => false,
                _ => true,
            };
            put(["minimum", "maximum"], "range", least.clone(), most.clone(), least.is_number() && most.is_number() && exact);
        }
    }

    /// All values, in the order in which they were met, where they are few, seen often, and of a kind that has names.
    fn few(&self, valued: u64) -> Option<Vec<Value>> {
        let distinct = self.distinct.as_ref()?;
        let named = is_text(self.field.data_type()) || self.field.data_type().is_integer();
        if !named || distinct.is_empty() || distinct.len() > ENUM_MAX || valued < distinct.len() as u64 * ENUM_TIMES {
            return None;
        }
        let mut values: Vec<&Distinct> = distinct.values().collect();
        values.sort_by_key(|distinct| distinct.order);
        Some(values.into_iter().map(|distinct| distinct.value.clone()).collect())
    }
}

fn cell(field: &Field, array: &ArrayRef, row: usize) -> Value {
    let mut value = Value::Null;
    json::fill(field, array, row, None, &mut value);
    value
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A text column in which a reader of JSON keeps values of unlike kinds.
fn is_mixed(field: &Field) -> bool {
    field.metadata().get("weir:json").is_some_and(|word| word == "true")
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// True of types whose values are single and have an order.
fn is_single(data_type: &DataType) -> bool {
    let temporal = data_type.is_temporal() && !matches!(data_type, DataType::Interval(_));
    data_type.is_numeric() || temporal || is_text(data_type) || is_binary(data_type) || data_type == &DataType::Boolean
}

#[cfg(test)]
#[path = "infer_tests.rs"]
mod tests;
