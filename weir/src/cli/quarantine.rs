//! `weir quarantine`: the rows that broke their contract, why, where they came from, and what becomes of them.

mod end;
mod groups;

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
  weir quarantine show flights                         each rule that was broken, with examples
  weir quarantine rows flights --code maximum --limit 5
  weir quarantine export flights -o rejected.ndjson
  weir quarantine fix users --set \"zip = lpad(zip, 5, '0')\" --where \"length(zip) < 5\" --dry-run
  weir quarantine discard users --code malformed --reason \"torn by the vendor, ticket 4711\"
  weir quarantine purge users --older-than 90d
  weir sql -c 'select code, count(*) from quarantine.flights.flights group by 1'";

/// See, mend, discard and export rows that broke their contract
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
    /// Show each rule that was broken, how often, and some of the rows
    #[command(after_help = "Example:\n  weir quarantine show flights --code required --examples 5")]
    Show {
        #[command(flatten)]
        which: Which,
        /// At most so many rows of each rule
        #[arg(long, value_name = "N", default_value_t = 3)]
        examples: usize,
    },
    /// Print quarantined rows with reason, file and line, newest run first
    #[command(after_help = "Example:\n  weir quarantine rows flights --code required --limit 5")]
    Rows {
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
    /// Change quarantined rows and load those that are valid then through the rest of their pipeline
    ///
    /// Rows are changed by SQL expressions over their step's columns and, as quarantine.code, quarantine.raw and so on, over those of the quarantine.
    /// Whatever is valid then is loaded, exactly once, into the same destinations; the others stay. The quarantine keeps what was done, when, and by whom.
    #[command(after_help = end::FIX_EXAMPLES)]
    Fix(end::Fix),
    /// Give quarantined rows up, with a reason
    ///
    /// They stay in the quarantine's table, marked, until they are purged.
    #[command(after_help = end::DISCARD_EXAMPLES)]
    Discard(end::Discard),
    /// Remove rows from the quarantine by age: those that were mended or discarded
    #[command(after_help = end::PURGE_EXAMPLES)]
    Purge(end::Purge),
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
                let name = pipeline.map(|argument| name_of(&argument, &workspace, context)).transpose()?;
                let tables = weir_engine::quarantine::list(&workspace, name.as_deref()).await?;
                if context.global.json {
                    context.answer_json(&json!({ "quarantine": tables }))?;
                } else if tables.iter().all(|table| table.rows == 0) {
                    context.say("nothing is in quarantine");
                } else {
                    context.answer(&list(&tables, context.out))?;
                }
            }
            Command::Show { which, examples } => {
                let pipeline = name_of(&which.pipeline, &workspace, context)?;
                let mut tables = weir_engine::quarantine::list(&workspace, Some(&pipeline)).await?;
                which.check_step(&pipeline, &tables)?;
                tables.retain(|table| which.step.as_ref().is_none_or(|step| *step == table.step));
                let found = weir_engine::quarantine::groups(&workspace, &tables, which.code.as_deref(), examples).await?;
                if context.global.json {
                    context.answer_json(&json!({ "pipeline": pipeline, "rules": found }))?;
                } else if found.is_empty() {
                    return nothing(&which, context);
                } else {
                    context.answer(&groups::render(&pipeline, &found, context.out))?;
                }
            }
            Command::Fix(fix) => return fix.answer(context).await,
            Command::Discard(discard) => return discard.answer(&workspace, context).await,
            Command::Purge(purge) => return purge.answer(&workspace, context).await,
            Command::Rows { which, limit } => {
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
fn name_of(argument: &str, workspace: &Workspace, context: &Context) -> Result<String, Stop> {
    match project::find_pipeline(argument, &workspace.project.root, &context.folder) {
        Ok(found) => Ok(found.name()),
        Err(several) if several.code == "ambiguous-pipeline" => Err(several.into()),
        Err(_) => Ok(argument.to_owned()),
    }
}

impl Which {
    async fn streams(&self, workspace: &Workspace, context: &Context, columns: &str) -> Result<Vec<SendableRecordBatchStream>, Stop> {
        let pipeline = name_of(&self.pipeline, workspace, context)?;
        let tables = weir_engine::quarantine::list(workspace, Some(&pipeline)).await?;
        self.check_step(&pipeline, &tables)?;
        let steps = tables.iter().filter(|table| table.rows > 0).map(|table| table.step.as_str());
        let session = Session::open(workspace)?;
        let mut streams = Vec::new();
        for step in steps.filter(|step| self.step.as_deref().is_none_or(|wanted| wanted == *step)) {
            let table = format!("quarantine.{}.{}", identifier(&pipeline), identifier(step));
            let known = session.quarantined(&pipeline, step).await?;
            let waits = weir_engine::quarantine::waiting(known.schema().fields().iter().map(|field| field.name().as_str()));
            let sql = format!("select {columns} from {table} where {waits} order by run desc, file, \"row\"");
            // Ctrl-C drops the stream, which ends the query.
            streams.push(session.query(&sql, CancellationToken::new()).await?);
        }
        Ok(streams)
    }

    /// Refuses a step that has set nothing aside.
    fn check_step(&self, pipeline: &str, tables: &[QuarantineTable]) -> Result<(), Stop> {
        let steps: Vec<&str> = tables.iter().map(|table| table.step.as_str()).collect();
        match &self.step {
            Some(step) if !steps.is_empty() && !steps.contains(&step.as_str()) => {
                Err(weir_engine::quarantine::unknown_step(step, pipeline, &steps).into())
            }
            _ => Ok(()),
        }
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
        let tables = [QuarantineTable { pipeline: "flights".into(), step: "raw".into(), rows: 1203, runs: 2, ended: 0, reasons }];
        assert_eq!(
            list(&tables, Style::PLAIN),
            "pipeline  step  code       column      rows\n\
             flights   raw                         1,203\n\
             \x20               maximum    dep_delay  1,200\n\
             \x20               malformed                 3\n"
        );
    }
}
