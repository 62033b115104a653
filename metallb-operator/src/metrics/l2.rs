//! Counters of the ARP/NDP responder, read on each scrape: addresses without requests cost neither time nor memory
//! between two scrapes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use metallb_l2::engine::Counters;
use metallb_l2::io::Handle;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::family::{family, label};

/// All counters of a responder.
#[derive(Clone, Debug)]
pub struct L2Collector {
    responder: Handle,
    descriptions: Vec<Desc>,
}

struct Series<F> {
    name: &'static str,
    help: &'static str,
    value: F,
}

type ByIp = fn(&Counters) -> &BTreeMap<IpAddr, u64>;
type Alone = fn(&Counters) -> u64;

impl L2Collector {
    /// A collector for the counters of this responder.
    ///
    /// # Errors
    /// Never: names and help texts are constants, which the test below checks.
    pub fn new(responder: Handle) -> prometheus::Result<Self> {
        Ok(Self { responder, descriptions: descriptions()? })
    }
}

impl Collector for L2Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        families(&self.responder.counters())
    }
}

fn descriptions() -> prometheus::Result<Vec<Desc>> {
    let describe = |name: &str, help: &str, labels: &[&str]| {
        let labels = labels.iter().map(ToString::to_string).collect();
        Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
    };
    let by_ip = BY_IP.iter().map(|series| describe(series.name, series.help, &["ip"]));
    let alone = ALONE.iter().map(|series| describe(series.name, series.help, &[]));
    by_ip.chain(alone).chain([describe(DROPPED.0, DROPPED.1, &["reason"])]).collect()
}

fn families(counters: &Counters) -> Vec<MetricFamily> {
    let by_ip = BY_IP.iter().map(|Series { name, help, value }| {
        let rows = value(counters).iter().map(|(ip, count)| (vec![label("ip", &ip.to_string())], *count));
        family(name, help, MetricType::COUNTER, rows)
    });
    let alone = ALONE.iter().map(|Series { name, help, value }| {
        family(name, help, MetricType::COUNTER, std::iter::once((Vec::new(), value(counters))))
    });
    let dropped = counters.dropped.iter().map(|(reason, count)| (vec![label("reason", &reason.to_string())], *count));
    let dropped = family(DROPPED.0, DROPPED.1, MetricType::COUNTER, dropped);
    by_ip.chain(alone).chain([dropped]).collect()
}

static BY_IP: [Series<ByIp>; 4] = [
    Series {
        name: "metallb_layer2_requests_received",
        help: "Number of layer2 requests received for owned IPs",
        value: |counters| &counters.requests,
    },
    Series {
        name: "metallb_layer2_responses_sent",
        help: "Number of layer2 responses sent for owned IPs",
        value: |counters| &counters.responses,
    },
    Series {
        name: "metallb_layer2_gratuitous_sent",
        help: "Number of gratuitous layer2 packets sent for owned IPs",
        value: |counters| &counters.gratuitous,
    },
    Series {
        name: "metallb_layer2_conflicts_total",
        help: "Number of times another host was seen using an IP that this node announces",
        value: |counters| &counters.conflicts,
    },
];

static ALONE: [Series<Alone>; 4] = [
    Series {
        name: "metallb_layer2_probes_sent_total",
        help: "Number of probes for IPs that this node was about to announce",
        value: |counters| counters.probes,
    },
    Series {
        name: "metallb_layer2_claims_of_speakers_total",
        help: "Number of times another speaker was seen claiming an IP that this node announces",
        value: |counters| counters.claims_of_speakers,
    },
    Series {
        name: "metallb_layer2_mismatched_senders_total",
        help: "Number of ARP messages whose sender address differs from that of their frame",
        value: |counters| counters.mismatched_senders,
    },
    Series {
        name: "metallb_layer2_lost_events_total",
        help: "Number of conflicts that were counted but not reported, because too many came at once",
        value: |counters| counters.lost_events,
    },
];

const DROPPED: (&str, &str) =
    ("metallb_layer2_dropped_frames_total", "Number of ARP and NDP frames that got no answer, by reason");

#[cfg(test)]
mod tests {
    use metallb_l2::engine::DropReason;
    use prometheus::{Encoder as _, TextEncoder};

    use super::*;

    #[test]
    fn every_count_has_its_series_under_upstreams_names() {
        let mut counters = Counters::default();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        counters.requests.insert(ip, 5);
        counters.responses.insert(ip, 4);
        counters.gratuitous.insert(ip, 3);
        counters.conflicts.insert(ip, 2);
        counters.dropped.insert(DropReason::AnnounceIp, 6);
        (counters.claims_of_speakers, counters.mismatched_senders) = (7, 8);
        let mut text = Vec::new();
        TextEncoder::new().encode(&families(&counters), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "# TYPE metallb_layer2_requests_received counter",
            "metallb_layer2_requests_received{ip=\"192.0.2.1\"} 5",
            "metallb_layer2_responses_sent{ip=\"192.0.2.1\"} 4",
            "metallb_layer2_gratuitous_sent{ip=\"192.0.2.1\"} 3",
            "metallb_layer2_conflicts_total{ip=\"192.0.2.1\"} 2",
            "metallb_layer2_dropped_frames_total{reason=\"AnnounceIp\"} 6",
            "metallb_layer2_claims_of_speakers_total 7",
            "metallb_layer2_mismatched_senders_total 8",
            "metallb_layer2_probes_sent_total 0",
            "metallb_layer2_lost_events_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn every_series_is_described_once_and_validly() {
        let names: Vec<String> = descriptions().unwrap().into_iter().map(|description| description.fq_name).collect();
        let shown: Vec<String> = families(&Counters::default()).iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(names, shown);
    }
}
