//! The `[state]` table of weir.toml: where the run history is kept in place of `.weir/state.db`.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;
use weir_connectors::secret::Secret;
use weir_pipelines::Settings;

use crate::{
    error::{Failure, Result},
    history::{Hidden, Place},
};

/// The schema where none is named.
const SCHEMA: &str = "weir";

/// Where the run history is kept. Without this table it is the SQLite file `.weir/state.db`, which one server can use.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSettings {
    /// A Postgres database, `postgres://user:password@host:5432/database`, best as `{ env = "WEIR_STATE_URL" }`. Several servers may share it.
    pub url: Secret,
    /// The schema that its tables are in; it is made where it is missing. Default `weir`.
    #[serde(default)]
    pub schema: Option<String>,
}

/// Reads the table, and fetches what is secret in it.
pub async fn place(settings: &Settings, environment: &HashMap<String, String>, root: &Path) -> Result<Place> {
    let settings: StateSettings = settings.read()?;
    let url = settings.url.reveal(environment, root).await.map_err(|error| Failure::from_connector(&error))?;
    Ok(Place::Server { url: Hidden(url), schema: settings.schema.unwrap_or_else(|| SCHEMA.to_owned()) })
}
