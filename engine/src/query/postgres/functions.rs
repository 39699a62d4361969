//! Which functions of Postgres tell of the session? Who asks, where, and what their clients want to know of what is in `pg_catalog`.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::datatypes::DataType;
use datafusion::{
    common::ScalarValue,
    error::Result as DfResult,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility},
    prelude::SessionContext,
};
use datafusion_pg_catalog::pg_catalog;

use super::{
    VERSION,
    tables::{OWNER, Owned, PgCatalog},
};

type Body = Arc<dyn Fn(&[ScalarValue]) -> ScalarValue + Send + Sync>;

/// A function of values, whatever their types.
struct Told {
    name: &'static str,
    signature: Signature,
    returns: DataType,
    body: Body,
}

impl Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").field("name", &self.name).finish_non_exhaustive()
    }
}

// Two of one name in one session are the same.
impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.body, &other.body)
    }
}
impl Eq for Told {}
impl Hash for Told {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Told {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let values = (0..rows).map(|row| {
            let given = args.args.iter().map(|argument| match argument {
                ColumnarValue::Scalar(value) => Ok(value.clone()),
                ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row),
            });
            Ok((self.body)(&given.collect::<DfResult<Vec<_>>>()?))
        });
        let values = values.collect::<DfResult<Vec<_>>>()?;
        match values.first() {
            Some(value) if is_constant => Ok(ColumnarValue::Scalar(value.clone())),
            None => Ok(ColumnarValue::Array(arrow::array::new_empty_array(&self.returns))),
            Some(_) => Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?)),
        }
    }
}

fn told(
    name: &'static str,
    counts: &[usize],
    returns: DataType,
    body: impl Fn(&[ScalarValue]) -> ScalarValue + Send + Sync + 'static,
) -> ScalarUDF {
    let one = |count: &usize| if *count == 0 { TypeSignature::Nullary } else { TypeSignature::Any(*count) };
    let signature = Signature::one_of(counts.iter().map(one).collect(), Volatility::Stable);
    ScalarUDF::new_from_impl(Told { name, signature, returns, body: Arc::new(body) })
}

fn text(value: impl Into<String>) -> ScalarValue {
    ScalarValue::Utf8(Some(value.into()))
}

fn number(value: &ScalarValue) -> Option<i32> {
    match value.cast_to(&DataType::Int32) {
        Ok(ScalarValue::Int32(number)) => number,
        _ => None,
    }
}

fn json(value: &ScalarValue) -> serde_json::Value {
    match value {
        null if null.is_null() => serde_json::Value::Null,
        ScalarValue::Boolean(Some(value)) => (*value).into(),
        number if number.data_type().is_integer() => match number.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(value))) => value.into(),
            _ => number.to_string().into(),
        },
        other => other.to_string().into(),
    }
}

/// Those of `datafusion-pg-catalog`'s that are asked as they are.
fn theirs(catalog: &str) -> Vec<ScalarUDF> {
    vec![
        pg_catalog::create_current_database_udf(catalog),
        pg_catalog::create_pg_get_partkeydef_udf(),
        pg_catalog::create_pg_relation_is_publishable_udf(),
        pg_catalog::create_pg_get_statisticsobjdef_columns_udf(),
        pg_catalog::create_pg_encoding_to_char_udf(),
        pg_catalog::create_pg_backend_pid_udf(),
        pg_catalog::create_pg_relation_size_udf(),
        pg_catalog::create_pg_total_relation_size_udf(),
        pg_catalog::create_pg_stat_get_numscans(),
        pg_catalog::create_pg_get_partition_ancestors_udf(),
        pg_catalog::quote_ident_udf::create_quote_ident_udf(),
        pg_catalog::quote_ident_udf::create_parse_ident_udf(),
        pg_catalog::array_bounds_udf::create_array_upper_udf(),
        pg_catalog::array_bounds_udf::create_array_lower_udf(),
    ]
}

/// Adds them, over those that `datafusion-pg-catalog` has, which name nobody.
pub(super) fn register(context: &SessionContext, who: &Owned, tables: Option<Arc<PgCatalog>>) {
    for function in theirs(&who.catalog) {
        context.register_udf(function);
    }
    let none = || ScalarValue::Utf8(None);
    let add = |function| context.register_udf(function);
    let version = format!("PostgreSQL {VERSION} (Weir {})", env!("CARGO_PKG_VERSION"));
    add(told("version", &[0], DataType::Utf8, move |_| text(&version)));
    for name in ["session_user", "current_user"] {
        let user = who.user.clone();
        add(told(name, &[0], DataType::Utf8, move |_| text(&user)));
    }
    let user = who.user.clone();
    add(told("pg_get_userbyid", &[1], DataType::Utf8, move |given| match number(&given[0]) {
        Some(OWNER) => text(&user),
        Some(other) => text(format!("unknown (OID={other})")),
        None => ScalarValue::Utf8(None),
    }));
    let schema = who.schema.clone();
    add(told("current_schema", &[0], DataType::Utf8, move |_| text(&schema)));
    let schema = who.schema.clone();
    let list = DataType::new_list(DataType::Utf8, true);
    add(told("current_schemas", &[1], list, move |given| {
        let implicit = matches!(given[0], ScalarValue::Boolean(Some(true)));
        let names = implicit.then_some("pg_catalog").into_iter().chain([schema.as_str()]).map(text).collect::<Vec<_>>();
        ScalarValue::List(ScalarValue::new_list_nullable(&names, &DataType::Utf8))
    }));
    // Whose number it is does not matter: what is listed is there to be read.
    for name in ["pg_function_is_visible", "pg_type_is_visible", "pg_table_is_visible", "pg_collation_is_visible"] {
        add(told(name, &[1], DataType::Boolean, |given| ScalarValue::Boolean(Some(!given[0].is_null()))));
    }
    let by_number: Arc<HashMap<i32, (String, &'static str)>> = Arc::new(
        tables
            .as_deref()
            .map(PgCatalog::routines)
            .unwrap_or_default()
            .iter()
            .map(|routine| (routine.number, (routine.arguments.clone(), routine.result)))
            .collect(),
    );
    // A null modifier is none at all, which is not that of a column without one.
    add(told("format_type", &[2], DataType::Utf8, |given| {
        ScalarValue::Utf8(number(&given[0]).map(|oid| super::types::spelt(oid.cast_unsigned(), number(&given[1]))))
    }));
    for name in ["pg_get_function_arguments", "pg_get_function_identity_arguments"] {
        let known = by_number.clone();
        let arguments = move |number| known.get(&number).map(|(arguments, _)| arguments.clone());
        add(told(name, &[1], DataType::Utf8, move |given| ScalarValue::Utf8(number(&given[0]).and_then(&arguments))));
    }
    let known = by_number.clone();
    add(told("pg_get_function_result", &[1], DataType::Utf8, move |given| {
        ScalarValue::Utf8(number(&given[0]).and_then(|number| known.get(&number)).map(|(_, result)| (*result).to_owned()))
    }));
    // Nothing has a comment, a definition or a default: what there is of them is in the pipelines' files.
    for (name, counts) in [
        ("obj_description", &[1, 2][..]),
        ("col_description", &[2]),
        ("shobj_description", &[2]),
        ("pg_get_viewdef", &[1, 2]),
        ("pg_get_indexdef", &[1, 3]),
        ("pg_get_triggerdef", &[1, 2]),
        ("pg_get_ruledef", &[1, 2]),
        ("pg_get_serial_sequence", &[2]),
        ("pg_tablespace_location", &[1]),
        ("pg_get_constraintdef", &[1, 2]),
        ("pg_get_expr", &[2, 3]),
    ] {
        add(told(name, counts, DataType::Utf8, move |_| none()));
    }
    add(told("to_regclass", &[1], DataType::Int32, move |given| {
        let name = match &given[0] {
            ScalarValue::Utf8(name) | ScalarValue::Utf8View(name) | ScalarValue::LargeUtf8(name) => name.as_deref(),
            _ => None,
        };
        ScalarValue::Int32(name.and_then(|name| tables.as_ref()?.numbered(name)))
    }));
    add(told("to_regtype", &[1], DataType::Int32, |given| {
        let name = match &given[0] {
            ScalarValue::Utf8(name) | ScalarValue::Utf8View(name) | ScalarValue::LargeUtf8(name) => name.as_deref().unwrap_or_default(),
            _ => "",
        };
        let known = super::types::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim_start_matches("pg_catalog.")));
        ScalarValue::Int32(known.map(|(_, oid)| *oid as i32))
    }));
    let pairs: Vec<usize> = (0..=10).map(|pairs| pairs * 2).collect();
    add(told("json_build_object", &pairs, DataType::Utf8, |given| {
        let pairs = given.chunks(2).map(|pair| (pair[0].to_string(), json(&pair[1])));
        text(serde_json::Value::Object(pairs.collect()).to_string())
    }));
    for name in ["pg_is_in_recovery", "pg_is_other_temp_schema"] {
        add(told(name, &[0, 1], DataType::Boolean, |_| ScalarValue::Boolean(Some(false))));
    }
    for name in
        ["has_table_privilege", "has_schema_privilege", "has_database_privilege", "has_any_column_privilege", "has_function_privilege"]
    {
        // Everything that is listed may be read, and nothing may be changed.
        add(told(name, &[2, 3], DataType::Boolean, |given| {
            let asked = given.last().map(ToString::to_string).unwrap_or_default().to_ascii_lowercase();
            let reads = |word: &str| matches!(word.trim(), "select" | "usage" | "connect" | "execute");
            ScalarValue::Boolean(Some(asked.split(',').any(reads)))
        }));
    }
    let settings: HashMap<&'static str, String> = HashMap::from([
        ("server_version", VERSION.to_owned()),
        ("server_version_num", "160006".to_owned()),
        ("server_encoding", "UTF8".to_owned()),
        ("client_encoding", "UTF8".to_owned()),
        ("search_path", who.schema.clone()),
        ("standard_conforming_strings", "on".to_owned()),
        ("transaction_read_only", "on".to_owned()),
        ("default_transaction_read_only", "on".to_owned()),
        ("max_index_keys", "32".to_owned()),
    ]);
    add(told("current_setting", &[1, 2], DataType::Utf8, move |given| match &given[0] {
        ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) => {
            ScalarValue::Utf8(settings.get(name.to_ascii_lowercase().as_str()).cloned())
        }
        _ => ScalarValue::Utf8(None),
    }));
}
