//! Where does a pipeline's file write a column of a step? In the select list that makes it, or in the operator that casts, renames or selects it.

use weir_pipelines::{Operator, Pipeline, Span, SqlText};

use crate::sql;

/// Where the columns of a step are written. The SQL is read only when a column is asked for.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// By operators, the last one first.
    named: Vec<(String, Span)>,
    /// By the query before them.
    query: Option<SqlText>,
}

impl Written {
    /// What is written of a step's columns, by itself and by the steps that it only passes on.
    pub fn of(pipeline: &Pipeline, step: &str) -> Self {
        let mut written = Self::default();
        let mut step = step;
        // Each transform reads others, and never itself.
        while let Some(transform) = pipeline.transforms.iter().find(|transform| transform.name.value == step) {
            match &transform.operator {
                Operator::Sql(text) => {
                    written.query = Some(text.clone());
                    break;
                }
                Operator::Cast(types) => {
                    written.named.extend(types.iter().map(|(column, word)| (column.value.clone(), word.span.clone())));
                }
                Operator::Select(columns) => {
                    written.named.extend(columns.iter().map(|column| (column.value.clone(), column.span.clone())));
                }
                Operator::Rename(names) => {
                    written.named.extend(names.iter().map(|(_, new)| (new.value.clone(), new.span.clone())));
                    break;
                }
                Operator::Filter(_) | Operator::Deduplicate { .. } => {}
                Operator::Flatten { .. } => break,
            }
            let Some(from) = transform.inputs.first() else { break };
            step = &from.value;
        }
        written
    }

    /// The place of a column in the pipeline's file; none where it is only passed on, as by `select *`.
    pub fn place(&self, column: &str) -> Option<Span> {
        let named = self.named.iter().find(|(name, _)| name == column);
        named.map(|(_, span)| span.clone()).or_else(|| sql::column_of(self.query.as_ref()?, column))
    }
}
