//! Whether a server starts, shows what happens, and ends.

use std::collections::HashMap;

use chrono::Utc;
use weir_engine::workspace::Machine;
use weir_pipelines::{Project, SourceFile};

use super::*;
use stand::Stand;

fn workspace(listen: &str) -> Workspace {
    let text = format!("[server]\nlisten = \"{listen}\"\n");
    let project = Project::parse(SourceFile::new("weir.toml", text.as_str()), "/".into(), None).expect("right");
    Workspace::new(project, HashMap::new(), Machine { memory_bytes: 1 << 30, cpus: 1 }, Utc::now)
}

fn behind() -> Behind {
    Behind { control: Arc::new(Stand::default()), files: None, own_token: None }
}

#[tokio::test]
async fn what_happens_is_seen_at_the_port_until_the_server_ends() {
    let server = start(&workspace("127.0.0.1:0"), behind()).await.expect("starts");
    server.take(&examples::published("orders", 3, 0));
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}/metrics", server.address);
    let text = client.get(&url).bearer_auth("weir_right").send().await.expect("answered").text().await.expect("text");
    assert!(text.contains("weir_runs_total{outcome=\"published\",pipeline=\"orders\"} 1\n"), "{text}");
    server.stop().await;
    assert!(client.get(&url).send().await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    let first = start(&workspace("127.0.0.1:0"), behind()).await.expect("starts");
    let address = first.address.to_string();
    let failure = start(&workspace(&address), behind()).await.expect_err("it is taken");
    let Failure::Error(error) = failure else { panic!("{failure:?}") };
    assert_eq!(error.code, "cannot-listen");
    assert!(error.message.starts_with(&format!("cannot listen on {address}: ")), "{}", error.message);
    first.stop().await;
}
