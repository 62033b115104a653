//! Stores the last valid forms of configuration objects, for processes that start beside an invalid one
//! (`docs/design/0032-last-good-forms.md`). A newer state replaces an older one, so a burst costs few requests.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use metallb_core::config::spec::Resources;
use serde_json::json;
use tokio::sync::watch;

use crate::sink::lease::{Leadership, Term};
use crate::source::last_good;

/// The forms to store.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastGood {
    /// The term of leadership that determined them; `None` for a standby, which writes nothing.
    pub(crate) term: Option<Term>,
    /// The forms.
    pub(crate) good: Resources,
}

/// Starts the writer. It ends when the sender is dropped.
pub(crate) fn spawn(client: Client, namespace: &str, leadership: Leadership) -> watch::Sender<LastGood> {
    let (sender, mut desired) = watch::channel(LastGood::default());
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    tokio::spawn(async move {
        let mut written: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut term = None;
        let mut is_failing = false;
        while desired.changed().await.is_ok() {
            let wanted = desired.borrow_and_update().clone();
            let Some(current) = wanted.term else { continue };
            if term.replace(current) != Some(current) {
                // Another leader may have written since.
                written.clear();
            }
            // These types always have a JSON form.
            let Ok(parts) = last_good::encode(&wanted.good) else { continue };
            let mut failure = None;
            for (name, data) in parts {
                if written.get(&name) == Some(&data) || !leadership.may_write(current) {
                    continue;
                }
                match write(&maps, &name, &data).await {
                    Ok(()) => drop(written.insert(name, data)),
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = &failure
                && !is_failing
            {
                tracing::warn!(
                    %error, event = "lastGoodNotStored",
                    "cannot store the last valid forms of the configuration: a restart loses them"
                );
            }
            is_failing = failure.is_some();
            tokio::time::sleep(if is_failing { RETRY } else { PAUSE }).await;
            if is_failing {
                desired.mark_changed();
            }
        }
    });
    sender
}

async fn write(maps: &Api<ConfigMap>, name: &str, data: &BTreeMap<String, String>) -> Result<(), kube::Error> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": name, "labels": {"app": "metallb"}},
    });
    maps.patch(name, &PatchParams::apply("metallb-controller").force(), &Patch::Apply(map)).await.map(|_| ())
}

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(200);

/// Pause after a failed write: nothing depends on the forms until an object is invalid and a process starts.
const RETRY: Duration = Duration::from_secs(30);
