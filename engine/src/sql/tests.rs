//! Wrong queries are told with their place; right ones are not told at all.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, TimeUnit};
use datafusion::{datasource::empty::EmptyTable, execution::runtime_env::RuntimeEnv, prelude::SessionContext};
use weir_pipelines::SourceFile;

use super::*;
use crate::plan::{Frugality, session};
use arrow::datatypes::DataType;

fn known() -> SessionContext {
    let session = session(Arc::new(RuntimeEnv::default()), 1, 1024, Frugality::Fast);
    let fields = vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("day", DataType::Date32, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("Region", DataType::Utf8, true),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
    ];
    for name in ["rows", "other"] {
        let table = EmptyTable::new(Arc::new(Schema::new(fields.clone())));
        session.register_table(name, Arc::new(table)).expect("a new name");
    }
    session
}

/// What is said of a query: each code and the words that it points at.
async fn told(session: &SessionContext, sql: &str) -> Vec<String> {
    let text = SqlText::plain(SourceFile::new("q.sql", sql));
    let planned = params::query(session, &text).await.and_then(|(state, plan)| verified(&state, plan));
    let found = match planned {
        Ok(plan) => duplicates(session, &text, &plan).await,
        Err(error) => explain(session, &text, &error).await,
    };
    found
        .iter()
        .map(|found| {
            let marked: Vec<&str> = found.labels.iter().map(|label| &sql[label.span.clone()]).collect();
            format!("{}: {}", found.code, marked.join(" | "))
        })
        .collect()
}

/// What the walk says of a query, whether DataFusion takes it or not.
async fn walked_over(session: &SessionContext, sql: &str) -> Vec<String> {
    let text = SqlText::plain(SourceFile::new("q.sql", sql));
    let state = session.state();
    let (statement, mut query) = walk::parse(&state, sql).unwrap_or_else(|| panic!("{sql}"));
    let tables = names::tables(session, &statement).await;
    let found = walked(&state, tables, &text, false, |walk| walk.query(&mut query, &params::context(&state)));
    found.into_iter().map(|found| format!("{}: {}", found.code, found.message)).collect()
}

#[tokio::test]
async fn wrong_queries_are_told_at_the_words_that_are_wrong() {
    let session = known();
    let cases: &[(&str, &[&str])] = &[
        ("select idd, nam from rows where amout > 1", &["unknown-column: idd", "unknown-column: nam", "unknown-column: amout"]),
        ("select x.id from rows r", &["unknown-qualifier: x"]),
        ("select rows.id from rows r", &["unknown-qualifier: rows"]),
        ("select x.* from rows r", &["unknown-qualifier: x"]),
        ("select * except (idd) from rows", &["unknown-column: idd"]),
        ("select uper(name) as a, lowr(name) as b from rows", &["unknown-function: uper", "unknown-function: lowr"]),
        ("select id from rows r join other o on o.id = r.id", &["ambiguous-column: id"]),
        ("select r.id from rows r join other o using (idd)", &["unknown-column: idd"]),
        ("select r.id from rows r join other o on o.idd = r.id", &["unknown-column: o.idd"]),
        ("select abs(id) as a, abs(name) as b from rows", &["wrong-argument: name"]),
        ("select round(amount) as a, round(amount, 1, 2) as b from rows", &["wrong-argument: round(amount, 1, 2)"]),
        ("select row_number() from rows", &["missing-over: row_number()"]),
        ("select day + name as x from rows", &["wrong-type: day + name"]),
        ("select -name as x from rows", &["wrong-type: -name"]),
        ("select id from rows -- amount\nwhere amount", &["not-boolean: amount"]),
        ("select id from rows where id > 1 and amount", &["not-boolean: amount"]),
        ("select id from rows where sum(amount) > 1", &["misplaced-aggregate: sum(amount)"]),
        ("select id from rows where row_number() over (order by id) = 1", &["misplaced-window: row_number() over (order by id)"]),
        ("select name, day, sum(amount) as s from rows group by name", &["missing-group-by: day"]),
        ("select name, max(id) + id as s from rows group by name", &["missing-group-by: id"]),
        ("select *, count(*) as n from rows group by name", &["missing-group-by: *"]),
        ("select name, count(*) as n from rows group by name having id > 1", &["missing-group-by: id"]),
        ("select id from rows having id > 1", &["missing-group-by: id > 1"]),
        ("select id, name from rows union all select id from other", &["uneven-union: id | id, name"]),
        ("select id from rows order by 7", &["unknown-position: 7"]),
        ("select id, count(*) as n from rows group by 3", &["unknown-position: 3"]),
        ("select cast(id as intt) as x, id::bigintt as y from rows", &["unknown-type: intt", "unknown-type: bigintt"]),
        ("select cast(day as boolean) as x from rows", &["wrong-type: cast(day as boolean)"]),
        ("select id from rows where day > date '2013-13-45'", &["wrong-literal: '2013-13-45'"]),
        ("select id from rows where day > '2013-13-45' or id = 'a'", &["wrong-literal: '2013-13-45'", "wrong-literal: 'a'"]),
        ("select cast('a' as int) as x from rows", &["wrong-literal: 'a'"]),
        ("select day + interval '1 dya' as x from rows", &["wrong-literal: '1 dya'"]),
        ("select id from rows where day in (1, 2)", &["unlike-types: day in (1, 2)"]),
        ("select (select id, name from other) as x from rows", &["subquery-columns: id, name"]),
        ("select id from rows where id in (select id, name from other)", &["subquery-columns: id, name"]),
        ("select id from rows r where exists (select 1 from other o where o.idd = r.id)", &["unknown-column: o.idd"]),
        ("select r.id, o.id from rows r join other o on o.id = r.id", &["duplicate-column: o.id | r.id"]),
        ("select * from rows r join other o on o.id = r.id", &["duplicate-column: *"]),
        ("select id, name as id from rows", &["duplicate-column: name as id | id"]),
        ("with a as (select idd from rows) select idd, nam from a", &["unknown-column: idd", "unknown-column: nam"]),
        ("select x.idd from (select idd, uper(name) as n from rows) x", &["unknown-column: idd", "unknown-function: uper"]),
        ("select case when id then 1 end as x from rows", &[]),
        ("values (1, 2), (3)", &["uneven-rows: (3)"]),
        ("select sum(amount) over (partition by nme) as x from rows", &["unknown-column: nme"]),
        ("select extract(year from name) as y from rows", &[]),
        ("select id from rows limit idd", &["unknown-column: idd"]),
        ("select not name as x from rows", &["wrong-type: not name"]),
        ("select id, region from rows", &["unknown-column: region"]),
    ];
    let mut unmet = Vec::new();
    for (sql, expected) in cases {
        let found = told(&session, sql).await;
        if found != *expected {
            unmet.push(format!("{sql}\n  {found:?}\n  {expected:?}"));
        }
    }
    assert!(unmet.is_empty(), "{}", unmet.join("\n"));
}

#[tokio::test]
async fn nothing_is_said_of_right_queries() {
    let session = known();
    let right = [
        "select * from rows",
        "select r.*, o.name as other from rows r left join other o on o.id = r.id and o.day > r.day",
        "select * from rows join other using (id, name)",
        "select id from rows natural join other",
        "select id, name as n from rows where n is not null or name like 'a%' order by n desc, amount nulls last",
        "select name, count(*) as n, sum(amount) filter (where id > 1) as s from rows group by name having n > 1 order by s",
        "select name as n, count(distinct id) from rows group by n order by 2 desc limit 10 offset 2",
        "select name, count(*) from rows group by 1",
        "select date_trunc('month', day) as m, sum(amount) from rows group by date_trunc('month', day) order by m",
        "select upper(name) as u, max(id) from rows group by upper(name)",
        "select name, day, grouping(name) as g, count(*) from rows group by rollup (name, day)",
        "select name, day, count(*) from rows group by grouping sets ((name), (day), ())",
        "select name, count(*) as n from rows group by all",
        "select id, row_number() over w as n, lag(amount) over w as before from rows window w as (partition by name order by id)",
        "select id, sum(amount) over (order by day rows between 1 preceding and current row) as s from rows",
        "select id from rows qualify row_number() over (partition by name order by day desc) = 1",
        "select distinct on (name) name, id from rows order by name, id desc",
        "select distinct name, day from rows",
        "with a as (select id, name from rows), b as (select id from a where name is not null) select a.*, b.id as bid from a join b on a.id = b.id",
        "with recursive n as (select 1 as i union all select i + 1 from n where i < 5) select i from n",
        "with a(x, y) as (select id, name from rows) select x, y from a",
        "select (select max(o.amount) from other o where o.name = r.name) as m from rows r",
        "select id from rows r where exists (select 1 from other o where o.id = r.id) and id not in (select id from other where id is not null)",
        "select x.n from (select count(*) as n from rows) x",
        "select t.a, t.b from (values (1, 'x'), (2, null)) as t(a, b)",
        "select id, unnest(tags) as tag from rows",
        "select id, tags[1] as first, array_length(tags) as n, array_to_string(tags, ',') as all from rows",
        "select case name when 'a' then 1 else 2 end as c, case when id > 1 then 'x' end as d from rows",
        "select coalesce(name, 'none') as n, nullif(id, 0) as i, id::text || '-' || name as k from rows",
        "select extract(year from day) as y, date_part('month', day) as m, day + interval '1 day' as next, day - date '2013-01-01' as d from rows",
        "select id from rows where day between '2013-01-01' and '2013-12-31' and at > '2013-01-01T00:00:00'",
        "select substring(name from 1 for 2) as s, position('a' in name) as p, trim(both ' ' from name) as t, ceil(amount) as c from rows",
        "select id from rows union select id from other union all select 1 order by id",
        "select id, name from rows except select id, name from other",
        "select id from rows intersect select id from other order by 1",
        "select * except (name) from rows",
        "select * replace (upper(name) as name) from rows",
        "select 1 as one, now() as at, current_date as d",
        "select \"Region\" as region from rows order by \"Region\"",
        "select r.id from rows r cross join other o where r.id = o.id",
        "select r.id from rows r, other o where r.id = o.id",
        "select id from rows where name is distinct from 'a' and id is true is not null",
        "select max(id) as m from rows having count(*) > 1",
        "select sum(count(*)) over () as total, name from rows group by name",
        "select array_agg(name order by id) as names, string_agg(name, ',') as text from rows",
        "select first_value(name order by id) as f, approx_distinct(name) as d, median(amount) as m from rows",
        "select r.id from rows r left semi join other o on o.id = r.id",
        "select l.id, x.m from rows l cross join lateral (select max(o.id) as m from other o where o.name = l.name) x",
        "select json_get_str(name, 'a') as j, name ->> 'b' as k from rows",
        "select try_cast('a' as int) as x from rows",
        "select id from rows where (id, name) in ((1, 'a'), (2, 'b'))",
        "select array_transform(tags, t -> upper(t)) as u from rows",
        "select named_struct('a', id).a as x, struct(id, name) as s from rows",
    ];
    let (mut taken, mut unmet) = (0, Vec::new());
    for sql in right {
        let planned = session.sql(sql).await.and_then(|frame| {
            let (state, plan) = frame.into_parts();
            verified(&state, plan)
        });
        // What DataFusion does not take is no right query.
        let Ok(_) = planned else { continue };
        taken += 1;
        let found = walked_over(&session, sql).await;
        if !found.is_empty() {
            unmet.push(format!("{sql}\n  {found:?}"));
        }
    }
    assert!(unmet.is_empty(), "{}", unmet.join("\n"));
    assert!(taken >= right.len() - 8, "{taken} of {}", right.len());
}

#[tokio::test]
async fn texts_beside_numbers_are_doubted() {
    let session = known();
    let sql = "select id from rows where name > 5 and name = '5' and id in (1, 2)";
    let text = SqlText::plain(SourceFile::new("q.sql", sql));
    let (_, plan) = session.sql(sql).await.expect("right").into_parts();
    assert!(is_doubtful(&plan));
    let found = doubts(&session, &text).await;
    let marked: Vec<&str> = found.iter().map(|found| &sql[found.labels[0].span.clone()]).collect();
    assert_eq!(marked, ["name > 5"]);
    let (_, plan) = session.sql("select id from rows where name = '5' and id = '1'").await.expect("right").into_parts();
    assert!(!is_doubtful(&plan));
}
