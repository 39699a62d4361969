//! Are statements cut and read as they are meant, and never so that anything hangs?

use super::*;

fn one(text: &str) -> Command {
    let mut all = statements(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0).command
}

#[test]
fn a_text_is_cut_where_its_statements_end() {
    let text = "select ';' ; -- a;b\n select $$;$$;; select 'é' /* ; */ , 1";
    let found: Vec<_> = statements(text).into_iter().map(|statement| (statement.start, statement.command)).collect();
    let query = |start: usize, sql: &str| (start, Command::Query(Inner { sql: sql.to_owned(), start }));
    let third = text.find("select 'é'").expect("it is there");
    assert_eq!(found, [query(0, "select ';'"), query(21, "select $$;$$"), query(third, "select 'é' /* ; */ , 1")]);
    assert!(statements(" ; -- nothing\n;").is_empty());
    // What cannot be cut is left to the engine.
    assert_eq!(one("select 'torn; select 1"), query(0, "select 'torn; select 1").1);
}

#[test]
fn commands_of_a_session_are_read() {
    let set = |name: &str, values: &[&str]| Command::Set {
        name: name.into(),
        values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
    };
    assert_eq!(one("SET statement_timeout = 50"), set("statement_timeout", &["50"]));
    assert_eq!(one("set search_path to main, \"Other\""), set("search_path", &["main", "Other"]));
    assert_eq!(one("set time zone 'Europe/Berlin'"), set("timezone", &["Europe/Berlin"]));
    assert_eq!(one("SET TIME ZONE -8"), set("timezone", &["-8"]));
    assert_eq!(one("set names 'utf8'"), set("names", &["utf8"]));
    assert_eq!(one("set session characteristics as transaction read only"), Command::SetTransaction);
    assert_eq!(one("set transaction isolation level serializable"), Command::SetTransaction);
    assert_eq!(one("show transaction isolation level"), Command::Show("transaction_isolation".into()));
    assert_eq!(one("show TimeZone"), Command::Show("timezone".into()));
    assert!(matches!(one("show tables"), Command::Query(_)));
    assert_eq!(one("reset all"), Command::Reset(None));
    assert_eq!(one("BEGIN READ ONLY"), Command::Begin);
    assert_eq!(one("start transaction isolation level repeatable read"), Command::Begin);
    assert_eq!(one("rollback to savepoint a"), Command::Savepoint("ROLLBACK"));
    assert_eq!(one("deallocate prepare \"A\""), Command::Deallocate(Some("A".into())));
    assert_eq!(one("close all"), Command::Close(None));
    assert_eq!(one("fetch forward 10 from c"), Command::Fetch { name: "c".into(), steps: Steps::Rows(10), shows: true });
    assert_eq!(one("move all in c"), Command::Fetch { name: "c".into(), steps: Steps::All, shows: false });
    assert_eq!(one("fetch c"), Command::Fetch { name: "c".into(), steps: Steps::Rows(1), shows: true });
    let Command::Refused(error) = one("fetch backward 1 from c") else { panic!("a cursor goes forward") };
    assert_eq!(error.state, "55000");
}

#[test]
fn queries_within_statements_keep_their_places() {
    let text = "declare c no scroll cursor with hold for select 1";
    let query = Inner { sql: "select 1".into(), start: 41 };
    assert_eq!(one(text), Command::Declare { name: "c".into(), binary: false, hold: true, query });
    let Command::Prepare { name, types, query } = one("prepare q (int, double precision) as select $1 + $2") else { panic!("it prepares") };
    assert_eq!((name.as_str(), types, query.start), ("q", vec!["int".to_owned(), "double precision".to_owned()], 37));
    let Command::Execute { values: Some(values), .. } = one("execute q(1, (2))") else { panic!("it executes") };
    assert_eq!((values.sql.as_str(), values.start), ("1, (2)", 10));
    let Command::Copy(copy) = one("copy (select ')' from t) to stdout with (format csv, header, null 'NA')") else { panic!("it copies") };
    assert_eq!(copy.query, Inner { sql: "select ')' from t".into(), start: 6 });
    let Command::Copy(copy) = one("COPY lake.main.t (a, \"B\") TO STDOUT") else { panic!("it copies") };
    assert_eq!(copy.query.sql, "select a, \"B\" from lake.main.t");
}

#[test]
fn what_would_read_or_write_files_is_refused() {
    for (text, state) in [
        ("copy t to '/tmp/x.csv'", "42501"),
        ("copy (select 1) to program 'cat'", "42501"),
        ("copy t from stdin", "0A000"),
        ("copy t from '/etc/passwd'", "0A000"),
        ("copy t from program 'ls'", "0A000"),
        ("set session authorization root", "42501"),
    ] {
        let Command::Refused(error) = one(text) else { panic!("{text} is refused") };
        assert_eq!(error.state, state, "{text}");
    }
}

#[test]
fn names_and_types_have_an_end() {
    let refused = |text: &str| match one(text) {
        Command::Refused(error) => (error.state, error.message),
        other => panic!("{other:?}"),
    };
    let long = ("42622", "a name has at most 256 bytes".to_owned());
    assert_eq!(refused(&format!("set {}a = 1", "a.".repeat(200_000))), long);
    assert_eq!(refused(&format!("prepare q ({}) as select 1", "int ".repeat(200_000))), long);
    assert!(matches!(one("set a.b.c = 1"), Command::Set { name, .. } if name == "a.b.c"));
    let Command::Prepare { types, .. } = one("prepare q (timestamp with time zone, int [ ]) as select 1") else { panic!("it prepares") };
    assert_eq!(types, ["timestamp with time zone", "int [ ]"]);
}

#[tokio::test]
async fn a_long_text_is_cut_as_a_short_one() {
    for count in [10, SHORT] {
        let text: Arc<str> = "select 1; ".repeat(count).into();
        let all = cut(&text).await.expect("it is cut");
        assert_eq!((all.len(), all.as_slice()), (count, statements(&text).as_slice()));
        assert!(all.iter().all(|statement| &text[statement.start..statement.end] == "select 1"));
    }
}

#[test]
fn no_part_of_a_statement_panics_or_hangs() {
    let whole = [
        "copy (select (1)) to stdout with (format csv, header true, force_quote (a, b), delimiter ';')",
        "copy a.b (c, d) to stdout csv header delimiter as ';' null 'x'",
        "prepare q (int, numeric(10,2), text[]) as select $1",
        "execute q (1, 'a', (2))",
        "declare c binary insensitive no scroll cursor without hold for select 1",
        "fetch forward all from c",
        "set session time zone interval '1'",
        "begin transaction isolation level serializable, read only",
    ];
    for text in whole {
        let ends = text.char_indices().map(|(at, _)| at);
        for end in ends.chain([text.len()]) {
            statements(&text[..end]);
            statements(&text[end..]);
        }
    }
}
