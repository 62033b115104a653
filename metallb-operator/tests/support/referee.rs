//! A watcher of Services straight at the API server, which records every moment at which one address stands on two
//! Services that may not share it, and every change of an address that a Service already had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Follows all Services until it is dropped.
#[derive(Debug)]
pub(crate) struct Referee {
    ledger: Arc<Mutex<Ledger>>,
    seen: watch::Receiver<u64>,
    following: JoinHandle<()>,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    services: BTreeMap<String, Seen>,
    doubles: Vec<Double>,
    changes: Vec<Change>,
}

/// A Service as it was seen last.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) ips: BTreeSet<IpAddr>,
    /// The Service may share with others of the same key.
    key: Option<String>,
    ports: BTreeSet<(String, i32)>,
    /// With `externalTrafficPolicy: Local`: only Services with the same selector share.
    selector: Option<BTreeMap<String, String>>,
}

/// One address on two Services that may not share it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Double {
    pub(crate) ip: IpAddr,
    /// The uids of the two Services.
    pub(crate) uids: [String; 2],
    pub(crate) names: [String; 2],
    pub(crate) since: Instant,
    /// `None` while it lasts.
    pub(crate) until: Option<Instant>,
}

/// The addresses of a Service became others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) from: BTreeSet<IpAddr>,
    pub(crate) to: BTreeSet<IpAddr>,
}

// === impl Referee ===

impl Referee {
    /// Starts, and returns when it knows all Services.
    pub(crate) async fn start(client: Client) -> Self {
        let services: Api<Service> = Api::all(client);
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (tell, seen) = watch::channel(0);
        let version = list(&services, &ledger).await;
        let following = tokio::spawn(follow(services, version, Arc::clone(&ledger), tell));
        Self { ledger, seen, following }
    }

    /// What was seen so far.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the ledger says so; returns how long it took, or nothing after `patience`.
    pub(crate) async fn until(&self, patience: Duration, mut probe: impl FnMut(&Ledger) -> bool) -> Option<Duration> {
        let begin = Instant::now();
        let mut seen = self.seen.clone();
        let reached = async {
            loop {
                seen.mark_unchanged();
                if probe(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner)) {
                    return begin.elapsed();
                }
                seen.changed().await.unwrap();
            }
        };
        tokio::time::timeout(patience, reached).await.ok()
    }

    /// Waits until a Service of this name has addresses; returns them.
    pub(crate) async fn served(&self, name: &str, patience: Duration) -> Option<BTreeSet<IpAddr>> {
        let mut found = BTreeSet::new();
        self.until(patience, |ledger| {
            found = ledger.ips(name);
            !found.is_empty()
        })
        .await?;
        Some(found)
    }
}

impl Drop for Referee {
    fn drop(&mut self) {
        self.following.abort();
    }
}

// === impl Ledger ===

impl Ledger {
    /// The addresses of the Service of this name at present.
    pub(crate) fn ips(&self, name: &str) -> BTreeSet<IpAddr> {
        self.services.values().find(|seen| seen.name == name).map(|seen| seen.ips.clone()).unwrap_or_default()
    }

    /// All Services at present, by uid.
    pub(crate) fn services(&self) -> &BTreeMap<String, Seen> {
        &self.services
    }

    pub(crate) fn doubles(&self) -> &[Double] {
        &self.doubles
    }

    /// All changes of addresses, taking away included, the first assignment and deletion not.
    pub(crate) fn moves(&self) -> Vec<&Change> {
        self.changes.iter().filter(|change| !change.from.is_empty()).collect()
    }

    /// The changes of Services of this name, first assignments included.
    pub(crate) fn timeline(&self, name: &str) -> Vec<&Change> {
        self.changes.iter().filter(|change| change.name == name).collect()
    }

    /// When a Service last got its first address.
    pub(crate) fn last_assignment(&self) -> Option<Instant> {
        self.changes.iter().rev().find(|change| change.from.is_empty()).map(|change| change.at)
    }

    /// Takes in the newest state of a Service.
    fn apply(&mut self, at: Instant, uid: &str, seen: Seen) {
        let before = self.services.insert(uid.to_owned(), seen.clone()).unwrap_or_default();
        if before.ips != seen.ips {
            let (uid, from, to) = (uid.to_owned(), before.ips.clone(), seen.ips.clone());
            self.changes.push(Change { at, uid, name: seen.name.clone(), from, to });
        }
        if before != seen {
            self.compare(at, uid, &before.ips | &seen.ips);
        }
    }

    fn delete(&mut self, at: Instant, uid: &str) {
        if let Some(before) = self.services.remove(uid) {
            self.compare(at, uid, before.ips);
        }
    }

    /// Begins and ends the doubles of a Service on these addresses.
    fn compare(&mut self, at: Instant, uid: &str, ips: BTreeSet<IpAddr>) {
        for ip in ips {
            for double in self.doubles.iter_mut().filter(|double| double.ip == ip && double.until.is_none()) {
                let [a, b] = double.uids.each_ref().map(|uid| self.services.get(uid));
                if double.uids.iter().any(|own| own == uid) && !a.zip(b).is_some_and(|(a, b)| a.clashes(b, ip)) {
                    double.until = Some(at);
                }
            }
            let Some(own) = self.services.get(uid) else { continue };
            for (other, seen) in self.services.iter().filter(|(other, seen)| *other != uid && own.clashes(seen, ip)) {
                let uids = [uid.to_owned(), other.clone()];
                let lasts = |double: &Double| {
                    double.until.is_none() && double.ip == ip && uids.iter().all(|uid| double.uids.contains(uid))
                };
                if !self.doubles.iter().any(lasts) {
                    let names = [own.name.clone(), seen.name.clone()];
                    self.doubles.push(Double { ip, uids, names, since: at, until: None });
                }
            }
        }
    }
}

// === impl Seen ===

impl Seen {
    fn new(service: &Service) -> Self {
        let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let ips = ingress.flatten().filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect();
        let spec = service.spec.clone().unwrap_or_default();
        let ports = spec.ports.unwrap_or_default().into_iter();
        let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
        Self {
            name: service.name_any(),
            ips,
            key: service.annotations().get(SHARING_KEY).filter(|key| !key.is_empty()).cloned(),
            ports: ports.map(|port| (port.protocol.unwrap_or_default(), port.port)).collect(),
            selector: is_local.then(|| spec.selector.unwrap_or_default()),
        }
    }

    /// Whether both have the address and may not share it.
    fn clashes(&self, other: &Self, ip: IpAddr) -> bool {
        let may_share = self.key.is_some()
            && self.key == other.key
            && self.ports.is_disjoint(&other.ports)
            && self.selector == other.selector;
        self.ips.contains(&ip) && other.ips.contains(&ip) && !may_share
    }
}

// === impl Double ===

impl Double {
    /// How long it lasted, or has lasted up to now.
    pub(crate) fn lasted(&self) -> Duration {
        self.until.unwrap_or_else(Instant::now).duration_since(self.since)
    }
}

/// Takes in all Services; returns the version of the LIST.
async fn list(services: &Api<Service>, ledger: &Mutex<Ledger>) -> String {
    let listed = loop {
        match services.list(&ListParams::default()).await {
            Ok(listed) => break listed,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let at = Instant::now();
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let present: BTreeSet<String> = listed.iter().filter_map(kube::ResourceExt::uid).collect();
    let gone: Vec<String> = ledger.services.keys().filter(|uid| !present.contains(*uid)).cloned().collect();
    for uid in gone {
        ledger.delete(at, &uid);
    }
    for service in &listed {
        ledger.apply(at, &service.uid().unwrap(), Seen::new(service));
    }
    listed.metadata.resource_version.unwrap_or_default()
}

async fn follow(services: Api<Service>, mut version: String, ledger: Arc<Mutex<Ledger>>, tell: watch::Sender<u64>) {
    loop {
        let Ok(stream) = services.watch(&WatchParams::default(), &version).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let mut stream = stream.boxed();
        while let Ok(Some(event)) = stream.try_next().await {
            let at = Instant::now();
            match event {
                WatchEvent::Added(service) | WatchEvent::Modified(service) => {
                    version = service.resource_version().unwrap_or_default();
                    let seen = Seen::new(&service);
                    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                    ledger.apply(at, &service.uid().unwrap_or_default(), seen);
                }
                WatchEvent::Deleted(service) => {
                    version = service.resource_version().unwrap_or_default();
                    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                    ledger.delete(at, &service.uid().unwrap_or_default());
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(_) => version = list(&services, &ledger).await,
            }
            tell.send_modify(|count| *count += 1);
        }
    }
}

const SHARING_KEY: &str = "metallb.io/allow-shared-ip";

/// Between attempts while the API server is away.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, ips: &[&str]) -> Seen {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Seen { name: name.into(), ips, ports: [("TCP".into(), 80)].into(), ..Seen::default() }
    }

    #[test]
    fn referee_double_holder_is_recorded_from_its_begin_to_its_end() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        ledger.apply(after(0), "1", seen("a", &["10.0.0.1"]));
        ledger.apply(after(1), "2", seen("b", &[]));
        assert!(ledger.doubles().is_empty());
        ledger.apply(after(2), "2", seen("b", &["10.0.0.1"]));
        ledger.apply(after(3), "2", seen("b", &["10.0.0.1", "fd00::1"]));
        ledger.apply(after(7), "1", seen("a", &["10.0.0.2"]));
        let [double] = ledger.doubles() else { panic!("{:?}", ledger.doubles()) };
        assert_eq!((double.lasted(), &double.names), (Duration::from_millis(5), &["b".to_owned(), "a".to_owned()]));
        // A deletion ends one as well.
        ledger.apply(after(8), "1", seen("a", &["10.0.0.1"]));
        ledger.delete(after(9), "2");
        assert_eq!(ledger.doubles().len(), 2);
        assert!(ledger.doubles().iter().all(|double| double.until.is_some()));
    }

    #[test]
    fn referee_services_that_may_share_are_no_double_holder() {
        let (mut ledger, at) = (Ledger::default(), Instant::now());
        let shared = |port| Seen {
            key: Some("key".into()),
            ports: [("TCP".into(), port)].into(),
            ..seen("shares", &["10.0.0.1"])
        };
        ledger.apply(at, "1", shared(80));
        ledger.apply(at, "2", shared(443));
        assert!(ledger.doubles().is_empty());
        ledger.apply(at, "3", shared(443));
        assert_eq!(ledger.doubles().len(), 1);
        ledger.apply(at, "4", Seen { selector: Some(BTreeMap::new()), ..shared(8080) });
        assert_eq!(ledger.doubles().len(), 4);
    }

    #[test]
    fn referee_moves_are_changes_of_addresses_that_a_service_had() {
        let (mut ledger, at) = (Ledger::default(), Instant::now());
        for ips in [&[] as &[&str], &["10.0.0.1"], &["10.0.0.1"], &["10.0.0.2"], &[]] {
            ledger.apply(at, "1", seen("a", ips));
        }
        ledger.delete(at, "1");
        ledger.apply(at, "2", seen("a", &["10.0.0.3"]));
        assert_eq!((ledger.moves().len(), ledger.timeline("a").len()), (2, 4));
    }
}
