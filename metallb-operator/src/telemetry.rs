//! Logging: one line per record on standard output, JSON (as upstream) or text.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// How much is logged; the names are upstream's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    All,
    /// Decisions and protocol details.
    Debug,
    /// What an operator wants to read.
    Info,
    /// What deserves a look.
    Warn,
    /// What went wrong.
    Error,
    /// Nothing.
    None,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
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
    let filter = EnvFilter::new(directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_timer(SystemTime).with_target(false);
    // Only one subscriber can be global; a test that initialised first keeps its own.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => builder.compact().try_init(),
    };
}
