//! Logging: one line per record on standard output, as JSON with upstream's keys or as text.

use std::fmt;
use std::io::IsTerminal as _;

use clap::ValueEnum;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Log level; the names are upstream's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogLevel {
    /// Everything
    All,
    /// Decisions and protocol details
    Debug,
    /// Normal operation
    Info,
    /// Warnings
    Warn,
    /// Errors
    Error,
    /// No log
    None,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line
    Json,
    /// Human-readable text
    Text,
}

/// Installs the process-wide subscriber. A second call has no effect.
pub fn init(level: LogLevel, format: LogFormat) {
    let directive = match level {
        LogLevel::All => "trace,hyper=info,hyper_util=info,rustls=info,tower=info,kube_client=debug,h2=info",
        LogLevel::Debug => "debug,hyper=info,hyper_util=info,rustls=info,tower=info,kube_client=info,kube_runtime=info",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::None => "off",
    };
    // This module logs a warning for each interrupted watch, and quotes undecodable answers, Secrets included.
    let client = if level == LogLevel::None { "" } else { ",kube_client::client=error" };
    let filter = EnvFilter::new(format!("{directive}{client}"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    // Only one subscriber can be global; if a test has installed one, it stays.
    let _ = match format {
        LogFormat::Json => builder.event_format(JsonLines).try_init(),
        LogFormat::Text => {
            // Colours are for people: not in files and pipes, and not against NO_COLOR (https://no-color.org).
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colours = std::io::stdout().is_terminal() && !no_color;
            builder.with_timer(SystemTime).with_target(false).with_ansi(colours).compact().try_init()
        }
    };
}

/// Writes `{"ts":…,"caller":…,"level":…,"msg":…}` and the fields of the record, as upstream does
/// (`docs/upstream-behaviour.md#process`).
struct JsonLines;

// === impl JsonLines ===

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let caller = metadata.file().map(|path| path.rsplit('/').next().unwrap_or(path)).unwrap_or_default();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Map::from_iter([
            ("ts".to_owned(), Value::from(Timestamp::now().to_string())),
            ("caller".to_owned(), Value::from(format!("{caller}:{}", metadata.line().unwrap_or_default()))),
            ("level".to_owned(), Value::from(level_name(*metadata.level()))),
        ]);
        for (key, value) in fields.0 {
            // A field of the record must not replace time, place or level.
            line.entry(key).or_insert(value);
        }
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

/// Collects the fields of one record; the message is `msg`.
#[derive(Default)]
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.push((name.to_owned(), value));
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format!("{value:?}").into());
    }
}

/// Upstream's names of the levels.
const fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_line_has_the_keys_of_upstream_and_the_fields_of_the_record() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt().event_format(JsonLines).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                service = "default/web",
                ports = 2,
                level = "forged",
                event = "announceFailed",
                "no \"eth9\""
            );
        });
        let line: Value = serde_json::from_slice(&sink.0.lock().unwrap()).unwrap();
        assert!(line["ts"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{line}");
        assert!(line["caller"].as_str().unwrap().starts_with("telemetry.rs:"), "{line}");
        assert_eq!(line["level"], "warn");
        assert_eq!(line["msg"], "no \"eth9\"");
        assert_eq!(
            (&line["service"], &line["ports"], &line["event"]),
            (&"default/web".into(), &2.into(), &"announceFailed".into())
        );
    }
}
