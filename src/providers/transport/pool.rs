//! The connections to one provider, each with an HTTP client of its own.
//!
//! The client has a pool too, but it can't tell a connection which call it serves, has no age limit and counts
//! nothing. So each of its pools is made to hold one connection, and this pool holds the clients: a client costs
//! a few small allocations, and they share what is dear (TLS settings and sessions, names).
//!
//! Nobody waits here. A call comes with its provider's permit, and there are at least as many places as permits;
//! a call over the bound (a reclaimed one may still be closing) is served all the same and its connection not kept.
//!
//! The last connection given back is the first one taken: the rest can grow old and go. Those that have idled too long,
//! or are too many, are at the other end, where they are looked for whenever one is taken or given back; one that is too
//! old in all is not taken up again. So no call pays for more than it closes. Sockets are closed outside the lock.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use ureq::Agent;
use ureq::config::{AutoHeaderValue, Config};
use ureq::http::Uri;
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout};

use crate::clock::{SharedClock, Time};
use crate::config;

use super::names::Names;
use super::socket::{EarConnector, SharedTls, Slot, SocketConnector};

/// Bytes of each of a connection's two buffers. The client's default of 128 KiB would be 256 MiB at 1,000 calls in flight.
const BUFFER_BYTES: usize = 8 * 1024;
/// Bytes of an answer's head; less than the buffer, so that one too long is told from one cut off.
const HEAD_BYTES: usize = 7 * 1024;

/// The connections to a provider: what there is, and what has become of them since the counts were last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Connections that serve a call.
    pub active: usize,
    /// Connections that wait for one.
    pub idle: usize,
    /// Places.
    pub max: usize,
    /// The most that served calls at once.
    pub peak: usize,
    /// Calls begun.
    pub checkouts: u64,
    /// Of these, calls that found a connection.
    pub reused: u64,
    /// Calls ended.
    pub checkins: u64,
    /// Calls that left no usable connection behind: refused, cut, broken off, closed by the peer.
    pub failed: u64,
    /// Connections closed for their age, or because there was no place.
    pub recycled: u64,
}

/// Clients with a connection, for one provider.
#[derive(Debug)]
pub(super) struct Pool {
    limits: config::Pool,
    clock: SharedClock,
    names: Names,
    tls: SharedTls,
    settings: Config,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// The one given back last is the last.
    idle: VecDeque<Client>,
    stats: PoolStats,
}

#[derive(Debug)]
struct Client {
    agent: Agent,
    slot: Arc<Slot>,
    idle_since: Time,
}

impl Pool {
    pub(super) fn new(
        limits: &config::Pool,
        names: Names,
        clock: SharedClock,
        tls: TlsConfig,
    ) -> Self {
        Pool {
            limits: limits.clone(),
            clock,
            names,
            tls: SharedTls::default(),
            settings: settings(tls),
            books: Mutex::default(),
        }
    }

    /// A client for one call: with a connection if one is idle, else it will make one.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        let now = self.clock.now();
        let (client, old) = {
            let mut books = self.books.lock();
            books.stats.checkouts += 1;
            books.stats.active += 1;
            books.stats.peak = books.stats.peak.max(books.stats.active);
            let mut old = self.retire(&mut books, now);
            let mut client = books.idle.pop_back();
            while client
                .as_ref()
                .is_some_and(|client| self.is_old(client, now))
            {
                books.stats.recycled += 1;
                old.extend(client);
                client = books.idle.pop_back();
            }
            books.stats.reused += u64::from(client.is_some());
            (client, old)
        };
        drop(old);
        Lease {
            client: Some(client.unwrap_or_else(|| self.client(now))),
            pool: Arc::clone(self),
        }
    }

    pub(super) fn stats(&self) -> PoolStats {
        let books = self.books.lock();
        PoolStats {
            idle: books.idle.len(),
            max: self.limits.max_connections,
            ..books.stats
        }
    }

    /// Begins to count anew. What there is stays as it is.
    pub(super) fn reset(&self) {
        let mut books = self.books.lock();
        let active = books.stats.active;
        books.stats = PoolStats {
            active,
            peak: active,
            ..PoolStats::default()
        };
    }

    fn give_back(&self, mut client: Client) {
        let now = self.clock.now();
        client.idle_since = now;
        let kept = client.slot.kept().is_some();
        let mut books = self.books.lock();
        books.stats.checkins += 1;
        books.stats.active -= 1;
        if kept {
            books.idle.push_back(client);
        } else {
            books.stats.failed += 1;
        }
        let old = self.retire(&mut books, now);
        drop(books);
        drop(old);
    }

    /// Takes out what has idled longest while it is too old or one too many.
    fn retire(&self, books: &mut Books, now: Time) -> Vec<Client> {
        let places = self
            .limits
            .max_connections
            .saturating_sub(books.stats.active);
        let mut old = Vec::new();
        while let Some(oldest) = books.idle.front()
            && (books.idle.len() > places || self.is_old(oldest, now))
        {
            old.extend(books.idle.pop_front());
        }
        books.stats.recycled += old.len() as u64;
        old
    }

    fn is_old(&self, client: &Client, now: Time) -> bool {
        let opened = client.slot.kept().unwrap_or(Time::ZERO);
        now.since(client.idle_since) >= self.limits.max_idle_age
            || now.since(opened) >= self.limits.max_age
    }

    fn client(&self, now: Time) -> Client {
        let slot = Arc::new(Slot::default());
        let socket = SocketConnector {
            slot: Arc::clone(&slot),
            names: self.names.clone(),
        };
        let ear = EarConnector {
            slot: Arc::clone(&slot),
        };
        let chain = socket.chain(self.tls.clone()).chain(ear);
        Client {
            agent: Agent::with_parts(self.settings.clone(), chain, NoResolver),
            slot,
            idle_since: now,
        }
    }
}

/// A client on loan; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Lease {
    /// `None` only while it is dropped.
    client: Option<Client>,
    pool: Arc<Pool>,
}

impl Lease {
    pub(super) fn agent(&self) -> &Agent {
        &self.client().agent
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.client().slot
    }

    fn client(&self) -> &Client {
        self.client
            .as_ref()
            .expect("a lease has a client until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.pool.give_back(client);
        }
    }
}

/// What the client must not do by itself: follow redirects (a provider could send us to an internal address, with
/// our key), make errors of statuses (a 429 would lose its headers and body), ask for compression (an
/// event stream would come in blocks), or take a proxy from the environment: its variables are set for other
/// programs on the box, and a proxy would see who talks to whom. There is no proxy support.
fn settings(tls: TlsConfig) -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .tls_config(tls)
        .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
        .accept(AutoHeaderValue::None)
        .accept_encoding("identity")
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .max_response_header_size(HEAD_BYTES)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .max_idle_age(std::time::Duration::MAX)
        .build()
}

/// The client resolves before it looks for an idle connection; we look names up only to make one (see `socket.rs`).
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}
