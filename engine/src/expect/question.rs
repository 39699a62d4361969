//! What an expectation asks of its steps' tables: the rows that break it, or one value. Planned over empty tables before the run and
//! over the rows once they are staged, by the same words.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    common::{
        Column, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result as DfResult},
    logical_expr::{Expr, ExprSchemable, LogicalPlanBuilder, cast, lit, utils::find_aggregate_exprs},
    prelude::{DataFrame, SessionContext},
};
use weir_connectors::quote;
use weir_pipelines::{Diagnostic, Diagnostics, Expectation, Expected, Measure, Reference, Scalar, SourceFile, Spanned, SqlText};

use super::{EXAMPLES_MAX, value};
use crate::{
    failing::ROWS_MAX,
    params,
    sql::{Asked, explain, explain_expression, verified},
    transforms::unknown_column,
};

/// What is asked.
pub enum Question {
    /// How many rows there are.
    RowCount,
    /// Each row is one that breaks it.
    Rows(DataFrame),
    /// Keys that occur more than once.
    Repeated(Box<Repeated>),
    /// One row with one value.
    Value(DataFrame),
}

/// What is asked of keys that occur more than once.
pub struct Repeated {
    /// One row: how many keys, and how many rows have them.
    pub counts: DataFrame,
    /// Some of the keys.
    pub examples: DataFrame,
    /// The rows, those of a key together, as many as are kept.
    pub rows: DataFrame,
}

impl Question {
    fn frames(&self) -> Vec<&DataFrame> {
        match self {
            Question::RowCount => vec![],
            Question::Rows(frame) | Question::Value(frame) => vec![frame],
            Question::Repeated(asked) => vec![&asked.counts, &asked.examples, &asked.rows],
        }
    }
}

/// Plans an expectation in a session that knows the tables it reads by the names it gives them.
pub async fn ask(expectation: &Expectation, session: &SessionContext, file: &std::sync::Arc<SourceFile>) -> Result<Question, Diagnostics> {
    let cx = Cx { session, on: &expectation.on.value, file };
    let unforeseen =
        |error: DataFusionError| vec![Diagnostic::error("cannot-plan", crate::sql::message(&error)).at(file, expectation.span.clone(), "")];
    let question = match &expectation.expected {
        Expected::NoRows(sql) => match params::query(session, sql).await {
            Ok((state, plan)) => Question::Rows(DataFrame::new(state, plan)),
            Err(error) => return Err(explain(session, sql, &error).await),
        },
        Expected::RowCount { .. } | Expected::Change { of: Measure::RowCount, .. } => Question::RowCount,
        Expected::Unique(columns) => {
            cx.known(columns, cx.on).await?;
            let schema = cx.schema(cx.on).await;
            cx.repeated(columns, &schema).await.map_err(unforeseen)?
        }
        Expected::NotNull(columns) => {
            cx.known(columns, cx.on).await?;
            let any: Vec<String> = columns.iter().map(|column| format!("{} is null", quote::identifier(&column.value))).collect();
            Question::Rows(
                cx.sql(&format!("select * from {} where {}", quote::identifier(cx.on), any.join(" or "))).await.map_err(unforeseen)?,
            )
        }
        Expected::AcceptedValues { column, values } => cx.accepted_values(column, values).await?,
        Expected::ForeignKey { columns, references, to } => cx.foreign_key(columns, references, to).await?.map_err(unforeseen)?,
        Expected::Freshness { column, .. } => {
            let found = cx.type_of(column).await?;
            if !matches!(found, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) | DataType::Null) {
                let message = format!("column \"{}\" is of type {found}, and freshness is that of a date or a timestamp", column.value);
                return Err(vec![
                    Diagnostic::error("wrong-type", message)
                        .at(file, column.span.clone(), "")
                        .help("give it such a type: in the contract with \"format\": \"date-time\", or with a \"cast\" before"),
                ]);
            }
            let sql = format!("select max({}) from {}", quote::identifier(&column.value), quote::identifier(cx.on));
            Question::Value(cx.sql(&sql).await.map_err(unforeseen)?)
        }
        Expected::Change { of: Measure::Aggregate(sql), .. } => Question::Value(cx.aggregate(sql).await?),
    };
    for frame in question.frames() {
        // Types and constants are looked at here.
        let (state, plan) = frame.clone().into_parts();
        let Err(error) = verified(&state, plan).and_then(|plan| state.optimize(&plan)) else { continue };
        return Err(match &expectation.expected {
            Expected::NoRows(sql) => explain(session, sql, &error).await,
            Expected::Change { of: Measure::Aggregate(sql), .. } => cx.explain(sql, &error).await,
            _ => unforeseen(error),
        });
    }
    Ok(question)
}

struct Cx<'a> {
    session: &'a SessionContext,
    on: &'a str,
    file: &'a std::sync::Arc<SourceFile>,
}

impl Cx<'_> {
    async fn sql(&self, sql: &str) -> DfResult<DataFrame> {
        self.session.sql(sql).await
    }

    async fn schema(&self, table: &str) -> SchemaRef {
        let table = self.session.table(TableReference::bare(table)).await.expect("what is read is registered");
        table.schema().inner().clone()
    }

    /// The types of these columns of a table.
    async fn known(&self, columns: &[Spanned<String>], table: &str) -> Result<Vec<DataType>, Diagnostics> {
        let schema = self.schema(table).await;
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let (mut types, mut wrong) = (Vec::new(), Diagnostics::new());
        for column in columns {
            match schema.field_with_name(&column.value) {
                Ok(field) => types.push(field.data_type().clone()),
                Err(_) => wrong.push(unknown_column(column, table, &names, self.file)),
            }
        }
        if wrong.is_empty() { Ok(types) } else { Err(wrong) }
    }

    async fn type_of(&self, column: &Spanned<String>) -> Result<DataType, Diagnostics> {
        Ok(self.known(std::slice::from_ref(column), self.on).await?.remove(0))
    }

    async fn repeated(&self, columns: &[Spanned<String>], schema: &SchemaRef) -> DfResult<Question> {
        let on = quote::identifier(self.on);
        let names: Vec<String> = columns.iter().map(|column| quote::identifier(&column.value)).collect();
        let listed = names.join(", ");
        let keys = |select: &str| format!("select {select} from {on} group by {listed} having count(*) > 1");
        let counts = format!("select count(*), sum(\"__weir_rows\") from ({})", keys("count(*) as \"__weir_rows\""));
        let aliased: Vec<String> = names.iter().enumerate().map(|(at, name)| format!("{name} as \"__weir_{at}\"")).collect();
        let same: Vec<String> =
            names.iter().enumerate().map(|(at, name)| format!("(k.\"__weir_{at}\" is not distinct from r.{name})")).collect();
        // The other columns make the order the same every time.
        let others = schema.fields().iter().filter(|field| !field.data_type().is_nested()).map(|field| quote::identifier(field.name()));
        let others: Vec<String> = others.filter(|name| !names.contains(name)).collect();
        let order: Vec<String> = names.iter().chain(&others).map(|name| format!("r.{name}")).collect();
        let rows = format!(
            "select r.* from ({} order by {listed} limit {ROWS_MAX}) k right semi join {on} r on {} order by {} limit {ROWS_MAX}",
            keys(&aliased.join(", ")),
            same.join(" and "),
            order.join(", ")
        );
        let asked = Repeated {
            counts: self.sql(&counts).await?,
            examples: self.sql(&format!("{} order by {listed} limit {EXAMPLES_MAX}", keys(&listed))).await?,
            rows: self.sql(&rows).await?,
        };
        Ok(Question::Repeated(Box::new(asked)))
    }

    async fn accepted_values(&self, column: &Spanned<String>, values: &[Spanned<Scalar>]) -> Result<Question, Diagnostics> {
        let found = self.type_of(column).await?;
        let (mut list, mut wrong) = (Vec::new(), Diagnostics::new());
        for one in values {
            match value::fit(&one.value, &found) {
                Some(fitting) => list.extend(fitting.into_iter().map(lit)),
                None => {
                    let message = format!("column \"{}\" is of type {found} and never holds {}", column.value, one.value);
                    wrong.push(Diagnostic::error("wrong-type", message).at(self.file, one.span.clone(), ""));
                }
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let table = self.session.table(TableReference::bare(self.on)).await;
        let rows = table.and_then(|table| table.filter(Expr::Column(Column::new_unqualified(&column.value)).in_list(list, true)));
        rows.map(Question::Rows)
            .map_err(|error| vec![Diagnostic::error("cannot-plan", crate::sql::message(&error)).at(self.file, column.span.clone(), "")])
    }

    async fn foreign_key(
        &self,
        columns: &[Spanned<String>],
        references: &Reference,
        to: &[Spanned<String>],
    ) -> Result<DfResult<Question>, Diagnostics> {
        let there = &references.name().value;
        let (ours, theirs) = match (self.known(columns, self.on).await, self.known(to, there).await) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (ours, theirs) => {
                let theirs = theirs.err().into_iter().flatten().map(|mut wrong| {
                    if let Reference::Lake { .. } = references {
                        wrong.message = wrong.message.replace(&format!("in step \"{there}\""), &format!("in table \"{there}\""));
                    }
                    wrong
                });
                return Err(ours.err().into_iter().flatten().chain(theirs).collect());
            }
        };
        let wrong: Diagnostics = columns
            .iter()
            .zip(to)
            .zip(ours.iter().zip(&theirs))
            .filter(|(_, (ours, theirs))| !comparable(ours, theirs))
            .map(|((column, to), (ours, theirs))| {
                let message = format!(
                    "column \"{}\" is of type {ours}, and \"{}\" of \"{there}\" of type {theirs}: they are never equal",
                    column.value, to.value
                );
                Diagnostic::error("wrong-type", message).at(self.file, column.span.clone(), "").help("give one of them the other's type")
            })
            .collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let pairs = || columns.iter().zip(to).enumerate();
        let keys: Vec<String> = pairs().map(|(at, (_, to))| format!("{} as \"__weir_{at}\"", quote::identifier(&to.value))).collect();
        let whole: Vec<String> = pairs().map(|(_, (column, _))| format!("{} is not null", quote::identifier(&column.value))).collect();
        let same: Vec<String> =
            pairs().map(|(at, (column, _))| format!("k.\"__weir_{at}\" = r.{}", quote::identifier(&column.value))).collect();
        // The left side of a hash join is held in memory: these are the keys, not the rows.
        let sql = format!(
            "select r.* from (select distinct {} from {}) k right anti join (select * from {} where {}) r on {}",
            keys.join(", "),
            quote::identifier(there),
            quote::identifier(self.on),
            whole.join(" and "),
            same.join(" and ")
        );
        Ok(self.sql(&sql).await.map(Question::Rows))
    }

    async fn explain(&self, sql: &SqlText, error: &DataFusionError) -> Diagnostics {
        let table = self.session.table(TableReference::bare(self.on)).await.expect("what is read is registered");
        explain_expression(&self.session.state(), sql, table.schema(), Asked::Value, Some(error))
    }

    /// One number made of aggregates over the whole step.
    async fn aggregate(&self, sql: &SqlText) -> Result<DataFrame, Diagnostics> {
        let table = self.session.table(TableReference::bare(self.on)).await.expect("what is read is registered");
        let (state, schema) = (self.session.state(), table.schema().clone());
        let wrong = |error: DataFusionError| explain_expression(&state, sql, &schema, Asked::Value, Some(&error));
        let expression = params::expression(&state, sql, table.schema()).map_err(wrong)?;
        let aggregates = find_aggregate_exprs([&expression]);
        let mut bare: Option<String> = None;
        let over = |expression: Expr| {
            if aggregates.contains(&expression) {
                let name = expression.schema_name().to_string();
                return Ok(Transformed::new(Expr::Column(Column::new_unqualified(name)), true, TreeNodeRecursion::Jump));
            }
            if let Expr::Column(column) = &expression {
                bare.get_or_insert_with(|| column.name.clone());
            }
            Ok(Transformed::no(expression))
        };
        let rebased = expression.transform_down(over).map_err(wrong)?.data;
        let told = |code: &'static str, message: String| vec![Diagnostic::error(code, message).at(&sql.file, sql.span.clone(), "")];
        if let Some(column) = bare {
            return Err(told(
                "not-an-aggregate",
                format!("\"{column}\" is used outside of an aggregate: one number for all rows is asked for"),
            )
            .into_iter()
            .map(|found| found.help(format!("write for instance avg({})", quoted_where_needed(&column))))
            .collect());
        }
        if aggregates.is_empty() {
            return Err(told("not-an-aggregate", "this is no aggregate of the step's rows".to_owned())
                .into_iter()
                .map(|found| found.help("write row_count, or for instance avg(amount)"))
                .collect());
        }
        let (made, plan) = table.into_parts();
        let plan = LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), aggregates).and_then(LogicalPlanBuilder::build);
        let plan = plan.map_err(wrong)?;
        let found = rebased.get_type(plan.schema()).map_err(wrong)?;
        if !found.is_numeric() && found != DataType::Null {
            return Err(told("wrong-type", format!("the aggregate is of type {found}, and a change is that of a number")));
        }
        let value = cast(rebased, DataType::Float64).alias("value");
        let plan = LogicalPlanBuilder::from(plan).project([value]).and_then(LogicalPlanBuilder::build).map_err(wrong)?;
        Ok(DataFrame::new(made, plan))
    }
}

fn quoted_where_needed(column: &str) -> String {
    let plain = column.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !column.starts_with(|c: char| c.is_ascii_digit()) { column.to_owned() } else { quote::identifier(column) }
}

/// Whether values of two types can be equal: those of one family can, whatever their width.
fn comparable(one: &DataType, other: &DataType) -> bool {
    #[derive(PartialEq)]
    enum Family {
        Number,
        Text,
        Instant,
        Time,
        Bytes,
    }
    let family = |of: &DataType| {
        let of = match of {
            DataType::Dictionary(_, values) => values.as_ref(),
            of => of,
        };
        Some(match of {
            of if of.is_numeric() => Family::Number,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::Text,
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Family::Instant,
            DataType::Time32(_) | DataType::Time64(_) => Family::Time,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Family::Bytes,
            _ => return None,
        })
    };
    one == other || one == &DataType::Null || other == &DataType::Null || (family(one).is_some() && family(one) == family(other))
}
