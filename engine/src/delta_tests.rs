//! Tests of `delta`: what added rows add is the difference that they make.

use arrow::{array::RecordBatch, util::pretty::pretty_format_batches};
use datafusion::prelude::SessionContext;

use super::*;

/// `s` holds rows, of which `added` were added; `other` is looked up and united.
async fn session(s: &str) -> SessionContext {
    let session = SessionContext::new();
    for (name, rows) in [("s", s), ("other", "(1, 'x'), (2, 'y'), (2, 'z'), (9, null)")] {
        let sql = format!("create table {name} as select * from (values {rows}) as t(id, name)");
        session.sql(&sql).await.expect("plans").collect().await.expect("runs");
    }
    session
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let text = pretty_format_batches(batches).expect("formats").to_string();
    let mut lines: Vec<String> = text.lines().filter(|line| line.starts_with('|')).skip(1).map(str::to_owned).collect();
    lines.sort();
    lines
}

async fn rows(session: &SessionContext, plan: LogicalPlan) -> Vec<String> {
    lines(&session.execute_logical_plan(plan).await.expect("plans").collect().await.expect("runs"))
}

#[tokio::test]
async fn what_goes_row_by_row_adds_what_the_added_rows_make() {
    let (before, added_rows) = ("(1, 'a'), (2, 'b'), (3, null)", "(2, 'c'), (7, 'd')");
    let all = format!("{before}, {added_rows}");
    for sql in [
        "select id, upper(name) as n from s where id > 1",
        "select s.id, o.name from s join other o on o.id = s.id",
        "select s.id, o.name from s left join other o on o.id = s.id",
        "select s.id, o.name from other o right join s on o.id = s.id",
        "select * from s where id in (select id from other)",
        "select * from s where not exists (select 1 from other where other.id = s.id)",
        "select * from s union all select * from other",
        "select * from other union all select id + 1, name from s union all select id, 'w' from other where id > 1",
        "select s.id, (select max(name) from other) as m from s order by id",
        "with t as (select id from s where name is not null) select t.id, o.name from t, other o where o.id < t.id",
    ] {
        let (old, new, delta) = (session(before).await, session(&all).await, session(added_rows).await);
        let mut expected = rows(&new, new.sql(sql).await.expect(sql).into_unoptimized_plan()).await;
        for line in rows(&old, old.sql(sql).await.expect(sql).into_unoptimized_plan()).await {
            let at = expected.iter().position(|known| *known == line).expect("rows are only added");
            expected.remove(at);
        }
        let plan = delta.sql(sql).await.expect(sql).into_unoptimized_plan();
        let plan = added(&plan, &|table| table == "s", false).expect(sql);
        assert_eq!(rows(&delta, plan).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn what_does_not_go_row_by_row_is_told() {
    let session = session("(1, 'a')").await;
    for (sql, obstacle) in [
        ("select count(*) from s", "group by or an aggregate"),
        ("select id from s group by id", "group by or an aggregate"),
        ("select distinct id from s", "distinct"),
        ("select id, row_number() over (order by id) from s", "a window function, as deduplicate is one"),
        ("select * from s limit 1", "limit"),
        ("select * from s a join s b on a.id = b.id", "a join with itself"),
        ("select o.id, s.name from other o left join s on s.id = o.id", "an outer join that it is looked up in"),
        ("select o.id, s.name from other o full join s on s.id = o.id", "an outer join that it is looked up in"),
        ("select * from other where id in (select id from s)", "a subquery over it"),
        ("select * from other where id not in (select id from s)", "a subquery over it"),
        ("select * from s where id = (select max(id) from s)", "a subquery over it"),
        ("select * from other except select * from s", "an outer join that it is looked up in"),
        ("select * from s union select * from other", "distinct"),
    ] {
        let plan = session.sql(sql).await.expect(sql).into_unoptimized_plan();
        let found = added(&plan, &|table| table == "s", false);
        assert!(found.is_err(), "{sql}");
        let found = found.expect_err(sql);
        assert!(found == obstacle || (sql.contains("except") && !found.is_empty()), "{sql}: {found}");
        added(&plan, &|table| table == "s", true).expect(sql);
    }
}
