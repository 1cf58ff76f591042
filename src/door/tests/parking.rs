//! Connections that wait cost no thread.

use std::time::Duration;

use super::support::{Client, Scripted, config, eventually, open};

#[test]
fn a_parked_connection_is_served_again_at_its_next_request() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    for n in 0..5 {
        assert_eq!(client.get(&format!("/{n}")).body, format!("GET /{n} - "));
        eventually(
            &door,
            "the connection parks and lets its thread go",
            |now| now.parked == 1 && now.idle_threads == now.threads,
        );
    }
    let snapshot = door.snapshot();
    assert_eq!(
        (snapshot.connections, snapshot.active, snapshot.threads),
        (1, 0, 1)
    );
}

#[test]
fn a_connection_that_says_nothing_is_parked_too() {
    let door = open(&config(), Scripted::echo());
    let mut client = Client::connect(&door);
    eventually(&door, "the connection parks", |now| now.parked == 1);
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_parked_client_that_leaves_is_forgotten() {
    let door = open(&config(), Scripted::echo());
    let client = Client::connect(&door);
    eventually(&door, "the connection parks", |now| now.parked == 1);
    drop(client);
    eventually(&door, "its place is free", |now| {
        now.connections == 0 && now.parked == 0
    });
}

#[test]
fn a_thousand_idle_connections_take_no_thread() {
    let mut config = config();
    config.max_connections = 2000;
    config.park_after = Duration::from_millis(1);
    let door = open(&config, Scripted::echo());
    let mut clients: Vec<_> = (0..1000).map(|_| Client::connect(&door)).collect();
    eventually(&door, "all park", |now| now.parked == 1000);
    for client in clients.iter_mut().step_by(97) {
        assert_eq!(client.get("/").body, "GET / - ");
    }
    eventually(&door, "all park again", |now| now.parked == 1000);
    eventually(&door, "no thread is kept", |now| {
        now.threads == now.idle_threads
    });
    let now = door.snapshot();
    assert_eq!((now.connections, now.active, now.refused), (1000, 0, 0));
    drop(clients);
    eventually(&door, "all are forgotten", |now| now.connections == 0);
}

#[test]
fn busy_connections_keep_their_threads() {
    let door = open(&config(), Scripted::echo());
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(&door)).collect();
    for round in 0..50 {
        for client in &mut clients {
            assert_eq!(client.get(&format!("/{round}")).status, 200);
        }
    }
    assert!(
        door.snapshot().threads <= 8,
        "one for each active connection at most"
    );
}
