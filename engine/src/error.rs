//! Why something did not happen: diagnostics of files, or an error with blame, step and help.

use std::sync::Arc;

use weir_connectors::{Blame, Retry};
use weir_pipelines::{Diagnostic, Diagnostics, SourceFile, Span};

/// Results of the engine.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why something did not happen.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The files are wrong: exit code 2.
    Diagnostics(Diagnostics),
    /// The run or a query failed: exit code 1, or 3 where a system outside is at fault and trying later may help.
    Error(Box<RunError>),
    /// Ctrl-C, SIGTERM: exit code 130.
    Interrupted,
}

/// What failed, where, and what to do.
#[derive(Debug, Clone)]
pub struct RunError {
    /// A stable kebab-case code.
    pub code: &'static str,
    /// What happened, one line.
    pub message: String,
    /// The step concerned.
    pub step: Option<String>,
    /// More lines: examples, causes.
    pub details: Vec<String>,
    /// What to do, one sentence each.
    pub help: Vec<String>,
    /// Whose fault it is.
    pub blame: Blame,
    /// Whether trying again may help.
    pub retry: Retry,
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step \"{step}\": {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Failure {
    /// An error of the given code.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Failure::Error(Box::new(RunError {
            code,
            message: message.into(),
            step: None,
            details: Vec::new(),
            help: Vec::new(),
            blame: Blame::User,
            retry: Retry::Never,
        }))
    }

    /// What happened, in one line.
    pub fn sentence(&self) -> String {
        match self {
            Failure::Diagnostics(all) => all.first().map(|first| first.message.clone()).unwrap_or_default(),
            Failure::Error(error) => error.to_string(),
            Failure::Interrupted => "interrupted".to_owned(),
        }
    }

    /// The failure as diagnostics; one that is none yet is pointed at where the file names the system that failed.
    pub fn into_diagnostics(self, file: &Arc<SourceFile>, place: Span) -> Diagnostics {
        match self {
            Failure::Diagnostics(all) => all,
            Failure::Error(error) => {
                let label = error.step.map(|step| format!("step \"{step}\"")).unwrap_or_default();
                let diagnostic = Diagnostic::error(error.code, error.message).at(file, place, label);
                let diagnostic = error.details.into_iter().fold(diagnostic, |all, cause| all.help(format!("cause: {cause}")));
                vec![error.help.into_iter().fold(diagnostic, Diagnostic::help)]
            }
            Failure::Interrupted => vec![Diagnostic::error("interrupted", "stopped before the end")],
        }
    }

    /// Names the step, unless one is named already.
    #[must_use]
    pub fn in_step(mut self, step: &str) -> Self {
        if let Failure::Error(error) = &mut self {
            error.step.get_or_insert_with(|| step.to_owned());
        }
        self
    }

    /// Adds a detail line.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        if let Failure::Error(error) = &mut self {
            error.details.push(detail.into());
        }
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        if let Failure::Error(error) = &mut self {
            error.help.push(help.into());
        }
        self
    }

    /// Says whose fault it is.
    #[must_use]
    pub fn blame(mut self, blame: Blame) -> Self {
        if let Failure::Error(error) = &mut self {
            error.blame = blame;
        }
        self
    }

    /// Says whether the same may succeed later.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        if let Failure::Error(error) = &mut self {
            error.retry = retry;
        }
        self
    }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        Failure::Diagnostics(vec![diagnostic])
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Failure::Diagnostics(diagnostics)
    }
}

impl From<weir_connectors::Error> for Failure {
    fn from(error: weir_connectors::Error) -> Self {
        Failure::from_connector(&error)
    }
}

impl Failure {
    /// Takes over a connector's error with its chain of causes.
    pub fn from_connector(error: &weir_connectors::Error) -> Self {
        let mut details = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !error.message.contains(&text) && !details.contains(&text) {
                details.push(text);
            }
            cause = inner.source();
        }
        Failure::Error(Box::new(RunError {
            code: error.code,
            message: error.message.clone(),
            step: None,
            details,
            help: error.help.iter().cloned().collect(),
            blame: error.blame,
            retry: error.retry,
        }))
    }
}
