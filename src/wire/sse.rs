//! Server-sent events, read as they come.
//!
//! Lines end with `\n`, `\r\n` or `\r`; an empty line ends an event; the `data` lines of one event are joined with
//! `\n`; a line that begins with a colon is a comment. Comments are given out too: they show that the other side
//! lives, and are no content. Lines and events are bounded, so that a peer can't fill the memory. A character may be
//! cut in two anywhere: bytes become text only once an event is whole.

use std::io::{self, BufRead};

/// One thing that the other side said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A comment: no content, but a sign of life.
    Comment(&'a str),
    /// An event's data, and its name where it has one.
    Data {
        /// The field `event`.
        name: Option<&'a str>,
        /// The field `data`, its lines joined.
        data: &'a str,
    },
}

/// Why no further event can be read.
#[derive(Debug, thiserror::Error)]
pub enum SseError {
    /// An event, or a line of one, that is longer than allowed.
    #[error("an event is longer than {max} bytes")]
    TooLong {
        /// What is allowed.
        max: usize,
    },
    /// Bytes that are no text.
    #[error("an event is not UTF-8")]
    NotUtf8,
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What became whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Comment,
    Event,
}

/// Takes bytes in pieces of any size, and says when something is whole.
///
/// ```
/// use pointsman::wire::sse::{Decoder, Event};
///
/// let mut decoder = Decoder::new(1024);
/// let (taken, event) = decoder.push(b"data: on")?;
/// assert_eq!((taken, event), (8, None));
/// let (taken, event) = decoder.push(b"e\n\ndata: two\n\n")?;
/// assert_eq!((taken, event), (3, Some(Event::Data { name: None, data: "one" })));
/// # Ok::<(), pointsman::wire::sse::SseError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    max: usize,
    /// A line whose end hasn't come.
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    comment: Vec<u8>,
    /// Whether the event has data, which may be empty.
    has_data: bool,
    /// Whether what was whole at the last call was given out, and has to go.
    given: bool,
    /// The last line ended with `\r`: a `\n` that follows belongs to it.
    after_cr: bool,
    /// No line was read yet: a byte order mark may stand here.
    at_start: bool,
}

impl Decoder {
    /// A decoder for events of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Decoder {
            max,
            line: Vec::new(),
            name: Vec::new(),
            data: Vec::new(),
            comment: Vec::new(),
            has_data: false,
            given: false,
            after_cr: false,
            at_start: true,
        }
    }

    /// Takes bytes from the front of `bytes` until an event or a comment is whole, or all are taken. Returns how many it took.
    ///
    /// # Errors
    /// [`SseError::TooLong`], [`SseError::NotUtf8`]: nothing can be read after that.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(usize, Option<Event<'_>>), SseError> {
        let (taken, whole) = self.step(bytes)?;
        let event = whole.map(|whole| self.current(whole)).transpose()?;
        Ok((taken, event))
    }

    /// As [`Decoder::push`], without the event itself.
    fn step(&mut self, bytes: &[u8]) -> Result<(usize, Option<Whole>), SseError> {
        self.forget();
        let mut taken = 0;
        while taken < bytes.len() {
            if std::mem::take(&mut self.after_cr) && bytes[taken] == b'\n' {
                taken += 1;
                continue;
            }
            let rest = &bytes[taken..];
            let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                self.keep(rest)?;
                return Ok((bytes.len(), None));
            };
            self.after_cr = rest[end] == b'\r';
            taken += end + 1;
            let whole = self.end_line(&rest[..end])?;
            if whole.is_some() {
                return Ok((taken, whole));
            }
        }
        Ok((taken, None))
    }

    fn current(&self, whole: Whole) -> Result<Event<'_>, SseError> {
        if whole == Whole::Comment {
            return text(&self.comment).map(Event::Comment);
        }
        let name = text(&self.name)?;
        Ok(Event::Data {
            name: (!name.is_empty()).then_some(name),
            data: text(&self.data)?,
        })
    }

    /// What came after the last whole event: data of an event that has no end, or nothing. For the end of a stream:
    /// some servers leave out the line ends after their last event.
    pub fn unfinished(&mut self) -> Option<&str> {
        self.forget();
        let line = std::mem::take(&mut self.line);
        self.whole_line(&line).ok()?;
        let data = std::str::from_utf8(&self.data).ok()?;
        self.has_data.then_some(data)
    }

    /// Drops what was given out. A comment may stand in the middle of an event, which then goes on.
    fn forget(&mut self) {
        self.comment.clear();
        if std::mem::take(&mut self.given) {
            self.name.clear();
            self.data.clear();
            self.has_data = false;
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        self.check(self.line.len() + bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn check(&self, length: usize) -> Result<(), SseError> {
        if length > self.max {
            return Err(SseError::TooLong { max: self.max });
        }
        Ok(())
    }

    /// A line that ends with `end`; most come in one piece and are not copied.
    fn end_line(&mut self, end: &[u8]) -> Result<Option<Whole>, SseError> {
        if self.line.is_empty() {
            return self.whole_line(end);
        }
        self.keep(end)?;
        let mut line = std::mem::take(&mut self.line);
        let whole = self.whole_line(&line);
        line.clear();
        self.line = line;
        whole
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<Option<Whole>, SseError> {
        // The mark counts, as it does where the line comes in two pieces.
        self.check(self.data.len() + line.len())?;
        let line = match std::mem::take(&mut self.at_start) {
            true => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            false => line,
        };
        if line.is_empty() {
            return Ok(self.end_event());
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"" => {
                self.comment.extend_from_slice(value);
                return Ok(Some(Whole::Comment));
            }
            b"data" => self.add_data(value),
            b"event" => self.name = value.to_vec(),
            // `id` and `retry` are for those who reconnect, which nobody here does.
            _ => {}
        }
        Ok(None)
    }

    fn add_data(&mut self, value: &[u8]) {
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
    }

    /// An empty line. Without data there is no event, and a name alone is forgotten.
    fn end_event(&mut self) -> Option<Whole> {
        self.given = true;
        if !self.has_data {
            self.forget();
            return None;
        }
        Some(Whole::Event)
    }
}

fn text(bytes: &[u8]) -> Result<&str, SseError> {
    std::str::from_utf8(bytes).map_err(|_| SseError::NotUtf8)
}

/// Reads events from `source`.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    decoder: Decoder,
}

impl<R: BufRead> Reader<R> {
    /// A reader of events of at most `max` bytes.
    pub fn new(source: R, max: usize) -> Self {
        let decoder = Decoder::new(max);
        Reader { source, decoder }
    }

    /// The next event or comment; `None` at the end of the source. Blocks as long as the source does.
    ///
    /// # Errors
    /// As [`Decoder::push`], and what the source says.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, SseError> {
        let whole = loop {
            let bytes = match self.source.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if bytes.is_empty() {
                return Ok(None);
            }
            let (taken, whole) = self.decoder.step(bytes)?;
            self.source.consume(taken);
            if let Some(whole) = whole {
                break whole;
            }
        };
        self.decoder.current(whole).map(Some)
    }

    /// As [`Decoder::unfinished`].
    pub fn unfinished(&mut self) -> Option<&str> {
        self.decoder.unfinished()
    }

    /// The source, to look at.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// The source, with all that follows the last event.
    pub fn into_inner(self) -> R {
        self.source
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collect(chunks: &[&[u8]]) -> Result<Vec<String>, SseError> {
        let mut decoder = Decoder::new(64);
        let mut all = Vec::new();
        for mut bytes in chunks.iter().copied() {
            while !bytes.is_empty() {
                let (taken, event) = decoder.push(bytes)?;
                bytes = &bytes[taken..];
                all.extend(event.map(|event| match event {
                    Event::Comment(text) => format!("#{text}"),
                    Event::Data { name: None, data } => data.into(),
                    Event::Data {
                        name: Some(name),
                        data,
                    } => format!("{name}={data}"),
                }));
            }
        }
        Ok(all)
    }

    fn check(stream: &str, expected: &[&str]) {
        let whole = collect(&[stream.as_bytes()]).expect("events");
        assert_eq!(whole, expected, "{stream:?}");
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(collect(&bytes).expect("events"), expected, "{stream:?}");
    }

    #[test]
    fn every_line_end_ends_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            check(&format!("data: a{end}{end}data:b{end}{end}"), &["a", "b"]);
        }
        check("data: a\r\n\ndata: b\n\r\n", &["a", "b"]);
    }

    #[test]
    fn data_of_several_lines_is_joined_and_a_comment_in_between_takes_nothing_away() {
        check("data: a\n: alive\ndata:  b\n\n", &["#alive", "a\n b"]);
    }

    #[test]
    fn names_are_given_and_unknown_fields_are_not() {
        check(
            "event: e\nid: 7\nretry: 1\ndata: x\n\ndata: y\n\n",
            &["e=x", "y"],
        );
        check("event: e\n\ndata: y\n\n", &["y"]);
        check("data\n\n", &[""]);
    }

    #[test]
    fn a_byte_order_mark_stands_before_the_first_line_alone() {
        check("\u{feff}data: x\n\n\u{feff}data: y\n\n", &["x"]);
    }

    #[test]
    fn a_line_or_an_event_that_is_too_long_is_refused() {
        let line = "data: ".to_owned() + &"x".repeat(64);
        assert!(matches!(
            collect(&[line.as_bytes()]),
            Err(SseError::TooLong { max: 64 })
        ));
        let lines = "data: 0123456789\n".repeat(20);
        assert!(matches!(
            collect(&[lines.as_bytes()]),
            Err(SseError::TooLong { max: 64 })
        ));
    }

    #[test]
    fn a_line_is_as_long_in_two_pieces_as_in_one() {
        let line = format!("\u{feff}:{}\n", "x".repeat(63));
        for parts in [&[line.as_bytes()][..], &[&line.as_bytes()[..66], b"x\n"]] {
            assert!(matches!(collect(parts), Err(SseError::TooLong { max: 64 })));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert!(matches!(
            collect(&[b"data: \xff\n\n"]),
            Err(SseError::NotUtf8)
        ));
    }

    #[test]
    fn what_is_left_without_an_end_can_be_asked_for() {
        let mut reader = Reader::new(&b"data: a\n\ndata: [DONE]"[..], 64);
        assert!(reader.next_event().expect("an event").is_some());
        assert_eq!(reader.next_event().expect("the end"), None);
        assert_eq!(reader.unfinished(), Some("[DONE]"));
        let mut reader = Reader::new(&b"data: a\n\n"[..], 64);
        while reader.next_event().expect("an event").is_some() {}
        assert_eq!(reader.unfinished(), None);
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_changes_nothing(
            texts in prop::collection::vec("[a-zé€ ]{0,8}", 1..5), cut in 0usize..200
        ) {
            let stream: String = texts.iter().map(|text| format!("data:{text}\r\n\r\n: c\n")).collect();
            let (left, right) = stream.as_bytes().split_at(cut.min(stream.len()));
            prop_assert_eq!(
                collect(&[left, right]).expect("events"),
                collect(&[stream.as_bytes()]).expect("events")
            );
        }
    }
}
