//! More clients, or more bytes, than there is room for.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use super::support::{Client, PATIENCE, Scripted, config, echo, eventually, open};
use crate::clock::SystemClock;
use crate::door::connection::Connection;
use crate::door::parking::Parking;
use crate::door::shared::Shared;
use crate::door::socket::Socket;
use crate::door::{Response, room};

/// The beginning of a request: whoever said it is not idle.
const HALF: &str = "GET /v1/any HTTP/1.1\r\nHo";

#[test]
fn past_the_bound_only_operation_routes_are_served_and_then_nobody() {
    let mut config = config();
    config.max_connections = 2;
    config.operation_connections = 1;
    let door = open(&config, Scripted::echo());
    let mut general: Vec<_> = (0..2).map(|_| Client::connect(&door)).collect();
    for client in &mut general {
        client.say(HALF);
    }
    let mut reserved = Client::connect(&door);
    reserved.say("GET /ops/heal");
    let mut beyond = Client::connect(&door);
    let heard = beyond.hear();
    assert_eq!(
        (heard.status, heard.body.as_str()),
        (503, "too many connections are open")
    );
    beyond.expect_close();
    assert_eq!(door.snapshot().refused, 1);
    reserved.say("thz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(reserved.hear().status, 200);
    reserved.expect_close();
    eventually(&door, "its place is free", |now| now.connections == 2);
    let mut other = Client::connect(&door);
    assert_eq!(other.get("/v1/any").status, 503);
    other.expect_close();
    eventually(&door, "its place is free", |now| now.connections == 2);
    let body = "POST /ops/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(
        Client::connect(&door).say(body).hear().status,
        503,
        "no body"
    );
    drop(general);
    eventually(&door, "places are free", |now| now.connections == 0);
    assert_eq!(Client::connect(&door).get("/v1/any").status, 200);
}

#[test]
fn a_reserved_connection_becomes_a_general_one_when_there_is_room() {
    let mut config = config();
    config.max_connections = 1;
    config.operation_connections = 1;
    let door = open(&config, Scripted::echo());
    let mut general = Client::connect(&door);
    general.say(HALF);
    let mut reserved = Client::connect(&door);
    reserved.say("GET /v1/any");
    eventually(&door, "both are in", |now| now.active == 2);
    drop(general);
    eventually(&door, "a place is free", |now| now.connections == 1);
    reserved.say(" HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(reserved.hear().status, 200);
    assert_eq!(reserved.get("/v1/any").status, 200, "it stays");
}

#[test]
fn beyond_the_bound_nobody_is_waited_for() {
    let mut config = config();
    config.max_connections = 1;
    config.operation_connections = 2;
    let door = open(&config, Scripted::echo());
    let mut general = Client::connect(&door);
    general.say(HALF);
    let mut silent = Client::connect(&door);
    let mut half = Client::connect(&door);
    half.say(HALF);
    assert_eq!(silent.hear().status, 503);
    assert_eq!(half.hear().status, 408);
    eventually(&door, "their places are free", |now| now.connections == 1);
}

#[test]
fn who_was_idle_the_longest_gives_way() {
    let mut config = config();
    config.max_connections = 3;
    config.operation_connections = 1;
    let door = open(&config, Scripted::echo());
    let mut clients: Vec<_> = (0..3)
        .map(|at| {
            let mut client = Client::connect(&door);
            assert_eq!(client.get("/").status, 200);
            eventually(&door, "it parks", |now| now.parked == at + 1);
            client
        })
        .collect();
    assert_eq!(Client::connect(&door).get("/").status, 200);
    clients[0].expect_close();
    for client in &mut clients[1..] {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn a_client_that_was_turned_away_in_the_middle_of_its_request_reads_why() {
    let mut config = config();
    config.max_connections = 1;
    config.operation_connections = 0;
    let door = open(&config, Scripted::echo());
    let mut inside = Client::connect(&door);
    inside.say(HALF);
    for _ in 0..20 {
        let mut beyond = Client::connect(&door);
        beyond.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(beyond.hear().status, 503);
        assert_eq!(beyond.rest().expect("a clean end"), "");
    }
}

#[test]
fn bodies_share_a_budget_that_comes_back() {
    let (took, taken) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let handler = Scripted::new(move |request, exchange| {
        if request.head.path == "/hold" {
            took.send(request.held_bytes()).expect("the test lives");
            let _ = wait.lock().expect("unpoisoned").recv_timeout(PATIENCE);
            exchange.reply(Response::new(200)).expect("sent");
        } else {
            echo(request, exchange);
        }
    });
    let mut config = config();
    config.max_body_total = 1000;
    let door = open(&config, Arc::clone(&handler) as _);
    let post = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}",
            "x".repeat(length)
        )
    };
    let mut first = Client::connect(&door);
    first.say(post("/hold", 900));
    assert_eq!(taken.recv_timeout(PATIENCE), Ok(900));
    assert_eq!(door.snapshot().held_bytes, 900);
    assert_eq!(
        Client::connect(&door).say(post("/", 101)).hear().status,
        503
    );
    assert_eq!(
        Client::connect(&door).say(post("/", 100)).hear().status,
        200
    );
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n{}\r\n0\r\n\r\n",
        "x".repeat(101)
    );
    assert_eq!(Client::connect(&door).say(chunked).hear().status, 503);
    go.send(()).expect("the handler waits");
    assert_eq!(first.hear().status, 200);
    eventually(&door, "all bytes are back", |now| now.held_bytes == 0);
    assert_eq!(first.say(post("/", 1000)).hear().status, 200);
}

#[test]
fn a_promise_of_bytes_takes_nothing_from_the_others() {
    let mut config = config();
    config.max_body_total = 1000;
    let door = open(&config, Scripted::echo());
    let mut promising = Client::connect(&door);
    promising
        .say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n");
    promising.expect("HTTP/1.1 100 Continue\r\n\r\n");
    let body = "x".repeat(1000);
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{body}");
    assert_eq!(Client::connect(&door).say(post).hear().status, 200);
}

#[test]
fn the_bound_on_connections_fits_the_limit_on_open_files() {
    for (handles, expected) in [(1024, 416), (8192, 4000), (0, 1)] {
        assert_eq!(room(handles, 32), expected, "{handles} files");
    }
    assert!(room(u64::MAX, 32) > 1 << 40, "no limit");
}

#[test]
fn who_has_just_spoken_does_not_give_way() {
    let parking = Parking::new().expect("a poller");
    let shared = Shared::new(config(), SystemClock::shared(), Scripted::echo(), parking);
    let shared = Arc::new(shared);
    // Nobody polls here, so what the clients say is seen by nobody else.
    let mut clients: Vec<UnixStream> = (0..3)
        .map(|_| {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let socket = Arc::new(Socket::new(ours.into(), PATIENCE).expect("it lives"));
            let place = shared.admit(&socket).expect("there is room");
            let connection = Connection::new(socket, place, None);
            shared.parking.park(&shared, connection);
            theirs
        })
        .collect();
    clients[0].write_all(b"G").expect("it is heard");
    for parked in [2, 1, 1] {
        shared.parking.evict();
        assert_eq!(shared.parking.parked(), parked);
        assert_eq!(shared.connections(), parked);
    }
    for gone in &mut clients[1..] {
        assert_eq!(gone.read(&mut [0]).expect("a clean end"), 0);
    }
}
