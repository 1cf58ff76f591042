//! What a job that has not started waits for, and for how long by the looks of it: for those who ask while it waits.
//!
//! The order of a line is decided at each start anew (see `queue.rs`), so a place in it is a forecast: those of higher
//! classes go first, and among the flows of its own class each has its turn in each round. A forecast decides nothing.
//!
//! It costs the same however many wait: at most [`SLICE`] jobs are counted.

use std::fmt;
use std::time::Duration;

use super::queue::{Line, Standing};
use super::shut::{Opening, Shut};
use super::state::{Core, Job};
use super::{ClassId, JobId, SLICE, TargetId, Throttled};
use crate::clock::Time;

/// Where a job is that has not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// In line.
    InLine {
        /// Its place, from 1: so many starts until it has had its turn.
        position: usize,
        /// How long until then, by what calls took lately; `None` where none has ended yet.
        expected: Option<Duration>,
        /// What keeps it from starting now.
        obstacle: Obstacle,
    },
    /// Its call failed, and will be tried again; it goes back into line after so long.
    BackingOff(Duration),
}

/// What keeps a job in line from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// All slots of a kind are taken.
    Full {
        /// Of which kind.
        slots: Slots,
        /// How many are.
        in_use: usize,
        /// How many may be.
        limit: usize,
        /// The global limit, where it is that which is full, and the load of the box holds it down.
        throttled: Option<Throttled>,
    },
    /// Whom it waits for takes no calls for so long, and why.
    Shut(Duration, Shut),
    /// One call finds out whether its provider takes calls again.
    Probing,
    /// Nothing but those before it.
    Turn,
}

/// The kinds of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// Of its session.
    Session,
    /// For sessions with calls in flight.
    Sessions,
    /// Of its provider.
    Provider,
    /// Of its provider, by the limit that was learned: it takes fewer calls for now than it may be sent.
    Learned,
    /// Of all, those that are kept for other providers left out.
    Shared,
    /// Of all.
    Global,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Full {
                slots,
                in_use,
                limit,
                throttled,
            } => {
                write!(f, "{in_use} of {limit} {slots} in use")?;
                match throttled {
                    None => Ok(()),
                    Some(throttled) => write!(f, "; {throttled}"),
                }
            }
            Obstacle::Shut(left, why) => {
                let seconds = left.as_secs_f64();
                write!(
                    f,
                    "its provider takes no calls for {seconds:.1} s more: {why}"
                )
            }
            Obstacle::Probing => {
                f.write_str("one call finds out whether its provider takes calls again")
            }
            Obstacle::Turn => f.write_str("others had their turn before it"),
        }
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Slots::Session => "slots of its session",
            Slots::Sessions => "places for sessions with calls in flight",
            Slots::Provider => "slots of its provider",
            Slots::Learned => "slots of its provider (its learned limit)",
            Slots::Shared => "slots that are not kept for other providers",
            Slots::Global => "slots",
        })
    }
}

impl Core {
    /// Where a job is that has not started; `None` for one that runs or has ended.
    pub fn whereabouts(&self, id: JobId, now: Time) -> Option<Whereabouts> {
        let job = self.jobs.get(&id).filter(|job| job.permit.is_none())?;
        if let Some(back_at) = job.back_at {
            return Some(Whereabouts::BackingOff(back_at.since(now)));
        }
        let obstacle = self.obstacle(job, now);
        let (position, expected) = self.forecast(job);
        let opens = match obstacle {
            Obstacle::Shut(left, _) => Some(left),
            Obstacle::Full { .. } | Obstacle::Probing | Obstacle::Turn => None,
        };
        Some(Whereabouts::InLine {
            position,
            expected: expected.max(opens),
            obstacle,
        })
    }

    /// The narrowest of what keeps a job in line from starting.
    pub(super) fn obstacle(&self, job: &Job, now: Time) -> Obstacle {
        let full = |slots, in_use, limit| self.full(slots, in_use, limit);
        let (sessions, places) = (self.books.sessions(), self.settings.sessions);
        let (own, own_limit) = (self.books.in_use_of(job.flow), self.session_limit(job.flow));
        match self.standing(job.flow, job.session) {
            Standing::Blocked if own >= own_limit => return full(Slots::Session, own, own_limit),
            Standing::Blocked => return full(Slots::Sessions, sessions, places),
            Standing::Fresh if !self.has_session_place() => {
                return full(Slots::Sessions, sessions, places);
            }
            Standing::Fresh | Standing::Active => {}
        }
        if self.free_target(job.stage()).is_none() {
            // Where several would do, each has its own; one of them has to do here.
            return self.obstacle_at(self.lines[job.stage().index()].targets[0], now);
        }
        if !self.has_room() {
            return full(Slots::Global, self.books.in_use(), self.room());
        }
        Obstacle::Turn
    }

    fn full(&self, slots: Slots, in_use: usize, limit: usize) -> Obstacle {
        let is_global = matches!(slots, Slots::Global | Slots::Shared);
        Obstacle::Full {
            slots,
            in_use,
            limit,
            throttled: is_global.then(|| self.throttled()).flatten(),
        }
    }

    /// What keeps a target that takes no call now from taking one.
    fn obstacle_at(&self, id: TargetId, now: Time) -> Obstacle {
        let full = |slots, in_use, limit| self.full(slots, in_use, limit);
        let target = &self.targets[id.index()];
        match target.opening() {
            Opening::Shut(until, why) => return Obstacle::Shut(until.since(now), why),
            Opening::Probing => return Obstacle::Probing,
            Opening::Open => {}
        }
        let provider = self.provider_of(id);
        let (in_use, limit) = (self.books.in_use_at(provider), self.limit_of(provider));
        let (here, learned) = (self.books.in_use_of_target(id), target.limit.places());
        let (all, room) = (self.books.in_use(), self.room());
        if in_use >= limit {
            full(Slots::Provider, in_use, limit)
        } else if here >= learned {
            full(Slots::Learned, here, learned)
        } else if all >= room {
            full(Slots::Global, all, room)
        } else if all + self.reserve(provider) >= room {
            full(Slots::Shared, all, room - self.reserve(provider))
        } else {
            // Its starts are paced.
            Obstacle::Turn
        }
    }

    /// A job's place in line, and the wait to expect.
    fn forecast(&self, job: &Job) -> (usize, Option<Duration>) {
        let line = &self.lines[job.stage().index()];
        let rounds = line.rank(job.class, job.flow, job.place, SLICE);
        let turn = rounds + 1;
        let mut position = 0;
        let mut work = Some(0_u64);
        for class in 0..=job.class {
            let waiting = line.waiting_in(class);
            let starts = match class == job.class {
                true => {
                    let flows = line.flows_in(class).max(1);
                    let first = line.flows_before(class, job.flow, SLICE);
                    let last = first.unwrap_or(flows - 1).min(flows - 1);
                    waiting.min(flows.saturating_mul(rounds) + last + 1)
                }
                false => waiting,
            };
            position += starts;
            if starts > 0 {
                let each = self.guess(line, class);
                work = work
                    .zip(each)
                    .map(|(work, each)| work.saturating_add(each.saturating_mul(starts as u64)));
            }
        }
        let of_line = work.map(|work| work / self.places(line) as u64);
        // However free the line is, its session makes no more calls at once than it may.
        let of_session = self.guess(line, job.class).filter(|_| job.session);
        let of_session = of_session.map(|each| {
            let limit = self.session_limit(job.flow).max(1) as u64;
            each.saturating_mul(turn as u64) / limit
        });
        let expected = of_line.map(|line| line.max(of_session.unwrap_or(0)));
        (position, expected.map(Duration::from_nanos))
    }

    /// What a call of this class takes on the slowest target of the line, in nanoseconds, by what is known.
    fn guess(&self, line: &Line, class: ClassId) -> Option<u64> {
        let targets = line.targets.iter();
        let guesses = targets.map(|target| self.estimates[target.index()].guess(class));
        guesses.max().flatten()
    }
}
