//! What must hold of the door whatever a client sends, as functions that panic where it doesn't.
//!
//! They are the bodies of the fuzz targets, and of the tests that replay what the fuzzer found (see `src/fuzz/mod.rs`).
//! Each reads the same bytes twice: with the door's own code, cut into reads in several ways, and with a reader that
//! knows nothing of it ([`reference`]). Both must say the same: which requests there are and what is in them, what is
//! refused, where the connection ends. Since that reader takes all bytes at once, no cut can make a difference either;
//! and since it alone says where a body ends, no byte of a body can become a head.

mod reference;
mod rehearsal;

use std::ops::Range;

use super::body::Chunks;
use super::head::{self, Refusal, Scanner};
use crate::cuts::ways_to_cut;
use reference::{GoesOn, Manner, Step};
use rehearsal::{Played, play};

/// Limits that a short input can reach.
const MAX_HEAD: usize = 512;
const MAX_HEADERS: usize = 8;
const MAX_BODY: usize = 300;

/// Longer inputs show nothing new, and would not be one part of a conversation.
const LONGEST: usize = 32 * 1024;

/// A head is found and read alike however it is cut, or refused for a fault that it has.
pub(crate) fn head(bytes: &[u8]) {
    let expected = reference::head(bytes);
    for cuts in ways_to_cut(bytes) {
        let mut scanner = Scanner::new(MAX_HEAD);
        let mut found = Ok(None);
        for cut in cuts {
            found = scanner.find(&bytes[..cut.end]);
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        let read = found.and_then(|range: Option<Range<usize>>| {
            let read = |range: Range<usize>| {
                let head = head::parse(&bytes[range.clone()], MAX_HEADERS)?;
                Ok((rehearsal::seen_of(&head, Vec::new()), range.end))
            };
            range.map(read).transpose()
        });
        agree(&read, &expected);
    }
}

/// Chunks come apart alike however they are cut, take no byte too many, and never exceed the limit.
pub(crate) fn chunks(bytes: &[u8]) {
    let expected = reference::chunks(bytes);
    for cuts in ways_to_cut(bytes) {
        let mut chunks = Chunks::new(MAX_BODY, MAX_HEAD);
        let mut body = Vec::new();
        let mut taken = 0;
        let mut refused = None;
        for cut in cuts {
            match chunks.feed(&bytes[cut], &mut body) {
                Ok(more) => taken += more,
                Err(refusal) => refused = Some(refusal),
            }
            assert!(body.len() <= MAX_BODY, "{} bytes of body", body.len());
            if refused.is_some() || chunks.is_done() {
                break;
            }
        }
        let read = match refused {
            Some(refusal) => Err(refusal),
            None if chunks.is_done() => Ok((body, taken)),
            None => Err(Refusal::Malformed("the body is shorter than announced")),
        };
        agree(&read, &expected);
    }
}

/// A whole connection: the requests that the handler sees, and the answers that the client hears.
pub(crate) fn connection(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let expected = reference::conversation(bytes);
    for cuts in ways_to_cut(bytes) {
        check(
            play(cuts.into_iter().map(|cut| bytes[cut].to_vec())),
            &expected,
        );
    }
}

fn agree<T: PartialEq + std::fmt::Debug>(
    read: &Result<T, Refusal>,
    expected: &Result<T, reference::Faults>,
) {
    match (read, expected) {
        (Ok(read), Ok(expected)) => assert_eq!(read, expected),
        (Err(refusal), Err(faults)) => {
            let status = refusal.status();
            assert!(faults.contains(&status), "{refusal:?}, but {faults:?}");
        }
        (_, _) => panic!("{read:?}, but {expected:?}"),
    }
}

/// Holds what was seen and heard against what was to be expected, step by step.
fn check(played: Played, expected: &[Step]) {
    let mut seen = played.seen.into_iter();
    let mut heard = &played.heard[..];
    let mut served = 0;
    for step in expected {
        let answer = Answer::take(&mut heard, step.manner());
        match step {
            Step::Served(manner, request) => {
                served += 1;
                assert_eq!(seen.next().as_ref(), Some(request), "request {served}");
                assert_eq!((answer.status, answer.closes), (200, !manner.stays));
                let number = served.to_string();
                let body: &[u8] = if manner.head_only {
                    b""
                } else {
                    number.as_bytes()
                };
                assert_eq!(answer.body, body, "the answer to request {served}");
            }
            Step::Declined(manner, goes_on) => {
                assert_eq!(answer.status, 404);
                match (goes_on, manner.stays) {
                    // Its body was not at hand: nothing may follow.
                    (GoesOn::Perhaps, true) if answer.closes => break,
                    (_, stays) => assert_eq!(answer.closes, !stays),
                }
            }
            Step::Refused(_, faults) => {
                let status = answer.status;
                assert!(faults.contains(&status), "{status}, but {faults:?}");
                assert!(answer.closes, "open after a refusal");
            }
        }
    }
    assert_eq!(heard, b"", "more answers than requests");
    assert_eq!(seen.next(), None, "more requests than were sent");
}

/// An answer, as its client reads it.
struct Answer<'a> {
    status: u16,
    closes: bool,
    body: &'a [u8],
}

impl<'a> Answer<'a> {
    fn take(heard: &mut &'a [u8], manner: Manner) -> Self {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        if manner.may_continue {
            *heard = heard.strip_prefix(CONTINUE).unwrap_or(heard);
        }
        let end = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let end = end.expect("an answer for each request") + 4;
        let (head, rest) = heard.split_at(end);
        let head = std::str::from_utf8(head).expect("an answer's head is text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let status = status.and_then(|line| line.get(..3)?.parse().ok());
        let fields: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
        let field = |name| {
            let mut all = fields.iter().filter(|(given, _)| *given == name);
            let first = all.next().map(|(_, value)| *value);
            assert!(all.next().is_none(), "{name} stands twice in {head:?}");
            first
        };
        assert_eq!(field("Transfer-Encoding"), None);
        let length = field("Content-Length").and_then(|digits| digits.parse().ok());
        let length: usize = length.expect("an answer has its length");
        let (body, rest) = rest.split_at(if manner.head_only { 0 } else { length });
        *heard = rest;
        Answer {
            status: status.expect("a status line"),
            closes: field("Connection") == Some("close"),
            body,
        }
    }
}
