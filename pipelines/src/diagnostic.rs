//! What is wrong with a text a person wrote, as data: code, message, labelled spans, help. How it is drawn is `weir/`'s.

use std::{ops::Range, sync::Arc};

/// A byte range of a [`SourceFile`].
pub type Span = Range<usize>;

/// A file as it was read: where it stands (as a person would name it) and its text. Several that are read as one have one text, each file's
/// after that of the one before, so that a place in it is a place in one of them; labels of diagnostics point into that one.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path as shown in messages, relative to where the person stands; of several files the first one's.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// The files whose texts it holds, each with the byte that it begins at; empty where it is one file's.
    parts: Vec<(usize, Arc<SourceFile>)>,
}

impl SourceFile {
    /// Wraps a text under the path that messages show.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { path: path.into(), text: text.into(), parts: Vec::new() })
    }

    /// Several files as one text, in this order. There is at least one.
    pub fn joined(files: &[Arc<Self>]) -> Arc<Self> {
        let (first, others) = files.split_first().expect("one file at least");
        if others.is_empty() {
            return first.clone();
        }
        let (mut text, mut parts) = (String::new(), Vec::new());
        for file in files {
            if !parts.is_empty() {
                text.push('\n');
            }
            parts.push((text.len(), file.clone()));
            text.push_str(&file.text);
        }
        Arc::new(Self { path: first.path.clone(), text, parts })
    }

    /// The files whose texts it holds, each with the byte that it begins at: itself, where it is one file's.
    pub fn parts(self: &Arc<Self>) -> Vec<(usize, Arc<Self>)> {
        if self.parts.is_empty() { vec![(0, self.clone())] } else { self.parts.clone() }
    }

    /// The file that a place lies in, and the place there.
    pub fn part_at(self: &Arc<Self>, span: Span) -> (Arc<Self>, Span) {
        match self.parts.iter().rev().find(|(start, _)| *start <= span.start) {
            Some((start, file)) => {
                let end = span.end.saturating_sub(*start);
                // What reaches into the next file ends with its own.
                let end = if span.start - start <= file.text.len() { end.min(file.text.len()) } else { end };
                (file.clone(), span.start - start..end)
            }
            None => (self.clone(), span),
        }
    }

    /// The file that its beginning is of.
    pub fn own(self: &Arc<Self>) -> Arc<Self> {
        self.part_at(0..0).0
    }

    /// Returns the 1-based line and the 1-based column (in characters) of a byte offset.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A value and where it stands in its file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Pairs a value with its place.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works, and is probably not what was meant.
    Warning,
    /// Nothing runs until it is mended.
    Error,
}

/// A place in a file and what is to be said there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The file; for most labels the diagnostic's.
    pub file: Arc<SourceFile>,
    /// The bytes concerned.
    pub span: Span,
    /// A few words drawn beside the underline; may be empty.
    pub text: String,
}

/// One thing that is wrong with a file: what happened, where, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// A stable kebab-case code, for instance `unknown-key`.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// One line, lower case, no full stop, names in double quotes.
    pub message: String,
    /// The file the first label points into; none when no file is concerned.
    pub file: Option<Arc<SourceFile>>,
    /// The first label is the primary one.
    pub labels: Vec<Label>,
    /// What to do, one sentence each.
    pub help: Vec<String>,
}

/// Several diagnostics, in source order.
pub type Diagnostics = Vec<Diagnostic>;

impl Diagnostic {
    /// Starts an error. Line breaks in the message, which are those of names, are written as escapes.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.contains(['\n', '\r']) {
            message = message.replace('\n', "\\n").replace('\r', "\\r");
        }
        Self { code, severity: Severity::Error, message, file: None, labels: vec![], help: vec![] }
    }

    /// Starts a warning.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Adds a label; the first one added is the primary one.
    #[must_use]
    pub fn at(mut self, file: &Arc<SourceFile>, span: Span, text: impl Into<String>) -> Self {
        let (file, span) = file.part_at(span);
        self.file.get_or_insert_with(|| file.clone());
        self.labels.push(Label { file, span, text: text.into() });
        self
    }

    /// Where it stands among others: the file of its first label, and the bytes there. What is of no file comes first.
    pub fn place(&self) -> (String, usize, usize) {
        let label = self.labels.first();
        let file = label.map(|label| &label.file).or(self.file.as_ref());
        (
            file.map(|file| file.path.clone()).unwrap_or_default(),
            label.map_or(0, |label| label.span.start),
            label.map_or(0, |label| label.span.end),
        )
    }

    /// Adds a help line.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds `did you mean "…"?` when one of `known` is near to `word`.
    #[must_use]
    pub fn did_you_mean<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(word, known) {
            Some(near) => self.help(format!("did you mean \"{near}\"?")),
            None => self,
        }
    }
}

/// Drops "needs the key X" where "has no key Y, did you mean X" says the same: one mistake, one message.
pub fn drop_follow_ons(found: &mut Diagnostics) {
    let misspelt: Vec<(String, String)> = found
        .iter()
        .filter(|diagnostic| diagnostic.code == "unknown-key")
        .filter_map(|diagnostic| {
            let owner = diagnostic.message.split(" has no ").next()?.to_owned();
            let meant = diagnostic.help.iter().find_map(|help| help.strip_prefix("did you mean \"")?.strip_suffix("\"?"))?;
            Some((owner, meant.to_owned()))
        })
        .collect();
    found.retain(|diagnostic| {
        let Some((owner, key)) = diagnostic.message.split_once(" needs the ").filter(|_| diagnostic.code == "missing-key") else {
            return true;
        };
        let key = key.split('"').nth(1).unwrap_or_default();
        !misspelt.iter().any(|(other, meant)| other == owner && meant == key)
    });
}

/// Returns the word of `known` that a person most likely meant, if any is near enough.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count().min(word.chars().count()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
