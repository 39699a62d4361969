//! `weir quarantine`: the rows that broke their contract, why, and where they came from.

use std::{
    io::{self, BufWriter},
    path::PathBuf,
};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::{cast, filter_record_batch},
    datatypes::DataType,
};
use clap::{Args, Subcommand};
use datafusion::execution::SendableRecordBatchStream;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use weir_connectors::quote::identifier;
use weir_engine::{Workspace, quarantine::QuarantineTable, query::Session};
use weir_pipelines::Diagnostic;

use super::{
    context::{Answer, Context, Stop},
    sql::{chosen, copy, to_file_with},
};
use crate::{
    project,
    render::{Style, Table, error, number::count, rows::Format, table::Look},
};

const EXAMPLES: &str = "\
Examples:
  weir quarantine list                                 how many rows, per step and reason
  weir quarantine show flights --step flights --limit 5
  weir quarantine show flights --code maximum --json
  weir quarantine export flights -o rejected.ndjson
  weir sql -c 'select code, count(*) from quarantine.flights.flights group by 1'";

/// See and export rows that broke their contract
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Quarantine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count quarantined rows, per step and reason
    #[command(after_help = "Example:\n  weir quarantine list flights")]
    List {
        /// Only this pipeline's, by file, folder or name
        #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
        pipeline: Option<String>,
    },
    /// Show quarantined rows with reason, file and line, newest run first
    #[command(after_help = "Example:\n  weir quarantine show flights --code required --limit 5")]
    Show {
        #[command(flatten)]
        which: Which,
        /// At most so many rows
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u64,
    },
    /// Write quarantined rows to a file: csv, ndjson or parquet, by its extension
    #[command(after_help = "Example:\n  weir quarantine export flights -o rejected.parquet")]
    Export {
        #[command(flatten)]
        which: Which,
        /// The file
        #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        output: PathBuf,
        /// The format [default: by the file's extension]
        #[arg(short, long, value_enum)]
        format: Option<Format>,
    },
}

/// Which rows are meant.
#[derive(Debug, Args)]
struct Which {
    /// The pipeline by file, folder or name
    #[arg(value_name = "PIPELINE", value_hint = clap::ValueHint::AnyPath)]
    pipeline: String,
    /// Only this step's
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Only rows with this reason's code, such as malformed, wrong-type or required
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
}

impl Quarantine {
    /// Looks into the quarantine and answers.
    pub async fn answer(self, context: &Context) -> Answer {
        let workspace = context.existing_workspace()?;
        match self.command {
            Command::List { pipeline } => {
                let name = pipeline.map(|argument| name_of(&argument, &workspace, context));
                let tables = weir_engine::quarantine::list(&workspace, name.as_deref()).await?;
                if context.global.json {
                    context.answer_json(&json!({ "quarantine": tables }))?;
                } else if tables.iter().all(|table| table.rows == 0) {
                    context.say("nothing is in quarantine");
                } else {
                    context.answer(&list(&tables, context.out))?;
                }
            }
            Command::Show { which, limit } => {
                let columns = if context.global.json { "*" } else { "step, file, \"row\", code, \"column\", reason, raw" };
                let streams = which.streams(&workspace, context, columns).await?;
                if streams.is_empty() {
                    return nothing(&which, context);
                }
                let format = if context.global.json { Format::Json } else { Format::Table };
                let out = BufWriter::with_capacity(1 << 16, io::stdout());
                copy(streams, out, format, context.out, which.keep(limit)).await?;
            }
            Command::Export { which, output, format } => {
                let format = chosen(format, Some(&output), context)?;
                let streams = which.streams(&workspace, context, "*").await?;
                if streams.is_empty() {
                    return nothing(&which, context);
                }
                to_file_with(context, &output, format, streams, which.keep(u64::MAX)).await?;
            }
        }
        Ok(error::DONE)
    }
}

fn nothing(which: &Which, context: &Context) -> Answer {
    if context.global.json {
        context.answer("[]\n")?;
    } else {
        context.say(&format!("nothing of \"{}\" is in quarantine", which.pipeline));
    }
    Ok(error::DONE)
}

/// The name of the pipeline that an argument means; one whose file is gone may still have rows here.
fn name_of(argument: &str, workspace: &Workspace, context: &Context) -> String {
    match project::find_pipeline(argument, &workspace.project.root, &context.folder) {
        Ok(path) => project::name_of(&path),
        Err(_) => argument.to_owned(),
    }
}

impl Which {
    async fn streams(&self, workspace: &Workspace, context: &Context, columns: &str) -> Result<Vec<SendableRecordBatchStream>, Stop> {
        let pipeline = name_of(&self.pipeline, workspace, context);
        let tables = weir_engine::quarantine::list(workspace, Some(&pipeline)).await?;
        let steps: Vec<&str> = tables.iter().map(|table| table.step.as_str()).collect();
        if let Some(step) = &self.step
            && !steps.is_empty()
            && !steps.contains(&step.as_str())
        {
            return Err(Diagnostic::error("unknown-step", format!("no rows of a step \"{step}\" are in quarantine"))
                .did_you_mean(step, steps.iter().copied())
                .help(format!("steps with rows here are: {}", steps.join(", ")))
                .into());
        }
        let session = Session::open(workspace).await?;
        let mut streams = Vec::new();
        for step in steps.into_iter().filter(|step| self.step.as_deref().is_none_or(|wanted| wanted == *step)) {
            let table = format!("quarantine.{}.{}", identifier(&pipeline), identifier(step));
            let sql = format!("select {columns} from {table} order by run desc, file, \"row\"");
            // Ctrl-C drops the stream, which ends the query.
            streams.push(session.query(&sql, CancellationToken::new()).await?);
        }
        Ok(streams)
    }

    /// Lets the rows through that are meant, and no more of them than `limit`.
    fn keep(&self, limit: u64) -> impl FnMut(RecordBatch) -> Result<Option<RecordBatch>, Stop> {
        let code = self.code.clone();
        let mut left = limit;
        move |batch| {
            let batch = match &code {
                Some(code) => with_code(&batch, code)?,
                None => batch,
            };
            if left == 0 {
                return Ok(None);
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(batch.num_rows());
            left -= take as u64;
            Ok(Some(batch.slice(0, take)))
        }
    }
}

fn with_code(batch: &RecordBatch, code: &str) -> Result<RecordBatch, Stop> {
    let filter = || {
        let codes = cast(batch.column_by_name("code")?, &DataType::Utf8).ok()?;
        let wanted: BooleanArray = codes.as_string::<i32>().iter().map(|one| Some(one == Some(code))).collect();
        filter_record_batch(batch, &wanted).ok()
    };
    filter().ok_or_else(|| weir_engine::Failure::error("quarantine-unreadable", "the quarantine has no column \"code\"").into())
}

fn list(tables: &[QuarantineTable], style: Style) -> String {
    let mut table = Table::new(Look::Plain, &["pipeline", "step", "code", "column", ">rows"]);
    for one in tables {
        table.row([&one.pipeline, &one.step, "", "", &count(one.rows)]);
        for reason in &one.reasons {
            table.row(["", "", &reason.code, reason.column.as_deref().unwrap_or(""), &count(reason.rows)]);
        }
    }
    table.render(style)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, StringViewArray},
        datatypes::{Field, Schema},
    };
    use weir_engine::quarantine::Reason;

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![Field::new("code", DataType::Utf8View, false), Field::new("row", DataType::Int64, false)]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![Arc::new(StringViewArray::from(vec!["required", "maximum", "required"])), Arc::new(Int64Array::from(vec![1, 2, 3]))],
        )
        .expect("fits")
    }

    #[test]
    fn rows_are_kept_by_code_and_up_to_the_limit() {
        let which = Which { pipeline: "p".into(), step: None, code: Some("required".into()) };
        let mut keep = which.keep(3);
        let rows = |kept: Option<RecordBatch>| kept.map(|batch| batch.num_rows());
        assert_eq!(rows(keep(batch()).expect("has codes")), Some(2));
        assert_eq!(rows(keep(batch()).expect("has codes")), Some(1));
        assert_eq!(rows(keep(batch()).expect("has codes")), None);
    }

    #[test]
    fn steps_are_listed_with_their_reasons() {
        let reasons = vec![
            Reason { code: "maximum".into(), column: Some("dep_delay".into()), rows: 1200 },
            Reason { code: "malformed".into(), column: None, rows: 3 },
        ];
        let tables = [QuarantineTable { pipeline: "flights".into(), step: "raw".into(), rows: 1203, runs: 2, reasons }];
        assert_eq!(
            list(&tables, Style::PLAIN),
            "pipeline  step  code       column      rows\n\
             flights   raw                         1,203\n\
             \x20               maximum    dep_delay  1,200\n\
             \x20               malformed                 3\n"
        );
    }
}
