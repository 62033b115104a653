//! etcd restored from a snapshot, and the API server started again: its versions go back, and objects that were
//! deleted are there again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use crate::stage::{Stage, names, report};
use crate::support::scene::{Server, eventually, holds, ips};

/// What becomes of the versions after the restore.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Versions {
    /// Other writes bring them past the last one before the restore.
    PassTheOldOnes,
    /// They stay below it.
    StayBelow,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_etcd_restored_and_written_past_its_old_version_gives_no_address_twice() {
    etcd_is_restored("etcd restored, versions pass the old ones", Versions::PassTheOldOnes).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_etcd_restored_below_its_old_version_gives_no_address_twice() {
    etcd_is_restored("etcd restored, versions stay below", Versions::StayBelow).await;
}

async fn etcd_is_restored(row: &str, versions: Versions) {
    let Some(mut stage) = Stage::alone(row).await else { return };
    stage.scene.pool("a", "10.16.0.0/24", "").await;
    let controller = stage.controller();
    let (kept, deleted, new) = (names("kept", 20), names("deleted", 20), names("new", 20));
    for name in kept.iter().chain(&deleted) {
        stage.create(name).await;
    }
    let old = [kept.clone(), deleted.clone()].concat();
    stage.served(&old, Duration::from_secs(60), &controller).await;
    let before = stored(&stage, &old).await;
    let snapshot = stage.scene.api.snapshot();
    for name in &deleted {
        stage.delete(name).await;
    }
    let last = match versions {
        Versions::PassTheOldOnes => write(&stage, 1).await,
        Versions::StayBelow => write(&stage, 500).await,
    };
    // The controller has seen that the addresses of the deleted ones are free.
    tokio::time::sleep(Duration::from_secs(1)).await;

    let Server::Own(api) = &mut stage.scene.api else { panic!("the scene has an API server of its own") };
    api.restore(&snapshot);
    // As the documentation of Kubernetes asks for: it would go on to answer from its cache of what was.
    api.restart_server().await;
    let services = stage.scene.services();
    eventually(&controller.process, async || {
        let restored = services.get_opt("deleted-0").await;
        holds(matches!(restored, Ok(Some(_))), format!("not restored: {restored:?}"))
    })
    .await;
    let mut version = write(&stage, 1).await;
    assert!(version < last, "the versions did not go back: {version} after {last}");
    while versions == Versions::PassTheOldOnes && version <= last {
        version = write(&stage, 1).await;
    }
    let begin = Instant::now();
    for name in &new {
        stage.create(name).await;
    }
    let all = [old.clone(), new.clone()].concat();
    let deadline = begin + Duration::from_secs(50);
    loop {
        let found = stored(&stage, &new).await;
        let waiting: Vec<_> = new.iter().filter(|name| found[*name].is_empty()).collect();
        if waiting.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{} new Services wait\n{}", waiting.len(), controller.process.output());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    report(row, &format!("new Services are served {:?} after the restore", begin.elapsed()));
    // Whatever is still to be mended has its time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = stored(&stage, &all).await;
    let held: Vec<&String> = after.values().flatten().collect();
    let doubles = held.len() - held.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(doubles, 0, "addresses with two holders: {after:?}");
    let moved: Vec<_> = old.iter().filter(|name| before[*name] != after[*name]).collect();
    assert!(moved.is_empty(), "renumbered: {moved:?}");
}

/// The addresses as they are stored: single objects are read from etcd and not from the API server's cache.
async fn stored(stage: &Stage, names: &[String]) -> BTreeMap<String, Vec<String>> {
    let services = stage.scene.services();
    let mut found = BTreeMap::new();
    for name in names {
        let service = services.get(name).await.unwrap();
        found.insert(name.clone(), ips(&service).map(str::to_owned).collect());
    }
    found
}

/// Makes other objects; returns the version of the last one.
async fn write(stage: &Stage, count: usize) -> u64 {
    let maps: Api<ConfigMap> = Api::namespaced(stage.scene.client.clone(), "default");
    let mut map = ConfigMap::default();
    map.metadata.generate_name = Some("life-".to_owned());
    let mut version = 0;
    for _ in 0..count {
        version = maps.create(&PostParams::default(), &map).await.unwrap().resource_version().unwrap().parse().unwrap();
    }
    version
}
