//! Rows as a test gives them, for a test that Weir writes, and what else such a test needs: a free name, and whether the time matters.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, RecordBatch, RecordBatchOptions},
    compute::{cast, concat_batches},
    datatypes::{DataType, Field, Schema},
};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use indexmap::IndexMap;
use weir_connectors::spill::Spilled;
use weir_pipelines::{Given, GivenRows, Operator, Pipeline, Spanned};
use weir_schemas::json;

use super::search::Input;
use crate::{
    error::{Failure, Result},
    run::explain_step,
    test::{given, value},
};

pub(crate) fn spanned(text: String) -> Spanned<String> {
    Spanned::new(text, 0..0)
}

/// The name, or with a number where a test of the pipeline has it.
pub(crate) fn free_name(pipeline: &Pipeline, name: String) -> String {
    let taken = |name: &str| pipeline.tests.iter().any(|test| test.name.value == name);
    let mut free = name.clone();
    for number in 2.. {
        if !taken(&free) {
            break;
        }
        free = format!("{name}, {number}");
    }
    free
}

/// Whether any step asks what time it is.
pub(crate) fn tells_the_time(pipeline: &Pipeline) -> bool {
    pipeline.transforms.iter().any(|transform| match &transform.operator {
        Operator::Sql(sql) | Operator::Filter(sql) => {
            let text = sql.text.to_lowercase();
            ["now(", "today(", "current_"].iter().any(|word| text.contains(word))
        }
        _ => false,
    })
}

/// The input as a test gives it. Fails where a value cannot be written there.
pub(crate) async fn given(session: &SessionContext, pipeline: &Pipeline, input: &Input) -> Result<Vec<Given>> {
    let mut all = Vec::new();
    for source in &pipeline.sources {
        let Some(rows) = input.get(&source.name.value) else { continue };
        let batch = whole(rows).await?;
        let columns: IndexMap<String, Spanned<String>> = batch
            .schema()
            .fields()
            .iter()
            .map(|field| (field.name().clone(), spanned(given::type_word(session, field.data_type()))))
            .collect();
        let rows = value::rows(&batch);
        let unsayable = |column: &str, data_type: &DataType| {
            Failure::error(
                "not-sayable",
                format!("\"{column}\" of \"{}\" is {data_type}, and a test cannot say its values", source.name.value),
            )
            .help("the file is as it was; a transform that casts the column to text can be given in its place")
        };
        // Written and read back, it must be the same.
        let again = given::typed(session, &columns, &pipeline.file).and_then(|schema| value::batch(&schema, &rows, &pipeline.file));
        for (at, field) in batch.schema().fields().iter().enumerate() {
            let same = again.as_ref().is_ok_and(|again| same_column(&batch, again, at));
            let alone = || {
                let column: IndexMap<_, _> = columns.get_index(at).map(|(name, word)| (name.clone(), word.clone())).into_iter().collect();
                given::typed(session, &column, &pipeline.file).and_then(|schema| value::batch(&schema, &rows, &pipeline.file)).is_ok()
            };
            if !same && (again.is_ok() || !alone()) {
                return Err(unsayable(field.name(), field.data_type()));
            }
        }
        all.push(Given { step: spanned(source.name.value.clone()), rows: GivenRows::Typed { columns, rows } });
    }
    Ok(all)
}

fn same_column(a: &RecordBatch, b: &RecordBatch, at: usize) -> bool {
    let to = b.column(at).data_type();
    let Ok(column) = cast(a.column(at), to) else { return false };
    let one = |column: Arc<dyn Array>| {
        RecordBatch::try_new(Arc::new(Schema::new(vec![Field::new("x", column.data_type().clone(), true)])), vec![column]).ok()
    };
    match (one(column), one(b.column(at).clone())) {
        (Some(a), Some(b)) => (0..a.num_rows()).all(|row| json::text(&a, row) == json::text(&b, row)),
        _ => false,
    }
}

async fn whole(rows: &Spilled) -> Result<RecordBatch> {
    let mut batches = Vec::new();
    let mut stream = rows.stream();
    while let Some(batch) = stream.next().await {
        batches.push(batch.map_err(|error| explain_step(&error))?);
    }
    let batch = concat_batches(rows.schema(), &batches).map_err(|error| Failure::error("arrow", error.to_string()))?;
    // What marks a text as JSON is the contract's to say again.
    let fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone().with_metadata(HashMap::new())).collect();
    let columns = batch.columns().to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let plain = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
    plain.map_err(|error| Failure::error("arrow", error.to_string()))
}
