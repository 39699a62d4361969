//! What does a client say of its session? Transactions, parameters, what is prepared or declared and is so no more: commands that ask the
//! engine nothing.

use bytes::BufMut;
use tokio::io::AsyncWrite;
use weir_engine::query::Session;

use super::{
    command::Command,
    error::PgError,
    portal::Plan,
    query::{Conversation, Result, Transaction, no_cursor},
    settings::{Changed, Settings},
};

/// Catalogue and schema that a search path begins with: the first that is there. An entry may name a catalogue's schema.
pub(super) fn place(path: &[String], database: &str, session: &Session) -> (String, String) {
    let context = session.context();
    let of = |entry: &String| match entry.split_once('.') {
        Some((catalog, schema)) if context.catalog(catalog).is_some() => (catalog.to_owned(), schema.to_owned()),
        _ => (database.to_owned(), entry.clone()),
    };
    let mut places = path.iter().filter(|entry| !matches!(entry.as_str(), "" | "$user" | "pg_catalog")).map(of);
    let there = |(catalog, schema): &(String, String)| context.catalog(catalog).is_some_and(|known| known.schema_names().contains(schema));
    let first = places.clone().find(there).or_else(|| places.next());
    first.unwrap_or_else(|| (database.to_owned(), if database == "lake" { "main" } else { "public" }.to_owned()))
}

impl<W: AsyncWrite + Unpin> Conversation<W> {
    /// Commands that ask the engine nothing.
    pub(super) fn session_command(&mut self, command: &Command, simple: bool) -> Result<()> {
        match command {
            Command::Empty => self.out.bare(b'I'),
            Command::Begin => {
                self.transaction = if self.transaction == Transaction::Failed { Transaction::Failed } else { Transaction::Open };
                self.out.complete("BEGIN");
            }
            Command::Commit | Command::Rollback => {
                // What has failed is rolled back, whatever is said.
                let failed = self.transaction == Transaction::Failed;
                self.transaction = Transaction::Idle;
                self.portals.retain(|_, portal| portal.hold);
                self.out.complete(if failed || *command == Command::Rollback { "ROLLBACK" } else { "COMMIT" });
            }
            Command::Savepoint(word) => {
                if self.transaction == Transaction::Idle {
                    return Err(PgError::new("25P01", "a savepoint lives in a transaction").hint("say \"begin\" first").into());
                }
                if *word == "ROLLBACK" {
                    self.transaction = Transaction::Open;
                }
                self.out.complete(word);
            }
            Command::Set { name, values } => {
                self.set(name, values.as_deref())?;
                self.out.complete("SET");
            }
            Command::SetTransaction => self.out.complete("SET"),
            Command::Show(name) => self.show(name, simple)?,
            Command::Reset(name) => {
                match name {
                    Some(name) => self.set(name, None)?,
                    None => self.reset(),
                }
                self.out.complete("RESET");
            }
            Command::Discard { all } => {
                if *all {
                    if self.transaction != Transaction::Idle {
                        return Err(PgError::new("25001", "\"discard all\" is not said within a transaction").into());
                    }
                    self.portals.clear();
                    self.statements.clear();
                    self.reset();
                }
                self.out.complete(if *all { "DISCARD ALL" } else { "DISCARD" });
            }
            Command::Deallocate(name) => {
                match name {
                    Some(name) => drop(
                        self.statements
                            .remove(name)
                            .ok_or_else(|| PgError::new("26000", format!("there is no prepared statement \"{name}\"")))?,
                    ),
                    None => self.statements.clear(),
                }
                self.out.complete(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" });
            }
            Command::Close(name) => {
                match name {
                    Some(name) => drop(self.portals.remove(name).ok_or_else(|| no_cursor(name))?),
                    None => self.portals.clear(),
                }
                self.out.complete(if name.is_some() { "CLOSE CURSOR" } else { "CLOSE CURSOR ALL" });
            }
            Command::Unlisten => self.out.complete("UNLISTEN"),
            Command::Refused(error) => return Err(error.clone().into()),
            _ => return Err(PgError::new("XX000", "a statement that nobody answers").into()),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, values: Option<&[String]>) -> Result<()> {
        let values = match values {
            Some(values) => values.to_vec(),
            None if name == "statement_timeout" && self.first.statement_timeout.is_none() => vec!["0".to_owned()],
            None if name == "search_path" => self.first.search_path.clone(),
            None => vec![self.first.show(name, &self.user.name)?],
        };
        match self.settings.set(name, &values)? {
            Changed::Nothing => {}
            Changed::Told(told) => {
                let value = self.settings.show(told, &self.user.name)?;
                self.out.parameter(told, &value);
            }
            Changed::Timeout => self.session.set_time_limit(self.settings.statement_timeout),
            Changed::Path => {
                let (catalog, schema) = place(&self.settings.search_path, &self.database, &self.session);
                self.session.set_default(&catalog, &schema);
                let value = self.settings.show("search_path", &self.user.name)?;
                self.out.parameter("search_path", &value);
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.settings = self.first.clone();
        self.session.set_time_limit(self.settings.statement_timeout);
        let (catalog, schema) = place(&self.settings.search_path, &self.database, &self.session);
        self.session.set_default(&catalog, &schema);
        for name in ["TimeZone", "IntervalStyle", "application_name", "search_path"] {
            if let Ok(value) = self.settings.show(name, &self.user.name) {
                self.out.parameter(name, &value);
            }
        }
    }

    fn show(&mut self, name: &str, simple: bool) -> Result<()> {
        let rows: Vec<Vec<String>> = match name {
            "all" => {
                let all = Settings::names().into_iter().map(|name| {
                    let value = self.settings.show(name, &self.user.name)?;
                    Ok(vec![name.to_owned(), value, String::new()])
                });
                all.collect::<Result<_, PgError>>()?
            }
            name => vec![vec![self.settings.show(name, &self.user.name)?]],
        };
        if simple {
            let (text, command) = ("".into(), Command::Show(name.to_owned()));
            let plan = Plan { text, bytes: 0..0, command, prepared: None, start: 0, kinds: vec![] };
            let columns = self.columns(&plan, None, &[])?.unwrap_or_default();
            self.out.row_description(&columns);
        }
        for row in &rows {
            self.out.message(b'D', |body| {
                body.put_u16(row.len() as u16);
                for value in row {
                    body.put_u32(value.len() as u32);
                    body.extend_from_slice(value.as_bytes());
                }
            });
        }
        self.out.complete("SHOW");
        Ok(())
    }
}
