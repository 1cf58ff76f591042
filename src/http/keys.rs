//! Who asks: the API keys of clients, and what each caller may see.
//!
//! With keys configured, every route but the [open](super::routes::Route::is_open) ones needs one. It is looked at when the
//! head is in, before the body is read, so a stranger costs no memory; and again when the request is served, which is
//! where the caller is needed.
//!
//! A key is compared with *every* configured one, each in constant time: how long a refusal takes tells how long the keys
//! are, not how much of one was guessed, nor which. No text made here has anything in it of what the client sent.

use std::fmt;

use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::config::{ClientKey, Priority};
use crate::door::Headers;
use crate::engine::Owner;

/// The keys of all clients.
#[derive(Debug)]
pub(super) struct Keyring(Vec<ClientKey>);

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller<'k> {
    /// No keys are configured: whoever reaches the gateway may do everything.
    Anyone,
    /// The client that has this key.
    Client(&'k ClientKey),
}

impl Keyring {
    pub(super) fn new(keys: &[ClientKey]) -> Self {
        Keyring(keys.to_vec())
    }

    /// Who sends a request with these headers.
    ///
    /// # Errors
    /// 401 where a key is needed and none is given, or one that is nobody's.
    pub(super) fn caller(&self, headers: &Headers) -> Result<Caller<'_>, ApiError> {
        self.identify(presented(
            headers.get("Authorization"),
            headers.get("x-api-key"),
        ))
    }

    fn identify(&self, presented: Option<&str>) -> Result<Caller<'_>, ApiError> {
        if self.0.is_empty() {
            return Ok(Caller::Anyone);
        }
        let Some(presented) = presented else {
            return Err(ApiError::invalid_api_key(
                "an API key is needed, as `Authorization: Bearer KEY` or `x-api-key: KEY`",
            ));
        };
        let mut found = None;
        for client in &self.0 {
            if client.key.as_bytes().ct_eq(presented.as_bytes()).into() {
                found = Some(client);
            }
        }
        found.map(Caller::Client).ok_or_else(|| {
            ApiError::invalid_api_key("the API key is not one of this gateway (server.keys)")
        })
    }
}

impl fmt::Display for Keyring {
    /// The names, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, client) in self.0.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            let admin = if client.admin { " (admin)" } else { "" };
            write!(f, "{separator}{}{admin}", client.name)?;
        }
        Ok(())
    }
}

/// The key that a client sends in these two headers. `Authorization` wins: clients of OpenAI's API always send one, so a
/// key beside it that is passed over, and one that is not, would be told apart by luck.
fn presented<'h>(authorization: Option<&'h str>, api_key: Option<&'h str>) -> Option<&'h str> {
    match authorization {
        Some(credentials) => {
            let (scheme, key) = credentials.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        }
        None => api_key.map(str::trim),
    }
}

impl Caller<'_> {
    /// The name of its key.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Caller::Anyone => None,
            Caller::Client(client) => Some(&client.name),
        }
    }

    /// Of its requests that don't say.
    pub(super) fn priority(&self) -> Priority {
        match self {
            Caller::Anyone => Priority::default(),
            Caller::Client(client) => client.priority,
        }
    }

    /// Whether it may see, and end, what came under the key of this name, or under none.
    pub(super) fn may_see(&self, key: Option<&str>) -> bool {
        match self {
            Caller::Anyone => true,
            Caller::Client(client) => client.admin || key == Some(&*client.name),
        }
    }

    /// Whether it may change what concerns everybody.
    pub(super) fn is_admin(&self) -> bool {
        match self {
            Caller::Anyone => true,
            Caller::Client(client) => client.admin,
        }
    }

    /// Whether it may see, and end, the jobs of this owner.
    pub(super) fn owns(&self, owner: &Owner) -> bool {
        self.may_see(owner.key().map(|key| &**key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Loader};

    /// The keys `one` of agent-1, `two` of agent-2, and `root` of ops, which is an admin.
    fn keyring() -> Keyring {
        let environment = Environment::from_iter([("A", "one"), ("B", "two"), ("C", "root")]);
        let text = "server.keys = [{ name = \"agent-1\", key_env = \"A\", priority = \"low\" }, \
                    { name = \"agent-2\", key_env = \"B\" }, { name = \"ops\", key_env = \"C\", admin = true }]";
        let config = Loader::new(environment).from_toml(text, "test.toml");
        Keyring::new(&config.expect("accepted").access.keys)
    }

    /// Who is taken to ask with these values of `Authorization` and `x-api-key`.
    fn caller(authorization: Option<&str>, api_key: Option<&str>) -> Result<String, u16> {
        let keyring = keyring();
        let caller = keyring.identify(presented(authorization, api_key));
        caller
            .map(|caller| caller.key().expect("keys are set").to_owned())
            .map_err(|error| error.status)
    }

    #[test]
    fn a_client_is_known_by_its_key_in_either_header() {
        for (value, who) in [
            ("Bearer one", "agent-1"),
            ("bearer two", "agent-2"),
            (" Bearer  root ", "ops"),
        ] {
            assert_eq!(caller(Some(value), None).as_deref(), Ok(who), "{value}");
        }
        for (value, who) in [("two", "agent-2"), (" one ", "agent-1")] {
            assert_eq!(caller(None, Some(value)).as_deref(), Ok(who), "{value}");
        }
    }

    #[test]
    fn whatever_is_no_key_is_refused() {
        assert_eq!(caller(None, None), Err(401));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer on",
            "Bearer onee",
            "Bearer One",
            "Bearer one two",
            "Basic one",
            "one",
        ] {
            assert_eq!(caller(Some(value), None), Err(401), "{value}");
        }
        for value in ["", "on", "Bearer one"] {
            assert_eq!(caller(None, Some(value)), Err(401), "{value}");
        }
    }

    #[test]
    fn a_right_key_does_not_make_up_for_a_wrong_one_beside_it() {
        assert_eq!(caller(Some("Bearer none"), Some("one")), Err(401));
        assert_eq!(
            caller(Some("Bearer two"), Some("one")).as_deref(),
            Ok("agent-2")
        );
    }

    #[test]
    fn a_refusal_shows_nothing_of_what_was_sent() {
        let keyring = keyring();
        let error = keyring.identify(Some("sk-secret")).expect_err("nobody's");
        assert!(!format!("{error:?}").contains("sk-secret"));
    }

    #[test]
    fn each_sees_its_own_and_an_admin_everything() {
        let keyring = keyring();
        let caller = |key: &'static str| keyring.identify(Some(key)).expect("a key");
        for (key, sees) in [
            ("one", [true, false, false]),
            ("two", [false, true, false]),
            ("root", [true, true, true]),
        ] {
            let owners = [Some("agent-1"), Some("agent-2"), None];
            let seen = owners.map(|of| caller(key).owns(&Owner::of(of, None)));
            assert_eq!(seen, sees, "{key}");
        }
        assert!(Caller::Anyone.may_see(None) && Caller::Anyone.may_see(Some("agent-1")));
        assert_eq!(caller("one").priority(), Priority::Low);
    }

    #[test]
    fn without_keys_whatever_is_sent_is_not_looked_at() {
        let keyring = Keyring::new(&[]);
        assert!(matches!(keyring.identify(Some("none")), Ok(Caller::Anyone)));
        assert!(matches!(keyring.identify(None), Ok(Caller::Anyone)));
    }

    #[test]
    fn the_log_is_told_names_alone() {
        assert_eq!(keyring().to_string(), "agent-1, agent-2, ops (admin)");
    }
}
