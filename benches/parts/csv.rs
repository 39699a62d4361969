//! How fast is CSV taken apart, on one thread? A block of a megabyte is cut, its types are inferred, and it is decoded to Arrow columns.

use std::{hint::black_box, sync::Arc};

use arrow::datatypes::{DataType, Schema, SchemaRef};
use criterion::{Criterion, Throughput, criterion_group};
use weir_benches::lineitem;
use weir_connectors::file::{
    block::{BlockFormat, Inference},
    csv::CsvFormat,
};

fn block(criterion: &mut Criterion) {
    let quoted = lineitem::csv(0.0);
    let plain = unquoted(&quoted);
    let format = CsvFormat::default();
    let mut group = criterion.benchmark_group("csv/block");
    for (name, text) in [("plain", plain.as_bytes()), ("quoted", quoted.as_bytes())] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("cut/{name}"), |bencher| bencher.iter(|| format.whole_records(black_box(text), false)));
        group.bench_function(format!("infer/{name}"), |bencher| {
            bencher.iter(|| {
                let mut found = Inference::default();
                format.infer(true, black_box(text), &mut found).expect("a block of records");
                found
            });
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let quoted = lineitem::csv(0.0);
    let plain = unquoted(&quoted);
    let typed = lineitem::columns(&lineitem::contract());
    let texts = texts(&typed);
    let format = CsvFormat::default();
    let mut group = criterion.benchmark_group("csv/decode");
    for (name, text, columns) in [("plain", &plain, &typed), ("quoted", &quoted, &typed), ("text_only", &plain, &texts)] {
        let start = format.decoder(text.as_bytes(), columns.clone(), None).expect("there is a header");
        let block = &text.as_bytes()[start.skipped_bytes..];
        let decoded = start.decoder.decode(block, 2).expect("a block of records");
        assert_eq!((decoded.rows.num_rows(), decoded.bad.len()), (lineitem::ROWS, 0));
        group.throughput(Throughput::Bytes(block.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| start.decoder.decode(black_box(block), 2).expect("a block of records")));
    }
    group.finish();
}

/// The rows without quotes, and without the commas that they are for.
fn unquoted(csv: &str) -> String {
    let mut plain = String::with_capacity(csv.len());
    for line in csv.lines() {
        match line.split_once(",\"") {
            Some((cells, comment)) => {
                plain.push_str(cells);
                plain.push(',');
                plain.extend(comment.chars().filter(|character| !matches!(character, ',' | '"')));
            }
            None => plain.push_str(line),
        }
        plain.push('\n');
    }
    plain
}

/// The same columns, all of them text.
fn texts(columns: &SchemaRef) -> SchemaRef {
    let fields = columns.fields().iter().map(|field| field.as_ref().clone().with_data_type(DataType::Utf8));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

criterion_group!(benches, block, decode);
