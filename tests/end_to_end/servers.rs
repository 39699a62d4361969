//! Postgres and ClickHouse for a test: the shared ones that `./test` starts, private ones to be killed, a fresh database in each, and
//! rows read back by the vendors' own clients. How they are started is `tests/servers`' business.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    project::{repository, sorted_rows},
    referee,
};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Clickhouse,
}

impl Kind {
    /// As `tests/servers` and a pipeline call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Clickhouse => "clickhouse",
        }
    }

    fn variable(self) -> String {
        format!("WEIR_TEST_{}_URL", self.name().to_uppercase())
    }
}

/// The URL of the shared ClickHouse, user and password in it; none where there is none: the test says so and passes at home, and fails in CI.
pub fn clickhouse() -> Option<String> {
    url(Kind::Clickhouse)
}

fn url(kind: Kind) -> Option<String> {
    let found = std::env::var(kind.variable()).ok().filter(|url| !url.is_empty());
    if found.is_none() {
        left_out(&format!("{} is not set", kind.variable()));
    }
    found
}

fn left_out(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}: ./test starts the servers, and so does eval \"$(tests/servers up)\"");
    eprintln!("left out: {why}; ./test starts the servers, and so does eval \"$(tests/servers up)\"");
}

/// A fresh database of the shared server, dropped at the end of the test; none as in [`clickhouse`].
pub fn fresh_database(kind: Kind) -> Option<Database> {
    Database::fresh(kind, &url(kind)?)
}

/// A database that belongs to one test.
pub struct Database {
    pub kind: Kind,
    pub name: String,
    server: Server,
    referee: Mutex<Referee>,
    shared: bool,
}

/// A server's URL in parts.
#[derive(Debug, Clone)]
struct Server {
    scheme: String,
    user: String,
    password: String,
    /// Host and port.
    place: String,
}

impl Server {
    fn parse(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or_else(|| panic!("no URL: {url}"));
        let (credentials, rest) = rest.split_once('@').unwrap_or(("", rest));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let place = rest.split(['/', '?']).next().unwrap_or_default();
        let [scheme, user, password, place] = [scheme, user, password, place].map(str::to_owned);
        Self { scheme, user, password, place }
    }
}

impl Database {
    fn fresh(kind: Kind, url: &str) -> Option<Self> {
        let referee = Referee::start(kind, url)?;
        let name = format!("weir_{:016x}", rand());
        let database = Self { kind, name, server: Server::parse(url), referee: Mutex::new(referee), shared: true };
        database.ask(None, &format!("create database {}", database.name)).unwrap_or_else(|error| panic!("{error}"));
        Some(database)
    }

    /// Its URL: `postgres://user:password@host:port/name`, or `http://host:port` for ClickHouse, whose user and database stand apart.
    pub fn url(&self) -> String {
        let Server { scheme, user, password, place, .. } = &self.server;
        match self.kind {
            Kind::Postgres => format!("{scheme}://{user}:{password}@{place}/{}", self.name),
            Kind::Clickhouse => format!("{scheme}://{place}"),
        }
    }

    /// The password, of which nothing may ever show.
    pub fn password(&self) -> &str {
        &self.server.password
    }

    /// Host and port, as messages may show them.
    pub fn place(&self) -> &str {
        &self.server.place
    }

    /// The table of `weir.toml` that makes it the connection `name`.
    pub fn connection(&self, name: &str) -> String {
        let Server { user, password, .. } = &self.server;
        let head = format!("[connection.{name}.{}]\nurl = \"{}\"\n", self.kind.name(), self.url());
        match self.kind {
            Kind::Postgres => head,
            Kind::Clickhouse => format!("{head}user = \"{user}\"\npassword = \"{password}\"\ndatabase = \"{}\"\n", self.name),
        }
    }

    /// Rows of a query as CSV through the vendor's client: the header, then the rows in the order of their text.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        sorted_rows(&self.csv(sql))
    }

    /// The same in the query's own order, as one text.
    pub fn csv(&self, sql: &str) -> String {
        self.try_csv(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, or what the server says against it.
    pub fn try_csv(&self, sql: &str) -> Result<String, String> {
        self.ask(Some(&self.name), sql)
    }

    /// The one value of a query that returns one.
    pub fn value(&self, sql: &str) -> String {
        let rows = self.rows(sql);
        assert_eq!(rows.len(), 2, "{sql}: {rows:?}");
        rows[1].clone()
    }

    /// Makes statements, one after another.
    pub fn execute(&self, statements: &[&str]) {
        for sql in statements {
            self.csv(sql);
        }
    }

    fn ask(&self, database: Option<&str>, sql: &str) -> Result<String, String> {
        self.referee.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).ask(database, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The servers of a test go with everything in them; somebody else's are left as they were.
        if self.shared {
            let force = if self.kind == Kind::Postgres { " with (force)" } else { " sync" };
            let _ = self.ask(None, &format!("drop database if exists {}{force}", self.name));
        }
    }
}

/// The vendor's client, waiting for questions.
struct Referee {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Referee {
    fn start(kind: Kind, url: &str) -> Option<Self> {
        let mut command = Command::new(referee::python()?);
        command.arg(repository().join("tests/support/referee.py")).args(["session", kind.name(), url]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (questions, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, questions, answers })
    }

    fn ask(&mut self, database: Option<&str>, sql: &str) -> Result<String, String> {
        writeln!(self.questions, "{}", json!({ "database": database, "sql": sql }))
            .map_err(|error| format!("the referee is gone: {error}"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("the referee said {line:?}: {error}"))?;
        match (&answer["rows"], &answer["error"]) {
            (Value::String(rows), _) => Ok(rows.clone()),
            (_, Value::String(error)) => Err(error.clone()),
            _ => Err(format!("the referee said {line:?}")),
        }
    }
}

impl Drop for Referee {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Servers of one test, to be killed and started again on the same data and ports; gone with the test, even one that is killed itself.
pub struct Private {
    folder: TempDir,
    options: Vec<String>,
    started: Mutex<Vec<(String, String)>>,
}

impl Private {
    /// Starts both; none where they are not installed, as in [`postgres`].
    pub fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// Starts them with options of `tests/servers up`: `--only postgres`, `--tls`, `--tls-client`.
    pub fn with(options: &[&str]) -> Option<Self> {
        if !installed().exists() {
            left_out("the servers are not installed");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("weir-servers-").tempdir().unwrap();
        let private = Self { folder, options: options.iter().map(|&option| option.to_owned()).collect(), started: Mutex::default() };
        private.up();
        Some(private)
    }

    /// Starts whatever does not run, on the data and the port it had.
    pub fn up(&self) {
        let watched = std::process::id().to_string();
        let said =
            self.script("up", &[&["--while", &watched], self.options.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
        let found = said.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        *self.started.lock().unwrap() = found.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    /// SIGKILL to a server and its children; returns when they are gone.
    pub fn kill(&self, kind: Kind) {
        self.script("kill", &[kind.name()]);
    }

    /// The URL, user and password in it; it stays the same from start to start.
    pub fn url(&self, kind: Kind) -> String {
        self.variable(&kind.variable())
    }

    /// The server's process as it was last started: what a crash shim kills. Postgres' children end by themselves, a moment later.
    pub fn pid(&self, kind: Kind) -> u32 {
        self.variable(&format!("WEIR_TEST_{}_PID", kind.name().to_uppercase())).parse().expect("a process id")
    }

    /// True while that process lives.
    pub fn alive(&self, kind: Kind) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid(kind))).unwrap_or_default();
        // A zombie is dead; its name ends with the last bracket.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    /// A fresh database in one of them; none without the referee.
    pub fn fresh_database(&self, kind: Kind) -> Option<Database> {
        let mut database = Database::fresh(kind, &self.url(kind))?;
        database.shared = false;
        Some(database)
    }

    fn variable(&self, name: &str) -> String {
        let started = self.started.lock().unwrap();
        started.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("{name} was not started")).1.clone()
    }

    fn script(&self, command: &str, arguments: &[&str]) -> String {
        run_script(self.folder.path(), command, arguments).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = run_script(self.folder.path(), "down", &["--delete"]) {
            eprintln!("{error}");
        }
    }
}

fn run_script(folder: &Path, command: &str, arguments: &[&str]) -> Result<String, String> {
    let script = repository().join("tests/servers");
    let output = Command::new(script).arg(command).arg("--dir").arg(folder).args(arguments).stdin(Stdio::null()).output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("tests/servers {command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A pgbouncer that starts: the machine's own, or the one that `tests/servers install` unpacked. Without one the test says so and passes, in CI
/// too: it comes from Debian's packages, which not every machine can have.
pub fn pgbouncer() -> Option<PathBuf> {
    let starts = |program: &PathBuf| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    let found = [PathBuf::from("pgbouncer"), cache().join("pgbouncer/pgbouncer")].into_iter().find(starts);
    if found.is_none() {
        eprintln!("left out, in CI too: no pgbouncer; tests/servers install takes it from Debian's packages, where they can be had");
    }
    found
}

/// What says that the servers are installed whole.
fn installed() -> PathBuf {
    cache().join("servers-venv/stamp")
}

/// Where `tests/servers` keeps what it installs.
fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty());
    cache.map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from).join("weir")
}

/// A number that no other test has: from the standard library's seeded hasher.
fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[test]
fn a_fresh_database_is_empty_and_gone_with_its_test() {
    for kind in [Kind::Postgres, Kind::Clickhouse] {
        let (Some(first), Some(second)) = (fresh_database(kind), fresh_database(kind)) else { return };
        let engine = if kind == Kind::Clickhouse { " engine = MergeTree order by n" } else { "" };
        first.execute(&[&format!("create table one (n bigint){engine}"), "insert into one values (7)"]);
        assert_eq!(first.value("select n from one"), "7");
        assert!(second.try_csv("select n from one").is_err(), "two databases share a table");
        assert!(first.try_csv("select no_such_column from one").is_err_and(|error| error.contains("no_such_column")));
        let settings: toml::Table = toml::from_str(&first.connection("there")).unwrap();
        let settings = &settings["connection"]["there"][kind.name()];
        assert!(settings["url"].as_str().unwrap().contains(first.place()) && first.connection("there").contains(first.password()));
        let name = first.name.clone();
        drop(first);
        let known = if kind == Kind::Postgres { "select datname from pg_database" } else { "select name from system.databases" };
        assert!(second.rows(known).contains(&second.name) && !second.rows(known).contains(&name));
    }
}

#[test]
fn the_clickhouse_front_answers_the_official_client_as_a_server_does() {
    let (Some(url), Some(python)) = (clickhouse(), referee::python()) else { return };
    let output = Command::new(python).arg(repository().join("tests/support/front_checks.py")).arg(url).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).lines().count() >= 15, "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn killed_servers_come_back_with_what_they_acknowledged() {
    let Some(private) = Private::start() else { return };
    for (kind, tail) in [(Kind::Postgres, ""), (Kind::Clickhouse, " engine = MergeTree order by n")] {
        let Some(database) = private.fresh_database(kind) else { return };
        database.execute(&[&format!("create table kept (n bigint){tail}"), "insert into kept values (1), (2), (3)"]);
        let url = private.url(kind);
        private.kill(kind);
        assert!(!private.alive(kind));
        assert!(database.try_csv("select 1").is_err(), "{kind:?} answers though it was killed");
        private.up();
        assert!(private.alive(kind));
        assert_eq!(private.url(kind), url);
        assert_eq!(database.rows("select n from kept"), ["n", "1", "2", "3"]);
    }
}

#[test]
fn servers_of_a_test_are_gone_with_it() {
    let Some(private) = Private::with(&["--only", "postgres"]) else { return };
    let (pid, folder) = (private.pid(Kind::Postgres), private.folder.path().to_owned());
    assert!(private.alive(Kind::Postgres));
    drop(private);
    assert!(!folder.exists());
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(!command.contains(folder.to_str().unwrap()), "{command}");
}

#[test]
fn servers_with_tls_refuse_who_comes_without() {
    let Some(private) = Private::with(&["--tls"]) else { return };
    let ca = repository().join("tests/support/tls/ca.pem");
    let url = private.url(Kind::Postgres);
    let Some(python) = referee::python() else { return };
    let ask = |mode: &str| {
        let script = repository().join("tests/support/referee.py");
        let output = Command::new(&python).arg(script).args(["postgres", &format!("{url}?{mode}"), "select 1 as one"]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    let (ok, said) = ask(&format!("sslmode=verify-full&sslrootcert={}", ca.display()));
    assert!(ok && said == "one\n1\n", "{said}");
    let (ok, said) = ask("sslmode=disable");
    assert!(!ok && said.contains("no encryption"), "{said}");
    let (ok, said) = ask(&format!("sslmode=verify-full&sslrootcert={}", ca.with_file_name("other-ca.pem").display()));
    assert!(!ok && said.contains("certificate verify failed"), "{said}");
    assert!(private.url(Kind::Clickhouse).starts_with("https://"));
}
