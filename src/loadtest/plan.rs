//! What a load test is asked for.

use std::fmt;
use std::time::Duration;

use crate::config::Priority;

/// What a load test does.
#[derive(Clone, PartialEq)]
pub struct Plan {
    /// The server: `http://HOST:PORT`, with or without `/v1`, or `unix:PATH`.
    pub url: String,
    /// The key that the server wants, if it wants one. It is shown nowhere.
    pub key: Option<String>,
    /// The model that is asked.
    pub model: String,
    /// Requests outstanding at once, at most; at least 1.
    pub callers: usize,
    /// When it is over.
    pub extent: Extent,
    /// Requests per second; without it each caller goes on when it has its answer.
    pub rate: Option<f64>,
    /// In which form the answers are wanted.
    pub form: Form,
    /// How many sessions the callers belong to, in turn; 0 for none.
    pub sessions: usize,
    /// The priorities of the requests, in turn; where there is none, none is said.
    pub priorities: Vec<Priority>,
    /// The longest that one request may take.
    pub timeout: Duration,
}

/// When a load test is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    /// After so many requests.
    Requests(u64),
    /// After so long: then nothing more is sent, and what is under way is waited for.
    Duration(Duration),
}

/// In which form an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One body.
    Whole,
    /// A stream of pieces.
    Stream,
}

impl fmt::Debug for Plan {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("url", &self.url)
            .field("model", &self.model)
            .field("callers", &self.callers)
            .field("extent", &self.extent)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// The priority of request `number`, if one is to be said.
    pub(super) fn priority(&self, number: u64) -> Option<Priority> {
        let count = self.priorities.len() as u64;
        (count > 0).then(|| self.priorities[(number % count) as usize])
    }

    /// The session of `caller`, if it has one.
    pub(super) fn session(&self, caller: usize) -> Option<String> {
        (self.sessions > 0).then(|| format!("load-{}", caller % self.sessions + 1))
    }

    /// The server without `/v1`, as the paths of the wire begin with it.
    pub(super) fn base(&self) -> &str {
        let url = self.url.trim_end_matches('/');
        url.strip_suffix("/v1").unwrap_or(url)
    }
}
