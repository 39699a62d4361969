//! What `benches/sql` measures beside Weir. `sql tpch SCALE FOLDER` writes the tables of TPC-H as CSV and its 22 queries as text; `sql plain FOLDER`
//! answers statements with DataFusion alone, over the folders of Parquet files in FOLDER, each a table: a statement as a JSON string on each line
//! of standard input, milliseconds and rows as JSON on each line of standard output.

use std::{
    error::Error,
    fmt::Display,
    fs::{self, File},
    io::{self, BufRead, BufWriter, Write},
    path::Path,
    process::ExitCode,
    time::Instant,
};

use arrow::array::RecordBatch;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use serde_json::json;
use tpchgen::{
    csv::{CustomerCsv, LineItemCsv, NationCsv, OrderCsv, PartCsv, PartSuppCsv, RegionCsv, SupplierCsv},
    generators::{
        CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator, RegionGenerator,
        SupplierGenerator,
    },
    q_and_a::queries,
};

/// What stands for `:1`, `:2` and so on in each query: the values by which the benchmark checks its answers.
const VALUES: [&[&str]; 22] = [
    &["90"],
    &["15", "BRASS", "EUROPE"],
    &["BUILDING", "1995-03-15"],
    &["1993-07-01"],
    &["ASIA", "1994-01-01"],
    &["1994-01-01", "0.06", "24"],
    &["FRANCE", "GERMANY"],
    &["BRAZIL", "AMERICA", "ECONOMY ANODIZED STEEL"],
    &["green"],
    &["1993-10-01"],
    &["GERMANY", "0.0001"],
    &["MAIL", "SHIP", "1994-01-01"],
    &["special", "requests"],
    &["1995-09-01"],
    &["1996-01-01"],
    &["Brand#45", "MEDIUM POLISHED", "49", "14", "23", "45", "19", "3", "36", "9"],
    &["Brand#23", "MED BOX"],
    &["300"],
    &["Brand#12", "Brand#23", "Brand#34", "1", "10", "20"],
    &["forest", "1994-01-01", "CANADA"],
    &["SAUDI ARABIA"],
    &["13", "31", "23", "29", "30", "18", "17"],
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["tpch", scale, folder] => match scale.parse::<f64>().ok().filter(|scale| *scale > 0.0) {
            Some(scale) => tpch(scale, Path::new(folder)).map_err(Into::into),
            None => Err("the scale is a number above 0".into()),
        },
        ["plain", folder] => plain(Path::new(folder)),
        _ => Err("usage: sql tpch SCALE FOLDER | sql plain FOLDER".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn table<T: Display>(folder: &Path, name: &str, header: &str, rows: impl Iterator<Item = T>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(folder.join(format!("{name}.csv")))?);
    writeln!(out, "{header}")?;
    for row in rows {
        writeln!(out, "{row}")?;
    }
    out.flush()
}

fn tpch(scale: f64, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    table(folder, "region", RegionCsv::header(), RegionGenerator::new(scale, 1, 1).iter().map(RegionCsv::new))?;
    table(folder, "nation", NationCsv::header(), NationGenerator::new(scale, 1, 1).iter().map(NationCsv::new))?;
    table(folder, "part", PartCsv::header(), PartGenerator::new(scale, 1, 1).iter().map(PartCsv::new))?;
    table(folder, "supplier", SupplierCsv::header(), SupplierGenerator::new(scale, 1, 1).iter().map(SupplierCsv::new))?;
    table(folder, "partsupp", PartSuppCsv::header(), PartSuppGenerator::new(scale, 1, 1).iter().map(PartSuppCsv::new))?;
    table(folder, "customer", CustomerCsv::header(), CustomerGenerator::new(scale, 1, 1).iter().map(CustomerCsv::new))?;
    table(folder, "orders", OrderCsv::header(), OrderGenerator::new(scale, 1, 1).iter().map(OrderCsv::new))?;
    table(folder, "lineitem", LineItemCsv::header(), LineItemGenerator::new(scale, 1, 1).iter().map(LineItemCsv::new))?;
    for (number, values) in (1..).zip(VALUES) {
        fs::write(folder.join(format!("{number}.sql")), query(number, values)?)?;
    }
    Ok(())
}

/// A query with its values, as one statement.
fn query(number: i32, values: &[&str]) -> io::Result<String> {
    let text = queries::query(number).ok_or_else(|| io::Error::other(format!("there is no query {number}")))?;
    let mut text = text.replace(" day (3)", " day");
    for (at, value) in values.iter().enumerate().rev() {
        text = text.replace(&format!(":{}", at + 1), value);
    }
    // The one that makes a view for itself has it in front.
    let text = text.replace("create view revenue:s (supplier_no, total_revenue) as", "with revenue (supplier_no, total_revenue) as (");
    let text = text.replace("l_suppkey;\nselect", "l_suppkey)\nselect").replace("drop view revenue:s;", "").replace("revenue:s", "revenue");
    if text.contains(':') {
        return Err(io::Error::other(format!("a value is missing: {text}")));
    }
    Ok(text.trim().trim_end_matches(';').to_owned())
}

fn plain(folder: &Path) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(8 << 20).build()?;
    let mut config = SessionConfig::new();
    config.options_mut().execution.parquet.pushdown_filters = true;
    let session = SessionContext::new_with_config(config);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let (Some(name), Some(place)) = (path.file_name().and_then(|name| name.to_str()), path.to_str()) else { continue };
        runtime.block_on(session.register_parquet(name, format!("{place}/"), ParquetReadOptions::default()))?;
    }
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let sql: String = serde_json::from_str(&line?)?;
        let started = Instant::now();
        let rows: Vec<RecordBatch> = runtime.block_on(async { session.sql(&sql).await?.collect().await })?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        writeln!(out, "{}", json!({ "ms": ms, "rows": rows.iter().map(RecordBatch::num_rows).sum::<usize>() }))?;
        out.flush()?;
    }
    Ok(())
}
