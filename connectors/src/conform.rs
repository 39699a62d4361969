//! Brings a column to the type that a contract declares for it, row by row: what would lose something, or is not of the type at all, is a
//! row that broke its contract. Which types are read in the first place is each connector's.

use arrow::{
    array::{Array, ArrayRef},
    buffer::{BooleanBuffer, NullBuffer},
    compute::{CastOptions, can_cast_types, cast_with_options, kernels::cmp::not_distinct},
    datatypes::DataType,
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};

use crate::error::{Error, Result};

/// A row that could not be brought to the declared type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// Its index.
    pub row: usize,
    /// What is wrong, in words.
    pub reason: String,
}

/// Whether some values of one type can become the other.
pub(crate) fn possible(from: &DataType, to: &DataType) -> bool {
    from == to || can_cast_types(from, to)
}

/// Casts without losing anything. The rows that do not fit are null in the result and named in the second part.
pub(crate) fn conform(from: &ArrayRef, to: &DataType) -> Result<(ArrayRef, Vec<Unfit>)> {
    if from.data_type() == to {
        return Ok((from.clone(), Vec::new()));
    }
    let misfit = |error: ArrowError| Error::weir("arrow", format!("columns do not fit together: {error}")).because(error);
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = cast_with_options(from, to, &options).map_err(misfit)?;
    let nulls = |array: &ArrayRef| array.logical_nulls().unwrap_or_else(|| NullBuffer::new_valid(array.len()));
    let (before, after) = (nulls(from), nulls(&cast));
    let mut fits: BooleanBuffer = &!before.inner() | after.inner();
    if may_lose(from.data_type(), to) && can_cast_types(to, from.data_type()) {
        let back = cast_with_options(&cast, from.data_type(), &options).map_err(misfit)?;
        fits = &fits & not_distinct(&back, from).map_err(misfit)?.values();
    }
    if fits.count_set_bits() == fits.len() {
        return Ok((cast, Vec::new()));
    }
    let options = FormatOptions::new().with_display_error(true);
    let show = ArrayFormatter::try_new(from, &options).map_err(misfit)?;
    let unfit = (0..from.len()).filter(|row| !fits.value(*row));
    let unfit = unfit.map(|row| Unfit { row, reason: format!("{} is not {to}", show.value(row)) }).collect();
    Ok((cast, unfit))
}

/// Whether a cast may change a value without making it null: 1.5 to an integer, nanoseconds to milliseconds.
fn may_lose(from: &DataType, to: &DataType) -> bool {
    let measures = |kind: &DataType| kind.is_numeric() || kind.is_temporal();
    measures(from) && measures(to) && !(from.is_floating() && to.is_floating())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Float64Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn what_fits_becomes_the_declared_type_and_the_rest_is_named() {
        let prices = Decimal128Array::from(vec![Some(1050), None, Some(-7)]).with_precision_and_scale(12, 2).expect("a decimal");
        let (floats, unfit) = conform(&(Arc::new(prices) as ArrayRef), &DataType::Float64).expect("casts");
        assert_eq!(floats.as_ref(), &Float64Array::from(vec![Some(10.5), None, Some(-0.07)]) as &dyn Array);
        assert_eq!(unfit, []);

        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("7"), Some("x"), None]));
        let (numbers, unfit) = conform(&texts, &DataType::Int64).expect("casts");
        assert_eq!(numbers.as_ref(), &Int64Array::from(vec![Some(7), None, None]) as &dyn Array);
        assert_eq!(unfit, [Unfit { row: 1, reason: "x is not Int64".into() }]);

        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 1.5]));
        let (_, unfit) = conform(&floats, &DataType::Int64).expect("casts");
        assert_eq!(unfit, [Unfit { row: 1, reason: "1.5 is not Int64".into() }]);
        assert!(!possible(&DataType::Date32, &DataType::Boolean));
    }
}
