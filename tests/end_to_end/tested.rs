//! `weir test --junit` and `weir test --watch`: a file that CI servers read, and a process that answers whenever a file changes.

use std::{
    fs::{self, File},
    io::Read,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    project::{Project, Running},
    referee,
};

const PIPELINE: &str = r#"weir = 1
name = "items"
[source.items]
contract = "item.schema.json"
[source.items.file]
path = "items.csv"
[transform.doubled]
sql = "select id, 2 * n as n from items"
[sink.lake]
from = "doubled"
[sink.lake.lake]
table = "items"

[[test]]
name = "doubles"
given.items = [{ id = 1, n = 2 }]
expect.lake = [{ id = 1, n = 4 }]

[[test]]
name = "a file's rows"
given.items = { file = "given/*.csv" }
expect.items = { count = 1 }
"#;

const CONTRACT: &str = r#"{ "type": "object", "properties": { "id": { "type": "integer", "minimum": 1 }, "n": { "type": "integer" } } }"#;

fn project() -> Project {
    let project = Project::new();
    project.write("pipelines/items/pipeline.toml", PIPELINE);
    project.write("pipelines/items/item.schema.json", CONTRACT);
    project.write("pipelines/items/given/a.csv", "id,n\n1,1\n");
    project
}

/// What a document of JUnit says, read by a parser of XML that is not ours.
fn parsed(path: &std::path::Path) -> Option<Value> {
    const READ: &str = "import json, sys, xml.etree.ElementTree as e\n\
        def v(x): return {'tag': x.tag, **{k: t for k, t in x.attrib.items() if k != 'time'}, 'timed': float(x.get('time', 'nan')) >= 0, 'text': (x.text or '').strip(), 'in': [v(y) for y in x]}\n\
        print(json.dumps(v(e.parse(sys.argv[1]).getroot())))";
    let output = Command::new(referee::python()?).args(["-c", READ]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn junit_has_every_test_and_every_wrong_file() {
    let project = project();
    let odd = "\n[[test]]\nname = \"odd <&\\\"\\u001b'\"\ngiven.items = [{ id = 1, n = 2 }]\nexpect.lake = [{ id = 1, n = 5 }]\n\
               [[test]]\nname = \"wrong\"\ngiven.items = [{ id = \"x\" }]\nexpect.lake = []\n";
    project.write("pipelines/items/pipeline.toml", format!("{PIPELINE}{odd}"));
    project.write("pipelines/torn/pipeline.toml", "weir = 1\nname = \"torn\"\n[source.a.file]\npth = \"x\"\n");
    let outcome = project.weir(&["test", "--junit", "out/tests.xml"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    let Some(found) = parsed(&project.path("out/tests.xml")) else { return };
    let head = |value: &Value| ["tests", "failures", "errors", "skipped"].map(|key| value[key].as_str().unwrap().to_owned());
    assert_eq!((head(&found), &found["timed"]), (["5", "1", "2", "0"].map(str::to_owned), &json!(true)));
    let [torn, items] = found["in"].as_array().unwrap().as_slice() else { panic!("{found}") };
    assert_eq!((&torn["name"], head(torn)[2].as_str()), (&json!("pipelines/torn/pipeline.toml"), "1"));
    let case = &torn["in"][0];
    assert_eq!((&case["name"], &case["file"], &case["line"]), (&json!("the file is right"), &torn["name"], &json!("2")));
    assert_eq!((&case["in"][0]["tag"], &case["in"][0]["type"]), (&json!("error"), &json!("no-sink")));
    assert!(case["in"][0]["text"].as_str().unwrap().contains("\"pth\""), "{case}");
    assert_eq!((&items["name"], head(items)), (&json!("items"), ["4", "1", "1", "0"].map(str::to_owned)));
    let [doubles, _, odd, wrong] = items["in"].as_array().unwrap().as_slice() else { panic!("{items}") };
    assert_eq!((&doubles["name"], &doubles["classname"], &doubles["line"]), (&json!("doubles"), &json!("items"), &json!("14")));
    assert_eq!((&doubles["file"], &doubles["timed"], &doubles["in"]), (&json!("pipelines/items/pipeline.toml"), &json!(true), &json!([])));
    assert_eq!(odd["name"], json!("odd <&\"\\u{1b}'"));
    assert_eq!((&odd["in"][0]["tag"], &odd["in"][0]["type"]), (&json!("failure"), &json!("test-failed")));
    assert!(odd["in"][0]["text"].as_str().unwrap().contains("n is 4, expected 5"), "{odd}");
    assert_eq!((&wrong["in"][0]["tag"], &wrong["in"][0]["type"]), (&json!("error"), &json!("wrong-type")));
}

#[test]
fn junit_that_cannot_be_written_says_so() {
    let project = project();
    project.write("taken", "");
    let outcome = project.weir(&["test", "--junit", "taken/tests.xml"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.says(&["error[output-failed]: cannot write \"taken/tests.xml\""]);
}

/// A watching process, and what it has said.
struct Watching {
    running: Running,
    stdout: File,
    stderr: File,
    answers: String,
    says: String,
}

impl Watching {
    fn start(project: &Project, arguments: &[&str]) -> Self {
        let file = |name: &str| {
            let made = File::options().create(true).read(true).write(true).truncate(true).open(project.path(name)).unwrap();
            (made, File::open(project.path(name)).unwrap())
        };
        let ((out, stdout), (err, stderr)) = (file("stdout"), file("stderr"));
        let running = Running::with_output(project.command(&[&["test", "--watch"], arguments].concat()), out, err);
        Self { running, stdout, stderr, answers: String::new(), says: String::new() }
    }

    /// Waits until it watches again, and returns what it answered and said since.
    fn round(&mut self) -> (String, String) {
        let started = Instant::now();
        while !self.says.contains("; Ctrl-C ends\n") {
            assert!(self.running.alive() && started.elapsed() < Duration::from_secs(60), "{}\n{}", self.answers, self.says);
            std::thread::sleep(Duration::from_millis(10));
            self.stderr.read_to_string(&mut self.says).unwrap();
        }
        self.stdout.read_to_string(&mut self.answers).unwrap();
        (std::mem::take(&mut self.answers), std::mem::take(&mut self.says))
    }
}

#[test]
fn watching_runs_what_a_changed_file_may_change() {
    let project = project();
    project.write("pipelines/other/pipeline.toml", PIPELINE.replace("\"items\"\n[source", "\"other\"\n[source"));
    project.write("pipelines/other/item.schema.json", CONTRACT);
    project.write("pipelines/other/given/a.csv", "id,n\n1,1\n");
    let mut watching = Watching::start(&project, &[]);
    let (answers, says) = watching.round();
    assert_eq!(
        answers, "items: doubles: ok\nitems: a file's rows: ok\nother: doubles: ok\nother: a file's rows: ok\n4 tests: 4 passed\n",
        "{says}"
    );
    assert_eq!(says, "watching 7 files; Ctrl-C ends\n");

    // The SQL of one pipeline.
    project.write("pipelines/items/pipeline.toml", PIPELINE.replace("2 * n", "3 * n"));
    let (answers, says) = watching.round();
    assert_eq!(answers, "items: doubles: FAILED\nitems: a file's rows: ok\n2 tests: 1 passed, 1 failed\n", "{says}");
    assert!(says.starts_with("\npipelines/items/pipeline.toml changed\n") && says.contains("n is 6, expected 4"), "{says}");

    // It is broken, and the other one's contract changes: both are still watched.
    project.write("pipelines/items/pipeline.toml", "weir = 1\nname = \"items\n");
    let (answers, says) = watching.round();
    assert!(answers.is_empty() && says.contains("error[toml-syntax]"), "{answers}{says}");
    project.write("pipelines/other/item.schema.json", CONTRACT.replace("\"minimum\": 1", "\"minimum\": 2"));
    let (answers, says) = watching.round();
    assert_eq!(answers, "other: doubles: FAILED\nother: a file's rows: FAILED\n2 tests: 2 failed\n", "{says}");
    project.write("pipelines/other/item.schema.json", CONTRACT);
    assert!(watching.round().0.ends_with("2 tests: 2 passed\n"));

    // A contract that the broken file named before.
    project.write("pipelines/items/item.schema.json", CONTRACT.replace("integer", "number"));
    assert!(watching.round().1.contains("error[toml-syntax]"));

    // It is gone, comes back, and is right again.
    fs::remove_file(project.path("pipelines/items/pipeline.toml")).unwrap();
    let (answers, says) = watching.round();
    assert!(answers.is_empty() && says.contains("no test depends on it"), "{answers}{says}");
    project.write("pipelines/items/item.schema.json", CONTRACT);
    project.write("pipelines/items/pipeline.toml", PIPELINE);
    assert_eq!(watching.round().0, "items: doubles: ok\nitems: a file's rows: ok\n2 tests: 2 passed\n");

    // A file that the pattern of a test finds now.
    project.write("pipelines/items/given/b.csv", "id,n\n2,2\n");
    let (answers, says) = watching.round();
    assert!(answers.contains("items: a file's rows: FAILED") && says.contains("gives 2 rows, expected 1"), "{answers}{says}");

    // weir.toml is about all of them.
    project.write("weir.toml", "[memory]\nlimit = \"1GB\"\n");
    let (answers, says) = watching.round();
    assert!(answers.ends_with("4 tests: 3 passed, 1 failed\n") && says.starts_with("\nweir.toml changed\n"), "{answers}{says}");
    project.write("weir.toml", "[memory]\nlimti = \"1GB\"\n");
    let (answers, says) = watching.round();
    assert!(answers.ends_with("4 tests: 3 passed, 1 failed\n") && says.contains("error[unknown-key]"), "{answers}{says}");

    watching.running.signal("INT");
    let outcome = watching.running.wait(Duration::from_secs(20));
    assert_eq!(outcome.code, 130, "{outcome}");
}

#[test]
fn watching_what_is_not_there_ends_and_a_signal_ends_it_while_tests_run() {
    let project = project();
    let outcome = project.weir(&["test", "--watch", "itms"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    outcome.says(&["error[unknown-pipeline]", "did you mean \"items\""]);
    let endless = "given.items = { sql = \"select a.value as id, a.value * b.value % 7 as n from generate_series(1, 100000) a cross join generate_series(1, 100000) b where a.value * b.value < 0\" }";
    project.write("pipelines/items/pipeline.toml", PIPELINE.replace("given.items = [{ id = 1, n = 2 }]", endless));
    let running = project.start(&["test", "--watch"]);
    std::thread::sleep(Duration::from_millis(700));
    running.signal("TERM");
    let outcome = running.wait(Duration::from_secs(20));
    assert_eq!(outcome.code, 130, "{outcome}");
}
