//! Inputs larger than they should be: a line of 100 MB, and joins, sorts and aggregates larger than the memory limit.

use std::fmt::Write;

use crate::project::{Project, long};

#[test]
fn a_line_of_a_hundred_megabytes_loses_none_of_its_neighbours() {
    for format in ["csv", "ndjson"] {
        let project = Project::with(&format!(
            "weir = 1\nname = \"wide\"\n[source.rows.file]\npath = \"rows.{format}\"\nformat = \"{format}\"\n\
             [sink.lake]\nfrom = \"rows\"\n[sink.lake.lake]\ntable = \"out.rows\"\n"
        ));
        let long = "x".repeat(100_000_000);
        let text = match format {
            "csv" => format!("id,text\n1,short\n2,{long}\n3,short\n"),
            _ => format!("{{\"id\":1,\"text\":\"short\"}}\n{{\"id\":2,\"text\":\"{long}\"}}\n{{\"id\":3,\"text\":\"short\"}}\n"),
        };
        project.write(&format!("rows.{format}"), text);
        let outcome = project.weir(&["run", "--json", "pipeline.toml"]);
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome.one_screen();
        let summary = outcome.json();
        crate::project::balanced(&summary);
        assert_eq!(summary["rows_read"], 3, "{format}: {outcome}");
        assert_eq!(project.value("select count(*) from lake.out.rows where text = 'short'"), "2", "{format}");
        let loaded = project.value("select count(*) from lake.out.rows where id = 2 and length(text) = 100000000");
        if loaded == "0" {
            assert_eq!(summary["rows_quarantined"], 1, "{format}: the long line was neither loaded nor set aside");
        }
    }
}

/// A project with a small memory and rows several times as large.
fn small_memory(rows: usize, steps: &str) -> Project {
    let project = Project::with(&format!(
        "weir = 1\nname = \"large\"\n[source.rows.file]\npath = \"rows.csv\"\nformat = \"csv\"\n{steps}\n\
         [sink.lake]\nfrom = \"result\"\nmode = \"replace\"\n[sink.lake.lake]\ntable = \"out.result\"\n"
    ));
    project.write("weir.toml", "[memory]\nlimit = \"96MB\"\n");
    let mut text = String::with_capacity(rows * 80);
    text.push_str("id,key,text\n");
    for id in 0..rows {
        // A permutation: the keys are unique and in no order.
        let key = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
        writeln!(text, "{id},{key},{:064x}", u128::from(key).wrapping_mul(0xDEAD_BEEF_CAFE_F00D_1234_5678)).unwrap();
    }
    project.write("rows.csv", text);
    project
}

fn rows() -> usize {
    if long() { 10_000_000 } else { 2_000_000 }
}

#[test]
fn a_sort_larger_than_memory_finishes() {
    let rows = rows();
    let project =
        small_memory(rows, "[transform.result]\nsql = \"select id, key, text, row_number() over (order by key) as place from rows\"\n");
    let summary = project.run(&["pipeline.toml"]);
    assert_eq!(summary["rows_loaded"], rows);
    let wrong = "select count(*) from (select key, lag(key) over (order by place) as before from lake.out.result) where before > key";
    assert_eq!(project.value(wrong), "0");
    assert_eq!(project.value("select max(place) from lake.out.result"), rows.to_string());
}

#[test]
fn a_join_larger_than_memory_finishes() {
    let rows = rows();
    let steps = "[source.others.file]\npath = \"rows.csv\"\nformat = \"csv\"\n\
                 [transform.result]\nsql = \"select a.id, a.text, b.text as other from rows a join others b on a.key = b.key\"\n";
    let project = small_memory(rows, steps);
    let summary = project.run(&["pipeline.toml"]);
    assert_eq!(summary["rows_read"], 2 * rows);
    assert_eq!(summary["rows_loaded"], rows);
    assert_eq!(project.value("select count(*) from lake.out.result where text = other"), rows.to_string());
}

#[test]
fn an_aggregate_larger_than_memory_finishes() {
    let rows = rows();
    let project = small_memory(rows, "[transform.result]\nsql = \"select text, count(*) as n, max(id) as id from rows group by text\"\n");
    let summary = project.run(&["pipeline.toml"]);
    assert_eq!(summary["rows_loaded"], rows);
    assert_eq!(project.value("select sum(n) from lake.out.result"), rows.to_string());
}

#[test]
fn expectations_over_more_than_memory_are_checked() {
    let rows = rows();
    let steps = "[source.others.file]\npath = \"rows.csv\"\nformat = \"csv\"\n[transform.result]\nsql = \"select * from rows\"\n\
                 [[expect]]\non = \"result\"\nname = \"unique\"\nunique = [\"text\"]\n\
                 [[expect]]\non = \"result\"\nname = \"known\"\nforeign_key = { columns = [\"text\"], references = \"others\" }\n\
                 [[expect]]\non = \"result\"\nname = \"none\"\naccepted_values = { column = \"id\", values = [-1] }\nseverity = \"warn\"\n";
    let project = small_memory(rows, steps);
    let summary = project.run(&["pipeline.toml"]);
    assert_eq!(summary["rows_loaded"], rows);
    let outcomes: Vec<_> = (0..3).map(|at| summary["expectations"][at]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["passed", "passed", "warned"], "{summary}");
    assert_eq!(summary["expectations"][2]["rows"], rows);
    // What is kept has a bound, however many rows fail.
    assert_eq!(summary["expectations"][2]["rows_kept"], 10_000);
    assert_eq!(project.value("select count(*) from weir.failing_rows"), "10000");
}
