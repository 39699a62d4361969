//! How are a client's statements answered? By the simple protocol (a text, answered at once) and the extended one (prepare, bind, describe,
//! execute); both ask the engine's session, and both are answered as rows come.
//!
//! A transaction here is a word: everything is read-only, and each statement sees the tables as they are when it is planned. Its states are
//! kept all the same, since clients rely on them: after an error in one, statements are refused until it ends.

use std::{collections::HashMap, io, ops::ControlFlow, sync::Arc};

use bytes::{BufMut, Bytes};
use datafusion::common::ScalarValue;
use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;
use weir_engine::query::{Prepared, Session};

use super::{
    Cancel,
    command::{Command, Inner, Statement, Steps, cut},
    copy::CopyFormat,
    error::PgError,
    parameters,
    portal::{Flow, Plan, Portal, State, binary, described},
    room,
    settings::Settings,
    wire::{Described, Message, Out, Target},
};
use crate::server::users::{User, Users};
use weir_engine::query::postgres::types::oid;

/// Why an answer breaks off.
pub(super) enum Stop {
    /// The connection is gone.
    Io(io::Error),
    /// The client is told.
    Said(PgError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Io(error)
    }
}

impl From<PgError> for Stop {
    fn from(error: PgError) -> Self {
        Stop::Said(error)
    }
}

pub(super) type Result<T, E = Stop> = std::result::Result<T, E>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transaction {
    Idle,
    Open,
    Failed,
}

/// A client and what it has said so far.
pub(super) struct Conversation<W> {
    pub(super) session: Session,
    pub(super) settings: Settings,
    /// As they were when it began.
    pub(super) first: Settings,
    pub(super) user: Arc<User>,
    pub(super) database: String,
    users: Arc<Users>,
    cancel: Arc<Cancel>,
    gone: CancellationToken,
    pub(super) out: Out<W>,
    pub(super) statements: HashMap<String, Arc<Plan>>,
    pub(super) portals: HashMap<String, Portal>,
    pub(super) transaction: Transaction,
    /// After an error of the extended protocol, until the next `Sync`.
    skips: bool,
}

impl<W: AsyncWrite + Unpin> Conversation<W> {
    #[expect(clippy::too_many_arguments, reason = "it is made in one place")]
    pub fn new(
        session: Session,
        settings: Settings,
        user: Arc<User>,
        database: String,
        users: Arc<Users>,
        cancel: Arc<Cancel>,
        gone: CancellationToken,
        out: Out<W>,
    ) -> Self {
        let (statements, portals) = (HashMap::new(), HashMap::new());
        let first = settings.clone();
        Self {
            session,
            settings,
            first,
            user,
            database,
            users,
            cancel,
            gone,
            out,
            statements,
            portals,
            transaction: Transaction::Idle,
            skips: false,
        }
    }

    /// What a client is told when it is let in.
    pub fn greet(&mut self, number: i32, secret: &[u8]) {
        self.out.message(b'R', |body| body.put_u32(0));
        for (name, value) in self.settings.greeting(&self.user.name) {
            self.out.parameter(name, &value);
        }
        self.out.message(b'K', |body| {
            body.put_i32(number);
            body.extend_from_slice(secret);
        });
        self.ready();
    }

    fn ready(&mut self) {
        let state = match self.transaction {
            Transaction::Idle => b'I',
            Transaction::Open => b'T',
            Transaction::Failed => b'E',
        };
        self.out.message(b'Z', |body| body.put_u8(state));
    }

    /// Sends what waits.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.out.flush().await
    }

    /// Says why it ends.
    pub fn say(&mut self, error: &PgError) {
        error.send(&mut self.out, None);
    }

    /// Closes the stream.
    pub async fn close(&mut self) {
        self.portals.clear();
        self.out.close().await;
    }

    /// Answers one message.
    pub async fn answer(&mut self, message: Message) -> io::Result<ControlFlow<()>> {
        // The statement that it is about, where that is known already.
        let plan = match &message {
            Message::Bind { statement: name, .. } | Message::Describe { target: Target::Statement, name } => {
                self.statements.get(name).cloned()
            }
            Message::Execute { portal: name, .. } | Message::Describe { target: Target::Portal, name } => {
                self.portals.get(name).map(|portal| portal.plan.clone())
            }
            _ => None,
        };
        let text: Option<Arc<str>> = match &message {
            Message::Query(text) => Some(text.as_str().into()),
            Message::Parse { sql, .. } => Some(sql.as_str().into()),
            Message::Execute { .. } => plan.as_ref().map(|plan| plan.text.clone()),
            _ => None,
        };
        let is_simple = matches!(message, Message::Query(_));
        let answered = match message {
            Message::Sync => {
                self.skips = false;
                self.settle();
                self.ready();
                return Ok(ControlFlow::Continue(()));
            }
            _ if self.skips && !is_simple => return Ok(ControlFlow::Continue(())),
            Message::Query(_) => {
                let text = text.clone().expect("a query has a text");
                self.portals.remove("");
                self.statements.remove("");
                self.simple(text).await
            }
            Message::Parse { name, types, .. } => {
                let text = text.clone().expect("a statement has a text");
                self.parse(name, text, types).await
            }
            Message::Bind { portal, statement, formats, values, results } => self.bind(portal, &statement, &formats, &values, results),
            Message::Describe { target, name } => self.describe(target, &name),
            Message::Execute { portal, rows } => self.execute(&portal, rows).await,
            Message::Close { target, name } => {
                match target {
                    Target::Statement => drop(self.statements.remove(&name)),
                    Target::Portal => drop(self.portals.remove(&name)),
                }
                self.out.bare(b'3');
                Ok(())
            }
            Message::Flush => self.out.flush().await.map_err(Stop::from),
            // As Postgres does with data for a COPY that is not under way.
            Message::Copy => Ok(()),
            Message::Password(_) | Message::Terminate => Err(PgError::fatal("08P01", "a message that is out of place").into()),
        };
        // What is not under way any more cannot be cancelled.
        *self.cancel.statement.lock().expect("nothing panics while it holds this lock") = CancellationToken::new();
        let answered = answered.map_err(|stop| match &plan {
            Some(plan) => self.noted(plan.sql(), stop),
            None => stop,
        });
        match answered {
            Ok(()) => {}
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::Said(error)) => {
                error.send(&mut self.out, text.as_deref());
                if error.fatal {
                    return Ok(ControlFlow::Break(()));
                }
                if self.transaction == Transaction::Open {
                    self.transaction = Transaction::Failed;
                }
                self.skips = !is_simple;
            }
        }
        if is_simple {
            self.skips = false;
            self.settle();
            self.ready();
        }
        self.relieve().await?;
        Ok(ControlFlow::Continue(()))
    }

    /// Writes what has gathered once it is much: a client that asks and asks, and takes nothing, waits.
    async fn relieve(&mut self) -> io::Result<()> {
        if self.out.is_full() { self.out.flush().await } else { Ok(()) }
    }

    /// Outside a transaction, portals end with the messages they came with; cursors that were declared to stay do stay.
    fn settle(&mut self) {
        if self.transaction == Transaction::Idle {
            self.portals.retain(|_, portal| portal.hold);
        }
    }

    /// A token for a statement, which cancel requests reach from now on.
    fn token(&self, token: Option<&CancellationToken>) -> CancellationToken {
        let token = token.cloned().unwrap_or_else(|| self.gone.child_token());
        *self.cancel.statement.lock().expect("nothing panics while it holds this lock") = token.clone();
        token
    }

    /// Refuses what comes after an error in a transaction, and who is not a user any more.
    async fn admit(&mut self, command: &Command) -> Result<()> {
        if self.transaction == Transaction::Failed
            && !matches!(command, Command::Commit | Command::Rollback | Command::Savepoint("ROLLBACK"))
        {
            let refused = PgError::new("25P02", "the transaction has failed: statements are refused until it ends");
            return Err(refused.hint("say \"rollback\"").into());
        }
        match self.users.still(&self.user).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(PgError::fatal("28P01", format!("the token of \"{}\" has been revoked", self.user.name)).into()),
            Err(failure) => Err(PgError { logged: false, ..PgError::of(&failure, 0) }.into()),
        }
    }

    async fn simple(&mut self, text: Arc<str>) -> Result<()> {
        self.short(&text)?;
        let all = cut(&text).await?;
        if all.is_empty() {
            self.out.bare(b'I');
        }
        for statement in all {
            let bytes = statement.start..statement.end;
            if let Err(stop) = self.one(&text, statement).await {
                return Err(self.noted(&text[bytes], stop));
            }
            self.relieve().await?;
        }
        Ok(())
    }

    /// Answers one statement of the simple protocol.
    async fn one(&mut self, text: &Arc<str>, statement: Statement) -> Result<()> {
        self.admit(&statement.command).await?;
        let plan = Arc::new(self.plan(text, statement, &[]).await?);
        if !plan.kinds.is_empty() && !matches!(plan.command, Command::Prepare { .. }) {
            return Err(PgError::new("42P02", "there are no values for the parameters of this statement").into());
        }
        let size = room::size(&plan, &[]);
        let mut portal = Portal { plan, values: vec![], formats: vec![], state: State::New, told: None, hold: false, size };
        self.run(&mut portal, 0, true).await
    }

    /// Plans the query within a statement.
    async fn plan(&mut self, text: &Arc<str>, statement: Statement, types: &[u32]) -> Result<Plan> {
        let Statement { start, end, command } = statement;
        let (text, bytes) = (text.clone(), start..end);
        let query = match &command {
            Command::Query(query) | Command::Declare { query, .. } | Command::Prepare { query, .. } => Some(query),
            Command::Copy(copy) => Some(&copy.query),
            _ => None,
        };
        let Some(Inner { sql, start }) = query.cloned() else {
            return Ok(Plan { text, bytes, command, prepared: None, start: 0, kinds: types.to_vec() });
        };
        let types = match &command {
            Command::Prepare { types, .. } => {
                let unknown = |name: &String| PgError::new("42704", format!("\"{name}\" is no type of parameters here"));
                types.iter().map(|name| parameters::named(name).ok_or_else(|| unknown(name))).collect::<Result<Vec<_>, _>>()?
            }
            _ => types.to_vec(),
        };
        let token = self.token(None);
        let prepared = tokio::select! {
            prepared = self.session.prepare(&sql) => prepared.map_err(|failure| PgError::of(&failure, start))?,
            () = token.cancelled() => return Err(PgError::new("57014", "the statement was cancelled").into()),
        };
        let wanted = prepared.parameters();
        let kinds = wanted.iter().enumerate().map(|(at, wanted)| parameters::told(types.get(at).copied().unwrap_or(0), wanted.as_ref()));
        let kinds = kinds.collect();
        Ok(Plan { text, bytes, command, prepared: Some(prepared), start, kinds })
    }

    async fn parse(&mut self, name: String, text: Arc<str>, types: Vec<u32>) -> Result<()> {
        self.short(&text)?;
        let mut all = cut(&text).await?.into_iter();
        let statement = all.next().unwrap_or(Statement { start: 0, end: 0, command: Command::Empty });
        let (bytes, is_one) = (statement.start..statement.end, all.next().is_none());
        let prepared = self.prepare(&name, &text, statement, is_one, &types).await;
        let plan = prepared.map_err(|stop| self.noted(&text[bytes], stop))?;
        self.statements.insert(name, Arc::new(plan));
        self.out.bare(b'1');
        Ok(())
    }

    async fn prepare(&mut self, name: &str, text: &Arc<str>, statement: Statement, is_one: bool, types: &[u32]) -> Result<Plan> {
        if !is_one {
            return Err(PgError::new("42601", "a prepared statement is one statement, not several").into());
        }
        self.admit(&statement.command).await?;
        if name.is_empty() {
            // It makes place for the next, as in Postgres.
            self.statements.remove(name);
            self.holds(text.len())?;
        } else {
            self.vacant(name, text)?;
        }
        self.plan(text, statement, types).await
    }

    fn statement(&self, name: &str) -> Result<Arc<Plan>> {
        let missing = || PgError::new("26000", format!("there is no prepared statement \"{name}\""));
        Ok(self.statements.get(name).cloned().ok_or_else(missing)?)
    }

    fn bind(&mut self, name: String, statement: &str, formats: &[i16], values: &[Option<Bytes>], results: Vec<i16>) -> Result<()> {
        let plan = self.statement(statement)?;
        if values.len() != plan.kinds.len() {
            let message = format!("the statement has {} parameters, and {} values were bound", plan.kinds.len(), values.len());
            return Err(PgError::new("08P01", message).into());
        }
        let formats = binary(formats, values.len())?;
        let bound = plan.kinds.iter().zip(values).zip(formats).enumerate();
        let values = bound
            .map(|(at, ((kind, value), binary))| parameters::value(*kind, binary, value.as_ref(), at + 1))
            .collect::<Result<Vec<_>, _>>()?;
        let told = plan.schema(Some(&values));
        let is_rows = matches!(plan.command, Command::Query(_));
        if let (true, Some(schema)) = (is_rows, &told) {
            binary(&results, schema.fields().len())?;
        }
        if name.is_empty() {
            self.portals.remove(&name);
        } else if self.portals.contains_key(&name) {
            return Err(PgError::new("42P03", format!("there is a cursor \"{name}\" already")).into());
        }
        let size = room::size(&plan, &values);
        self.room(&name, size)?;
        self.portals.insert(name, Portal { plan, values, formats: results, state: State::New, told, hold: false, size });
        self.out.bare(b'2');
        Ok(())
    }

    /// The columns that a statement answers with; none where it answers with none.
    pub(super) fn columns(&self, plan: &Plan, told: Option<&arrow::datatypes::Schema>, formats: &[i16]) -> Result<Option<Vec<Described>>> {
        let of = |schema: &arrow::datatypes::Schema| -> Result<Option<Vec<Described>>> {
            Ok(Some(described(schema, &binary(formats, schema.fields().len())?)))
        };
        let all = |name: &str| Described { name: name.to_owned(), oid: oid::TEXT, size: -1, modifier: -1, binary: false };
        match &plan.command {
            Command::Query(_) => match told {
                Some(schema) => of(schema),
                None => plan.schema(None).map_or(Ok(None), |schema| of(&schema)),
            },
            Command::Show(name) if name == "all" => Ok(Some(vec![all("name"), all("setting"), all("description")])),
            Command::Show(name) => Ok(Some(vec![all(name)])),
            Command::Fetch { name, shows: true, .. } => match self.portals.get(name).map(|portal| (portal, &portal.state)) {
                Some((_, State::Open(flow))) => of(&flow.schema),
                Some((portal, _)) => portal.told.as_ref().map_or(Ok(None), |schema| of(schema)),
                None => Err(no_cursor(name).into()),
            },
            Command::Execute { name, .. } => {
                let inner = self.statement(name)?;
                inner.schema(None).map_or(Ok(None), |schema| of(&schema))
            }
            _ => Ok(None),
        }
    }

    fn describe(&mut self, target: Target, name: &str) -> Result<()> {
        let columns = match target {
            Target::Statement => {
                let plan = self.statement(name)?;
                let columns = self.columns(&plan, None, &[])?;
                self.out.message(b't', |body| {
                    body.put_u16(plan.kinds.len() as u16);
                    plan.kinds.iter().for_each(|kind| body.put_u32(*kind));
                });
                columns
            }
            Target::Portal => {
                let portal = self.portals.get(name).ok_or_else(|| no_cursor(name))?;
                match &portal.state {
                    // A cursor: described as its rows are.
                    State::Open(flow) => Some(described(&flow.schema, &binary(&portal.formats, flow.schema.fields().len())?)),
                    _ => self.columns(&portal.plan, portal.told.as_deref(), &portal.formats)?,
                }
            }
        };
        match columns {
            Some(columns) => self.out.row_description(&columns),
            None => self.out.bare(b'n'),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, rows: u32) -> Result<()> {
        // It is put back where it may be asked again.
        let mut portal = self.portals.remove(name).ok_or_else(|| no_cursor(name))?;
        self.admit(&portal.plan.command).await?;
        self.run(&mut portal, rows.into(), false).await?;
        // What the statement itself has closed, or made anew, stays so.
        let ended = matches!(portal.plan.command, Command::Commit | Command::Rollback | Command::Discard { .. });
        if !ended {
            self.portals.entry(name.to_owned()).or_insert(portal);
        }
        Ok(())
    }

    /// Carries out a statement. In the simple protocol its rows are described first.
    async fn run(&mut self, portal: &mut Portal, rows: u64, simple: bool) -> Result<()> {
        let plan = portal.plan.clone();
        match &plan.command {
            // A cursor that is executed by its name is asked for rows.
            command if matches!(command, Command::Query(_)) || matches!(portal.state, State::Open(_)) => {
                if let State::New = portal.state {
                    let values = std::mem::take(&mut portal.values);
                    let token = self.token(None);
                    let flow = self.open(&plan, values, portal.told.clone(), token).await?;
                    if simple {
                        self.out.row_description(&described(&flow.schema, &vec![false; flow.schema.fields().len()]));
                    }
                    portal.state = State::Open(Box::new(flow));
                }
                let (sent, suspended) = match &mut portal.state {
                    State::Open(flow) => {
                        let formats = binary(&portal.formats, flow.schema.fields().len())?;
                        self.send(flow, rows, &formats).await?
                    }
                    _ => (0, false),
                };
                if suspended {
                    self.out.bare(b's');
                    return Ok(());
                }
                portal.state = State::Done;
                self.out.complete(&format!("SELECT {sent}"));
            }
            Command::Copy(copy) => {
                let token = self.token(None);
                let mut flow = self.open(&plan, std::mem::take(&mut portal.values), None, token).await?;
                self.copy(&mut flow, &copy.format).await?;
            }
            Command::Declare { name, binary, hold, .. } => {
                if self.transaction == Transaction::Idle && !hold {
                    let error = PgError::new("25P01", "a cursor lives in a transaction");
                    return Err(error.hint("say \"begin\" first, or declare it with hold").into());
                }
                if self.portals.contains_key(name) {
                    return Err(PgError::new("42P03", format!("there is a cursor \"{name}\" already")).into());
                }
                self.room(name, portal.size)?;
                let token = self.token(None);
                let flow = self.open(&plan, std::mem::take(&mut portal.values), None, token).await?;
                let formats = if *binary { vec![1] } else { vec![] };
                let state = State::Open(Box::new(flow));
                let cursor = Portal { plan: plan.clone(), values: vec![], formats, state, told: None, hold: *hold, size: portal.size };
                self.portals.insert(name.clone(), cursor);
                self.out.complete("DECLARE CURSOR");
            }
            Command::Fetch { name, steps, shows } => self.fetch(name, *steps, *shows, &portal.formats, simple).await?,
            Command::Prepare { name, .. } => {
                self.vacant(name, &plan.text)?;
                let inner = Inner { sql: String::new(), start: plan.start };
                // Its places are those of the text that it was prepared in.
                let stored = Plan {
                    text: plan.text.clone(),
                    bytes: plan.bytes.clone(),
                    command: Command::Query(inner),
                    prepared: plan.prepared.clone(),
                    start: plan.start,
                    kinds: plan.kinds.clone(),
                };
                self.statements.insert(name.clone(), Arc::new(stored));
                self.out.complete("PREPARE");
            }
            Command::Execute { name, values } => {
                let inner = self.statement(name)?;
                let values = match values {
                    Some(values) => self.evaluate(values, inner.kinds.len()).await?,
                    None => vec![],
                };
                let token = self.token(None);
                let mut flow = self.open(&inner, values, (!simple).then(|| inner.schema(None)).flatten(), token).await?;
                let formats = binary(&portal.formats, flow.schema.fields().len())?;
                if simple {
                    self.out.row_description(&described(&flow.schema, &formats));
                }
                let (sent, _) = self.send(&mut flow, 0, &formats).await?;
                self.out.complete(&format!("SELECT {sent}"));
            }
            other => self.session_command(other, simple)?,
        }
        Ok(())
    }

    /// Asks the engine.
    async fn open(
        &mut self,
        plan: &Plan,
        values: Vec<ScalarValue>,
        told: Option<arrow::datatypes::SchemaRef>,
        token: CancellationToken,
    ) -> Result<Flow> {
        let prepared: &Prepared = plan.prepared.as_ref().ok_or_else(|| PgError::new("XX000", "a query that was not planned"))?;
        let given = values.len();
        if given != prepared.parameters().len() {
            let message = format!("the statement has {} parameters, and {given} values were given", prepared.parameters().len());
            return Err(PgError::new("42601", message).into());
        }
        let stream = self.session.execute(prepared, values, token.clone()).await;
        let stream = stream.map_err(|failure| PgError::of(&failure, plan.start))?;
        Ok(Flow::new(stream, told, token))
    }

    /// The values of `execute NAME (values)`: constants, which the engine evaluates.
    async fn evaluate(&mut self, values: &Inner, count: usize) -> Result<Vec<ScalarValue>> {
        let token = self.token(None);
        let before = "select ";
        let query = self.session.query(&format!("{before}{}", values.sql), token).await;
        // Its places are behind a word that nobody wrote.
        let at = |failure| {
            let mut error = PgError::of(&failure, values.start);
            error.at = error.at.map(|at| at.saturating_sub(before.len()).max(values.start));
            error
        };
        let mut stream = query.map_err(at)?;
        let mut row = None;
        while let Some(batch) = futures::StreamExt::next(&mut stream).await {
            let batch = batch.map_err(|error| PgError::of_stream(&error))?;
            if batch.num_rows() > 0 && row.is_none() {
                let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0)).collect::<Result<Vec<_>, _>>();
                row = Some(values.map_err(|error| PgError::of_stream(&error))?);
            }
        }
        let row = row.unwrap_or_default();
        if row.len() != count {
            let message = format!("the statement has {count} parameters, and {} values were given", row.len());
            return Err(PgError::new("42601", message).at(values.start).into());
        }
        Ok(row)
    }

    /// Writes what has gathered, unless the statement is cancelled before the client takes it.
    async fn drain(&mut self, token: &CancellationToken) -> Result<()> {
        tokio::select! {
            written = self.out.flush() => Ok(written?),
            // Its rows are dropped, and that is logged.
            () = token.cancelled() => Err(PgError { logged: true, ..PgError::new("57014", "the statement was cancelled") }.into()),
        }
    }

    /// Sends up to so many rows, 0 being all. Returns how many, and whether there may be more.
    async fn send(&mut self, flow: &mut Flow, most: u64, binary: &[bool]) -> Result<(u64, bool)> {
        let token = self.token(Some(&flow.token));
        let style = self.settings.style;
        let mut sent = 0;
        while most == 0 || sent < most {
            let Some((rows, at)) = flow.next().await? else { return Ok((sent, false)) };
            rows.data_row(at, binary, &style, &mut self.out.buffer).map_err(PgError::from)?;
            sent += 1;
            if self.out.is_full() {
                self.drain(&token).await?;
            }
        }
        Ok((sent, true))
    }

    async fn copy(&mut self, flow: &mut Flow, format: &CopyFormat) -> Result<()> {
        let token = flow.token.clone();
        let style = self.settings.style;
        let schema = flow.schema.clone();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let code = u16::from(format.is_binary());
        self.out.message(b'H', |body| {
            body.put_u8(code as u8);
            body.put_u16(names.len() as u16);
            names.iter().for_each(|_| body.put_u16(code));
        });
        let mut line = bytes::BytesMut::new();
        format.begin(&names, &mut line);
        // As Postgres does: a line of names is a message of its own, the head of the binary format comes with the first row.
        if !line.is_empty() && !format.is_binary() {
            self.out.message(b'd', |body| body.extend_from_slice(&line));
            line.clear();
        }
        let mut sent = 0_u64;
        while let Some((rows, at)) = flow.next().await? {
            format.row(rows, at, &style, &mut line).map_err(PgError::from)?;
            self.out.message(b'd', |body| body.extend_from_slice(&line));
            line.clear();
            sent += 1;
            if self.out.is_full() {
                self.drain(&token).await?;
            }
        }
        format.end(&mut line);
        if !line.is_empty() {
            self.out.message(b'd', |body| body.extend_from_slice(&line));
        }
        self.out.bare(b'c');
        self.out.complete(&format!("COPY {sent}"));
        Ok(())
    }

    async fn fetch(&mut self, name: &str, steps: Steps, shows: bool, formats: &[i16], simple: bool) -> Result<()> {
        let mut portal = self.portals.remove(name).ok_or_else(|| no_cursor(name))?;
        let word = if shows { "FETCH" } else { "MOVE" };
        let State::Open(flow) = &mut portal.state else {
            // At its end it stays there.
            if let (true, true, Some(schema)) = (shows, simple, &portal.told) {
                self.out.row_description(&described(schema, &vec![false; schema.fields().len()]));
            }
            self.out.complete(&format!("{word} 0"));
            self.portals.insert(name.to_owned(), portal);
            return Ok(());
        };
        // A cursor that was declared binary is so; else the client says how it wants what it fetches.
        let formats = if portal.formats.is_empty() { formats } else { &portal.formats };
        let formats = binary(formats, flow.schema.fields().len())?;
        if shows && simple {
            self.out.row_description(&described(&flow.schema, &formats));
        }
        let most = match steps {
            Steps::All => u64::MAX,
            Steps::Rows(rows) => rows,
        };
        let (moved, more) = if most == 0 {
            (0, true)
        } else if shows {
            self.send(flow, most, &formats).await?
        } else {
            self.token(Some(&flow.token));
            let mut moved = 0;
            while moved < most && flow.next().await?.is_some() {
                moved += 1;
            }
            (moved, moved == most)
        };
        if !more {
            portal.told = Some(flow.schema.clone());
            portal.state = State::Done;
        }
        self.out.complete(&format!("{word} {moved}"));
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }
}

pub(super) fn no_cursor(name: &str) -> PgError {
    PgError::new("34000", format!("there is no cursor \"{name}\""))
}
