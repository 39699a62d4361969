//! `$1`, `$2` and so on: which types they have, and a plan with values in their place.

use arrow::datatypes::DataType;
use datafusion::{
    common::{ParamValues, ScalarValue},
    error::DataFusionError,
    logical_expr::LogicalPlan,
};

use super::Prepared;
use crate::error::{Failure, Result};

/// The types of `$1`, `$2` and so on.
pub(super) fn parameters(plan: &LogicalPlan) -> Result<Vec<Option<DataType>>, DataFusionError> {
    let mut types = Vec::new();
    for (name, kind) in plan.get_parameter_types()? {
        let number = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok()).filter(|number| (1..=1000).contains(number));
        let Some(number) = number else {
            return Err(DataFusionError::Plan(format!("\"{name}\" is no parameter: they are called $1, $2 and so on")));
        };
        if types.len() < number {
            types.resize(number, None);
        }
        types[number - 1] = kind;
    }
    Ok(types)
}

/// A plan with values in the place of its parameters.
pub(super) fn bound(prepared: &Prepared, values: Vec<ScalarValue>) -> Result<LogicalPlan> {
    let (given, wanted) = (values.len(), prepared.parameters.len());
    if given != wanted {
        return Err(Failure::error("parameters", format!("the statement has {wanted} parameters, and {given} values were given")));
    }
    if wanted == 0 {
        return Ok(prepared.plan.clone());
    }
    let typed = values.into_iter().zip(&prepared.parameters).enumerate().map(|(at, (value, kind))| match kind {
        Some(kind) => value.cast_to(kind).map_err(|error| {
            Failure::error("parameters", format!("the value of ${} is not of type {kind}: {}", at + 1, crate::sql::message(&error)))
        }),
        None => Ok(value),
    });
    let typed = typed.collect::<Result<Vec<_>>>()?;
    prepared.plan.clone().with_param_values(ParamValues::from(typed)).map_err(|error| crate::run::explain(&error))
}
