//! Decides for all Services at once, as at a start.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::assignment::{Assigner, Outcome, StatusWrite};
use crate::model::{ALLOCATED_FROM, Ingress, Service, ServiceKey};

/// Decides for all of `services`, given in reading order: holders first, then by age, then as read. Every valid holder
/// claims its addresses before any Service gets a new one. Decisions count as written at once, and pending Services are
/// served with addresses that become free. An outcome carries the Events of all decisions about its Service.
pub fn settle(assigner: &mut Assigner, services: &[&Service]) -> BTreeMap<ServiceKey, Outcome> {
    let mut queue = services.to_vec();
    // The sort is stable: Services of equal age stay in reading order.
    queue.sort_by_key(|service| (service.ingress.is_empty(), service.created.is_none(), service.created));
    for service in &queue {
        assigner.claim(service);
    }
    let by_key: BTreeMap<&ServiceKey, &Service> = queue.iter().map(|service| (&service.key, *service)).collect();
    let mut queue: VecDeque<&Service> = queue.into();
    let mut written: BTreeMap<ServiceKey, Service> = BTreeMap::new();
    let mut outcomes: BTreeMap<ServiceKey, Outcome> = BTreeMap::new();
    let mut retried = BTreeSet::new();
    while let Some(read) = queue.pop_front() {
        let mut outcome = assigner.converge(written.get(&read.key).unwrap_or(read));
        if let Some(write) = &outcome.write {
            apply(written.entry(read.key.clone()).or_insert_with(|| read.clone()), write);
        }
        // Each is decided on once more, however many addresses became free.
        let again = outcome.retry.iter().filter(|key| retried.insert((*key).clone()));
        queue.extend(again.filter_map(|key| by_key.get(key).copied()));
        if let Some(earlier) = outcomes.remove(&read.key) {
            outcome.events.splice(..0, earlier.events);
        }
        outcomes.insert(read.key.clone(), outcome);
    }
    name_releases(services, &mut outcomes);
    outcomes
}

/// Notes that an address passes to another Service only after the status of the first one was written.
fn name_releases(services: &[&Service], outcomes: &mut BTreeMap<ServiceKey, Outcome>) {
    let mut shown_on: BTreeMap<IpAddr, Vec<&ServiceKey>> = BTreeMap::new();
    for service in services {
        for ip in service.ingress_ips().flatten() {
            shown_on.entry(ip).or_default().push(&service.key);
        }
    }
    let mut sentences = Vec::new();
    for (key, outcome) in outcomes.iter().filter(|(_, outcome)| outcome.write.is_some()) {
        let keeps = |other: &ServiceKey, ip| outcomes.get(other).is_some_and(|other| other.ips.contains(&ip));
        let released = outcome.ips.iter().find_map(|&ip| {
            let services = shown_on.get(&ip).filter(|services| !services.contains(&key))?;
            let leaver = services.iter().find(|&&other| !keeps(other, ip))?;
            Some((ip, (*leaver).clone()))
        });
        sentences.extend(released.map(|(ip, leaver)| (key.clone(), format!(" once {leaver} has released {ip}"))));
    }
    for (key, sentence) in sentences {
        if let Some(outcome) = outcomes.get_mut(&key) {
            outcome.message.push_str(&sentence);
        }
    }
}

/// The Service as it is read after the write.
fn apply(service: &mut Service, write: &StatusWrite) {
    service.ingress = write.ips.iter().copied().map(Ingress::from).collect();
    match &write.pool {
        Some(pool) => service.annotations.insert(ALLOCATED_FROM.to_owned(), pool.to_string()),
        None => service.annotations.remove(ALLOCATED_FROM),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::spec::{ObjectMeta, PoolSpec, Resources};
    use crate::model::{Cluster, IpFamilyPolicy, Timestamp};

    #[test]
    fn services_that_wait_are_served_one_after_another_with_what_becomes_free() {
        let pool = PoolSpec {
            meta: ObjectMeta { name: "small".to_owned(), ..ObjectMeta::default() },
            addresses: vec!["10.0.0.0/31".to_owned()],
            auto_assign: true,
            avoid_buggy_ips: false,
            service_allocation: None,
        };
        let parsed = Config::parse(&Resources { pools: vec![pool], ..Resources::default() }, &Cluster::default());
        let mut assigner = Assigner::new(None);
        assigner.set_config(&parsed.config);
        let service = |name: &str, held: &str, age: i64, policy| {
            let mut service = Service::load_balancer(ServiceKey::new("default", name));
            service.cluster_ips = vec!["10.96.0.1".to_owned()];
            service.created = Some(Timestamp::from_unix(age));
            service.ingress = vec![Ingress { ip: Some(held.to_owned()), hostname: None }];
            service.ip_family_policy = policy;
            service
        };
        // The oldest two hold what no pool grants any more; the others hold all there is, and may not keep it: they
        // want two families.
        let dual = Some(IpFamilyPolicy::RequireDualStack);
        let services = [
            service("lost-1", "10.9.9.8", 1, None),
            service("lost-2", "10.9.9.9", 2, None),
            service("dual-1", "10.0.0.0", 3, dual),
            service("dual-2", "10.0.0.1", 4, dual),
        ];
        let outcomes = settle(&mut assigner, &services.iter().collect::<Vec<_>>());
        let ips = |name: &str| {
            outcomes[&ServiceKey::new("default", name)].ips.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!([ips("dual-1"), ips("dual-2")], [[""; 0]; 2]);
        assert_eq!([ips("lost-1"), ips("lost-2")], [["10.0.0.0"], ["10.0.0.1"]]);
        let message = &outcomes[&ServiceKey::new("default", "lost-1")].message;
        assert!(message.ends_with("once default/dual-1 has released 10.0.0.0"), "{message}");
    }
}
