//! The parser of pipeline files and of `weir.toml`, and the formatter: every text has an answer.

use std::path::PathBuf;

use weir_pipelines::{Diagnostic, Project, SourceFile, format, parse_partial};

use super::{Target, Verdict, blocks, texts, told};

pub struct Parser;

impl Target for Parser {
    fn name(&self) -> &'static str {
        "parser"
    }

    fn seeds(&self) -> Vec<String> {
        let mut seeds: Vec<String> = texts("tests/cases", &["pipeline.toml", "weir.toml"]).into_iter().map(|(_, text)| text).collect();
        seeds.extend(texts("pipelines/flights", &["pipeline.toml"]).into_iter().map(|(_, text)| text));
        // One mistake a section: what is nearly right is where a parser errs.
        for (_, text) in texts("pipelines/src/golden", &[".txt"]) {
            let input = |section: &str| section.split_once('\n').and_then(|(_, rest)| rest.split("\n---").next()).map(str::to_owned);
            seeds.extend(text.split("=== ").filter_map(input));
        }
        seeds.extend(blocks());
        seeds
    }

    fn take(&mut self, _: usize, text: &str) -> Verdict {
        let file = || SourceFile::new("pipeline.toml", text);
        let parse = |text: &str| {
            let vocabulary = weir_connectors::vocabulary(&["warehouse", "olap"], &["prod"]);
            parse_partial(SourceFile::new("pipeline.toml", text), PathBuf::from("/nowhere"), &[], vocabulary)
        };
        let partial = parse(text);
        let is_wrong = partial.found.iter().any(|one| one.severity == weir_pipelines::Severity::Error);
        if partial.is_whole() && is_wrong {
            return Err("whole, and wrong".into());
        }
        if !partial.is_whole() && !is_wrong {
            return Err("not whole, and nothing wrong with it".into());
        }
        let mut short = told(&partial.found)?;
        for profile in [None, Some("prod")] {
            let project = Project::parse_partial(SourceFile::new("weir.toml", text), PathBuf::from("/nowhere"), profile);
            short = format!("{short} | {}", told(&project.found)?);
        }
        match format(&file()) {
            Ok(once) => {
                let again = format(&SourceFile::new("pipeline.toml", once.as_str()));
                if again.as_deref() != Ok(once.as_str()) {
                    return Err(format!("laid out twice it is another text\n{once}"));
                }
                let codes = |found: &[Diagnostic]| found.iter().map(|one| one.code).collect::<Vec<_>>();
                let after = parse(&once);
                if codes(&after.found) != codes(&partial.found) {
                    return Err(format!("laid out it has other mistakes\n{:?}\n{:?}\n{once}", codes(&partial.found), codes(&after.found)));
                }
            }
            Err(found) => {
                told(&found)?;
                if found.iter().any(|one| one.code == "format-differs") {
                    return Err("laid out it would say something else".into());
                }
            }
        }
        Ok(short)
    }
}
