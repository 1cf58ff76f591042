//! The HTTP API: what the routes mean, in the words of OpenAI's clients.
//!
//! A request comes from the [`door`](crate::door) on a thread of its connection. It is checked (host, origin, key, route),
//! given an id, and answered by the route's function; see `routes.rs` for the table. A chat becomes a job of the
//! engine whose sink (`sink.rs`; `resend/` for calls that others can join) writes the answer from the worker's thread, while the connection's thread
//! stays with the client: it notices that the client leaves, and tells it the verdicts of others.
//!
//! This folder is the only place that knows our status codes (the door has those of framing), and that decides which
//! errors a client should not send again.

mod alerts;
mod completions;
mod dashboard;
mod error;
mod guard;
mod keys;
mod live;
mod meta;
mod metrics;
mod models;
mod options;
mod overview;
mod pools;
mod reload;
mod resend;
mod routes;
mod semaphores;
mod sink;
mod status;
mod stories;
mod terms;
mod throttling;
mod trace;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde_json::{Value, json};

use self::error::ApiError;
use self::keys::Caller;
use self::live::Live;
use self::resend::Resends;
use self::routes::Route;
use self::terms::Terms;
use crate::clock::{SharedClock, Time};
use crate::config::{Config, Listen, Server};
use crate::door::{Exchange, Handler, Head, Request, Response};
use crate::engine::Engine;
use crate::telemetry::{AlertBook, LifecycleLog};

pub use self::reload::{NotReloaded, Reloader};

/// The API of one gateway: the door's handler.
pub struct Api {
    engine: Arc<Engine>,
    lifecycle: Arc<LifecycleLog>,
    clock: SharedClock,
    /// As it was at the start: what of it a reload changes is in `terms`.
    server: Server,
    terms: RwLock<Arc<Terms>>,
    /// Where clients come in.
    listens: Vec<Listen>,
    reloader: Box<dyn Reloader>,
    resends: Arc<Resends>,
    /// `None`: nobody looks for alerts.
    alerts: Option<Arc<AlertBook>>,
    live: Live,
    started: Time,
    /// For how long requests are remembered.
    max_age: Duration,
    /// What percentiles are told of.
    window: Duration,
}

impl Api {
    /// An API in front of `engine`, for those who come in where `listens` says.
    pub fn new(
        config: &Config,
        listens: &[Listen],
        clock: SharedClock,
        engine: Arc<Engine>,
        lifecycle: Arc<LifecycleLog>,
        reloader: Box<dyn Reloader>,
    ) -> Self {
        let terms = Terms::new(config, listens);
        if !config.access.keys.is_empty() {
            log::info!("requests need one of the API keys: {}", terms.keyring);
        }
        let resends = Resends::new(config.server.resend_grace, Arc::clone(&clock));
        Api {
            engine,
            lifecycle,
            server: config.server.clone(),
            terms: RwLock::new(Arc::new(terms)),
            listens: listens.to_vec(),
            reloader,
            resends: Arc::new(resends),
            alerts: None,
            live: Live::new(config.telemetry.live),
            started: clock.now(),
            max_age: config.telemetry.max_age,
            window: config.telemetry.window,
            clock,
        }
    }

    /// The same, with alerts to show.
    #[must_use]
    pub fn with_alerts(self, alerts: Arc<AlertBook>) -> Self {
        Api {
            alerts: Some(alerts),
            ..self
        }
    }

    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read())
    }

    fn serve(
        &self,
        request: &Request,
        exchange: &Exchange,
        request_id: &Arc<str>,
    ) -> Result<(), ApiError> {
        let terms = self.terms();
        let (route, rest, caller) = receive(&terms, &request.head)?;
        let visit = Visit {
            terms: &terms,
            request,
            exchange,
            request_id,
            caller,
            rest: percent_encoding::percent_decode_str(rest)
                .decode_utf8_lossy()
                .into_owned(),
        };
        (route.answer)(self, &visit)
    }
}

impl Handler for Api {
    fn admit(&self, head: &Head) -> Result<(), Response> {
        let terms = self.terms();
        let checked = terms.guard.check(head).and_then(|()| receive(&terms, head));
        checked.map(|_| ()).map_err(|error| {
            self.count_refusal(error.status);
            refusal(&error, &options::request_id(&head.headers))
        })
    }

    fn is_operation(&self, head: &Head) -> bool {
        // Streams keep their places: some are left for those who only ask.
        let lent = || self.live.watchers() < self.server.operation_connections / 2;
        routes::find(&head.method, &head.path)
            .is_ok_and(|(route, _)| route.operation && (!route.is_live() || lent()))
    }

    fn handle(&self, request: Request, exchange: &Exchange) {
        let id = options::request_id(&request.head.headers);
        if let Err(error) = self.serve(&request, exchange, &id) {
            send(exchange, &id, refusal(&error, &id));
        }
    }

    fn quiet(&self) {
        self.live.close();
    }

    fn let_go(&self) {
        self.resends.close();
    }

    fn framing_error(&self, status: u16, message: &str, head: Option<&Head>) -> Response {
        self.count_refusal(status);
        let id = head.map_or_else(options::new_id, |head| options::request_id(&head.headers));
        // Such a request has no line of its own in the log, as those of the engine have.
        let level = match status {
            500 => log::Level::Error,
            _ => log::Level::Debug,
        };
        log::log!(level, "request {id}: {status}, {message}");
        refusal(&ApiError::framing(status, message), &id)
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// Where a request goes, with what the route's `*` stands for, and who sends it. A stranger does not learn which
/// routes there are.
fn receive<'t, 'h>(
    terms: &'t Terms,
    head: &'h Head,
) -> Result<(&'static Route, &'h str, Caller<'t>), ApiError> {
    let found = routes::find(&head.method, &head.path);
    let caller = match &found {
        Ok((route, _)) if route.is_open() => Caller::Anyone,
        _ => terms.keyring.caller(&head.headers)?,
    };
    let (route, rest) = found?;
    Ok((route, rest, caller))
}

/// One request on its way through a route.
struct Visit<'a> {
    /// Those that it came under.
    terms: &'a Terms,
    request: &'a Request,
    exchange: &'a Exchange,
    request_id: &'a Arc<str>,
    caller: Caller<'a>,
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
        let response = response.with_header("X-Request-Id", self.request_id);
        send(self.exchange, self.request_id, response);
        Ok(())
    }
}

/// An error as the answer to the request of this id.
fn refusal(error: &ApiError, request_id: &str) -> Response {
    error
        .response(Some(&json!({ "request_id": request_id })))
        .with_header("X-Request-Id", request_id)
}

/// A client that does not take its answer has left: there is nobody to tell.
fn send(exchange: &Exchange, request_id: &str, response: Response) {
    if let Err(error) = exchange.reply(response) {
        log::debug!("request {request_id}: the answer could not be sent: {error}");
    }
}
