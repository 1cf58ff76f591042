//! The HTTP API: what the routes mean, in the words of OpenAI's clients.
//!
//! A request comes from the [`door`](crate::door) on a thread of its connection. It is checked (host, origin, route),
//! given an id, and answered by the route's function; see `routes.rs` for the table. A chat becomes a job of the
//! engine whose sink (`sink.rs`) writes the answer from the worker's thread, while the connection's thread
//! stays with the client: it notices that the client leaves, and tells it the verdicts of others.
//!
//! This folder is the only place that knows our status codes (the door has those of framing), and that decides which
//! errors a client should not send again.

mod completions;
mod error;
mod guard;
mod meta;
mod models;
mod options;
mod routes;
mod sink;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use self::error::ApiError;
use crate::clock::{SharedClock, Time};
use crate::config::{Config, Profile, Server};
use crate::door::{Exchange, Handler, Head, Request, Response};
use crate::engine::Engine;
use crate::telemetry::LifecycleLog;

/// The API of one gateway: the door's handler.
pub struct Api {
    engine: Arc<Engine>,
    lifecycle: Arc<LifecycleLog>,
    clock: SharedClock,
    server: Server,
    profile: Profile,
    /// Providers that can't be called, and what to do about it.
    missing_keys: BTreeMap<String, String>,
    started: Time,
}

impl Api {
    /// An API in front of `engine`.
    pub fn new(
        config: &Config,
        clock: SharedClock,
        engine: Arc<Engine>,
        lifecycle: Arc<LifecycleLog>,
    ) -> Self {
        let missing = config.providers.values().filter_map(|provider| {
            let advice = provider.missing_key()?;
            Some((provider.name.clone(), advice))
        });
        Api {
            engine,
            lifecycle,
            server: config.server.clone(),
            profile: config.profile,
            missing_keys: missing.collect(),
            started: clock.now(),
            clock,
        }
    }

    fn serve(&self, visit: &mut Visit<'_>) -> Result<(), ApiError> {
        let (route, rest) = routes::find(&visit.request.head.method, &visit.request.head.path)?;
        visit.rest = percent_encoding::percent_decode_str(rest)
            .decode_utf8_lossy()
            .into_owned();
        (route.answer)(self, visit)
    }
}

impl Handler for Api {
    fn admit(&self, head: &Head) -> Result<(), Response> {
        let checked =
            guard::check(head).and_then(|()| routes::find(&head.method, &head.path).map(|_| ()));
        checked.map_err(|error| {
            let id = options::request_id(&head.headers);
            error
                .response(Some(&json!({ "request_id": &*id })))
                .with_header("X-Request-Id", &id)
        })
    }

    fn is_operation(&self, head: &Head) -> bool {
        routes::find(&head.method, &head.path).is_ok_and(|(route, _)| route.operation)
    }

    fn handle(&self, request: Request, exchange: &Exchange) {
        let id = options::request_id(&request.head.headers);
        let mut visit = Visit {
            request: &request,
            exchange,
            request_id: &id,
            rest: String::new(),
        };
        if let Err(error) = self.serve(&mut visit) {
            let response = error
                .response(Some(&json!({ "request_id": &*id })))
                .with_header("X-Request-Id", &id);
            visit.send(response);
        }
    }

    fn framing_error(&self, status: u16, message: &str) -> Response {
        ApiError::framing(status, message).response(None)
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// One request on its way through a route.
struct Visit<'a> {
    request: &'a Request,
    exchange: &'a Exchange,
    request_id: &'a Arc<str>,
    /// What the `*` of the route stands for, decoded.
    rest: String,
}

impl Visit<'_> {
    fn rest(&self) -> &str {
        &self.rest
    }

    /// Answers with JSON.
    fn json(&self, status: u16, body: &Value) -> Result<(), ApiError> {
        self.bytes(status, body.to_string().into_bytes())
    }

    /// Answers with JSON that is text already.
    fn bytes(&self, status: u16, body: Vec<u8>) -> Result<(), ApiError> {
        let response = Response::new(status).with_body("application/json", body);
        self.send(response.with_header("X-Request-Id", self.request_id));
        Ok(())
    }

    /// A client that does not take its answer has left: there is nobody to tell.
    fn send(&self, response: Response) {
        if let Err(error) = self.exchange.reply(response) {
            log::debug!(
                "request {}: the answer could not be sent: {error}",
                self.request_id
            );
        }
    }
}
