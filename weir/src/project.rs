//! Where things are: the project's root, its pipelines, how a file is read and replaced, and what the machine and the environment offer.
//! The only place that reads environment, `/proc` and cgroups; what the files say is `weir-pipelines`' to read.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use weir_engine::{Failure, workspace::Machine};
use weir_pipelines::{Diagnostic, Diagnostics, Layers, PartialProject, Project, Saved, SourceFile};

/// The file that marks a project's root.
pub const PROJECT_FILE: &str = "weir.toml";
/// The name of a pipeline's file in its own folder; `NAME.pipeline.toml` is the other form.
pub const PIPELINE_FILE: &str = "pipeline.toml";
/// The folder of saved queries, in the root.
const QUERIES_FOLDER: &str = "queries";
/// Folders below the root's `pipelines/` that are looked into.
const DEPTH_MAX: usize = 8;
/// Memory assumed where the system does not say.
const MEMORY_UNKNOWN_BYTES: u64 = 8 << 30;

/// Returns the nearest folder from `start` upwards that holds `weir.toml`.
pub fn find_root(start: &Path) -> Option<PathBuf> {
    start.ancestors().find(|folder| folder.join(PROJECT_FILE).is_file()).map(Path::to_path_buf)
}

/// Makes a path absolute and free of `.` and `..`, without asking whether it exists.
pub fn absolute(path: &Path, folder: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// A path as a person who stands in `folder` would write it.
pub fn shown(path: &Path, folder: &Path) -> String {
    let short = path.strip_prefix(folder).ok().filter(|rest| !rest.as_os_str().is_empty());
    short.unwrap_or(path).display().to_string()
}

/// Reads a text that a person wrote, under the name that messages will show.
pub fn read(path: &Path, folder: &Path) -> Result<Arc<SourceFile>, Diagnostic> {
    let name = shown(path, folder);
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Diagnostic::error("file-missing", format!("there is no file \"{name}\"")),
        _ => Diagnostic::error("file-unreadable", format!("cannot read \"{name}\": {error}")),
    })?;
    text(name, bytes)
}

/// What a person wrote, as text, under the name that messages will show.
pub fn text(name: String, bytes: Vec<u8>) -> Result<Arc<SourceFile>, Diagnostic> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile::new(name, text)),
        Err(error) => {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(Diagnostic::error("not-text", format!("\"{name}\" is not UTF-8 text (line {line})")).help("save the file as UTF-8"))
        }
    }
}

/// Puts a file's new text in the place of the old one, whole or not at all.
pub fn replace(path: &Path, old: &str, new: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::error("output-failed", format!("cannot write \"{}\": {error}", path.display()));
    // Through a link, the file it points at is meant.
    let path = fs::canonicalize(path).map_err(failed)?;
    if fs::read_to_string(&path).map_err(failed)? != old {
        return Err(Failure::error(
            "changed-meanwhile",
            format!("\"{}\" was changed in the meantime; it is left as it is", path.display()),
        )
        .help("do it again"));
    }
    let folder = path.parent().expect("a file stands in a folder");
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = fs::File::create(&temporary)?;
        file.set_permissions(fs::metadata(&path)?.permissions())?;
        file.write_all(new.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(error)
    })
}

/// Reads the project at `root`; one without `weir.toml` is bare.
pub fn read_project(root: &Path, folder: &Path, profile: Option<&str>) -> Result<Project, Vec<Diagnostic>> {
    let PartialProject { project, found, .. } = read_partial_project(root, folder, profile);
    if found.is_empty() { Ok(project) } else { Err(found) }
}

/// Reads the project at `root` as [`read_project`] does, and hands on what is whole of a wrong one too.
pub fn read_partial_project(root: &Path, folder: &Path, profile: Option<&str>) -> PartialProject {
    let path = root.join(PROJECT_FILE);
    let found = if path.is_file() {
        match read(&path, folder) {
            Ok(file) => return Project::parse_partial(file, root.to_path_buf(), profile),
            Err(unreadable) => vec![unreadable],
        }
    } else if let Some(profile) = profile {
        vec![
            Diagnostic::error("unknown-profile", format!("there is no profile \"{profile}\": {} has no weir.toml", root.display()))
                .help("stand in the project's folder, or name it with --project"),
        ]
    } else {
        return PartialProject { project: Project::bare(root.to_path_buf()), found: Vec::new(), follow_on: Vec::new() };
    };
    let follow_on = vec!["unknown-connection", "unknown-profile", "unknown-table"];
    PartialProject { project: Project::bare(root.to_path_buf()), found, follow_on }
}

/// Lists the project's pipeline files, sorted: `pipeline.toml` and `*.pipeline.toml` in the root and below `pipelines/`.
/// What lies below a folder with a `pipeline.toml` is that pipeline's own and not looked into.
pub fn pipelines(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files_of(root, &mut found);
    walk(&root.join("pipelines"), 0, &mut found);
    found.sort();
    found.dedup();
    found
}

fn is_pipeline_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    (name == PIPELINE_FILE || name.ends_with(".pipeline.toml")) && path.is_file()
}

fn files_of(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    found.extend(entries.map(|entry| entry.path()).filter(|path| is_pipeline_file(path)));
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    files_of(folder, found);
    if depth >= DEPTH_MAX || folder.join(PIPELINE_FILE).is_file() {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // A link could lead round in a circle; a person who wants one names the pipeline by its path.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && !entry.file_name().to_string_lossy().starts_with('.') {
            walk(&entry.path(), depth + 1, found);
        }
    }
}

/// The name a pipeline goes by: its `name` key, else what its path calls it.
pub fn name_of(path: &Path) -> String {
    let written = fs::read_to_string(path).ok().and_then(|text| {
        let (table, _) = toml::de::DeTable::parse_recoverable(&text);
        table.get_ref().get("name").and_then(|name| name.get_ref().as_str().map(str::to_owned))
    });
    written.unwrap_or_else(|| path_name(path))
}

fn path_name(path: &Path) -> String {
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    match file.strip_suffix(".pipeline.toml") {
        Some(name) => name.to_owned(),
        None => path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
    }
}

/// A pipeline: its file, and the row of its matrix where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// The row.
    pub row: Option<String>,
}

impl Found {
    /// The name that the pipeline goes by.
    pub fn name(&self) -> String {
        let name = name_of(&self.path);
        self.row.as_ref().map_or_else(|| name.clone(), |row| weir_pipelines::row_name(&name, row))
    }
}

/// The pipelines that a file is: one, or one for each row of its matrix.
pub fn rows(path: &Path) -> Vec<Found> {
    let found = |row: Option<String>| Found { path: path.to_path_buf(), row };
    let rows = layers(path, path.parent().unwrap_or(path)).map(|layers| weir_pipelines::rows(&layers)).unwrap_or_default();
    if rows.is_empty() { vec![found(None)] } else { rows.into_iter().map(|row| found(Some(row))).collect() }
}

/// A file by which it is known again, however it is named.
struct Known {
    path: PathBuf,
    real: PathBuf,
}

impl Known {
    fn new(path: PathBuf) -> Self {
        Self { real: fs::canonicalize(&path).unwrap_or_else(|_| path.clone()), path }
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.real == other.real
    }
}

/// Reads a pipeline file and the bases that it extends, under the names that messages will show.
pub fn layers(path: &Path, folder: &Path) -> Result<Layers, Diagnostic> {
    let file = read(path, folder)?;
    Ok(Layers::gather(file, Known::new(path.to_path_buf()), |written, from| {
        let path = absolute(Path::new(written), from.path.parent().unwrap_or(folder));
        let base = read(&path, folder).map_err(|found| found.message);
        (Known::new(path), base)
    }))
}

/// The bases that a pipeline file extends.
pub fn bases(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(path);
    let names = layers(path, folder).map(|layers| layers.file.parts()).unwrap_or_default();
    names.iter().skip(1).map(|(_, base)| absolute(Path::new(&base.path), folder)).collect()
}

/// Finds the one pipeline that an argument means.
pub fn find_pipeline(argument: &str, root: &Path, folder: &Path) -> Result<Found, Diagnostic> {
    let mut found = find_pipelines(argument, root, folder)?;
    if found.len() == 1 {
        return Ok(found.remove(0));
    }
    let names: Vec<String> = found.iter().map(Found::name).collect();
    let message = format!("\"{argument}\" is several pipelines, one for each row of its matrix: {}", names.join(", "));
    Err(Diagnostic::error("ambiguous-pipeline", message).help("name one of them"))
}

/// Finds the pipelines that an argument means: those of a file, of a folder with `pipeline.toml`, or of that name in the project. A file with a
/// matrix is a pipeline for each row.
pub fn find_pipelines(argument: &str, root: &Path, folder: &Path) -> Result<Vec<Found>, Diagnostic> {
    let path = absolute(Path::new(argument), folder);
    if path.is_file() {
        return Ok(rows(&path));
    }
    let inner = path.join(PIPELINE_FILE);
    if inner.is_file() {
        return Ok(rows(&inner));
    }
    let mut known: Vec<(String, Vec<Found>)> = Vec::new();
    for path in pipelines(root) {
        let rows = rows(&path);
        known.push((name_of(&path), rows.clone()));
        known.extend(rows.into_iter().filter(|found| found.row.is_some()).map(|found| (found.name(), vec![found])));
    }
    let called =
        |is: &dyn Fn(&(String, Vec<Found>)) -> bool| known.iter().filter(|one| is(one)).map(|(_, found)| found).collect::<Vec<_>>();
    let mut named = called(&|(name, _)| name == argument);
    if named.is_empty() {
        named = called(&|(name, found)| path_name(&found[0].path) == argument && *name == name_of(&found[0].path));
    }
    match named.as_slice() {
        [one] => return Ok((*one).clone()),
        [] => {}
        several => {
            let list = several.iter().map(|found| shown(&found[0].path, folder)).collect::<Vec<_>>().join(", ");
            return Err(Diagnostic::error("ambiguous-pipeline", format!("several pipelines are called \"{argument}\": {list}"))
                .help("name one by its path"));
        }
    }
    if path.is_dir() {
        let name = shown(&path, folder);
        return Err(Diagnostic::error("file-missing", format!("the folder \"{name}\" holds no {PIPELINE_FILE}"))
            .help("name the pipeline's file, or make one with: weir new NAME"));
    }
    let missing = Diagnostic::error("unknown-pipeline", format!("there is no pipeline, file or folder \"{argument}\""))
        .did_you_mean(argument, known.iter().map(|(name, _)| name.as_str()));
    Err(if known.is_empty() {
        missing.help(format!("no pipelines were found in {} and its pipelines/ folder; make one with: weir new NAME", root.display()))
    } else {
        let names = known.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        missing.help(format!("the project's pipelines are: {names}"))
    })
}

/// Reads the project's saved queries, `queries/*.sql`, and says what is wrong with the files of others. They are named as somebody who stands in
/// `folder` would write them.
pub fn saved(root: &Path, folder: &Path) -> (Vec<Saved>, Diagnostics) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root.join(QUERIES_FOLDER)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql") && path.is_file());
    paths.sort();
    let (mut files, mut wrong) = (Vec::new(), Diagnostics::new());
    for path in paths {
        match read(&path, folder) {
            Ok(file) => files.push(file),
            Err(unreadable) => wrong.push(unreadable),
        }
    }
    let (saved, found) = Saved::parse_all(&files);
    wrong.extend(found);
    (saved, wrong)
}

/// The environment as text; variables that are not UTF-8 are left out, for no setting can name them.
pub fn environment() -> HashMap<String, String> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// What this machine is called.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "server".to_owned() } else { name.trim().to_owned() }
}

/// What the machine, or the container around this process, offers.
pub fn machine() -> Machine {
    Machine { memory_bytes: memory_bytes(Path::new("/")), cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get) }
}

/// The least of the machine's memory and the limits of the cgroups (v1 and v2) around this process. `system` is `/` but in tests.
fn memory_bytes(system: &Path) -> u64 {
    let machine = fs::read_to_string(system.join("proc/meminfo")).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    });
    let groups = fs::read_to_string(system.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits: Vec<u64> = machine.into_iter().collect();
    for line in groups.lines() {
        // `0::/path` is version 2, `9:cpu,memory:/path` version 1.
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (mount, file) = match (number, controllers.split(',').any(|name| name == "memory")) {
            ("0", _) if controllers.is_empty() => ("sys/fs/cgroup", "memory.max"),
            (_, true) => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // In a container the path may be the host's: then only the mount's root is there, and it is this group.
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            let text = fs::read_to_string(system.join(mount).join(folder).join(file)).unwrap_or_default();
            limits.extend(text.trim().parse::<u64>().ok());
        }
    }
    limits.into_iter().filter(|limit| *limit > 0).min().unwrap_or(MEMORY_UNKNOWN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("has a folder")).expect("a folder is made");
        fs::write(path, text).expect("a file is written");
    }

    fn project() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder for the test");
        write(root.path(), "weir.toml", "");
        write(root.path(), "pipelines/flights/pipeline.toml", "weir = 1\nname = \"air\"\n");
        write(root.path(), "pipelines/flights/data/deep/pipeline.toml", "name = \"data\"\n");
        write(root.path(), "pipelines/shop/orders.pipeline.toml", "weir = 1\n[[broken\n");
        write(root.path(), "pipelines/shop/readme.toml", "");
        write(root.path(), "pipelines/.hidden/pipeline.toml", "");
        root
    }

    #[test]
    fn the_root_is_found_upwards() {
        let root = project();
        assert_eq!(find_root(&root.path().join("pipelines/flights/data")), Some(root.path().to_path_buf()));
        assert_eq!(find_root(Path::new("/")), None);
    }

    #[test]
    fn pipelines_are_found_but_not_in_a_pipelines_own_data() {
        let root = project();
        let found: Vec<String> = pipelines(root.path()).iter().map(|path| shown(path, root.path())).collect();
        assert_eq!(found, ["pipelines/flights/pipeline.toml", "pipelines/shop/orders.pipeline.toml"]);
    }

    #[test]
    fn a_pipeline_is_found_by_file_folder_and_name() {
        let root = project();
        let folder = root.path().join("pipelines");
        let flights = folder.join("flights/pipeline.toml");
        for argument in ["flights/pipeline.toml", "flights", "./flights/", "air", "../pipelines/flights"] {
            assert_eq!(find_pipeline(argument, root.path(), &folder), Ok(alone(&flights)), "{argument}");
        }
        assert_eq!(find_pipeline("orders", root.path(), &folder), Ok(alone(&folder.join("shop/orders.pipeline.toml"))));
        // The folder's name does from anywhere, though the file calls itself otherwise.
        assert_eq!(find_pipeline("flights", root.path(), Path::new("/")), Ok(alone(&flights)));
    }

    fn alone(path: &Path) -> Found {
        Found { path: path.to_path_buf(), row: None }
    }

    #[test]
    fn a_file_with_a_matrix_is_a_pipeline_for_each_row() {
        let root = project();
        write(root.path(), "pipelines/base.toml", "matrix = [{ name = \"eu\" }, { name = \"us\" }]\n");
        write(root.path(), "pipelines/regions/pipeline.toml", "name = \"sales\"\nextends = \"../base.toml\"\n");
        let path = root.path().join("pipelines/regions/pipeline.toml");
        let row = |name: &str| Found { path: path.clone(), row: Some(name.to_owned()) };
        for argument in ["sales", "regions", "pipelines/regions"] {
            assert_eq!(find_pipelines(argument, root.path(), root.path()), Ok(vec![row("eu"), row("us")]), "{argument}");
        }
        assert_eq!(find_pipeline("sales-us", root.path(), root.path()), Ok(row("us")));
        let error = find_pipeline("sales", root.path(), root.path()).expect_err("two are meant");
        assert_eq!(error.message, "\"sales\" is several pipelines, one for each row of its matrix: sales-eu, sales-us");
        let error = find_pipelines("sales-uk", root.path(), root.path()).expect_err("there is none");
        assert_eq!(error.help[0], "did you mean \"sales-us\"?");
        // A base is no pipeline.
        let found: Vec<String> = pipelines(root.path()).iter().map(|path| shown(path, root.path())).collect();
        assert!(!found.contains(&"pipelines/base.toml".to_owned()), "{found:?}");
        assert_eq!(bases(&path), [root.path().join("pipelines/base.toml")]);
    }

    #[test]
    fn an_unknown_pipeline_is_answered_with_the_known_ones() {
        let root = project();
        let error = find_pipeline("ordrs", root.path(), root.path()).expect_err("there is none");
        assert_eq!(error.message, "there is no pipeline, file or folder \"ordrs\"");
        assert_eq!(error.help, ["did you mean \"orders\"?", "the project's pipelines are: air, orders"]);
        let error = find_pipeline("pipelines/shop", root.path(), root.path()).expect_err("no pipeline.toml");
        assert_eq!(error.message, "the folder \"pipelines/shop\" holds no pipeline.toml");
    }

    #[test]
    fn two_pipelines_of_one_name_are_told_apart_by_path() {
        let root = project();
        write(root.path(), "pipelines/other/pipeline.toml", "name = \"air\"\n");
        let error = find_pipeline("air", root.path(), root.path()).expect_err("two are called so");
        assert_eq!(error.message, "several pipelines are called \"air\": pipelines/flights/pipeline.toml, pipelines/other/pipeline.toml");
    }

    #[test]
    fn files_that_are_missing_or_no_text_are_said_to_be() {
        let root = project();
        fs::write(root.path().join("x.toml"), b"a = 1\nb = \"\xff\"\n").expect("written");
        let error = read(&root.path().join("x.toml"), root.path()).expect_err("not text");
        assert_eq!(error.message, "\"x.toml\" is not UTF-8 text (line 2)");
        let error = read(&root.path().join("y.toml"), root.path()).expect_err("missing");
        assert_eq!(error.message, "there is no file \"y.toml\"");
    }

    #[test]
    fn a_profile_needs_a_project_file() {
        let root = tempfile::tempdir().expect("a folder");
        assert!(read_project(root.path(), root.path(), None).is_ok());
        let errors = read_project(root.path(), root.path(), Some("prod")).expect_err("no weir.toml");
        assert_eq!(errors[0].code, "unknown-profile");
    }

    #[test]
    fn memory_is_the_least_of_machine_and_cgroups() {
        let system = tempfile::tempdir().expect("a folder");
        assert_eq!(memory_bytes(system.path()), MEMORY_UNKNOWN_BYTES);
        write(system.path(), "proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\n");
        assert_eq!(memory_bytes(system.path()), 16_384_000 * 1024);
        write(system.path(), "proc/self/cgroup", "0::/a/b\n");
        write(system.path(), "sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(memory_bytes(system.path()), 16_384_000 * 1024);
        write(system.path(), "sys/fs/cgroup/a/memory.max", "1073741824\n");
        assert_eq!(memory_bytes(system.path()), 1 << 30);
        write(system.path(), "proc/self/cgroup", "12:cpu:/x\n9:hugetlb,memory:/docker/abc\n");
        write(system.path(), "sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
        assert_eq!(memory_bytes(system.path()), 512 << 20);
        write(system.path(), "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(memory_bytes(system.path()), 16_384_000 * 1024);
    }

    #[test]
    fn a_file_that_was_changed_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.toml");
        fs::write(&path, "new").expect("written");
        let Failure::Error(error) = replace(&path, "old", "old and more").expect_err("refuses") else { panic!("an error") };
        assert_eq!(error.code, "changed-meanwhile");
        replace(&path, "new", "new and more").expect("writes");
        assert_eq!(fs::read_to_string(&path).expect("is there"), "new and more");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1, "no other file is left");
    }
}
