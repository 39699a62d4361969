//! A control that runs nothing, for tests of what stands before it.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use futures::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use weir_connectors::Blame;
use weir_engine::{Failure, history::tokens::Token};

use super::{
    control::{Accepted, Ask, Control, Gauges, LastEnded, Refused, RunsQuery},
    token,
};

/// Remembers what was asked; the state of it can be taken away.
#[derive(Default)]
pub struct Stand {
    pub asks: Mutex<Vec<Ask>>,
    pub away: AtomicBool,
    /// All tokens are revoked.
    pub revoked: AtomicBool,
}

impl Stand {
    fn there<T>(&self, value: T) -> Result<T, Failure> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Failure::error("state", "the state does not answer").blame(Blame::System));
        }
        Ok(value)
    }

    /// `ci` opens all, `reader` opens SQL, `old` is of before there were scopes.
    fn tokens(&self) -> Vec<Token> {
        if self.revoked.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let token = |name: &str, token: &str, scopes: &[&str]| Token {
            name: name.to_owned(),
            hash: token::hash(token),
            created_at: String::new(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            scram: (name != "old").then(|| token::salted(token).expect("chance")),
        };
        vec![token("ci", "weir_right", &["runs", "sql"]), token("reader", "weir_reader", &["sql"]), token("old", "weir_old", &["runs"])]
    }
}

impl Control for Stand {
    fn ready(&self) -> BoxFuture<'_, Result<(), Failure>> {
        async { self.there(()) }.boxed()
    }

    fn trigger(&self, ask: Ask) -> BoxFuture<'_, Result<Accepted, Refused>> {
        async move {
            if ask.pipeline != "orders" {
                return Err(Refused::unknown(Failure::error("unknown-pipeline", format!("there is no pipeline \"{}\"", ask.pipeline))));
            }
            let mut asks = self.asks.lock().expect("whole");
            let new = ask.key.is_none() || !asks.iter().any(|other| other.key == ask.key);
            asks.push(ask);
            self.there(Accepted { task: "t1".into(), run: None, status: "waiting".into(), new }).map_err(Refused::from)
        }
        .boxed()
    }

    fn cancel(&self, run: String, by: String) -> BoxFuture<'_, Result<(), Refused>> {
        async move {
            assert_eq!(by, "ci");
            match run.as_str() {
                "r1" => Ok(()),
                _ => Err(Refused::conflict(Failure::error("task-over", "the run has ended"))),
            }
        }
        .boxed()
    }

    fn runs(&self, query: RunsQuery) -> BoxFuture<'_, Result<Vec<Value>, Refused>> {
        async move { Ok(vec![json!({ "run": "r1", "asked": format!("{query:?}") })]) }.boxed()
    }

    fn run(&self, id: String) -> BoxFuture<'_, Result<Value, Refused>> {
        async move {
            if id == "slow" {
                std::future::pending::<()>().await;
            }
            Ok(json!({ "run": id }))
        }
        .boxed()
    }

    fn schedules(&self) -> BoxFuture<'_, Result<Vec<Value>, Refused>> {
        async { Ok(vec![json!({ "pipeline": "orders" })]) }.boxed()
    }

    fn token(&self, hash: String) -> BoxFuture<'_, Result<Option<Token>, Failure>> {
        async move { self.there(self.tokens().into_iter().find(|token| token.hash == hash)) }.boxed()
    }

    fn token_named(&self, name: String) -> BoxFuture<'_, Result<Option<Token>, Failure>> {
        async move { self.there(self.tokens().into_iter().find(|token| token.name == name)) }.boxed()
    }

    fn gauges(&self) -> BoxFuture<'_, Result<Gauges, Failure>> {
        async { self.there(Gauges { running: 3, ..Gauges::default() }) }.boxed()
    }

    fn last_ended(&self) -> BoxFuture<'_, Result<Vec<LastEnded>, Failure>> {
        async { Ok(Vec::new()) }.boxed()
    }
}
