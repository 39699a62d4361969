//! Which session are steps planned and executed in? One a run, and copies of it that know some tables each.

use std::sync::Arc;

use datafusion::{
    catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider},
    execution::{SessionStateBuilder, runtime_env::RuntimeEnv},
    prelude::{SessionConfig, SessionContext},
};
use weir_connectors::spill::join::SpillJoins;

/// A run's joins keep this share of the limit in memory, so that steps side by side find room, and it takes as much for ten times the rows.
const BUILD_SHARE: usize = 16;

/// How hard to try to stay within memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frugality {
    /// Hash joins, all processors.
    Fast,
    /// Sort-merge joins that spill, few streams, small batches: slower, and finishes where hashing does not fit.
    Frugal,
}

/// The session a run's steps are planned and executed in.
pub fn session(runtime: Arc<RuntimeEnv>, partitions: usize, batch_rows: usize, frugality: Frugality) -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(batch_rows).with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.execution.parquet.pushdown_filters = true;
    if frugality == Frugality::Frugal {
        options.optimizer.prefer_hash_join = false;
        options.execution.sort_spill_reservation_bytes = 4 << 20;
        options.execution.sort_in_place_threshold_bytes = 256 << 10;
    }
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(SpillJoins { share: BUILD_SHARE }))
        .build();
    let mut session = SessionContext::new_with_state(state);
    datafusion_functions_json::register_all(&mut session).expect("function names do not clash");
    session
}

/// A session like this one that knows no tables. The functions are registered in the first alone, and copied.
pub fn fork(session: &SessionContext) -> SessionContext {
    let mut state = session.state();
    let (options, catalogs) = (state.config().options().catalog.clone(), MemoryCatalogProviderList::new());
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(&options.default_schema, Arc::new(MemorySchemaProvider::new())).expect("a new catalog takes schemas");
    catalogs.register_catalog(options.default_catalog, Arc::new(catalog));
    state.register_catalog_list(Arc::new(catalogs));
    SessionContext::new_with_state(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_of_a_run_may_go_to_disk() {
        let session = session(Arc::new(RuntimeEnv::default()), 2, 1024, Frugality::Fast);
        assert!(session.state().physical_optimizers().iter().any(|rule| rule.name() == "spill_joins"));
    }
}
