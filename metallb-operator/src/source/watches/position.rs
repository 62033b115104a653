//! The position of a watch in the history of its kind, and the next request. Pure.

use kube::core::Status;
use thiserror::Error;

use super::Demand;
use crate::source::changes::{Round, Version, raise};

/// The known history of a kind, and the next request.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// The highest version in lists, events and bookmarks.
    seen: Option<Version>,
    /// Whether a watch from that version misses nothing.
    is_listed: bool,
    round: Round,
    forgotten: Round,
}

/// The next request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// A list.
    List,
    /// A watch from this version on.
    Watch(Version),
}

/// Why a list or a watch failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The request failed, or the stream of events broke.
    #[error(transparent)]
    Request(#[from] kube::Error),
    /// The server ended the watch.
    #[error("the server ended the watch: {}", .0.message)]
    Ended(Box<Status>),
    /// The server did not answer in time.
    #[error("the server gave no answer")]
    NoAnswer,
    /// The watch ended at once, without an event.
    #[error("the watch ended as soon as it began")]
    Short,
    /// The answer to a list has no version.
    #[error("the list has no version")]
    NoVersion,
    /// The pages of a list are of different versions.
    #[error("the pages of the list have different versions")]
    Torn,
    /// The list is older than what was seen before it.
    #[error("the list is of version {listed}, and version {seen} was seen before it")]
    Outdated {
        /// The version of the list.
        listed: Version,
        /// The version that was seen.
        seen: Version,
    },
}

impl Position {
    /// Processes the demands of the owner.
    pub(super) fn meet(&mut self, demand: &Demand) {
        if demand.forgotten > self.forgotten {
            self.forgotten = demand.forgotten;
            self.seen = None;
        }
        if demand.round > self.round {
            self.round = demand.round;
            self.is_listed = false;
        }
    }

    /// The next request.
    pub(super) fn next(&self) -> Next {
        match &self.seen {
            Some(seen) if self.is_listed => Next::Watch(seen.clone()),
            _ => Next::List,
        }
    }

    /// Processes a list. It is refused if it is older than what was known before the request.
    pub(super) fn listed(&mut self, version: &Version, demand: &Demand) -> Result<(), Failure> {
        let floors = self.seen.iter().chain(&demand.floor);
        if let Some(seen) = floors.into_iter().find(|seen| version.is_older_than(seen)) {
            return Err(Failure::Outdated { listed: version.clone(), seen: seen.clone() });
        }
        self.seen = Some(version.clone());
        self.is_listed = true;
        Ok(())
    }

    /// Records the version of an event or a bookmark.
    pub(super) fn saw(&mut self, version: &Version) {
        raise(&mut self.seen, version);
    }

    /// Records that the request failed.
    pub(super) fn failed(&mut self, failure: &Failure) {
        self.is_listed &= !failure.is_answer();
    }
}

impl Failure {
    /// Whether the answer of the server invalidates the version to watch from, as 410 does. Without an answer, or if
    /// the server is overloaded, the watch continues at its version: a list would cost more and yield the same.
    fn is_answer(&self) -> bool {
        match self {
            Self::Request(kube::Error::Api(status)) => status.code != 429 && status.code < 500,
            // A malformed line hides an event that is lost.
            Self::Request(kube::Error::SerdeError(_)) | Self::Ended(_) => true,
            Self::NoVersion | Self::Torn | Self::Outdated { .. } => true,
            Self::Request(_) | Self::NoAnswer | Self::Short => false,
        }
    }

    /// Whether the Role of this process allows no watch: upstream's lets the controller list Nodes only.
    pub(super) fn forbids_watch(&self) -> bool {
        let Self::Request(kube::Error::Api(status)) = self else { return false };
        status.code == 403 && status.message.contains("cannot watch resource")
    }

    /// The cause for the log: the HTTP status, or a number below all of them.
    pub(super) fn cause(&self) -> u16 {
        match self {
            Self::Request(kube::Error::Api(status)) | Self::Ended(status) => status.code,
            Self::Request(_) | Self::NoAnswer | Self::Short => 0,
            Self::NoVersion | Self::Torn => 1,
            Self::Outdated { .. } => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Box<Status> {
        Box::new(Status { code, ..Status::failure("refused", "Refused") })
    }

    #[test]
    fn list_follows_a_failure_only_where_the_server_answered_that_the_watch_cannot_go_on() {
        let request = |code| Failure::Request(kube::Error::Api(status(code)));
        let line = || serde_json::from_str::<u8>("<html>").unwrap_err();
        let cut = || std::io::Error::other("cut");
        let versions = || (Version::from("10"), Version::from("11"));
        let rows = [
            (request(410), true),
            (request(400), true),
            (request(401), true),
            (request(403), true),
            (request(404), true),
            (request(429), false),
            (request(500), false),
            (request(503), false),
            (request(504), false),
            (Failure::Ended(status(410)), true),
            (Failure::Ended(status(500)), true),
            (Failure::Request(kube::Error::SerdeError(line())), true),
            (Failure::Request(kube::Error::ReadEvents(cut())), false),
            (Failure::Request(kube::Error::Service(Box::new(cut()))), false),
            (Failure::NoAnswer, false),
            (Failure::Short, false),
        ];
        for (failure, needs_list) in rows {
            let mut position = Position::default();
            assert_eq!(position.next(), Next::List, "nothing was listed");
            let (listed, event) = versions();
            position.listed(&listed, &Demand::default()).unwrap();
            position.saw(&event);
            position.failed(&failure);
            let expected = if needs_list { Next::List } else { Next::Watch(event) };
            assert_eq!(position.next(), expected, "{failure}");
        }
    }

    #[test]
    fn list_is_refused_below_everything_that_was_seen_before_it_was_asked_for() {
        let demand = |floor: Option<&str>| Demand { floor: floor.map(Into::into), ..Demand::default() };
        let rows = [
            ("newer", "11", None, true),
            ("as new", "10", None, true),
            ("older", "9", None, false),
            ("older than an answer to the owner", "11", Some("12"), false),
            ("as new as it", "12", Some("12"), true),
            ("older than what was seen, not than the answer", "9", Some("8"), false),
            ("cannot be compared", "x", Some("12"), true),
        ];
        for (name, version, floor, is_taken) in rows {
            let mut position = Position::default();
            position.saw(&"10".into());
            assert_eq!(position.listed(&version.into(), &demand(floor)).is_ok(), is_taken, "{name}");
            let expected = if is_taken { Next::Watch(version.into()) } else { Next::List };
            assert_eq!(position.next(), expected, "{name}");
        }
    }

    #[test]
    fn watch_is_forbidden_by_the_role_only() {
        let answer = |code, message: &str| {
            Failure::Request(kube::Error::Api(Box::new(Status { message: message.to_owned(), ..*status(code) })))
        };
        let text = |verb| format!("nodes is forbidden: User \"u\" cannot {verb} resource \"nodes\" in API group \"\"");
        assert!(answer(403, &text("watch")).forbids_watch());
        assert!(!answer(403, &text("list")).forbids_watch());
        assert!(!answer(403, "quota").forbids_watch());
        assert!(!answer(410, &text("watch")).forbids_watch());
        assert!(!Failure::NoAnswer.forbids_watch());
    }

    #[test]
    fn new_round_asks_for_a_list_and_only_a_restored_store_drops_the_floor() {
        let round = Round::default().next();
        let again = Demand { round, ..Demand::default() };
        for (name, demand, is_taken) in
            [("again", again.clone(), false), ("forget", Demand { forgotten: round, ..again }, true)]
        {
            let mut position = Position::default();
            position.listed(&"10".into(), &Demand::default()).unwrap();
            position.meet(&demand);
            assert_eq!(position.next(), Next::List, "{name}");
            assert_eq!(position.listed(&"5".into(), &demand).is_ok(), is_taken, "{name}");
            position.meet(&demand);
            assert_eq!(position.next() == Next::Watch("5".into()), is_taken, "{name}: the same demand asks once");
        }
    }
}
