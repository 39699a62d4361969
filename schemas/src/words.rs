//! What changed between two contracts, in words. Whether it breaks anything is `diff`'s.

use std::fmt;

use serde_json::Value;

use crate::diff::Verdict;

/// Longer values are cut in messages.
const VALUE_CHARS_MAX: usize = 60;

/// What a pointer into a row names, for people: `"zip"`, `"address.city"`, the row.
pub(crate) struct Named<'a>(pub(crate) &'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_prefix('/') {
            None => f.write_str("the row"),
            Some(path) => {
                let steps: Vec<String> = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
                write!(f, "\"{}\"", steps.join("."))
            }
        }
    }
}

fn cut(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn list(values: &[&Value]) -> String {
    values.iter().map(|value| cut(value)).collect::<Vec<_>>().join(", ")
}

/// The words of a `type`: `integer`, `integer or null`.
fn types(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        other => other.to_string(),
    }
}

/// What the second list has and the first has not.
fn beyond<'a>(first: Option<&Value>, second: Option<&'a Value>) -> Vec<&'a Value> {
    let known = first.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    second.and_then(Value::as_array).into_iter().flatten().filter(|value| !known.contains(value)).collect()
}

/// Says how one keyword changed; nothing where it did not.
pub(crate) fn changed(pointer: &str, keyword: &str, before: Option<&Value>, after: Option<&Value>) -> String {
    let of = Named(pointer);
    match (keyword, before, after) {
        ("type", Some(before), Some(after)) => format!("{of} was {} and is {}", types(before), types(after)),
        ("type", None, Some(after)) => format!("{of} must be {} now", types(after)),
        ("type", Some(before), None) => format!("{of} need not be {} any more", types(before)),
        ("required", before, after) => {
            let (now, no_longer) = (beyond(before, after), beyond(after, before));
            let required = [(now, "required now"), (no_longer, "not required any more")].into_iter().filter(|(names, _)| !names.is_empty());
            let said = required.map(|(names, what)| {
                let (inside, are) =
                    (if pointer.is_empty() { String::new() } else { format!(" of {of}") }, if names.len() == 1 { "is" } else { "are" });
                format!("{}{inside} {are} {what}", list(&names))
            });
            said.collect::<Vec<_>>().join(", and ")
        }
        ("enum", Some(before), Some(after)) => {
            let (more, fewer) = (beyond(Some(before), Some(after)), beyond(Some(after), Some(before)));
            match (more.is_empty(), fewer.is_empty()) {
                (true, true) => String::new(),
                (false, true) => format!("{of} may be {} too", list(&more)),
                (true, false) => format!("{of} may not be {} any more", list(&fewer)),
                (false, false) => format!("{of} may not be {} any more, and may be {}", list(&fewer), list(&more)),
            }
        }
        ("additionalProperties" | "unevaluatedProperties", before, after) => {
            let named =
                if pointer.is_empty() { "columns that the contract does not name".to_owned() } else { format!("unnamed members of {of}") };
            let closed = |value: Option<&Value>| value == Some(&Value::Bool(false));
            match (closed(before), closed(after)) {
                (false, true) => format!("{named} are refused now"),
                (true, false) => format!("{named} are let in now"),
                // The rule is as it was; which names it is about is told of these.
                (true, true) => String::new(),
                (false, false) => format!("other rules hold for {named} now"),
            }
        }
        (_, Some(before), Some(after)) if before == after => format!("\"{keyword}\" of {of} leads to something else now"),
        (_, Some(before), Some(after)) => format!("\"{keyword}\" of {of} went from {} to {}", cut(before), cut(after)),
        (_, None, Some(after)) => format!("\"{keyword}\" {} of {of} is new", cut(after)),
        (_, Some(before), None) => format!("\"{keyword}\" {} of {of} is gone", cut(before)),
        (_, None, None) => String::new(),
    }
}

/// Says that a property is named that was not.
pub(crate) fn declared(pointer: &str, verdict: Verdict, was_refused: bool) -> String {
    let of = Named(pointer);
    match verdict {
        Verdict::Compatible if was_refused => format!("{of} is let in now"),
        Verdict::Compatible => format!("{of} is named now, and may be anything as before"),
        Verdict::Unknown => format!("{of} is named now; cannot tell whether it fits what it had to be before"),
        Verdict::Breaking => format!("{of} is named now, and rows that had it as anything else were valid"),
    }
}

/// Says that a property is not named any more.
pub(crate) fn forgotten(pointer: &str, verdict: Verdict) -> String {
    let of = Named(pointer);
    match verdict {
        Verdict::Compatible => format!("{of} is not named any more, and may be anything"),
        Verdict::Unknown => format!("{of} is not named any more; cannot tell whether it fits what unnamed ones have to be"),
        Verdict::Breaking => format!("{of} is not named any more, and unnamed ones are refused"),
    }
}
