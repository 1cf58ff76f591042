//! `[server]`: the HTTP front.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::access::Access;
use super::error::NotAccepted;
use super::profile::{PerProfile, Profile};
use super::section::Section;
use super::{HOUR, KIB, MIB, millis, secs};

/// `[server]`
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Where to listen.
    pub listen: Listen,
    /// Connections open at once.
    pub max_connections: usize,
    /// Further connections that are only served operation routes.
    pub operation_connections: usize,
    /// Bytes of a request's head.
    pub max_head: usize,
    /// Headers of a request.
    pub max_headers: usize,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// Bytes of bodies being read or held, in all.
    pub max_body_total: usize,
    /// Nesting of a request's JSON.
    pub json_depth: usize,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Silence between two reads of a body.
    pub body_timeout: Duration,
    /// A connection without a request is closed after so long.
    pub idle_timeout: Duration,
    /// A connection without a request gives its thread back after so long.
    pub park_after: Duration,
    /// One write to a client that does not read.
    pub write_timeout: Duration,
    /// A stream that has nothing to say says a comment this often.
    pub stream_keepalive: Duration,
    /// A call that can be joined outlives its client by so long; zero: no call can be joined.
    pub resend_grace: Duration,
    /// From the word to stop until the end.
    pub drain: Duration,
    /// Of that, on sockets that a successor goes on with: for what is on its way from clients that were let in before.
    pub hand_over: Duration,
}

impl Server {
    pub(super) fn read(section: &mut Section<'_>, profile: Profile, access: &Access) -> Self {
        let connections = PerProfile {
            dev: 512,
            demo: 512,
            prod: 4096,
        };
        let max_body = section
            .size("max_body", KIB..=1024 * MIB)
            .unwrap_or(16 * MIB);
        let server = Server {
            listen: Self::read_listen(section, profile, access),
            max_connections: section
                .count("max_connections", 1..=65_536)
                .unwrap_or(connections.of(profile)),
            operation_connections: section
                .count("operation_connections", 1..=1024)
                .unwrap_or(32),
            max_head: section.size("max_head", KIB..=MIB).unwrap_or(16 * KIB),
            max_headers: section.count("max_headers", 8..=1000).unwrap_or(100),
            max_body,
            max_body_total: section
                .size("max_body_total", KIB..=65_536 * MIB)
                .unwrap_or(max_body.max(256 * MIB)),
            json_depth: section.count("json_depth", 8..=127).unwrap_or(127),
            head_timeout: section
                .duration("head_timeout", millis(100)..=HOUR)
                .unwrap_or(secs(10)),
            body_timeout: section
                .duration("body_timeout", millis(100)..=HOUR)
                .unwrap_or(secs(30)),
            idle_timeout: section
                .duration("idle_timeout", millis(100)..=HOUR)
                .unwrap_or(secs(60)),
            park_after: section
                .duration("park_after", millis(1)..=HOUR)
                .unwrap_or(millis(100)),
            write_timeout: section
                .duration("write_timeout", millis(100)..=HOUR)
                .unwrap_or(secs(10)),
            stream_keepalive: section
                .duration("stream_keepalive", millis(100)..=HOUR)
                .unwrap_or(secs(15)),
            resend_grace: section
                .duration("resend_grace", Duration::ZERO..=secs(60))
                .unwrap_or(secs(2)),
            drain: section
                .duration("drain", Duration::ZERO..=24 * HOUR)
                .unwrap_or(secs(30)),
            hand_over: section
                .duration("hand_over", Duration::ZERO..=secs(60))
                .unwrap_or(secs(1)),
        };
        server.check(section);
        server
    }

    /// Without keys for clients, whoever reaches the port spends the owner's money: only this box may.
    fn read_listen(section: &mut Section<'_>, profile: Profile, access: &Access) -> Listen {
        let port = if profile == Profile::Test { 0 } else { 8787 };
        let default = Listen::Tcp(format!("127.0.0.1:{port}"));
        let listen = section.parsed("listen").unwrap_or(default);
        if access.keys.is_empty() && !listen.is_loopback() {
            let message = format!(
                "{listen} can be reached from other machines, and clients have no keys (server.keys): anyone could \
                 spend yours, accepted without keys is a loopback address such as \"127.0.0.1:8787\", or unix:PATH"
            );
            section.refuse("listen", message);
        }
        listen
    }

    fn check(&self, section: &mut Section<'_>) {
        if self.max_body_total < self.max_body {
            section.refuse_pair(
                "max_body_total",
                "max_body",
                "is below server.max_body, so that the largest body could never be read",
            );
        }
    }
}

/// Where to listen.
///
/// ```
/// use pointsman::config::Listen;
///
/// let listen: Listen = "localhost:8787".parse()?;
/// assert_eq!(listen, Listen::Tcp("localhost:8787".into()));
/// assert!(listen.is_loopback());
/// # Ok::<(), pointsman::config::NotAccepted>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`; port 0 takes a free one.
    Tcp(String),
    /// `unix:PATH`
    Unix(PathBuf),
}

impl Listen {
    /// The host, without brackets; `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match self {
            Listen::Unix(_) => None,
            Listen::Tcp(address) => host_and_port(address)
                .map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']')),
        }
    }

    /// Whether only this machine can reach it. A name other than `localhost` counts as not: what it stands for may
    /// change.
    pub fn is_loopback(&self) -> bool {
        match self {
            Listen::Unix(_) => true,
            Listen::Tcp(address) => match address.parse::<SocketAddr>() {
                Ok(address) => address.ip().is_loopback(),
                Err(_) => host_and_port(address).is_some_and(|(host, _)| is_localhost(host)),
            },
        }
    }
}

impl FromStr for Listen {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let accepted = match text.strip_prefix("unix:") {
            Some(path) => is_socket_path(path).then(|| Listen::Unix(path.into())),
            None => host_and_port(text).map(|_| Listen::Tcp(text.to_owned())),
        };
        accepted.ok_or_else(|| NotAccepted {
            found: text.to_owned(),
            accepted: "HOST:PORT, [IPV6]:PORT or unix:PATH of at most 107 bytes".to_owned(),
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => f.write_str(address),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// As long as the system's socket addresses allow.
fn is_socket_path(path: &str) -> bool {
    (1..=107).contains(&path.len()) && !path.contains('\0')
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| port.parse().ok())??;
    let is_host = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => is_host_name(host),
    };
    is_host.then_some((host, port))
}

fn is_host_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !host.is_empty() && host.bytes().all(fits)
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_socket_paths_are_read_and_shown_alike() {
        for text in [
            "127.0.0.1:0",
            "localhost:8787",
            "[::1]:8787",
            "unix:/run/pointsman.sock",
        ] {
            let listen: Listen = text.parse().expect(text);
            assert_eq!(listen.to_string(), text);
            assert!(listen.is_loopback(), "{text}");
        }
    }

    #[test]
    fn a_host_has_neither_port_nor_brackets() {
        for (text, host) in [
            ("box.lan:80", Some("box.lan")),
            ("0.0.0.0:80", Some("0.0.0.0")),
            ("[::1]:8787", Some("::1")),
            ("unix:/run/pointsman.sock", None),
        ] {
            assert_eq!(text.parse::<Listen>().expect(text).host(), host, "{text}");
        }
    }

    #[test]
    fn addresses_that_others_can_reach_are_not_loopback() {
        for text in [
            "0.0.0.0:8787",
            "[::]:8787",
            "192.168.1.7:80",
            "box.example:80",
            "127.0.0.1.example:80",
        ] {
            let listen: Listen = text.parse().expect(text);
            assert!(!listen.is_loopback(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let too_long = format!("unix:/{}", "x".repeat(107));
        for text in [
            "",
            "8787",
            ":8787",
            "localhost",
            "localhost:",
            "localhost:+1",
            "localhost:65536",
            "[::1:80",
            "a b:1",
            "unix:",
            &too_long,
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
