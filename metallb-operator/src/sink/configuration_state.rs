//! Writes `ConfigurationState`: whether this process can use the whole configuration
//! (`docs/upstream-behaviour.md#statuses`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Client, Error, Resource as _};
use metallb_core::config::{Problem, Severity};
use serde_json::json;
use tokio::sync::watch;

use crate::api::{ConfigurationState, ConfigurationStateStatus};
use crate::sink::status_verb::StatusWriter;

/// The reporting process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Component {
    /// The controller.
    Controller,
    /// The speaker of a node.
    Speaker {
        /// The node.
        node: String,
    },
}

/// Writes the object in the background. A newer verdict replaces an older one.
#[derive(Clone, Debug)]
pub struct ConfigurationReporter {
    verdict: watch::Sender<Option<Verdict>>,
}

/// The problems of the configuration, and what this process cannot do; empty if the configuration is in force.
type Verdict = Vec<String>;

impl Component {
    fn object_name(&self) -> String {
        match self {
            Self::Controller => "controller".to_owned(),
            Self::Speaker { node } => format!("speaker-{node}"),
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let label = |key: &str, value: &str| (format!("metallb.io/{key}"), value.to_owned());
        match self {
            Self::Controller => BTreeMap::from([label("component-type", "controller")]),
            Self::Speaker { node } => BTreeMap::from([label("component-type", "speaker"), label("node-name", node)]),
        }
    }

    /// Upstream's field manager of the status.
    const fn manager(&self) -> &'static str {
        match self {
            Self::Controller => "poolReconciler",
            Self::Speaker { .. } => "configReconciler",
        }
    }

    const fn condition(&self) -> &'static str {
        match self {
            Self::Controller => "poolReconcilerValid",
            Self::Speaker { .. } => "configReconcilerValid",
        }
    }
}

impl ConfigurationReporter {
    /// Starts the writer. The Pod `pod` owns the object; without a Pod it outlives the process.
    #[must_use]
    pub fn spawn(client: Client, namespace: &str, pod: &str, component: Component) -> Self {
        let (verdict, mut verdicts) = watch::channel(None);
        let writer = Writer {
            states: Api::namespaced(client.clone(), namespace),
            statuses: StatusWriter::new::<ConfigurationState>(client.clone(), namespace, Some(component.manager())),
            pods: Api::namespaced(client, namespace),
            pod: pod.to_owned(),
            component,
        };
        tokio::spawn(async move {
            // If somebody deletes or edits the object, it is written again.
            let mut seen =
                watch_object(writer.states.clone(), &writer.component.object_name()).default_backoff().boxed();
            loop {
                tokio::select! {
                    changed = verdicts.changed() => if changed.is_err() { return },
                    state = seen.try_next() => match state {
                        Ok(_) => {}
                        Err(error) => {
                            tracing::debug!(
                                %error, event = "configurationStateWatchFailed",
                                "cannot watch the ConfigurationState, retrying"
                            );
                            continue;
                        }
                    },
                }
                let Some(verdict) = verdicts.borrow_and_update().clone() else { continue };
                if let Err(error) = writer.converge(&verdict).await {
                    tracing::warn!(
                        %error, event = "configurationStateWriteFailed", "cannot write the ConfigurationState, retrying"
                    );
                    tokio::time::sleep(RETRY).await;
                    verdicts.mark_changed();
                }
            }
        });
        Self { verdict }
    }

    /// Stops writing until the next [`report`](Self::report), because another process reports now.
    pub fn stand_by(&self) {
        self.verdict.send_if_modified(|known| known.take().is_some());
    }

    /// Reports the present problems, and obstacles that keep the process from applying the configuration.
    pub fn report(&self, problems: &BTreeSet<Problem>, obstacles: &[String]) {
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        let errors = errors.map(|problem| format!("configuration error: {}", text(problem)));
        let verdict: Verdict = errors.chain(obstacles.iter().cloned()).collect();
        self.verdict.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&verdict);
            *known = Some(verdict);
            changed
        });
    }
}

/// The message of a problem as upstream words it, and the object and the field where the message does not name them.
fn text(problem: &Problem) -> String {
    let Problem { object, field, message, .. } = problem;
    let mut words = message.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.'));
    if words.any(|word| word.trim_end_matches('.') == &*object.name) {
        message.clone()
    } else {
        format!("{message} ({object} {field})")
    }
}

struct Writer {
    states: Api<ConfigurationState>,
    statuses: StatusWriter,
    pods: Api<Pod>,
    pod: String,
    component: Component,
}

impl Writer {
    async fn converge(&self, verdict: &Verdict) -> Result<(), Error> {
        let name = self.component.object_name();
        let known = match self.states.get_opt(&name).await? {
            Some(state) => state,
            None => {
                let state = ConfigurationState::new(ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(self.component.labels()),
                    owner_references: self.owner().await?.map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                });
                self.states.create(&PostParams::default(), &state).await?
            }
        };
        let status = status(self.component.condition(), verdict, known.status.as_ref(), Timestamp::now());
        if known.status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.statuses.merge(&name, &json!({ "status": status })).await.map(|_| ())
    }

    async fn owner(&self) -> Result<Option<OwnerReference>, Error> {
        if self.pod.is_empty() {
            return Ok(None);
        }
        Ok(self.pods.get_opt(&self.pod).await?.and_then(|pod| pod.owner_ref(&())))
    }
}

/// The status for `verdict`. The condition keeps its transition time while its value stays the same.
fn status(
    condition: &str,
    verdict: &Verdict,
    known: Option<&ConfigurationStateStatus>,
    now: Timestamp,
) -> ConfigurationStateStatus {
    let valid = verdict.is_empty();
    let mut message = verdict.join("\n");
    message.truncate(message.floor_char_boundary(MESSAGE_MAX));
    let before = known.and_then(|status| status.conditions.as_ref()?.iter().find(|known| known.type_ == condition));
    let status = if valid { "True" } else { "False" };
    let since =
        before.filter(|before| before.status == status).map_or(Time(now), |before| before.last_transition_time.clone());
    let condition = Condition {
        type_: condition.to_owned(),
        status: status.to_owned(),
        reason: if valid { "Reconciled" } else { "ConfigurationError" }.to_owned(),
        message: message.clone(),
        last_transition_time: since,
        observed_generation: None,
    };
    ConfigurationStateStatus {
        result: Some(if valid { "Valid" } else { "Invalid" }.to_owned()),
        error_summary: Some(message),
        conditions: Some(vec![condition]),
    }
}

/// Limit of the schema for the message of a condition.
const MESSAGE_MAX: usize = 32_768;

/// Pause before a failed write is retried.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use metallb_core::config::ConfigReason;
    use metallb_core::model::ObjectRef;

    use super::*;

    #[test]
    fn status_names_every_error_and_keeps_its_time_while_it_says_the_same() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let bad: Verdict = vec!["configuration error: one".to_owned(), "configuration error: two".to_owned()];
        let first = status("configReconcilerValid", &bad, None, at(10));
        assert_eq!(first.result.as_deref(), Some("Invalid"));
        assert_eq!(first.error_summary.as_deref(), Some("configuration error: one\nconfiguration error: two"));
        let time = |status: &ConfigurationStateStatus| status.conditions.as_ref().unwrap()[0].last_transition_time.0;
        let again = status("configReconcilerValid", &bad, Some(&first), at(20));
        assert_eq!(again, first);
        let good = status("configReconcilerValid", &Vec::new(), Some(&again), at(30));
        assert_eq!((good.result.as_deref(), time(&good)), (Some("Valid"), at(30)));
        assert_eq!(good.conditions.unwrap()[0].reason, "Reconciled");
    }

    #[test]
    fn text_of_a_problem_names_its_object_once() {
        let problem = |name: &str, message: &str| {
            let object = ObjectRef::new("BGPPeer", "ns", name);
            text(&Problem::error(object, "spec.bfdProfile", ConfigReason::Malformed, message.to_owned()))
        };
        let named = "peer tor-1 referencing non existing bfd profile X";
        assert_eq!(problem("tor-1", named), named);
        assert_eq!(problem("tor", named), format!("{named} (BGPPeer/ns/tor spec.bfdProfile)"));
        assert_eq!(problem("tor-1", "invalid"), "invalid (BGPPeer/ns/tor-1 spec.bfdProfile)");
    }

    #[test]
    fn message_is_no_longer_than_the_schema_allows() {
        let long: Verdict = vec!["ü".repeat(40_000)];
        let status = status("poolReconcilerValid", &long, None, Timestamp::UNIX_EPOCH);
        assert!(status.error_summary.unwrap().len() <= MESSAGE_MAX);
    }

    #[test]
    fn objects_have_the_names_and_labels_of_upstream() {
        let speaker = Component::Speaker { node: "n1".to_owned() };
        assert_eq!(speaker.object_name(), "speaker-n1");
        assert_eq!(speaker.labels()["metallb.io/node-name"], "n1");
        assert_eq!(Component::Controller.labels()["metallb.io/component-type"], "controller");
    }
}
