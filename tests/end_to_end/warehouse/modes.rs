//! The five modes, the same in the lake, in Postgres and in ClickHouse; what a replace keeps; and two pipelines on one table.

use std::{path::Path, time::Duration};

use super::{BOTH, Warehouse, many};
use crate::{
    project::{Project, sorted_rows},
    referee,
    servers::{Database, Kind, Private, fresh_database},
};

/// What two runs load. An empty name is null.
const FIRST: &str = "id,day,name,amount\n1,2024-01-01,one,1.50\n2,2024-01-01,two,2.50\n3,2024-01-02,,3.50\n4,2024-01-03,four,\n";
const SECOND: &str = "id,day,name,amount\n2,2024-01-01,TWO,2.50\n3,2024-01-02,,3.50\n4,2024-01-03,,4.25\n5,2024-01-04,five,5.00\n";

struct Three {
    project: Project,
    pg: Database,
    ch: Database,
}

impl Three {
    fn fresh() -> Option<Self> {
        Self::on(fresh_database(Kind::Postgres)?)
    }

    fn on(pg: Database) -> Option<Self> {
        let (project, ch) = (Project::new(), fresh_database(Kind::Clickhouse)?);
        referee::python()?;
        project.write("weir.toml", pg.connection("pg") + &ch.connection("ch"));
        Some(Self { project, pg, ch })
    }

    fn run(&self, mode: &str, key: &str, csv: &str) {
        self.project.write("rows.csv", csv);
        let mut text = "weir = 1\nname = \"three\"\n[source.rows.file]\npath = \"rows.csv\"\n".to_owned();
        text +=
            "[transform.typed]\nsql = \"select id, cast(day as date) as day, name, cast(amount as decimal(10, 2)) as amount from rows\"\n";
        // Two tables in Postgres, of which only one can be loaded in the transaction that decides the run.
        for (sink, place) in [
            ("lake", "lake]\ntable = \"out.rows\""),
            ("pg", "postgres]\nconnection = \"pg\"\ntable = \"rows\""),
            ("pg_too", "postgres]\nconnection = \"pg\"\ntable = \"too\""),
            ("ch", "clickhouse]\nconnection = \"ch\"\ntable = \"rows\""),
        ] {
            text += &format!("[sink.{sink}]\nfrom = \"typed\"\nmode = \"{mode}\"\n{key}\n[sink.{sink}.{place}\n");
        }
        self.project.write("pipeline.toml", text);
        self.project.run(&["pipeline.toml"]);
    }

    /// The rows of all four tables, which must be the same.
    fn rows(&self, columns: &str, merged: bool, about: &str) -> Vec<String> {
        let sql = |table: &str| format!("select {columns} from {table}");
        let plain = |rows: Vec<String>| rows.join("\n").replace('Z', "");
        let pg = plain(self.pg.rows(&sql("rows")));
        let last = if merged { " final" } else { "" };
        for (place, rows) in [("pg_too", plain(self.pg.rows(&sql("too")))), ("ch", plain(self.ch.rows(&(sql("rows") + last))))] {
            assert_eq!(rows, pg, "{about}: {place} and pg differ");
        }
        let lake = referee::delta(&self.project.path(".weir/lake/out/rows")).expect("a referee");
        assert_eq!(pick(&lake, columns), pg, "{about}: lake and pg differ");
        sorted_rows(&pg).split_off(1)
    }
}

/// Some columns of rows that hold no commas and no `Z` but that of UTC, which is taken out; in the order that the servers' have.
fn pick(rows: &[String], columns: &str) -> String {
    let header: Vec<&str> = rows[0].split(',').collect();
    let places: Vec<usize> = columns.split(", ").map(|column| header.iter().position(|name| *name == column).unwrap()).collect();
    let picked = |row: &String| {
        let cells: Vec<&str> = row.split(',').collect();
        places.iter().map(|place| cells[*place]).collect::<Vec<_>>().join(",")
    };
    let mut all: Vec<String> = rows.iter().map(picked).collect();
    all[1..].sort();
    all.join("\n").replace('Z', "")
}

const KEY: &str = "key = [\"id\"]";

#[test]
fn every_mode_twice_makes_the_same_rows_everywhere() {
    every_mode_twice(Three::fresh);
}

#[test]
fn every_mode_is_right_on_an_older_postgres_too() {
    if !Path::new("/usr/lib/postgresql/15/bin/postgres").exists() {
        eprintln!("left out: Debian's postgresql-15 is not installed");
        return;
    }
    let Some(older) = Private::with(&["--only", "postgres", "--postgres", "15"]) else { return };
    let fresh = || Three::on(older.fresh_database(Kind::Postgres)?);
    every_mode_twice(fresh);
    snapshots_keep(fresh);
}

fn every_mode_twice(fresh: impl Fn() -> Option<Three>) {
    for (mode, key, first, second) in [
        (
            "append",
            "",
            "1,2024-01-01,one,1.50 2,2024-01-01,two,2.50 3,2024-01-02,,3.50 4,2024-01-03,four,",
            "1,2024-01-01,one,1.50 2,2024-01-01,TWO,2.50 2,2024-01-01,two,2.50 3,2024-01-02,,3.50 3,2024-01-02,,3.50 4,2024-01-03,,4.25 4,2024-01-03,four, 5,2024-01-04,five,5.00",
        ),
        (
            "replace",
            "",
            "1,2024-01-01,one,1.50 2,2024-01-01,two,2.50 3,2024-01-02,,3.50 4,2024-01-03,four,",
            "2,2024-01-01,TWO,2.50 3,2024-01-02,,3.50 4,2024-01-03,,4.25 5,2024-01-04,five,5.00",
        ),
        (
            "merge",
            KEY,
            "1,2024-01-01,one,1.50 2,2024-01-01,two,2.50 3,2024-01-02,,3.50 4,2024-01-03,four,",
            "1,2024-01-01,one,1.50 2,2024-01-01,TWO,2.50 3,2024-01-02,,3.50 4,2024-01-03,,4.25 5,2024-01-04,five,5.00",
        ),
        (
            "delete_insert",
            "key = [\"day\"]",
            "1,2024-01-01,one,1.50 2,2024-01-01,two,2.50 3,2024-01-02,,3.50 4,2024-01-03,four,",
            // The first of January has only what came last.
            "2,2024-01-01,TWO,2.50 3,2024-01-02,,3.50 4,2024-01-03,,4.25 5,2024-01-04,five,5.00",
        ),
    ] {
        let Some(three) = fresh() else { return };
        let columns = "id, day, name, amount";
        three.run(mode, key, FIRST);
        assert_eq!(three.rows(columns, mode == "merge", mode).join(" "), first, "{mode}, once");
        three.run(mode, key, SECOND);
        assert_eq!(three.rows(columns, mode == "merge", mode).join(" "), second, "{mode}, twice");
        // The same rows again change nothing, except that append adds them.
        if mode != "append" {
            three.run(mode, key, SECOND);
            assert_eq!(three.rows(columns, mode == "merge", mode).join(" "), second, "{mode}, three times");
        }
        // No rows: replace empties the tables, all others leave them.
        three.run(mode, key, "id,day,name,amount\n9,2024-01-09,x,1.00\n");
        let before = three.rows(columns, mode == "merge", mode);
        assert!(before.iter().any(|row| row == "9,2024-01-09,x,1.00"), "{mode}: {before:?}");
    }
}

#[test]
fn snapshots_keep_the_same_versions_everywhere() {
    snapshots_keep(Three::fresh);
}

fn snapshots_keep(fresh: impl Fn() -> Option<Three>) {
    let Some(three) = fresh() else { return };
    three.run("snapshot", KEY, FIRST);
    let columns = "id, name, amount, is_current";
    let once = three.rows(columns, false, "once").join(" ");
    assert_eq!(once, "1,one,1.50,true 2,two,2.50,true 3,,3.50,true 4,four,,true");
    for time in ["twice", "a third time"] {
        three.run("snapshot", KEY, SECOND);
        // The third row is what it was, null and all; the first does not occur and stays.
        let rows = three.rows(columns, false, time).join(" ");
        assert_eq!(
            rows, "1,one,1.50,true 2,TWO,2.50,true 2,two,2.50,false 3,,3.50,true 4,,4.25,true 4,four,,false 5,five,5.00,true",
            "{time}"
        );
    }
    // To the same instant everywhere, and each version ends where the next begins.
    let spans = three.rows("id, valid_from, valid_to", false, "instants");
    let of = |id: &str| spans.iter().filter(|row| row.starts_with(id)).map(|row| row.split(',').collect::<Vec<_>>()).collect::<Vec<_>>();
    let (older, newer) = (&of("2,")[0], &of("2,")[1]);
    assert_eq!((older[2], newer[2]), (newer[1], ""), "{spans:?}");
    assert!(older[1] < newer[1], "{spans:?}");
}

#[test]
fn a_merge_in_clickhouse_is_right_under_final_and_after_optimize() {
    let Some(warehouse) = Warehouse::fresh(Kind::Clickhouse) else { return };
    let merge = "merge\nkey = [\"id\"]";
    for csv in ["id,name\n1,a\n2,b\n", "id,name\n2,c\n3,d\n", "id,name\n3,e\n1,a\n"] {
        warehouse.load("rows", merge, csv);
        warehouse.runs();
    }
    assert_eq!(warehouse.rows("rows"), "1,a 2,c 3,e");
    assert_eq!(
        warehouse.db.value("select engine_full from system.tables where database = currentDatabase() and name = 'rows'").split(' ').next(),
        Some("ReplacingMergeTree(_weir_version)")
    );
    warehouse.db.execute(&["optimize table rows final"]);
    assert_eq!(warehouse.db.rows("select id, name from rows").split_off(1).join(" "), "1,a 2,c 3,e");
    assert_eq!(warehouse.db.rows("select * from rows")[0], "id,name", "the version shows");
    // What another program inserts gives way to what weir loads, and stays where weir loads nothing.
    warehouse.db.execute(&["insert into rows (id, name) values (2, 'other'), (9, 'other')"]);
    assert_eq!(warehouse.rows("rows"), "1,a 2,c 3,e 9,other");
    warehouse.load("rows", merge, "id,name\n9,weir\n");
    warehouse.runs();
    assert_eq!(warehouse.rows("rows"), "1,a 2,c 3,e 9,weir");
}

#[test]
fn a_replace_in_postgres_keeps_views_grants_indexes_and_foreign_keys() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    let db = &warehouse.db;
    db.execute(&[
        "create table kinds (kind text primary key)",
        "insert into kinds values ('x'), ('y')",
        "create table rows (id bigint primary key, name text references kinds, made timestamptz default now(), constraint small check (id < 1000))",
        "create index by_name on rows (name)",
        "create view seen as select id, upper(name) as name from rows",
        "create materialized view kept as select count(*) as n from rows",
        "create table noted (row_id bigint references rows, note text)",
        "insert into rows values (1, 'x'), (2, 'y'), (3, 'x')",
        "insert into noted values (1, 'about one'), (2, 'about two')",
        "grant select on rows to public",
        "comment on column rows.name is 'its kind'",
    ]);
    let facts = || {
        db.rows(
            "select 'table ' || oid::text || ' ' || relacl::text as fact from pg_class where relname = 'rows' \
             union all select 'index ' || indexdef from pg_indexes where tablename = 'rows' \
             union all select 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint where conrelid = 'rows'::regclass or confrelid = 'rows'::regclass \
             union all select 'view ' || replace(definition, chr(10), ' ') from pg_views where viewname = 'seen' \
             union all select 'comment ' || col_description('rows'::regclass, 2)",
        )
    };
    let before = facts();
    assert_eq!(before.len(), 11, "{before:?}");
    // The rows that others refer to change in place; the third goes; the fourth comes.
    warehouse.load("rows", "replace\non_schema_change = \"ignore\"", "id,name\n1,y\n2,y\n4,x\n");
    for _ in 0..2 {
        warehouse.runs();
        assert_eq!(facts(), before);
        assert_eq!(warehouse.rows("rows"), "1,y 2,y 4,x");
        assert_eq!(warehouse.columns("id, name", "seen"), "1,Y 2,Y 4,X");
        assert_eq!(warehouse.columns("row_id, note", "noted"), "1,about one 2,about two");
    }
    db.execute(&["refresh materialized view kept"]);
    assert_eq!(db.value("select n from kept"), "3");
    // A row that another table needs cannot go: nothing changes, and the constraint is named.
    warehouse.load("rows", "replace\non_schema_change = \"ignore\"", "id,name\n1,y\n4,x\n");
    let outcome = warehouse.run();
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.says(&["error[foreign-key]", "noted"]);
    assert_eq!(warehouse.rows("rows"), "1,y 2,y 4,x");
    warehouse.tidy();
    // Nobody refers to it any more: the same run is done, and the table is the same table.
    db.execute(&["drop table noted"]);
    warehouse.runs();
    assert_eq!(warehouse.rows("rows"), "1,y 4,x");
    assert_eq!(facts()[..2], before[..2].iter().filter(|fact| !fact.contains("noted")).cloned().collect::<Vec<_>>()[..]);
}

#[test]
fn a_replace_in_clickhouse_keeps_how_the_table_is_made() {
    let Some(warehouse) = Warehouse::fresh(Kind::Clickhouse) else { return };
    let db = &warehouse.db;
    db.execute(&[
        "create table rows (id Int64 codec(Delta, ZSTD(3)), name LowCardinality(Nullable(String)) comment 'its name', day Date default today(), index by_name name type bloom_filter, \
         constraint positive check id > 0) engine = MergeTree partition by id % 2 order by (id, day) ttl day + interval 10 year settings index_granularity = 4096",
        "create view seen as select id, upper(name) as name from rows",
        "insert into rows (id, name) values (1, 'a'), (2, 'b'), (3, 'c')",
    ]);
    // The hidden column of weir's own apart.
    let how = || {
        db.value("select replaceRegexpAll(create_table_query, ', `_weir_version`[^,)]*(\\([^)]*\\))?', '') from system.tables where database = currentDatabase() and name = 'rows'")
    };
    let before = how();
    for csv in ["id,name\n2,B\n7,d\n", "id,name\n2,b\n5,e\n"] {
        warehouse.load("rows", "replace", csv);
        warehouse.transformed("rows", "replace", "select id, name, current_date() as day from rows");
        warehouse.runs();
        assert_eq!(how(), before);
    }
    assert_eq!(warehouse.rows("rows"), "2,b 5,e");
    assert_eq!(warehouse.columns("id, name", "seen"), "2,B 5,E");
    assert_eq!(db.value("select count() from rows where day = today()"), "2");
}

#[test]
fn two_pipelines_on_one_table_lose_nothing_of_each_other() {
    const ROWS: usize = 50_000;
    for kind in BOTH {
        for mode in ["append", "merge\nkey = [\"id\"]"] {
            let Some(one) = Warehouse::fresh(kind) else { return };
            let two = Project::new();
            two.write("weir.toml", one.db.connection("wh"));
            // A table that both know.
            one.load("rows", mode, "id,name\n-1,first\n");
            one.runs();
            one.load("rows", mode, &many(ROWS));
            for file in ["rows.csv", "pipeline.toml"] {
                two.write(file, std::fs::read_to_string(one.project.path(file)).unwrap().replace("name = \"load\"", "name = \"load_too\""));
            }
            let running = [&one.project, &two].map(|project| project.start(&["run", "pipeline.toml"]));
            for outcome in running.map(|running| running.wait(Duration::from_secs(120))) {
                // Both are done, or one is told that it met the other and is done when it runs again.
                if outcome.code != 0 {
                    assert!(matches!(outcome.code, 1 | 3), "{outcome}");
                    outcome.says(&["another", "run again"]);
                    panic!("a run met the other and gave up, which it need not\n{outcome}");
                }
            }
            one.tidy();
            let expected = if mode == "append" { 2 * ROWS + 1 } else { ROWS + 1 };
            assert_eq!(one.columns("count(*), count(distinct id)", "rows"), format!("{expected},{}", ROWS + 1), "{kind:?} {mode}");
        }
    }
}

#[test]
fn one_pipeline_cannot_load_one_table_twice() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.load("rows", "append", "id,name\n1,a\n");
        let text = std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap();
        let table = warehouse.pick("public.rows".to_owned(), format!("{}.rows", warehouse.db.name));
        warehouse.project.write("pipeline.toml", text + &warehouse.sink("again", "rows", &table, "append"));
        let outcome = warehouse.project.weir(&["check", "pipeline.toml"]);
        assert_ne!(outcome.code, 0, "the same table by two spellings\n{outcome}");
        outcome.says(&["out", "again"]);
        assert!(!Path::new(&warehouse.project.path(".weir/lake")).exists());
    }
}
