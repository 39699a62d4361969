//! The 22 queries of TPC-H over the lake, held against the answers that DuckDB gives over the same files.

use std::{
    fmt::{Display, Write as _},
    process::Command,
};

use tpchgen::{
    csv::{CustomerCsv, LineItemCsv, NationCsv, OrderCsv, PartCsv, PartSuppCsv, RegionCsv, SupplierCsv},
    generators::{
        CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator, RegionGenerator,
        SupplierGenerator,
    },
    q_and_a::queries,
};

use crate::{
    project::{Project, WEIR, repository},
    referee,
};

/// 60,000 rows of lineitem, 10 MB of CSV in all.
const SCALE: f64 = 0.01;
const TABLES: [&str; 8] = ["region", "nation", "part", "supplier", "partsupp", "customer", "orders", "lineitem"];

fn table<T: Display>(project: &Project, name: &str, header: &str, rows: impl Iterator<Item = T>) {
    let mut text = format!("{header}\n");
    for row in rows {
        writeln!(text, "{row}").unwrap();
    }
    project.write(&format!("tpch/{name}.csv"), text);
}

fn generate(project: &Project) {
    table(project, "region", RegionCsv::header(), RegionGenerator::new(SCALE, 1, 1).iter().map(RegionCsv::new));
    table(project, "nation", NationCsv::header(), NationGenerator::new(SCALE, 1, 1).iter().map(NationCsv::new));
    table(project, "part", PartCsv::header(), PartGenerator::new(SCALE, 1, 1).iter().map(PartCsv::new));
    table(project, "supplier", SupplierCsv::header(), SupplierGenerator::new(SCALE, 1, 1).iter().map(SupplierCsv::new));
    table(project, "partsupp", PartSuppCsv::header(), PartSuppGenerator::new(SCALE, 1, 1).iter().map(PartSuppCsv::new));
    table(project, "customer", CustomerCsv::header(), CustomerGenerator::new(SCALE, 1, 1).iter().map(CustomerCsv::new));
    table(project, "orders", OrderCsv::header(), OrderGenerator::new(SCALE, 1, 1).iter().map(OrderCsv::new));
    table(project, "lineitem", LineItemCsv::header(), LineItemGenerator::new(SCALE, 1, 1).iter().map(LineItemCsv::new));
}

/// What stands for `:1`, `:2` and so on: the values by which the benchmark checks its answers. The share of query 11 goes by the scale, and the
/// quantity of query 18 is lower than there, for so few orders that some have it.
const VALUES: [&[&str]; 22] = [
    &["90"],
    &["15", "BRASS", "EUROPE"],
    &["BUILDING", "1995-03-15"],
    &["1993-07-01"],
    &["ASIA", "1994-01-01"],
    &["1994-01-01", "0.06", "24"],
    &["FRANCE", "GERMANY"],
    &["BRAZIL", "AMERICA", "ECONOMY ANODIZED STEEL"],
    &["green"],
    &["1993-10-01"],
    &["GERMANY", "0.01"],
    &["MAIL", "SHIP", "1994-01-01"],
    &["special", "requests"],
    &["1995-09-01"],
    &["1996-01-01"],
    &["Brand#45", "MEDIUM POLISHED", "49", "14", "23", "45", "19", "3", "36", "9"],
    &["Brand#23", "MED BOX"],
    &["220"],
    &["Brand#12", "Brand#23", "Brand#34", "1", "10", "20"],
    &["forest", "1994-01-01", "CANADA"],
    &["SAUDI ARABIA"],
    &["13", "31", "23", "29", "30", "18", "17"],
];

/// A query with its values, as one statement.
fn query(number: i32) -> String {
    let mut text = queries::query(number).unwrap().replace(" day (3)", " day");
    for (at, value) in VALUES[usize::try_from(number).unwrap() - 1].iter().enumerate().rev() {
        text = text.replace(&format!(":{}", at + 1), value);
    }
    // The one that makes a view for itself has it in front.
    let text = text.replace("create view revenue:s (supplier_no, total_revenue) as", "with revenue (supplier_no, total_revenue) as (");
    let text = text.replace("l_suppkey;\nselect", "l_suppkey)\nselect").replace("drop view revenue:s;", "").replace("revenue:s", "revenue");
    assert!(!text.contains(':'), "a value is missing: {text}");
    text.trim().trim_end_matches(';').to_owned()
}

#[test]
fn the_queries_of_tpch_over_the_lake_agree_with_duckdb() {
    let Some(python) = referee::python() else { return };
    let project = Project::new();
    generate(&project);
    let script = repository().join("tests/support/tpch.py");
    let run = |command: &str| {
        let done = Command::new(&python).arg(&script).arg(command).arg(project.root()).arg(WEIR).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command}: {said}");
        said
    };
    // The files that both read have the types that the benchmark gives its columns.
    run("parquet");
    let mut text = "weir = 1\nname = \"tpch\"\n".to_owned();
    for name in TABLES {
        write!(
            text,
            "[source.{name}.file]\npath = \"tpch/{name}.parquet\"\n[sink.to_{name}]\nfrom = \"{name}\"\n[sink.to_{name}.lake]\ntable = \"tpch.{name}\"\n"
        )
        .unwrap();
    }
    project.write("pipeline.toml", text);
    let summary = project.run(&["pipeline.toml"]);
    assert_eq!(summary["rows_loaded"], 86_805, "{summary}");
    for number in 1..=22 {
        project.write(&format!("queries_of_tpch/{number}.sql"), query(number));
    }
    let said = run("compare");
    assert!(said.contains("22 queries agree"), "{said}");
}
