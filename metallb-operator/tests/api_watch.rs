//! Following kinds of a real API server: versions, pages, deletions and new rounds are as `source::watches` expects them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "the harness says why it skips")]

use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use metallb_core::model::ServiceKey;
use metallb_operator::index::{Index, Relist, Role, Touched, Update};
use metallb_operator::source::changes::{Change, Listed, Metadata, Round};
use metallb_operator::source::watches::{self, Demand};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use support::api_server::{ApiServer, Identity};

#[allow(dead_code, reason = "nodes and endpoints do not matter here")]
mod support {
    pub(crate) mod api_server;
}

const PATIENCE: Duration = Duration::from_secs(60);

async fn next<T>(queue: &mut mpsc::Receiver<T>) -> T {
    timeout(PATIENCE, queue.recv()).await.expect("news in time").unwrap()
}

async fn next_list(queue: &mut mpsc::Receiver<Change<ConfigMap>>) -> Listed<ConfigMap> {
    loop {
        if let Change::Reset(listed) = next(queue).await {
            return listed;
        }
    }
}

#[tokio::test]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_watch_reads_pages_of_one_version_and_deletions_with_a_version_of_their_own() {
    let Some(server) = ApiServer::start("api_watch_reads_pages").await else { return };
    let client = server.client(Identity::Admin).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let create = async |name: String| {
        let map = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap()
    };
    // One more than fits in a page.
    stream::iter(0..501).map(|number| create(format!("map-{number}"))).buffer_unordered(16).collect::<Vec<_>>().await;

    let (demand, asked) = watch::channel(Demand::default());
    let (queue, mut changes) = mpsc::channel(16);
    watches::spawn(Api::namespaced(client.clone(), "default"), asked, queue, |change: Change<ConfigMap>| change);
    let first = next_list(&mut changes).await;
    assert!(first.objects.len() >= 501, "{}", first.objects.len());
    let newest = first.objects.iter().map(|map| Metadata::of(&map.metadata).identity.version);
    assert!(
        newest.into_iter().all(|version| !first.version.is_older_than(&version)),
        "a list is as new as its objects"
    );

    let created = Metadata::of(&create("late".to_owned()).await.metadata);
    let Change::Apply(seen) = next(&mut changes).await else { panic!("no event of the creation") };
    assert_eq!(Metadata::of(&seen.metadata), created);
    maps.delete("late", &DeleteParams::default()).await.unwrap();
    let Change::Delete(deleted) = next(&mut changes).await else { panic!("no event of the deletion") };
    assert_eq!((&deleted.name, &deleted.identity.uid), (&created.name, &created.identity.uid));
    assert!(created.identity.version.is_older_than(&deleted.identity.version), "{deleted:?}");

    let round = Round::default().next();
    demand.send_modify(|demand| demand.round = round);
    let second = next_list(&mut changes).await;
    assert_eq!((second.round, second.objects.len()), (round, first.objects.len()));
    assert!(!second.version.is_older_than(&deleted.identity.version), "a list is read from the store");
}

#[tokio::test]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_watch_feed_is_complete_again_in_a_new_round_and_admits_our_own_write_once() {
    let Some(server) = ApiServer::start("api_watch_feed_is_complete_again").await else { return };
    server.install().await;
    let services: Api<Service> = Api::namespaced(server.client(Identity::Admin).await, "default");
    let service = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();

    let client = server.client(Identity::Controller).await;
    let (mut index, mut updates) = Index::start(&client, "metallb-system", Role::Controller { conflicts: true });
    complete(&mut index, &mut updates).await;
    let key = ServiceKey::new("default", "web");
    let before = index.identity(&key).unwrap().clone();

    let patch = Patch::Merge(json!({"metadata": {"labels": {"app": "web"}}}));
    let answer = services.patch("web", &PatchParams::default(), &patch).await.unwrap();
    let touched = index.observe(answer, index.round());
    assert!(touched.versions.contains(&key) && touched.services.contains(&key));
    let written = index.identity(&key).unwrap().clone();
    assert!(before.version.is_older_than(&written.version));

    index.relist(Relist::Again);
    assert!(!index.is_complete() && index.was_complete());
    let touched = complete(&mut index, &mut updates).await;
    assert!(!touched.versions.contains(&key), "neither the event nor the list is news");
    assert_eq!(index.identity(&key), Some(&written));

    services.delete("web", &DeleteParams::default()).await.unwrap();
    index.relist(Relist::Forget);
    assert!(index.identity(&key).is_none(), "its version is forgotten");
    let touched = complete(&mut index, &mut updates).await;
    assert!(touched.services.contains(&key) && !index.cluster().services.contains_key(&key));
}

async fn complete(index: &mut Index, updates: &mut mpsc::Receiver<Update>) -> Touched {
    let mut touched = Touched::default();
    while !index.is_complete() {
        touched.merge(index.apply([next(updates).await]));
    }
    touched
}
