//! What editors say of the files a person writes: taplo and tombi, with the generated schemas, over the shipped files, the cases, and each key misspelt.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    lake::files,
    project::{Project, repository},
    referee::python,
};

/// Codes of mistakes that a schema can tell; besides, values of a type that no column has to say.
const OF_A_SCHEMA: [&str; 5] = ["unknown-key", "unknown-kind", "missing-kind", "two-kinds", "missing-key"];

/// Tables whose keys are a person's own words.
const FREE: [&str; 8] = ["[test.given", "[test.expect", "[test.quarantine", ".cast]", ".rename]", "[alert", "[params]", "[[matrix]]"];

/// The two programs, where `./test` put them.
struct Editors {
    taplo: PathBuf,
    tombi: PathBuf,
    folder: Project,
}

/// What each of them answered; nothing where all is well.
#[derive(Debug)]
struct Said {
    taplo: String,
    tombi: String,
}

impl Editors {
    fn new() -> Option<Self> {
        let python = python()?;
        let folder = Project::new();
        for schema in ["pipeline.schema.json", "project.schema.json"] {
            folder.write(&format!("schemas/{schema}"), fs::read(repository().join("schemas").join(schema)).unwrap());
        }
        let program = |name: &str| python.parent().unwrap().join(name);
        Some(Self { taplo: program("taplo"), tombi: program("tombi"), folder })
    }

    /// Both on one file; `schema` is "pipeline" or "project".
    fn said(&self, text: &str, schema: &str) -> Said {
        let text = text.strip_prefix("#:schema").and_then(|rest| rest.split_once('\n')).map_or(text, |(_, rest)| rest);
        self.folder.write("file.toml", format!("#:schema schemas/{schema}.schema.json\n{text}"));
        let ask = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).arg("file.toml").current_dir(self.folder.root()).output();
            let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            if output.status.success() { String::new() } else { said }
        };
        Said {
            taplo: ask(&self.taplo, &["check", "--no-auto-config"]),
            tombi: ask(&self.tombi, &["lint", "--offline", "--no-cache", "--error-on-warnings"]),
        }
    }

    fn pass(&self, path: &Path) {
        let said = self.said(&fs::read_to_string(path).unwrap(), schema_of(path));
        assert!(said.taplo.is_empty() && said.tombi.is_empty(), "{}: {said:#?}", path.display());
    }
}

fn schema_of(path: &Path) -> &'static str {
    if path.ends_with("weir.toml") { "project" } else { "pipeline" }
}

fn is_wrong(case: &Path) -> bool {
    let name = case.file_name().unwrap().to_string_lossy();
    name.starts_with("wrong_") || name.starts_with("five_mistakes_")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(repository().join("tests/cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

/// The pipeline files and weir.toml below a folder.
fn written(folder: &Path) -> Vec<PathBuf> {
    files(folder).into_iter().filter(|path| path.ends_with("pipeline.toml") || path.ends_with("weir.toml")).collect()
}

/// All that is right: shipped, made by `weir init`, and in the cases.
fn right() -> Vec<PathBuf> {
    let root = repository();
    let mut right = written(&root.join("pipelines"));
    right.push(root.join("weir.toml"));
    right.extend(cases().iter().filter(|case| !is_wrong(case)).flat_map(|case| written(case)));
    right
}

#[test]
fn taplo_and_tombi_pass_every_right_file() {
    let Some(editors) = Editors::new() else { return };
    let right = right();
    assert!(right.len() > 120, "{}", right.len());
    right.iter().for_each(|path| editors.pass(path));
    let made = Project::new();
    made.ok(&["init", "shop"]);
    let made = written(&made.path("shop"));
    assert_eq!(made.len(), 2, "{made:?}");
    made.iter().for_each(|path| editors.pass(path));
}

#[test]
fn taplo_and_tombi_flag_the_wrong_files_that_a_schema_can_tell() {
    let Some(editors) = Editors::new() else { return };
    let mut flagged = 0;
    for case in cases().iter().filter(|case| is_wrong(case)) {
        let project = Project::copy_of(case);
        let checked = project.weir(&["check", "--json"]).json();
        for path in written(project.root()) {
            let name = path.strip_prefix(project.root()).unwrap().to_string_lossy().into_owned();
            let told = checked["diagnostics"].as_array().unwrap().iter().filter(|one| one["labels"][0]["file"] == name.as_str());
            let of_a_schema = |one: &Value| {
                let (code, message) = (one["code"].as_str().unwrap(), one["message"].as_str().unwrap());
                OF_A_SCHEMA.contains(&code) || code == "wrong-type" && message.starts_with("expected")
            };
            if !told.into_iter().any(of_a_schema) {
                continue;
            }
            let said = editors.said(&fs::read_to_string(&path).unwrap(), schema_of(&path));
            assert!(!said.taplo.is_empty() && !said.tombi.is_empty(), "{}: {said:#?}", case.join(name).display());
            flagged += 1;
        }
    }
    assert!(flagged >= 12, "{flagged}");
}

#[test]
fn taplo_and_tombi_flag_a_misspelt_key() {
    let Some(editors) = Editors::new() else { return };
    // One file for each key of each kind of table.
    let mut misspelt: BTreeMap<(String, String), (PathBuf, String)> = BTreeMap::new();
    for path in right() {
        let text = fs::read_to_string(&path).unwrap();
        let (mut table, mut in_text) = (String::new(), false);
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let (at, opens) = (start, line.matches("\"\"\"").count() + line.matches("'''").count());
            start += line.len();
            let was_in_text = in_text;
            in_text ^= opens % 2 == 1;
            if was_in_text || line.starts_with(' ') {
                continue;
            }
            if line.starts_with('[') {
                line.trim().clone_into(&mut table);
                continue;
            }
            let Some((key, _)) = line.split_once(" = ") else { continue };
            let is_plain = key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.');
            if !is_plain
                || FREE.iter().any(|free| table.contains(free))
                || ["cast.", "rename.", "given.", "expect.", "quarantine."].iter().any(|free| key.starts_with(free))
            {
                continue;
            }
            // [source.orders.file] is [source._.file].
            let parts: Vec<&str> = table.trim_matches(['[', ']']).split('.').collect();
            let named = ["source", "transform", "sink", "connection", "profile"].contains(&parts[0]);
            let place: Vec<&str> = parts.iter().enumerate().map(|(at, part)| if named && at == 1 { "_" } else { part }).collect();
            let text = format!("{}{key}x{}", &text[..at], &text[at + key.len()..]);
            misspelt.entry((place.join("."), key.to_owned())).or_insert((path.clone(), text));
        }
    }
    assert!(misspelt.len() > 70, "{:?}", misspelt.keys());
    for ((table, key), (path, text)) in misspelt {
        let said = editors.said(&text, schema_of(&path));
        assert!(!said.taplo.is_empty() && !said.tombi.is_empty(), "\"{key}\" of [{table}] misspelt in {}: {said:#?}", path.display());
    }
}
