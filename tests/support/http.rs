//! The little of HTTP/1.1 that both ends of a test need: heads, and bodies by length or by chunks.

use std::io::{self, BufRead, Read};

/// A request's or an answer's head.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// The first line, without its end.
    pub(crate) start: String,
    /// In their order; names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes more.
    Length(usize),
    /// With an empty chunk.
    Chunked,
    /// With the connection.
    Close,
    /// It has ended.
    Over,
}

impl Head {
    /// Reads a head; `None` if the connection ended before its first byte.
    pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let Some(start) = line(from)? else {
            return Ok(None);
        };
        let mut headers = Vec::new();
        loop {
            let line = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(Some(Head { start, headers }));
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The first header of that (lower-case) name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// How the body ends, if it has one; `otherwise` where the head doesn't say.
    pub(crate) fn framing(&self, otherwise: Framing) -> Framing {
        let length = self.header("content-length").and_then(|v| v.parse().ok());
        match (self.header("transfer-encoding"), length) {
            (Some("chunked"), _) => Framing::Chunked,
            (_, Some(0)) => Framing::Over,
            (_, Some(length)) => Framing::Length(length),
            (_, None) => otherwise,
        }
    }
}

impl Framing {
    /// The next bytes of the body: a chunk, or what is there; `None` at its proper end.
    ///
    /// # Errors
    /// Also when the connection ends before the body.
    pub(crate) fn read(&mut self, from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
        match *self {
            Framing::Over => Ok(None),
            Framing::Chunked => self.chunk(from),
            Framing::Length(left) => {
                let piece = some(from, left)?;
                if piece.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *self = match left - piece.len() {
                    0 => Framing::Over,
                    left => Framing::Length(left),
                };
                Ok(Some(piece))
            }
            Framing::Close => {
                let piece = some(from, usize::MAX)?;
                Ok((!piece.is_empty()).then_some(piece))
            }
        }
    }

    fn chunk(&mut self, from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
        let size = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
        let mut piece = vec![0; size];
        from.read_exact(&mut piece)?;
        let end = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !end.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if size == 0 {
            *self = Framing::Over;
            return Ok(None);
        }
        Ok(Some(piece))
    }

    /// The rest of the body.
    pub(crate) fn read_all(&mut self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.read(from)? {
            body.extend(piece);
        }
        Ok(body)
    }
}

fn some(from: &mut impl BufRead, most: usize) -> io::Result<Vec<u8>> {
    let available = from.fill_buf()?;
    let piece = available[..available.len().min(most)].to_vec();
    from.consume(piece.len());
    Ok(piece)
}

/// A line without its end; `None` at the end of the connection.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    // Enough for any head here, and a bound for what is no head.
    if from.take(1 << 20).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    match line.strip_suffix('\n') {
        Some(whole) => Ok(Some(whole.trim_end_matches('\r').to_owned())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, io::ErrorKind>) {
        let mut from = text.as_bytes();
        let head = Head::read(&mut from).expect("a head").expect("a head");
        let body = head.framing(Framing::Close).read_all(&mut from);
        let body = body.map(|b| String::from_utf8(b).expect("text"));
        let expected = expected.map(str::to_owned);
        assert_eq!(body.map_err(|e| e.kind()), expected, "{text:?}");
    }

    #[test]
    fn a_body_that_breaks_off_is_told_from_one_that_ends() {
        let broken = Err(io::ErrorKind::UnexpectedEof);
        check("x\r\n\r\nhello", Ok("hello"));
        check("x\r\nContent-Length: 0\r\n\r\nhello", Ok(""));
        check("x\r\nContent-Length: 5\r\n\r\nhello", Ok("hello"));
        check("x\r\nContent-Length: 6\r\n\r\nhello", broken);
        let chunked = "x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n";
        check(&format!("{chunked}0\r\n\r\n"), Ok("hello"));
        check(chunked, broken);
        check(&format!("{chunked}0\r\n"), broken);
    }
}
