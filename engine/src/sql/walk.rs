//! What is wrong with a query, all of it? Each part is judged where it stands: `with` queries in their order, what is read, conditions, the
//! select list, groups and orders. The smallest part that does not hold is told, and null takes its place, so that what follows can be judged.

use std::collections::HashSet;

use datafusion::{
    common::TableReference,
    logical_expr::{LogicalPlan, planner::ContextProvider, utils::find_aggregate_exprs},
    sql::{
        planner::PlannerContext,
        sqlparser::ast::{
            Distinct, Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, LimitClause, ObjectName, OrderBy, OrderByKind, Query, Select,
            SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Spanned, Statement, TableFactor, TableWithJoins, Value, VisitMut, With,
        },
    },
};
use weir_pipelines::Diagnostics;

use super::{
    parts::{Aliased, Part, name_windows, null, operands, parts, template},
    scope::{Fault, Judge, Rule, Scope, normal},
    words::Words,
};

/// A walk over one SQL text.
pub struct Walk<'a> {
    judge: &'a Judge<'a>,
    words: &'a Words<'a>,
    /// What was found.
    pub found: Diagnostics,
    /// Names of `with` whose queries could not be planned.
    broken: HashSet<String>,
}

type Judged<'j> = &'j dyn Fn(&Expr) -> Result<(), Fault>;

impl<'a> Walk<'a> {
    pub fn new(judge: &'a Judge<'a>, words: &'a Words<'a>) -> Self {
        Self { judge, words, found: Vec::new(), broken: HashSet::new() }
    }

    /// A query in the scope of those around it. Wrong parts are replaced.
    pub fn query(&mut self, query: &mut Query, outer: &PlannerContext) {
        let context = self.with(query.with.as_mut(), outer);
        self.body(&mut query.body, query.order_by.as_mut(), &context);
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            let scope = Scope::empty(&context);
            for expr in limit.iter_mut().chain(offset.iter_mut().map(|offset| &mut offset.value)) {
                self.expression(expr, &scope, Rule::Rows);
            }
        }
    }

    /// The queries of a `with`, and what can be named behind it.
    fn with(&mut self, with: Option<&mut With>, outer: &PlannerContext) -> PlannerContext {
        let mut context = outer.clone();
        let Some(with) = with else { return context };
        for cte in &mut with.cte_tables {
            if !with.recursive {
                self.query(&mut cte.query, &context);
            }
            let name = normal(&cte.alias.name);
            let mut whole = template("select * from t");
            if let SetExpr::Select(select) = whole.body.as_mut()
                && let Some(TableFactor::Table { name, .. }) = select.from.first_mut().map(|from| &mut from.relation)
            {
                *name = ObjectName::from(vec![cte.alias.name.clone()]);
            }
            whole.with = Some(With { with_token: with.with_token.clone(), recursive: with.recursive, cte_tables: vec![cte.clone()] });
            match self.judge.plan(&whole, &context) {
                Ok(plan) => {
                    self.broken.remove(&name);
                    context.insert_cte(name, plan);
                }
                Err(_) => {
                    self.broken.insert(name);
                }
            }
        }
        context
    }

    fn body(&mut self, body: &mut SetExpr, order: Option<&mut OrderBy>, context: &PlannerContext) {
        match body {
            SetExpr::Select(select) => self.select(select, order, context),
            SetExpr::Query(query) => self.query(query, context),
            SetExpr::SetOperation { .. } => self.sides(body, order, context),
            SetExpr::Values(values) => {
                let scope = Scope::empty(context);
                let width = values.rows.first().map_or(0, |row| row.content.len());
                for row in &mut values.rows {
                    if row.content.len() != width {
                        let extent = row.opening_token.0.span.union(&row.closing_token.0.span);
                        self.found.push(self.words.uneven_rows(extent, row.content.len(), width));
                    }
                    for expr in &mut row.content {
                        self.expression(expr, &scope, Rule::Rows);
                    }
                }
            }
            _ => {}
        }
    }

    /// The sides of `union` and its like: each by itself, then how many columns they have.
    fn sides(&mut self, body: &mut SetExpr, order: Option<&mut OrderBy>, context: &PlannerContext) {
        let (mut sides, mut words) = (Vec::new(), Vec::new());
        flat(body, &mut sides, &mut words);
        let mut first: Option<(LogicalPlan, SetExpr)> = None;
        for (at, side) in sides.into_iter().enumerate() {
            self.body(side, None, context);
            let mut whole = template("select 1");
            *whole.body = side.clone();
            let Ok(plan) = self.judge.plan(&whole, context) else { continue };
            let Some((before, left)) = &first else {
                first = Some((plan, side.clone()));
                continue;
            };
            let (had, has) = (before.schema().fields().len(), plan.schema().fields().len());
            let word = &words[at.saturating_sub(1)];
            if had != has {
                self.found.push(self.words.uneven_union(word, (left, had), (side, has)));
                continue;
            }
            for column in 0..had {
                let (one, other) = (before.schema().field(column).data_type(), plan.schema().field(column).data_type());
                if datafusion::logical_expr::type_coercion::binary::type_union_coercion(one, other).is_none() {
                    self.found.push(self.words.unlike_union(word, column, (left, one), (side, other)));
                }
            }
        }
        if let (Some((plan, _)), Some(order)) = (first, order) {
            let scope = Scope::of(plan.schema().as_ref().clone(), context);
            let columns = plan.schema().fields().len();
            self.order(order, &scope, &[], Some(columns));
        }
    }

    fn select(&mut self, select: &mut Select, order: Option<&mut OrderBy>, context: &PlannerContext) {
        let before = self.found.len();
        name_windows(select);
        for from in &mut select.from {
            for factor in std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation)) {
                self.factor(factor, context);
            }
        }
        if self.found[before..].iter().any(|found| found.code == "unknown-table") {
            return;
        }
        let Some(scope) = self.base(&select.from, context) else {
            self.using(select, context);
            return;
        };
        self.joins(select, &scope);
        if let Some(condition) = &mut select.selection {
            self.condition(condition, &scope, Rule::Rows, "where");
        }
        let mut plain = true;
        for item in &mut select.projection {
            plain &= self.item(item, &scope);
        }
        let aliases: Vec<(String, Expr)> = select
            .projection
            .iter()
            .filter_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } => Some((normal(alias), Expr::Nested(Box::new(expr.clone())))),
                _ => None,
            })
            .collect();
        let columns = plain.then_some(select.projection.len());
        if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
            for group in groups {
                if !self.position(group, columns, "group by") {
                    self.substituted(group, &scope, &aliases, Rule::Rows, None);
                }
            }
        }
        if let Some(having) = &mut select.having {
            self.substituted(having, &scope, &aliases, Rule::Any, Some("having"));
        }
        if let Some(qualify) = &mut select.qualify {
            self.substituted(qualify, &scope, &aliases, Rule::Any, Some("qualify"));
        }
        if let Some(Distinct::On(exprs)) = &mut select.distinct {
            for expr in exprs {
                self.substituted(expr, &scope, &aliases, Rule::Any, None);
            }
        }
        if let Some(order) = order {
            let columns = columns.or_else(|| Some(self.alone(select, &scope.context).ok()?.schema().fields().len()));
            self.order(order, &scope, &aliases, columns);
        }
        if self.found.len() == before {
            self.groups(select, &scope, &aliases);
        }
        if self.found.len() == before && self.alone(select, &scope.context).is_err() {
            self.twice(select, &scope);
            if self.found.len() == before {
                self.whole(select, &scope);
            }
        }
    }

    /// A select's plan by itself, with its types.
    fn alone(&self, select: &Select, context: &PlannerContext) -> datafusion::error::Result<LogicalPlan> {
        let mut whole = template("select 1");
        *whole.body = SetExpr::Select(Box::new(select.clone()));
        self.judge.analyzed(&whole, context)
    }

    fn factor(&mut self, factor: &mut TableFactor, context: &PlannerContext) {
        match factor {
            TableFactor::Derived { lateral: false, subquery, .. } => self.query(subquery, context),
            TableFactor::NestedJoin { table_with_joins, .. } => {
                let TableWithJoins { relation, joins } = table_with_joins.as_mut();
                for factor in std::iter::once(relation).chain(joins.iter_mut().map(|join| &mut join.relation)) {
                    self.factor(factor, context);
                }
            }
            TableFactor::Table { name, args: None, .. } => {
                let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(normal).collect();
                let reference = match parts.as_slice() {
                    [table] => TableReference::bare(table.as_str()),
                    [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
                    [catalog, schema, table] => TableReference::full(catalog.as_str(), schema.as_str(), table.as_str()),
                    _ => return,
                };
                let known = parts.len() == 1 && (context.contains_cte(&parts[0]) || self.broken.contains(&parts[0]));
                if !known && self.judge.names.get_table_source(reference).is_err() {
                    self.found.push(self.words.unknown_table(name.span(), &parts.join(".")));
                }
            }
            _ => {}
        }
    }

    /// The scope of a select: the columns of what it reads.
    fn base(&self, from: &[TableWithJoins], context: &PlannerContext) -> Option<Scope> {
        if from.is_empty() {
            return Some(Scope::empty(context));
        }
        let mut from = from.to_vec();
        for join in from.iter_mut().flat_map(|from| &mut from.joins) {
            if let Some(JoinConstraint::On(condition)) = constraint(&mut join.join_operator) {
                *condition = Expr::Value(Value::Boolean(true).into());
            }
        }
        let renamed = from
            .iter()
            .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
            .filter_map(|factor| match factor {
                TableFactor::Table { name, alias: Some(alias), .. } => Some((name.0.last()?.as_ident().map(normal)?, normal(&alias.name))),
                _ => None,
            })
            .collect();
        let mut whole = template("select * from t");
        if let SetExpr::Select(select) = whole.body.as_mut() {
            select.from = from;
        }
        let plan = self.judge.plan(&whole, context).ok()?;
        let base = match &plan {
            LogicalPlan::Projection(projection) => projection.input.as_ref(),
            plan => plan,
        };
        let using = base.using_columns().ok()?;
        Some(Scope { schema: base.schema().clone(), using, context: context.clone(), renamed })
    }

    /// Columns of `using` that one side does not have.
    fn using(&mut self, select: &Select, context: &PlannerContext) {
        for from in &select.from {
            for at in 0..from.joins.len() {
                let mut operator = from.joins[at].join_operator.clone();
                let Some(JoinConstraint::Using(columns)) = constraint(&mut operator) else { continue };
                let left = TableWithJoins { relation: from.relation.clone(), joins: from.joins[..at].to_vec() };
                let right = TableWithJoins { relation: from.joins[at].relation.clone(), joins: vec![] };
                for side in [left, right] {
                    let Some(scope) = self.base(&[side], context) else { continue };
                    for column in columns.iter() {
                        let Some(ident) = column.0.last().and_then(|part| part.as_ident()) else { continue };
                        if scope.named(&normal(ident)).is_empty() {
                            self.found.push(self.words.unknown_column(ident.span, &normal(ident), &scope));
                        }
                    }
                }
            }
        }
    }

    fn joins(&mut self, select: &mut Select, scope: &Scope) {
        for table in 0..select.from.len() {
            for join in 0..select.from[table].joins.len() {
                let Some(JoinConstraint::On(condition)) = constraint(&mut select.from[table].joins[join].join_operator) else { continue };
                let mut condition = condition.clone();
                if self.judge.typed(&condition, scope, Rule::Rows).is_ok_and(|(_, kind)| is_boolean(&kind)) {
                    continue;
                }
                // A name may be of one table here and of several further on.
                let mut part = select.from[table].clone();
                part.joins.truncate(join + 1);
                // Both sides of a join that keeps one can be named in its condition.
                part.joins[join].join_operator = JoinOperator::Inner(JoinConstraint::On(condition.clone()));
                let Some(scope) = self.base(&[part], &scope.context) else { continue };
                self.condition(&mut condition, &scope, Rule::Rows, "on");
                if let Some(JoinConstraint::On(written)) = constraint(&mut select.from[table].joins[join].join_operator) {
                    *written = condition;
                }
            }
        }
    }

    /// One item of a select list; whether it is one column.
    fn item(&mut self, item: &mut SelectItem, scope: &Scope) -> bool {
        match item {
            SelectItem::ExprWithAlias { expr, .. } => {
                self.expression(expr, scope, Rule::Any);
            }
            SelectItem::UnnamedExpr(expr) => {
                let name = match &*expr {
                    Expr::Identifier(ident) => Some(ident.clone()),
                    Expr::CompoundIdentifier(idents) => idents.last().cloned(),
                    _ => None,
                };
                if self.expression(expr, scope, Rule::Any)
                    && let Some(alias) = name
                {
                    // What reads the select's columns finds the name all the same.
                    *item = SelectItem::ExprWithAlias { expr: null(), alias };
                }
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let table = name.0.last().and_then(|part| part.as_ident()).map(normal).unwrap_or_default();
                if !scope.schema.iter().any(|(qualifier, _)| qualifier.is_some_and(|of| of.table() == table)) {
                    self.found.push(self.words.unknown_qualifier(name.span(), &table, None, scope));
                    *item = SelectItem::UnnamedExpr(null());
                }
                return false;
            }
            SelectItem::Wildcard(options) => {
                let mut named: Vec<Ident> = Vec::new();
                if let Some(except) = &options.opt_except {
                    named.push(except.first_element.clone());
                    named.extend(except.additional_elements.iter().cloned());
                }
                let before = self.found.len();
                for ident in named {
                    if scope.named(&normal(&ident)).is_empty() {
                        self.found.push(self.words.unknown_column(ident.span, &normal(&ident), scope));
                    }
                }
                if self.found.len() > before {
                    options.opt_except = None;
                }
                for replaced in options.opt_replace.iter_mut().flat_map(|replace| &mut replace.items) {
                    self.expression(&mut replaced.expr, scope, Rule::Any);
                }
                return false;
            }
            _ => return false,
        }
        true
    }

    fn order(&mut self, order: &mut OrderBy, scope: &Scope, aliases: &[(String, Expr)], columns: Option<usize>) {
        let OrderByKind::Expressions(exprs) = &mut order.kind else { return };
        exprs.retain_mut(|by| {
            let before = self.found.len();
            if !self.position(&by.expr, columns, "order by") {
                self.substituted(&mut by.expr, scope, aliases, Rule::Any, None);
            }
            self.found.len() == before
        });
    }

    /// Whether an expression is the position of a column in the select list. One that is too high is told.
    fn position(&mut self, expr: &Expr, columns: Option<usize>, clause: &str) -> bool {
        let Expr::Value(value) = expr else { return false };
        let Value::Number(number, _) = &value.value else { return false };
        let Ok(at) = number.parse::<usize>() else { return false };
        if let Some(columns) = columns
            && (at == 0 || at > columns)
        {
            self.found.push(self.words.unknown_position(value.span, at, columns, clause));
        }
        true
    }

    /// An expression that may use the names that the select list gives.
    fn substituted(&mut self, expr: &mut Expr, scope: &Scope, aliases: &[(String, Expr)], rule: Rule, condition: Option<&str>) {
        let mut full = expr.clone();
        let mut aliased = Aliased { scope, aliases, queries: 0 };
        let _ = VisitMut::visit(&mut full, &mut aliased);
        let before = self.found.len();
        match condition {
            Some(clause) => self.condition(&mut full, scope, rule, clause),
            None => {
                self.expression(&mut full, scope, rule);
            }
        }
        if self.found.len() > before {
            *expr = null();
        }
    }

    /// An expression that must be true or false.
    pub fn condition(&mut self, expr: &mut Expr, scope: &Scope, rule: Rule, clause: &str) {
        if self.expression(expr, scope, rule) {
            return;
        }
        if let Ok((_, kind)) = self.judge.typed(expr, scope, rule)
            && !is_boolean(&kind)
        {
            self.found.push(self.words.not_boolean(expr, &kind, clause));
            *expr = null();
        }
    }

    /// Tells what is wrong with an expression, the smallest part that is; whether something is.
    pub fn expression(&mut self, expr: &mut Expr, scope: &Scope, rule: Rule) -> bool {
        let judge = self.judge;
        let before = self.found.len();
        self.blame(expr, scope, &|part| judge.typed(part, scope, rule).map(|_| ()));
        self.found.len() > before
    }

    fn blame(&mut self, expr: &mut Expr, scope: &Scope, judged: Judged<'_>) {
        let alone = match expr {
            Expr::Lambda(_) => return,
            Expr::Tuple(_) | Expr::Named { .. } | Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => false,
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => false,
            _ => true,
        };
        if alone && judged(expr).is_ok() {
            return;
        }
        let before = self.found.len();
        if let Some(sides) = operands(expr) {
            for side in sides {
                self.blame(side, scope, judged);
                if let Ok((_, kind)) = self.judge.typed(side, scope, Rule::Any)
                    && !is_boolean(&kind)
                {
                    self.found.push(self.words.fault(side, &Fault::NotBoolean(kind), scope, self.judge));
                    *side = null();
                }
            }
        } else {
            parts(expr, &mut |part| match part {
                Part::Expr(part) => self.blame(part, scope, judged),
                Part::Query(query) => {
                    let mut inner = scope.context.clone();
                    inner.append_outer_query_schema(scope.schema.clone());
                    self.query(query, &inner);
                }
            });
        }
        if !alone {
            return;
        }
        let Err(fault) = judged(expr) else { return };
        if self.found.len() == before {
            self.found.push(self.words.fault(expr, &fault, scope, self.judge));
        }
        *expr = null();
    }

    /// Columns that are neither grouped nor aggregated.
    fn groups(&mut self, select: &mut Select, scope: &Scope, aliases: &[(String, Expr)]) {
        let grouped = match &select.group_by {
            GroupByExpr::Expressions(groups, _) => !groups.is_empty(),
            GroupByExpr::All(_) => return,
        };
        let judge = self.judge;
        let aggregates =
            |expr: &Expr| judge.typed(expr, scope, Rule::Any).is_ok_and(|(planned, _)| !find_aggregate_exprs([&planned]).is_empty());
        let expressions = select.projection.iter().filter_map(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        let aggregated = expressions.chain(select.having.iter()).any(aggregates);
        if !grouped && !aggregated {
            if let Some(having) = &mut select.having {
                self.found.push(self.words.having_alone(having));
            }
            return;
        }
        let mut one = template("select count(*) as __weir_count, 1 as __weir_value from t");
        let SetExpr::Select(frame) = one.body.as_mut() else { return };
        frame.from.clone_from(&select.from);
        frame.group_by = select.group_by.clone();
        // Names and positions of the select list mean nothing without it.
        if let GroupByExpr::Expressions(groups, _) = &mut frame.group_by {
            for group in groups {
                if let Expr::Value(value) = &*group
                    && let Value::Number(number, _) = &value.value
                    && let Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
                        number.parse::<usize>().ok().and_then(|at| select.projection.get(at.checked_sub(1)?))
                {
                    *group = expr.clone();
                }
                let mut aliased = Aliased { scope, aliases, queries: 0 };
                let _ = VisitMut::visit(group, &mut aliased);
            }
        }
        let written = match &select.group_by {
            GroupByExpr::Expressions(groups, _) => groups.clone(),
            GroupByExpr::All(_) => vec![],
        };
        let holds = |item: SelectItem| {
            let mut whole = one.clone();
            if let SetExpr::Select(select) = whole.body.as_mut() {
                select.projection[1] = item;
            }
            judge.plan(&whole, &scope.context)
        };
        let judged = |expr: &Expr| {
            let alias = Ident::new("__weir_value");
            holds(SelectItem::ExprWithAlias { expr: expr.clone(), alias }).map(|_| ()).map_err(|_| Fault::NotGrouped)
        };
        let words = self.words;
        for item in &mut select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => self.blame(expr, scope, &judged),
                SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) if holds(item.clone()).is_err() => {
                    self.found.push(words.wildcard_not_grouped(item.span(), &written));
                }
                _ => {}
            }
        }
        if let Some(having) = &mut select.having {
            let mut aliased = Aliased { scope, aliases, queries: 0 };
            let mut full = having.clone();
            let _ = VisitMut::visit(&mut full, &mut aliased);
            self.blame(&mut full, scope, &judged);
        }
    }

    /// Two columns of one name, where DataFusion allows none.
    fn twice(&mut self, select: &Select, scope: &Scope) {
        let found = self.duplicates(select, scope);
        if let Some(found) = found {
            self.found.push(found);
        }
    }

    /// What says that two columns of a select have one name, when they have.
    fn duplicates(&self, select: &Select, scope: &Scope) -> Option<weir_pipelines::Diagnostic> {
        let mut seen: Vec<(String, usize)> = Vec::new();
        for (at, item) in select.projection.iter().enumerate() {
            let mut one = select.clone();
            one.projection = vec![item.clone()];
            one.having = None;
            one.qualify = None;
            one.distinct = None;
            let mut whole = template("select 1");
            *whole.body = SetExpr::Select(Box::new(one));
            let Ok(plan) = self.judge.plan(&whole, &scope.context) else { continue };
            for field in plan.schema().fields() {
                if let Some((_, first)) = seen.iter().find(|(name, _)| name == field.name()) {
                    return Some(self.words.duplicate(field.name(), &select.projection[*first], item, *first == at));
                }
                seen.push((field.name().clone(), at));
            }
        }
        None
    }

    /// What says that two columns of a query's outcome have one name, when they have.
    pub fn duplicate_outcome(&mut self, query: &mut Query, context: &PlannerContext) {
        let mut context = context.clone();
        let mut body = query.body.as_mut();
        if query.with.is_some() {
            // Plans the names of `with`; what is wrong there is told elsewhere.
            let mut silent = Walk::new(self.judge, self.words);
            context = silent.with(query.with.as_mut(), &context);
            body = query.body.as_mut();
        }
        loop {
            body = match body {
                SetExpr::SetOperation { left, .. } => left.as_mut(),
                SetExpr::Query(query) => query.body.as_mut(),
                SetExpr::Select(select) => {
                    if let Some(scope) = self.base(&select.from, &context) {
                        self.twice(select, &scope);
                    }
                    return;
                }
                _ => return,
            }
        }
    }

    /// Parts that hold by themselves and not in the query, whatever DataFusion has against them.
    fn whole(&mut self, select: &mut Select, scope: &Scope) {
        let judge = self.judge;
        let mut frame = template("select 1");
        *frame.body = SetExpr::Select(Box::new(Select {
            projection: vec![],
            selection: None,
            having: None,
            qualify: None,
            distinct: None,
            group_by: GroupByExpr::Expressions(vec![], vec![]),
            ..select.clone()
        }));
        let judged = |expr: &Expr| {
            let mut whole = frame.clone();
            if let SetExpr::Select(select) = whole.body.as_mut() {
                select.projection = vec![SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new("__weir_value") }];
            }
            judge.analyzed(&whole, &scope.context).map(|_| ()).map_err(Fault::Whole)
        };
        if judged(&null()).is_err() {
            return;
        }
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                self.blame(expr, scope, &judged);
            }
        }
        if let Some(condition) = &mut select.selection {
            self.blame(condition, scope, &judged);
        }
    }
}

/// A query's tables that it names, for who must fetch them.
pub fn parse(state: &datafusion::execution::SessionState, text: &str) -> Option<(datafusion::sql::parser::Statement, Query)> {
    let dialect = state.config_options().sql_parser.dialect;
    let statement = state.sql_to_statement(text, &dialect).ok()?;
    let datafusion::sql::parser::Statement::Statement(inner) = &statement else { return None };
    let Statement::Query(query) = inner.as_ref() else { return None };
    let query = query.as_ref().clone();
    Some((statement, query))
}

fn is_boolean(of: &arrow::datatypes::DataType) -> bool {
    matches!(of, arrow::datatypes::DataType::Boolean | arrow::datatypes::DataType::Null)
}

/// The sides of a chain of `union` and its like, and the words between them.
fn flat<'b>(body: &'b mut SetExpr, sides: &mut Vec<&'b mut SetExpr>, words: &mut Vec<String>) {
    match body {
        SetExpr::SetOperation { left, op, set_quantifier, right } => {
            flat(left, sides, words);
            words.push(format!("{op} {set_quantifier}").trim().to_lowercase());
            flat(right, sides, words);
        }
        side => sides.push(side),
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(on)
        | JoinOperator::Inner(on)
        | JoinOperator::Left(on)
        | JoinOperator::LeftOuter(on)
        | JoinOperator::Right(on)
        | JoinOperator::RightOuter(on)
        | JoinOperator::FullOuter(on)
        | JoinOperator::CrossJoin(on)
        | JoinOperator::Semi(on)
        | JoinOperator::LeftSemi(on)
        | JoinOperator::RightSemi(on)
        | JoinOperator::Anti(on)
        | JoinOperator::LeftAnti(on)
        | JoinOperator::RightAnti(on)
        | JoinOperator::StraightJoin(on) => Some(on),
        _ => None,
    }
}
