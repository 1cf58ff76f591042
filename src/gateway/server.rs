//! A gateway's HTTP front, and the order in which both stop.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use super::error::StartError;
use super::reload::Remote;
use crate::config::{Config, Listen};
use crate::door::{Door, Inherited};
use crate::http::Api;

/// Time for the last answers to reach their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A gateway's HTTP front. Dropping it closes the front at once; the gateway stops with it unless somebody else has it.
pub struct Server {
    // Order of fields is order of drop: the door closes before the engine stops under it.
    door: Door,
    /// Whether a successor goes on with its sockets.
    is_inherited: bool,
    gateway: Gateway,
}

pub(super) fn open(gateway: &Gateway) -> Result<Server, StartError> {
    let config = gateway.config();
    let api = api(gateway, std::slice::from_ref(&config.server.listen));
    let door = Door::open(&config.server, Arc::clone(&gateway.clock), api);
    let door = door.map_err(|cause| StartError::Listen {
        address: config.server.listen.to_string(),
        cause,
    })?;
    Ok(Server {
        door,
        is_inherited: false,
        gateway: gateway.clone(),
    })
}

pub(super) fn open_on(gateway: &Gateway, sockets: Vec<Inherited>) -> Result<Server, StartError> {
    let listens = sockets.iter().map(Inherited::listen);
    let listens: Vec<Listen> = listens
        .collect::<io::Result<_>>()
        .map_err(StartError::Inherited)?;
    // The rule of `server.listen`, which does not count here.
    let exposed = listens.iter().find(|listen| !listen.is_loopback());
    let config = gateway.config();
    if let Some(listen) = exposed.filter(|_| config.access.keys.is_empty()) {
        return Err(StartError::Exposed(listen.clone()));
    }
    let clock = Arc::clone(&gateway.clock);
    let door = Door::open_on(&config.server, clock, api(gateway, &listens), sockets);
    Ok(Server {
        door: door.map_err(StartError::Inherited)?,
        is_inherited: true,
        gateway: gateway.clone(),
    })
}

fn api(gateway: &Gateway, listens: &[Listen]) -> Arc<Api> {
    gateway.current.attach(|config: &Config| {
        let api = Api::new(
            config,
            listens,
            Arc::clone(&gateway.clock),
            Arc::clone(&gateway.engine),
            Arc::clone(&gateway.lifecycle),
            Box::new(Remote::new(gateway)),
        );
        match &gateway.alerts {
            Some(alerts) => api.with_alerts(Arc::clone(alerts.book())),
            None => api,
        }
    })
}

impl Server {
    /// Where it listens: `127.0.0.1:8787`, or `unix:PATH`; of several sockets the first.
    pub fn address(&self) -> String {
        self.door.address()
    }

    /// Where it listens, every socket.
    pub fn addresses(&self) -> &[String] {
        self.door.addresses()
    }

    /// How long stopping may take, as configured now (`server.drain`).
    pub fn drain(&self) -> Duration {
        self.gateway.config().server.drain
    }

    /// Stops the front and the whole gateway with it, in two stages: takes nothing new and lets what runs finish for at
    /// most `drain`; then ends the rest. Returns when no thread is left.
    ///
    /// On a socket of its own it tells whoever still comes that it stops. On one that was handed over it stops accepting, so
    /// that they wait for whoever comes after, and answers those whom it has let in before.
    pub fn stop(mut self, drain: Duration) {
        let clock = &self.gateway.clock;
        let until = clock.now() + drain;
        match self.is_inherited {
            true => {
                let grace = self.gateway.config().server.hand_over;
                self.door.hand_over(grace.min(drain));
            }
            false => self.door.quiesce(),
        }
        let drain = until.since(clock.now());
        // Whoever waits or runs has its end by `until`, and the door's answers to it are written by then.
        self.gateway.shutdown(drain);
        self.door.stop(until.since(clock.now()) + LAST_WORDS);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}
