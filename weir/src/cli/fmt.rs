//! `weir fmt`: pipeline files and `weir.toml` in one style. What the style is, `weir_pipelines::format` knows.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use serde_json::{Value, json};
use weir_engine::Failure;
use weir_pipelines::{Diagnostic, Diagnostics, SourceFile};

use super::context::{Answer, Context, Stop, to_stderr};
use crate::{
    project,
    render::{diagnostic, diff, error, number::counted},
};

const EXAMPLES: &str = "\
Examples:
  weir fmt                          every pipeline of the project, the bases they extend, and its weir.toml
  weir fmt flights weir.toml        some, by name, folder or file
  weir fmt --check                  change nothing; exit 1 where a file would change
  weir fmt --diff                   change nothing; show what would change
  weir fmt - < pipeline.toml        from standard input to standard output, for editors

What is not TOML is said, left as it is, and exits 2.";

/// The argument that stands for standard input.
const STDIN: &str = "-";

/// Lay out pipeline files and weir.toml in one style
///
/// Makes spaces, blank lines and line breaks regular, in TOML and in the SQL inside. Comments, order and values stay as they were written, and
/// nothing is aligned, so that a change of one line stays one. Names the files that it changes. The style: docs/guides/formatting.md.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Fmt {
    /// Files, or pipelines by folder or name; - is standard input [default: all of the project]
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    files: Vec<String>,
    /// Write nothing; name the files that would change, and exit 1 where there are any
    #[arg(long)]
    check: bool,
    /// Write nothing; show what would change as a unified diff
    #[arg(long)]
    diff: bool,
}

/// A file that was formatted.
struct Formatted {
    file: Arc<SourceFile>,
    text: String,
}

impl Formatted {
    fn of(file: Arc<SourceFile>) -> Result<Self, Diagnostics> {
        let text = weir_pipelines::format(&file)?;
        Ok(Self { file, text })
    }

    fn is_changed(&self) -> bool {
        self.file.text != self.text
    }
}

impl Fmt {
    /// Formats and answers.
    pub fn answer(self, context: &Context) -> Answer {
        let from_stdin = self.files.iter().any(|file| file == STDIN);
        if from_stdin && self.files.len() > 1 {
            return Err(Diagnostic::error("usage", "standard input is formatted on its own").help("leave out the other files").into());
        }
        let mut wrong = Diagnostics::new();
        let mut formatted = Vec::new();
        let mut failures: Vec<Failure> = Vec::new();
        let mut left = 0;
        if from_stdin {
            match read_stdin()?.map_err(|wrong| vec![wrong]).and_then(Formatted::of) {
                Ok(one) => formatted.push(one),
                Err(found) => wrong.extend(found),
            }
        } else {
            for path in self.paths(context, &mut wrong)? {
                let read = project::read(&path, &context.folder).map_err(|wrong| vec![wrong]);
                let one = match read.and_then(Formatted::of) {
                    Ok(one) => one,
                    Err(found) => {
                        left += 1;
                        wrong.extend(found);
                        continue;
                    }
                };
                if one.is_changed()
                    && !self.check
                    && !self.diff
                    && let Err(failure) = project::replace(&path, &one.file.text, &one.text)
                {
                    left += 1;
                    failures.push(failure);
                    continue;
                }
                formatted.push(one);
            }
        }
        if context.global.json {
            let files: Vec<Value> = formatted.iter().map(|one| self.to_json(one, from_stdin)).collect();
            let wrong: Vec<Value> = wrong.iter().map(diagnostic::to_json).collect();
            let failures: Vec<Value> = failures.iter().map(|failure| error::to_json(failure)["error"].take()).collect();
            context.answer_json(&json!({ "files": files, "diagnostics": wrong, "errors": failures }))?;
        } else {
            self.show(context, &formatted, from_stdin)?;
            if !wrong.is_empty() {
                to_stderr(error::render_diagnostics(&wrong, context.talk).trim_end_matches('\n'));
            }
            failures.iter().for_each(|failure| context.show(failure));
        }
        if !from_stdin {
            self.sum_up(context, &formatted, left);
        }
        Ok(match () {
            () if !wrong.is_empty() => error::WRONG,
            () if !failures.is_empty() => error::FAILED,
            () if self.check && formatted.iter().any(Formatted::is_changed) => error::FAILED,
            () => error::DONE,
        })
    }

    /// The files that are meant, each once; what cannot be found is taken note of.
    fn paths(&self, context: &Context, wrong: &mut Diagnostics) -> Result<Vec<PathBuf>, Stop> {
        let mut paths: Vec<PathBuf> = Vec::new();
        if self.files.is_empty() {
            let root = context.root(None)?;
            paths = project_files(&root);
            if paths.is_empty() {
                let message = format!("there are no pipelines in {} and its pipelines/ folder, and no weir.toml", root.display());
                return Err(Diagnostic::error("no-pipelines", message).help("name a file by its path").into());
            }
        }
        for argument in &self.files {
            let folder = project::absolute(Path::new(argument), &context.folder);
            if folder.join(project::PROJECT_FILE).is_file() {
                paths.extend(project_files(&folder));
                continue;
            }
            match project::find_pipelines(argument, &context.root(Some(argument))?, &context.folder) {
                Ok(found) => paths.push(found[0].path.clone()),
                Err(found) => wrong.push(found),
            }
        }
        let mut seen = std::collections::HashSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        Ok(paths)
    }

    fn show(&self, context: &Context, formatted: &[Formatted], from_stdin: bool) -> Result<(), Stop> {
        for one in formatted {
            if self.diff {
                context.answer(&diff::unified(&one.file.path, &one.file.text, &one.text, context.out))?;
            } else if from_stdin && !self.check {
                context.answer(&one.text)?;
            } else if one.is_changed() {
                context.answer(&format!("{}\n", one.file.path))?;
            }
        }
        Ok(())
    }

    /// Says how many files came to what.
    fn sum_up(&self, context: &Context, formatted: &[Formatted], left: u64) {
        let changed = formatted.iter().filter(|one| one.is_changed()).count() as u64;
        let kept = formatted.len() as u64 - changed;
        let (one, several) = if self.check || self.diff { ("would change", "would change") } else { ("was changed", "were changed") };
        let counts = [(changed, one, several), (kept, "is in style", "are in style"), (left, "is left as it is", "are left as they are")];
        let mut words: Vec<String> = Vec::new();
        for (count, one, several) in counts.into_iter().filter(|(count, ..)| *count > 0) {
            let noun = if words.is_empty() { ["file ", "files "] } else { ["", ""] };
            words.push(counted(count, &format!("{}{one}", noun[0]), &format!("{}{several}", noun[1])));
        }
        if !words.is_empty() {
            context.say(&words.join(", "));
        }
    }

    fn to_json(&self, one: &Formatted, from_stdin: bool) -> Value {
        let mut value = json!({ "path": one.file.path, "changed": one.is_changed() });
        if self.diff {
            value["diff"] = json!(diff::unified(&one.file.path, &one.file.text, &one.text, crate::render::Style::PLAIN));
        } else if from_stdin && !self.check {
            value["text"] = json!(one.text);
        }
        value
    }
}

/// `weir.toml`, the pipelines of a project, and the bases that they extend.
fn project_files(root: &Path) -> Vec<PathBuf> {
    let mut files = project::pipelines(root);
    let bases: Vec<PathBuf> = files.iter().flat_map(|path| project::bases(path)).filter(|base| base.starts_with(root)).collect();
    files.extend(bases);
    files.extend(Some(root.join(project::PROJECT_FILE)).filter(|path| path.is_file()));
    files.sort();
    files.dedup();
    files
}

fn read_stdin() -> Result<Result<Arc<SourceFile>, Diagnostic>, Stop> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Stop::from(Diagnostic::error("file-unreadable", format!("cannot read standard input: {error}"))))?;
    Ok(project::text("stdin".to_owned(), bytes))
}
