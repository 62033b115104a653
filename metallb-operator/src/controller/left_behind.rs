//! Finds the webhook configuration of upstream, which an installation of upstream leaves behind.
//!
//! No admission webhook is served here. With the failure policy `Fail`, the API server then refuses every change of the
//! configuration, and says so only to the client that makes it.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Client;
use kube::api::Api;
use tokio::sync::watch;

/// Looks for the configuration now and then, until the receiver is dropped. The value is its uid; `None` if it does not
/// exist, blocks nothing, calls a webhook outside of `namespace`, or cannot be read.
pub(super) fn spawn(client: Client, namespace: String) -> watch::Receiver<Option<String>> {
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client);
    let (found, receiver) = watch::channel(None);
    tokio::spawn(async move {
        while !found.is_closed() {
            // A Role without this verb, or no answer, proves nothing.
            if let Ok(configuration) = configurations.get_opt(NAME).await {
                let blocking = configuration.filter(|configuration| blocks(configuration, &namespace));
                let uid = blocking.and_then(|configuration| configuration.metadata.uid);
                found.send_if_modified(|known| std::mem::replace(known, uid.clone()) != uid);
            }
            tokio::time::sleep(PERIOD).await;
        }
    });
    receiver
}

/// Whether an unanswered webhook of the configuration refuses requests, and its Service is one of ours.
fn blocks(configuration: &ValidatingWebhookConfiguration, namespace: &str) -> bool {
    configuration.webhooks.iter().flatten().any(|webhook| {
        let is_here = webhook.client_config.service.as_ref().is_some_and(|service| service.namespace == namespace);
        is_here && webhook.failure_policy.as_deref() != Some("Ignore")
    })
}

/// Upstream's name, in its manifests and in its chart.
pub(super) const NAME: &str = "metallb-webhook-configuration";

/// Interval of the checks.
const PERIOD: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configuration_blocks_where_its_service_is_ours_and_its_policy_is_to_fail() {
        let rows =
            [("Fail", "metallb-system", true), ("Ignore", "metallb-system", false), ("Fail", "elsewhere", false)];
        for (policy, namespace, expected) in rows {
            let configuration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
                "metadata": { "name": NAME },
                "webhooks": [{
                    "name": "ipaddresspoolvalidationwebhook.metallb.io", "failurePolicy": policy,
                    "admissionReviewVersions": ["v1"], "sideEffects": "None",
                    "clientConfig": { "service": { "name": "metallb-webhook-service", "namespace": namespace } },
                }],
            }))
            .unwrap();
            assert_eq!(blocks(&configuration, "metallb-system"), expected, "{policy} {namespace}");
        }
        assert!(!blocks(&ValidatingWebhookConfiguration::default(), "metallb-system"));
    }
}
