//! A value that says nothing of the one whose place it takes: of the same type, as long where that matters, and one that the column's contract
//! takes. Only its kind, its length and its punctuation come from the real value; all else comes from a number.

use chrono::{Days, NaiveDate};
use serde_json::Value;
use weir_pipelines::{Literal, Moment, Spanned};
use weir_schemas::personal::Personal;

/// The day that made-up dates follow.
fn day(number: u64) -> NaiveDate {
    NaiveDate::from_ymd_opt(1990, 1, 1).and_then(|first| first.checked_add_days(Days::new(number))).unwrap_or_default()
}

/// What may take a value's place, the likeliest first. Another number makes other values.
pub(super) fn candidates(value: &Literal, of: &Personal<'_>, number: u64) -> Vec<Literal> {
    let mut out: Vec<Literal> = Vec::new();
    if let Some(listed) = of.says("enum").and_then(Value::as_array) {
        let at = usize::try_from(number).unwrap_or(0) % listed.len().max(1);
        out.extend(listed.get(at).and_then(plain));
        return out;
    }
    match value {
        Literal::Text(text) => {
            out.extend(of.says("format").and_then(Value::as_str).and_then(|format| of_format(format, number)).map(Literal::Text));
            let (shape, plain) = (shaped(text, number, |_| false), format!("{} {number}", of.column));
            // A number stays one where it can, a text that nothing is asked of is one that can be read.
            let is_number = text.parse::<f64>().is_ok();
            out.extend(if is_number || of.says("pattern").is_some() { [shape, plain] } else { [plain, shape] }.map(Literal::Text));
            if let Some(pattern) = of.says("pattern").and_then(Value::as_str) {
                // What the pattern spells out says nothing of the value: words, or how it begins.
                let begin = literal_start(pattern);
                let rest = text.strip_prefix(begin.as_str()).unwrap_or(text);
                out.push(Literal::Text(shaped(text, number, |word| pattern.contains(word))));
                out.push(Literal::Text(format!("{}{}", &text[..text.len() - rest.len()], shaped(rest, number, |_| false))));
            }
        }
        Literal::Integer(known) => {
            let own = i128::from(number);
            let digits = known.unsigned_abs().checked_ilog10().unwrap_or(0);
            let long = 10_i128.checked_pow(digits).unwrap_or(0) + own;
            out.push(Literal::Integer(if *known < 0 { -long } else { long }));
            let bound = |key: &str| of.says(key).and_then(Value::as_i64).map(i128::from);
            let step = bound("multipleOf").filter(|step| *step > 0).unwrap_or(1);
            out.extend(bound("minimum").map(|least| Literal::Integer(least + own * step)));
            out.extend(bound("maximum").map(|most| Literal::Integer(most - own * step)));
            out.push(Literal::Integer(own * step));
        }
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        Literal::Float(_) => {
            let own = number as f64;
            let bound = |key: &str| of.says(key).and_then(Value::as_f64);
            let step = bound("multipleOf").filter(|step| *step > 0.0).unwrap_or(1.0);
            out.push(Literal::Float(own * step));
            out.extend(bound("minimum").map(|least| Literal::Float(least + own * step)));
            out.extend(bound("maximum").map(|most| Literal::Float(most - own * step)));
            if let (Some(least), Some(most)) = (bound("minimum"), bound("maximum")) {
                out.push(Literal::Float(least + (most - least) / (own + 1.0)));
            }
        }
        other => out.push(reshaped(other, number)),
    }
    out
}

/// A value of JSON as one of TOML; none for what has no parts that could be told apart.
fn plain(value: &Value) -> Option<Literal> {
    match value {
        Value::String(text) => Some(Literal::Text(text.clone())),
        Value::Number(number) => {
            number.as_i64().map(|number| Literal::Integer(number.into())).or_else(|| number.as_f64().map(Literal::Float))
        }
        Value::Bool(value) => Some(Literal::Boolean(*value)),
        _ => None,
    }
}

fn of_format(format: &str, number: u64) -> Option<String> {
    Some(match format {
        "email" | "idn-email" => format!("person{number}@example.com"),
        "uri" | "iri" | "uri-reference" | "iri-reference" => format!("https://example.com/{number}"),
        "uuid" => format!("00000000-0000-4000-8000-{number:012}"),
        "hostname" | "idn-hostname" => format!("host{number}.example.com"),
        "ipv4" => format!("192.0.2.{}", number % 254 + 1),
        "ipv6" => format!("2001:db8::{number:x}"),
        "date" => day(number).to_string(),
        "date-time" => format!("{}T00:00:00Z", day(number)),
        "time" => format!("{:02}:{:02}:00Z", number / 60 % 24, number % 60),
        _ => return None,
    })
}

/// The characters that every text of a pattern begins with.
fn literal_start(pattern: &str) -> String {
    let Some(rest) = pattern.strip_prefix('^') else { return String::new() };
    let (mut out, mut letters) = (String::new(), rest.chars().peekable());
    while let Some(letter) = letters.next() {
        let letter = match letter {
            '\\' => match letters.next() {
                Some(escaped) if !escaped.is_alphanumeric() => escaped,
                _ => break,
            },
            plain if plain.is_alphanumeric() || " -_@/:#".contains(plain) => plain,
            _ => break,
        };
        if letters.peek().is_some_and(|next| "*?{|+".contains(*next)) {
            break;
        }
        out.push(letter);
    }
    if rest.contains('|') { String::new() } else { out }
}

/// A text with letters and digits of the same kinds at the same places. Words for which `kept` holds stay.
fn shaped(text: &str, number: u64, kept: impl Fn(&str) -> bool) -> String {
    let mut place = 0;
    let mut next = |size: u64| {
        place += 1;
        u8::try_from((number * 7 + place * (11 + number % 5)) % size).unwrap_or(0)
    };
    let mut other = |letter: char| match letter {
        '0'..='9' => char::from(b'1' + next(9)),
        letter if letter.is_uppercase() => char::from(b'A' + next(26)),
        letter if letter.is_alphabetic() => char::from(b'a' + next(26)),
        other => other,
    };
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(|letter: char| !letter.is_alphabetic()) {
        let word = piece.trim_end_matches(|letter: char| !letter.is_alphabetic());
        let word = if !word.is_empty() && kept(word) { word } else { "" };
        out.push_str(word);
        out.extend(piece[word.len()..].chars().map(&mut other));
    }
    out
}

/// A value in which every part is another one.
fn reshaped(value: &Literal, number: u64) -> Literal {
    let spanned = |value: &Spanned<Literal>| Spanned::new(reshaped(&value.value, number), 0..0);
    match value {
        Literal::Text(text) => Literal::Text(shaped(text, number, |_| false)),
        Literal::Integer(_) => Literal::Integer(number.into()),
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        Literal::Float(_) => Literal::Float(number as f64),
        Literal::Boolean(value) => Literal::Boolean(!value),
        Literal::Moment(Moment::Instant(_)) => Literal::Moment(Moment::Instant(format!("{}T00:00:00Z", day(number)))),
        Literal::Moment(Moment::Local(_)) => Literal::Moment(Moment::Local(format!("{}T00:00:00", day(number)))),
        Literal::Moment(Moment::Date(_)) => Literal::Moment(Moment::Date(day(number).to_string())),
        Literal::Moment(Moment::Time(_)) => Literal::Moment(Moment::Time(format!("{:02}:{:02}:00", number / 60 % 24, number % 60))),
        Literal::List(items) => Literal::List(items.iter().map(spanned).collect()),
        Literal::Record(cells) => Literal::Record(cells.iter().map(|(name, value)| (name.clone(), spanned(value))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_keeps_kinds_and_nothing_else() {
        let all = |text: &str, number: u64| shaped(text, number, |_| false);
        let kinds = |text: &str| text.chars().map(|c| (c.is_alphabetic(), c.is_numeric(), c.is_uppercase())).collect::<Vec<_>>();
        assert_eq!(kinds(&all("Ab-12 é", 1)), kinds("Ab-12 é"));
        assert_eq!(all("Anna-77", 3), all("Otto-12", 3), "only the shape counts");
        assert_ne!(all("Anna-77", 3), all("Anna-77", 4));
        assert!(shaped("C-001 Ann", 1, |word| "^C-[0-9]{3}".contains(word)).starts_with("C-"));
        assert!(!shaped("C-001 Ann", 1, |word| "^C-[0-9]{3}".contains(word)).contains("Ann"));
    }

    #[test]
    fn how_every_text_of_a_pattern_begins_is_known() {
        for (pattern, start) in
            [("^\\+49 [0-9]+$", "+49 "), ("^C-[0-9]{4}$", "C-"), ("^ab?c", "a"), ("^(a|b)c", ""), ("^a|b", ""), ("abc", ""), ("^\\d+", "")]
        {
            assert_eq!(literal_start(pattern), start, "{pattern}");
        }
    }
}
