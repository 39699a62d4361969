//! How deeply is a SQL text nested? A tree of expressions is walked by recursion, here and in DataFusion, and a chain of ten thousand `and` is a
//! tree ten thousand deep: more than a stack holds. What is too deep is told before it is parsed.

use sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan, Tokenizer},
};

use crate::{
    diagnostic::{Diagnostic, Span},
    sql::SqlText,
};

/// How many operators may hang on one another. A stack of 8 MB holds three times as many.
const OPERATORS_MAX: usize = 2000;

impl SqlText {
    /// Refuses a text whose tree would be too deep to be walked.
    pub fn check_depth(&self) -> Result<(), Diagnostic> {
        let mut levels = vec![Level::default()];
        // What the levels around the current one come to.
        let mut around = 0;
        for token in self.tokens() {
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
        Ok(())
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
