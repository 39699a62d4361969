//! A server with every door of SQL open, and other people's clients that ask through them (`tests/support/doors.py`).

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    project::{Project, Running, WEIR, repository},
    referee,
};

/// What is waited for comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(60);

/// A project that is served through three ports, and clients with a token each.
pub struct Asked {
    pub project: Project,
    pub tokens: BTreeMap<String, String>,
    running: Option<Running>,
    log: PathBuf,
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Asked {
    /// Serves a project whose `weir.toml` goes on with `settings`; makes a token for each user, with these scopes. None without the clients.
    pub fn start(project: Project, settings: &str, users: &[(&str, &str)]) -> Option<Self> {
        let python = referee::python()?;
        let [http, postgres, flight] = [(); 3].map(|()| free());
        project.write(
            "weir.toml",
            format!(
                "[server]\nlisten = \"{http}\"\nlog = \"text\"\n[server.sql]\npostgres = \"{postgres}\"\nflight = \"{flight}\"\n{settings}"
            ),
        );
        let tokens: BTreeMap<String, String> = users
            .iter()
            .map(|(name, scopes)| {
                let made = project.ok(&["serve", "token", "new", name, "--scope", scopes]);
                ((*name).to_owned(), made.stdout.trim().to_owned())
            })
            .collect();
        let log = project.path("serve.log");
        // What it has said is read from the same file when it ends.
        let output = File::options().create(true).append(true).read(true).open(&log).unwrap();
        let running = Running::with_output(project.command(&["serve"]), output.try_clone().unwrap(), output);
        let config = json!({
            "users": tokens, "http": http, "postgres": postgres, "flight": flight, "weir": WEIR, "root": project.root(),
        });
        let mut command = Command::new(python);
        command.arg(repository().join("tests/support/doors.py")).arg(config.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (questions, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut asked = Self { project, tokens, running: Some(running), log, child, questions, answers };
        let since = Instant::now();
        for port in [http, postgres, flight] {
            while std::net::TcpStream::connect(&port).is_err() {
                assert!(since.elapsed() < PATIENCE && asked.alive(), "nobody listens on {port}\n{}", asked.log());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Some(asked)
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Whether the server's process is there.
    pub fn alive(&mut self) -> bool {
        self.running.as_mut().is_some_and(Running::alive)
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("it has not been ended").child.id()
    }

    /// Puts a request to the clients.
    pub fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.questions, "{request}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{request}: the clients said {line:?}: {error}\n{}", self.log()))
    }

    /// Puts a statement to a door, as `ann`.
    pub fn sql(&mut self, door: &str, sql: &str) -> Value {
        self.ask(&json!({ "door": door, "sql": sql }))
    }

    /// An operation that must succeed.
    pub fn op(&mut self, request: &Value) -> Value {
        let answer = self.ask(request);
        assert!(answer.get("error").is_none(), "{request}: {answer}\n{}", self.log());
        answer
    }

    /// An operation that must be refused: the code and the text.
    pub fn refused(&mut self, request: &Value) -> (String, String) {
        let answer = self.ask(request);
        let error = answer.get("error").unwrap_or_else(|| panic!("{request} is not refused: {answer}"));
        (error["code"].as_str().unwrap_or_default().to_owned(), error["text"].as_str().unwrap_or_default().to_owned())
    }

    /// Ends the server, which must end well.
    pub fn end(mut self) {
        let running = self.running.take().unwrap();
        running.signal("TERM");
        let outcome = running.wait(PATIENCE);
        assert_eq!(outcome.code, 0, "{}", self.log());
        for word in ["panicked at", "RUST_BACKTRACE"] {
            assert!(!self.log().contains(word), "the server's log has \"{word}\"\n{}", self.log());
        }
        for token in self.tokens.values() {
            assert!(!self.log().contains(token.as_str()), "the server's log shows a token");
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
