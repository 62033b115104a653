//! From one Service to its status: keep, allocate, clear or wait, with the Events that say so (contract control-plane §2.4).
//!
//! The status of the Services is the database. After a start and after every change of configuration all valid holders claim
//! their addresses ([`Assigner::claim`]) before anybody gets a new one ([`Assigner::converge`]). Where writes take effect later
//! than decisions, [`Reconciler`] keeps the two in step.

mod outcome;
mod reason;
mod reconciler;
mod shelter;
mod waiting;
mod wish;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use self::outcome::{AssignmentState, EventKind, Outcome, ServiceEvent, StatusWrite};
pub use self::reason::AssignReason;
use self::reason::Refusal;
pub use self::reconciler::{Effect, Pace, Picture, Reconciler, Settle, Write, WriteEnd, WriteId};
use self::shelter::Shelter;
pub use self::shelter::UnknownPools;
use self::waiting::Waiting;
pub use self::wish::{ServiceFamily, WishError, desired_ips, desired_pool};
use crate::allocator::{AllocateError, Allocator, FamilyDemand, Offer, PoolVerdict, Request, quoted};
use crate::config::Config;
use crate::model::{
    IpFamily, IpFamilyPolicy, PoolName, Service, ServiceKey, ServiceType, UnknownAnnotation, unknown_annotations,
};

/// Decides for one Service after another. One per cluster.
#[derive(Clone, Debug, Default)]
pub struct Assigner {
    allocator: Allocator,
    class: Option<String>,
    /// Services that want more than they have.
    waiting: Waiting,
    /// Those of them that lack only a second family, so that it is said once.
    single: BTreeSet<ServiceKey>,
    /// Which holders keep addresses that no valid pool contains.
    shelter: Shelter,
    /// Services that hold an address of a node, so that it is reported once.
    on_node: BTreeSet<ServiceKey>,
    /// Unknown annotations that were reported, so that each is reported once.
    reported: BTreeMap<ServiceKey, Vec<UnknownAnnotation>>,
}

// === impl Assigner ===

impl Assigner {
    /// Handles Services of `class`; `None` means Services without a class.
    #[must_use]
    pub fn new(class: Option<&str>) -> Self {
        Self { class: class.map(str::to_owned), ..Self::default() }
    }

    /// Replaces the pools. Afterwards every Service must [`claim`](Self::claim), then [`converge`](Self::converge), in
    /// [`processing_order`].
    pub fn set_config(&mut self, config: &Config) {
        self.allocator.set_pools(config.pools.values());
        self.allocator.set_node_addresses(&config.node_addresses);
        self.shelter.set_config(config);
    }

    /// Sets what becomes of holders whose recorded pool does not exist. Afterwards, if this returns true, every Service must
    /// [`claim`](Self::claim), then [`converge`](Self::converge).
    pub fn set_unknown_pools(&mut self, unknown: UnknownPools) -> bool {
        self.shelter.set_unknown_pools(unknown)
    }

    /// Replaces the addresses that hosts outside of the cluster use, with the hardware address of each. Afterwards every Service must
    /// [`converge`](Self::converge): who holds one moves, unless it asks for this one or there is no other.
    pub fn set_quarantined(&mut self, quarantined: &BTreeMap<IpAddr, Arc<str>>) {
        self.allocator.set_quarantined(quarantined);
    }

    /// The allocator, for counters and questions.
    #[must_use]
    pub const fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Lets a Service claim the addresses of its status if it may keep them; never gives a new one.
    pub fn claim(&mut self, service: &Service) {
        self.note_foreign(service);
        if !self.handles(service) {
            self.allocator.release(&service.key);
            return;
        }
        if self.is_sheltered(service) {
            return;
        }
        let Ok(family) = ServiceFamily::of_service(service) else { return };
        if has_too_few(service, family) {
            return;
        }
        let request = Request::new(service, demand_of(family, service));
        let whole = current_ips(service)
            .filter(|current| family_fits(family, current, service) && !self.wants_other(service, current));
        let ips = match whole {
            Some(whole) if !self.allocator.has_no_place(&request, &whole) => Some(whole),
            _ => self.part_to_keep(service, family, &request),
        };
        if let Some(ips) = ips {
            // `converge` reports what a Service cannot keep.
            let _ = self.allocator.reclaim(&request, &ips);
        }
    }

    /// Notes what the API shows on a Service, or may come to show because of writes that are `under_way`: until it no longer does,
    /// nobody else gets these addresses. Returns the next Service that can be served now, as [`Outcome::retry`].
    ///
    /// A caller whose writes take effect later than its decisions calls this whenever either changes, before
    /// [`converge`](Self::converge). A caller for whom a decision is final at once does not need it.
    pub fn note_standing(&mut self, service: &Service, under_way: &[IpAddr]) -> Vec<ServiceKey> {
        if self.set_standing(service, under_way) { self.next_in_line() } else { Vec::new() }
    }

    fn set_standing(&mut self, service: &Service, under_way: &[IpAddr]) -> bool {
        let mut ips = under_way.to_vec();
        if !self.is_foreign(service) && !self.is_sheltered(service) {
            ips.extend(service.ingress_ips().flatten());
        }
        self.allocator.set_standing(&service.key, &ips)
    }

    /// The addresses of a Service's status that others hold and do not share with it, each with one of these others. A Service that
    /// holds its addresses, or asks for others, has no rivals.
    #[must_use]
    pub fn rivals(&self, service: &Service) -> Vec<(IpAddr, ServiceKey)> {
        let Ok(family) = ServiceFamily::of_service(service) else { return Vec::new() };
        let Some(current) = current_ips(service).filter(|_| self.handles(service)) else { return Vec::new() };
        if self.is_sheltered(service)
            || has_too_few(service, family)
            || !family_fits(family, &current, service)
            || self.wants_other(service, &current)
        {
            return Vec::new();
        }
        let request = Request::new(service, demand_of(family, service));
        let at = |&ip: &IpAddr| self.allocator.rivals(&request, ip).map(move |other| (ip, other.clone())).collect();
        current.iter().flat_map(|ip| -> Vec<_> { at(ip) }).collect()
    }

    /// Takes away what a Service holds, for another one that has the better claim. It must be converged afterwards.
    pub fn displace(&mut self, service: &ServiceKey) {
        self.allocator.release(service);
    }

    /// A Service that cannot be decided on now is offered nothing until it is converged again. Returns the next Service that can be
    /// served now, as [`Outcome::retry`].
    pub fn put_off(&mut self, service: &ServiceKey) -> Vec<ServiceKey> {
        if self.waiting.remove(service) { self.next_in_line() } else { Vec::new() }
    }

    /// A Service that is gone: whatever it held is free. Returns the next Service that waits and can be served now, as
    /// [`Outcome::retry`].
    pub fn forget(&mut self, service: &ServiceKey) -> Vec<ServiceKey> {
        self.waiting.remove(service);
        self.single.remove(service);
        self.on_node.remove(service);
        self.reported.remove(service);
        let held = self.allocator.release(service).is_some();
        let blocked = self.allocator.block(service, &[]);
        let stood = self.allocator.set_standing(service, &[]);
        if held || blocked || stood { self.next_in_line() } else { Vec::new() }
    }

    /// Decides for one Service.
    pub fn converge(&mut self, service: &Service) -> Outcome {
        let held_before = self.allocator.holding(&service.key).cloned();
        let was_leaving = held_before.is_none() && !self.allocator.standing_on(&service.key).is_empty();
        let unblocked = self.note_foreign(service);
        let mut events = Vec::new();
        let decision = self.decide(service, &mut events);
        let held_after = self.allocator.holding(&service.key);
        let freed = match (&held_before, held_after) {
            (Some(_), None) => true,
            (Some(before), Some(after)) => before != after,
            // It stays where it was about to leave: others can join it again.
            (None, Some(after)) => was_leaving && after.request.key.is_shareable(),
            (None, None) => false,
        };
        let (state, reason, message, verdicts) = decision.into_parts(held_after.map(|held| held.ips.as_slice()));
        let (pool, ips) = match (state, held_after) {
            (AssignmentState::Ignored, _) if reason == AssignReason::OtherClass => {
                (service.recorded_pool().map(PoolName::from), Vec::new())
            }
            (AssignmentState::Assigned, _) if is_shelter(reason) => {
                let ips: Vec<IpAddr> = service.ingress_ips().flatten().collect();
                (service.recorded_pool().map(PoolName::from), ips)
            }
            // Nothing was decided about what its status says.
            (AssignmentState::Assigned, _) if reason == AssignReason::UnknownFamily => {
                let ips: Vec<IpAddr> = service.ingress_ips().flatten().collect();
                (self.allocator.pool_of(&ips).map(|pool| pool.name.clone()), ips)
            }
            (_, Some(held)) => (Some(held.pool.clone()), held.ips.to_vec()),
            (_, None) => (None, Vec::new()),
        };
        let untouched = matches!(reason, AssignReason::OtherClass | AssignReason::UnknownFamily) || is_shelter(reason);
        let write = (!untouched && differs(service, &ips, pool.as_ref()))
            .then(|| StatusWrite { ips: ips.clone(), pool: pool.clone() });
        if write.is_some() {
            events.extend(service.deprecated_annotations().map(|key| ServiceEvent {
                kind: EventKind::Warning,
                reason: "deprecatedAnnotation",
                message: format!("annotation {key} is deprecated, use the prefix metallb.io/ instead"),
            }));
        }
        if state != AssignmentState::Ignored {
            self.report_unknown(service, &mut events);
        }
        let waited = if state == AssignmentState::Pending || self.single.contains(&service.key) {
            self.waiting.insert(service);
            false
        } else {
            self.waiting.remove(&service.key)
        };
        let retry = if freed || unblocked || waited { self.next_in_line() } else { Vec::new() };
        Outcome { state, pool, ips, reason, message, verdicts, events, write, retry }
    }

    /// Reports each unknown annotation once, when it appears.
    fn report_unknown(&mut self, service: &Service, events: &mut Vec<ServiceEvent>) {
        let unknown = unknown_annotations(&service.annotations);
        let before = self.reported.get(&service.key).map_or(&[][..], Vec::as_slice);
        events.extend(unknown.iter().filter(|new| !before.contains(new)).map(|unknown| ServiceEvent {
            kind: EventKind::Warning,
            reason: "unknownAnnotation",
            message: unknown.to_string(),
        }));
        if unknown.is_empty() {
            self.reported.remove(&service.key);
        } else {
            self.reported.insert(service.key.clone(), unknown);
        }
    }

    fn decide(&mut self, service: &Service, events: &mut Vec<ServiceEvent>) -> Decision {
        if !self.handles(service) {
            self.allocator.release(&service.key);
            self.single.remove(&service.key);
            let other_type = service.service_type != ServiceType::LoadBalancer;
            return Decision::Ignored(if other_type {
                AssignReason::NotLoadBalancer
            } else {
                AssignReason::OtherClass
            });
        }
        if let Some(cause) = self.shelter.cause(service, &self.allocator) {
            self.allocator.release(&service.key);
            self.single.remove(&service.key);
            let held: Vec<IpAddr> = service.ingress_ips().flatten().collect();
            return Decision::Kept(cause.reason(), cause.explanation(&quoted(&held)));
        }
        if self.allocator.pools().next().is_none() {
            self.allocator.release(&service.key);
            clear_all(service, "there is no IPAddressPool", events);
            return Decision::Pending(AssignReason::NoPools, "there is no IPAddressPool".to_owned(), Vec::new());
        }
        let family = ServiceFamily::of_service(service);
        if family.as_ref().is_ok_and(|family| has_too_few(service, *family)) {
            self.allocator.release(&service.key);
            let message = "RequireDualStack needs two cluster IPs".to_owned();
            clear_all(service, &message, events);
            events.push(warning("not enough clusterips", &message));
            return Decision::Pending(AssignReason::NotEnoughClusterIps, message, Vec::new());
        }
        let has_status = service.ingress.iter().any(|ingress| ingress.ip.is_some());
        let family = match family {
            Ok(family) => family,
            Err(error) if has_status => {
                events.push(warning("noclusterIPsIPFamily", &error.to_string()));
                return Decision::Kept(AssignReason::UnknownFamily, error.to_string());
            }
            Err(error) => return self.refused(service, &error.into(), events),
        };
        let request = Request::new(service, demand_of(family, service));

        match self.keep(service, family, &request, has_status, events) {
            Kept::Yes => {
                if let Some(decision) = self.leave_quarantine(service, family, &request, events) {
                    return decision;
                }
                self.complete(service, family, &request, events);
                if let Some(decision) = self.stay_on_node(service, events) {
                    return decision;
                }
                return Decision::Assigned(AssignReason::Kept, Vec::new());
            }
            Kept::InSpiteOf(error) => {
                events.push(warning("LoadBalancerFailed", &error.to_string()));
                return Decision::Kept(AssignReason::KeptInvalidRequest, error.to_string());
            }
            Kept::No => {}
        }
        // What we gave a moment ago may not be in the status yet that we look at: our own decision outranks an older cache.
        if !has_status && self.keep_own(service, family, &request) {
            let ips = self.allocator.holding(&service.key).map(|held| quoted(&held.ips)).unwrap_or_default();
            events.push(normal("IPAllocated", format!("Assigned IP {ips}")));
            return Decision::Assigned(AssignReason::Kept, Vec::new());
        }
        self.allocator.release(&service.key);
        self.single.remove(&service.key);
        match self.obtain(service, family, &request) {
            Ok(verdicts) => {
                let held = self.allocator.holding(&service.key);
                let ips = held.map(|held| quoted(&held.ips)).unwrap_or_default();
                events.push(normal("IPAllocated", format!("Assigned IP {ips}")));
                Decision::Assigned(AssignReason::Assigned, verdicts)
            }
            Err(refusal) => self.refused(service, &refusal, events),
        }
    }

    /// Steps 6 and 7: may the Service keep what its status says?
    fn keep(
        &mut self,
        service: &Service,
        family: ServiceFamily,
        request: &Request,
        has_status: bool,
        events: &mut Vec<ServiceEvent>,
    ) -> Kept {
        if !has_status {
            return Kept::No;
        }
        let current = current_ips(service);
        if current.is_none() {
            events.push(warning("nolbIPsIPFamily", "can't tell the IP family of the current load balancer IPs"));
        }
        let whole = current.filter(|current| family_fits(family, current, service));
        let error = whole.as_ref().and_then(|current| self.allocator.reclaim(request, current).err());
        let kept = match (whole, error) {
            (Some(current), None) => Some(current),
            // Another Service has one of the addresses: as upstream does, both are given up.
            (Some(current), Some(error)) if !self.allocator.has_no_place(request, &current) => {
                events.push(cleared(&current, &error));
                None
            }
            (_, Some(error)) => self.keep_part(service, family, request, &error, events),
            (None, None) => self.keep_part(service, family, request, &FAMILIES_DIFFER, events),
        };
        let Some(current) = kept else { return Kept::No };
        let owner = self.allocator.holding(&service.key).map(|held| held.pool.clone());
        if desired_pool(service).is_some_and(|pool| owner.as_ref().map(PoolName::as_str) != Some(pool)) {
            return Kept::No;
        }
        match desired_ips(service) {
            Err(error) => Kept::InSpiteOf(error),
            Ok(desired) if !desired.is_empty() && !same_set(&desired, &current) => Kept::No,
            Ok(_) => Kept::Yes,
        }
    }

    /// Keeps the addresses of the status that still fit, where not all of them do; returns them. `refusal` says why.
    fn keep_part(
        &mut self,
        service: &Service,
        family: ServiceFamily,
        request: &Request,
        refusal: &dyn fmt::Display,
        events: &mut Vec<ServiceEvent>,
    ) -> Option<Vec<IpAddr>> {
        let shown: Vec<IpAddr> = service.ingress_ips().flatten().collect();
        let Some(part) = self.part_to_keep(service, family, request) else {
            events.push(cleared(&shown, refusal));
            return None;
        };
        if let Err(error) = self.allocator.reclaim(request, &part) {
            events.push(cleared(&shown, &error));
            return None;
        }
        if request.demand == FamilyDemand::Both && part.len() == 1 {
            match self.allocator.add_family(request) {
                Ok(held) => {
                    events.push(normal("IPAllocated", format!("Assigned IP {}", quoted(&held.ips))));
                }
                Err(error) => {
                    events.push(cleared(&shown, &error));
                    return None;
                }
            }
        }
        let lost: Vec<IpAddr> = shown.into_iter().filter(|ip| !part.contains(ip)).collect();
        if !lost.is_empty() {
            let message = format!("current IP {} can not be kept: {refusal}", quoted(&lost));
            events.push(normal("ClearAssignment", message));
        }
        Some(self.allocator.holding(&service.key).map_or(part, |held| held.ips.to_vec()))
    }

    /// The addresses of the status that a Service may keep when it may not keep all: the first one of each family that it has.
    fn part_to_keep(&self, service: &Service, family: ServiceFamily, request: &Request) -> Option<Vec<IpAddr>> {
        // A Service whose policy forbids its families is refused as a whole.
        family.demand(service)?;
        let fits = |ip: &IpAddr| match family {
            ServiceFamily::Single(family) => IpFamily::of(*ip) == family,
            ServiceFamily::Dual => true,
        };
        let mut part: Vec<IpAddr> = Vec::new();
        for ip in service.ingress_ips().flatten().filter(fits) {
            let is_new = part.iter().all(|known| IpFamily::of(*known) != IpFamily::of(ip));
            part.push(ip);
            if !is_new || !self.allocator.may_reclaim(request, &part) {
                part.pop();
            }
        }
        let asks = desired_pool(service).is_some() || desired_ips(service).is_ok_and(|desired| !desired.is_empty());
        // Upstream leaves a pool here that is not assigned automatically.
        let is_open = self.allocator.pool_of(&part).is_some_and(|pool| pool.auto_assign || asks);
        (is_open && !self.wants_other(service, &part)).then_some(part)
    }

    /// Where a Service holds the address of a node: it keeps it, because the address may be in use by clients all the same.
    fn stay_on_node(&mut self, service: &Service, events: &mut Vec<ServiceEvent>) -> Option<Decision> {
        let found = self.allocator.holding(&service.key).map(|held| held.ips).and_then(|held| {
            let (ip, node) = self.allocator.node_address_among(&held)?;
            Some((held, ip, node.clone()))
        });
        let Some((held, ip, node)) = found else {
            self.on_node.remove(&service.key);
            return None;
        };
        let message = format!(
            "keeps {}: \"{ip}\" is an address of node {node}, so it is not announced; \
             ask for another address or remove it from the node",
            quoted(&held)
        );
        if self.on_node.insert(service.key.clone()) {
            events.push(warning("nodeAddress", &message));
        }
        Some(Decision::Kept(AssignReason::KeptNodeAddress, message))
    }

    /// Where a Service holds an address that a host outside of the cluster uses: other addresses if it did not ask for these and there
    /// are any. Nobody is left without an address.
    fn leave_quarantine(
        &mut self,
        service: &Service,
        family: ServiceFamily,
        request: &Request,
        events: &mut Vec<ServiceEvent>,
    ) -> Option<Decision> {
        let held = self.allocator.holding(&service.key)?.ips;
        let (ip, mac) = self.allocator.quarantined_among(&held)?;
        let cause = AllocateError::Quarantined { ip, mac: Arc::clone(mac) };
        let moved = self.offer(service, family, request).and_then(|offer| {
            self.allocator.assign(request, &offer.ips)?;
            Ok(offer.ips)
        });
        let Ok(ips) = moved else {
            return Some(Decision::Kept(AssignReason::KeptInQuarantine, format!("keeps {}: {cause}", quoted(&held))));
        };
        let message = format!("current IP {} can not be kept: {cause}", quoted(&held));
        events.push(normal("ClearAssignment", message));
        events.push(normal("IPAllocated", format!("Assigned IP {}", quoted(&ips))));
        Some(Decision::Assigned(AssignReason::MovedFromQuarantine, Vec::new()))
    }

    /// Keeps what the Service holds in memory, if it still may.
    fn keep_own(&mut self, service: &Service, family: ServiceFamily, request: &Request) -> bool {
        let Some(held) = self.allocator.holding(&service.key).map(|held| held.ips) else { return false };
        family_fits(family, &held, service)
            && !self.wants_other(service, &held)
            && self.allocator.assign(request, &held).is_ok()
    }

    /// Step 8: a dual-stack Service with one address gets the other if the pool has it. Only where the cluster is dual-stack
    /// too, else the next round would take it away again (contract §12, 1).
    fn complete(
        &mut self,
        service: &Service,
        family: ServiceFamily,
        request: &Request,
        events: &mut Vec<ServiceEvent>,
    ) {
        let one = self.allocator.holding(&service.key).is_some_and(|held| held.ips.len() == 1);
        let prefers = service.ip_family_policy == Some(IpFamilyPolicy::PreferDualStack);
        if !(one && prefers && family == ServiceFamily::Dual) {
            self.single.remove(&service.key);
            return;
        }
        match self.allocator.add_family(request) {
            Ok(held) => {
                let message = format!("Assigned IP {}", quoted(&held.ips));
                events.push(normal("IPAllocated", message));
                self.single.remove(&service.key);
            }
            Err(error) => {
                if self.single.insert(service.key.clone()) {
                    let message = format!("no IP of the second family: {error}");
                    events.push(normal("AdditionalAssignFailed", message));
                }
            }
        }
    }

    /// Step 9: new addresses. Returns the pools that were passed over.
    fn obtain(
        &mut self,
        service: &Service,
        family: ServiceFamily,
        request: &Request,
    ) -> Result<Vec<PoolVerdict>, Refusal> {
        let Offer { ips, .. } = self.offer(service, family, request)?;
        let automatic = desired_pool(service).is_none() && desired_ips(service)?.is_empty();
        let verdicts = if automatic { self.allocator.verdicts(request) } else { Vec::new() };
        self.allocator.assign(request, &ips)?;
        Ok(verdicts)
    }

    /// What a Service that holds nothing could have now.
    fn offer(&self, service: &Service, family: ServiceFamily, request: &Request) -> Result<Offer, Refusal> {
        let desired = desired_ips(service)?;
        let pool = desired_pool(service);
        if !desired.is_empty() {
            if ServiceFamily::of(&desired) != Some(family) {
                return Err(Refusal::Family { ips: desired, family });
            }
            let offer = self.allocator.offer_exactly(request, &desired)?;
            return match pool.filter(|pool| offer.pool.as_str() != *pool) {
                Some(pool) => Err(Refusal::Pool { ips: desired, pool: pool.to_owned() }),
                None => Ok(offer),
            };
        }
        if family.demand(service).is_none() {
            return Err(Refusal::Policy);
        }
        Ok(match pool {
            Some(pool) => self.allocator.offer_from(request, pool)?,
            None => self.allocator.offer_anywhere(request)?,
        })
    }

    /// The first Service that waits, in processing order, and can be served now.
    fn next_in_line(&self) -> Vec<ServiceKey> {
        let served = |service: &&Service| {
            let Ok(family) = ServiceFamily::of_service(service) else { return false };
            let request = Request::new(service, demand_of(family, service));
            if let Some(held) = self.allocator.holding(&service.key) {
                let is_quarantined = self.allocator.quarantined_among(&held.ips).is_some();
                return !is_quarantined && self.allocator.offer_family(&request).is_ok();
            }
            !has_too_few(service, family) && self.offer(service, family, &request).is_ok()
        };
        self.waiting.iter().find(served).map(|service| service.key.clone()).into_iter().collect()
    }

    fn refused(&mut self, service: &Service, refusal: &Refusal, events: &mut Vec<ServiceEvent>) -> Decision {
        self.allocator.release(&service.key);
        let message = refusal.to_string();
        events.push(warning("AllocationFailed", &format!("Failed to allocate IP for \"{}\": {message}", service.key)));
        Decision::Pending(refusal.reason(), message, refusal.verdicts())
    }

    /// What the status says of a Service of another class, or of one that nothing can be decided about, is not handed out to others.
    /// True when an address became free.
    fn note_foreign(&mut self, service: &Service) -> bool {
        let is_withheld = self.is_foreign(service) || self.is_sheltered(service);
        let ips: Vec<IpAddr> = if is_withheld { service.ingress_ips().flatten().collect() } else { Vec::new() };
        self.allocator.block(&service.key, &ips)
    }

    /// Whether the Service keeps the addresses of its status although no valid pool contains them. Nobody else gets them.
    fn is_sheltered(&self, service: &Service) -> bool {
        self.handles(service) && self.shelter.cause(service, &self.allocator).is_some()
    }

    /// Whether the Service is of another class, or one that nothing can be decided about.
    fn is_foreign(&self, service: &Service) -> bool {
        service.service_type == ServiceType::LoadBalancer
            && (!self.handles(service) || ServiceFamily::of_service(service).is_err())
    }

    fn handles(&self, service: &Service) -> bool {
        service.service_type == ServiceType::LoadBalancer && service.is_of_class(self.class.as_deref())
    }

    fn wants_other(&self, service: &Service, current: &[IpAddr]) -> bool {
        let other_ips = desired_ips(service).is_ok_and(|desired| !desired.is_empty() && !same_set(&desired, current));
        let other_pool = desired_pool(service)
            .is_some_and(|wanted| self.allocator.pool_of(current).is_none_or(|pool| pool.name.as_str() != wanted));
        other_ips || other_pool
    }
}

/// The order in which Services are processed, and in which two that show one address have a claim to it: holders first, of these
/// the one whose address was written first, then the oldest, then by uid and by name. A time that is not known comes last.
pub fn processing_order(a: &Service, b: &Service) -> Ordering {
    let assigned = |service: &Service| service.assigned.filter(|_| !service.ingress.is_empty());
    let rank = |service: &Service| {
        let assigned = assigned(service);
        (service.ingress.is_empty(), assigned.is_none(), assigned, service.created.is_none(), service.created)
    };
    let uid = |service: &Service| service.uid.clone().filter(|_| !service.ingress.is_empty());
    rank(a).cmp(&rank(b)).then_with(|| uid(a).cmp(&uid(b))).then_with(|| a.key.cmp(&b.key))
}

const fn is_shelter(reason: AssignReason) -> bool {
    matches!(reason, AssignReason::KeptPoolInvalid | AssignReason::KeptPoolMissing)
}

/// The Event of addresses that are given up for others.
fn cleared(lost: &[IpAddr], reason: &dyn fmt::Display) -> ServiceEvent {
    let lost = quoted(lost);
    normal("ClearAssignment", format!("current IP {lost} can not be kept, will try to assign a new one: {reason}"))
}

fn clear_all(service: &Service, reason: &str, events: &mut Vec<ServiceEvent>) {
    let held: Vec<IpAddr> = service.ingress_ips().flatten().collect();
    if !held.is_empty() {
        events.push(normal("ClearAssignment", format!("current IP {} can not be kept: {reason}", quoted(&held))));
    }
}

const FAMILIES_DIFFER: &str = "its IP families are not those of the Service";

enum Decision {
    Assigned(AssignReason, Vec<PoolVerdict>),
    Kept(AssignReason, String),
    Pending(AssignReason, String, Vec<PoolVerdict>),
    Ignored(AssignReason),
}

impl Decision {
    fn into_parts(self, held: Option<&[IpAddr]>) -> (AssignmentState, AssignReason, String, Vec<PoolVerdict>) {
        let held = held.map(quoted).unwrap_or_default();
        match self {
            Self::Assigned(reason, verdicts) => {
                let verb = if reason == AssignReason::Kept { "keeps" } else { "assigned" };
                (AssignmentState::Assigned, reason, format!("{verb} {held}"), verdicts)
            }
            Self::Kept(reason, message) => (AssignmentState::Assigned, reason, message, Vec::new()),
            Self::Pending(reason, message, verdicts) => (AssignmentState::Pending, reason, message, verdicts),
            Self::Ignored(reason @ AssignReason::OtherClass) => {
                let message = "belongs to another load balancer class".to_owned();
                (AssignmentState::Ignored, reason, message, Vec::new())
            }
            Self::Ignored(reason) => {
                (AssignmentState::Ignored, reason, "is not of type LoadBalancer".to_owned(), Vec::new())
            }
        }
    }
}

enum Kept {
    Yes,
    InSpiteOf(WishError),
    No,
}

/// The addresses of the status, if they are one, or one of each family.
fn current_ips(service: &Service) -> Option<Vec<IpAddr>> {
    let ips: Vec<IpAddr> = service.ingress_ips().collect::<Option<_>>()?;
    ServiceFamily::of(&ips).map(|_| ips)
}

/// A dual-stack Service that only prefers both families may hold one.
/// `RequireDualStack` where the cluster has one family.
fn has_too_few(service: &Service, family: ServiceFamily) -> bool {
    service.ip_family_policy == Some(IpFamilyPolicy::RequireDualStack) && matches!(family, ServiceFamily::Single(_))
}

fn family_fits(family: ServiceFamily, current: &[IpAddr], service: &Service) -> bool {
    let prefers = family == ServiceFamily::Dual && service.ip_family_policy == Some(IpFamilyPolicy::PreferDualStack);
    prefers || ServiceFamily::of(current) == Some(family)
}

fn demand_of(family: ServiceFamily, service: &Service) -> FamilyDemand {
    family.demand(service).unwrap_or(FamilyDemand::Both)
}

fn same_set(a: &[IpAddr], b: &[IpAddr]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

/// Whether the Service does not say already what was decided; `ipMode` and the like are not ours to compare (contract §12, 2).
fn differs(service: &Service, ips: &[IpAddr], pool: Option<&PoolName>) -> bool {
    let has_hostname = service.ingress.iter().any(|ingress| ingress.ip.is_none() || ingress.hostname.is_some());
    let current: Vec<Option<IpAddr>> = service.ingress_ips().collect();
    has_hostname
        || current.len() != ips.len()
        || current.iter().zip(ips).any(|(current, ip)| current.as_ref() != Some(ip))
        || service.recorded_pool() != pool.map(PoolName::as_str)
}

fn warning(reason: &'static str, message: &str) -> ServiceEvent {
    ServiceEvent { kind: EventKind::Warning, reason, message: message.to_owned() }
}

fn normal(reason: &'static str, message: String) -> ServiceEvent {
    ServiceEvent { kind: EventKind::Normal, reason, message }
}
