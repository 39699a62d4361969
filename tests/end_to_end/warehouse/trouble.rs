//! Wires that are cut, disks that are full and servers that restart, each at the worst moment.

use std::{
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    BOTH, Warehouse, many,
    proxy::{Piece, Proxy, Verdict, says},
};
use crate::{
    lake,
    servers::{Kind, Private},
};

const ROWS: usize = 100_000;

fn through(warehouse: &Warehouse, judge: impl Fn(&Piece) -> Verdict + Send + Sync + 'static) -> Proxy {
    let proxy = Proxy::before(warehouse.db.place(), judge);
    warehouse.project.write("weir.toml", warehouse.db.connection("wh").replace(warehouse.db.place(), proxy.place()));
    proxy
}

#[test]
fn a_wire_cut_in_the_middle_of_the_rows_loses_nothing() {
    for kind in BOTH {
        // Into a table that is there, and into a new one.
        for (table, mode) in [("rows", "append"), ("rows", "merge\nkey = [\"id\"]"), ("rows", "replace"), ("new", "append")] {
            let Some(warehouse) = Warehouse::fresh(kind) else { return };
            warehouse.load("rows", "merge\nkey = [\"id\"]", "id,name\n-1,old\n");
            warehouse.runs();
            let cut = Arc::new(AtomicBool::new(false));
            let seen = cut.clone();
            let _proxy = through(&warehouse, move |piece| {
                // A connection that has sent a megabyte is sending rows.
                if piece.before > 1 << 20 && !seen.swap(true, Ordering::SeqCst) { Verdict::Cut } else { Verdict::Pass }
            });
            warehouse.load(table, mode, &many(ROWS));
            let outcome = warehouse.run();
            // The run begins again by itself, and says so.
            assert!(cut.load(Ordering::SeqCst), "the wire was never cut: more rows are needed");
            assert_eq!(outcome.code, 0, "{outcome}");
            outcome.says(&[
                &format!("step \"out\": cannot load table \"{}", warehouse.pick("public.", "weir_")),
                "; nothing was published, trying again in 2 s",
            ]);
            warehouse.tidy();
            let before = if table == "rows" && mode != "replace" { 1 } else { 0 };
            assert_eq!(warehouse.columns("count(*), count(distinct id)", table), format!("{0},{0}", ROWS + before), "{mode}");
        }
    }
}

#[test]
fn a_wire_that_is_always_cut_fails_the_run_and_loses_nothing() {
    for kind in BOTH {
        for (table, mode) in [("rows", "append"), ("rows", "replace"), ("new", "append")] {
            let Some(warehouse) = Warehouse::fresh(kind) else { return };
            warehouse.table("rows", "(-1, 'old')");
            let proxy = through(&warehouse, |piece| if piece.before > 1 << 20 { Verdict::Cut } else { Verdict::Pass });
            warehouse.load(table, mode, &many(ROWS));
            let outcome = warehouse.run();
            assert_eq!(outcome.code, 3, "{outcome}");
            outcome.says(&["error[connection-lost]: step \"out\": cannot load table", "nothing was published, trying again"]).one_screen();
            warehouse.project.write("weir.toml", warehouse.db.connection("wh"));
            drop(proxy);
            warehouse.tidy();
            assert_eq!(warehouse.rows("rows"), "-1,old", "{mode}");
            assert!(table == "rows" || !warehouse.exists(table));
            warehouse.runs();
            let before = usize::from(mode == "append" && table == "rows");
            assert_eq!(warehouse.columns("count(*), count(distinct id)", table), format!("{0},{0}", ROWS + before), "{mode}");
        }
    }
}

/// True of what ends a load: it makes the rows visible.
fn publishes(kind: Kind, piece: &Piece) -> bool {
    match kind {
        // The ledger's row goes with the rows.
        Kind::Postgres => says(piece, "insert into") && says(piece, "weir_load"),
        Kind::Clickhouse => ["attach partition", "exchange tables", "rename table"].iter().any(|words| says(piece, words)),
    }
}

#[test]
fn a_wire_cut_at_publishing_is_mended_by_the_run_or_the_next() {
    for kind in BOTH {
        for (mode, new) in [("append", true), ("append", false), ("merge\nkey = [\"id\"]", false), ("replace", false)] {
            let Some(warehouse) = Warehouse::fresh(kind) else { return };
            if !new {
                warehouse.load("rows", "merge\nkey = [\"id\"]", "id,name\n-1,old\n");
                warehouse.runs();
            }
            let cut = Arc::new(AtomicBool::new(false));
            let seen = cut.clone();
            let _proxy = through(&warehouse, move |piece| {
                if publishes(kind, piece) && !seen.swap(true, Ordering::SeqCst) { Verdict::Cut } else { Verdict::Pass }
            });
            warehouse.load("rows", mode, "id,name\n1,a\n2,b\n");
            let pipeline = std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap();
            let lake = "[sink.lake]\nfrom = \"ready\"\nmode = \"append\"\n[sink.lake.lake]\ntable = \"out.rows\"\n";
            warehouse.project.write("pipeline.toml", pipeline + lake);
            let outcome = warehouse.run();
            assert!(cut.load(Ordering::SeqCst), "the wire was never cut at publishing\n{outcome}");
            let expected = match (mode, new) {
                ("append", true) | ("replace", _) => "1,a 2,b",
                _ => "-1,old 1,a 2,b",
            };
            if outcome.code == 0 {
                assert_eq!(warehouse.rows("rows"), expected, "{mode}");
                assert_eq!(warehouse.project.value("select count(*) from lake.out.rows"), "2");
            } else {
                assert_eq!(outcome.code, 3, "{outcome}");
                // Rolled forward, or discarded everywhere, before the next run, of no rows, begins.
                warehouse.project.write("rows.csv", "id,name\n");
                warehouse.transformed("rows", "append", "select cast(id as bigint) as id, cast(name as varchar) as name from rows");
                let empty = std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap();
                warehouse.project.write("pipeline.toml", empty + lake);
                warehouse.project.run(&["pipeline.toml"]);
                let lake = warehouse.project.value("select count(*) from lake.out.rows");
                let old = if new { "" } else { "-1,old" };
                let found = warehouse.rows("rows");
                assert!(
                    (found == expected && lake == "2") || (found == old && lake == "0"),
                    "{mode}: \"{found}\" beside {lake} in the lake"
                );
            }
            warehouse.tidy();
        }
    }
}

#[test]
fn a_server_that_restarts_between_stage_and_publish_gets_the_rows_once() {
    let Some(private) = Private::start() else { return };
    let private = Arc::new(private);
    for kind in BOTH {
        for new in [true, false] {
            let Some(db) = private.fresh_database(kind) else { return };
            let warehouse = Warehouse::of(db);
            if !new {
                warehouse.load("rows", "merge\nkey = [\"id\"]", "id,name\n-1,old\n");
                warehouse.runs();
            }
            let (done, server) = (Arc::new(Mutex::new(false)), private.clone());
            let seen = done.clone();
            let _proxy = through(&warehouse, move |piece| {
                let mut done = seen.lock().unwrap();
                if *done || !publishes(kind, piece) {
                    return Verdict::Pass;
                }
                *done = true;
                server.kill(kind);
                server.up();
                Verdict::Cut
            });
            warehouse.load("rows", "merge\nkey = [\"id\"]", "id,name\n1,a\n2,b\n");
            let pipeline = std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap();
            warehouse.project.write(
                "pipeline.toml",
                pipeline + "[sink.lake]\nfrom = \"ready\"\nmode = \"merge\"\nkey = [\"id\"]\n[sink.lake.lake]\ntable = \"out.rows\"\n",
            );
            let outcome = warehouse.run();
            assert!(*done.lock().unwrap(), "the server never restarted\n{outcome}");
            assert!(matches!(outcome.code, 0 | 3), "{outcome}");
            if outcome.code == 3 {
                outcome.says(&["connection"]);
            }
            warehouse.project.write("weir.toml", warehouse.db.connection("wh"));
            warehouse.runs();
            let expected = if new { "1,a 2,b" } else { "-1,old 1,a 2,b" };
            assert_eq!(warehouse.rows("rows"), expected);
            assert_eq!(warehouse.project.value("select count(*) from lake.out.rows"), "2");
        }
    }
}

/// The file that a table's large values stand in becomes `/dev/full`: whatever Postgres writes there, the kernel says that no space is left.
struct Full {
    file: PathBuf,
}

impl Full {
    fn of(warehouse: &Warehouse, table: &str) -> Self {
        let data = PathBuf::from(warehouse.db.value("show data_directory"));
        let sql = format!("select pg_relation_filepath(reltoastrelid) as path from pg_class where oid = '{table}'::regclass");
        let file = data.join(warehouse.db.value(&sql));
        warehouse.db.execute(&["checkpoint"]);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 0, "the file is not empty");
        std::fs::rename(&file, file.with_extension("away")).unwrap();
        symlink("/dev/full", &file).unwrap();
        Self { file }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        std::fs::remove_file(&self.file).unwrap();
        std::fs::rename(self.file.with_extension("away"), &self.file).unwrap();
    }
}

#[test]
fn a_full_disk_of_postgres_is_told_and_loses_nothing() {
    let Some(private) = Private::with(&["--only", "postgres"]) else { return };
    let Some(db) = private.fresh_database(Kind::Postgres) else { return };
    let warehouse = Warehouse::of(db);
    warehouse.table("rows", "(1, 'old')");
    // Ten kilobytes that do not compress go into the table's own place for large values.
    warehouse.db.execute(&["alter table rows alter column name set storage external"]);
    warehouse.load("rows", "append", &format!("id,name\n2,{}\n", "x".repeat(10_000)));
    {
        let _full = Full::of(&warehouse, "rows");
        let outcome = warehouse.run();
        assert_eq!(outcome.code, 1, "{outcome}");
        outcome.says(&[
            "error[disk-full]: step \"out\": cannot load table \"public.rows\": could not extend file",
            "No space left on device",
            "make room on the server's disk",
        ]);
        assert_eq!(warehouse.rows("rows"), "1,old");
        warehouse.tidy();
    }
    warehouse.runs();
    assert_eq!(warehouse.columns("id, length(name)", "rows"), "1,3 2,10000");
}

#[test]
fn a_full_disk_of_clickhouse_is_told_and_loses_nothing() {
    // The server's own check of its disk, told to want more than any disk has.
    let Some(warehouse) = Warehouse::fresh(Kind::Clickhouse) else { return };
    warehouse.table("rows", "(1, 'old')");
    warehouse.db.execute(&["alter table rows modify setting min_free_disk_bytes_to_perform_insert = 1000000000000000000"]);
    for mode in ["append", "replace", "delete_insert\nkey = [\"id\"]"] {
        warehouse.load("rows", mode, "id,name\n2,new\n");
        let outcome = warehouse.run();
        assert_eq!(outcome.code, 1, "{outcome}");
        outcome.says(&["error[disk-full]", "make room on the server's disk"]);
        warehouse.tidy();
        assert_eq!(warehouse.rows("rows"), "1,old", "{mode}");
    }
    warehouse.db.execute(&["alter table rows reset setting min_free_disk_bytes_to_perform_insert"]);
    warehouse.load("rows", "append", "id,name\n2,new\n");
    warehouse.runs();
    assert_eq!(warehouse.rows("rows"), "1,old 2,new");
    assert_eq!(lake::files(&warehouse.project.path("lake")), Vec::<PathBuf>::new());
}

#[test]
fn ctrl_c_in_the_middle_of_the_rows_leaves_nothing() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("rows", "(-1, 'old')");
        warehouse.load("rows", "append", &many(ROWS));
        let sending = Arc::new(AtomicBool::new(false));
        let seen = sending.clone();
        let _proxy = through(&warehouse, move |piece| {
            if piece.before > 1 << 19 {
                seen.store(true, Ordering::SeqCst);
                // Slowly from here, so that the signal comes in time.
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            Verdict::Pass
        });
        let mut run = warehouse.project.start(&["run", "pipeline.toml"]);
        while !sending.load(Ordering::SeqCst) && run.alive() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        run.signal("INT");
        let outcome = run.wait(std::time::Duration::from_secs(30));
        assert_eq!(outcome.code, 130, "{outcome}");
        warehouse.project.write("weir.toml", warehouse.db.connection("wh"));
        warehouse.tidy();
        assert_eq!(warehouse.rows("rows"), "-1,old");
        warehouse.runs();
        assert_eq!(warehouse.columns("count(*)", "rows"), (ROWS + 1).to_string());
    }
}

#[test]
fn sigterm_while_another_session_has_the_table_locked_is_heard_at_once() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.table("rows", "(1, 'old')");
    warehouse.load("rows", "replace", "id,name\n2,new\n");
    // Whoever looks on has a client of its own: the other's waits.
    let Some(onlooker) = crate::servers::fresh_database(Kind::Postgres) else { return };
    let name = &warehouse.db.name;
    std::thread::scope(|scope| {
        let locker = scope.spawn(|| {
            let sql = "do $$ begin lock table rows in access exclusive mode; perform pg_sleep(60); end $$";
            warehouse.db.execute(&[sql]);
        });
        let waits = |how: &str| {
            let sql = format!("select count(*) as n from pg_stat_activity where datname = '{name}' and {how}");
            for _ in 0..200 {
                if onlooker.value(&sql) != "0" {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            panic!("nobody waits: {how}");
        };
        waits("wait_event = 'PgSleep'");
        let run = warehouse.project.start(&["run", "pipeline.toml"]);
        waits("wait_event_type = 'Lock' and application_name like 'weir %'");
        run.signal("TERM");
        let outcome = run.wait(std::time::Duration::from_secs(15));
        assert_eq!(outcome.code, 130, "{outcome}");
        onlooker.value(&format!(
            "select pg_terminate_backend(pid) as ended from pg_stat_activity where wait_event = 'PgSleep' and datname = '{name}'"
        ));
        assert!(locker.join().is_err(), "its session was ended");
    });
    warehouse.tidy();
    assert_eq!(warehouse.rows("rows"), "1,old");
    warehouse.runs();
    assert_eq!(warehouse.rows("rows"), "2,new");
}
