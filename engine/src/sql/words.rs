//! In which words is a part of a query told that does not hold? What it is, why, and what to write instead, from the part's own form and the
//! types of what it is made of.

use arrow::datatypes::DataType;
use datafusion::{
    common::{SchemaError, TableReference},
    error::DataFusionError,
    logical_expr::UNNAMED_TABLE,
    scalar::ScalarValue,
    sql::sqlparser::{
        ast::{BinaryOperator, Expr, SelectItem, SetExpr, Spanned, Value},
        tokenizer::Span as Extent,
    },
};
use weir_pipelines::{Diagnostic, Span, SqlText};

use super::{
    arguments, message,
    names::Names,
    parts::{Part, null, parts},
    place::{Places, union},
    root,
    scope::{Fault, Judge, Rule, Scope, normal},
};
use crate::transforms::listed;

/// What is said about one SQL text.
pub struct Words<'a> {
    text: &'a SqlText,
    pub places: &'a Places<'a>,
}

impl<'a> Words<'a> {
    pub fn new(text: &'a SqlText, places: &'a Places<'a>) -> Self {
        Self { text, places }
    }

    pub fn say(&self, code: &'static str, message: impl Into<String>, span: Span, label: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, message).at(&self.text.file, span, label)
    }

    pub fn also(&self, found: Diagnostic, span: Span, label: impl Into<String>) -> Diagnostic {
        found.at(&self.text.file, span, label)
    }

    /// What is wrong with an expression whose parts are right.
    pub fn fault(&self, expr: &Expr, fault: &Fault, scope: &Scope, judge: &Judge<'_>) -> Diagnostic {
        let at = || self.places.of(expr);
        match fault {
            Fault::Aggregate => self
                .say("misplaced-aggregate", "an aggregate cannot be asked of one row", at(), "of many rows")
                .help("a condition on groups is written with \"having\", behind \"group by\""),
            Fault::Window => self
                .say("misplaced-window", "a window function cannot be asked here, before its rows are chosen", at(), "of many rows")
                .help("make it a column of a query, and write the condition in a query around that"),
            Fault::NotBoolean(kind) => self.not_boolean(expr, kind, "and"),
            Fault::NotGrouped => self.not_grouped(expr),
            Fault::Unlike(one, other) => self.unlike(expr, one, other),
            Fault::Cast(from, to) => self.uncastable(expr, from, to),
            Fault::Doubtful(one, other) => self.doubtful(expr, one, other),
            Fault::Columns(columns) => self.columns(expr, *columns),
            Fault::Constant(error) => self.constant(expr, error, scope, judge),
            Fault::Plan(error) | Fault::Whole(error) => self.planned(expr, error, scope, judge),
        }
    }

    fn planned(&self, expr: &Expr, error: &DataFusionError, scope: &Scope, judge: &Judge<'_>) -> Diagnostic {
        let at = || self.places.of(expr);
        let type_of = |expr: &Expr| judge.typed(expr, scope, Rule::Any).map(|(_, kind)| kind).ok();
        match expr {
            Expr::Identifier(ident) => self.column(ident.span, &normal(ident), None, error, scope),
            Expr::CompoundIdentifier(idents) if idents.len() > 1 => {
                let (table, name) = (&idents[idents.len() - 2], &idents[idents.len() - 1]);
                let known = scope.qualifiers().contains(&normal(table));
                match known {
                    true => self.column(expr.span(), &normal(name), Some(&normal(table)), error, scope),
                    false => self.unknown_qualifier(table.span, &normal(table), Some(&normal(name)), scope),
                }
            }
            Expr::Function(_)
            | Expr::Substring { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Position { .. }
            | Expr::Trim { .. }
            | Expr::Extract { .. }
            | Expr::Overlay { .. } => arguments::wrong(self, expr, error, scope, judge),
            Expr::Cast { expr: inner, data_type, .. } => {
                let mut asked = expr.clone();
                if let Expr::Cast { expr, .. } = &mut asked {
                    **expr = null();
                }
                match (judge.typed(&asked, scope, Rule::Any), type_of(inner)) {
                    (Err(_), _) => self.unknown_type(expr, &data_type.to_string()),
                    (Ok((_, to)), Some(from)) => self.uncastable(expr, &from, &to),
                    _ => self.other(expr, error),
                }
            }
            Expr::BinaryOp { left, op, right } => match (type_of(left), type_of(right)) {
                (Some(one), Some(other)) => self.operator(expr, op, (left, &one), (right, &other)),
                _ => self.other(expr, error),
            },
            Expr::UnaryOp { op, expr: inner } => match type_of(inner) {
                Some(kind) => self.say(
                    "wrong-type",
                    format!("\"{}\" does not take {}", op.to_string().to_lowercase(), sql_name(&kind)),
                    at(),
                    format!("this is {}", sql_name(&kind)),
                ),
                None => self.other(expr, error),
            },
            Expr::Interval(interval) => self
                .say(
                    "wrong-literal",
                    format!("{} is no interval", self.places.written(&interval.value)),
                    self.places.of(&interval.value),
                    "not an interval",
                )
                .help("write for instance interval '1 day', interval '2 hours' or interval '1 month 3 days'"),
            Expr::TypedString(typed) => self.unfit(&typed.value.value, typed.value.span, &typed.data_type.to_string().to_lowercase()),
            Expr::InList { .. } | Expr::Between { .. } | Expr::Like { .. } | Expr::ILike { .. } | Expr::Case { .. } => {
                let mut kinds: Vec<String> = Vec::new();
                parts(&mut expr.clone(), &mut |part| {
                    if let Part::Expr(part) = part
                        && let Some(kind) = type_of(part)
                        && kind != DataType::Null
                        && !kinds.contains(&sql_name(&kind))
                    {
                        kinds.push(sql_name(&kind));
                    }
                });
                let what = match expr {
                    Expr::InList { .. } => "\"in\"",
                    Expr::Between { .. } => "\"between\"",
                    Expr::Case { .. } => "\"case\"",
                    _ => "\"like\"",
                };
                match kinds.len() {
                    0 => self.other(expr, error),
                    _ => self
                        .say("wrong-type", format!("{what} does not go with {}", kinds.join(" and ")), at(), kinds.join(", "))
                        .help("bring them to one type with \"cast\""),
                }
            }
            Expr::Subquery(query) | Expr::InSubquery { subquery: query, .. } if message(error).starts_with("too many columns") => {
                self.columns_at(&query.body, None)
            }
            _ => self.other(expr, error),
        }
    }

    fn uncastable(&self, expr: &Expr, from: &DataType, to: &DataType) -> Diagnostic {
        let (from, to) = (sql_name(from), sql_name(to));
        self.say("wrong-type", format!("{from} cannot become {to}"), self.places.of(expr), format!("a cast of {from} to {to}"))
    }

    /// What no rule foresaw, where it is.
    fn other(&self, expr: &Expr, error: &DataFusionError) -> Diagnostic {
        self.say("sql", message(error), self.places.of(expr), "")
    }

    fn column(&self, at: Extent, name: &str, table: Option<&str>, error: &DataFusionError, scope: &Scope) -> Diagnostic {
        match root(error) {
            Some(DataFusionError::SchemaError(schema, _)) if matches!(schema.as_ref(), SchemaError::AmbiguousReference { .. }) => {
                self.ambiguous(at, name, scope)
            }
            Some(DataFusionError::SchemaError(..)) => match table {
                Some(table) => self.column_not_found(at, name, Some(table), scope),
                None => self.unknown_column(at, name, scope),
            },
            _ => Diagnostic::error("sql", message(error)).at(&self.text.file, self.places.span(at), ""),
        }
    }

    /// A name that no column in scope has.
    pub fn unknown_column(&self, at: Extent, name: &str, scope: &Scope) -> Diagnostic {
        self.column_not_found(at, name, None, scope)
    }

    fn column_not_found(&self, at: Extent, name: &str, table: Option<&str>, scope: &Scope) -> Diagnostic {
        let mut tables: Vec<Option<&str>> = scope.schema.iter().map(|(qualifier, _)| qualifier.map(TableReference::table)).collect();
        tables.sort();
        tables.dedup();
        let one = table.or(if let [Some(one)] = tables.as_slice() { Some(*one) } else { None });
        let of = one.map(|table| format!(" in \"{table}\"")).unwrap_or_default();
        // Where there are several tables, columns are listed with theirs.
        let several = tables.iter().flatten().filter(|table| **table != UNNAMED_TABLE).count() > 1;
        let all: Vec<String> = match one.is_some() || !several {
            true => scope.columns(one),
            false => {
                let known = scope.schema.iter().filter(|(_, field)| !field.name().starts_with("__weir_"));
                known
                    .map(|(qualifier, field)| match qualifier {
                        Some(of) => format!("{}.{}", of.table(), field.name()),
                        None => field.name().clone(),
                    })
                    .collect()
            }
        };
        let names = scope.columns(one);
        let mut found = self.say("unknown-column", format!("no column \"{name}\"{of}"), self.places.span(at), "not found");
        found = found.did_you_mean(name, names.iter().map(String::as_str));
        if !all.is_empty() {
            found = found.help(format!("columns are: {}", listed(&all)));
        }
        match names.iter().find(|known| known.eq_ignore_ascii_case(name) && *known != name) {
            Some(exact) => found.help(format!("names with capitals need double quotes in SQL: \"{exact}\"")),
            None => found,
        }
    }

    fn ambiguous(&self, at: Extent, name: &str, scope: &Scope) -> Diagnostic {
        let written: Vec<String> =
            scope.named(name).into_iter().flatten().map(|qualifier| format!("{}.{}", qualifier.table(), quoted(name))).collect();
        let found = self.say("ambiguous-column", format!("\"{name}\" is a column of several tables"), self.places.span(at), "which one?");
        match written.as_slice() {
            [first @ .., last] if !first.is_empty() => found.help(format!("write {} or {last}", first.join(", "))),
            _ => found,
        }
    }

    /// A table that is not among those read here.
    pub fn unknown_qualifier(&self, at: Extent, table: &str, column: Option<&str>, scope: &Scope) -> Diagnostic {
        let known = scope.qualifiers();
        let found = self.say("unknown-qualifier", format!("no table is called \"{table}\" here"), self.places.span(at), "not found");
        if let Some(alias) = scope.renamed.get(table) {
            return found.help(format!("\"{table}\" is called \"{alias}\" in this query"));
        }
        // Any letter is near to any other.
        let near = known.iter().map(String::as_str).filter(|known| known.len() > 1 && table.len() > 1);
        let found = found.did_you_mean(table, near);
        let found = match known.len() {
            0 => found.help("this query reads no table"),
            _ => found.help(format!("tables here are: {}", listed(&known))),
        };
        let holds: Vec<String> = column
            .map(|column| scope.named(column).into_iter().flatten().map(|of| format!("{}.{}", of.table(), quoted(column))).collect())
            .unwrap_or_default();
        match holds.as_slice() {
            [] => found,
            _ => found.help(format!("there is {}", holds.join(" and "))),
        }
    }

    pub fn unknown_table(&self, at: Extent, table: &str) -> Diagnostic {
        self.say("unknown-table", format!("there is no table \"{table}\""), self.places.span(at), "not found")
    }

    pub fn unknown_function(&self, at: Extent, name: &str, names: &Names<'_>) -> Diagnostic {
        let known = names.functions();
        self.say("unknown-function", format!("no function \"{name}\""), self.places.span(at), "not found")
            .did_you_mean(name, known.iter().map(String::as_str))
    }

    fn unknown_type(&self, expr: &Expr, written: &str) -> Diagnostic {
        let extent = self.places.cast_type(expr);
        let span = extent.map_or_else(|| self.places.of(expr), |extent| self.places.span(extent));
        let text = extent.map_or_else(|| written.to_lowercase(), |extent| self.places.text(extent));
        let asked = SqlText { text: text.clone(), file: self.text.file.clone(), span: span.clone() };
        let told = asked.check_type().err().and_then(|mut found| found.pop());
        told.unwrap_or_else(|| {
            self.say("unknown-type", format!("\"{text}\" is not supported as a type"), span, "not a type here")
                .help("types are: boolean, smallint, int, bigint, real, double, text, date, time, timestamp, decimal(precision, scale)")
        })
    }

    fn operator(&self, expr: &Expr, op: &BinaryOperator, left: (&Expr, &DataType), right: (&Expr, &DataType)) -> Diagnostic {
        let (one, other) = (sql_name(left.1), sql_name(right.1));
        let word = op.to_string().to_lowercase();
        let compares = ["=", "<>", "!=", "<", ">", "<=", ">="].contains(&word.as_str());
        let text = match compares {
            true => format!("{one} and {other} cannot be compared"),
            false => format!("\"{word}\" does not take {one} and {other}"),
        };
        let found = self.say("wrong-type", text, self.places.of(expr), format!("{one} {word} {other}"));
        let is_day = |of: &DataType| matches!(of, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
        let is_text = |of: &DataType| matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let cast = |of: &Expr, to: &DataType| format!("say what the text holds: cast({} as {})", self.places.written(of), sql_name(to));
        match () {
            () if ["+", "-"].contains(&word.as_str()) && is_day(left.1) && right.1.is_numeric() => {
                found.help(format!("write \"{word} interval '1 day'\" for a day"))
            }
            () if is_text(left.1) && !is_text(right.1) && !is_day(right.1) => found.help(cast(left.0, right.1)),
            () if is_text(right.1) && !is_text(left.1) && !is_day(left.1) => found.help(cast(right.0, left.1)),
            () => found.help("bring one of them to the other's type with \"cast\""),
        }
    }

    /// A condition that is neither true nor false.
    pub fn not_boolean(&self, expr: &Expr, kind: &DataType, clause: &str) -> Diagnostic {
        let what = match clause {
            "filter" => "the filter".to_owned(),
            "and" => "this side of a condition".to_owned(),
            clause => format!("what stands behind \"{clause}\""),
        };
        let found = self.say(
            "not-boolean",
            format!("{what} is of type {}, not boolean", sql_name(kind)),
            self.places.of(expr),
            "must be true or false for each row",
        );
        let written = self.places.written(expr);
        match kind.is_numeric() && written.len() <= 40 {
            true => found.help(format!("compare it: {written} > 0, or {written} is not null")),
            false => found.help("compare it with something"),
        }
    }

    fn unlike(&self, expr: &Expr, one: &DataType, other: &DataType) -> Diagnostic {
        let message = format!("{} and {} are never alike", sql_name(one), sql_name(other));
        self.say("unlike-types", message, self.places.of(expr), format!("{} beside {}", sql_name(one), sql_name(other)))
            .help("a day is written date '2013-12-31'; its parts are asked with for instance extract(year from day)")
    }

    fn doubtful(&self, expr: &Expr, one: &DataType, other: &DataType) -> Diagnostic {
        let (one, other) = (sql_name(one), sql_name(other));
        let message = "a text compared with a number ends the run at the first text that is no number";
        Diagnostic::warning("text-beside-number", message)
            .at(&self.text.file, self.places.of(expr), format!("{one} beside {other}"))
            .help("compare texts: write the number in quotes; or numbers: write try_cast(… as bigint), null where it is none")
    }

    fn columns(&self, expr: &Expr, columns: usize) -> Diagnostic {
        let mut body = None;
        parts(&mut expr.clone(), &mut |part| {
            if let Part::Query(query) = part {
                body.get_or_insert_with(|| query.body.clone());
            }
        });
        match (body, expr) {
            (Some(body), _) => self.columns_at(&body, Some(columns)),
            (None, Expr::Subquery(query)) => self.columns_at(&query.body, Some(columns)),
            _ => self.say("subquery-columns", "a subquery used as a value has several columns", self.places.of(expr), ""),
        }
    }

    fn columns_at(&self, body: &SetExpr, columns: Option<usize>) -> Diagnostic {
        let listed = match body {
            SetExpr::Select(select) if select.projection.iter().all(is_one) => Some(select.projection.len()),
            _ => None,
        };
        let columns = columns.or(listed).map_or_else(|| "several columns".to_owned(), |columns| format!("{columns} columns"));
        self.say(
            "subquery-columns",
            format!("a subquery used as a value has one column, and this one has {columns}"),
            self.places.span(self.places.select_list(body)),
            columns,
        )
        .help("select the one column that is meant")
    }

    fn not_grouped(&self, expr: &Expr) -> Diagnostic {
        let written = self.places.written(expr);
        let found = self.say(
            "missing-group-by",
            format!("\"{written}\" is neither grouped nor aggregated"),
            self.places.of(expr),
            "which of the group's values?",
        );
        found.help(format!("add {written} to \"group by\", or aggregate it: max({written})"))
    }

    pub fn wildcard_not_grouped(&self, at: Extent, groups: &[Expr]) -> Diagnostic {
        let groups: Vec<String> = groups.iter().map(|group| self.places.written(group)).collect();
        let found = self.say(
            "missing-group-by",
            "\"*\" takes columns that are neither grouped nor aggregated",
            self.places.span(at),
            "which of the group's values?",
        );
        match groups.is_empty() {
            true => found.help("name the columns, and add \"group by\" with those that are not aggregated"),
            false => found.help(format!("name the columns in its place: {}", groups.join(", "))),
        }
    }

    pub fn having_alone(&self, expr: &Expr) -> Diagnostic {
        self.say("missing-group-by", "\"having\" asks of groups, and there are none", self.places.of(expr), "of each row")
            .help("write the condition with \"where\", or add \"group by\"")
    }

    fn constant(&self, expr: &Expr, error: &DataFusionError, scope: &Scope, judge: &Judge<'_>) -> Diagnostic {
        match expr {
            Expr::TypedString(typed) => {
                return self.unfit(&typed.value.value, typed.value.span, &typed.data_type.to_string().to_lowercase());
            }
            Expr::Cast { expr: inner, data_type, .. } => {
                if let Expr::Value(value) = inner.as_ref() {
                    return self.unfit(&value.value, value.span, &data_type.to_string().to_lowercase());
                }
            }
            _ => {}
        }
        // A text that is compared takes the type of what it is compared with.
        let (mut texts, mut kinds) = (Vec::new(), Vec::new());
        parts(&mut expr.clone(), &mut |part| {
            if let Part::Expr(part) = part {
                match &*part {
                    Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)) => texts.push(value.clone()),
                    part => kinds.extend(judge.typed(part, scope, Rule::Any).map(|(_, kind)| kind)),
                }
            }
        });
        for text in &texts {
            let Value::SingleQuotedString(written) = &text.value else { continue };
            for kind in &kinds {
                if ScalarValue::from(written.as_str()).cast_to(kind).is_err() {
                    return self.unfit(&text.value, text.span, &sql_name(kind));
                }
            }
        }
        self.say("wrong-literal", message(error), self.places.of(expr), "has no value")
    }

    /// A literal that is no value of its type.
    fn unfit(&self, value: &Value, at: Extent, kind: &str) -> Diagnostic {
        let found = self.say("wrong-literal", format!("{value} is no {kind}"), self.places.span(at), format!("not a {kind}"));
        match kind {
            "date" => found.help("a day is written '2013-12-31'"),
            kind if kind.starts_with("timestamp") => found.help("a moment is written '2013-12-31T23:59:59'"),
            kind if kind.starts_with("time") => found.help("a time of day is written '23:59:59'"),
            "boolean" => found.help("write true or false"),
            _ => found,
        }
    }

    /// A position that the select list does not have.
    pub fn unknown_position(&self, at: Extent, position: usize, columns: usize, clause: &str) -> Diagnostic {
        let many = if columns == 1 { "1 column".to_owned() } else { format!("{columns} columns") };
        let message = format!("\"{clause}\" names column {position} of the select list, which has {many}");
        self.say("unknown-position", message, self.places.span(at), "not in the select list").help("name the column")
    }

    pub fn uneven_rows(&self, at: Extent, has: usize, had: usize) -> Diagnostic {
        let many = |values: usize| if values == 1 { "1 value".to_owned() } else { format!("{values} values") };
        self.say("uneven-rows", format!("a row of {} follows one of {had}", many(has)), self.places.span(at), many(has))
            .help(format!("give each row {}; for one that is not known, write null", many(had)))
    }

    pub fn uneven_union(&self, word: &str, left: (&SetExpr, usize), right: (&SetExpr, usize)) -> Diagnostic {
        let many = |columns: usize| if columns == 1 { "1 column".to_owned() } else { format!("{columns} columns") };
        let message = format!("the sides of \"{word}\" have {} and {}", many(left.1), many(right.1));
        self.say("uneven-union", message, self.places.span(self.places.select_list(right.0)), many(right.1))
            .at(&self.text.file, self.places.span(self.places.select_list(left.0)), many(left.1))
            .help("select as many on both sides; for a column that one side lacks, write null")
    }

    pub fn unlike_union(&self, word: &str, column: usize, left: (&SetExpr, &DataType), right: (&SetExpr, &DataType)) -> Diagnostic {
        let (one, other) = (sql_name(left.1), sql_name(right.1));
        let message = format!("column {} is {one} on one side of \"{word}\" and {other} on the other", column + 1);
        self.say("wrong-type", message, self.item_at(right.0, column), other)
            .at(&self.text.file, self.item_at(left.0, column), one)
            .help("bring one of them to the other's type with \"cast\"")
    }

    fn item_at(&self, side: &SetExpr, column: usize) -> Span {
        match side {
            SetExpr::Select(select) => match select.projection.get(column) {
                Some(item) if select.projection.iter().all(is_one) => self.places.span(self.item(item)),
                _ => self.places.span(self.places.select_list(side)),
            },
            _ => self.places.span(self.places.select_list(side)),
        }
    }

    fn item(&self, item: &SelectItem) -> Extent {
        match item {
            SelectItem::UnnamedExpr(expr) => self.places.extent(expr),
            SelectItem::ExprWithAlias { expr, alias } => union(self.places.extent(expr), alias.span),
            item => item.span(),
        }
    }

    /// Two columns of a select list with one name.
    pub fn duplicate(&self, name: &str, first: &SelectItem, second: &SelectItem, same: bool) -> Diagnostic {
        let message = format!("two columns of the result are called \"{name}\"");
        let found = Diagnostic::error("duplicate-column", message);
        if same {
            return found
                .at(&self.text.file, self.places.span(self.item(second)), "brings both")
                .help("name the columns that are wanted, each with a name of its own: r.id as row_id");
        }
        let written = match second {
            SelectItem::UnnamedExpr(expr) => Some(self.places.written(expr)),
            SelectItem::ExprWithAlias { .. } => Some("it".to_owned()),
            _ => None,
        };
        let found = found.at(&self.text.file, self.places.span(self.item(second)), "second").at(
            &self.text.file,
            self.places.span(self.item(first)),
            "first",
        );
        match written.filter(|written| written.len() <= 40) {
            Some(it) if it == "it" => found.help("give one of them another name"),
            Some(written) => found.help(format!("give one of them another name: {written} as other_{}", plain(name))),
            None => found.help("name the columns that are wanted in place of \"*\""),
        }
    }
}

fn is_one(item: &SelectItem) -> bool {
    matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
}

/// A name made of what needs no quotes.
fn plain(name: &str) -> String {
    let kept: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    if kept.is_empty() { "column".to_owned() } else { kept.to_lowercase() }
}

fn quoted(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if bare { name.to_owned() } else { weir_connectors::quote::identifier(name) }
}

/// A type as SQL calls it.
pub fn sql_name(of: &DataType) -> String {
    match of {
        DataType::Null => "null".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 => "tinyint".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::UInt8 => "tinyint unsigned".to_owned(),
        DataType::UInt16 => "smallint unsigned".to_owned(),
        DataType::UInt32 => "int unsigned".to_owned(),
        DataType::UInt64 => "bigint unsigned".to_owned(),
        DataType::Float16 | DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
            format!("{}[]", sql_name(inner.data_type()))
        }
        DataType::Struct(_) => "struct".to_owned(),
        DataType::Dictionary(_, values) => sql_name(values),
        other => other.to_string().to_lowercase(),
    }
}
