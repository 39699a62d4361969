//! Rows as records: a line for each value, with the column's name before it, as psql draws them with `\x`. For rows that are wider than a screen.

use std::io::{self, Write};

use super::{
    Style,
    text::{visible, width},
};

/// Draws records.
pub struct Expanded {
    names: Vec<String>,
    widest: usize,
    style: Style,
    records: u64,
}

impl Expanded {
    /// Starts with the names of the columns.
    pub fn new(names: impl IntoIterator<Item = String>, style: Style) -> Self {
        let names: Vec<String> = names.into_iter().map(|name| visible(&name).into_owned()).collect();
        let widest = names.iter().map(|name| width(name)).max().unwrap_or(0);
        Self { names, widest, style, records: 0 }
    }

    /// Draws one record.
    pub fn record(&mut self, out: &mut impl Write, values: impl IntoIterator<Item = String>) -> io::Result<()> {
        self.records += 1;
        let values: Vec<String> = values.into_iter().map(|value| visible(&value).into_owned()).collect();
        let mut rule = format!("-[ RECORD {} ]", self.records);
        let names = self.widest + 1;
        rule.push_str(&"-".repeat(names.saturating_sub(rule.len())));
        if rule.len() == names {
            let values = values.iter().map(|value| width(value)).max().unwrap_or(0).min(RULE_MAX);
            rule.push('+');
            rule.push_str(&"-".repeat(values + 1));
        }
        writeln!(out, "{}", self.style.dim(&rule))?;
        for (name, value) in self.names.iter().zip(&values) {
            let blank = " ".repeat(self.widest.saturating_sub(width(name)));
            let line = format!("{}{blank} | {value}", self.style.bold(name));
            writeln!(out, "{}", line.trim_end_matches(' '))?;
        }
        Ok(())
    }
}

/// Columns of the line above a record at most, behind the names.
const RULE_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_line_up_and_values_stay_on_their_line() {
        let mut out = Vec::new();
        let names = ["carrier", "a name of thirty characters ok", "東京"];
        let mut records = Expanded::new(names.map(str::to_owned), Style::PLAIN);
        records.record(&mut out, ["UA", "1", "x\ny"].map(str::to_owned)).expect("writes");
        records.record(&mut out, ["", "NULL", "z"].map(str::to_owned)).expect("writes");
        let short = Expanded::new(["a".to_owned()], Style::PLAIN).record(&mut out, ["1".to_owned()]);
        short.expect("writes");
        assert_eq!(
            String::from_utf8(out).expect("is text"),
            "-[ RECORD 1 ]------------------+-----\n\
             carrier                        | UA\n\
             a name of thirty characters ok | 1\n\
             東京                           | x\\ny\n\
             -[ RECORD 2 ]------------------+-----\n\
             carrier                        |\n\
             a name of thirty characters ok | NULL\n\
             東京                           | z\n\
             -[ RECORD 1 ]\n\
             a | 1\n"
        );
    }
}
