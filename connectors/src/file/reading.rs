//! Files that are read without a pipeline, by settings that somebody gives as values.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{FileSource, Format};
use crate::{
    Source,
    error::{Error, Result},
};

pub use super::list::{FoundFile, list_within as list};

/// The source of files that these settings describe; of files on disks, those within a folder, as [`list`] has it.
/// Fails with Blame::User where the settings are wrong.
pub fn source(settings: Map<String, Value>, within: Option<PathBuf>) -> Result<Arc<dyn Source>> {
    let mut source: FileSource =
        serde_json::from_value(Value::Object(settings)).map_err(|error| Error::user("wrong-value", error.to_string()))?;
    source.check()?;
    source.within = within;
    Ok(Arc::new(source))
}

/// Whether a path or a pattern ends as files of rows do.
pub fn is_data(path: &str) -> bool {
    Format::of_name(path).is_some()
}

/// Whether a path ends as Parquet files do.
pub fn is_parquet(path: &str) -> bool {
    Format::of_name(path) == Some(Format::Parquet)
}

impl FoundFile {
    /// Where it is on a disk.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.location {
            super::list::Location::Local(path) => Some(path),
            super::list::Location::Remote(..) => None,
        }
    }

    /// Whether folders on the way to it are columns.
    pub fn has_folder_columns(&self) -> bool {
        !self.partitions.is_empty()
    }
}
