//! What is answered on the Flight port? Each call of the protocol, for the holder of a token: queries, prepared statements, and lists of what
//! is there. docs/guides/flight-clients.md is its reference.

use std::{pin::Pin, sync::Arc, time::Duration};

use arrow::{array::RecordBatch, datatypes::Schema, ipc::writer::IpcWriteOptions};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
    flight_service_server::FlightService,
    sql::{
        Any, Command, CommandGetCatalogs, CommandGetDbSchemas, CommandGetTables, DoPutPreparedStatementResult, ProstMessageExt,
        TicketStatementQuery,
    },
};
use futures::{Stream, StreamExt};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use weir_connectors::Blame;
use weir_engine::{
    Failure,
    query::{Catalogue, Session},
};

use super::{
    actions, answer,
    auth::{self, Caller},
    bind, encode, info,
    kept::{Handle, Parameters, Shelf, Statement},
    listing, status,
};

/// The first message of a client that sends some is waited for this long.
const FIRST: Duration = Duration::from_secs(20);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The door, behind its guard (`guard.rs`).
pub struct Door {
    catalogue: Arc<Catalogue>,
    /// What is kept between calls.
    pub shelf: Arc<Shelf>,
    /// Cancelled when the server ends: every query is.
    pub ending: CancellationToken,
}

impl Door {
    /// Nobody has come yet.
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, shelf: Arc::default(), ending: CancellationToken::new() }
    }

    /// The caller of a request, with a session, and what was asked.
    fn asked<T>(&self, request: Request<T>) -> Result<(Call, T), Failure> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let session = Arc::new(self.catalogue.session(caller.who));
        Ok((Call { owner: caller.key, session, shelf: self.shelf.clone(), ending: self.ending.clone() }, asked))
    }
}

/// One call of somebody who may.
pub struct Call {
    /// Whose handles are opened.
    pub owner: String,
    /// What answers.
    pub session: Arc<Session>,
    /// What is kept.
    pub shelf: Arc<Shelf>,
    ending: CancellationToken,
}

impl Call {
    /// Plans a query.
    pub async fn prepare(&self, sql: &str) -> Result<Statement, Failure> {
        let prepared = self.session.prepare(sql).await?;
        Ok(Statement { session: self.session.clone(), prepared, parameters: Parameters::default(), text_bytes: sql.len() })
    }

    /// Says what an answer will look like, and where it is fetched.
    async fn flight_info(&self, descriptor: FlightDescriptor) -> Result<FlightInfo, Failure> {
        let command = command(&descriptor.cmd)?;
        let (schema, ticket) = match self.statement(&command).await? {
            Some(statement) => {
                // Values can make another type of a column whose type hangs on them: the answer itself says which.
                let schema = statement.prepared.parameters().is_empty().then(|| encode::open(&statement.prepared.schema()));
                let ticket = self.shelf.ticket(&self.owner, statement)?;
                let ticket = TicketStatementQuery { statement_handle: ticket.bytes().into() };
                (schema, ticket.as_any().encode_to_vec())
            }
            None => (Some(self.list(&command, true).await?.schema()), command.into_any().encode_to_vec()),
        };
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
        let info = FlightInfo::new().with_endpoint(endpoint).with_descriptor(descriptor).with_ordered(true);
        match schema {
            Some(schema) => info.try_with_schema(&schema).map_err(unsayable),
            None => Ok(info),
        }
    }

    /// Says what an answer will look like, and keeps nothing.
    async fn schema(&self, descriptor: &FlightDescriptor) -> Result<SchemaResult, Failure> {
        let command = command(&descriptor.cmd)?;
        let schema = match self.statement(&command).await? {
            Some(statement) => encode::open(&statement.prepared.schema()),
            None => self.list(&command, true).await?.schema(),
        };
        SchemaResult::try_from(SchemaAsIpc::new(&schema, &IpcWriteOptions::default())).map_err(unsayable)
    }

    /// The query that a command is; none where it is a list.
    async fn statement(&self, command: &Command) -> Result<Option<Statement>, Failure> {
        match command {
            Command::CommandStatementQuery(query) => {
                no_transaction(query.transaction_id.as_deref())?;
                self.prepare(&query.query).await.map(Some)
            }
            Command::CommandPreparedStatementQuery(query) => self.shelf.statement(&self.owner, &query.prepared_statement_handle).map(Some),
            Command::CommandStatementSubstraitPlan(_) => Err(actions::not_served("plans of Substrait are")),
            Command::CommandStatementUpdate(_) | Command::CommandPreparedStatementUpdate(_) | Command::CommandStatementIngest(_) => {
                Err(read_only())
            }
            _ => Ok(None),
        }
    }

    /// The rows of a list; none of them, where only their columns are wanted.
    async fn list(&self, command: &Command, columns_only: bool) -> Result<RecordBatch, Failure> {
        let nothing = |schema| RecordBatch::new_empty(schema);
        match command {
            Command::CommandGetCatalogs(command) if columns_only => Ok(nothing(CommandGetCatalogs::into_builder(*command).schema())),
            Command::CommandGetDbSchemas(command) if columns_only => {
                Ok(nothing(CommandGetDbSchemas::into_builder(command.clone()).schema()))
            }
            Command::CommandGetTables(command) if columns_only => Ok(nothing(CommandGetTables::into_builder(command.clone()).schema())),
            Command::CommandGetCatalogs(command) => listing::catalogs(&self.session, *command),
            Command::CommandGetDbSchemas(command) => listing::schemas(&self.session, command.clone()).await,
            Command::CommandGetTables(command) => listing::tables(&self.session, command.clone()).await,
            Command::CommandGetTableTypes(_) => listing::table_types(),
            Command::CommandGetPrimaryKeys(_) => Ok(nothing(listing::primary_keys_schema())),
            Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
                Ok(nothing(listing::foreign_keys_schema()))
            }
            Command::CommandGetSqlInfo(command) => {
                let all = info::server(&self.session.context()).map_err(unlistable)?;
                all.record_batch(command.info.iter().copied()).map_err(unlistable)
            }
            Command::CommandGetXdbcTypeInfo(command) => {
                let all = info::types().map_err(unlistable)?;
                all.record_batch(command.data_type).map_err(unlistable)
            }
            other => Err(actions::not_served(&format!("\"{}\" is", short(other.type_url())))),
        }
    }

    /// The rows that a ticket stands for.
    async fn get(&self, ticket: &Ticket) -> Result<answer::Messages, Failure> {
        let command = command(&ticket.ticket)?;
        let (handle, statement) = match &command {
            Command::TicketStatementQuery(ticket) => {
                let (handle, statement) = self.shelf.redeem(&self.owner, &ticket.statement_handle)?;
                (Some(handle), statement)
            }
            Command::CommandPreparedStatementQuery(query) => (None, self.shelf.statement(&self.owner, &query.prepared_statement_handle)?),
            list => return answer::ready(&self.list(list, false).await?),
        };
        self.run(handle, statement).await
    }

    async fn run(&self, handle: Option<Handle>, statement: Statement) -> Result<answer::Messages, Failure> {
        let cancel = self.ending.child_token();
        // From here on whoever drops this cancels the query: a client that goes while it waits in the queue, too.
        let running = self.shelf.running(&self.owner, handle, cancel.clone())?;
        let rows = statement.session.execute(&statement.prepared, statement.parameters.values, cancel.clone()).await?;
        Ok(answer::running(rows, running, cancel))
    }

    /// Takes the values of a prepared statement; everything else that a client could put is refused.
    async fn put(&self, mut messages: Streaming<FlightData>) -> Result<Vec<PutResult>, Status> {
        let first = tokio::time::timeout(FIRST, messages.next()).await.ok().flatten();
        let first = first.ok_or_else(|| status::of(&unreadable("nothing was sent")))??;
        let descriptor = first.flight_descriptor.as_ref().ok_or_else(|| status::of(&unreadable("it says of nothing what it is")))?;
        match command(&descriptor.cmd).map_err(|failure| status::of(&failure))? {
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                // Nothing is read for a statement that is not there.
                self.shelf.statement(&self.owner, &handle).map_err(|failure| status::of(&failure))?;
                let values = bind::read(first, messages).await?;
                self.shelf.bind(&self.owner, &handle, values).map_err(|failure| status::of(&failure))?;
                let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
                Ok(vec![PutResult { app_metadata: result.encode_to_vec().into() }])
            }
            Command::CommandStatementUpdate(update) => Err(status::of(&self.refuse_update(&update.query).await)),
            Command::CommandPreparedStatementUpdate(_) | Command::CommandStatementIngest(_) => Err(status::of(&read_only())),
            Command::CommandStatementSubstraitPlan(_) => Err(status::of(&actions::not_served("plans of Substrait are"))),
            other => Err(status::of(&actions::not_served(&format!("\"{}\" is", short(other.type_url()))))),
        }
    }

    /// Why an update is not made: what the guard says of it. A query is none, though it could be answered.
    async fn refuse_update(&self, sql: &str) -> Failure {
        match self.session.prepare(sql).await {
            Err(failure) => failure,
            Ok(_) => read_only().help("a query has rows: execute it as a query"),
        }
    }
}

/// Who calls: the guard has let them in.
fn caller<T>(request: &Request<T>) -> Result<Caller, Failure> {
    request.extensions().get::<Caller>().cloned().ok_or_else(auth::nobody)
}

/// What is asked for.
fn command(bytes: &[u8]) -> Result<Command, Failure> {
    let any = Any::decode(bytes).map_err(|_| unreadable("it is no message of Flight SQL"))?;
    Command::try_from(any).map_err(|_| unreadable("it is no message of Flight SQL"))
}

fn unreadable(why: &str) -> Failure {
    Failure::error("bad-request", format!("the request cannot be read: {why}"))
}

fn unsayable(error: arrow::error::ArrowError) -> Failure {
    Failure::error("output-failed", format!("the columns cannot be said: {error}")).blame(Blame::Weir)
}

fn unlistable(error: arrow_flight::error::FlightError) -> Failure {
    Failure::error("output-failed", format!("the answer cannot be put together: {error}")).blame(Blame::Weir)
}

/// What is said of everything that would change something and is no statement, which the guard would see.
pub fn read_only() -> Failure {
    Failure::error("read-only", "only queries are answered here, nothing is changed").help("tables change by running pipelines")
}

fn no_transaction(id: Option<&[u8]>) -> Result<(), Failure> {
    match id {
        None | Some([]) => Ok(()),
        Some(_) => Err(unreadable("there is no such transaction: there are none here")),
    }
}

/// A type's name without what all have in front.
fn short(url: &str) -> String {
    url.rsplit(['.', '/']).next().unwrap_or_default().chars().take(60).collect()
}

/// A schema as prepared statements tell it.
pub fn schema_bytes(schema: &Schema) -> Result<Vec<u8>, Failure> {
    let schema = SchemaResult::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default())).map_err(unsayable)?;
    Ok(schema.schema.to_vec())
}

fn said<T>(answer: Result<T, Failure>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|failure| status::of(&failure))
}

#[tonic::async_trait]
impl FlightService for Door {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = answer::Messages;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        let token = caller(&request).map_err(|failure| status::of(&failure))?.token;
        let bearer = auth::bearer(&token).map_err(|failure| status::of(&failure))?;
        // The password is the token, and the token is what opens: there is nothing else to hand out, and nothing to remember.
        let shaken = HandshakeResponse { protocol_version: 0, payload: token.into_bytes().into() };
        let mut response = Response::new(answer::only(vec![shaken]));
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        said(self.asked(request).map(|_| answer::only(Vec::new())))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let (call, descriptor) = said(self.asked(request))?.into_inner();
        said(call.flight_info(descriptor).await)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let refused = self.asked(request).and_then(|_| Err(actions::not_served("\"PollFlightInfo\" is")));
        said(refused)
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let (call, descriptor) = said(self.asked(request))?.into_inner();
        said(call.schema(&descriptor).await)
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let (call, ticket) = said(self.asked(request))?.into_inner();
        said(call.get(&ticket).await)
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let (call, messages) = said(self.asked(request))?.into_inner();
        Ok(Response::new(answer::only(call.put(messages).await?)))
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        let refused = self.asked(request).and_then(|_| Err(actions::not_served("\"DoExchange\" is")));
        said(refused)
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let (call, action) = said(self.asked(request))?.into_inner();
        said(actions::act(&call, &action).await.map(answer::only))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        said(self.asked(request).map(|_| answer::only(actions::all())))
    }
}
