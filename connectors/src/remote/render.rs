//! A query of one system as SQL: each step a `select`, one into the other where what they mean allows it. Every column keeps one name all
//! the way, unlike any other in the query, so that no name has two meanings whatever a system thinks of aliases.

use std::{cell::Cell, collections::HashSet};

use datafusion::common::ScalarValue;

use super::{
    Dialect, Statement,
    query::{Function, JoinKind, Query},
};
use crate::{
    error::{Error, Result},
    pushdown::Filter,
};

/// A `select` in the making.
struct Select<D: Dialect> {
    items: Vec<Item<D>>,
    from: String,
    conditions: Vec<String>,
    /// The keys; none where rows are not grouped.
    group: Option<Vec<String>>,
    order: Vec<String>,
    limit: Option<usize>,
}

/// A column of it.
struct Item<D: Dialect> {
    expression: String,
    /// What it would like to be called.
    own: Option<String>,
    /// What it is called already.
    name: Option<String>,
    column: D::Column,
}

impl<D: Dialect> Select<D> {
    fn from(from: String, items: Vec<Item<D>>) -> Self {
        Self { items, from, conditions: Vec::new(), group: None, order: Vec::new(), limit: None }
    }

    /// Whether it is rows of what stands after `from`, all or those that conditions keep.
    fn is_plain(&self) -> bool {
        self.group.is_none() && self.order.is_empty() && self.limit.is_none()
    }

    fn sql(&self, list: &[String]) -> String {
        let list = if list.is_empty() { D::NOTHING.to_owned() } else { list.join(", ") };
        let mut sql = match list.is_empty() {
            true => format!("select from {}", self.from),
            false => format!("select {list} from {}", self.from),
        };
        let mut add = |word: &str, parts: &[String], between: &str| {
            if !parts.is_empty() {
                sql.push_str(&format!(" {word} {}", parts.join(between)));
            }
        };
        add("where", &self.conditions, " and ");
        add("group by", self.group.as_deref().unwrap_or_default(), ", ");
        add("order by", &self.order, ", ");
        if let Some(limit) = self.limit {
            sql.push_str(&format!(" limit {limit}"));
        }
        sql
    }
}

/// What has been used so far.
struct Writer {
    /// Names of columns that there are.
    reserved: HashSet<String>,
    used: HashSet<String>,
    columns: usize,
    selects: usize,
    values: Vec<String>,
    is_outer: bool,
}

impl<D: Dialect> Query<D> {
    /// The query as a statement; none where a part of it would mean another thing there.
    pub(crate) fn statement(&self) -> Option<Statement<D>> {
        let mut tables = Vec::new();
        self.tables(&mut tables);
        let reserved = tables.iter().flat_map(|table| table.columns.iter().map(|(name, _)| name.clone())).collect();
        let mut what: Vec<&str> = tables.iter().map(|table| table.what.as_str()).collect();
        what.dedup();
        let what = what.join(" and ");
        let mut writer = Writer { reserved, used: HashSet::new(), columns: 0, selects: 0, values: Vec::new(), is_outer: false };
        let select = writer.select(self)?;
        let (mut list, mut plain) = (Vec::with_capacity(select.items.len()), HashSet::new());
        for item in &select.items {
            let sent = D::sent(&item.column, &item.expression);
            // Two columns of one name are none that a format with names can carry.
            let is_named = sent == item.expression && item.name.is_none() == item.own.is_some() && plain.insert(sent.clone());
            list.push(if !D::NAMED || is_named { sent } else { format!("{sent} as {}", D::quoted(&writer.fresh())) });
        }
        let sql = select.sql(&list);
        if writer.is_outer && D::REACHES_INTO_VIEWS && tables.iter().any(|table| table.is_view) {
            return None;
        }
        Some(Statement {
            sql,
            is_outer: writer.is_outer,
            values: writer.values,
            columns: select.items.into_iter().map(|item| item.column).collect(),
            what,
        })
    }

    /// The same where it is known to be sent.
    pub(crate) fn sure_statement(&self) -> Result<Statement<D>> {
        self.statement().ok_or_else(|| Error::weir("filter-lost", "a part of a query that was promised cannot be sent"))
    }
}

impl Writer {
    /// A name that nothing has.
    fn fresh(&mut self) -> String {
        loop {
            let name = format!("c{}", self.columns);
            self.columns += 1;
            if !self.reserved.contains(&name) && self.used.insert(name.clone()) {
                return name;
            }
        }
    }

    /// Puts a select behind a `from`.
    fn nest<D: Dialect>(&mut self, select: Select<D>) -> Select<D> {
        let (from, items) = self.inside(select);
        Select::from(from, items)
    }

    fn inside<D: Dialect>(&mut self, mut select: Select<D>) -> (String, Vec<Item<D>>) {
        let (mut list, mut here) = (Vec::new(), HashSet::new());
        for item in &mut select.items {
            let name = match (&item.name, &item.own) {
                (Some(name), _) if here.insert(name.clone()) => name.clone(),
                (None, Some(own)) if self.used.insert(own.clone()) => {
                    here.insert(own.clone());
                    own.clone()
                }
                _ => {
                    let name = self.fresh();
                    here.insert(name.clone());
                    name
                }
            };
            let quoted = D::quoted(&name);
            list.push(if quoted == item.expression { quoted.clone() } else { format!("{} as {quoted}", item.expression) });
            (item.name, item.own) = (Some(name), None);
        }
        self.selects += 1;
        let from = format!("({}) as {}", select.sql(&list), D::quoted(&format!("q{}", self.selects)));
        for item in &mut select.items {
            item.expression = D::quoted(item.name.as_deref().expect("it was named"));
        }
        (from, select.items)
    }

    fn plain<D: Dialect>(&mut self, query: &Query<D>) -> Option<Select<D>> {
        let select = self.select(query)?;
        Some(if select.is_plain() { select } else { self.nest(select) })
    }

    fn select<D: Dialect>(&mut self, query: &Query<D>) -> Option<Select<D>> {
        Some(match query {
            Query::Table(table) => {
                let item = |(name, column): &(String, D::Column)| Item {
                    expression: D::quoted(name),
                    own: Some(name.clone()),
                    name: None,
                    column: column.clone(),
                };
                Select::from(table.from.clone(), table.columns.iter().map(item).collect())
            }
            Query::Project(input, columns) => {
                let mut select = self.select(input)?;
                // One row of all rows is one row, whether anything of it is wanted or not.
                if columns.is_empty() && select.group.as_ref().is_some_and(Vec::is_empty) {
                    select = self.nest(select);
                }
                let items = columns.iter().map(|column| {
                    let Item { expression, own, name, column } = select.items.get(*column)?;
                    Some(Item { expression: expression.clone(), own: own.clone(), name: name.clone(), column: column.clone() })
                });
                select.items = items.collect::<Option<_>>()?;
                select
            }
            Query::Filter(input, filters) => {
                let mut select = self.plain(input)?;
                for filter in filters {
                    let condition = self.condition(filter, &select.items)?;
                    select.conditions.push(condition);
                }
                select
            }
            Query::Limit(input, rows) => {
                let mut select = self.select(input)?;
                if select.limit.is_some() {
                    select = self.nest(select);
                }
                select.limit = Some(*rows);
                select
            }
            Query::Top(input, order, rows) => {
                let mut select = self.plain(input)?;
                for by in order {
                    let item = select.items.get(by.column)?;
                    if !crate::pushdown::is_ordered(D::data_type(&item.column)) || !D::ordered(&item.column) {
                        return None;
                    }
                    let (direction, nulls) =
                        (if by.ascending { "asc" } else { "desc" }, if by.nulls_first { "nulls first" } else { "nulls last" });
                    select.order.push(format!("{} {direction} {nulls}", item.expression));
                }
                select.limit = Some(*rows);
                select
            }
            Query::Join { left, right, kind, on } => self.join(left, right, *kind, on)?,
            Query::Group { input, keys, aggregates } => self.group(input, keys, aggregates)?,
        })
    }

    fn join<D: Dialect>(&mut self, left: &Query<D>, right: &Query<D>, kind: JoinKind, on: &[(usize, usize)]) -> Option<Select<D>> {
        self.is_outer |= kind == JoinKind::Left;
        let left = self.select(left)?;
        let (from, mut items) = self.inside(left);
        let right = self.select(right)?;
        let (other, others) = self.inside(right);
        let mut equal = Vec::with_capacity(on.len());
        for (left, right) in on {
            let (left, right) = (items.get(*left)?, others.get(*right)?);
            let (own, their) = (D::data_type(&left.column), D::data_type(&right.column));
            if !crate::pushdown::is_joinable(own, their) {
                return None;
            }
            equal.push(D::joined((&left.column, &left.expression), (&right.column, &right.expression))?);
        }
        for item in others {
            let column = match kind {
                JoinKind::Inner => item.column,
                JoinKind::Left => D::optional(&item.column)?,
            };
            items.push(Item { column, ..item });
        }
        Some(Select::from(format!("{from} {} {other} on {}", D::join(kind), equal.join(" and ")), items))
    }

    fn group<D: Dialect>(&mut self, input: &Query<D>, keys: &[usize], aggregates: &[(Function, Option<usize>)]) -> Option<Select<D>> {
        let mut select = self.plain(input)?;
        let (mut items, mut group) = (Vec::new(), Vec::new());
        for key in keys {
            let item = select.items.get(*key)?;
            if !crate::pushdown::is_equal(D::data_type(&item.column)) {
                return None;
            }
            let (expression, column) = D::grouped(&item.column, &item.expression)?;
            let same = expression == item.expression;
            let (own, name) = if same { (item.own.clone(), item.name.clone()) } else { (None, None) };
            if !group.contains(&expression) {
                group.push(expression.clone());
            }
            items.push(Item { expression, own, name, column });
        }
        for (function, column) in aggregates {
            let input = match column {
                Some(column) => {
                    let item = select.items.get(*column)?;
                    let data_type = D::data_type(&item.column);
                    let fits = match function {
                        Function::CountRows | Function::Count | Function::Sum => true,
                        Function::CountDistinct => crate::pushdown::is_equal(data_type),
                        Function::Min | Function::Max => crate::pushdown::is_ordered(data_type) && D::ordered(&item.column),
                    };
                    if !fits {
                        return None;
                    }
                    Some((&item.column, item.expression.as_str()))
                }
                None => None,
            };
            let (expression, column) = D::aggregated(*function, input)?;
            items.push(Item { expression, own: None, name: None, column });
        }
        (select.items, select.group) = (items, Some(group));
        Some(select)
    }

    fn condition<D: Dialect>(&mut self, filter: &Filter, items: &[Item<D>]) -> Option<String> {
        // A value follows the column it is compared with, so the column says how.
        let current = Cell::new(0);
        let column = |number: &str| {
            let number: usize = number.parse().ok()?;
            let item = items.get(number)?;
            current.set(number);
            D::compared(&item.column, &item.expression)
        };
        let values = &mut self.values;
        let mut bind = |value: &ScalarValue| {
            let (text, sql) = D::bound(&items[current.get()].column, value, values.len() + 1)?;
            values.push(text);
            Some(sql)
        };
        filter.render(&column, &mut bind)
    }
}
