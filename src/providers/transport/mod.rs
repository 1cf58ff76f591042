//! Blocking HTTP to one provider: every call can be cut from another thread at any moment, and none outlives its deadline.
//!
//! ```text
//!  Transport::post -> Exchange (bounds, cancel token, grip)       one per call
//!                  -> Pool::lease -> Client (HTTP client, Slot)   one per connection
//!                       Ear -> TLS -> Socket                      the client's chain, see socket.rs
//!                  -> Answer (status, headers, body)
//! ```
//!
//! | file | what it answers for |
//! |---|---|
//! | `exchange.rs` | the phases of a call and their time bounds; every wait on a socket |
//! | `grip.rs` | cutting a call from another thread, and never the next one on its connection |
//! | `socket.rs` | the connection itself, as the HTTP client wants it |
//! | `dial.rs`, `names.rs` | making one: TCP connect, name lookup |
//! | `tls.rs` | whom it trusts |
//! | `pool.rs` | keeping them |
//! | `answer.rs` | reading the body |
//! | `error.rs` | what went wrong |
//!
//! **A call is cut** in one of four places, and each is woken by the token's hooks: in a name lookup (a condvar), in
//! `connect`, in a TLS handshake or in a read or write (all three a poll on a non-blocking socket, which the hook
//! shuts). In between, nothing blocks, and the token is looked at before each step and after it. Whatever a shut
//! socket then seems to say, the token is believed first.
//!
//! **Known limits.** A TLS peer that closes without saying so ends a body that has neither length nor chunks as a
//! clean end does: whoever reads a stream must look for the stream's own end. An answer that comes while the
//! request is still being sent is seen only once the request is out. No proxy is used.

mod answer;
mod dial;
mod error;
mod exchange;
mod grip;
mod names;
mod pool;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use ureq::http::request::Builder;
use ureq::http::{Method, Request, Response, Uri};
use ureq::{Agent, AsSendBody, Body, SendBody};

use crate::cancel::CancelToken;
use crate::clock::{SharedClock, Time};
use crate::config;

use super::CallWatch;

pub(crate) use answer::Answer;
pub(crate) use error::TransportError;
pub use pool::PoolStats;

use exchange::Exchange;
use names::Names;
use pool::Pool;

/// Calls to one provider: its address, its key and its connections. Shared by all workers.
pub(crate) struct Transport {
    base_url: String,
    authorization: Option<Result<HeaderValue, TransportError>>,
    timeouts: config::Timeouts,
    clock: SharedClock,
    /// An address that is no URL fails each call, not the start.
    pool: Result<Arc<Pool>, TransportError>,
}

/// A request with a body.
#[derive(Debug)]
pub(crate) struct Post<'a> {
    /// Appended to the provider's base URL; begins with a slash.
    pub(crate) path: &'a str,
    /// Besides those that the transport sets: `Authorization`, `User-Agent`, `Accept`, `Content-Type: application/json`,
    /// `Content-Length`, `Accept-Encoding: identity`.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// JSON.
    pub(crate) body: &'a [u8],
    /// The media type that we want.
    pub(crate) accept: &'a str,
    /// Cuts the call.
    pub(crate) cancel: &'a CancelToken,
    /// Nothing of the call, the reading of its answer included, lasts longer.
    pub(crate) deadline: Time,
    /// The first byte has to be in by then; what `timeouts.first_byte` says may come sooner.
    pub(crate) first_byte_by: Time,
    /// Until the body's first byte, once the connection stands; the shorter of it and `timeouts.first_byte` counts.
    pub(crate) first_byte: Option<Duration>,
    /// Told when the connection stands, and when the answer's head is in.
    pub(crate) watch: &'a dyn CallWatch,
}

/// A request without a body; its fields are those of [`Post`].
#[derive(Debug)]
pub(crate) struct Get<'a> {
    /// Appended to the provider's base URL; begins with a slash.
    pub(crate) path: &'a str,
    /// Besides those that the transport sets.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// The media type that we want.
    pub(crate) accept: &'a str,
    /// Cuts the call.
    pub(crate) cancel: &'a CancelToken,
    /// Nothing of the call lasts longer.
    pub(crate) deadline: Time,
    /// Told when the connection stands, and when the answer's head is in.
    pub(crate) watch: &'a dyn CallWatch,
}

impl Transport {
    /// A transport to `provider`, without connections yet.
    pub(crate) fn new(
        provider: &config::Provider,
        timeouts: &config::Timeouts,
        clock: SharedClock,
    ) -> Transport {
        let pool = names(&provider.base_url, &clock).map(|names| {
            let tls = tls::settings(provider);
            Arc::new(Pool::new(&provider.pool, names, Arc::clone(&clock), tls))
        });
        Transport {
            base_url: provider.base_url.clone(),
            authorization: provider.api_key.as_deref().map(bearer),
            timeouts: timeouts.clone(),
            clock,
            pool,
        }
    }

    /// Sends a request with a body and waits for the head of its answer. A status of any kind is an answer.
    ///
    /// # Errors
    /// Any [`TransportError`].
    pub(crate) fn post(&self, post: &Post<'_>) -> Result<Answer, TransportError> {
        let request = self
            .request(Method::POST, post.path, post.headers, post.accept)?
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, post.body.len());
        let body = Some(post.body);
        let exchange = self.exchange(post.cancel, post.deadline, post.first_byte);
        let exchange = exchange.first_byte_by(post.first_byte_by);
        self.run(request, body, exchange, post.watch)
    }

    /// Sends a request without a body; otherwise as [`Transport::post`].
    ///
    /// # Errors
    /// Any [`TransportError`].
    pub(crate) fn get(&self, get: &Get<'_>) -> Result<Answer, TransportError> {
        let request = self.request(Method::GET, get.path, get.headers, get.accept)?;
        let exchange = self.exchange(get.cancel, get.deadline, None);
        self.run(request, None, exchange, get.watch)
    }

    /// What the pool holds and has done.
    pub(crate) fn pool_stats(&self) -> PoolStats {
        self.pool
            .as_ref()
            .map_or(PoolStats::default(), |pool| pool.stats())
    }

    /// Has the pool count anew.
    pub(crate) fn reset_pool_stats(&self) {
        if let Ok(pool) = &self.pool {
            pool.reset();
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        accept: &str,
    ) -> Result<Builder, TransportError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .header(ACCEPT, accept);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone()?);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request)
    }

    fn exchange(
        &self,
        cancel: &CancelToken,
        deadline: Time,
        first_byte: Option<Duration>,
    ) -> Exchange {
        Exchange::new(&self.clock, &self.timeouts, cancel, deadline).within(first_byte)
    }

    fn run(
        &self,
        request: Builder,
        body: Option<&[u8]>,
        exchange: Exchange,
        watch: &dyn CallWatch,
    ) -> Result<Answer, TransportError> {
        let pool = self.pool.as_ref().map_err(TransportError::clone)?;
        let exchange = Arc::new(exchange);
        exchange.admit()?;
        // Declared in this order so that, on an early end, the hook goes first and then the client.
        let lease = pool.lease();
        lease.slot().begin(&exchange);
        let grip = Arc::clone(exchange.grip());
        let hook = exchange.token().on_cancel(move |_| grip.cut());

        let mut upload = Upload {
            rest: body.unwrap_or_default(),
            exchange: &exchange,
            watch: Some(watch),
        };
        let result = match body {
            Some(_) => send(lease.agent(), request, SendBody::from_reader(&mut upload)),
            None => send(lease.agent(), request, ()),
        };
        upload.announce();
        match result {
            Ok(response) => {
                watch.first_byte();
                Ok(Answer::new(response, exchange, hook, lease))
            }
            Err(error) => Err(TransportError::classify(error, &exchange)),
        }
    }
}

fn send(
    agent: &Agent,
    request: Builder,
    body: impl AsSendBody,
) -> Result<Response<Body>, ureq::Error> {
    agent.run(request.body(body)?)
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("base_url", &self.base_url)
            .field("pool", &self.pool_stats())
            .finish_non_exhaustive()
    }
}

/// A body that is sent; being asked for its first byte, it knows that the connection stands.
///
/// The HTTP client keeps no borrowed callbacks, but it borrows the body: that is how the caller's watch is told in time
/// and on the caller's thread. A request without a body is announced when its answer is in.
struct Upload<'a> {
    rest: &'a [u8],
    exchange: &'a Exchange,
    /// Taken when it was told.
    watch: Option<&'a dyn CallWatch>,
}

impl Upload<'_> {
    fn announce(&mut self) {
        if let Some(reused) = self.exchange.stood()
            && let Some(watch) = self.watch.take()
        {
            watch.connected(reused);
        }
    }
}

impl Read for Upload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.announce();
        self.rest.read(buffer)
    }
}

/// Who is to be connected to, from the base URL.
fn names(base_url: &str, clock: &SharedClock) -> Result<Names, TransportError> {
    let wrong = || TransportError::connect(format!("`{base_url}` is not an http or https URL"));
    let url: Uri = base_url.parse().map_err(|_| wrong())?;
    let default_port = match url.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        Some(_) | None => return Err(wrong()),
    };
    let host = url.host().ok_or_else(wrong)?;
    let port = url.port_u16().unwrap_or(default_port);
    Ok(Names::new(host, port, Arc::clone(clock)))
}

/// The header for `key`, marked so that no log shows it.
fn bearer(key: &str) -> Result<HeaderValue, TransportError> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.trim()))
        .map_err(|_| TransportError::connect("the API key can't stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
