//! The commands for the task of a peer, as one slot per kind of command.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};

use super::PeerConfig;
use super::incoming_report::PendingConnection;
use crate::session::Stop;
use crate::types::Attributes;

/// All routes of a peer.
pub(super) type Routes = Arc<BTreeMap<IpNet, Arc<Attributes>>>;

/// Changed routes; `None` removes one.
pub(super) type Changes = Vec<(IpNet, Option<Arc<Attributes>>)>;

/// The mailbox of a peer's task.
///
/// It is bounded because it holds the wanted state and not a history. A command that is not yet applied when the next
/// one of its kind arrives is overtaken by it: new routes replace the old ones, a change replaces the earlier change of
/// the same prefix, and a configuration replaces the configuration before. The number of changes is thus bounded by the
/// number of prefixes of the caller. Connections are the exception: each is a resource of its own, and there is room
/// for [`CONNECTIONS_MAX`].
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    content: Mutex<Content>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Content {
    commands: Commands,
    routes: RouteCommands,
}

/// The commands that are not about routes, in the order in which they are applied.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub(super) config: Option<Box<PeerConfig>>,
    pub(super) connections: Vec<(TcpStream, Option<PendingConnection>)>,
    pub(super) drain: Option<Drain>,
    pub(super) stop: Option<Stop>,
    /// The driver was dropped: there will be no further command.
    pub(super) closed: bool,
}

/// The commands about routes: `changes` apply after `all`.
#[derive(Debug, Default)]
pub(super) struct RouteCommands {
    pub(super) all: Option<Routes>,
    pub(super) changes: BTreeMap<IpNet, Option<Arc<Attributes>>>,
}

/// A request to start a graceful shutdown. The reply says whether one was started.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) keep_routes: bool,
    pub(super) reply: oneshot::Sender<bool>,
}

impl Mailbox {
    pub(super) fn set_routes(&self, routes: Routes) {
        self.put(|content| content.routes = RouteCommands { all: Some(routes), changes: BTreeMap::new() });
    }

    pub(super) fn change_routes(&self, changes: Changes) {
        let changes = changes.into_iter().map(|(prefix, attributes)| (prefix.trunc(), attributes));
        self.put(|content| content.routes.changes.extend(changes));
    }

    pub(super) fn configure(&self, config: PeerConfig) {
        self.put(|content| content.commands.config = Some(Box::new(config)));
    }

    /// Hands over a connection that the peer has opened. If there is no room the connection is returned.
    pub(super) fn accept(
        &self,
        stream: TcpStream,
        pending: Option<PendingConnection>,
    ) -> Result<(), (TcpStream, Option<PendingConnection>)> {
        self.put(|content| {
            let connections = &mut content.commands.connections;
            if content.commands.closed || connections.len() >= CONNECTIONS_MAX {
                return Err((stream, pending));
            }
            connections.push((stream, pending));
            Ok(())
        })
    }

    /// A later request overtakes an earlier one, whose reply is then cancelled.
    pub(super) fn drain(&self, drain: Drain) {
        self.put(|content| content.commands.drain = Some(drain));
    }

    pub(super) fn stop(&self, stop: Stop) {
        self.put(|content| content.commands.stop = Some(stop));
    }

    pub(super) fn close(&self) {
        self.put(|content| content.commands.closed = true);
    }

    /// Wakes the task without a command.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until something was put in. Cancelling it loses nothing.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes all commands, except for those about routes.
    pub(super) fn take_commands(&self) -> Commands {
        let mut content = self.lock();
        let closed = content.commands.closed;
        let taken = std::mem::take(&mut content.commands);
        content.commands.closed = closed;
        taken
    }

    /// Takes the commands about routes. The caller must hold the lock of the engine until it has applied them, so that
    /// no direct write can get in between.
    pub(super) fn take_routes(&self) -> RouteCommands {
        std::mem::take(&mut self.lock().routes)
    }

    /// Whether there are commands about routes that were not taken.
    pub(super) fn has_routes(&self) -> bool {
        let content = self.lock();
        content.routes.all.is_some() || !content.routes.changes.is_empty()
    }

    fn put<T>(&self, put: impl FnOnce(&mut Content) -> T) -> T {
        let result = put(&mut self.lock());
        self.wake.notify_one();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maximum number of connections that wait for the task. A peer needs one or two.
pub(super) const CONNECTIONS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn net(last: u8) -> IpNet {
        IpNet::from(std::net::IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn later_command_overtakes_an_earlier_one_of_its_kind() {
        let mailbox = Mailbox::default();
        let route: Arc<Attributes> = Arc::default();
        for last in 0..100 {
            mailbox.change_routes(vec![(net(last % 2), Some(Arc::clone(&route)))]);
        }
        assert!(mailbox.has_routes());
        assert_eq!(mailbox.lock().routes.changes.len(), 2, "one change per prefix");
        mailbox.set_routes(Arc::new(BTreeMap::from([(net(7), Arc::clone(&route))])));
        mailbox.change_routes(vec![(net(7), None)]);
        let routes = mailbox.take_routes();
        assert_eq!(routes.all.map(|all| all.len()), Some(1));
        assert_eq!(routes.changes, BTreeMap::from([(net(7), None)]), "changes before the new routes are gone");
        assert!(!mailbox.has_routes());
    }

    #[test]
    fn earlier_drain_request_is_cancelled_by_a_later_one() {
        let mailbox = Mailbox::default();
        let (reply, mut first) = oneshot::channel();
        mailbox.drain(Drain { keep_routes: true, reply });
        let (reply, mut second) = oneshot::channel();
        mailbox.drain(Drain { keep_routes: false, reply });
        assert!(first.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        let taken = mailbox.take_commands().drain.expect("the later request");
        taken.reply.send(true).unwrap();
        assert_eq!((taken.keep_routes, second.try_recv()), (false, Ok(true)));
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_returned() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mailbox = Mailbox::default();
        for count in 0..CONNECTIONS_MAX + 2 {
            let stream = TcpStream::connect(address).await.unwrap();
            assert_eq!(mailbox.accept(stream, None).is_ok(), count < CONNECTIONS_MAX);
        }
        assert_eq!(mailbox.take_commands().connections.len(), CONNECTIONS_MAX);
        mailbox.close();
        let stream = TcpStream::connect(address).await.unwrap();
        assert!(mailbox.accept(stream, None).is_err(), "the task has ended");
    }
}
