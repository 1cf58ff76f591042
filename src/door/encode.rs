//! The head of an answer as bytes.

use std::io::Write as _;
use std::time::SystemTime;

use tiny_http::StatusCode;

use super::message::Headers;

/// Who ends the body of an answer, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its announced length.
    Length(usize),
    /// By a last chunk.
    Chunked,
    /// By the end of the connection, for HTTP/1.0.
    UntilClose,
    /// There is none, nor a header on it: 204, 304.
    Nothing,
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It goes on, as HTTP/1.1 does unasked.
    Stay,
    /// It goes on, and an HTTP/1.0 client must be told.
    StayAloud,
    /// It closes.
    Close,
}

/// The headers that the door writes itself.
const OURS: [&str; 4] = ["content-length", "transfer-encoding", "connection", "date"];

/// The head of an answer, up to and with the empty line.
pub(super) fn head(
    status: StatusCode,
    headers: &Headers,
    framing: Framing,
    after: After,
    wall: SystemTime,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(192 + 64 * headers.len());
    let reason = status.default_reason_phrase();
    put(&mut out, format_args!("HTTP/1.1 {} {reason}\r\n", status.0));
    put(
        &mut out,
        format_args!("Date: {}\r\n", httpdate::HttpDate::from(wall)),
    );
    for (name, value) in headers.iter().filter(|(name, _)| !is_ours(name)) {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    match framing {
        Framing::Length(bytes) => put(&mut out, format_args!("Content-Length: {bytes}\r\n")),
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::UntilClose | Framing::Nothing => {}
    }
    match after {
        After::Stay => {}
        After::StayAloud => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        After::Close => out.extend_from_slice(b"Connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Whether the headers ask for the connection to be closed.
pub(super) fn asks_to_close(headers: &Headers) -> bool {
    headers
        .all("connection")
        .any(|value| value.eq_ignore_ascii_case("close"))
}

/// Whether a status never has a body.
pub(super) fn is_bodiless(status: StatusCode) -> bool {
    matches!(status.0, 100..=199 | 204 | 304)
}

fn is_ours(name: &str) -> bool {
    OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_framing_is_ours_alone() {
        let mut headers = Headers::default();
        headers.add("content-length", 7);
        headers.add("X-Id", 1);
        headers.add("Transfer-Encoding", "gzip");
        let wall = SystemTime::UNIX_EPOCH;
        let bytes = head(
            StatusCode(200),
            &headers,
            Framing::Length(2),
            After::StayAloud,
            wall,
        );
        let expected = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Id: 1\r\n\
                        Content-Length: 2\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }
}
