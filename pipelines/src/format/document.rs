//! A TOML text as what stands in it, in order: tables, keys, values, comments, and where its author left a line blank or broke one.

use std::borrow::Cow;

use toml_parser::{
    Source,
    parser::{Event, EventKind, parse_document},
};

/// A comment behind something on its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind<'a> {
    /// From `#` on.
    pub text: &'a str,
    /// How many spaces its author left before it.
    pub gap: usize,
}

/// A line of the document, or several where a value goes over several.
#[derive(Debug, PartialEq)]
pub enum Entry<'a> {
    /// At least one blank line.
    Blank,
    /// A comment on a line of its own.
    Comment(&'a str),
    /// `[a.b]` or `[[a.b]]`.
    Header {
        /// As it is to be written.
        text: String,
        /// Its keys, decoded.
        path: Vec<String>,
        /// What stands behind it.
        comment: Option<Behind<'a>>,
    },
    /// `a.b = value`.
    Pair {
        /// As it is to be written.
        key: String,
        /// Its value.
        value: Value<'a>,
        /// What stands behind it.
        comment: Option<Behind<'a>>,
    },
}

/// A value.
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    /// A string, number, date or boolean, as it was written.
    Scalar(&'a str),
    /// An array, or an inline table.
    List(List<'a>),
}

/// An array, or an inline table.
#[derive(Debug, PartialEq)]
pub struct List<'a> {
    /// `[]` or `{}`.
    pub brackets: [char; 2],
    /// True where its author broke a line between its items.
    pub broken: bool,
    /// A comment on the line of the bracket that opens it.
    pub comment: Option<Behind<'a>>,
    /// What stands in it.
    pub items: Vec<Item<'a>>,
}

/// What stands in an array or inline table.
#[derive(Debug, PartialEq)]
pub enum Item<'a> {
    /// At least one blank line.
    Blank,
    /// A comment on a line of its own.
    Comment(&'a str),
    /// An element, or a key and its value.
    Value {
        /// The key, as it is to be written; none in an array.
        key: Option<String>,
        /// The value.
        value: Value<'a>,
        /// What stands behind it.
        comment: Option<Behind<'a>>,
    },
}

/// What must not change, without the space around it and without commas.
#[derive(Debug, PartialEq)]
pub struct Parts<'a> {
    /// Brackets, keys and values.
    values: Vec<(EventKind, &'a str)>,
    comments: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    /// Takes a text apart.
    pub fn of(text: &'a str) -> Self {
        let mut parts = Parts { values: Vec::new(), comments: Vec::new() };
        for event in events(text) {
            match event.kind() {
                EventKind::Whitespace | EventKind::Newline | EventKind::ValueSep => {}
                EventKind::Comment => parts.comments.push(slice(text, event).trim_end()),
                kind => parts.values.push((kind, slice(text, event))),
            }
        }
        parts
    }
}

/// The line break that ends the first line.
pub fn newline(text: &str) -> &str {
    let first = events(text).into_iter().find(|event| event.kind() == EventKind::Newline);
    first.map_or("\n", |event| slice(text, event))
}

/// Reads a text that is known to be TOML.
pub fn read(text: &str) -> Vec<Entry<'_>> {
    let mut reader = Reader { text, events: events(text), at: 0 };
    let mut entries: Vec<Entry<'_>> = Vec::new();
    // Where nothing stands on the line yet; and how many spaces were just passed.
    let (mut fresh, mut gap) = (true, 0);
    while let Some(event) = reader.next() {
        match event.kind() {
            EventKind::Whitespace => gap = reader.gap(event),
            EventKind::Newline => {
                if fresh && entries.last() != Some(&Entry::Blank) {
                    entries.push(Entry::Blank);
                }
                (fresh, gap) = (true, 0);
            }
            EventKind::Comment => {
                let text = reader.comment(event);
                match entries.last_mut() {
                    Some(Entry::Header { comment, .. } | Entry::Pair { comment, .. }) if !fresh => *comment = Some(Behind { text, gap }),
                    _ => entries.push(Entry::Comment(text)),
                }
                fresh = false;
            }
            EventKind::StdTableOpen | EventKind::ArrayTableOpen => {
                entries.push(reader.header(event.kind() == EventKind::ArrayTableOpen));
                (fresh, gap) = (false, 0);
            }
            EventKind::SimpleKey => {
                let (key, value) = reader.pair(event, &mut Vec::new());
                entries.push(Entry::Pair { key, value, comment: None });
                (fresh, gap) = (false, 0);
            }
            _ => {}
        }
    }
    entries
}

fn events(text: &str) -> Vec<Event> {
    let tokens = Source::new(text).lex().into_vec();
    let mut events = Vec::new();
    parse_document(&tokens, &mut events, &mut ());
    events
}

fn slice(text: &str, event: Event) -> &str {
    text.get(event.span().start()..event.span().end()).unwrap_or_default()
}

/// Goes through the events of a text.
struct Reader<'a> {
    text: &'a str,
    events: Vec<Event>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Event> {
        let event = self.events.get(self.at).copied();
        self.at += 1;
        event
    }

    fn gap(&self, event: Event) -> usize {
        let space = slice(self.text, event);
        // A tab is as wide as each editor wants it to be.
        if space.contains('\t') { 1 } else { space.len() }
    }

    fn comment(&self, event: Event) -> &'a str {
        slice(self.text, event).trim_end()
    }

    fn header(&mut self, is_array: bool) -> Entry<'a> {
        let (mut text, mut path) = (String::new(), Vec::new());
        while let Some(event) = self.next() {
            match event.kind() {
                EventKind::SimpleKey => {
                    text.push_str(slice(self.text, event));
                    path.push(self.decoded(event));
                }
                EventKind::KeySep => text.push('.'),
                EventKind::StdTableClose | EventKind::ArrayTableClose => break,
                _ => {}
            }
        }
        let text = if is_array { format!("[[{text}]]") } else { format!("[{text}]") };
        Entry::Header { text, path, comment: None }
    }

    /// A key of one or more parts, and its value. Comments between them, which the parser takes in inline tables, stray.
    fn pair(&mut self, first: Event, stray: &mut Vec<&'a str>) -> (String, Value<'a>) {
        let mut key = slice(self.text, first).to_owned();
        while let Some(event) = self.next() {
            match event.kind() {
                EventKind::SimpleKey => key.push_str(slice(self.text, event)),
                EventKind::KeySep => key.push('.'),
                EventKind::Comment => stray.push(self.comment(event)),
                EventKind::Whitespace | EventKind::Newline | EventKind::KeyValSep => {}
                _ => return (key, self.value(event)),
            }
        }
        (key, Value::Scalar(""))
    }

    fn decoded(&self, event: Event) -> String {
        let mut key = Cow::Borrowed("");
        if let Some(raw) = Source::new(self.text).get(event) {
            raw.decode_key(&mut key, &mut ());
        }
        key.into_owned()
    }

    fn value(&mut self, event: Event) -> Value<'a> {
        match event.kind() {
            EventKind::ArrayOpen => Value::List(self.list(['[', ']'])),
            EventKind::InlineTableOpen => Value::List(self.list(['{', '}'])),
            _ => Value::Scalar(slice(self.text, event)),
        }
    }

    fn list(&mut self, brackets: [char; 2]) -> List<'a> {
        let mut list = List { brackets, broken: false, comment: None, items: Vec::new() };
        let (mut fresh, mut gap) = (false, 0);
        while let Some(event) = self.next() {
            match event.kind() {
                EventKind::Whitespace => {
                    gap = self.gap(event);
                    continue;
                }
                EventKind::Newline => {
                    list.broken = true;
                    if fresh && list.items.last().is_some_and(|item| *item != Item::Blank) {
                        list.items.push(Item::Blank);
                    }
                    fresh = true;
                }
                EventKind::Comment => {
                    let text = self.comment(event);
                    let behind = Some(Behind { text, gap });
                    match list.items.last_mut() {
                        None if !fresh && list.comment.is_none() => list.comment = behind,
                        Some(Item::Value { comment: comment @ None, .. }) if !fresh => *comment = behind,
                        _ => list.items.push(Item::Comment(text)),
                    }
                    fresh = false;
                }
                EventKind::ArrayClose | EventKind::InlineTableClose => break,
                EventKind::SimpleKey => {
                    let mut stray = Vec::new();
                    let (key, value) = self.pair(event, &mut stray);
                    list.broken |= !stray.is_empty();
                    list.items.extend(stray.into_iter().map(Item::Comment));
                    list.items.push(Item::Value { key: Some(key), value, comment: None });
                    fresh = false;
                }
                EventKind::Scalar | EventKind::ArrayOpen | EventKind::InlineTableOpen => {
                    list.items.push(Item::Value { key: None, value: self.value(event), comment: None });
                    fresh = false;
                }
                _ => fresh = false,
            }
            gap = 0;
        }
        if list.items.last() == Some(&Item::Blank) {
            list.items.pop();
        }
        list
    }
}
