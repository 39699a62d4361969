//! What becomes of a contract's rules: whether each always holds, never does, or neither is certain, of rows whose columns are known as
//! far as `cells` says. What is made of that is `prove`'s. Whatever is not understood here is open.

use std::{cell::Cell, collections::HashMap};

use jsonschema::Draft;
use serde_json::{Map, Value};

use crate::{
    cells::{self, Cells, KINDS},
    contract::Contract,
    kernel::Node,
};

/// What is certain: it never holds, it always does, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Never,
    Open,
    Always,
}

impl From<bool> for Fate {
    fn from(holds: bool) -> Self {
        if holds { Self::Always } else { Self::Never }
    }
}

impl Fate {
    fn not(self) -> Self {
        match self {
            Self::Never => Self::Always,
            Self::Open => Self::Open,
            Self::Always => Self::Never,
        }
    }

    fn all(fates: impl IntoIterator<Item = Self>) -> Self {
        let weight = |fate: &Self| match fate {
            Self::Never => 0,
            Self::Open => 1,
            Self::Always => 2,
        };
        fates.into_iter().min_by_key(weight).unwrap_or(Self::Always)
    }

    fn any(fates: impl IntoIterator<Item = Self>) -> Self {
        Self::all(fates.into_iter().map(Self::not)).not()
    }

    fn one(fates: impl Iterator<Item = Self>) -> Self {
        let (mut always, mut open) = (0, 0);
        for fate in fates {
            always += usize::from(fate == Self::Always);
            open += usize::from(fate == Self::Open);
        }
        match (always, open) {
            (0, 0) | (2.., _) => Self::Never,
            (1, 0) => Self::Always,
            _ => Self::Open,
        }
    }

    fn either(when: Self, then: Self, other: Self) -> Self {
        match when {
            Self::Always => then,
            Self::Never => other,
            Self::Open if then == other => then,
            Self::Open => Self::Open,
        }
    }
}

/// A column as a contract sees it.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    /// Whether rows have it: a null that the contract does not see is absent.
    pub(crate) present: Fate,
    /// Its cells where it is present.
    pub(crate) cells: Cells,
}

impl Column {
    fn none() -> Self {
        Self { present: Fate::Never, cells: Cells { kinds: 0, ..Cells::any() } }
    }

    fn or(self, other: &Self) -> Self {
        let present = if self.present == other.present { self.present } else { Fate::Open };
        Self { present, cells: self.cells.or(&other.cells) }
    }

    /// Puts together what is known of the presence and of the cells. True where no row is left.
    pub(crate) fn settle(&mut self) -> bool {
        self.cells.settle();
        if self.cells.kinds == 0 && self.present == Fate::Open {
            self.present = Fate::Never;
        }
        self.cells.kinds == 0 && self.present == Fate::Always
    }

    fn require(&mut self) {
        if self.present == Fate::Open {
            self.present = Fate::Always;
        }
    }
}

/// Rows as a contract sees them, by their columns.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) columns: HashMap<String, Column>,
    /// No such row comes.
    pub(crate) dead: bool,
}

impl Row {
    fn at(&mut self, name: &str) -> &mut Column {
        self.columns.entry(name.to_owned()).or_insert_with(Column::none)
    }

    pub(crate) fn present(&self, name: &str) -> Fate {
        self.columns.get(name).map_or(Fate::Never, |column| column.present)
    }

    fn or(mut self, other: Self) -> Self {
        if self.dead || other.dead {
            return if self.dead { other } else { self };
        }
        for (name, column) in other.columns {
            let before = self.columns.remove(&name).unwrap_or_else(Column::none);
            self.columns.insert(name, before.or(&column));
        }
        self
    }
}

/// Reasons about one contract.
pub(crate) struct Prover<'a> {
    pub(crate) contract: &'a Contract,
    /// So many thoughts are left; without any, everything is open.
    left: Cell<usize>,
}

impl<'a> Prover<'a> {
    /// A contract of so many rules. Rules inside rules inside rules would be thought of ever more often: some end is set to that.
    pub(crate) fn new(contract: &'a Contract, rules: usize) -> Self {
        Self { contract, left: Cell::new((1 << 16) + rules.saturating_mul(64)) }
    }

    /// Takes some thoughts. False where so many are not left.
    fn think(&self, thoughts: usize) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(thoughts));
        left >= thoughts
    }

    /// What becomes of a rule about rows.
    pub(crate) fn of_row(&self, row: &Row, node: &Node) -> Fate {
        let of = |node: &Node| self.of_row(row, node);
        if !self.think(1) {
            return Fate::Open;
        }
        match node {
            Node::Always(holds) => (*holds).into(),
            Node::Rule(_, part) => of(part),
            Node::All(parts) | Node::Schema(_, parts) => {
                let fate = Fate::all(parts.iter().map(of));
                if fate != Fate::Open || !self.think(row.columns.len()) {
                    return fate;
                }
                let mut both = row.clone();
                self.suppose(&mut both, node);
                if both.dead { Fate::Never } else { fate }
            }
            Node::Any(parts) => Fate::any(parts.iter().map(of)),
            Node::One(parts) => Fate::one(parts.iter().map(of)),
            Node::Not(part) => of(part).not(),
            Node::If(parts) => Fate::either(of(&parts[0]), of(&parts[1]), of(&parts[2])),
            Node::Present(name) => row.present(name),
            Node::Depends(name, others) => Fate::any([row.present(name).not(), Fate::all(others.iter().map(|other| row.present(other)))]),
            Node::When(name, part) => Fate::any([row.present(name).not(), of(part)]),
            Node::Property(name, part) => match row.columns.get(name) {
                Some(column) if column.present != Fate::Never => {
                    let fate = self.of_cell(&column.cells, part);
                    if fate == Fate::Never && column.present == Fate::Open { Fate::Open } else { fate }
                }
                _ => Fate::Always,
            },
            Node::Closed(names) => {
                let others = row.columns.iter().filter(|(name, _)| !names.contains(*name));
                Fate::all(others.map(|(_, column)| column.present.not()))
            }
            Node::Size(least, most) => {
                let count = |fate: Fate| row.columns.values().filter(|column| column.present == fate).count() as u64;
                let (from, to) = (count(Fate::Always), count(Fate::Always) + count(Fate::Open));
                match (*least <= from && to <= *most, to < *least || *most < from) {
                    (true, _) => Fate::Always,
                    (_, true) => Fate::Never,
                    _ => Fate::Open,
                }
            }
            // A row is an object.
            Node::Types(types) => types.object.into(),
            _ => Fate::Open,
        }
    }

    /// What becomes of a rule about the cells of a column, where they are present.
    pub(crate) fn of_cell(&self, cells: &Cells, node: &Node) -> Fate {
        let of = |node: &Node| self.of_cell(cells, node);
        if !self.think(1) {
            return Fate::Open;
        }
        match node {
            Node::Always(holds) => (*holds).into(),
            Node::Rule(pointer, part) => self.of_keyword(cells, pointer, part),
            Node::Schema(pointer, _) if self.known_to_hold(pointer, cells) => Fate::Always,
            Node::All(parts) | Node::Schema(_, parts) => {
                let fate = Fate::all(parts.iter().map(of));
                let mut both = cells.clone();
                if fate == Fate::Open {
                    self.suppose_cell(&mut both, node);
                }
                if both.kinds == 0 && cells.kinds != 0 { Fate::Never } else { fate }
            }
            Node::Any(parts) => Fate::any(parts.iter().map(of)),
            Node::One(parts) => Fate::one(parts.iter().map(of)),
            Node::Not(part) => of(part).not(),
            Node::If(parts) => Fate::either(of(&parts[0]), of(&parts[1]), of(&parts[2])),
            node => {
                let mut kinds = KINDS.into_iter().filter(|kind| cells.kinds & kind != 0).map(|kind| self.of_kind(cells, kind, node));
                let Some(first) = kinds.next() else { return Fate::Always };
                if kinds.all(|fate| fate == first) { first } else { Fate::Open }
            }
        }
    }

    /// The same for what the keyword under a pointer asks for.
    pub(crate) fn of_keyword(&self, cells: &Cells, pointer: &str, part: &Node) -> Fate {
        let known = self.keyword(pointer).is_some_and(|keyword| cells.same.contains(&keyword));
        if known { Fate::Always } else { self.of_cell(cells, part) }
    }

    /// The same for the cells of one kind.
    fn of_kind(&self, cells: &Cells, kind: u8, node: &Node) -> Fate {
        let range = |inside: bool, outside: bool| match (inside, outside) {
            (true, _) => Fate::Always,
            (_, true) => Fate::Never,
            _ => Fate::Open,
        };
        match (node, kind) {
            (Node::Types(types), cells::NULL) => types.null.into(),
            (Node::Types(types), cells::BOOLEAN) => types.boolean.into(),
            (Node::Types(types), cells::INTEGER) => (types.integer || types.number).into(),
            (Node::Types(types), cells::FLOAT) if types.integer && !types.number => Fate::Open,
            (Node::Types(types), cells::FLOAT) => types.number.into(),
            (Node::Types(types), cells::STRING) => types.string.into(),
            (Node::Types(types), cells::ARRAY) => types.array.into(),
            (Node::Types(types), _) => types.object.into(),
            (Node::Values(values), kind) => of_values(cells, kind, values),
            (Node::Bound(bound), cells::INTEGER) => {
                let ((least, most), (from, to)) = (bound.whole, cells.whole);
                range(least <= from && to <= most, to < least || most < from)
            }
            (Node::Bound(bound), cells::FLOAT) => match bound.limit {
                // What holds at both ends holds between them.
                Some(limit) => {
                    let ends = [bound.holds(limit, cells.float.0), bound.holds(limit, cells.float.1)];
                    range(ends == [true, true], ends == [false, false])
                }
                None => Fate::Open,
            },
            (Node::Multiple(divisor), cells::INTEGER) => {
                let divides = |multiple: &u64| multiple.is_multiple_of(*divisor);
                let mut multiples = cells.clone();
                multiples.divides(*divisor);
                multiples.settle();
                range(*divisor == 1 || cells.multiples.iter().any(divides), multiples.kinds & cells::INTEGER == 0)
            }
            (Node::Multiple(_), cells::FLOAT) | (Node::Fraction(_), cells::INTEGER | cells::FLOAT) => Fate::Open,
            (Node::Length(least, most), cells::STRING) => {
                let (from, to) = cells.length;
                range(*least <= from && to <= *most, to < *least || *most < from)
            }
            (Node::Format(..) | Node::Pattern(_), cells::STRING) => Fate::Open,
            (Node::Bound(_) | Node::Multiple(_) | Node::Fraction(_) | Node::Length(..) | Node::Format(..) | Node::Pattern(_), _) => {
                Fate::Always
            }
            (Node::Items(..) | Node::Prefix(_) | Node::Contains(..) | Node::Count(..) | Node::Unique, kind) if kind != cells::ARRAY => {
                Fate::Always
            }
            (
                Node::Depends(..)
                | Node::Property(..)
                | Node::Matching(..)
                | Node::Closed(_)
                | Node::Others(..)
                | Node::Names(_)
                | Node::Present(_)
                | Node::Size(..),
                kind,
            ) if kind != cells::OBJECT => Fate::Always,
            (Node::Crate(pointer), _) if self.known_to_hold(pointer, cells) => Fate::Always,
            _ => Fate::Open,
        }
    }

    /// A keyword as a schema of its own, where all depends on its word and on the value, and a null passes.
    fn keyword(&self, pointer: &str) -> Option<(Draft, Value)> {
        let (_, word) = pointer.rsplit_once('/')?;
        // What an engine gave up on is judged row by row.
        let plain = ["format", "multipleOf", "pattern"].contains(&word) && !self.contract.backtracks;
        let value = self.contract.root.pointer(pointer).filter(|_| plain)?;
        Some((self.contract.draft, Value::Object(Map::from_iter([(word.to_owned(), value.clone())]))))
    }

    /// True when an earlier step holds the same schema against the same cells.
    fn known_to_hold(&self, pointer: &str, cells: &Cells) -> bool {
        if cells.same.is_empty() || cells.kinds & (cells::ARRAY | cells::OBJECT) != 0 {
            // Which fields of a record a contract sees is its own affair.
            return false;
        }
        let Some(schema) = self.canonical(pointer) else { return false };
        let takes_null = || self.contract.validators.get(&format!("#{pointer}")).is_some_and(|validator| validator.is_valid(&Value::Null));
        cells.same.contains(&(self.contract.draft, schema)) && (cells.kinds & cells::NULL == 0 || takes_null())
    }

    /// A subschema without what only describes, its references followed: the same for two that say the same in the same words. None where it
    /// leads back to itself, or is too long to think of.
    fn canonical(&self, pointer: &str) -> Option<Value> {
        if self.contract.backtracks {
            return None;
        }
        self.plain(self.contract.root.pointer(pointer)?, 0)
    }

    fn plain(&self, schema: &Value, depth: usize) -> Option<Value> {
        const DEPTH_MAX: usize = 16;
        if depth > DEPTH_MAX || !self.think(1) {
            return None;
        }
        let Value::Object(members) = schema else { return Some(schema.clone()) };
        let mut kept = Map::new();
        for (key, value) in members {
            let value = match (key.as_str(), value) {
                ("title" | "description" | "default" | "examples" | "deprecated" | "readOnly" | "writeOnly" | "$comment", _) => continue,
                (key, _) if key.starts_with("x-") => continue,
                ("const" | "enum" | "required", value) => value.clone(),
                ("$ref", Value::String(reference)) => {
                    let target = self.contract.root.pointer(reference.strip_prefix('#')?)?;
                    self.plain(target, depth + 1)?
                }
                (key, _) if key.starts_with('$') => return None,
                ("type", Value::Array(words)) => {
                    let mut words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
                    words.sort_unstable();
                    words.into()
                }
                (_, Value::Object(_)) => self.plain(value, depth + 1)?,
                (_, Value::Array(parts)) => parts.iter().map(|part| self.plain(part, depth + 1)).collect::<Option<Vec<_>>>()?.into(),
                (_, value) => value.clone(),
            };
            kept.insert(key.clone(), value);
        }
        // A schema that is nothing but a reference is what it refers to.
        if kept.len() == 1 {
            return Some(kept.shift_remove("$ref").unwrap_or(Value::Object(kept)));
        }
        Some(Value::Object(kept))
    }

    /// Leaves of the rows those that may satisfy a rule.
    pub(crate) fn suppose(&self, row: &mut Row, node: &Node) {
        if !self.think(1) {
            return;
        }
        match node {
            Node::Always(holds) => row.dead |= !holds,
            Node::Rule(_, part) => self.suppose(row, part),
            Node::Types(types) => row.dead |= !types.object,
            Node::When(name, part) if row.present(name) == Fate::Always => self.suppose(row, part),
            Node::All(parts) | Node::Schema(_, parts) => {
                // What a later part says may bear on an earlier one.
                for part in parts.iter().chain(parts) {
                    self.suppose(row, part);
                }
            }
            Node::Any(parts) | Node::One(parts) => self.suppose_any(row, parts.iter()),
            Node::If(parts) => match self.of_row(row, &parts[0]) {
                Fate::Always => self.suppose(row, &parts[1]),
                Fate::Never => self.suppose(row, &parts[2]),
                Fate::Open => self.suppose_any(row, parts[1..].iter()),
            },
            Node::Not(part) => match inner(part) {
                Node::Present(name) => match row.present(name) {
                    Fate::Always => row.dead = true,
                    _ => *row.at(name) = Column::none(),
                },
                part => row.dead |= self.of_row(row, part) == Fate::Always,
            },
            Node::Present(name) => {
                let column = row.at(name);
                column.require();
                row.dead |= column.present == Fate::Never;
            }
            Node::Depends(name, others) if row.present(name) == Fate::Always => {
                for other in others {
                    let column = row.at(other);
                    column.require();
                    row.dead |= column.present == Fate::Never;
                }
            }
            Node::Property(name, part) if row.present(name) != Fate::Never => {
                let column = row.at(name);
                self.suppose_cell(&mut column.cells, part);
                row.dead |= column.settle();
            }
            Node::Closed(names) => {
                for (_, column) in row.columns.iter_mut().filter(|(name, _)| !names.contains(*name)) {
                    row.dead |= column.present == Fate::Always;
                    *column = Column::none();
                }
            }
            _ => {}
        }
    }

    fn suppose_any<'n>(&self, row: &mut Row, parts: impl Iterator<Item = &'n Node>) {
        let mut any: Option<Row> = None;
        for part in parts {
            if !self.think(row.columns.len()) {
                return;
            }
            let mut one = row.clone();
            self.suppose(&mut one, part);
            any = Some(match any {
                Some(others) => others.or(one),
                None => one,
            });
        }
        match any {
            Some(any) => *row = any,
            None => row.dead = true,
        }
    }

    /// Leaves of the cells those that may satisfy a rule.
    fn suppose_cell(&self, cells: &mut Cells, node: &Node) {
        if !self.think(1) {
            return;
        }
        match node {
            Node::Always(true) => {}
            Node::Always(false) => cells.kinds = 0,
            Node::Rule(pointer, part) => {
                if let Some(keyword) = self.keyword(pointer) {
                    cells.is(keyword);
                }
                self.suppose_cell(cells, part);
            }
            Node::All(parts) => parts.iter().for_each(|part| self.suppose_cell(cells, part)),
            Node::Schema(pointer, parts) => {
                if let Some(schema) = self.canonical(pointer) {
                    cells.is((self.contract.draft, schema));
                }
                parts.iter().for_each(|part| self.suppose_cell(cells, part));
            }
            Node::Any(parts) | Node::One(parts) => self.suppose_any_cell(cells, parts.iter()),
            Node::If(parts) => match self.of_cell(cells, &parts[0]) {
                Fate::Always => self.suppose_cell(cells, &parts[1]),
                Fate::Never => self.suppose_cell(cells, &parts[2]),
                Fate::Open => self.suppose_any_cell(cells, parts[1..].iter()),
            },
            Node::Not(part) => {
                let kinds = cells.kinds;
                for kind in KINDS.into_iter().filter(|kind| kinds & kind != 0) {
                    let of_kind = Cells { kinds: kind, ..cells.clone() };
                    if self.of_cell(&of_kind, part) == Fate::Always {
                        cells.kinds &= !kind;
                    }
                }
            }
            Node::Types(types) => cells.typed(*types),
            Node::Values(values) => cells.one_of(values),
            Node::Bound(bound) => cells.bounded(*bound),
            Node::Multiple(divisor) => cells.divides(*divisor),
            Node::Length(least, most) => cells.long((*least, *most)),
            Node::Crate(pointer) => {
                if let Some(schema) = self.canonical(pointer) {
                    cells.is((self.contract.draft, schema));
                }
            }
            _ => {}
        }
        cells.settle();
    }

    fn suppose_any_cell<'n>(&self, cells: &mut Cells, parts: impl Iterator<Item = &'n Node>) {
        let each = parts.map(|part| {
            let mut cells = cells.clone();
            self.suppose_cell(&mut cells, part);
            cells
        });
        *cells = each.filter(|cells| cells.kinds != 0).reduce(|any, cells| any.or(&cells)).unwrap_or(Cells { kinds: 0, ..cells.clone() });
    }
}

/// A rule without the keywords around it.
pub(crate) fn inner(node: &Node) -> &Node {
    match node {
        Node::Rule(_, part) => inner(part),
        Node::All(parts) | Node::Schema(_, parts) if parts.len() == 1 => inner(&parts[0]),
        node => node,
    }
}

/// What becomes of an enumeration for cells of one kind.
fn of_values(cells: &Cells, kind: u8, values: &[Value]) -> Fate {
    let of_kind = |value: &&Value| cells::kinds_of(value) & kind != 0;
    let within = |value: &Value| match value {
        Value::String(text) => (cells.length.0..=cells.length.1).contains(&(text.chars().count() as u64)),
        Value::Number(_) if kind == cells::INTEGER => match cells::whole_of(value) {
            Some(whole) => (cells.whole.0..=cells.whole.1).contains(&whole),
            None => value.as_f64().is_none_or(|float| float.fract() == 0.0),
        },
        _ => true,
    };
    if !values.iter().filter(of_kind).any(within) {
        return Fate::Never;
    }
    let listed = match kind {
        cells::NULL => true,
        cells::BOOLEAN => [true, false].iter().all(|flag| values.contains(&Value::Bool(*flag))),
        _ => false,
    };
    let known = cells.values.as_ref().is_some_and(|known| known.iter().filter(of_kind).all(|value| values.contains(value)));
    if listed || known { Fate::Always } else { Fate::Open }
}
