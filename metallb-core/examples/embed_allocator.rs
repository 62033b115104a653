//! An allocator inside another program: pools in, Services in, addresses and reasons out. No Kubernetes.
//!
//! Run with `cargo run -p metallb-core --example embed_allocator`.
#![allow(clippy::print_stdout, reason = "printing is what an example does")]

use metallb_core::assignment::Assigner;
use metallb_core::config::Config;
use metallb_core::config::spec::{ObjectMeta, PoolSpec, Resources};
use metallb_core::model::{AnnotationKey, Cluster, Ingress, IpFamilyPolicy, Service, ServiceKey};

fn main() {
    let pools = vec![
        pool("edge", &["192.0.2.1-192.0.2.2", "2001:db8::/64"], true),
        pool("reserved", &["198.51.100.0/24"], false),
    ];
    let parsed = Config::parse(&Resources { pools, ..Resources::default() }, &Cluster::default());
    for problem in &parsed.problems {
        println!("{problem}");
    }
    let mut assigner = Assigner::new(None);
    assigner.set_config(&parsed.config);

    let mut services = [service("web"), service("mail"), service("chat"), service("vpn")];
    services[1].ip_family_policy = Some(IpFamilyPolicy::RequireDualStack);
    services[1].cluster_ips = vec!["10.96.0.2".to_owned(), "fd00::2".to_owned()];
    services[3].annotations.insert(format!("metallb.io/{}", AnnotationKey::AddressPool), "reserved".to_owned());

    for service in &mut services {
        let outcome = assigner.converge(service);
        println!("{}: {} ({})", service.key, outcome.message, outcome.reason.as_str());
        for verdict in &outcome.verdicts {
            println!("    pool {} {}", verdict.pool, verdict.refusal.explanation());
        }
        // What an API server would keep; the status of the Services is the only database.
        if let Some(write) = outcome.write {
            service.ingress = write.ips.iter().map(|ip| Ingress { ip: Some(ip.to_string()), hostname: None }).collect();
        }
    }

    // Somebody leaves: the outcome names who can be served instead, and only those.
    for key in assigner.forget(&services[0].key) {
        if let Some(service) = services.iter().find(|service| service.key == key) {
            println!("{key}: {}", assigner.converge(service).message);
        }
    }
}

fn pool(name: &str, addresses: &[&str], auto_assign: bool) -> PoolSpec {
    PoolSpec {
        meta: ObjectMeta { name: name.to_owned(), ..ObjectMeta::default() },
        addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
        auto_assign,
        avoid_buggy_ips: false,
        service_allocation: None,
    }
}

fn service(name: &str) -> Service {
    Service::load_balancer(ServiceKey::new("default", name))
}
