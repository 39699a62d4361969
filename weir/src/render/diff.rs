//! What differs between two texts, line by line, in the unified format that `patch` and `git apply` read.

use std::ops::Range;

use super::Style;

/// Lines shown before and after what differs.
const CONTEXT: usize = 3;
/// Pairs of lines that are compared to find the fewest changes; beyond, all between the first and the last change is one change.
const PAIRS_MAX: usize = 4 << 20;

/// A run of lines that differ: where in the old text, and what stands there in the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    old: Range<usize>,
    new: Range<usize>,
}

/// Draws the difference of two texts of one name; empty where there is none.
pub fn unified(name: &str, old: &str, new: &str, style: Style) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let changes = changes(&old, &new);
    if changes.is_empty() {
        return String::new();
    }
    let mut out = format!("{}\n{}\n", style.bold(&format!("--- {name}")), style.bold(&format!("+++ {name}")));
    for hunk in changes.chunk_by(|a, b| b.old.start - a.old.end <= 2 * CONTEXT) {
        let (first, last) = (&hunk[0], &hunk[hunk.len() - 1]);
        let before = first.old.start.min(CONTEXT);
        let after = (old.len() - last.old.end).min(CONTEXT);
        let in_old = first.old.start - before..last.old.end + after;
        let in_new = first.new.start - before..last.new.end + after;
        out.push_str(&format!("@@ -{} +{} @@\n", place(&in_old), place(&in_new)));
        let mut at = in_old.start;
        for change in hunk {
            old[at..change.old.start].iter().for_each(|line| push(&mut out, " ", line, str::to_owned));
            old[change.old.clone()].iter().for_each(|line| push(&mut out, "-", line, |text| style.red(text)));
            new[change.new.clone()].iter().for_each(|line| push(&mut out, "+", line, |text| style.green(text)));
            at = change.old.end;
        }
        old[at..in_old.end].iter().for_each(|line| push(&mut out, " ", line, str::to_owned));
    }
    out
}

/// A range of lines as a hunk's head says it: an empty one by the line before it.
fn place(lines: &Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        len => format!("{},{len}", lines.start + 1),
    }
}

fn push(out: &mut String, mark: &str, line: &str, paint: impl Fn(&str) -> String) {
    let ended = line.strip_suffix('\n');
    out.push_str(&paint(&format!("{mark}{}", ended.unwrap_or(line))));
    out.push_str(if ended.is_some() { "\n" } else { "\n\\ No newline at end of file\n" });
}

/// The fewest runs of lines that turn one text into the other.
fn changes(old: &[&str], new: &[&str]) -> Vec<Change> {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    if a.is_empty() && b.is_empty() {
        return Vec::new();
    }
    let whole = Change { old: start..start + a.len(), new: start..start + b.len() };
    if a.is_empty() || b.is_empty() || a.len().saturating_mul(b.len()) > PAIRS_MAX {
        return vec![whole];
    }
    // common[i][j]: how many lines a[i..] and b[j..] have in common, in order.
    let row = b.len() + 1;
    let mut common = vec![0_u32; (a.len() + 1) * row];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * row + j] = match a[i] == b[j] {
                true => common[(i + 1) * row + j + 1] + 1,
                false => common[(i + 1) * row + j].max(common[i * row + j + 1]),
            };
        }
    }
    let mut found: Vec<Change> = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let is_old = j == b.len() || (i < a.len() && common[(i + 1) * row + j] >= common[i * row + j + 1]);
        let (old, new) = (start + i, start + j);
        match found.last_mut() {
            Some(last) if last.old.end == old && last.new.end == new => {}
            _ => found.push(Change { old: old..old, new: new..new }),
        }
        if let Some(last) = found.last_mut() {
            if is_old { last.old.end += 1 } else { last.new.end += 1 }
        }
        if is_old { i += 1 } else { j += 1 }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(old: &str, new: &str) -> String {
        unified("p.toml", old, new, Style::PLAIN)
    }

    #[test]
    fn texts_that_are_the_same_differ_in_nothing() {
        assert_eq!(diff("a\nb\n", "a\nb\n"), "");
        assert_eq!(diff("", ""), "");
    }

    #[test]
    fn changes_have_three_lines_around_them() {
        let old: String = (1..=30).map(|line| format!("{line}\n")).collect();
        let new = old.replace("\n5\n", "\nfive\n").replace("\n12\n", "\n").replace("\n25\n", "\n25\n25.5\n");
        assert_eq!(
            diff(&old, &new),
            "--- p.toml\n+++ p.toml\n\
             @@ -2,14 +2,13 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n 10\n 11\n-12\n 13\n 14\n 15\n\
             @@ -23,6 +22,7 @@\n 23\n 24\n 25\n+25.5\n 26\n 27\n 28\n"
        );
    }

    #[test]
    fn a_text_may_be_empty_or_lack_its_last_line_break() {
        assert_eq!(diff("", "a\n"), "--- p.toml\n+++ p.toml\n@@ -0,0 +1 @@\n+a\n");
        assert_eq!(diff("a\n", ""), "--- p.toml\n+++ p.toml\n@@ -1 +0,0 @@\n-a\n");
        assert_eq!(diff("a\nb", "a\nb\n"), "--- p.toml\n+++ p.toml\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n");
    }

    #[test]
    fn colours_are_those_of_the_style() {
        assert!(unified("p", "a\n", "b\n", Style::COLOR).contains("\u{1b}[32m+b\u{1b}[0m\n"));
    }

    /// Applies changes to a text as `patch` would.
    fn applied(old: &[&str], new: &[&str]) -> String {
        let mut out = String::new();
        let mut at = 0;
        for change in changes(old, new) {
            out.extend(old[at..change.old.start].iter().copied());
            out.extend(new[change.new.clone()].iter().copied());
            at = change.old.end;
        }
        out.extend(old[at..].iter().copied());
        out
    }

    #[test]
    fn changes_lead_from_one_text_to_the_other() {
        // Every text of up to six lines out of two against every other.
        let texts: Vec<Vec<&str>> = (0..7_u32)
            .flat_map(|len| (0..1_u32 << len).map(move |bits| (0..len).map(|at| ["a\n", "b\n"][(bits >> at & 1) as usize]).collect()))
            .collect();
        for old in &texts {
            for new in &texts {
                assert_eq!(applied(old, new), new.concat());
            }
        }
        let (long, other) = (vec!["a\n"; 3000], vec!["b\n"; 3000]);
        assert_eq!(changes(&long, &other).len(), 1);
        assert_eq!(applied(&long, &other), other.concat());
    }
}
