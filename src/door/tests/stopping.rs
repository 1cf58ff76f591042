//! Going quiet, and stopping.

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use super::support::{Client, PATIENCE, Scripted, config, eventually, field, open};
use crate::clock::Time;
use crate::door::{Exchange, Handler, Request, Response, Wake};

/// A handler that hands out its exchange and waits until its answer is over or its client gone.
fn handed_out() -> (std::sync::Arc<Scripted>, mpsc::Receiver<Exchange>) {
    let (give, take) = mpsc::channel();
    let handler = Scripted::new(move |_, exchange| {
        let _ = give.send(exchange.clone());
        if exchange.wait(Time::NEVER) == Wake::ClientLeft {
            exchange.abort();
        }
    });
    (handler, take)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_quiet_door_closes_what_idles_and_finishes_what_runs() {
    let (handler, exchanges) = handed_out();
    let mut config = config();
    config.idle_timeout = PATIENCE * 10;
    let door = open(&config, handler);
    let mut idle = Client::connect(&door);
    eventually(&door, "it parks", |now| now.parked == 1);
    let mut busy = Client::connect(&door);
    busy.say(GET);
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    door.quiesce();
    idle.expect_close();
    exchange.reply(Response::new(200)).expect("sent");
    assert_eq!(field(&busy.hear().head, "connection"), Some("close"));
    busy.expect_close();
    let mut newcomer = Client::connect(&door);
    newcomer.say(GET);
    let exchange = exchanges
        .recv_timeout(PATIENCE)
        .expect("newcomers are handled");
    exchange.reply(Response::new(503)).expect("sent");
    let heard = newcomer.hear();
    assert_eq!(
        (heard.status, field(&heard.head, "connection")),
        (503, Some("close"))
    );
    newcomer.expect_close();
    let mut silent = Client::connect(&door);
    silent.expect_close();
}

#[test]
fn stopping_waits_for_the_requests_under_way() {
    let (handler, exchanges) = handed_out();
    let door = open(&config(), handler);
    let mut client = Client::connect(&door);
    client.say(GET);
    let exchange = exchanges.recv_timeout(PATIENCE).expect("handled");
    let address = door.address();
    let stopper = std::thread::Builder::new()
        .name("test-stopper".into())
        .spawn(move || door.stop(PATIENCE))
        .expect("thread starts");
    // The listening socket closes first: a refused connection shows that the stop is under way.
    while std::net::TcpStream::connect(&address).is_ok() {
        std::thread::yield_now();
    }
    exchange
        .reply(Response::new(200).with_body("text/plain", "done"))
        .expect("sent");
    assert_eq!(client.hear().body, "done");
    client.expect_close();
    assert_eq!(stopper.join().expect("no panic"), 0);
}

#[test]
fn stopping_cuts_off_what_is_not_done_in_time_and_joins_every_thread() {
    let (handler, exchanges) = handed_out();
    let door = open(&config(), handler);
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(&door)).collect();
    for client in &mut clients[..5] {
        client.say(GET);
        exchanges.recv_timeout(PATIENCE).expect("handled");
    }
    clients[5].say("GET / HTTP/1.1\r\nHo");
    eventually(&door, "the rest parks, or reads", |now| {
        now.parked == 4 && now.active == 6
    });
    assert_eq!(door.stop(Duration::from_millis(10)), 0);
    for client in &mut clients {
        client.expect_close();
    }
    // Every thread held the handler; now none does, and with it went the sender.
    let end = exchanges
        .try_recv()
        .expect_err("nobody is handled any more");
    assert_eq!(end, mpsc::TryRecvError::Disconnected);
}

#[test]
fn dropping_a_door_stops_it() {
    let (handler, exchanges) = handed_out();
    let door = open(&config(), handler);
    let mut client = Client::connect(&door);
    client.say(GET);
    let kept = exchanges.recv_timeout(PATIENCE).expect("handled");
    drop(door);
    client.expect_close();
    assert!(kept.progress().is_over());
}

/// A handler that stays after its client has left, until it is told to let go.
#[derive(Debug)]
struct Loyal {
    alone: mpsc::Sender<()>,
    told: Mutex<bool>,
    change: Condvar,
}

impl Handler for Loyal {
    fn handle(&self, _: Request, exchange: &Exchange) {
        assert_eq!(exchange.wait(Time::NEVER), Wake::ClientLeft);
        exchange.abort();
        let _ = self.alone.send(());
        let told = self.told.lock().expect("unpoisoned");
        let waited = self.change.wait_while(told, |told| !*told);
        drop(waited.expect("unpoisoned"));
    }

    fn let_go(&self) {
        *self.told.lock().expect("unpoisoned") = true;
        self.change.notify_all();
    }
}

#[test]
fn a_handler_that_stays_without_its_client_is_told_to_let_go() {
    let (alone, left) = mpsc::channel();
    let handler = Loyal {
        alone,
        told: Mutex::new(false),
        change: Condvar::new(),
    };
    let door = open(&config(), Arc::new(handler));
    Client::connect(&door).say(GET);
    left.recv_timeout(PATIENCE).expect("the client has left");
    assert_eq!(door.stop(Duration::ZERO), 0, "its thread is joined");
}

#[test]
fn a_handler_that_does_not_return_is_counted_and_left_behind() {
    let (at, reached) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let handler = Scripted::new(move |_, _| {
        at.send(()).expect("the test lives");
        let _ = wait.lock().expect("unpoisoned").recv();
    });
    let door = open(&config(), handler);
    let mut client = Client::connect(&door);
    client.say(GET);
    reached.recv_timeout(PATIENCE).expect("handled");
    assert_eq!(door.stop(Duration::ZERO), 1);
    client.expect_close();
    drop(go);
}
