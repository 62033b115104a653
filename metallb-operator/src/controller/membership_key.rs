//! The Secret with the membership key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

/// Creates the Secret with a random key if it does not exist. Retries until the API server has answered.
pub(super) async fn ensure(client: Client, namespace: String, name: String) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    loop {
        let Some(key) = random_key() else {
            tracing::error!(event = "membershipKey", "cannot create the membership key: no randomness available");
            return;
        };
        let secret = Secret {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            string_data: Some(BTreeMap::from([("secretkey".to_owned(), key)])),
            ..Secret::default()
        };
        match secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                tracing::info!(event = "membershipKey", secret = name, "created the Secret with the membership key");
                return;
            }
            Err(kube::Error::Api(status)) if status.code == 409 => return,
            Err(error) => {
                tracing::warn!(%error, event = "membershipKey", secret = name, "cannot create the Secret, retrying");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// 32 random bytes as hexadecimal text; speakers use the text itself as the key.
fn random_key() -> Option<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

const RETRY: Duration = Duration::from_secs(5);
