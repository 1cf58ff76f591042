//! Clients that take too long.

use std::time::Duration;

use super::support::{Client, Scripted, config, eventually, field, open};

const SHORT: Duration = Duration::from_millis(40);

#[test]
fn a_head_that_does_not_come_whole_is_refused() {
    let mut config = config();
    config.head_timeout = SHORT;
    let door = open(&config, Scripted::echo());
    for part in ["G", "GET / HTTP/1.1\r\nHost: a\r\n", "\r\n"] {
        let mut client = Client::connect(&door);
        let heard = client.say(part).hear();
        assert_eq!(
            (heard.status, field(&heard.head, "connection")),
            (408, Some("close")),
            "{part:?}"
        );
        client.expect_close();
    }
}

#[test]
fn a_head_that_drips_is_refused_all_the_same() {
    let mut config = config();
    config.head_timeout = SHORT;
    config.max_head = 1024 * 1024;
    let door = open(&config, Scripted::echo());
    let mut dripping = Client::connect(&door);
    dripping.say("GET / HTTP/1.1\r\n");
    // Between two bytes another client gets a whole answer, which takes far less than the timeout.
    let mut pace = Client::connect(&door);
    for bytes in 0.. {
        assert!(bytes < 20_000, "the drip goes on for ever");
        assert_eq!(pace.get("/").status, 200);
        dripping.say("x");
        if door.snapshot().rejected > 0 {
            break;
        }
    }
    assert_eq!(dripping.hear().status, 408);
}

#[test]
fn a_body_that_stalls_is_refused_and_gives_its_bytes_back() {
    let mut config = config();
    config.body_timeout = SHORT;
    let door = open(&config, Scripted::echo());
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    for part in [
        "Content-Length: 10\r\n\r\nhello",
        "Content-Length: 10\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\na\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n0\r\n",
    ] {
        let mut client = Client::connect(&door);
        let heard = client.say(format!("{head}{part}")).hear();
        assert_eq!(heard.status, 408, "{part:?}");
        client.expect_close();
    }
    assert_eq!(door.snapshot().held_bytes, 0);
}

#[test]
fn a_body_that_ends_early_is_refused() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let ended = client.stream().shutdown(std::net::Shutdown::Write);
    ended.expect("a live socket");
    let heard = client.hear();
    assert_eq!(
        (heard.status, heard.body.as_str()),
        (400, "the body is shorter than announced")
    );
    assert_eq!(client.rest().expect("a clean end"), "");
}

#[test]
fn a_client_that_closes_in_the_middle_of_a_head_leaves_nothing_behind() {
    let door = open(&config(), Scripted::echo());
    Client::connect(&door).say("GET / HT");
    eventually(&door, "it was accepted and is gone", |now| {
        now.accepted == 1 && now.connections == 0 && now.active == 0
    });
    assert_eq!(door.snapshot().rejected, 0);
}

#[test]
fn a_parked_connection_is_closed_after_a_while() {
    let mut config = config();
    config.idle_timeout = SHORT;
    let door = open(&config, Scripted::echo());
    let mut client = Client::connect(&door);
    assert_eq!(client.get("/").status, 200);
    client.expect_close();
    eventually(&door, "its place is free", |now| {
        now.connections == 0 && now.parked == 0
    });
}
