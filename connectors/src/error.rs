//! What went wrong with a system outside: whose fault it is, whether trying again may help, what to do.

use std::fmt;

use datafusion::error::DataFusionError;

/// Results of connectors.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The files or the data a person gave.
    User,
    /// A system outside: disk, network, server.
    System,
    /// Weir itself.
    Weir,
}

/// Whether trying the same again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No.
    Never,
    /// Yes, after a while.
    Later,
}

/// An error of a connector. Lower case, no full stop, names in double quotes, never a secret.
#[derive(Debug)]
pub struct Error {
    /// Whose fault it is.
    pub blame: Blame,
    /// Whether trying again may help.
    pub retry: Retry,
    /// A stable kebab-case code, such as `file-missing`.
    pub code: &'static str,
    /// What happened, one line.
    pub message: String,
    /// The setting of the step at fault, dotted (`path`, `csv.null`), to be pointed at.
    pub setting: Option<Box<str>>,
    /// The columns of the rows at fault: where a contract declares them, that is pointed at too.
    pub columns: Box<[String]>,
    /// What to do.
    pub help: Option<String>,
    /// What lay beneath.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// The files or the data a person gave are at fault.
    pub fn user(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            blame: Blame::User,
            retry: Retry::Never,
            code,
            message: message.into(),
            setting: None,
            columns: Box::default(),
            help: None,
            source: None,
        }
    }

    /// A system outside is at fault.
    pub fn system(code: &'static str, message: impl Into<String>) -> Self {
        Self { blame: Blame::System, ..Self::user(code, message) }
    }

    /// Weir is at fault.
    pub fn weir(code: &'static str, message: impl Into<String>) -> Self {
        Self { blame: Blame::Weir, ..Self::user(code, message) }
    }

    /// Says that trying again may help.
    #[must_use]
    pub fn later(mut self) -> Self {
        self.retry = Retry::Later;
        self
    }

    /// Points at a setting of the step.
    #[must_use]
    pub fn setting(mut self, path: impl Into<String>) -> Self {
        self.setting = Some(path.into().into_boxed_str());
        self
    }

    /// Names columns of the rows that are at fault.
    #[must_use]
    pub fn about<'a>(mut self, columns: impl IntoIterator<Item = &'a String>) -> Self {
        self.columns = columns.into_iter().cloned().collect();
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Keeps what lay beneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error once more, without what lay beneath.
    #[must_use]
    pub fn again(&self) -> Self {
        let Self { blame, retry, code, message, setting, columns, help, source: _ } = self;
        let (message, setting, columns, help) = (message.clone(), setting.clone(), columns.clone(), help.clone());
        Self { blame: *blame, retry: *retry, code, message, setting, columns, help, source: None }
    }

    /// Takes a connector's error out of DataFusion's, which stays beneath it: the step that the rows came from is marked there. Gives back an
    /// error that holds none.
    pub fn taken_out(error: DataFusionError) -> Result<Error, DataFusionError> {
        let Some(own) = Error::find(&error).map(Error::again) else { return Err(error) };
        Ok(Error { source: Some(Box::new(Beneath(error))), ..own })
    }

    /// Finds the connector's error inside DataFusion's, however deep it was wrapped.
    pub fn find(error: &DataFusionError) -> Option<&Error> {
        let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = current {
            if let Some(found) = error.downcast_ref::<Error>() {
                return Some(found);
            }
            // External and Shared boxes hide what they hold from `source`.
            if let Some(df) = error.downcast_ref::<DataFusionError>() {
                match df {
                    DataFusionError::External(inner) => {
                        current = Some(inner.as_ref());
                        continue;
                    }
                    DataFusionError::Shared(inner) => return Error::find(inner),
                    DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => return Error::find(inner),
                    DataFusionError::ArrowError(inner, _) => {
                        if let arrow::error::ArrowError::ExternalError(inner) = inner.as_ref() {
                            current = Some(inner.as_ref());
                            continue;
                        }
                    }
                    _ => {}
                }
            }
            current = error.source();
        }
        None
    }
}

/// Finds the operating system's error beneath another: the lowest, as libraries wrap it in others of its kind.
pub fn io_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    std::iter::successors(Some(error), |error| error.source()).filter_map(|error| error.downcast_ref()).last()
}

/// What lay beneath an error whose message has told all of it: kept for code that asks, shown to nobody a second time.
#[derive(Debug)]
pub struct Beneath<E>(pub E);

impl<E> fmt::Display for Beneath<E> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl<E: fmt::Debug> std::error::Error for Beneath<E> {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}
