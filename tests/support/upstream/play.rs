//! Playing a script on a connection. Whatever waits here also notices that the client has gone.

use std::io::{self, BufReader, Read, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::super::http::{Framing, Head};
use super::script::{Answer, Script, Then, error_body};
use super::wire::Wire;
use super::{Gate, Request};

/// Between two bytes of a trickle, and between two looks at a gate.
const PACE: Duration = Duration::from_millis(5);

/// A connection to the upstream.
pub(super) struct Line(BufReader<Wire>);

/// The connection is over: by the script, or by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Ended {
        Ended
    }
}

impl Line {
    pub(super) fn new(wire: Wire) -> Line {
        wire.socket().set_nodelay(true).expect("a socket");
        Line(BufReader::new(wire))
    }

    /// The next request; `None` at the end of the connection.
    pub(super) fn request(&mut self) -> Option<(Head, Vec<u8>)> {
        let head = Head::read(&mut self.0).ok()??;
        let body = head.framing(Framing::Over).read_all(&mut self.0).ok()?;
        Some((head, body))
    }

    /// Answers `request`; an error means that the connection is over.
    pub(super) fn play(&mut self, script: &Script, request: &Request) -> Result<(), Ended> {
        match script {
            Script::Answer(answer) => self.answer(answer, request),
            Script::Gate(gate, inner) => {
                self.wait_for(gate)?;
                self.play(inner, request)
            }
            Script::Silent => self.see_off(),
            Script::NoHeaders => {
                self.write("HTTP/1.1 200 OK\r\n")?;
                self.see_off()
            }
            Script::TrickleHeaders => {
                self.write("HTTP/1.1 200 OK\r\nx-slow: ")?;
                self.trickle("y")
            }
            Script::TrickleBody => {
                self.write(OPEN_ENDED)?;
                self.trickle(filler(request))
            }
            Script::StallAfterFirst => {
                self.first_of_many(request)?;
                self.see_off()
            }
            Script::KeepAliveCommentsAfterFirst => {
                self.first_of_many(request)?;
                self.trickle(filler(request))
            }
            Script::WrongLength => {
                self.first_of_many(request)?;
                Err(Ended)
            }
            Script::Status(status, body, headers) => self.reply(*status, headers, body),
            Script::Garbage => {
                self.write("\u{0}\u{1}this is not http\r\n\r\n")?;
                Err(Ended)
            }
            Script::Reset => self.reset(),
            Script::HalfClose => {
                self.0
                    .get_ref()
                    .socket()
                    .shutdown(std::net::Shutdown::Write)?;
                self.see_off()
            }
            Script::HtmlGateway504 => {
                let page = "<html><body><h1>504 Gateway Time-out</h1></body></html>";
                let length = page.len();
                self.write(&format!(
                    "HTTP/1.1 504 Gateway Time-out\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}"
                ))
            }
            Script::ErrorBodyWith200 => self.error_with_200(request),
            Script::Events(events) => {
                self.write(STREAM)?;
                events.iter().try_for_each(|data| self.event(data))?;
                self.write("0\r\n\r\n")
            }
            Script::Raw(bytes) => {
                self.0.get_mut().write_all(bytes)?;
                Err(Ended)
            }
            Script::RawThen(bytes, then) => {
                self.0.get_mut().write_all(bytes)?;
                self.follow(then)
            }
        }
    }

    fn reset(&mut self) -> Result<(), Ended> {
        let socket = self.0.get_ref().socket();
        let none = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(socket, none).expect("a socket");
        Err(Ended)
    }

    fn follow(&mut self, then: &Then) -> Result<(), Ended> {
        match then {
            Then::Next => Ok(()),
            Then::Silence => self.see_off(),
            Then::Reset => self.reset(),
            Then::Again(bytes) => loop {
                self.0.get_mut().write_all(bytes)?;
            },
            Then::Trickle(text) => self.trickle(text),
        }
    }

    /// A whole JSON body.
    pub(super) fn reply(
        &mut self,
        status: u16,
        headers: &[(String, String)],
        body: &Value,
    ) -> Result<(), Ended> {
        let body = body.to_string();
        let mut text = format!("HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        self.write(&format!(
            "{text}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn answer(&mut self, answer: &Answer, request: &Request) -> Result<(), Ended> {
        self.pause(answer.delay)?;
        if request.wants_stream() {
            return self.stream(answer, request);
        }
        let mut message = json!({"role": "assistant", "content": answer.text_for(request)});
        if !answer.reasoning.is_empty() {
            message["reasoning_content"] = answer.reasoning.clone().into();
        }
        let body = json!({
            "id": format!("chatcmpl-{}", request.id), "object": "chat.completion", "created": 1_788_000_000,
            "model": request.model(), "usage": usage(),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        });
        if !answer.think.is_zero() {
            return self.after_a_blank(answer.think, &body.to_string());
        }
        self.reply(200, &[("x-request-id".into(), request.id.clone())], &body)
    }

    /// A whole body after a blank line that keeps the connection alive, and silence.
    fn after_a_blank(&mut self, silence: Duration, body: &str) -> Result<(), Ended> {
        self.write(OPEN_ENDED)?;
        self.write("1\r\n\n\r\n")?;
        self.pause(silence)?;
        self.write(&format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
    }

    fn stream(&mut self, answer: &Answer, request: &Request) -> Result<(), Ended> {
        self.write(STREAM)?;
        self.chunk(request, &json!({"role": "assistant", "content": ""}), None)?;
        self.pause(answer.think)?;
        if !answer.reasoning.is_empty() {
            self.chunk(
                request,
                &json!({"reasoning_content": answer.reasoning}),
                None,
            )?;
        }
        for (index, piece) in answer.pieces_for(request).into_iter().enumerate() {
            if index > 0 {
                self.pause(answer.pace)?;
            }
            self.chunk(request, &json!({"content": piece}), None)?;
        }
        self.chunk(request, &json!({}), Some("stop"))?;
        if request.body["stream_options"]["include_usage"] == true {
            let last = envelope(request, json!([]), usage());
            self.event(&last.to_string())?;
        }
        self.event("[DONE]")?;
        self.write("0\r\n\r\n")
    }

    fn chunk(
        &mut self,
        request: &Request,
        delta: &Value,
        finish: Option<&str>,
    ) -> Result<(), Ended> {
        let choices = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        self.event(&envelope(request, choices, Value::Null).to_string())
    }

    fn event(&mut self, data: &str) -> Result<(), Ended> {
        let event = format!("data: {data}\n\n");
        self.write(&format!("{:x}\r\n{event}\r\n", event.len()))
    }

    /// The beginning of an answer that is longer.
    fn first_of_many(&mut self, request: &Request) -> Result<(), Ended> {
        if request.wants_stream() {
            self.write(STREAM)?;
            let text = format!("hello from {}", request.id);
            return self.chunk(request, &json!({"content": text}), None);
        }
        self.write(OPEN_ENDED)?;
        let half = format!("{{\"id\":\"chatcmpl-{}\",\"choices\":[", request.id);
        self.write(&format!("{:x}\r\n{half}\r\n", half.len()))
    }

    fn error_with_200(&mut self, request: &Request) -> Result<(), Ended> {
        let body = error_body("server_error", "something went wrong");
        if !request.wants_stream() {
            return self.reply(200, &[], &body);
        }
        self.write(STREAM)?;
        self.event(&body.to_string())?;
        self.write("0\r\n\r\n")
    }

    fn write(&mut self, text: &str) -> Result<(), Ended> {
        Ok(self.0.get_mut().write_all(text.as_bytes())?)
    }

    fn trickle(&mut self, text: &str) -> Result<(), Ended> {
        loop {
            self.write(text)?;
            self.pause(PACE)?;
        }
    }

    fn wait_for(&mut self, gate: &Gate) -> Result<(), Ended> {
        while !gate.is_open() {
            self.pause(PACE)?;
        }
        Ok(())
    }

    /// Waits for `length`, or for the client to go.
    fn pause(&mut self, length: Duration) -> Result<(), Ended> {
        let end = Instant::now() + length;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let left = Timespec::try_from(left).expect("a short time");
            let mut socket = [PollFd::new(self.0.get_ref().socket(), PollFlags::IN)];
            if poll(&mut socket, Some(&left)).map_err(io::Error::from)? > 0 {
                // No client of ours sends more before it is answered: readable means that it has gone.
                return Err(Ended);
            }
        }
    }

    /// Waits for the client to go, however that looks.
    fn see_off(&mut self) -> Result<(), Ended> {
        let _ = io::copy(&mut self.0.by_ref(), &mut io::sink());
        Err(Ended)
    }
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

const OPEN_ENDED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A chunk that means nothing.
fn filler(request: &Request) -> &'static str {
    if request.wants_stream() {
        "e\r\n: keep-alive\n\n\r\n"
    } else {
        "1\r\n \r\n"
    }
}

fn envelope(request: &Request, choices: Value, usage: Value) -> Value {
    let mut chunk = json!({
        "id": format!("chatcmpl-{}", request.id), "object": "chat.completion.chunk", "created": 1_788_000_000,
        "model": request.model(), "choices": choices,
    });
    if !usage.is_null() {
        chunk["usage"] = usage;
    }
    chunk
}

fn usage() -> Value {
    json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12})
}
