//! `weir explain`: what the code of an error, a warning or a rejected row means, from docs/reference/errors.md, which the command holds.

use std::{ops::Range, sync::LazyLock};

use clap::Args;
use serde_json::json;
use weir_pipelines::Diagnostic;

use super::context::{Answer, Context};
use crate::render::{
    Style, error,
    text::{width, wrap},
};

const EXAMPLES: &str = "\
Examples:
  weir explain unknown-column
  weir explain                          every code, with one sentence
  weir explain null-key --json";

/// The page that says it all: a `##` a subject, a `###` a code.
const PAGE: &str = include_str!("../../../docs/reference/errors.md");

/// Columns of an explanation on a terminal.
const TEXT_WIDTH: usize = 92;

/// Say what an error's code means, and what to do; list all codes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Explain {
    /// The code, as it stands in the brackets of the message or in the quarantine
    #[arg(value_name = "CODE")]
    code: Option<String>,
}

/// One section of the page.
#[derive(Debug, PartialEq, Eq)]
struct Section {
    subject: &'static str,
    code: &'static str,
    /// One sentence.
    meaning: &'static str,
    /// All behind the sentence, as Markdown.
    rest: &'static str,
}

static SECTIONS: LazyLock<Vec<Section>> = LazyLock::new(|| sections(PAGE));

impl Explain {
    /// Answers.
    pub fn answer(self, context: &Context) -> Answer {
        match &self.code {
            None if context.global.json => {
                let codes: Vec<_> = SECTIONS
                    .iter()
                    .map(|section| json!({ "code": section.code, "subject": section.subject, "meaning": section.meaning }))
                    .collect();
                context.answer_json(&json!({ "codes": codes }))?;
            }
            None => context.answer(&list(&SECTIONS, context.out))?,
            Some(code) => {
                let section = find(code)?;
                if context.global.json {
                    context.answer_json(&json!({
                        "code": section.code,
                        "subject": section.subject,
                        "meaning": section.meaning,
                        "text": format!("{}\n\n{}", section.meaning, section.rest),
                    }))?;
                } else {
                    context.answer(&render(section, context.out))?;
                }
            }
        }
        Ok(error::DONE)
    }
}

/// The section of a code, which may be given with what stands around it in a message: `error[unknown-key]`.
fn find(given: &str) -> Result<&'static Section, Diagnostic> {
    let code = given.trim().trim_end_matches([']', ':']).rsplit('[').next().unwrap_or_default();
    SECTIONS.iter().find(|section| section.code == code).ok_or_else(|| {
        Diagnostic::error("unknown-code", format!("there is no code \"{given}\""))
            .did_you_mean(code, SECTIONS.iter().map(|section| section.code))
            .help("weir explain lists all codes")
    })
}

/// Takes the page apart.
fn sections(page: &'static str) -> Vec<Section> {
    let mut found = Vec::new();
    let mut subject = "";
    for part in headings(page) {
        let part = page[part].trim();
        let (heading, text) = part.split_once('\n').unwrap_or((part, ""));
        if let Some(code) = heading.strip_prefix("### ") {
            let (meaning, rest) = text.trim().split_once("\n\n").unwrap_or((text.trim(), ""));
            found.push(Section { subject, code: code.trim().trim_matches('`'), meaning, rest: rest.trim() });
        } else if let Some(heading) = heading.strip_prefix("## ") {
            subject = heading.trim();
        }
    }
    found
}

/// What goes from one heading to the next; a `#` within a block of code is none.
fn headings(page: &str) -> Vec<Range<usize>> {
    let (mut starts, mut at, mut fenced) = (Vec::new(), 0, false);
    for line in page.split_inclusive('\n') {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([page.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// Every code with its sentence, by subject.
fn list(sections: &[Section], style: Style) -> String {
    let widest = sections.iter().map(|section| width(section.code)).max().unwrap_or_default();
    let mut out = String::new();
    let mut subject = "";
    for section in sections {
        if section.subject != subject {
            subject = section.subject;
            let gap = if out.is_empty() { "" } else { "\n" };
            out.push_str(&format!("{gap}{}\n\n", style.bold(subject)));
        }
        let room = " ".repeat(widest - width(section.code));
        out.push_str(&format!("  {}{room}  {}\n", style.blue(section.code), section.meaning));
    }
    out
}

/// The lines of a text, with those that go on with an item brought up to it.
fn joined(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        match (line.strip_prefix("  ").filter(|_| !fenced), lines.last_mut()) {
            (Some(more), Some(item)) => {
                item.push(' ');
                item.push_str(more);
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// A section for a terminal.
fn render(section: &Section, style: Style) -> String {
    let mut out = format!("{}  {}\n\n", style.bold(section.code), style.dim(section.subject));
    for line in wrap(section.meaning, TEXT_WIDTH) {
        out.push_str(&format!("  {line}\n"));
    }
    out.push('\n');
    let mut fenced = false;
    for line in joined(section.rest) {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            out.push_str(format!("      {line}").trim_end());
            out.push('\n');
        } else if line.is_empty() {
            // An example follows its label at once.
            if !out.ends_with(":\n") {
                out.push('\n');
            }
        } else if let Some((word, text)) = line.strip_prefix("- ").and_then(|item| item.split_once(": ")) {
            for (at, part) in wrap(text, TEXT_WIDTH - 6).iter().enumerate() {
                let word = if at == 0 { word } else { "" };
                out.push_str(&format!("  {}{}{part}\n", style.blue(word), " ".repeat(6usize.saturating_sub(width(word)))));
            }
        } else {
            wrap(&line, TEXT_WIDTH).iter().for_each(|part| out.push_str(&format!("  {part}\n")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "# Codes\n\nAll.\n\n## Files\n\nText.\n\n### `unknown-key`\n\nA table has an odd key.\n\n- When: it is misspelt.\n- Do: spell\n  it.\n\n\
                          Wrong:\n\n```text\npth = 1\n```\n\n### `cycle`\n\nSteps read one another.\n\n- When: so.\n- Do: so.\n";

    #[test]
    fn a_page_is_taken_apart() {
        let found = sections(SAMPLE);
        assert_eq!(found.iter().map(|section| section.code).collect::<Vec<_>>(), ["unknown-key", "cycle"]);
        assert_eq!((found[0].subject, found[0].meaning), ("Files", "A table has an odd key."));
        assert_eq!(found[0].rest, "- When: it is misspelt.\n- Do: spell\n  it.\n\nWrong:\n\n```text\npth = 1\n```");
    }

    #[test]
    fn a_section_reads_well_on_a_terminal() {
        assert_eq!(
            render(&sections(SAMPLE)[0], Style::PLAIN),
            "unknown-key  Files\n\n  A table has an odd key.\n\n  When  it is misspelt.\n  Do    spell it.\n\n  Wrong:\n      pth = 1\n"
        );
    }

    #[test]
    fn the_list_is_by_subject() {
        assert_eq!(
            list(&sections(SAMPLE), Style::PLAIN),
            "Files\n\n  unknown-key  A table has an odd key.\n  cycle        Steps read one another.\n"
        );
    }

    #[test]
    fn every_section_says_what_when_and_what_to_do() {
        assert!(SECTIONS.len() > 250, "{} sections", SECTIONS.len());
        for section in SECTIONS.iter() {
            let code = section.code;
            assert!(section.meaning.ends_with('.') && !section.meaning.contains('\n'), "{code}: {}", section.meaning);
            assert!(section.rest.starts_with("- When: ") && section.rest.contains("\n- Do: "), "{code}: {}", section.rest);
        }
    }

    #[test]
    fn a_code_is_found_with_its_brackets() {
        for given in ["unknown-key", "error[unknown-key]", "error[unknown-key]:", "[unknown-key]"] {
            assert_eq!(find(given).map(|section| section.code).ok(), Some("unknown-key"), "{given}");
        }
    }
}
