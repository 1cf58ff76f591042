//! Whoever listens on a port and does with its connections what no server of HTTP would do.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use super::spawn;

/// A listener; each of its connections is served by a script of its own thread. It ends with the process.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
}

impl Peer {
    /// A listener whose connections are served by `serve`, and closed when that returns.
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let serve = Arc::new(serve);
        spawn("peer-accept", move || {
            while let Ok((stream, _)) = listener.accept() {
                let serve = Arc::clone(&serve);
                spawn("peer", move || serve(stream));
            }
        });
        Peer { address }
    }

    /// What to give a provider as its `base_url`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}
