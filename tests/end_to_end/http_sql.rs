//! SQL over HTTP against a real `weir serve`: rows and pages, parameters, streams of Arrow, limits, scopes, and what becomes of a query whose
//! client goes away.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    project::{Project, Running, long},
    referee,
};

/// What is waited for comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(60);
/// Takes longer than any limit of these tests, and little memory.
const SLOW: &str = "select count(*) from lake.t.events a, lake.t.events b where md5(concat(a.id, '-', b.id)) = 'x'";
/// Rows of `lake.t.events`.
const ROWS: usize = 25_000;

/// A project that is served.
pub struct Served {
    pub project: Project,
    running: Option<Running>,
    log: PathBuf,
    /// Of the HTTP port.
    pub address: String,
}

impl Served {
    /// Serves a project with `lake.t.events`, on free ports.
    pub fn new(settings: &str, arguments: &[&str]) -> Self {
        let project = Project::new();
        project.write("weir.toml", format!("[server]\nlisten = \"127.0.0.1:0\"\nlog = \"text\"\n{settings}"));
        let rows = (1..=ROWS).fold("id,name,amount,day\n".to_owned(), |mut rows, id| {
            let _ = writeln!(rows, "{id},n{id},{}.25,2026-01-{:02}", id % 100, id % 28 + 1);
            rows
        });
        project.write("events.csv", rows);
        project.write(
            "events.pipeline.toml",
            "weir = 1\nname = \"events\"\n[source.rows.file]\npath = \"events.csv\"\n[sink.out]\nfrom = \"rows\"\nmode = \"append\"\nlake.table = \"t.events\"\n",
        );
        project.run(&["events"]);
        let log = project.path("serve.log");
        let mut served = Self { project, running: None, log, address: String::new() };
        served.start(arguments);
        served
    }

    fn start(&mut self, arguments: &[&str]) {
        let log = File::options().create(true).append(true).read(true).open(&self.log).unwrap();
        let out = File::options().create(true).append(true).read(true).open(self.project.path("serve.out")).unwrap();
        self.running = Some(Running::with_output(self.project.command(&[&["serve"], arguments].concat()), out, log));
        // The other ports say so before it, in words of their own.
        self.wait_for("it listens", |served| served.log().contains("listening address="));
        let log = self.log();
        self.address = log
            .split("listening address=")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .expect("it says where it listens")
            .into();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(since.elapsed() < PATIENCE, "{what}: that does not come\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes a token.
    pub fn token(&self, name: &str, scopes: &str) -> String {
        self.project.ok(&["serve", "token", "new", name, "--scope", scopes]).stdout.trim().to_owned()
    }

    /// Begins a request, and leaves the answer to whoever reads it.
    fn send(&self, request: &str, token: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        stream
    }

    /// Asks: the status, the headers, and the body.
    fn ask(&self, request: &str, token: &str, body: &Value) -> (u16, String, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut answer = String::new();
        self.send(request, token, &body).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}\n{}", self.log()));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    /// Asks for a text.
    fn text(&self, request: &str, token: &str) -> String {
        let mut answer = String::new();
        self.send(request, token, "").read_to_string(&mut answer).unwrap();
        answer
    }

    /// Asks for rows, which must come.
    pub fn sql(&self, token: &str, body: &Value) -> Value {
        let (status, _, answer) = self.ask("POST /api/sql", token, body);
        assert_eq!(status, 200, "{body}: {answer}");
        answer
    }

    /// What is said of a statement that is refused: the status, and the error as it is drawn for people.
    fn refused(&self, token: &str, body: &Value) -> (u16, String) {
        let (status, _, answer) = self.ask("POST /api/sql", token, body);
        let error = &answer["error"];
        (status, format!("error[{}]: {}", error["code"].as_str().unwrap(), error["message"].as_str().unwrap()))
    }
}

fn ids(answer: &Value) -> Vec<i64> {
    answer["rows"].as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

#[test]
fn rows_come_as_weir_sql_writes_them_and_page_by_page() {
    let served = Served::new("", &[]);
    let token = served.token("ann", "sql");
    let query = "select id, name, amount, day, null as nothing, [1, 2] as list, timestamp '2026-01-31 12:00:00' as at from lake.t.events where id <= 3 order by id";
    let answer = served.sql(&token, &json!({ "sql": query }));
    let expected = served.project.ok(&["sql", "--format", "json", "-c", query]).json();
    assert_eq!((&answer["rows"], &answer["next"]), (&expected, &Value::Null));
    let columns = answer["columns"].as_array().unwrap();
    let shown: Vec<String> =
        columns.iter().map(|column| format!("{}: {}", column["name"].as_str().unwrap(), column["type"].as_str().unwrap())).collect();
    assert_eq!(shown[..2], ["id: bigint", "name: text"]);
    assert_eq!(served.sql(&token, &json!({ "sql": "select 1 as one where false" }))["rows"], json!([]));

    // All pages are of one statement, whatever is loaded in between.
    let mut page = served.sql(&token, &json!({ "sql": "select id from lake.t.events order by id" }));
    let mut seen = ids(&page);
    assert_eq!(seen.len(), 10_000);
    served.project.run(&["events"]);
    while let Some(next) = page["next"].as_str().map(str::to_owned) {
        page = served.sql(&token, &json!({ "next": next, "page_rows": 8_000 }));
        seen.extend(ids(&page));
        let gone = "error[page-gone]: there is no such answer to go on with, or no more";
        assert_eq!(served.refused(&token, &json!({ "next": next })), (410, gone.to_owned()), "a page comes once");
    }
    assert!(seen.iter().copied().eq(1..=i64::try_from(ROWS).unwrap()), "{} rows", seen.len());
    let all = served.sql(&token, &json!({ "sql": "select count(*) as n from lake.t.events" }));
    assert_eq!(all["rows"][0]["n"], 2 * ROWS);

    let first = served.sql(&token, &json!({ "sql": "select id from lake.t.events order by id", "page_rows": 2 }));
    let other = served.token("bob", "sql");
    assert_eq!(served.refused(&other, &json!({ "next": first["next"] })).0, 410, "another user has no part in it");
    assert_eq!(ids(&served.sql(&token, &json!({ "next": first["next"], "page_rows": 2 }))), [2, 2], "each row is there twice by now");

    let (status, _, tables) = served.ask("GET /api/sql/tables", &token, &Value::Null);
    let tables = tables["tables"].as_array().unwrap();
    let events = tables.iter().find(|table| table["table"] == "events").expect("it is listed");
    assert_eq!((status, &events["catalog"], &events["schema"]), (200, &json!("lake"), &json!("t")));
    assert!(tables.iter().any(|table| table["schema"] == "weir" && table["table"] == "runs"), "{tables:?}");
}

#[test]
fn parameters_are_typed_by_the_statement_and_what_is_wrong_is_pointed_at() {
    let served = Served::new("", &[]);
    let token = served.token("ann", "sql");
    let asked = |parameters: Value| json!({ "sql": "select id, name from lake.t.events where id < $1 and name <> $2 order by id", "parameters": parameters });
    let rows = json!([{ "id": 1, "name": "n1" }, { "id": 3, "name": "n3" }]);
    assert_eq!(served.sql(&token, &asked(json!([4, "n2"])))["rows"], rows);
    assert_eq!(served.sql(&token, &asked(json!(["4", "n2"])))["rows"], rows);
    assert_eq!(served.sql(&token, &asked(json!([4, "'; drop table lake.t.events; --"])))["rows"].as_array().unwrap().len(), 3);
    let day = json!({ "sql": "select count(*) as n from lake.t.events where day = $1", "parameters": ["2026-01-01"] });
    assert_eq!(served.sql(&token, &day)["rows"][0]["n"], ROWS / 28);
    for (parameters, message) in [
        (json!([4]), "error[parameters]: the statement has 2 parameters, and 1 values were given"),
        (json!(["four", "n2"]), "error[parameters]: the value of $1 cannot be taken: \"four\" is no bigint"),
        (json!([4, {}]), "error[parameters]: the value of $2 cannot be taken: it is a list or an object"),
    ] {
        assert_eq!(served.refused(&token, &asked(parameters)), (400, message.to_owned()));
    }

    let (status, _, answer) = served.ask("POST /api/sql", &token, &json!({ "sql": "select *\nfrom lake.t.evnts" }));
    let error = &answer["error"];
    assert_eq!(
        (status, &error["code"], &error["position"]),
        (400, &json!("unknown-table"), &json!({ "line": 2, "column": 6 })),
        "{answer}"
    );
    for statement in
        ["drop table lake.t.events", "insert into lake.t.events values (1)", "create table x as select 1", "copy lake.t.events to 'x'"]
    {
        let refused = served.refused(&token, &json!({ "sql": statement }));
        assert_eq!(refused, (403, "error[read-only]: only queries are answered here, nothing is changed".to_owned()), "{statement}");
    }
    let (status, said) = served.refused(&token, &json!({ "sqll": "select 1" }));
    assert!(status == 400 && said.starts_with("error[bad-request]: the body cannot be read: unknown field `sqll`"), "{said}");
}

#[test]
fn a_token_opens_its_scopes_and_costs_no_more_than_its_limits() {
    let settings = "[server.sql.limits]\ntime = \"2s\"\n[server.sql.user.few]\nrows = 100\n[server.sql.user.thin]\nbytes = \"1KB\"\n[server.sql.user.one]\nqueries = 1\nwait = \"0s\"\ntime = \"none\"\n";
    let served = Served::new(settings, &[]);
    let runs = served.token("ci", "runs");
    let refused = "error[not-allowed]: the token \"ci\" does not open \"sql\"";
    assert_eq!(served.refused(&runs, &json!({ "sql": "select 1" })), (403, refused.to_owned()));
    let sql = served.token("ann", "sql");
    assert_eq!(served.ask("GET /api/runs", &sql, &Value::Null).0, 403);
    assert_eq!(served.ask("GET /api/runs", &runs, &Value::Null).0, 200);

    let since = Instant::now();
    let (status, said) = served.refused(&sql, &json!({ "sql": SLOW }));
    assert_eq!((status, said.as_str()), (422, "error[too-slow]: the statement takes longer than its limit of 2s"));
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    let few = served.token("few", "sql");
    let (status, said) = served.refused(&few, &json!({ "sql": "select id from lake.t.events" }));
    assert_eq!((status, said.as_str()), (422, "error[too-many-rows]: the answer has more rows than its limit of 100"));
    let thin = served.token("thin", "sql");
    let refused = served.refused(&thin, &json!({ "sql": "select name from lake.t.events" }));
    assert_eq!(refused, (422, "error[too-many-bytes]: the answer has more bytes than its limit of 1000".to_owned()));
    let refused = served.refused(&thin, &json!({ "sql": "-".repeat(1 << 20) }));
    assert_eq!(refused, (413, "error[too-long]: the body has more than 1048576 bytes".to_owned()));
    assert_eq!(served.sql(&few, &json!({ "sql": "select id from lake.t.events limit 100" }))["rows"].as_array().unwrap().len(), 100);

    // A page that waits gives way to a new statement; one that is at work does not.
    let one = served.token("one", "sql");
    let page = served.sql(&one, &json!({ "sql": "select id from lake.t.events", "page_rows": 1 }));
    assert_eq!(served.sql(&one, &json!({ "sql": "select 1 as id" }))["rows"], json!([{ "id": 1 }]));
    assert_eq!(served.refused(&one, &json!({ "next": page["next"] })).0, 410);
    let slow = served.send("POST /api/sql", &one, &json!({ "sql": SLOW }).to_string());
    served.wait_for("its turn is taken", |served| served.text("GET /metrics", &sql).contains("\nweir_statements_running 1\n"));
    let (status, head, answer) = served.ask("POST /api/sql", &one, &json!({ "sql": "select 1" }));
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("busy")), "{answer}");
    assert!(head.contains("\r\nretry-after: 5"), "{head}");
    let refused = served.refused(&one, &json!({ "sql": "select 1" }));
    assert_eq!(refused, (429, "error[busy]: the statement is not answered: no turn within 0s".to_owned()));
    assert_eq!(served.sql(&sql, &json!({ "sql": "select 1 as id" }))["rows"], json!([{ "id": 1 }]), "others have their turn");
    // Whoever goes away gives it back.
    drop(slow);
    served.wait_for("the turn is given back", |served| served.ask("POST /api/sql", &one, &json!({ "sql": "select 1" })).0 == 200);
    served.wait_for("it is logged as cancelled", |served| {
        served.log().lines().any(|line| line.contains("md5(concat") && line.contains("cancelled"))
    });
    assert!(!served.log().contains(&one), "a token is in the log");

    let metrics = served.text("GET /metrics", &sql);
    for (line, least) in [
        ("weir_statements_total{outcome=\"answered\"} ", 3),
        ("weir_statements_total{outcome=\"failed\"} ", 2),
        ("weir_statement_rows_total ", 102),
    ] {
        let value = metrics.lines().find_map(|one| one.strip_prefix(line)).unwrap_or_else(|| panic!("no {line}in\n{metrics}"));
        assert!(value.parse::<u64>().unwrap() >= least, "{line}{value}");
    }
    assert!(metrics.contains("\nweir_statements_running 0\n") && metrics.contains("\nweir_statements_waiting 0\n"), "{metrics}");

    served.project.ok(&["serve", "token", "revoke", "ann"]);
    served.wait_for("a revoked token opens nothing", |served| served.ask("POST /api/sql", &sql, &json!({ "sql": "select 1" })).0 == 401);
}

/// Reads a stream of Arrow as it comes: how many rows, or why it is not whole.
const ARROW: &str = r#"
import sys, json, urllib.request, pyarrow as pa
address, token, sql, accept = sys.argv[1:5]
body = json.dumps({"sql": sql} if accept == "header" else {"sql": sql, "format": "arrow"}).encode()
request = urllib.request.Request(f"http://{address}/api/sql", body, {"Authorization": f"Bearer {token}"})
if accept == "header":
    request.add_header("Accept", "application/vnd.apache.arrow.stream")
try:
    with urllib.request.urlopen(request) as answer:
        table = pa.ipc.open_stream(answer).read_all()
        print(table.num_rows, table.schema.names, table.column(0)[0].as_py() if table.num_rows else None)
except Exception as error:
    print(type(error).__name__)
"#;

#[test]
fn a_stream_of_arrow_is_whole_or_broken_off() {
    let Some(python) = referee::python() else { return };
    let served = Served::new("[server.sql.user.few]\nrows = 20_000\n", &[]);
    let read = |token: &str, sql: &str, accept: &str| {
        let mut client = Command::new(&python);
        client.args(["-c", ARROW, &served.address, token, sql, accept]).env("NO_PROXY", "*");
        let outcome = client.output().unwrap();
        assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
        String::from_utf8(outcome.stdout).unwrap().trim().to_owned()
    };
    let token = served.token("ann", "sql");
    let all = "select id, name from lake.t.events order by id";
    assert_eq!(read(&token, all, "header"), format!("{ROWS} ['id', 'name'] 1"));
    assert_eq!(read(&token, all, "body"), format!("{ROWS} ['id', 'name'] 1"));
    assert_eq!(read(&token, "select id from lake.t.events where id < 0", "body"), "0 ['id'] None");
    // What fails at once has a status; what fails after the first rows does not look whole.
    assert_eq!(read(&token, "select id from lake.t.none", "body"), "HTTPError");
    let few = served.token("few", "sql");
    let torn = read(&few, all, "body");
    assert!(!torn.contains("['id'") && torn != "HTTPError", "{torn}");
}

#[test]
fn addresses_are_printed_with_a_token_of_this_process_only_where_that_is_asked_for() {
    let served = Served::new("", &["--print-urls"]);
    served.wait_for("they are printed", |served| std::fs::read_to_string(served.project.path("serve.out")).unwrap().contains('\n'));
    let printed = std::fs::read_to_string(served.project.path("serve.out")).unwrap();
    let token = printed.split("Bearer ").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    assert_eq!(printed, format!("http      http://{}/api/sql  with the header \"Authorization: Bearer {token}\"\n", served.address));
    assert_eq!(served.sql(token, &json!({ "sql": "select 1 as id" }))["rows"], json!([{ "id": 1 }]));
    assert_eq!(served.ask("GET /api/runs", token, &Value::Null).0, 403, "it opens SQL, and nothing else");
    assert!(!served.log().contains(token), "{}", served.log());
    assert_eq!(served.project.ok(&["serve", "token", "list", "--json"]).json()["tokens"], json!([]), "it is kept nowhere");

    let quiet = Served::new("", &[]);
    assert_eq!(std::fs::read_to_string(quiet.project.path("serve.out")).unwrap(), "");
    let log = quiet.log();
    assert!(log.split("weir_").skip(1).all(|rest| !rest.chars().take(16).all(|c| c.is_ascii_hexdigit())), "{log}");
    assert_eq!(quiet.ask("POST /api/sql", token, &json!({ "sql": "select 1" })).0, 401);
}

#[test]
fn a_long_query_is_not_cut_off_by_the_bounds_of_short_requests() {
    if !long() {
        return;
    }
    // Longer than a request's ten seconds and a connection's twenty.
    let served = Served::new("[server.sql.limits]\ntime = \"30s\"\n", &[]);
    let token = served.token("ann", "sql");
    let since = Instant::now();
    let (status, said) = served.refused(&token, &json!({ "sql": SLOW }));
    assert_eq!((status, said.as_str()), (422, "error[too-slow]: the statement takes longer than its limit of 30s"));
    assert!(since.elapsed() > Duration::from_secs(29), "{:?}", since.elapsed());
}
