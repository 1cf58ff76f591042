//! Keeps web pages out: a page that a browser shows must not reach the gateway of the same box.
//!
//! A page on another site can send requests to a loopback address, and by rebinding its own name to 127.0.0.1 it could
//! even read the answers. Both give themselves away: by an `Origin` that is not ours, and by a `Host` that names the
//! page's site. The gateway listens on loopback only, so every honest client names a loopback host.

use std::net::IpAddr;

use super::error::ApiError;
use crate::door::Head;

/// Whether the request may come in.
///
/// # Errors
/// 403 for a host or an origin that is not this box.
pub(super) fn check(head: &Head) -> Result<(), ApiError> {
    if let Some(host) = head.headers.get("Host").filter(|host| !is_loopback(host)) {
        return Err(ApiError::forbidden(format!(
            "the host {:?} is not served: name this box by a loopback address or localhost",
            shown(host)
        )));
    }
    if let Some(origin) = head.headers.get("Origin") {
        let host = origin.split_once("://").map(|(_, host)| host);
        if !host.is_some_and(is_loopback) {
            return Err(ApiError::forbidden(format!(
                "the origin {:?} may not use this gateway",
                shown(origin)
            )));
        }
    }
    Ok(())
}

/// Whether `host:port`, `[v6]:port` or a bare host is this box.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_box_is_this_box() {
        for host in [
            "127.0.0.1:8787",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8787",
            "127.9.9.9",
            "api.localhost:80",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "evil.example:8787",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            "[::2]:1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
