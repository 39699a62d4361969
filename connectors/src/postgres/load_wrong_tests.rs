//! Bad input, each with its exact message, and nothing lost or left behind.

use arrow::array::{Int32Array, StringArray};

use super::*;

/// What a load of `rows` is refused with, and that the table is as it was.
async fn refused(db: &Db, table: &str, number: u32, mode: Mode, may_decide: bool, rows: &RecordBatch) -> Error {
    let before = db.all(table).await;
    let run = db.run(number);
    let sink = db.sink(table);
    let error = match staged(&sink, &cx(&run, mode, may_decide), rows).await {
        Err(error) => error,
        Ok((load, _)) => {
            let error = load.publish().await.expect_err("it must be refused");
            load.discard().await.expect("discarded");
            error
        }
    };
    // A load that failed in the middle is dropped; its stage goes by what was noted of it.
    let probe = sink.open(&rows.schema(), &cx(&run, mode, may_decide)).await;
    if let Ok(load) = probe {
        load.discard().await.expect("discarded");
    }
    assert_eq!(db.all(table).await, before);
    assert_eq!(db.stages().await, Vec::<String>::new());
    assert_eq!(db.backends(&run).await, Vec::<String>::new());
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_occurs_twice_in_one_run_is_named() {
    let Some(db) = Db::new("duplicate key").await else { return };
    db.sql(&format!("create table {} (id bigint primary key, name text)", db.table("keyed"))).await;
    db.sql(&format!("create table {} (id bigint, name text)", db.table("bare"))).await;
    let rows = people(&[(1, Some("a")), (2, Some("b")), (1, Some("c"))]);
    let message = "sink \"out \"put\"\" got several rows with the same key: \"id\" = 1";
    let mut number = 0;
    for table in ["keyed", "bare"] {
        for may_decide in [true, false] {
            number += 1;
            let error = refused(&db, table, number, Mode::Merge, may_decide, &rows).await;
            assert_eq!((error.code, error.message.as_str(), error.setting.as_deref()), ("duplicate-key", message, Some("key")));
        }
    }
    for (mode, primary_key) in [(Mode::Merge, true), (Mode::Merge, false), (Mode::Snapshot, true)] {
        number += 1;
        let sink = PostgresSink { primary_key, ..db.sink("new") };
        let run = db.run(number);
        let error = staged(&sink, &cx(&run, mode, true), &rows).await.expect_err("twice");
        assert_eq!((error.code, error.message.as_str()), ("duplicate-key", message));
        sink.open(&rows.schema(), &cx(&run, mode, true)).await.expect("opened").discard().await.expect("discarded");
    }
    assert_eq!(db.stages().await, Vec::<String>::new());
    publish(&db.sink("snap"), &cx(&db.run(50), Mode::Snapshot, true), &people(&[(1, None)])).await.expect("published");
    for (number, may_decide) in [(51, true), (52, false)] {
        assert_eq!(refused(&db, "snap", number, Mode::Snapshot, may_decide, &rows).await.message, message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nulls_and_values_that_the_table_does_not_take_are_named() {
    let Some(db) = Db::new("values").await else { return };
    db.sql(&format!("create table {} (id bigint, name varchar(3) not null)", db.table("t"))).await;
    db.sql(&format!("create table {} (id bigint check (id < 5), name text unique)", db.table("checked"))).await;
    let null_key = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef),
        ("name", Arc::new(StringArray::from(vec!["a", "b"]))),
    ]);
    for (index, may_decide) in [true, false].into_iter().enumerate() {
        let number = u32::try_from(index).expect("small") * 100;
        let told = async |number: u32, table: &str, mode: Mode, rows: &RecordBatch| {
            let error = refused(&db, table, number, mode, may_decide, rows).await;
            (error.code, error.message)
        };
        let append = Mode::Append;
        assert_eq!(
            told(number + 1, "t", Mode::Merge, &null_key).await,
            ("null-key", "sink \"out \"put\"\" got a row whose key column \"id\" is null".into())
        );
        assert_eq!(
            told(number + 2, "t", append, &people(&[(1, None)])).await,
            ("null-in-column", "column \"name\" holds a null, which the table does not allow".into())
        );
        assert_eq!(
            told(number + 3, "t", append, &people(&[(1, Some("four"))])).await,
            ("value-too-long", "column \"name\": the value \"four\" is longer than character varying(3) allows".into())
        );
        assert_eq!(
            told(number + 4, "checked", append, &people(&[(1, Some("a\0b"))])).await,
            ("nul-byte", "column \"name\" holds a NUL byte, which Postgres cannot hold in text, in the value \"a\\0b\"".into())
        );
        let (code, message) = told(number + 5, "checked", append, &people(&[(7, Some("x"))])).await;
        assert_eq!(code, "check-failed");
        assert!(message.starts_with("cannot load table \"Weir "), "{message}");
        let (code, message) = told(number + 6, "checked", append, &people(&[(1, Some("x")), (2, Some("x"))])).await;
        assert_eq!(code, "duplicate-key");
        assert!(message.contains("a row with the key (name)=(x) is there already"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_other_columns_is_refused_before_a_row_is_read() {
    let Some(db) = Db::new("columns").await else { return };
    db.sql(&format!("create table {} (id bigint, other text); create view {} as select 1 as id", db.table("t"), db.table("v"))).await;
    db.sql(&format!("create table {} (id integer, name text)", db.table("narrow"))).await;
    let rows = people(&[(1, None)]);
    let told = async |table: &str| {
        let error = db.sink(table).open(&rows.schema(), &cx(&db.run(1), Mode::Append, true)).await.expect_err("refused");
        (error.code, error.message)
    };
    assert_eq!(told("t").await, ("columns-differ", "the table has no column \"name\"; the rows have no column \"other\"".into()));
    assert_eq!(
        told("narrow").await,
        ("column-type", "other types than the table's: column \"id\" (bigint in the rows, integer in the table)".into())
    );
    assert_eq!(told("v").await, ("not-a-table", format!("\"{}.v\" is a view, which rows cannot be loaded into", db.schema)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_names_stay_names() {
    let Some(db) = Db::new("names").await else { return };
    db.sql(&format!("create table {} (x int)", db.table("x"))).await;
    let long = "Ü".repeat(31);
    let names = ["a b", "A.B", "select", "it's", "\"", "\"; drop table x; --", "100%s", "back\\slash", "line\nbreak", &long];
    for (index, name) in names.into_iter().enumerate() {
        let rows = batch(vec![
            ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            (name, Arc::new(StringArray::from(vec!["value"]))),
            ("\"; drop table x; --", Arc::new(Int32Array::from(vec![2]))),
        ]);
        let rows = if name == "\"; drop table x; --" { rows.project(&[0, 1]).expect("projected") } else { rows };
        for (step, (mode, may_decide)) in
            [(Mode::Merge, true), (Mode::Merge, true), (Mode::Merge, false), (Mode::Replace, true)].into_iter().enumerate()
        {
            let number = u32::try_from(index * 10 + step).expect("small");
            let cx = SinkContext {
                key: if mode == Mode::Merge { vec![name.into(), "id".into()] } else { vec![] },
                step: name.into(),
                ..cx(&db.run(number), mode, may_decide)
            };
            publish(&db.sink(name), &cx, &rows).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        assert_eq!(db.all(name).await.len(), 1, "{name}");
    }
    assert_eq!(db.all("x").await, Vec::<String>::new(), "the table is still there");
    assert_eq!(db.stages().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_needs_the_right_to_insert_and_no_other() {
    let Some(db) = Db::new("rights").await else { return };
    let role = format!("weir_{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let schema = identifier(&db.schema);
    publish(&db.sink("t"), &cx(&db.run(1), Mode::Append, true), &people(&[(1, None)])).await.expect("published");
    db.sql(&format!("create role {role} login password 'x'; grant usage on schema {schema} to {role}")).await;
    let mut url = url::Url::parse(&db.url).expect("a URL");
    url.set_username(&role).expect("a user");
    url.set_password(Some("x")).expect("a password");
    let told = async |number: u32, mode: Mode| {
        let run = db.run_of(number, url.as_str());
        publish(&db.sink("t"), &cx(&run, mode, true), &people(&[(2, None)]))
            .await
            .map_err(|error| (error.code, error.message, error.help.unwrap_or_default()))
    };
    let (code, message, help) = told(2, Mode::Append).await.expect_err("no right");
    assert_eq!((code, message), ("no-privilege", format!("user \"{role}\" may not insert in table \"{}.t\"", db.schema)));
    assert_eq!(help, format!("let the table's owner say: grant insert on {} to \"{role}\"", db.table("t")));
    db.sql(&format!("grant insert on {} to {role}", db.table("t"))).await;
    let (code, _, _) = told(3, Mode::Append).await.expect_err("no right to the ledger");
    assert_eq!(code, "no-privilege");
    db.sql(&format!("grant insert on {} to {role}", db.table("weir_load"))).await;
    told(4, Mode::Append).await.expect("that is enough");
    let (_, message, _) = told(5, Mode::Merge).await.expect_err("not for this");
    assert_eq!(message, format!("user \"{role}\" may not select, update in table \"{}.t\"", db.schema));
    assert_eq!(db.all("t").await, ["1|null", "2|null"]);
    // A schema in which the ledger cannot be made says who has to do what.
    db.sql(&format!("drop table {}", db.table("weir_load"))).await;
    let (code, _, help) = told(6, Mode::Append).await.expect_err("no ledger");
    assert_eq!(code, "no-privilege");
    assert!(help.starts_with("let the schema's owner make the ledger: ") && help.ends_with(&format!("to \"{role}\"")), "{help}");
    db.sql(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_schema_is_made_and_named_in_the_plan() {
    let Some(db) = Db::new("schema").await else { return };
    let schema = format!("{} 2", db.schema);
    let sink = PostgresSink { table: format!("{}.t", identifier(&schema)), ..db.sink("t") };
    let rows = people(&[(1, None)]);
    let change = sink.plan(&rows.schema(), &cx(&db.run(1), Mode::Merge, true)).await.expect("planned");
    let table = format!("{}.\"t\"", identifier(&schema));
    assert!(change.creates);
    assert_eq!(change.steps[0], format!("create schema if not exists {}", identifier(&schema)));
    assert!(change.steps[1].starts_with(&format!("create table if not exists {}.\"weir_load\" (", identifier(&schema))));
    assert_eq!(change.steps[2], format!("create table {table} (\"id\" bigint, \"name\" text)"));
    assert_eq!(change.steps[3..], [format!("alter table {table} add primary key (\"id\")"), "copy the rows into it".to_owned()]);
    assert_eq!(change.columns, [("id".to_owned(), "bigint".to_owned()), ("name".to_owned(), "text".to_owned())]);
    publish(&sink, &cx(&db.run(1), Mode::Merge, true), &rows).await.expect("published");
    assert_eq!(db.rows(&format!("select * from {table}")).await, ["1|null"]);
    db.sql(&format!("drop schema {} cascade", identifier(&schema))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staged_table_that_somebody_dropped_or_changed_is_an_error_and_nothing_is_published() {
    let Some(db) = Db::new("changed").await else { return };
    let (first, _) = staged(&db.sink("t"), &cx(&db.run(1), Mode::Append, false), &people(&[(1, None)])).await.expect("staged");
    let stage = db.stages().await.remove(0);
    db.sql(&format!("drop table {}", db.table(&stage))).await;
    assert_eq!(first.publish().await.expect_err("gone").code, "stage-lost");
    publish(&db.sink("t"), &cx(&db.run(2), Mode::Append, true), &people(&[(1, None)])).await.expect("published");
    let (second, _) = staged(&db.sink("t"), &cx(&db.run(3), Mode::Append, false), &people(&[(2, None)])).await.expect("staged");
    db.sql(&format!("alter table {} drop column name", db.table("t"))).await;
    let error = second.publish().await.expect_err("changed");
    assert_eq!(
        (error.code, error.message),
        ("table-changed", format!("table \"{}.t\" changed while this run went on: column \"name\" was dropped", db.schema))
    );
    second.discard().await.expect("discarded");
    assert_eq!(db.all("t").await, ["1"]);
    assert_eq!(db.stages().await, Vec::<String>::new());
}
