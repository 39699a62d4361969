//! For the tests of each system: random queries over its tables, answered twice. Once the system answers what it is sent, once DataFusion
//! answers all of it over the same rows; both have to say the same.

use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use datafusion::{
    catalog::{MemTable, TableProvider},
    execution::session_state::SessionStateBuilder,
    physical_plan::displayable,
    prelude::{SessionConfig, SessionContext},
};

use super::PushDown;
use crate::browse::Browse;

/// A generator of numbers that is the same everywhere.
pub(crate) struct Numbers(pub u64);

impl Numbers {
    pub(crate) fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % most.max(1)
    }

    pub(crate) fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn some<'a>(&mut self, of: &[&'a str], most: usize) -> Vec<&'a str> {
        let mut left = of.to_vec();
        let count = self.below(most + 1);
        (0..count.min(left.len())).map(|_| left.remove(self.below(left.len()))).collect()
    }
}

/// What random queries may do with the columns that tables `a` and `b` share. `id` tells rows apart.
pub(crate) struct Columns<'a> {
    /// Equal here as there.
    pub keys: &'a [&'a str],
    /// Filters over `{}`, the table's name with its dot.
    pub filters: &'a [&'a str],
    /// Aggregates over `{}`.
    pub aggregates: &'a [&'a str],
    /// Every column, to be read.
    pub all: &'a [&'a str],
}

/// A session that sends what can be sent.
pub(crate) fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(3).with_batch_size(100);
    let rule = Arc::new(PushDown);
    SessionContext::new_with_state(SessionStateBuilder::new().with_default_features().with_config(config).with_optimizer_rule(rule).build())
}

/// Registers the tables under their names.
pub(crate) async fn with_tables(browse: &dyn Browse, schema: &str, tables: &[&str]) -> SessionContext {
    let context = session();
    for table in tables {
        let found = browse.table(schema, table).await.expect("reachable").unwrap_or_else(|| panic!("there is a table {table}"));
        context.register_table(*table, found).expect("registered");
    }
    context
}

/// A session over the same rows in memory.
pub(crate) async fn copied(live: &SessionContext, tables: &[&str]) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3).with_batch_size(100));
    for table in tables {
        let frame = live.table(*table).await.expect("a table");
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let rows = frame.collect().await.unwrap_or_else(|error| panic!("{table}: {error}"));
        context
            .register_table(*table, Arc::new(MemTable::try_new(schema, vec![rows]).expect("a table")) as Arc<dyn TableProvider>)
            .expect("registered");
    }
    context
}

/// The answer, sorted unless the query says how.
pub(crate) async fn answer(context: &SessionContext, sql: &str) -> Vec<String> {
    let frame = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let rows = frame.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let text = pretty_format_batches(&rows).expect("shown").to_string();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join("|"))
        .collect();
    if !sql.contains(" order by ") {
        lines.sort();
    }
    lines
}

/// The physical plan.
pub(crate) async fn plan(context: &SessionContext, sql: &str) -> String {
    let frame = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let plan = frame.create_physical_plan().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    displayable(plan.as_ref()).indent(false).to_string()
}

/// Asks random queries of both. Gives how many of them were answered by the system as one query.
pub(crate) async fn agree(live: &SessionContext, name: &str, columns: &Columns<'_>, seed: u64, count: usize) -> usize {
    let copy = copied(live, &["a", "b"]).await;
    let mut numbers = Numbers(seed);
    let mut whole = 0;
    for _ in 0..count {
        let sql = query(&mut numbers, columns);
        let plan = plan(live, &sql).await;
        whole += usize::from(plan.matches(name).count() == 1 && !plan.contains("AggregateExec") && !plan.contains("JoinExec"));
        let (theirs, ours) = (answer(live, &sql).await, answer(&copy, &sql).await);
        assert_eq!(theirs, ours, "{sql}\n{plan}");
    }
    whole
}

fn query(numbers: &mut Numbers, columns: &Columns<'_>) -> String {
    let on = |numbers: &mut Numbers, left: &str, right: &str| {
        let keys = numbers.some(columns.keys, 2);
        let keys = if keys.is_empty() { vec![columns.keys[0]] } else { keys };
        keys.iter().map(|key| format!("{left}.{key} = {right}.{key}")).collect::<Vec<_>>().join(" and ")
    };
    let (from, tables): (String, Vec<&str>) = match numbers.below(7) {
        0..3 => ("a".into(), vec!["a"]),
        3 | 4 => {
            let kind = numbers.one(&["join", "left join", "right join"]);
            (format!("a {kind} b on {}", on(numbers, "a", "b")), vec!["a", "b"])
        }
        5 => {
            let filter = numbers.one(columns.filters).replace("{}", "");
            (format!("a left join (select * from b where {filter}) b on {}", on(numbers, "a", "b")), vec!["a", "b"])
        }
        _ => {
            let (first, second) = (on(numbers, "a", "b"), on(numbers, "b", "c"));
            (format!("a join b on {first} join a c on {second} and b.id = c.id"), vec!["a", "b", "c"])
        }
    };
    let any = |numbers: &mut Numbers| numbers.one(&tables).to_owned();
    let mut conditions = Vec::new();
    for _ in 0..numbers.below(3) {
        let table = any(numbers);
        conditions.push(numbers.one(columns.filters).replace("{}", &format!("{table}.")));
    }
    let filter = if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
    if numbers.below(4) == 0 {
        let shown: Vec<String> =
            tables.iter().flat_map(|table| columns.all.iter().map(move |column| format!("{table}.{column}"))).collect();
        let by: Vec<String> =
            tables.iter().map(|table| format!("{table}.id {}", numbers.one(&["", "desc", "nulls first", "desc nulls last"]))).collect();
        // Where one side is missing, its rows may be many: only rows with every id are told apart.
        return format!("select {} from {from}{filter} order by {} limit {}", shown.join(", "), by.join(", "), 1 + numbers.below(20));
    }
    let keys: Vec<String> = (0..numbers.below(3)).map(|_| format!("{}.{}", any(numbers), numbers.one(columns.keys))).collect();
    let mut list = keys.clone();
    for _ in 0..1 + numbers.below(3) {
        let table = any(numbers);
        list.push(numbers.one(columns.aggregates).replace("{}", &format!("{table}.")));
    }
    let list: Vec<String> = list.iter().enumerate().map(|(number, item)| format!("{item} as x{number}")).collect();
    let group = if keys.is_empty() { String::new() } else { format!(" group by {}", keys.join(", ")) };
    let having = if numbers.below(4) == 0 { " having count(*) > 2" } else { "" };
    format!("select {} from {from}{filter}{group}{having}", list.join(", "))
}
