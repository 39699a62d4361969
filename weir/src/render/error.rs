//! Draws a [`Failure`] for people and as JSON, and knows its exit code.

use serde_json::{Value, json};
use weir_connectors::{Blame, Retry};
use weir_engine::{Failure, error::RunError};
use weir_pipelines::{Diagnostic, Severity};

use super::{Style, diagnostic, number, text};

/// The answer was given.
pub const DONE: u8 = 0;
/// The run or the check failed.
pub const FAILED: u8 = 1;
/// The command line or the files are wrong.
pub const WRONG: u8 = 2;
/// A system outside is unavailable.
pub const UNAVAILABLE: u8 = 3;
/// Ctrl-C or SIGTERM.
pub const INTERRUPTED: u8 = 130;

/// The exit code of a failure.
pub fn exit_code(failure: &Failure) -> u8 {
    match failure {
        Failure::Diagnostics(_) => WRONG,
        Failure::Error(error) if error.blame == Blame::System && error.retry == Retry::Later => UNAVAILABLE,
        Failure::Error(_) => FAILED,
        Failure::Interrupted => INTERRUPTED,
    }
}

/// The exit code of a check that found this, some of it failures of systems outside.
pub fn exit_code_of(found: &[Diagnostic], outside: &[Failure]) -> u8 {
    if found.iter().filter(|one| one.severity == Severity::Error).count() > outside.len() {
        return WRONG;
    }
    // Trying again later helps only where that is all there is to do.
    outside.iter().map(exit_code).min().unwrap_or(DONE)
}

/// Draws a failure; ends in a line break.
pub fn render(failure: &Failure, style: Style) -> String {
    match failure {
        Failure::Diagnostics(diagnostics) => render_diagnostics(diagnostics, style),
        Failure::Error(error) => render_error(error, style),
        Failure::Interrupted => format!("{}: stopped before the end\n", style.yellow("interrupted")),
    }
}

/// Draws diagnostics with a blank line between them, and how many there are where they are several.
pub fn render_diagnostics(diagnostics: &[Diagnostic], style: Style) -> String {
    let mut out = diagnostics.iter().map(|one| diagnostic::render(one, style)).collect::<Vec<_>>().join("\n");
    let errors = diagnostics.iter().filter(|one| one.severity == Severity::Error).count() as u64;
    if errors > 1 {
        out.push_str(&format!("\n{}\n", style.red(&number::counted(errors, "error", "errors"))));
    }
    out
}

fn render_error(error: &RunError, style: Style) -> String {
    let step = error.step.as_ref().map(|step| format!("step \"{step}\": ")).unwrap_or_default();
    let message = format!("{step}{}", error.message);
    let mut out = format!("{}: {}\n", style.red(&format!("error[{}]", error.code)), style.bold(&text::visible_lines(&message)));
    for detail in &error.details {
        for line in text::visible_lines(detail).lines() {
            out.push_str(&format!("  {line}\n"));
        }
    }
    for help in &error.help {
        diagnostic::push_note(&mut out, 1, "help", help, style);
    }
    if error.blame == Blame::Weir {
        diagnostic::push_note(&mut out, 1, "note", "this is a fault in weir itself; please report it with the pipeline file", style);
    }
    out
}

/// The failure as an object with one key: `diagnostics` or `error`.
pub fn to_json(failure: &Failure) -> Value {
    match failure {
        Failure::Diagnostics(diagnostics) => json!({ "diagnostics": diagnostics.iter().map(diagnostic::to_json).collect::<Vec<_>>() }),
        Failure::Error(error) => json!({ "error": {
            "code": error.code,
            "message": error.message,
            "step": error.step,
            "details": error.details,
            "help": error.help,
            "blame": match error.blame { Blame::User => "user", Blame::System => "system", Blame::Weir => "weir" },
            "retry": match error.retry { Retry::Never => "never", Retry::Later => "later" },
        } }),
        Failure::Interrupted => json!({ "error": { "code": "interrupted", "message": "stopped before the end" } }),
    }
}

#[cfg(test)]
mod tests {
    use weir_pipelines::SourceFile;

    use super::*;

    fn disk_full() -> Failure {
        let failure =
            Failure::error("disk-full", "the disk is full").in_step("lake").detail("wrote 12 MB\nof 40 MB").help("free some space");
        match failure.blame(Blame::System) {
            Failure::Error(mut error) => {
                error.retry = Retry::Later;
                Failure::Error(error)
            }
            other => other,
        }
    }

    #[test]
    fn an_error_names_its_step_and_what_to_do() {
        assert_eq!(
            render(&disk_full(), Style::PLAIN),
            "error[disk-full]: step \"lake\": the disk is full\n  wrote 12 MB\n  of 40 MB\n  = help: free some space\n"
        );
    }

    #[test]
    fn several_diagnostics_are_counted_without_the_warnings() {
        let file = SourceFile::new("p.toml", "a\n");
        let one = Diagnostic::error("x", "m").at(&file, 0..1, "");
        let warning = Diagnostic::warning("y", "n");
        assert_eq!(
            render_diagnostics(&[one.clone(), one, warning], Style::PLAIN),
            "error[x]: m\n --> p.toml:1:1\n  |\n1 | a\n  | ^\n\nerror[x]: m\n --> p.toml:1:1\n  |\n1 | a\n  | ^\n\nwarning[y]: n\n\n2 errors\n"
        );
    }

    #[test]
    fn exit_codes_tell_apart_whose_fault_it_is() {
        assert_eq!(exit_code(&Failure::Diagnostics(vec![])), 2);
        assert_eq!(exit_code(&Failure::error("x", "m")), 1);
        assert_eq!(exit_code(&Failure::error("x", "m").blame(Blame::System)), 1);
        assert_eq!(exit_code(&disk_full()), 3);
        assert_eq!(exit_code(&Failure::Interrupted), 130);
    }

    #[test]
    fn as_json_an_error_keeps_all_its_parts() {
        assert_eq!(
            to_json(&disk_full()),
            json!({"error": {"code": "disk-full", "message": "the disk is full", "step": "lake", "details": ["wrote 12 MB\nof 40 MB"],
                "help": ["free some space"], "blame": "system", "retry": "later"}})
        );
    }
}
