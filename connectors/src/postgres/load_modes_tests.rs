//! What each mode does to a table, against a model; and what stays of a table that somebody made.

use std::collections::BTreeMap;

use super::*;

/// A row as the model has it.
type Person = (i64, Option<String>);

/// A generator that gives the same numbers every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn people(&mut self, unique: bool) -> Vec<Person> {
        let mut rows: Vec<Person> = (0..self.below(12))
            .map(|_| (i64::try_from(self.below(8)).expect("small"), (self.below(4) > 0).then(|| format!("n{}", self.below(3)))))
            .collect();
        if unique {
            let mut seen = std::collections::HashSet::new();
            rows.retain(|row| seen.insert(row.0));
        }
        rows
    }
}

/// What a table holds: rows, and for a snapshot the run of each version's start and end.
#[derive(Default)]
struct Model {
    rows: Vec<Person>,
    versions: Vec<(Person, u32, Option<u32>)>,
}

impl Model {
    fn load(&mut self, mode: Mode, rows: &[Person], run: u32) {
        let has = |id: i64| rows.iter().any(|row| row.0 == id);
        match mode {
            Mode::Append => self.rows.extend(rows.iter().cloned()),
            Mode::Replace => self.rows = rows.to_vec(),
            Mode::Merge | Mode::DeleteInsert => {
                self.rows.retain(|row| !has(row.0));
                self.rows.extend(rows.iter().cloned());
            }
            Mode::Snapshot => {
                for row in rows {
                    let current = self.versions.iter_mut().find(|(there, _, to)| there.0 == row.0 && to.is_none());
                    if let Some((there, _, to)) = current {
                        if there == row {
                            continue;
                        }
                        *to = Some(run);
                    }
                    self.versions.push((row.clone(), run, None));
                }
            }
        }
    }

    fn shown(&self) -> Vec<String> {
        let person = |(id, name): &Person| format!("{id}|{}", name.as_deref().unwrap_or("null"));
        let mut shown: Vec<String> = self.rows.iter().map(person).collect();
        shown.extend(self.versions.iter().map(|(row, from, to)| {
            format!("{}|{from}|{}|{}", person(row), to.map_or("null".into(), |to| to.to_string()), if to.is_none() { "t" } else { "f" })
        }));
        shown.sort();
        shown
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mode_does_what_the_model_does_whichever_way_rows_go() {
    let Some(db) = Db::new("modes").await else { return };
    let mut dice = Dice(42);
    for mode in [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot] {
        for (way, may_decide, primary_key) in [(0, true, true), (1, false, true), (2, true, false), (3, false, false)] {
            let table = format!("{} {way}", mode.as_str());
            let sink = PostgresSink { primary_key, ..db.sink(&table) };
            let mut model = Model::default();
            for number in 1..=6 {
                let run = db.run(number + 100 * way);
                let rows = dice.people(matches!(mode, Mode::Merge | Mode::Snapshot));
                let borrowed: Vec<_> = rows.iter().map(|(id, name)| (*id, name.as_deref())).collect();
                publish(&sink, &SinkContext { step: format!("{mode:?}"), ..cx(&run, mode, may_decide) }, &people(&borrowed))
                    .await
                    .expect("published");
                model.load(mode, &rows, number + 100 * way);
                let epoch = |column| format!("extract(epoch from {column})::bigint - 1700000000");
                let columns = match mode {
                    Mode::Snapshot => format!("id, name, {}, {}, is_current", epoch("valid_from"), epoch("valid_to")),
                    _ => "id, name".to_owned(),
                };
                assert_eq!(db.rows(&format!("select {columns} from {}", db.table(&table))).await, model.shown(), "{table} run {number}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_table_has_the_keys_of_its_mode_under_its_own_name() {
    let Some(db) = Db::new("keys").await else { return };
    let long = "ü".repeat(31);
    for (number, mode, table) in
        [(1, Mode::Merge, "merged"), (2, Mode::DeleteInsert, "di"), (3, Mode::Snapshot, "snap"), (4, Mode::Merge, long.as_str())]
    {
        publish(&db.sink(table), &cx(&db.run(number), mode, true), &people(&[(1, None)])).await.expect("published");
    }
    let sql = format!(
        "select tablename, indexname, split_part(indexdef, 'USING ', 2), indexdef like '%UNIQUE%' from pg_indexes where schemaname = {} and tablename <> 'weir_load'",
        literal(&db.schema)
    );
    let expected = [
        "di|di_key_idx|btree (id)|f".to_owned(),
        "merged|merged_pkey|btree (id)|t".into(),
        "snap|snap_key_idx|btree (id, valid_from)|t".into(),
        format!("{long}|{}_pkey|btree (id)|t", "ü".repeat(29)),
    ];
    assert_eq!(db.rows(&sql).await, expected);
    let sql = format!("select obj_description({}::regclass)", literal(&db.table("merged")));
    assert_eq!(db.rows(&sql).await, ["null"], "the stage's comment is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_keeps_columns_that_rows_lack_and_writes_only_rows_that_differ() {
    let Some(db) = Db::new("merge keeps").await else { return };
    for (number, table, key) in [(1, "keyed", "primary key"), (2, "bare", "")] {
        let name = db.table(table);
        db.sql(&format!(
            "create table {name} (id bigint {key}, name text collate \"C\", kept int default 7, n double precision);
             insert into {name} values (1, 'a', 1, 'NaN'), (2, null, 2, 'NaN'), (3, 'c', 3, 'NaN')"
        ))
        .await;
        let versions = format!("select id, xmin::text from {name} where id < 3");
        let before = db.rows(&versions).await;
        let rows = batch(vec![
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4])) as ArrayRef),
            ("name", Arc::new(StringArray::from(vec![Some("a"), None, Some("C"), Some("d")]))),
            ("n", Arc::new(arrow::array::Float64Array::from(vec![f64::NAN; 4]))),
        ]);
        for may_decide in [true, false] {
            let cx = cx(&db.run(number * 10 + u32::from(may_decide)), Mode::Merge, may_decide);
            publish(&db.sink(table), &cx, &rows).await.expect("published");
            assert_eq!(db.all(table).await, ["1|a|1|NaN", "2|null|2|NaN", "3|C|3|NaN", "4|d|7|NaN"]);
            assert_eq!(db.rows(&versions).await, before, "null equals null and NaN equals NaN: nothing was written");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_leaves_one_row_of_a_key_that_the_table_has_twice() {
    let Some(db) = Db::new("twice").await else { return };
    let name = db.table("t");
    db.sql(&format!("create table {name} (id bigint, name text); insert into {name} values (1, 'a'), (1, 'b'), (2, 'c'), (2, 'd')")).await;
    publish(&db.sink("t"), &cx(&db.run(1), Mode::Merge, true), &people(&[(1, Some("z"))])).await.expect("published");
    assert_eq!(db.all("t").await, ["1|z", "2|c", "2|d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replace_keeps_views_grants_indexes_and_what_refers_to_rows() {
    let Some(db) = Db::new("replace keeps").await else { return };
    let (parent, child, view) = (db.table("parent"), db.table("child"), db.table("view"));
    for (round, may_decide) in [(1, true), (2, false)] {
        for refers in [false, true] {
            let references = if refers {
                format!("create table {child} (parent bigint references {parent}); insert into {child} values (1), (2);")
            } else {
                String::new()
            };
            db.sql(&format!(
                "drop table if exists {parent} cascade; drop table if exists {child};
                 create table {parent} (id bigint primary key, name text, extra int default 5);
                 create index on {parent} (name); create view {view} as select name from {parent}; grant select on {parent} to public;
                 insert into {parent} values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3); {references}"
            ))
            .await;
            let made = format!("select oid::text, relacl::text from pg_class where oid = {}::regclass", literal(&parent));
            let before = db.rows(&made).await;
            let cx = SinkContext {
                on_schema_change: OnSchemaChange::Ignore,
                ..cx(&db.run(round * 10 + u32::from(refers)), Mode::Replace, may_decide)
            };
            publish(&db.sink("parent"), &cx, &people(&[(1, Some("x")), (2, None), (4, Some("d"))])).await.expect("published");
            assert_eq!(db.all("parent").await, ["1|x|5", "2|null|5", "4|d|5"], "refers={refers} decides={may_decide}");
            assert_eq!(db.rows(&made).await, before);
            assert_eq!(db.rows(&format!("select * from {view}")).await, ["d", "null", "x"]);
            if refers {
                assert_eq!(db.all("child").await, ["1", "2"]);
            }
        }
    }
    // A row that is referred to cannot go: nothing is changed then.
    let cx = SinkContext { on_schema_change: OnSchemaChange::Ignore, ..cx(&db.run(99), Mode::Replace, true) };
    let error = publish(&db.sink("parent"), &cx, &people(&[(1, Some("y"))])).await.expect_err("referred to");
    assert_eq!(error.code, "foreign-key", "{error}");
    assert_eq!(db.all("parent").await, ["1|x|5", "2|null|5", "4|d|5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replaces_at_once_leave_the_rows_of_one() {
    let Some(db) = Db::new("two replaces").await else { return };
    publish(&db.sink("t"), &cx(&db.run(1), Mode::Append, true), &people(&[(1, None)])).await.expect("published");
    let one = async |number: u32, may_decide| {
        let rows: Vec<_> = (0..50).map(|_| (i64::from(number), Some("x"))).collect();
        publish(&db.sink("t"), &cx(&db.run(number), Mode::Replace, may_decide), &people(&rows)).await.expect("published");
    };
    tokio::join!(one(2, true), one(3, true), one(4, false));
    let count = db.rows(&format!("select count(*), count(distinct id) from {}", db.table("t"))).await;
    assert_eq!(count, ["50|1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_merges_at_once_into_a_table_without_an_index_add_a_row_once() {
    let Some(db) = Db::new("two merges").await else { return };
    db.sql(&format!("create table {} (id bigint, name text)", db.table("t"))).await;
    let one = async |number: u32, may_decide| {
        publish(&db.sink("t"), &cx(&db.run(number), Mode::Merge, may_decide), &people(&[(1, Some("x")), (2, None)]))
            .await
            .expect("published");
    };
    tokio::join!(one(2, true), one(3, true), one(4, false), one(5, false));
    assert_eq!(db.all("t").await, ["1|x", "2|null"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_that_make_the_same_table_both_load_it() {
    let Some(db) = Db::new("two new").await else { return };
    let (first, _) =
        staged(&db.sink("t"), &cx(&db.run(1), Mode::Merge, false), &people(&[(1, Some("a")), (2, Some("a"))])).await.expect("staged");
    let (second, _) =
        staged(&db.sink("t"), &cx(&db.run(2), Mode::Merge, false), &people(&[(2, Some("b")), (3, Some("b"))])).await.expect("staged");
    first.publish().await.expect("published");
    second.publish().await.expect("published");
    assert_eq!(db.all("t").await, ["1|a", "2|b", "3|b"]);
    let snapshot = |number| cx(&db.run(number), Mode::Snapshot, false);
    let (first, _) = staged(&db.sink("s"), &snapshot(3), &people(&[(1, Some("a")), (2, Some("a"))])).await.expect("staged");
    let (second, _) = staged(&db.sink("s"), &snapshot(4), &people(&[(2, Some("b")), (3, Some("b"))])).await.expect("staged");
    first.publish().await.expect("published");
    second.publish().await.expect("published");
    let rows = db.rows(&format!("select id, name, is_current from {}", db.table("s"))).await;
    assert_eq!(rows, ["1|a|t", "2|a|f", "2|b|t", "3|b|t"]);
    assert_eq!(db.stages().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_columns_are_added_in_every_mode_and_plan_says_how() {
    let Some(db) = Db::new("add columns").await else { return };
    for (index, mode) in [Mode::Append, Mode::Replace, Mode::Merge, Mode::DeleteInsert, Mode::Snapshot].into_iter().enumerate() {
        for may_decide in [true, false] {
            let (table, number) = (format!("t{index}{may_decide}"), u32::try_from(index).expect("small") * 10 + u32::from(may_decide) * 5);
            let sink = db.sink(&table);
            publish(&sink, &cx(&db.run(number), mode, true), &people(&[(1, Some("a")), (2, Some("b"))])).await.expect("published");
            let rows = batch(vec![
                ("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
                ("name", Arc::new(StringArray::from(vec!["a", "b"]))),
                ("new \"column\"", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ]);
            let adds = SinkContext { on_schema_change: OnSchemaChange::AddColumns, ..cx(&db.run(number + 1), mode, may_decide) };
            let change = sink.plan(&rows.schema(), &adds).await.expect("planned");
            assert_eq!((change.creates, change.adds.as_slice()), (false, ["new \"column\"".to_owned()].as_slice()));
            assert_eq!(change.steps[0], format!("alter table {} add column \"new \"\"column\"\"\" bigint", db.table(&table)));
            publish(&sink, &adds, &rows).await.expect("published");
            let mut found: BTreeMap<String, usize> = BTreeMap::new();
            for row in db.rows(&format!("select id, \"new \"\"column\"\"\" from {}", db.table(&table))).await {
                *found.entry(row).or_default() += 1;
            }
            // A new column counts as a change where it is not null.
            let expected: Vec<(&str, usize)> = match mode {
                Mode::Append => vec![("1|1", 1), ("1|null", 1), ("2|null", 2)],
                Mode::Snapshot => vec![("1|1", 1), ("1|null", 1), ("2|null", 1)],
                _ => vec![("1|1", 1), ("2|null", 1)],
            };
            let found: Vec<(&str, usize)> = found.iter().map(|(row, count)| (row.as_str(), *count)).collect();
            assert_eq!(found, expected, "{mode:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partitioned_table_and_one_that_refers_to_itself_are_loaded() {
    let Some(db) = Db::new("partitioned").await else { return };
    let name = db.table("t");
    db.sql(&format!(
        "create table {name} (id bigint primary key, name text) partition by range (id);
         create table {} partition of {name} for values from (0) to (10); create table {} partition of {name} for values from (10) to (99)",
        db.table("t1"),
        db.table("t2")
    ))
    .await;
    for (number, mode, may_decide) in
        [(1, Mode::Append, true), (2, Mode::Merge, true), (3, Mode::Merge, false), (4, Mode::Replace, true), (5, Mode::DeleteInsert, true)]
    {
        publish(&db.sink("t"), &cx(&db.run(number), mode, may_decide), &people(&[(1, Some("a")), (11, Some("b"))]))
            .await
            .expect("published");
        assert_eq!(db.all("t").await, ["11|b", "1|a"], "{mode:?}");
    }
    let tree = db.table("tree");
    db.sql(&format!("create table {tree} (id bigint primary key, parent bigint references {tree})")).await;
    let rows = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ("parent", Arc::new(Int64Array::from(vec![Some(3), Some(1), None]))),
    ]);
    for (number, may_decide) in [(10, true), (11, false), (12, true)] {
        publish(&db.sink("tree"), &cx(&db.run(number), Mode::Replace, may_decide), &rows).await.expect("published");
        assert_eq!(db.all("tree").await, ["1|3", "2|1", "3|null"]);
    }
}
