//! The same over TLS: the answer's bytes are told from the handshake's, and cuts reach through it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::cancel::CancelReason;
use crate::config::CaFile;

use super::peer::{Peer, Said, ok};
use super::*;
use crate::providers::transport::tls::TlsFault;

/// A key and its certificate for `localhost` and 127.0.0.1, made for these tests and good for nothing else.
const IDENTITY: &[u8] = b"\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgtqCaHTujY62M3ZD0
C6yz7mBwuW7/FdrYPTJq+a4/MGehRANCAAQo+dKPsBq37ItbceYgizwmLymqlc91
OCSgDPpP+VDhxlj3HNvVstV9yiBEIpN3PBDNovhfNu8C594tiIYc47Wx
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBZDCCAQqgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCj50o+wGrfsi1tx
5iCLPCYvKaqVz3U4JKAM+k/5UOHGWPcc29Wy1X3KIEQik3c8EM2i+F827wLn3i2I
hhzjtbGjSzBJMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAMBgNVHRMBAf8E
AjAAMB0GA1UdDgQWBBQ7F/yDeEwA8Vb/4f/K+aX0va5N/DAKBggqhkjOPQQDAgNI
ADBFAiEAkt/U4zFJEzci0glGr804gjS+LcRlN8UFP4JqRduoJ5ICIClP3JsuAt49
/zwRdEDK5LNV0PyHbVTtPkRGhkHcNoVz
-----END CERTIFICATE-----
";

type Served = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// A peer that serves TLS and runs `script` on what is inside. It says when its client has gone.
fn peer(script: impl Fn(&mut Served) + Send + Sync + 'static) -> Peer {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(IDENTITY).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(IDENTITY).expect("a key");
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    let config = Arc::new(config);
    Peer::new(move |line| {
        let (stream, said) = line.into_parts();
        let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        script(&mut stream);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        let _ = said.send(Said::Gone);
    })
}

/// Reads a request without a body to speak of; false at the end of the connection.
fn request(stream: &mut Served) -> bool {
    let mut line = String::new();
    while !line.ends_with("\r\n\r\n") {
        if !matches!(stream.read_line(&mut line), Ok(1..)) {
            return false;
        }
    }
    stream.read_exact(&mut [0]).is_ok()
}

fn caller(peer: &Peer, timeouts: &Timeouts) -> Caller {
    let url = format!("https://127.0.0.1:{}/v1", peer.address.port());
    let certificate = CertificateDer::from_pem_slice(IDENTITY).expect("a certificate");
    let provider = Provider {
        ca_file: Some(CaFile {
            path: "ca.pem".into(),
            certificates: vec![certificate.to_vec()],
        }),
        ..provider(&url)
    };
    let clock: SharedClock = Arc::new(SystemClock::new());
    Caller {
        transport: Transport::new(&provider, timeouts, Arc::clone(&clock)),
        clock,
        watch: Watch::default(),
    }
}

#[test]
fn a_connection_is_used_again() {
    let peer = peer(|stream| {
        while request(stream) {
            let reply = ok("hello");
            stream
                .get_mut()
                .write_all(reply.as_bytes())
                .expect("it reads");
        }
    });
    let caller = caller(&peer, &timeouts());
    for told in ["new", "reused", "reused"] {
        assert_eq!(caller.ask("?").as_deref(), Ok("hello"));
        assert_eq!(caller.told(), [told, "first byte"]);
    }
}

#[test]
fn a_stranger_is_not_trusted() {
    let peer = peer(|stream| {
        request(stream);
    });
    let url = format!("https://127.0.0.1:{}/v1", peer.address.port());
    let error = Caller::new(&url)
        .ask("?")
        .expect_err("nobody vouches for it");
    let TransportError::Tls { fault, detail } = error else {
        panic!("{error:?}");
    };
    assert_eq!(fault, TlsFault::UnknownIssuer);
    assert!(detail.contains("certificate"), "{detail}");
}

/// The server's session tickets come right after the handshake: they must not pass for an answer.
#[test]
fn what_tls_says_for_itself_is_no_first_byte() {
    let silent = peer(|stream| {
        request(stream);
    });
    let timeouts = Timeouts {
        first_byte: Some(Duration::from_millis(100)),
        ..timeouts()
    };
    let caller = caller(&silent, &timeouts);
    assert_eq!(caller.ask("?"), Err(TransportError::FirstByteTimeout));
    silent.wait_for(&Said::Gone);
}

#[test]
fn a_call_is_cut_in_its_body() {
    let peer = peer(|stream| {
        request(stream);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
        stream.get_mut().write_all(head).expect("it reads");
    });
    let caller = caller(&peer, &timeouts());
    let token = CancelToken::new();
    let mut answer = caller
        .post(b"?", &token, caller.after(BOUND))
        .expect("an answer");
    answer.read_exact(&mut [0; 5]).expect("a piece");
    super::peer::spawn("cancel", move || {
        token.cancel(CancelReason::Stopping);
    });
    let error = TransportError::from(answer.read(&mut [0]).expect_err("it was cut"));
    assert_eq!(error, TransportError::Cancelled(CancelReason::Stopping));
    peer.wait_for(&Said::Gone);
}
