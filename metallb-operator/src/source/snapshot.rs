//! The present state of the cluster, each kind listed once: the facts of `plan` and `explain` without manifests.
//!
//! The answers of the API server are read like files.

use std::path::PathBuf;

use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Request;
use kube::{Client, Config, Error};
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;

use crate::source::manifests::{Manifests, Strictness};

/// How to reach the cluster; the defaults are those of `kubectl`.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Path of the kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig.
    pub context: Option<String>,
}

/// Why the cluster cannot be read.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[from] KubeconfigError),
    /// There is neither a kubeconfig nor a service account.
    #[error("there is no kubeconfig and no service account")]
    Nowhere(#[from] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("cannot set up the Kubernetes client")]
    Client(#[source] Box<Error>),
    /// A kind cannot be listed.
    #[error("cannot list {what}")]
    List {
        /// Plural of the kind.
        what: &'static str,
        /// Error of the request.
        #[source]
        source: Box<Error>,
    },
    /// A request cannot be built.
    #[error("cannot build the request for {what}")]
    Request {
        /// Plural of the kind.
        what: &'static str,
        /// Error of the library.
        #[source]
        source: Box<kube::core::request::Error>,
    },
    /// The runtime cannot be started.
    #[error("cannot start the async runtime")]
    Runtime(#[from] std::io::Error),
}

/// Lists everything once. Configuration is read from `namespace` only.
///
/// # Errors
/// The cluster cannot be reached, or a kind cannot be listed. A kind that the cluster does not know has no objects.
pub fn take(access: &Access, namespace: &str) -> Result<Manifests, SnapshotError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client =
            Client::try_from(access.config().await?).map_err(|error| SnapshotError::Client(Box::new(error)))?;
        let mut manifests = Manifests::new(namespace).with(Strictness::Stored);
        for (group, resource, what) in KINDS {
            let mut listed = pages(&client, format!("{group}/{resource}"), what).await;
            // A user with access to one namespace can still read the configuration there.
            if group.starts_with("/apis/metallb.io/") && listed.as_ref().is_err_and(SnapshotError::is_forbidden) {
                listed = pages(&client, format!("{group}/namespaces/{namespace}/{resource}"), what).await;
            }
            for page in listed? {
                manifests.parse(&page, &format!("cluster, {what}"));
            }
        }
        secrets(&client, namespace, &mut manifests).await?;
        Ok(manifests)
    })
}

impl SnapshotError {
    fn is_forbidden(&self) -> bool {
        matches!(self, Self::List { source, .. } if matches!(&**source, Error::Api(status) if status.code == 403))
    }
}

impl Access {
    async fn config(&self) -> Result<Config, SnapshotError> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match &self.kubeconfig {
            Some(path) => Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?),
            None if self.context.is_some() => Ok(Config::from_kubeconfig(&options).await?),
            None => Ok(Config::infer().await?),
        }
    }
}

/// All pages of one kind, as the server wrote them.
async fn pages(client: &Client, path: String, what: &'static str) -> Result<Vec<String>, SnapshotError> {
    #[derive(Deserialize)]
    struct Page {
        metadata: PageMetadata,
    }
    #[derive(Deserialize)]
    struct PageMetadata {
        #[serde(default, rename = "continue")]
        token: String,
    }

    let request = Request::new(path);
    let mut pages = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let asked =
            request.list(&parameters).map_err(|source| SnapshotError::Request { what, source: Box::new(source) })?;
        let page = match client.request_text(asked).await {
            Ok(page) => page,
            Err(Error::Api(status)) if status.code == 404 => return Ok(pages),
            Err(source) => return Err(SnapshotError::List { what, source: Box::new(source) }),
        };
        let next = serde_json::from_str::<Page>(&page).map(|page| page.metadata.token).unwrap_or_default();
        pages.push(page);
        if next.is_empty() {
            return Ok(pages);
        }
        parameters = parameters.continue_token(&next);
    }
}

/// Reads the Secrets that peers name, and no others. A Secret that the user may not read is assumed to be valid.
#[expect(clippy::print_stderr, reason = "notes must not mix with the result")]
async fn secrets(client: &Client, namespace: &str, manifests: &mut Manifests) -> Result<(), SnapshotError> {
    let what = "Secrets";
    for name in manifests.password_secrets() {
        let request = Request::new(format!("/api/v1/namespaces/{namespace}/secrets"))
            .get(&name, &kube::api::GetParams::default())
            .map_err(|source| SnapshotError::Request { what, source: Box::new(source) })?;
        match client.request_text(request).await {
            Ok(secret) => manifests.parse(&secret, "cluster, Secrets"),
            Err(Error::Api(status)) if status.code == 404 => {}
            Err(Error::Api(status)) if status.code == 403 => {
                eprintln!("metallb: note: cannot read Secret {namespace}/{name}; its password is assumed to be valid");
                let stand_in = json!({
                    "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
                    "metadata": {"name": name, "namespace": namespace}, "stringData": {"password": "unread"},
                });
                manifests.add(stand_in, "cluster, Secrets");
            }
            Err(source) => return Err(SnapshotError::List { what, source: Box::new(source) }),
        }
    }
    Ok(())
}

/// Path of each kind, in reading order: group, resource, name.
const KINDS: [(&str, &str, &str); 10] = [
    ("/apis/metallb.io/v1beta1", "ipaddresspools", "IPAddressPools"),
    ("/apis/metallb.io/v1beta1", "l2advertisements", "L2Advertisements"),
    ("/apis/metallb.io/v1beta1", "bgpadvertisements", "BGPAdvertisements"),
    ("/apis/metallb.io/v1beta2", "bgppeers", "BGPPeers"),
    ("/apis/metallb.io/v1beta1", "bfdprofiles", "BFDProfiles"),
    ("/apis/metallb.io/v1beta1", "communities", "Communities"),
    ("/api/v1", "namespaces", "Namespaces"),
    ("/api/v1", "nodes", "Nodes"),
    ("/api/v1", "services", "Services"),
    ("/apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlices"),
];

/// Objects per request, as in `kubectl`.
const PAGE: u32 = 500;
