//! Name lookup for one host, off the calling threads.
//!
//! The system's lookup can't be interrupted and may hang for long, so it runs on a thread of its own, and callers
//! wait for its result on a condvar, each no longer than its own time and cancel token allow.
//!
//! * A literal address and `localhost` need no lookup.
//! * An answer is good for [`LIFE`]. When a later lookup fails, an old answer is used again: better a known
//!   address than none.
//! * Callers share a lookup: one is started when none is under way. One that is under way for longer than
//!   [`STUCK`] is not waited for alone; the next caller starts another, up to [`MOST`] at once.
//! * A lookup thread holds nothing but this state, and is never joined: nobody can end it but the system's own
//!   resolver, by its own timeout. [`MOST`] bounds how many there are.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::clock::{SharedClock, Time};

use super::error::TransportError;
use super::exchange::Exchange;

/// How long an answer is good for.
const LIFE: Duration = Duration::from_secs(60);
/// A lookup that takes longer is stuck.
const STUCK: Duration = Duration::from_secs(5);
/// Lookups at once.
const MOST: usize = 3;
/// Addresses tried at most.
const MOST_ADDRESSES: usize = 8;

type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The addresses of one host and port.
#[derive(Debug, Clone)]
pub(super) struct Names(Arc<Shared>);

struct Shared {
    host: String,
    port: u16,
    clock: SharedClock,
    lookup: Box<Lookup>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The last good answer, and when it came.
    answer: Option<(Vec<SocketAddr>, Time)>,
    /// When each lookup that is under way was started.
    running: VecDeque<Time>,
    /// Lookups that ended, and how the last one failed, if it did.
    ended: u64,
    failure: Option<String>,
}

impl Names {
    /// The names of `host` (a name, or a literal address, in brackets or not).
    pub(super) fn new(host: &str, port: u16, clock: SharedClock) -> Self {
        Names::with_lookup(host, port, clock, |host, port| {
            Ok((host, port).to_socket_addrs()?.collect())
        })
    }

    fn with_lookup(
        host: &str,
        port: u16,
        clock: SharedClock,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Names(Arc::new(Shared {
            host: host.to_owned(),
            port,
            clock,
            lookup: Box::new(lookup),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// The host's addresses, in the order to try them.
    ///
    /// # Errors
    /// [`TransportError::Connect`] when the lookup failed or took too long, `Deadline`, or `Cancelled`.
    pub(super) fn addresses(&self, exchange: &Exchange) -> Result<Vec<SocketAddr>, TransportError> {
        if let Some(addresses) = self.0.known() {
            return Ok(addresses);
        }
        // The hook takes the lock, so it can't slip in between a waiter's look at its token and its wait.
        let shared = Arc::clone(&self.0);
        let _hook = exchange.token().on_cancel(move |_| {
            let _state = shared.state.lock();
            shared.changed.notify_all();
        });
        self.wait(exchange)
    }

    fn wait(&self, exchange: &Exchange) -> Result<Vec<SocketAddr>, TransportError> {
        let shared = &*self.0;
        let mut state = shared.state.lock();
        let before = state.ended;
        loop {
            exchange.admit()?;
            let now = shared.clock.now();
            if let Some(addresses) = state.fresh(now) {
                return Ok(addresses);
            }
            if state.ended != before {
                return state.fallback();
            }
            if state.wants_another(now) {
                self.start(&mut state, now)?;
            }
            let left = exchange.until().until(now).min(STUCK);
            shared.changed.wait_for(&mut state, left);
        }
    }

    fn start(&self, state: &mut MutexGuard<'_, State>, now: Time) -> Result<(), TransportError> {
        let shared = Arc::clone(&self.0);
        std::thread::Builder::new()
            .name(format!("pointsman-lookup-{}", self.0.host))
            .spawn(move || shared.run(now))
            .map_err(TransportError::connect)?;
        state.running.push_back(now);
        Ok(())
    }
}

impl Shared {
    /// What needs no lookup.
    fn known(&self) -> Option<Vec<SocketAddr>> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Some(vec![SocketAddr::new(address, self.port)]);
        }
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        self.host
            .eq_ignore_ascii_case("localhost")
            .then(|| loopback.map(|ip| SocketAddr::new(ip, self.port)).to_vec())
    }

    fn run(&self, started: Time) {
        let result = (self.lookup)(&self.host, self.port);
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(index) = state.running.iter().position(|&at| at == started) {
            state.running.remove(index);
        }
        state.ended += 1;
        match result {
            Ok(mut addresses) => {
                addresses.truncate(MOST_ADDRESSES);
                state.answer = Some((addresses, now));
                state.failure = None;
            }
            Err(error) => state.failure = Some(format!("{}: {error}", self.host)),
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    fn fresh(&self, now: Time) -> Option<Vec<SocketAddr>> {
        let (addresses, at) = self.answer.as_ref()?;
        (now.since(*at) < LIFE).then(|| addresses.clone())
    }

    /// What to do when a lookup brought nothing new.
    fn fallback(&self) -> Result<Vec<SocketAddr>, TransportError> {
        match (&self.answer, &self.failure) {
            (Some((addresses, _)), _) => Ok(addresses.clone()),
            (None, Some(failure)) => Err(TransportError::connect(failure)),
            (None, None) => Err(TransportError::connect(
                "the lookup ended without an answer",
            )),
        }
    }

    fn wants_another(&self, now: Time) -> bool {
        let waiting_for_one = self.running.iter().any(|&at| now.since(at) < STUCK);
        !waiting_for_one && self.running.len() < MOST
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::cancel::{CancelReason, CancelToken};
    use crate::clock::{ManualClock, SystemClock};
    use crate::providers::transport::tests::timeouts;

    /// Lookups that say when they begin and end as they are told.
    struct Scripted {
        names: Names,
        begun: Receiver<()>,
        end: Sender<io::Result<Vec<SocketAddr>>>,
    }

    fn scripted(clock: SharedClock) -> Scripted {
        let (begin, begun) = channel();
        let (end, ends) = channel();
        let script = Mutex::new((begin, ends));
        let names = Names::with_lookup("provider.test", 443, clock, move |_, _| {
            let script = script.lock();
            let _ = script.0.send(());
            script
                .1
                .recv()
                .unwrap_or_else(|gone| Err(io::Error::other(gone)))
        });
        Scripted { names, begun, end }
    }

    fn exchange(clock: &SharedClock, token: &CancelToken, deadline: Time) -> Exchange {
        Exchange::new(clock, &timeouts(), token, deadline)
    }

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 443).into()
    }

    #[test]
    fn literal_addresses_and_localhost_need_no_lookup() {
        let clock = SystemClock::shared();
        let exchange = exchange(&clock, &CancelToken::new(), Time::NEVER);
        for (host, expected) in [
            ("192.0.2.7", "192.0.2.7:80"),
            ("[2001:db8::7]", "[2001:db8::7]:80"),
            ("LocalHost", "127.0.0.1:80"),
        ] {
            let names = Names::with_lookup(host, 80, Arc::clone(&clock), |_, _| {
                Err(io::Error::other("looked up"))
            });
            let addresses = names.addresses(&exchange).expect("an address");
            assert_eq!(addresses[0].to_string(), expected);
        }
    }

    #[test]
    fn a_hung_lookup_holds_a_call_only_until_its_deadline() {
        let clock = SystemClock::shared();
        let hung = scripted(Arc::clone(&clock));
        let deadline = clock.now() + Duration::from_millis(100);
        let exchange = exchange(&clock, &CancelToken::new(), deadline);
        let result = hung.names.addresses(&exchange);
        assert_eq!(result, Err(TransportError::Deadline));
        assert!(clock.now() < deadline + Duration::from_secs(1));
    }

    #[test]
    fn a_hung_lookup_lets_a_cancelled_call_go() {
        let clock = SystemClock::shared();
        let hung = scripted(Arc::clone(&clock));
        let token = CancelToken::new();
        let exchange = exchange(&clock, &token, Time::NEVER);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| hung.names.addresses(&exchange));
            hung.begun.recv().expect("a lookup begins");
            token.cancel(CancelReason::Stopping);
            let result = call.join().expect("no panic");
            assert_eq!(
                result,
                Err(TransportError::Cancelled(CancelReason::Stopping))
            );
        });
    }

    #[test]
    fn an_answer_is_good_for_a_while_and_better_than_none_after_it() {
        let manual = Arc::new(ManualClock::new());
        let clock: SharedClock = manual.clone();
        let script = scripted(Arc::clone(&clock));
        let look = || {
            let exchange = exchange(&clock, &CancelToken::new(), Time::NEVER);
            script.names.addresses(&exchange)
        };
        let tell = |result| script.end.send(result).expect("the lookup lives");
        tell(Err(io::Error::other("no such name")));
        let error = look().expect_err("it failed");
        assert!(error.to_string().contains("no such name"), "{error}");
        tell(Ok(vec![address(1)]));
        assert_eq!(look(), Ok(vec![address(1)]));
        manual.advance(LIFE - Duration::from_nanos(1));
        assert_eq!(look(), Ok(vec![address(1)]));
        manual.advance(Duration::from_nanos(1));
        tell(Err(io::Error::other("no such name")));
        assert_eq!(look(), Ok(vec![address(1)]), "it is old but known");
        tell(Ok(vec![address(2)]));
        assert_eq!(look(), Ok(vec![address(2)]));
        assert_eq!(script.begun.try_iter().count(), 4);
    }

    #[test]
    fn callers_share_a_lookup_until_it_is_stuck_and_there_is_a_bound_on_stuck_ones() {
        let mut state = State::default();
        let now = Time::ZERO;
        assert!(state.wants_another(now));
        state.running.push_back(now);
        assert!(!state.wants_another(now + STUCK - Duration::from_nanos(1)));
        assert!(state.wants_another(now + STUCK));
        state.running.extend([now; MOST - 1]);
        assert!(!state.wants_another(now + STUCK));
    }
}
