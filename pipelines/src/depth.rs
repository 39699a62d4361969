//! How deeply is a SQL text nested? A tree of expressions is walked by recursion, here and in DataFusion, and a chain of ten thousand `and` is a
//! tree ten thousand deep: more than a stack holds. What is too deep is told before it is parsed.

use sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    parser::Parser,
    tokenizer::{Token, TokenWithSpan, Tokenizer, Word},
};

use crate::{
    diagnostic::{Diagnostic, Span},
    sql::SqlText,
};

/// How many operators may hang on one another. A stack of 8 MB holds three times as many.
const OPERATORS_MAX: usize = 2000;
/// How many of the words that are read twice may stand within one another before they are looked at by themselves.
const TWICE_MAX: usize = 8;
/// Those that are read twice where they are right: first for the form with words between the arguments, then for the one with commas.
const CALLS: [Keyword; 2] = [Keyword::OVERLAY, Keyword::POSITION];

impl SqlText {
    /// Refuses a text whose tree would be too deep to be walked.
    pub fn check_depth(&self) -> Result<(), Diagnostic> {
        let mut levels = vec![Level::default()];
        // What the levels around the current one come to.
        let mut around = 0;
        let tokens = self.tokens();
        for token in &tokens {
            if opens(&token.token) {
                around += levels.last().map_or(0, Level::depth) + 1;
                levels.push(Level::default());
            } else if closes(&token.token) && levels.len() > 1 {
                levels.pop();
                around -= levels.last().map_or(0, Level::depth) + 1;
            } else if let Some(level) = levels.last_mut() {
                level.take(&token.token);
            }
            if around + levels.last().map_or(0, Level::depth) > OPERATORS_MAX {
                let place = self.span_of_line_column(token.span.start.line, token.span.start.column, None);
                return Err(Diagnostic::error("sql-too-deep", format!("more than {OPERATORS_MAX} operators hang on one another"))
                    .at(&self.file, place, "one too many")
                    .help("many alternatives are written column in (1, 2, 3), or joined from a source that holds them"));
            }
        }
        self.check_read_twice(&tokens)
    }

    /// Refuses a text that would be parsed for ever. Where `case`, `cast(`, `array[` and their kin do not parse, the parser reads them once more, as
    /// names: each one within another doubles its work. Where many do, each is parsed here by itself, from the innermost, with a name for those within it.
    fn check_read_twice(&self, tokens: &[TokenWithSpan]) -> Result<(), Diagnostic> {
        self.check_dotted(tokens)?;
        let (mut open, mut twice, mut calls, mut deepest) = (Vec::new(), 0_usize, 0_usize, 0);
        for at in 0..tokens.len() {
            if let Some(is_twice) = opening(tokens, at) {
                let is_call = is_twice && at > 0 && CALLS.iter().any(|call| is(&tokens[at - 1].token, *call));
                open.push((is_twice, is_call));
                (twice, calls) = (twice + usize::from(is_twice), calls + usize::from(is_call));
                deepest = deepest.max(twice);
            } else if closes(&tokens[at].token) {
                let (is_twice, is_call) = open.pop().unwrap_or_default();
                (twice, calls) = (twice - usize::from(is_twice), calls - usize::from(is_call));
            }
            if calls > TWICE_MAX {
                let message = format!("more than {TWICE_MAX} calls of position or overlay stand within one another");
                return Err(Diagnostic::error("sql-too-deep", message)
                    .at(&self.file, self.place_of(&tokens[at - 1]), "one too many")
                    .help("make the inner ones a column of a step before"));
            }
        }
        if deepest <= TWICE_MAX {
            return Ok(());
        }
        // What is read so far, with a name in place of each whole group; where groups begin in it, and whether they are read twice.
        let (mut read, mut open): (Vec<TokenWithSpan>, Vec<Option<usize>>) = (Vec::new(), Vec::new());
        for at in 0..tokens.len() {
            let token = &tokens[at];
            if let Some(is_twice) = opening(tokens, at) {
                // `cast` stands before its parenthesis, and belongs to it.
                let start = if is(&token.token, Keyword::CASE) { read.len() } else { read.len().saturating_sub(1) };
                open.push(is_twice.then_some(start));
            }
            read.push(token.clone());
            let Some(start) = closes(&token.token).then(|| open.pop().flatten()).flatten() else { continue };
            let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(read[start..].to_vec());
            let parsed = parser.parse_expr().and_then(|_| match parser.peek_token().token {
                Token::EOF => Ok(()),
                _ => parser.expected("the end of the expression", parser.peek_token()),
            });
            parsed.map_err(|error| self.syntax(&error))?;
            let span = read[start].span;
            read.truncate(start);
            let name = Word { value: "x".into(), quote_style: None, keyword: Keyword::NoKeyword };
            read.push(TokenWithSpan { token: Token::Word(name), span });
        }
        let unclosed: Vec<usize> = open.into_iter().flatten().collect();
        match unclosed.get(TWICE_MAX) {
            Some(start) => {
                let message = "the SQL does not parse: what begins here never ends";
                Err(Diagnostic::error("sql-syntax", message).at(&self.file, self.place_of(&read[*start]), ""))
            }
            None => Ok(()),
        }
    }

    /// Refuses a long dotted name that breaks off, which the parser reads twice for each of its parts.
    fn check_dotted(&self, tokens: &[TokenWithSpan]) -> Result<(), Diagnostic> {
        let mut parts = 0;
        for (at, token) in tokens.iter().enumerate() {
            let next = tokens.get(at + 1).map(|next| &next.token);
            match token.token {
                Token::Word(_) | Token::DoubleQuotedString(_) if next == Some(&Token::Period) => parts += 1,
                Token::Period if parts > TWICE_MAX => {
                    if !matches!(next, Some(Token::Word(_) | Token::DoubleQuotedString(_) | Token::Mul)) {
                        let found = next.map_or_else(|| "the end of the SQL".to_owned(), ToString::to_string);
                        let message = format!("the SQL does not parse: expected a name after the point, found {found}");
                        return Err(Diagnostic::error("sql-syntax", message).at(&self.file, self.place_of(token), ""));
                    }
                }
                Token::Period => {}
                _ => parts = 0,
            }
        }
        Ok(())
    }

    fn place_of(&self, token: &TokenWithSpan) -> Span {
        let (start, end) = (token.span.start, token.span.end);
        self.span_of_line_column(start.line, start.column, Some((end.line, end.column)))
    }

    /// The opening parenthesis that stands within most others.
    pub(crate) fn deepest(&self) -> Option<Span> {
        let (mut depth, mut deepest, mut place) = (0_usize, 0, None);
        for token in self.tokens() {
            match token.token {
                Token::LParen => {
                    depth += 1;
                    if depth > deepest {
                        (deepest, place) = (depth, Some(token.span.start));
                    }
                }
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        place.map(|place| self.span_of_line_column(place.line, place.column, None))
    }

    /// The tokens but for spaces and comments; none where they cannot be read, which whoever parses the text will say.
    pub(crate) fn tokens(&self) -> Vec<TokenWithSpan> {
        let tokens = Tokenizer::new(&GenericDialect {}, &self.text).tokenize_with_location().unwrap_or_default();
        tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)).collect()
    }
}

/// Whether a group opens at a token, and whether it is one of those that the parser may read twice.
fn opening(tokens: &[TokenWithSpan], at: usize) -> Option<bool> {
    let token = &tokens[at].token;
    let word = at.checked_sub(1).and_then(|before| match &tokens[before].token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.keyword),
        _ => None,
    });
    match token {
        Token::LParen => Some(matches!(
            word,
            Some(
                Keyword::ARRAY
                    | Keyword::CAST
                    | Keyword::CEIL
                    | Keyword::CONVERT
                    | Keyword::EXISTS
                    | Keyword::EXTRACT
                    | Keyword::FLOOR
                    | Keyword::OVERLAY
                    | Keyword::POSITION
                    | Keyword::SAFE_CAST
                    | Keyword::STRUCT
                    | Keyword::SUBSTR
                    | Keyword::SUBSTRING
                    | Keyword::TRIM
                    | Keyword::TRY_CAST
                    | Keyword::TRY_CONVERT
            )
        )),
        Token::LBracket => Some(word == Some(Keyword::ARRAY)),
        Token::LBrace => Some(false),
        token => is(token, Keyword::CASE).then_some(true),
    }
}

fn opens(token: &Token) -> bool {
    matches!(token, Token::LParen | Token::LBracket | Token::LBrace) || is(token, Keyword::CASE)
}

fn closes(token: &Token) -> bool {
    matches!(token, Token::RParen | Token::RBracket | Token::RBrace) || is(token, Keyword::END)
}

fn is(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.keyword == keyword && word.quote_style.is_none())
}

/// What stands between two parentheses, or in a `case`.
#[derive(Default)]
struct Level {
    /// Operators of the current condition.
    operators: usize,
    /// `and` and `or` of the current expression.
    conditions: usize,
    /// `union` and `join`, which hang on one another across expressions.
    queries: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.operators + self.conditions + self.queries
    }

    fn begin(&mut self) {
        (self.operators, self.conditions) = (0, 0);
    }

    fn take(&mut self, token: &Token) {
        match token {
            Token::Comma | Token::SemiColon => self.begin(),
            Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS | Keyword::JOIN => {
                    self.queries += 1;
                    self.begin();
                }
                Keyword::SELECT
                | Keyword::FROM
                | Keyword::WHERE
                | Keyword::GROUP
                | Keyword::HAVING
                | Keyword::ORDER
                | Keyword::LIMIT
                | Keyword::ON
                | Keyword::WHEN
                | Keyword::THEN
                | Keyword::ELSE => self.begin(),
                Keyword::AND | Keyword::OR | Keyword::XOR => {
                    self.conditions += 1;
                    self.operators = 0;
                }
                Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::RLIKE
                | Keyword::REGEXP
                | Keyword::SIMILAR
                | Keyword::BETWEEN
                | Keyword::DIV
                | Keyword::AT
                | Keyword::COLLATE
                | Keyword::OPERATOR => self.operators += 1,
                _ => {}
            },
            Token::Word(_)
            | Token::Number(..)
            | Token::Char(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::Period
            | Token::Placeholder(_) => {}
            _ => self.operators += 1,
        }
    }
}
