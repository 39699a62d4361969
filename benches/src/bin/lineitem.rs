//! Writes TPC-H's lineitem as CSV to standard output: `lineitem SCALE`. Scale 1 is 6,001,215 rows and 766 MB.

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use tpchgen::{csv::LineItemCsv, generators::LineItemGenerator};

fn main() -> ExitCode {
    let Some(scale) = std::env::args().nth(1).and_then(|scale| scale.parse::<f64>().ok()).filter(|scale| *scale > 0.0) else {
        eprintln!("usage: lineitem SCALE");
        return ExitCode::from(2);
    };
    match write(scale) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(scale: f64) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    writeln!(out, "{}", LineItemCsv::header())?;
    for row in LineItemGenerator::new(scale, 1, 1) {
        writeln!(out, "{}", LineItemCsv::new(row))?;
    }
    out.flush()
}
