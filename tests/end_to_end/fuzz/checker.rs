//! The checker: pipelines of the cases beside their inputs and contracts, read, planned and checked as `weir check` does. Files only: nothing that
//! names a server or a command.

use std::{collections::HashMap, fs, sync::Arc};

use tokio::runtime::Runtime;
use weir::{
    cli::context,
    project::{self, Found},
};
use weir_engine::{
    check::{Checker, Depth},
    workspace::Workspace,
};

use super::{STACK_BYTES, Target, Verdict, told};
use crate::project::{Project, copy, repository};

/// What no input may say: a check would ask others, run a program, or look outside its folder.
const ELSEWHERE: [&str; 8] = ["://", "command", "..", "\"/", "'/", "\"~", "connection", "env"];

/// Which file of a world is written anew.
#[derive(Clone, Copy)]
enum Which {
    Pipeline,
    Contract,
}

pub struct Checking {
    runtime: Runtime,
    /// Each a copy of a case, the file that is written anew, and its own text.
    worlds: Vec<(Arc<Project>, String, Which, String)>,
}

impl Checking {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().thread_stack_size(STACK_BYTES).build();
        let mut worlds = Vec::new();
        let mut cases: Vec<_> = fs::read_dir(repository().join("tests/cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
        cases.sort();
        for case in cases {
            let Ok(text) = fs::read_to_string(case.join("pipeline.toml")) else { continue };
            if ELSEWHERE.iter().any(|word| text.contains(word)) || case.join("weir.toml").exists() {
                continue;
            }
            let world = Project::new();
            copy(&case, world.root());
            world.write("weir.toml", "");
            let world = Arc::new(world);
            worlds.push((world.clone(), "pipeline.toml".to_owned(), Which::Pipeline, text));
            for entry in fs::read_dir(&case).unwrap() {
                let name = entry.unwrap().file_name().to_string_lossy().into_owned();
                if name.ends_with(".schema.json") {
                    let text = fs::read_to_string(case.join(&name)).unwrap();
                    worlds.push((world.clone(), name, Which::Contract, text));
                }
            }
        }
        Self { runtime: runtime.unwrap(), worlds }
    }
}

impl Target for Checking {
    fn name(&self) -> &'static str {
        "checker"
    }

    fn seeds(&self) -> Vec<String> {
        self.worlds.iter().map(|(.., text)| text.clone()).collect()
    }

    fn take(&mut self, world: usize, text: &str) -> Verdict {
        if ELSEWHERE.iter().any(|word| text.contains(word)) {
            return Ok("elsewhere".into());
        }
        let (project, name, which, own) = &self.worlds[world];
        project.write(name, text);
        let root = project.root().to_path_buf();
        let checked = self.runtime.block_on(async {
            let read = project::read_project(&root, &root, None).expect("weir.toml is empty");
            let workspace = Workspace::new(read, HashMap::new(), project::machine(), chrono::Utc::now);
            let checker = Checker::new(workspace, false).await.expect("there is no state");
            let partial = match context::parse_partial(
                &checker.workspace.project,
                &Found { path: root.join("pipeline.toml"), row: None },
                &root,
                &context::Set::default(),
            ) {
                Ok(partial) => partial,
                Err(found) => return Ok((found, false, 0)),
            };
            let outcome = checker.check(partial, Depth::Files).await?;
            Ok::<_, weir_engine::Failure>((outcome.diagnostics, outcome.checked.is_some(), outcome.outside.len()))
        });
        if matches!(which, Which::Contract) {
            project.write(name, own);
        }
        let (found, is_right, outside) = match checked {
            Ok(checked) => checked,
            Err(failure) => return Err(format!("the check itself fails: {failure:?}")),
        };
        let errors = found.iter().filter(|one| one.severity == weir_pipelines::Severity::Error).count();
        if is_right == (errors > 0) {
            return Err(format!("right: {is_right}, with {errors} errors"));
        }
        if found.iter().any(|one| one.code == "panic") {
            return Err(format!("a panic inside\n{found:?}"));
        }
        Ok(format!("{} {outside}", told(&found)?))
    }
}
