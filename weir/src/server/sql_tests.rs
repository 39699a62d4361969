//! Whether what is asked over HTTP is understood, and an answer is taken page by page and once.

use arrow::array::{ArrayRef, Int64Array, StringArray};
use datafusion::{error::DataFusionError, physical_plan::stream::RecordBatchStreamAdapter};
use weir_pipelines::{QueryLimits, SourceFile, server::Sql};

use super::*;
use crate::server::{stand::Stand, users::Users};

fn read(headers: &[(header::HeaderName, &'static str)], body: &str) -> Result<Question, String> {
    let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
    question(&headers, body.as_bytes())
}

fn statement(form: Form, page_rows: usize) -> Question {
    Question::Statement { sql: "select 1".into(), parameters: vec![], form, page_rows }
}

#[test]
fn a_request_is_read_with_its_defaults() {
    assert_eq!(read(&[], r#"{"sql": "select 1"}"#), Ok(statement(Form::Json, 10_000)));
    assert_eq!(read(&[], r#"{"sql": "select 1", "page_rows": 5}"#), Ok(statement(Form::Json, 5)));
    assert_eq!(read(&[], r#"{"sql": "select 1", "format": "arrow"}"#), Ok(statement(Form::Arrow, 10_000)));
    let arrow = [(header::ACCEPT, "text/html, Application/vnd.apache.arrow.stream;q=0.9")];
    assert_eq!(read(&arrow, r#"{"sql": "select 1"}"#), Ok(statement(Form::Arrow, 10_000)));
    assert_eq!(read(&arrow, r#"{"sql": "select 1", "format": "json"}"#), Ok(statement(Form::Json, 10_000)));
    assert_eq!(read(&arrow, r#"{"next": "abc", "page_rows": 7}"#), Ok(Question::Next { ticket: "abc".into(), page_rows: 7 }));
    let parameters = vec![json!(1), json!("a"), Value::Null];
    let expected = Question::Statement { sql: "select $1".into(), parameters, form: Form::Json, page_rows: 10_000 };
    assert_eq!(read(&[], r#"{"sql": "select $1", "parameters": [1, "a", null]}"#), Ok(expected));
}

#[test]
fn what_is_wrong_with_a_request_is_told() {
    for (body, message) in [
        ("{}", "the body has neither \"sql\" nor \"next\""),
        (r#"{"sql": "a", "next": "b"}"#, "the body has both \"sql\" and \"next\": a page that follows is of the statement before"),
        (
            r#"{"next": "b", "parameters": []}"#,
            "beside \"next\" there is \"page_rows\" at most: a page that follows is of the statement before",
        ),
        (r#"{"sql": "a", "page_rows": 0}"#, "\"page_rows\" is from 1 to 100000"),
        (r#"{"sql": "a", "page_rows": 100001}"#, "\"page_rows\" is from 1 to 100000"),
        (r#"{"sql": "a", "page_rows": 5, "format": "arrow"}"#, "\"page_rows\" is of JSON: a stream of Arrow has no pages"),
        ("", "the body cannot be read: EOF while parsing a value at line 1 column 0"),
        (
            r#"{"sql": "a", "limit": 5}"#,
            "the body cannot be read: unknown field `limit`, expected one of `sql`, `parameters`, `format`, `page_rows`, `next` at line 1 column 20",
        ),
        (r#"{"sql": 5}"#, "the body cannot be read: invalid type: integer `5`, expected a string at line 1 column 9"),
        (
            r#"{"sql": "a", "format": "csv"}"#,
            "the body cannot be read: unknown variant `csv`, expected `json` or `arrow` at line 1 column 28",
        ),
    ] {
        assert_eq!(read(&[], body), Err(message.to_owned()), "{body}");
    }
}

#[test]
fn each_refusal_has_its_status() {
    let of = |code: &'static str| status(&Failure::error(code, "m"));
    assert_eq!(["read-only", "not-allowed"].map(of), [403, 403]);
    assert_eq!(["too-many-rows", "too-many-bytes", "too-slow", "memory-limit"].map(of), [422; 4]);
    assert_eq!(["busy", "cancelled", "parameters"].map(of), [429, 503, 400]);
    assert_eq!(status(&weir_pipelines::Diagnostic::error("unknown-table", "m").into()), 400);
    assert_eq!(status(&Failure::error("connect", "m").blame(Blame::System)), 503);
    assert_eq!(failed(&Failure::error("busy", "m")).headers().get(header::RETRY_AFTER), Some(&RETRY_AFTER));
}

#[tokio::test]
async fn a_statement_that_is_wrong_is_pointed_into() {
    let file = SourceFile::new("<sql>", "select\n  a from b");
    let found = weir_pipelines::Diagnostic::error("unknown-table", "there is no table \"b\"").at(&file, 16..17, "not known");
    let response = failed(&found.help("did you mean \"c\"?").into());
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("whole");
    let said: Value = serde_json::from_slice(&body).expect("JSON");
    let expected = json!({
        "code": "unknown-table", "message": "there is no table \"b\"", "help": ["did you mean \"c\"?"], "position": { "line": 2, "column": 10 },
    });
    assert_eq!(said["error"], expected);
}

/// A user of whom so many statements may be at work.
async fn user(queries: u32) -> Arc<User> {
    let sql = Sql { limits: QueryLimits { queries, ..QueryLimits::default() }, ..Sql::default() };
    Users::new(Arc::new(Stand::default()), sql).by_token("weir_reader").await.expect("answered").expect("known")
}

/// An answer of batches; the last one may be an error in place of rows. What cancels it.
fn rows(user: &User, batches: Vec<Result<RecordBatch, DataFusionError>>) -> (Rows, CancellationToken) {
    let schema = batch(0..0).schema();
    let cancel = CancellationToken::new();
    let stream = RecordBatchStreamAdapter::new(schema, stream::iter(batches));
    (Rows::new(user.name.clone(), Box::pin(stream), Ending::default(), cancel.clone().drop_guard()), cancel)
}

fn batch(ids: std::ops::Range<i64>) -> RecordBatch {
    let names = ids.clone().map(|id| format!("n{id}"));
    let columns: [(&str, ArrayRef); 2] =
        [("id", Arc::new(Int64Array::from_iter_values(ids.clone()))), ("name", Arc::new(StringArray::from_iter_values(names)))];
    RecordBatch::try_from_iter(columns).expect("of one length")
}

#[tokio::test]
async fn pages_have_as_many_rows_as_asked_for_and_end_with_the_rows() {
    let user = user(4).await;
    let (mut all, _) = rows(&user, vec![Ok(batch(0..3)), Ok(batch(0..0)), Ok(batch(3..7)), Ok(batch(0..0))]);
    let mut pages = Vec::new();
    loop {
        let page = all.page(3).await.expect("rows");
        pages.push((serde_json::from_slice::<Vec<Value>>(&page.json).expect("an array"), page.is_last));
        if page.is_last {
            break;
        }
    }
    let ids = |page: &(Vec<Value>, bool)| page.0.iter().map(|row| row["id"].as_i64().expect("a number")).collect::<Vec<_>>();
    assert_eq!(pages.iter().map(ids).collect::<Vec<_>>(), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    assert_eq!(pages[0].0[1], json!({ "id": 1, "name": "n1" }));
    let (mut none, _) = rows(&user, vec![]);
    let page = none.page(3).await.expect("no rows");
    assert_eq!((page.json.trim_ascii_end(), page.is_last), (b"[]".as_slice(), true));
}

#[tokio::test]
async fn a_page_ends_early_where_its_rows_are_large() {
    let user = user(4).await;
    let large = "x".repeat(1 << 20);
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..20))),
        ("name", Arc::new(StringArray::from_iter_values(std::iter::repeat_n(large, 20)))),
    ];
    let (mut all, _) = rows(&user, vec![Ok(RecordBatch::try_from_iter(columns).expect("of one length"))]);
    let first = all.page(100).await.expect("rows");
    assert!(first.json.len() > 8 << 20 && first.json.len() < 10 << 20, "{}", first.json.len());
    assert!(!first.is_last);
    let mut seen = serde_json::from_slice::<Vec<Value>>(&first.json).expect("an array").len();
    loop {
        let page = all.page(100).await.expect("rows");
        seen += serde_json::from_slice::<Vec<Value>>(&page.json).expect("an array").len();
        if page.is_last {
            break;
        }
    }
    assert_eq!(seen, 20);
}

#[tokio::test]
async fn the_rest_of_an_answer_is_taken_once_and_by_its_user() {
    let user = user(4).await;
    let pages = Arc::new(Pages::default());
    let (all, cancel) = rows(&user, vec![Ok(batch(0..3))]);
    let ticket = pages.keep(all, &user).expect("chance");
    assert!(pages.take(&ticket, "ci").is_none() && pages.take("other", &user.name).is_none());
    let rest = pages.take(&ticket, &user.name).expect("kept");
    assert!(pages.take(&ticket, &user.name).is_none());
    assert!(!cancel.is_cancelled());
    drop(rest);
    assert!(cancel.is_cancelled(), "the statement ends with its rows");
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let user = user(4).await;
    let pages = Arc::new(Pages::kept_for(std::time::Duration::from_millis(50)));
    let (all, cancel) = rows(&user, vec![Ok(batch(0..3))]);
    let ticket = pages.keep(all, &user).expect("chance");
    assert!(!cancel.is_cancelled());
    tokio::time::timeout(std::time::Duration::from_secs(20), cancel.cancelled()).await.expect("it is given up");
    assert!(pages.take(&ticket, &user.name).is_none());
}

#[tokio::test]
async fn answers_that_wait_keep_no_new_statement_of_the_user_from_its_turn() {
    let user = user(2).await;
    let pages = Arc::new(Pages::default());
    let mut kept = Vec::new();
    for _ in 0..2 {
        let (all, cancel) = rows(&user, vec![Ok(batch(0..3))]);
        kept.push((pages.keep(all, &user).expect("chance"), cancel));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    pages.make_room(&user);
    assert!(kept[0].1.is_cancelled() && !kept[1].1.is_cancelled(), "the oldest is given up");
}

#[tokio::test]
async fn a_stream_of_arrow_that_fails_midway_has_no_end() {
    let user = user(4).await;
    let decoded = |bytes: &[u8]| {
        let reader = arrow::ipc::reader::StreamReader::try_new(bytes, None)?;
        reader.map(|batch| batch.map(|batch| batch.num_rows())).collect::<Result<Vec<_>, ArrowError>>()
    };
    let (all, _) = rows(&user, vec![Ok(batch(0..3)), Ok(batch(3..5))]);
    let whole = arrow(all, Patience::default()).await.expect("begun");
    assert_eq!(whole.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes), Some(ARROW.as_bytes()));
    let whole = axum::body::to_bytes(whole.into_body(), 1 << 20).await.expect("whole");
    assert_eq!(decoded(&whole).expect("whole"), [3, 2]);
    let (all, cancel) = rows(&user, vec![]);
    let empty = axum::body::to_bytes(arrow(all, Patience::default()).await.expect("begun").into_body(), 1 << 20).await.expect("whole");
    assert!(decoded(&empty).expect("whole").is_empty() && cancel.is_cancelled());

    let broken = || Err(DataFusionError::Execution("the disk is gone".into()));
    let (all, _) = rows(&user, vec![Ok(batch(0..3)), broken()]);
    let torn = arrow(all, Patience::default()).await.expect("begun");
    assert!(axum::body::to_bytes(torn.into_body(), 1 << 20).await.is_err());
    let (all, _) = rows(&user, vec![broken()]);
    assert!(arrow(all, Patience::default()).await.is_err(), "what fails at once has a status of its own");
}
