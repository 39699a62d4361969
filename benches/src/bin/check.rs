//! Times the check of rows that are in memory, on one thread: `check flights|lineitem SHARE ROWS ROUNDS OUT`. A share of the rows is broken. The
//! contract takes them as Arrow batches of 8192 rows and says why a row fails; the `jsonschema` crate takes the same rows as prepared
//! `serde_json::Value`s and says only yes or no, and once more with the first reason asked of every row that fails. Rows go to OUT as `rows.arrow`
//! and `rows.ndjson` for the peers. Prints JSON: per job the seconds of every round, in turn.

use std::{
    error::Error,
    fs::{self, File},
    hint::black_box,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use arrow::{
    array::RecordBatch,
    compute::cast,
    csv::ReaderBuilder,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::FileWriter,
};
use serde_json::{Value, json};
use tpchgen::{csv::LineItemCsv, generators::LineItemGenerator};
use weir_benches::spoil::{FLIGHTS, LINEITEM, Spoiler};
use weir_schemas::{Contract, json::row};

const BATCH_ROWS: usize = 8192;

fn main() -> ExitCode {
    match measure() {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The header and the lines of the rows as they are.
fn rows(what: &str, count: usize) -> Result<(String, Vec<String>), Box<dyn Error>> {
    match what {
        "flights" => {
            let file = File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/flights/data/flights.csv.gz"))?;
            let mut lines = BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines();
            let header = lines.next().ok_or("no header")??;
            Ok((header, lines.take(count).collect::<Result<_, _>>()?))
        }
        "lineitem" => {
            let lines = LineItemGenerator::new(1.0, 1, 1).iter().take(count).map(|row| LineItemCsv::new(row).to_string());
            Ok((LineItemCsv::header().to_owned(), lines.collect()))
        }
        other => Err(format!("no rows are called \"{other}\"").into()),
    }
}

fn text_of(header: &str, lines: &[String]) -> String {
    format!("{header}\n{}\n", lines.join("\n"))
}

/// CSV as batches of the contract's columns.
fn read(contract: &Contract, text: &str) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
    let columns = contract.columns();
    // Every column may lack a cell, for that is one way to break the contract; and this reader knows instants by their offset only.
    let read = |field: &FieldRef| match field.data_type() {
        DataType::Timestamp(unit, Some(_)) => Field::new(field.name(), DataType::Timestamp(*unit, Some("+00:00".into())), true),
        other => Field::new(field.name(), other.clone(), true),
    };
    let reader = ReaderBuilder::new(Arc::new(Schema::new(columns.fields().iter().map(read).collect::<Vec<_>>())))
        .with_header(true)
        .with_batch_size(BATCH_ROWS)
        .with_null_regex(regex::Regex::new("^(NA)?$")?)
        .build(text.as_bytes())?;
    Ok(reader.map(|batch| typed(&batch?, columns)).collect::<Result<Vec<RecordBatch>, _>>()?)
}

fn measure() -> Result<Value, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, share, count, rounds, out] = &words[..] else { return Err("usage: check flights|lineitem SHARE ROWS ROUNDS OUT".into()) };
    let (share, count, rounds): (f64, usize, usize) = (share.parse()?, count.parse()?, rounds.parse()?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = fs::read_to_string(match what.as_str() {
        "flights" => root.join("../schemas/flight.schema.json"),
        _ => root.join("contracts/lineitem.schema.json"),
    })?;
    let contract = Contract::compile("contract", &schema)?;
    let (header, mut lines) = rows(what, count)?;
    // Rows that break the contract as they are would blur the share.
    let mut sound = Vec::new();
    for batch in &read(&contract, &text_of(&header, &lines))? {
        let valid = contract.check(batch).valid;
        sound.extend((0..batch.num_rows()).map(|at| valid.as_ref().is_none_or(|valid| valid.value(at))));
    }
    let mut sound = sound.into_iter();
    lines.retain(|_| sound.next().unwrap_or(false));
    let mut spoiler = Spoiler::new(&header, if what == "flights" { FLIGHTS } else { LINEITEM }, share);
    let mut text = format!("{header}\n");
    lines.iter().for_each(|line| spoiler.line(line, &mut text));
    let broken = spoiler.broken();
    let batches = read(&contract, &text)?;
    drop((text, lines));
    let schema: Value = serde_json::from_str(&schema)?;
    let validator = jsonschema::options().should_validate_formats(true).build(&schema)?;
    // No property of either contract may be null: an empty cell is an absent one.
    let values: Vec<Value> = batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(move |at| row(batch, at)))
        .map(|mut value| {
            value.as_object_mut().expect("a row is an object").retain(|_, cell| !cell.is_null());
            value
        })
        .collect();
    write(Path::new(out), &batches, &values)?;
    let refused = agree(&contract, &batches, &validator, &values)?;
    if refused != broken {
        return Err(format!("{broken} rows were broken and {refused} fail").into());
    }
    let mut seconds = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        let started = Instant::now();
        for batch in &batches {
            black_box(contract.check(batch));
        }
        seconds[0].push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        black_box(values.iter().filter(|value| !validator.is_valid(value)).count());
        seconds[1].push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        let reasons = values.iter().filter(|value| !validator.is_valid(value)).flat_map(|value| validator.iter_errors(value).next());
        black_box(reasons.map(|error| error.to_string().len()).sum::<usize>());
        seconds[2].push(started.elapsed().as_secs_f64());
    }
    let [checks, verdicts, reasons] = seconds;
    Ok(json!({ "rows": values.len(), "refused": refused, "check": checks, "is_valid": verdicts, "reasons": reasons }))
}

/// The batch with the columns' own types.
fn typed(batch: &RecordBatch, columns: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let cells = columns.fields().iter().zip(batch.columns()).map(|(field, cells)| cast(cells, field.data_type()));
    let fields = columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), cells.collect::<Result<_, _>>()?)
}

/// How many rows are refused, once both have said the same of each of them.
fn agree(contract: &Contract, batches: &[RecordBatch], crates: &jsonschema::Validator, values: &[Value]) -> Result<usize, Box<dyn Error>> {
    let mut left = values.iter();
    let mut refused = 0;
    for batch in batches {
        let verdict = contract.check(batch);
        for at in 0..batch.num_rows() {
            let value = left.next().ok_or("too few rows")?;
            let ours = verdict.valid.as_ref().is_none_or(|valid| valid.value(at));
            if ours != crates.is_valid(value) {
                return Err(format!("the verdicts on this row differ: {value}").into());
            }
            refused += usize::from(!ours);
        }
    }
    Ok(refused)
}

fn write(folder: &Path, batches: &[RecordBatch], values: &[Value]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let first = batches.first().ok_or("no rows")?;
    let mut file = FileWriter::try_new_buffered(File::create(folder.join("rows.arrow"))?, first.schema_ref())?;
    for batch in batches {
        file.write(batch)?;
    }
    file.finish()?;
    let mut lines = BufWriter::new(File::create(folder.join("rows.ndjson"))?);
    for value in values {
        writeln!(lines, "{value}")?;
    }
    Ok(lines.flush()?)
}
