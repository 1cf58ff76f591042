//! A server for tests: it answers byte by byte what it is told to, and tells what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Builder, JoinHandle};

pub(crate) fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let thread = Builder::new().name("test-peer".into());
    thread.spawn(run).expect("thread starts")
}

/// Reads a request: its head, and as many bytes of a body as it says. `None` at the end of the connection.
pub(crate) fn read_request(from: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        if from.read_line(&mut text).ok()? == 0 {
            return None;
        }
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.parse().expect("a length"))
    });
    let mut body = vec![0; length.unwrap_or_default()];
    from.read_exact(&mut body).ok()?;
    Some(text + &String::from_utf8(body).expect("text"))
}

/// What a peer was asked: the number of the connection, from 0, and the request.
pub(crate) type Asked = (usize, String);

/// A server that answers each request with what `answer` makes of it; nothing closes the connection. Its address.
pub(crate) fn peer(
    answer: impl Fn(&str) -> Vec<u8> + Clone + Send + 'static,
) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (tell, told) = channel();
    spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let (tell, answer) = (tell.clone(), answer.clone());
            spawn(move || {
                let mut reader = BufReader::new(stream);
                while let Some(request) = read_request(&mut reader) {
                    let text = answer(&request);
                    // Before the answer: whoever has that finds it told. Whether or not somebody wants to know.
                    let _ = tell.send((number, request));
                    if reader.get_mut().write_all(&text).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, told)
}
