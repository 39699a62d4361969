//! Tests of which statements a mode needs; what they do to rows is in `load_modes_tests.rs`.

use super::*;
use crate::postgres::table::Column;

fn existing(unique: &[&[&str]], referenced: &[&str]) -> Existing {
    let column = |name: &str, pg| Column { name: name.into(), pg, sql: String::new(), nullable: true, fills: Fills::Null };
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    Existing {
        columns: vec![column("id", PgType::Int8), column("na\"me", PgType::Text(None)), column("old", PgType::Int4)],
        unique: unique.iter().map(|columns| owned(columns)).collect(),
        referenced: if referenced.is_empty() { vec![] } else { vec![(owned(referenced), "other".into())] },
        refers_to_itself: false,
        refers_to: vec![],
        unique_count: 0,
        refuses: false,
    }
}

fn said(mode: Mode, existing: &Existing) -> Vec<String> {
    let (written, key) = (["id".to_owned(), "na\"me".to_owned()], ["id".to_owned()]);
    let apply = Apply { target: "\"t\"", stage: "\"s\"", existing, written: &written, mode, key: &key };
    apply.statements().into_iter().map(|statement| statement.sql).collect()
}

const LOCK: &str = "lock table \"t\" in share row exclusive mode";

#[test]
fn a_merge_goes_by_the_unique_index_where_there_is_one() {
    let differs = "t.\"na\"\"me\"::text collate \"C\" is distinct from excluded.\"na\"\"me\"::text collate \"C\"";
    let by_index = format!(
        "insert into \"t\" as t (\"id\", \"na\"\"me\") select \"id\", \"na\"\"me\" from \"s\" on conflict (\"id\") \
         do update set \"na\"\"me\" = excluded.\"na\"\"me\" where {differs}"
    );
    assert_eq!(said(Mode::Merge, &existing(&[&["id", "old"], &["id"]], &[])), [by_index]);
    let without = said(Mode::Merge, &existing(&[&["id", "old"]], &[]));
    assert_eq!((without.len(), without[0].as_str()), (4, LOCK));
    assert!(without[3].ends_with("where not exists (select from \"t\" t where t.\"id\" = s.\"id\")"), "{}", without[3]);
}

#[test]
fn a_replace_keeps_rows_that_others_refer_to() {
    assert_eq!(
        said(Mode::Replace, &existing(&[&["id"]], &[])),
        [LOCK, "delete from \"t\"", "insert into \"t\" (\"id\", \"na\"\"me\") select \"id\", \"na\"\"me\" from \"s\""]
    );
    let kept = said(Mode::Replace, &existing(&[&["id"]], &["id"]));
    assert_eq!(kept[1], "update \"t\" t set \"na\"\"me\" = s.\"na\"\"me\", \"old\" = default from \"s\" s where t.\"id\" = s.\"id\"");
    assert_eq!(kept[2], "delete from \"t\" t where not exists (select from \"s\" s where t.\"id\" = s.\"id\")");
}

#[test]
fn a_snapshot_closes_before_it_opens() {
    let both = said(Mode::Snapshot, &existing(&[], &[]));
    assert_eq!(both[0], LOCK);
    assert!(both[1].starts_with("update \"t\" t set \"valid_to\" = $1::timestamptz, \"is_current\" = false from \"s\" s where"));
    assert!(both[2].starts_with("insert into \"t\" (\"id\", \"na\"\"me\", \"valid_from\", \"valid_to\", \"is_current\") select"));
}
