//! What an upstream has seen, and those who wait for it.

use std::sync::{Condvar, Mutex};

use serde_json::Value;

use super::super::BOUND;
use super::super::http::Head;

/// A chat request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `up-1`, `up-2`, ...: the answer's text carries it where the script says `{id}`.
    pub(crate) id: String,
    /// On which connection, from 1.
    pub(crate) connection: usize,
    /// Request line and headers.
    pub(crate) head: Head,
    /// The body; null if it isn't JSON.
    pub(crate) body: Value,
}

impl Request {
    /// The model that it asks for.
    pub(crate) fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or_default()
    }

    /// Whether it wants a stream.
    pub(crate) fn wants_stream(&self) -> bool {
        self.body["stream"].as_bool().unwrap_or(false)
    }

    /// The last message's content, where it is a string.
    pub(crate) fn prompt(&self) -> &str {
        let messages = self.body["messages"].as_array();
        let last = messages.and_then(|messages| messages.last());
        last.and_then(|m| m["content"].as_str()).unwrap_or_default()
    }
}

/// Counts, under a lock, and a condvar that tells of each change.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: Vec<Request>,
    pub(super) lists: usize,
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) peak: usize,
    pub(super) closed: usize,
}

impl Ledger {
    pub(super) fn read<T>(&self, look: impl FnOnce(&Counts) -> T) -> T {
        look(&self.counts.lock().expect("no panic"))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        let result = change(&mut self.counts.lock().expect("no panic"));
        self.changed.notify_all();
        result
    }

    pub(super) fn wait(&self, what: &str, reached: impl Fn(&Counts) -> bool) {
        let counts = self.counts.lock().expect("no panic");
        let (counts, _) = self
            .changed
            .wait_timeout_while(counts, BOUND, |counts| !reached(counts))
            .expect("no panic");
        let missed = (!reached(&counts)).then(|| format!("{counts:#?}"));
        // A panic under the lock would poison it, and hide this message behind others.
        drop(counts);
        if let Some(counts) = missed {
            panic!("never reached ({what}): {counts}");
        }
    }

    /// A connection was taken; it is closed when the guard goes.
    pub(super) fn connected(&self) -> Open<'_> {
        let number = self.change(|counts| {
            counts.connections += 1;
            counts.connections
        });
        Open {
            number,
            ledger: self,
        }
    }

    /// A request for the list of models was read.
    pub(super) fn listed(&self, connection: usize, head: Head) -> Request {
        let number = self.change(|counts| {
            counts.lists += 1;
            counts.lists
        });
        Request {
            id: format!("list-{number}"),
            connection,
            head,
            body: Value::Null,
        }
    }

    /// A request was read; it is in flight until the guard goes.
    pub(super) fn begin(
        &self,
        connection: usize,
        head: Head,
        body: Vec<u8>,
    ) -> (Request, Flight<'_>) {
        let request = self.change(|counts| {
            counts.in_flight += 1;
            counts.peak = counts.peak.max(counts.in_flight);
            let request = Request {
                id: format!("up-{}", counts.requests.len() + 1),
                connection,
                head,
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            };
            counts.requests.push(request.clone());
            request
        });
        (request, Flight(self))
    }
}

/// An open connection.
pub(super) struct Open<'a> {
    pub(super) number: usize,
    ledger: &'a Ledger,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.ledger.change(|counts| counts.closed += 1);
    }
}

/// A request in flight.
pub(super) struct Flight<'a>(&'a Ledger);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.change(|counts| counts.in_flight -= 1);
    }
}
