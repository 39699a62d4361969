//! Tests of `meaning.rs`: queries that mean the same and queries that do not.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::{datasource::MemTable, execution::runtime_env::RuntimeEnvBuilder};

use super::*;
use crate::{plan::Frugality, session::session};

async fn plan(sql: &str) -> LogicalPlan {
    let runtime = RuntimeEnvBuilder::new().build_arc().expect("a runtime");
    let session = session(runtime, 1, 1024, Frugality::Fast);
    for name in ["t", "u"] {
        let fields = [("id", DataType::Int64), ("name", DataType::Utf8), ("n", DataType::Int64)];
        let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()));
        session.register_table(name, Arc::new(MemTable::try_new(schema, vec![vec![]]).expect("a table"))).expect("registers");
    }
    let plan = session.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")).into_unoptimized_plan();
    session.state().optimize(&plan).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

#[tokio::test]
async fn names_in_between_layout_and_comments_mean_nothing() {
    for (one, other) in [
        ("select id, n from t where n > 1", "SELECT x.id, x.n /* all */\nFROM t AS x -- here\nWHERE x.n > 1"),
        ("select t.id from t join u on t.id = u.id", "select a.id from t a join u b on a.id = b.id"),
        ("select t.id from t join u on t.id = u.id", "select a.id from t a inner join u a2 using (id)"),
        (
            "select sum(n) as s from t group by name",
            "with x as (select name as who, n as much from t) select sum(much) as s from x group by who",
        ),
        (
            "select id from t where id in (select id from u where u.n = t.n)",
            "select id from t q where id in (select r.id from u r where r.n = q.n)",
        ),
        (
            "select id, row_number() over (partition by name order by n) as k from t",
            "select z.id, row_number() over (partition by z.name order by z.n asc) k from t z",
        ),
        ("select id from t where n > 1 and id > 2", "select id from (select * from t where n > 1) where id > 2"),
        (
            "select name, sum(n) as s from t where n > 1 group by name",
            "with x as (select n as much, name as who from t where n > 1) select who as name, sum(much) as s from x group by who",
        ),
        (
            "select t.id, u.n from t join u on t.id = u.id where t.n > u.n",
            "select a.id, b.n from t a join (select n, id as k from u) b on b.k = a.id where a.n > b.n",
        ),
        ("select id, 3 as x from t", "select id, 1 + 2 as x from t"),
        ("select distinct name from t order by name limit 3", "select distinct q.name from t q order by q.name limit 3"),
        ("select id from t union all select id from u", "(select id from t) union all (select z.id from u as z)"),
        (
            "select id from t where exists (select 1 from u where u.id = t.id)",
            "select a.id from t a where exists (select 1 from u b where b.id = a.id)",
        ),
        ("select (select max(n) from u where u.id = t.id) as m from t", "select (select max(q.n) from u q where q.id = z.id) m from t z"),
    ] {
        assert_eq!(canonical(&plan(one).await), canonical(&plan(other).await), "{one}\n{other}");
    }
}

#[tokio::test]
async fn whatever_changes_a_row_a_name_or_a_type_is_a_difference() {
    for (one, other) in [
        ("select id from t", "select n as id from t"),
        ("select id from t", "select id as x from t"),
        ("select id from t", "select cast(id as int) as id from t"),
        ("select id from t", "select id from u"),
        ("select id from t where n > 1", "select id from t where n >= 1"),
        ("select t.id from t join u on t.id = u.id", "select t.id from t left join u on t.id = u.id"),
        ("select t.id from t join u on t.id = u.id", "select t.id from t join u on t.id = u.n"),
        ("select a.id from t a join t b on a.id = b.n", "select b.id from t a join t b on a.id = b.n"),
        ("select id from t order by n limit 3", "select id from t order by n desc limit 3"),
        ("select id from t limit 3", "select id from t limit 4"),
        ("select distinct id, n from t", "select distinct n as id, id as n from t"),
        ("select id, n from t union all select id, n from u", "select id, n from t union all select n, id from u"),
        ("select id, n from (select n as id, id as n from t) x", "select id, n from t"),
        ("select id from t limit 3", "select id from t limit 3 offset 1"),
        ("select count(n) as c from t group by name", "select count(*) as c from t group by name"),
        ("select count(n) as c from t group by name", "select count(distinct n) as c from t group by name"),
        ("select sum(n) as s from t group by name, id", "select sum(n) as s from t group by name"),
        ("select sum(n) as s from t group by name", "select sum(n) filter (where n > 1) as s from t group by name"),
        ("select id from t union all select id from u", "select id from t union select id from u"),
        ("select id from t where id in (select id from u)", "select id from t where id not in (select id from u)"),
        ("select id from t where id in (select id from u)", "select id from t where id in (select n from u)"),
        ("select rank() over (order by n) as k from t", "select rank() over (order by n nulls first) as k from t"),
        ("select sum(n) over (order by n rows 1 preceding) as k from t", "select sum(n) over (order by n rows 2 preceding) as k from t"),
        (
            "select * from (values (1), (2), (3), (4), (5), (6), (7)) as v(x)",
            "select * from (values (1), (2), (3), (4), (5), (6), (8)) as v(x)",
        ),
        ("select x'00010203040506070809aa' as b from t", "select x'00010203040506070809ab' as b from t"),
    ] {
        assert_ne!(canonical(&plan(one).await), canonical(&plan(other).await), "{one}\n{other}");
    }
}

#[test]
fn words_are_tidied() {
    assert_eq!(tidied("select  A -- x\nFrom t"), "SELECT A FROM t");
    assert_eq!(tidied("not sql ("), "not sql (");
    assert_eq!(tidied_expression("n > 1 -- more"), tidied_expression("n>1"));
}
