//! Answers in any order: single rules as tables, and all rules against a known history.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;

use super::*;

fn object(name: &str, uid: &str, version: &str) -> ConfigMap {
    let text = |text: &str| Some(text.to_owned());
    let metadata =
        ObjectMeta { name: text(name), uid: text(uid), resource_version: text(version), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

fn metadata(name: &str, uid: &str, version: &str) -> Metadata {
    Metadata::of(&object(name, uid, version).metadata)
}

fn list(objects: Vec<ConfigMap>, version: &str) -> Change<ConfigMap> {
    Change::Reset(Listed { objects, undecodable: Vec::new(), version: version.into(), round: Round::default() })
}

fn name(name: &str) -> ObjectName {
    metadata(name, "", "").name
}

/// The known identity of `web`.
fn known(versions: &Versions) -> Option<(String, String)> {
    let identity = versions.identity(&name("web"))?;
    Some((identity.uid.to_string(), identity.version.to_string()))
}

#[test]
fn change_is_followed_only_when_it_is_newer_than_what_is_known_of_the_object() {
    let put = |uid, version| Change::Apply(object("web", uid, version));
    let delete = |uid, version| Change::Delete(metadata("web", uid, version));
    let rows = [
        ("the same once more", put("u1", "5"), Some(("u1", "5"))),
        ("older", put("u1", "4"), Some(("u1", "5"))),
        ("newer", put("u1", "6"), Some(("u1", "6"))),
        ("an older namesake", put("u0", "4"), Some(("u1", "5"))),
        ("a newer namesake, its predecessor's deletion was missed", put("u2", "6"), Some(("u2", "6"))),
        ("cannot be compared and differs", put("u1", "x"), Some(("u1", "x"))),
        ("deleted", delete("u1", "6"), None),
        ("deleted, with the version of its last change", delete("u1", "5"), None),
        ("deletion of an older namesake", delete("u0", "4"), Some(("u1", "5"))),
        ("deletion of a namesake that cannot be compared", delete("u0", "x"), Some(("u1", "5"))),
        ("deletion of a newer namesake, which was missed", delete("u2", "8"), None),
        ("absent from a newer list", list(vec![], "6"), None),
        ("absent from a list of its own version", list(vec![], "5"), None),
        ("absent from an older list", list(vec![], "4"), Some(("u1", "5"))),
        ("older in an older list", list(vec![object("web", "u1", "3")], "4"), Some(("u1", "5"))),
        ("newer in a list", list(vec![object("web", "u1", "6")], "6"), Some(("u1", "6"))),
        ("absent from a list that cannot be compared", list(vec![], "x"), None),
    ];
    for (case, change, expected) in rows {
        let mut versions = Versions::default();
        versions.follow(Change::Apply(object("web", "u1", "5")));
        let steps = versions.follow(change);
        let expected = expected.map(|(uid, version)| (uid.to_owned(), version.to_owned()));
        assert_eq!(known(&versions), expected, "{case}");
        assert_eq!(
            steps.is_empty(),
            expected == Some(("u1".into(), "5".into())),
            "{case}: a step only when it changes"
        );
    }
}

#[test]
fn deleted_object_never_comes_back() {
    let gone: [(&str, fn(&mut Versions)); 4] = [
        ("deleted", |versions| drop(versions.follow::<ConfigMap>(Change::Delete(metadata("web", "u1", "8"))))),
        ("not found by a write", |versions| assert!(versions.missing(&name("web"), &"u1".into(), Round::default()))),
        ("absent from a list", |versions| drop(versions.follow(list(vec![], "8")))),
        ("followed by a namesake", |versions| {
            versions.follow(Change::Apply(object("web", "u2", "9")));
            versions.follow::<ConfigMap>(Change::Delete(metadata("web", "u2", "10")));
        }),
    ];
    for (case, go) in gone {
        let mut versions = Versions::default();
        versions.follow(Change::Apply(object("web", "u1", "5")));
        go(&mut versions);
        for version in ["6", "7", "99", "x"] {
            versions.follow(Change::Apply(object("web", "u1", version)));
            versions.follow(list(vec![object("web", "u1", version)], version));
            versions.answered(object("web", "u1", version), Round::default());
            assert_eq!(known(&versions), None, "{case}, seen again as {version}");
        }
        versions.follow(Change::Apply(object("web", "u3", "100")));
        assert_eq!(known(&versions), Some(("u3".into(), "100".into())), "{case}, a new namesake");
    }
}

#[test]
fn object_that_a_newer_list_did_not_have_is_not_admitted_by_an_older_answer() {
    let mut versions = Versions::default();
    versions.follow(list(vec![], "9"));
    assert!(versions.follow(Change::Apply(object("web", "u1", "7"))).is_empty(), "deleted before the list");
    assert!(versions.follow(list(vec![object("web", "u1", "7")], "8")).is_empty(), "an older list");
    assert_eq!(versions.follow(Change::Apply(object("web", "u2", "10"))).len(), 1);
}

#[test]
fn undecodable_object_keeps_its_last_good_form_and_a_namesake_does_not_inherit_it() {
    let rows = [
        ("the same", "u1", "7", Some("5")),
        ("a new namesake", "u2", "7", None),
        ("an older namesake in a list of before", "u0", "3", Some("5")),
    ];
    for (case, uid, version, expected) in rows {
        let mut versions = Versions::default();
        versions.follow(Change::Apply(object("web", "u1", "5")));
        let undecodable = vec![Undecodable { metadata: metadata("web", uid, version), error: String::new() }];
        let listed = Listed { objects: Vec::new(), undecodable, version: "8".into(), round: Round::default() };
        versions.follow::<ConfigMap>(Change::Reset(listed));
        assert_eq!(known(&versions).map(|(_, version)| version).as_deref(), expected, "{case}");
    }
}

#[test]
fn restored_store_is_followed_from_its_list_on() {
    let mut versions = Versions::default();
    versions.follow(list(vec![object("web", "u1", "50"), object("api", "u2", "51")], "60"));
    versions.follow::<ConfigMap>(Change::Delete(metadata("web", "u1", "61")));
    let round = Round::default().next();
    versions.forget(round);
    assert!(versions.identity(&name("api")).is_none(), "no write can name its version");
    assert!(versions.follow(Change::Apply(object("db", "u3", "62"))).is_empty(), "an event of the history that ended");
    assert!(versions.follow(list(vec![object("db", "u3", "62")], "62")).is_empty(), "a list of the history that ended");
    assert!(versions.follow::<ConfigMap>(Change::Delete(metadata("api", "u2", "63"))).is_empty());
    let listed =
        Listed { objects: vec![object("web", "u1", "20")], undecodable: Vec::new(), version: "30".into(), round };
    let steps = versions.follow(Change::Reset(listed));
    assert_eq!(steps, [Step::Put(name("web"), object("web", "u1", "20")), Step::Remove(name("api"))]);
    assert!(versions.answered(object("web", "u1", "64"), Round::default()).is_none(), "an answer that comes late");
    assert!(!versions.missing(&name("web"), &"u1".into(), Round::default()), "and another one");
    assert!(versions.answered(object("web", "u1", "31"), round).is_some());
}

#[test]
fn memory_of_deletions_is_bounded_and_drops_the_oldest() {
    let mut versions = Versions::default();
    for number in 0..=Deleted::LIMIT {
        versions.follow::<ConfigMap>(Change::Delete(metadata("web", &format!("u{number}"), "5")));
    }
    assert_eq!((versions.deleted.uids.len(), versions.deleted.order.len()), (Deleted::LIMIT, Deleted::LIMIT));
    assert!(versions.follow(Change::Apply(object("web", "u1", "6"))).is_empty());
    assert_eq!(versions.follow(Change::Apply(object("web", "u0", "6"))).len(), 1, "what the bound costs");
}

/// The next step of a run against a store with two lagging caches.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Somebody creates or changes an object.
    Put(usize),
    /// Somebody deletes an object.
    Delete(usize),
    /// A cache takes in some of what happened.
    CatchUp(usize, usize),
    /// Some events of the watched cache arrive.
    Events(usize),
    /// An event arrives a second time.
    Repeat(usize),
    /// The watch ends; we list from a cache and watch it.
    List(usize),
    /// We write the known object; after a conflict we read it.
    Write(usize),
    /// One of the answers to our requests arrives.
    Answer(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..NAMES.len()).prop_map(Act::Put),
        2 => (0..NAMES.len()).prop_map(Act::Delete),
        3 => (0..2usize, 1..5usize).prop_map(|(cache, count)| Act::CatchUp(cache, count)),
        4 => (1..5usize).prop_map(Act::Events),
        1 => any::<usize>().prop_map(Act::Repeat),
        1 => (0..2usize).prop_map(Act::List),
        3 => (0..NAMES.len()).prop_map(Act::Write),
        3 => any::<usize>().prop_map(Act::Answer),
    ];
    prop::collection::vec(act, 1..120)
}

/// The true history, and the progress of each reader.
#[derive(Default)]
struct Run {
    /// Event `n` has version `n + 1`: the object's name and uid, and whether it exists after it.
    history: Vec<(usize, String, bool)>,
    caches: [usize; 2],
    watched: usize,
    /// Events that arrived.
    position: usize,
    answers: Vec<Answer>,
    versions: Versions,
    /// Uid and version of each object in our picture.
    picture: BTreeMap<ObjectName, (String, u64)>,
    /// The highest version of each name in the picture, and all uids that left it.
    highest: BTreeMap<ObjectName, u64>,
    gone: BTreeSet<String>,
}

enum Answer {
    Object(Box<ConfigMap>),
    NotFound(usize, String),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Run {
    /// The objects after this many events.
    fn at(&self, version: usize) -> BTreeMap<usize, (String, usize)> {
        let mut objects = BTreeMap::new();
        for (index, (name, uid, exists)) in self.history[..version].iter().enumerate() {
            match exists {
                true => objects.insert(*name, (uid.clone(), index + 1)),
                false => objects.remove(name),
            };
        }
        objects
    }

    fn put(&mut self, name: usize) -> ConfigMap {
        let head = self.history.len();
        let uid = self.at(head).remove(&name).map_or_else(|| format!("u{head}"), |(uid, _)| uid);
        self.history.push((name, uid.clone(), true));
        object(NAMES[name], &uid, &(head + 1).to_string())
    }

    fn event(&self, index: usize) -> Change<ConfigMap> {
        let (name, uid, exists) = &self.history[index];
        let version = (index + 1).to_string();
        match exists {
            true => Change::Apply(object(NAMES[*name], uid, &version)),
            false => Change::Delete(metadata(NAMES[*name], uid, &version)),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Put(name) => drop(self.put(name)),
            Act::Delete(name) => {
                if let Some((uid, _)) = self.at(self.history.len()).remove(&name) {
                    self.history.push((name, uid, false));
                }
            }
            Act::CatchUp(cache, count) => {
                self.caches[cache] = (self.caches[cache] + count).min(self.history.len());
            }
            Act::Events(count) => {
                let end = (self.position + count).min(self.caches[self.watched]);
                for index in self.position..end {
                    let event = self.event(index);
                    self.follow(event);
                }
                self.position = self.position.max(end);
            }
            Act::Repeat(choice) => {
                if self.position > 0 {
                    let event = self.event(choice % self.position);
                    self.follow(event);
                }
            }
            Act::List(cache) => {
                let version = self.caches[cache];
                let objects = self.at(version).into_iter();
                let objects = objects.map(|(name, (uid, version))| object(NAMES[name], &uid, &version.to_string()));
                let change = list(objects.collect(), &version.to_string());
                // The loop refuses a list that is older than what it saw; an accepted list must be harmless.
                self.follow(change);
                if version >= self.position {
                    (self.watched, self.position) = (cache, version);
                }
            }
            Act::Write(name) => {
                let Some(known) = self.versions.identity(&super::tests::name(NAMES[name])).cloned() else { return };
                let answer = match self.at(self.history.len()).remove(&name) {
                    None => Answer::NotFound(name, known.uid.to_string()),
                    Some((uid, version))
                        if (uid.as_str(), version.to_string()) == (known.uid.as_str(), known.version.to_string()) =>
                    {
                        Answer::Object(Box::new(self.put(name)))
                    }
                    Some((uid, version)) => Answer::Object(Box::new(object(NAMES[name], &uid, &version.to_string()))),
                };
                self.answers.push(answer);
            }
            Act::Answer(choice) => {
                if self.answers.is_empty() {
                    return;
                }
                match self.answers.swap_remove(choice % self.answers.len()) {
                    Answer::Object(object) => {
                        let step = self.versions.answered(*object, Round::default());
                        self.take(step);
                    }
                    Answer::NotFound(name, uid) => {
                        let name = super::tests::name(NAMES[name]);
                        let is_gone = self.versions.missing(&name, &uid.as_str().into(), Round::default());
                        self.take(is_gone.then_some(Step::Remove(name)));
                    }
                }
            }
        }
    }

    fn follow(&mut self, change: Change<ConfigMap>) {
        let steps = self.versions.follow(change);
        self.take(steps);
    }

    fn take(&mut self, steps: impl IntoIterator<Item = Step<ConfigMap>>) {
        for step in steps {
            match step {
                Step::Put(name, object) => {
                    let identity = Metadata::of(&object.metadata).identity;
                    let (uid, version) = (identity.uid.to_string(), identity.version.to_string().parse().unwrap());
                    assert!(!self.gone.contains(&uid), "{uid} came back");
                    let before = self.highest.insert(name.clone(), version);
                    assert!(before.is_none_or(|before| before < version), "the picture went back to {version}");
                    if let Some((before, _)) = self.picture.insert(name, (uid.clone(), version))
                        && before != uid
                    {
                        self.gone.insert(before);
                    }
                }
                Step::Remove(name) => {
                    let (uid, _) = self.picture.remove(&name).expect("only what is in the picture is removed");
                    self.gone.insert(uid);
                }
                Step::Broken(name, _) => panic!("{name:?} can be decoded"),
            }
        }
    }

    fn finish(&mut self) {
        let head = self.history.len();
        self.caches = [head, head];
        while !self.answers.is_empty() {
            self.act(Act::Answer(0));
        }
        self.act(Act::Events(head));
        let truth: BTreeMap<ObjectName, (String, u64)> = self
            .at(head)
            .into_iter()
            .map(|(name, (uid, version))| (super::tests::name(NAMES[name]), (uid, version as u64)))
            .collect();
        assert_eq!(self.picture, truth);
    }
}

#[test]
fn namesake_that_lived_between_two_known_ones_is_not_admitted_after_the_later_one_is_gone() {
    let mut versions = Versions::default();
    versions.follow(Change::Apply(object("web", "u1", "1")));
    versions.answered(object("web", "u3", "7"), Round::default());
    assert!(versions.missing(&name("web"), &"u3".into(), Round::default()));
    for late in [Change::Apply(object("web", "u2", "5")), list(vec![object("web", "u2", "5")], "5")] {
        assert!(versions.follow(late).is_empty());
    }
    assert_eq!(versions.follow(Change::Apply(object("web", "u4", "9"))).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn picture_never_goes_back_and_ends_as_the_truth(acts in acts()) {
        let mut run = Run::default();
        for act in acts {
            run.act(act);
        }
        run.finish();
    }
}
