//! Raw bytes in, a status out, and the connection kept or closed.

use super::support::{Client, Scripted, config, field, open};

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Stays,
    Closes,
}

/// Says `bytes` on a fresh connection and checks the answer, its shape and the connection's fate.
fn check(bytes: &str, status: u16, body: &str, then: Then) {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    let heard = client.say(bytes).hear();
    assert_eq!(heard.status, status, "{bytes:?} got {heard:?}");
    assert!(heard.body.starts_with(body), "{bytes:?} got {heard:?}");
    let closes = field(&heard.head, "connection") == Some("close");
    assert_eq!(closes, then == Then::Closes, "{bytes:?} got {heard:?}");
    match then {
        Then::Stays => assert_eq!(client.get("/again").body, "GET /again - "),
        Then::Closes => client.expect_close(),
    }
}

const HEAD: &str = "POST /x HTTP/1.1\r\nHost: a\r\n";

#[test]
fn well_formed_requests_are_handled_and_the_connection_stays() {
    #[rustfmt::skip]
    let table = [
        ("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a b "),
        ("\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a - "),
        ("GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b c "),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * - "),
        ("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", "BREW /pot - "),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "POST /x - hello"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST /x - "),
        ("POST /x HTTP/1.1\r\nHost: a\r\n\r\n", "POST /x - "),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;e=1\r\nhello\r\n1\r\n!\r\n0\r\nT: 1\r\n\r\n", "POST /x - hello!"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST /x - "),
    ];
    for (bytes, body) in table {
        check(bytes, 200, body, Then::Stays);
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_and_closed() {
    #[rustfmt::skip]
    let table = [
        (400, "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        (400, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, "Content-Length: +5\r\n\r\nhello"),
        (400, "Content-Length: -1\r\n\r\n"),
        (400, "Content-Length: 99999999999999999999\r\n\r\n"),
        (413, "Content-Length: 9223372036854775807\r\n\r\n"),
        (413, "Content-Length: 65537\r\n\r\n"),
        (413, "Transfer-Encoding: chunked\r\n\r\n10001\r\n"),
        (400, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n"),
        (400, "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n"),
        (400, "Host: b\r\n\r\n"),
        (400, "X : b\r\n\r\n"),
        (400, "X: b\r\n c\r\n\r\n"),
        (400, "X: b\n\r\n"),
        (417, "Expect: tea\r\n\r\n"),
    ];
    for (status, rest) in table {
        check(&format!("{HEAD}{rest}"), status, "", Then::Closes);
    }
}

#[test]
fn other_versions_and_large_heads_are_refused() {
    check(
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        505,
        "only HTTP/1.0",
        Then::Closes,
    );
    check(
        "GET / HTTP/1.1\r\n\r\n",
        400,
        "there is no Host",
        Then::Closes,
    );
    let fields = "X: y\r\n".repeat(17);
    check(
        &format!("{HEAD}{fields}\r\n"),
        431,
        "the head is too large",
        Then::Closes,
    );
    let long = "y".repeat(2000);
    check(
        &format!("{HEAD}X: {long}\r\n\r\n"),
        431,
        "the head is too large",
        Then::Closes,
    );
    check(
        &format!("{HEAD}X: {long}"),
        431,
        "the head is too large",
        Then::Closes,
    );
    check(
        &format!("GET /{long}"),
        431,
        "the head is too large",
        Then::Closes,
    );
    check(
        &"\r\n".repeat(1000),
        431,
        "the head is too large",
        Then::Closes,
    );
}

#[test]
fn errors_of_framing_have_the_shape_that_the_handler_gives_them() {
    let door = open(&config(), Scripted::echo());
    let heard = Client::connect(&door).say("nonsense\r\n\r\n").hear();
    assert_eq!(field(&heard.head, "content-type"), Some("text/x-shaped"));
    assert_eq!(field(&heard.head, "x-path"), Some("-"), "no head was read");
    let twice = "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n";
    let heard = Client::connect(&door).say(twice).hear();
    assert_eq!(field(&heard.head, "x-path"), Some("/x"));
    assert_eq!(door.snapshot().rejected, 2);
}

#[test]
fn a_declined_request_costs_no_body() {
    let whole = "POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    check(whole, 404, "no such route", Then::Stays);
    let part = "POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\nabc";
    check(part, 404, "no such route", Then::Closes);
    let awaited =
        "POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    check(awaited, 404, "no such route", Then::Closes);
}

#[test]
fn a_client_that_asks_is_told_to_go_on_with_its_body() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    client.say(format!(
        "{HEAD}Content-Length: 5\r\nExpect: 100-Continue\r\n\r\n"
    ));
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.say("hello").hear().body, "POST /x - hello");
    // With the body at hand, or none to come, there is nothing to wait for; 1.0 knows no such word.
    let eager = format!("{HEAD}Content-Length: 2\r\nExpect: 100-continue\r\n\r\nhi");
    assert_eq!(client.say(eager).hear().status, 200);
    let empty = format!("{HEAD}Content-Length: 0\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.say(empty).hear().status, 200);
    let old = "GET / HTTP/1.0\r\nExpect: tea\r\n\r\n";
    assert_eq!(client.say(old).hear().status, 200);
}

#[test]
fn a_large_refused_body_is_thrown_away_so_that_the_client_reads_why() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    client.say(format!("{HEAD}Content-Length: 4000000\r\n\r\n"));
    // Many times what the kernel's buffers would take if nobody read it.
    client.say(vec![b'x'; 4_000_000]);
    let heard = client.hear();
    assert_eq!(
        (heard.status, heard.body.as_str()),
        (413, "the body is larger than 65536 bytes")
    );
    assert_eq!(client.rest().expect("a clean end"), "");
}

#[test]
fn bytes_that_come_one_by_one_are_read_as_one_request() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    let request = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    for byte in request.bytes() {
        client.say([byte]);
    }
    assert_eq!(client.hear().body, "POST /x - abc");
}

#[test]
fn a_body_larger_than_all_buffers_arrives_whole() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    let body = "0123456789abcdef".repeat(4096);
    let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    client.say(format!(
        "{HEAD}Content-Length: {}\r\n\r\n{body}{next}",
        body.len()
    ));
    assert_eq!(client.hear().body, format!("POST /x - {body}"));
    assert_eq!(client.hear().body, "GET /next - ");
    let chunk = &body[..0xfff];
    let chunks = format!("fff\r\n{chunk}\r\n").repeat(16);
    client.say(format!(
        "{HEAD}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n{next}"
    ));
    assert_eq!(
        client.hear().body,
        format!("POST /x - {}", chunk.repeat(16))
    );
    assert_eq!(client.hear().body, "GET /next - ");
}
