//! How steps hang together: everything read exists and is no sink, nothing reads itself, transforms come after what they read.

use std::collections::{HashMap, HashSet};

use super::{
    steps::{Declared, Read, Role},
    walk::{Walk, suggest},
};
use crate::{diagnostic::Diagnostic, pipeline::Transform};

/// Checks one mention of a step. `reader` is how messages call who reads. Returns whether it can be read.
pub(crate) fn check_read(walk: &mut Walk<'_>, declared: &[Declared], reader: &str, read: &Read) -> bool {
    let name = read.name.value.as_str();
    let readable = |step: &&Declared| step.role != Role::Sink;
    let candidates: Vec<&Declared> = declared.iter().filter(|step| step.name.value == name).collect();
    if candidates.iter().any(readable) {
        return true;
    }
    if let Some(sink) = candidates.first() {
        let file = walk.file().clone();
        let found = walk.error("reads-sink", format!("{reader} reads \"{name}\", which is a sink"), read.name.span.clone(), "a sink");
        *found = found.clone().at(&file, sink.name.span.clone(), "declared here").help("read the step that the sink takes its rows from");
        return false;
    }
    let mut names: Vec<&str> = declared.iter().filter(readable).map(|step| step.name.value.as_str()).collect();
    names.dedup();
    let found =
        walk.error("unknown-step", format!("{reader} reads \"{name}\", which does not exist"), read.name.span.clone(), "no such step");
    match names.iter().find(|step| read.folded && step.to_lowercase() == name) {
        Some(step) => found.help.push(format!("SQL takes names without quotes as lower case: write {}", quoted(&file_quote(found), step))),
        None => suggest(found, name, &names),
    }
    if !names.is_empty() {
        found.help.push(format!("steps are: {}", names.join(", ")));
    }
    false
}

/// In a basic TOML string, SQL's double quotes must be escaped.
fn quoted(escape: &str, step: &str) -> String {
    format!("{escape}\"{step}{escape}\"")
}

fn file_quote(found: &Diagnostic) -> String {
    let Some(label) = found.labels.first() else { return String::new() };
    let before = &label.file.text[..label.span.start.min(label.file.text.len())];
    let before = &before[before.rfind('\n').map_or(0, |at| at + 1)..];
    // A one-line basic string opens on the same line, after the equals sign.
    let basic =
        before.split_once('=').is_some_and(|(_, value)| value.trim_start().starts_with('"') && !value.trim_start().starts_with("\"\"\""));
    if basic { "\\".into() } else { String::new() }
}

/// Checks what every step reads, and that no steps read one another in a circle. Returns the names of transforms, each after the
/// transforms it reads, else in the order written.
pub(crate) fn order(walk: &mut Walk<'_>, declared: &[Declared]) -> Vec<String> {
    for step in declared {
        let reader = format!("{} \"{}\"", step.role.key(), step.name.value);
        let mut said = HashSet::new();
        for read in &step.reads {
            if said.insert(read.name.value.as_str()) {
                check_read(walk, declared, &reader, read);
            }
        }
    }
    let transforms: Vec<&Declared> = declared.iter().filter(|step| step.role == Role::Transform).collect();
    let index: HashMap<&str, usize> = transforms.iter().enumerate().rev().map(|(at, step)| (step.name.value.as_str(), at)).collect();
    let inputs: Vec<Vec<(usize, &Read)>> = transforms
        .iter()
        .map(|step| step.reads.iter().filter_map(|read| Some((*index.get(read.name.value.as_str())?, read))).collect())
        .collect();
    let mut placed = vec![false; transforms.len()];
    let mut order = Vec::with_capacity(transforms.len());
    while order.len() < transforms.len() {
        let ready = (0..transforms.len()).find(|at| !placed[*at] && inputs[*at].iter().all(|(input, _)| placed[*input]));
        if let Some(at) = ready {
            placed[at] = true;
            order.push(at);
            continue;
        }
        // Each one left reads another one left, so following them comes round.
        let Some(start) = placed.iter().position(|placed| !placed) else { break };
        let mut trail: Vec<(usize, &Read)> = Vec::new();
        let mut at = start;
        let circle = loop {
            if let Some(first) = trail.iter().position(|(seen, _)| *seen == at) {
                break trail.split_off(first);
            }
            let Some((next, read)) = inputs[at].iter().find(|(input, _)| !placed[*input]) else { break vec![] };
            trail.push((at, read));
            at = *next;
        };
        say_circle(walk, &transforms, circle.as_slice());
        for (at, _) in circle {
            placed[at] = true;
            order.push(at);
        }
    }
    order.into_iter().map(|at| transforms[at].name.value.clone()).collect()
}

fn say_circle(walk: &mut Walk<'_>, transforms: &[&Declared], circle: &[(usize, &Read)]) {
    // Start with the step that is declared first.
    let first = (0..circle.len()).min_by_key(|at| circle[*at].0).unwrap_or(0);
    let circle: Vec<_> = circle[first..].iter().chain(&circle[..first]).collect();
    let name = |at: usize| transforms[at].name.value.as_str();
    let message = match circle.as_slice() {
        [(one, _)] => format!("transform \"{}\" reads itself", name(*one)),
        several => {
            let names: Vec<String> = several.iter().map(|(at, _)| format!("\"{}\"", name(*at))).collect();
            let (last, others) = names.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
            format!("transforms {} and {last} read one another in a circle", others.join(", "))
        }
    };
    let file = walk.file().clone();
    let mut found = Diagnostic::error("cycle", message);
    for (at, read) in circle {
        found = found.at(&file, read.name.span.clone(), format!("\"{}\" reads \"{}\"", name(*at), read.name.value));
    }
    walk.found.push(found.help("take one of these reads out"));
}

/// Puts transforms into the order of their names.
pub(crate) fn sort(transforms: &mut [Transform], order: &[String]) {
    let place: HashMap<&str, usize> = order.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    transforms.sort_by_key(|transform| place.get(transform.name.value.as_str()).copied());
}

/// Warns of each source and transform that nobody reads.
pub(crate) fn unread(walk: &mut Walk<'_>, declared: &[Declared], also_read: &[Read]) {
    let read: HashSet<&str> = declared.iter().flat_map(|step| &step.reads).chain(also_read).map(|read| read.name.value.as_str()).collect();
    for step in declared.iter().filter(|step| step.role != Role::Sink && !read.contains(step.name.value.as_str())) {
        let message = format!("nobody reads the {} \"{}\"", step.role.key(), step.name.value);
        walk.warning("unread-step", message, step.name.span.clone(), "")
            .help
            .push("add a sink with this step as \"from\", or take the step out".into());
    }
}
