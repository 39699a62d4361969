//! A look at a connection: what server it is, and what loads have staged there. Changes nothing.

use std::sync::Arc;

use sqlx::Row;

use super::{
    connect::{Pool, application_name},
    failed::Doing,
};
use crate::{Leftover, Probe, context::RunContext, error::Result};

/// Connects and looks round.
pub(super) async fn probe(connection: &str, cx: &Arc<RunContext>) -> Result<Probe> {
    let pool = Pool::open(cx, connection).await?;
    let doing = format!("look round at {}", pool.place());
    let mut session = pool.begin_read(&application_name(&cx.run, "probe"), None).await?;
    let found = session
        .fetch(
            "select n.nspname::text, c.relname::text, pg_catalog.obj_description(c.oid, 'pg_class') from pg_catalog.pg_class c \
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where c.relkind in ('r', 'p') and c.relpersistence <> 't' and c.relname like 'weir\\_stage\\_%' order by 1, 2",
            &[],
            &doing,
        )
        .await?;
    let mut staged = Vec::with_capacity(found.len());
    for row in &found {
        let (schema, table): (String, String) = (row.try_get(0).doing(&doing)?, row.try_get(1).doing(&doing)?);
        let comment: Option<String> = row.try_get(2).doing(&doing)?;
        staged.push(Leftover { name: format!("{schema}.{table}"), run: comment.as_deref().and_then(run_of).map(str::to_owned) });
    }
    session.rollback().await;
    Ok(Probe { server: pool.server().version_text.clone(), staged })
}

/// The run in `weir run <uuid>, sink <name>`, a staged table's comment.
fn run_of(comment: &str) -> Option<&str> {
    let run = comment.strip_prefix("weir run ")?.split(',').next()?.trim();
    (!run.is_empty()).then_some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_tells_the_run() {
        assert_eq!(run_of("weir run 0190a5b0-0000-7000-8000-00000000000a, sink a, b"), Some("0190a5b0-0000-7000-8000-00000000000a"));
        assert_eq!(run_of("weir run , sink x"), None);
        assert_eq!(run_of("somebody's own"), None);
    }
}
