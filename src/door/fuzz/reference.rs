//! What a client said, read a second time: whole instead of in pieces, line by line instead of by states, with
//! nothing of the door's own code. Slow and plain, so that one can see that it is right.
//!
//! A refusal here is a *set* of statuses: of a request with two faults either may be named.

use super::{MAX_BODY, MAX_HEAD, MAX_HEADERS};

/// The longest line that announces a chunk.
const MAX_SIZE_LINE: usize = 256;

/// A request, as its handler has to see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// Of HTTP/1.
    pub(super) minor: u8,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// The statuses that a refused request deserves.
pub(super) type Faults = Vec<u16>;

/// What becomes of the bytes that follow one another on a connection, one step for each request.
#[derive(Debug)]
pub(super) enum Step {
    /// A whole request, answered by the handler.
    Served(Manner, Seen),
    /// Not wanted by the handler, which saw its head. Whether the connection may go on after it.
    Declined(Manner, GoesOn),
    /// Refused by the door, and the connection closed.
    Refused(Manner, Faults),
}

/// Of a connection after a request that the handler declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GoesOn {
    Yes,
    No,
    /// Where the body was at hand already.
    Perhaps,
}

/// How an answer has to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// HEAD: no body.
    pub(super) head_only: bool,
    /// Another request may follow.
    pub(super) stays: bool,
    /// `100 Continue` may come first.
    pub(super) may_continue: bool,
}

impl Step {
    pub(super) fn manner(&self) -> Manner {
        match self {
            Step::Served(manner, _) | Step::Declined(manner, _) | Step::Refused(manner, _) => {
                *manner
            }
        }
    }
}

/// Everything that happens on a connection on which `bytes` are sent, and then nothing.
pub(super) fn conversation(bytes: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = 0;
    while let Some((step, taken)) = step(&bytes[at..]) {
        at += taken;
        let stays = step.manner().stays;
        steps.push(step);
        if !stays {
            break;
        }
    }
    steps
}

/// One request and how long it is; `None` where the bytes end before its head does.
fn step(bytes: &[u8]) -> Option<(Step, usize)> {
    let (mut seen, head_length) = match head(bytes) {
        Ok(None) => return None,
        Ok(Some(found)) => found,
        Err(faults) => return Some((Step::Refused(Manner::default(), faults), 0)),
    };
    let rest = &bytes[head_length..];
    let mut manner = manner(&seen);
    let refused = |manner: Manner, faults| {
        let manner = Manner {
            stays: false,
            ..manner
        };
        Some((Step::Refused(manner, faults), 0))
    };
    let framing = match framing(&seen) {
        Ok(framing) => framing,
        Err(faults) => return refused(manner, faults),
    };
    if seen.path.starts_with("/declined") {
        let (goes_on, taken) = match framing {
            Framing::Length(0) => (GoesOn::Yes, 0),
            Framing::Length(length) if length <= rest.len() => (GoesOn::Perhaps, length),
            Framing::Length(_) | Framing::Chunked => (GoesOn::No, 0),
        };
        manner.stays &= goes_on != GoesOn::No;
        return Some((Step::Declined(manner, goes_on), head_length + taken));
    }
    manner.may_continue = seen.minor == 1
        && values(&seen, "expect").next().is_some()
        && framing != Framing::Length(0);
    let body = match framing {
        Framing::Length(length) => rest
            .get(..length)
            .map(|body| (body.to_vec(), length))
            .ok_or(vec![400]),
        Framing::Chunked => chunks(rest),
    };
    match body {
        Ok((body, taken)) => {
            seen.body = body;
            Some((Step::Served(manner, seen), head_length + taken))
        }
        Err(faults) => refused(manner, faults),
    }
}

/// A head and its length; `None` where the bytes end before it does.
pub(super) fn head(bytes: &[u8]) -> Result<Option<(Seen, usize)>, Faults> {
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut at = 0;
    loop {
        let begins = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b'\r' | b'\n');
        let first = bytes.get(at).filter(|_| lines.is_empty() && at < MAX_HEAD);
        if first.is_some_and(|byte| !begins(byte)) {
            return Err(vec![400]);
        }
        let Some(length) = bytes[at..].iter().position(|&byte| byte == b'\n') else {
            return match bytes.len() > MAX_HEAD {
                true => Err(vec![431]),
                false => Ok(None),
            };
        };
        if at + length >= MAX_HEAD {
            return Err(vec![431]);
        }
        let line = &bytes[at..at + length];
        let line = line.strip_suffix(b"\r").ok_or(vec![400])?;
        at += length + 1;
        match (line.is_empty(), lines.is_empty()) {
            // Before the first line.
            (true, true) => {}
            (true, false) => return lines_of_head(&lines).map(|seen| Some((seen, at))),
            (false, _) => lines.push(line),
        }
    }
}

fn lines_of_head(lines: &[&[u8]]) -> Result<Seen, Faults> {
    let mut faults = Faults::new();
    let mut seen = Seen::default();
    let authority = request_line(lines[0], &mut seen, &mut faults);
    if lines.len() - 1 > MAX_HEADERS {
        faults.push(431);
    }
    for line in &lines[1..] {
        match header(line) {
            Some(header) => seen.headers.push(header),
            None => faults.push(400),
        }
    }
    let hosts: Vec<&str> = values(&seen, "host").collect();
    let host_is_fine = match (&hosts[..], authority) {
        ([], _) => seen.minor == 0,
        ([host], authority) => {
            let plain = !host.contains([' ', '\t', ',', '/', '@']);
            let same = authority.is_none_or(|authority| authority.eq_ignore_ascii_case(host));
            plain && same
        }
        (_, _) => false,
    };
    if !host_is_fine {
        faults.push(400);
    }
    if faults.is_empty() {
        Ok(seen)
    } else {
        Err(faults)
    }
}

/// Returns the host that the target names, if it does.
fn request_line(line: &[u8], seen: &mut Seen, faults: &mut Faults) -> Option<String> {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let &[method, target, version] = &words[..] else {
        faults.push(400);
        return None;
    };
    let is_target = |byte: &u8| (b'!'..=b'~').contains(byte) && *byte != b'#';
    if !is_token(method) || target.is_empty() || !target.iter().all(is_target) {
        faults.push(400);
    }
    match version {
        b"HTTP/1.0" => seen.minor = 0,
        b"HTTP/1.1" => seen.minor = 1,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => faults.push(505),
        _ => faults.push(400),
    }
    seen.method = String::from_utf8_lossy(method).into();
    let target = String::from_utf8_lossy(target).into_owned();
    let lower = target.to_ascii_lowercase();
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| lower.starts_with(scheme));
    let (authority, rest) = match scheme {
        None => (None, target),
        Some(scheme) => {
            let rest = &target[scheme.len()..];
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(rest[..end].to_owned()), rest[end..].to_owned())
        }
    };
    let mut halves = rest.splitn(2, '?');
    seen.path = halves.next().unwrap_or_default().into();
    seen.query = halves.next().map(str::to_owned);
    if seen.path.is_empty() && authority.is_some() {
        seen.path = "/".into();
    }
    authority
}

fn header(line: &[u8]) -> Option<(String, String)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_value = |&byte: &u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    if !is_token(name) || !value.iter().all(is_value) {
        return None;
    }
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let value = text(value);
    Some((text(name), value.trim_matches([' ', '\t']).to_owned()))
}

fn is_token(word: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !word.is_empty() && word.iter().all(is_tchar)
}

fn values<'a>(seen: &'a Seen, name: &'static str) -> impl Iterator<Item = &'a str> {
    seen.headers
        .iter()
        .filter(move |(given, _)| given.to_ascii_lowercase() == name)
        .map(|(_, value)| value.as_str())
}

fn manner(seen: &Seen) -> Manner {
    let says = |word: &str| {
        values(seen, "connection").any(|value| {
            let lower = value.to_ascii_lowercase();
            lower.split(',').any(|given| given.trim() == word)
        })
    };
    Manner {
        head_only: seen.method == "HEAD",
        stays: !says("close") && (seen.minor == 1 || says("keep-alive")),
        may_continue: false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

fn framing(seen: &Seen) -> Result<Framing, Faults> {
    let codings: Vec<&str> = values(seen, "transfer-encoding").collect();
    let lengths: Vec<&str> = values(seen, "content-length").collect();
    let mut faults = Faults::new();
    if codings.len() + lengths.len() > 1 {
        faults.push(400);
    }
    if codings
        .iter()
        .any(|coding| !coding.eq_ignore_ascii_case("chunked") || seen.minor == 0)
    {
        faults.push(400);
    }
    let mut length = 0;
    for digits in lengths {
        let plain = !digits.is_empty() && digits.chars().all(|digit| digit.is_ascii_digit());
        // What no machine word holds is no plain number either.
        match digits.trim_start_matches('0').parse::<u64>() {
            _ if !plain => faults.push(400),
            Ok(number) if number <= MAX_BODY as u64 => length = number as usize,
            Ok(_) => faults.push(413),
            Err(_) if digits.bytes().all(|digit| digit == b'0') => {}
            Err(_) => faults.push(400),
        }
    }
    let mut expectations = values(seen, "expect").filter(|_| seen.minor == 1);
    let first = expectations.next();
    let known = first.is_none_or(|word| word.eq_ignore_ascii_case("100-continue"));
    if !known || expectations.next().is_some() {
        faults.push(417);
    }
    match (faults.is_empty(), codings.is_empty()) {
        (false, _) => Err(faults),
        (true, true) => Ok(Framing::Length(length)),
        (true, false) => Ok(Framing::Chunked),
    }
}

/// A chunked body and how many bytes it took.
pub(super) fn chunks(bytes: &[u8]) -> Result<(Vec<u8>, usize), Faults> {
    let mut cursor = Cursor { bytes, at: 0 };
    let mut body = Vec::new();
    loop {
        let size = size_line(&mut cursor, body.len())?;
        if size == 0 {
            break;
        }
        for _ in 0..size {
            body.push(cursor.next()?);
        }
        cursor.expect(b"\r\n")?;
    }
    let trailers = cursor.at;
    while cursor.peek() != Some(b'\r') {
        while cursor.peek() != Some(b'\r') {
            if !is_text(cursor.next()?) {
                return Err(vec![400]);
            }
            if cursor.at - trailers > MAX_HEAD {
                return Err(vec![431]);
            }
        }
        cursor.expect(b"\r\n")?;
    }
    cursor.expect(b"\r\n")?;
    Ok((body, cursor.at))
}

fn size_line(cursor: &mut Cursor<'_>, so_far: usize) -> Result<usize, Faults> {
    let start = cursor.at;
    let mut size = 0u128;
    while let Some(digit) = cursor.peek().and_then(|byte| char::from(byte).to_digit(16)) {
        cursor.next()?;
        if cursor.at - start > MAX_SIZE_LINE {
            return Err(vec![400]);
        }
        size = size * 16 + u128::from(digit);
        if size + so_far as u128 > MAX_BODY as u128 {
            return Err(vec![413]);
        }
    }
    if cursor.at == start {
        return Err(vec![400]);
    }
    if cursor.peek() == Some(b';') {
        while cursor.peek() != Some(b'\r') {
            let byte = cursor.next()?;
            // The semicolon itself may be one too many: nothing that counts follows it.
            let too_long = byte != b';' && cursor.at - start > MAX_SIZE_LINE;
            if !is_text(byte) || too_long {
                return Err(vec![400]);
            }
        }
    }
    cursor.expect(b"\r\n")?;
    Ok(size as usize)
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte; a body that ends too early is malformed.
    fn next(&mut self) -> Result<u8, Faults> {
        let byte = self.peek().ok_or(vec![400])?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, word: &[u8]) -> Result<(), Faults> {
        for &byte in word {
            if self.next()? != byte {
                return Err(vec![400]);
            }
        }
        Ok(())
    }
}
