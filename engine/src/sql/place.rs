//! Where in the SQL does an expression stand? Its tree knows the places of its names and values; the tokens around them say where a call,
//! a cast or a parenthesis begins and ends.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{CastKind, Expr, Ident, Query, SelectItem, SetExpr, Spanned, Visit, Visitor},
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Location, Span as Extent, Token, TokenWithSpan, Tokenizer},
};
use weir_pipelines::{Span, SqlText};

/// The tokens of a text, without spaces and comments.
pub struct Places<'a> {
    text: &'a SqlText,
    tokens: Vec<TokenWithSpan>,
}

impl<'a> Places<'a> {
    /// Reads a text's tokens; none where it cannot be read.
    pub fn new(text: &'a SqlText) -> Self {
        let tokens = Tokenizer::new(&GenericDialect {}, &text.text).tokenize_with_location().unwrap_or_default();
        let tokens = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)).collect();
        Self { text, tokens }
    }

    /// The place in the file of an extent; the whole string where it is empty.
    pub fn span(&self, extent: Extent) -> Span {
        match extent.start.line {
            0 => self.text.span.clone(),
            _ => self.text.span_of_line_column(extent.start.line, extent.start.column, Some((extent.end.line, extent.end.column))),
        }
    }

    /// The place in the file of an expression.
    pub fn of(&self, expr: &Expr) -> Span {
        self.span(self.extent(expr))
    }

    /// The words of an expression as they were written.
    pub fn written(&self, expr: &Expr) -> String {
        let extent = self.extent(expr);
        let inside = self.tokens.iter().filter(|token| token.span.start >= extent.start && token.span.end <= extent.end);
        inside.map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ").replace(" . ", ".")
    }

    /// Where an expression begins and ends; empty where nothing of it has a place.
    pub fn extent(&self, expr: &Expr) -> Extent {
        match expr {
            Expr::BinaryOp { left, right, .. } => union(self.extent(left), self.extent(right)),
            Expr::Nested(inner) => self.in_parentheses(self.extent(inner)),
            Expr::Function(function) => self.called(function.name.span()),
            Expr::Cast { kind: CastKind::DoubleColon, expr: inner, .. } => {
                let inner = self.extent(inner);
                union(inner, self.type_after(inner).unwrap_or(inner))
            }
            Expr::Cast { .. }
            | Expr::Convert { .. }
            | Expr::Extract { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Overlay { .. } => self.call_around(self.children(expr)),
            Expr::Subquery(query) => self.in_parentheses(query_extent(query)),
            Expr::Exists { subquery, .. } => {
                let inside = self.in_parentheses(query_extent(subquery));
                self.with_word_before(inside)
            }
            Expr::InSubquery { expr, subquery, .. } => union(self.extent(expr), self.in_parentheses(query_extent(subquery))),
            Expr::InList { .. } => self.to_closing(self.children(expr)),
            Expr::UnaryOp { .. } => self.with_token_before(self.children(expr)),
            Expr::Interval(interval) => self.with_word_before(self.extent(&interval.value)),
            Expr::TypedString(typed) => typed.value.span,
            _ => union(expr.span(), self.children(expr)),
        }
    }

    /// The type in a cast, as it was written.
    pub fn cast_type(&self, expr: &Expr) -> Option<Extent> {
        let Expr::Cast { kind, expr: inner, .. } = expr else { return None };
        if matches!(kind, CastKind::DoubleColon) {
            let colons = self.type_after(self.extent(inner))?;
            let word = self.tokens.iter().find(|token| token.span.start > colons.start)?;
            return Some(Extent::new(word.span.start, colons.end));
        }
        let whole = self.extent(expr);
        let end = self.tokens.iter().position(|token| token.span.end == whole.end)?;
        let word = (0..end).rev().find(|at| is_word(&self.tokens[*at].token, Keyword::AS))?;
        (word + 1 < end).then(|| Extent::new(self.tokens[word + 1].span.start, self.tokens[end - 1].span.end))
    }

    /// The text of an extent.
    pub fn text(&self, extent: Extent) -> String {
        let span = self.span(extent);
        self.text.file.text.get(span).unwrap_or_default().to_owned()
    }

    /// The word before an expression's opening parenthesis: the name of a call with words of its own inside, as `extract(year from day)`.
    pub fn call_name(&self, expr: &Expr) -> Option<String> {
        let start = self.extent(expr).start;
        match &self.tokens.iter().find(|token| token.span.start == start)?.token {
            Token::Word(word) => Some(word.value.to_lowercase()),
            _ => None,
        }
    }

    /// The select list of a query's first select.
    pub fn select_list(&self, body: &SetExpr) -> Extent {
        match body {
            SetExpr::Select(select) => {
                let items = select.projection.iter().map(|item| match item {
                    SelectItem::UnnamedExpr(expr) => self.extent(expr),
                    SelectItem::ExprWithAlias { expr, alias } => union(self.extent(expr), alias.span),
                    other => other.span(),
                });
                items.fold(Extent::empty(), union)
            }
            SetExpr::Query(query) => self.select_list(&query.body),
            SetExpr::SetOperation { left, .. } => self.select_list(left),
            other => other.span(),
        }
    }

    /// The item that makes a column in the select list of a query's first select.
    pub fn column(&self, body: &SetExpr, column: &str) -> Option<Span> {
        // Names without quotes are in lower case.
        let is_it = |ident: &Ident| match ident.quote_style {
            Some(_) => ident.value == column,
            None => ident.value.to_lowercase() == column,
        };
        match body {
            SetExpr::Select(select) => select.projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if is_it(alias) => Some(self.span(union(self.extent(expr), alias.span))),
                SelectItem::UnnamedExpr(expr @ Expr::Identifier(name)) if is_it(name) => Some(self.of(expr)),
                SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(names)) if names.last().is_some_and(is_it) => Some(self.of(expr)),
                _ => None,
            }),
            SetExpr::Query(query) => self.column(&query.body, column),
            SetExpr::SetOperation { left, .. } => self.column(left, column),
            _ => None,
        }
    }

    /// The extents of an expression's direct parts, together.
    fn children(&self, expr: &Expr) -> Extent {
        let mut parts = Parts { places: self, depth: 0, queries: 0, all: Extent::empty() };
        let _: ControlFlow<()> = expr.visit(&mut parts);
        parts.all
    }

    /// The first token that begins at or behind a place.
    fn at(&self, place: Location) -> Option<usize> {
        self.tokens.iter().position(|token| token.span.start >= place)
    }

    /// The closing parenthesis of the opening one at this token.
    fn closing(&self, opening: usize) -> Option<usize> {
        let mut depth = 0_i32;
        for (at, token) in self.tokens.iter().enumerate().skip(opening) {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(at);
            }
        }
        None
    }

    /// From a function's name to its closing parenthesis, and that of what follows: `filter (…)`, `over (…)`.
    fn called(&self, name: Extent) -> Extent {
        let Some(mut next) = self.at(name.end) else { return name };
        let mut whole = name;
        while let Some(token) = self.tokens.get(next) {
            match &token.token {
                Token::LParen => {
                    let Some(closing) = self.closing(next) else { return whole };
                    whole = union(whole, self.tokens[closing].span);
                    next = closing + 1;
                }
                token
                    if whole != name
                        && [Keyword::FILTER, Keyword::OVER, Keyword::WITHIN, Keyword::GROUP].iter().any(|word| is_word(token, *word)) =>
                {
                    next += 1;
                }
                _ => break,
            }
        }
        whole
    }

    /// A call around what it is given: `cast(x as int)` around `x`.
    fn call_around(&self, inside: Extent) -> Extent {
        let Some(first) = self.at(inside.start) else { return inside };
        let mut depth = 0_i32;
        for at in (0..first).rev() {
            match self.tokens[at].token {
                Token::RParen => depth += 1,
                Token::LParen if depth > 0 => depth -= 1,
                Token::LParen => {
                    let whole = union(self.tokens[at].span, self.closing(at).map_or(inside, |closing| self.tokens[closing].span));
                    return self.with_word_before(whole);
                }
                _ => {}
            }
        }
        inside
    }

    fn in_parentheses(&self, inside: Extent) -> Extent {
        let Some(first) = self.at(inside.start).filter(|first| *first > 0) else { return inside };
        match self.tokens[first - 1].token {
            Token::LParen => {
                let closing = self.closing(first - 1).map_or(inside, |closing| self.tokens[closing].span);
                union(self.tokens[first - 1].span, closing)
            }
            _ => inside,
        }
    }

    fn to_closing(&self, inside: Extent) -> Extent {
        let next = self.tokens.iter().find(|token| token.span.start >= inside.end);
        match next {
            Some(token) if token.token == Token::RParen => union(inside, token.span),
            _ => inside,
        }
    }

    fn with_token_before(&self, inside: Extent) -> Extent {
        match self.at(inside.start).filter(|first| *first > 0) {
            Some(first) => union(self.tokens[first - 1].span, inside),
            None => inside,
        }
    }

    fn with_word_before(&self, inside: Extent) -> Extent {
        let before = self.at(inside.start).filter(|first| *first > 0).map(|first| &self.tokens[first - 1]);
        match before {
            Some(token) if matches!(token.token, Token::Word(_)) => union(token.span, inside),
            _ => inside,
        }
    }

    /// `::type` behind an expression.
    fn type_after(&self, inside: Extent) -> Option<Extent> {
        let at = self.tokens.iter().position(|token| token.span.start >= inside.end)?;
        if self.tokens[at].token != Token::DoubleColon {
            return None;
        }
        let word = self.tokens.get(at + 1)?;
        match self.tokens.get(at + 2).map(|token| &token.token) {
            Some(Token::LParen) => Some(Extent::new(self.tokens[at].span.start, self.tokens[self.closing(at + 2)?].span.end)),
            _ => Some(Extent::new(self.tokens[at].span.start, word.span.end)),
        }
    }
}

fn is_word(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.keyword == keyword && word.quote_style.is_none())
}

/// Both extents and what is between them.
pub fn union(one: Extent, other: Extent) -> Extent {
    match (one.start.line, other.start.line) {
        (0, _) => other,
        (_, 0) => one,
        _ => Extent::new(one.start.min(other.start), one.end.max(other.end)),
    }
}

/// A query from its first word.
fn query_extent(query: &Query) -> Extent {
    fn first(body: &SetExpr) -> Extent {
        match body {
            SetExpr::Select(select) => select.select_token.0.span,
            SetExpr::SetOperation { left, .. } => first(left),
            SetExpr::Query(query) => query_extent(query),
            other => other.span(),
        }
    }
    let with = query.with.as_ref().map_or(Extent::empty(), |with| with.with_token.0.span);
    union(union(with, first(&query.body)), query.span())
}

struct Parts<'p, 'a> {
    places: &'p Places<'a>,
    depth: usize,
    queries: usize,
    all: Extent,
}

impl Visitor for Parts<'_, '_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth == 1 && self.queries == 0 {
            self.all = union(self.all, self.places.extent(expr));
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.depth == 1 && self.queries == 0 {
            self.all = union(self.all, query_extent(query));
        }
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }
}
