//! What an error of DataFusion has to say to the person who wrote the pipeline.

use datafusion::error::DataFusionError;
use weir_connectors::{Blame, Error, Retry, io_error};

use crate::{
    error::{Failure, RunError},
    step,
};

/// What a failed dataflow has to say: the step, the cause, the setting.
pub(crate) fn explain_step(error: &DataFusionError) -> Failure {
    let failure = explain(error);
    match step::marked(error) {
        Some(step) => failure.in_step(step),
        None => failure,
    }
}

/// Whether a disk has no room for what DataFusion sets aside. What sinks and sources say of their own disks is theirs.
fn is_disk_full(error: &DataFusionError) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    io_error(error).is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded))
}

/// What an error of DataFusion has to say to the person who wrote the pipeline.
pub fn explain(error: &DataFusionError) -> Failure {
    let text = crate::sql::message(error);
    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) || text.starts_with("resources exhausted") {
        return Failure::error("memory-limit", "the step needs more memory than the limit, even with what it can spill to disk")
            .detail(text.chars().take(300).collect::<String>())
            .help("raise [memory] limit in weir.toml, or make the step's rows narrower before it sorts, joins or groups");
    }
    if let Some(found) = Error::find(error) {
        // A sink that only passes on what its rows failed with is not to blame.
        if let Some(rows) = std::error::Error::source(found).and_then(|beneath| beneath.downcast_ref::<DataFusionError>())
            && found.code == "dataflow"
            && (step::marked(rows).is_some() || is_disk_full(rows))
        {
            return explain(rows);
        }
        return Failure::from_connector(found);
    }
    if is_disk_full(error) {
        return Failure::error("disk-full", "no space is left on the disk where rows that do not fit in memory are set aside")
            .blame(Blame::System)
            .retry(Retry::Later)
            .help("free some space, or raise [memory] limit in weir.toml, and run again");
    }
    Failure::Error(Box::new(RunError {
        code: "run",
        message: text,
        step: None,
        details: Vec::new(),
        help: Vec::new(),
        blame: Blame::User,
        retry: Retry::Never,
    }))
}

#[cfg(test)]
mod tests {
    use std::io::{Error as IoError, ErrorKind};

    use arrow::error::ArrowError;

    use super::*;

    /// As it comes from a file of rows that are set aside.
    fn full(kind: ErrorKind) -> DataFusionError {
        let io = IoError::other(DataFusionError::IoError(kind.into()));
        DataFusionError::ArrowError(Box::new(ArrowError::IoError("IO error".into(), io)), None)
    }

    fn told(error: &DataFusionError) -> (String, &'static str, Option<String>, Retry) {
        match explain_step(error) {
            Failure::Error(error) => (error.message, error.code, error.step, error.retry),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_disk_is_told_as_one_whoever_set_rows_aside() {
        let says = "no space is left on the disk where rows that do not fit in memory are set aside";
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            assert_eq!(told(&full(kind)), (says.into(), "disk-full", None, Retry::Later));
            let step = step::mark("sorted", full(kind));
            assert_eq!(told(&step), (says.into(), "disk-full", Some("sorted".into()), Retry::Later));
            // A merge sets rows aside too, and a sink passes on what its rows failed with.
            let sink = Error::system("dataflow", "no space left").because(full(kind));
            assert_eq!(told(&sink.into()), (says.into(), "disk-full", None, Retry::Later));
            let passed_on = Error::system("dataflow", "no space left").because(step::mark("sorted", full(kind)));
            assert_eq!(told(&passed_on.into()), (says.into(), "disk-full", Some("sorted".into()), Retry::Later));
        }
    }

    #[test]
    fn what_a_sink_says_of_its_own_disk_stays_its_own() {
        let own = Error::system("disk-full", "cannot write \"x\": no space left").later().because(full(ErrorKind::StorageFull));
        assert_eq!(told(&own.into()), ("cannot write \"x\": no space left".into(), "disk-full", None, Retry::Later));
        assert_eq!(told(&full(ErrorKind::NotFound)).1, "run");
    }
}
