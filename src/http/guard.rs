//! Keeps web pages out: a page that a browser shows must not reach the gateway of its visitor's network.
//!
//! A page on another site can send requests to a loopback address, and by rebinding its own name to 127.0.0.1 it could
//! even read the answers. Both give themselves away: by an `Origin` that is not ours, and by a `Host` that names the
//! page's site. Honest clients name a loopback host, the host that the gateway listens on, or one that is configured.
//!
//! A gateway that listens on all addresses of its machine does not know them. There any IP address will do for a host:
//! what is rebound is a name, and the browser sends that name.

use std::net::IpAddr;

use super::error::ApiError;
use crate::config::{Access, Listen};
use crate::door::Head;

/// What requests may call this machine, and where those that come from web pages may come from.
#[derive(Debug)]
pub(super) struct Guard {
    /// Besides loopback ones.
    hosts: Vec<String>,
    /// Whether we listen on all addresses.
    any_address: bool,
    /// Besides those of loopback hosts.
    origins: Vec<String>,
}

impl Guard {
    pub(super) fn new(access: &Access, listens: &[Listen]) -> Self {
        let configured = access.allowed_hosts.iter().map(String::as_str);
        let ours = || listens.iter().filter_map(Listen::host);
        let is_any = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        Guard {
            hosts: configured.chain(ours()).map(canonical).collect(),
            any_address: ours().any(is_any),
            origins: access.allowed_origins.clone(),
        }
    }

    /// Whether the request may come in.
    ///
    /// # Errors
    /// 403 for a host or an origin that is not ours.
    pub(super) fn check(&self, head: &Head) -> Result<(), ApiError> {
        if let Some(host) = head.headers.get("Host").filter(|host| !self.is_ours(host)) {
            return Err(ApiError::forbidden(format!(
                "the host {:?} is not served: name this machine by a loopback address or localhost, or allow that name \
                 (server.allowed_hosts)",
                shown(host)
            )));
        }
        match head.headers.get("Origin") {
            Some(origin) if !self.is_welcome(origin, head.headers.get("Host")) => {
                Err(ApiError::forbidden(format!(
                    "the origin {:?} may not use this gateway (server.allowed_origins)",
                    shown(origin)
                )))
            }
            _ => Ok(()),
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = canonical(without_port(host));
        is_loopback(host)
            || self.hosts.contains(&name)
            || (self.any_address && name.parse::<IpAddr>().is_ok())
    }

    /// Whether a page from there may ask. One that came from the very host that it asks is ours: we served it.
    fn is_welcome(&self, origin: &str, host: Option<&str>) -> bool {
        let from = origin.split_once("://").map(|(_, from)| from);
        let mut allowed = self.origins.iter();
        let is_ours = |from: &str| host.is_some_and(|host| host.eq_ignore_ascii_case(from));
        from.is_some_and(|from| is_loopback(from) || is_ours(from))
            || allowed.any(|known| known.eq_ignore_ascii_case(origin))
    }
}

/// Whether `host:port`, `[v6]:port` or a bare host is this box.
fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// `host` of `host:port` and of `host`, `v6` of `[v6]:port` and of `[v6]`.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// One spelling for each name and address.
fn canonical(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(listen: &str, hosts: &[&str], origins: &[&str]) -> Guard {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let access = Access {
            keys: Vec::new(),
            allowed_hosts: owned(hosts),
            allowed_origins: owned(origins),
        };
        Guard::new(&access, &[listen.parse().expect("an address")])
    }

    #[test]
    fn only_this_box_is_this_box() {
        let guard = guard("127.0.0.1:8787", &[], &[]);
        for host in [
            "127.0.0.1:8787",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8787",
            "127.9.9.9",
            "api.localhost:80",
        ] {
            assert!(guard.is_ours(host), "{host}");
        }
        for host in [
            "evil.example:8787",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            "[::2]:1",
        ] {
            assert!(!guard.is_ours(host), "{host}");
        }
    }

    #[test]
    fn names_that_are_configured_are_ours_and_so_is_the_address() {
        let guard = guard(
            "box.lan:8787",
            &["LLM.example", "fe80:0::1", "10.0.0.1"],
            &[],
        );
        for host in [
            "box.lan:8787",
            "BOX.LAN",
            "llm.example:443",
            "[fe80::1]:80",
            "10.0.0.1",
            "localhost",
        ] {
            assert!(guard.is_ours(host), "{host}");
        }
        for host in ["a.llm.example", "llm.example.evil", "10.0.0.2", "[fe80::2]"] {
            assert!(!guard.is_ours(host), "{host}");
        }
    }

    #[test]
    fn on_all_addresses_any_address_is_ours_and_no_name() {
        for listen in ["0.0.0.0:8787", "[::]:8787"] {
            let guard = guard(listen, &[], &[]);
            for host in ["192.168.1.7:8787", "[fe80::1]:8787", "localhost"] {
                assert!(guard.is_ours(host), "{host}");
            }
            for host in ["box.lan:8787", "192.168.1.7.evil.example", ""] {
                assert!(!guard.is_ours(host), "{host}");
            }
        }
    }

    #[test]
    fn only_origins_that_are_configured_and_loopback_ones_are_welcome() {
        let guard = guard("127.0.0.1:0", &["box.lan"], &["https://dash.example"]);
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://dash.example",
            "HTTPS://Dash.example",
        ] {
            assert!(guard.is_welcome(origin, None), "{origin}");
        }
        for origin in [
            "http://dash.example",
            "https://dash.example:444",
            "https://dash.example.evil",
            "http://box.lan",
            "null",
            "",
        ] {
            assert!(!guard.is_welcome(origin, None), "{origin}");
        }
    }

    #[test]
    fn a_page_may_ask_the_host_that_it_came_from() {
        let guard = guard("box.lan:8787", &[], &[]);
        let asks = |origin, host| guard.is_welcome(origin, Some(host));
        assert!(asks("http://box.lan:8787", "box.lan:8787"));
        assert!(asks("http://Box.LAN:8787", "box.lan:8787"));
        for origin in [
            "http://box.lan:1",
            "http://box.lan",
            "http://evil.example",
            "null",
        ] {
            assert!(!asks(origin, "box.lan:8787"), "{origin}");
        }
    }
}
