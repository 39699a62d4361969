//! How tests see diagnostics: a plain text with every label, its place and the text it points at. Drawing for people is `weir/`'s.

use crate::diagnostic::{Diagnostic, Severity};

/// Writes each diagnostic as `error[code]: message`, its labels as `line:column "text": words`, its help lines.
pub(crate) fn render(found: &[Diagnostic]) -> String {
    let mut out = String::new();
    for diagnostic in found {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        out += &format!("{severity}[{}]: {}\n", diagnostic.code, diagnostic.message);
        for label in &diagnostic.labels {
            let file = &label.file;
            let (line, column) = file.line_column(label.span.start);
            out += &format!("  {line}:{column} \"{}\"", file.text[label.span.clone()].replace('\n', "\\n"));
            out += &if label.text.is_empty() { "\n".to_owned() } else { format!(": {}\n", label.text) };
        }
        for help in &diagnostic.help {
            out += &format!("  = help: {help}\n");
        }
    }
    out
}

/// Checks a file of cases: `=== a sentence`, the input, `---`, what `answer` says to it. With `WEIR_BLESS` set, rewrites the answers:
/// read the difference before believing it.
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests decides whether they rewrite the answers")]
pub(crate) fn check(path: &str, answer: impl Fn(&str) -> String) {
    let path = format!("{}/src/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the file of cases is there");
    let mut actual = String::new();
    for case in text.split("=== ").skip(1) {
        let (name, rest) = case.split_once('\n').expect("a case has a name");
        let (input, _) = rest.split_once("---\n").expect("a case has an answer");
        actual += &format!("=== {name}\n{input}---\n{}", answer(input));
    }
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &actual).expect("the file of cases can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("the file of cases is there");
    for (expected, actual) in expected.split("=== ").zip(actual.split("=== ")) {
        assert_eq!(expected, actual, "in {path}");
    }
    assert_eq!(expected.len(), actual.len());
}
