//! `[[server.keys]]`, `server.allowed_hosts`, `server.allowed_origins`: who may come in.
//!
//! A client's key is found as a provider's is, in a variable, a file or a systemd credential (`server.keys.NAME`: that of a
//! provider has the provider's name, and must never become a client's), with one difference: one that is not there
//! stops the start. Its client would be refused request after request, and nobody would know why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::MAX_IN_FLIGHT;
use super::environment::Environment;
use super::priority::Priority;
use super::secret;
use super::section::Section;

/// Who may come in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Access {
    /// The clients' keys. Empty: whoever reaches the gateway may use it, so only this machine may reach it.
    pub keys: Vec<ClientKey>,
    /// Names by which requests may call this machine, besides loopback ones and the address of `server.listen`: hosts and
    /// IP addresses, without ports.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may send requests, besides those of loopback hosts: `https://dash.example`.
    pub allowed_origins: Vec<String>,
}

/// `[[server.keys]]`: one client's key, and what its requests are.
#[derive(Clone, PartialEq)]
pub struct ClientKey {
    /// Who it is, in log and pages. No two have the same.
    pub name: String,
    /// The environment variable that holds the key.
    pub key_env: Option<String>,
    /// The file that holds the key.
    pub key_file: Option<PathBuf>,
    /// The key itself, as found when the configuration was read; visible ASCII, never empty, and no two are alike. Never printed.
    pub key: String,
    /// Of requests that don't say.
    pub priority: Priority,
    /// Calls in flight of each named session under this key, where that is less than `limits.session`.
    pub session_limit: Option<usize>,
    /// Whether it sees and ends everybody's requests.
    pub admin: bool,
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey")
            .field("name", &self.name)
            .field("priority", &self.priority)
            .field("session_limit", &self.session_limit)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

impl Access {
    pub(super) fn read(section: &mut Section<'_>, environment: &Environment) -> Self {
        let keys = section.sections("keys", |section| ClientKey::read(section, environment));
        let access = Access {
            keys: keys.unwrap_or_default(),
            allowed_hosts: read_list(
                section,
                "allowed_hosts",
                "a list of host names and IP addresses, without ports",
                is_host,
            ),
            allowed_origins: read_list(
                section,
                "allowed_origins",
                "a list of origins as browsers send them: scheme://host or scheme://host:port",
                is_origin,
            ),
        };
        access.refuse_doubles(section);
        access
    }

    /// Two keys of one name, or two names for one key: nobody could tell whose a request is.
    fn refuse_doubles(&self, section: &mut Section<'_>) {
        let (mut names, mut owners) = (BTreeSet::new(), BTreeMap::new());
        // What is empty has been refused already.
        for key in self.keys.iter().filter(|key| !key.name.is_empty()) {
            if !names.insert(&key.name) {
                let message = format!("the name {:?} stands there twice", key.name);
                section.refuse("keys", message);
            }
            let other = owners.insert(&key.key, &key.name);
            if let Some(other) = other.filter(|_| !key.key.is_empty()) {
                let message = format!(
                    "the keys of {other:?} and {:?} are alike, accepted are different ones: nobody could tell whose a \
                     request is",
                    key.name
                );
                section.refuse("keys", message);
            }
        }
    }
}

impl ClientKey {
    fn read(section: &mut Section<'_>, environment: &Environment) -> Self {
        let name = section.unshown_name("name", "letters, digits, - _ and ., at most 64", is_name);
        let (key_env, key_file) = secret::read(section, "key_env", "key_file");
        let key = ClientKey {
            name,
            key: String::new(),
            key_env,
            key_file,
            priority: section.parsed("priority").unwrap_or_default(),
            session_limit: section.count("session_limit", 1..=MAX_IN_FLIGHT),
            admin: section.flag("admin").unwrap_or(false),
        };
        let found = key.find(section, environment);
        ClientKey { key: found, ..key }
    }

    /// What a systemd credential with it is called.
    fn credential(&self) -> String {
        format!("server.keys.{}", self.name)
    }

    /// The key; empty where there is none, which is then refused.
    fn find(&self, section: &mut Section<'_>, environment: &Environment) -> String {
        let (variable, file) = (self.key_env.as_deref(), self.key_file.as_deref());
        let credential = || secret::from_credential(&self.credential(), environment);
        let found = match secret::find(variable, file, environment) {
            Ok(None) if !self.name.is_empty() => credential(),
            found => found,
        };
        let problem = match found {
            Ok(Some(key)) => return key,
            Ok(None) => match variable {
                Some(name) => format!("the environment variable {name} is not set"),
                // What is named and not accepted has been refused already.
                None if says(section, "key_env") || says(section, "key_file") => {
                    return String::new();
                }
                None => "missing, accepted is the name of an environment variable, a file in key_file, or a systemd \
                         credential server.keys.NAME"
                    .to_owned(),
            },
            Err(problem) => problem,
        };
        let knob = match file {
            Some(_) => "key_file",
            None => "key_env",
        };
        section.refuse(knob, problem);
        String::new()
    }
}

fn says(section: &Section<'_>, knob: &str) -> bool {
    section.keys().iter().any(|key| key == knob)
}

/// It goes into log lines and pages as it is.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

fn read_list(
    section: &mut Section<'_>,
    knob: &str,
    accepted: &str,
    is_accepted: impl Fn(&str) -> bool,
) -> Vec<String> {
    let list = section.knob(knob, accepted, |value| {
        value
            .as_words()
            .filter(|words| words.iter().all(|word| is_accepted(word)))
    });
    list.unwrap_or_default()
}

fn is_host(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_name = !text.is_empty() && text.bytes().all(fits);
    is_name || text.parse::<IpAddr>().is_ok()
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else {
        return false;
    };
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let in_host = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\,".contains(&byte);
    let fits = |part: &str, fits: &dyn Fn(u8) -> bool| !part.is_empty() && part.bytes().all(fits);
    fits(scheme, &in_scheme) && fits(host, &in_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses_without_ports() {
        for host in ["box.lan", "my_box", "192.168.1.7", "::1", "fe80::1"] {
            assert!(is_host(host), "{host}");
        }
        for text in [
            "",
            "box.lan:80",
            "http://box.lan",
            "[::1]:80",
            "*.lan",
            "a b",
        ] {
            assert!(!is_host(text), "{text}");
        }
    }

    #[test]
    fn origins_are_what_browsers_send() {
        for origin in [
            "https://dash.example",
            "http://box.lan:8080",
            "vscode-webview://1a2b",
            "http://[fe80::1]:80",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for text in [
            "",
            "null",
            "*",
            "dash.example",
            "https://",
            "://dash.example",
            "https://dash.example/",
            "https://user@dash.example",
        ] {
            assert!(!is_origin(text), "{text}");
        }
    }
}
