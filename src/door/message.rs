//! What is said in an exchange: the head of a request, the request, the answer.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::ops::Range;

use tiny_http::{HTTPVersion, Method, StatusCode};

use super::budget::Held;
use crate::clock::Time;

/// The head of a request: all that comes before its body.
#[derive(Debug, Clone)]
pub struct Head {
    /// What is to be done. Unknown methods are passed on as they are.
    pub method: Method,
    /// The path as it was sent, percent signs and all. `*` for `OPTIONS *`, `host:port` for `CONNECT`.
    pub path: String,
    /// What follows the `?`, without it.
    pub query: Option<String>,
    /// 1.0 or 1.1.
    pub version: HTTPVersion,
    /// The headers, in the order sent.
    pub headers: Headers,
}

/// The headers of a request or an answer, in one piece of memory.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    text: String,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Headers {
    /// Room for `fields` headers of `bytes` bytes in all.
    pub(super) fn with_capacity(fields: usize, bytes: usize) -> Self {
        Headers {
            text: String::with_capacity(bytes),
            fields: Vec::with_capacity(fields),
        }
    }

    /// Adds a header to be sent. What may not stand in one (line ends and other control characters, all that is not
    /// ASCII) becomes `?`, so that no text from outside can add a header or split an answer.
    ///
    /// ```
    /// use pointsman::door::Headers;
    ///
    /// let mut headers = Headers::default();
    /// headers.add("X-Attempts", 2);
    /// headers.add("X-Model", "a\r\nSet-Cookie: b");
    /// assert_eq!(headers.get("x-model"), Some("a??Set-Cookie: b"));
    /// ```
    pub fn add(&mut self, name: &str, value: impl fmt::Display) {
        let name = self.append_harmless(name);
        let value = self.append_harmless(value);
        self.fields.push((name, value));
    }

    /// Adds a header that was received. Bytes of the value that are not UTF-8 are replaced.
    pub(super) fn push(&mut self, name: &str, value: &[u8]) {
        let name = self.append(name);
        let value = self.append(&String::from_utf8_lossy(value));
        self.fields.push((name, value));
    }

    fn append(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    fn append_harmless(&mut self, text: impl fmt::Display) -> Range<usize> {
        let start = self.text.len();
        // A string takes all; only a `Display` of its own could fail, and then what it wrote stands.
        let _ = write!(self.text, "{text}");
        let harmless = |c: char| c == '\t' || c == ' ' || c.is_ascii_graphic();
        if !self.text[start..].chars().all(harmless) {
            let given = self.text.split_off(start);
            let replaced = given.chars().map(|c| if harmless(c) { c } else { '?' });
            self.text.extend(replaced);
        }
        start..self.text.len()
    }

    /// The value of the first header of that name, whatever the case of its letters.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The values of all headers of that name, in the order sent.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All headers as (name, value), in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// A whole request. Its body counts as held until the `Request` is dropped, even where the bytes were moved
/// out.
#[derive(Debug)]
pub struct Request {
    /// What came before the body.
    pub head: Head,
    /// The body, unchunked; empty where there is none.
    pub body: Vec<u8>,
    /// When the first byte of the head was read.
    pub received: Time,
    /// Who asks; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The body's share of `max_body_total`.
    pub(super) held: Held,
}

impl Request {
    /// How many bytes of `max_body_total` this request keeps taken.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Takes `bytes` more of `max_body_total`, for what is made of the body; `None` where they are not there. They come
    /// back when the share is dropped.
    pub fn reserve(&self, bytes: usize) -> Option<Held> {
        let mut share = self.held.another();
        share.grow_to(bytes).then_some(share)
    }
}

/// A whole answer. `Content-Length`, `Transfer-Encoding`, `Connection` and `Date` are the door's: it writes its
/// own and leaves out what is given here, except that `Connection: close` is obeyed.
///
/// ```
/// use pointsman::door::Response;
///
/// let answer = Response::new(200).with_header("X-Request-Id", "r-1").with_body("text/plain", "hello");
/// assert_eq!(answer.status.0, 200);
/// ```
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers, in the order to be sent.
    pub headers: Headers,
    /// The body; not sent in answer to HEAD, nor with 204 and 304.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer without headers and body.
    pub fn new(status: u16) -> Self {
        Response {
            status: StatusCode(status),
            headers: Headers::default(),
            body: Vec::new(),
        }
    }

    /// Adds a header, as [`Headers::add`] does.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.add(name, value);
        self
    }

    /// Sets the body and its `Content-Type`.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.with_header("Content-Type", content_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_whatever_the_case_and_kept_in_order() {
        let mut headers = Headers::default();
        headers.push("Accept", b"a");
        headers.push("X-Name", "gr\u{fc}n".as_bytes());
        headers.push("ACCEPT", b"b\xff");
        assert_eq!(headers.get("accept"), Some("a"));
        assert_eq!(
            headers.all("Accept").collect::<Vec<_>>(),
            ["a", "b\u{fffd}"]
        );
        assert_eq!(headers.get("x-name"), Some("gr\u{fc}n"));
        assert_eq!((headers.get("host"), headers.len()), (None, 3));
    }

    #[test]
    fn a_value_cannot_split_an_answer() {
        let mut headers = Headers::default();
        headers.add("X-A\nB", "a\r\nSet-Cookie: b\u{e9}");
        let sent: Vec<_> = headers.iter().collect();
        assert_eq!(sent, [("X-A?B", "a??Set-Cookie: b?")]);
    }
}
