//! The client against peers that are scripted byte by byte.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::testing::{peer, read_request, spawn};
use super::{Client, ClientError};
use crate::cancel::{CancelReason, CancelToken};

/// Nothing here takes longer, unless it hangs.
const BOUND: Duration = Duration::from_secs(20);
/// For requests that are meant to run out of time.
const SHORT: Duration = Duration::from_millis(50);

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Who: me\r\n\r\nhello";
/// A head, and the first half of its body.
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
/// A head whose body ends with the connection.
const OPEN_ENDED: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello";

fn get(client: &Client, timeout: Duration) -> Result<Vec<u8>, ClientError> {
    client.get("/x", &[], timeout)?.text(100)
}

#[test]
fn requests_of_a_client_share_a_connection() {
    let (url, told) = peer(|_| HELLO.into());
    let client = Client::new(&url, &CancelToken::new()).expect("an address");
    let headers = [("X-A", "b")];
    let answer = client.post("/y", &headers, b"{}", BOUND).expect("answers");
    assert_eq!((answer.status, answer.header("x-who")), (200, Some("me")));
    assert_eq!(answer.text(100).expect("a body"), b"hello");
    assert_eq!(get(&client, BOUND).expect("answers"), b"hello");
    let (first, request) = told.recv_timeout(BOUND).expect("a request");
    assert!(request.starts_with("POST /y HTTP/1.1\r\n") && request.ends_with("\r\n\r\n{}"));
    assert!(
        request.to_ascii_lowercase().contains("\r\nx-a: b\r\n"),
        "{request}"
    );
    let (second, request) = told.recv_timeout(BOUND).expect("a request");
    assert!(request.starts_with("GET /x HTTP/1.1\r\n"), "{request}");
    assert_eq!((first, second), (0, 0));
}

#[test]
fn a_server_behind_a_unix_socket_is_asked_like_any_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(stream);
        let request = read_request(&mut reader).expect("a request");
        reader.get_mut().write_all(HELLO).expect("it reads");
        request
    });
    let url = format!("unix:{}", path.display());
    let client = Client::new(&url, &CancelToken::new()).expect("an address");
    assert_eq!(get(&client, BOUND).expect("answers"), b"hello");
    let request = server.join().expect("no panic");
    assert!(
        request
            .to_ascii_lowercase()
            .contains("\r\nhost: localhost\r\n"),
        "{request}"
    );
}

#[test]
fn an_answer_that_does_not_come_whole_runs_out_of_time() {
    for answer in [b"".as_slice(), HALF, OPEN_ENDED] {
        let (url, _told) = peer(|_| answer.into());
        let client = Client::new(&url, &CancelToken::new()).expect("an address");
        let error = get(&client, SHORT).expect_err("nothing more comes");
        assert_eq!(error, ClientError::TimedOut("the whole request"));
    }
}

#[test]
fn a_cancelled_token_ends_whatever_its_client_waits_for() {
    for answer in [b"".as_slice(), HALF, OPEN_ENDED] {
        let (url, told) = peer(|_| answer.into());
        let cancel = CancelToken::new();
        let client = Client::new(&url, &cancel).expect("an address");
        let waiting = spawn(move || get(&client, BOUND));
        told.recv_timeout(BOUND).expect("a request");
        cancel.cancel(CancelReason::Requested);
        let error = waiting
            .join()
            .expect("no panic")
            .expect_err("it was cancelled");
        assert_eq!(error, ClientError::Cancelled(CancelReason::Requested));
    }
}

#[test]
fn a_connection_that_breaks_is_told_from_one_that_could_not_be_made() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let client = Client::new(&format!("http://{address}"), &CancelToken::new());
    let client = client.expect("an address");
    let breaking = spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(HALF).expect("it reads");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // The client hangs up when it has seen the end.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let error = get(&client, BOUND).expect_err("half an answer");
    assert!(matches!(error, ClientError::Broken(_)), "{error}");
    drop(client);
    breaking.join().expect("no panic");
    let client = Client::new(&format!("http://{address}"), &CancelToken::new());
    let error = get(&client.expect("an address"), BOUND).expect_err("nobody listens");
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn what_is_no_address_is_refused() {
    for url in ["", "127.0.0.1:1", "ftp://localhost", "http://", "unix:"] {
        let error = Client::new(url, &CancelToken::new()).expect_err("no address");
        assert_eq!(error, ClientError::Url(url.into()));
    }
}
