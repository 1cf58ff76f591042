//! A gateway's HTTP front, and the order in which both stop.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use super::error::StartError;
use crate::door::Door;
use crate::http::Api;

/// Time for the last answers to reach their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A gateway's HTTP front. Dropping it closes the front at once; the gateway stops with it unless somebody else has it.
pub struct Server {
    // Order of fields is order of drop: the door closes before the engine stops under it.
    door: Door,
    gateway: Gateway,
}

pub(super) fn open(gateway: &Gateway) -> Result<Server, StartError> {
    let config = &gateway.config;
    let api = Api::new(
        config,
        Arc::clone(&gateway.clock),
        Arc::clone(&gateway.engine),
        Arc::clone(&gateway.lifecycle),
    );
    let api = match &gateway.alerts {
        Some(alerts) => api.with_alerts(Arc::clone(alerts.book())),
        None => api,
    };
    let door = Door::open(&config.server, Arc::clone(&gateway.clock), Arc::new(api));
    let door = door.map_err(|cause| StartError::Listen {
        address: config.server.listen.to_string(),
        cause,
    })?;
    Ok(Server {
        door,
        gateway: gateway.clone(),
    })
}

impl Server {
    /// Where it listens: `127.0.0.1:8787`, or `unix:PATH`.
    pub fn address(&self) -> String {
        self.door.address()
    }

    /// Stops the front and the whole gateway with it, in two stages: takes nothing new and lets what runs finish for at
    /// most `drain`; then ends the rest. Returns when no thread is left.
    pub fn stop(self, drain: Duration) {
        let clock = &self.gateway.clock;
        let until = clock.now() + drain;
        self.door.quiesce();
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
