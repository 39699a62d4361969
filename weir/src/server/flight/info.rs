//! What can this server do? What clients ask once to learn how to speak with it: its SQL, and the types that its columns have.

use arrow_flight::{
    error::FlightError,
    sql::{
        Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedGroupBy,
        SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions, SupportedSqlGrammar, XdbcDataType, XdbcDatetimeSubcode,
        metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder},
    },
};
use datafusion::{execution::FunctionRegistry, prelude::SessionContext};

/// What the server says of itself. `functions` knows those that queries may call.
pub fn server(functions: &SessionContext) -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "weir");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    for refused in [SqlInfo::SqlDdlCatalog, SqlInfo::SqlDdlSchema, SqlInfo::SqlDdlTable, SqlInfo::SqlSelectForUpdateSupported] {
        info.append(refused, false);
    }
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    info.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    info.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    info.append(SqlInfo::SqlTransactionsSupported, false);
    info.append(SqlInfo::SqlStoredProceduresSupported, false);
    info.append(SqlInfo::SqlSupportedGroupBy, bits(&[SqlSupportedGroupBy::SqlGroupByUnrelated as i32]));
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
    ];
    info.append(SqlInfo::SqlSupportedSubqueries, bits(&subqueries));
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let unions = [SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32];
    info.append(SqlInfo::SqlSupportedUnions, bits(&unions));
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, bits(&[SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32]));
    info.append(SqlInfo::SqlSupportedGrammar, bits(&[SupportedSqlGrammar::SqlMinimumGrammar as i32]));
    let names = |wanted: &dyn Fn(&str) -> bool| {
        let mut names: Vec<String> = functions.udfs().into_iter().filter(|name| wanted(name)).collect();
        names.sort();
        names
    };
    let of_time = |name: &str| ["date", "time", "now", "current_", "epoch", "make_interval"].iter().any(|word| name.contains(word));
    let of_numbers = |name: &str| NUMERIC.contains(&name);
    info.append(SqlInfo::SqlNumericFunctions, names(&of_numbers));
    info.append(SqlInfo::SqlDatetimeFunctions, names(&of_time));
    info.append(SqlInfo::SqlStringFunctions, names(&|name| STRING.contains(&name)));
    info.build()
}

/// Functions of numbers and of texts, as ODBC means them; every other one is called the same way, and is in nobody's list.
const NUMERIC: &[&str] = &[
    "abs", "acos", "asin", "atan", "atan2", "cbrt", "ceil", "cos", "cot", "degrees", "exp", "floor", "ln", "log", "log10", "log2", "mod",
    "pi", "pow", "power", "radians", "random", "round", "sign", "signum", "sin", "sqrt", "tan", "trunc",
];
const STRING: &[&str] = &[
    "ascii",
    "btrim",
    "character_length",
    "char_length",
    "chr",
    "concat",
    "concat_ws",
    "contains",
    "ends_with",
    "initcap",
    "left",
    "length",
    "levenshtein",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "position",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substring",
    "translate",
    "trim",
    "upper",
];

/// A set of numbered things.
fn bits(set: &[i32]) -> i32 {
    set.iter().fold(0, |bits, one| bits | 1 << one)
}

/// The types that columns have, by the names that `cast` takes.
pub fn types() -> Result<XdbcTypeInfoData, FlightError> {
    use XdbcDataType as Xdbc;
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, kind, size) in [
        ("boolean", Xdbc::XdbcBit, 1),
        ("tinyint", Xdbc::XdbcTinyint, 3),
        ("smallint", Xdbc::XdbcSmallint, 5),
        ("integer", Xdbc::XdbcInteger, 10),
        ("bigint", Xdbc::XdbcBigint, 19),
        ("real", Xdbc::XdbcReal, 7),
        ("double", Xdbc::XdbcDouble, 15),
        ("decimal", Xdbc::XdbcDecimal, 76),
        ("varchar", Xdbc::XdbcVarchar, i32::MAX),
        ("bytea", Xdbc::XdbcVarbinary, i32::MAX),
        ("date", Xdbc::XdbcDate, 10),
        ("time", Xdbc::XdbcTime, 18),
        ("timestamp", Xdbc::XdbcTimestamp, 29),
        ("interval", Xdbc::XdbcInterval, 64),
    ] {
        let is_number = matches!(
            kind,
            Xdbc::XdbcTinyint
                | Xdbc::XdbcSmallint
                | Xdbc::XdbcInteger
                | Xdbc::XdbcBigint
                | Xdbc::XdbcReal
                | Xdbc::XdbcDouble
                | Xdbc::XdbcDecimal
        );
        let is_quoted = !is_number && kind != Xdbc::XdbcBit;
        // The protocol gives a date and a year one number.
        let (sql, subcode) = match kind {
            Xdbc::XdbcDate => (Xdbc::XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeYear)),
            Xdbc::XdbcTime => (Xdbc::XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeTime)),
            Xdbc::XdbcTimestamp => (Xdbc::XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp)),
            kind => (kind, None),
        };
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type: kind,
            column_size: Some(size),
            literal_prefix: is_quoted.then(|| "'".to_owned()),
            literal_suffix: is_quoted.then(|| "'".to_owned()),
            create_params: (kind == Xdbc::XdbcDecimal).then(|| vec!["precision".to_owned(), "scale".to_owned()]),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: kind == Xdbc::XdbcVarchar,
            searchable: Searchable::Full,
            unsigned_attribute: is_number.then_some(false),
            fixed_prec_scale: false,
            auto_increment: is_number.then_some(false),
            local_type_name: Some(name.to_owned()),
            minimum_scale: (kind == Xdbc::XdbcDecimal).then_some(0),
            maximum_scale: (kind == Xdbc::XdbcDecimal).then_some(76),
            sql_data_type: sql,
            datetime_subcode: subcode,
            num_prec_radix: is_number.then_some(10),
            interval_precision: None,
        });
    }
    types.build()
}

#[cfg(test)]
mod tests {
    use arrow::{array::AsArray, util::pretty::pretty_format_batches};

    use super::*;

    #[test]
    fn the_server_says_that_it_is_read_only_and_that_queries_can_be_cancelled() {
        let all = server(&SessionContext::new()).expect("builds");
        let asked = [SqlInfo::FlightSqlServerReadOnly, SqlInfo::FlightSqlServerCancel, SqlInfo::FlightSqlServerSubstrait];
        let rows = all.record_batch(asked.map(|name| name as u32)).expect("rows");
        let shown = pretty_format_batches(&[rows]).expect("shown").to_string();
        for words in ["| 3         | {bool_value=true}", "| 5         | {bool_value=false}", "| 9         | {bool_value=true}"] {
            assert!(shown.contains(words), "{shown}");
        }
        let functions = all.record_batch([SqlInfo::SqlStringFunctions as u32]).expect("rows");
        assert!(pretty_format_batches(&[functions]).expect("shown").to_string().contains("starts_with"));
    }

    #[test]
    fn a_type_is_found_by_its_number() {
        let all = types().expect("builds");
        let rows = all.record_batch(XdbcDataType::XdbcDecimal as i32).expect("rows");
        assert_eq!((rows.num_rows(), rows.column(0).as_string::<i32>().value(0)), (1, "decimal"));
        assert_eq!(all.record_batch(None).expect("rows").num_rows(), 14);
    }
}
