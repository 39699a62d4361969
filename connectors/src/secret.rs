//! A value that nobody may see: as written, or where to fetch it. Fetching needs the environment, files or a command, so
//! it happens when a connection is opened; shown it is never.

use std::{collections::HashMap, fmt, path::Path, process::Stdio, time::Duration};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};

use crate::error::{Error, Result};

/// A command that tells a secret has this long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A secret: `"plain"`, `{ env = "PGPASSWORD" }`, `{ file = "/run/secrets/pg" }` or `{ command = ["pass", "pg"] }`.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum Secret {
    /// As written.
    Plain(String),
    /// Kept elsewhere.
    From(Place),
}

/// Where a secret is kept.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Place {
    /// In an environment variable.
    Env(String),
    /// In a file, without its last line break. Relative paths start from the project's folder.
    File(String),
    /// In what a command writes to its standard output, without the last line break. No shell is involved.
    Command(Vec<String>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Plain(_) => f.write_str("Secret(***)"),
            Secret::From(place) => write!(f, "Secret({place:?})"),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Env(name) => write!(f, "env {name}"),
            Place::File(path) => write!(f, "file {path}"),
            // Arguments of a command may be secrets themselves.
            Place::Command(words) => write!(f, "command {}", words.first().map_or("", String::as_str)),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a text, { env = \"NAME\" }, { file = \"path\" } or { command = [\"word\"] }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::Plain(text.to_owned()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
                match Place::deserialize(MapAccessDeserializer::new(map))? {
                    Place::Command(words) if words.is_empty() => Err(de::Error::custom("the command is empty")),
                    place => Ok(Secret::From(place)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Secret {
    /// Fetches it. Fails with Blame::User where it is not kept where it should be; the error never holds any of it.
    pub async fn reveal(&self, environment: &HashMap<String, String>, root: &Path) -> Result<String> {
        let missing = |message: String| Error::user("secret-missing", message);
        let place = match self {
            Secret::Plain(text) => return Ok(text.clone()),
            Secret::From(place) => place,
        };
        let mut text = match place {
            Place::Env(name) => {
                return environment.get(name).cloned().ok_or_else(|| {
                    missing(format!("the environment variable \"{name}\" is not set"))
                        .help(format!("set it, for instance: export {name}=…"))
                });
            }
            Place::File(path) => tokio::fs::read_to_string(root.join(path))
                .await
                .map_err(|error| missing(format!("cannot read the secret in \"{path}\": {}", error.kind())))?,
            Place::Command(words) => {
                let [program, arguments @ ..] = words.as_slice() else { return Err(missing("the command is empty".into())) };
                let (program, arguments) = (program.clone(), arguments.to_vec());
                let (environment, root, name) = (environment.clone(), root.to_owned(), program.clone());
                let command = tokio::task::spawn_blocking(move || run(&program, &arguments, &environment, &root));
                let output = command.await.map_err(|error| Error::weir("panic", "a secret's command panicked").because(error))?;
                output.map_err(|why| missing(format!("the command \"{name}\" did not tell the secret: {why}")))?
            }
        };
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }
}

/// Runs a command to its end, or to the deadline's, and returns what it wrote.
fn run(program: &str, arguments: &[String], environment: &HashMap<String, String>, root: &Path) -> Result<String, String> {
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.kind().to_string())?;
    let mut output = child.stdout.take().ok_or("it has no output")?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut output, &mut text).map(|_| text)
    });
    let deadline = std::time::Instant::now() + COMMAND_TIMEOUT;
    let status = loop {
        match child.try_wait().map_err(|error| error.kind().to_string())? {
            Some(status) => break status,
            None if std::time::Instant::now() > deadline => {
                // It may have ended meanwhile; either way it is over.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it took longer than {} s", COMMAND_TIMEOUT.as_secs()));
            }
            #[expect(clippy::disallowed_methods, reason = "secrets are revealed on a blocking thread")]
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if !status.success() {
        return Err(status.to_string());
    }
    let text = reader.join().map_err(|_| "its output was lost")?.map_err(|error| error.kind().to_string())?;
    String::from_utf8(text).map_err(|_| "it is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Secret, String> {
        #[derive(Deserialize)]
        struct Holder {
            secret: Secret,
        }
        toml::from_str::<Holder>(text).map(|holder| holder.secret).map_err(|error| error.message().to_owned())
    }

    #[tokio::test]
    async fn a_secret_is_fetched_from_where_it_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("pg"), "s3cret \r\n").expect("a file");
        let environment = HashMap::from([("PG".to_owned(), "from env".to_owned()), ("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        for (text, value) in [
            ("secret = \"plain\"", "plain"),
            ("secret = { env = \"PG\" }", "from env"),
            ("secret = { file = \"pg\" }", "s3cret "),
            ("secret = { command = [\"echo\", \"a b\"] }", "a b"),
        ] {
            let secret = read(text).expect("a secret");
            assert_eq!(secret.reveal(&environment, dir.path()).await.expect("revealed"), value);
        }
        for (text, message) in [
            ("secret = { env = \"NONE\" }", "the environment variable \"NONE\" is not set"),
            ("secret = { file = \"none\" }", "cannot read the secret in \"none\": entity not found"),
            ("secret = { command = [\"false\", \"hush\"] }", "the command \"false\" did not tell the secret: exit status: 1"),
        ] {
            let error = read(text).expect("a secret").reveal(&environment, dir.path()).await.expect_err("missing");
            assert_eq!((error.code, error.message.as_str()), ("secret-missing", message));
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let shown = format!(
            "{:?} {:?}",
            read("secret = \"hush\"").expect("a secret"),
            read("secret = { command = [\"pass\", \"hush\"] }").expect("one")
        );
        assert_eq!(shown, "Secret(***) Secret(command pass)");
    }

    #[test]
    fn a_wrong_place_is_named() {
        assert!(read("secret = { envv = \"X\" }").expect_err("wrong").contains("unknown variant `envv`"));
        assert!(read("secret = { command = [] }").expect_err("wrong").contains("the command is empty"));
        assert!(read("secret = 3").expect_err("wrong").contains("expected a text, { env = \"NAME\" }"));
    }
}
