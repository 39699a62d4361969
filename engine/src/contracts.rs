//! What does the contract that a step names say? Read each time, and compiled once for as many steps as name a file of the same text.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use weir_pipelines::{Diagnostic, Diagnostics, Pipeline, SourceFile, Spanned};
use weir_schemas::{Contract, ContractError};

use crate::proof::Written;

/// Contracts that have been compiled, by the path that messages show and their text.
#[derive(Debug, Default)]
pub struct Contracts {
    compiled: Mutex<HashMap<(String, String), Arc<OnceLock<Compiled>>>>,
    /// Texts that are read in place of the files, by path as a pipeline names it.
    kept: HashMap<String, String>,
}

type Compiled = Result<Contract, ContractError>;

impl Contracts {
    /// Contracts as they were, by path as a pipeline names it.
    pub fn kept(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { compiled: Mutex::default(), kept: texts.into_iter().collect() }
    }

    /// The contracts that have been read, by path as a pipeline names it, each with its text.
    pub fn texts(&self) -> BTreeMap<String, String> {
        self.compiled.lock().keys().cloned().collect()
    }

    /// Reads the contract at a path that a pipeline names. Fails where there is none, and where it is none.
    pub fn read(&self, pipeline: &Pipeline, path: &Spanned<String>) -> Result<Written, Diagnostics> {
        let file = &pipeline.file;
        let text = self.kept.get(&path.value).cloned().map_or_else(|| std::fs::read_to_string(pipeline.folder.join(&path.value)), Ok);
        let text = text.map_err(|error| {
            let what = match error.kind() {
                std::io::ErrorKind::NotFound => "does not exist".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            vec![
                Diagnostic::error("contract-missing", format!("the contract \"{}\" {what}", path.value))
                    .at(file, path.span.clone(), "")
                    .help("the path is relative to the pipeline file's folder"),
            ]
        })?;
        let compiled = self.compile(&path.value, &text);
        let contract = SourceFile::new(beside(&file.path, &path.value), text);
        match compiled {
            Ok(compiled) => Ok(Written { contract: compiled, file: contract, named: path.span.clone() }),
            Err(error) => {
                let mut diagnostic = Diagnostic::error("contract", error.message.clone());
                diagnostic = match error.offset {
                    Some(offset) => {
                        let wide = contract.text.get(offset..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
                        diagnostic.at(&contract, offset..offset + wide, "")
                    }
                    None => diagnostic.at(file, path.span.clone(), "this contract"),
                };
                Err(vec![error.help.iter().fold(diagnostic, Diagnostic::help)])
            }
        }
    }

    /// Compiles a text, unless that has been done.
    pub fn compile(&self, path: &str, text: &str) -> Compiled {
        let known = self.compiled.lock().entry((path.to_owned(), text.to_owned())).or_default().clone();
        known.get_or_init(|| Contract::compile(path, text)).clone()
    }
}

/// A path beside a pipeline's file, as a person would name it.
fn beside(file: &str, path: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    if path.starts_with('/') {
        return path.to_owned();
    }
    for part in path.split('/') {
        match (part, parts.last().copied()) {
            ("." | "", _) => {}
            ("..", Some(last)) if !matches!(last, ".." | "" | ".") => _ = parts.pop(),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_compiled_once_and_a_changed_one_anew() {
        let contracts = Contracts::default();
        let text = r#"{ "properties": { "id": { "type": "integer" } } }"#;
        let compiled = |text: &str| contracts.compile("a.json", text).expect("is a contract").columns().clone();
        assert!(Arc::ptr_eq(&compiled(text), &compiled(text)));
        assert_eq!(compiled(&text.replace("id", "name")).field(0).name(), "name");
        let wrong = |text: &str| contracts.compile("a.json", text).expect_err("is none").message;
        assert_eq!(wrong("{"), wrong("{"));
    }

    #[test]
    fn a_contract_is_named_as_a_person_would() {
        assert_eq!(beside("pipelines/a/pipeline.toml", "../../schemas/x.json"), "schemas/x.json");
        assert_eq!(beside("pipeline.toml", "./x.json"), "x.json");
        assert_eq!(beside("pipeline.toml", "../x.json"), "../x.json");
        assert_eq!(beside("pipelines/a/pipeline.toml", "/x.json"), "/x.json");
    }
}
