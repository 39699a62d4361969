//! Columns as a file keeps them that a person may read: what a system outside had when it was last asked. Where such files lie, and when
//! they are written and believed, is the engine's.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::Result as DataFusionResult,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A column: its name, its Arrow type as Arrow writes it, and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownColumn {
    name: String,
    /// `Int64`, `Timestamp(µs, "UTC")`; of nested ones the word alone, such as `List`.
    r#type: String,
    #[serde(default = "yes", skip_serializing_if = "bool::clone")]
    nullable: bool,
    /// What makes it more than its type: `ARROW:extension:name` and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    /// What a list, a struct or a map holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fields: Vec<KnownColumn>,
}

fn yes() -> bool {
    true
}

impl KnownColumn {
    /// A field's name, type and marks.
    pub fn of(field: &Field) -> Self {
        let (r#type, fields) = match field.data_type() {
            DataType::List(item) => ("List".to_owned(), vec![Self::of(item)]),
            DataType::LargeList(item) => ("LargeList".to_owned(), vec![Self::of(item)]),
            DataType::ListView(item) => ("ListView".to_owned(), vec![Self::of(item)]),
            DataType::LargeListView(item) => ("LargeListView".to_owned(), vec![Self::of(item)]),
            DataType::FixedSizeList(item, size) => (format!("FixedSizeList({size})"), vec![Self::of(item)]),
            DataType::Struct(fields) => ("Struct".to_owned(), fields.iter().map(|field| Self::of(field)).collect()),
            DataType::Map(entries, sorted) => (if *sorted { "SortedMap" } else { "Map" }.to_owned(), vec![Self::of(entries)]),
            plain => (plain.to_string(), Vec::new()),
        };
        let metadata = field.metadata().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Self { name: field.name().clone(), r#type, nullable: field.is_nullable(), metadata, fields }
    }

    /// The field; none where its type is not one.
    pub fn field(&self) -> Option<Field> {
        let only = || -> Option<FieldRef> {
            match self.fields.as_slice() {
                [only] => Some(Arc::new(only.field()?)),
                _ => None,
            }
        };
        let fixed = self.r#type.strip_prefix("FixedSizeList(").and_then(|rest| rest.strip_suffix(')'));
        let data_type = match self.r#type.as_str() {
            "List" => DataType::List(only()?),
            "LargeList" => DataType::LargeList(only()?),
            "ListView" => DataType::ListView(only()?),
            "LargeListView" => DataType::LargeListView(only()?),
            "Map" => DataType::Map(only()?, false),
            "SortedMap" => DataType::Map(only()?, true),
            "Struct" => DataType::Struct(self.fields.iter().map(Self::field).collect::<Option<Fields>>()?),
            _ if fixed.is_some() => DataType::FixedSizeList(only()?, fixed?.parse().ok()?),
            plain if self.fields.is_empty() => plain.parse().ok()?,
            _ => return None,
        };
        let metadata = self.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Some(Field::new(&self.name, data_type, self.nullable).with_metadata(metadata))
    }
}

/// The columns of a schema.
pub fn known_columns(schema: &Schema) -> Vec<KnownColumn> {
    schema.fields().iter().map(|field| KnownColumn::of(field)).collect()
}

/// The schema of these columns; none where a type is not one.
pub fn known_schema(columns: &[KnownColumn]) -> Option<SchemaRef> {
    let fields: Option<Vec<Field>> = columns.iter().map(KnownColumn::field).collect();
    Some(Arc::new(Schema::new(fields?)))
}

/// The rows of a source of which only the columns are known. They can be planned with, and not read.
#[derive(Debug)]
pub(crate) struct Unread(pub SchemaRef);

#[async_trait]
impl TableProvider for Unread {
    fn schema(&self) -> SchemaRef {
        self.0.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(Error::weir("known", "a source that is known by its columns alone has no rows to read").into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::datatypes::{IntervalUnit, TimeUnit};

    use super::*;

    #[test]
    fn every_type_comes_back_as_it_was_kept() {
        let item = |kind: DataType| Arc::new(Field::new("item", kind, true));
        let named: Fields = vec![
            Field::new("a \"b\"", DataType::Int8, false),
            Field::new("it's", DataType::List(item(DataType::Utf8)), true)
                .with_metadata(HashMap::from([("ARROW:extension:name".into(), "arrow.json".into())])),
        ]
        .into();
        let entries = Field::new(
            "entries",
            DataType::Struct(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int64, true)].into()),
            false,
        );
        let mut types = vec![
            DataType::Null,
            DataType::Boolean,
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::UInt8,
            DataType::UInt16,
            DataType::UInt32,
            DataType::UInt64,
            DataType::Float16,
            DataType::Float32,
            DataType::Float64,
            DataType::Date32,
            DataType::Date64,
            DataType::Time32(TimeUnit::Second),
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Binary,
            DataType::LargeBinary,
            DataType::BinaryView,
            DataType::FixedSizeBinary(16),
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
            DataType::Decimal32(5, 2),
            DataType::Decimal64(12, 2),
            DataType::Decimal128(38, 0),
            DataType::Decimal128(12, -3),
            DataType::Decimal256(76, 40),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            DataType::Struct(named.clone()),
            DataType::List(Arc::new(Field::new("element", DataType::Struct(named.clone()), false))),
            DataType::LargeList(item(DataType::Int64)),
            DataType::ListView(item(DataType::Int64)),
            DataType::LargeListView(item(DataType::Int64)),
            DataType::FixedSizeList(item(DataType::Float32), 3),
            DataType::Map(Arc::new(entries.clone()), false),
            DataType::Map(Arc::new(entries), true),
        ];
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            types.push(DataType::Timestamp(unit, None));
            types.push(DataType::Timestamp(unit, Some("UTC".into())));
            types.push(DataType::Timestamp(unit, Some("America/New_York".into())));
            types.push(DataType::Timestamp(unit, Some("+02:00".into())));
            types.push(DataType::Duration(unit));
        }
        for unit in [IntervalUnit::YearMonth, IntervalUnit::DayTime, IntervalUnit::MonthDayNano] {
            types.push(DataType::Interval(unit));
        }
        let fields = types.into_iter().enumerate().map(|(at, kind)| {
            let field = Field::new(format!("c{at}"), kind, at % 2 == 0);
            match at % 3 {
                0 => field.with_metadata(HashMap::from([("ARROW:extension:name".into(), "arrow.uuid".into())])),
                _ => field,
            }
        });
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let text = serde_json::to_string(&known_columns(&schema)).expect("plain texts");
        let columns: Vec<KnownColumn> = serde_json::from_str(&text).expect("what was written");
        assert_eq!(known_schema(&columns).as_deref(), Some(&schema));
    }

    #[test]
    fn what_is_no_type_is_no_column() {
        for text in [
            r#"{"name":"a","type":"Number"}"#,
            r#"{"name":"a","type":"List"}"#,
            r#"{"name":"a","type":"Int64","fields":[{"name":"b","type":"Int64"}]}"#,
            r#"{"name":"a","type":"FixedSizeList(x)","fields":[{"name":"b","type":"Int64"}]}"#,
            r#"{"name":"a","type":"Struct","fields":[{"name":"b","type":""}]}"#,
        ] {
            let column: KnownColumn = serde_json::from_str(text).expect("is JSON");
            assert_eq!(column.field(), None, "{text}");
        }
    }
}
