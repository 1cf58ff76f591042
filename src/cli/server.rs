//! Which running server a command speaks to, and with whose key.

use std::env;

use clap::Args;
use serde_json::Value;

use super::Source;
use crate::cancel::CancelToken;
use crate::client::{Answer, Client, ClientError};
use crate::config::{Config, ConfigError, Listen, is_loopback_url};

/// How a command is told of a running server.
#[derive(Debug, Args)]
pub(super) struct Which {
    #[command(flatten)]
    source: Source,
    /// The server: http://HOST:PORT or unix:PATH [default: where the configuration listens]
    #[arg(short, long)]
    url: Option<String>,
    /// The environment variable that holds a key of the server [default: the configuration's first, an admin's if it has
    /// one; none where --url names another machine]
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
}

/// A running server, and the key to show it, which no `Debug` may.
pub(super) struct Server {
    pub(super) url: String,
    pub(super) key: Option<String>,
}

/// Why it is not known which server.
pub(super) enum Unknown {
    /// The configuration, which should have said it, is refused.
    Refused(ConfigError),
    /// Something else, in words.
    Other(String),
}

impl Which {
    /// The server. The configuration is read for what is not said outright, and its keys stay on this machine.
    pub(super) fn find(&self) -> Result<Server, Unknown> {
        let key = self.key_env.as_ref().map(|name| match env::var(name) {
            Ok(key) => Ok(key),
            Err(error) => Err(Unknown::Other(format!(
                "the environment variable {name}: {error}"
            ))),
        });
        let key = key.transpose()?;
        if let Some(url) = &self.url
            && (key.is_some() || !is_here(url))
        {
            let url = url.clone();
            return Ok(Server { url, key });
        }
        match (self.source.load(None), self.url.clone()) {
            (Ok(config), url) => Ok(Server {
                url: url.map_or_else(|| configured(&config), Ok)?,
                key: key.or_else(|| a_key(&config)),
            }),
            (Err(_), Some(url)) => Ok(Server { url, key }),
            (Err(error), None) => Err(Unknown::Refused(error)),
        }
    }
}

impl Server {
    /// The status of what is answered to what `send` sends, with the headers that it is given, and the answer, of at most
    /// `most` bytes; null where that is no JSON.
    pub(super) fn exchange(
        &self,
        cancel: &CancelToken,
        most: usize,
        send: impl FnOnce(&Client, &[(&str, &str)]) -> Result<Answer, ClientError>,
    ) -> Result<(u16, Value), ClientError> {
        let client = Client::new(&self.url, cancel)?;
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer
            .iter()
            .map(|bearer| ("Authorization", bearer.as_str()))
            .collect();
        let answer = send(&client, &headers)?;
        let status = answer.status;
        let text = answer.text(most)?;
        Ok((status, serde_json::from_slice(&text).unwrap_or_default()))
    }
}

fn is_here(url: &str) -> bool {
    url.starts_with("unix:") || is_loopback_url(url)
}

/// Where the configured server is.
fn configured(config: &Config) -> Result<String, Unknown> {
    match &config.server.listen {
        Listen::Tcp(address) if address.ends_with(":0") => Err(Unknown::Other(format!(
            "the configuration listens on {address}, which is any free port: say with --url which one it is"
        ))),
        Listen::Tcp(address) => Ok(format!("http://{address}")),
        listen @ Listen::Unix(_) => Ok(listen.to_string()),
    }
}

/// An admin may do and see everything.
fn a_key(config: &Config) -> Option<String> {
    let keys = &config.access.keys;
    let admin = keys.iter().find(|key| key.admin);
    admin.or(keys.first()).map(|found| found.key.clone())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_configurations_key_is_shown_to_no_other_machine() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("config.toml");
        let secret = directory.path().join("key");
        fs::write(&secret, "one-of-many-keys-0123456789").expect("written");
        let keys = format!("server.keys = [{{ name = \"one\", key_file = {secret:?} }}]");
        fs::write(&file, keys).expect("written");
        let key = |url: &str, key_env: Option<&str>| {
            let which = Which {
                source: Source {
                    config: Some(file.clone()),
                    profile: None,
                },
                url: (!url.is_empty()).then(|| url.to_owned()),
                key_env: key_env.map(str::to_owned),
            };
            match which.find() {
                Ok(server) => server.key,
                Err(Unknown::Other(why)) => panic!("{why}"),
                Err(Unknown::Refused(error)) => panic!("{error}"),
            }
        };
        let own = Some("one-of-many-keys-0123456789".to_owned());
        for here in [
            "",
            "http://127.0.0.1:8787",
            "http://localhost:1",
            "http://[::1]:1",
            "unix:p.sock",
        ] {
            assert_eq!(key(here, None), own, "{here}");
        }
        for there in [
            "http://10.0.0.1:8787",
            "https://gateway.example",
            "nonsense",
        ] {
            assert_eq!(key(there, None), None, "{there}");
            let said = key(there, Some("CARGO_PKG_NAME"));
            assert_eq!(said.as_deref(), Some("pointsman"), "{there}");
        }
    }

    #[test]
    fn a_server_on_any_free_port_has_to_be_named() {
        let at = |listen: &str| {
            let text = format!("server.listen = \"{listen}\"");
            match configured(&Config::from_toml(&text, "test.toml").expect("accepted")) {
                Ok(url) => url,
                Err(Unknown::Other(why)) => why,
                Err(Unknown::Refused(error)) => error.to_string(),
            }
        };
        assert_eq!(at("127.0.0.1:9000"), "http://127.0.0.1:9000");
        assert_eq!(at("unix:/run/p.sock"), "unix:/run/p.sock");
        assert!(at("127.0.0.1:0").contains("say with --url"));
    }
}
