//! The project's connections by name: their settings, and what has been opened from them once and is shared by a run's steps.
//! What a connection is made of is its kind's to know.

use std::{any::Any, collections::HashMap, fmt, sync::Arc};

use tokio::sync::{Mutex, OnceCell};
use weir_pipelines::Settings;

use crate::{
    Config,
    error::{Error, Result},
};

type Shared = Arc<dyn Any + Send + Sync>;

/// The project's connections.
#[derive(Default)]
pub struct Connections {
    settings: HashMap<String, Settings>,
    open: Mutex<HashMap<String, Arc<OnceCell<Shared>>>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.settings.keys()).finish()
    }
}

impl Connections {
    /// Connections that nobody has opened yet.
    pub fn new(settings: HashMap<String, Settings>) -> Self {
        Self { settings, open: Mutex::default() }
    }

    /// The kind of a connection.
    pub fn kind(&self, name: &str) -> Option<&str> {
        Some(self.settings.get(name)?.kind.value.as_str())
    }

    /// The settings of the connection `name`, which must be of the kind `C`. Fails with Blame::User, pointing at `connection`.
    pub fn get<C: Config>(&self, name: &str) -> Result<C> {
        let Some(settings) = self.settings.get(name) else {
            return Err(Error::user("unknown-connection", format!("no connection \"{name}\" in weir.toml"))
                .setting("connection")
                .help(format!("add a table [connection.{name}.{}]", C::KIND)));
        };
        if settings.kind.value != C::KIND {
            let message = format!("connection \"{name}\" is of kind \"{}\", not \"{}\"", settings.kind.value, C::KIND);
            return Err(Error::user("wrong-connection", message).setting("connection").help(format!(
                "name a connection of kind \"{0}\", or write the step as [….{1}]",
                C::KIND,
                settings.kind.value
            )));
        }
        settings.read::<C>().map_err(|wrong| {
            let why = wrong.first().map_or_else(String::new, |first| first.message.clone());
            Error::user("wrong-connection", format!("connection \"{name}\" has a wrong setting: {why}"))
                .setting("connection")
                .help(format!("correct [connection.{name}.{}] in weir.toml", C::KIND))
        })
    }

    /// What was opened for `name`, opened now where nobody has yet. A failure is not kept: the next one tries again.
    pub async fn opened<T: Any + Send + Sync>(&self, name: &str, open: impl Future<Output = Result<T>>) -> Result<Arc<T>> {
        let cell = self.open.lock().await.entry(name.to_owned()).or_default().clone();
        let shared = cell.get_or_try_init(|| async { open.await.map(|opened| Arc::new(opened) as Shared) }).await?;
        Ok(shared.clone().downcast::<T>().expect("a connection has one kind, and a kind opens one type"))
    }
}
