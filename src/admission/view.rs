//! What the pages and the health check see of the core: plain numbers, copied in one short step.

use std::time::Duration;

use super::shut::{Opening, Shut};
use super::slots::Turnover;
use super::state::Core;
use super::target::Target;
use super::{CLASSES, ProviderId, TargetId};
use crate::clock::Time;

/// The core at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreView {
    /// Calls in flight.
    pub in_use: usize,
    /// The most calls that were ever in flight.
    pub peak: usize,
    /// The global limit, as configured.
    pub limit: usize,
    /// The global limit in force: less while the load of the box holds it down.
    pub limit_now: usize,
    /// Whether jobs of the lowest class are refused, for the load of the box.
    pub refuses_low: bool,
    /// By provider, in the order of the settings.
    pub providers: Vec<ProviderView>,
    /// By target, in the order of the settings.
    pub targets: Vec<TargetView>,
    /// Calls that may be in flight of one session; those of some API keys may have fewer.
    pub session_limit: usize,
    /// Sessions with calls in flight.
    pub sessions: usize,
    /// How many may have.
    pub sessions_limit: usize,
    /// Jobs in line.
    pub waiting: usize,
    /// How many may be.
    pub capacity: usize,
    /// Bytes that they hold.
    pub waiting_bytes: usize,
    /// Jobs that back off before their call is tried again.
    pub backing_off: usize,
    /// By class, most urgent first.
    pub classes: [ClassView; CLASSES],
    /// Whether backpressure is on.
    pub pressure: bool,
    /// Whether the core takes nothing new.
    pub stopping: bool,
    /// Slots whose holders are given up on: no living call has them.
    pub quarantined: usize,
    /// Workers that don't come back, with their slot or without it.
    pub lost_workers: usize,
    /// What went through the ledger since the start.
    pub turnover: Turnover,
}

/// One provider at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderView {
    /// Calls in flight.
    pub in_use: usize,
    /// How many may be.
    pub limit: usize,
    /// Jobs in line for it.
    pub waiting: usize,
}

/// One target at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetView {
    /// Calls in flight.
    pub in_use: usize,
    /// How many may be, by what it took so far.
    pub limit: usize,
    /// Whether its limit does not grow because its first bytes are slower than they use to be.
    pub held_back: bool,
    /// For how long it still takes nothing, and why.
    pub shut: Option<(Duration, Shut)>,
    /// Its breaker: `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// Why its breaker is not closed.
    pub breaker_reason: Option<Shut>,
    /// What is left of its budget for repetitions.
    pub retry_tokens: f64,
    /// How often its limit was cut.
    pub cuts: u64,
    /// By how many calls its limit has grown in all.
    pub raised: u64,
    /// How often its breaker has changed.
    pub breaker_changes: BreakerChanges,
}

/// How often a breaker has changed, by what it became.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BreakerChanges {
    /// It closed.
    pub closed: u64,
    /// It began to try whether its target is well.
    pub half_opened: u64,
    /// It opened.
    pub opened: u64,
}

/// One class at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassView {
    /// Jobs in line.
    pub waiting: usize,
    /// How long the oldest of them has been there.
    pub oldest: Duration,
}

impl Core {
    /// The core at this moment. Costs the same however many wait.
    pub fn view(&self, now: Time) -> CoreView {
        let providers = self
            .settings
            .providers
            .iter()
            .enumerate()
            .map(|(index, provider)| ProviderView {
                in_use: self.books.in_use_at(ProviderId(index as u32)),
                limit: provider.limit,
                waiting: self.waiting.by_provider[index],
            });
        CoreView {
            in_use: self.books.in_use(),
            peak: self.peak,
            limit: self.settings.global,
            limit_now: self.global(),
            refuses_low: self.throttle.refuses_low,
            providers: providers.collect(),
            targets: self.targets_view(now),
            session_limit: self.settings.session,
            sessions: self.books.sessions(),
            sessions_limit: self.settings.sessions,
            waiting: self.waiting.jobs,
            capacity: self.settings.queue.capacity,
            waiting_bytes: self.waiting.bytes,
            backing_off: self.onward.backing(),
            classes: std::array::from_fn(|class| self.view_of_class(class, now)),
            pressure: self.waiting.pressure,
            stopping: self.stop.is_some(),
            quarantined: self.books.quarantined(),
            lost_workers: self.books.lost(),
            turnover: self.books.turnover(),
        }
    }

    fn targets_view(&self, now: Time) -> Vec<TargetView> {
        let view = |(index, target): (usize, &Target)| TargetView {
            in_use: self.books.in_use_of_target(TargetId(index as u32)),
            limit: target.limit.places(),
            held_back: target.limit.is_held_back(),
            shut: match target.opening() {
                Opening::Shut(until, why) if until > now => Some((until.since(now), why)),
                Opening::Shut(..) | Opening::Open | Opening::Probing => None,
            },
            breaker: target.breaker.word(),
            breaker_reason: target.breaker.why(),
            retry_tokens: target.budget.tokens(),
            cuts: target.limit.turns().0,
            raised: target.limit.turns().1,
            breaker_changes: target.breaker.changes(),
        };
        self.targets.iter().enumerate().map(view).collect()
    }

    fn view_of_class(&self, class: usize, now: Time) -> ClassView {
        let ages = &self.waiting.ages[class];
        ClassView {
            waiting: ages.len(),
            oldest: ages
                .first()
                .map_or(Duration::ZERO, |&(since, _)| now.since(since)),
        }
    }
}
