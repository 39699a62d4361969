//! How long does it take to read and to check one pipeline, that of the flights: five sources, four transforms, four expectations, two sinks and
//! four tests? Its contracts have been compiled, as they have in a check of many pipelines; nothing is run, and no system outside is asked.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use criterion::{BatchSize, Criterion, criterion_group};
use weir::{
    cli::context,
    project::{self, Found},
};
use weir_engine::{
    Workspace,
    check::{Checker, Depth},
};

/// The stacks of the command's threads.
const STACK_BYTES: usize = 8 << 20;

fn plan(criterion: &mut Criterion) {
    let root = project::absolute(Path::new(".."), Path::new(env!("CARGO_MANIFEST_DIR")));
    let found = Found { path: root.join("pipelines/flights/pipeline.toml"), row: None };
    let project = project::read_project(&root, &root, None).expect("the repository is a project");
    let mut workspace = Workspace::new(project, HashMap::new(), project::machine(), chrono::Utc::now);
    // What runs have left here says nothing about the time a check takes.
    workspace.state_dir = nowhere();
    workspace.lake = nowhere().join("lake").display().to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build().expect("a runtime");
    let checker = runtime.block_on(Checker::new(workspace, true)).expect("there is no state");
    let read = || context::parse_partial(&checker.workspace.project, &found, &root, &context::Set::default()).expect("the file is read");
    let check = |partial| runtime.block_on(checker.check(partial, Depth::Files)).expect("the state is read");
    let partial = read();
    let outcome = check(partial.clone());
    assert!(outcome.checked.is_some(), "{:?}", outcome.diagnostics);

    let mut group = criterion.benchmark_group("plan");
    group.bench_function("read", |bencher| bencher.iter(read));
    group.sample_size(20);
    group.bench_function("check", |bencher| bencher.iter_batched(|| partial.clone(), check, BatchSize::PerIteration));
    group.finish();
}

/// A folder that is not there, and that nothing makes: a check writes nothing.
fn nowhere() -> PathBuf {
    std::env::temp_dir().join(format!("weir-benches-plan-{}", std::process::id()))
}

criterion_group!(benches, plan);
