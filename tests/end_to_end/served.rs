//! What `weir serve` does beside the clock's work: triggers, rules of a schedule, and what a person asks of it.

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    project::{Project, Running},
    servers::{Database, Kind, fresh_database},
};

/// What is waited for comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(90);

/// A project that is served.
struct Served {
    project: Project,
    running: Option<Running>,
    log: PathBuf,
}

impl Served {
    fn new(settings: &str, pipelines: &[(&str, String)]) -> Self {
        let project = Project::new();
        project.write("weir.toml", format!("[server]\nlisten = \"127.0.0.1:0\"\nlog = \"text\"\n{settings}"));
        project.write("rows.csv", "id\n1\n2\n");
        for (name, text) in pipelines {
            project.write(&format!("{name}.pipeline.toml"), format!("weir = 1\nname = \"{name}\"\n{text}"));
        }
        let log = project.path("serve.log");
        let mut served = Self { project, running: None, log };
        served.start();
        served
    }

    fn start(&mut self) {
        let log = File::options().create(true).append(true).read(true).open(&self.log).unwrap();
        log.set_len(0).unwrap();
        self.running = Some(Running::with_output(self.project.command(&["serve"]), log.try_clone().unwrap(), log));
        self.wait_for("it listens", |served| served.said("listening"));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn said(&self, words: &str) -> bool {
        self.log().contains(words)
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(since.elapsed() < PATIENCE, "{what}: that does not come\n{}\n{}", self.log(), self.tasks());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn tasks(&self) -> String {
        self.project.ok(&["runs", "tasks", "--limit", "50"]).stdout
    }

    /// The tasks of a pipeline, oldest first.
    fn tasks_of(&self, pipeline: &str) -> Vec<Value> {
        let answer = self.project.ok(&["runs", "tasks", pipeline, "--limit", "200", "--json"]).json();
        let mut tasks = answer["tasks"].as_array().unwrap().clone();
        tasks.reverse();
        tasks
    }

    fn count(&self, pipeline: &str, status: &str) -> usize {
        self.tasks_of(pipeline).iter().filter(|task| task["status"] == status).count()
    }

    /// Ends the server, and returns its exit code.
    fn end(&mut self) -> i32 {
        let running = self.running.take().unwrap();
        running.signal("TERM");
        running.wait(PATIENCE).code
    }

    /// Asks over HTTP: the status, and the body.
    fn ask(&self, request: &str, token: &str, headers: &str, body: &Value) -> (u16, Value) {
        let log = self.log();
        let address = log.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("it says where it listens");
        let mut stream = TcpStream::connect(address).unwrap();
        let body = body.to_string();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

/// A pipeline whose source takes as many seconds as its table `pause` says.
fn slow(schedule: &str) -> String {
    format!(
        "{schedule}\n[source.rows.postgres]\nconnection = \"w\"\ntable = \"public.slow\"\n[sink.out]\nfrom = \"rows\"\nlake.table = \"t.slow\"\n"
    )
}

fn slow_database(seconds: u32) -> Option<Database> {
    let database = fresh_database(Kind::Postgres)?;
    database.execute(&[
        &format!("create table pause as select {seconds} as seconds"),
        "create view slow as select 1 as id, pg_sleep((select seconds from pause))::text as slept",
    ]);
    Some(database)
}

const FROM_CSV: &str = "[source.rows.file]\npath = \"rows.csv\"\n[sink.out]\nfrom = \"rows\"\n";

#[test]
fn triggers_start_what_the_clock_does_not() {
    let landing = "[params]\npath = { type = \"text\", default = \"landing/none.csv\" }\n[trigger.come.file]\npath = \"landing/*.csv\"\ndebounce = \"1s\"\nparam = \"path\"\n\
         [source.rows.file]\npath = { param = \"path\" }\n[sink.out]\nfrom = \"rows\"\nlake.table = \"t.landed\"\n";
    let behind = format!("[trigger.landed.pipeline]\nname = \"landed\"\n{FROM_CSV}lake.table = \"t.behind\"\n");
    let asked = format!("[params]\nn = 0\n{FROM_CSV}lake.table = \"t.asked\"\n")
        .replace("[sink.out]\nfrom = \"rows\"", "[transform.given]\nsql = \"select id, $n as n from rows\"\n[sink.out]\nfrom = \"given\"");
    let served = Served::new("", &[("landed", landing.to_owned()), ("behind", behind), ("asked", asked)]);

    served.project.write("landing/a.csv", "id\n10\n");
    served.project.write("landing/b.csv", "id\n20\n21\n");
    served.wait_for("each file is a run", |served| served.count("landed", "published") == 2);
    assert_eq!(served.project.sql("select id from lake.t.landed"), ["id", "10", "20", "21"]);
    let named: Vec<&str> = ["a.csv", "b.csv"].to_vec();
    for task in served.tasks_of("landed") {
        let path = task["params"]["path"].as_str().unwrap();
        assert!(named.iter().any(|name| path.ends_with(name)), "{path}");
    }
    served.wait_for("each publish is a run behind it", |served| served.count("behind", "published") == 2);

    // A file that is changed has come anew; one that stays has not.
    served.project.write("landing/a.csv", "id\n11\n12\n13\n");
    served.wait_for("the changed file is a run", |served| served.count("landed", "published") == 3);

    let token = served.project.ok(&["serve", "token", "new", "tests"]).stdout.trim().to_owned();
    let ask = |key: &str, n: i64| {
        served.ask(
            "POST /api/pipelines/asked/runs",
            &token,
            &format!("Idempotency-Key: {key}\r\n"),
            &json!({ "params": { "n": n.to_string() } }),
        )
    };
    let (status, first) = ask("one", 7);
    assert_eq!((status, &first["new"]), (202, &json!(true)), "{first}");
    let (_, again) = ask("one", 7);
    assert_eq!((&again["task"], &again["new"]), (&first["task"], &json!(false)));
    ask("two", 8);
    served.wait_for("what was asked for is run", |served| served.count("asked", "published") == 2);
    assert_eq!(served.project.sql("select n, count(*) as rows from lake.t.asked group by n"), ["n,rows", "7,2", "8,2"]);

    let (status, answer) = served.ask("POST /api/pipelines/askd/runs", &token, "", &json!({}));
    assert_eq!((status, answer["error"]["message"].as_str()), (404, Some("there is no pipeline \"askd\"")));
    let (status, answer) = served.ask("POST /api/pipelines/asked/runs", "weir_wrong", "", &json!({}));
    assert_eq!(status, 401, "{answer}");
    assert_eq!(served.count("landed", "published"), 3, "nothing has come meanwhile");
}

#[test]
fn a_run_that_goes_on_holds_up_skips_and_is_stopped_as_its_schedule_says() {
    let Some(database) = slow_database(600) else { return };
    let skips = slow("[schedule]\nevery = \"1s\"\ncatch_up = \"none\"\ntimeout = \"4s\"\ndeadline = \"2s\"\n");
    let after = format!("[schedule]\nevery = \"5s\"\nafter = [\"skips\"]\n{FROM_CSV}lake.table = \"t.after\"\n");
    let cancels = slow("[schedule]\nevery = \"3s\"\noverlap = \"cancel\"\n").replace("t.slow", "t.cancels");
    let served = Served::new(&database.connection("w"), &[("skips", skips), ("after", after), ("cancels", cancels)]);

    served.wait_for("a tick is skipped", |served| served.count("skips", "skipped") > 0);
    let skipped = served.tasks_of("skips").into_iter().find(|task| task["status"] == "skipped").unwrap();
    assert_eq!(skipped["reason"], "the run before has not ended");
    served.wait_for("the run is too long", |served| served.count("skips", "failed") > 0);
    let failed = served.tasks_of("skips").into_iter().find(|task| task["status"] == "failed").unwrap();
    assert_eq!(failed["reason"], "it ran longer than its timeout of 4 s");
    assert!(served.said("late: not published within its deadline"), "{}", served.log());
    served.wait_for("the tick behind cancels the run before", |served| served.count("cancels", "cancelled") > 0);
    served.wait_for("one waits for the other", |served| {
        served.tasks_of("after").iter().any(|task| task["reason"] == "waits until \"skips\" has published for the interval")
    });
    assert_eq!(served.count("after", "published"), 0);

    database.execute(&["update pause set seconds = 0"]);
    served.wait_for("what was waited for has published", |served| served.count("after", "published") > 0);
    let order = "select min(a.started_at) > min(s.finished_at) as later from weir.runs a, weir.runs s
                 where a.pipeline = 'after' and a.status = 'published' and s.pipeline = 'skips' and s.status = 'published'";
    assert_eq!(served.project.value(order), "true");
}

#[test]
fn a_person_stops_and_starts_what_a_server_does() {
    let Some(database) = slow_database(600) else { return };
    let pauses = format!("[schedule]\nevery = \"1s\"\n{FROM_CSV}lake.table = \"t.pauses\"\n");
    let asked = slow("[schedule]\nevery = \"1s\"\nend = 2020-01-01T00:00:00Z\nstart = 2019-12-31T23:59:59Z\n");
    let mut served = Served::new(&database.connection("w"), &[("pauses", pauses), ("asked", asked)]);

    // One interval that lies behind is caught up, and takes for ever.
    served.wait_for("it runs", |served| served.count("asked", "running") == 1);
    let task = served.tasks_of("asked")[0].clone();
    let id = task["run"].as_str().unwrap();
    let said = served.project.ok(&["runs", "cancel", id]).stdout;
    assert!(said.ends_with("its server is asked to stop it\n"), "{said}");
    served.wait_for("it is stopped", |served| served.count("asked", "cancelled") == 1);
    assert_eq!(served.tasks_of("asked")[0]["reason"], "cancelled by hand");
    let said = served.project.ok(&["runs", "cancel", id]).stdout;
    assert!(said.ends_with("it is cancelled already: there is nothing to stop\n"), "{said}");
    database.execute(&["update pause set seconds = 0"]);
    let said = served.project.ok(&["runs", "retry", id]).stdout;
    assert!(said.ends_with("it waits for a server to run it once more\n"), "{said}");
    served.wait_for("it has published", |served| served.count("asked", "published") == 1);
    assert_eq!(served.project.value("select count(*) from lake.t.slow"), "1");

    served.wait_for("ticks are run", |served| served.count("pauses", "published") > 1);
    assert_eq!(served.project.ok(&["schedule", "pause", "pauses", "--reason", "for a test"]).stdout, "pauses pauses\n");
    let listed = served.project.ok(&["schedule", "list", "--json"]).json();
    assert_eq!(listed["schedules"][1]["pause"]["reason"], "for a test");
    std::thread::sleep(Duration::from_secs(4));
    let before = served.tasks_of("pauses").len();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(served.tasks_of("pauses").len(), before, "nothing is cut while it pauses");
    let said = served.project.ok(&["schedule", "resume", "pauses"]).stdout;
    assert!(said.starts_with("pauses goes on; it paused since "), "{said}");
    served.wait_for("it goes on", |served| served.tasks_of("pauses").len() > before + 1);
    // No interval is left out and none is there twice.
    let tasks = served.tasks_of("pauses");
    for pair in tasks.windows(2) {
        assert_eq!(pair[0]["interval"][1], pair[1]["interval"][0], "{}", served.tasks());
    }

    // A file that becomes wrong is said to be, and its last right version goes on.
    let path = "pauses.pipeline.toml";
    let right = std::fs::read_to_string(served.project.path(path)).unwrap();
    served.project.write(path, format!("{right}wrong = 1\n"));
    served.wait_for("it says so", |served| served.said("the file is wrong; its last right version goes on"));
    let before = served.count("pauses", "published");
    served.wait_for("it goes on", |served| served.count("pauses", "published") > before);
    served.project.write(path, right.replace("1s", "2s"));
    served.wait_for("it is right again", |served| served.said("the file is right again"));

    let refused = served.project.weir(&["serve"]);
    assert_eq!(refused.code, 1);
    refused.says(&["error[already-serving]: another weir serve is running for this project", "[state] url in weir.toml"]);
    assert_eq!(served.end(), 0);
    assert!(served.said("ending: what runs is let end; a second signal stops it"), "{}", served.log());
}

#[test]
fn a_server_that_drains_lets_runs_end_and_one_that_stops_leaves_them_to_the_next() {
    let Some(database) = slow_database(4) else { return };
    let once = slow("[schedule]\nevery = \"1s\"\nend = 2020-01-01T00:00:00Z\nstart = 2019-12-31T23:59:59Z\n");
    let mut served = Served::new(&database.connection("w"), &[("once", once.clone())]);
    served.wait_for("it runs", |served| served.count("once", "running") == 1);
    assert_eq!(served.end(), 0);
    assert_eq!(served.count("once", "published"), 1);

    database.execute(&["update pause set seconds = 600"]);
    served.project.write("again.pipeline.toml", format!("weir = 1\nname = \"again\"\n{once}").replace("t.slow", "t.again"));
    served.start();
    served.wait_for("it runs", |served| served.count("again", "running") == 1);
    let running = served.running.take().unwrap();
    running.signal("TERM");
    std::thread::sleep(Duration::from_secs(2));
    running.signal("TERM");
    assert_eq!(running.wait(PATIENCE).code, 0);
    let task = &served.tasks_of("again")[0];
    assert_eq!((&task["status"], &task["attempts"]), (&json!("waiting"), &json!(0)), "{task}");

    database.execute(&["update pause set seconds = 0"]);
    served.start();
    served.wait_for("the next server runs it", |served| served.count("again", "published") == 1);
    assert_eq!(served.project.value("select count(*) from lake.t.again"), "1");
    assert_eq!(served.end(), 0);
}

#[test]
fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let nowhere = "[connection.nowhere.postgres]\nurl = \"postgres://weir@127.0.0.1:1/weir\"\n";
    let schedule = "[schedule]\nevery = \"1s\"\nend = 2020-01-01T00:00:00Z\nstart = 2019-12-31T23:59:59Z\n[schedule.retry]\nattempts = 2\nbackoff = \"1s\"\n";
    let passing = format!(
        "{schedule}[source.rows.postgres]\nconnection = \"nowhere\"\ntable = \"public.t\"\n[sink.out]\nfrom = \"rows\"\nlake.table = \"t.passing\"\n"
    );
    let wrong = format!(
        "{schedule}[[expect]]\non = \"rows\"\nname = \"there are three\"\nrow_count = {{ min = 3 }}\n{FROM_CSV}lake.table = \"t.wrong\"\n"
    );
    let served = Served::new(nowhere, &[("passing", passing), ("wrong", wrong)]);
    served.wait_for("what is wrong fails at once", |served| served.count("wrong", "failed") == 1);
    assert_eq!(served.tasks_of("wrong")[0]["attempts"], 1);
    served.wait_for("what may pass fails in the end", |served| served.count("passing", "failed") == 1);
    let task = &served.tasks_of("passing")[0];
    assert_eq!(task["attempts"], 2, "{task}");
    assert!(task["reason"].as_str().unwrap().contains("cannot connect to \"nowhere\""), "{task}");
    assert!(served.said("run failed, it is tried again"), "{}", served.log());
}
