//! What does a contract cost, on one thread? A batch is checked by the twelve rules of lineitem: all rows sound, one in a hundred broken, every
//! second one. And what it takes to compile the contract.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group};
use weir_benches::lineitem;

fn check(criterion: &mut Criterion) {
    let contract = lineitem::contract();
    let columns = lineitem::columns(&contract);
    let mut group = criterion.benchmark_group("contract/check");
    group.throughput(Throughput::Elements(lineitem::ROWS as u64));
    for (name, share) in [("sound", 0.0), ("hundredth_broken", 0.01), ("half_broken", 0.5)] {
        let batch = lineitem::batch(&lineitem::csv(share), &columns);
        let refused = contract.check(&batch).valid.map_or(0, |valid| valid.len() - valid.count_set_bits());
        assert_eq!(refused > 0, share > 0.0, "{refused} rows fail");
        group.bench_function(name, |bencher| bencher.iter(|| contract.check(black_box(&batch))));
    }
    group.finish();
}

fn compile(criterion: &mut Criterion) {
    criterion.bench_function("contract/compile", |bencher| bencher.iter(lineitem::contract));
}

criterion_group!(benches, check, compile);
