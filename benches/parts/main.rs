//! Parts of the engine by themselves, on one thread: `cargo bench --workspace --bench parts`, followed by `-- csv` for those of one file.

mod contract;
mod copy;
mod cron;
mod csv;
mod ndjson;
mod plan;

criterion::criterion_main!(contract::benches, copy::benches, cron::benches, csv::benches, ndjson::benches, plan::benches);
