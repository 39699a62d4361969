//! Which parts of a pipeline a syntax error leaves in doubt: what the table that it stands in says, or all where the table is not known.

use crate::pipeline::Pipeline;

/// Leaves out what a syntax error at this byte may have changed.
pub(super) fn leave_out(pipeline: &mut Pipeline, at: usize) {
    let file = pipeline.file.clone();
    let (part, place) = file.part_at(at..at);
    let (text, byte) = (part.text.as_str(), place.start);
    // A string, array or table that never closes ends with the file, and takes in whatever stands in between.
    let table = if byte >= text.trim_end().len() { None } else { table_at(text, byte) };
    match table.as_deref() {
        Some([]) => {}
        Some([role, ..]) if role == "schedule" || role == "trigger" => {}
        Some([role, name, ..]) if role == "source" => pipeline.sources.retain(|step| step.name.value != *name),
        Some([role, name, ..]) if role == "transform" => pipeline.transforms.retain(|step| step.name.value != *name),
        Some([role, name, ..]) if role == "sink" => pipeline.sinks.retain(|step| step.name.value != *name),
        Some([role, ..]) if role == "expect" => {
            if let Some(last) = pipeline.expectations.iter().rposition(|expectation| expectation.span.start <= at) {
                pipeline.expectations.remove(last);
            }
        }
        Some([role, ..]) if role == "test" => {
            if let Some(last) = pipeline.tests.iter().rposition(|test| test.span.start <= at) {
                pipeline.tests.remove(last);
            }
        }
        _ => {
            pipeline.sources.clear();
            pipeline.transforms.clear();
            pipeline.sinks.clear();
            pipeline.expectations.clear();
            pipeline.tests.clear();
        }
    }
}

/// The path of the table that a byte stands in, empty above the first one; none where the header itself is in doubt.
fn table_at(text: &str, at: usize) -> Option<Vec<String>> {
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |line_break| line_break + 1);
    if text[line_start..].trim_start().starts_with('[') {
        return None;
    }
    Some(text[..line_start].lines().rev().find_map(header).unwrap_or_default())
}

fn header(line: &str) -> Option<Vec<String>> {
    let (path, rest) = line.trim().strip_prefix('[')?.trim_start_matches('[').split_once(']')?;
    let rest = rest.trim_start_matches(']').trim_start();
    let is_header = rest.is_empty() || rest.starts_with('#');
    is_header.then(|| path.split('.').map(|part| part.trim().trim_matches(['"', '\'']).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_around_a_byte_is_found() {
        let text = "weir = 1\n[source.a]\nx = [\n  [1, 2],\n]\ny = \n[[ test ]] # one\nz = \n[sink.\"b\".lake\nw = \n";
        let at = |word: &str| table_at(text, text.find(word).expect("is there"));
        assert_eq!(at("weir"), Some(vec![]));
        assert_eq!(at("y ="), Some(vec!["source".to_owned(), "a".to_owned()]));
        assert_eq!(at("z ="), Some(vec!["test".to_owned()]));
        assert_eq!(at("b\""), None, "the header itself is torn");
        assert_eq!(at("w ="), Some(vec!["test".to_owned()]), "what is no header is passed over");
    }
}
