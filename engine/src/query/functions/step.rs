//! `step('pipeline', 'name')`: what leaves a step of a pipeline, evaluated now. Nothing is staged, no cursor moves.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::TableType,
    error::Result as DfResult,
    logical_expr::Expr,
    physical_plan::{ExecutionPlan, coalesce_partitions::CoalescePartitionsExec, limit::GlobalLimitExec},
    prelude::SessionContext,
};
use weir_pipelines::{Diagnostic, Pipeline, SqlText};

use super::{super::Inner, Call, Given, allowed};
use crate::{
    error::Result,
    survey::{self, Origin},
    workspace::Workspace,
};

/// Rows of a step, unless more or fewer are asked for.
const ROWS: u64 = 10_000;

/// A step as a table: each scan evaluates it anew.
#[derive(Debug)]
struct Evaluated {
    workspace: Workspace,
    origin: Arc<Origin>,
    limit: usize,
    schema: SchemaRef,
}

/// Opens a step by the names of its pipeline and its own, in the memory of a session.
pub(super) async fn open(inner: &Inner, session: &SessionContext, call: &Call, text: &SqlText) -> Result<Arc<dyn TableProvider>> {
    allowed(inner, "pipelines", call, text)?;
    let given = Given::new(call, &["pipeline", "step", "limit"], text)?;
    let (pipeline, step) = (given.text("pipeline")?, given.text("step")?);
    let limit = usize::try_from(given.optional_number("limit")?.unwrap_or(ROWS)).unwrap_or(usize::MAX);
    let workspace = inner.catalogue.workspace.clone();
    let Some(files) = inner.catalogue.files.clone() else {
        let message = "there are no pipelines here";
        return Err(given.point("pipeline", Diagnostic::error("unknown-pipeline", message)).into());
    };
    let read = move || files.pipeline(&pipeline, &BTreeMap::new());
    let pipeline: Pipeline =
        tokio::task::spawn_blocking(read).await.map_err(|_| crate::Failure::error("panic", "reading a pipeline panicked"))??;
    let steps = survey::steps(&pipeline);
    if !steps.contains(&step.as_str()) {
        let message = format!("pipeline \"{}\" has no source or transform \"{step}\"", pipeline.name.value);
        let missing = Diagnostic::error("unknown-step", message).did_you_mean(&step, steps.iter().copied());
        return Err(given.point("step", missing).help(format!("steps are: {}", steps.join(", "))).into());
    }
    let origin = Arc::new(Origin::Step { pipeline: Box::new(pipeline), step });
    let schema = survey::rows(&workspace, &origin, session.runtime_env()).await?.schema();
    Ok(Arc::new(Evaluated { workspace, origin, limit, schema }))
}

#[async_trait]
impl TableProvider for Evaluated {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let table = survey::rows(&self.workspace, &self.origin, state.runtime_env().clone()).await.map_err(super::super::external)?;
        let rows = table.scan(state, projection, &[], None).await?;
        let single: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(rows));
        let most = limit.map_or(self.limit, |limit| limit.min(self.limit));
        Ok(Arc::new(GlobalLimitExec::new(single, 0, Some(most))))
    }
}
