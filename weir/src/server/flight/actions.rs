//! What can be done beside asking? Statements are prepared and closed, queries are cancelled; transactions there are none.

use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo, Result as ActionResult,
    sql::{
        ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
        ActionCreatePreparedStatementResult, Any, Command, ProstMessageExt,
    },
};
use prost::Message;
use weir_engine::Failure;

use super::{
    encode,
    service::{Call, read_only, schema_bytes},
};

const PREPARE: &str = "CreatePreparedStatement";
const CLOSE: &str = "ClosePreparedStatement";
const CANCEL: &str = "CancelFlightInfo";
/// As it was called before there was [`CANCEL`].
const CANCEL_QUERY: &str = "CancelQuery";

/// What may be asked for.
pub fn all() -> Vec<ActionType> {
    let one = |name: &str, about: &str| ActionType { r#type: name.to_owned(), description: about.to_owned() };
    vec![
        one(PREPARE, "plans a query, and keeps it until it is closed"),
        one(CLOSE, "closes a prepared statement"),
        one(CANCEL, "cancels a query, by its FlightInfo"),
        one(CANCEL_QUERY, "the same, as older clients ask for it"),
    ]
}

/// Does what is asked.
pub async fn act(call: &Call, action: &Action) -> Result<Vec<ActionResult>, Failure> {
    match action.r#type.as_str() {
        PREPARE => {
            let request: ActionCreatePreparedStatementRequest = unpack(&action.body)?;
            prepare(call, &request).await.map(|result| vec![packed(&result)])
        }
        CLOSE => {
            let request: ActionClosePreparedStatementRequest = unpack(&action.body)?;
            call.shelf.close(&call.owner, &request.prepared_statement_handle);
            Ok(Vec::new())
        }
        CANCEL => {
            let request = CancelFlightInfoRequest::decode(&*action.body).map_err(|_| unreadable())?;
            let status =
                if cancel(call, &request.info.unwrap_or_default()) { CancelStatus::Cancelled } else { CancelStatus::NotCancellable };
            Ok(vec![ActionResult::new(CancelFlightInfoResult::new(status).encode_to_vec())])
        }
        CANCEL_QUERY => {
            let request: ActionCancelQueryRequest = unpack(&action.body)?;
            let info = FlightInfo::decode(&*request.info).map_err(|_| unreadable())?;
            // As the protocol numbers them: cancelled, and not cancellable.
            let result = if cancel(call, &info) { 1 } else { 3 };
            Ok(vec![packed(&ActionCancelQueryResult { result })])
        }
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => Err(read_only()),
        "CreatePreparedSubstraitPlan" => Err(not_served("plans of Substrait are")),
        other => Err(not_served(&format!("\"{}\" is", other.chars().take(60).collect::<String>()))),
    }
}

async fn prepare(call: &Call, request: &ActionCreatePreparedStatementRequest) -> Result<ActionCreatePreparedStatementResult, Failure> {
    if request.transaction_id.as_ref().is_some_and(|id| !id.is_empty()) {
        return Err(Failure::error("bad-request", "the request cannot be read: there is no such transaction: there are none here"));
    }
    let statement = call.prepare(&request.query).await?;
    let parameters = statement.prepared.parameters().iter().enumerate().map(|(at, kind)| {
        // What a value may be is not known of every place that it can stand in.
        Field::new(format!("${}", at + 1), kind.clone().unwrap_or(DataType::Null), true)
    });
    let parameter_schema = schema_bytes(&encode::plain(&Schema::new(parameters.collect::<Vec<_>>())))?;
    let dataset_schema = schema_bytes(&encode::open(&statement.prepared.schema()))?;
    let handle = call.shelf.keep(&call.owner, statement)?;
    Ok(ActionCreatePreparedStatementResult {
        prepared_statement_handle: handle.bytes().into(),
        dataset_schema: dataset_schema.into(),
        parameter_schema: parameter_schema.into(),
    })
}

/// Whether there was a query of the caller's that a flight's tickets stand for.
fn cancel(call: &Call, info: &FlightInfo) -> bool {
    let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
    let handles = tickets.filter_map(|ticket| match Any::decode(&*ticket.ticket).ok().and_then(|any| Command::try_from(any).ok()) {
        Some(Command::TicketStatementQuery(ticket)) => Some(ticket.statement_handle),
        _ => None,
    });
    // All of them, also when the first was one.
    handles.filter(|handle| call.shelf.cancel(&call.owner, handle)).count() > 0
}

fn unpack<M: ProstMessageExt>(body: &[u8]) -> Result<M, Failure> {
    Any::decode(body).ok().and_then(|any| any.unpack().ok().flatten()).ok_or_else(unreadable)
}

fn packed(message: &impl ProstMessageExt) -> ActionResult {
    ActionResult::new(message.as_any().encode_to_vec())
}

fn unreadable() -> Failure {
    Failure::error("bad-request", "the request cannot be read: it is not what this action takes")
}

/// What the protocol has and this server has not. `what` ends in a verb.
pub fn not_served(what: &str) -> Failure {
    Failure::error("not-served", format!("{what} not served here")).help("send SQL, as a query or a prepared statement")
}
