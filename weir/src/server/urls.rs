//! The addresses of a server's ports, as `weir serve --print-urls` prints them: ready to be pasted where a client asks for one.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Server, token::OWN_NAME};

/// Addresses, and the token that opens them.
pub struct Urls {
    http: String,
    postgres: Option<String>,
    flight: Option<String>,
    token: String,
}

impl Urls {
    /// Those of a server that knows this token.
    pub fn of(server: &Server, token: &str) -> Self {
        let (http, flight) = if server.is_tls { ("https", "grpc+tls") } else { ("http", "grpc") };
        let mode = if server.is_tls { "require" } else { "disable" };
        Self {
            http: format!("{http}://{}/api/sql", reachable(server.address)),
            postgres: server.postgres.map(|address| format!("postgresql://{OWN_NAME}:{token}@{}/lake?sslmode={mode}", reachable(address))),
            flight: server.flight.map(|address| format!("{flight}://{}", reachable(address))),
            token: token.to_owned(),
        }
    }

    /// A line each, for people.
    pub fn text(&self) -> String {
        let Self { http, postgres, flight, token } = self;
        let mut text = format!("http      {http}  with the header \"Authorization: Bearer {token}\"\n");
        if let Some(postgres) = postgres {
            text += &format!("postgres  {postgres}\n");
        }
        if let Some(flight) = flight {
            text += &format!("flight    {flight}  with the user {OWN_NAME} and the password {token}\n");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let Self { http, postgres, flight, token } = self;
        json!({ "http": http, "postgres": postgres, "flight": flight, "user": OWN_NAME, "token": token })
    }
}

/// An address as clients write it: one that stands for all of a machine's is none to go to.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}
