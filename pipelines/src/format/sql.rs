//! A SQL text in a TOML string, laid out: words of SQL in small letters, one space where one belongs, each clause of a query that goes over
//! several lines on a line of its own, and what goes on below it set in. Tokens and comments stay; where one would not, the string stays.

use sqlparser::{
    dialect::GenericDialect,
    tokenizer::{Token, Tokenizer, Whitespace},
};
use toml::de::DeValue;

use super::WIDTH;
use crate::sql::decode;

/// Words that are written in small letters, where they are not names.
const WORDS: [&str; 64] = [
    "all",
    "and",
    "any",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "cross",
    "desc",
    "distinct",
    "else",
    "end",
    "escape",
    "except",
    "exists",
    "false",
    "following",
    "from",
    "full",
    "group",
    "having",
    "ilike",
    "in",
    "inner",
    "intersect",
    "interval",
    "is",
    "join",
    "lateral",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "null",
    "nulls",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "preceding",
    "qualify",
    "recursive",
    "right",
    "select",
    "similar",
    "some",
    "then",
    "true",
    "try_cast",
    "unbounded",
    "union",
    "unnest",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
];
/// Words that have a space before a bracket that follows; elsewhere it is the author's choice, as in `count(*)`.
const BEFORE_BRACKET: [&str; 27] = [
    "all",
    "and",
    "as",
    "between",
    "by",
    "case",
    "else",
    "except",
    "from",
    "having",
    "in",
    "intersect",
    "is",
    "join",
    "like",
    "limit",
    "not",
    "on",
    "or",
    "over",
    "select",
    "then",
    "union",
    "using",
    "when",
    "where",
    "with",
];
/// Words that start a join, where they stand at the start of a line.
const JOINS: [&str; 8] = ["join", "left", "right", "inner", "full", "cross", "natural", "outer"];
/// Columns by which what a line goes on with is set in.
const INDENT: usize = 2;

/// What a token is to the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Close,
    Comma,
    /// `.` and `::`, which have no space around them.
    Tie,
    /// Has a space on both sides, unless it is a sign.
    Operator,
    Word,
    LineComment,
    Comment,
    Other,
}

/// A token and what its author left before it.
#[derive(Debug)]
struct Piece {
    kind: Kind,
    /// As SQL has it.
    text: String,
    /// As TOML has it; in small letters where it is a word of SQL.
    written: String,
    /// The word in small letters, where it is one of [`WORDS`] and no name; else empty.
    word: &'static str,
    /// Line breaks before it.
    breaks: usize,
    /// Spaces before it.
    gap: usize,
}

impl Piece {
    fn is_comment(&self) -> bool {
        matches!(self.kind, Kind::Comment | Kind::LineComment)
    }

    fn opens(&self) -> bool {
        self.kind == Kind::Open || self.word == "case"
    }

    fn closes(&self) -> bool {
        self.kind == Kind::Close || self.word == "end"
    }
}

/// Lays out the TOML string `raw`; none where it stays as it is.
pub fn layout(raw: &str, newline: &str) -> Option<String> {
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| raw.starts_with(quote))?;
    let pieces = pieces(raw)?;
    let last = pieces.last()?;
    let new = if quote.len() == 3 && raw.contains('\n') {
        format!("{quote}{newline}{}{newline}{quote}", lines(&pieces, newline))
    } else {
        let line = one_line(&pieces);
        // A quote before the closing ones would be taken for one of them.
        let runs_on = quote.len() == 3 && last.written.ends_with(&quote[..1]);
        if runs_on || pieces.iter().any(|piece| piece.breaks > 0) || line.chars().count() > WIDTH {
            return None;
        }
        format!("{quote}{line}{quote}")
    };
    (new != raw && same(&pieces, &new)).then_some(new)
}

/// True where a TOML string holds the same SQL as another held: tokens and comments, but for the space around them and for capitals in
/// words of SQL.
fn same(old: &[Piece], new: &str) -> bool {
    // What is taken for the string's text here is what a parser of TOML reads.
    let is_read = DeValue::parse(new).is_ok_and(|value| value.get_ref().as_str() == Some(decode(new).0.as_str()));
    let Some(new) = pieces(new).filter(|_| is_read) else { return false };
    let is_same = |(a, b): (&Piece, &Piece)| {
        a.kind == b.kind && a.word == b.word && (a.text == b.text || (!a.word.is_empty() && a.text.eq_ignore_ascii_case(&b.text)))
    };
    old.len() == new.len() && old.iter().zip(&new).all(is_same)
}

/// Takes a TOML string of SQL apart. None where it is no SQL, or where its author wrote space in it as an escape.
fn pieces(raw: &str) -> Option<Vec<Piece>> {
    let (text, map) = decode(raw);
    let tokens = Tokenizer::new(&GenericDialect {}, &text).tokenize_with_location().ok()?;
    let mut chars = text.chars();
    let (mut line, mut column) = (1, 1);
    let (mut breaks, mut gap, mut behind) = (0, 0, 0);
    let mut pieces: Vec<Piece> = Vec::new();
    for token in tokens {
        let start = text.len() - chars.as_str().len();
        while (line, column) < (token.span.end.line, token.span.end.column) {
            (line, column) = if chars.next()? == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        let whole = &text[start..text.len() - chars.as_str().len()];
        let Some(kind) = kind(&token.token) else {
            if !whole.chars().all(char::is_whitespace) {
                return None;
            }
            breaks += whole.matches('\n').count();
            gap = if whole == " " { gap + 1 } else { 0 };
            continue;
        };
        // The line break that ends a comment is not a part of it.
        let own = if kind == Kind::LineComment { whole.trim_end_matches(['\n', '\r']) } else { whole };
        let written = map.get(start)?.start..map.get((start + own.len()).checked_sub(1)?)?.end;
        if raw[behind..written.start].contains('\\') {
            return None;
        }
        behind = written.end;
        let word = match &token.token {
            Token::Word(word) if word.quote_style.is_none() => WORDS.into_iter().find(|known| known.eq_ignore_ascii_case(own)),
            _ => None,
        };
        pieces.push(Piece { kind, text: own.to_owned(), written: raw[written].to_owned(), word: word.unwrap_or_default(), breaks, gap });
        (breaks, gap) = (usize::from(own.len() < whole.len()), 0);
    }
    if !chars.as_str().is_empty() || raw[behind..].contains('\\') {
        return None;
    }
    for at in 0..pieces.len() {
        let is_part = pieces.get(at + 1).is_some_and(|next| next.text == ".");
        let is_named = at.checked_sub(1).is_some_and(|before| pieces[before].text == "." || pieces[before].word == "as");
        let piece = &mut pieces[at];
        if is_part || is_named {
            piece.word = "";
        }
        if !piece.word.is_empty() && piece.written == piece.text {
            piece.written = piece.word.to_owned();
        }
    }
    Some(pieces)
}

/// What a token is to the layout; none for space.
fn kind(token: &Token) -> Option<Kind> {
    Some(match token {
        Token::Whitespace(Whitespace::SingleLineComment { .. }) => Kind::LineComment,
        Token::Whitespace(Whitespace::MultiLineComment(_)) => Kind::Comment,
        Token::Whitespace(_) => return None,
        Token::LParen | Token::LBracket => Kind::Open,
        Token::RParen | Token::RBracket => Kind::Close,
        Token::Comma | Token::SemiColon => Kind::Comma,
        Token::Period | Token::DoubleColon => Kind::Tie,
        Token::Word(_) => Kind::Word,
        Token::Eq | Token::DoubleEq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq | Token::RArrow => Kind::Operator,
        Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat => Kind::Operator,
        _ => Kind::Other,
    })
}

/// How many spaces stand before a piece that is on one line with the one before.
fn spaces(pieces: &[Piece], at: usize) -> usize {
    let Some(before) = at.checked_sub(1) else { return 0 };
    let (prev, next) = (&pieces[before], &pieces[at]);
    let authors = next.gap.min(1);
    match (prev.kind, next.kind) {
        (_, Kind::LineComment) => next.gap.max(1),
        (Kind::Comment, _) | (_, Kind::Comment) => authors,
        (_, Kind::Comma | Kind::Close | Kind::Tie) | (Kind::Open | Kind::Tie, _) => 0,
        (Kind::Comma, _) => 1,
        (Kind::Operator, Kind::Operator) if is_sign(pieces, before) => authors,
        (Kind::Operator, _) if is_sign(pieces, before) => 0,
        (Kind::Operator, _) | (_, Kind::Operator) => 1,
        (Kind::Word, Kind::Open) if BEFORE_BRACKET.contains(&prev.word) => 1,
        _ => authors,
    }
}

/// True for a `+` or `-` that belongs to what follows.
fn is_sign(pieces: &[Piece], at: usize) -> bool {
    let ends_value = |piece: &Piece| match piece.kind {
        Kind::Operator | Kind::Comma | Kind::Open => false,
        _ => ["", "end", "null", "true", "false"].contains(&piece.word),
    };
    matches!(pieces[at].text.as_str(), "+" | "-") && !pieces[..at].iter().rfind(|piece| !piece.is_comment()).is_some_and(ends_value)
}

fn one_line(pieces: &[Piece]) -> String {
    let mut out = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        out.extend(std::iter::repeat_n(' ', spaces(pieces, at)));
        out.push_str(&piece.written);
    }
    out
}

/// What is known of brackets, a `case` or the whole text before it is laid out.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    /// A `select` or `with` stands in it.
    is_query: bool,
    /// Its author broke a line in it, not counting what stands in inner ones.
    is_broken: bool,
    /// The first break is right behind what opens it.
    is_opened: bool,
}

/// The shape of the whole, and behind it, for each piece, of what it opens.
fn shapes(pieces: &[Piece]) -> Vec<Shape> {
    let mut shapes = vec![Shape::default(); pieces.len() + 1];
    let mut open = vec![0];
    for (at, piece) in pieces.iter().enumerate() {
        let inner = *open.last().unwrap_or(&0);
        let shape = &mut shapes[inner];
        shape.is_broken |= at > 0 && piece.breaks > 0;
        shape.is_opened |= inner > 0 && inner == at && piece.breaks > 0;
        shape.is_query |= ["select", "with"].contains(&piece.word);
        if piece.closes() && open.len() > 1 {
            open.pop();
        } else if piece.opens() {
            open.push(at + 1);
        }
    }
    shapes[0].is_broken |= one_line(pieces).chars().count() > WIDTH;
    shapes
}

/// Brackets, a `case` or the whole text, while it is laid out.
struct Frame {
    shape: Shape,
    is_whole: bool,
    /// The word that started the clause the layout is in.
    clause: &'static str,
    /// The space before the line that opens it.
    outer: usize,
    /// The space before its own lines.
    inner: usize,
    /// Nothing but comments stood in it yet.
    is_new: bool,
}

impl Frame {
    /// The clause that a piece starts.
    fn starts(&self, pieces: &[Piece], at: usize) -> Option<&'static str> {
        let word = pieces[at].word;
        if word.is_empty() || !self.shape.is_query {
            return None;
        }
        let prev = pieces[..at].iter().rfind(|piece| !piece.is_comment());
        let next = pieces[at + 1..].iter().find(|piece| !piece.is_comment());
        let starts = match word {
            "select" | "where" | "having" | "qualify" => true,
            "with" => self.is_new,
            "from" => self.clause == "select" && prev.is_some_and(|prev| prev.word != "distinct"),
            "group" | "order" => next.is_some_and(|next| next.word == "by"),
            "limit" | "offset" => next.is_some_and(|next| matches!(next.kind, Kind::Other | Kind::Open)),
            // "select * except (a)" leaves out a column.
            "union" | "except" | "intersect" => prev.is_some_and(|prev| prev.text != "*"),
            _ => false,
        };
        starts.then_some(word)
    }

    /// True where a piece that starts no clause stands as far out as one, at the start of a line: a join, or a name of a `with`.
    fn stands_out(&self, pieces: &[Piece], at: usize) -> bool {
        match self.clause {
            "from" => JOINS.contains(&pieces[at].word) && pieces.get(at + 1).is_some_and(|next| next.kind != Kind::Open),
            "with" => pieces[..at].iter().rfind(|piece| !piece.is_comment()).is_some_and(|prev| prev.kind == Kind::Comma),
            _ => false,
        }
    }

    /// The space before a line of it that starts with a piece.
    fn indent(&self, pieces: &[Piece], at: usize) -> usize {
        let is_start = self.is_new || pieces[at].closes() || self.starts(pieces, at).is_some() || self.stands_out(pieces, at);
        let goes_on = (self.shape.is_query || self.is_whole) && !is_start;
        if goes_on { self.inner + INDENT } else { self.inner }
    }
}

/// The pieces on several lines: each break of the author's, and each clause of a query that is broken anywhere.
fn lines(pieces: &[Piece], newline: &str) -> String {
    let shapes = shapes(pieces);
    // A comment is set in as what it stands above.
    let mut below: Vec<usize> = (0..pieces.len()).collect();
    for at in (0..pieces.len().saturating_sub(1)).rev() {
        if pieces[at].is_comment() {
            below[at] = below[at + 1];
        }
    }
    let mut frames = vec![Frame { shape: shapes[0], is_whole: true, clause: "", outer: 0, inner: 0, is_new: true }];
    let mut out = String::new();
    let mut indent = 0;
    for (at, piece) in pieces.iter().enumerate() {
        let Some(frame) = frames.last_mut() else { break };
        let closes = piece.closes() && !frame.is_whole;
        let clause = frame.starts(pieces, at);
        let is_due = (closes && frame.shape.is_opened) || (clause.is_some() && frame.shape.is_broken && !frame.is_new);
        if at > 0 && (piece.breaks > 0 || is_due) {
            indent = if closes { frame.outer } else { frame.indent(pieces, below[at]) };
            let is_apart = piece.breaks > 1 && !closes && !pieces[at - 1].opens();
            (0..1 + usize::from(is_apart)).for_each(|_| out.push_str(newline));
            out.extend(std::iter::repeat_n(' ', indent));
        } else {
            out.extend(std::iter::repeat_n(' ', spaces(pieces, at)));
        }
        out.push_str(&piece.written);
        frame.is_new &= piece.is_comment();
        frame.clause = clause.unwrap_or(frame.clause);
        if closes {
            frames.pop();
        } else if piece.opens() {
            let shape = shapes[at + 1];
            frames.push(Frame { shape, is_whole: false, clause: "", outer: indent, inner: indent + INDENT, is_new: true });
        }
    }
    out
}

#[cfg(test)]
#[path = "sql_tests.rs"]
pub(super) mod tests;
