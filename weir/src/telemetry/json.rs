//! Log lines as JSON: one flat object a line, with the fields of the spans it happened in.

use std::io::Write;

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context, registry::LookupSpan};

/// Keys of every line; a field of one of these names gets a `_` behind it.
const OWN: [&str; 3] = ["timestamp", "level", "target"];

/// Writes lines.
pub struct Lines<W> {
    writer: W,
}

impl<W> Lines<W> {
    /// Writes them here.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }
}

/// What a span said of itself.
struct Fields(Map<String, Value>);

struct Collect<'m>(&'m mut Map<String, Value>);

impl Collect<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // What is said to the tracer only.
        if name.starts_with("otel.") || name.starts_with("log.") {
            return;
        }
        let name = if OWN.contains(&name) { format!("{name}_") } else { name.to_owned() };
        self.0.insert(name, value);
    }
}

impl Visit for Collect<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Map::new();
        attributes.record(&mut Collect(&mut fields));
        span.extensions_mut().replace(Fields(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(Fields(fields)) = span.extensions_mut().get_mut() {
            values.record(&mut Collect(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Map::new();
        for span in context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            if let Some(Fields(said)) = span.extensions().get() {
                fields.extend(said.clone());
            }
        }
        // The innermost says it last; the event itself after all of them.
        event.record(&mut Collect(&mut fields));
        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert("timestamp".into(), Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true).into());
        line.insert("level".into(), metadata.level().as_str().to_lowercase().into());
        line.insert("message".into(), fields.remove("message").unwrap_or_else(|| metadata.name().into()));
        line.insert("target".into(), metadata.target().into());
        line.extend(fields);
        // In one write, so that lines of several threads do not mix. A log that nobody takes is nobody's loss.
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        let _ = self.writer.make_writer_for(metadata).write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_fields_of_its_spans() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::registry().with(Lines::new(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let run = tracing::info_span!("run", run = "r1", pipeline = "orders", outcome = tracing::field::Empty, otel.status_code = "x");
            let _in_run = run.enter();
            run.record("outcome", "published");
            let step = tracing::info_span!("step", step = "lines", run = %"r2");
            let _in_step = step.enter();
            tracing::warn!(target: "weir_engine::run", rows = 3_u64, target = "out.t", error = ?Some("a \"b\"\nc"), "took {} s", 2);
        });
        tracing::subscriber::with_default(tracing_subscriber::registry(), || tracing::warn!("elsewhere"));
        let text = String::from_utf8(kept.0.lock().expect("whole").clone()).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut line: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
        let at = line.remove("timestamp").expect("a time");
        chrono::DateTime::parse_from_rfc3339(at.as_str().expect("text")).expect("RFC 3339");
        let expected = json!({
            "level": "warn", "message": "took 2 s", "target": "weir_engine::run",
            "run": "r2", "pipeline": "orders", "outcome": "published", "step": "lines",
            "rows": 3, "target_": "out.t", "error": "Some(\"a \\\"b\\\"\\nc\")",
        });
        assert_eq!(Value::Object(line), expected);
    }
}
