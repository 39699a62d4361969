//! What is certain about a contract before a row is seen, from the types of a step's columns and from what earlier steps have made sure of:
//! rules that can never fail, which are then not executed, and contracts that no row can satisfy. What is not certain is left open.

use std::collections::HashMap;

use ::arrow::datatypes::{DataType, Field as ArrowField, Schema};
use serde_json::Value;

use crate::{
    arrow::is_json_text,
    cells::{self, Cells},
    check::Rule,
    contract::Contract,
    document::escape,
    fate::{Column, Fate, Prover, Row, inner},
    kernel::Node,
};

/// What is known of the rows of a step beyond their types.
#[derive(Debug, Clone, Default)]
pub struct Known {
    columns: HashMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    data_type: DataType,
    cells: Cells,
    /// The steps whose contracts say so.
    by: Vec<String>,
}

impl Known {
    /// Takes over what is known of a column that comes unchanged from one or several others of the same type. With `nullable`, it may
    /// have become null on its way.
    pub fn inherit(&mut self, name: &str, from: &[(&Known, &str)], nullable: bool) {
        let entries: Option<Vec<&Entry>> = from.iter().map(|(known, column)| known.columns.get(*column)).collect();
        let Some((first, others)) = entries.as_deref().and_then(<[_]>::split_first) else { return };
        let mut entry = Entry::clone(first);
        for other in others {
            if other.data_type != entry.data_type {
                return;
            }
            entry.cells = entry.cells.or(&other.cells);
            for by in &other.by {
                if !entry.by.contains(by) {
                    entry.by.push(by.clone());
                }
            }
        }
        entry.cells.null |= nullable;
        self.columns.insert(name.to_owned(), entry);
    }

    /// True when no row has a null in the column.
    pub fn never_null(&self, column: &str) -> bool {
        self.columns.get(column).is_some_and(|entry| !entry.cells.null)
    }
}

/// What is certain about a contract and the rows of a step.
#[derive(Debug, Default)]
pub struct Proof {
    /// How many rules the contract has: its keywords, less those that only group others.
    pub rules: usize,
    /// The rules that can never fail.
    pub held: Vec<Held>,
    /// Why no row can satisfy it; empty where some may.
    pub never: Vec<Never>,
    /// Columns of which only a null can satisfy it.
    pub hollow: Vec<Never>,
    /// What is known of the rows that satisfy it.
    pub known: Known,
}

/// A rule that can never fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The column it is about; none for a rule about the row.
    pub column: Option<String>,
    /// The JSON pointer to its keyword in the contract.
    pub rule: String,
    /// The steps whose contracts have made sure of it; none where the step's columns are enough.
    pub by: Vec<String>,
}

/// Why no row can satisfy a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Never {
    /// The JSON pointer to the rule.
    pub rule: String,
    /// What is wrong.
    pub why: Why,
    /// The steps whose contracts leave no other rows; none where the step's columns are enough.
    pub by: Vec<String>,
}

/// What is wrong with a rule that no row can satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It requires a column that the step lacks, or that is always null.
    Lacks(String),
    /// It allows no columns but its own, and the step has this one, without nulls.
    Extra(String),
    /// No value that the column can have satisfies it.
    Value(String, DataType),
    /// The rules about this column contradict one another.
    Contradiction(String),
    /// It can never hold.
    Rule,
}

impl Contract {
    /// Finds what is certain of the rows of a step, and leaves out of the check what can never fail. `step` names it to those after it.
    pub fn prove(&mut self, step: &str, schema: &Schema, known: &Known) -> Proof {
        let mut plan = std::mem::replace(&mut self.plan, Node::Always(true));
        let rules = count(&plan);
        let prover = Prover::new(self, rules);
        let (plain, row) = (prover.row(schema, &Known::default()), prover.row(schema, known));
        let rows = Rows { plain: &plain, known: &row, from: known };
        let mut proof = Proof { rules, ..Proof::default() };
        let mut satisfied = row.clone();
        prover.suppose(&mut satisfied, &plan);
        if satisfied.dead || prover.of_row(&row, &plan) == Fate::Never {
            proof.never = prover.blame(&rows, &satisfied, schema, &plan);
        } else {
            proof.hollow = prover.hollow(&rows, schema, &plan);
            proof.known = prover.known(step, schema, known, &row, &satisfied);
            prover.reduce(&mut plan, "", &rows, &mut proof.held);
        }
        self.plan = plan;
        proof
    }

    /// The JSON pointer to the subschema of a column, where the contract has one.
    pub fn property(&self, column: &str) -> Option<String> {
        let pointer = format!("/properties/{}", escape(column));
        self.root.pointer(&pointer).map(|_| pointer)
    }
}

impl Prover<'_> {
    fn rule(&self, field: &ArrowField) -> &Rule {
        self.contract.rules.column(field.name())
    }

    /// The rows of a step, as the contract sees them.
    fn row(&self, schema: &Schema, known: &Known) -> Row {
        let mut row = Row { columns: HashMap::new(), dead: false };
        for field in schema.fields() {
            if row.columns.contains_key(field.name()) {
                continue;
            }
            let rule = self.rule(field);
            let json = is_json_text(field) || rule.json_text;
            let mut cells = Cells::of(field.data_type(), json, field.is_nullable());
            if let Some(entry) = known.columns.get(field.name()).filter(|entry| entry.data_type == *field.data_type()) {
                cells = if json { Cells { null: cells.null && entry.cells.null, ..cells } } else { cells.and(&entry.cells) };
            }
            let present = match (cells.null && !rule.null, cells.kinds) {
                (false, _) => Fate::Always,
                (true, 0) => Fate::Never,
                (true, _) => Fate::Open,
            };
            if cells.null && rule.null {
                cells.kinds |= cells::NULL;
                cells.values.iter_mut().for_each(|values| values.push(Value::Null));
            }
            let mut column = Column { present, cells };
            row.dead |= column.settle();
            row.columns.insert(field.name().clone(), column);
        }
        row
    }

    /// What is known of the columns of rows that satisfy the contract, for those who read them.
    fn known(&self, step: &str, schema: &Schema, before: &Known, row: &Row, satisfied: &Row) -> Known {
        let mut known = Known::default();
        for field in schema.fields() {
            let name = field.name();
            let (Some(was), Some(is)) = (row.columns.get(name), satisfied.columns.get(name)) else { continue };
            let rule = self.rule(field);
            let null = was.cells.null && if rule.null { is.cells.kinds & cells::NULL != 0 } else { is.present != Fate::Always };
            // What a text is as JSON differs from contract to contract.
            let json = is_json_text(field) || rule.json_text;
            let mut cells = if json { Cells::of(field.data_type(), true, null) } else { is.cells.clone() };
            cells.null = null;
            cells.kinds &= if json { u8::MAX } else { !cells::NULL };
            let mut by = before.columns.get(name).map(|entry| entry.by.clone()).unwrap_or_default();
            let refined = null != was.cells.null || !json && is.cells != was.cells;
            if refined && !by.iter().any(|before| before == step) {
                by.push(step.to_owned());
            }
            if !by.is_empty() && !known.columns.contains_key(name) {
                known.columns.insert(name.clone(), Entry { data_type: field.data_type().clone(), cells, by });
            }
        }
        known
    }

    /// Takes out of a plan what can never fail, and notes it. `rule` points to the keyword that the plan is of.
    fn reduce(&self, node: &mut Node, rule: &str, rows: &Rows<'_>, held: &mut Vec<Held>) {
        match node {
            Node::Always(_) => {}
            Node::Rule(pointer, part) => {
                let pointer = std::mem::take(pointer);
                self.reduce(part, &pointer, rows, held);
                *node = std::mem::replace(part, Node::Always(true));
            }
            // That a row is an object is no news.
            Node::Types(types) if types.object => *node = Node::Always(true),
            Node::All(parts) | Node::Schema(_, parts) => {
                for (at, part) in parts.iter_mut().enumerate() {
                    let rule = below(rule, at, part);
                    self.reduce(part, &rule, rows, held);
                }
                parts.retain(|part| !matches!(part, Node::Always(true)));
            }
            Node::Property(..) => {
                let whole = self.of_row(rows.known, node) == Fate::Always;
                if let Node::Property(name, part) = node {
                    self.reduce_cell(part, rule, &Field { name, whole, rows }, held);
                }
                if whole {
                    *node = Node::Always(true);
                }
            }
            node if self.of_row(rows.known, node) == Fate::Always => {
                let column = match node {
                    Node::Present(name) => Some(name.clone()),
                    _ => None,
                };
                let by = match self.of_row(rows.plain, node) {
                    Fate::Always => Vec::new(),
                    _ => rows.by(column.as_deref()),
                };
                held.push(Held { column, rule: rule.to_owned(), by });
                *node = Node::Always(true);
            }
            _ => {}
        }
    }

    fn reduce_cell(&self, node: &mut Node, rule: &str, field: &Field<'_>, held: &mut Vec<Held>) {
        match node {
            Node::Always(_) => {}
            Node::Rule(pointer, part) => {
                let pointer = std::mem::take(pointer);
                self.reduce_cell(part, &pointer, field, held);
                *node = std::mem::replace(part, Node::Always(true));
            }
            Node::All(parts) | Node::Schema(_, parts) => {
                parts.iter_mut().for_each(|part| self.reduce_cell(part, rule, field, held));
                parts.retain(|part| !matches!(part, Node::Always(true)));
            }
            node => {
                let fate =
                    |row: &Row| row.columns.get(field.name).map_or(Fate::Always, |column| self.of_keyword(&column.cells, rule, node));
                if field.whole || fate(field.rows.known) == Fate::Always {
                    let by = if fate(field.rows.plain) == Fate::Always { Vec::new() } else { field.rows.by(Some(field.name)) };
                    held.push(Held { column: Some(field.name.to_owned()), rule: rule.to_owned(), by });
                    *node = Node::Always(true);
                }
            }
        }
    }

    /// Says why no row can satisfy a plan.
    fn blame(&self, rows: &Rows<'_>, satisfied: &Row, schema: &Schema, plan: &Node) -> Vec<Never> {
        let mut parts = Vec::new();
        flatten(plan, "", &mut parts);
        let (mut found, row) = (Vec::new(), rows.known);
        for (pointer, part) in &parts {
            match part {
                Node::Present(name) if row.present(name) == Fate::Never => {
                    found.push(Never { rule: pointer.clone(), why: Why::Lacks(name.clone()), by: Vec::new() });
                }
                Node::Property(name, ..) if requires(row, &parts, name) => found.extend(self.of_value(rows, schema, pointer, part)),
                Node::Closed(names) => {
                    let others = schema.fields().iter().map(|field| field.name()).filter(|name| !names.contains(*name));
                    let there = others.filter(|name| row.present(name) == Fate::Always);
                    found.extend(there.map(|name| Never { rule: pointer.clone(), why: Why::Extra(name.clone()), by: Vec::new() }));
                }
                Node::Property(..) => {}
                part if self.of_row(row, part) == Fate::Never => {
                    found.push(Never { rule: pointer.clone(), why: Why::Rule, by: Vec::new() })
                }
                _ => {}
            }
        }
        if found.is_empty() {
            // No rule by itself: some of them together.
            let empty = |name: &str| {
                let kinds = |row: &Row| row.columns.get(name).map_or(0, |column| column.cells.kinds);
                kinds(row) != 0 && kinds(satisfied) == 0
            };
            found.extend(parts.iter().find_map(|(pointer, part)| match part {
                Node::Property(name, _) if empty(name) => {
                    Some(Never { rule: pointer.clone(), why: Why::Contradiction(name.clone()), by: Vec::new() })
                }
                _ => None,
            }));
        }
        if found.is_empty() {
            found.push(Never { rule: String::new(), why: Why::Rule, by: Vec::new() });
        }
        found
    }

    /// The columns no value of which can satisfy a plan, and which may be absent.
    fn hollow(&self, rows: &Rows<'_>, schema: &Schema, plan: &Node) -> Vec<Never> {
        let mut parts = Vec::new();
        flatten(plan, "", &mut parts);
        // A contract that says `false` of a column means it.
        let meant = |part: &Node| matches!(part, Node::Property(_, part) if matches!(inner(part), Node::Always(false)));
        parts.iter().filter(|(_, part)| !meant(part)).filter_map(|(pointer, part)| self.of_value(rows, schema, pointer, part)).collect()
    }

    /// The rule that no value of a column can satisfy, if there is one.
    fn of_value(&self, rows: &Rows<'_>, schema: &Schema, pointer: &str, property: &Node) -> Option<Never> {
        let Node::Property(name, part) = property else { return None };
        let column = rows.known.columns.get(name).filter(|column| column.cells.kinds != 0)?;
        if self.of_cell(&column.cells, part) != Fate::Never {
            return None;
        }
        let plain = rows.plain.columns.get(name).is_some_and(|column| self.of_cell(&column.cells, part) == Fate::Never);
        let by = if plain { Vec::new() } else { rows.by(Some(name)) };
        let mut rules = Vec::new();
        flatten(part, pointer, &mut rules);
        let one = rules.into_iter().find(|(_, rule)| self.of_cell(&column.cells, rule) == Fate::Never);
        Some(match one {
            Some((rule, _)) => {
                let data_type = schema.field_with_name(name).ok()?.data_type().clone();
                Never { rule, why: Why::Value(name.clone(), data_type), by }
            }
            None => Never { rule: pointer.to_owned(), why: Why::Contradiction(name.clone()), by },
        })
    }
}

/// Rows by what their step's types say, and by all that is known.
struct Rows<'a> {
    plain: &'a Row,
    known: &'a Row,
    from: &'a Known,
}

impl Rows<'_> {
    /// Who made sure of what is known of a column, or of all.
    fn by(&self, column: Option<&str>) -> Vec<String> {
        let mut by: Vec<String> = match column {
            Some(column) => self.from.columns.get(column).map(|entry| entry.by.clone()).unwrap_or_default(),
            None => self.from.columns.values().flat_map(|entry| entry.by.clone()).collect(),
        };
        by.sort_unstable();
        by.dedup();
        by
    }
}

/// The column whose rules are reduced, and whether all of them hold.
struct Field<'a> {
    name: &'a str,
    whole: bool,
    rows: &'a Rows<'a>,
}

/// True where every row has to have a column.
fn requires(row: &Row, parts: &[(String, &Node)], name: &str) -> bool {
    let required = || parts.iter().any(|(_, part)| matches!(part, Node::Present(required) if required == name));
    match row.present(name) {
        Fate::Always => true,
        Fate::Open => required(),
        Fate::Never => false,
    }
}

/// The rules that all have to hold, each with the pointer to its keyword.
fn flatten<'n>(node: &'n Node, rule: &str, parts: &mut Vec<(String, &'n Node)>) {
    match node {
        Node::Rule(pointer, part) => flatten(part, pointer, parts),
        Node::All(all) | Node::Schema(_, all) => {
            for (at, part) in all.iter().enumerate() {
                flatten(part, &below(rule, at, part), parts);
            }
        }
        node => parts.push((rule.to_owned(), node)),
    }
}

/// The pointer to a part of what a keyword lists: a required name, the schema of a property.
fn below(rule: &str, at: usize, part: &Node) -> String {
    match part {
        Node::Present(_) => format!("{rule}/{at}"),
        Node::Property(name, _) => format!("{rule}/{}", escape(name)),
        _ => rule.to_owned(),
    }
}

/// How many rules a plan of rows has.
fn count(plan: &Node) -> usize {
    match plan {
        // That a row is an object is none.
        Node::Types(_) => 0,
        Node::Rule(_, part) => count(part),
        Node::All(parts) | Node::Schema(_, parts) => parts.iter().map(count).sum(),
        Node::Property(_, part) => of_cells(part),
        node => of_cells(node),
    }
}

fn of_cells(plan: &Node) -> usize {
    match plan {
        Node::Always(_) => 0,
        Node::Rule(_, part) => of_cells(part),
        Node::All(parts) | Node::Schema(_, parts) => parts.iter().map(of_cells).sum(),
        _ => 1,
    }
}

#[cfg(test)]
#[path = "prove_tests.rs"]
mod tests;
