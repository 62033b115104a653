//! Metrics under upstream's exact names (`docs/upstream-behaviour.md#metrics`).
//!
//! Names are part of the API: `metallb_layer2_requests_received` is a counter without `_total`, several gauges have the
//! suffix, and the registry must not correct them.

mod family;
mod l2;
mod peers;

use metallb_core::allocator::PoolCounters;
use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use self::l2::L2Collector;
pub use self::peers::PeerCollector;

/// All series of the process, registered once.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Series about pools; set by the controller.
    pub allocator: AllocatorMetrics,
    /// Series about the API or the manifests.
    pub client: ClientMetrics,
    /// Series about announcements; set by the speaker.
    pub speaker: SpeakerMetrics,
    /// Series about membership and failover; set where membership is on.
    pub membership: MembershipMetrics,
}

/// Pool counters, labelled by `pool`.
#[derive(Clone, Debug)]
pub struct AllocatorMetrics {
    /// Usable addresses.
    pub total: IntGaugeVec,
    /// Usable IPv4 addresses.
    pub total_v4: IntGaugeVec,
    /// Usable IPv6 addresses.
    pub total_v6: IntGaugeVec,
    /// Distinct addresses in use.
    pub in_use: IntGaugeVec,
    /// Distinct IPv4 addresses in use.
    pub in_use_v4: IntGaugeVec,
    /// Distinct IPv6 addresses in use.
    pub in_use_v6: IntGaugeVec,
    /// Services that have an address of the pool.
    pub services: IntGaugeVec,
    /// Repairs of an address that two Services had without sharing it.
    pub duplicates: IntCounter,
}

/// Series about the other speakers.
#[derive(Clone, Debug)]
pub struct MembershipMetrics {
    /// All members of the cluster, this one included.
    pub members: IntGauge,
    /// Members that take part in elections.
    pub live: IntGauge,
    /// Suspicions; label `outcome`: raised, refuted, confirmed.
    pub suspicions: IntCounterVec,
    /// Rejected datagrams; label `reason`.
    pub dropped: IntCounterVec,
    /// Datagrams sent.
    pub sent: IntCounter,
    /// Bytes of sent datagrams.
    pub bytes_sent: IntCounter,
    /// Addresses handed over to another speaker; label `result`.
    pub handovers: IntCounterVec,
    /// Time from the last datagram of a dead owner to our announcement of its addresses.
    pub takeover: Histogram,
}

/// Counters about configuration and reconciliation.
#[derive(Clone, Debug)]
pub struct ClientMetrics {
    /// Objects reconciled.
    pub updates: IntCounter,
    /// Reconciles that failed.
    pub update_errors: IntCounter,
    /// Restores of etcd that were detected.
    pub restores: IntCounter,
    /// 1 once a configuration is in force.
    pub config_loaded: IntGauge,
    /// 1 while an object of the latest configuration is refused.
    pub config_stale: IntGauge,
}

/// Series of the speaker.
#[derive(Clone, Debug)]
pub struct SpeakerMetrics {
    /// 1 per announced address; labels `service`, `protocol`, `node`, `ip`.
    pub announced: IntGaugeVec,
    /// Addresses that this node should announce and does not.
    pub l2_refused: IntGauge,
    /// The same by reason; label `reason`.
    pub l2_unanswered: IntGaugeVec,
    /// Addresses that the kernel of this node answers for, whichever node announces them.
    pub l2_answered_by_kernel: IntGauge,
}

impl Metrics {
    /// Creates and registers all series. The names are constants, so registration succeeds.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        register(&registry, prometheus::process_collector::ProcessCollector::for_self());
        let pool = |name: &str, help: &str| gauge_vec(&registry, name, help, &["pool"]);
        let allocator = AllocatorMetrics {
            total: pool("metallb_allocator_addresses_total", "Number of usable IP addresses, per pool"),
            total_v4: pool("metallb_allocator_ipv4_addresses_total", "Number of usable IPv4 addresses, per pool"),
            total_v6: pool("metallb_allocator_ipv6_addresses_total", "Number of usable IPv6 addresses, per pool"),
            in_use: pool("metallb_allocator_addresses_in_use_total", "Number of IP addresses in use, per pool"),
            in_use_v4: pool(
                "metallb_allocator_ipv4_addresses_in_use_total",
                "Number of IPv4 addresses in use, per pool",
            ),
            in_use_v6: pool(
                "metallb_allocator_ipv6_addresses_in_use_total",
                "Number of IPv6 addresses in use, per pool",
            ),
            services: pool("metallb_allocator_services_allocated_total", "Number of services allocated, per pool"),
            duplicates: counter(
                &registry,
                "metallb_allocator_duplicate_addresses_total",
                "Number of repairs of an address that two services had without sharing it",
            ),
        };
        let client = ClientMetrics {
            updates: counter(
                &registry,
                "metallb_k8s_client_updates_total",
                "Number of objects that have been processed",
            ),
            update_errors: counter(
                &registry,
                "metallb_k8s_client_update_errors_total",
                "Number of objects that failed to be processed",
            ),
            restores: counter(
                &registry,
                "metallb_k8s_client_restores_total",
                "Number of restores of etcd that were detected, each followed by a complete list",
            ),
            config_loaded: gauge(
                &registry,
                "metallb_k8s_client_config_loaded_bool",
                "1 if the configuration was successfully loaded at least once",
            ),
            config_stale: gauge(
                &registry,
                "metallb_k8s_client_config_stale_bool",
                "1 if some object of the latest configuration is refused and an older or no version of it is in force",
            ),
        };
        let speaker = SpeakerMetrics {
            announced: gauge_vec(
                &registry,
                "metallb_speaker_announced",
                "Services being announced from this node. This is desired state, \
                 it does not guarantee that the peer accepts it",
                &["service", "protocol", "node", "ip"],
            ),
            l2_refused: gauge(
                &registry,
                "metallb_layer2_refused_addresses",
                "Number of IPs that this node should announce and does not: a host, a router or a network uses them",
            ),
            l2_unanswered: gauge_vec(
                &registry,
                "metallb_layer2_unanswered_addresses",
                "Number of IPs that this node should announce and does not answer for, by reason",
                &["reason"],
            ),
            l2_answered_by_kernel: gauge(
                &registry,
                "metallb_layer2_answered_by_kernel_addresses",
                "Number of IPs of services that the kernel of this node answers ARP for, whichever node announces them",
            ),
        };
        let membership = MembershipMetrics {
            members: gauge(
                &registry,
                "metallb_membership_members",
                "Number of speakers in the cluster, including this one",
            ),
            live: gauge(&registry, "metallb_membership_live", "Number of speakers that take part in layer2 elections"),
            suspicions: counter_vec(
                &registry,
                "metallb_membership_suspicions_total",
                "Number of suspicions of monitored speakers, by outcome",
                &["outcome"],
            ),
            dropped: counter_vec(
                &registry,
                "metallb_membership_dropped_datagrams_total",
                "Number of rejected membership datagrams, by reason",
                &["reason"],
            ),
            sent: counter(&registry, "metallb_membership_sent_datagrams_total", "Number of membership datagrams sent"),
            bytes_sent: counter(
                &registry,
                "metallb_membership_sent_bytes_total",
                "Number of bytes of membership datagrams sent",
            ),
            handovers: counter_vec(
                &registry,
                "metallb_layer2_handovers_total",
                "Number of IPs handed over to another speaker, by result",
                &["result"],
            ),
            takeover: registered(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "metallb_layer2_takeover_seconds",
                        "Time from the last datagram of a dead speaker to the announcement of its IPs by this one",
                    )
                    .buckets(vec![0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0]),
                ),
            ),
        };
        Self { registry, allocator, client, speaker, membership }
    }

    /// Adds a collector that computes its values on each scrape.
    pub fn register(&self, collector: impl Collector + 'static) {
        register(&self.registry, collector);
    }

    /// The text exposition format.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, event = "metricsNotEncoded", "cannot encode the metrics");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl AllocatorMetrics {
    /// The families with a series per pool.
    fn families(&self) -> [&IntGaugeVec; 7] {
        [&self.in_use_v4, &self.in_use_v6, &self.in_use, &self.total_v4, &self.total_v6, &self.total, &self.services]
    }
}

/// Sets the counters of one pool.
pub fn set_pool(metrics: &AllocatorMetrics, pool: &str, counters: &PoolCounters) {
    let label = [pool];
    metrics.in_use_v4.with_label_values(&label).set(counters.assigned_v4);
    metrics.in_use_v6.with_label_values(&label).set(counters.assigned_v6);
    metrics.in_use.with_label_values(&label).set(counters.assigned_v4.saturating_add(counters.assigned_v6));
    let total_v4 = counters.assigned_v4.saturating_add(counters.available_v4);
    let total_v6 = counters.assigned_v6.saturating_add(counters.available_v6);
    metrics.total_v4.with_label_values(&label).set(total_v4);
    metrics.total_v6.with_label_values(&label).set(total_v6);
    metrics.total.with_label_values(&label).set(total_v4.saturating_add(total_v6));
    metrics.services.with_label_values(&label).set(counters.services);
}

/// Removes the counters of a pool that was deleted.
pub fn remove_pool(metrics: &AllocatorMetrics, pool: &str) {
    for family in metrics.families() {
        // A family has no series of a pool that was never counted.
        let _ = family.remove_label_values(&[pool]);
    }
}

/// Removes the counters of all pools, because another process leads.
pub fn clear_pools(metrics: &AllocatorMetrics) {
    metrics.families().iter().for_each(|family| family.reset());
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::with_opts(Opts::new(name, help)))
}

fn gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::with_opts(Opts::new(name, help)))
}

fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

#[expect(clippy::expect_used, reason = "every name and label is a literal of this file, checked by the test below")]
fn registered<C: Collector + Clone + 'static>(registry: &Registry, series: prometheus::Result<C>) -> C {
    let series = series.expect("metric names and labels are valid literals");
    register(registry, series.clone());
    series
}

fn register(registry: &Registry, collector: impl Collector + 'static) {
    if let Err(error) = registry.register(Box::new(collector)) {
        tracing::error!(%error, event = "metricNotRegistered", "cannot register a metric");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn encode_keeps_upstream_names_exactly() {
        let metrics = Metrics::new();
        metrics.allocator.in_use.with_label_values(&["demo"]).set(3);
        metrics.client.updates.inc();
        let text = String::from_utf8(metrics.encode()).unwrap();
        assert!(text.contains("metallb_allocator_addresses_in_use_total{pool=\"demo\"} 3\n"), "{text}");
        assert!(text.contains("metallb_k8s_client_updates_total 1\n"), "{text}");
        assert!(text.contains("metallb_k8s_client_config_loaded_bool 0\n"), "{text}");
    }

    #[test]
    fn page_of_metrics_names_every_series_and_no_other() {
        let code = [include_str!("metrics.rs"), include_str!("metrics/l2.rs"), include_str!("metrics/peers.rs")];
        let exported =
            code.iter().filter_map(|file| file.split("#[cfg(test)]").next()).flat_map(|file| names(file, '"'));
        let page = include_str!("../../docs/operations/metrics.md");
        let rows: String =
            page.lines().filter(|line| line.starts_with("| `metallb_")).flat_map(|line| [line, "\n"]).collect();
        assert_eq!(exported.collect::<BTreeSet<_>>(), names(&rows, '`').collect::<BTreeSet<_>>());
    }

    /// The metric names in `text` between two `quote`s.
    fn names(text: &str, quote: char) -> impl Iterator<Item = &str> {
        text.split(quote).filter(|word| {
            word.starts_with("metallb_") && word.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        })
    }
}
