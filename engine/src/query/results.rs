//! Small answers that were given before: while no table that they are of has a new commit, they are given again.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    catalog::TableProvider,
    common::tree_node::{TreeNode, TreeNodeRecursion},
    datasource::source_as_provider,
    logical_expr::{Expr, LogicalPlan, Volatility},
};
use indexmap::IndexMap;
use parking_lot::Mutex;
use weir_connectors::{lake::Tables, spill::alone};

/// Bytes of an answer that is kept.
const ANSWER_MAX: usize = 1 << 20;
/// Bytes of a statement whose answer is kept.
const SQL_MAX: usize = 16 << 10;
/// Bytes that the plan of a statement holds for each byte of its text, about.
const PLAN_BYTES: usize = 50;
/// Bytes of all answers and their questions; the oldest make room.
const BYTES_MAX: usize = 64 << 20;
/// All of them; the oldest make room.
const ANSWERS_MAX: usize = 1000;

/// Answers by what was asked.
#[derive(Debug)]
pub(super) struct Results {
    /// What the tables of questions are of.
    lakes: [Arc<Tables>; 2],
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    answers: IndexMap<Question, Given>,
    bytes: usize,
}

#[derive(Debug)]
struct Given {
    batches: Vec<RecordBatch>,
    /// With the question's.
    bytes: usize,
}

/// What was asked, of which versions of tables. It holds the tables, so that no other one can come to be where they are.
#[derive(Debug, Clone)]
pub(super) struct Question {
    plan: LogicalPlan,
    /// The types of the plan's literals: DataFusion holds two that differ in their zone or their width for the same.
    types: Vec<DataType>,
    tables: Vec<Arc<dyn TableProvider>>,
    /// What it takes in memory, about.
    bytes: usize,
}

impl Question {
    /// The question of a statement. None where the answer may be another one next time, or where the question is too large to be kept.
    fn of(sql: &str, plan: &LogicalPlan, is_newest: impl Fn(&Arc<dyn TableProvider>) -> bool) -> Option<Self> {
        if sql.len() > SQL_MAX || matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
            return None;
        }
        let (mut tables, mut types, mut literals, mut lasts) = (Vec::new(), Vec::new(), 0, true);
        let walked = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                match source_as_provider(&scan.source) {
                    Ok(table) if is_newest(&table) => tables.push(table),
                    _ => lasts = false,
                }
            }
            for expr in node.expressions() {
                let _ = expr.apply(|part| {
                    lasts &= is_lasting(part);
                    if let Expr::Literal(value, _) = part {
                        types.push(value.data_type());
                        literals += value.size();
                    }
                    Ok(if lasts { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
                });
            }
            lasts &= !matches!(node, LogicalPlan::Extension(_) | LogicalPlan::RecursiveQuery(_));
            Ok(if lasts { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        });
        // Values of parameters may be larger than the text that they are for.
        lasts &= literals <= ANSWER_MAX;
        let bytes = sql.len() * PLAN_BYTES + literals;
        // A question of no table is answered as fast as it is looked up.
        (walked.is_ok() && lasts && !tables.is_empty()).then(|| Self { plan: plan.clone(), types, tables, bytes })
    }

    fn places(&self) -> impl Iterator<Item = *const ()> + '_ {
        self.tables.iter().map(place)
    }
}

fn place(table: &Arc<dyn TableProvider>) -> *const () {
    Arc::as_ptr(table).cast::<()>()
}

fn is_lasting(expr: &Expr) -> bool {
    let volatility = match expr {
        Expr::ScalarFunction(called) => called.func.signature().volatility,
        Expr::AggregateFunction(called) => called.func.signature().volatility,
        Expr::ScalarVariable(..) | Expr::Placeholder(_) => return false,
        _ => return true,
    };
    volatility == Volatility::Immutable
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        self.places().eq(other.places()) && self.types == other.types && self.plan == other.plan
    }
}

impl Eq for Question {}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plan.hash(state);
        self.types.hash(state);
        self.places().for_each(|place| place.hash(state));
    }
}

impl Results {
    /// None yet, of tables of these.
    pub fn new(lakes: [Arc<Tables>; 2]) -> Self {
        Self { lakes, kept: Mutex::default() }
    }

    /// What a statement asks, where its answer can be kept.
    pub fn question(&self, sql: &str, plan: &LogicalPlan) -> Option<Question> {
        Question::of(sql, plan, |table| self.is_newest(table))
    }

    /// The answer that was given to this.
    pub fn get(&self, question: &Question) -> Option<Vec<RecordBatch>> {
        self.kept.lock().answers.get(question).map(|given| given.batches.clone())
    }

    fn is_newest(&self, table: &Arc<dyn TableProvider>) -> bool {
        self.lakes.iter().any(|lake| lake.holds(table))
    }
}

impl Kept {
    /// Keeps an answer, and drops those of tables that have a newer version.
    fn keep(&mut self, question: Question, given: Given, is_newest: impl Fn(&Arc<dyn TableProvider>) -> bool) {
        let mut known = HashMap::new();
        let mut is_current =
            |question: &Question| question.tables.iter().all(|table| *known.entry(place(table)).or_insert_with(|| is_newest(table)));
        let bytes = &mut self.bytes;
        self.answers.retain(|question, given| {
            let stays = is_current(question);
            *bytes -= if stays { 0 } else { given.bytes };
            stays
        });
        // A commit may have come while it was answered.
        if !is_current(&question) {
            return;
        }
        self.bytes += given.bytes;
        if let Some(before) = self.answers.insert(question, given) {
            self.bytes -= before.bytes;
        }
        while self.bytes > BYTES_MAX || self.answers.len() > ANSWERS_MAX {
            let Some((_, oldest)) = self.answers.shift_remove_index(0) else { break };
            self.bytes -= oldest.bytes;
        }
    }
}

/// An answer while it is given, to be kept when it has been given to its end and is small.
pub(super) struct Keeping {
    results: Arc<Results>,
    question: Question,
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl Keeping {
    pub fn new(results: Arc<Results>, question: Question) -> Self {
        Self { results, question, batches: vec![], bytes: 0 }
    }

    /// Takes a batch. None: it has become too large.
    pub fn take(mut self, batch: &RecordBatch) -> Option<Self> {
        let batch = alone(batch).ok()?;
        // What a slice holds alive counts, not what it shows.
        self.bytes += size_of::<RecordBatch>() + batch.get_array_memory_size();
        self.batches.push(batch);
        (self.bytes <= ANSWER_MAX).then_some(self)
    }

    /// The answer is whole.
    pub fn whole(self, schema: &SchemaRef) {
        let bytes = self.bytes + self.question.bytes + schema.fields().len() * size_of::<arrow::datatypes::Field>();
        let (results, given) = (&self.results, Given { batches: self.batches, bytes });
        results.kept.lock().keep(self.question, given, |table| results.is_newest(table));
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, BinaryViewArray, StringViewArray},
        datatypes::{Field, Schema},
    };
    use datafusion::{
        datasource::{empty::EmptyTable, provider_as_source},
        logical_expr::{LogicalPlanBuilder, lit, scalar_subquery},
        scalar::ScalarValue,
    };

    use super::*;

    fn table() -> Arc<dyn TableProvider> {
        Arc::new(EmptyTable::new(Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]))))
    }

    fn scan(table: &Arc<dyn TableProvider>, filter: Expr) -> LogicalPlan {
        let scan = LogicalPlanBuilder::scan("t", provider_as_source(table.clone()), None).expect("a scan");
        scan.filter(filter).and_then(LogicalPlanBuilder::build).expect("a plan")
    }

    /// A question in which a value stands, which no column shows.
    fn question(table: &Arc<dyn TableProvider>, value: impl Into<ScalarValue>) -> Question {
        Question::of("select", &scan(table, lit(value.into()).is_not_null()), |_| true).expect("it can be kept")
    }

    fn given(bytes: usize) -> Given {
        Given { batches: vec![], bytes }
    }

    #[test]
    fn a_literal_of_another_type_is_another_question() {
        let table = table();
        let instant = |zone: Option<&str>| ScalarValue::TimestampMicrosecond(Some(7), zone.map(Into::into));
        let bytes = |width| ScalarValue::FixedSizeBinary(width, None);
        for (one, other) in [(instant(None), instant(Some("UTC"))), (instant(Some("UTC")), instant(Some("+02:00"))), (bytes(2), bytes(3))] {
            let (first, second) = (question(&table, one.clone()), question(&table, other.clone()));
            assert_ne!(first, second);
            assert_eq!(first, question(&table, one.clone()));
            let within = |value: ScalarValue| {
                let inner = Arc::new(scan(&table, lit(value).is_not_null()));
                Question::of("select", &scan(&table, scalar_subquery(inner).is_not_null()), |_| true).expect("it can be kept")
            };
            assert_ne!(within(one.clone()), within(other));
            assert_eq!(within(one.clone()), within(one.clone()));
            let mut kept = Kept::default();
            kept.keep(first, given(1), |_| true);
            assert!(kept.answers.get(&second).is_none());
            assert!(kept.answers.get(&question(&table, one)).is_some());
        }
    }

    #[test]
    fn a_question_is_weighed_and_one_that_is_too_large_is_not_kept() {
        let (table, small) = (table(), "x".repeat(100));
        let asked = |sql: &str, value: &str| Question::of(sql, &scan(&table, lit(value).is_not_null()), |_| true);
        let bytes = |sql: &str, value: &str| asked(sql, value).expect("it can be kept").bytes;
        assert_eq!(bytes(&"x".repeat(SQL_MAX), "") - bytes("", ""), SQL_MAX * PLAN_BYTES);
        assert!(bytes("", &small) >= bytes("", "") + small.len());
        assert!(asked(&"x".repeat(SQL_MAX + 1), "").is_none());
        assert!(asked("", &"x".repeat(ANSWER_MAX)).is_none(), "the value of a parameter is not in the text");
        assert!(Question::of("", &scan(&table, lit(1).is_not_null()), |_| false).is_none(), "the table is no newest version");
    }

    #[test]
    fn a_short_answer_holds_no_page_of_a_file_alive() {
        let long = |at: usize| format!("{at:>200}");
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..20_000).map(long)));
        let bytes: ArrayRef = Arc::new(BinaryViewArray::from_iter_values((0..20_000).map(long)));
        let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8View, false), Field::new("b", DataType::BinaryView, false)]));
        let page = RecordBatch::try_new(schema, vec![texts, bytes]).expect("a batch");
        let lake = || Arc::new(Tables::new("/nowhere", Arc::default()));
        let keeping = || Keeping::new(Arc::new(Results::new([lake(), lake()])), question(&table(), 1_i64));
        let kept = keeping().take(&page.slice(7, 2)).expect("it is small");
        assert!(kept.bytes < 4_000, "{}", kept.bytes);
        assert_eq!(kept.batches, [page.slice(7, 2)]);
        assert!(keeping().take(&page).is_none(), "nor is a long one kept");
        let none = RecordBatch::new_empty(Arc::new(Schema::empty())).slice(0, 0);
        assert_eq!(keeping().take(&none).expect("it is small").batches, [none]);
    }

    #[test]
    fn answers_are_so_many_and_so_large_at_most() {
        let (table, mut kept) = (table(), Kept::default());
        for number in 0..1_500_i64 {
            kept.keep(question(&table, number), given(10), |_| true);
        }
        assert_eq!((kept.answers.len(), kept.bytes), (ANSWERS_MAX, 10 * ANSWERS_MAX));
        assert!(kept.answers.get(&question(&table, 499_i64)).is_none() && kept.answers.get(&question(&table, 500_i64)).is_some());
        kept.keep(question(&table, 2_000_i64), given(BYTES_MAX - 20), |_| true);
        assert_eq!((kept.answers.len(), kept.bytes), (3, BYTES_MAX));
        // The same once more takes the place of the one before.
        kept.keep(question(&table, 2_000_i64), given(30), |_| true);
        assert_eq!((kept.answers.len(), kept.bytes), (3, 50));
    }

    #[test]
    fn answers_of_older_versions_are_dropped_when_one_is_put_in() {
        let (old, new, mut kept) = (table(), table(), Kept::default());
        kept.keep(question(&old, 1_i64), given(10), |_| true);
        kept.keep(question(&new, 1_i64), given(20), |_| true);
        let is_newest = |table: &Arc<dyn TableProvider>| Arc::ptr_eq(table, &new);
        kept.keep(question(&new, 2_i64), given(30), is_newest);
        assert_eq!((kept.answers.len(), kept.bytes), (2, 50));
        assert!(kept.answers.get(&question(&old, 1_i64)).is_none());
        kept.keep(question(&old, 3_i64), given(40), is_newest);
        assert_eq!((kept.answers.len(), kept.bytes), (2, 50), "nor is one kept that came too late");
    }
}
