//! What a connection to a provider costs: a call over one that is kept, and over a new one, plain and over TLS.
//!
//! The provider is on the loopback interface, where the way there and back is nearly nothing: what is measured is work,
//! not distance. A new connection also costs one round trip to the provider, and TLS one more, each of them some 10 to 250 ms
//! across the internet: a connection that is kept is worth that on top of what stands here.
//!
//! Bars, on two cores: over TLS a kept connection at least 5 times as cheap as a new one, and at most 4 times as dear as a kept
//! plain one. (Seen in four runs on a busy box: 8 to 22 times, and 1.3 to 3.4; plain, a new one costs 4 to 18 calls over a
//! kept one. The provider's own thread for each new connection is in that.)

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::chat::ChatRequest;
use pointsman::clock::{SystemClock, Time};
use pointsman::providers::{Call, CallWatch, Provider, Providers};
use pointsman::{CancelToken, Config};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Answers whose connection is kept, and answers after which it is closed.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Keep,
    Close,
}

/// A provider that answers in that manner; its base URL. It ends with the process.
fn upstream(manner: Manner, tls: Option<Arc<ServerConfig>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let scheme = if tls.is_some() { "https" } else { "http" };
    let accept = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_nodelay(true).expect("a socket");
            let tls = tls.clone();
            let serve = Builder::new().name("bench-upstream".into());
            let run = move || match tls {
                None => serve_all(BufReader::new(stream), manner),
                Some(config) => {
                    let connection = ServerConnection::new(config).expect("a connection");
                    let stream = StreamOwned::new(connection, stream);
                    serve_all(BufReader::new(stream), manner);
                }
            };
            serve.spawn(run).expect("a thread");
        }
    };
    let thread = Builder::new().name("bench-upstream-accept".into());
    thread.spawn(accept).expect("a thread");
    format!("{scheme}://{address}/v1")
}

/// Answers until the client goes, or once.
fn serve_all<S: Read + Write>(mut stream: BufReader<S>, manner: Manner) {
    let body = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ready"},"finish_reason":"stop"}]}"#;
    let close = match manner {
        Manner::Keep => "",
        Manner::Close => "Connection: close\r\n",
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{close}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    while read_request(&mut stream).is_some() {
        let written = stream.get_mut().write_all(answer.as_bytes());
        if written.is_err() || matches!(manner, Manner::Close) {
            return;
        }
    }
}

/// Reads a request; `None` at the end of the connection.
fn read_request(stream: &mut impl BufRead) -> Option<()> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    stream.read_exact(&mut vec![0; length]).ok()
}

/// An authority in PEM, and a server on this machine that it vouches for.
fn authority() -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(params, key);
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("a key");
    let certificate = server.signed_by(&key, &issuer).expect("a certificate");
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("they belong together");
    (pem, Arc::new(config))
}

/// Hears of nothing.
#[derive(Debug)]
struct Deaf;

impl CallWatch for Deaf {
    fn connected(&self, _reused: bool) {}
    fn first_byte(&self) {}
}

/// One call, to the end of its answer.
fn ask(provider: &dyn Provider, request: &ChatRequest) {
    let call = Call {
        request,
        cancel: &CancelToken::new(),
        deadline: Time::NEVER,
        first_byte_by: Time::NEVER,
        first_byte: None,
        watch: &Deaf,
    };
    let mut pieces = 0;
    let end = provider.chat(&call, &mut |_| {
        pieces += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(end, Ok(()));
    assert!(pieces > 0);
}

fn connections(criterion: &mut Criterion) {
    let (pem, tls) = authority();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), pem).expect("a file");
    let request = ChatRequest::new("m").user("Say ready");
    for (name, manner, tls) in [
        ("plain/kept", Manner::Keep, None),
        ("plain/new", Manner::Close, None),
        ("tls/kept", Manner::Keep, Some(&tls)),
        ("tls/new", Manner::Close, Some(&tls)),
    ] {
        let mut text = format!(
            "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{}\"\n",
            upstream(manner, tls.cloned())
        );
        if tls.is_some() {
            text += &format!("providers.mine.ca_file = {:?}\n", file.path());
        }
        let config = Config::from_toml(&text, "bench").expect("a configuration");
        let providers = Providers::new(&config, SystemClock::shared());
        let provider = providers.get("mine").expect("it is there");
        criterion.bench_function(name, |bencher| bencher.iter(|| ask(&**provider, &request)));
        let stats = provider.pool_stats().expect("it has connections");
        match manner {
            Manner::Keep => assert_eq!(stats.checkouts - stats.reused, 1, "{stats:?}"),
            Manner::Close => assert_eq!(stats.reused, 0, "{stats:?}"),
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = connections
}
criterion_main!(benches);
