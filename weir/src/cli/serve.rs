//! `weir serve`: runs what is scheduled, for as long as it is let, behind an HTTP port.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use chrono::Utc;
use clap::{Args, Subcommand};
use serde_json::json;
use weir_engine::{
    Failure, Workspace,
    scheduler::{Scheduler, Settings, Tell},
};
use weir_pipelines::Project;

use super::context::{Answer, Context};
use crate::{
    render::{Table, error, table::Look},
    server::{self, Behind, Server, scheduled::Scheduled, token, urls::Urls},
    telemetry::{Log, Otlp, Telemetry},
    watch::Files,
};

const EXAMPLES: &str = "\
Examples:
  weir serve
  weir serve --print-urls             and print addresses of SQL, for this once, with a token of their own
  weir serve token new grafana        make a token for the ports; it is shown once
  weir serve rules > weir.rules.yml   alert rules for Prometheus
  weir schedule list                  what is scheduled, and when it runs next
  weir schedule pause flights --reason \"the source is down\"";

/// What is logged where RUST_LOG does not say.
const LOGGED: &str = "warn,weir=info,weir_engine=info,weir_connectors=warn";

const UNPOISONED: &str = "nothing panics while it holds this lock";

/// Run what is scheduled: the scheduler, and an HTTP port with metrics and an API
///
/// Pipelines are read again when their files change; weir.toml is read at the start. SIGTERM or Ctrl-C lets what runs end, and starts nothing more; a
/// second one stops what runs, and nothing of it is published; a third one ends the process at once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Serve {
    #[command(subcommand)]
    command: Option<Command>,
    /// What this server is called among others of the same state [default: the host's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print the addresses of SQL, with a token that opens it for as long as this process lives
    #[arg(long)]
    print_urls: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, list and revoke tokens of the ports
    #[command(after_help = "Example:\n  weir serve token new grafana", subcommand_required = true, arg_required_else_help = true)]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Print alert rules for Prometheus, over the metrics that a server shows
    #[command(after_help = "Example:\n  weir serve rules > weir.rules.yml && promtool check rules weir.rules.yml")]
    Rules,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and show it, this once: only hashes of it are kept
    #[command(after_help = "Examples:\n  weir serve token new grafana\n  weir serve token new ann --scope sql,files,connection:crm")]
    New {
        /// What it is called; the user's name over Postgres and Flight
        #[arg(value_name = "NAME")]
        name: String,
        /// What it opens: runs, sql, files, pipelines, connections, or connection:NAME [default: runs,sql]
        #[arg(long, value_name = "WORD", value_delimiter = ',')]
        scope: Vec<String>,
    },
    /// List the tokens by name
    #[command(after_help = "Example:\n  weir serve token list")]
    List,
    /// Let a token open nothing any more; servers notice within 10 s
    #[command(after_help = "Example:\n  weir serve token revoke grafana")]
    Revoke {
        /// What it is called
        #[arg(value_name = "NAME")]
        name: String,
    },
}

impl Serve {
    /// Whether it is asked to serve, and not for something beside that.
    pub(super) fn serves(&self) -> bool {
        self.command.is_none()
    }

    /// Serves, and answers when it has ended.
    pub async fn answer(self, context: &Context) -> Answer {
        match self.command {
            None => serve(context, self.name, self.print_urls).await,
            Some(Command::Rules) => {
                context.answer(&server::rules::rules())?;
                Ok(error::DONE)
            }
            Some(Command::Token { command }) => tokens(context, command).await,
        }
    }
}

async fn serve(context: &Context, name: Option<String>, print_urls: bool) -> Answer {
    let workspace = context.workspace(None)?;
    let wrong = context.check_connections(&workspace.project);
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    let telemetry = telemetry(context, &workspace).await?;
    let (drain, stop) = context.signals.drain(
        "ending: what runs is let end; a second signal stops it",
        "stopping: what runs publishes nothing; a third signal ends at once",
    );
    let runs_max = usize::try_from(workspace.project.server.runs_max).unwrap_or(usize::MAX);
    let settings = Settings {
        name: name.unwrap_or_else(crate::project::host_name),
        runs_max,
        connection_runs_max: connection_runs_max(&workspace.project),
    };
    let files = Arc::new(Files::new(workspace.project.clone()));
    // The server asks the scheduler, and the scheduler tells the server.
    let listener: Arc<RwLock<Option<Server>>> = Arc::default();
    let told = listener.clone();
    let tell: Tell = Arc::new(move |notice| {
        if let Some(server) = told.read().expect(UNPOISONED).as_ref() {
            server.take(notice);
        }
    });
    // Runs side by side share the memory that there is.
    let mut shared = workspace.clone();
    shared.memory_limit_bytes /= u64::from(workspace.project.server.runs_max.max(1));
    let scheduler = Scheduler::new(shared, files, settings, tell).await?;
    // What the scheduler's own look finds to be wrong, or right again, is the scheduler's to tell.
    let files = Arc::new(Files::new(workspace.project.clone()));
    let control = Arc::new(Scheduled { scheduler: scheduler.clone(), workspace: workspace.clone(), files: files.clone() });
    let own_token = if print_urls { Some(token::generate()?) } else { None };
    let server = server::start(&workspace, Behind { control, files: Some(files), own_token: own_token.clone() }).await?;
    if let Some(token) = own_token {
        let urls = Urls::of(&server, &token);
        if context.global.json {
            context.answer_json(&urls.json())?
        } else {
            context.answer(&urls.text())?
        };
    }
    *listener.write().expect(UNPOISONED) = Some(server);
    let served = scheduler.serve(drain, stop).await;
    let server = listener.write().expect(UNPOISONED).take();
    if let Some(server) = server {
        server.stop().await;
    }
    if let Some(telemetry) = telemetry {
        // It waits for a receiver, on a thread that may wait.
        let _ = tokio::task::spawn_blocking(move || telemetry.stop()).await;
    }
    served?;
    Ok(error::DONE)
}

/// Starts to log and to send traces, as the project says.
async fn telemetry(context: &Context, workspace: &Workspace) -> Result<Option<Telemetry>, Failure> {
    let settings = &workspace.project.server;
    let default = match context.global.verbose {
        _ if context.global.quiet => "warn",
        0 | 1 => LOGGED,
        2 => "info,weir=debug,weir_engine=debug,weir_connectors=debug",
        _ => "debug,weir=trace,weir_engine=trace,weir_connectors=trace",
    };
    let log = Log::of(&context.global, &context.environment, default, settings.log);
    let otlp = Otlp::of(settings.otlp.as_deref(), &context.environment);
    // A client that blocks is made on a thread that may.
    let started = tokio::task::spawn_blocking(move || Telemetry::start(&log, otlp.as_ref())).await;
    started.map_err(|_| Failure::error("panic", "starting to log panicked"))?.map(Some)
}

async fn tokens(context: &Context, command: TokenCommand) -> Answer {
    let history = context.existing_workspace()?.history().await?;
    match command {
        TokenCommand::New { name, scope } => {
            token::check_name(&name)?;
            let scopes = token::scopes(&scope)?;
            let token = token::generate()?;
            let scram = token::salted(&token)?;
            if !history.add_token(&name, &token::hash(&token), &scopes, &scram, Utc::now()).await? {
                return Err(Failure::error("token-exists", format!("there is a token \"{name}\" already"))
                    .help(format!("choose another name, or revoke it first: weir serve token revoke {name}"))
                    .into());
            }
            if context.global.json {
                context.answer_json(&json!({ "name": name, "token": token, "scopes": scopes }))?;
            } else {
                context.answer(&format!("{token}\n"))?;
                context.say("it is not shown again: only hashes of it are kept");
            }
        }
        TokenCommand::List => {
            let tokens = history.tokens().await?;
            if context.global.json {
                context.answer_json(&json!({ "tokens": tokens }))?;
            } else if tokens.is_empty() {
                context.say("there is no token; make one with: weir serve token new NAME");
            } else {
                let mut table = Table::new(Look::Plain, &["token", "scopes", "made"]);
                tokens.iter().for_each(|token| table.row([&token.name, &token.scopes.join(","), &token.created_at]));
                context.answer(&table.render(context.out))?;
            }
        }
        TokenCommand::Revoke { name } => {
            if !history.revoke_token(&name).await? {
                return Err(Failure::error("unknown-token", format!("there is no token \"{name}\""))
                    .help("see them with: weir serve token list")
                    .into());
            }
            if context.global.json {
                context.answer_json(&json!({ "revoked": name }))?;
            } else {
                context.answer(&format!("{name} is revoked\n"))?;
            }
        }
    }
    Ok(error::DONE)
}

/// How many runs may use each connection, on all servers together.
pub fn connection_runs_max(project: &Project) -> BTreeMap<String, usize> {
    let limits = &project.server.connection_runs_max;
    limits.iter().map(|(name, most)| (name.clone(), usize::try_from(*most).unwrap_or(usize::MAX))).collect()
}
