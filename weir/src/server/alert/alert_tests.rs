//! Whether wrong settings of alerts are told, and whether messages go out whatever a receiver does.

use std::{collections::HashMap, sync::Mutex};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use weir_engine::workspace::Machine;
use weir_pipelines::{Diagnostics, SourceFile};

use super::*;
use crate::{
    render::{Style, error::render_diagnostics},
    server::{
        examples::{failed, published},
        stand::Stand,
    },
};

fn project(text: &str) -> Project {
    Project::parse(SourceFile::new("weir.toml", text), "/".into(), None).expect("right")
}

fn workspace(text: &str, environment: &[(&str, &str)]) -> Workspace {
    let environment: HashMap<String, String> = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Workspace::new(project(text), environment, Machine { memory_bytes: 1 << 30, cpus: 1 }, Utc::now)
}

fn shown(found: &Diagnostics) -> String {
    render_diagnostics(found, Style::PLAIN)
}

#[test]
fn wrong_settings_of_alerts_are_pointed_at() {
    let found = check(&project(
        r#"[alert.a.webhok]
[alert.b.webhook]
url = "example.com/weir"
headers = { "a b" = "x", Authorization = "two\nlines" }
[alert.c.slack]
url = { envv = "SLACK" }
chanel = "ops"
[alert.d.smtp]
server = "http://mail"
from = "weir"
to = ["ops@example.com", "ops"]
user = "weir"
[alert.e.smtp]
server = "mail.example.com:25"
from = "weir@example.com"
to = []
user = "weir"
password = "hush"
tls = "none"
[alert.f.alertmanager]
[alert.g.smtp]
server = "localhost"
from = "Weir <weir@example.com>"
to = ["ops@example.com"]
user = "weir"
password = "hush"
tls = "none"
"#,
    ));
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/server/alert/wrong_settings.txt");
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(golden, shown(&found)).expect("written");
    }
    assert_eq!(shown(&found), std::fs::read_to_string(golden).expect("the file is there"));
    assert!(!shown(&found).contains("hush") && !shown(&found).contains("two"), "what may be a secret is not shown");
}

#[test]
fn a_mail_server_has_a_name_and_the_port_that_goes_with_it() {
    use send::{SmtpTls, host_port};
    for (text, tls, place) in [
        ("mail.example.com", SmtpTls::Starttls, Some(("mail.example.com", 587))),
        ("mail.example.com", SmtpTls::Tls, Some(("mail.example.com", 465))),
        ("127.0.0.1:2525", SmtpTls::None, Some(("127.0.0.1", 2525))),
        ("[::1]", SmtpTls::None, Some(("::1", 25))),
        ("", SmtpTls::None, None),
        ("a b", SmtpTls::None, None),
        ("me@mail", SmtpTls::None, None),
        ("mail/x", SmtpTls::None, None),
        ("mail:99999", SmtpTls::None, None),
    ] {
        assert_eq!(host_port(text, tls), place.map(|(host, port)| (host.to_owned(), port)), "{text}");
    }
}

/// Takes messages over HTTP, after so many that it refuses.
#[derive(Default)]
struct Taker {
    refuses: Mutex<usize>,
    taken: Mutex<Vec<(HeaderMap, Value)>>,
}

async fn taker(refuses: usize) -> (String, Arc<Taker>) {
    let taker = Arc::new(Taker { refuses: Mutex::new(refuses), ..Taker::default() });
    let take = async |State(taker): State<Arc<Taker>>, headers: HeaderMap, body: String| {
        let mut refuses = taker.refuses.lock().expect("whole");
        if *refuses > 0 {
            *refuses -= 1;
            return StatusCode::BAD_GATEWAY;
        }
        taker.taken.lock().expect("whole").push((headers, serde_json::from_str(&body).expect("JSON")));
        StatusCode::OK
    };
    let router = Router::new().route("/hook", post(take)).route("/am/api/v2/alerts", post(take)).with_state(taker.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, taker)
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never happens")
}

async fn start(workspace: &Workspace) -> (Alerts, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new(None).expect("metrics"));
    let control: Arc<dyn Control> = Arc::new(Stand::default());
    (Alerts::start(workspace, &metrics, &control).await.expect("starts"), metrics)
}

#[tokio::test]
async fn a_message_reaches_who_refused_it_at_first() {
    let (url, taker) = taker(1).await;
    let text = r#"[alert.ops]
group = "0s"
[alert.ops.webhook]
url = { env = "OPS_URL" }
headers = { Authorization = { env = "OPS_TOKEN" } }
"#;
    let workspace = workspace(text, &[("OPS_URL", &format!("{url}/hook")), ("OPS_TOKEN", "Bearer hush")]);
    let (alerts, metrics) = start(&workspace).await;
    alerts.take(&failed("orders", "file-missing", false));
    let (headers, message) = until(|| taker.taken.lock().expect("whole").pop()).await;
    assert_eq!(headers["authorization"], "Bearer hush");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!((message["alert"].as_str(), message["items"][0]["code"].as_str()), (Some("ops"), Some("file-missing")));
    alerts.take(&published("orders", 3, 0));
    let (_, message) = until(|| taker.taken.lock().expect("whole").pop()).await;
    assert_eq!((message["status"].as_str(), message["items"][0]["status"].as_str()), (Some("recovered"), Some("recovered")));
    alerts.stop().await;
    let text = metrics.text().expect("text");
    assert!(text.contains("weir_alerts_total{alert=\"ops\",outcome=\"sent\"} 2\n"), "{text}");
    assert!(text.contains("weir_alerts_total{alert=\"ops\",outcome=\"failed\"} 1\n"), "{text}");
}

#[tokio::test]
async fn who_is_told_at_the_end_is_told_all_that_waited() {
    let (url, taker) = taker(0).await;
    let text = format!("[alert.chat.slack]\nurl = \"{url}/hook\"\n[alert.am.alertmanager]\nurl = \"{url}/am/\"\n");
    let (alerts, _) = start(&workspace(&text, &[])).await;
    alerts.take(&failed("orders", "x", false));
    alerts.take(&failed("prices", "x", false));
    alerts.stop().await;
    let taken = taker.taken.lock().expect("whole");
    let texts: Vec<String> = taken.iter().map(|(_, message)| message.to_string()).collect();
    assert!(texts.iter().any(|text| text.contains("*weir: 2 failed: orders, prices*")), "{texts:?}");
    assert!(
        texts.iter().any(|text| text.contains("\"alertname\":\"WeirRunFailed\"") && text.contains("\"pipeline\":\"orders\"")),
        "{texts:?}"
    );
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_up_nobody() {
    // It takes connections and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let text =
        format!("[alert.ops]\ngroup = \"0s\"\n[alert.ops.webhook]\nurl = \"http://{}\"\n", listener.local_addr().expect("an address"));
    let (alerts, metrics) = start(&workspace(&text, &[])).await;
    let began = Instant::now();
    for round in 0..NOTICES_MAX * 3 {
        alerts.take(&failed(&format!("p{}", round % 50), "x", false));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    alerts.stop().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(metrics.text().expect("text").contains("weir_alerts_total{alert=\"ops\",outcome=\"given_up\"} 1\n"));
}

#[tokio::test]
async fn a_secret_that_is_missing_is_told_before_it_is_needed() {
    let metrics = Arc::new(Metrics::new(None).expect("metrics"));
    let control: Arc<dyn Control> = Arc::new(Stand::default());
    let told = async |text: &str, environment: &[(&str, &str)]| {
        let failure = Alerts::start(&workspace(text, environment), &metrics, &control).await.expect_err("refused");
        let Failure::Diagnostics(found) = failure else { panic!("{failure:?}") };
        shown(&found)
    };
    let text = "[alert.chat.slack]\nurl = { env = \"SLACK_URL\" }\n";
    assert_eq!(
        told(text, &[]).await,
        "error[secret-missing]: alert \"chat\": the environment variable \"SLACK_URL\" is not set\n \
         --> weir.toml:1:13\n  |\n1 | [alert.chat.slack]\n  |             ^^^^^\n  = help: set it, for instance: export SLACK_URL=…\n"
    );
    assert!(
        told(text, &[("SLACK_URL", "hush hush")])
            .await
            .starts_with("error[wrong-value]: alert \"chat\": \"url\" is no URL that starts with http:// or https://\n")
    );
}
