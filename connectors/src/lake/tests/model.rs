//! Random sequences of loads compared with the same sequence on a map in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Name and city of the rows of each key.
type Model = BTreeMap<i64, Vec<(Option<String>, Option<String>)>>;

#[derive(Debug, Clone)]
enum Op {
    Merge(BTreeMap<i64, (Option<String>, Option<String>)>),
    /// Rows without the city.
    MergeNames(BTreeMap<i64, Option<String>>),
    /// Several rows per key, all in one city.
    DeleteInsert(Vec<(i64, Option<String>)>, Option<String>),
    Replace(BTreeMap<i64, (Option<String>, Option<String>)>),
}

fn word() -> impl Strategy<Value = Option<String>> {
    prop_oneof![1 => Just(None), 4 => "[a-cé/ ]{1,3}".prop_map(Some)]
}

fn op() -> impl Strategy<Value = Op> {
    let rows = || proptest::collection::btree_map(0..12i64, (word(), word()), 0..8);
    prop_oneof![
        4 => rows().prop_map(Op::Merge),
        3 => proptest::collection::btree_map(0..12i64, word(), 0..8).prop_map(Op::MergeNames),
        3 => (proptest::collection::vec((0..12i64, word()), 0..8), word()).prop_map(|(rows, city)| Op::DeleteInsert(rows, city)),
        1 => rows().prop_map(Op::Replace),
    ]
}

fn rows_of(rows: &[(i64, Option<String>, Option<String>)], with_city: bool) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int64Array>());
    let names: ArrayRef = Arc::new(rows.iter().map(|row| row.1.clone()).collect::<StringArray>());
    let cities: ArrayRef = Arc::new(rows.iter().map(|row| row.2.clone()).collect::<StringArray>());
    let mut columns = vec![("id", ids), ("name", names)];
    if with_city {
        columns.push(("city", cities));
    }
    batch(columns)
}

async fn apply(lake: &Lake, sink: &LakeSink, number: u32, op: &Op, model: &mut Model) {
    let run = lake.run(number);
    let (mode, rows, with_city) = match op {
        Op::Merge(rows) => {
            model.extend(rows.iter().map(|(id, row)| (*id, vec![row.clone()])));
            (Mode::Merge, rows.iter().map(|(id, row)| (*id, row.0.clone(), row.1.clone())).collect::<Vec<_>>(), true)
        }
        Op::MergeNames(rows) => {
            for (id, name) in rows {
                let city = model.get(id).and_then(|old| old[0].1.clone());
                model.insert(*id, vec![(name.clone(), city)]);
            }
            (Mode::Merge, rows.iter().map(|(id, name)| (*id, name.clone(), None)).collect(), false)
        }
        Op::DeleteInsert(rows, city) => {
            for (id, _) in rows {
                model.insert(*id, Vec::new());
            }
            for (id, name) in rows {
                model.get_mut(id).expect("put there").push((name.clone(), city.clone()));
            }
            (Mode::DeleteInsert, rows.iter().map(|(id, name)| (*id, name.clone(), city.clone())).collect(), true)
        }
        Op::Replace(rows) => {
            *model = rows.iter().map(|(id, row)| (*id, vec![row.clone()])).collect();
            (Mode::Replace, rows.iter().map(|(id, row)| (*id, row.0.clone(), row.1.clone())).collect(), true)
        }
    };
    let cx = SinkContext { on_schema_change: OnSchemaChange::AddColumns, ..cx(&run, mode) };
    publish(sink, &cx, rows_of(&rows, with_city)).await.expect("published");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn loads_do_to_a_table_what_they_do_to_a_map(ops in proptest::collection::vec(op(), 1..6), partitioned: bool) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let lake = Lake::new();
            let partition_by = if partitioned { vec!["city".to_owned()] } else { vec![] };
            let mut model = Model::new();
            let start = LakeSink { partition_by, ..sink() };
            apply(&lake, &start, 1, &Op::Merge(BTreeMap::new()), &mut model).await;
            for (number, op) in (2..).zip(&ops) {
                apply(&lake, &sink(), number, op, &mut model).await;
            }
            let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "null".into());
            let mut expected: Vec<String> = model
                .iter()
                .flat_map(|(id, rows)| rows.iter().map(move |(name, city)| format!("{id}|{}|{}", shown(name), shown(city))))
                .collect();
            expected.sort();
            assert_eq!(lake.query("select id, name, city from t", Version::Newest).await, expected);
        });
    }
}
