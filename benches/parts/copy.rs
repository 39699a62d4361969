//! How fast do rows become Postgres' binary COPY format, on one thread? A batch is encoded into one buffer again and again, without a server:
//! prices as floats, and as decimals, which are the dearest of all.

use std::{hint::black_box, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema, SchemaRef},
};
use criterion::{Criterion, Throughput, criterion_group};
use weir_benches::lineitem;
use weir_connectors::postgres::Encoder;

/// Bytes that a load sends at once.
const CHUNK_BYTES: usize = 256 << 10;

fn encode(criterion: &mut Criterion) {
    let csv = lineitem::csv(0.0);
    let floats = lineitem::columns(&lineitem::contract());
    let decimals = decimals(&floats);
    let mut group = criterion.benchmark_group("copy/encode");
    for (name, columns) in [("floats", floats), ("decimals", decimals)] {
        let batch = lineitem::batch(&csv, &columns);
        let encoder = Encoder::of_new_table("copy", &columns).expect("Postgres has such types");
        let mut chunk = Vec::new();
        group.throughput(Throughput::ElementsAndBytes {
            elements: batch.num_rows() as u64,
            bytes: write(&encoder, &batch, &mut chunk) as u64,
        });
        group.bench_function(name, |bencher| bencher.iter(|| write(&encoder, black_box(&batch), &mut chunk)));
    }
    group.finish();
}

/// Encodes a batch as a load does, chunk after chunk, and returns how many bytes that makes.
fn write(encoder: &Encoder, batch: &RecordBatch, chunk: &mut Vec<u8>) -> usize {
    let mut rows = encoder.rows(batch).expect("Postgres has such values");
    let mut bytes = 0;
    loop {
        chunk.clear();
        if rows.write(chunk, CHUNK_BYTES) == 0 {
            return bytes;
        }
        bytes += black_box(&*chunk).len();
    }
}

/// The same columns, numbers with a fraction as TPC-H has them.
fn decimals(columns: &SchemaRef) -> SchemaRef {
    let fields = columns.fields().iter().map(|field| match field.data_type() {
        DataType::Float64 => field.as_ref().clone().with_data_type(DataType::Decimal128(15, 2)),
        _ => field.as_ref().clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

criterion_group!(benches, encode);
