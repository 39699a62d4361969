//! One text made into another that is nearly right.

use std::collections::BTreeSet;

/// Numbers that are the same for the same seed (SplitMix64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % count.max(1) as u64).unwrap()
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.below(of.len());
        &of[at]
    }
}

/// What may take a word's place.
pub struct Words {
    /// Those of the corpus.
    own: Vec<String>,
}

impl Words {
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut own = BTreeSet::new();
        for text in texts {
            own.extend(tokens(text).into_iter().map(|(start, end)| text[start..end].to_owned()));
        }
        Self { own: own.into_iter().filter(|word| word.len() < 60).collect() }
    }
}

/// Characters that end, open or escape something.
const MARKS: [&str; 32] = [
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "(",
    ")",
    "=",
    ",",
    ".",
    "\\",
    "\\u0000",
    "\\U0010ffff",
    "#",
    "--",
    "/*",
    ";",
    "\n",
    "\r\n",
    "\r",
    "\t",
    "\0",
    "\u{feff}",
    "é",
    "😀",
    "$",
    "\u{202e}",
];

/// Values and pieces of SQL that are hard on somebody.
const PIECES: [&str; 72] = [
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999999999",
    "1e400",
    "-0.0",
    "nan",
    "inf",
    "0x7fffffff",
    "1979-05-27T00:32:00-07:00",
    "2013-02-30",
    "0000-01-01",
    "99999-12-31",
    "true",
    "\"\"",
    "[]",
    "{}",
    "[[]]",
    "\"500%\"",
    "\"-1%\"",
    "\"1h1h\"",
    "\"99999999999d\"",
    "\"0 0 31 2 *\"",
    "\"* * * * * * *\"",
    "select 1",
    "(select 1)",
    "select * from",
    "*",
    "count(*)",
    "count(distinct 1)",
    "sum(*)",
    "avg(null)",
    "repeat('a', 9999999999)",
    "repeat('a', 1000000000)",
    "generate_series(1, 10000000000)",
    "unnest([1, 2])",
    "array_repeat(1, 4000000000)",
    "lpad('a', 2000000000)",
    "factorial(100)",
    "power(10, 400)",
    "1 / 0",
    "5 % 0",
    "cast('x' as int)",
    "cast(1 as decimal(76, 80))",
    "try_cast('x' as date)",
    "date '2013-02-30'",
    "timestamp '9999-12-31 23:59:60'",
    "interval '1 fortnight'",
    "case when true then 1 else 'a' end",
    "row_number() over (order by 1)",
    "sum(1) over (partition by)",
    "with recursive r as (select 1 as n union all select n + 1 from r) select * from r",
    "union all select",
    "order by 99",
    "group by 1, 2",
    "having 1",
    "limit -1",
    "offset 99999999999999999999",
    "natural join",
    "cross join",
    "lateral (select 1)",
    "exists (select 1)",
    "in ()",
    "in (select 1, 2)",
    "is distinct from",
    "$1",
    "?",
    "x'00ff'",
    "e'\\n'",
    "regexp_like('a', '(')",
    "struct(1, 2).c0",
];

/// What is repeated until it is too deep.
const DEEP: [(&str, &str); 10] = [
    ("(", ")"),
    ("[", "]"),
    ("{ a = ", " }"),
    ("not ", ""),
    ("- ", ""),
    ("1 + ", ""),
    ("case when true then ", " end"),
    ("(select ", ")"),
    ("a.", ""),
    ("true and ", ""),
];

/// The start and end of each word, number and string in double quotes.
fn tokens(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, bool)> = None;
    for (at, c) in text.char_indices() {
        let is_word = c.is_alphanumeric() || c == '_';
        match open {
            Some((start, true)) if c == '"' || c == '\n' => {
                found.push((start, if c == '"' { at + 1 } else { at }));
                open = None;
            }
            Some((start, false)) if !is_word => {
                found.push((start, at));
                open = (c == '"').then_some((at, true));
            }
            None if c == '"' => open = Some((at, true)),
            None if is_word => open = Some((at, false)),
            _ => {}
        }
    }
    found
}

fn boundary(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A range of the text, mostly a short one.
fn range(text: &str, numbers: &mut Numbers) -> (usize, usize) {
    let start = numbers.below(text.len() + 1);
    let length = if numbers.below(4) == 0 { text.len() / 3 } else { 12 };
    let length = numbers.below(length + 1);
    (boundary(text, start), boundary(text, start + length))
}

fn with(text: &str, (start, end): (usize, usize), between: &str) -> String {
    format!("{}{between}{}", &text[..start], &text[end..])
}

/// One to four changes; `other` is another text of the corpus, to take from.
pub fn mutated(text: &str, other: &str, words: &Words, numbers: &mut Numbers) -> String {
    let mut text = text.to_owned();
    for _ in 0..=numbers.below(4) {
        text = changed(&text, other, words, numbers);
    }
    text
}

fn changed(text: &str, other: &str, words: &Words, numbers: &mut Numbers) -> String {
    let at = |numbers: &mut Numbers| {
        let at = boundary(text, numbers.below(text.len() + 1));
        (at, at)
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    match numbers.below(14) {
        0 => with(text, range(text, numbers), ""),
        1 => with(text, at(numbers), numbers.pick::<&str>(&MARKS)),
        2 => with(text, range(text, numbers), numbers.pick::<&str>(&MARKS)),
        3 => {
            let (start, end) = range(text, numbers);
            with(text, (end, end), &text[start..end].repeat(1 + numbers.below(3)))
        }
        // Words: the usual mistake is one word for another.
        kind @ 4..=8 => {
            let found = tokens(text);
            if found.is_empty() {
                return with(text, at(numbers), numbers.pick::<&str>(&PIECES));
            }
            let place = *numbers.pick(&found);
            match kind {
                4 | 5 => with(text, place, numbers.pick::<String>(&words.own)),
                6 => with(text, place, numbers.pick::<&str>(&PIECES)),
                7 => with(text, place, ""),
                _ => {
                    let (start, end) = *numbers.pick(&found);
                    with(text, place, &text[start..end])
                }
            }
        }
        // Lines: left out, twice, in another order, from elsewhere.
        kind @ 9..=11 if !lines.is_empty() => {
            let mut lines: Vec<&str> = lines;
            let place = numbers.below(lines.len());
            match kind {
                9 => {
                    lines.remove(place);
                }
                10 => {
                    let line = lines[place];
                    lines.insert(numbers.below(lines.len()), line);
                }
                _ => {
                    let others: Vec<&str> = other.split_inclusive('\n').collect();
                    let start = numbers.below(others.len());
                    let end = (start + 1 + numbers.below(6)).min(others.len());
                    lines.splice(place..place, others.get(start..end).unwrap_or_default().iter().copied());
                }
            }
            lines.concat()
        }
        12 => {
            let (open, close) = *numbers.pick(&DEEP);
            let times = *numbers.pick(&[2, 30, 60, 300, 3000]);
            let found = tokens(text);
            let place = if found.is_empty() { at(numbers) } else { *numbers.pick(&found) };
            with(text, place, &format!("{}{}{}", open.repeat(times), &text[place.0..place.1], close.repeat(times)))
        }
        _ => with(text, at(numbers), numbers.pick::<&str>(&PIECES)),
    }
}
