//! Heads: where one ends, what it says, and all that is refused in it.
//!
//! Strict, because whoever reads a request more leniently than the one before him can be made to see a request
//! that the other didn't see. Line ends are CR LF and nothing else; no folded lines, no space before a colon,
//! no control characters; exactly one `Host` for 1.1, and a target with a host of its own must name the same.

use thiserror::Error;
use tiny_http::{HTTPVersion, Method};

use super::message::{Head, Headers};

/// What the door itself refuses, with the status that it deserves (RFC 9110, 15.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    /// 400
    #[error("{0}")]
    Malformed(&'static str),
    /// 408
    #[error("the request did not arrive in time: {0}")]
    TooSlow(&'static str),
    /// 413
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    /// 417
    #[error("of expectations only 100-continue is met")]
    Expectation,
    /// 431
    #[error("the head is too large: {0}")]
    HeadTooLarge(&'static str),
    /// 503
    #[error("{0}")]
    Overloaded(&'static str),
    /// 505
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
}

impl Refusal {
    /// The status to answer with.
    pub(super) fn status(self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::TooSlow(_) => 408,
            Refusal::BodyTooLarge(_) => 413,
            Refusal::Expectation => 417,
            Refusal::HeadTooLarge(_) => 431,
            Refusal::Overloaded(_) => 503,
            Refusal::Version => 505,
        }
    }
}

/// Looks for the end of a head in bytes that grow; no byte is looked at twice, and none beyond the limit at all:
/// what is said of a head must not depend on how much of it came in one read.
#[derive(Debug)]
pub(super) struct Scanner {
    max_head: usize,
    seen: usize,
    line_start: usize,
    /// Where the head begins: empty lines before it are passed over (RFC 9112, 2.2).
    start: Option<usize>,
}

impl Scanner {
    /// For a head of at most `max_head` bytes, empty lines before it included.
    pub(super) fn new(max_head: usize) -> Self {
        Scanner {
            max_head,
            seen: 0,
            line_start: 0,
            start: None,
        }
    }

    /// The bytes of the whole head, once they are all there.
    ///
    /// # Errors
    /// A line end that is not CR LF; a head that is too long; a first byte that begins no request.
    pub(super) fn find(&mut self, all: &[u8]) -> Result<Option<std::ops::Range<usize>>, Refusal> {
        let bytes = &all[..all.len().min(self.max_head)];
        self.check_first_byte(bytes)?;
        while let Some(offset) = bytes[self.seen..].iter().position(|&byte| byte == b'\n') {
            let end = self.seen + offset;
            if end == self.line_start || bytes[end - 1] != b'\r' {
                return Err(Refusal::Malformed(
                    "a line of the head does not end in CR LF",
                ));
            }
            let empty = end - 1 == self.line_start;
            self.seen = end + 1;
            match self.start {
                Some(start) if empty => return Ok(Some(start..self.seen)),
                None if !empty => self.start = Some(self.line_start),
                Some(_) | None => {}
            }
            self.line_start = self.seen;
            self.check_first_byte(bytes)?;
        }
        self.seen = bytes.len();
        match bytes.len() < all.len() {
            true => Err(Refusal::HeadTooLarge("too many bytes")),
            false => Ok(None),
        }
    }

    /// What can't become a request is refused at once: who speaks another protocol waits for its own kind of answer, and
    /// may never send the end of a line.
    fn check_first_byte(&self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.start.is_some() {
            return Ok(());
        }
        match bytes.get(self.line_start) {
            Some(&TLS_HANDSHAKE) => Err(Refusal::Malformed(
                "this is a TLS handshake, and there is no TLS here: use http://",
            )),
            None | Some(b'\r' | b'\n') => Ok(()),
            Some(byte) if byte.is_ascii_graphic() => Ok(()),
            Some(_) => Err(Refusal::Malformed("the request line is malformed")),
        }
    }
}

/// The first byte of a client that speaks TLS (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Reads a whole head.
///
/// # Errors
/// Everything in the module's story, and more than `max_headers` headers.
pub(super) fn parse(bytes: &[u8], max_headers: usize) -> Result<Head, Refusal> {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let mut fields = vec![httparse::EMPTY_HEADER; lines.min(max_headers)];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(Refusal::Malformed("the head is malformed")),
        Err(error) => return Err(refusal(error, bytes)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Refusal::Malformed("the request line is incomplete"));
    };
    let mut headers = Headers::with_capacity(request.headers.len(), bytes.len());
    for field in request.headers.iter() {
        headers.push(field.name, field.value);
    }
    let version = HTTPVersion(1, minor);
    let target = Target::parse(target)?;
    check_host(&headers, &version, target.authority)?;
    Ok(Head {
        method: method_of(method)?,
        path: target.path.to_owned(),
        query: target.query.map(str::to_owned),
        version,
        headers,
    })
}

fn method_of(text: &str) -> Result<Method, Refusal> {
    text.parse()
        .map_err(|()| Refusal::Malformed("the method is not a token"))
}

fn refusal(error: httparse::Error, bytes: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::HeadTooLarge("too many headers"),
        httparse::Error::Version if names_a_version(bytes) => Refusal::Version,
        httparse::Error::Version | httparse::Error::Status => {
            Refusal::Malformed("the request line is malformed")
        }
        httparse::Error::HeaderName => Refusal::Malformed("the name of a header is malformed"),
        httparse::Error::HeaderValue => Refusal::Malformed("the value of a header is malformed"),
        httparse::Error::NewLine => Refusal::Malformed("a line of the head does not end in CR LF"),
        httparse::Error::Token => Refusal::Malformed("the request line is malformed"),
    }
}

/// Whether the request line ends in a well-formed version, so that it is only not ours.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\n').next();
    let line = line.and_then(|line| line.strip_suffix(b"\r"));
    let line = line.unwrap_or_default();
    let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
    matches!(words[..], [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// A request's target in parts.
struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn parse(target: &'a str) -> Result<Self, Refusal> {
        if !target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        {
            return Err(Refusal::Malformed("the target holds a forbidden character"));
        }
        let (authority, rest) = match strip_scheme(target) {
            Some(rest) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            None => (None, target),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let path = if authority.is_some() && path.is_empty() {
            "/"
        } else {
            path
        };
        Ok(Target {
            authority,
            path,
            query,
        })
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// One `Host` for 1.1, at most one for 1.0, and no other than the target's (RFC 9112, 3.2).
fn check_host(
    headers: &Headers,
    version: &HTTPVersion,
    authority: Option<&str>,
) -> Result<(), Refusal> {
    let mut hosts = headers.all("host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::Malformed("there is more than one Host"));
    }
    match (host, authority) {
        (None, _) if *version == (1, 1) => Err(Refusal::Malformed("there is no Host")),
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
            Err(Refusal::Malformed("the target and Host differ"))
        }
        (Some(host), _) if host.contains([' ', '\t', ',', '/', '@']) => {
            Err(Refusal::Malformed("the Host is malformed"))
        }
        (None | Some(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Head, u16> {
        let found = Scanner::new(1024)
            .find(text.as_bytes())
            .map_err(Refusal::status)?;
        let range = found.expect("the head is whole");
        parse(&text.as_bytes()[range], 8).map_err(Refusal::status)
    }

    #[test]
    fn targets_come_apart() {
        #[rustfmt::skip]
        let table = [
            ("/v1/jobs?wait=30s&x=?", "/v1/jobs", Some("wait=30s&x=?")),
            ("/", "/", None),
            ("/?", "/", Some("")),
            ("*", "*", None),
            ("http://a:1/x?y", "/x", Some("y")),
            ("HTTP://A:1", "/", None),
            ("http://a:1?y", "/", Some("y")),
            ("/http://b/", "/http://b/", None),
        ];
        for (target, path, query) in table {
            let head = read(&format!("GET {target} HTTP/1.1\r\nHost: a:1\r\n\r\n"));
            let head = head.unwrap_or_else(|status| panic!("{target}: {status}"));
            assert_eq!((head.path.as_str(), head.query.as_deref()), (path, query));
        }
    }

    #[test]
    fn malformed_heads_are_refused() {
        #[rustfmt::skip]
        let table = [
            (400, "GET / HTTP/1.1\nHost: a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
            (400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            (400, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
            (400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET / x HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET /\r\n\r\n"),
            (400, "G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET / HTTQ/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
            (400, "GET / HTTP/2.0\rx\r\nHost: a\r\n\r\n"),
            (400, "\x16\x03\x01\x02"),
            (400, "\r\n\x16\x03\x01\x02"),
            (400, "\0"),
            (400, "\r\n\u{e9}"),
            (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
            (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
            (505, "PRI * HTTP/2.0\r\n\r\n"),
            (431, "GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\nF:\r\nG:\r\nH:\r\n\r\n"),
        ];
        for (status, text) in table {
            assert_eq!(read(text).map(|_| 200), Err(status), "{text:?}");
        }
    }

    #[test]
    fn unusual_heads_are_read() {
        let head = read("\r\n\r\nBREW /pot HTTP/1.0\r\nX-A:b \r\nX-C:\t \r\n\r\n").expect("fine");
        assert_eq!(head.method.as_str(), "BREW");
        assert_eq!(head.headers.get("x-a"), Some("b"));
        assert_eq!(head.headers.get("x-c"), Some(""));
        assert_eq!(head.version, (1, 0));
    }

    #[test]
    fn what_stands_beyond_the_limit_changes_nothing() {
        for beyond in ["", "x", "\n", "\r\n\r\n"] {
            let text = format!("{}{beyond}", "x".repeat(1025));
            let found = Scanner::new(1024).find(text.as_bytes());
            assert_eq!(found.map_err(Refusal::status), Err(431), "{beyond:?}");
        }
    }

    #[test]
    fn the_end_is_found_wherever_the_bytes_are_cut() {
        let text = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for cut in 0..text.len() {
            let mut scanner = Scanner::new(1024);
            let early = scanner.find(&text[..cut]).expect("well-formed");
            let whole = early.or_else(|| scanner.find(text).expect("well-formed"));
            assert_eq!(whole, Some(2..text.len() - 4), "cut at {cut}");
        }
    }
}
