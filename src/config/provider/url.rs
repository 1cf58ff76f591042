//! Base addresses of providers.

use std::net::IpAddr;

use http::Uri;

use super::ProviderKind;
use crate::config::section::Section;
use crate::config::value::Value;

/// A base address that was looked at.
#[derive(Debug, PartialEq)]
pub(super) struct Url {
    /// Without a slash at the end.
    pub(super) text: String,
    /// Whether it leads to this machine.
    pub(super) is_loopback: bool,
}

impl Url {
    /// What is not accepted is not shown: it may hold a password.
    pub(super) fn read(section: &mut Section<'_>, kind: ProviderKind) -> Self {
        let accepted = "http:// or https://, a host, maybe a port and a path, and nothing else";
        let is_set = section.keys().iter().any(|key| key == "base_url");
        let given = section.unshown_knob("base_url", accepted, |value: &Value| {
            parse(value.as_text()?)
        });
        let default = match kind {
            ProviderKind::Kimi => "https://api.moonshot.ai/v1",
            ProviderKind::Glm => "https://api.z.ai/api/paas/v4",
            ProviderKind::OpenAi | ProviderKind::Embedded => "",
        };
        if default.is_empty() && !is_set {
            section.refuse("base_url", format!("missing, accepted is {accepted}"));
        }
        given.unwrap_or_else(|| Url {
            text: default.to_owned(),
            is_loopback: false,
        })
    }
}

/// Whether an address in words leads to this machine: a loopback address, or `localhost`.
pub(crate) fn is_loopback_url(text: &str) -> bool {
    parse(text).is_some_and(|url| url.is_loopback)
}

fn parse(text: &str) -> Option<Url> {
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_bare = !authority.as_str().contains('@') && !text.contains(['?', '#']);
    let has_host = !authority.host().is_empty();
    (is_web && is_bare && has_host && has_sound_port(authority.as_str(), authority.host())).then(
        || Url {
            text: text.trim_end_matches('/').to_owned(),
            is_loopback: is_loopback(authority.host()),
        },
    )
}

/// A port that is named is one.
fn has_sound_port(authority: &str, host: &str) -> bool {
    match authority.strip_prefix(host) {
        Some("") => true,
        Some(port) => port
            .strip_prefix(':')
            .is_some_and(|port| matches!(port.parse::<u16>(), Ok(1..))),
        None => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_last_slash_and_nothing_else() {
        for (text, kept, is_loopback) in [
            (
                "https://api.moonshot.ai/v1",
                "https://api.moonshot.ai/v1",
                false,
            ),
            (
                "https://api.z.ai/api/paas/v4/",
                "https://api.z.ai/api/paas/v4",
                false,
            ),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000", true),
            ("http://[::1]:9000/v1", "http://[::1]:9000/v1", true),
            ("http://localhost/", "http://localhost", true),
        ] {
            let text_kept = kept.to_owned();
            let expected = Url {
                text: text_kept,
                is_loopback,
            };
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_base_address_is_refused() {
        for text in [
            "",
            "api.moonshot.ai",
            "ftp://host/v1",
            "https://",
            "https:///v1",
            "https://user:secret@host/v1",
            "https://host/v1?key=secret",
            "https://host/v1#top",
            "https://host:0/",
            "https://host:99999/",
            "https://host:/",
            "https://ho st/",
            "/v1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
