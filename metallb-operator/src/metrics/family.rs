//! Series that are computed on each scrape.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// One label.
pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// One family of counters or gauges.
pub(super) fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    rows: impl Iterator<Item = (Vec<LabelPair>, u64)>,
) -> MetricFamily {
    let metrics = rows.map(|(labels, value)| {
        let mut metric = Metric::from_label(labels);
        let value = value as f64;
        match kind {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        metric
    });
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.collect());
    family
}
