//! The last valid forms of configuration objects, as the leading controller stores them in ConfigMaps
//! (`docs/design/0032-last-good-forms.md`): their format, and how a process reads them at its start.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use metallb_core::config::spec::{BgpAdvertisementSpec, CommunitySpec, L2AdvertisementSpec, PoolSpec, Resources};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout, timeout_at};

/// One object; a line of a ConfigMap.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum Form {
    Pool(PoolSpec),
    L2Advertisement(L2AdvertisementSpec),
    BgpAdvertisement(BgpAdvertisementSpec),
    Community(CommunitySpec),
}

/// Why stored forms cannot be used.
#[derive(Debug, Error)]
pub(crate) enum LastGoodError {
    /// The API server refused or failed.
    #[error("cannot read the ConfigMap {name}")]
    Read {
        /// The ConfigMap.
        name: String,
        /// The answer.
        source: kube::Error,
    },
    /// A key is missing or not of this format.
    #[error("the ConfigMap {name} has no valid key \"{key}\"")]
    Key {
        /// The ConfigMap.
        name: String,
        /// The key.
        key: &'static str,
    },
    /// A line is no object.
    #[error("line {line} of the ConfigMap {name} is no valid object")]
    Line {
        /// The ConfigMap.
        name: String,
        /// The line, from 1 on.
        line: usize,
        /// The error of the parser.
        source: serde_json::Error,
    },
}

/// The stored forms as read at the start of a process, before its first decision.
#[derive(Debug)]
pub(crate) struct Recall {
    answer: Option<oneshot::Receiver<Option<Resources>>>,
    deadline: Option<Instant>,
}

impl Recall {
    /// Starts to read. Failed requests are repeated until the API server answers.
    pub(crate) fn start(client: &Client, namespace: &str) -> Self {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let (sender, answer) = oneshot::channel();
        tokio::spawn(async move {
            let found = loop {
                match timeout(REQUEST, read(&maps)).await {
                    Ok(Ok(found)) => break found,
                    Ok(Err(LastGoodError::Read { source, .. })) if !matches!(source, kube::Error::Api(_)) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(
                            %error, cause = error.source().map(ToString::to_string), event = "lastGoodUnreadable",
                            "cannot use the stored last valid forms of the configuration: invalid objects have none"
                        );
                        break None;
                    }
                    Err(_) => {}
                }
                sleep(RETRY).await;
            };
            // The receiver is gone if the process did not wait.
            let _ = sender.send(found);
        });
        Self { answer: Some(answer), deadline: None }
    }

    /// Everything else that the first decision needs is known: from now on, [`next`](Self::next) waits a second at most.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.deadline.get_or_insert(now + PATIENCE);
    }

    /// Waits for the forms; `None` if there are none. After that it never returns. It may be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Resources> {
        let Some(answer) = &mut self.answer else { return std::future::pending().await };
        let found = match self.deadline {
            Some(deadline) => timeout_at(deadline.into(), answer).await.unwrap_or_else(|_| {
                tracing::warn!(
                    event = "lastGoodMissing",
                    "no answer about the stored last valid forms of the configuration: invalid objects have none"
                );
                Ok(None)
            }),
            None => answer.await,
        };
        self.answer = None;
        found.ok().flatten()
    }
}

/// The forms as the data of ConfigMaps, by name; each is below the limit of 1 MiB.
pub(crate) fn encode(good: &Resources) -> Result<BTreeMap<String, BTreeMap<String, String>>, serde_json::Error> {
    let forms = good.pools.iter().cloned().map(Form::Pool);
    let forms = forms.chain(good.l2_advertisements.iter().cloned().map(Form::L2Advertisement));
    let forms = forms.chain(good.bgp_advertisements.iter().cloned().map(Form::BgpAdvertisement));
    let forms = forms.chain(good.communities.iter().cloned().map(Form::Community));
    let mut parts = vec![String::new()];
    let mut left_out = 0_usize;
    for form in forms {
        let line = serde_json::to_string(&form)?;
        let is_full = parts.last().is_some_and(|part| part.len() + line.len() >= PART_SIZE);
        if is_full && parts.len() < PARTS {
            parts.push(String::new());
        }
        match parts.last_mut().filter(|part| part.len() + line.len() < PART_SIZE) {
            Some(part) => {
                part.push_str(&line);
                part.push('\n');
            }
            None => left_out += 1,
        }
    }
    if left_out > 0 {
        tracing::warn!(
            event = "lastGoodTooLarge",
            left_out,
            "the configuration is too large to store the last valid forms of all objects"
        );
    }
    let count = parts.len().to_string();
    let data = |part| BTreeMap::from([(OBJECTS.to_owned(), part), (COUNT.to_owned(), count.clone())]);
    Ok(parts.into_iter().enumerate().map(|(index, part)| (name(index), data(part))).collect())
}

async fn read(maps: &Api<ConfigMap>) -> Result<Option<Resources>, LastGoodError> {
    let mut good = Resources::default();
    let (mut index, mut count) = (0, 1);
    while index < count {
        let name = name(index);
        let map = match maps.get_opt(&name).await {
            Ok(Some(map)) => map,
            Ok(None) => return Ok((index > 0).then_some(good)),
            Err(source) => return Err(LastGoodError::Read { name, source }),
        };
        let data = map.data.unwrap_or_default();
        if index == 0 {
            let parts =
                data.get(COUNT).and_then(|count| count.parse().ok()).filter(|count| (1..=PARTS).contains(count));
            count = parts.ok_or_else(|| LastGoodError::Key { name: name.clone(), key: COUNT })?;
        }
        decode(&name, &data, &mut good)?;
        index += 1;
    }
    Ok(Some(good))
}

fn decode(name: &str, data: &BTreeMap<String, String>, good: &mut Resources) -> Result<(), LastGoodError> {
    let text = data.get(OBJECTS).ok_or_else(|| LastGoodError::Key { name: name.to_owned(), key: OBJECTS })?;
    for (number, line) in (1..).zip(text.lines()) {
        let form = serde_json::from_str(line);
        let form = form.map_err(|source| LastGoodError::Line { name: name.to_owned(), line: number, source })?;
        match form {
            Form::Pool(spec) => good.pools.push(spec),
            Form::L2Advertisement(spec) => good.l2_advertisements.push(spec),
            Form::BgpAdvertisement(spec) => good.bgp_advertisements.push(spec),
            Form::Community(spec) => good.communities.push(spec),
        }
    }
    Ok(())
}

fn name(index: usize) -> String {
    match index {
        0 => NAME.to_owned(),
        _ => format!("{NAME}-{}", index + 1),
    }
}

/// Name of the first ConfigMap; the others are numbered from 2 on.
const NAME: &str = "metallb-last-good-configuration";

/// Key of the objects, one per line.
const OBJECTS: &str = "objects.jsonl";

/// Key of the number of ConfigMaps.
const COUNT: &str = "parts";

/// Number of ConfigMaps; the Roles name each of them.
const PARTS: usize = 4;

/// Size of a ConfigMap in bytes. The API server allows 1 MiB with metadata.
const PART_SIZE: usize = 900 * 1024;

/// Time limit of a request.
const REQUEST: Duration = Duration::from_secs(1);

/// Pause after a request without an answer.
const RETRY: Duration = Duration::from_millis(200);

/// How long the first decision waits once everything else is known.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use metallb_core::config::spec::ObjectMeta;

    use super::*;

    fn pools(count: usize, size: usize) -> Resources {
        let pool = |index: usize| PoolSpec {
            meta: ObjectMeta { uid: Some("u".into()), ..ObjectMeta::named("metallb-system", &format!("pool-{index}")) },
            addresses: vec!["1".repeat(size)],
            ..PoolSpec::default()
        };
        Resources { pools: (0..count).map(pool).collect(), ..Resources::default() }
    }

    fn decoded(maps: &BTreeMap<String, BTreeMap<String, String>>) -> Result<Resources, LastGoodError> {
        let mut good = Resources::default();
        maps.iter().try_for_each(|(name, data)| decode(name, data, &mut good))?;
        Ok(good)
    }

    #[test]
    fn forms_are_read_as_they_were_written_in_as_many_parts_as_they_need() {
        for (count, size, parts) in [(0, 1, 1), (3, 10, 1), (3, 400 * 1024, 2), (7, 400 * 1024, 4)] {
            let good = pools(count, size);
            let maps = encode(&good).unwrap();
            assert_eq!(maps.len(), parts, "{count} pools of {size} bytes");
            assert!(maps.values().all(|data| data[COUNT] == parts.to_string() && data[OBJECTS].len() < PART_SIZE));
            assert_eq!(decoded(&maps).unwrap(), good);
        }
        let too_many = decoded(&encode(&pools(12, 400 * 1024)).unwrap()).unwrap();
        assert_eq!(too_many.pools.len(), 8, "the rest is left out");
    }

    #[test]
    fn damaged_part_is_an_error_that_names_it() {
        let mut maps = encode(&pools(2, 10)).unwrap();
        for (damage, expected) in [("{", "line 3"), ("{\"pool\": {}}", "line 3"), ("null", "line 3")] {
            let mut damaged = maps.clone();
            damaged.get_mut(NAME).unwrap().get_mut(OBJECTS).unwrap().push_str(damage);
            let text = decoded(&damaged).unwrap_err().to_string();
            assert!(text.contains(expected) && text.contains(NAME), "{text}");
        }
        maps.get_mut(NAME).unwrap().remove(OBJECTS);
        assert!(decoded(&maps).unwrap_err().to_string().contains(OBJECTS));
    }
}
