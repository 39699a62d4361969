//! Writes the outcome of tests as JUnit XML, the format that GitLab, Jenkins and GitHub's actions read. There is no standard of it: what is
//! written here is what all of them take, <https://github.com/testmoapp/junitxml>.

use std::time::Duration;

/// A test, and what came of it.
#[derive(Debug)]
pub struct Case {
    /// What it belongs to: cases of one suite stand together.
    pub suite: String,
    /// Its name.
    pub name: String,
    /// The file that it stands in.
    pub file: String,
    /// The line there, from 1.
    pub line: usize,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a test: each thing that is told has a code, a line, and a text that shows it.
#[derive(Debug)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// Something else came than was expected.
    Failed(Vec<(String, String, String)>),
    /// The test could not be run.
    Wrong(Vec<(String, String, String)>),
}

/// The cases as a document.
pub fn to_xml(cases: &[Case]) -> String {
    let mut suites: Vec<(&str, Vec<&Case>)> = Vec::new();
    for case in cases {
        match suites.iter_mut().find(|(name, _)| *name == case.suite) {
            Some((_, all)) => all.push(case),
            None => suites.push((&case.suite, vec![case])),
        }
    }
    let all: Vec<&Case> = cases.iter().collect();
    let mut out = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"weir test\"{}>\n", counts(&all));
    for (name, cases) in &suites {
        out.push_str(&format!("  <testsuite name=\"{}\"{}>\n", attribute(name), counts(cases)));
        cases.iter().for_each(|case| push_case(&mut out, case));
        out.push_str("  </testsuite>\n");
    }
    out + "</testsuites>\n"
}

fn counts(cases: &[&Case]) -> String {
    let failed = cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed(_))).count();
    let wrong = cases.iter().filter(|case| matches!(case.outcome, Outcome::Wrong(_))).count();
    let took: Duration = cases.iter().map(|case| case.took).sum();
    format!(" tests=\"{}\" failures=\"{failed}\" errors=\"{wrong}\" skipped=\"0\" time=\"{:.3}\"", cases.len(), took.as_secs_f64())
}

fn push_case(out: &mut String, case: &Case) {
    out.push_str(&format!(
        "    <testcase name=\"{}\" classname=\"{}\" file=\"{}\" line=\"{}\" time=\"{:.3}\"",
        attribute(&case.name),
        attribute(&case.suite),
        attribute(&case.file),
        case.line,
        case.took.as_secs_f64(),
    ));
    let (tag, told) = match &case.outcome {
        Outcome::Passed => {
            out.push_str("/>\n");
            return;
        }
        Outcome::Failed(told) => ("failure", told),
        Outcome::Wrong(told) => ("error", told),
    };
    // Some readers take only the first of several.
    let (code, message, _) = told.first().map_or(("", "", ""), |(code, message, body)| (code, message, body));
    let body: Vec<&str> = told.iter().map(|(_, _, body)| body.trim_end()).collect();
    let (message, code, body) = (attribute(message), attribute(code), escaped(&body.join("\n\n"), false));
    out.push_str(&format!(">\n      <{tag} message=\"{message}\" type=\"{code}\">{body}</{tag}>\n    </testcase>\n"));
}

fn attribute(text: &str) -> String {
    escaped(text, true)
}

/// A text of XML 1.0. A character that it cannot hold, not even as a reference, is written as `\u{1b}`.
fn escaped(text: &str, attribute: bool) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' if attribute => out.push_str("&quot;"),
            // A reader makes spaces of them in an attribute, and a line feed of a carriage return.
            '\n' | '\t' if attribute => out.push_str(&format!("&#{};", u32::from(letter))),
            '\r' => out.push_str("&#13;"),
            '\n' | '\t' => out.push(letter),
            other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => out.extend(other.escape_unicode()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(suite: &str, name: &str, outcome: Outcome) -> Case {
        let file = format!("{suite}/pipeline.toml");
        Case { suite: suite.to_owned(), name: name.to_owned(), file, line: 7, took: Duration::from_millis(1250), outcome }
    }

    #[test]
    fn suites_count_their_cases_and_any_text_is_held() {
        let told = |message: &str, body: &str| vec![("test-failed".to_owned(), message.to_owned(), body.to_owned())];
        let cases = [
            case("a", "one \"<&>\" \u{1b}[31m\0", Outcome::Passed),
            case("b", "two", Outcome::Wrong(vec![])),
            case("a", "line\nbreak\ttab", Outcome::Failed(told("x < y & \"z\"\r\n", "]]> <row>\n  \u{7}\u{ffff}é\n"))),
        ];
        assert_eq!(
            to_xml(&cases),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuites name=\"weir test\" tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"0\" time=\"3.750\">\n\
             \x20 <testsuite name=\"a\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\" time=\"2.500\">\n\
             \x20   <testcase name=\"one &quot;&lt;&amp;&gt;&quot; \\u{1b}[31m\\u{0}\" classname=\"a\" file=\"a/pipeline.toml\" line=\"7\" time=\"1.250\"/>\n\
             \x20   <testcase name=\"line&#10;break&#9;tab\" classname=\"a\" file=\"a/pipeline.toml\" line=\"7\" time=\"1.250\">\n\
             \x20     <failure message=\"x &lt; y &amp; &quot;z&quot;&#13;&#10;\" type=\"test-failed\">]]&gt; &lt;row&gt;\n  \\u{7}\\u{ffff}é</failure>\n\
             \x20   </testcase>\n\
             \x20 </testsuite>\n\
             \x20 <testsuite name=\"b\" tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\" time=\"1.250\">\n\
             \x20   <testcase name=\"two\" classname=\"b\" file=\"b/pipeline.toml\" line=\"7\" time=\"1.250\">\n\
             \x20     <error message=\"\" type=\"\"></error>\n\
             \x20   </testcase>\n\
             \x20 </testsuite>\n\
             </testsuites>\n"
        );
    }
}
