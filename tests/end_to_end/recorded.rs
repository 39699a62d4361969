//! `weir test --record` over many rows about people: no real value is in the file afterwards, rows still belong together, and the file is whole.

use std::{collections::BTreeSet, fmt::Write, fs, time::Duration};

use serde_json::{Value, json};

use crate::project::Project;

const ROWS: usize = 20_000;

/// One person's values, by column; all of them are personal.
fn person(row: usize) -> Value {
    json!({
        "email": format!("Zoe.{row:05}@mail.test"),
        "name": format!("Zoë Q{row:05}"),
        "phone": format!("+49 731 {:06}", 900_000 - row),
        "ssn": 700_000_000 + row,
        "born": format!("19{:02}-{:02}-{:02}", 30 + row % 40, row % 12 + 1, row % 28 + 1),
        "seen": format!("2019-03-{:02}T{:02}:{:02}:07Z", row % 28 + 1, row % 24, row % 60),
        "home": { "street": format!("Hauptstr. {row:05}"), "zip": 8_000_000 + row },
        "aka": [format!("zq{row:05}"), format!("the {row:05}th")],
        "pay": format!("{}.25", 3_000 + row),
        "ip": format!("10.{}.{}.7", row / 256, row % 256),
        "key": format!("9e107d9d-372b-4b1b-8888-{row:012}"),
    })
}

fn project() -> Project {
    let project = Project::with(
        r#"# what stands here stays
weir = 1
name = "people"
[source.people]
contract = "people.schema.json"
[source.people.file]
path = "people.ndjson"
[source.calls]
contract = "calls.schema.json"
[source.calls.file]
path = "calls.csv"
[transform.called]
sql = """
select p.*, lower(p.email) || '/' || p.name as card, p.home['street'] as street, c.note, c.minutes
from calls c join people p on p.ssn = c.person where c.minutes > 5"""
[transform.most]
sql = "select person, count(*) as calls, sum(minutes) as minutes from calls group by person having count(*) > 1"
[sink.called_table]
from = "called"
[sink.called_table.lake]
table = "called"
[sink.most_table]
from = "most"
[sink.most_table.lake]
table = "most"
"#,
    );
    let personal = |mut schema: Value| {
        schema["x-weir-personal"] = json!(true);
        schema
    };
    let text = |format: &str| personal(json!({ "type": "string", "format": format }));
    project.write(
        "people.schema.json",
        json!({ "type": "object", "properties": {
            "email": text("email"),
            "name": personal(json!({ "type": "string", "minLength": 3, "maxLength": 12 })),
            "phone": personal(json!({ "type": "string", "pattern": "^\\+[0-9]{2} [0-9]{3} [0-9]{6}$" })),
            "ssn": personal(json!({ "type": "integer", "minimum": 100_000_000, "maximum": 999_999_999 })),
            "born": text("date"), "seen": text("date-time"), "ip": text("ipv4"), "key": text("uuid"),
            "home": { "type": "object", "properties": { "street": personal(json!({ "type": "string" })), "zip": { "type": "integer" } } },
            "aka": { "type": "array", "items": personal(json!({ "type": "string" })) },
            "pay": personal(json!({ "type": "number", "x-weir-type": "decimal(12,2)" })),
            "group": { "type": "integer" },
        }, "required": ["email", "ssn"] })
        .to_string(),
    );
    project.write(
        "calls.schema.json",
        r#"{ "type": "object", "properties": { "person": { "type": "integer", "x-weir-personal": true }, "minutes": { "type": "integer" } } }"#,
    );
    let (mut people, mut calls) = (String::new(), String::from("person,minutes,note\n"));
    for row in 0..ROWS {
        let mut one = person(row);
        one["group"] = json!(row % 7);
        writeln!(people, "{one}").unwrap();
        let (ssn, email, name) = (&one["ssn"], one["email"].as_str().unwrap(), one["name"].as_str().unwrap());
        for call in 0..=row % 3 {
            writeln!(calls, "{ssn},{},\"{name} ({email}) rang, no. {call}\"", row % 11).unwrap();
        }
    }
    project.write("people.ndjson", people);
    project.write("calls.csv", calls);
    project
}

/// The texts and numbers of a value.
fn leaves(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => _ = out.insert(text.to_lowercase()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, out)),
        Value::Object(members) => members.values().for_each(|value| leaves(value, out)),
        other => _ = out.insert(other.to_string()),
    }
}

#[test]
fn no_real_value_is_written_and_rows_still_belong_together() {
    let project = project();
    let before = fs::read_to_string(project.path("pipeline.toml")).unwrap();
    let mut passed = 0;
    for (step, rows) in [("called", 5), ("most_table", 3), ("people", 20)] {
        let recorded = project.ok(&["test", "--record", step, "--rows", &rows.to_string(), "--json"]).json();
        assert_eq!(recorded["rows"], json!(rows), "{recorded}");
        passed += 1;
        let tests = project.ok(&["test", "--json"]).json();
        assert_eq!(tests["passed"], json!(passed), "{tests}");
    }
    let after = fs::read_to_string(project.path("pipeline.toml")).unwrap();
    let added = after.strip_prefix(&before).expect("what was there stays").to_lowercase();
    assert_eq!(added.matches("[[test]]").count(), 3);
    let mut real = BTreeSet::new();
    (0..ROWS).for_each(|row| leaves(&person(row), &mut real));
    assert!(real.len() > ROWS * 8, "{}", real.len());
    // Every word of the text is held against all real values, and every text in quotes.
    let words = added.split(|c: char| " ,()[]{}\"/\n".contains(c)).map(|word| word.trim_end_matches('.'));
    let quoted = added.split('"').skip(1).step_by(2);
    for piece in words.chain(quoted) {
        assert!(!real.contains(piece) || piece.len() < 4, "\"{piece}\" is real\n{added}");
    }
    for part in ["zoe.", "zoë", "+49", "hauptstr", "mail.test", "9e107d9d"] {
        assert!(!added.contains(part), "\"{part}\" is left\n{added}");
    }
    assert!(added.contains("person1@example.com") && added.contains("rang, no. "), "{added}");
}

#[test]
fn ctrl_c_leaves_the_file_as_it_was() {
    let project = project();
    let before = fs::read_to_string(project.path("pipeline.toml")).unwrap();
    let running = project.start(&["test", "--record", "called", "--rows", "100"]);
    std::thread::sleep(Duration::from_millis(400));
    running.signal("INT");
    let outcome = running.wait(Duration::from_secs(20));
    // A machine that is fast enough is done by then.
    assert!([130, 0].contains(&outcome.code), "{outcome}");
    let after = fs::read_to_string(project.path("pipeline.toml")).unwrap();
    assert_eq!(after == before, outcome.code == 130, "{after}");
}
