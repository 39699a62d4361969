//! Two files read as one: which values are meant, where they stand, and chains that do not end.

use proptest::prelude::*;

use super::*;
use crate::{Vocabulary, golden::render, parse_partial, settings::Document};

/// The file as it is read, as plain TOML.
fn merged(texts: &[&str]) -> toml::Table {
    let files: Vec<Arc<SourceFile>> = texts.iter().enumerate().map(|(at, text)| SourceFile::new(format!("{at}.toml"), *text)).collect();
    let document = Document::new(SourceFile::joined(&files));
    let (root, torn) = document.written();
    assert!(torn.is_empty(), "{torn:?}");
    plain(&root)
}

fn plain(table: &DeTable<'_>) -> toml::Table {
    table.iter().map(|(key, value)| (key.get_ref().to_string(), plain_value(value.get_ref()))).collect()
}

fn plain_value(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::Table(table) => toml::Value::Table(plain(table)),
        DeValue::Array(items) => toml::Value::Array(items.iter().map(|item| plain_value(item.get_ref())).collect()),
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => toml::Value::Integer(crate::parse::walk::integer(number).unwrap_or_default()),
        DeValue::Boolean(value) => toml::Value::Boolean(*value),
        other => panic!("not in these tests: {other:?}"),
    }
}

fn toml(text: &str) -> toml::Table {
    toml::from_str(text).expect("is TOML")
}

#[test]
fn tables_merge_and_the_files_own_values_win() {
    let base = "weir = 1\nname = 'base'\nowner = 'a'\ntags = ['x']\n[source.a.file]\npath = 'a'\nformat = 'csv'\n[[expect]]\non = 'a'\n";
    let own = "extends = '0'\nname = 'own'\ntags = ['y']\n[source.a.file]\npath = 'b'\n[source.b.file]\npath = 'c'\n";
    let expected = "extends = '0'\nweir = 1\nname = 'own'\nowner = 'a'\ntags = ['y']\n[source.a.file]\npath = 'b'\nformat = 'csv'\n\
        [source.b.file]\npath = 'c'\n[[expect]]\non = 'a'\n";
    assert_eq!(merged(&[own, base]), toml(expected));
}

#[test]
fn of_two_words_for_one_thing_the_files_own_is_meant() {
    for (own, base, expected) in [
        (
            "source.a.postgres.table = 't'",
            "source.a = { contract = 'c', file.path = 'a' }",
            "source.a = { contract = 'c', postgres.table = 't' }",
        ),
        ("sink.a.file.path = 'b'", "sink.a = { from = 'x', lake.table = 'a.b' }", "sink.a = { from = 'x', file.path = 'b' }"),
        ("transform.a.sql = 's'", "transform.a = { from = 'x', filter = 'f' }", "transform.a.sql = 's'"),
        ("transform.a.filter = 'g'", "transform.a = { from = 'x', filter = 'f' }", "transform.a = { from = 'x', filter = 'g' }"),
        (
            "transform.a.cast.b = 'int'",
            "transform.a = { from = 'x', cast.a = 'int' }",
            "transform.a = { from = 'x', cast = { a = 'int', b = 'int' } }",
        ),
        ("schedule.every = '1h'", "schedule = { cron = 'c', timeout = '5m' }", "schedule = { every = '1h', timeout = '5m' }"),
        ("source.a.incremental.cursor = 'c'", "source.a.incremental.files = 'new'", "source.a.incremental.cursor = 'c'"),
        ("source.a.file.path = { param = 'p' }", "source.a.file.path = { param = 'q' }", "source.a.file.path = { param = 'p' }"),
        ("source.a.file.path = 'p'", "source.a.file.path = { param = 'q' }", "source.a.file.path = 'p'"),
        ("params.n = 3", "params.n = { type = 'bigint', default = 1, max = 5 }", "params.n = { type = 'bigint', default = 3, max = 5 }"),
        ("params.n.min = 0", "params.n = { type = 'bigint', max = 5 }", "params.n = { type = 'bigint', min = 0, max = 5 }"),
        ("params.n = 3", "params.n = 2", "params.n = 3"),
    ] {
        assert_eq!(merged(&[own, base]), toml(expected), "{own}\n{base}");
    }
}

#[test]
fn a_base_may_have_a_base() {
    assert_eq!(
        merged(&["a.x = 1", "a.y = 2\nb = 2", "a = { x = 3, y = 3, z = 3 }\nb = 3\nc = 3"]),
        toml("a = { x = 1, y = 2, z = 3 }\nb = 2\nc = 3")
    );
}

fn gather(files: &[(&str, &str)]) -> Layers {
    let file = |name: &str| {
        let found = files.iter().find(|(known, _)| *known == name);
        found.map(|(name, text)| SourceFile::new(*name, *text)).ok_or_else(|| format!("there is no file \"{name}\""))
    };
    Layers::gather(file(files[0].0).expect("the first is there"), files[0].0.to_owned(), |path, _| (path.to_owned(), file(path)))
}

#[test]
fn a_chain_that_does_not_end_is_shown() {
    for (files, expected) in [
        (
            vec![("a", "extends = 'a'")],
            "error[extends-cycle]: \"a\" extends itself\n  1:11 \"'a'\": extended by \"a\"\n  = help: take one of these out\n",
        ),
        (
            vec![("a", "extends = 'b'"), ("b", "\nextends = 'c'"), ("c", "extends = 'b'")],
            "error[extends-cycle]: \"b\" and \"c\" extend one another in a circle\n  2:11 \"'c'\": extended by \"b\"\n  1:11 \"'b'\": extended by \"c\"\n  \
             = help: take one of these out\n",
        ),
        (
            vec![("a", "extends = 'b'"), ("b", "extends = 'c'")],
            "error[base-missing]: there is no file \"c\"\n  1:11 \"'c'\": extended here\n  1:11 \"'b'\": \"a\" extends it\n  \
             = help: a base is named by its path from the folder of the file that extends it\n",
        ),
        (vec![("a", "extends = 1")], "error[wrong-type]: expected a string for \"extends\", found an integer\n  1:11 \"1\"\n"),
        (vec![("a", "extends = ' '")], "error[wrong-value]: \"extends\" is empty\n  1:11 \"' '\"\n  = help: write the path of the base\n"),
        (vec![("a", "extends = 'b'"), ("b", "x = 1")], ""),
    ] {
        assert_eq!(render(&gather(&files).wrong), expected);
    }
}

/// TOML of nested tables with few names, so that they meet.
fn table() -> impl Strategy<Value = toml::Table> {
    let leaf = (0_i64..100).prop_map(toml::Value::Integer);
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(toml::Value::Array),
            prop::collection::btree_map("[abc]", inner, 0..4).prop_map(|table| toml::Value::Table(table.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[abc]", value, 0..4).prop_map(|table| table.into_iter().collect())
}

/// The rule in its plainest form.
fn expected(own: &toml::Table, base: &toml::Table) -> toml::Table {
    let mut all = base.clone();
    for (key, value) in own {
        let value = match (value, base.get(key)) {
            (toml::Value::Table(own), Some(toml::Value::Table(base))) => toml::Value::Table(expected(own, base)),
            (value, _) => value.clone(),
        };
        all.insert(key.clone(), value);
    }
    all
}

fn labels(table: &DeTable<'_>, text: &str, found: &mut Vec<(String, String)>) {
    for (key, value) in table.iter() {
        if let DeValue::Integer(number) = value.get_ref() {
            found.push((number.as_str().to_owned(), text[value.span()].to_owned()));
        }
        if let DeValue::Table(inner) = value.get_ref() {
            labels(inner, text, found);
        }
        assert!(text[key.span()].contains(key.get_ref().as_ref()));
    }
}

proptest! {
    #[test]
    fn any_tables_merge_by_the_rule(own in table(), base in table(), last in table()) {
        let texts: Vec<String> = [&own, &base, &last].iter().map(|table| toml::to_string(table).expect("is TOML")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        prop_assert_eq!(merged(&texts), expected(&own, &expected(&base, &last)));
        prop_assert_eq!(merged(&[texts[0], ""]), own.clone());
        prop_assert_eq!(merged(&["", texts[0]]), own);
    }

    #[test]
    fn every_value_keeps_its_place(own in table(), base in table()) {
        let files = [&own, &base].map(|table| SourceFile::new("", toml::to_string(table).expect("is TOML")));
        let document = Document::new(SourceFile::joined(&files));
        let mut found = Vec::new();
        labels(&document.written().0, &document.file.text, &mut found);
        for (value, text) in found {
            prop_assert_eq!(value, text);
        }
    }
}

const KINDS: Vocabulary<'_> =
    Vocabulary { sources: &["file"], sinks: &["lake"], connections: &[], profiles: &[], check_source: |_| vec![], check_sink: |_| vec![] };

const OWN_TEXT: &str = "name = \"p\"\nextends = \"base.toml\"\n[params]\nday = 2013-01-01\n[[matrix]]\nname = \"a\"\nleast = 3\n[transform.t]\n\
    sql = \"\"\"\nselect id, $day as day\nfrom a where x > $least\n\"\"\"\n[sink.z]\nfrom = \"t\"\n[[test]]\nname = \"t\"\nparams = { least = 4 }\ngiven.a = []\nexpect.t = []\n";
const BASE_TEXT: &str = "weir = 1\n[params.least]\ntype = \"bigint\"\nmin = 1\nmax = 5\n[params.day]\ntype = \"date\"\n[source.a.file]\npath = { param = \"day\" }\n\
    [transform.t]\nfrom = \"a\"\nfilter = \"x > $least\"\n[sink.z.lake]\ntable = \"x.y\"\n";

#[test]
fn a_pipeline_over_a_base_is_read() {
    let files = [("pipeline.toml", OWN_TEXT), ("base.toml", BASE_TEXT)].map(|(name, text)| SourceFile::new(name, text));
    let partial = parse_partial(SourceFile::joined(&files), "".into(), &[], KINDS);
    assert_eq!(render(&partial.found), "");
    let pipeline = partial.pipeline;
    let params: Vec<String> = pipeline.params.iter().map(|param| format!("{} {}", param.name.value, param.kind)).collect();
    assert_eq!(params, ["day date", "least bigint"]);
    let made = pipeline.tests[0].of(&pipeline);
    let least = |pipeline: &crate::Pipeline| pipeline.params[1].value.clone();
    assert_eq!((least(&pipeline), least(made)), (Some(crate::ParamValue::Bigint(3)), Some(crate::ParamValue::Bigint(4))));
}

proptest! {
    #[test]
    fn no_mutation_of_a_file_or_its_base_panics(
        cuts in prop::collection::vec((any::<bool>(), 0usize..600, 0usize..30, "[a-z\\[\\]{}=\".,$' \n0-9é]{0,4}"), 0..5),
        param in "(day|least|x)=[0-9a-z-]{0,10}",
    ) {
        let mut texts = [OWN_TEXT.to_owned(), BASE_TEXT.to_owned()];
        for (own, at, len, with) in cuts {
            let text = &mut texts[usize::from(!own)];
            let clamp = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let (start, end) = (clamp(at), clamp(at + len));
            text.replace_range(start..end, &with);
        }
        let files = [("pipeline.toml", &texts[0]), ("base.toml", &texts[1])].map(|(name, text)| SourceFile::new(name, text.as_str()));
        let (name, value) = param.split_once('=').expect("has one");
        let changes = crate::Changes { params: vec![(name.to_owned(), value.to_owned())], ..crate::Changes::default() };
        for changes in [crate::Changes::default(), changes] {
            let partial = parse_partial(SourceFile::joined(&files), "".into(), changes, KINDS);
            for label in partial.found.iter().flat_map(|found| &found.labels) {
                prop_assert!(files.contains(&label.file), "{}", label.file.path);
                prop_assert!(label.file.text.get(label.span.clone()).is_some(), "{label:?}");
            }
        }
    }
}
