//! A provider as the tests want it: the OpenAI wire over a real socket, with a script for every request.
//!
//! ```text
//!  let upstream = Upstream::start(Script::text("hello from {id}"));
//!  upstream.on_model("slow", Script::Silent);
//!  ... point the gateway at upstream.url() ...
//!  upstream.wait_for_in_flight(1);
//! ```
//!
//! Which script answers a request: the first that [`Upstream::next`] queued; else that of its header, else that of its model;
//! else the one given at the start. Each chat request is counted, recorded and given an id; a
//! text with `{id}` or `{prompt}` (the last message's content) carries them back, so that a test can prove whose answer it got.
//!
//! A request is in flight from the moment it was read until its answer is out or its client is gone. A
//! connection is closed when the upstream has seen its end, whoever ended it.

mod ledger;
mod play;
mod script;
mod wire;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::spawn;
use super::tls::Identity;
use ledger::Ledger;
pub(crate) use ledger::Request;
use play::Line;
use script::Rules;
pub(crate) use script::{Answer, Gate, Script, Then};
use wire::Wire;

/// A scripted provider. Its threads end with their connections, its acceptor with the process.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    is_tls: bool,
    /// Of an upstream that takes nobody in: the listener, and who fills its queue.
    _full: Option<(TcpListener, TcpStream)>,
}

#[derive(Debug)]
struct Shared {
    rules: Mutex<Rules>,
    ledger: Ledger,
}

impl Upstream {
    /// An upstream that answers with `script` unless told otherwise.
    pub(crate) fn start(script: Script) -> Upstream {
        Upstream::serving(script, None)
    }

    /// The same over TLS, as whom `identity` says.
    pub(crate) fn start_tls(script: Script, identity: &Identity) -> Upstream {
        Upstream::serving(script, Some(identity.clone()))
    }

    fn serving(script: Script, identity: Option<Identity>) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut upstream = Upstream::new(&listener, script);
        upstream.is_tls = identity.is_some();
        let shared = Arc::clone(&upstream.shared);
        spawn("upstream-accept", move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = Arc::clone(&shared);
                let identity = identity.clone();
                spawn("upstream", move || {
                    serve(&shared, Wire::new(stream, identity))
                });
            }
        });
        upstream
    }

    /// An upstream that lets nobody in: connecting to it never ends.
    pub(crate) fn no_accept() -> Upstream {
        use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
        let raw = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&raw, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        // A queue of no length takes one connection, and then answers nobody.
        listen(&raw, 0).expect("it listens");
        let listener = TcpListener::from(raw);
        let mut upstream = Upstream::new(&listener, Script::Silent);
        let first = TcpStream::connect(upstream.address).expect("one fits in");
        upstream._full = Some((listener, first));
        upstream
    }

    fn new(listener: &TcpListener, script: Script) -> Upstream {
        Upstream {
            address: listener.local_addr().expect("it is bound"),
            shared: Arc::new(Shared {
                rules: Mutex::new(Rules::new(script)),
                ledger: Ledger::default(),
            }),
            is_tls: false,
            _full: None,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to give a provider as its `base_url`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}/v1", self.address)
    }

    /// The next request that no earlier call spoke for is answered with `script`.
    pub(crate) fn next(&self, script: Script) {
        self.rules(|rules| rules.next.push_back(script));
    }

    /// Requests for `model` are answered with `script`.
    pub(crate) fn on_model(&self, model: &str, script: Script) {
        self.rules(|rules| drop(rules.models.insert(model.into(), script)));
    }

    /// Requests with the header `name: value` are answered with `script`.
    pub(crate) fn on_header(&self, name: &str, value: &str, script: Script) {
        let key = (name.to_ascii_lowercase(), value.to_owned());
        self.rules(|rules| drop(rules.headers.insert(key, script)));
    }

    /// What asks for the list of models is answered with `script`, instead of with the models that have one.
    pub(crate) fn on_list(&self, script: Script) {
        self.rules(|rules| rules.list = Some(script));
    }

    fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.rules.lock().expect("no panic"));
    }

    /// Chat requests read so far, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.ledger.read(|counts| counts.requests.clone())
    }

    /// Requests for the list of models read so far.
    pub(crate) fn lists(&self) -> usize {
        self.shared.ledger.read(|counts| counts.lists)
    }

    /// Connections taken so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.ledger.read(|counts| counts.connections)
    }

    /// Requests being answered now.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.ledger.read(|counts| counts.in_flight)
    }

    /// The most requests that were being answered at once.
    pub(crate) fn peak(&self) -> usize {
        self.shared.ledger.read(|counts| counts.peak)
    }

    /// Connections whose end was seen.
    pub(crate) fn closed(&self) -> usize {
        self.shared.ledger.read(|counts| counts.closed)
    }

    /// Waits until `count` chat requests were read in all.
    pub(crate) fn wait_for_requests(&self, count: usize) {
        let ledger = &self.shared.ledger;
        ledger.wait("requests", |counts| counts.requests.len() >= count);
    }

    /// Waits until `count` requests for the list of models were read in all.
    pub(crate) fn wait_for_lists(&self, count: usize) {
        let ledger = &self.shared.ledger;
        ledger.wait("lists", |counts| counts.lists >= count);
    }

    /// Waits until exactly `count` requests are in flight.
    pub(crate) fn wait_for_in_flight(&self, count: usize) {
        let ledger = &self.shared.ledger;
        ledger.wait("in flight", |counts| counts.in_flight == count);
    }

    /// Waits until the end of `count` connections was seen in all.
    pub(crate) fn wait_for_closed(&self, count: usize) {
        let ledger = &self.shared.ledger;
        ledger.wait("closed", |counts| counts.closed >= count);
    }
}

/// One connection, to its end.
fn serve(shared: &Shared, wire: Wire) {
    let open = shared.ledger.connected();
    let mut line = Line::new(wire);
    while let Some((head, body)) = line.request() {
        if !head.start.starts_with("POST ") {
            let request = shared.ledger.listed(open.number, head);
            let list = shared.rules.lock().expect("no panic").list();
            if line.play(&list, &request).is_err() {
                return;
            }
            continue;
        }
        let (request, flight) = shared.ledger.begin(open.number, head, body);
        let script = shared.rules.lock().expect("no panic").choose(&request);
        let played = line.play(&script, &request);
        drop(flight);
        if played.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
