//! A test that Weir wrote: how it comes to stand in a pipeline's file, and the proof that it passes there before the file is touched.

use tokio_util::sync::CancellationToken;
use weir_engine::{
    Failure, Workspace,
    test::{self, Verdict},
};
use weir_pipelines::{Pipeline, SourceFile, Test};

use super::super::context::{Set, Stop};

/// How a test is read back.
pub(super) struct Written<'a> {
    /// What `--set` and `--param` say.
    pub(super) set: &'a Set,
    /// The row of its matrix that the pipeline is.
    pub(super) row: Option<String>,
    /// What is told where it does not pass.
    pub(super) what: &'a str,
}

impl Written<'_> {
    /// The test as it will stand in the file has to pass, or it is not written.
    pub(super) async fn prove(
        &self,
        workspace: &Workspace,
        pipeline: &Pipeline,
        made: &Test,
        text: &str,
        token: CancellationToken,
    ) -> Result<(), Stop> {
        let cannot = |why: String| {
            let name = &pipeline.name.value;
            Failure::error("not-sayable", format!("{} of \"{name}\"", self.what)).detail(why).help("the file is as it was")
        };
        let mut files: Vec<_> = pipeline.file.parts().into_iter().map(|(_, file)| file).collect();
        files[0] = SourceFile::new(pipeline.file.path.clone(), text);
        let file = SourceFile::joined(&files);
        let connections: Vec<&str> = workspace.project.connections.keys().map(String::as_str).collect();
        let profiles: Vec<&str> = workspace.project.profiles.iter().map(String::as_str).collect();
        let vocabulary = weir_connectors::vocabulary(&connections, &profiles);
        let parsed = weir_pipelines::parse(file, pipeline.folder.clone(), self.set.changes(self.row.clone()), vocabulary);
        let parsed = parsed.map_err(|wrong| cannot(wrong.first().map(|one| one.message.clone()).unwrap_or_default()))?;
        let added = parsed.tests.last().filter(|test| test.name.value == made.name.value);
        let Some(added) = added else { return Err(cannot("it is not found again in the file".to_owned()).into()) };
        let report = test::run(workspace, &parsed, added, token).await?;
        let why = match report.verdict {
            Verdict::Passed => return Ok(()),
            Verdict::Failed(found) => found.into_iter().next().map(|(one, _)| one.message),
            Verdict::Wrong(found) => found.into_iter().next().map(|one| one.message),
        };
        Err(cannot(why.unwrap_or_default()).into())
    }
}

/// A file's text with a test below all that is there, in the file's own line breaks.
pub(super) fn appended(text: &str, test: &str) -> String {
    let crlf = text.contains("\r\n");
    let test = if crlf { test.replace('\n', "\r\n") } else { test.to_owned() };
    let end = if crlf { "\r\n" } else { "\n" };
    let gap = if text.is_empty() || text.ends_with('\n') { end.to_owned() } else { end.repeat(2) };
    format!("{text}{gap}{test}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_added_below_in_the_files_own_line_breaks() {
        assert_eq!(appended("a = 1\n", "[[test]]\n"), "a = 1\n\n[[test]]\n");
        assert_eq!(appended("a = 1", "[[test]]\n"), "a = 1\n\n[[test]]\n");
        assert_eq!(appended("a = 1\r\n", "[[test]]\nb = 2\n"), "a = 1\r\n\r\n[[test]]\r\nb = 2\r\n");
    }
}
