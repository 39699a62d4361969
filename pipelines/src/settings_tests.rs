//! Tests of `settings.rs`: several mistakes at once, tables below, missing settings, overrides.

use serde::Deserialize;

use super::*;
use crate::golden::render;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Csv {
    delimiter: Option<String>,
    #[serde(default)]
    null: Vec<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Format {
    Csv,
    Json,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Part {
    column: String,
    buckets: u32,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
    format: Format,
    sample: Option<u64>,
    csv: Option<Csv>,
    #[serde(default)]
    parts: Vec<Part>,
}

fn settings(text: &str, overrides: &[(&str, &str)]) -> Settings {
    let mut document = Document::new(SourceFile::new("p.toml", text));
    document.overrides =
        overrides.iter().map(|(path, value)| (path.split('.').map(str::to_owned).collect(), (*value).to_owned())).collect();
    let (kind, span) = {
        let (root, _) = document.root();
        let (key, value) = root.get_key_value("file").expect("the tests write [file]");
        (Spanned::new("file".to_owned(), key.span()), value.span())
    };
    Settings::new(&Arc::new(document), vec!["file".into()], kind, span)
}

fn mistakes(text: &str) -> String {
    render(&settings(text, &[]).read::<File>().expect_err("the table is wrong"))
}

#[test]
fn a_right_table_is_read() {
    let file: File = settings("[file]\npath = 'a'\nformat = 'csv'\ncsv.null = ['NA']\nsample = 3\n", &[]).read().expect("right");
    let csv = Csv { delimiter: None, null: vec!["NA".into()] };
    assert_eq!(file, File { path: "a".into(), format: Format::Csv, sample: Some(3), csv: Some(csv), parts: vec![] });
}

#[test]
fn every_mistake_of_one_table_is_said_at_once() {
    let text = "[file]\npaht = 'a'\nformat = 'cvs'\nsample = 'many'\nzzz = 1\n";
    assert_eq!(
        mistakes(text),
        r#"error[missing-key]: "file" needs the setting "path"
  1:2 "file"
error[unknown-key]: "file" has no setting "paht"
  2:1 "paht": not a setting
  = help: did you mean "path"?
  = help: settings are: path, format, sample, csv, parts
error[unknown-word]: "cvs" is not one of the words known here
  3:10 "'cvs'": not known
  = help: did you mean "csv"?
  = help: words are: csv, json
error[wrong-type]: expected an integer, found a string
  4:10 "'many'"
error[unknown-key]: "file" has no setting "zzz"
  5:1 "zzz": not a setting
  = help: settings are: path, format, sample, csv, parts
"#
    );
}

#[test]
fn every_missing_setting_is_said_and_none_that_is_only_wrong() {
    assert_eq!(
        mistakes("[file]\nsample = 1\n"),
        "error[missing-key]: \"file\" needs the setting \"format\"\n  1:2 \"file\"\n\
         error[missing-key]: \"file\" needs the setting \"path\"\n  1:2 \"file\"\n"
    );
    assert_eq!(mistakes("[file]\nformat = 'csv'\npath = 1\n"), "error[wrong-type]: expected a string, found an integer\n  3:8 \"1\"\n");
}

#[test]
fn mistakes_in_tables_below_are_found_however_they_are_written() {
    let expected = |first: &str, second: &str| {
        format!(
            "error[unknown-key]: \"file.csv\" has no setting \"nul\"\n  {first} \"nul\": not a setting\n  = help: did you mean \"null\"?\n  \
             = help: settings are: delimiter, null\nerror[wrong-type]: expected a string, found an integer\n  {second} \"1\"\n"
        )
    };
    let head = "[file]\npath = 'a'\nformat = 'csv'\n";
    assert_eq!(mistakes(&format!("{head}csv.nul = 2\ncsv.delimiter = 1\n")), expected("4:5", "5:17"));
    assert_eq!(mistakes(&format!("{head}csv = {{ nul = 2, delimiter = 1 }}\n")), expected("4:9", "4:30"));
    assert_eq!(mistakes(&format!("{head}[file.csv]\nnul = 2\ndelimiter = 1\n")), expected("5:1", "6:13"));
}

#[test]
fn mistakes_in_arrays_of_tables_are_found() {
    let text = "[file]\npath = 'a'\nformat = 'json'\n[[file.parts]]\ncolumn = 'a'\n[[file.parts]]\ncolumn = 2\nbuckets = 1\nx = 1\n";
    assert_eq!(
        mistakes(text),
        r#"error[missing-key]: "file.parts.0" needs the setting "buckets"
  4:1 "[[file.parts]]"
error[wrong-type]: expected a string, found an integer
  7:10 "2"
error[unknown-key]: "file.parts.1" has no setting "x"
  9:1 "x": not a setting
  = help: settings are: column, buckets
"#
    );
}

#[test]
fn an_override_takes_a_place_or_makes_one() {
    let text = "[file]\npath = 'a'\nformat = 'csv'\n";
    let file: File = settings(text, &[("file.path", "'b'"), ("file.csv.delimiter", "';'")]).read().expect("right");
    assert_eq!(file.path, "b");
    assert_eq!(file.csv.and_then(|csv| csv.delimiter).as_deref(), Some(";"));
    let text = "[file]\npath = 'a'\nformat = 'csv'\n[[file.parts]]\ncolumn = 'a'\nbuckets = 1\n";
    let file: File = settings(text, &[("file.parts.0.buckets", "7")]).read().expect("right");
    assert_eq!(file.parts, [Part { column: "a".into(), buckets: 7 }]);
}

#[test]
fn a_mistake_in_an_override_points_at_what_it_replaced() {
    let text = "[file]\npath = 'a'\nformat = 'csv'\ncsv = {}\n";
    let found = settings(text, &[("file.csv", "{ delimiter = 1 }")]).read::<File>().expect_err("wrong");
    assert_eq!(render(&found), "error[wrong-type]: expected a string, found an integer\n  4:7 \"{}\"\n");
}

#[test]
fn a_value_is_found_by_its_dotted_path() {
    let text = "[file]\npath = 'a'\ncsv.null = ['NA']\n";
    let settings = settings(text, &[]);
    assert_eq!(&text[settings.span_of("csv.null")], "['NA']");
    assert_eq!(&text[settings.span_of("path")], "'a'");
    assert_eq!(&text[settings.span_of("nothing.here")], "[file]");
    assert_eq!(&text[settings.span_of("csv.nothing")], "csv");
}

#[test]
fn settings_with_another_value_keep_the_rest_and_point_at_who_asked() {
    let settings = settings("[file]\npath = \"a.csv\"\ncsv.null = [\"NA\"]", &[]);
    let other = settings.with("file", "path", "b \"c\".csv", 3..5);
    let table = other.table();
    assert_eq!(table["path"].get_ref().as_str(), Some("b \"c\".csv"));
    assert!(table.contains_key("csv"));
    assert_eq!((other.span_of("path"), other.span_of("csv.null")), (3..5, 3..5));
    let of_another_kind = settings.with("table", "path", "b.csv", 3..5).table().len();
    assert_eq!(of_another_kind, 1);
}
