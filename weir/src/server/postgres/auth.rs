//! Who is it? SCRAM-SHA-256 (RFC 5802, RFC 7677) against the salted passwords that the state keeps of tokens; bound to the channel
//! (SCRAM-SHA-256-PLUS, RFC 5929 `tls-server-end-point`) where there is TLS and the client can.
//!
//! Of a name that nobody has, a salt is made up from a secret of this process, the same each time, and the exchange goes to its end:
//! neither the time nor the answers tell whether the name is known.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use pgwire::api::auth::{Password, sasl::scram::ScramServerAuth};
use sha2::{Digest, Sha256};

use super::{
    error::PgError,
    wire::{Body, Out},
};
use crate::server::users::{User, Users};

const PLAIN: &str = "SCRAM-SHA-256";
/// Rounds that tokens are salted with when they are made.
const ITERATIONS: usize = 4096;
/// A name is looked up for so long, whether it is known or not.
const LOOK: Duration = Duration::from_millis(10);
const BOUND: &str = "SCRAM-SHA-256-PLUS";

/// What the exchange needs of this server.
pub struct Secrets {
    /// Salts of unknown names are made from it.
    made_up: [u8; 32],
    /// The server's certificate, to which a channel is bound.
    certificate_pem: Option<Vec<u8>>,
}

/// A client in the middle of the exchange.
pub struct Exchange {
    binds: bool,
    scram: ScramServerAuth,
}

impl Secrets {
    /// New ones.
    pub fn new(certificate_pem: Option<Vec<u8>>) -> Self {
        let mut made_up = [0; 32];
        getrandom::fill(&mut made_up).expect("the system has random numbers");
        Self { made_up, certificate_pem }
    }

    fn of_nobody(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let derive = |purpose: &str| {
            let mut hash = Sha256::new();
            hash.update(self.made_up);
            hash.update(purpose);
            hash.update(name);
            hash.finalize().to_vec()
        };
        // Nobody can know a password that salts to this.
        (derive("salt")[..16].to_vec(), derive("password"))
    }

    /// Begins: tells the client which ways there are.
    pub fn begin<W: tokio::io::AsyncWrite + Unpin>(&self, secure: bool, out: &mut Out<W>) -> Exchange {
        let mut scram = ScramServerAuth::new();
        scram.set_iterations(ITERATIONS);
        // A certificate whose signature names no hash (Ed25519) binds no channel: then there is only the other way.
        let binds = secure && self.certificate_pem.as_ref().is_some_and(|pem| scram.configure_certificate(pem).is_ok());
        out.message(b'R', |body| {
            body.put_u32(10);
            if binds {
                super::wire::text(body, BOUND);
            }
            super::wire::text(body, PLAIN);
            body.put_u8(0);
        });
        Exchange { binds, scram }
    }
}

impl Exchange {
    /// Answers the client's first message; what is returned judges its last.
    pub async fn first<W: tokio::io::AsyncWrite + Unpin>(
        &self,
        secrets: &Secrets,
        users: &Users,
        name: &str,
        body: Bytes,
        out: &mut Out<W>,
    ) -> Result<Judge, PgError> {
        let mut body = Body(body);
        let wrong = |_| malformed();
        let mechanism = body.string().map_err(wrong)?;
        let length = body.u32().map_err(wrong)? as usize;
        let first = body.0;
        if length != first.remaining() {
            return Err(malformed());
        }
        // `p=` binds, `y` could bind and was not offered it: said to a server that did offer it, somebody between took the offer away.
        let right = match (mechanism.as_str(), first.first()) {
            (BOUND, Some(b'p')) => self.binds && first.starts_with(b"p=tls-server-end-point,"),
            (PLAIN, Some(b'n')) => true,
            (PLAIN, Some(b'y')) => !self.binds,
            _ => false,
        };
        if !right {
            return Err(malformed());
        }
        let at_least = tokio::time::Instant::now() + LOOK;
        let user = users.by_name(name).await.map_err(|failure| PgError { fatal: true, ..PgError::of(&failure, 0) })?;
        // A token that is older than SCRAM here has nothing to compare: it is as nobody's.
        let user = user.filter(|user| user.scram.is_some());
        let (made_up_salt, made_up_password) = secrets.of_nobody(name);
        let (salt, password) = match user.as_ref().and_then(|user| user.scram.as_ref()) {
            Some(scram) => (scram.salt.clone(), scram.salted_password.clone()),
            None => (made_up_salt, made_up_password),
        };
        let password = Password::new(Some(salt), password);
        let (answer, waiting) = self.scram.on_client_first_message(&first, password).map_err(|_| malformed())?;
        // A name that is remembered is found sooner than one that is not.
        tokio::time::sleep_until(at_least).await;
        out.message(b'R', |body| {
            body.put_u32(11);
            body.extend_from_slice(answer.as_bytes());
        });
        let judge = move |last: &[u8]| waiting.on_client_final_message(last).ok();
        Ok(Judge { user, name: name.to_owned(), judge: Box::new(judge) })
    }
}

/// What the server's last word, or none, is said to.
type Verdict = Box<dyn Fn(&[u8]) -> Option<String> + Send + Sync>;

/// Judges the client's last message.
pub struct Judge {
    user: Option<Arc<User>>,
    name: String,
    judge: Verdict,
}

impl Judge {
    /// Returns the user who has shown that they know their token.
    pub fn last<W: tokio::io::AsyncWrite + Unpin>(self, body: &Bytes, out: &mut Out<W>) -> Result<Arc<User>, PgError> {
        match ((self.judge)(body), self.user) {
            (Some(answer), Some(user)) => {
                out.message(b'R', |body| {
                    body.put_u32(12);
                    body.extend_from_slice(answer.as_bytes());
                });
                Ok(user)
            }
            _ => Err(PgError::fatal("28P01", format!("password authentication failed for user \"{}\"", self.name))
                .hint("the user is a token's name, the password the token: make one anew that is older than SCRAM here")),
        }
    }
}

fn malformed() -> PgError {
    PgError::fatal("08P01", "the authentication exchange is malformed")
}
