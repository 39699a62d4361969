//! One run's way to one ClickHouse server: a bounded number of HTTP requests, their settings and parameters, and how an answer that
//! breaks off is told from a whole one. What failures mean is `failed.rs`'s; which statements are made is the source's and the sink's.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use arrow::{array::RecordBatch, buffer::Buffer, ipc::reader::StreamDecoder};
use bytes::Bytes;
use clickhouse::{Client, Compression, insert_formatted::InsertFormatted, query::BytesCursor};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use url::{Host, Url};

use super::{
    ClickhouseConnection, Transport,
    failed::{cut, failed, is_slow},
};
use crate::{
    context::RunContext,
    error::{Error, Result},
    retry::retry,
};

/// A silent connection is asked for a sign of life after this, and given up after four that got no answer.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Data that nobody acknowledges for so long was lost on the way.
const UNACKNOWLEDGED: Duration = Duration::from_secs(75);
/// ClickHouse closes idle connections after 3 s (older versions) or 10 s: ours end before, unless the connection's settings say otherwise.
const IDLE: Duration = Duration::from_secs(2);
/// Longest wait for one of the pool's places.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);
/// The server ends a query at `query_timeout`; if nothing is heard of that, it is over so much later.
const GRACE: Duration = Duration::from_secs(15);
/// A small answer, of metadata, is no larger.
const SMALL_BYTES: usize = 64 << 20;

/// Parameters of a statement: `("p1", "42")` is the value of `{p1:Int64}`, in ClickHouse's text format; escaping is done here.
pub type Params<'a> = &'a [(&'a str, String)];

/// Settings of a statement: `("insert_deduplicate", "0")`.
pub type Options<'a> = &'a [(&'a str, &'a str)];

/// A server, as one run speaks to it.
pub struct Server {
    client: Client,
    connection: String,
    host: String,
    database: String,
    version: String,
    zone: String,
    query_timeout: Option<Duration>,
    places: Arc<Semaphore>,
    handle: Handle,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("connection", &self.connection).field("host", &self.host).field("version", &self.version).finish()
    }
}

impl Server {
    /// The server behind the connection `name`, opened once per run. Fails with Blame::User for a wrong name, setting, user, password or
    /// database, and tries again where that may help.
    pub async fn of(name: &str, run: &RunContext) -> Result<Arc<Server>> {
        let settings: ClickhouseConnection = run.connections.get(name)?;
        run.connections.opened(name, retry(&run.cancel, || Server::open(name, &settings, run))).await
    }

    async fn open(name: &str, settings: &ClickhouseConnection, run: &RunContext) -> Result<Server> {
        let text = settings.url.reveal(&run.environment, &run.root).await?;
        let mut url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()).ok_or_else(|| {
            Error::user("wrong-connection", format!("the \"url\" of connection \"{name}\" is no URL such as http://127.0.0.1:8123"))
                .setting("connection")
                .help("write url = \"http://host:8123\", or \"https://host:8443\"")
        })?;
        let part = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut user = (!url.username().is_empty()).then(|| part(url.username()));
        let mut password = url.password().map(part);
        // They go by headers, never as part of a URL that an error might show.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.set_query(None);
        url.set_fragment(None);
        if let Some(own) = &settings.user {
            user = Some(own.clone());
        }
        if let Some(own) = &settings.password {
            password = Some(own.reveal(&run.environment, &run.root).await?);
        }
        if [&user, &password].into_iter().flatten().any(|text| text.chars().any(char::is_control)) {
            return Err(Error::user("wrong-connection", format!("user or password of connection \"{name}\" hold control characters"))
                .setting("connection")
                .help("take line ends and the like out of them"));
        }
        let local = match url.host() {
            Some(Host::Domain(host)) => host == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let compression = match settings.compression.unwrap_or(if local { Transport::None } else { Transport::Lz4 }) {
            Transport::Lz4 => Compression::Lz4,
            Transport::None => Compression::None,
        };
        let host = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let connect_timeout = settings.connect_timeout.0.0;
        let database = settings.database.clone().unwrap_or_else(|| "default".into());
        let connector = connector(settings, url.scheme() == "https", connect_timeout, run).await?;
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(settings.idle_timeout.map_or(IDLE, |span| span.0))
            .pool_timer(TokioTimer::new())
            .build(connector);
        let mut client = Client::with_http_client(http)
            .with_url(url)
            .with_database(&database)
            .with_compression(compression)
            .with_user(user.unwrap_or_else(|| "default".into()))
            .with_product_info("weir", env!("CARGO_PKG_VERSION"));
        if let Some(password) = password.filter(|password| !password.is_empty()) {
            client = client.with_password(password);
        }
        if compression == Compression::Lz4 {
            client = client.with_setting("enable_http_compression", "1");
        }
        for (name, value) in LIMITS {
            client = client.with_setting(*name, *value);
        }
        let query_timeout = settings.query_timeout.map(|span| span.0);
        if let Some(limit) = query_timeout {
            client = client.with_setting("max_execution_time", limit.as_secs_f64().to_string());
        }
        let mut server = Server {
            client,
            connection: name.to_owned(),
            host,
            database,
            version: String::new(),
            zone: String::new(),
            query_timeout,
            places: Arc::new(Semaphore::new(settings.pool_max.max(1) as usize)),
            handle: Handle::current(),
        };
        #[derive(Deserialize)]
        struct About {
            version: String,
            zone: String,
        }
        let doing = format!("connect to \"{}\"", server.host);
        let asked = server.rows::<About>("select version() as version, timezone() as zone", &[], &doing);
        let about = timeout(connect_timeout, asked).await.map_err(|_| {
            Error::system("connect-timeout", format!("cannot {doing}: no answer within {} s", connect_timeout.as_secs_f64()))
                .later()
                .help("is the server up, and nothing in the way? \"connect_timeout\" of the connection gives it longer")
        })??;
        let about = about.into_iter().next().ok_or_else(|| {
            Error::system("clickhouse-protocol", format!("cannot {doing}: the answer is not ClickHouse's"))
                .help("is there a ClickHouse server's HTTP interface behind the URL?")
        })?;
        (server.version, server.zone) = (about.version, about.zone);
        Ok(server)
    }

    /// The connection's database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// As the server calls it: `26.9.2.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The server's time zone: `UTC`.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Does one statement to its end. `doing` says what for: `create table "x"`. Fails as `cannot {doing}: …`.
    pub async fn execute(&self, sql: &str, params: Params<'_>, options: Options<'_>, query_id: Option<&str>, doing: &str) -> Result<()> {
        let _place = self.place().await?;
        let mut query = self.client.query_raw(sql).with_setting("wait_end_of_query", "1");
        for (name, value) in options {
            query = query.with_setting(*name, *value);
        }
        if let Some(id) = query_id {
            query = query.with_setting("query_id", id);
        }
        for (name, value) in params {
            query = query.param(name, value);
        }
        self.within(query.execute(), doing).await
    }

    /// Asks for a few rows. `T` has the answer's column names; 64-bit numbers come as numbers.
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str, params: Params<'_>, doing: &str) -> Result<Vec<T>> {
        let _place = self.place().await?;
        let mut query = self.client.query_raw(sql);
        let exact = [
            ("wait_end_of_query", "1"),
            ("output_format_json_quote_64bit_integers", "0"),
            ("output_format_json_named_tuples_as_objects", "1"),
        ];
        for (name, value) in exact {
            query = query.with_setting(name, value);
        }
        for (name, value) in params {
            query = query.param(name, value);
        }
        let mut cursor = query.fetch_bytes("JSONEachRow").map_err(|error| failed(error, doing))?;
        let text = self.within(
            async {
                let mut text = Vec::new();
                while let Some(bytes) = cursor.next().await? {
                    text.extend_from_slice(&bytes);
                    if text.len() > SMALL_BYTES {
                        return Err(clickhouse::error::Error::Custom("the answer is too long".into()));
                    }
                }
                Ok(text)
            },
            doing,
        );
        let text = text.await?;
        let rows = serde_json::Deserializer::from_slice(&text).into_iter().collect::<Result<Vec<T>, _>>();
        rows.map_err(|error| {
            Error::system("clickhouse-protocol", format!("cannot {doing}: the server's answer is not understood: {error}"))
                .help("is there a ClickHouse server's HTTP interface behind the connection's \"url\"?")
        })
    }

    /// Asks for rows as Arrow, and waits for the first of the answer: an error before that may be tried again.
    pub async fn arrow(self: &Arc<Self>, sql: &str, params: Params<'_>, query_id: &str, doing: &str) -> Result<Answer> {
        self.arrow_with(sql, params, &[], query_id, doing).await
    }

    /// The same with settings of the statement.
    pub async fn arrow_with(
        self: &Arc<Self>,
        sql: &str,
        params: Params<'_>,
        options: Options<'_>,
        query_id: &str,
        doing: &str,
    ) -> Result<Answer> {
        let place = self.place().await?;
        let mut query = self.client.query_raw(sql).with_setting("query_id", query_id);
        for (name, value) in ARROW.iter().chain(options) {
            query = query.with_setting(*name, *value);
        }
        for (name, value) in params {
            query = query.param(name, value);
        }
        let cursor = query.fetch_bytes("ArrowStream").map_err(|error| failed(error, doing))?;
        let running = Running { server: self.clone(), query_id: Some(query_id.to_owned()) };
        let mut answer = Answer {
            cursor,
            decoder: StreamDecoder::new(),
            pending: Buffer::default(),
            tail: Vec::with_capacity(TAIL_BYTES),
            bytes: 0,
            running,
            doing: doing.to_owned(),
            _place: place,
        };
        // The head of the answer tells whether there is one.
        answer.fill().await?;
        Ok(answer)
    }

    /// How long a query may take, where the connection says so.
    pub fn query_timeout(&self) -> Option<Duration> {
        self.query_timeout
    }

    /// Starts an insert whose rows follow as bytes: `insert into t format ArrowStream`. Nothing is sent before the first bytes are.
    pub async fn insert(&self, sql: &str, options: Options<'_>, query_id: Option<&str>, doing: &str) -> Result<Insert> {
        let place = self.place().await?;
        let mut insert = self.client.insert_formatted_with(sql).with_setting("wait_end_of_query", "1");
        for (name, value) in options {
            insert = insert.with_setting(*name, *value);
        }
        if let Some(id) = query_id {
            insert = insert.with_setting("query_id", id);
        }
        let limit = self.query_timeout.map(|limit| limit + GRACE);
        Ok(Insert { insert: insert.with_timeouts(limit, limit), doing: doing.to_owned(), _place: place })
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        match timeout(ACQUIRE_TIMEOUT, self.places.clone().acquire_owned()).await {
            Ok(place) => Ok(place.expect("the semaphore is never closed")),
            Err(_) => Err(Error::user("pool-full", format!("all places of connection \"{}\" were taken for a minute", self.connection))
                .help("raise \"pool_max\" of the connection")),
        }
    }

    async fn within<T>(&self, work: impl Future<Output = clickhouse::error::Result<T>>, doing: &str) -> Result<T> {
        let done = match self.query_timeout {
            Some(limit) => timeout(limit + GRACE, work).await.map_err(|_| is_slow(doing))?,
            None => work.await,
        };
        done.map_err(|error| failed(error, doing))
    }
}

/// What makes ClickHouse's Arrow exact and the same in all versions: texts as the bytes they are, no dictionaries, no compression inside.
const ARROW: &[(&str, &str)] = &[
    ("output_format_arrow_string_as_string", "0"),
    ("output_format_arrow_fixed_string_as_fixed_byte_array", "1"),
    ("output_format_arrow_low_cardinality_as_dictionary", "0"),
    ("output_format_arrow_compression_method", "none"),
    // A reader that is gone is noticed by the server itself, as far as it knows that the query only reads.
    ("readonly", "2"),
    ("cancel_http_readonly_queries_on_client_close", "1"),
];

/// A limit that a user's profile sets ends a statement with an error: an answer that stops short there would pass for a whole one.
const LIMITS: &[(&str, &str)] = &[
    ("timeout_overflow_mode", "throw"),
    ("result_overflow_mode", "throw"),
    ("read_overflow_mode", "throw"),
    ("read_overflow_mode_leaf", "throw"),
    ("group_by_overflow_mode", "throw"),
    ("sort_overflow_mode", "throw"),
    ("distinct_overflow_mode", "throw"),
    ("join_overflow_mode", "throw"),
    ("set_overflow_mode", "throw"),
    ("transfer_overflow_mode", "throw"),
    ("limit", "0"),
    ("offset", "0"),
];

async fn connector(
    settings: &ClickhouseConnection,
    secure: bool,
    connect_timeout: Duration,
    run: &RunContext,
) -> Result<HttpsConnector<HttpConnector>> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(connect_timeout));
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE));
    http.set_keepalive_retries(Some(4));
    http.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let tls = tls(settings, secure, &run.root).await?;
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http))
}

/// Certificates are always checked. The provider of cryptography is named, because the process may have none, or another.
async fn tls(settings: &ClickhouseConnection, secure: bool, root: &Path) -> Result<ClientConfig> {
    let wrong = |setting: &str, path: &str, why: String| {
        Error::user("certificate", format!("\"{setting}\" of the connection cannot be used: \"{path}\": {why}"))
            .setting("connection")
            .help("write the path of a file in PEM form, from the project's folder")
    };
    let read = async |setting: &str, path: &str| {
        tokio::fs::read(root.join(path)).await.map_err(|error| wrong(setting, path, error.kind().to_string()))
    };
    let certificates = |setting: &str, path: &str, pem: &[u8]| {
        let all =
            CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| wrong(setting, path, error.to_string()))?;
        if all.is_empty() { Err(wrong(setting, path, "it holds no certificate".into())) } else { Ok(all) }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::weir("tls", "TLS cannot be set up").because(error))?;
    let builder = match &settings.ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("ca", path, &read("ca", path).await?)? {
                roots.add(certificate).map_err(|error| wrong("ca", path, error.to_string()))?;
            }
            builder.with_root_certificates(roots)
        }
        None if secure => builder.with_native_roots().map_err(|error| {
            Error::user("certificate", format!("this system trusts no certificates: {error}"))
                .help("install the system's certificates, or name the server's by \"ca\" of the connection")
        })?,
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    let (Some(cert), Some(key)) = (&settings.client_cert, &settings.client_key) else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("client_cert", cert, &read("client_cert", cert).await?)?;
    let secret = PrivateKeyDer::from_pem_slice(&read("client_key", key).await?)
        .map_err(|_| wrong("client_key", key, "it holds no PEM key".into()))?;
    builder.with_client_auth_cert(chain, secret).map_err(|error| wrong("client_cert", cert, error.to_string()))
}

/// Ends the query on the server unless the answer was read to its end.
struct Running {
    server: Arc<Server>,
    query_id: Option<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(id) = self.query_id.take() else { return };
        let server = self.server.clone();
        // The server notices by itself that its reader is gone, sooner or later, where its version can; this is sooner.
        self.server.handle.spawn(async move {
            let kill = server.client.query_raw("kill query where query_id = {id:String} async").param("id", &id).execute();
            if let Ok(Err(error)) | Err(error) = timeout(GRACE, kill).await.map_err(|_| clickhouse::error::Error::TimedOut) {
                tracing::debug!(query_id = id, %error, "an abandoned query may run on");
            }
        });
    }
}

/// Rows on their way from the server. Dropped before its end, it ends the query.
pub struct Answer {
    cursor: BytesCursor,
    decoder: StreamDecoder,
    pending: Buffer,
    /// The last bytes, at most [`TAIL_BYTES`].
    tail: Vec<u8>,
    bytes: u64,
    running: Running,
    doing: String,
    _place: OwnedSemaphorePermit,
}

/// How every Arrow stream ends. ClickHouse leaves it out when it fails in the middle.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// After what is no Arrow, so many bytes are read on for an exception's text.
const EXCEPTION_BYTES: u64 = 1 << 20;
/// The last bytes of an answer that are kept: an exception stands there.
const TAIL_BYTES: usize = 8 << 10;

impl Answer {
    /// The next rows, as the server cut them. None only at the end of a whole answer.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if !self.pending.is_empty() {
                match self.decoder.decode(&mut self.pending) {
                    Ok(Some(batch)) => return Ok(Some(batch)),
                    Ok(None) => {}
                    Err(_) => return Err(self.no_arrow().await),
                }
            }
            if !self.fill().await? {
                self.running.query_id = None;
                if !self.tail.ends_with(&END) {
                    return Err(self.broken_off());
                }
                return Ok(None);
            }
        }
    }

    /// Bytes that came so far, decompressed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn fill(&mut self) -> Result<bool> {
        let limit = self.running.server.query_timeout;
        let next = match limit {
            Some(limit) => timeout(limit + GRACE, self.cursor.next()).await.map_err(|_| is_slow(&self.doing))?,
            None => self.cursor.next().await,
        };
        let Some(bytes) = next.map_err(|error| failed(error, &self.doing))? else { return Ok(false) };
        self.bytes += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        self.tail.drain(..(self.tail.len() + kept.len()).saturating_sub(TAIL_BYTES));
        self.tail.extend_from_slice(kept);
        self.pending = Buffer::from(bytes);
        Ok(true)
    }

    /// What came is no Arrow: reads on for the server's own words, within bounds.
    async fn no_arrow(&mut self) -> Error {
        let end = self.bytes + EXCEPTION_BYTES;
        while self.bytes < end {
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return error,
            }
        }
        self.broken_off()
    }

    /// An answer that had begun well, and ended before its end: with an exception's text as its last bytes, or with nothing.
    fn broken_off(&self) -> Error {
        let text = String::from_utf8_lossy(&self.tail);
        match text.rfind("Code: ").filter(|at| text[*at..].contains("Exception")) {
            Some(at) => failed(clickhouse::error::Error::BadResponse(text[at..].trim().to_owned()), &self.doing),
            None => cut(&self.doing),
        }
    }
}

/// One insert on its way. Dropped, or aborted, before its end, it is no insert: the server sees a body that broke off.
pub struct Insert {
    insert: InsertFormatted,
    doing: String,
    _place: OwnedSemaphorePermit,
}

impl Insert {
    /// Sends bytes, a few hundred kilobytes at a time; waits while the server is behind. An error is the server's own where it said one.
    pub async fn send(&mut self, bytes: Bytes) -> Result<()> {
        self.insert.send(bytes).await.map_err(|error| failed(error, &self.doing))
    }

    /// Ends the body and waits until the server has written everything. Without any bytes sent, nothing happens.
    pub async fn end(self) -> Result<()> {
        self.insert.end().await.map_err(|error| failed(error, &self.doing))
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
