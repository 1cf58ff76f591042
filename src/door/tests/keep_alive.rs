//! Several requests on one connection, and when there are no more.

use super::support::{Client, Scripted, config, echo, field, open};
use crate::door::{Headers, Response, StatusCode};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    let mut all = String::new();
    for n in 0..200 {
        all += &format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    }
    client.say(all);
    for n in 0..200 {
        assert_eq!(client.hear().body, format!("POST /{n} - hi"));
    }
    let snapshot = door.snapshot();
    assert_eq!((snapshot.requests, snapshot.accepted), (200, 1));
}

#[test]
fn the_connection_closes_when_the_client_asks() {
    let door = open(&config(), Scripted::echo());
    for asks in [
        "Connection: close",
        "Connection: x, Close",
        "Connection: x\r\nConnection: close",
    ] {
        let mut client = Client::connect(&door);
        let heard = client
            .say(format!("GET / HTTP/1.1\r\nHost: a\r\n{asks}\r\n\r\n"))
            .hear();
        assert_eq!(field(&heard.head, "connection"), Some("close"), "{asks}");
        client.expect_close();
    }
}

#[test]
fn an_old_client_is_kept_only_if_it_asks() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    let heard = client
        .say("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        .hear();
    assert_eq!(field(&heard.head, "connection"), Some("keep-alive"));
    let heard = client.say("GET /b HTTP/1.0\r\n\r\n").hear();
    assert_eq!(
        (heard.body.as_str(), field(&heard.head, "connection")),
        ("GET /b - ", Some("close"))
    );
    client.expect_close();
}

#[test]
fn the_connection_closes_when_the_handler_asks() {
    let door = open(
        &config(),
        Scripted::new(|_, exchange| {
            let response = Response::new(200).with_header("Connection", "Close");
            exchange.reply(response).expect("the client listens");
        }),
    );
    let mut client = Client::connect(&door);
    assert_eq!(field(&client.get("/").head, "connection"), Some("close"));
    client.expect_close();
}

#[test]
fn head_gets_the_head_alone() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    let head = client
        .say("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
        .hear_head();
    assert_eq!(field(&head, "content-length"), Some("10"));
    assert_eq!(client.get("/b").body, "GET /b - ", "nothing came between");
}

#[test]
fn a_status_without_body_has_none_and_no_length() {
    let door = open(
        &config(),
        Scripted::new(|request, exchange| match request.head.path.as_str() {
            "/reply" => exchange
                .reply(Response::new(204).with_body("text/plain", "lost"))
                .expect("sent"),
            "/stream" => {
                exchange
                    .start(StatusCode(304), &Headers::default())
                    .expect("sent");
                exchange.write(b"lost").expect("swallowed");
                exchange.finish().expect("sent");
            }
            _ => echo(request, exchange),
        }),
    );
    let mut client = Client::connect(&door);
    for (path, status) in [("/reply", 204), ("/stream", 304)] {
        let heard = client.get(path);
        assert_eq!(heard.status, status);
        assert_eq!(field(&heard.head, "content-length"), None, "{heard:?}");
        assert_eq!(field(&heard.head, "transfer-encoding"), None, "{heard:?}");
    }
    assert_eq!(client.get("/b").body, "GET /b - ", "nothing came between");
}

#[test]
fn a_panic_ends_one_connection_and_no_thread() {
    let door = open(
        &config(),
        Scripted::new(|request, exchange| match request.head.path.as_str() {
            "/panic" => panic!("as the test wants"),
            "/late" => {
                exchange
                    .start(StatusCode(200), &Headers::default())
                    .expect("sent");
                panic!("as the test wants");
            }
            "/silent" => {}
            _ => echo(request, exchange),
        }),
    );
    for path in ["/panic", "/silent"] {
        let mut client = Client::connect(&door);
        let heard = client.get(path);
        assert_eq!(
            (heard.status, field(&heard.head, "connection")),
            (500, Some("close")),
            "{path}"
        );
        client.expect_close();
    }
    let mut client = Client::connect(&door);
    client
        .say("GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        .hear_head();
    client.expect_close();
    assert_eq!(Client::connect(&door).get("/").status, 200);
    assert_eq!(door.snapshot().panics, 2);
}
