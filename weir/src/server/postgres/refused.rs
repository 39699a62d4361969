//! What is logged of a statement that never comes to the engine? Who has asked, what, and why it was refused, in the one log of statements.

use std::borrow::Cow;

use tokio::io::AsyncWrite;
use weir_engine::{Failure, query::TEXT_MAX};

use super::{
    error::PgError,
    query::{Conversation, Result, Stop},
};

impl<W: AsyncWrite + Unpin> Conversation<W> {
    /// Logs a statement that the door itself has refused.
    pub(super) fn noted(&self, sql: &str, stop: Stop) -> Stop {
        if let Stop::Said(error) = &stop
            && !error.logged
        {
            self.session.refused(&shown(sql), &failure(error));
        }
        stop
    }

    /// Refuses what the engine would refuse for its length, before it is cut into statements: that takes time and memory of its own.
    pub(super) fn short(&self, text: &str) -> Result<()> {
        if text.len() <= TEXT_MAX {
            return Ok(());
        }
        let failure = Failure::error("too-long", format!("the statement has more than {TEXT_MAX} bytes"));
        self.session.refused(&shown(text.split(';').next().unwrap_or_default()), &failure);
        Err(PgError::of(&failure, 0).into())
    }
}

/// The error as the log has it: under the code that the client sees.
fn failure(error: &PgError) -> Failure {
    match error.state {
        "57014" => Failure::Interrupted,
        state => Failure::error(state, error.message.clone()),
    }
}

/// A statement as the log has it. What is set is left out: it may be a secret, in the wrong place.
fn shown(sql: &str) -> Cow<'_, str> {
    let goes_on = |rest: &str| rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    let rest = match sql.split_at_checked("set".len()) {
        Some((first, rest)) if first.eq_ignore_ascii_case("set") && !goes_on(rest) => rest,
        _ => return Cow::Borrowed(sql),
    };
    let head = rest.split(['=', '\'', '"', '$']).next().unwrap_or_default();
    let mut shown = "set".to_owned();
    for word in head.split_whitespace().take(2) {
        shown.push(' ');
        shown.push_str(word);
        // These stand before the name.
        if !["session", "local", "time"].contains(&word.to_ascii_lowercase().as_str()) {
            break;
        }
    }
    shown.push_str(" …");
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_not_shown() {
        for (sql, wanted) in [
            ("select 'set x = 1'", "select 'set x = 1'"),
            ("copy t from stdin", "copy t from stdin"),
            ("SET password = 'secret'", "set password …"),
            ("set password='secret'", "set password …"),
            ("set password secret", "set password …"),
            ("set session my.password to secret", "set session my.password …"),
            ("set local \"a\" = secret", "set local …"),
            ("set time zone 'Europe/Berlin'", "set time zone …"),
            ("set/**/password = 'secret'", "set /**/password …"),
            ("settle 'x'", "settle 'x'"),
            ("set", "set …"),
        ] {
            assert_eq!(shown(sql), wanted, "{sql}");
        }
    }

    #[test]
    fn what_was_cancelled_is_logged_as_that() {
        assert!(matches!(failure(&PgError::new("57014", "the statement was cancelled")), Failure::Interrupted));
        let Failure::Error(error) = failure(&PgError::new("0A000", "no")) else { panic!("an error") };
        assert_eq!((error.code, error.message.as_str()), ("0A000", "no"));
    }
}
