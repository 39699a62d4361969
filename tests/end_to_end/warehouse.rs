//! Postgres and ClickHouse from outside: one pipeline, one fresh database of a real server, and that server's own client as the referee.
//! Here is what the tests share; what they show stands in `warehouse/`.

mod bad_values;
mod columns;
mod connections;
mod drift;
mod known;
mod made;
mod mistakes;
mod modes;
mod names;
mod proxy;
mod sources;
mod trouble;

use crate::{
    project::{Outcome, Project},
    servers::{Database, Kind, fresh_database},
};

const BOTH: [Kind; 2] = [Kind::Postgres, Kind::Clickhouse];

/// A project whose connection `wh` is a database of its own.
struct Warehouse {
    project: Project,
    db: Database,
    kind: Kind,
}

impl Warehouse {
    /// None where there are no servers: the test has said so.
    fn fresh(kind: Kind) -> Option<Self> {
        Some(Self::of(fresh_database(kind)?))
    }

    fn of(db: Database) -> Self {
        let project = Project::new();
        project.write("weir.toml", db.connection("wh"));
        Self { project, kind: db.kind, db }
    }

    /// Makes a table with the columns `id` and `name`, whose `name` may be null, and some rows: `(1, 'a'), (2, null)`.
    fn table(&self, name: &str, rows: &str) {
        let make = match self.kind {
            Kind::Postgres => format!("create table {name} (id bigint not null, name text)"),
            Kind::Clickhouse => format!("create table {name} (id Int64, name Nullable(String)) engine = MergeTree order by id"),
        };
        self.db.execute(&[&make, &format!("insert into {name} values {rows}")]);
    }

    /// Writes `rows.csv`, and a pipeline that loads it. `mode`: also the lines that follow it, such as `merge\nkey = ["id"]`.
    fn load(&self, table: &str, mode: &str, csv: &str) {
        self.project.write("rows.csv", csv);
        self.transformed(table, mode, "select * from rows");
    }

    /// Writes a pipeline that loads what `sql` makes of `rows.csv`.
    fn transformed(&self, table: &str, mode: &str, sql: &str) {
        self.project.write(
            "pipeline.toml",
            format!(
                "weir = 1\nname = \"load\"\n[source.rows.file]\npath = \"rows.csv\"\n[transform.ready]\nsql = {sql:?}\n{}",
                self.sink("out", "ready", table, mode)
            ),
        );
    }

    fn sink(&self, name: &str, from: &str, table: &str, mode: &str) -> String {
        let kind = self.kind.name();
        let (mode, more) = mode.split_once('\n').unwrap_or((mode, ""));
        format!(
            "[sink.{name}]\nfrom = \"{from}\"\nmode = \"{mode}\"\n{more}\n[sink.{name}.{kind}]\nconnection = \"wh\"\ntable = {table:?}\n"
        )
    }

    fn run(&self) -> Outcome {
        self.project.weir(&["run", "pipeline.toml"])
    }

    /// Runs the pipeline, which must succeed and leave nothing behind.
    fn runs(&self) {
        self.project.run(&["pipeline.toml"]);
        self.tidy();
    }

    /// Runs the pipeline, which must fail with this code, and say exactly this: the first line of the error. Nothing is left of the run.
    fn fails(&self, code: i32, message: &str) -> Outcome {
        let outcome = self.run();
        self.says(&outcome, code, message);
        self.tidy();
        outcome
    }

    /// `<place>` stands for host and port, `<db>` for the database.
    fn says(&self, outcome: &Outcome, code: i32, message: &str) {
        assert_eq!(outcome.code, code, "{outcome}");
        outcome.one_screen();
        let said = outcome.stderr.replace(self.db.place(), "<place>").replace(&self.db.name, "<db>");
        let first = said.lines().find(|line| line.starts_with("error")).unwrap_or_else(|| panic!("no error\n{outcome}"));
        assert_eq!(first, message, "{outcome}");
        assert!(!said.contains(self.db.password()) && !outcome.stdout.contains(self.db.password()), "the password shows\n{outcome}");
        if code < 3 {
            assert!(said.contains("= help: "), "nothing says what to do\n{outcome}");
        }
    }

    /// No staged table stands there, no transaction of weir's is open.
    fn tidy(&self) {
        assert_eq!(self.staged(), Vec::<String>::new(), "staged tables are left");
        if self.kind == Kind::Postgres {
            let open = "select count(*) as n from pg_stat_activity where datname = current_database() and application_name like 'weir %' and state <> 'idle'";
            // A backend whose client has gone ends in a moment.
            for _ in 0..100 {
                if self.db.value(open) == "0" {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            panic!("{:?}", self.db.rows(&open.replace("count(*) as n", "application_name, state, query")));
        }
    }

    fn staged(&self) -> Vec<String> {
        let sql = match self.kind {
            Kind::Postgres => "select relname as name from pg_class where relname like 'weir\\_stage\\_%' and relkind = 'r'",
            Kind::Clickhouse => "select name from system.tables where database = currentDatabase() and name like '%\\_\\_weir\\_%'",
        };
        self.answers(sql)
    }

    /// The rows of a query without their header, which ClickHouse's client leaves out where there are none.
    fn answers(&self, sql: &str) -> Vec<String> {
        self.db.rows(sql).into_iter().skip(1).collect()
    }

    /// Rows as `1,a 2,`; of ClickHouse as `final` shows them.
    fn rows(&self, table: &str) -> String {
        self.columns("id, name", table)
    }

    fn columns(&self, columns: &str, table: &str) -> String {
        // Only a table that replaces rows knows `final`.
        let last = if self.kind == Kind::Clickhouse && self.replacing(table) { " final" } else { "" };
        self.answers(&format!("select {columns} from {table}{last}")).join(" ")
    }

    fn replacing(&self, table: &str) -> bool {
        self.db.value(&format!(
            "select count(*) from system.tables where database = currentDatabase() and name = '{table}' and engine like '%Replacing%'"
        )) == "1"
    }

    fn exists(&self, table: &str) -> bool {
        let sql = match self.kind {
            Kind::Postgres => format!("select count(*) as n from information_schema.tables where table_name = '{table}'"),
            Kind::Clickhouse => format!("select count() from system.tables where database = currentDatabase() and name = '{table}'"),
        };
        self.db.value(&sql) != "0"
    }

    /// One of two, by kind.
    fn pick<T>(&self, postgres: T, clickhouse: T) -> T {
        if self.kind == Kind::Postgres { postgres } else { clickhouse }
    }
}

/// Ids from 0, each with a name; ids repeat nowhere.
fn many(rows: usize) -> String {
    let mut csv = String::from("id,name\n");
    for id in 0..rows {
        csv += &format!("{id},name {} of a row that is not short\n", id * 31 % 1009);
    }
    csv
}
