//! A small HTTP client for our own errands: load tests, and questions to a running server.
//!
//! One [`Client`] keeps one connection and serves one thread at a time; whoever wants two requests at once makes two
//! clients. A server is named by an `http://` or `https://` address, or by `unix:PATH`.
//!
//! **What ends a request.** Its timeout covers all of it, the reading of the answer included: the HTTP client hands
//! what is left of it to every read and write, and the socket keeps to that. The client's token ends it sooner: its
//! hook shuts the socket, which wakes whoever is blocked on it. What a shut socket then seems to say is not believed:
//! the token is asked first.
//!
//! **Known limits.** A name is looked up when the client is made, by a call that the system alone bounds. A TCP connect
//! is not woken by the token; it takes at most [`CONNECT`]. The calls to providers have none of these limits: see
//! [`crate::providers`].

mod error;
mod socket;

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use ureq::config::{AutoHeaderValue, Config};
use ureq::http::header::{CONTENT_TYPE, HeaderMap};
use ureq::http::{Request, Response};
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, AsSendBody, Body, BodyReader};

use crate::cancel::CancelToken;

use socket::{NoResolver, SocketConnector, Target};

pub use error::ClientError;

/// No connection takes longer to be made, whatever the request's timeout.
pub const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of one read, and of each of the connection's two buffers.
const BUFFER_BYTES: usize = 16 * 1024;

/// A connection to one server, made when it is needed.
///
/// ```no_run
/// use pointsman::cancel::CancelToken;
/// use pointsman::client::Client;
/// use std::time::Duration;
///
/// let client = Client::new("http://127.0.0.1:8787", &CancelToken::new())?;
/// let answer = client.get("/healthz", &[], Duration::from_secs(5))?;
/// assert_eq!(answer.status, 200);
/// # Ok::<(), pointsman::client::ClientError>(())
/// ```
pub struct Client {
    agent: Agent,
    base: String,
    cancel: CancelToken,
}

impl Client {
    /// A client of the server at `url`; nothing is connected to yet. `cancel` ends its requests.
    ///
    /// # Errors
    /// [`ClientError::Url`] for an address that is none; [`ClientError::Connect`] for a name that nobody knows.
    pub fn new(url: &str, cancel: &CancelToken) -> Result<Client, ClientError> {
        let (target, base) = Target::of_url(url)?;
        let socket = SocketConnector {
            target,
            cancel: cancel.clone(),
        };
        let chain = socket.chain(RustlsConnector::default());
        Ok(Client {
            agent: Agent::with_parts(settings(), chain, NoResolver),
            base,
            cancel: cancel.clone(),
        })
    }

    /// Asks for `path`, and waits for the head of the answer. A status of any kind is an answer.
    ///
    /// # Errors
    /// Any [`ClientError`] but [`ClientError::Url`].
    pub fn get(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let request = Request::get(format!("{}{path}", self.base));
        self.run(request, headers, (), timeout)
    }

    /// Sends JSON to `path`; otherwise as [`Client::get`].
    ///
    /// # Errors
    /// Any [`ClientError`] but [`ClientError::Url`].
    pub fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let request = Request::post(format!("{}{path}", self.base));
        let request = request.header(CONTENT_TYPE, "application/json");
        self.run(request, headers, body, timeout)
    }

    fn run(
        &self,
        mut request: ureq::http::request::Builder,
        headers: &[(&str, &str)],
        body: impl AsSendBody,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = request.body(body).map_err(ureq::Error::from);
        let sent = sent.and_then(|request| {
            let request = self.agent.configure_request(request);
            let request = request.timeout_global(Some(timeout)).build();
            self.agent.run(request)
        });
        match sent {
            Ok(response) => Ok(Answer::new(response, self.cancel.clone())),
            Err(error) => Err(ClientError::of(error, &self.cancel)),
        }
    }
}

/// No redirects, no errors made of statuses, no compression, and no proxy: a server of our own is meant, as named.
fn settings() -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
        .accept(AutoHeaderValue::None)
        .accept_encoding("identity")
        .timeout_connect(Some(CONNECT))
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .build()
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// An answer: its status, its headers, and its body as it comes in.
///
/// Errors of its reads carry a [`ClientError`], which `ClientError::from` finds. The connection serves the next request
/// if the body was read to its end; it is closed otherwise.
pub struct Answer {
    /// The HTTP status, whatever it is.
    pub status: u16,
    headers: HeaderMap,
    body: BufReader<Incoming>,
}

impl Answer {
    fn new(response: Response<Body>, cancel: CancelToken) -> Self {
        let (head, body) = response.into_parts();
        let body = Incoming {
            reader: body.into_reader(),
            cancel,
        };
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: BufReader::with_capacity(BUFFER_BYTES, body),
        }
    }

    /// The first header of that name, in any case; `None` also where it isn't ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The rest of the body, at most `max_bytes` of it.
    ///
    /// # Errors
    /// Any [`ClientError`] that a read can meet; [`ClientError::Broken`] also for a body that is longer.
    pub fn text(self, max_bytes: usize) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        self.take(max_bytes as u64 + 1).read_to_end(&mut text)?;
        if text.len() > max_bytes {
            return Err(ClientError::Broken(format!("more than {max_bytes} bytes")));
        }
        Ok(text)
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}

impl BufRead for Answer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.body.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.body.consume(amount);
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// A body whose errors have our names.
struct Incoming {
    reader: BodyReader<'static>,
    cancel: CancelToken,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer);
        // A socket that the hook shut may read as a clean end.
        let error = match (read, self.cancel.reason()) {
            (Ok(amount), None) => return Ok(amount),
            (_, Some(reason)) => ClientError::Cancelled(reason),
            (Err(error), None) => ClientError::of(error.into(), &self.cancel),
        };
        Err(io::Error::other(error))
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
