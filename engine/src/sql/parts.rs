//! What is a query made of? Its expressions' direct parts, to be judged one by one, and queries made anew around one part.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{
        BinaryOperator, Expr, Function, NamedWindowDefinition, NamedWindowExpr, Query, Select, Statement, Value, VisitMut, VisitorMut,
        WindowType,
    },
    dialect::GenericDialect,
    parser::Parser,
};

use super::scope::{Scope, normal};

/// A direct part of an expression.
pub enum Part<'q> {
    Expr(&'q mut Expr),
    Query(&'q mut Query),
}

/// The null that takes the place of what is wrong.
pub fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

/// A query to be filled in.
pub fn template(sql: &str) -> Query {
    let parsed = Parser::parse_sql(&GenericDialect {}, sql).ok().and_then(|mut statements| statements.pop());
    match parsed {
        Some(Statement::Query(query)) => *query,
        _ => unreachable!("templates are queries"),
    }
}

/// Does something with each direct part of an expression.
pub fn parts(expr: &mut Expr, each: &mut dyn FnMut(Part<'_>)) {
    let mut parts = Parts { depth: 0, queries: 0, each };
    let _: ControlFlow<()> = VisitMut::visit(expr, &mut parts);
}

struct Parts<'e> {
    depth: usize,
    queries: usize,
    each: &'e mut dyn FnMut(Part<'_>),
}

impl VisitorMut for Parts<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 1 && self.queries == 0 {
            (self.each)(Part::Expr(expr));
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if self.depth == 1 && self.queries == 0 {
            (self.each)(Part::Query(query));
        }
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }
}

/// What a chain of `and` or of `or` joins; none for another expression.
pub fn operands(expr: &mut Expr) -> Option<Vec<&mut Expr>> {
    let of = match expr {
        Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => op.clone(),
        _ => return None,
    };
    let mut found = Vec::new();
    let mut left = expr;
    while matches!(left, Expr::BinaryOp { op, .. } if *op == of) {
        let Expr::BinaryOp { left: before, right, .. } = left else { return None };
        found.push(right.as_mut());
        left = before;
    }
    found.push(left);
    found.reverse();
    Some(found)
}

/// Puts the windows that a select names in the place of their names.
pub fn name_windows(select: &mut Select) {
    let mut windows = Windows { named: std::mem::take(&mut select.named_window) };
    if !windows.named.is_empty() {
        let _ = VisitMut::visit(select, &mut windows);
    }
    select.named_window = windows.named;
}

struct Windows {
    named: Vec<NamedWindowDefinition>,
}

impl VisitorMut for Windows {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(Function { over: Some(over), .. }) = expr
            && let WindowType::NamedWindow(name) = over
            && let Some(NamedWindowDefinition(_, NamedWindowExpr::WindowSpec(spec))) =
                self.named.iter().find(|NamedWindowDefinition(known, _)| normal(known) == normal(name))
        {
            *over = WindowType::WindowSpec(spec.clone());
        }
        ControlFlow::Continue(())
    }
}

/// Puts what a select list names in the place of its name, where no column is called so.
pub struct Aliased<'s> {
    pub scope: &'s Scope,
    pub aliases: &'s [(String, Expr)],
    pub queries: usize,
}

impl VisitorMut for Aliased<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.queries == 0
            && let Expr::Identifier(ident) = &*expr
            && self.scope.named(&normal(ident)).is_empty()
            && let Some((_, meant)) = self.aliases.iter().find(|(name, _)| *name == normal(ident))
        {
            *expr = meant.clone();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }
}
