//! Every page of the documentation is a project: its named blocks are files, its `$ weir` lines are run, in order. How: docs/README.md.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    project::{Project, Running, WEIR, repository},
    referee::python,
    servers::{Kind, Private},
};

/// A fenced block: its language, the file it is (where the line above says so), its text, and its line in the page.
struct Block {
    language: String,
    file: Option<String>,
    text: String,
    line: usize,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let (mut open, mut before) = (false, String::new());
    for (number, line) in page.lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            if !open {
                // "`orders/pipeline.toml`:" or "… in `weir.toml`:"
                let file = before.strip_suffix("`:").and_then(|text| text.rsplit('`').next()).map(str::to_owned);
                found.push(Block { language: language.trim().to_owned(), file, text: String::new(), line: number + 1 });
            }
            before.clear();
            open = !open;
        } else if open {
            let block = found.last_mut().expect("a block is open");
            block.text += line;
            block.text.push('\n');
        } else if !line.trim().is_empty() {
            before = line.trim().to_owned();
        }
    }
    assert!(!open, "a block is never closed");
    found
}

fn pages() -> Vec<PathBuf> {
    let root = repository();
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("ARCHITECTURE.md")];
    // docs/reference/ is generated; that what it says holds is checked where it is generated.
    pages.extend(
        crate::lake::files(&root.join("docs"))
            .into_iter()
            .filter(|page| page.extension().is_some_and(|e| e == "md") && !page.starts_with(root.join("docs/reference"))),
    );
    pages
}

/// Addresses on the pages that a test has no right to: it takes free ones.
const PORTS: [&str; 2] = ["127.0.0.1:8484", "127.0.0.1:5484"];

/// A server that a page has started, by the file with its process id; it is ended with the page.
struct Background(PathBuf);

impl Drop for Background {
    fn drop(&mut self) {
        let Ok(id) = fs::read_to_string(&self.0) else { return };
        if id.trim().parse::<u32>().is_ok() {
            let _ = std::process::Command::new("sh").arg("-c").arg(format!("kill -KILL {} 2> /dev/null", id.trim())).status();
        }
    }
}

/// The variables in which the pages keep the addresses of their servers.
fn addresses(private: Option<&Private>) -> Vec<(&'static str, String)> {
    private
        .map_or_else(Vec::new, |started| vec![("WAREHOUSE_URL", started.url(Kind::Postgres)), ("OLAP_URL", started.url(Kind::Clickhouse))])
}

/// Runs one page's blocks; returns how many files were checked and commands run.
fn walk(page: &Path) -> (usize, usize) {
    let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let project = Project::new();
    project.write("bin/.keep", "");
    std::os::unix::fs::symlink(WEIR, project.path("bin/weir")).unwrap();
    let (mut checked, mut run) = (0, 0);
    if let Some(python) = python() {
        // A link would not find its packages.
        project.write("bin/python3", format!("#!/bin/sh\nexec '{}' \"$@\"\n", python.display()));
        fs::set_permissions(project.path("bin/python3"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let _background = Background(project.path("serve.pid"));
    let mut private: Option<Option<Private>> = None;
    for block in blocks(&text) {
        let at = format!("{}:{}", page.display(), block.line);
        if let Some(file) = &block.file {
            let text = PORTS.iter().fold(block.text.clone(), |text, port| text.replace(port, "127.0.0.1:0"));
            project.write(file, text);
        }
        match block.language.as_str() {
            "toml" => {
                let file = block
                    .file
                    .unwrap_or_else(|| panic!("{at}: the line above a TOML block says which file it is: `orders/pipeline.toml`:"));
                // A case of the tests is no pipeline; weir.toml is checked with every pipeline that follows.
                if file.ends_with("pipeline.toml") {
                    // What follows the first block for servers may read from them.
                    if matches!(private, Some(None)) {
                        continue;
                    }
                    let mut check = project.command(&["check", &file]);
                    check.envs(addresses(private.as_ref().and_then(Option::as_ref)));
                    let outcome = Running::start(check).wait(Duration::from_secs(60));
                    assert_eq!(outcome.code, 0, "{at}: {outcome}");
                    checked += 1;
                } else {
                    let parsed: Result<toml::Table, _> = toml::from_str(&block.text);
                    assert!(parsed.is_ok(), "{at}: {parsed:?}");
                }
            }
            "json" => {
                let parsed: Result<serde_json::Value, _> = serde_json::from_str(&block.text);
                assert!(parsed.is_ok(), "{at}: {parsed:?}");
            }
            "console python" if python().is_none() => {}
            language @ ("console" | "console servers" | "console python") => {
                if language == "console servers" && private.get_or_insert_with(Private::start).is_none() {
                    continue;
                }
                let servers = addresses(private.as_ref().and_then(Option::as_ref));
                for line in block.text.lines().filter_map(|line| line.strip_prefix("$ ")) {
                    let (command, expected) = match line.rsplit_once("# exit ") {
                        Some((command, code)) => (command.trim(), code.trim().parse().expect("an exit code")),
                        None => (line, 0),
                    };
                    let path = format!("{}:{}", project.path("bin").display(), std::env::var("PATH").unwrap_or_default());
                    let mut shell = project.program("sh", &["-c", command]);
                    shell.env("PATH", path).envs(servers.iter().cloned());
                    let outcome = Running::start(shell).wait(Duration::from_secs(60));
                    assert_eq!(outcome.code, expected, "{at}: {outcome}");
                    run += 1;
                }
            }
            _ => {}
        }
    }
    (checked, run)
}

#[test]
fn every_page_does_what_it_says() {
    let (mut checked, mut run) = (0, 0);
    for page in pages() {
        let (a, b) = walk(&page);
        checked += a;
        run += b;
    }
    assert!(checked >= 5 && run >= 5, "the documentation shows {checked} pipelines and {run} commands: the blocks are not found");
}

#[test]
fn every_toml_block_is_as_weir_fmt_lays_it_out() {
    let project = Project::new();
    let mut files = Vec::new();
    for page in pages().into_iter().chain(crate::lake::files(&repository().join("docs/reference"))) {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in blocks(&text).into_iter().filter(|block| block.language == "toml") {
            let name = format!("{}-{}.toml", page.file_stem().unwrap().to_string_lossy(), block.line);
            project.write(&name, &block.text);
            files.push(name);
        }
    }
    assert!(files.len() >= 20, "the blocks are not found: {files:?}");
    let arguments: Vec<&str> = ["fmt", "--diff", "--check"].into_iter().chain(files.iter().map(String::as_str)).collect();
    project.ok(&arguments);
}

#[test]
fn every_link_inside_the_repository_leads_somewhere() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            assert!(page.parent().unwrap().join(path).exists(), "{}: no {path}", page.display());
        }
    }
}
