//! Functions that make much of little (`repeat`, `lpad`, `range` …), and what they may make of one batch: no memory pool sees what a
//! function allocates.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, FieldRef, Int64Type, IntervalUnit, TimeUnit},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::SessionState,
    logical_expr::{
        ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        interval_arithmetic::Interval,
        simplify::{ExprSimplifyResult, SimplifyContext},
        sort_properties::{ExprProperties, SortProperties},
    },
};
use weir_connectors::Error;

use crate::sql::GROWING;

/// Bytes that one call may make for one batch.
const BYTES_MAX: u64 = 256 << 20;
/// Functions that make the sum of what they are given; DataFusion would have more of them called than the session knows.
const SUMMING: [&str; 2] = ["concat", "concat_ws"];
const REPLACING: &str = "regexp_replace";
/// Bytes of an element of a range.
const ELEMENT: u64 = 8;

/// A function that is called only where what it makes is bounded.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded(Arc<ScalarUDF>);

/// Puts bounds on the functions of a session that need them.
pub(super) fn bound(state: &mut SessionState) -> Result<()> {
    use datafusion::execution::FunctionRegistry;
    for name in GROWING.into_iter().chain(SUMMING).chain([REPLACING]) {
        let Some(function) = state.scalar_functions().get(name).cloned() else { continue };
        // Two of these names are one function.
        if function.name() == name {
            state.register_udf(Arc::new(ScalarUDF::new_from_impl(Bounded(function))))?;
        }
    }
    Ok(())
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.0.return_field_from_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match SUMMING.contains(&self.name()) {
            true => Ok(ExprSimplifyResult::Original(args)),
            false => self.0.simplify(args, context),
        }
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.0.evaluate_bounds(input)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.0.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.name() == REPLACING {
            return self.replaced(args);
        }
        self.refuse(made(self.name(), &args)?)?;
        self.0.invoke_with_args(args)
    }
}

impl Bounded {
    fn refuse(&self, bytes: u64) -> Result<()> {
        if bytes <= BYTES_MAX {
            return Ok(());
        }
        let message = format!("{} would make {bytes} bytes of one batch of rows; {BYTES_MAX} are the most", self.name());
        Err(DataFusionError::from(Error::user("too-much", message).help("repeat, pad or replace less, or make a shorter range")))
    }

    /// `regexp_replace`: how often a pattern is found is seen when it is, so rows that could become large are replaced a few at a time.
    fn replaced(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let values = Values::of(&args.args)?;
        // A match may stand between all letters, and what replaces it may hold all of the text at each backslash.
        let most = |row: usize| {
            let (text, new) = (values.length(0, row), values.length(2, row));
            let again = values.text(2, row).map_or(0, |text| text.matches('\\').count() as u64);
            text.saturating_add((text + 1).saturating_mul(new)).saturating_add(text.saturating_mul(again))
        };
        if sum(rows, most) <= BYTES_MAX {
            return self.0.invoke_with_args(args);
        }
        let (mut made, mut parts, mut start) = (0, Vec::new(), 0);
        while start < rows {
            let (mut end, mut bytes) = (start + 1, most(start));
            self.refuse(bytes)?;
            while end < rows && bytes.saturating_add(most(end)) <= BYTES_MAX {
                bytes += most(end);
                end += 1;
            }
            let part = |value: &ColumnarValue| match value {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, end - start)),
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
            };
            let few = ScalarFunctionArgs { args: args.args.iter().map(part).collect(), number_rows: end - start, ..args.clone() };
            let array = self.0.invoke_with_args(few)?.into_array(end - start)?;
            made += array.get_buffer_memory_size() as u64;
            self.refuse(made)?;
            parts.push(array);
            start = end;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(arrow::compute::concat(&parts)?))
    }
}

/// What a call is given; constants once, however many rows there are.
struct Values(Vec<ArrayRef>);

impl Values {
    fn of(args: &[ColumnarValue]) -> Result<Self> {
        let arrays = args.iter().map(|value| match value {
            ColumnarValue::Array(array) => Ok(array.clone()),
            ColumnarValue::Scalar(value) => value.to_array_of_size(1),
        });
        let texts = arrays.map(|array| {
            Ok(array
                .and_then(|array| Ok(cast(&array, &DataType::Utf8View)?))
                .unwrap_or_else(|_| arrow::array::new_null_array(&DataType::Utf8View, 1)))
        });
        Ok(Self(texts.collect::<Result<_>>()?))
    }

    fn text(&self, at: usize, row: usize) -> Option<&str> {
        let values = self.0.get(at)?.as_string_view();
        let row = row.min(values.len().checked_sub(1)?);
        values.is_valid(row).then(|| values.value(row))
    }

    fn length(&self, at: usize, row: usize) -> u64 {
        self.text(at, row).map_or(0, |text| text.len() as u64)
    }
}

/// About how many bytes a call makes.
fn made(name: &str, args: &ScalarFunctionArgs) -> Result<u64> {
    // A constant is made once, however many rows there are.
    let constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { args.number_rows };
    if SUMMING.contains(&name) {
        let values = Values::of(&args.args)?;
        return Ok(sum(rows, |row| (0..args.args.len()).fold(0, |sum: u64, at| sum.saturating_add(values.length(at, row)))));
    }
    if name == "replace" {
        let values = Values::of(&args.args)?;
        // Each place where the old text stands takes the new one; an empty one stands between all letters.
        return Ok(sum(rows, |row| {
            let (Some(text), Some(old), new) = (values.text(0, row), values.text(1, row), values.length(2, row)) else { return 0 };
            let most = (text.len() as u64 + 1).saturating_mul(new);
            // Texts that cannot become large are not looked through twice.
            let places = if most <= 1 << 10 { 0 } else { text.matches(old).count() as u64 };
            (text.len() as u64).saturating_add(places.saturating_mul(new))
        }));
    }
    let arrays = args.args.iter().map(|value| value.to_array(rows)).collect::<Result<Vec<_>>>()?;
    let number = |at: usize| arrays.get(at).and_then(whole);
    let bytes = match name {
        "range" | "generate_series" => {
            let (start, stop, step) = match arrays.len() {
                1 => (None, number(0), None),
                _ => (number(0), number(1), number(2)),
            };
            sum(rows, |row| {
                let value = |values: &Option<Vec<i64>>, default: i64| values.as_ref().map_or(default, |values| values[row]);
                let (start, stop, step) = (value(&start, 0), value(&stop, 0), value(&step, 1));
                let length = i128::from(stop).abs_diff(i128::from(start)) / i128::from(step).unsigned_abs().max(1);
                u64::try_from(length).unwrap_or(u64::MAX).saturating_mul(ELEMENT)
            })
        }
        "array_to_string" | "list_to_string" | "array_join" | "list_join" => {
            let (items, bytes) = arrays.first().map_or((0, 0), |lists| {
                let items = lists.as_list_opt::<i32>().map_or(0, |lists| lists.values().len());
                (items as u64, lists.get_buffer_memory_size() as u64)
            });
            let longest = arrays.get(1).and_then(lengths).and_then(|lengths| lengths.into_iter().max()).unwrap_or(0);
            bytes.saturating_add(items.saturating_mul(longest))
        }
        // lpad and rpad count letters, of four bytes at most.
        "lpad" | "rpad" => sum(rows, |row| positive(&number(1), row).saturating_mul(4)),
        "array_resize" | "list_resize" => sum(rows, |row| positive(&number(1), row).saturating_mul(ELEMENT)),
        _ => {
            let each = arrays.first().map_or(1, |values| values.get_buffer_memory_size() as u64 / values.len().max(1) as u64).max(1);
            let counts = number(1);
            let longest = arrays.first().and_then(lengths);
            sum(rows, |row| positive(&counts, row).saturating_mul(longest.as_ref().map_or(each, |lengths| lengths[row].max(1))))
        }
    };
    Ok(bytes)
}

fn sum(rows: usize, each: impl Fn(usize) -> u64) -> u64 {
    (0..rows).fold(0, |sum: u64, row| sum.saturating_add(each(row)))
}

fn positive(values: &Option<Vec<i64>>, row: usize) -> u64 {
    values.as_ref().map_or(0, |values| u64::try_from(values[row]).unwrap_or_default())
}

/// Bytes of each text.
fn lengths(values: &ArrayRef) -> Option<Vec<u64>> {
    let lengths = arrow::compute::kernels::length::bit_length(values).ok()?;
    let lengths = cast(&lengths, &DataType::Int64).ok()?;
    Some(lengths.as_primitive::<Int64Type>().iter().map(|bits| bits.unwrap_or_default().unsigned_abs() / 8).collect())
}

/// Numbers as they are; dates and times in nanoseconds, and so are the steps between them. Null is 0.
fn whole(values: &ArrayRef) -> Option<Vec<i64>> {
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let numbers = match values.data_type() {
        kind if kind.is_integer() => cast(values, &DataType::Int64).ok()?,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => cast(&cast(values, &nanos).ok()?, &DataType::Int64).ok()?,
        DataType::Interval(_) => {
            let steps = cast(values, &DataType::Interval(IntervalUnit::MonthDayNano)).ok()?;
            let steps = steps.as_primitive::<arrow::datatypes::IntervalMonthDayNanoType>();
            const DAY: i64 = 86_400_000_000_000;
            let of = |step: arrow::datatypes::IntervalMonthDayNano| {
                let days = i64::from(step.months) * 28 + i64::from(step.days);
                days.saturating_mul(DAY).saturating_add(step.nanoseconds)
            };
            return Some(steps.iter().map(|step| step.map_or(0, of)).collect());
        }
        _ => return None,
    };
    Some(numbers.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default).collect())
}
