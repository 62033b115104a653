//! The addresses of this host, followed while they change.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::addresses::Addresses;
use super::netlink::AddressMonitor;

/// Follows the addresses of this host until it is dropped.
///
/// A notification of the kernel only triggers a list of all addresses, at most one in [`PAUSE`]: BGP has a second to
/// react, and a list cannot be wrong after a lost or reordered message.
#[derive(Debug)]
pub(super) struct HostAddresses {
    addresses: watch::Receiver<Arc<Addresses>>,
    task: JoinHandle<()>,
}

impl HostAddresses {
    /// Starts the task. Must be called inside a tokio runtime.
    pub(super) fn start() -> Self {
        let (sender, addresses) = watch::channel(Arc::new(Addresses::default()));
        // It is opened here and not in the task, so that no change after this call is lost.
        let mut monitor = AddressMonitor::open().inspect_err(report).ok();
        sender.send_replace(Arc::new(Addresses::read()));
        let task = tokio::spawn(async move {
            loop {
                if let Some(open) = &mut monitor
                    && let Err(error) = open.changed().await
                {
                    report(&error);
                    monitor = None;
                }
                let now = Arc::new(Addresses::read());
                sender.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
                sleep(if monitor.is_some() { PAUSE } else { POLL }).await;
            }
        });
        Self { addresses, task }
    }

    /// The current addresses, and their changes.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Addresses>> {
        self.addresses.clone()
    }
}

impl Drop for HostAddresses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn report(error: &io::Error) {
    tracing::warn!(
        event = "addressesNotFollowed", %error,
        "the kernel does not report changes of addresses, so they are listed once a second"
    );
}

/// Minimum interval between two lists.
const PAUSE: Duration = Duration::from_millis(100);

/// Interval of lists while the kernel sends no notifications.
const POLL: Duration = Duration::from_secs(1);
