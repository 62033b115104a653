//! Services that come and go all the time, always more of them than there are addresses.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::stage::{Stage, create};

/// The life of the Services, until it is stopped.
pub(crate) struct Churn {
    stop: watch::Sender<bool>,
    living: JoinHandle<usize>,
}

impl Churn {
    /// Makes a pool of 40 addresses, all of which are taken soon, and begins.
    pub(crate) async fn start(stage: &Stage, seed: u64) -> Self {
        stage.scene.pool("full", "10.40.0.0-10.40.0.39", "").await;
        let services = stage.scene.services();
        let (stop, stopped) = watch::channel(false);
        let living = tokio::spawn(live(services, SmallRng::seed_from_u64(seed), stopped));
        Self { stop, living }
    }

    /// Ends it; returns how many Services came and went.
    pub(crate) async fn stop(self) -> usize {
        self.stop.send_replace(true);
        self.living.await.unwrap()
    }
}

async fn live(services: Api<Service>, mut random: SmallRng, stopped: watch::Receiver<bool>) -> usize {
    let mut alive = Vec::new();
    let mut created = 0;
    let mut pace = tokio::time::interval(PACE);
    while !*stopped.borrow() {
        let name = format!("churn-{created}");
        create(&services, &name, &json!({}), &json!({})).await;
        created += 1;
        alive.push(name);
        if alive.len() > ALIVE {
            pace.tick().await;
            let place = random.random_range(..ALIVE);
            services.delete(&alive.swap_remove(place), &DeleteParams::default()).await.unwrap();
        }
    }
    created
}

/// How many Services there are, for 40 addresses.
const ALIVE: usize = 55;

/// One creation and one deletion each time: 20 changes a second.
const PACE: Duration = Duration::from_millis(100);
