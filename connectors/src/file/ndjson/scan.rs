//! JSON's grammar (RFC 8259) over a slice: where values begin and end, what strings say. What values mean is the caller's.

use std::borrow::Cow;

/// Why a text is no JSON, in words.
pub type Torn = &'static str;

/// The deepest nesting that is read.
const DEPTH_MAX: u32 = 128;

/// A place in a JSON text. The text is UTF-8, which the caller has made sure of.
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    /// The text.
    pub text: &'a [u8],
    /// The next byte.
    pub at: usize,
}

impl<'a> Scan<'a> {
    /// From the text's start.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Passes over white space and returns the next byte.
    #[inline(always)]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                byte => return byte.copied(),
            }
        }
    }

    /// Takes `byte` if it comes next.
    #[inline(always)]
    pub fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// Takes a word such as `null`.
    #[inline]
    pub fn word(&mut self, word: &[u8]) -> Result<(), Torn> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(());
        }
        Err(if self.text.get(self.at..).is_some_and(|rest| word.starts_with(rest)) {
            "it ends inside a value"
        } else {
            "it holds what is no value"
        })
    }

    /// Takes a number and returns its text.
    #[inline]
    pub fn number(&mut self) -> Result<&'a [u8], Torn> {
        let start = self.at;
        let digits = |scan: &mut Self| {
            let from = scan.at;
            while scan.text.get(scan.at).is_some_and(u8::is_ascii_digit) {
                scan.at += 1;
            }
            scan.at - from
        };
        self.at += usize::from(self.text.get(self.at) == Some(&b'-'));
        let zero = self.text.get(self.at) == Some(&b'0');
        let whole = digits(self);
        if whole == 0 || (zero && whole > 1) {
            return Err("it holds a number that JSON does not know");
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            if digits(self) == 0 {
                return Err("it holds a number without digits after its point");
            }
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            if digits(self) == 0 {
                return Err("it holds a number without digits in its exponent");
            }
        }
        Ok(&self.text[start..self.at])
    }

    /// Takes a string and returns what it says.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, Torn> {
        let (raw, escaped) = self.raw_string()?;
        if escaped { unescape(raw).map(Cow::Owned) } else { Ok(Cow::Borrowed(raw)) }
    }

    /// Takes a string and returns what stands between its quotes, and whether there are escapes in it.
    #[inline]
    fn raw_string(&mut self) -> Result<(&'a [u8], bool), Torn> {
        if self.text.get(self.at) != Some(&b'"') {
            return Err("it lacks a quote");
        }
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            while let Some(eight) = self.text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
                if special(u64::from_le_bytes(*eight)) {
                    break;
                }
                at += 8;
            }
            match self.text.get(at) {
                None => return Err("it ends inside a string"),
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok((&self.text[start..at], escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(0..=0x1F) => return Err("it holds a control character inside a string"),
                Some(_) => at += 1,
            }
        }
    }

    /// Takes one whole value, whatever it is, and checks it.
    pub fn skip(&mut self) -> Result<(), Torn> {
        self.skip_at(0)
    }

    /// The same inside of so many others.
    pub fn skip_at(&mut self, depth: u32) -> Result<(), Torn> {
        if depth > DEPTH_MAX {
            return Err("it is nested deeper than 128");
        }
        match self.peek() {
            None => Err("it ends where a value should stand"),
            Some(b'"') => match self.raw_string()? {
                (raw, true) => unescape(raw).map(|_| ()),
                _ => Ok(()),
            },
            Some(b'{') => {
                self.at += 1;
                self.members(b'}', |scan| {
                    scan.key()?;
                    scan.skip_at(depth + 1)
                })
            }
            Some(b'[') => {
                self.at += 1;
                self.members(b']', |scan| scan.skip_at(depth + 1))
            }
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(_) => Err("it holds what is no value"),
        }
    }

    /// Takes a key and its colon.
    #[inline]
    pub fn key(&mut self) -> Result<Cow<'a, [u8]>, Torn> {
        if self.peek() != Some(b'"') {
            return Err(if self.at < self.text.len() { "it lacks a key in quotes" } else { "it ends inside an object" });
        }
        let key = self.string()?;
        if !self.take(b':') {
            return Err(if self.at < self.text.len() { "it lacks a colon after a key" } else { "it ends inside an object" });
        }
        Ok(key)
    }

    /// Takes members up to the closing bracket, whose partner was taken.
    #[inline(always)]
    pub fn members<E: From<Torn>>(&mut self, close: u8, mut member: impl FnMut(&mut Self) -> Result<(), E>) -> Result<(), E> {
        if self.take(close) {
            return Ok(());
        }
        loop {
            self.peek();
            member(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => return Err("it lacks a comma or a closing bracket".into()),
                None => return Err("it ends inside an object or an array".into()),
            }
        }
    }
}

/// Whether any of eight bytes is a quote, a backslash or a control character.
#[inline(always)]
fn special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = |v: u64| v.wrapping_sub(ONES) & !v & HIGH;
    let control = word.wrapping_sub(ONES.wrapping_mul(0x20)) & !word & HIGH;
    zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5C)) | control != 0
}

/// What a string with escapes says.
fn unescape(raw: &[u8]) -> Result<Vec<u8>, Torn> {
    const WRONG: Torn = "it holds an escape that JSON does not know";
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'\\' {
            out.push(raw[at]);
            at += 1;
            continue;
        }
        let plain = match raw.get(at + 1) {
            Some(b'"') => b'"',
            Some(b'\\') => b'\\',
            Some(b'/') => b'/',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let unit = hex(raw, at + 2).ok_or(WRONG)?;
                at += 6;
                let code = match unit {
                    0xD800..0xDC00 => {
                        let low = if raw.get(at..at + 2) == Some(b"\\u") { hex(raw, at + 2) } else { None };
                        let Some(low @ 0xDC00..0xE000) = low else { return Err("it holds half a surrogate pair") };
                        at += 6;
                        0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                    unit => unit,
                };
                let char = char::from_u32(code).ok_or("it holds half a surrogate pair")?;
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return Err(WRONG),
        };
        out.push(plain);
        at += 2;
    }
    Ok(out)
}

fn hex(raw: &[u8], at: usize) -> Option<u32> {
    raw.get(at..at + 4)?.iter().try_fold(0, |value, &byte| Some(value << 4 | char::from(byte).to_digit(16)?))
}
