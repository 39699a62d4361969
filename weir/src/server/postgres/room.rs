//! How much may a connection keep? So many prepared statements and cursors, and so many bytes of their texts and values.

use datafusion::common::ScalarValue;
use tokio::io::AsyncWrite;

use super::{
    error::PgError,
    portal::Plan,
    query::{Conversation, Result},
};

/// Prepared statements of a connection.
const STATEMENTS_MAX: usize = 1_000;
/// Portals and cursors of a connection.
const PORTALS_MAX: usize = 100;
/// Bytes of the texts and values of all of them.
const BYTES_MAX: usize = 16 << 20;

impl<W: AsyncWrite + Unpin> Conversation<W> {
    /// Refuses a prepared statement for whose name or bytes there is no room.
    pub(super) fn vacant(&self, name: &str, text: &str) -> Result<()> {
        if self.statements.contains_key(name) {
            return Err(PgError::new("42P05", format!("there is a prepared statement \"{name}\" already")).into());
        }
        if self.statements.len() >= STATEMENTS_MAX {
            return Err(PgError::new("54000", format!("a connection has {STATEMENTS_MAX} prepared statements at most"))
                .hint("deallocate some")
                .into());
        }
        self.holds(name.len() + text.len())
    }

    /// Refuses a portal or cursor of so many bytes for which there is no room.
    pub(super) fn room(&self, name: &str, size: usize) -> Result<()> {
        if self.portals.len() >= PORTALS_MAX {
            return Err(PgError::new("54000", format!("a connection has {PORTALS_MAX} cursors at most")).hint("close some").into());
        }
        self.holds(name.len() + size)
    }

    /// Refuses bytes more than a connection may keep.
    pub(super) fn holds(&self, more: usize) -> Result<()> {
        let statements = self.statements.iter().map(|(name, plan)| name.len() + plan.text.len());
        let portals = self.portals.iter().map(|(name, portal)| name.len() + portal.size);
        if statements.chain(portals).sum::<usize>() + more > BYTES_MAX {
            let message = format!("the prepared statements and cursors of a connection have {BYTES_MAX} bytes at most, with their values");
            return Err(PgError::new("54000", message).hint("deallocate or close some").into());
        }
        Ok(())
    }
}

/// Bytes of a portal.
pub fn size(plan: &Plan, values: &[ScalarValue]) -> usize {
    plan.text.len() + values.iter().map(ScalarValue::size).sum::<usize>()
}
