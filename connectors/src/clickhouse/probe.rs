//! A look at a connection: which server answers, and what loads have staged there and not removed. Changes nothing.

use std::sync::Arc;

use serde::Deserialize;

use super::connect::Server;
use crate::{Leftover, Probe, context::RunContext, error::Result};

/// A stage is called `<table>__weir_<token>` and says in its comment whose it is: `weir run <uuid>, sink <name>`.
const STAGES: &str = "select database, name, comment from system.tables \
    where position(name, '__weir_') > 0 and database not in ('system', 'information_schema', 'INFORMATION_SCHEMA') order by database, name";

#[derive(Deserialize)]
struct Stage {
    database: String,
    name: String,
    comment: String,
}

/// Connects to the connection of this name and looks round.
pub async fn probe(name: &str, run: &Arc<RunContext>) -> Result<Probe> {
    let server = Server::of(name, run).await?;
    let stages = server.rows::<Stage>(STAGES, &[], "look for staged tables").await?;
    let staged =
        stages.into_iter().map(|stage| Leftover { name: format!("{}.{}", stage.database, stage.name), run: run_of(&stage.comment) });
    Ok(Probe { server: format!("ClickHouse {}", server.version()), staged: staged.collect() })
}

/// The run that a stage's comment names.
fn run_of(comment: &str) -> Option<String> {
    let (run, _) = comment.strip_prefix("weir run ")?.split_once(", sink ")?;
    uuid::Uuid::try_parse(run).is_ok().then(|| run.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_names_its_run() {
        let run = "0193d5a0-0000-7000-8000-000000000001";
        assert_eq!(run_of(&format!("weir run {run}, sink olap")).as_deref(), Some(run));
        assert_eq!(run_of("weir run x, sink olap"), None);
        assert_eq!(run_of("my own table"), None);
    }
}
