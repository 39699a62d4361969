//! JSON values on their way into columns: a tree of builders that follows the wanted schema. A record that breaks off leaves no trace.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, ListArray, NullBufferBuilder, StructArray},
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Field, FieldRef, Fields, Schema},
};

use super::{
    JSON_TEXT,
    scan::{Scan, Torn},
};
use crate::{
    error::{Error, Result},
    file::csv::{Column, expected, values},
};

/// Why a record is bad: its code, the column at fault, the reason.
pub type Bad = (&'static str, Option<String>, String);

/// What stops a value from being read.
enum Fault {
    /// No JSON.
    Torn(Torn),
    /// An object says a key twice.
    Twice(Vec<String>),
    /// Not of the column's type: the path to it, innermost first, and the reason.
    Type(Vec<String>, String),
}

impl From<Torn> for Fault {
    fn from(torn: Torn) -> Self {
        Self::Torn(torn)
    }
}

impl Fault {
    fn within(self, name: &str) -> Self {
        match self {
            Self::Torn(torn) => Self::Torn(torn),
            Self::Twice(mut path) => {
                path.push(name.to_owned());
                Self::Twice(path)
            }
            Self::Type(mut path, reason) => {
                path.push(name.to_owned());
                Self::Type(path, reason)
            }
        }
    }
}

/// A column that grows, of any nesting.
#[derive(Debug)]
struct Node {
    field: FieldRef,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Numbers, as they are written.
    Number(Column),
    /// Whole numbers, which may be written `1.0` or `1e3`.
    Integer(Column),
    /// Numbers or strings.
    Decimal(Column),
    /// `true` and `false`.
    Boolean(Column),
    /// Strings.
    Text(Column),
    /// Any value, as it is written.
    Json(Column),
    /// Nothing but null.
    Null(Column),
    List(Vec<i32>, NullBufferBuilder, Box<Node>),
    Struct(Object),
}

/// An object's members on their way into columns.
#[derive(Debug)]
struct Object {
    nodes: Vec<Node>,
    places: HashMap<Box<[u8]>, usize>,
    /// For each node, the number of the object that last gave it a value.
    given: Vec<u64>,
    objects: u64,
    rows: usize,
    nulls: NullBufferBuilder,
}

impl Object {
    fn new(fields: &Fields, rows: usize, path: &str) -> Result<Self> {
        let nodes = fields.iter().map(|field| Node::new(field, rows, path)).collect::<Result<Vec<_>>>()?;
        let places = fields.iter().enumerate().map(|(i, field)| (field.name().as_bytes().into(), i)).collect();
        Ok(Self { given: vec![0; nodes.len()], nodes, places, objects: 0, rows: 0, nulls: NullBufferBuilder::new(rows) })
    }

    /// Reads an object, whose opening brace was taken, as one row. On a fault the nodes may be of unequal lengths.
    fn read(&mut self, scan: &mut Scan<'_>) -> Result<(), Fault> {
        self.objects += 1;
        let mut guess = 0;
        scan.members(b'}', |scan| -> Result<(), Fault> {
            let key = scan.key()?;
            // Most files say their keys in one order.
            let place = match self.nodes.get(guess) {
                Some(node) if node.field.name().as_bytes() == &*key => guess,
                _ => match self.places.get(&*key) {
                    Some(&place) => place,
                    None => return Ok(scan.skip()?),
                },
            };
            guess = place + 1;
            let node = &mut self.nodes[place];
            if std::mem::replace(&mut self.given[place], self.objects) == self.objects {
                return Err(Fault::Twice(vec![node.field.name().clone()]));
            }
            node.read(scan).map_err(|fault| fault.within(node.field.name()))
        })?;
        for (node, given) in self.nodes.iter_mut().zip(&self.given) {
            if *given != self.objects {
                if !node.field.is_nullable() {
                    let reason = format!("expected {}, found no such key", expected(node.field.data_type()));
                    return Err(Fault::Type(vec![node.field.name().clone()], reason));
                }
                node.push_null();
            }
        }
        self.rows += 1;
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) {
        self.nodes.iter_mut().for_each(Node::push_null);
        self.rows += 1;
        self.nulls.append_null();
    }

    fn truncate(&mut self, rows: usize) {
        self.nodes.iter_mut().for_each(|node| node.truncate(rows));
        self.rows = self.rows.min(rows);
        self.nulls.truncate(self.rows);
    }
}

impl Node {
    fn new(field: &FieldRef, rows: usize, path: &str) -> Result<Self> {
        let path = if path.is_empty() { field.name().clone() } else { format!("{path}.{}", field.name()) };
        let column = Column::new(field.data_type(), rows);
        let kind = match (field.data_type(), column) {
            (DataType::List(item), _) => Kind::List(vec![0], NullBufferBuilder::new(rows), Box::new(Node::new(item, 0, &path)?)),
            (DataType::Struct(fields), _) => Kind::Struct(Object::new(fields, rows, &path)?),
            (DataType::Utf8 | DataType::LargeUtf8, Some(column)) if field.metadata().get(JSON_TEXT).is_some_and(|v| v == "true") => {
                Kind::Json(column)
            }
            (DataType::Float32 | DataType::Float64, Some(column)) => Kind::Number(column),
            (DataType::Decimal128(..), Some(column)) => Kind::Decimal(column),
            (DataType::Boolean, Some(column)) => Kind::Boolean(column),
            (DataType::Null, Some(column)) => Kind::Null(column),
            (data_type, Some(column)) if data_type.is_integer() => Kind::Integer(column),
            (_, Some(column)) => Kind::Text(column),
            (other, None) => {
                return Err(Error::user("json-type", format!("column \"{path}\" is to be {other}, which JSON values are not read as"))
                    .setting("format")
                    .help(
                        "declare it as text, a number, a boolean, a date, a time, a timestamp, a decimal, base64, an array or an object",
                    ));
            }
        };
        Ok(Self { field: field.clone(), kind })
    }

    fn wrong(&self, found: &[u8]) -> Fault {
        Fault::Type(vec![], format!("expected {}, found {}", expected(self.field.data_type()), values::cut(found)))
    }

    /// Reads one value as one row.
    fn read(&mut self, scan: &mut Scan<'_>) -> Result<(), Fault> {
        let next = scan.peek().ok_or("it ends where a value should stand")?;
        let start = scan.at;
        if next == b'n' {
            scan.word(b"null")?;
            if !self.field.is_nullable() {
                return Err(self.wrong(b"null"));
            }
            self.push_null();
            return Ok(());
        }
        let taken = match (&mut self.kind, next) {
            (Kind::Text(column) | Kind::Decimal(column), b'"') => column.push(&scan.string()?),
            (Kind::Number(column) | Kind::Decimal(column), b'-' | b'0'..=b'9') => column.push(scan.number()?),
            (Kind::Integer(column), b'-' | b'0'..=b'9') => {
                let number = scan.number()?;
                column.push(number) || values::decimal(number, 38, 0, b'.').is_some_and(|whole| column.push(whole.to_string().as_bytes()))
            }
            (Kind::Boolean(column), b't') => {
                scan.word(b"true")?;
                column.push(b"true")
            }
            (Kind::Boolean(column), b'f') => {
                scan.word(b"false")?;
                column.push(b"false")
            }
            (Kind::Json(column), _) => {
                scan.skip()?;
                column.push(&scan.text[start..scan.at])
            }
            (Kind::List(offsets, nulls, item), b'[') => {
                scan.at += 1;
                let mut length = *offsets.last().expect("offsets start with 0");
                let mut place = 0;
                scan.members(b']', |scan| {
                    item.read(scan).map_err(|fault| fault.within(&format!("[{place}]")))?;
                    place += 1;
                    length += 1;
                    Ok::<(), Fault>(())
                })?;
                offsets.push(length);
                nulls.append_non_null();
                true
            }
            (Kind::Struct(object), b'{') => {
                scan.at += 1;
                object.read(scan)?;
                true
            }
            _ => false,
        };
        if taken {
            return Ok(());
        }
        scan.at = start;
        scan.skip()?;
        Err(self.wrong(&scan.text[start..scan.at]))
    }

    fn push_null(&mut self) {
        match &mut self.kind {
            Kind::List(offsets, nulls, _) => {
                offsets.push(*offsets.last().expect("offsets start with 0"));
                nulls.append_null();
            }
            Kind::Struct(object) => object.push_null(),
            Kind::Number(c) | Kind::Integer(c) | Kind::Decimal(c) | Kind::Boolean(c) | Kind::Text(c) | Kind::Json(c) | Kind::Null(c) => {
                c.push_null();
            }
        }
    }

    fn rows(&self) -> usize {
        match &self.kind {
            Kind::List(offsets, ..) => offsets.len() - 1,
            Kind::Struct(object) => object.rows,
            Kind::Number(c) | Kind::Integer(c) | Kind::Decimal(c) | Kind::Boolean(c) | Kind::Text(c) | Kind::Json(c) | Kind::Null(c) => {
                c.rows()
            }
        }
    }

    /// Forgets the rows from `rows` on, and what a row that broke off has left in the columns beneath.
    fn truncate(&mut self, rows: usize) {
        let rows = rows.min(self.rows());
        match &mut self.kind {
            Kind::List(offsets, nulls, item) => {
                offsets.truncate(rows + 1);
                nulls.truncate(rows);
                item.truncate(offsets[rows] as usize);
            }
            Kind::Struct(object) => object.truncate(rows),
            Kind::Number(c) | Kind::Integer(c) | Kind::Decimal(c) | Kind::Boolean(c) | Kind::Text(c) | Kind::Json(c) | Kind::Null(c) => {
                c.truncate(rows);
            }
        }
    }

    fn finish(self) -> Result<ArrayRef> {
        let odd = |e| Error::weir("ndjson-column", "decoded values make no column").because(e);
        Ok(match (self.kind, self.field.data_type()) {
            (Kind::List(offsets, nulls, item), DataType::List(field)) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(ListArray::try_new(Arc::clone(field), offsets, item.finish()?, nulls.build()).map_err(odd)?)
            }
            (Kind::Struct(object), DataType::Struct(fields)) => {
                let nulls = object.nulls.build();
                if fields.is_empty() {
                    return Ok(Arc::new(StructArray::new_empty_fields(object.rows, nulls)));
                }
                let arrays = object.nodes.into_iter().map(Node::finish).collect::<Result<Vec<_>>>()?;
                Arc::new(StructArray::try_new(fields.clone(), arrays, nulls).map_err(odd)?)
            }
            (
                Kind::Number(c) | Kind::Integer(c) | Kind::Decimal(c) | Kind::Boolean(c) | Kind::Text(c) | Kind::Json(c) | Kind::Null(c),
                data_type,
            ) => c.finish(data_type)?,
            (Kind::List(..) | Kind::Struct(_), _) => unreachable!("a node's kind follows its field's type"),
        })
    }
}

/// The wanted columns, filled record by record.
#[derive(Debug)]
pub struct Record(Object);

impl Record {
    /// Empty columns. Fails with the setting `format` on a type that JSON values are not read as.
    pub fn new(wanted: &Schema, rows: usize) -> Result<Self> {
        Object::new(wanted.fields(), rows, "").map(Self)
    }

    /// Reads a line as one row, or says why not and leaves the columns as they were. `utf8`: the line is known to be UTF-8.
    pub fn read(&mut self, line: &[u8], utf8: bool) -> Result<(), Bad> {
        if !utf8 && std::str::from_utf8(line).is_err() {
            return Err(("malformed", None, "the line is not UTF-8".into()));
        }
        let rows = self.0.rows;
        let Err(fault) = self.try_read(line) else { return Ok(()) };
        self.0.truncate(rows);
        // A line that is no JSON at all is that first.
        let mut scan = Scan::new(line);
        let torn = scan.skip().err().or_else(|| scan.peek().map(|_| "it goes on after its end"));
        Err(match (torn, fault) {
            (Some(torn), _) | (None, Fault::Torn(torn)) => ("malformed", None, format!("the line is no JSON object: {torn}")),
            (None, Fault::Twice(path)) => ("malformed", Some(dotted(path)), "the object has this key twice".into()),
            (None, Fault::Type(path, reason)) if path.is_empty() => ("malformed", None, reason),
            (None, Fault::Type(path, reason)) => ("wrong-type", Some(dotted(path)), reason),
        })
    }

    fn try_read(&mut self, line: &[u8]) -> Result<(), Fault> {
        let mut scan = Scan::new(line);
        if !scan.take(b'{') {
            let what = match scan.peek() {
                Some(b'[') => "an array",
                Some(b'"') => "a string",
                Some(b't' | b'f') => "a boolean",
                Some(b'n') => "null",
                _ => "a number",
            };
            return Err(Fault::Type(vec![], format!("expected an object, found {what}")));
        }
        self.0.read(&mut scan)?;
        match scan.peek() {
            None => Ok(()),
            Some(_) => {
                // The row is in already, and must go.
                Err(Fault::Torn("it goes on after its end"))
            }
        }
    }

    /// Takes a text for what it says, as delimited text has it, as one row of the only column. False, and nothing taken, where it
    /// says no such value.
    pub fn push_text(&mut self, text: &[u8]) -> bool {
        let [node] = self.0.nodes.as_mut_slice() else { return false };
        let taken = match &mut node.kind {
            Kind::Number(c) | Kind::Integer(c) | Kind::Decimal(c) | Kind::Boolean(c) | Kind::Text(c) => c.push(text),
            Kind::Json(_) | Kind::Null(_) | Kind::List(..) | Kind::Struct(_) => false,
        };
        if taken {
            self.0.rows += 1;
            self.0.nulls.append_non_null();
        }
        taken
    }

    /// The columns.
    pub fn finish(self) -> Result<Vec<ArrayRef>> {
        self.0.nodes.into_iter().map(Node::finish).collect()
    }
}

/// `a.b[0].c`, from the innermost name outwards.
fn dotted(mut path: Vec<String>) -> String {
    path.reverse();
    let mut text = String::new();
    for name in path {
        if !text.is_empty() && !name.starts_with('[') {
            text.push('.');
        }
        text.push_str(&name);
    }
    text
}

/// A text field that keeps any value as JSON text.
pub fn json_text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true).with_metadata(HashMap::from([(JSON_TEXT.to_owned(), "true".to_owned())]))
}
