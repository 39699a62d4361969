//! Writes rows as CSV to standard output: `lineitem SCALE [SHARE]` is TPC-H's lineitem, of which that share breaks
//! `benches/contracts/lineitem.schema.json`; scale 1 is 6,001,215 rows and 766 MB. `lineitem readings ROWS` is small rows, every second of which
//! breaks the rules of `benches/contract`.

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use tpchgen::{csv::LineItemCsv, generators::LineItemGenerator};
use weir_benches::spoil::{LINEITEM, Spoiler};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<f64>().ok().filter(|number| *number >= 0.0);
    let done = match words[..] {
        ["readings", rows] if rows.parse::<u64>().is_ok() => readings(rows.parse().unwrap_or(0)),
        [scale] if number(scale).is_some() => lineitem(number(scale).unwrap_or(0.0), 0.0),
        [scale, share] if number(scale).and(number(share)).is_some() => {
            lineitem(number(scale).unwrap_or(0.0), number(share).unwrap_or(0.0))
        }
        _ => {
            eprintln!("usage: lineitem SCALE [SHARE] | readings ROWS");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}

fn lineitem(scale: f64, share: f64) -> io::Result<()> {
    use std::fmt::Write as _;
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    writeln!(out, "{}", LineItemCsv::header())?;
    let mut spoiler = Spoiler::new(LineItemCsv::header(), LINEITEM, share);
    let (mut line, mut spoilt) = (String::new(), String::new());
    for row in LineItemGenerator::new(scale, 1, 1) {
        line.clear();
        spoilt.clear();
        write!(line, "{}", LineItemCsv::new(row)).map_err(io::Error::other)?;
        spoiler.line(&line, &mut spoilt);
        out.write_all(spoilt.as_bytes())?;
    }
    out.flush()
}

fn readings(rows: u64) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    writeln!(out, "id,sensor,value")?;
    for row in 1..=rows {
        // Every second value is out of bounds.
        writeln!(out, "{row},s{},{}", row % 97, row % 100 + 1000 * (row % 2))?;
    }
    out.flush()
}
