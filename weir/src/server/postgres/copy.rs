//! How does `COPY … TO STDOUT` write its rows? In Postgres's text, CSV and binary formats.
//! <https://www.postgresql.org/docs/18/sql-copy.html#id-1.9.3.55.9>

use bytes::{BufMut, BytesMut};

use super::{
    command::Inner,
    error::{PgError, Result},
    temporal::Style,
    values::{Rows, ValueError},
};

/// What is copied, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    /// Whose rows.
    pub query: Inner,
    /// Their form.
    pub format: CopyFormat,
}

/// The form of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFormat {
    /// A line a row, with backslashes.
    Text { header: bool, delimiter: u8, null: String },
    /// A record a row, with quotes.
    Csv { header: bool, delimiter: u8, null: String, quote: u8, escape: u8, force: bool },
    /// Postgres's own.
    Binary,
}

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

impl CopyFormat {
    /// Reads options, as they are named in `with (…)`.
    pub fn read(options: &[(String, Option<String>)]) -> Result<Self> {
        let (mut format, mut header, mut force) = ("text".to_owned(), false, false);
        let (mut delimiter, mut null, mut quote, mut escape) = (None, None, None, None);
        let invalid = |message: String| Err(PgError::new("22023", message));
        for (name, value) in options {
            let text = value.clone().unwrap_or_default();
            let one_byte = || match text.as_bytes() {
                [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(Some(*byte)),
                _ => Err(PgError::new("22023", format!("COPY's \"{name}\" is one character of ASCII, not \"{text}\""))),
            };
            match name.as_str() {
                "format" => format = text.to_ascii_lowercase(),
                "header" => match text.to_ascii_lowercase().as_str() {
                    "" | "true" | "on" | "1" => header = true,
                    "false" | "off" | "0" => header = false,
                    _ => return invalid(format!("COPY's \"header\" is true or false, not \"{text}\"")),
                },
                "delimiter" => delimiter = one_byte()?,
                "quote" => quote = one_byte()?,
                "escape" => escape = one_byte()?,
                "null" if text.contains(['\n', '\r']) => return invalid("COPY's \"null\" is one line".to_owned()),
                "null" => null = Some(text),
                "force_quote" if text == "*" => force = true,
                "force_quote" => return Err(PgError::unsupported("COPY quotes columns of CSV where they need it, or all: force_quote *")),
                "encoding" if matches!(text.to_ascii_lowercase().as_str(), "utf8" | "utf-8") => {}
                "encoding" => return invalid(format!("COPY writes UTF8, not \"{text}\"")),
                _ => return Err(PgError::new("42601", format!("COPY has no option \"{name}\" here"))),
            }
        }
        let tab = |byte: Option<u8>, otherwise| byte.unwrap_or(otherwise);
        match format.as_str() {
            "text" if quote.is_some() || escape.is_some() || force => invalid("quotes are of COPY's format csv".to_owned()),
            "text" => Ok(Self::Text { header, delimiter: tab(delimiter, b'\t'), null: null.unwrap_or_else(|| "\\N".to_owned()) }),
            "csv" => {
                let (delimiter, quote) = (tab(delimiter, b','), tab(quote, b'"'));
                if delimiter == quote {
                    return invalid("COPY's delimiter and its quote differ".to_owned());
                }
                Ok(Self::Csv { header, delimiter, null: null.unwrap_or_default(), quote, escape: tab(escape, quote), force })
            }
            "binary" if header || delimiter.is_some() || null.is_some() || quote.is_some() => {
                invalid("COPY's format binary has no header, delimiter, null or quote".to_owned())
            }
            "binary" => Ok(Self::Binary),
            other => invalid(format!("COPY's format is text, csv or binary, not \"{other}\"")),
        }
    }

    /// True for the format whose bytes are no text.
    pub fn is_binary(&self) -> bool {
        *self == Self::Binary
    }

    /// What comes before the first row.
    pub fn begin(&self, names: &[&str], out: &mut BytesMut) {
        match self {
            Self::Binary => out.extend_from_slice(SIGNATURE),
            Self::Text { header: true, delimiter, .. } => {
                for (at, name) in names.iter().enumerate() {
                    if at > 0 {
                        out.put_u8(*delimiter);
                    }
                    escaped(name.as_bytes(), *delimiter, out);
                }
                out.put_u8(b'\n');
            }
            Self::Csv { header: true, delimiter, null, quote, escape, .. } => {
                for (at, name) in names.iter().enumerate() {
                    if at > 0 {
                        out.put_u8(*delimiter);
                    }
                    let csv = Csv { delimiter: *delimiter, null, quote: *quote, escape: *escape, force: false, alone: names.len() == 1 };
                    csv.write(name.as_bytes(), out);
                }
                out.put_u8(b'\n');
            }
            _ => {}
        }
    }

    /// One row.
    pub fn row(&self, rows: &Rows, row: usize, style: &Style, out: &mut BytesMut) -> Result<(), ValueError> {
        let columns = rows.columns();
        if let Self::Binary = self {
            out.put_u16(columns.len() as u16);
            return columns.iter().try_for_each(|column| column.field(row, true, style, out));
        }
        let mut value = BytesMut::new();
        for (at, column) in columns.iter().enumerate() {
            value.clear();
            let is_null = column.is_null(row);
            if !is_null {
                column.text(row, style, &mut value)?;
            }
            match self {
                Self::Text { delimiter, null, .. } => {
                    if at > 0 {
                        out.put_u8(*delimiter);
                    }
                    if is_null { out.extend_from_slice(null.as_bytes()) } else { escaped(&value, *delimiter, out) }
                }
                Self::Csv { delimiter, null, quote, escape, force, .. } => {
                    if at > 0 {
                        out.put_u8(*delimiter);
                    }
                    let csv = Csv { delimiter: *delimiter, null, quote: *quote, escape: *escape, force: *force, alone: columns.len() == 1 };
                    if is_null { out.extend_from_slice(null.as_bytes()) } else { csv.write(&value, out) }
                }
                Self::Binary => {}
            }
        }
        out.put_u8(b'\n');
        Ok(())
    }

    /// What comes behind the last row.
    pub fn end(&self, out: &mut BytesMut) {
        if let Self::Binary = self {
            out.put_i16(-1);
        }
    }
}

/// A value of the text format.
fn escaped(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    for byte in value {
        let letter = match byte {
            b'\\' => b'\\',
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            other if *other == delimiter => *other,
            other => {
                out.put_u8(*other);
                continue;
            }
        };
        out.put_u8(b'\\');
        out.put_u8(letter);
    }
}

struct Csv<'a> {
    delimiter: u8,
    null: &'a str,
    quote: u8,
    escape: u8,
    force: bool,
    /// The only column: a line `\.` of it would look like the end.
    alone: bool,
}

impl Csv<'_> {
    fn write(&self, value: &[u8], out: &mut BytesMut) {
        let special = |byte: &u8| *byte == self.delimiter || *byte == self.quote || matches!(byte, b'\n' | b'\r');
        let quoted = self.force || value == self.null.as_bytes() || value.iter().any(special) || self.alone && value == b"\\.";
        if !quoted {
            out.extend_from_slice(value);
            return;
        }
        out.put_u8(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.put_u8(self.escape);
            }
            out.put_u8(*byte);
        }
        out.put_u8(self.quote);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    fn copied(options: &[(&str, &str)]) -> String {
        let options: Vec<_> = options.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect();
        let format = CopyFormat::read(&options).expect("options");
        let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("a,b", DataType::Utf8, true)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(StringArray::from(vec![Some("x\ty\\z\n"), Some(""), None])),
        ];
        let batch = RecordBatch::try_new(Arc::new(schema), columns).expect("a batch");
        let rows = Rows::new(&batch).expect("rows");
        let mut out = BytesMut::new();
        format.begin(&["id", "a,b"], &mut out);
        (0..rows.len).for_each(|row| format.row(&rows, row, &Style::default(), &mut out).expect("written"));
        format.end(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn rows_are_written_as_postgres_writes_them() {
        assert_eq!(copied(&[]), "1\tx\\ty\\\\z\\n\n\\N\t\n3\t\\N\n");
        assert_eq!(copied(&[("format", "csv"), ("header", "true")]), "id,\"a,b\"\n1,\"x\ty\\z\n\"\n,\"\"\n3,\n");
        assert_eq!(copied(&[("format", "csv"), ("delimiter", ";"), ("null", "NA"), ("quote", "'")]), "1;'x\ty\\z\n'\nNA;\n3;NA\n");
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        let refused = |name: &str, value: &str| CopyFormat::read(&[(name.to_owned(), Some(value.to_owned()))]).expect_err(name).message;
        assert_eq!(refused("format", "parquet"), "COPY's format is text, csv or binary, not \"parquet\"");
        assert_eq!(refused("delimiter", "||"), "COPY's \"delimiter\" is one character of ASCII, not \"||\"");
        assert_eq!(refused("encoding", "latin1"), "COPY writes UTF8, not \"latin1\"");
        assert_eq!(refused("freeze", "true"), "COPY has no option \"freeze\" here");
    }
}
