//! Where the scheduler has its pipelines from. Files and how they are written are the command's.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use weir_pipelines::{Diagnostics, Pipeline, Saved};

use crate::error::Result;

/// Pipelines by name, each in its last version that was right.
pub type Pipelines = Arc<BTreeMap<String, Arc<Pipeline>>>;

/// What a look at the files has found.
#[derive(Debug, Clone)]
pub struct Look {
    /// All pipelines; the same allocation as at the look before, where nothing has changed.
    pub pipelines: Pipelines,
    /// Files that have become wrong since the look before: the pipeline's name, and what is wrong first.
    pub broken: Vec<(String, String)>,
    /// Pipelines whose file is right again.
    pub mended: Vec<String>,
}

/// Where pipelines come from.
pub trait Catalogue: Debug + Send + Sync {
    /// Looks at the files. Called twice a second: what has not changed is not read again. It may block.
    fn look(&self) -> Look;

    /// Reads one pipeline with values of its parameters. It may block.
    fn pipeline(&self, name: &str, params: &BTreeMap<String, String>) -> Result<Pipeline>;

    /// Reads the saved queries there are, and says what is wrong with the files of others. It may block.
    fn queries(&self) -> (Vec<Saved>, Diagnostics) {
        Default::default()
    }
}
