//! SQL over HTTP: a statement comes as JSON, and its rows go as JSON, page by page, or as a stream of Arrow. What a statement may do and cost is
//! decided by the session behind it. docs/guides/sql-doors.md is its reference.

use std::{io, sync::Arc};

use arrow::{array::RecordBatch, error::ArrowError, ipc::writer::StreamWriter};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_connectors::Blame;
use weir_engine::{
    Failure, query,
    query::{Catalogue, Ending},
    run::explain,
    sql::sql_name,
};

use super::{
    control::Refused,
    http::{self, Holder, Shared},
    listen::Patience,
    users::User,
};
use pages::{PAGE_ROWS, PAGE_ROWS_MAX, Pages, Rows};

mod pages;
mod parameters;

/// The content type of a stream of Arrow.
const ARROW: &str = "application/vnd.apache.arrow.stream";
/// Seconds after which a statement that found no turn may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
const BODY_HELP: &str = r#"the body is such as {"sql": "select * from weir.runs where pipeline = $1", "parameters": ["orders"]}"#;

/// What answers SQL, and the answers that wait to be taken further.
pub struct Door {
    catalogue: Arc<Catalogue>,
    pages: Arc<Pages>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    /// Opens it. Statements end when `stop` is cancelled.
    pub fn new(catalogue: Arc<Catalogue>, stop: CancellationToken) -> Self {
        Self { catalogue, pages: Arc::default(), stop }
    }
}

/// The paths of SQL.
pub fn router(door: Arc<Door>) -> Router<Arc<Shared>> {
    Router::new().route("/api/sql", post(ask)).route("/api/sql/tables", get(tables)).layer(Extension(door))
}

/// How rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Json,
    Arrow,
}

/// What a body may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: Option<String>,
    #[serde(default)]
    parameters: Option<Vec<Value>>,
    #[serde(default)]
    format: Option<Form>,
    #[serde(default)]
    page_rows: Option<u64>,
    #[serde(default)]
    next: Option<String>,
}

/// What is asked for.
#[derive(Debug, PartialEq)]
enum Question {
    Statement { sql: String, parameters: Vec<Value>, form: Form, page_rows: usize },
    Next { ticket: String, page_rows: usize },
}

/// Reads a request, or says what is wrong with it.
fn question(headers: &HeaderMap, body: &[u8]) -> Result<Question, String> {
    let asked: Asked = serde_json::from_slice(body).map_err(|error| format!("the body cannot be read: {error}"))?;
    let page_rows = match asked.page_rows {
        None => PAGE_ROWS,
        Some(rows) => usize::try_from(rows)
            .ok()
            .filter(|rows| (1..=PAGE_ROWS_MAX).contains(rows))
            .ok_or_else(|| format!("\"page_rows\" is from 1 to {PAGE_ROWS_MAX}"))?,
    };
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let wants_arrow = accepts.split(',').any(|one| one.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(ARROW)));
    match (asked.sql, asked.next) {
        (None, None) => Err("the body has neither \"sql\" nor \"next\"".into()),
        (Some(_), Some(_)) => Err("the body has both \"sql\" and \"next\": a page that follows is of the statement before".into()),
        (None, Some(_)) if asked.parameters.is_some() || asked.format.is_some() => {
            Err("beside \"next\" there is \"page_rows\" at most: a page that follows is of the statement before".into())
        }
        (None, Some(ticket)) => Ok(Question::Next { ticket, page_rows }),
        (Some(sql), None) => {
            let form = asked.format.unwrap_or(if wants_arrow { Form::Arrow } else { Form::Json });
            if form == Form::Arrow && asked.page_rows.is_some() {
                return Err("\"page_rows\" is of JSON: a stream of Arrow has no pages".into());
            }
            Ok(Question::Statement { sql, parameters: asked.parameters.unwrap_or_default(), form, page_rows })
        }
    }
}

async fn ask(
    Extension(door): Extension<Arc<Door>>,
    Extension(Holder(user)): Extension<Holder>,
    ConnectInfo(patience): ConnectInfo<Patience>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let wrong = |status: StatusCode, message: &str| http::error("bad-request", status, message, &[BODY_HELP]);
    let body = match body {
        Ok(body) => body,
        Err(wrong) if wrong.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body has more than {} bytes", http::BODY_MAX);
            return http::error("too-long", wrong.status(), &message, &["give long lists of values as a table or file to join with"]);
        }
        Err(wrong) => return http::error("bad-request", wrong.status(), &wrong.body_text(), &[]),
    };
    let question = match question(&headers, &body) {
        Ok(question) => question,
        Err(message) => return wrong(StatusCode::BAD_REQUEST, &message),
    };
    // From here on it takes as long as the user's limits let it: the connection waits.
    let held = patience.hold();
    let (rows, page_rows) = match question {
        Question::Next { ticket, page_rows } => match door.pages.take(&ticket, &user.name) {
            Some(rows) => (rows, page_rows),
            None => {
                let message = "there is no such answer to go on with, or no more";
                let help = "each \"next\" is good for one page, within a minute, and for who asked; send the statement again";
                return http::error("page-gone", StatusCode::GONE, message, &[help]);
            }
        },
        Question::Statement { sql, parameters, form, page_rows } => {
            door.pages.make_room(&user);
            let rows = match start(&door, &user, &sql, &parameters).await {
                Ok(rows) => rows,
                Err(failure) => return failed(&failure),
            };
            if form == Form::Arrow {
                let answer = arrow(rows, patience).await;
                drop(held);
                return answer.unwrap_or_else(|failure| failed(&failure));
            }
            (rows, page_rows)
        }
    };
    page(&door, &user, rows, page_rows).await.unwrap_or_else(|failure| failed(&failure))
}

/// Begins to answer a statement.
async fn start(door: &Door, user: &User, sql: &str, parameters: &[Value]) -> Result<Rows, Failure> {
    let session = door.catalogue.session(user.who(query::Door::Http));
    let cancel = door.stop.child_token();
    // Whoever asked may go away at any point: what is dropped is cancelled.
    let guard = cancel.clone().drop_guard();
    let prepared = session.prepare(sql).await?;
    let values = parameters::bind(prepared.parameters(), parameters)?;
    let (stream, ending) = session.begin(&prepared, values, cancel).await?;
    Ok(Rows::new(user.name.clone(), stream, ending, guard))
}

/// One page of an answer as JSON, and the word for the next one where there is any.
async fn page(door: &Door, user: &User, mut rows: Rows, page_rows: usize) -> Result<Response, Failure> {
    let page = rows.page(page_rows).await?;
    let columns: Vec<Value> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| json!({ "name": field.name(), "type": sql_name(field.data_type()), "nullable": field.is_nullable() }))
        .collect();
    let next = if page.is_last { None } else { Some(door.pages.keep(rows, user)?) };
    let mut text = format!("{{\"columns\":{},\"rows\":", Value::from(columns)).into_bytes();
    text.extend_from_slice(page.json.trim_ascii_end());
    text.extend_from_slice(format!(",\"next\":{}}}\n", json!(next)).as_bytes());
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response())
}

/// The rows as a stream of Arrow. An error before the first of them has its own status; one after it breaks the body off before its end, so that
/// nobody takes what has come for all.
async fn arrow(rows: Rows, patience: Patience) -> Result<Response, Failure> {
    let (mut stream, ending, guard) = rows.into_stream();
    let first = stream.next().await.transpose().map_err(|error| explain(&error))?;
    let writer = StreamWriter::try_new(Vec::new(), &stream.schema()).map_err(|error| unwritten(&error, &ending))?;
    let is_over = first.is_none();
    let sending = Sending { writer: Some(writer), first, is_over, stream, patience, ending, _guard: guard };
    let body = Body::from_stream(stream::unfold(sending, |mut sending| async move {
        let bytes = sending.next().await?;
        Some((bytes, sending))
    }));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(ARROW))], body).into_response())
}

/// What cannot be written has failed: nobody has given it up.
fn unwritten(error: &ArrowError, ending: &Ending) -> Failure {
    let failure = Failure::error("output-failed", error.to_string()).blame(Blame::Weir);
    ending.failed(&failure);
    failure
}

/// A stream of Arrow on its way.
struct Sending {
    /// None once the end is written, or an error has come.
    writer: Option<StreamWriter<Vec<u8>>>,
    first: Option<RecordBatch>,
    /// No row follows.
    is_over: bool,
    stream: SendableRecordBatchStream,
    patience: Patience,
    ending: Ending,
    _guard: DropGuard,
}

impl Sending {
    /// The next bytes. It is asked for them when the client has taken those before: only the query's own time is held, not the client's.
    async fn next(&mut self) -> Option<Result<Vec<u8>, io::Error>> {
        let mut writer = self.writer.take()?;
        let batch = match self.first.take() {
            Some(batch) => Some(batch),
            None if self.is_over => None,
            None => {
                let _held = self.patience.hold();
                match self.stream.next().await.transpose() {
                    Ok(batch) => batch,
                    Err(error) => return Some(Err(io::Error::other(explain(&error).sentence()))),
                }
            }
        };
        let written = match &batch {
            Some(batch) => writer.write(batch),
            None => writer.finish(),
        };
        if let Err(error) = written {
            return Some(Err(io::Error::other(unwritten(&error, &self.ending).sentence())));
        }
        let bytes = std::mem::take(writer.get_mut());
        // What has written its end is not asked again.
        self.writer = batch.is_some().then_some(writer);
        Some(Ok(bytes))
    }
}

/// The tables that the user may ask for.
async fn tables(
    Extension(door): Extension<Arc<Door>>,
    Extension(Holder(user)): Extension<Holder>,
    ConnectInfo(patience): ConnectInfo<Patience>,
) -> Response {
    let _held = patience.hold();
    match door.catalogue.session(user.who(query::Door::Http)).tables().await {
        Ok(tables) => http::answer(StatusCode::OK, &json!({ "tables": tables })),
        Err(failure) => failed(&failure),
    }
}

/// What a statement failed with, and where in its text.
fn failed(failure: &Failure) -> Response {
    let mut response = http::refused(&Refused { status: status(failure), failure: failure.clone() });
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

fn status(failure: &Failure) -> u16 {
    let code = match failure {
        Failure::Diagnostics(found) => found.first().map_or("", |first| first.code),
        Failure::Error(error) => error.code,
        Failure::Interrupted => "cancelled",
    };
    match code {
        "not-allowed" | "read-only" => 403,
        // The statement is understood, and costs more than it may: sent again, it would again.
        "too-many-rows" | "too-many-bytes" | "too-slow" | "memory-limit" | "out-of-memory" => 422,
        "busy" => 429,
        "cancelled" => 503,
        _ => Refused::from(failure.clone()).status,
    }
}

#[cfg(test)]
#[path = "sql_tests.rs"]
mod tests;
