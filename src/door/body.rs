//! Bodies: which framing a head announces, and the decoder of chunks.
//!
//! Strict for the same reason as heads (RFC 9112, 6.3): a head that announces its body in two ways, or twice,
//! or in a way that can be read differently, is refused and its connection closed.

use super::head::Refusal;
use super::message::{Head, Headers};

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// So many bytes; 0 also where nothing is announced.
    Length(usize),
    /// In chunks.
    Chunked,
}

impl BodyFraming {
    /// What the head announces.
    ///
    /// # Errors
    /// An ambiguous or malformed announcement; a length above `max_body`.
    pub(super) fn announced(head: &Head, max_body: usize) -> Result<Self, Refusal> {
        let coding = only(&head.headers, "transfer-encoding")?;
        let length = only(&head.headers, "content-length")?;
        match (coding, length) {
            (None, None) => Ok(BodyFraming::Length(0)),
            (None, Some(digits)) => parse_length(digits, max_body).map(BodyFraming::Length),
            (Some(_), Some(_)) => Err(Refusal::Malformed(
                "there are both Transfer-Encoding and Content-Length",
            )),
            (Some(_), None) if head.version == (1, 0) => {
                Err(Refusal::Malformed("HTTP/1.0 has no Transfer-Encoding"))
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => {
                Ok(BodyFraming::Chunked)
            }
            (Some(_), None) => Err(Refusal::Malformed("the only Transfer-Encoding is chunked")),
        }
    }

    /// Whether there is nothing to read.
    pub(super) fn is_empty(self) -> bool {
        self == BodyFraming::Length(0)
    }
}

fn only<'a>(headers: &'a Headers, name: &'a str) -> Result<Option<&'a str>, Refusal> {
    let mut all = headers.all(name);
    let first = all.next();
    match all.next() {
        None => Ok(first),
        Some(_) => Err(Refusal::Malformed("the body is announced twice")),
    }
}

/// Digits only: `parse` alone would take `+5`.
fn parse_length(digits: &str, max_body: usize) -> Result<usize, Refusal> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::Malformed("the Content-Length is not a number"));
    }
    let length: u64 = digits
        .parse()
        .map_err(|_| Refusal::Malformed("the Content-Length is out of all bounds"))?;
    usize::try_from(length)
        .ok()
        .filter(|&length| length <= max_body)
        .ok_or(Refusal::BodyTooLarge(max_body))
}

/// The longest line that announces a chunk, extensions and all.
const MAX_SIZE_LINE: usize = 256;

/// Takes chunks apart, as their bytes come. Extensions and trailers are thrown away.
///
/// ```text
///   Size --digits--> Size --';'--> Extension --CR--> SizeEnd --LF--> Data | TrailerStart (size 0)
///   Data --size bytes--> DataCr --CR--> DataLf --LF--> Size
///   TrailerStart --CR--> End --LF--> Done
///   TrailerStart --other--> Trailer --CR--> TrailerEnd --LF--> TrailerStart
/// ```
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    /// Of the chunk under way: its size while it is read, then what is left of it.
    size: usize,
    /// Bytes of the size line, or of all trailers, so far.
    line: usize,
    max_body: usize,
    max_trailers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerEnd,
    End,
    Done,
}

const BAD_CHUNK: Refusal = Refusal::Malformed("a chunk is malformed");

impl Chunks {
    pub(super) fn new(max_body: usize, max_trailers: usize) -> Self {
        Chunks {
            state: State::Size,
            size: 0,
            line: 0,
            max_body,
            max_trailers,
        }
    }

    /// Whether the last byte was seen.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes from the front of `input`, appends the body's to `body`, and returns how many were taken:
    /// all, unless the body ended before.
    ///
    /// # Errors
    /// Malformed chunks; a body above `max_body`; trailers above their limit.
    pub(super) fn feed(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < input.len() && !self.is_done() {
            if self.state == State::Data {
                let part = self.size.min(input.len() - at);
                body.extend_from_slice(&input[at..at + part]);
                at += part;
                self.size -= part;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(input[at], body.len())?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// One byte outside of data.
    fn step(&mut self, byte: u8, so_far: usize) -> Result<State, Refusal> {
        self.line += 1;
        match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte, so_far),
            // The first byte of a size line is a digit, or the line has none.
            (State::Size, b';') if self.line > 1 => Ok(State::Extension),
            (State::Size, b'\r') if self.line > 1 => Ok(State::SizeEnd),
            (State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Extension, byte) if is_text(byte) && self.line <= MAX_SIZE_LINE => {
                Ok(State::Extension)
            }
            (State::SizeEnd, b'\n') => {
                self.line = 0;
                Ok(if self.size == 0 {
                    State::TrailerStart
                } else {
                    State::Data
                })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line = 0;
                Ok(State::Size)
            }
            (State::TrailerStart, b'\r') => Ok(State::End),
            (State::Trailer, b'\r') => Ok(State::TrailerEnd),
            (State::TrailerStart | State::Trailer, byte) if is_text(byte) => self.trailer(),
            (State::TrailerEnd, b'\n') => Ok(State::TrailerStart),
            (State::End, b'\n') => Ok(State::Done),
            (_, _) => Err(BAD_CHUNK),
        }
    }

    fn digit(&mut self, byte: u8, so_far: usize) -> Result<State, Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or(BAD_CHUNK)? as usize;
        if self.line > MAX_SIZE_LINE {
            return Err(BAD_CHUNK);
        }
        self.size = self
            .size
            .checked_mul(16)
            .and_then(|size| size.checked_add(digit))
            .filter(|size| size.saturating_add(so_far) <= self.max_body)
            .ok_or(Refusal::BodyTooLarge(self.max_body))?;
        Ok(State::Size)
    }

    fn trailer(&self) -> Result<State, Refusal> {
        match self.line <= self.max_trailers {
            true => Ok(State::Trailer),
            false => Err(Refusal::HeadTooLarge("too many bytes of trailers")),
        }
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_http::{HTTPVersion, Method};

    fn announced(minor: u8, headers: &[(&str, &str)]) -> Result<BodyFraming, u16> {
        let mut head = Head {
            method: Method::Post,
            path: "/".into(),
            query: None,
            version: HTTPVersion(1, minor),
            headers: Headers::default(),
        };
        for (name, value) in headers {
            head.headers.push(name, value.as_bytes());
        }
        BodyFraming::announced(&head, 100).map_err(Refusal::status)
    }

    #[test]
    fn a_body_is_announced_once_and_plainly() {
        let length = |value| announced(1, &[("Content-Length", value)]);
        let coding = |value| announced(1, &[("transfer-encoding", value)]);
        assert_eq!(announced(1, &[]), Ok(BodyFraming::Length(0)));
        assert_eq!(length("100"), Ok(BodyFraming::Length(100)));
        assert_eq!(length("007"), Ok(BodyFraming::Length(7)));
        assert_eq!(coding("Chunked"), Ok(BodyFraming::Chunked));
        for bad in [
            "",
            "+5",
            "-1",
            "5, 5",
            "0x5",
            "5 5",
            "99999999999999999999",
            "\u{665}",
        ] {
            assert_eq!(length(bad), Err(400), "{bad:?}");
        }
        for large in ["101", "9223372036854775807", "18446744073709551615"] {
            assert_eq!(length(large), Err(413), "{large:?}");
        }
        for bad in ["gzip", "gzip, chunked", "chunked, chunked", "identity", ""] {
            assert_eq!(coding(bad), Err(400), "{bad:?}");
        }
        let twice = |a, b| announced(1, &[a, b]);
        let (five, chunked) = (("Content-Length", "5"), ("Transfer-Encoding", "chunked"));
        assert_eq!(twice(five, five), Err(400));
        assert_eq!(twice(chunked, chunked), Err(400));
        assert_eq!(twice(five, chunked), Err(400));
        assert_eq!(announced(0, &[chunked]), Err(400));
    }

    fn decode(text: &str, cut: usize) -> Result<(String, usize), u16> {
        let mut chunks = Chunks::new(20, 16);
        let mut body = Vec::new();
        let cut = cut.min(text.len());
        let mut taken = 0;
        for part in [&text[..cut], &text[cut..]] {
            taken += chunks
                .feed(part.as_bytes(), &mut body)
                .map_err(Refusal::status)?;
        }
        assert!(chunks.is_done(), "{text:?} is whole");
        Ok((String::from_utf8_lossy(&body).into_owned(), taken))
    }

    #[test]
    fn chunks_come_apart_wherever_the_bytes_are_cut() {
        let text = "5\r\nhello\r\n00A;x=\"y\"\r\n, 9 bytes!\r\n0\r\nT: 1\r\nU: 2\r\n\r\nGET /";
        for cut in 0..text.len() {
            let (body, taken) = decode(text, cut).expect("well-formed");
            assert_eq!(body, "hello, 9 bytes!", "cut at {cut}");
            assert_eq!(&text[taken..], "GET /", "cut at {cut}");
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        #[rustfmt::skip]
        let table = [
            (400, "\r\n"), (400, "g\r\n"), (400, "-1\r\n"), (400, "+1\r\n"), (400, "0x1\r\n"), (400, " 1\r\n"), (400, "1 \r\n"),
            (400, "1\na\r\n0\r\n\r\n"), (400, "1\r\nab\r\n"), (400, "1\r\na\n"), (400, ";x\r\n"), (400, "1;\0\r\n"),
            (400, "0\r\n\n"), (400, "0\r\nT: 1\n\r\n"),
            (413, "15\r\n"), (413, "ffffffffffffffffffff\r\n"), (413, "a\r\n0123456789\r\nb\r\n"),
            (431, "0\r\nT: 0123456789012345\r\n\r\n"), (431, "0\r\nT: 01234\r\nU: 01234\r\n\r\n"),
        ];
        for (status, text) in table {
            assert_eq!(decode(text, 3), Err(status), "{text:?}");
        }
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_SIZE_LINE));
        assert_eq!(decode(&long, 3), Err(400));
        let zeros = format!("{}\r\n\r\n", "0".repeat(MAX_SIZE_LINE + 1));
        assert_eq!(decode(&zeros, 3), Err(400));
    }
}
