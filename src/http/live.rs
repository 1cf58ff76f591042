//! `/api/live`: the picture of [`overview`](super::overview) as a stream, for dashboards.
//!
//! **Fifty dashboards cost as much as one.** Time is cut into intervals (`telemetry.live_interval`). The first who asks in
//! an interval makes its picture; whoever may see the same takes that one, and waits for it where it is being made. There
//! is one for all admins (and where no keys are configured, for all), and one for each other key that looks. Without anybody
//! who looks, nothing is made.
//!
//! **They take nobody's place.** Each is a connection with a thread of the door, as every request is; they are counted
//! apart, and refused beyond `telemetry.live_max`. When general connections are at their bound, at most half of the
//! places for operation routes are lent to them.
//!
//! **A reload** ends the streams, since keys may have changed; a dashboard comes back by itself, with its key.
//!
//! **A dashboard that does not read** is broken off after `server.write_timeout`; the others don't notice. When
//! the gateway stops, each gets one more picture and a proper end, so that none of them is waited for.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;
use tiny_http::Method;

use super::error::ApiError;
use super::{Api, Visit};
use crate::clock::Time;
use crate::config;
use crate::door::{Exchange, Headers, Wake};
use crate::wire::comment;

/// Who looks, and what they see.
pub(super) struct Live {
    config: config::Live,
    newest: Mutex<Arc<Frame>>,
    watchers: Mutex<Slab<Exchange>>,
    /// Streams come to their end.
    closed: AtomicBool,
}

/// The pictures of one interval.
#[derive(Debug, Default)]
struct Frame {
    /// Of the interval, counted from the start of the clock.
    number: u64,
    /// By the name of the key that may see no more than its own; the others see everything.
    pictures: Mutex<HashMap<Option<String>, Picture>>,
}

/// JSON on one line, once it is made.
type Picture = Arc<OnceLock<Arc<[u8]>>>;

impl Live {
    pub(super) fn new(config: config::Live) -> Self {
        Live {
            config,
            newest: Mutex::default(),
            watchers: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn interval(&self) -> Duration {
        self.config.interval
    }

    pub(super) fn target(&self) -> Duration {
        self.config.target
    }

    pub(super) fn rows(&self) -> usize {
        self.config.rows
    }

    /// How many look.
    pub(super) fn watchers(&self) -> usize {
        self.watchers.lock().len()
    }

    /// Ends the streams, those that are yet to come after their first picture.
    pub(super) fn close(&self) {
        // Before the watchers are read: one who comes later sees it.
        self.closed.store(true, Ordering::SeqCst);
        self.look_again();
    }

    /// Has the streams look whether they still may be: who may see what has changed.
    pub(super) fn look_again(&self) {
        for (_, exchange) in self.watchers.lock().iter() {
            exchange.notify();
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn enter(&self, exchange: &Exchange) -> Result<Seat<'_>, ApiError> {
        let mut watchers = self.watchers.lock();
        if watchers.len() >= self.config.max {
            return Err(ApiError::too_many_watchers(self.config.max));
        }
        let seat = watchers.insert(exchange.clone());
        Ok(Seat { live: self, seat })
    }

    /// When the interval after that of `now` begins.
    fn next(&self, now: Time) -> Time {
        let interval = self.config.interval;
        let into = now.as_nanos() % self.interval_ns();
        now + interval.saturating_sub(Duration::from_nanos(into))
    }

    fn interval_ns(&self) -> u64 {
        u64::try_from(self.config.interval.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// The place for a picture in the interval of `now`.
    fn picture(&self, key: Option<&str>, now: Time) -> Picture {
        let number = now.as_nanos() / self.interval_ns() + 1;
        let mut newest = self.newest.lock();
        if newest.number < number {
            *newest = Arc::new(Frame {
                number,
                pictures: Mutex::default(),
            });
        }
        let frame = Arc::clone(&newest);
        drop(newest);
        let mut pictures = frame.pictures.lock();
        Arc::clone(pictures.entry(key.map(str::to_owned)).or_default())
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("watchers", &self.watchers())
            .finish_non_exhaustive()
    }
}

/// The place of one who looks.
struct Seat<'l> {
    live: &'l Live,
    seat: usize,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.live.watchers.lock().remove(self.seat);
    }
}

impl Api {
    /// `GET /api/live`: a picture now, and then one in each interval, as server-sent events.
    pub(super) fn live(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let exchange = visit.exchange;
        let _seat = self.live.enter(exchange)?;
        let mut headers = Headers::default();
        headers.add("Content-Type", "text/event-stream");
        headers.add("Cache-Control", "no-store");
        headers.add("X-Content-Type-Options", "nosniff");
        headers.add("X-Request-Id", visit.request_id);
        let shown = exchange.start(200.into(), &headers);
        let shown = shown.and_then(|()| match visit.request.head.method {
            Method::Head => exchange.finish(),
            _ => self.show(visit),
        });
        if let Err(error) = shown {
            log::debug!(
                "request {}: the dashboard is gone: {error}",
                visit.request_id
            );
            exchange.abort();
        }
        Ok(())
    }

    fn show(&self, visit: &Visit<'_>) -> std::io::Result<()> {
        let (exchange, keepalive) = (visit.exchange, visit.terms.stream_keepalive);
        let mut next = self.clock.now();
        let mut last = next;
        loop {
            let now = self.clock.now();
            if !std::ptr::eq(&*self.terms(), visit.terms) {
                // Its key may be nobody's by now: it comes again, and is asked for it.
                return exchange.finish();
            }
            // Before the picture: whoever was told to come to an end has seen that the gateway stops.
            let is_last = self.live.is_closed();
            if now >= next || is_last {
                next = self.live.next(now);
                let picture = self.picture(visit);
                exchange.write(&[b"data: ", &picture[..], b"\n\n"].concat())?;
                last = now;
            } else if now >= last + keepalive {
                let mut text = Vec::new();
                comment("keep-alive", &mut text);
                exchange.write(&text)?;
                last = now;
            }
            if is_last {
                return exchange.finish();
            }
            match exchange.wait(next.min(last + keepalive)) {
                Wake::ClientLeft => {
                    exchange.abort();
                    return Ok(());
                }
                Wake::Notified if exchange.progress().is_over() => return Ok(()),
                Wake::Notified | Wake::TimedOut => {}
            }
        }
    }

    /// The picture of this interval, for this caller.
    pub(super) fn picture(&self, visit: &Visit<'_>) -> Arc<[u8]> {
        let caller = visit.caller;
        let key = caller.key().filter(|_| !caller.is_admin());
        let picture = self.live.picture(key, self.clock.now());
        let text =
            picture.get_or_init(|| self.overview_json(visit).to_string().into_bytes().into());
        Arc::clone(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live::new(config::Live {
            interval: Duration::from_secs(1),
            max: 2,
            rows: 10,
            target: Duration::from_secs(1),
        })
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn all_who_may_see_the_same_share_one_picture_in_an_interval() {
        let live = live();
        let first = live.picture(None, at(1_000));
        assert!(Arc::ptr_eq(&first, &live.picture(None, at(1_999))));
        assert!(!Arc::ptr_eq(&first, &live.picture(Some("a"), at(1_999))));
        assert!(!Arc::ptr_eq(&first, &live.picture(None, at(2_000))));
    }

    #[test]
    fn one_who_is_late_is_shown_the_newest() {
        let live = live();
        let newest = live.picture(None, at(5_000));
        assert!(Arc::ptr_eq(&newest, &live.picture(None, at(4_999))));
    }

    #[test]
    fn the_next_picture_comes_with_the_next_interval() {
        let live = live();
        assert_eq!(live.next(at(1_000)), at(2_000));
        assert_eq!(live.next(at(1_999)), at(2_000));
    }
}
