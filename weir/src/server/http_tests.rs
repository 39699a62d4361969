//! Whether the HTTP port answers whom it should, and refuses the others with a reason.

use std::sync::atomic::Ordering;

use axum::http::Method;

use super::*;
use crate::server::stand::Stand;

/// A port on loopback, and what stands behind it.
struct Port {
    url: String,
    stand: Arc<Stand>,
    client: reqwest::Client,
}

impl Port {
    async fn open() -> Self {
        Self::open_for(ANSWER).await
    }

    async fn open_for(answer: Duration) -> Self {
        let stand = Arc::new(Stand::default());
        let metrics = Arc::new(Metrics::new(None).expect("metrics"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let users = Arc::new(Users::new(stand.clone(), weir_pipelines::server::Sql::default()));
        let router = router(Arc::new(Shared { answer, ..Shared::new(stand.clone(), metrics, users) }), None);
        tokio::spawn(async move { axum::serve(crate::server::listen::Bounded::new(listener, None), router).await });
        Self { url, stand, client: reqwest::Client::builder().no_proxy().build().expect("a client") }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&'static str, &str)], body: &str) -> (u16, String) {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("answered");
        assert_eq!(answer.headers().get("cache-control").map(HeaderValue::as_bytes), Some(b"no-store".as_slice()));
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.send(Method::GET, path, &[RIGHT], "").await
    }

    async fn run(&self, more: &[(&'static str, &str)], body: &str) -> (u16, String) {
        self.send(Method::POST, "/api/pipelines/orders/runs", &[&[RIGHT], more].concat(), body).await
    }
}

const RIGHT: (&str, &str) = ("Authorization", "Bearer weir_right");

#[tokio::test]
async fn nobody_comes_in_without_a_token_except_to_ask_for_health() {
    let port = Port::open().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(port.send(Method::GET, path, &[], "").await, (200, "ok\n".to_owned()));
    }
    let expected = |message: &str| {
        format!(
            "{{\"error\":{{\"code\":\"unauthorized\",\"message\":\"{message}\",\"help\":[\"make one with: weir serve token new NAME\"]}}}}\n"
        )
    };
    for (method, path) in [
        (Method::GET, "/metrics"),
        (Method::GET, "/api/runs"),
        (Method::GET, "/api/runs/r1"),
        (Method::GET, "/api/schedules"),
        (Method::POST, "/api/pipelines/orders/runs"),
        (Method::POST, "/api/runs/r1/cancel"),
    ] {
        let none = port.send(method.clone(), path, &[], "").await;
        assert_eq!(none, (401, expected("this needs a token, as the header \\\"Authorization: Bearer TOKEN\\\"")), "{path}");
        let wrong = port.send(method, path, &[("Authorization", "Bearer weir_wrong")], "").await;
        assert_eq!(wrong, (401, expected("this token is not known, or it is revoked")), "{path}");
    }
    assert!(port.stand.asks.lock().expect("whole").is_empty());
}

#[tokio::test]
async fn a_token_opens_what_its_scopes_say() {
    let port = Port::open().await;
    let reader = [("Authorization", "Bearer weir_reader")];
    for (method, path) in [(Method::GET, "/api/runs"), (Method::GET, "/api/schedules"), (Method::POST, "/api/pipelines/orders/runs")] {
        let refused = port.send(method, path, &reader, "").await;
        let expected = json!({ "error": {
            "code": "not-allowed",
            "message": "the token \"reader\" does not open \"runs\"",
            "help": ["make one that does with: weir serve token new NAME --scope runs"],
        } });
        assert_eq!(refused, (403, format!("{expected}\n")), "{path}");
    }
    assert_eq!(port.send(Method::GET, "/metrics", &reader, "").await.0, 200);
    // One of before there were scopes opens what it opened.
    assert_eq!(port.send(Method::GET, "/api/runs", &[("Authorization", "Bearer weir_old")], "").await.0, 200);
    assert!(port.stand.asks.lock().expect("whole").is_empty());
}

#[tokio::test]
async fn a_run_is_asked_for_with_its_parameters_and_once_for_a_key() {
    let port = Port::open().await;
    let answer = |new: bool| format!("{{\"task\":\"t1\",\"run\":null,\"status\":\"waiting\",\"new\":{new}}}\n");
    assert_eq!(port.run(&[], "").await, (202, answer(true)));
    let body = r#"{"params": {"day": "2027-03-28", "n": 3, "all": true}, "interval": "2027-03-28/2027-03-29"}"#;
    let key = [("Idempotency-Key", "abc")];
    assert_eq!(port.run(&key, body).await, (202, answer(true)));
    assert_eq!(port.run(&key, body).await, (200, answer(false)));
    let asks = port.stand.asks.lock().expect("whole");
    let bare = Ask { pipeline: "orders".into(), params: Vec::new(), interval: None, key: None, by: "ci".into() };
    assert_eq!(asks[0], bare);
    let params = [("day", "2027-03-28"), ("n", "3"), ("all", "true")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let interval = Some("2027-03-28/2027-03-29".to_owned());
    assert_eq!(asks[1], Ask { params: params.to_vec(), interval, key: Some("abc".into()), ..bare });
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    let port = Port::open().await;
    let help = BODY_HELP;
    for (body, message) in [
        ("{", "the body is not JSON: EOF while parsing an object at line 1 column 1"),
        ("[]", "the body is no JSON object"),
        (r#"{"params": 1}"#, "\"params\" is no object of names and values"),
        (r#"{"params": {"a": null}}"#, "the parameter \"a\" is neither a text, a number, true nor false"),
        (r#"{"params": {"a": [1]}}"#, "the parameter \"a\" is neither a text, a number, true nor false"),
        (r#"{"interval": 5}"#, "\"interval\" is no text"),
        (r#"{"parms": {}}"#, "the body has no key \"parms\""),
    ] {
        let (status, answer) = port.run(&[], body).await;
        let expected = json!({ "error": { "code": "bad-request", "message": message, "help": [help] } });
        assert_eq!((status, answer), (400, format!("{expected}\n")), "{body}");
    }
    for key in ["", " ", "é", &"a".repeat(KEY_MAX + 1)] {
        let (status, answer) = port.run(&[("Idempotency-Key", key)], "").await;
        assert!(status == 400 && answer.contains("the header \\\"Idempotency-Key\\\" cannot be taken"), "{key:?}: {status} {answer}");
    }
    let (status, answer) = port.run(&[], &" ".repeat(BODY_MAX + 1)).await;
    assert_eq!(status, 413);
    assert!(answer.contains("the body is larger than 1048576 bytes"), "{answer}");
    let (status, answer) = port.get("/api/runs?limt=3").await;
    assert!(status == 400 && answer.contains("the query may have pipeline, status and limit"), "{status} {answer}");
    assert!(port.stand.asks.lock().expect("whole").is_empty());
    let (status, answer) = port.send(Method::POST, "/api/pipelines/ordrs/runs", &[RIGHT], "").await;
    let expected = r#"{"error":{"code":"unknown-pipeline","message":"there is no pipeline \"ordrs\""#;
    assert!(status == 404 && answer.starts_with(expected), "{status} {answer}");
    let (status, answer) = port.send(Method::POST, "/api/runs/r9/cancel", &[RIGHT], "").await;
    assert!(status == 409 && answer.contains("\"code\":\"task-over\""), "{status} {answer}");
    let (status, answer) = port.get("/api/nothing").await;
    assert!(status == 404 && answer.contains("\"code\":\"not-found\""), "{status} {answer}");
    let (status, answer) = port.send(Method::DELETE, "/api/runs", &[RIGHT], "").await;
    assert!(status == 405 && answer.contains("\"code\":\"method-not-allowed\""), "{status} {answer}");
}

#[tokio::test]
async fn runs_and_schedules_are_listed() {
    let port = Port::open().await;
    let (status, answer) = port.get("/api/runs?pipeline=orders&status=failed&limit=99999").await;
    assert_eq!(status, 200);
    assert!(answer.contains(r#"pipeline: Some(\"orders\"), status: Some(\"failed\"), limit: 1000"#), "{answer}");
    assert_eq!(port.get("/api/runs/r7").await, (200, "{\"run\":\"r7\"}\n".to_owned()));
    assert_eq!(port.get("/api/schedules").await, (200, "{\"schedules\":[{\"pipeline\":\"orders\"}]}\n".to_owned()));
    let (status, answer) = port.send(Method::POST, "/api/runs/r1/cancel", &[RIGHT], "").await;
    assert_eq!((status, answer.as_str()), (202, "{\"run\":\"r1\",\"status\":\"cancelling\"}\n"));
}

#[tokio::test]
async fn metrics_are_read_while_the_state_is_away_and_nothing_else_is() {
    let port = Port::open().await;
    assert!(port.get("/metrics").await.1.contains("\nweir_runs_running 3\n"));
    port.stand.away.store(true, Ordering::Relaxed);
    let (status, text) = port.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("\nweir_state_reachable 0\n") && text.contains("\nweir_runs_running 3\n"), "{text}");
    let (status, answer) = port.send(Method::GET, "/readyz", &[], "").await;
    assert_eq!((status, answer.as_str()), (503, "the state does not answer\n"));
    assert_eq!(port.send(Method::GET, "/livez", &[], "").await.0, 200);
    let (status, answer) = port.run(&[], "").await;
    assert!(status == 503 && answer.contains("\"code\":\"state\""), "{status} {answer}");
    // Whoever has never come cannot be told from a stranger.
    let (status, answer) = port.send(Method::GET, "/metrics", &[("Authorization", "Bearer weir_other")], "").await;
    assert!(status == 503 && answer.contains("\"code\":\"state\""), "{status} {answer}");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let port = Port::open_for(Duration::from_millis(50)).await;
    let (status, answer) = port.get("/api/runs/slow").await;
    assert_eq!(status, 503);
    assert_eq!(answer, "{\"error\":{\"code\":\"too-late\",\"message\":\"no answer within 50ms\",\"help\":[]}}\n");
}
