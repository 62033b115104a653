//! Which requests a rule of the proxy is for, and what becomes of them.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use regex::Regex;
use tokio::sync::watch;

/// Which requests a rule is for.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    method: Method,
    path: Regex,
    query: Option<Regex>,
    without: Option<Regex>,
}

/// What becomes of a request: wait at `before`, `reply`, wait at `after`, wait for `delay`, `end`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    matcher: Option<Matcher>,
    left: Option<usize>,
    pub(super) before: Option<Gate>,
    pub(super) reply: Reply,
    pub(super) after: Option<Gate>,
    pub(super) delay: Duration,
    pub(super) end: End,
}

/// Where the answer comes from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Reply {
    /// From the server.
    #[default]
    Forwarded,
    /// From the rule; the server never sees the request.
    Fixed(StatusCode, Bytes),
    /// From nowhere; the server never sees the request.
    Swallowed,
}

/// What the client gets of the answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum End {
    /// The answer.
    #[default]
    Answered,
    /// The end of the connection.
    Cut,
    /// Nothing.
    Never,
}

/// Where requests wait until it is opened; then it stays open.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

/// Names a rule that was added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RuleId(usize);

/// The rules in force, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<(RuleId, Rule)>,
    last: usize,
}

// === impl Matcher ===

impl Matcher {
    /// Requests with this method and a path in which the regular expression is found.
    pub(crate) fn new(method: Method, path: &str) -> Self {
        Self { method, path: Regex::new(path).unwrap(), query: None, without: None }
    }

    /// Writes of the status of Services with these names (a regular expression for the whole name).
    pub(crate) fn status_of(names: &str) -> Self {
        Self::new(Method::PATCH, &format!("^/api/v1/namespaces/[^/]+/services/({names})/status$"))
    }

    /// LISTs of all objects of a kind that is served at `path`.
    pub(crate) fn list(path: &str) -> Self {
        let without = Some(Regex::new("(^|&)watch=").unwrap());
        Self { without, ..Self::new(Method::GET, &format!("^{path}$")) }
    }

    /// Watches of all objects of a kind that is served at `path`.
    pub(crate) fn watch(path: &str) -> Self {
        Self { query: Some(Regex::new("(^|&)watch=").unwrap()), ..Self::new(Method::GET, &format!("^{path}$")) }
    }

    pub(super) fn is_met_by(&self, method: &Method, path: &str, query: &str) -> bool {
        self.method == method
            && self.path.is_match(path)
            && self.query.as_ref().is_none_or(|wanted| wanted.is_match(query))
            && self.without.as_ref().is_none_or(|unwanted| !unwanted.is_match(query))
    }
}

// === impl Rule ===

impl Rule {
    /// A rule that changes nothing yet.
    pub(crate) fn new(matcher: Matcher) -> Self {
        Self { matcher: Some(matcher), ..Self::default() }
    }

    /// Ends after this number of requests.
    pub(crate) fn times(self, count: usize) -> Self {
        Self { left: Some(count), ..self }
    }

    /// Requests wait at the gate before they are forwarded.
    pub(crate) fn held(self, gate: &Gate) -> Self {
        Self { before: Some(gate.clone()), ..self }
    }

    pub(crate) fn reply(self, reply: Reply) -> Self {
        Self { reply, ..self }
    }

    /// Answers wait at the gate.
    pub(crate) fn answer_held(self, gate: &Gate) -> Self {
        Self { after: Some(gate.clone()), ..self }
    }

    /// Answers come later.
    pub(crate) fn answer_delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(crate) fn end(self, end: End) -> Self {
        Self { end, ..self }
    }
}

// === impl Gate ===

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self { open: watch::channel(false).0, arrived: watch::channel(0).0 }
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until this number of requests came to the gate.
    pub(crate) async fn arrived(&self, count: usize) {
        let reached = async { self.arrived.subscribe().wait_for(|arrived| *arrived >= count).await.map(|_| ()) };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("{} of {count} requests came to the gate", *self.arrived.borrow())).unwrap();
    }

    pub(super) async fn pass(&self) {
        self.arrived.send_modify(|arrived| *arrived += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

// === impl Rules ===

impl Rules {
    pub(super) fn add(&mut self, rule: Rule) -> RuleId {
        self.last += 1;
        self.rules.push((RuleId(self.last), rule));
        RuleId(self.last)
    }

    pub(super) fn remove(&mut self, id: RuleId) {
        self.rules.retain(|(own, _)| *own != id);
    }

    /// The rule for a request, which counts as used.
    pub(super) fn take(&mut self, method: &Method, path: &str, query: &str) -> Option<Rule> {
        let is_met = |rule: &Rule| rule.matcher.as_ref().is_some_and(|matcher| matcher.is_met_by(method, path, query));
        let (_, rule) = self.rules.iter_mut().find(|(_, rule)| rule.left != Some(0) && is_met(rule))?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some(rule.clone())
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
