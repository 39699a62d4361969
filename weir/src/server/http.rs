//! The HTTP port: who may ask, what can be asked, and what is answered. docs/guides/serving.md is its reference. SQL is answered beside.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, Request, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weir_connectors::Blame;
use weir_engine::Failure;
use weir_pipelines::units;

use super::{
    control::{Ask, Control, Refused, RunsQuery},
    metrics::Metrics,
    sql, token,
    users::{User, Users},
};
use crate::render;

/// Bytes of a request's body.
pub(super) const BODY_MAX: usize = 1 << 20;
/// A request is answered within this, read included.
const ANSWER: Duration = Duration::from_secs(10);
/// Readiness is decided within this: whoever probes waits no longer, mostly.
const READY: Duration = Duration::from_secs(3);
/// Runs in an answer: unless more are asked for, and at most.
const RUNS: usize = 50;
const RUNS_MAX: usize = 1000;
/// Letters of an Idempotency-Key.
const KEY_MAX: usize = 200;
/// The content type of Prometheus's text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What handlers share.
pub struct Shared {
    /// Runs pipelines.
    pub control: Arc<dyn Control>,
    /// Is read at `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Who may ask.
    pub users: Arc<Users>,
    /// No request takes longer, but those of SQL.
    answer: Duration,
}

impl Shared {
    /// Nobody has come yet.
    pub fn new(control: Arc<dyn Control>, metrics: Arc<Metrics>, users: Arc<Users>) -> Self {
        Self { control, metrics, users, answer: ANSWER }
    }
}

/// Whose token a request came with.
#[derive(Debug, Clone)]
pub struct Holder(pub Arc<User>);

/// All that can be asked; SQL where there is a door to it.
pub fn router(shared: Arc<Shared>, sql: Option<Arc<sql::Door>>) -> Router {
    let quick = |router: Router<Arc<Shared>>| router.layer(middleware::from_fn_with_state(shared.clone(), timed));
    let guarded = |router: Router<Arc<Shared>>| router.route_layer(middleware::from_fn_with_state(shared.clone(), guard));
    let runs = Router::new()
        .route("/api/runs", get(runs))
        .route("/api/runs/{run}", get(run))
        .route("/api/runs/{run}/cancel", post(cancel))
        .route("/api/schedules", get(schedules))
        .route("/api/pipelines/{pipeline}/runs", post(trigger))
        .route_layer(middleware::from_fn(async |request: Request, next: Next| scoped("runs", request, next).await));
    let open = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(async || error("not-found", StatusCode::NOT_FOUND, "there is nothing at this path", &[]));
    let mut router = quick(open.merge(guarded(runs.route("/metrics", get(metrics)))));
    if let Some(door) = sql {
        // A query has bounds of its own.
        let asked =
            sql::router(door).route_layer(middleware::from_fn(async |request: Request, next: Next| scoped("sql", request, next).await));
        router = router.merge(guarded(asked));
    }
    router
        .method_not_allowed_fallback(async || {
            error("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method", &[])
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(labelled))
        .with_state(shared)
}

/// Says of every answer what it is not.
async fn labelled(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Ends what takes too long.
async fn timed(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    tokio::time::timeout(shared.answer, next.run(request)).await.unwrap_or_else(|_| {
        error("too-late", StatusCode::SERVICE_UNAVAILABLE, &format!("no answer within {}", units::shown(shared.answer)), &[])
    })
}

/// Lets in who has a token.
async fn guard(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(token::bearer);
    let Some(token) = token.map(str::to_owned) else {
        return unauthorized("this needs a token, as the header \"Authorization: Bearer TOKEN\"");
    };
    let needs_state = request.uri().path() != "/metrics";
    let found = if needs_state { shared.users.by_token(&token).await } else { shared.users.by_token_remembered(&token).await };
    match found {
        Ok(Some(user)) => {
            request.extensions_mut().insert(Holder(user));
            next.run(request).await
        }
        Ok(None) => unauthorized("this token is not known, or it is revoked"),
        Err(failure) => refused(&failure.into()),
    }
}

/// Lets pass whose token has a scope.
async fn scoped(scope: &'static str, request: Request, next: Next) -> Response {
    match request.extensions().get::<Holder>() {
        Some(Holder(user)) if user.scopes.has(scope) => next.run(request).await,
        holder => {
            let name = holder.map_or("", |Holder(user)| user.name.as_str());
            let message = format!("the token \"{name}\" does not open \"{scope}\"");
            error(
                "not-allowed",
                StatusCode::FORBIDDEN,
                &message,
                &[&format!("make one that does with: weir serve token new NAME --scope {scope}")],
            )
        }
    }
}

fn unauthorized(message: &str) -> Response {
    let mut response = error("unauthorized", StatusCode::UNAUTHORIZED, message, &["make one with: weir serve token new NAME"]);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

pub(super) fn error(code: &str, status: StatusCode, message: &str, help: &[&str]) -> Response {
    answer(status, &json!({ "error": { "code": code, "message": message, "help": help } }))
}

pub(super) fn answer(status: StatusCode, value: &Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], format!("{value}\n")).into_response()
}

/// A failure as the command's `--json` says it; of several diagnostics, the first is the error.
pub(super) fn refused(refused: &Refused) -> Response {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut said = render::error::to_json(&refused.failure);
    if said.get("error").is_none() {
        said["error"] = match &refused.failure {
            Failure::Diagnostics(found) if !found.is_empty() => {
                let first = &found[0];
                let mut error = json!({ "code": first.code, "message": first.message, "help": first.help });
                // A statement came with the request: where it is wrong is said of its text.
                if let Some(label) = first.labels.first().filter(|label| label.file.path == "<sql>") {
                    let (line, column) = label.file.line_column(label.span.start);
                    error["position"] = json!({ "line": line, "column": column });
                }
                error
            }
            failure => json!({ "code": "interrupted", "message": failure.sentence(), "help": [] }),
        };
    }
    answer(status, &said)
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match tokio::time::timeout(READY, shared.control.ready()).await {
        Ok(Ok(())) => "ok\n".into_response(),
        // Who probes has no token: why it is so stands in the log.
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the state does not answer\n").into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    // The state may be away: numbers of before are better than none.
    let gauges = tokio::time::timeout(READY, shared.control.gauges()).await;
    shared.metrics.show(gauges.ok().and_then(Result::ok));
    match shared.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, HeaderValue::from_static(PROMETHEUS))], Body::from(text)).into_response(),
        Err(failure) => refused(&failure.into()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunsAsked {
    pipeline: Option<String>,
    status: Option<String>,
    limit: Option<usize>,
}

async fn runs(State(shared): State<Arc<Shared>>, asked: Result<Query<RunsAsked>, axum::extract::rejection::QueryRejection>) -> Response {
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(wrong) => {
            let help = "the query may have pipeline, status and limit";
            return error("bad-request", StatusCode::BAD_REQUEST, &wrong.body_text(), &[help]);
        }
    };
    let limit = asked.limit.unwrap_or(RUNS).clamp(1, RUNS_MAX);
    match shared.control.runs(RunsQuery { pipeline: asked.pipeline, status: asked.status, limit }).await {
        Ok(runs) => answer(StatusCode::OK, &json!({ "runs": runs })),
        Err(why) => refused(&why),
    }
}

async fn run(State(shared): State<Arc<Shared>>, Path(run): Path<String>) -> Response {
    match shared.control.run(run).await {
        Ok(run) => answer(StatusCode::OK, &run),
        Err(why) => refused(&why),
    }
}

async fn schedules(State(shared): State<Arc<Shared>>) -> Response {
    match shared.control.schedules().await {
        Ok(schedules) => answer(StatusCode::OK, &json!({ "schedules": schedules })),
        Err(why) => refused(&why),
    }
}

async fn cancel(State(shared): State<Arc<Shared>>, Path(run): Path<String>, holder: axum::Extension<Holder>) -> Response {
    match shared.control.cancel(run.clone(), holder.0.0.name.clone()).await {
        Ok(()) => answer(StatusCode::ACCEPTED, &json!({ "run": run, "status": "cancelling" })),
        Err(why) => refused(&why),
    }
}

async fn trigger(
    State(shared): State<Arc<Shared>>,
    Path(pipeline): Path<String>,
    holder: axum::Extension<Holder>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(wrong) => {
            let is_large = wrong.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let message = if is_large { format!("the body is larger than {BODY_MAX} bytes") } else { wrong.body_text() };
            return error("bad-request", wrong.status(), &message, &[]);
        }
    };
    let ask = match asked(pipeline, holder.0.0.name.clone(), &headers, &body) {
        Ok(ask) => ask,
        Err((message, help)) => return error("bad-request", StatusCode::BAD_REQUEST, &message, &[help]),
    };
    match shared.control.trigger(ask).await {
        Ok(accepted) => {
            let status = if accepted.new { StatusCode::ACCEPTED } else { StatusCode::OK };
            match serde_json::to_value(&accepted) {
                Ok(accepted) => answer(status, &accepted),
                Err(error) => refused(&Failure::error("output-failed", error.to_string()).blame(Blame::Weir).into()),
            }
        }
        Err(why) => refused(&why),
    }
}

const BODY_HELP: &str = r#"the body is empty or such as {"params": {"day": "2027-03-28"}, "interval": "2027-03-28/2027-03-29"}"#;
const KEY_HELP: &str = "an Idempotency-Key is a word of your own for this one run, of up to 200 visible ASCII characters";

/// What a request asks for, or why it is wrong and how it is right.
fn asked(pipeline: String, by: String, headers: &HeaderMap, body: &[u8]) -> Result<Ask, (String, &'static str)> {
    let key = match headers.get("Idempotency-Key").map(HeaderValue::to_str) {
        None => None,
        Some(Ok(key)) if !key.trim().is_empty() && key.len() <= KEY_MAX => Some(key.trim().to_owned()),
        Some(_) => return Err(("the header \"Idempotency-Key\" cannot be taken".into(), KEY_HELP)),
    };
    let body: Value = match body {
        [] => json!({}),
        body => serde_json::from_slice(body).map_err(|error| (format!("the body is not JSON: {error}"), BODY_HELP))?,
    };
    let Value::Object(mut body) = body else { return Err(("the body is no JSON object".into(), BODY_HELP)) };
    let params = match body.remove("params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(("\"params\" is no object of names and values".into(), BODY_HELP)),
    };
    let params = params
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Number(_) | Value::Bool(_) => Ok((name, value.to_string())),
            _ => Err((format!("the parameter \"{name}\" is neither a text, a number, true nor false"), BODY_HELP)),
        })
        .collect::<Result<_, _>>()?;
    let interval = match body.remove("interval") {
        None | Some(Value::Null) => None,
        Some(Value::String(interval)) => Some(interval),
        Some(_) => return Err(("\"interval\" is no text".into(), BODY_HELP)),
    };
    match body.keys().next() {
        Some(key) => Err((format!("the body has no key \"{key}\""), BODY_HELP)),
        None => Ok(Ask { pipeline, params, interval, key, by }),
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
