//! Ad-hoc SQL over live databases: a Postgres, a ClickHouse and the lake in one query, and what is sent where.

use crate::{
    project::Project,
    servers::{Kind, fresh_database},
};

const PIPELINE: &str = r#"weir = 1
name = "airlines"
[source.airlines.file]
path = "airlines.csv"
[sink.out]
from = "airlines"
mode = "replace"
[sink.out.lake]
table = "main.airlines"
"#;

#[test]
fn live_databases_files_and_the_lake_are_tables_of_one_query() {
    let (Some(crm), Some(olap)) = (fresh_database(Kind::Postgres), fresh_database(Kind::Clickhouse)) else { return };
    crm.execute(&[
        "create table planes (tailnum text primary key, seats int, year int, \"Built by\" text)",
        "insert into planes values ('N1', 100, 1999, 'A'), ('N2', 200, 2004, 'B'), ('N3', null, 2010, 'B')",
        "create view old as select * from planes where year < 2000",
    ]);
    olap.execute(&[
        "create table delays (tailnum String, carrier String, delay Nullable(Int32)) engine = MergeTree order by tailnum",
        "insert into delays values ('N1', 'UA', 5), ('N1', 'AA', null), ('N2', 'UA', 7), ('N9', 'UA', 1)",
    ]);
    let project = Project::with(PIPELINE);
    project.write("weir.toml", format!("{}\n{}", crm.connection("crm"), olap.connection("olap")));
    project.write("airlines.csv", "code,name\nUA,United\nAA,American\n");
    project.run(&["pipeline.toml"]);
    let database = &olap.name;
    let rows = |sql: &str| project.sql(sql).split_off(1);

    let joined = format!(
        "select a.name, sum(d.delay) as delay, max(p.seats) as seats from olap.{database}.delays d \
         join crm.public.planes p on p.tailnum = d.tailnum join lake.main.airlines a on a.code = d.carrier \
         join file('airlines.csv') f on f.code = a.code group by a.name"
    );
    assert_eq!(rows(&joined), ["American,,100", "United,12,200"]);
    assert_eq!(rows("select tailnum from crm.public.old"), ["N1"]);
    assert_eq!(rows("select \"Built by\", count(*) from crm.public.planes group by 1"), ["A,1", "B,2"]);

    let listed = format!(
        "select table_catalog, table_schema, table_name, table_type from information_schema.tables \
         where table_catalog in ('crm', 'olap') and table_schema in ('public', '{database}')"
    );
    let tables = rows(&listed);
    assert_eq!(
        tables,
        ["crm,public,old,VIEW".to_owned(), "crm,public,planes,BASE TABLE".to_owned(), format!("olap,{database},delays,BASE TABLE"),]
    );
    let columns =
        rows("select column_name, is_nullable from information_schema.columns where table_catalog = 'crm' and table_name = 'planes'");
    assert_eq!(columns, ["Built by,YES", "seats,YES", "tailnum,NO", "year,YES"]);

    // One query goes to each system, and what it is compared with stays out of sight.
    let plan = rows("explain select \"Built by\", count(*) from crm.public.planes where tailnum = 'N2' group by 1").join("\n");
    assert!(plan.contains("PostgresQuery: crm") && plan.contains("group by") && !plan.contains("AggregateExec"), "{plan}");
    let sent = plan.split("PostgresQuery").nth(1).unwrap_or_default();
    assert!(!sent.contains("N2"), "{plan}");

    project.weir(&["sql", "-c", "select * from crm.public.plains"]).says(&["plains"]).one_screen();
    project.weir(&["sql", "-c", "select nothing from crm.public.planes"]).says(&["nothing"]).one_screen();
    // What is read cannot be changed.
    project.weir(&["sql", "-c", "delete from crm.public.planes"]).says(&["read-only"]).one_screen();
    assert_eq!(crm.value("select count(*) from planes"), "3");
}
