//! A join by parts gives what a join in memory gives.

use arrow::{
    array::{Int64Array, StringViewArray},
    datatypes::{DataType, Field, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{
    datasource::MemTable,
    execution::{SessionStateBuilder, memory_pool::FairSpillPool, runtime_env::RuntimeEnvBuilder},
    physical_plan::collect,
    prelude::{SessionConfig, SessionContext},
};

use super::*;

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Rows with a key that is null, or there several times, or on one side only; and a text that is in line, or not, and a number.
fn table(seed: u64, rows: u64, keys: u64) -> Vec<RecordBatch> {
    let mut dice = Dice(seed);
    let fields = [("k", DataType::Int64), ("s", DataType::Utf8View), ("v", DataType::Int64)];
    let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()));
    let batch = |rows: u64, dice: &mut Dice| {
        let key: Int64Array = (0..rows).map(|_| Some(dice.below(keys)).filter(|key| *key != 3).map(|key| key as i64)).collect();
        let text: StringViewArray =
            key.iter().map(|key| key.map(|key| format!("{}{key}", "longer than twelve bytes ".repeat(key as usize % 3)))).collect();
        let number: Int64Array = (0..rows).map(|_| Some(dice.below(100) as i64)).collect();
        RecordBatch::try_new(schema.clone(), vec![Arc::new(key), Arc::new(text), Arc::new(number)]).expect("columns of the schema")
    };
    let mut out = Vec::new();
    let mut left = rows;
    while left > 0 {
        let rows = left.min(1 + dice.below(1000));
        out.push(batch(rows, &mut dice));
        left -= rows;
    }
    out
}

async fn context(limit: Option<usize>, partitions: usize, tables: &[(&str, &[RecordBatch])]) -> SessionContext {
    let runtime = match limit {
        Some(limit) => RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(limit))),
        None => RuntimeEnvBuilder::new(),
    };
    let state = SessionStateBuilder::new()
        .with_config(SessionConfig::new().with_target_partitions(partitions).with_batch_size(1024))
        .with_runtime_env(runtime.build_arc().expect("a runtime"))
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(SpillJoins { share: 16 }))
        .build();
    let context = SessionContext::new_with_state(state);
    // The first table is the build side, with streams of its own.
    for setting in ["hash_join_single_partition_threshold = 0", "hash_join_single_partition_threshold_rows = 0", "join_reordering = false"]
    {
        context.sql(&format!("set datafusion.optimizer.{setting}")).await.expect("a setting");
    }
    for (name, batches) in tables {
        let table = MemTable::try_new(batches[0].schema(), vec![batches.to_vec()]).expect("batches of one schema");
        context.register_table(*name, Arc::new(table)).expect("a new name");
    }
    context
}

/// The rows as sorted lines, and how many files were written.
async fn answer(context: &SessionContext, sql: &str) -> Result<(Vec<String>, usize)> {
    let plan = context.sql(sql).await?.create_physical_plan().await?;
    let batches = collect(plan.clone(), context.task_ctx()).await?;
    let (mut lines, mut spills) = (Vec::new(), 0);
    for batch in &batches {
        let options = FormatOptions::default().with_null("∅");
        let columns: Vec<_> = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).expect("shown")).collect();
        lines.extend(
            (0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    lines.sort();
    plan.apply(|node| {
        if node.name() == "SpillingJoin" {
            spills += node.metrics().and_then(|metrics| metrics.spill_count()).unwrap_or(0);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((lines, spills))
}

const JOINS: [&str; 16] = [
    "select a.k, a.v, b.s, b.v from a join b on a.k = b.k",
    "select a.k, a.v, b.k, b.v from a left join b on a.k = b.k",
    "select a.k, a.v, b.k, b.s from a right join b on a.k = b.k",
    "select a.k, a.s, b.k, b.v from a full join b on a.k = b.k",
    "select a.k, a.v, b.v from a join b on a.k = b.k and a.s = b.s",
    "select a.v, b.v from a full join b on a.k = b.k and a.s = b.s",
    "select a.k, a.v, b.v from a join b on a.k = b.k and a.v < b.v",
    "select a.k, a.v, b.k, b.v from a left join b on a.k = b.k and a.v + b.v > 90",
    "select a.k, a.v, b.k, b.v from a full join b on a.k = b.k and a.v > b.v",
    "select a.k, a.v, b.v from a join b on a.k is not distinct from b.k where a.v < 30 and b.v < 5",
    "select * from a where exists (select 1 from b where b.k = a.k)",
    "select * from a where not exists (select 1 from b where b.k = a.k)",
    "select * from a where k in (select k from b where v > 50)",
    "select * from a where exists (select 1 from b where b.k = a.k and b.v > a.v) or a.v > 80",
    "select a.s || 'x', count(*), sum(b.v) from a join b on a.s || 'x' = b.s || 'x' group by 1",
    "select count(*) from a join b on a.k = b.k join a as c on c.s = b.s where c.v < 20",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_join_gives_the_same_from_disk() {
    for (seed, (a, b)) in [(9_000, 9_000), (30_000, 4_000), (4_000, 30_000)].into_iter().enumerate() {
        let (a, b) = (table(seed as u64, a, 3_000), table(seed as u64 + 100, b, 4_000));
        let tables: [(&str, &[RecordBatch]); 2] = [("a", &a), ("b", &b)];
        for partitions in [1, 2] {
            let (free, bounded) = (context(None, partitions, &tables).await, context(Some(16 << 20), partitions, &tables).await);
            for sql in JOINS {
                let (meant, none) = answer(&free, sql).await.expect(sql);
                let (found, some) = answer(&small(&bounded, 1024), sql).await.expect(sql);
                assert_eq!(none, 0, "{sql}");
                assert!(!meant.is_empty(), "{sql}");
                assert!(meant == found, "{sql}, {partitions} streams: {} rows, {} from disk", meant.len(), found.len());
                assert!(some > 0, "{sql}, {partitions} streams: nothing went to disk");
            }
        }
    }
}

/// The same session, whose joins keep less in memory.
fn small(context: &SessionContext, share: usize) -> SessionContext {
    let state = SessionStateBuilder::new_from_existing(context.state());
    let rules = context.state().physical_optimizers().iter().filter(|rule| rule.name() != "spill_joins").cloned().collect::<Vec<_>>();
    let state = state.with_physical_optimizer_rules(rules).with_physical_optimizer_rule(Arc::new(SpillJoins { share })).build();
    SessionContext::new_with_state(state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_of_one_key_is_joined_in_memory_in_the_end_or_says_that_it_does_not_fit() {
    let (many, few) = (table(1, 40_000, 1), table(2, 1, 1));
    let tables: [(&str, &[RecordBatch]); 2] = [("many", &many), ("few", &few)];
    let sql = "select count(*) from many full join few on many.k = few.k";
    let (found, spills) = answer(&small(&context(Some(16 << 20), 1, &tables).await, 256), sql).await.expect(sql);
    assert_eq!(found, ["40000"]);
    assert!(spills > 0);
    let refused = answer(&small(&context(Some(256 << 10), 1, &tables).await, 16), sql).await.expect_err("rows of one key cannot be split");
    assert!(matches!(refused.find_root(), DataFusionError::ResourcesExhausted(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_are_too_large_are_split_again() {
    let (a, b) = (table(5, 200_000, 1_000_000), table(6, 200_000, 1_000_000));
    let tables: [(&str, &[RecordBatch]); 2] = [("a", &a), ("b", &b)];
    let sql = "select a.k, a.v, b.v from a join b on a.k = b.k";
    let (meant, _) = answer(&context(None, 1, &tables).await, sql).await.expect(sql);
    let (found, spills) = answer(&small(&context(Some(16 << 20), 1, &tables).await, 1024), sql).await.expect(sql);
    assert!(meant == found);
    assert_eq!(spills, 2 * PARTS, "of the first split; what parts write is theirs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_goes_to_disk_past_its_share() {
    let (a, b) = (table(8, 30_000, 3_000), table(9, 4_000, 4_000));
    let tables: [(&str, &[RecordBatch]); 2] = [("a", &a), ("b", &b)];
    let sql = "select a.k, a.v, b.v from a join b on a.k = b.k";
    let (meant, _) = answer(&context(None, 1, &tables).await, sql).await.expect(sql);
    let (found, spills) = answer(&context(Some(4 << 20), 1, &tables).await, sql).await.expect(sql);
    assert!(meant == found);
    assert_eq!(spills, 2 * PARTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_hash_table_of_a_narrow_side_takes_counts() {
    let (few, many, b) = (table(8, 30_000, 1_000_000), table(8, 100_000, 1_000_000), table(9, 4_000, 4_000));
    let tables: [(&str, &[RecordBatch]); 3] = [("few", &few), ("many", &many), ("b", &b)];
    // A sixteenth of the limit is 2 MB: keys of 8 bytes fit, with what they take in a table only the few do.
    for (side, spilled) in [("few", 0), ("many", 2 * PARTS)] {
        let sql = format!("select b.v from {side} join b on {side}.k = b.k");
        let (meant, _) = answer(&context(None, 1, &tables).await, &sql).await.expect(&sql);
        let (found, spills) = answer(&context(Some(32 << 20), 1, &tables).await, &sql).await.expect(&sql);
        assert!(meant == found);
        assert_eq!(spills, spilled, "{side}");
    }
}
