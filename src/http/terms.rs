//! What requests are served by, as the configuration has it: exchanged as a whole when it is reloaded, taken once per request.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::Guard;
use super::keys::Keyring;
use crate::config::{Config, Listen, Profile};

/// See the story of this file.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) guard: Guard,
    pub(super) keyring: Keyring,
    pub(super) profile: Profile,
    /// Providers that can't be called, and what to do about it.
    pub(super) missing_keys: BTreeMap<String, String>,
    /// How long a test of connections may take.
    pub(super) test_within: Duration,
    /// Nesting of a request's JSON.
    pub(super) json_depth: usize,
    /// A stream that has nothing to say says a comment this often.
    pub(super) stream_keepalive: Duration,
}

impl Terms {
    /// Those of a gateway that listens on `listens`, which no reload changes.
    pub(super) fn new(config: &Config, listens: &[Listen]) -> Self {
        let missing = config.providers.values().filter_map(|provider| {
            let advice = provider.missing_key()?;
            Some((provider.name.clone(), advice))
        });
        Terms {
            guard: Guard::new(&config.access, listens),
            keyring: Keyring::new(&config.access.keys),
            profile: config.profile,
            missing_keys: missing.collect(),
            test_within: config.timeouts.normal,
            json_depth: config.server.json_depth,
            stream_keepalive: config.server.stream_keepalive,
        }
    }
}
