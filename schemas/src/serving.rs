//! Which kernels serve which columns? What is served by none is the crate's, for the cells of the schema that says so.

use ::arrow::{
    array::{Array, AsArray},
    datatypes::DataType,
};

use crate::{
    arrow::is_json_text,
    check::Column,
    kernel::{EXACT, Node},
    lists,
};

/// What a column's cells are as JSON, as far as a kernel has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Null,
    Boolean,
    Integer,
    Float64,
    /// A float that is shown by the shortest digits of its own width.
    Float,
    Decimal,
    Text,
    /// Text that is made from something else.
    Written,
    Array,
    Object,
    /// Not known before a cell is looked at.
    Open,
}

pub(crate) fn class(column: &Column<'_>) -> Class {
    use DataType::*;
    match column.array.data_type() {
        Null => Class::Null,
        Boolean => Class::Boolean,
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => Class::Integer,
        Float64 => Class::Float64,
        Float16 | Float32 => Class::Float,
        Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => Class::Decimal,
        Utf8 | LargeUtf8 | Utf8View if is_json_text(column.field) || column.rule.json_text => Class::Open,
        Utf8 | LargeUtf8 | Utf8View => Class::Text,
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) | Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Duration(_)
        | Interval(_) => Class::Written,
        List(_) | LargeList(_) | ListView(_) | LargeListView(_) | FixedSizeList(..) => Class::Array,
        Struct(_) | Map(..) => Class::Object,
        Dictionary(..) | RunEndEncoded(..) | Union(..) => Class::Open,
    }
}

/// Values side by side: the rows of a batch, or the cells of a column.
pub(crate) struct Values<'v> {
    pub(crate) count: usize,
    pub(crate) class: Class,
    /// None for the rows themselves.
    pub(crate) column: Option<&'v Column<'v>>,
    /// The members of values that are objects, by name, where they are columns.
    pub(crate) members: Option<Vec<Column<'v>>>,
}

impl<'v> Values<'v> {
    pub(crate) fn of_column(column: &'v Column<'v>) -> Self {
        let class = class(column);
        let members = if class == Class::Object { members(column) } else { None };
        Self { count: column.array.len(), class, column: Some(column), members }
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Column<'v>> {
        let members = self.members.as_ref()?;
        members.binary_search_by(|column| column.field.name().as_str().cmp(name)).ok().map(|at| &members[at])
    }
}

/// The fields of a column of structs as columns, by name; none where the crate has to see which of them a value has.
fn members<'v>(column: &'v Column<'v>) -> Option<Vec<Column<'v>>> {
    let DataType::Struct(fields) = column.array.data_type() else { return None };
    let mut members = Vec::with_capacity(fields.len());
    for (field, array) in fields.iter().zip(column.array.as_struct().columns()) {
        let rule = column.rule.field(field.name());
        let absent = if rule.null { None } else { array.logical_nulls().filter(|nulls| nulls.null_count() > 0) };
        let member = Column { field, array, rule, absent };
        // A text can spell a null.
        let values = array.as_any_dictionary_opt().map_or(&**array, |dictionary| &**dictionary.values());
        if class(&Column { array: values, absent: None, ..member }) == Class::Open {
            return None;
        }
        members.push(member);
    }
    members.sort_by(|a, b| a.field.name().cmp(b.field.name()));
    members.windows(2).all(|pair| pair[0].field.name() != pair[1].field.name()).then_some(members)
}

/// True where a kernel decides what one keyword asks for. Nodes that hold others are served: those see to themselves.
pub(crate) fn serves(node: &Node, values: &Values<'_>) -> bool {
    let class = values.class;
    let Some(column) = values.column else {
        return match node {
            Node::Rule(_, part) => serves(part, values),
            node => !matches!(node, Node::Values(_)),
        };
    };
    let data_type = column.array.data_type();
    let floats = matches!(class, Class::Float64 | Class::Float);
    match node {
        Node::Always(_) | Node::Crate(_) | Node::Schema(..) | Node::Any(_) | Node::One(_) | Node::Not(_) | Node::If(_) => true,
        Node::Rule(_, part) => serves(part, values),
        Node::All(parts) => parts.iter().all(|part| serves(part, values)),
        _ if class == Class::Open => false,
        Node::Present(_)
        | Node::Depends(..)
        | Node::When(..)
        | Node::Property(..)
        | Node::Matching(..)
        | Node::Closed(_)
        | Node::Others(..)
        | Node::Names(_)
        | Node::Size(..) => class != Class::Object || values.members.is_some(),
        Node::Items(..) | Node::Prefix(_) | Node::Contains(..) | Node::Count(..) => {
            class != Class::Array || lists::item(data_type).is_some()
        }
        Node::Unique => {
            class != Class::Array
                || lists::item(data_type)
                    .is_some_and(|item| lists::has_keys(item.data_type()) && !is_json_text(item) && !column.rule.item().json_text)
        }
        Node::Types(types) => !(floats || class == Class::Decimal) || types.number || !types.integer,
        Node::Values(values) => match class {
            Class::Integer => values.all_whole(),
            Class::Float64 => values.floats.is_some(),
            Class::Decimal => values.floats.is_some() && scale(data_type).is_some(),
            Class::Null | Class::Boolean | Class::Text => true,
            _ => false,
        },
        Node::Bound(bound) => match class {
            Class::Float64 => bound.limit.is_some(),
            Class::Float => false,
            Class::Decimal => bound.limit.is_some() && scale(data_type).is_some(),
            _ => true,
        },
        // The crate divides by the nearest float.
        Node::Multiple(divisor) if i128::from(*divisor) > EXACT => !matches!(class, Class::Integer | Class::Decimal) && !floats,
        Node::Multiple(_) => class != Class::Float && (class != Class::Decimal || scale(data_type).is_some()),
        Node::Fraction(_) => !floats && (class != Class::Decimal || scale(data_type).is_some()),
        // A float that is no number is text.
        Node::Length(..) | Node::Pattern(_) => !floats && class != Class::Written,
        Node::Format(format, ..) => match (class, data_type) {
            (Class::Written, DataType::Date32) => format == "date",
            (Class::Written, DataType::Time32(_) | DataType::Time64(_)) => format == "time",
            (Class::Written, DataType::Timestamp(_, Some(_))) => format == "date-time",
            (Class::Written | Class::Float64 | Class::Float, _) => false,
            _ => true,
        },
    }
}

/// The decimal places of decimals whose digits fit in 128 bits, as far as a float can be exact.
pub(crate) fn scale(data_type: &DataType) -> Option<u32> {
    match data_type {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            u32::try_from(*scale).ok().filter(|scale| *scale <= 15)
        }
        _ => None,
    }
}

/// How often a plan asks the crate about these values.
pub(crate) fn asks(node: &Node, values: &Values<'_>) -> usize {
    match node {
        Node::Crate(_) => 1,
        Node::Schema(_, parts) if parts.iter().any(|part| !serves(part, values)) => 1,
        Node::Schema(_, parts) => parts.iter().map(|part| asks(part, values)).sum::<usize>().min(1),
        Node::All(parts) | Node::Any(parts) | Node::One(parts) => parts.iter().map(|part| asks(part, values)).sum(),
        Node::Rule(_, part) | Node::Not(part) | Node::When(_, part) => asks(part, values),
        Node::If(parts) => parts.iter().map(|part| asks(part, values)).sum(),
        _ => 0,
    }
}

/// True where kernels decide a schema, or the crate does no more than one part of it. More than one part costs more than the whole.
pub(crate) fn by_kernels(parts: &[Node], values: &Values<'_>) -> bool {
    parts.iter().all(|part| serves(part, values)) && parts.iter().map(|part| asks(part, values)).sum::<usize>() <= 1
}
