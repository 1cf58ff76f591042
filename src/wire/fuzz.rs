//! What must hold of the wire whatever a client or a provider sends, as functions that panic where it doesn't.
//!
//! They are the bodies of the fuzz targets, and of the tests that replay what the fuzzer found (see `src/fuzz/mod.rs`).
//! Event streams are read a second time by a plain reader that takes all at once; JSON is read, written and read
//! again, and the second reading must not differ from the first.

use std::io::BufReader;

use serde_json::Value;

use super::sse::{Decoder, Event, Reader, SseError};
use super::{
    AnswerError, Outgoing, StreamDecoder, StreamEncoder, WireError, parse_error, parse_reply,
    parse_request, reply_json,
};
use crate::chat::{ChatRequest, Delta, Piece};
use crate::cuts::ways_to_cut;

/// Limits that a short input can reach.
const MAX_EVENT: usize = 1024;
const MAX_DEPTH: usize = 12;

/// A stream of events comes apart alike however it is cut; what a provider says in it comes out whole or is refused,
/// and survives being written for a client and read again.
pub(crate) fn events(bytes: &[u8]) {
    let expected = reference_events(bytes);
    for cuts in ways_to_cut(bytes) {
        let parts = cuts.iter().map(|cut| &bytes[cut.clone()]);
        assert_eq!(push_all(parts), expected);
        let longest = cuts.iter().map(ExactSizeIterator::len).max();
        let source = BufReader::with_capacity(longest.unwrap_or(1), bytes);
        assert_eq!(read_all(Reader::new(source, MAX_EVENT)), expected);
    }
    let data: Vec<&str> = expected
        .said
        .iter()
        .filter_map(|said| match said {
            Said::Comment(_) => None,
            Said::Data(_, data) => Some(data.as_str()),
        })
        .collect();
    pieces(&data);
}

/// What stands in a stream, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stream {
    said: Vec<Said>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Comment(String),
    Data(Option<String>, String),
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With this after the last whole event.
    Unfinished(Option<String>),
    TooLong,
    NotUtf8,
}

impl Default for End {
    fn default() -> Self {
        End::Unfinished(None)
    }
}

impl From<SseError> for End {
    fn from(error: SseError) -> Self {
        match error {
            SseError::TooLong { .. } => End::TooLong,
            SseError::NotUtf8 => End::NotUtf8,
            SseError::Io(error) => panic!("bytes can be read: {error}"),
        }
    }
}

impl Stream {
    fn hear(&mut self, event: Event<'_>) {
        self.said.push(match event {
            Event::Comment(text) => Said::Comment(text.into()),
            Event::Data { name, data } => {
                assert!(data.len() <= MAX_EVENT && name.is_none_or(|name| name.len() <= MAX_EVENT));
                Said::Data(name.map(str::to_owned), data.into())
            }
        });
    }
}

fn push_all<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Stream {
    let mut decoder = Decoder::new(MAX_EVENT);
    let mut stream = Stream::default();
    for mut part in parts {
        while !part.is_empty() {
            match decoder.push(part) {
                Ok((taken, event)) => {
                    assert!(taken > 0, "no way on");
                    part = &part[taken..];
                    if let Some(event) = event {
                        stream.hear(event);
                    }
                }
                Err(error) => {
                    stream.end = error.into();
                    return stream;
                }
            }
        }
    }
    stream.end = End::Unfinished(decoder.unfinished().map(str::to_owned));
    stream
}

fn read_all(mut reader: Reader<BufReader<&[u8]>>) -> Stream {
    let mut stream = Stream::default();
    loop {
        match reader.next_event() {
            Ok(Some(event)) => stream.hear(event),
            Ok(None) => break,
            Err(error) => {
                stream.end = error.into();
                return stream;
            }
        }
    }
    stream.end = End::Unfinished(reader.unfinished().map(str::to_owned));
    stream
}

/// The whole stream, line by line. (The standard's own words: split, strip one mark, look at each line.)
fn reference_events(bytes: &[u8]) -> Stream {
    let mut stream = Stream::default();
    let mut event = ReferenceEvent::default();
    let mut rest = bytes;
    let mut first = true;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n' || byte == b'\r') {
        let mut line = &rest[..end];
        let after = &rest[end + 1..];
        let pair = rest[end..].starts_with(b"\r\n");
        rest = if pair { &after[1..] } else { after };
        if line.len() + event.length() > MAX_EVENT {
            stream.end = End::TooLong;
            return stream;
        }
        if std::mem::take(&mut first) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        match event.line(line) {
            Ok(said) => stream.said.extend(said),
            Err(end) => {
                stream.end = end;
                return stream;
            }
        }
    }
    if rest.len() > MAX_EVENT {
        stream.end = End::TooLong;
    } else if rest.len() + event.length() <= MAX_EVENT {
        if first {
            rest = rest.strip_prefix("\u{feff}".as_bytes()).unwrap_or(rest);
        }
        // A comment that isn't text is none of the data's business.
        let _ = event.field(rest);
        let data = event.data.and_then(|data| String::from_utf8(data).ok());
        stream.end = End::Unfinished(data);
    }
    stream
}

#[derive(Default)]
struct ReferenceEvent {
    name: Vec<u8>,
    data: Option<Vec<u8>>,
}

impl ReferenceEvent {
    fn length(&self) -> usize {
        self.data.as_ref().map_or(0, Vec::len)
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Said>, End> {
        if !line.is_empty() {
            return self.field(line);
        }
        let ReferenceEvent { name, data } = std::mem::take(self);
        let Some(data) = data else { return Ok(None) };
        let name = Some(text(&name)?).filter(|name| !name.is_empty());
        Ok(Some(Said::Data(name, text(&data)?)))
    }

    fn field(&mut self, line: &[u8]) -> Result<Option<Said>, End> {
        let mut halves = line.splitn(2, |&byte| byte == b':');
        let name = halves.next().unwrap_or_default();
        let value = halves.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match (name, &mut self.data) {
            (b"", _) if !line.is_empty() => {
                return text(value).map(|text| Some(Said::Comment(text)));
            }
            (b"event", _) => self.name = value.to_vec(),
            (b"data", None) => self.data = Some(value.to_vec()),
            (b"data", Some(data)) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            _ => {}
        }
        Ok(None)
    }
}

fn text(bytes: &[u8]) -> Result<String, End> {
    String::from_utf8(bytes.to_vec()).map_err(|_| End::NotUtf8)
}

/// A provider's events become pieces in their order, and those survive being written and read again.
fn pieces(data: &[&str]) {
    let Some((pieces, complete)) = decode(data) else {
        return;
    };
    let heads = pieces
        .iter()
        .filter(|piece| matches!(piece, Piece::Head(_)));
    let heads = heads.count();
    if !complete || heads != 1 || data.iter().any(|data| !is_exact(data.as_bytes())) {
        return;
    }
    let mut encoder = StreamEncoder::new(true);
    let mut out = Vec::new();
    for piece in &pieces {
        encoder.piece(piece, &mut out);
    }
    encoder.end(None, &mut out);
    let mut reader = Reader::new(&out[..], out.len());
    let mut again = Vec::new();
    while let Some(event) = reader.next_event().expect("our own events are read") {
        match event {
            Event::Data { name: None, data } => again.push(data.to_owned()),
            other => panic!("{other:?} is not what we write"),
        }
    }
    let again: Vec<&str> = again.iter().map(String::as_str).collect();
    let (again, complete) = decode(&again).expect("our own chunks are read");
    assert!(complete, "an end was lost");
    assert_eq!(spoken(again), spoken(pieces));
}

/// The pieces, and whether the stream had its proper end; `None` where it is refused.
fn decode(data: &[&str]) -> Option<(Vec<Piece>, bool)> {
    let mut decoder = StreamDecoder::default();
    let mut pieces = Vec::new();
    for data in data {
        let before = pieces.len();
        let was_done = decoder.is_done();
        decoder.push(data, &mut pieces).ok()?;
        assert!(!was_done || pieces.len() == before, "a word after the end");
        assert!(decoder.is_done() || !decoder.is_complete());
    }
    let last = pieces.len().saturating_sub(1);
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Head(_) => {}
            Piece::Delta(delta) => assert!(at > 0 && !delta.is_empty(), "{delta:?} at {at}"),
            Piece::Usage(_) => assert!(at == last && decoder.is_done(), "usage at {at}"),
        }
    }
    Some((pieces, decoder.is_complete()))
}

/// Pieces without what makes no difference: a bit of no text is none.
fn spoken(mut pieces: Vec<Piece>) -> Vec<Piece> {
    for piece in &mut pieces {
        if let Piece::Delta(Delta {
            content, reasoning, ..
        }) = piece
        {
            content.take_if(|text| text.is_empty());
            reasoning.take_if(|text| text.is_empty());
        }
    }
    pieces
}

/// Whether the numbers of a JSON text survive being written: the parser may miss a fraction's last bit.
fn is_exact(body: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return true;
    };
    serde_json::from_str::<Value>(&value.to_string()).is_ok_and(|again| again == value)
}

/// A client's body is JSON within the bounds and says the same when it is written for a provider and read again, or
/// it is refused with a reason.
pub(crate) fn request(bytes: &[u8]) {
    let json = serde_json::from_slice::<Value>(bytes);
    match parse_request(bytes, MAX_DEPTH) {
        Ok(parsed) => {
            let json = json.expect("what is taken is JSON");
            assert!(depth(&json) <= MAX_DEPTH, "too deep, and not refused");
            if is_exact(bytes) {
                same_again(&parsed.chat);
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            match (&error, json) {
                (WireError::TooDeep { .. }, Ok(json)) => assert!(depth(&json) > MAX_DEPTH),
                (WireError::NotUtf8 { .. } | WireError::Syntax(_), Ok(_)) => {
                    panic!("JSON, and refused: {error}")
                }
                (WireError::NotAnObject { .. }, Ok(json)) => assert!(!json.is_object()),
                (WireError::Missing { .. } | WireError::Wrong { .. }, json) => {
                    assert!(json.is_ok() && error.param().is_some_and(|param| !param.is_empty()));
                }
                (_, Err(_)) => {}
            }
        }
    }
}

fn same_again(chat: &ChatRequest) {
    let written = Outgoing::new(chat).to_bytes(&[]);
    let shown = String::from_utf8_lossy(&written);
    let again = parse_request(&written, super::MAX_DEPTH);
    let mut again = again
        .unwrap_or_else(|error| panic!("{error}: {shown}"))
        .chat;
    // What is not said in words of OpenAI's.
    again.web_search = chat.web_search;
    if !chat.stream {
        again.include_usage = chat.include_usage;
    }
    assert_eq!(&again, chat, "{shown}");
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A provider's whole answer is read or refused, and says the same when it is written for a client and read again.
pub(crate) fn answer(bytes: &[u8]) {
    let reply = match parse_reply(bytes) {
        Ok(reply) => reply,
        Err(AnswerError::Refused(error)) => {
            assert_eq!(
                parse_error(bytes),
                Some(error),
                "one error, read in two ways"
            );
            return;
        }
        Err(AnswerError::Truncated | AnswerError::Malformed(_)) => return,
    };
    assert!(!reply.choices.is_empty(), "an answer without an answer");
    if !is_exact(bytes) {
        return;
    }
    let written = reply_json(&reply, None::<&Value>);
    let again = parse_reply(&written).expect("our own answers are read");
    assert_eq!(again, reply, "{}", String::from_utf8_lossy(&written));
}
