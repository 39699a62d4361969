//! Delta debugging (Zeller and Hildebrandt, 2002) over rows on disk: leaves out halves, then quarters and so on of a source's rows as long as
//! what is left still fails, source after source, until no single row can go. What it costs is the sum of the sizes it tries, and each
//! success makes them smaller; memory holds a batch.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use arrow::{array::BooleanArray, compute::filter_record_batch};
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::StreamExt;
use weir_connectors::spill::{SpillWriter, Spilled};

use crate::{
    error::{Failure, Result},
    plan::Replaced,
    run::explain_step,
};

/// The rows of each source.
pub type Input = BTreeMap<String, Spilled>;

/// All rows of an input.
pub fn total(input: &Input) -> u64 {
    input.values().map(Spilled::rows).sum()
}

/// The input as tables that take the sources' places.
pub fn tables(input: &Input) -> Replaced {
    input.iter().map(|(name, rows)| (name.clone(), rows.table())).collect()
}

/// Whether some rows still fail in the same way.
pub(crate) trait Oracle {
    /// Executes the pipeline over these rows. None: there is no time left.
    async fn fails(&mut self, input: &Input) -> Result<Option<bool>>;
    /// Takes note that `rows` rows still fail.
    fn smaller(&mut self, rows: u64);
}

/// How the search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// No row can be left out.
    Smallest,
    /// Time ran out before that was known.
    OutOfTime,
}

/// Leaves out rows of `input` until none can go, or there is no time left. `input` fails before and after.
pub(crate) async fn reduce(input: &mut Input, oracle: &mut impl Oracle, runtime: &RuntimeEnv) -> Result<End> {
    let mut names: Vec<String> = input.keys().cloned().collect();
    names.sort_by_key(|name| std::cmp::Reverse(input[name].rows()));
    loop {
        let before = total(input);
        for name in &names {
            if one(name, input, oracle, runtime).await? == End::OutOfTime {
                return Ok(End::OutOfTime);
            }
        }
        // With one source there is nothing that another one's smaller input could make superfluous.
        if total(input) == before || names.len() == 1 {
            return Ok(End::Smallest);
        }
    }
}

/// Reduces one source's rows, the others left as they are.
async fn one(name: &str, input: &mut Input, oracle: &mut impl Oracle, runtime: &RuntimeEnv) -> Result<End> {
    let mut parts: u64 = 1;
    while input[name].rows() > 0 {
        let rows = input[name].rows();
        parts = parts.min(rows);
        let mut smaller = false;
        for part in 0..parts {
            let cut = rows * part / parts..rows * (part + 1) / parts;
            let candidate = without(&input[name], &cut, runtime).await?;
            let old = input.insert(name.to_owned(), candidate).expect("the source is there");
            match oracle.fails(input).await {
                Ok(Some(true)) => {
                    oracle.smaller(total(input));
                    smaller = true;
                    break;
                }
                Ok(Some(false)) => {
                    input.insert(name.to_owned(), old);
                }
                other => {
                    input.insert(name.to_owned(), old);
                    return other.map(|_| End::OutOfTime);
                }
            }
        }
        if smaller {
            // Halves stay halves; of more parts one is gone.
            parts = (parts - 1).max(2);
        } else if parts >= rows {
            break;
        } else {
            parts *= 2;
        }
    }
    Ok(End::Smallest)
}

/// Leaves out columns that the failure does not need.
pub(crate) async fn narrow(input: &mut Input, search: &mut impl Oracle, runtime: &RuntimeEnv) -> Result<End> {
    let names: Vec<String> = input.keys().cloned().collect();
    for name in names {
        let columns: Vec<String> = input[&name].schema().fields().iter().map(|field| field.name().clone()).collect();
        for column in columns {
            let schema = input[&name].schema().clone();
            let kept: Vec<usize> = (0..schema.fields().len()).filter(|at| *schema.field(*at).name() != column).collect();
            if kept.is_empty() {
                break;
            }
            let failed = |error| explain_step(&error);
            let projected = Arc::new(schema.project(&kept).expect("the columns are there"));
            let mut writer = SpillWriter::create(runtime, &projected, "rows of a failing input").map_err(failed)?;
            let mut rows = input[&name].stream();
            while let Some(batch) = rows.next().await {
                writer.write(&batch.and_then(|batch| Ok(batch.project(&kept)?)).map_err(failed)?).map_err(failed)?;
            }
            let old = input.insert(name.clone(), writer.finish().map_err(failed)?).expect("the source is there");
            match search.fails(input).await? {
                Some(true) => {}
                Some(false) => {
                    input.insert(name.clone(), old);
                }
                None => {
                    input.insert(name.clone(), old);
                    return Ok(End::OutOfTime);
                }
            }
        }
    }
    Ok(End::Smallest)
}

/// The rows but those in `cut`.
async fn without(rows: &Spilled, cut: &Range<u64>, runtime: &RuntimeEnv) -> Result<Spilled> {
    let failed = |error| explain_step(&error);
    let mut writer = SpillWriter::create(runtime, rows.schema(), "rows of a failing input").map_err(failed)?;
    let mut stream = rows.stream();
    let mut at = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failed)?;
        let here = at..at + batch.num_rows() as u64;
        at = here.end;
        if here.end <= cut.start || cut.end <= here.start {
            writer.write(&batch).map_err(failed)?;
        } else if here.start < cut.start || cut.end < here.end {
            let kept: BooleanArray = here.map(|row| Some(!cut.contains(&row))).collect();
            writer
                .write(&filter_record_batch(&batch, &kept).map_err(|error| Failure::error("arrow", error.to_string()))?)
                .map_err(failed)?;
        }
    }
    writer.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{AsArray, Int64Array, RecordBatch},
        datatypes::{DataType, Field, Int64Type, Schema},
    };

    use super::*;

    fn spilled(values: impl Iterator<Item = i64>) -> Spilled {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        let mut writer = SpillWriter::create(&RuntimeEnv::default(), &schema, "a test").expect("is made");
        let values: Vec<i64> = values.collect();
        for chunk in values.chunks(1000) {
            let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(chunk.to_vec()))]).expect("fits");
            writer.write(&batch).expect("is written");
        }
        writer.finish().expect("ends")
    }

    async fn values(rows: &Spilled) -> Vec<i64> {
        let mut out = Vec::new();
        let mut stream = rows.stream();
        while let Some(batch) = stream.next().await {
            out.extend_from_slice(batch.expect("reads").column(0).as_primitive::<Int64Type>().values());
        }
        out
    }

    struct Needs {
        needed: Vec<(&'static str, i64)>,
        tries: usize,
        tries_max: usize,
    }

    impl Oracle for Needs {
        async fn fails(&mut self, input: &Input) -> Result<Option<bool>> {
            self.tries += 1;
            if self.tries > self.tries_max {
                return Ok(None);
            }
            for (source, value) in &self.needed {
                if !values(&input[*source]).await.contains(value) {
                    return Ok(Some(false));
                }
            }
            Ok(Some(true))
        }

        fn smaller(&mut self, _: u64) {}
    }

    async fn search(needed: Vec<(&'static str, i64)>, tries_max: usize) -> (Vec<i64>, Vec<i64>, End, usize) {
        let mut input = Input::from([("a".to_owned(), spilled(0..10_000)), ("b".to_owned(), spilled(0..50))]);
        let mut oracle = Needs { needed, tries: 0, tries_max };
        let end = reduce(&mut input, &mut oracle, &RuntimeEnv::default()).await.expect("searches");
        (values(&input["a"]).await, values(&input["b"]).await, end, oracle.tries)
    }

    #[tokio::test]
    async fn rows_that_fail_only_together_are_found_in_every_source() {
        let (a, b, end, tries) = search(vec![("a", 17), ("a", 9_017), ("b", 3)], 10_000).await;
        assert_eq!((a, b, end), (vec![17, 9_017], vec![3], End::Smallest));
        assert!(tries < 400, "{tries}");
    }

    #[tokio::test]
    async fn what_fails_without_rows_needs_none() {
        assert_eq!(search(vec![], 10).await, (vec![], vec![], End::Smallest, 2));
    }

    #[tokio::test]
    async fn one_row_takes_the_logarithm_of_tries() {
        let (a, b, end, tries) = search(vec![("a", 9_999)], 10_000).await;
        assert_eq!((a, b, end), (vec![9_999], vec![], End::Smallest));
        assert!(tries < 60, "{tries}");
    }

    #[tokio::test]
    async fn without_time_the_best_so_far_is_kept() {
        let (a, _, end, _) = search(vec![("a", 17), ("a", 9_017)], 12).await;
        assert_eq!(end, End::OutOfTime);
        assert!(a.contains(&17) && a.contains(&9_017) && a.len() < 10_000, "{}", a.len());
    }
}
