//! What watches a server and what it tells: Prometheus and promtool, an Alertmanager, an OTLP receiver, a mail server, a webhook. Each is somebody
//! else's program; how they are had is `tests/servers install`'s business.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    project::{Project, Running, repository},
    referee::python,
};

/// Whatever is waited for happens within this.
const WAIT: Duration = Duration::from_secs(60);

/// Looks until there is something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < WAIT {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: it does not happen")
}

/// A program of `tests/servers install`; none where it could not be had: the test says so and passes, in CI too.
fn program(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| PathBuf::from(&home).join(".cache"), PathBuf::from);
    let path = cache.join("weir/prometheus/bin").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("left out: there is no {}; tests/servers install unpacks it where Debian's packages can be had", path.display());
    None
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process of somebody else, ended with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A request over HTTP/1.0, whose answer ends with the connection: its status and its body, as text.
fn ask(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(WAIT)).ok()?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// `tests/support/receivers.py`: what it takes comes line by line.
struct Receiver {
    child: Child,
    port: u64,
    lines: BufReader<std::process::ChildStdout>,
}

impl Receiver {
    fn start(kind: &str) -> Option<Self> {
        let mut command = Command::new(python()?);
        command.arg(repository().join("tests/support/receivers.py")).arg(kind).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut receiver = Self { child, port: 0, lines };
        receiver.port = receiver.next()["port"].as_u64().expect("it says its port");
        Some(receiver)
    }

    /// What it takes next. A test that waits in vain is ended from outside.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("the receiver said {line:?}: {error}"));
        assert!(value.get("wrong").is_none(), "{value}");
        value
    }

    /// Ends it, and returns what it has taken since.
    fn rest(mut self) -> Vec<Value> {
        drop(self.child.stdin.take());
        let mut rest = Vec::new();
        let mut text = String::new();
        self.lines.read_to_string(&mut text).unwrap();
        rest.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
        rest
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two sources, a transform, two sinks; rows of one source are set aside.
const PIPELINE: &str = r#"weir = 1
name = "orders"

[source.lines]
contract = "line.schema.json"
[source.lines.file]
path = "lines.csv"
[source.rates.file]
path = "rates.csv"

[transform.priced]
sql = "select l.id, l.amount * r.rate as amount from lines l join rates r on r.currency = l.currency"

[sink.table]
from = "priced"
[sink.table.lake]
table = "shop.orders"
[sink.copy]
from = "lines"
mode = "replace"
[sink.copy.file]
path = "out/lines.csv"
"#;

fn orders() -> Project {
    let project = Project::with(PIPELINE);
    project.write("lines.csv", "id,amount,currency\n1,5,eur\n2,7,usd\n3,-1,usd\n");
    project.write("rates.csv", "currency,rate\neur,2\nusd,3\n");
    project.write("line.schema.json", r#"{ "type": "object", "properties": { "amount": { "type": "integer", "minimum": 0 } } }"#);
    project
}

/// The spans of one trace by name: exactly what a run of `orders` does, each with its place.
fn is_whole(spans: &[Value]) {
    let named = |name: &str| spans.iter().filter(|span| span["span"] == name).collect::<Vec<_>>();
    let [run] = named("run")[..] else { panic!("{spans:#?}") };
    assert_eq!(run["parent"], "", "{run}");
    assert_eq!((&run["attributes"]["pipeline"], &run["attributes"]["outcome"]), (&json!("orders"), &json!("published")));
    assert_eq!((&run["attributes"]["rows_read"], &run["attributes"]["rows_loaded"]), (&json!(5), &json!(4)));
    assert_eq!(run["error"], false);
    for span in spans {
        assert_eq!(span["trace"], run["trace"], "{span}");
        assert_eq!(span["resource"]["service.name"], "weir", "{span}");
        // A span ends with the last that was begun in it, as a query of the state's driver is, on a thread of its own.
        let end = run["end"].as_u64().unwrap() + 1_000_000_000;
        let within = span["start"].as_u64() >= run["start"].as_u64() && span["end"].as_u64().unwrap() <= end;
        assert!(within, "{span} is not within {run}");
        assert!(span == run || span["parent"] == run["id"], "{span} is not below {run}");
    }
    let rows = |name: &str, key: &str| {
        let of = |span: &&Value| (span["attributes"][key].as_str().unwrap().to_owned(), span["attributes"]["rows"].as_u64().unwrap());
        named(name).iter().map(of).collect::<BTreeMap<_, _>>()
    };
    let steps = [("lines", 2), ("priced", 2), ("rates", 2)].map(|(step, rows)| (step.to_owned(), rows));
    assert_eq!(rows("step", "step"), BTreeMap::from(steps));
    assert_eq!(named("step").len(), 3, "a step with two readers is one span: {spans:#?}");
    let loads = rows("load", "sink");
    assert_eq!((loads.get("table"), loads.get("copy"), loads.len()), (Some(&2), Some(&2), 3), "{loads:?}");
    assert_eq!(named("publish").len(), 1);
    assert_eq!(spans.len(), 1 + 3 + 3 + 1, "{spans:#?}");
}

#[test]
fn the_trace_of_a_run_arrives_with_all_its_spans() {
    let project = orders();
    let Some(receiver) = Receiver::start("otlp") else { return };
    let mut command = project.command(&["run", "pipeline.toml"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", receiver.port));
    let outcome = Running::start(command).wait(WAIT);
    assert_eq!(outcome.code, 0, "{outcome}");
    is_whole(&receiver.rest());
}

#[test]
fn the_trace_of_a_run_that_failed_says_so_and_shows_no_row() {
    let project = orders();
    project.write("lines.csv", "id,amount,currency\nsecret,5,eur\n2,7\n");
    project.write("line.schema.json", r#"{ "type": "object", "properties": { "id": { "type": "integer" } } }"#);
    let text = fs::read_to_string(project.path("pipeline.toml")).unwrap();
    project.write("pipeline.toml", text.replace("contract = ", "on_invalid = \"fail\"\ncontract = "));
    let Some(receiver) = Receiver::start("otlp") else { return };
    let mut command = project.command(&["run", "pipeline.toml"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", receiver.port));
    let outcome = Running::start(command).wait(WAIT);
    assert_eq!(outcome.code, 1, "{outcome}");
    let spans = receiver.rest();
    let run = spans.iter().find(|span| span["span"] == "run").unwrap_or_else(|| panic!("{spans:#?}"));
    assert_eq!((&run["error"], &run["attributes"]["outcome"]), (&json!(true), &json!("failed")), "{run}");
    assert!(run["attributes"]["code"].as_str().is_some_and(|code| !code.is_empty()), "{run}");
    assert!(!json!(spans).to_string().contains("secret"), "{spans:#?}");
}

#[test]
fn a_receiver_of_traces_that_is_not_there_keeps_nothing_from_running() {
    let project = orders();
    for endpoint in [format!("http://127.0.0.1:{}", free_port()), "nonsense://".to_owned()] {
        let mut command = project.command(&["run", "--json", "pipeline.toml"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        let started = Instant::now();
        let outcome = Running::start(command).wait(WAIT);
        assert_eq!(outcome.code, 0, "{endpoint}: {outcome}");
        assert!(started.elapsed() < Duration::from_secs(20), "{endpoint}: {:?}", started.elapsed());
    }
}

/// A `weir serve`, ended with the test.
struct Served {
    running: Running,
    address: String,
    token: String,
    log: PathBuf,
}

impl Served {
    fn start(project: &Project) -> Self {
        let told = project.ok(&["serve", "token", "new", "test"]);
        let word = |text: &str| text.split_whitespace().find(|word| word.starts_with("weir_")).map(str::to_owned);
        let token = word(&told.stdout).unwrap_or_else(|| panic!("{told}"));
        let (out, log) = (project.path("served.out"), project.path("served.log"));
        let file = |path: &PathBuf| File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        let mut running = Running::with_output(project.command(&["serve"]), file(&out), file(&log));
        let address = until("it listens", || {
            assert!(running.alive(), "{}", fs::read_to_string(&log).unwrap());
            lines(&log).into_iter().find(|line| line["message"] == "listening")?["address"].as_str().map(str::to_owned)
        });
        Self { running, address, token, log }
    }

    fn ask(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> (u16, String) {
        let bearer = format!("Bearer {}", self.token);
        ask(&self.address, method, path, &[&[("Authorization", bearer.as_str())], more].concat(), body).expect("it answers")
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, &[], "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Ends it as a system does, and returns what it has logged.
    fn end(self) -> Vec<Value> {
        self.running.signal("TERM");
        let outcome = self.running.wait(WAIT);
        assert!(matches!(outcome.code, 0 | 130), "{outcome}\n{}", fs::read_to_string(&self.log).unwrap());
        lines(&self.log)
    }
}

/// Log lines that are whole: each is a JSON object with what every line has.
fn lines(log: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let is_json = |line: &&str| line.starts_with('{');
    let read = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for key in ["timestamp", "level", "message", "target"] {
            assert!(value[key].is_string(), "{line}");
        }
        value
    };
    whole.lines().filter(is_json).map(read).collect()
}

const SERVER: &str = "[server]\nlisten = \"127.0.0.1:0\"\nlog = \"json\"\n";

/// `orders`, every second.
fn scheduled() -> Project {
    let project = orders();
    project.write("pipeline.toml", PIPELINE.replacen("\n[source", "\n[schedule]\nevery = \"1s\"\ncatch_up = \"none\"\n\n[source", 1));
    project.write("weir.toml", SERVER);
    project
}

#[test]
fn prometheus_scrapes_a_server_and_its_rules_hold() {
    let (Some(prometheus), Some(promtool)) = (program("prometheus"), program("promtool")) else { return };
    let project = scheduled();
    let served = Served::start(&project);
    let rules = project.ok(&["serve", "rules"]).stdout;
    project.write("rules.yml", &rules);
    project.write("token", &served.token);
    project.write(
        "prometheus.yml",
        format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [rules.yml]\nscrape_configs:\n- job_name: weir\n  \
             authorization: {{ credentials_file: token }}\n  static_configs: [{{ targets: [\"{}\"] }}]\n",
            served.address
        ),
    );
    for arguments in [["check", "rules", "rules.yml"], ["check", "config", "prometheus.yml"]] {
        let outcome = Running::start(project.program(promtool.to_str().unwrap(), &arguments)).wait(WAIT);
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    let count = format!("{} rules found", rules.matches("- alert: ").count());
    let checked = Running::start(project.program(promtool.to_str().unwrap(), &["check", "rules", "rules.yml"])).wait(WAIT);
    assert!(checked.stdout.contains(&count), "{checked}");
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = project.program(
        prometheus.to_str().unwrap(),
        &["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", &format!("--web.listen-address={address}")],
    );
    let _prometheus = Started(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let query = |query: &str| -> Option<Vec<Value>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (_, body) = ask(&address, "GET", &format!("/api/v1/query?query={encoded}"), &[], "")?;
        let answer: Value = serde_json::from_str(&body).ok()?;
        answer["data"]["result"].as_array().cloned().filter(|found| !found.is_empty())
    };
    until("runs are counted", || query("increase(weir_runs_total{pipeline=\"orders\",outcome=\"published\"}[1m]) > 0"));
    until("rows are counted", || query("weir_rows_total{direction=\"quarantined\",pipeline=\"orders\"} > 0"));
    let seen = query("weir_leading == 1").map(|found| found.len());
    assert_eq!(seen, Some(1), "it leads");
    for metric in
        ["weir_schedule_lag_seconds", "weir_queue_length", "weir_memory_bytes", "weir_build_info", "weir_start_delay_seconds_count"]
    {
        until(metric, || query(metric));
    }
    // One row in three is rejected, which the rules find too many.
    until("a rule fires", || query("ALERTS{alertname=\"WeirRowsRejected\",alertstate=\"firing\",pipeline=\"orders\"}"));
    let (_, rules) = ask(&address, "GET", "/api/v1/rules", &[], "").unwrap();
    let rules: Value = serde_json::from_str(&rules).unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap().clone();
    assert!(rules.len() > 5 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:#?}");
    let (status, text) = served.ask("GET", "/metrics", &[], "");
    assert_eq!(status, 200);
    let mut lint = project.program(promtool.to_str().unwrap(), &["check", "metrics"]);
    let mut lint = lint.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    lint.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = lint.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    served.end();
}

#[test]
fn an_alertmanager_receives_an_alert_and_its_end() {
    let Some(alertmanager) = program("alertmanager") else { return };
    let project = scheduled();
    let address = format!("127.0.0.1:{}", free_port());
    project.write("alertmanager.yml", "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n");
    let templates = alertmanager.parent().unwrap().parent().unwrap().join("alertmanager");
    for name in ["default.tmpl", "email.tmpl"] {
        fs::copy(templates.join(name), project.path(name)).unwrap();
    }
    let mut command = project.program(
        alertmanager.to_str().unwrap(),
        &[
            "--config.file=alertmanager.yml",
            "--storage.path=alertmanager",
            "--cluster.listen-address=",
            &format!("--web.listen-address={address}"),
        ],
    );
    let _alertmanager = Started(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("it is ready", || ask(&address, "GET", "/-/ready", &[], "").filter(|(status, _)| *status == 200));
    project.write(
        "weir.toml",
        format!("{SERVER}[alert.oncall]\non = [\"failed\", \"recovered\"]\n[alert.oncall.alertmanager]\nurl = \"http://{address}\"\n"),
    );
    fs::remove_file(project.path("rates.csv")).unwrap();
    let served = Served::start(&project);
    let alerts = || -> Option<Vec<Value>> {
        let (_, body) = ask(&address, "GET", "/api/v2/alerts", &[], "")?;
        serde_json::from_str::<Value>(&body).ok()?.as_array().cloned()
    };
    let alert = until("an alert", || alerts()?.into_iter().next());
    let labels =
        json!({ "alertname": "WeirRunFailed", "pipeline": "orders", "cause": "failed", "severity": "critical", "service": "weir" });
    assert_eq!(alert["labels"], labels);
    let description = alert["annotations"]["description"].as_str().unwrap();
    assert!(description.contains("orders: failed") && description.contains("rates.csv"), "{alert}");
    assert!(alert["annotations"]["run"].as_str().is_some_and(|run| !run.is_empty()), "{alert}");
    project.write("rates.csv", "currency,rate\neur,2\nusd,3\n");
    until("its end", || alerts()?.is_empty().then_some(()));
    served.end();
}

#[test]
fn mails_and_webhooks_tell_what_fails_and_what_recovers() {
    let (Some(mut mails), Some(mut hooks)) = (Receiver::start("smtp"), Receiver::start("http")) else { return };
    let project = scheduled();
    project.write(
        "weir.toml",
        format!(
            "{SERVER}[alert.mail]\ngroup = \"0s\"\non = [\"failed\", \"recovered\"]\n[alert.mail.smtp]\nserver = \"127.0.0.1:{}\"\nfrom = \"Weir \
             <weir@example.com>\"\nto = [\"ops@example.com\", \"Data <data@example.com>\"]\nuser = \"weir\"\npassword = {{ file = \"smtp.txt\" \
             }}\ntls = \"none\"\n[alert.hook]\ngroup = \"0s\"\non = [\"failed\", \"recovered\"]\n[alert.hook.webhook]\nurl = \
             \"http://127.0.0.1:{}/weir\"\nheaders = {{ X-Secret = {{ file = \"hook.txt\" }} }}\n",
            mails.port, hooks.port
        ),
    );
    project.write("smtp.txt", "right\n");
    project.write("hook.txt", "hush-hush\n");
    fs::remove_file(project.path("rates.csv")).unwrap();
    let served = Served::start(&project);
    let mail = mails.next();
    assert_eq!(mail["subject"], "weir: 1 failed: orders", "{mail}");
    assert_eq!((&mail["from"], &mail["to"]), (&json!("weir@example.com"), &json!(["ops@example.com", "data@example.com"])), "{mail}");
    assert_eq!((&mail["header_from"], &mail["user"]), (&json!("Weir <weir@example.com>"), &json!("weir")), "{mail}");
    assert!(mail["text"].as_str().is_some_and(|text| text.starts_with("orders: failed: ") && text.contains("rates.csv")), "{mail}");
    let hook = hooks.next();
    assert_eq!((&hook["path"], &hook["headers"]["x-secret"]), (&json!("/weir"), &json!("hush-hush")), "{hook}");
    assert_eq!((&hook["body"]["status"], &hook["body"]["items"][0]["pipeline"]), (&json!("firing"), &json!("orders")), "{hook}");
    project.write("rates.csv", "currency,rate\neur,2\nusd,3\n");
    let mail = mails.next();
    assert_eq!(mail["subject"], "weir: 1 recovered: orders", "a failure is told once, however often it happens: {mail}");
    assert_eq!(hooks.next()["body"]["items"][0]["status"], "recovered");
    let log = json!(served.end()).to_string();
    assert!(!log.contains("hush-hush") && log.contains("alert sent"), "{log}");
}

#[test]
fn a_server_sends_traces_and_metrics_and_logs_runs_by_their_ids() {
    let Some(receiver) = Receiver::start("otlp") else { return };
    let project = scheduled();
    project.write("weir.toml", format!("{SERVER}otlp = \"http://127.0.0.1:{}\"\n", receiver.port));
    let served = Served::start(&project);
    until("a run has published", || (!served.get("/api/runs?status=published")["runs"].as_array().unwrap().is_empty()).then_some(()));
    let log = served.end();
    let taken = receiver.rest();
    let spans: Vec<&Value> = taken.iter().filter(|one| one.get("span").is_some()).collect();
    let run = spans.iter().find(|span| span["span"] == "run" && span["attributes"]["outcome"] == "published").expect("a run's trace");
    assert!(run["attributes"]["interval_end"].as_str().is_some_and(|end| end.ends_with('Z')), "{run}");
    is_whole(&spans.iter().filter(|span| span["trace"] == run["trace"]).map(|span| (*span).clone()).collect::<Vec<_>>());
    let metric = |name: &str| taken.iter().find(|one| one["metric"] == name);
    let runs = metric("weir.runs").unwrap_or_else(|| panic!("{taken:#?}"));
    assert_eq!((&runs["kind"], &runs["attributes"]["pipeline"]), (&json!("sum"), &json!("orders")), "{runs}");
    let duration = metric("weir.run.duration").expect("durations");
    assert_eq!((&duration["kind"], &duration["unit"]), (&json!("histogram"), &json!("s")), "{duration}");
    let published = log.iter().find(|line| line["message"] == "run published").unwrap_or_else(|| panic!("{log:#?}"));
    assert_eq!((&published["pipeline"], &published["level"]), (&json!("orders"), &json!("info")), "{published}");
    let id = run["attributes"]["run"].as_str().unwrap();
    assert!(log.iter().any(|line| line["run"] == id && line["message"] == "run published"), "{id} in {log:#?}");
}

#[test]
fn a_run_is_asked_for_over_http_once_for_a_key() {
    let project = orders();
    project.write("weir.toml", SERVER);
    let served = Served::start(&project);
    assert_eq!(ask(&served.address, "GET", "/livez", &[], "").unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(ask(&served.address, "GET", "/readyz", &[], "").unwrap(), (200, "ok\n".to_owned()));
    let path = "/api/pipelines/orders/runs";
    assert_eq!(ask(&served.address, "POST", path, &[], "").unwrap().0, 401);
    let key = [("Idempotency-Key", "first")];
    let (status, first) = served.ask("POST", path, &key, "");
    assert_eq!(status, 202, "{first}");
    let (status, again) = served.ask("POST", path, &key, "");
    assert_eq!(status, 200, "{again}");
    let task = |body: &str| serde_json::from_str::<Value>(body).unwrap()["task"].clone();
    assert_eq!(task(&first), task(&again));
    let published = || served.get("/api/runs?pipeline=orders&status=published")["runs"].as_array().unwrap().clone();
    let runs = until("it publishes", || Some(published()).filter(|runs| !runs.is_empty()));
    assert_eq!(runs.len(), 1, "{runs:?}");
    let run = runs[0]["run"].as_str().unwrap();
    assert_eq!(served.get(&format!("/api/runs/{run}"))["pipeline"], "orders");
    let over = "error[task-over]: it is published already: there is nothing to stop";
    assert_eq!(refusal(served.ask("POST", &format!("/api/runs/{run}/cancel"), &[], "")), (409, over.to_owned()));
    let status = "error[unknown-status]: there is no such status of a run";
    assert_eq!(refusal(served.ask("GET", "/api/runs?status=done", &[], "")), (400, status.to_owned()));
    assert_eq!(served.ask("GET", "/api/runs/none", &[], "").0, 404);
    assert_eq!(served.ask("POST", "/api/pipelines/ordrs/runs", &[], "").0, 404);
    let (status, wrong) = served.ask("POST", path, &[], r#"{"params": {"day": "2027-01-01"}}"#);
    assert!(status == 400 && wrong.contains("unknown-param"), "{status} {wrong}");
    assert_eq!(project.value("select count(*) from lake.shop.orders"), "2");
    project.ok(&["serve", "token", "revoke", "test"]);
    until("the token opens nothing any more", || (served.ask("GET", "/api/runs", &[], "").0 == 401).then_some(()));
    served.end();
}

/// A refusal as `error[code]: message`.
fn refusal((status, body): (u16, String)) -> (u16, String) {
    let error = serde_json::from_str::<Value>(&body).unwrap_or_else(|error| panic!("{body}: {error}"))["error"].clone();
    (status, format!("error[{}]: {}", error["code"].as_str().unwrap(), error["message"].as_str().unwrap()))
}

#[test]
fn what_the_port_refuses_is_told() {
    let project = orders();
    project.write("weir.toml", SERVER);
    let served = Served::start(&project);
    let stranger = |headers: &[(&str, &str)]| refusal(ask(&served.address, "GET", "/api/runs", headers, "").unwrap());
    let token = "error[unauthorized]: this needs a token, as the header \"Authorization: Bearer TOKEN\"";
    assert_eq!(stranger(&[]), (401, token.to_owned()));
    let unknown = "error[unauthorized]: this token is not known, or it is revoked";
    assert_eq!(stranger(&[("Authorization", "Bearer weir_0")]), (401, unknown.to_owned()));
    let told = |method: &str, path: &str, body: &str| refusal(served.ask(method, path, &[], body));
    assert_eq!(told("GET", "/api/none", ""), (404, "error[not-found]: there is nothing at this path".to_owned()));
    let method = "error[method-not-allowed]: this path does not take this method";
    assert_eq!(told("DELETE", "/api/runs", ""), (405, method.to_owned()));
    let run = "/api/pipelines/orders/runs";
    assert_eq!(told("POST", run, "[]"), (400, "error[bad-request]: the body is no JSON object".to_owned()));
    let large = "error[bad-request]: the body is larger than 1048576 bytes";
    assert_eq!(told("POST", run, &" ".repeat((1 << 20) + 1)), (413, large.to_owned()));
    served.end();
}

#[test]
fn a_server_that_cannot_listen_or_send_does_not_start() {
    let project = orders();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    project.write("weir.toml", format!("[server]\nlisten = \"{address}\"\n"));
    let outcome = project.weir(&["serve"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.says(&[&format!("error[cannot-listen]: cannot listen on {address}: "), "choose another address as [server] listen"]);
    project.write("weir.toml", format!("{SERVER}otlp = \"http://[::1\"\n"));
    let outcome = project.weir(&["serve"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.says(&["error[otlp]: nothing can be sent to the OTLP receiver: "]);
}
