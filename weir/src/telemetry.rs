//! What a process says while it works: log lines on standard error, and spans to an OTLP receiver where there is one.

mod json;

use std::{collections::HashMap, fmt, io::IsTerminal, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{SdkTracerProvider, SpanData},
};
use tracing_subscriber::{EnvFilter, Layer, filter::dynamic_filter_fn, layer::SubscriberExt, util::SubscriberInitExt};
use weir_engine::Failure;
use weir_pipelines::LogForm;

use crate::{
    cli::{Global, context},
    render::style::ColorWhen,
};

/// The receiver's base URL, where weir.toml does not name one.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// A receiver has this long to take what is sent, all tries together.
const SEND: Duration = Duration::from_secs(10);
/// At the end of the process it has this long.
const LAST_SEND: Duration = Duration::from_secs(5);

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Log {
    /// A filter as `RUST_LOG` takes it.
    filter: String,
    /// The one to take where that cannot be read.
    default: &'static str,
    form: LogForm,
    color: bool,
}

impl Log {
    /// What RUST_LOG says, or `default` where it says nothing. With no form given: text on a terminal, else JSON.
    pub fn of(global: &Global, environment: &HashMap<String, String>, default: &'static str, form: Option<LogForm>) -> Self {
        let said = environment.get("RUST_LOG").filter(|filter| !filter.is_empty());
        let is_terminal = std::io::stderr().is_terminal();
        Self {
            filter: said.cloned().unwrap_or_else(|| default.to_owned()),
            default,
            form: form.unwrap_or(if is_terminal { LogForm::Text } else { LogForm::Json }),
            color: global.color == ColorWhen::Always || (global.color == ColorWhen::Auto && is_terminal),
        }
    }
}

/// Where traces and metrics go, by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The base of the receiver's URLs; none where the environment says it for each signal.
    base: Option<String>,
}

impl Otlp {
    /// The receiver of `[server] otlp`, else the one of OpenTelemetry's own variables; none where neither names one.
    pub fn of(configured: Option<&str>, environment: &HashMap<String, String>) -> Option<Self> {
        let said = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if said("OTEL_SDK_DISABLED").is_some_and(|disabled| disabled.eq_ignore_ascii_case("true")) {
            return None;
        }
        match (configured, said(ENDPOINT)) {
            (Some(base), _) => Some(Self { base: Some(base.to_owned()) }),
            // The exporter reads it with the other variables: headers, timeouts, a URL for each signal.
            (None, Some(_)) => Some(Self { base: None }),
            (None, None) => None,
        }
    }

    fn url(&self, signal: &str) -> Option<String> {
        self.base.as_ref().map(|base| format!("{}/v1/{signal}", base.trim_end_matches('/')))
    }

    fn spans(&self) -> Result<Told<SpanExporter>, Failure> {
        let builder = SpanExporter::builder().with_http().with_timeout(SEND);
        let builder = match self.url("traces") {
            Some(url) => builder.with_endpoint(url),
            None => builder,
        };
        builder.build().map(|inner| Told { inner, what: "spans" }).map_err(|error| unusable(&error.to_string()))
    }

    /// What sends metrics.
    pub fn metrics(&self) -> Result<impl PushMetricExporter + use<>, Failure> {
        let builder = MetricExporter::builder().with_http().with_timeout(SEND).with_temporality(Temporality::Cumulative);
        let builder = match self.url("metrics") {
            Some(url) => builder.with_endpoint(url),
            None => builder,
        };
        builder.build().map(|inner| Told { inner, what: "metrics" }).map_err(|error| unusable(&error.to_string()))
    }
}

fn unusable(why: &str) -> Failure {
    Failure::error("otlp", format!("nothing can be sent to the OTLP receiver: {why}"))
        .help(format!("look at [server] otlp in weir.toml, or at the variable {ENDPOINT}"))
}

/// An exporter whose failures are logged: what is not sent is lost, and nobody else would say so.
#[derive(Debug)]
struct Told<E> {
    inner: E,
    what: &'static str,
}

impl<E> Told<E> {
    fn tell(&self, result: OTelSdkResult) -> OTelSdkResult {
        if let Err(error) = &result {
            tracing::warn!(%error, "{} were not sent", self.what);
        }
        result
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.tell(self.inner.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Told<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.tell(self.inner.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

/// What this process is to a receiver: a service of this name and version, one of several instances perhaps. OTEL_SERVICE_NAME and
/// OTEL_RESOURCE_ATTRIBUTES say it otherwise.
pub fn resource() -> Resource {
    let own = Resource::builder_empty().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let own = match getrandom::u64() {
        Ok(chance) => own.with_attribute(KeyValue::new("service.instance.id", format!("{chance:016x}"))).build(),
        Err(_) => own.build(),
    };
    let said = Resource::builder().build();
    let is_named = said.get(&"service.name".into()).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let own = own.iter().filter(|(key, _)| said.get(key).is_none()).map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder().with_attributes(own.collect::<Vec<_>>());
    if is_named { resource.build() } else { resource.with_service_name("weir").build() }
}

/// The log and the traces of this process, until it ends.
pub struct Telemetry {
    tracer: Option<SdkTracerProvider>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Telemetry(traces: {})", self.tracer.is_some())
    }
}

impl Telemetry {
    /// Starts to log, and to send spans where there is a receiver. The first call of a process counts; a second one, as tests make, changes
    /// nothing. A filter that cannot be read is said to be, and the default takes its place.
    pub fn start(log: &Log, otlp: Option<&Otlp>) -> Result<Self, Failure> {
        let filter = EnvFilter::try_new(&log.filter).unwrap_or_else(|error| {
            context::to_stderr(&format!("warning: RUST_LOG is not a log filter ({error}); it is ignored"));
            EnvFilter::new(log.default)
        });
        let tracer = match otlp {
            Some(otlp) => Some(SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(otlp.spans()?).build()),
            None => None,
        };
        let traces = tracer.as_ref().map(|tracer| {
            tracing_opentelemetry::layer()
                .with_tracer(tracer.tracer("weir"))
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                // What runs and their parts are is said by the engine alone; libraries have spans of their own.
                // Asked anew for each span: an answer that is kept for a callsite is spoilt by whoever asks what is enabled and logs nothing.
                .with_filter(dynamic_filter_fn(|metadata, _| metadata.is_span() && metadata.target() == weir_engine::trace::TARGET))
        });
        let lines = if log.form == LogForm::Json {
            json::Lines::new(std::io::stderr).with_filter(filter).boxed()
        } else {
            tracing_subscriber::fmt::layer().with_ansi(log.color).with_writer(std::io::stderr).with_filter(filter).boxed()
        };
        let _ = tracing_subscriber::registry().with(lines).with(traces).try_init();
        Ok(Self { tracer })
    }

    /// Sends the spans that were not sent yet. Blocks for some seconds at most.
    pub fn stop(&self) {
        if let Some(tracer) = &self.tracer
            && let Err(error) = tracer.shutdown_with_timeout(LAST_SEND)
        {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_names_the_receiver_before_the_environment_does() {
        let environment = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<HashMap<_, _>>();
        let none = environment(&[]);
        let some = environment(&[(ENDPOINT, "http://collector:4318")]);
        let disabled = environment(&[(ENDPOINT, "http://collector:4318"), ("OTEL_SDK_DISABLED", "TRUE")]);
        assert_eq!(Otlp::of(None, &none), None);
        assert_eq!(Otlp::of(Some("http://a:1/"), &disabled), None);
        assert_eq!(Otlp::of(None, &environment(&[(ENDPOINT, "")])), None);
        assert_eq!(Otlp::of(None, &some).expect("one").url("traces"), None, "the exporter reads the variables itself");
        assert_eq!(Otlp::of(Some("http://a:1/"), &some).expect("one").url("traces").as_deref(), Some("http://a:1/v1/traces"));
    }
}
