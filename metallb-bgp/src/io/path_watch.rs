//! The BFD sessions that peers ask for: one per path, however many ask, on one thread that starts with the first of them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

use super::addresses::Addresses;
use super::bfd_udp::{BfdError, BfdHandle, BfdPath, BfdReport, BfdStatus, BfdThread};
use super::{BfdConfig, Distance, Endpoint, Router};
use crate::bfd::{Cause, Hops, Profile, State};
use crate::session::BfdState;

/// All paths that are watched.
#[derive(Debug, Default)]
pub(super) struct PathWatches {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    thread: Option<BfdThread>,
    followers: BTreeMap<BfdPath, usize>,
}

/// One peer's view of a path; the path is no longer watched when the last of its views is dropped.
#[derive(Debug)]
pub(super) struct PathWatch {
    path: BfdPath,
    status: watch::Receiver<BfdStatus>,
    handle: BfdHandle,
    watches: Arc<PathWatches>,
    told: Option<BfdState>,
    failures: u64,
}

/// Why a path is not watched.
#[derive(Debug, Error)]
pub(super) enum WatchError {
    #[error("the BFD thread can't be started: {0}")]
    Thread(#[from] io::Error),
    #[error(transparent)]
    Path(#[from] BfdError),
}

impl PathWatches {
    /// Watches a path, or follows how it is watched already; the newest profile is the one in force.
    pub(super) fn follow(self: &Arc<Self>, path: BfdPath, profile: Profile) -> Result<PathWatch, WatchError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = match inner.thread.take() {
            Some(thread) => thread,
            None => BfdThread::spawn()?,
        };
        let handle = inner.thread.insert(thread).handle();
        let status = handle.add_session(path.clone(), profile)?;
        *inner.followers.entry(path.clone()).or_default() += 1;
        Ok(PathWatch { path, status, handle, watches: Arc::clone(self), told: None, failures: 0 })
    }

    /// Where all sessions stand; nothing before the first one.
    pub(super) fn report(&self) -> BfdReport {
        let handle = {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.thread.as_ref().map(BfdThread::handle)
        };
        handle.and_then(|handle| handle.report().ok()).unwrap_or_default()
    }

    /// Tells all neighbours that it is on purpose, `at_most` for so long. Blocks.
    pub(super) fn shutdown(&self, at_most: Duration) {
        let thread = self.inner.lock().unwrap_or_else(PoisonError::into_inner).thread.take();
        if let Some(thread) = thread {
            thread.shutdown(at_most);
        }
    }
}

impl PathWatch {
    /// Changes how the path is watched, by a poll sequence where the session is up.
    pub(super) fn update(&self, profile: Profile) -> Result<(), WatchError> {
        Ok(self.handle.add_session(self.path.clone(), profile).map(drop)?)
    }

    pub(super) const fn path(&self) -> &BfdPath {
        &self.path
    }

    pub(super) fn status(&self) -> watch::Ref<'_, BfdStatus> {
        self.status.borrow()
    }

    /// What the session must be told next, in order. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Vec<BfdState> {
        loop {
            let news = self.news();
            if !news.is_empty() {
                return news;
            }
            if self.status.changed().await.is_err() {
                // The thread ended: it tells no more.
                std::future::pending::<()>().await;
            }
        }
    }

    fn news(&mut self) -> Vec<BfdState> {
        let (state, failures) = {
            let status = self.status.borrow_and_update();
            (state_of(&status), status.failures)
        };
        let failed = std::mem::replace(&mut self.failures, failures) != failures;
        let news = news(self.told, state, failed);
        self.told = news.last().copied().or(self.told);
        news
    }
}

impl Drop for PathWatch {
    fn drop(&mut self) {
        let mut inner = self.watches.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(followers) = inner.followers.get_mut(&self.path) else { return };
        *followers -= 1;
        if *followers == 0 {
            inner.followers.remove(&self.path);
            // A thread that has ended watches nothing.
            let _ = self.handle.remove_session(&self.path);
        }
    }
}

/// The path to a router, as the peer's configuration describes it; `interface` is that of a link-local address.
pub(super) fn path_to(remote: IpAddr, endpoint: &Endpoint, bfd: &BfdConfig, addresses: &Addresses) -> BfdPath {
    let guess = || match endpoint.distance {
        Distance::Routed if !addresses.on_link(remote) => Hops::Multiple,
        _ => Hops::Single,
    };
    let interface = match &endpoint.router {
        Router::Behind { interface, .. } => Some(interface.clone()),
        Router::At(_) => None,
    };
    BfdPath {
        remote,
        hops: bfd.hops.unwrap_or_else(guess),
        // As for the connection itself: an address that is not here is left to the kernel.
        local: endpoint.source.filter(|source| addresses.has(*source)),
        interface,
        vrf: endpoint.device.clone(),
    }
}

/// What a client that knows `told` must hear when it finds `state`, having missed what was between; `failed` says whether a failure was.
fn news(told: Option<BfdState>, state: BfdState, failed: bool) -> Vec<BfdState> {
    match (told, state) {
        (Some(BfdState::Up), BfdState::Up) if failed => vec![BfdState::Down, BfdState::Up],
        // Down without a failure is the way back from being switched off.
        (Some(BfdState::Up), BfdState::Down) if !failed => vec![BfdState::AdminDown],
        (Some(told), state) if told == state => Vec::new(),
        (_, state) => vec![state],
    }
}

/// RFC 5882 §3.2: that somebody switched BFD off says nothing about the path.
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
    fn client_hears_of_failures_it_missed_and_of_no_others() {
        use BfdState::{AdminDown, Down, Up};
        for (told, state, failed, expected) in [
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
            assert_eq!(news(told, state, failed), expected, "{told:?} {state:?} {failed}");
        }
    }

    #[test]
    fn path_is_as_long_as_the_addresses_tell_unless_it_is_said() {
        let endpoint = |distance| Endpoint::new("127.0.0.9:179".parse().unwrap(), distance);
        let far = "192.0.2.1".parse().unwrap();
        let near = "127.0.0.9".parse().unwrap();
        let addresses = Addresses::of(&[("lo", "127.0.0.1/8")]);
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
    fn path_is_watched_until_the_last_follower_leaves() {
        let watches = Arc::new(PathWatches::default());
        // Where there is no such interface no port is taken.
        let interface = Some("mlb-none".to_owned());
        let path = BfdPath { interface, ..BfdPath::new("127.0.0.9".parse().unwrap(), Hops::Single) };
        assert!(watches.report().sessions.is_empty(), "no thread yet");
        let first = watches.follow(path.clone(), Profile::default()).unwrap();
        let second = watches.follow(path.clone(), Profile::default()).unwrap();
        drop(first);
        assert_eq!(watches.report().sessions.len(), 1);
        drop(second);
        assert!(watches.report().sessions.is_empty());
        let unspecified = BfdPath::new("0.0.0.0".parse().unwrap(), Hops::Single);
        watches.follow(unspecified, Profile::default()).unwrap_err();
        watches.shutdown(Duration::ZERO);
    }
}
