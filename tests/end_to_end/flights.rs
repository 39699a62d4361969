//! The shipped pipeline, run as a newcomer runs it, compared with a count made by other means (`cases/flights/oracle.py`).

use crate::project::{Project, balanced, copy, repository, sorted_rows};

fn shipped() -> Project {
    let project = Project::new();
    let root = repository();
    copy(&root.join("pipelines/flights"), &project.path("pipelines/flights"));
    copy(&root.join("schemas"), &project.path("schemas"));
    if root.join("weir.toml").exists() {
        std::fs::copy(root.join("weir.toml"), project.path("weir.toml")).unwrap();
    }
    project
}

#[test]
fn the_flights_pipeline_reads_every_flight_and_agrees_with_another_count() {
    let project = shipped();
    let outcome = project.ok(&["run", "--json", "flights"]);
    let summary = outcome.json();
    balanced(&summary);
    let steps = summary["books"]["steps"].as_array().unwrap();
    let flights = steps.iter().find(|step| step["step"] == "flights").expect("a step \"flights\"");
    assert_eq!(flights["rows_in"], 336_776, "{outcome}");
    assert!(flights["rows_quarantined"].as_u64().unwrap() > 0, "the contract finds nothing in the real data: {outcome}");

    let oracle = |name: &str| std::fs::read_to_string(repository().join("tests/cases/flights").join(name)).unwrap();
    let found = project.sql("select carrier, count(*) as flights from lake.flights.delays group by 1");
    assert_eq!(found[1..], sorted_rows(&oracle("expected_by_carrier.csv"))[1..]);

    // "STEP read", "STEP filtered", … are the books'; "SCHEMA.TABLE rows" and "SCHEMA.TABLE sum(COLUMN)" are the lake's.
    for line in oracle("expected_counts.csv").lines().skip(1) {
        let (what, value) = line.rsplit_once(',').expect("what,value");
        let (of, count) = what.split_once(' ').expect("two words");
        let found = match (of.contains('.'), count) {
            (true, "rows") => project.value(&format!("select count(*) from lake.{of}")),
            (true, aggregate) => project.value(&format!("select {aggregate} from lake.{of}")),
            (false, count) => {
                let step = steps.iter().find(|step| step["step"] == of).unwrap_or_else(|| panic!("no step \"{of}\" in {outcome}"));
                step[if count == "read" { "rows_in".to_owned() } else { format!("rows_{count}") }].to_string()
            }
        };
        assert_eq!(found, value, "{what}");
    }
    let set_aside = project.value("select count(*) from quarantine.flights.flights");
    assert_eq!(set_aside, flights["rows_quarantined"].to_string());
}

#[test]
fn the_flights_pipeline_checks_without_reading_its_data() {
    let project = shipped();
    project.ok(&["check", "flights"]);
    assert!(!project.path(".weir/lake").exists(), "a check made a lake");
}

#[test]
fn the_flights_tests_pass_without_its_data() {
    let project = shipped();
    std::fs::remove_dir_all(project.path("pipelines/flights/data")).unwrap();
    let outcome = project.ok(&["test", "--json"]);
    let found = outcome.json();
    assert!(found["passed"].as_u64().unwrap() >= 4 && found["failed"] == 0 && found["wrong"] == 0, "{outcome}");
    assert!(!project.path(".weir").exists(), "a test left state behind");
}
