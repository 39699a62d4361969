//! What is meant by `$name` in SQL: the parameters of a pipeline and the interval of its run, known to the session that its steps are planned in. A query is planned with
//! their exact types and then given their values, as literals of the plan; they are never part of a text.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::{
    common::{
        plan_err,
        tree_node::{Transformed, TreeNode},
    },
    error::Result as DfResult,
    execution::{SessionState, context::SQLOptions},
    logical_expr::{Expr, LogicalPlan, expr::Placeholder, expr_rewriter::NamePreserver},
    prelude::SessionContext,
    scalar::ScalarValue,
    sql::{
        parser::Statement,
        planner::{ParserOptions, PlannerContext, SqlToRel},
    },
};
use weir_connectors::Interval;
use weir_pipelines::{INTERVAL, Param, ParamKind, ParamValue, Pipeline, SqlText};

use crate::sql::Names;

/// What has a value, or will have one in a run, each as SQL's own.
#[derive(Debug, Default)]
struct Params(Vec<(FieldRef, Option<ScalarValue>)>);

/// Lets a session know a pipeline's parameters, and the interval that its run is for. Without one, as in a check, `$interval_start` and
/// `$interval_end` have their type and no value.
pub fn set(session: &SessionContext, pipeline: &Pipeline, interval: Option<Interval>) {
    let value = |param: &Param| Some((param.name.value.clone(), Some(scalar(param.kind, param.value.as_ref()?))));
    let mut known: Vec<_> = pipeline.params.iter().filter_map(value).collect();
    if pipeline.reads_interval() {
        let end = |at: fn(&Interval) -> DateTime<Utc>| interval.map(|interval| instant(at(&interval)));
        let ends = [end(|interval| interval.start), end(|interval| interval.end)];
        known.extend(INTERVAL.into_iter().map(str::to_owned).zip(ends));
    }
    if known.is_empty() {
        return;
    }
    let known = known.into_iter().map(|(name, value)| {
        let data_type = value.as_ref().map_or_else(|| instant(DateTime::UNIX_EPOCH).data_type(), ScalarValue::data_type);
        (Arc::new(Field::new(name, data_type, false)), value)
    });
    session.state_ref().write().config_mut().set_extension(Arc::new(Params(known.collect())));
}

/// A parameter of a saved query, of which the type is known and perhaps the value.
#[derive(Debug, Clone)]
pub struct Named(FieldRef, Option<ScalarValue>);

impl Named {
    /// One whose value is not known yet.
    pub fn open(name: &str, kind: ParamKind) -> Self {
        Self(Arc::new(Field::new(name, data_type(kind), true)), None)
    }

    /// One with a value; none is null.
    pub fn bound(name: &str, kind: ParamKind, value: Option<&ParamValue>) -> Self {
        let value = match value {
            Some(value) => scalar(kind, value),
            None => ScalarValue::try_new_null(&data_type(kind)).expect("each of these types has a null"),
        };
        Self(Arc::new(Field::new(name, value.data_type(), true)), Some(value))
    }
}

/// Lets a session know the parameters of a saved query, and none but these.
pub fn name(session: &SessionContext, named: Vec<Named>) {
    let known = named.into_iter().map(|Named(field, value)| (field, value)).collect();
    session.state_ref().write().config_mut().set_extension(Arc::new(Params(known)));
}

fn data_type(kind: ParamKind) -> DataType {
    match kind {
        ParamKind::Text => DataType::Utf8,
        ParamKind::Bigint => DataType::Int64,
        ParamKind::Double => DataType::Float64,
        ParamKind::Decimal { precision, scale } => DataType::Decimal128(precision, i8::try_from(scale).expect("at most 38")),
        ParamKind::Boolean => DataType::Boolean,
        ParamKind::Date => DataType::Date32,
        ParamKind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        ParamKind::Timestamptz => instant(DateTime::UNIX_EPOCH).data_type(),
    }
}

fn instant(at: DateTime<Utc>) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()))
}

fn scalar(kind: ParamKind, value: &ParamValue) -> ScalarValue {
    match (kind, value) {
        (_, ParamValue::Text(text)) => ScalarValue::Utf8(Some(text.clone())),
        (_, ParamValue::Bigint(number)) => ScalarValue::Int64(Some(*number)),
        (_, ParamValue::Double(number)) => ScalarValue::Float64(Some(*number)),
        (ParamKind::Decimal { precision, .. }, ParamValue::Decimal { digits, scale }) => {
            ScalarValue::Decimal128(Some(*digits), precision, i8::try_from(*scale).expect("at most 38"))
        }
        (_, ParamValue::Decimal { digits, scale }) => ScalarValue::Decimal128(Some(*digits), 38, i8::try_from(*scale).expect("at most 38")),
        (_, ParamValue::Boolean(value)) => ScalarValue::Boolean(Some(*value)),
        (_, ParamValue::Date(day)) => {
            let days = day.signed_duration_since(NaiveDate::from(DateTime::UNIX_EPOCH.naive_utc())).num_days();
            ScalarValue::Date32(Some(i32::try_from(days).expect("chrono has fewer days")))
        }
        (_, ParamValue::Timestamp(moment)) => ScalarValue::TimestampMicrosecond(Some(moment.and_utc().timestamp_micros()), None),
        (_, ParamValue::Timestamptz(at)) => instant(*at),
    }
}

fn known(state: &SessionState) -> Option<Arc<Params>> {
    state.config().get_extension::<Params>()
}

/// What a query is planned in: the types of parameters.
pub fn context(state: &SessionState) -> PlannerContext {
    let types = known(state).map(|params| params.0.iter().map(|(field, _)| Some(field.clone())).collect());
    PlannerContext::new().with_prepare_param_data_types(types.unwrap_or_default())
}

impl Params {
    /// What a placeholder stands for. DataFusion calls a parameter by its position where it knows the type, else by its name.
    fn find(&self, id: &str) -> Option<&(FieldRef, Option<ScalarValue>)> {
        let name = id.strip_prefix('$')?;
        match name.parse::<usize>() {
            Ok(place) => self.0.get(place.checked_sub(1)?),
            Err(_) => self.0.iter().find(|(field, _)| field.name() == name),
        }
    }

    /// The expression with values in it; what has none yet stays, under its name.
    fn fill(&self, expr: Expr) -> DfResult<Transformed<Expr>> {
        expr.transform_up(|part| {
            let Expr::Placeholder(Placeholder { id, .. }) = &part else { return Ok(Transformed::no(part)) };
            match self.find(id) {
                Some((_, Some(value))) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
                Some((field, None)) => {
                    let open = Placeholder::new_with_field(format!("${}", field.name()), Some(field.clone()));
                    Ok(Transformed::yes(Expr::Placeholder(open)))
                }
                None => plan_err!("no value is known for \"{id}\""),
            }
        })
    }
}

/// Gives a plan the values of parameters.
pub fn bind(state: &SessionState, plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let Some(params) = known(state) else { return Ok(plan) };
    let bound = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let filled = node.map_expressions(|expr| {
            let name = names.save(&expr);
            // Columns that others refer to keep their names.
            Ok(params.fill(expr)?.update_data(|expr| name.restore(expr)))
        })?;
        if filled.transformed { filled.map_data(LogicalPlan::recompute_schema) } else { Ok(filled) }
    });
    bound.map(|bound| bound.data)
}

/// Gives an expression the values of parameters.
pub fn bind_expression(state: &SessionState, expr: Expr) -> DfResult<Expr> {
    match known(state) {
        Some(params) => params.fill(expr).map(|filled| filled.data),
        None => Ok(expr),
    }
}

/// Plans a query in a session that knows its tables.
pub async fn query(session: &SessionContext, text: &SqlText) -> DfResult<(SessionState, LogicalPlan)> {
    let state = session.state();
    if known(&state).is_none() || text.placeholders().is_empty() {
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        return session.sql_with_options(&text.text, options).await.map(datafusion::prelude::DataFrame::into_parts);
    }
    let dialect = state.config_options().sql_parser.dialect;
    let plan = statement(session, state.sql_to_statement(&text.text, &dialect)?).await?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    Ok((state, plan))
}

/// Plans a parsed query in a session that knows its tables and its parameters, and gives these their values.
pub async fn statement(session: &SessionContext, statement: Statement) -> DfResult<LogicalPlan> {
    let state = session.state();
    let tables = crate::sql::tables(session, &statement).await;
    let Statement::Statement(statement) = statement else {
        return plan_err!("only queries can be planned");
    };
    let names = Names::new(&state, tables);
    let planner = SqlToRel::new_with_options(&names, ParserOptions::from(&state.config_options().sql_parser));
    let plan = planner.sql_statement_to_plan_with_context(*statement, &mut context(&state))?;
    bind(&state, plan)
}

/// Plans an expression over columns.
pub fn expression(state: &SessionState, text: &SqlText, schema: &datafusion::common::DFSchema) -> DfResult<Expr> {
    if known(state).is_none() || text.placeholders().is_empty() {
        return state.create_logical_expr(&text.text, schema);
    }
    let parsed = state.sql_to_expr_with_alias(&text.text, &state.config_options().sql_parser.dialect)?;
    let names = Names::new(state, Vec::new());
    let planner = SqlToRel::new_with_options(&names, ParserOptions::from(&state.config_options().sql_parser));
    bind_expression(state, planner.sql_to_expr_with_alias(parsed, schema, &mut context(state))?)
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::DataFrame;
    use weir_pipelines::{SourceFile, Spanned};

    use super::*;
    use crate::session::{Frugality, session};

    fn param(name: &str, kind: ParamKind, value: ParamValue) -> Param {
        Param { name: Spanned::new(name.to_owned(), 0..0), kind, value: Some(value), is_given: true }
    }

    async fn known_session(interval: Option<Interval>) -> SessionContext {
        let session = session(Arc::default(), 1, 8192, Frugality::Fast);
        let table = "create table t as select 1 as a, 'x' as s, date '2013-01-01' as day, 2.5 as f, timestamp '2013-01-01T00:00:00Z' as ts";
        session.sql(table).await.expect("plans").collect().await.expect("runs");
        let day = NaiveDate::from_ymd_opt(2013, 1, 2).expect("a day");
        let noon = day.and_hms_opt(12, 0, 0).expect("a time");
        let mut pipeline = pipeline();
        pipeline.params = vec![
            param("n", ParamKind::Bigint, ParamValue::Bigint(1)),
            param("s", ParamKind::Text, ParamValue::Text("x' or 'a' = 'a".into())),
            param("day", ParamKind::Date, ParamValue::Date(day)),
            param("d", ParamKind::Decimal { precision: 10, scale: 2 }, ParamValue::Decimal { digits: 125, scale: 2 }),
            param("b", ParamKind::Boolean, ParamValue::Boolean(true)),
            param("f", ParamKind::Double, ParamValue::Double(0.5)),
            param("ts", ParamKind::Timestamp, ParamValue::Timestamp(noon)),
            param("tz", ParamKind::Timestamptz, ParamValue::Timestamptz(noon.and_utc())),
        ];
        set(&session, &pipeline, interval);
        session
    }

    /// A pipeline that reads the interval of its run.
    fn pipeline() -> Pipeline {
        let text = "weir = 1\nname = \"p\"\n[source.a.file]\npath = \"a.csv\"\n[transform.t]\nfrom = \"a\"\nfilter = \"at < $interval_end\"\n[sink.z]\nfrom = \"t\"\n[sink.z.lake]\ntable = \"t\"\n";
        weir_pipelines::parse(SourceFile::new("p.toml", text), ".".into(), [].as_slice(), weir_connectors::vocabulary(&[], &[]))
            .expect("is right")
    }

    fn text(sql: &str) -> SqlText {
        SqlText::plain(SourceFile::new("q.sql", sql))
    }

    async fn answer(session: &SessionContext, sql: &str) -> String {
        let (state, plan) = match query(session, &text(sql)).await {
            Ok(planned) => planned,
            Err(error) => return format!("not planned: {}", error.strip_backtrace()),
        };
        match DataFrame::new(state, plan).collect().await {
            Ok(rows) => {
                let mut out = Vec::new();
                for batch in &rows {
                    for column in batch.columns() {
                        let shown = arrow::util::display::array_value_to_string(column, 0).unwrap_or_default();
                        out.push(format!("{}: {shown}", crate::sql::sql_name(column.data_type())));
                    }
                }
                out.join(", ")
            }
            Err(error) => format!("not run: {}", error.strip_backtrace()),
        }
    }

    #[tokio::test]
    async fn a_parameter_is_a_value_of_its_type_wherever_one_may_stand() {
        let session = known_session(None).await;
        for (sql, expected) in [
            ("select $n as x", "bigint: 1"),
            ("select $s as x", "text: x' or 'a' = 'a"),
            ("select $day as x", "date: 2013-01-02"),
            ("select $d as x", "decimal(10, 2): 1.25"),
            ("select $b as x", "boolean: true"),
            ("select $f as x", "double: 0.5"),
            ("select $ts as x", "timestamp: 2013-01-02T12:00:00"),
            ("select $tz as x", "timestamptz: 2013-01-02T12:00:00Z"),
            ("select a from t where s = $s", ""),
            ("select upper($s) as u from t", "text: X' OR 'A' = 'A"),
            ("select a from t where day < $day and $b", "bigint: 1"),
            ("select a + $n as b from t", "bigint: 2"),
            ("select $n + a as b from t", "bigint: 2"),
            ("select a from t limit $n", "bigint: 1"),
            ("select a from t where a in ($n, 2)", "bigint: 1"),
            ("select case when a = $n then $s else 'y' end as c from t", "text: x' or 'a' = 'a"),
            ("select * from (values ($n)) as v(x)", "bigint: 1"),
            ("select a from t union all select $n", "bigint: 1, bigint: 1"),
            ("select date_trunc('month', $day) as m", "timestamp: 2013-01-01T00:00:00"),
            ("select $day + interval '1 day' as m", "date: 2013-01-03"),
            ("select a from t group by a having count(*) >= $n", "bigint: 1"),
            ("select round(f, $n) as r from t", "double: 2.5"),
            ("select substr($s, 1, 1) as x", "text: x"),
            ("select coalesce(null, $n) as x", "bigint: 1"),
            ("select $day - day as x from t", "bigint: 1"),
            ("select extract(year from $day) as y", "int: 2013"),
            ("select k + 1 as z from (select $n as k) u", "bigint: 2"),
            ("with c as (select $n as k) select k + 1 as z from c", "bigint: 2"),
            ("with recursive c(k) as (select $n union all select k + 1 from c where k < 3) select max(k) as m from c", "bigint: 3"),
            ("select a from t where exists (select 1 from t u where u.a = $n)", "bigint: 1"),
            ("select (select max(a) from t where a >= $n) as e", "bigint: 1"),
            ("select a from t where a in (select a from t where a = $n)", "bigint: 1"),
            ("select [$n, 2] as x", "bigint[]: [1, 2]"),
            ("select -$n as x", "bigint: -1"),
            ("select a between $n and 3 as x from t", "boolean: true"),
            ("select cast($n as text) as x", "text: 1"),
            ("select $n::double as x", "double: 1.0"),
            ("select array_agg(a) filter (where a >= $n) as x from t", "bigint[]: [1]"),
            ("select sum(a) over (order by a) + $n as s from t", "bigint: 2"),
            ("select json_get($s, 'a') is null as x", "boolean: true"),
            ("select max(a) as m from t group by $s", "bigint: 1"),
            ("select count(*) as n from t join (select $n as k) u on u.k = t.a", "bigint: 1"),
            ("select '$n' as x", "text: $n"),
        ] {
            assert_eq!(answer(&session, sql).await, expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn an_expression_takes_parameters_too() {
        let session = known_session(None).await;
        let table = session.table("t").await.expect("is there");
        for (sql, expected) in [("a >= $n and day < $day", 1), ("s = $s", 0), ("a in ($n, 2)", 1)] {
            let expr = expression(&session.state(), &text(sql), table.schema()).expect("plans");
            let rows = table.clone().filter(expr).expect("plans").count().await.expect("runs");
            assert_eq!(rows, expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn the_interval_of_a_run_is_two_instants() {
        let at = |text: &str| -> DateTime<Utc> { text.parse().expect("an instant") };
        let interval = Interval { start: at("2013-01-01T00:00:00Z"), end: at("2013-01-02T00:00:00.000001Z") };
        let session = known_session(Some(interval)).await;
        for (sql, expected) in [
            ("select $interval_start as x", "timestamptz: 2013-01-01T00:00:00Z"),
            ("select $interval_end as x", "timestamptz: 2013-01-02T00:00:00.000001Z"),
            ("select a from t where ts >= $interval_start and ts < $interval_end", "bigint: 1"),
            ("select a from t where day < $interval_start", ""),
            ("select date_trunc('day', $interval_end) as d, $n as n", "timestamptz: 2013-01-02T00:00:00Z, bigint: 1"),
        ] {
            assert_eq!(answer(&session, sql).await, expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn a_check_knows_the_type_of_the_interval_and_no_value() {
        let session = known_session(None).await;
        let sql = "select $interval_start as x, ts < $interval_end as y, a + $n as n from t where ts >= $interval_start";
        let (_, plan) = query(&session, &text(sql)).await.expect("plans");
        let types: Vec<_> = plan.schema().fields().iter().map(|field| crate::sql::sql_name(field.data_type())).collect();
        assert_eq!(types, ["timestamptz", "boolean", "bigint"]);
        let shown = plan.to_string();
        assert!(shown.contains("$interval_start") && shown.contains("$interval_end") && !shown.contains("$1"), "{shown}");
        let wrong = query(&session, &text("select a + $interval_start as x from t")).await;
        assert!(wrong.is_err(), "an instant is added to no number");
    }
}
