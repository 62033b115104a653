//! BFD sessions as BGP peers use them: one session per path, shared by its clients (RFC 5882 §2), on a thread that
//! starts with the first session.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

use super::addresses::{Addresses, on_link};
use super::bfd_udp::{BfdError, BfdPath, BfdReport, BfdStatus, Driver, Handle};
use super::{BfdConfig, Distance, Endpoint, Router};
use crate::bfd::{Cause, Hops, Profile, State};
use crate::session::BfdState;

/// All BFD sessions of a speaker.
#[derive(Debug, Default)]
pub(super) struct BfdSessions {
    seed: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    driver: Option<Driver>,
    /// The number of clients of each path.
    clients: BTreeMap<BfdPath, usize>,
}

/// A client of a BFD session. The session is removed with its last client.
#[derive(Debug)]
pub(super) struct BfdClient {
    path: BfdPath,
    status: watch::Receiver<BfdStatus>,
    handle: Handle,
    sessions: Arc<BfdSessions>,
    /// The state that was reported last.
    reported: Option<BfdState>,
    /// The number of failures at that time.
    failures: u64,
}

/// Why a BFD session cannot be started or changed.
#[derive(Debug, Error)]
pub(super) enum SubscribeError {
    #[error("cannot start the BFD thread: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Path(#[from] BfdError),
}

impl BfdSessions {
    /// No sessions. `seed` is that of the engine, see [`Driver::start`].
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds a client to the session of a path and starts it if necessary. The latest profile is used.
    pub(super) fn subscribe(self: &Arc<Self>, path: BfdPath, profile: Profile) -> Result<BfdClient, SubscribeError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let driver = match inner.driver.take() {
            Some(driver) => driver,
            None => Driver::start(self.seed).map_err(SubscribeError::Thread)?,
        };
        let handle = inner.driver.insert(driver).handle();
        let status = handle.add_session(path.clone(), profile)?;
        *inner.clients.entry(path.clone()).or_default() += 1;
        Ok(BfdClient { path, status, handle, sessions: Arc::clone(self), reported: None, failures: 0 })
    }

    /// The status of all sessions; empty before the first one.
    pub(super) fn report(&self) -> BfdReport {
        let handle = {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.driver.as_ref().map(Driver::handle)
        };
        handle.and_then(|handle| handle.report().ok()).unwrap_or_default()
    }

    /// Sends AdminDown to all neighbours and ends the thread, at most after `timeout`. Blocks.
    pub(super) fn shutdown(&self, timeout: Duration) {
        let driver = self.inner.lock().unwrap_or_else(PoisonError::into_inner).driver.take();
        if let Some(driver) = driver {
            driver.shutdown(timeout);
        }
    }
}

impl BfdClient {
    /// Changes the profile of the session, by a poll sequence if it is Up.
    pub(super) fn update(&self, profile: Profile) -> Result<(), SubscribeError> {
        Ok(self.handle.add_session(self.path.clone(), profile).map(drop)?)
    }

    pub(super) const fn path(&self) -> &BfdPath {
        &self.path
    }

    pub(super) fn status(&self) -> watch::Ref<'_, BfdStatus> {
        self.status.borrow()
    }

    /// The next states to report to the BGP session, in order. Cancelling it loses nothing.
    pub(super) async fn next_states(&mut self) -> Vec<BfdState> {
        loop {
            let states = self.poll_states();
            if !states.is_empty() {
                return states;
            }
            if self.status.changed().await.is_err() {
                // The thread has ended, so there are no further changes.
                std::future::pending::<()>().await;
            }
        }
    }

    fn poll_states(&mut self) -> Vec<BfdState> {
        let (state, failures) = {
            let status = self.status.borrow_and_update();
            (state_of(&status), status.failures)
        };
        let failed = std::mem::replace(&mut self.failures, failures) != failures;
        let states = states_to_report(self.reported, state, failed);
        self.reported = states.last().copied().or(self.reported);
        states
    }
}

impl Drop for BfdClient {
    fn drop(&mut self) {
        let mut inner = self.sessions.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(clients) = inner.clients.get_mut(&self.path) else { return };
        *clients -= 1;
        if *clients == 0 {
            inner.clients.remove(&self.path);
            // It fails only if the thread has ended, and the session with it.
            let _ = self.handle.remove_session(&self.path);
        }
    }
}

/// The path to a router by the configuration of its peer.
pub(super) fn path_to(remote: IpAddr, endpoint: &Endpoint, bfd: &BfdConfig, addresses: &Addresses) -> BfdPath {
    let guess = || match endpoint.distance {
        Distance::Routed if !on_link(remote, endpoint.device.as_deref()) => Hops::Multiple,
        _ => Hops::Single,
    };
    let interface = match &endpoint.router {
        Router::Unnumbered { interface, .. } => Some(interface.clone()),
        Router::Address(_) => None,
    };
    BfdPath {
        remote,
        hops: bfd.hops.unwrap_or_else(guess),
        // As for the connection: if this host does not have the address, the kernel selects one.
        local: endpoint.source.filter(|source| addresses.has(*source)),
        interface,
        vrf: endpoint.device.clone(),
    }
}

/// The states to report to a client that knows `reported`, if the session is in `state` now. `failed`: the session
/// failed in the meantime.
fn states_to_report(reported: Option<BfdState>, state: BfdState, failed: bool) -> Vec<BfdState> {
    match (reported, state) {
        (Some(BfdState::Up), BfdState::Up) if failed => vec![BfdState::Down, BfdState::Up],
        // Down without a failure: the session was administratively down in the meantime.
        (Some(BfdState::Up), BfdState::Down) if !failed => vec![BfdState::AdminDown],
        (Some(reported), state) if reported == state => Vec::new(),
        (_, state) => vec![state],
    }
}

/// An administrative change says nothing about the path (RFC 5882 §3.2).
fn state_of(status: &BfdStatus) -> BfdState {
    match (status.state, status.cause) {
        (State::Up, _) => BfdState::Up,
        (State::AdminDown, _) | (_, Some(Cause::NeighborAdminDown | Cause::AdminDown)) => BfdState::AdminDown,
        _ => BfdState::Down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_failure_is_reported_once() {
        use BfdState::{AdminDown, Down, Up};
        for (reported, state, failed, expected) in [
            (None, Down, false, &[Down][..]),
            (None, Up, false, &[Up]),
            (Some(Down), Up, false, &[Up]),
            (Some(Up), Down, true, &[Down]),
            (Some(Up), Up, true, &[Down, Up]),
            (Some(Up), Up, false, &[]),
            (Some(Up), AdminDown, false, &[AdminDown]),
            (Some(Up), Down, false, &[AdminDown]),
            (Some(AdminDown), Down, false, &[Down]),
            (Some(AdminDown), AdminDown, false, &[]),
        ] {
            assert_eq!(states_to_report(reported, state, failed), expected, "{reported:?} {state:?} {failed}");
        }
    }

    #[test]
    fn hops_follow_from_the_addresses_unless_configured() {
        let endpoint = |distance| Endpoint::new("127.0.0.9:179".parse().unwrap(), distance);
        // It has no route.
        let far = "0.0.0.1".parse().unwrap();
        let near = "127.0.0.9".parse().unwrap();
        let addresses = Addresses::read();
        let bfd = |hops| BfdConfig { profile: Profile::default(), hops };
        for (remote, distance, hops, expected) in [
            (near, Distance::Routed, None, Hops::Single),
            (far, Distance::Routed, None, Hops::Multiple),
            (far, Distance::Direct, None, Hops::Single),
            (near, Distance::Routed, Some(Hops::Multiple), Hops::Multiple),
        ] {
            assert_eq!(path_to(remote, &endpoint(distance), &bfd(hops), &addresses).hops, expected);
        }
        let from = |source: &str| Endpoint { source: source.parse().ok(), ..endpoint(Distance::Direct) };
        assert_eq!(path_to(near, &from("192.0.2.7"), &bfd(None), &addresses).local, None, "not on this host");
        assert!(path_to(near, &from("127.0.0.1"), &bfd(None), &addresses).local.is_some());
    }

    #[test]
    fn session_is_removed_with_its_last_client() {
        let sessions = Arc::new(BfdSessions::default());
        // Without the interface no port is bound.
        let interface = Some("mlb-none".to_owned());
        let path = BfdPath { interface, ..BfdPath::new("127.0.0.9".parse().unwrap(), Hops::Single) };
        assert!(sessions.report().sessions.is_empty(), "no thread yet");
        let first = sessions.subscribe(path.clone(), Profile::default()).unwrap();
        let second = sessions.subscribe(path.clone(), Profile::default()).unwrap();
        drop(first);
        assert_eq!(sessions.report().sessions.len(), 1);
        drop(second);
        assert!(sessions.report().sessions.is_empty());
        let unspecified = BfdPath::new("0.0.0.0".parse().unwrap(), Hops::Single);
        sessions.subscribe(unspecified, Profile::default()).unwrap_err();
        sessions.shutdown(Duration::ZERO);
    }
}
