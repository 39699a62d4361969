//! Who asks: the users of a server's ports, each known by a token. What is kept of tokens is the state's, what each may cost is weir.toml's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use weir_connectors::Blame;
use weir_engine::{
    Failure,
    history::tokens::Token,
    query::{Door, Limits, Scopes, Who},
};
use weir_pipelines::{QueryLimits, server::Sql};

use super::{control::Control, token};

/// For so long a token that was right is not looked up again: it may be revoked meanwhile.
const KNOWN: Duration = Duration::from_secs(10);
/// For so long it opens what needs no state (metrics, health) while the state cannot be reached.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Tokens that are remembered at once.
const REMEMBERED_MAX: usize = 1024;
/// An answer of the state about a token is not waited for longer.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// A user: whoever has the token of this name.
#[derive(Clone)]
pub struct User {
    /// The token's name.
    pub name: String,
    /// What it opens.
    pub scopes: Scopes,
    /// What its queries may cost.
    pub limits: Limits,
    /// What SCRAM-SHA-256 compares. None where the token is older than that: a new one has to be made.
    pub scram: Option<Scram>,
    /// Tells it from an earlier one, or a later one, of the same name.
    hash: String,
}

/// A salt, and the token salted with it, over 4096 rounds.
#[derive(Clone)]
pub struct Scram {
    /// Chance.
    pub salt: Vec<u8>,
    /// As RFC 5802 makes it.
    pub salted_password: Vec<u8>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl User {
    /// The user at a door of SQL, where tables without a catalogue and a schema are `lake.main`'s.
    pub fn who(&self, door: Door) -> Who {
        Who {
            user: self.name.clone(),
            door,
            scopes: self.scopes.clone(),
            limits: self.limits.clone(),
            default_catalog: "lake".to_owned(),
            default_schema: "main".to_owned(),
        }
    }
}

/// All users, as far as they have come.
pub struct Users {
    control: Arc<dyn Control>,
    sql: Sql,
    /// The token of this process alone.
    own: Option<Arc<User>>,
    /// By hash: each token that was right, and when that was.
    known: Mutex<HashMap<String, (Arc<User>, Instant)>>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

impl Users {
    /// Nobody has come yet.
    pub fn new(control: Arc<dyn Control>, sql: Sql) -> Self {
        Self { control, sql, own: None, known: Mutex::default() }
    }

    /// The same, with a token that this process alone knows: it opens SQL, and goes by [`token::OWN_NAME`].
    pub fn with_own(mut self, token: &str) -> Result<Self, Failure> {
        let scopes = vec!["sql".to_owned()];
        let (name, created_at) = (token::OWN_NAME.to_owned(), String::new());
        let token = Token { name, hash: token::hash(token), created_at, scopes, scram: Some(token::salted(token)?) };
        self.own = Some(Arc::new(self.user(token)));
        Ok(self)
    }

    /// Whose token it is; none where it is nobody's, or it is revoked. One that was right is remembered for 10 s.
    pub async fn by_token(&self, token: &str) -> Result<Option<Arc<User>>, Failure> {
        self.find(token::hash(token), false).await
    }

    /// The same for what needs no state: while it cannot be reached, who came within a day is known still.
    pub async fn by_token_remembered(&self, token: &str) -> Result<Option<Arc<User>>, Failure> {
        self.find(token::hash(token), true).await
    }

    /// The user of this name; none where no token is called that, or it is revoked. One that was there is remembered for 10 s.
    pub async fn by_name(&self, name: &str) -> Result<Option<Arc<User>>, Failure> {
        if let Some(own) = self.own.as_ref().filter(|own| own.name == name) {
            return Ok(Some(own.clone()));
        }
        let known = self.known();
        let known = known.into_iter().find(|(user, at)| user.name == name && at.elapsed() < KNOWN);
        if let Some((user, _)) = known {
            return Ok(Some(user));
        }
        let found = within(self.control.token_named(name.to_owned())).await?;
        Ok(found.map(|token| self.remember(token)))
    }

    /// Whether the user's token is not revoked since it came. Asked before each statement of a connection, it is answered from memory for 10 s;
    /// while the state cannot be reached, as it was answered last.
    pub async fn still(&self, user: &User) -> Result<bool, Failure> {
        Ok(self.find(user.hash.clone(), true).await?.is_some_and(|now| now.name == user.name))
    }

    async fn find(&self, hash: String, is_remembered: bool) -> Result<Option<Arc<User>>, Failure> {
        if let Some(own) = self.own.as_ref().filter(|own| own.hash == hash) {
            return Ok(Some(own.clone()));
        }
        let known = self.known.lock().expect("nothing panics while it holds this lock").get(&hash).cloned();
        if let Some((user, at)) = &known
            && at.elapsed() < KNOWN
        {
            return Ok(Some(user.clone()));
        }
        let found = match (within(self.control.token(hash.clone())).await, known) {
            (Err(_), Some((user, at))) if is_remembered && at.elapsed() < KEPT => return Ok(Some(user)),
            (found, _) => found?,
        };
        match found {
            Some(token) => Ok(Some(self.remember(token))),
            None => {
                self.known.lock().expect("nothing panics while it holds this lock").remove(&hash);
                Ok(None)
            }
        }
    }

    fn known(&self) -> Vec<(Arc<User>, Instant)> {
        self.known.lock().expect("nothing panics while it holds this lock").values().cloned().collect()
    }

    fn remember(&self, token: Token) -> Arc<User> {
        let user = Arc::new(self.user(token));
        let mut known = self.known.lock().expect("nothing panics while it holds this lock");
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        // A name that was given anew is not the old token's any more.
        known.retain(|_, (other, _)| other.name != user.name);
        known.insert(user.hash.clone(), (user.clone(), Instant::now()));
        user
    }

    fn user(&self, token: Token) -> User {
        let scram = token
            .scram
            .and_then(|scram| Some(Scram { salt: token::bytes(&scram.salt)?, salted_password: token::bytes(&scram.salted_password)? }));
        let limits = limits(&self.sql.limits_of(&token.name));
        // A scope that a later version has made opens nothing here.
        let known: Vec<&String> = token.scopes.iter().filter(|word| token::is_scope(word)).collect();
        let scopes = Scopes::parse(&known).unwrap_or_default();
        User { scopes, limits, scram, hash: token.hash, name: token.name }
    }
}

fn limits(settings: &QueryLimits) -> Limits {
    let QueryLimits { rows, bytes, time, memory_bytes, queries, wait } = *settings;
    Limits { rows, bytes, time, memory: memory_bytes, queries: Some(queries), wait }
}

async fn within<T>(look: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || {
        let failure = Failure::error("state", "the run history cannot be used: it does not answer").blame(Blame::System);
        failure.retry(weir_connectors::Retry::Later)
    };
    tokio::time::timeout(LOOK_MAX, look).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::server::stand::Stand;

    fn users() -> (Users, Arc<Stand>) {
        let stand = Arc::new(Stand::default());
        let mut sql = Sql::default();
        sql.users.insert("ci".into(), QueryLimits { rows: Some(5), ..QueryLimits::default() });
        (Users::new(stand.clone(), sql), stand)
    }

    #[tokio::test]
    async fn a_user_is_found_by_token_and_by_name_with_limits_of_its_own() {
        let (users, _) = users();
        let user = users.by_token("weir_right").await.expect("answered").expect("known");
        assert_eq!((user.name.as_str(), user.limits.rows, user.limits.queries), ("ci", Some(5), Some(4)));
        let scram = user.scram.clone().expect("made with one");
        assert_eq!((scram.salt.len(), scram.salted_password.len()), (16, 32));
        let old = users.by_name("old").await.expect("answered").expect("known");
        assert!(old.scram.is_none() && old.limits.rows == Some(10_000_000));
        assert!(users.by_token("weir_wrong").await.expect("answered").is_none());
        assert!(users.by_name("weir").await.expect("answered").is_none());
    }

    #[tokio::test]
    async fn who_has_come_is_remembered_and_others_are_not_while_the_state_is_away() {
        let (users, stand) = users();
        let user = users.by_name("ci").await.expect("answered").expect("known");
        stand.away.store(true, Ordering::Relaxed);
        assert!(users.by_token("weir_right").await.expect("remembered").is_some());
        assert!(users.still(&user).await.expect("remembered"));
        assert!(users.by_name("old").await.is_err());
        // Long after: what needs the state is not answered, what does not is.
        for (_, at) in users.known.lock().expect("whole").values_mut() {
            *at -= KNOWN;
        }
        assert!(users.by_token("weir_right").await.is_err());
        assert!(users.by_token_remembered("weir_right").await.expect("remembered").is_some());
        assert!(users.still(&user).await.expect("remembered"));
        stand.away.store(false, Ordering::Relaxed);
        stand.revoked.store(true, Ordering::Relaxed);
        assert!(!users.still(&user).await.expect("answered"), "it is revoked");
        assert!(users.by_name("ci").await.expect("answered").is_none());
    }

    #[tokio::test]
    async fn the_token_of_a_process_is_known_to_it_alone() {
        let (users, _) = users();
        let users = users.with_own("weir_own").expect("chance");
        let own = users.by_token("weir_own").await.expect("answered").expect("known");
        assert_eq!(own.name, "weir");
        assert!(users.still(&own).await.expect("answered"));
        assert_eq!(users.by_name("weir").await.expect("answered").expect("known").name, "weir");
        assert_eq!(format!("{own:?}"), "User { name: \"weir\", .. }");
    }
}
