//! Flags of upstream's `controller` and `speaker`, with their names, defaults and environment variables
//! (`docs/upstream-behaviour.md#process`).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use metallb_core::model::ExcludeLabel;

use crate::controller::Duty;
use crate::process::listen::{Listen, Pages};
use crate::telemetry::{self, LogFormat, LogLevel};

/// Logging flags of every long-running subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Log level
    #[arg(long, value_enum, default_value = "info", value_name = "LEVEL")]
    log_level: LogLevel,
    /// Format of log lines
    #[arg(long, value_enum, default_value = "json", value_name = "FORMAT")]
    log_format: LogFormat,
}

impl LogArgs {
    /// Installs the subscriber.
    pub fn init(&self) {
        telemetry::init(self.log_level, self.log_format);
    }
}

/// Treatment of the exclude label, from `--ignore-exclude-lb`.
pub(crate) const fn exclude_label(ignored: bool) -> ExcludeLabel {
    if ignored { ExcludeLabel::Ignored } else { ExcludeLabel::Honoured }
}

/// Identity of the process in the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterArgs {
    /// Namespace of the configuration objects [default: the pod's own namespace]
    #[arg(long, env = "METALLB_NAMESPACE", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Name of this pod, used as the owner of status objects
    #[arg(long, env = "METALLB_POD_NAME", default_value = "", value_name = "POD", hide_default_value = true)]
    pub pod_name: String,
    /// Serve only Services of this loadBalancerClass [default: Services without a class]
    #[arg(long, default_value = "", value_name = "CLASS", hide_default_value = true)]
    lb_class: String,
}

impl ClusterArgs {
    /// The namespace of the configuration, in this order: flag, environment variable, service account.
    #[must_use]
    pub fn namespace(&self) -> String {
        if let Some(namespace) = self.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
            return namespace.to_owned();
        }
        std::fs::read_to_string(SERVICE_ACCOUNT_NAMESPACE)
            .map_or_else(|_| DEFAULT_NAMESPACE.to_owned(), |namespace| namespace.trim().to_owned())
    }

    /// The class of the Services to serve; `None` means Services without a class.
    #[must_use]
    pub fn lb_class(&self) -> Option<&str> {
        Some(self.lb_class.as_str()).filter(|class| !class.is_empty())
    }
}

/// Ports of the administrative endpoints.
#[derive(Clone, Debug, clap::Args)]
pub struct AdminArgs {
    /// Port of /metrics on all addresses; 0 disables it
    #[arg(long, default_value_t = 9120, value_name = "PORT")]
    port: u16,
    /// Port of /healthz, /readyz and /status; 0 disables them
    #[arg(long, default_value_t = 17472, value_name = "PORT")]
    health_probe_port: u16,
}

impl AdminArgs {
    /// Addresses to serve on in a cluster: metrics on all addresses, probes on `host`.
    pub fn addresses(&self, host: IpAddr) -> impl Iterator<Item = Listen> {
        let all = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), self.port);
        let metrics = (self.port != 0).then_some(Listen { address: all, pages: Pages::Metrics });
        metrics.into_iter().chain(self.probe_address(host))
    }

    /// Address to serve probes on, at `host`.
    #[must_use]
    pub fn probe_address(&self, host: IpAddr) -> Option<Listen> {
        let address = SocketAddr::new(host, self.health_probe_port);
        (self.health_probe_port != 0).then_some(Listen { address, pages: Pages::All })
    }
}

/// Flags of upstream's binaries that have no effect here. They are accepted so that upstream's manifests and chart work
/// unchanged, and logged if set.
#[derive(Clone, Debug, clap::Args)]
pub struct UpstreamArgs {
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pprof_bind_address: Option<String>,
    #[arg(long, value_name = "VERSION", hide = true)]
    tls_min_version: Option<String>,
    #[arg(long, value_name = "NAMES", hide = true)]
    tls_cipher_suites: Option<String>,
    #[arg(long, value_name = "IDS", hide = true)]
    tls_curve_preferences: Option<String>,
    #[arg(long, value_name = "DIR", hide = true)]
    metrics_cert_dir: Option<String>,
    /// Upstream has only the variable
    #[arg(long = "bgp-type", env = "METALLB_BGP_TYPE", value_parser = ["native", "frr", "frr-k8s"], hide = true)]
    bgp_type: Option<String>,
}

impl UpstreamArgs {
    /// Logs the flags that are set and have no effect.
    pub fn warn(&self) {
        warn_unused("--pprof-bind-address", self.pprof_bind_address.as_deref());
        warn_unused("--tls-min-version", self.tls_min_version.as_deref());
        warn_unused("--tls-cipher-suites", self.tls_cipher_suites.as_deref());
        warn_unused("--tls-curve-preferences", self.tls_curve_preferences.as_deref());
        warn_unused("--metrics-cert-dir", self.metrics_cert_dir.as_deref());
        match self.bgp_type.as_deref() {
            Some("frr") => tracing::warn!(
                event = "frrUnused",
                "METALLB_BGP_TYPE=frr: speakers hold the BGP sessions themselves, FRR is not used"
            ),
            Some("frr-k8s") => tracing::warn!(
                event = "frrUnused",
                "METALLB_BGP_TYPE=frr-k8s: speakers hold the BGP sessions themselves; delete the objects \
                 FRRConfiguration metallb-NODE of the earlier speakers, whose routes FRR would announce for ever"
            ),
            _ => {}
        }
    }
}

/// Accepted and ignored flags of upstream's controller: webhooks and their certificates.
#[derive(Clone, Debug, clap::Args)]
pub struct UpstreamWebhookArgs {
    #[arg(long, value_name = "DIR", hide = true)]
    cert_dir: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    cert_service_name: Option<String>,
    #[arg(long, value_name = "SECRET", hide = true)]
    webhook_secret: Option<String>,
    #[arg(long, value_parser = ["enabled", "disabled", "onlywebhook"], hide = true)]
    webhook_mode: Option<String>,
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = boolean,
        hide = true
    )]
    webhook_http2: Option<bool>,
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = boolean,
        hide = true
    )]
    disable_cert_rotation: Option<bool>,
}

impl UpstreamWebhookArgs {
    /// The duty of the controller in this mode.
    #[must_use]
    pub fn duty(&self) -> Duty {
        if self.webhook_mode.as_deref() == Some("onlywebhook") { Duty::OnlyWebhooks } else { Duty::Assign }
    }

    /// Logs the flags that are set and have no effect.
    pub fn warn(&self) {
        warn_unused("--cert-dir", self.cert_dir.as_deref());
        warn_unused("--cert-service-name", self.cert_service_name.as_deref());
        warn_unused("--webhook-secret", self.webhook_secret.as_deref());
        if self.webhook_mode.as_deref().is_some_and(|mode| mode != "disabled") {
            tracing::warn!(
                event = "webhooksNotServed",
                mode = self.webhook_mode,
                "admission webhooks are not served: remove the ValidatingWebhookConfiguration \
                 metallb-webhook-configuration, which would refuse every change of the configuration"
            );
        }
        warn_unused("--webhook-http2", self.webhook_http2.filter(|on| *on).map(|_| "true"));
        warn_unused("--disable-cert-rotation", self.disable_cert_rotation.filter(|on| *on).map(|_| "true"));
    }
}

/// Accepted and ignored flags of upstream's speaker: its FRR back ends.
#[derive(Clone, Debug, clap::Args)]
pub struct UpstreamFrrArgs {
    #[arg(long, env = "METALLB_HOST", hide = true)]
    host: Option<String>,
    #[arg(long, env = "METALLB_BGP_DEBOUNCE_TIMEOUT", value_name = "MILLISECONDS", hide = true)]
    bgp_debounce_timeout: Option<String>,
    #[arg(long, env = "FRRK8S_NAMESPACE", value_name = "NAMESPACE", hide = true)]
    frrk8s_namespace: Option<String>,
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = boolean,
        hide = true
    )]
    frrk8s_secret_passthrough: Option<bool>,
}

impl UpstreamFrrArgs {
    /// Logs the flags that are set and have no effect. Upstream ignores `--host` too.
    pub fn warn(&self) {
        warn_unused("--bgp-debounce-timeout", self.bgp_debounce_timeout.as_deref());
        warn_unused("--frrk8s-namespace", self.frrk8s_namespace.as_deref());
        warn_unused("--frrk8s-secret-passthrough", self.frrk8s_secret_passthrough.filter(|on| *on).map(|_| "true"));
    }
}

/// A boolean as Go's `strconv.ParseBool` takes it.
pub(crate) fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false"),
    }
}

fn warn_unused(flag: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        tracing::warn!(event = "flagIgnored", flag, value, "a flag is accepted for compatibility and ignored");
    }
}

const SERVICE_ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
const DEFAULT_NAMESPACE: &str = "metallb-system";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    /// Every flag of upstream, spelled as in its manifests and chart.
    #[test]
    fn flags_of_upstream_are_taken_in_every_spelling() {
        let both = [
            "--port=9120",
            "--namespace=lb",
            "--pod-name=p",
            "--log-level=all",
            "--log-level=none",
            "--health-probe-port=17472",
            "--lb-class=example.org/a",
            "--pprof-bind-address=127.0.0.1:6060",
            "--tls-min-version=VersionTLS13",
            "--tls-cipher-suites=TLS_AES_128_GCM_SHA256",
            "--tls-curve-preferences=29,23",
            "--metrics-cert-dir=/certs",
        ];
        let controller = [
            "--ml-secret-name=memberlist",
            "--deployment=controller",
            "--disable-cert-rotation",
            "--disable-cert-rotation=false",
            "--cert-dir=/certs",
            "--cert-service-name=metallb-webhook-service",
            "--webhook-mode=onlywebhook",
            "--webhook-secret=metallb-webhook-cert",
            "--webhook-http2=true",
        ];
        let speaker = [
            "--node-name=n",
            "--host=h",
            "--ml-bindaddr=10.0.0.1",
            "--ml-bindport=7946",
            "--ml-labels=app=metallb,component=speaker",
            "--ml-secret-key-path=/etc/ml_secret_key",
            "--ml-wan-config",
            "--ml-wan-config=true",
            "--ignore-exclude-lb",
            "--ignore-exclude-lb=false",
            "--frrk8s-namespace=frr",
            "--frrk8s-secret-passthrough",
            "--bgp-debounce-timeout=3000",
        ];
        for (command, flags) in [("controller", &controller[..]), ("speaker", &speaker[..])] {
            for flag in both.iter().chain(flags) {
                let named = ["metallb", command, "--node-name=n", flag];
                let arguments = named.iter().filter(|argument| command == "speaker" || !argument.contains("node-name"));
                let mut seen = std::collections::BTreeSet::new();
                let arguments = arguments.filter(|argument| seen.insert(**argument));
                let parsed = Cli::try_parse_from(arguments);
                assert!(parsed.is_ok(), "{command} {flag}: {}", parsed.map(|_| ()).unwrap_err());
            }
        }
        for (command, flag) in [
            ("controller", "--webhook-mode=perhaps"),
            ("controller", "--log-level=loud"),
            ("controller", "--node-name=n"),
            ("speaker", "--deployment=d"),
            ("speaker", "--port=many"),
        ] {
            assert!(Cli::try_parse_from(["metallb", command, flag]).is_err(), "{command} {flag}");
        }
    }
}
