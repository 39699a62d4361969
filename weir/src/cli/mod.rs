//! The command line: its grammar, and from it to the command's own file. One file per command.

pub mod backfill;
pub mod check;
pub mod completions;
pub mod connectors;
pub mod context;
pub mod data;
pub mod dev;
pub mod doctor;
pub mod explain;
pub mod failing;
pub mod fmt;
pub mod graph;
pub mod init;
pub mod keys;
pub mod new;
pub mod pages;
pub mod plan;
pub mod prompt;
pub mod quarantine;
pub mod run;
pub mod runs;
pub mod schedule;
pub mod schema;
pub mod serve;
pub mod signals;
pub mod sql;
pub mod state;
pub mod statements;
pub mod test;
pub mod types;

use std::{collections::HashMap, path::PathBuf, process::ExitCode, time::Duration};

use clap::{ArgAction, CommandFactory, Parser, Subcommand, error::ErrorKind};
use serde_json::json;
use weir_engine::Failure;
use weir_pipelines::LogForm;

use crate::{
    project,
    render::{error, style::ColorWhen},
    telemetry::{Log, Otlp, Telemetry},
};
use context::{Answer, Context, Stop};

const EXAMPLES: &str = "\
Examples:
  weir init shop && cd shop            make a project with an example pipeline
  weir check                           check every pipeline; nothing runs
  weir test                            run the tests in pipeline files
  weir fmt                             lay the files out in one style
  weir run orders                      run one pipeline and show its account
  weir serve                           run what is scheduled, from now on
  weir sql -c \"select * from lake.shop.orders limit 10\"
  weir quarantine show orders          rows that broke their contract, and why
  weir explain unknown-column          what an error's code means, and what to do

Exit codes: 0 done, 1 the run or the check failed, 2 the command line or the files are wrong,
3 a system outside is unavailable, 130 interrupted.";

/// A declarative ETL engine: TOML pipelines, JSON Schema contracts, Arrow dataflow
///
/// A pipeline is a TOML file that says where rows come from, how SQL changes them, what a valid row is, and where they
/// go. Weir checks the whole file before anything runs; every row read is loaded, quarantined, or counted under the rule
/// that left it out.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXAMPLES, max_term_width = 110, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Answer with JSON on standard output; errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// Lay the [profile.NAME] table of weir.toml over the project's settings
    #[arg(long, global = true, value_name = "NAME", env = "WEIR_PROFILE", hide_env_values = true)]
    pub profile: Option<String>,
    /// The project's folder [default: the nearest one upwards that holds weir.toml]
    #[arg(long, global = true, value_name = "DIR", env = "WEIR_PROJECT", hide_env_values = true, value_hint = clap::ValueHint::DirPath)]
    pub project: Option<PathBuf>,
    /// Say nothing but the answer and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log to standard error; -vv and -vvv say more. RUST_LOG chooses precisely
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Whether to colour
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorWhen::Auto)]
    pub color: ColorWhen,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    New(new::New),
    Check(check::Check),
    Plan(plan::Plan),
    Test(test::Test),
    Fmt(fmt::Fmt),
    Graph(graph::Graph),
    Run(run::Run),
    Sql(sql::Sql),
    Backfill(backfill::Backfill),
    Serve(serve::Serve),
    Runs(runs::Runs),
    Schedule(schedule::ScheduleCommand),
    Doctor(doctor::Doctor),
    Quarantine(quarantine::Quarantine),
    State(state::State),
    Schema(schema::Schema),
    Connectors(connectors::Connectors),
    Explain(explain::Explain),
    Completions(completions::Completions),
    #[command(hide = true)]
    Dev(dev::Dev),
}

/// The grammar, for completions and the reference.
pub fn grammar() -> clap::Command {
    Cli::command()
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let environment = project::environment();
    let cli = match Cli::try_parse_from(sql::spelled_out(&grammar(), std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let telemetry = telemetry(&cli, &environment);
    // Queries keep as many threads busy as there are processors, for seconds without a pause: two more answer sockets, timers and signals.
    let workers = std::thread::available_parallelism().map_or(1, usize::from) + 2;
    // Planning a deep query is recursive; the stacks of worker threads are as large as the main thread's.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().thread_stack_size(8 << 20).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            context::to_stderr(&format!("error[threads]: cannot start threads: {error}"));
            return ExitCode::from(error::FAILED);
        }
    };
    let code = runtime.block_on(async {
        let context = Context::new(cli.global, environment);
        let answer = dispatch(&context, cli.command).await;
        context.end(answer)
    });
    if let Some(telemetry) = telemetry {
        telemetry.stop();
    }
    // A read from a terminal cannot be ended; the process does not wait for it.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ExitCode::from(code)
}

async fn dispatch(context: &Context, command: Command) -> Answer {
    let command = match command {
        // These stop by themselves: a run has to discard what it staged, a prompt goes on, a server lets what runs end.
        Command::Run(run) => return Box::pin(run.answer(context)).await,
        Command::Sql(sql) => return Box::pin(sql.answer(context)).await,
        Command::Backfill(backfill) => return Box::pin(backfill.answer(context)).await,
        Command::Serve(serve) => return Box::pin(serve.answer(context)).await,
        other => other,
    };
    let answer = async {
        match command {
            Command::Init(init) => init.answer(context),
            Command::New(new) => new.answer(context).await,
            Command::Check(check) => check.answer(context).await,
            Command::Plan(plan) => plan.answer(context).await,
            Command::Test(test) => test.answer(context).await,
            Command::Fmt(fmt) => fmt.answer(context),
            Command::Graph(graph) => graph.answer(context),
            Command::Run(_) | Command::Sql(_) | Command::Backfill(_) | Command::Serve(_) => unreachable!("answered above"),
            Command::Runs(runs) => runs.answer(context).await,
            Command::Schedule(schedule) => schedule.answer(context).await,
            Command::Doctor(doctor) => doctor.answer(context).await,
            Command::Quarantine(quarantine) => quarantine.answer(context).await,
            Command::State(state) => state.answer(context).await,
            Command::Schema(schema) => schema.answer(context).await,
            Command::Connectors(connectors) => connectors.answer(context),
            Command::Explain(explain) => explain.answer(context),
            Command::Completions(completions) => completions.answer(context),
            Command::Dev(dev) => dev.answer(context),
        }
    };
    let token = context.signals.token();
    tokio::select! {
        answer = answer => answer,
        () = token.cancelled() => Err(Stop::Failure(Failure::Interrupted)),
    }
}

/// Shows help, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json && !is_help {
        let text = error.render().to_string();
        let message = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
        let answer = json!({ "error": { "code": "usage", "message": message } });
        let _ = context::to_stdout(&format!("{answer:#}\n"));
    } else {
        // A closed pipe is the reader's choice.
        let _ = error.print();
    }
    ExitCode::from(if is_help { error::DONE } else { error::WRONG })
}

/// Sends what the libraries say to standard error, and the trace of a run to where OpenTelemetry's variables say. No receiver, or a wrong one,
/// keeps nothing from running.
fn telemetry(cli: &Cli, environment: &HashMap<String, String>) -> Option<Telemetry> {
    // A server starts its own, as its project says.
    if matches!(&cli.command, Command::Serve(serve) if serve.serves()) {
        return None;
    }
    let default = match cli.global.verbose {
        0 => "off",
        1 => "warn,weir=info,weir_engine=info,weir_connectors=info",
        2 => "info,weir=debug,weir_engine=debug,weir_connectors=debug",
        _ => "debug,weir=trace,weir_engine=trace,weir_connectors=trace",
    };
    let log = Log::of(&cli.global, environment, default, Some(LogForm::Text));
    let otlp = if matches!(cli.command, Command::Run(_)) { Otlp::of(None, environment) } else { None };
    let started = Telemetry::start(&log, otlp.as_ref()).or_else(|failure| {
        context::to_stderr(&format!("warning: no trace is sent: {}", failure.sentence()));
        Telemetry::start(&log, None)
    });
    started.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
    }

    #[test]
    fn global_flags_are_taken_on_either_side_of_the_command() {
        for line in [["weir", "--json", "check", "a"], ["weir", "check", "a", "--json"]] {
            let cli = Cli::try_parse_from(line).expect("is understood");
            assert!(cli.global.json);
            assert!(matches!(cli.command, Command::Check(_)));
        }
    }

    #[test]
    fn every_command_teaches_with_an_example() {
        fn visit(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(command.has_subcommands() && !path.trim().contains(' ') || help.contains("weir "), "{path} has no example");
            assert!(command.get_about().is_some(), "{path} says nothing of itself");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{path} does not explain {}", argument.get_id());
            }
            command.get_subcommands().for_each(|inner| visit(inner, &path));
        }
        visit(&grammar(), "");
    }

    #[test]
    fn run_takes_several_settings() {
        let cli = Cli::try_parse_from(["weir", "run", "p", "--set", "a.b=1", "--set", "c=x=y", "--dry-run"]).expect("is understood");
        let Command::Run(run) = cli.command else { panic!("is a run") };
        assert_eq!(run.set.set, [("a.b".to_owned(), "1".to_owned()), ("c".to_owned(), "\"x=y\"".to_owned())]);
        assert!(Cli::try_parse_from(["weir", "run", "p", "--set", "novalue"]).is_err());
    }
}
