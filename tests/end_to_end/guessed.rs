//! Types that the first records of a file suggest: the answer is the one that all records give, whatever the first had to say.

use crate::{
    project::Project,
    servers::{Kind, fresh_database},
};

/// Records that are more than what a guess is made of.
const RECORDS: usize = 1_000_000;

/// A file of numbers, and records behind them, to the lake.
fn project(transform: &str, last: &str) -> Project {
    project_to("lake]\ntable = \"out.rows\"", transform, last)
}

fn project_to(sink: &str, transform: &str, last: &str) -> Project {
    let project = Project::with(&format!(
        "weir = 1\nname = \"guessed\"\n[source.lines.file]\npath = \"lines.csv\"\n[transform.rows]\nsql = \"{transform}\"\n\
         [sink.out]\nfrom = \"rows\"\nmode = \"replace\"\n[sink.out.{sink}\n"
    ));
    let records: String = (0..RECORDS).map(|id| format!("{id},{},\n", id % 1000)).collect();
    project.write("lines.csv", format!("id,code,late\n{records}{last}"));
    project
}

/// What a second try says of why there is one.
fn note(column: &str, kind: &str) -> String {
    format!(
        "step \"lines\": \"lines.csv\": column \"{column}\" was taken for {kind} by the first records, and is not in another; nothing was published, a second try \
         learns all types from all records first"
    )
}

#[test]
fn a_last_record_of_another_type_makes_the_column_what_all_records_make_it() {
    for (last, query, answer, expected) in [
        ("x,1,", "count(*) filter (where id = 'x')", "1", note("id", "int64")),
        ("1,007,", "count(*) filter (where code = '007')", "1", note("code", "int64")),
        ("1,1.5,", "sum(code) - 499500000", "1.5", note("code", "int64")),
        ("1,1,2024-02-29", "max(late) + interval '1 day'", "2024-03-01", note("late", "empty")),
    ] {
        let project = project("select * from lines", last);
        let summary = project.run(&["pipeline.toml"]);
        assert_eq!(summary["rows_loaded"], RECORDS + 1, "{last}");
        assert_eq!(summary["notes"], serde_json::json!([expected]), "{last}");
        assert_eq!(project.value(&format!("select {query} from lake.out.rows")), answer, "{last}");
    }
}

#[test]
fn what_is_wrong_by_a_guess_alone_is_not_wrong() {
    let project = project("select * from lines where code <> 'abc'", "1,abc,");
    let summary = project.run(&["pipeline.toml"]);
    assert_eq!((&summary["rows_read"], &summary["rows_loaded"]), (&(RECORDS + 1).into(), &RECORDS.into()));
}

#[test]
fn what_fails_whatever_the_types_fails_as_ever() {
    let project = project("select 1 / (id - 900000) as part from lines", "7,7,");
    let outcome = project.weir(&["run", "pipeline.toml"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    outcome.says(&["Divide by zero"]);
    assert!(!outcome.stderr.contains("second try"), "{outcome}");
}

#[test]
fn a_database_is_loaded_by_the_types_that_all_records_tell() {
    for kind in [Kind::Postgres, Kind::Clickhouse] {
        let Some(database) = fresh_database(kind) else { return };
        let sink = format!("{}]\nconnection = \"db\"\ntable = \"rows\"", kind.name());
        let project = project_to(&sink, "select id, code from lines", "1,007,");
        project.write("weir.toml", database.connection("db"));
        let summary = project.run(&["pipeline.toml"]);
        assert_eq!(summary["rows_loaded"], RECORDS + 1, "{}", kind.name());
        assert_eq!(summary["notes"], serde_json::json!([note("code", "int64")]), "{}", kind.name());
        assert_eq!(database.value("select count(*) as n from rows"), (RECORDS + 1).to_string());
        assert_eq!(database.value("select count(*) as n from rows where code = '007'"), "1", "{}", kind.name());
    }
}
