//! What a person may write: pipeline files and `weir.toml`, parsed to types that are valid by construction,
//! or to every diagnostic at once. A pure function of text: no DataFusion, tokio, clock, environment or network.

pub mod cron;
mod depth;
pub mod diagnostic;
pub mod format;
#[cfg(test)]
mod golden;
mod layers;
pub mod params;
pub mod parse;
pub mod pipeline;
pub mod project;
pub mod saved;
pub mod schema;
mod schema_params;
pub mod server;
pub mod settings;
pub mod sql;
pub mod test;
pub mod units;

pub use cron::{CatchUp, Cron, Overlap, Retry, Schedule};
pub use diagnostic::{Diagnostic, Diagnostics, Label, Severity, SourceFile, Span, Spanned};
pub use format::format;
pub use layers::Layers;
pub use params::{Param, ParamKind, ParamValue};
pub use parse::{Changes, Partial, Vocabulary, matrix::name_of as row_name, param_names, parse, parse_partial, rows};
pub use pipeline::{
    Expectation, Expected, FlattenArray, Incremental, Keep, Measure, Mode, OnDrift, OnInvalid, OnMissingColumn, OnNewColumn,
    OnSchemaChange, OnTypeChange, Operator, Pipeline, Reference, Rules, Scalar, ShareMax, Sink, SortKey, Source, Transform, Trigger,
    TriggerKind,
};
pub use project::{Connection, PartialProject, Project};
pub use saved::{Saved, SavedDefault, SavedParam};
pub use schema::{KindSchema, pipeline_schema, project_schema};
pub use server::{Alert, Cause, LogForm, QueryLimits, Server};
pub use settings::Settings;
pub use sql::{INTERVAL, Relation, SqlText};
pub use test::{Fails, Given, GivenRows, Literal, Moment, Row, Rows, StepRows, Test};
