//! How a pipeline runs: plan, execute once, stage, check, balance the books, publish. No TOML, HTTP, terminal or environment.

pub mod agree;
pub mod books;
pub mod check;
pub mod checks;
pub mod delta;
pub mod doctor;
pub mod drift;
pub mod error;
pub mod events;
pub mod expect;
pub mod failing;
pub mod given;
pub mod history;
pub mod mend;
pub mod now;
pub mod plan;
pub mod proof;
pub mod publish;
pub mod quarantine;
pub mod query;
pub mod reasons;
pub mod run;
pub mod share;
pub mod spill;
pub mod spill_table;
pub mod sql;
pub mod step;
pub mod survey;
pub mod transforms;
pub mod workspace;

pub use books::{Books, SinkBooks, StepBooks, Summary};
pub use drift::Drift;
pub use error::{Failure, Result};
pub use events::Event;
pub use history::{History, RunRecord, RunStatus};
pub use workspace::Workspace;
