//! What a check knows of a server that it does not ask: what plans and published runs found there.

use std::{io::ErrorKind, net::TcpListener};

use super::{BOTH, Warehouse};
use crate::servers::Kind;

impl Warehouse {
    /// Writes a pipeline that loads `people` of the server, by a query, into `out` of the server. `more`: settings of the source step.
    fn moving(&self, more: &str, sql: &str, mode: &str) {
        let kind = self.kind.name();
        self.project.write(
            "pipeline.toml",
            format!(
                "weir = 1\nname = \"move\"\n\n[source.people]\n{more}\n[source.people.{kind}]\nconnection = \"wh\"\ntable = \"people\"\n\n\
                 [transform.ready]\nsql = {sql:?}\n\n{}",
                self.sink("out", "ready", "out", mode)
            ),
        );
    }

    /// Takes the server away: another listens in its place, and nobody may call. What is done, and whether somebody called.
    fn nobody_calls(&self, does: impl FnOnce()) {
        let own = std::fs::read_to_string(self.project.path("weir.toml")).unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        silent.set_nonblocking(true).unwrap();
        let moved = own.replace(self.db.place(), &silent.local_addr().unwrap().to_string());
        assert_ne!(own, moved);
        self.project.write("weir.toml", moved);
        does();
        assert_eq!(silent.accept().expect_err("somebody called").kind(), ErrorKind::WouldBlock);
        self.project.write("weir.toml", own);
    }

    fn known(&self, step: &str) -> serde_json::Value {
        let path = self.project.path(&format!(".weir/schemas/move/{step}.json"));
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
    }

    fn says_offline(&self, code: i32, words: &[&str]) {
        self.nobody_calls(|| {
            let checked = self.project.weir(&["check", "--offline", "pipeline.toml"]);
            assert_eq!(checked.code, code, "{checked}");
            checked.says(words).one_screen();
        });
    }
}

#[test]
fn a_plan_teaches_what_an_offline_check_knows() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("people", "(1, 'a')");
        warehouse.moving("", "select id, upper(name) as name from people", "append");
        warehouse.says_offline(2, &["error[schema-unknown]: the columns of \"people\" of \"wh\" are not known", "weir plan move"]);

        let online = warehouse.project.ok(&["check", "pipeline.toml"]);
        assert!(!warehouse.project.path(".weir/schemas").exists(), "a check keeps nothing\n{online}");
        warehouse.project.ok(&["plan", "pipeline.toml"]);
        let columns = warehouse.known("people")["columns"].clone();
        assert_eq!(columns, serde_json::json!([{ "name": "id", "type": "Int64", "nullable": false }, { "name": "name", "type": "Utf8" }]));
        assert!(!warehouse.project.path(".weir/schemas/move/out.json").exists(), "there is no table yet");
        warehouse.says_offline(0, &[]);

        // A mistake is the same one, in the same words, asked or not.
        warehouse.moving("", "select id, upper(nam) as name from people", "append");
        let asked = warehouse.project.weir(&["check", "pipeline.toml"]);
        warehouse.nobody_calls(|| {
            let offline = warehouse.project.weir(&["check", "--offline", "pipeline.toml"]);
            assert_eq!((offline.code, &offline.stderr), (2, &asked.stderr));
            offline.says(&["error[unknown-column]: no column \"nam\" in \"people\""]);
        });

        // A source whose settings ask for something else is not known.
        warehouse.project.write(
            "pipeline.toml",
            std::fs::read_to_string(warehouse.project.path("pipeline.toml")).unwrap().replace("\"people\"", "\"people2\""),
        );
        warehouse.says_offline(2, &["these settings have changed since it was asked"]);
    }
}

#[test]
fn a_server_that_does_not_answer_hides_no_mistake() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("people", "(1, 'a')");
        warehouse.moving("", "select id, name from people", "append");
        warehouse.project.ok(&["plan", "pipeline.toml"]);
        let url = warehouse.pick("postgres://weir@127.0.0.1:1/db?sslmode=disable", "http://127.0.0.1:1");
        warehouse.project.write("weir.toml", format!("[connection.wh.{}]\nurl = \"{url}\"\nconnect_timeout = \"1s\"\n", kind.name()));
        let unreachable = warehouse.project.weir(&["check", "pipeline.toml"]);
        assert_eq!(unreachable.code, 3, "{unreachable}");
        unreachable.says(&["error[connection-refused]"]);
        assert_eq!(unreachable.stderr.matches("error[").count(), 1, "{unreachable}");
        warehouse.moving("", "select id, nam from people", "append");
        let both = warehouse.project.weir(&["check", "pipeline.toml"]);
        assert_eq!(both.code, 2, "{both}");
        both.says(&["error[connection-refused]", "error[unknown-column]: no column \"nam\" in \"people\"", "2 errors"]);
    }
}

#[test]
fn a_run_teaches_what_stands_at_its_destination() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("people", "(1, 'a')");
        warehouse.moving("", "select id, name, 1.5 as score from people", "append");
        let summary = warehouse.project.run(&["pipeline.toml"]);
        assert_eq!(summary["notes"], serde_json::json!([]));
        let before = warehouse.known("out");
        assert_eq!(
            before["destination"],
            if kind == Kind::Postgres { "wh.public.out".into() } else { format!("wh.{}.out", warehouse.db.name) }
        );
        warehouse.says_offline(0, &[]);

        // A type that the table does not take, at the sink and in the query.
        warehouse.moving("", "select id, name, name as score from people", "append");
        let code = warehouse.pick("column-type", "column-type-changed");
        let words = [&format!("error[{code}]: other types than the table's: column \"score\"") as &str, "made here", "weir plan move"];
        warehouse.says_offline(2, &words);
        let plain = warehouse.project.weir(&["check", "pipeline.toml"]);
        assert_eq!(plain.code, 2, "{plain}");
        plain.says(&words);

        // What has been changed there is believed once it has been looked at.
        let alter = warehouse.pick("alter table out alter column score type text", "alter table out modify column score Nullable(String)");
        warehouse.db.execute(&[alter]);
        warehouse.says_offline(2, &words);
        warehouse.project.ok(&["plan", "pipeline.toml"]);
        assert_ne!(warehouse.known("out"), before);
        warehouse.says_offline(0, &[]);

        // A column that takes no null, and rows that may have one.
        let strict =
            warehouse.pick("alter table out alter column name set not null", "alter table out modify column name String default ''");
        warehouse.db.execute(&[strict]);
        warehouse.project.ok(&["plan", "pipeline.toml"]);
        warehouse.says_offline(0, &["warning[null-in-column]", "takes no null in \"name\"", "filter = \"name is not null\""]);
        warehouse.moving("", "select id, name, name as score from people where name <> ''", "append");
        warehouse.nobody_calls(|| {
            let settled = warehouse.project.ok(&["check", "--offline", "pipeline.toml"]);
            assert!(!settled.stderr.contains("warning"), "{settled}");
        });

        // A table that is gone is forgotten.
        warehouse.db.execute(&["drop table out"]);
        warehouse.project.ok(&["plan", "pipeline.toml"]);
        assert!(!warehouse.project.path(".weir/schemas/move/out.json").exists());
    }
}

#[test]
fn a_cursor_is_checked_offline() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("people", "(1, 'a')");
        warehouse.moving("incremental = { cursor = \"id\" }", "select id, name from people", "append");
        warehouse.project.run(&["pipeline.toml"]);
        warehouse.says_offline(0, &[]);
        for (cursor, words) in [
            ("idd", "error[cursor-missing]: no column \"idd\" to read by"),
            ("name", "error[cursor-type]: column \"name\" is Utf8, which cannot be a cursor"),
        ] {
            warehouse.moving(&format!("incremental = {{ cursor = {cursor:?} }}"), "select id, name from people", "append");
            let asked = warehouse.project.weir(&["check", "pipeline.toml"]);
            assert_eq!(asked.code, 2, "{asked}");
            asked.says(&[words, "pipeline.toml:5:15"]);
            warehouse.says_offline(2, &[words, "pipeline.toml:5:15"]);
        }
    }
}

#[test]
fn what_cannot_be_kept_fails_no_run() {
    let Some(warehouse) = Warehouse::fresh(Kind::Postgres) else { return };
    warehouse.table("people", "(1, 'a')");
    warehouse.moving("", "select id, name from people", "append");
    warehouse.project.write(".weir/schemas", "a file where a folder is to be");
    let planned = warehouse.project.ok(&["plan", "pipeline.toml"]);
    planned.says(&["warning[state]: what systems outside have could not be kept in"]);
    let summary = warehouse.project.run(&["pipeline.toml"]);
    assert_eq!(summary["rows_loaded"], 1);
    assert!(summary["notes"][0].as_str().is_some_and(|note| note.starts_with("what systems outside have could not be kept")), "{summary}");
}

/// The statements of a plan make the table that the run makes, and give it the columns that the run gives it.
#[test]
fn a_plan_shows_the_statements_that_a_run_sends() {
    for kind in BOTH {
        let Some(warehouse) = Warehouse::fresh(kind) else { return };
        warehouse.table("people", "(1, 'a')");
        for mode in ["append", "replace", "merge\nkey = [\"id\"]", "delete_insert\nkey = [\"id\"]", "snapshot\nkey = [\"id\"]"] {
            let filled = |columns: &str| format!("select {columns} from people where id is not null");
            warehouse.moving("", &filled("id, name, 1.5 as score"), mode);
            warehouse.by_hand();
            let (hand, ours) = (warehouse.structure(), {
                warehouse.db.execute(&["drop table out"]);
                warehouse.project.run(&["pipeline.toml"]);
                warehouse.structure()
            });
            assert_eq!(hand, ours, "{mode}");
            if mode != "replace" && !(kind == Kind::Clickhouse && mode.starts_with("merge")) {
                warehouse.moving(
                    "",
                    &filled("id, name, 1.5 as score, true as more"),
                    &format!("{mode}\non_schema_change = \"add_columns\""),
                );
                warehouse.by_hand();
                let hand = warehouse.structure();
                warehouse.db.execute(&["alter table out drop column more"]);
                warehouse.project.run(&["pipeline.toml"]);
                assert_eq!(hand, warehouse.structure(), "{mode}");
            }
            warehouse.db.execute(&["drop table out"]);
        }
    }
}

impl Warehouse {
    /// Sends the statements of the plan.
    fn by_hand(&self) {
        let planned = self.project.ok(&["plan", "--json", "pipeline.toml"]).json();
        let steps = planned["sinks"][0]["change"]["steps"].as_array().expect("steps").clone();
        let statements: Vec<&str> = steps.iter().filter_map(|step| step.as_str()).collect();
        let statements =
            statements.into_iter().filter(|step| step.starts_with("create ") || step.contains(" add ") && step.starts_with("alter "));
        let statements: Vec<&str> = statements.filter(|step| !step.contains("attach partition")).collect();
        assert!(!statements.is_empty(), "{planned}");
        self.db.execute(&statements);
    }

    /// What the server says of the table, but for the instant and the load that are in a plan's and a run's own.
    fn structure(&self) -> String {
        match self.kind {
            Kind::Postgres => self.db.csv(
                "select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as strict, \
                 pg_get_expr(d.adbin, d.adrelid) as fills, (select string_agg(regexp_replace(pg_get_indexdef(i.indexrelid), 'INDEX .* ON', 'INDEX ON'), '; ' order by 1) \
                 from pg_index i where i.indrelid = a.attrelid) as indexes \
                 from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum \
                 where a.attrelid = 'out'::regclass and a.attnum > 0 and not a.attisdropped order by a.attname",
            ),
            Kind::Clickhouse => {
                let columns = self.db.csv(
                    "select name, type, if(name = '_weir_version', '', default_kind) as kind from system.columns \
                     where database = currentDatabase() and table = 'out' order by name",
                );
                columns + &self.db.csv("select engine_full from system.tables where database = currentDatabase() and name = 'out'")
            }
        }
    }
}
