//! Rows of two versions in one form in which equal bytes are equal rows: the columns that both have, in a type that holds both, with one
//! NaN. Nulls are equal to nulls, decimals are exact, nested values are compared whole.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayData, ArrayRef, Float16Array, Float32Array, Float64Array, RecordBatch, make_array},
    compute::{CastOptions, can_cast_types, cast_with_options},
    datatypes::{DataType, Field, Fields, Float16Type, Float32Type, Float64Type, Schema, SchemaRef},
    error::ArrowError,
    row::{RowConverter, SortField},
};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;

/// One column that both versions have.
#[derive(Debug, Clone)]
pub struct Column {
    /// The field it is compared as.
    pub field: Field,
    /// Its type before.
    pub before: DataType,
    /// Its type now.
    pub now: DataType,
}

/// The columns of two versions of one step, side by side.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Those that both have, as they stand now.
    pub both: Vec<Column>,
    /// Those that only the new version has.
    pub added: Vec<Field>,
    /// Those that only the published version has.
    pub removed: Vec<Field>,
}

impl Columns {
    /// Of these schemas. A column whose types have nothing in common is told as removed and added.
    pub fn of(before: &Schema, now: &Schema) -> Self {
        let mut columns = Self { both: Vec::new(), added: Vec::new(), removed: Vec::new() };
        for field in now.fields() {
            let Ok(old) = before.field_with_name(field.name()) else {
                columns.added.push(field.as_ref().clone());
                continue;
            };
            match common(old.data_type(), field.data_type()) {
                Some(kind) => columns.both.push(Column {
                    field: Field::new(field.name(), kind, true).with_metadata(field.metadata().clone()),
                    before: old.data_type().clone(),
                    now: field.data_type().clone(),
                }),
                None => {
                    columns.added.push(field.as_ref().clone());
                    columns.removed.push(old.clone());
                }
            }
        }
        let is_gone = |field: &&Arc<Field>| now.field_with_name(field.name()).is_err();
        columns.removed.extend(before.fields().iter().filter(is_gone).map(|field| field.as_ref().clone()));
        columns
    }
}

/// A type without the encodings that change no value.
fn plain(kind: &DataType) -> DataType {
    let inner = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(plain(field.data_type())));
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(inner(item))
        }
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(inner(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect::<Fields>()),
        other => other.clone(),
    }
}

/// The type that values of both types are compared in.
fn common(before: &DataType, now: &DataType) -> Option<DataType> {
    let (old, new) = (plain(before), plain(now));
    let fits = |kind: &DataType| [before, now].iter().all(|from| *from == kind || can_cast_types(from, kind));
    if old == new {
        return [&old, before].into_iter().find(|kind| fits(kind)).cloned();
    }
    // A text that is no number would be a null among numbers.
    let kind = match (&old, &new) {
        (DataType::Utf8, _) | (_, DataType::Utf8) => DataType::Utf8,
        _ => plain(&comparison_coercion(&old, &new)?),
    };
    fits(&kind).then_some(kind)
}

/// Brings a batch of one version into the common form.
pub fn conformed(batch: &RecordBatch, columns: &[Column]) -> Result<Vec<ArrayRef>, ArrowError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let column = |column: &Column| {
        let missing = || ArrowError::SchemaError(format!("no column \"{}\"", column.field.name()));
        let array = batch.column_by_name(column.field.name()).ok_or_else(missing)?;
        let kind = column.field.data_type();
        let array = if array.data_type() == kind { array.clone() } else { cast_with_options(array, kind, &options)? };
        one_nan(&array)
    };
    columns.iter().map(column).collect()
}

/// The same values with one NaN for all.
fn one_nan(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Float64 => {
            let floats = array.as_any().downcast_ref::<Float64Array>().expect("as its type says");
            Arc::new(floats.unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value }))
        }
        DataType::Float32 => {
            let floats = array.as_any().downcast_ref::<Float32Array>().expect("as its type says");
            Arc::new(floats.unary::<_, Float32Type>(|value| if value.is_nan() { f32::NAN } else { value }))
        }
        DataType::Float16 => {
            let floats = array.as_any().downcast_ref::<Float16Array>().expect("as its type says");
            let nan = <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::NAN;
            Arc::new(floats.unary::<_, Float16Type>(|value| if value.is_nan() { nan } else { value }))
        }
        kind if kind.is_nested() && holds_floats(kind) => make_array(one_nan_within(&array.to_data())?),
        _ => array.clone(),
    })
}

fn one_nan_within(data: &ArrayData) -> Result<ArrayData, ArrowError> {
    let children = data.child_data().iter().map(|child| one_nan(&make_array(child.clone())).map(|child| child.to_data()));
    data.clone().into_builder().child_data(children.collect::<Result<Vec<_>, _>>()?).build()
}

fn holds_floats(kind: &DataType) -> bool {
    match kind {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::LargeList(item) | DataType::Map(item, _) => {
            holds_floats(item.data_type())
        }
        DataType::ListView(item) | DataType::LargeListView(item) => holds_floats(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_floats(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| holds_floats(field.data_type())),
        DataType::RunEndEncoded(_, values) => holds_floats(values.data_type()),
        DataType::Dictionary(_, values) => holds_floats(values),
        _ => false,
    }
}

/// Encodes some columns as bytes, and reads them again.
#[derive(Debug)]
pub struct Codec {
    /// The columns.
    pub schema: SchemaRef,
    /// The bytes of rows.
    pub rows: RowConverter,
}

impl Codec {
    /// Of these columns.
    pub fn new(columns: &[Column]) -> Result<Self, ArrowError> {
        let fields = columns.iter().map(|column| SortField::new(column.field.data_type().clone()));
        let rows = RowConverter::new(fields.collect())?;
        Ok(Self { schema: Arc::new(Schema::new(columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>())), rows })
    }

    /// Rows of these bytes, which this codec wrote.
    pub fn decode<'a>(&self, bytes: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.schema.fields().is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.rows.parser();
        self.rows.convert_rows(bytes.into_iter().map(|bytes| parser.parse(bytes)))
    }

    /// The bytes of every row; none where there are no columns.
    pub fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Vec<u8>>, ArrowError> {
        if columns.is_empty() {
            return Ok(vec![Vec::new(); rows]);
        }
        let encoded = self.rows.convert_columns(columns)?;
        Ok(encoded.iter().map(|row| row.as_ref().to_vec()).collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Decimal128Array, DictionaryArray, Int32Array, Int64Array, ListArray, StringArray},
        datatypes::Int32Type,
    };

    use super::*;

    fn encoded(before: ArrayRef, now: ArrayRef) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let batch = |array: &ArrayRef| RecordBatch::try_from_iter([("a", array.clone())]).expect("a batch");
        let (before, now) = (batch(&before), batch(&now));
        let columns = Columns::of(&before.schema(), &now.schema());
        let codec = Codec::new(&columns.both).expect("a codec");
        let bytes = |batch: &RecordBatch| {
            let arrays = conformed(batch, &columns.both).expect("conforms");
            let bytes = codec.encode(&arrays, batch.num_rows()).expect("encodes");
            let again = codec.decode(bytes.iter().map(Vec::as_slice)).expect("decodes");
            assert_eq!(codec.encode(&again, batch.num_rows()).expect("encodes"), bytes);
            bytes
        };
        (bytes(&before), bytes(&now))
    }

    #[test]
    fn equal_values_are_equal_bytes_whatever_their_form() {
        let negative = f64::from_bits(f64::NAN.to_bits() | 1 << 63);
        let pairs: Vec<(ArrayRef, ArrayRef)> = vec![
            (Arc::new(Float64Array::from(vec![Some(f64::NAN), None])), Arc::new(Float64Array::from(vec![Some(negative), None]))),
            (Arc::new(Int32Array::from(vec![Some(1), None])), Arc::new(Int64Array::from(vec![Some(1), None]))),
            (Arc::new(Int32Array::from(vec![7])), Arc::new(StringArray::from(vec!["7"]))),
            (
                Arc::new(StringArray::from(vec!["x", "y"])),
                Arc::new(DictionaryArray::<Int32Type>::from_iter(["x", "y"].into_iter().map(Some))),
            ),
            (
                Arc::new(Decimal128Array::from(vec![150]).with_precision_and_scale(5, 2).expect("fits")),
                Arc::new(Decimal128Array::from(vec![15000]).with_precision_and_scale(9, 4).expect("fits")),
            ),
            (
                Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(f64::NAN), None]), None])),
                Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(negative), None]), None])),
            ),
        ];
        for (before, now) in pairs {
            let (one, other) = encoded(before.clone(), now.clone());
            assert_eq!(one, other, "{before:?} {now:?}");
        }
    }

    #[test]
    fn values_that_differ_differ() {
        let pairs: Vec<(ArrayRef, ArrayRef)> = vec![
            (Arc::new(Float64Array::from(vec![1.0])), Arc::new(Float64Array::from(vec![1.000_000_000_000_000_2]))),
            (Arc::new(StringArray::from(vec![Some("")])), Arc::new(StringArray::from(vec![None::<&str>]))),
            (Arc::new(Int32Array::from(vec![1])), Arc::new(StringArray::from(vec!["one"]))),
            (
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![])])),
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([None::<Vec<Option<i32>>>])),
            ),
        ];
        for (before, now) in pairs {
            let (one, other) = encoded(before.clone(), now.clone());
            assert_ne!(one, other, "{before:?} {now:?}");
        }
    }

    #[test]
    fn columns_of_one_version_alone_are_told() {
        let field = |name: &str, kind| Field::new(name, kind, true);
        let before = Schema::new(vec![field("a", DataType::Int32), field("b", DataType::Utf8), field("c", DataType::Boolean)]);
        let pair = DataType::Struct(vec![field("x", DataType::Int32)].into());
        let now = Schema::new(vec![field("c", pair), field("a", DataType::Float64), field("d", DataType::Utf8)]);
        let columns = Columns::of(&before, &now);
        let names = |fields: &[Field]| fields.iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        assert_eq!((columns.both.len(), columns.both[0].field.data_type()), (1, &DataType::Float64));
        assert_eq!((names(&columns.added), names(&columns.removed)), (vec!["c".into(), "d".into()], vec!["c".into(), "b".into()]));
    }
}
