//! Embeds the allocator in another program: pools and Services go in, addresses and reasons come out.
//!
//! Run with `cargo run -p metallb-core --example embed_allocator`.
#![expect(clippy::print_stdout, reason = "the example prints its results")]

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
        // An API server would store this. The allocator keeps no other record than the status of the Services.
        if let Some(write) = outcome.write {
            service.ingress = write.ips.into_iter().map(Ingress::from).collect();
        }
    }

    // A Service is deleted: `forget` returns the pending Services that can be served now.
    for key in assigner.forget(&services[0].key) {
        if let Some(service) = services.iter().find(|service| service.key == key) {
            println!("{key}: {}", assigner.converge(service).message);
        }
    }
}

fn pool(name: &str, addresses: &[&str], auto_assign: bool) -> PoolSpec {
    PoolSpec {
        meta: ObjectMeta::named("metallb-system", name),
        addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
        auto_assign,
        ..PoolSpec::default()
    }
}

fn service(name: &str) -> Service {
    Service::load_balancer(ServiceKey::new("default", name))
}
