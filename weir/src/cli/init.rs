//! `weir init`: a new project with an example that runs. Writes only where nothing stands.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use weir_engine::Failure;
use weir_pipelines::Diagnostic;

use super::{
    context::{Answer, Context, Stop},
    schema::{pipeline_schema, project_schema},
};
use crate::{project, render::error};

const EXAMPLES: &str = "\
Examples:
  weir init shop               a project in the folder shop
  weir init                    a project right here

Then: weir check, weir run orders, weir sql -c \"select * from lake.shop.sales\"";

/// The example's files. Two of its eight rows break the contract, and one order comes twice.
const FILES: &[(&str, &str)] = &[
    ("weir.toml", include_str!("templates/init/weir.toml")),
    (".gitignore", include_str!("templates/init/gitignore")),
    ("pipelines/orders/pipeline.toml", include_str!("templates/init/pipelines/orders/pipeline.toml")),
    ("pipelines/orders/data/orders.csv", include_str!("templates/init/pipelines/orders/data/orders.csv")),
    ("schemas/order.schema.json", include_str!("templates/init/schemas/order.schema.json")),
];

/// Make a project with an example pipeline
///
/// Writes weir.toml, a pipeline with a few rows of data, a contract, the schemas that editors use, and .gitignore.
/// Overwrites nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Init {
    /// The folder, made where it is missing [default: this one]
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl Init {
    /// Makes the project.
    pub fn answer(self, context: &Context) -> Answer {
        let dir = project::absolute(self.dir.as_deref().unwrap_or(Path::new(".")), &context.folder);
        let files = files();
        write_new(&dir, &files, &context.folder)?;
        if context.global.json {
            let created: Vec<String> = files.iter().map(|(path, _)| dir.join(path).display().to_string()).collect();
            context.answer_json(&json!({ "created": created }))?;
        } else {
            for (path, _) in &files {
                context.answer(&format!("{}\n", project::shown(&dir.join(path), &context.folder)))?;
            }
            let step = if dir == context.folder { String::new() } else { format!("cd {} && ", project::shown(&dir, &context.folder)) };
            context.say(&format!("next: {step}weir run orders"));
        }
        Ok(error::DONE)
    }
}

/// Paths and texts of a new project.
fn files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = FILES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    files.push(("schemas/pipeline.schema.json".to_owned(), format!("{:#}\n", pipeline_schema())));
    files.push(("schemas/project.schema.json".to_owned(), format!("{:#}\n", project_schema())));
    files
}

/// Refuses to write where something stands.
pub fn refuse_taken<'a>(dir: &Path, paths: impl IntoIterator<Item = &'a String>, folder: &Path) -> Result<(), Stop> {
    let paths = paths.into_iter().map(|path| dir.join(path)).filter(|path| path.symlink_metadata().is_ok());
    let taken: Vec<String> = paths.map(|path| project::shown(&path, folder)).collect();
    if !taken.is_empty() {
        return Err(Diagnostic::error("file-exists", format!("there is already: {}", taken.join(", ")))
            .help("choose another folder or name; nothing is overwritten")
            .into());
    }
    Ok(())
}

/// Writes files where nothing stands yet; where something does, writes none of them.
pub fn write_new(dir: &Path, files: &[(String, String)], folder: &Path) -> Result<(), Stop> {
    refuse_taken(dir, files.iter().map(|(path, _)| path), folder)?;
    for (path, text) in files {
        let path = dir.join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            let mut file = fs::File::create_new(&path)?;
            io::Write::write_all(&mut file, text.as_bytes())
        });
        made.map_err(|error| Failure::error("output-failed", format!("cannot write \"{}\": {error}", path.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_pipelines::SourceFile;

    use super::*;

    #[test]
    fn the_example_is_a_pipeline_without_fault() {
        let (path, text) = FILES[2];
        let vocabulary = weir_connectors::vocabulary(&[], &[]);
        let pipeline = weir_pipelines::parse(SourceFile::new(path, text), PathBuf::from("pipelines/orders"), &[], vocabulary);
        let pipeline =
            pipeline.unwrap_or_else(|wrong| panic!("{}", crate::render::error::render_diagnostics(&wrong, crate::render::Style::PLAIN)));
        assert_eq!(pipeline.sinks.len(), 2);
        assert!(pipeline.warnings.is_empty(), "{:?}", pipeline.warnings);
    }

    #[test]
    fn the_example_project_file_is_read() {
        let (path, text) = FILES[0];
        assert!(weir_pipelines::Project::parse(SourceFile::new(path, text), PathBuf::from("."), None).is_ok());
    }

    #[test]
    fn nothing_is_overwritten_and_then_nothing_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join(".gitignore"), "mine\n").expect("is written");
        let Err(Stop::Failure(Failure::Diagnostics(wrong))) = write_new(dir.path(), &files(), dir.path()) else { panic!("is refused") };
        assert_eq!(wrong[0].message, "there is already: .gitignore");
        assert_eq!(fs::read_dir(dir.path()).expect("is read").count(), 1);
        assert_eq!(fs::read_to_string(dir.path().join(".gitignore")).expect("is read"), "mine\n");
    }
}
