//! How fast is NDJSON taken apart, on one thread? A block of a megabyte is decoded to Arrow columns, and its types are inferred: flat rows, and
//! orders that hold objects and lists of objects.

use std::{fmt::Write as _, hint::black_box, sync::Arc};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use criterion::{Criterion, Throughput, criterion_group};
use serde_json::{Value, json};
use weir_benches::lineitem;
use weir_connectors::file::{
    block::{BlockFormat, Inference},
    ndjson::NdjsonFormat,
};

const BLOCK_BYTES: usize = 1 << 20;

fn block(criterion: &mut Criterion) {
    let format = NdjsonFormat::default();
    for (name, (text, columns)) in [("flat", flat()), ("nested", nested())] {
        let block = text.as_bytes();
        let start = format.decoder(block, columns, None).expect("JSON has such values");
        let decoded = start.decoder.decode(block, 1).expect("a block of records");
        assert_eq!((decoded.rows.num_rows(), decoded.bad.len()), (text.lines().count(), 0));
        let mut group = criterion.benchmark_group(format!("ndjson/{name}"));
        group.throughput(Throughput::Bytes(block.len() as u64));
        group.bench_function("decode", |bencher| bencher.iter(|| start.decoder.decode(black_box(block), 1).expect("a block of records")));
        group.bench_function("infer", |bencher| {
            bencher.iter(|| {
                let mut found = Inference::default();
                format.infer(true, black_box(block), &mut found).expect("a block of records");
                found
            });
        });
        group.finish();
    }
}

/// The rows of lineitem, an object each.
fn flat() -> (String, SchemaRef) {
    let columns = lineitem::columns(&lineitem::contract());
    let batch = lineitem::batch(&lineitem::csv(0.0), &columns);
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        if text.len() >= BLOCK_BYTES {
            break;
        }
        text.push_str(&weir_schemas::json::text(&batch, row));
        text.push('\n');
    }
    (text, columns)
}

/// Orders, each with its customer and up to four lines.
fn nested() -> (String, SchemaRef) {
    let mut text = String::new();
    let mut order = 0_i32;
    while text.len() < BLOCK_BYTES {
        order += 1;
        let line = |number: i32| {
            json!({
                "part": order * 7 + number,
                "price": f64::from(order % 1000) / 4.0,
                "tags": ["fragile", format!("batch {}", order % 13)],
            })
        };
        let lines: Vec<Value> = (0..order % 5).map(line).collect();
        let order = json!({
            "id": order,
            "placed": format!("2026-03-{:02}T12:00:00Z", order % 28 + 1),
            "customer": {
                "name": format!("Customer#{order:09}"),
                "address": { "city": "Zürich", "zip": format!("{:04}", order % 10_000) },
            },
            "lines": lines,
        });
        writeln!(text, "{order}").expect("a text takes what is written");
    }
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let object = |fields: Vec<Field>| DataType::Struct(Fields::from(fields));
    let address = object(vec![Field::new("city", DataType::Utf8, true), Field::new("zip", DataType::Utf8, true)]);
    let line = object(vec![
        Field::new("part", DataType::Int64, true),
        Field::new("price", DataType::Float64, true),
        Field::new("tags", list(DataType::Utf8), true),
    ]);
    let columns = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("placed", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("customer", object(vec![Field::new("name", DataType::Utf8, true), Field::new("address", address, true)]), true),
        Field::new("lines", list(line), true),
    ]);
    (text, Arc::new(columns))
}

criterion_group!(benches, block);
