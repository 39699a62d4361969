//! Every Arrow type through every destination and back: the rows are made by pyarrow, and what the lake, Postgres and ClickHouse hold of them is asked
//! of DuckDB, psql and clickhouse-connect. The rows, and what becomes of each column where, are in `tests/support/every_type.py`.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;
use weir_connectors::SINKS;

use crate::{
    project::{Project, repository},
    referee,
    servers::{Database, Kind, fresh_database},
};

/// The rows, and the servers they go to.
struct Types {
    project: Project,
    about: Value,
    python: std::path::PathBuf,
}

const PLACES: [&str; 3] = ["lake", "postgres", "clickhouse"];

impl Types {
    /// Makes the rows; none without the referees.
    fn new() -> Option<Self> {
        let (project, python) = (Project::new(), referee::python()?);
        let made = Command::new(&python).arg(script()).arg("make").arg(project.root()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let about = serde_json::from_str(&std::fs::read_to_string(project.path("about.json")).unwrap()).unwrap();
        Some(Self { project, about, python })
    }

    fn names(&self, key: &str, place: &str) -> Vec<&str> {
        self.about[key][place].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()).collect()
    }

    /// A pipeline that loads a file into all destinations. `parquet`: the file lacks some columns.
    fn pipeline(&self, file: &str, mode: &str, database: &str, allow_lossy: bool) -> String {
        let parquet = file.ends_with(".parquet");
        let missing: BTreeSet<&str> =
            self.about["not_in_parquet"].as_array().unwrap().iter().filter(|_| parquet).map(|name| name.as_str().unwrap()).collect();
        let mut text = format!("weir = 1\nname = \"types\"\n[source.rows.file]\npath = \"{file}\"\n");
        for place in PLACES {
            let without = self.names("without", place).join(", ");
            let select =
                if without.is_empty() { "select * from rows".to_owned() } else { format!("select * exclude ({without}) from rows") };
            text += &format!("[transform.for_{place}]\nsql = \"{select}\"\n");
        }
        // Two tables in Postgres: only one of them may be loaded in the open transaction that decides the run.
        for (sink, place, table) in [
            ("lake", "lake", "types.rows"),
            ("pg", "postgres", "public.rows"),
            ("pg_too", "postgres", "public.rows_too"),
            ("ch", "clickhouse", "rows"),
        ] {
            let lossy = [self.names("lossy", place), self.names("nulls", place)].concat();
            let lossy: Vec<&str> = lossy.into_iter().filter(|name| !missing.contains(name)).collect();
            text += &format!("[sink.{sink}]\nfrom = \"for_{place}\"\nmode = \"{mode}\"\n");
            if allow_lossy && !lossy.is_empty() {
                text += &format!("allow_lossy = {lossy:?}\n");
            }
            text += &format!("[sink.{sink}.{place}]\ntable = \"{table}\"\n");
            text += match place {
                "postgres" => "connection = \"pg\"\n",
                "clickhouse" => "connection = \"ch\"\norder_by = [\"id\"]\n",
                _ => "",
            };
        }
        text.replace("types.rows", &format!("{database}.rows"))
    }

    /// Asks the referee what a place holds; it must be what pyarrow wrote.
    fn check(&self, options: &[&str], place: &[&str]) {
        let output = Command::new(&self.python).arg(script()).arg("check").args(options).args(place).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{options:?} {}: {said}", place[0]);
        assert!(said.contains(" values of ") && !said.starts_with("0 values of 0"), "{said}");
        eprintln!("{options:?} {}: {}", place[0], said.trim());
    }

    fn lake(&self, table: &str) -> String {
        self.project.path(".weir/lake").join(table).to_str().unwrap().to_owned()
    }

    /// All four tables of a pipeline.
    fn check_all(&self, options: &[&str], schema: &str, pg: &Database, ch: &Database) {
        self.check(options, &["lake", &self.lake(&format!("{schema}/rows"))]);
        self.check(options, &["postgres", &pg.url(), "public.rows"]);
        self.check(options, &["postgres", &pg.url(), "public.rows_too"]);
        self.check(options, &["clickhouse", &with_password(ch), &format!("{}.rows", ch.name)]);
    }
}

fn script() -> std::path::PathBuf {
    repository().join("tests/support/every_type.py")
}

fn with_password(ch: &Database) -> String {
    std::env::var("WEIR_TEST_CLICKHOUSE_URL").unwrap_or_else(|_| ch.url())
}

/// The project's databases, fresh.
fn databases(types: &Types) -> Option<(Database, Database)> {
    let (pg, ch) = (fresh_database(Kind::Postgres)?, fresh_database(Kind::Clickhouse)?);
    types.project.write("weir.toml", pg.connection("pg") + &ch.connection("ch"));
    Some((pg, ch))
}

/// `Timestamp(s | ms, zone), Utf8` is two labels.
fn labels(names: &str) -> Vec<String> {
    let (mut found, mut depth) = (vec![String::new()], 0);
    for character in names.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        found.last_mut().unwrap().push(character);
    }
    found.into_iter().map(|label| label.trim().to_owned()).collect()
}

#[test]
fn the_rows_have_a_column_for_every_type_of_every_destination() {
    let Some(types) = Types::new() else { return };
    let covered: BTreeSet<&str> = types.about["covers"].as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
    let mut seen = 0;
    for sink in SINKS {
        for row in (sink.types)() {
            // Labels that hold a comma outside brackets are looked for whole first.
            let wanted = if covered.contains(row.arrow) { vec![row.arrow.to_owned()] } else { labels(row.arrow) };
            for label in wanted {
                assert!(
                    covered.contains(label.as_str()),
                    "no column of tests/support/every_type.py covers \"{label}\" of sink \"{}\"",
                    sink.kind
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "the destinations tell of {seen} types only");
}

#[test]
fn every_type_goes_into_three_destinations_in_one_run() {
    let Some(types) = Types::new() else { return };
    let Some((pg, ch)) = databases(&types) else { return };
    let rows = &types.about["rows"];
    // Into tables that do not exist, then again into those that do.
    for mode in ["append", "replace"] {
        types.project.write("pipeline.toml", types.pipeline("rows.arrow", mode, "types", true));
        let summary = types.project.run(&["pipeline.toml"]);
        assert_eq!(summary["rows_read"], *rows);
        types.check_all(&[], "types", &pg, &ch);
    }
}

#[test]
fn every_type_that_parquet_has_goes_into_three_destinations() {
    let Some(types) = Types::new() else { return };
    let Some((pg, ch)) = databases(&types) else { return };
    types.project.write("pipeline.toml", types.pipeline("rows.parquet", "append", "types", true));
    types.project.run(&["pipeline.toml"]);
    types.check_all(&["--parquet"], "types", &pg, &ch);
}

#[test]
fn no_rows_make_tables_of_the_same_types() {
    let Some(types) = Types::new() else { return };
    let Some((pg, ch)) = databases(&types) else { return };
    types.project.write("pipeline.toml", types.pipeline("empty.arrow", "append", "types", true));
    assert_eq!(types.project.run(&["pipeline.toml"])["rows_loaded"], 0);
    types.check_all(&["--empty"], "types", &pg, &ch);
    // Rows into the tables that none has made.
    types.project.write("pipeline.toml", types.pipeline("rows.arrow", "append", "types", true));
    types.project.run(&["pipeline.toml"]);
    types.check_all(&[], "types", &pg, &ch);
}

#[test]
fn a_mapping_that_loses_something_is_an_error_that_names_exactly_those_columns() {
    let Some(types) = Types::new() else { return };
    let Some((pg, ch)) = databases(&types) else { return };
    types.project.write("pipeline.toml", types.pipeline("rows.arrow", "append", "types", false));
    let outcome = types.project.weir(&["check", "pipeline.toml"]);
    assert_ne!(outcome.code, 0, "{outcome}");
    for place in PLACES {
        let names: Vec<String> = types.names("lossy", place).into_iter().map(|name| format!("\"{name}\"")).collect();
        let help = format!("allow_lossy = [{}]", names.join(", "));
        assert!(outcome.stderr.contains(&help), "nothing says: {help}\n{}", outcome.stderr);
    }
    assert_eq!(outcome.stderr.matches("error[lossy-type]").count(), 4, "{outcome}");
    drop((pg, ch));
}

#[test]
fn what_was_loaded_is_read_back_from_postgres_and_clickhouse_as_it_was() {
    let Some(types) = Types::new() else { return };
    let Some((pg, ch)) = databases(&types) else { return };
    types.project.write("load.toml", types.pipeline("rows.arrow", "append", "types", true));
    types.project.run(&["load.toml"]);
    let mut text = "weir = 1\nname = \"back\"\n".to_owned();
    for (place, connection, table) in [("postgres", "pg", "public.rows"), ("clickhouse", "ch", "rows")] {
        let here = types.names("without", place);
        let without: Vec<&str> = types.names("without", "lake").into_iter().filter(|name| !here.contains(name)).collect();
        let lossy = types.names("lossy_back", place);
        // ClickHouse has one type for text and bytes.
        let more = if place == "clickhouse" {
            "binary = [\"binary\", \"large_binary\", \"binary_view\", \"list_of_bytes\", \"struct_of_more\"]\n"
        } else {
            ""
        };
        text += &format!(
            "[source.from_{place}.{place}]\nconnection = \"{connection}\"\ntable = \"{table}\"\n{more}\
             [transform.narrow_{place}]\nsql = \"select * exclude ({}) from from_{place}\"\n\
             [sink.lake_{place}]\nfrom = \"narrow_{place}\"\nmode = \"replace\"\nallow_lossy = {lossy:?}\n[sink.lake_{place}.lake]\ntable = \"back.{place}\"\n\
             [sink.file_{place}]\nfrom = \"from_{place}\"\nmode = \"replace\"\n[sink.file_{place}.file]\npath = \"back/{place}.arrow\"\nformat = \"arrow\"\n",
            without.join(", ")
        );
    }
    types.project.write("back.toml", text);
    types.project.run(&["back.toml"]);
    for place in ["postgres", "clickhouse"] {
        types.check(&["--via", place], &["arrow", file(&types.project.path(&format!("back/{place}.arrow"))).as_str()]);
        types.check(&["--via", place], &["lake", &types.lake(&format!("back/{place}"))]);
    }
    drop((pg, ch));
}

fn file(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A column of its own with one value that a destination cannot hold: the message is exact, and nothing is there afterwards.
#[test]
fn a_value_that_a_destination_cannot_hold_fails_the_run_and_is_named() {
    let Some(types) = Types::new() else { return };
    let Some((pg, ch)) = databases(&types) else { return };
    for (value, kind, message) in [
        ("arrow_cast(null, 'List(Int64)')", Kind::Clickhouse, "column \"value\" holds a null list, and ClickHouse has none"),
        (
            "arrow_cast(-719163, 'Date32')",
            Kind::Clickhouse,
            "column \"value\" holds 0000-12-31, which the type Date32 cannot: it is outside what this server holds",
        ),
        (
            "arrow_cast(253402300800, 'Timestamp(Second, None)')",
            Kind::Clickhouse,
            "column \"value\" holds +10000-01-01T00:00:00, which the type DateTime64(0, 'UTC') cannot: it is outside what this server holds",
        ),
        (
            "'a' || chr(0) || 'b'",
            Kind::Postgres,
            "column \"value\" holds a NUL byte, which Postgres cannot hold in text, in the value \"a\\0b\"",
        ),
    ] {
        let (connection, place) = if kind == Kind::Postgres { ("pg", "postgres") } else { ("ch", "clickhouse") };
        types.project.write("one.csv", "id\n1\n");
        types.project.write(
            "one.toml",
            format!(
                "weir = 1\nname = \"one\"\n[source.one.file]\npath = \"one.csv\"\n[transform.bad]\nsql = \"\"\"select id, {value} as value from one\"\"\"\n\
                 [sink.out]\nfrom = \"bad\"\nmode = \"append\"\n[sink.out.{place}]\nconnection = \"{connection}\"\ntable = \"bad\"\n"
            ),
        );
        let outcome = types.project.weir(&["run", "one.toml"]);
        assert_eq!(outcome.code, 1, "{value}: {outcome}");
        assert!(outcome.stderr.contains(message), "{value}: not \"{message}\"\n{outcome}");
        outcome.one_screen();
        let database = if kind == Kind::Postgres { &pg } else { &ch };
        let ledger: &[&str] = if kind == Kind::Postgres { &["weir_load"] } else { &[] };
        assert_eq!(tables(database), ledger, "{value}");
    }
}

/// What tables there are.
fn tables(database: &Database) -> Vec<String> {
    let sql = match database.kind {
        Kind::Postgres => "select table_name as name from information_schema.tables where table_schema = 'public'",
        Kind::Clickhouse => "select name from system.tables where database = currentDatabase()",
    };
    database.rows(sql).into_iter().skip(1).collect()
}
