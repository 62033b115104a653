//! Which Events are written, and how: repeated Events raise a count, similar ones are combined, and each object has a
//! budget, as in client-go's recorder. Pure.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hasher as _;
use std::time::{Duration, Instant};

use super::{Event, ObjectReference};

/// Collects Events and hands out requests, one at a time per Event object.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    series: HashMap<SeriesId, Series>,
    similar: HashMap<u64, Similar>,
    budgets: HashMap<u64, Budget>,
    ready: VecDeque<SeriesId>,
    running: usize,
}

/// Identifies the Events that share one Event object.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct SeriesId(u64);

/// A request: create an Event object, or raise the count of an existing one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Request {
    /// To be passed to [`Recorder::ended`].
    pub(super) id: SeriesId,
    /// The latest Event of the series.
    pub(super) event: Event,
    /// Name of the existing object.
    pub(super) object: Option<String>,
    /// The new count.
    pub(super) count: i32,
}

/// The result of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The object of this name has the new count.
    Written(String),
    /// The object no longer exists: the API server deletes Events after an hour.
    Gone,
    /// The Events of the request are dropped.
    Failed,
}

/// Whether an Event is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// It will be written.
    Accepted,
    /// The object has used up its budget.
    OverBudget,
}

#[derive(Debug)]
struct Series {
    event: Event,
    object: Option<String>,
    count: i32,
    /// Events since the last request.
    pending: i32,
    /// Events in the running request.
    sending: i32,
    is_ready: bool,
}

/// Events that differ only in their message.
#[derive(Debug)]
struct Similar {
    since: Instant,
    messages: HashSet<u64>,
}

/// A token bucket.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Instant,
}

impl Recorder {
    /// Takes an Event.
    pub(super) fn record(&mut self, mut event: Event, now: Instant) -> Admission {
        self.limit_memory(now);
        let key = hash(&(&event.regarding, event.event_type, &event.reason));
        let combined = self.is_combined(key, &event.message, now);
        if !self.spend(&event.regarding, now) {
            return Admission::OverBudget;
        }
        let id = if combined {
            event.message.insert_str(0, COMBINED);
            SeriesId(key)
        } else {
            SeriesId(hash(&event))
        };
        let series = match self.series.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Series {
                event: event.clone(),
                object: None,
                count: 0,
                pending: 0,
                sending: 0,
                is_ready: false,
            }),
        };
        series.event = event;
        series.pending = series.pending.saturating_add(1);
        if !series.is_ready && series.sending == 0 {
            series.is_ready = true;
            self.ready.push_back(id);
        }
        Admission::Accepted
    }

    /// The next request; `None` if none is due or enough are running. Pass its result to [`ended`](Self::ended).
    pub(super) fn next(&mut self) -> Option<Request> {
        if self.running >= REQUESTS {
            return None;
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(series) = self.series.get_mut(&id) else { continue };
            series.is_ready = false;
            series.sending = std::mem::take(&mut series.pending);
            if series.sending == 0 {
                continue;
            }
            self.running += 1;
            let count = series.count.saturating_add(series.sending);
            return Some(Request { id, event: series.event.clone(), object: series.object.clone(), count });
        }
        None
    }

    /// Takes the result of a request.
    pub(super) fn ended(&mut self, id: SeriesId, outcome: Outcome) {
        self.running = self.running.saturating_sub(1);
        let Some(series) = self.series.get_mut(&id) else { return };
        let sent = std::mem::take(&mut series.sending);
        match outcome {
            Outcome::Written(name) => {
                series.object = Some(name);
                series.count = series.count.saturating_add(sent);
            }
            Outcome::Gone => {
                series.object = None;
                series.count = 0;
                series.pending = series.pending.saturating_add(sent);
            }
            Outcome::Failed => {}
        }
        if series.pending > 0 && !series.is_ready {
            series.is_ready = true;
            self.ready.push_back(id);
        }
    }

    /// Whether an Event with this message belongs to the combined one.
    fn is_combined(&mut self, key: u64, message: &str, now: Instant) -> bool {
        let similar = self.similar.entry(key).or_insert_with(|| Similar { since: now, messages: HashSet::new() });
        if now.saturating_duration_since(similar.since) > SIMILAR_FOR {
            similar.messages.clear();
        }
        similar.since = now;
        let message = hash(message);
        if similar.messages.contains(&message) {
            return false;
        }
        if similar.messages.len() >= SIMILAR_MAX {
            return true;
        }
        similar.messages.insert(message);
        false
    }

    fn spend(&mut self, object: &ObjectReference, now: Instant) -> bool {
        let budget = self.budgets.entry(hash(object)).or_insert(Budget { tokens: BURST, at: now });
        let refill = now.saturating_duration_since(budget.at).as_secs_f64() / REFILL.as_secs_f64();
        budget.tokens = (budget.tokens + refill).min(BURST);
        budget.at = now;
        let is_allowed = budget.tokens >= 1.0;
        if is_allowed {
            budget.tokens -= 1.0;
        }
        is_allowed
    }

    /// Forgets what no longer counts. If too much is left, forgets everything that is not being written: counting and
    /// limiting start again, and no Event is lost.
    fn limit_memory(&mut self, now: Instant) {
        if self.similar.len() >= REMEMBERED {
            self.similar.retain(|_, similar| now.saturating_duration_since(similar.since) <= SIMILAR_FOR);
        }
        if self.similar.len() >= REMEMBERED {
            self.similar.clear();
        }
        if self.budgets.len() >= REMEMBERED {
            let full_after = REFILL.mul_f64(BURST);
            self.budgets.retain(|_, budget| now.saturating_duration_since(budget.at) <= full_after);
        }
        if self.budgets.len() >= REMEMBERED {
            self.budgets.clear();
        }
        if self.series.len() >= REMEMBERED {
            self.series.retain(|_, series| series.is_ready || series.sending > 0);
        }
    }
}

fn hash(value: &(impl std::hash::Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Begins the message of an Event that stands for similar ones; client-go's words.
const COMBINED: &str = "(combined from similar events): ";

/// Number of different messages after which Events that differ only in the message are combined, and how long messages
/// are remembered; client-go's values.
const SIMILAR_MAX: usize = 10;
const SIMILAR_FOR: Duration = Duration::from_mins(10);

/// Events of one object at once, and the time for one more; client-go's values.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_mins(5);

/// Requests that run at the same time, so that a slow one delays few others.
const REQUESTS: usize = 16;

/// Number of series, objects and messages that are remembered.
const REMEMBERED: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::super::EventType;
    use super::*;

    fn event(object: &str, message: &str) -> Event {
        let regarding = ObjectReference {
            api_version: "v1",
            kind: "Service",
            namespace: "default".to_owned(),
            name: object.to_owned(),
            uid: None,
        };
        let (reason, message) = ("AllocationFailed".to_owned(), message.to_owned());
        Event { regarding, event_type: EventType::Warning, reason, message }
    }

    /// Answers all due requests. Returns message and count of each, in order.
    fn write_all(recorder: &mut Recorder) -> Vec<(String, i32)> {
        let mut written = Vec::new();
        while let Some(request) = recorder.next() {
            written.push((request.event.message.clone(), request.count));
            let name = request.object.unwrap_or_else(|| format!("{}.1", request.event.regarding.name));
            recorder.ended(request.id, Outcome::Written(name));
        }
        written
    }

    #[test]
    fn repeated_event_raises_the_count_of_one_object() {
        let now = Instant::now();
        let mut recorder = Recorder::default();
        recorder.record(event("web", "no"), now);
        assert_eq!(write_all(&mut recorder), [("no".to_owned(), 1)]);
        for _ in 0..3 {
            recorder.record(event("web", "no"), now);
        }
        assert_eq!(write_all(&mut recorder), [("no".to_owned(), 4)], "in one request");
        recorder.record(event("web", "other"), now);
        assert_eq!(write_all(&mut recorder), [("other".to_owned(), 1)]);
    }

    #[test]
    fn one_request_runs_per_series_and_later_events_follow_it() {
        let now = Instant::now();
        let mut recorder = Recorder::default();
        recorder.record(event("web", "no"), now);
        let first = recorder.next().unwrap();
        recorder.record(event("web", "no"), now);
        recorder.record(event("api", "no"), now);
        let other = recorder.next().unwrap();
        assert_eq!(other.event.regarding.name, "api", "a slow request delays no other object");
        assert_eq!(recorder.next(), None);
        recorder.ended(first.id, Outcome::Written("web.1".to_owned()));
        let second = recorder.next().unwrap();
        assert_eq!((second.object.as_deref(), second.count), (Some("web.1"), 2));
        recorder.ended(second.id, Outcome::Gone);
        let third = recorder.next().unwrap();
        assert_eq!((third.object, third.count), (None, 1), "created again");
        recorder.ended(third.id, Outcome::Failed);
        assert_eq!(recorder.next(), None, "dropped");
    }

    #[test]
    fn similar_events_are_combined_after_ten_and_an_object_has_a_budget() {
        let now = Instant::now();
        let mut recorder = Recorder::default();
        let admitted: Vec<Admission> =
            (0..200).map(|number| recorder.record(event("web", &format!("wish {number}")), now)).collect();
        assert_eq!(admitted.iter().filter(|admission| **admission == Admission::Accepted).count(), 25);
        let written = write_all(&mut recorder);
        assert_eq!(written.len(), 11, "ten objects and the combined one");
        assert_eq!(written[10], ("(combined from similar events): wish 24".to_owned(), 15));
        assert_eq!(recorder.record(event("api", "wish 0"), now), Admission::Accepted, "another object");
        let later = now + Duration::from_mins(5);
        assert_eq!(recorder.record(event("web", "wish 300"), later), Admission::Accepted, "one every five minutes");
        assert_eq!(recorder.record(event("web", "wish 301"), later), Admission::OverBudget);
        let much_later = now + Duration::from_mins(200);
        recorder.record(event("web", "wish 400"), much_later);
        assert_eq!(write_all(&mut recorder).last().unwrap(), &("wish 400".to_owned(), 1), "no longer similar");
    }

    #[test]
    fn memory_is_bounded_and_events_that_wait_are_kept() {
        let now = Instant::now();
        let mut recorder = Recorder::default();
        for number in 0..REMEMBERED + 100 {
            recorder.record(event(&format!("web-{number}"), "no"), now);
        }
        assert_eq!(write_all(&mut recorder).len(), REMEMBERED + 100);
        for number in 0..1_000 {
            recorder.record(event(&format!("api-{number}"), "no"), now);
        }
        assert!(recorder.series.len() <= REMEMBERED + 100 && recorder.budgets.len() <= REMEMBERED);
        assert_eq!(write_all(&mut recorder).len(), 1_000);
    }

    #[test]
    fn at_most_sixteen_requests_run() {
        let now = Instant::now();
        let mut recorder = Recorder::default();
        for number in 0..20 {
            recorder.record(event(&format!("web-{number}"), "no"), now);
        }
        let running: Vec<Request> = std::iter::from_fn(|| recorder.next()).collect();
        assert_eq!(running.len(), REQUESTS);
        recorder.ended(running[0].id, Outcome::Failed);
        assert!(recorder.next().is_some() && recorder.next().is_none());
    }
}
