//! Functions that heed nothing, slots that come back all the same, and who holds what.

use pointsman::engine::RefusalReason;
use pointsman::{Call, CancelReason, CancelToken, ExecuteError, Gateway, Unhealthy};
use serde_json::{Value, json};

use crate::execute::{Deaf, aside, join, nothing, start};
use crate::support::{Ask, BOUND, Client, Script, Server, Upstream, eventually};

/// A watchdog that gives up soon.
const QUICK: &str = "watchdog.quarantine_after = \"50ms\"\nwatchdog.reclaim_after = \"150ms\"\n";

/// What the gateway's own front says.
struct Pages {
    client: Client,
    _server: pointsman::Server,
}

impl Pages {
    fn of(gateway: &Gateway) -> Pages {
        let server = gateway.serve().expect("a free port");
        Pages {
            client: Client::connect(server.address().parse().expect("an address")),
            _server: server,
        }
    }

    fn page(&mut self, path: &str) -> Value {
        self.client.get(path).json()
    }

    fn wait_for_threads(&mut self, what: &str, threads: &Value) {
        let mut status = Value::Null;
        eventually(what, || {
            status = self.page("/api/status");
            let found = threads.as_object().expect("a table").iter();
            found
                .into_iter()
                .all(|(name, value)| status["threads"][name] == *value)
        });
    }
}

#[test]
fn ten_functions_that_heed_nothing_cost_nobody_anything() {
    let (gateway, deaf) = (start(11, QUICK), Deaf::new());
    let mut pages = Pages::of(&gateway);
    let token = CancelToken::new();
    let call = || Call::new().timeout(BOUND).cancelled_by(&token);
    let callers: Vec<_> = (0..10)
        .map(|_| aside(&gateway, call(), deaf.function()))
        .collect();
    for _ in 0..10 {
        deaf.wait_until_one_runs();
    }
    // One slot more is kept for the provider. Whoever comes while the others are taken waits until they are free again, and
    // not for the functions.
    let next = aside(&gateway, Call::new().timeout(BOUND), nothing);
    token.cancel(CancelReason::Requested);
    for caller in callers {
        let reason = CancelReason::Requested;
        let started = true;
        assert_eq!(
            join(caller),
            Err(ExecuteError::Cancelled { reason, started })
        );
    }
    assert_eq!(join(next), Ok(()));
    let replaced = json!({ "workers": 11, "lost": 10, "replaced": 10 });
    pages.wait_for_threads("each of them is replaced", &replaced);
    for _ in 0..20 {
        assert_eq!(gateway.execute(Call::new(), nothing), Ok(()));
    }
    let mut ledger = Value::Null;
    eventually(
        "all of them are without their slots, and shown until they return",
        || {
            ledger = pages.page("/api/semaphores");
            let count = |list: &str| ledger[list].as_array().map(Vec::len);
            (count("slots"), count("abandoned")) == (Some(0), Some(10))
        },
    );
    assert_eq!(ledger["abandoned"][9]["state"], "abandoned");

    (0..10).for_each(|_| deaf.release());
    let back = json!({ "workers": 11, "lost": 0, "replaced": 10 });
    pages.wait_for_threads("all of them are back", &back);
    let turnover = pages.page("/api/semaphores")["turnover"].clone();
    let expected = json!({
        "taken": 31, "given_back": 21, "reclaimed": 10, "recovered": 0, "late_returns": 10,
    });
    assert_eq!(turnover, expected, "nothing was given back twice");
    gateway.health().expect("all is well");
}

#[test]
fn with_too_many_workers_lost_the_gateway_refuses_and_says_that_it_is_unhealthy() {
    let few = format!("{QUICK}watchdog.max_lost_workers = 1");
    let (gateway, deaf) = (start(4, &few), Deaf::new());
    let mut pages = Pages::of(&gateway);
    let token = CancelToken::new();
    let call = || Call::new().timeout(BOUND).cancelled_by(&token);
    let callers = [(); 2].map(|()| aside(&gateway, call(), deaf.function()));
    for _ in &callers {
        deaf.wait_until_one_runs();
    }
    token.cancel(CancelReason::Requested);
    for caller in callers {
        assert!(join(caller).is_err());
    }
    let unhealthy = Err(Unhealthy::WorkersLost { lost: 2, max: 1 });
    eventually("both are lost", || gateway.health() == unhealthy);
    let refused = gateway.execute(Call::new(), nothing);
    let Err(ExecuteError::Refused(refusal)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refusal.reason, RefusalReason::WorkersLost { lost: 2 });
    let health = pages.client.get("/healthz");
    assert_eq!(health.status, 503);
    let problem = health.json()["problem"].as_str().map(str::to_owned);
    assert!(problem.is_some_and(|why| why.contains("watchdog.max_lost_workers is 1")));

    deaf.release();
    eventually("one is back", || gateway.health().is_ok());
    assert_eq!(gateway.execute(Call::new(), nothing), Ok(()));
    deaf.release();
}

#[test]
fn the_ledger_says_who_holds_what_since_when_and_until_when() {
    let upstream = Upstream::start(Script::Silent);
    let server = Server::start(&format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{}\"\nproviders.mine.max_inflight = 3\n",
        upstream.url()
    ));
    let ask = Ask::of("mine/m").session("agent-1").id("r-1").within("60s");
    let _client = ask.send(&server);
    let mut ledger = Value::Null;
    eventually("the call has begun", || {
        ledger = server.page("/api/semaphores");
        !ledger["slots"][0]["worker"].is_null()
    });
    let slot = &ledger["slots"][0];
    let told = ["state", "request_id", "session_id", "provider"].map(|key| &slot[key]);
    assert_eq!(told, ["held", "r-1", "agent-1", "mine"], "{ledger:#}");
    let left = slot["deadline_in_s"].as_f64().expect("a number");
    assert!((0.0..=60.0).contains(&left), "{slot:#}");
    assert!(slot["given_up_in_s"].is_null(), "its job lives");
    let semaphores = ledger["semaphores"].as_array().expect("a list");
    let mine = semaphores.iter().find(|one| one["provider"] == "mine");
    let expected = json!({
        "type": "provider", "provider": "mine", "limit": 3, "in_use": 1, "current": 3, "expected": 3,
    });
    assert_eq!(mine, Some(&expected));
    assert_eq!(semaphores[0]["type"], "global");

    let checked = server
        .client()
        .post("/api/semaphores/check", &json!({}))
        .json();
    assert_eq!(
        (&checked["status"], &checked["leaks"]),
        (&json!("passed"), &json!(0))
    );
    let words = checked["message"].as_str().expect("words");
    assert!(
        words.starts_with("semaphore health check passed: global 1/"),
        "{words}"
    );
    server.wait_for_log("semaphore health check passed");
    assert_eq!(
        server.page("/api/semaphores")["last_check"]["status"],
        "passed"
    );
}

#[test]
fn the_health_check_comes_by_itself_and_says_so() {
    let server = Server::start("watchdog.health_check = \"20ms\"\nwatchdog.audit = \"10ms\"\n");
    server.wait_for_log("semaphore health check passed: global 0/5");
}
