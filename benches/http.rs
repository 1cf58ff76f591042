//! What the whole stack costs a client: a kept-alive request over a real socket, through door, engine and provider.
//!
//! `embedded` answers in this process at once; `upstream` is a provider on the loopback interface whose answer is
//! ready, so the difference between the two is the way to a provider and back. `contended` is the time that one more
//! request takes while eight connections ask as fast as they can: the reciprocal of the requests per second.
//!
//! Bars, on two cores: one connection under 150 us, with an upstream under 250 us; eight connections no slower for each
//! request than one. (Seen: 73 and 120 us; 41 and 65 us by eight.)

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread::Builder;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::{Config, Gateway, Server};

const CONNECTIONS: usize = 8;

/// A gateway that has a provider on the loopback interface.
fn gateway() -> Server {
    let text = format!(
        "profile = \"test\"\nlimits.global = {CONNECTIONS}\n\
         providers.embedded.latency = \"0ms\"\nproviders.embedded.pace = \"0ms\"\n\
         providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{}\"\n\
         providers.mine.max_inflight = {CONNECTIONS}\n",
        upstream()
    );
    let config = Config::from_toml(&text, "bench").expect("a configuration");
    let gateway = Gateway::start(config).expect("threads start");
    gateway.serve().expect("a free port")
}

/// A provider whose one answer is ready. It ends with the process.
fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let accept = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Builder::new().name("bench-upstream".into());
            serve.spawn(move || serve_all(stream)).expect("a thread");
        }
    };
    let thread = Builder::new().name("bench-upstream-accept".into());
    thread.spawn(accept).expect("a thread");
    format!("http://{address}/v1")
}

/// Answers until the client goes.
fn serve_all(stream: TcpStream) {
    let body = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ready"},"finish_reason":"stop"}]}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = Connection::new(stream);
    while connection.read().is_some() && connection.write(answer.as_bytes()).is_some() {}
}

/// Either end of a kept-alive connection.
struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        stream.set_nodelay(true).expect("a socket");
        Connection {
            stream: BufReader::new(stream),
            line: String::new(),
            body: Vec::new(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.get_mut().write_all(bytes).ok()
    }

    /// Reads a message, which says its length, and returns its first line; `None` at the end of the connection.
    fn read(&mut self) -> Option<String> {
        let mut first = String::new();
        let mut length = 0;
        loop {
            self.line.clear();
            if self.stream.read_line(&mut self.line).ok()? == 0 {
                return None;
            }
            let line = self.line.trim_end();
            match line.split_once(": ") {
                _ if line.is_empty() => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().ok()?;
                }
                None => first = line.to_owned(),
                Some(_) => {}
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).ok()?;
        Some(first)
    }
}

/// A client that asks the same again and again.
struct Client {
    connection: Connection,
    request: String,
}

impl Client {
    fn new(server: &Server, model: &str) -> Client {
        let stream = TcpStream::connect(server.address()).expect("it listens");
        let body = format!(
            r#"{{"model":"{model}","messages":[{{"role":"user","content":"Say ready"}}]}}"#
        );
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Client {
            connection: Connection::new(stream),
            request,
        }
    }

    fn ask(&mut self) {
        self.connection.write(self.request.as_bytes());
        let status = self.connection.read();
        assert_eq!(status.as_deref(), Some("HTTP/1.1 200 OK"));
    }
}

fn one_connection(criterion: &mut Criterion) {
    let server = gateway();
    for (name, model) in [("embedded", "embedded"), ("upstream", "mine/m")] {
        let mut client = Client::new(&server, model);
        criterion.bench_function(&format!("uncontended/{name}"), |bencher| {
            bencher.iter(|| client.ask());
        });
    }
    server.stop(Duration::ZERO);
}

fn eight_connections(criterion: &mut Criterion) {
    let server = gateway();
    for (name, model) in [("embedded", "embedded"), ("upstream", "mine/m")] {
        let mut clients: Vec<Client> = (0..CONNECTIONS)
            .map(|_| Client::new(&server, model))
            .collect();
        criterion.bench_function(&format!("contended/{name}_by_8"), |bencher| {
            bencher.iter_custom(|rounds| all_at_once(&mut clients, rounds));
        });
    }
    server.stop(Duration::ZERO);
}

/// How long `rounds` requests take, shared among the clients.
fn all_at_once(clients: &mut [Client], rounds: u64) -> Duration {
    let share = rounds.div_ceil(clients.len() as u64);
    let ready = Barrier::new(clients.len() + 1);
    let took = std::thread::scope(|scope| {
        for client in &mut *clients {
            let (ready, thread) = (&ready, Builder::new().name("bench-client".into()));
            let run = move || {
                ready.wait();
                (0..share).for_each(|_| client.ask());
                ready.wait();
            };
            thread.spawn_scoped(scope, run).expect("a thread");
        }
        ready.wait();
        let start = Instant::now();
        ready.wait();
        start.elapsed()
    });
    // The last round is made whole; what is told is the time of as many as were asked for.
    took.mul_f64(rounds as f64 / (share * clients.len() as u64) as f64)
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = one_connection, eight_connections
}
criterion_main!(benches);
