//! How providers behave: a true capacity that nobody is told, and troubles that come and go.

use std::collections::VecDeque;
use std::time::Duration;

use crate::admission::{Cause, Outcome, Report};
use fastrand::Rng;
use pointsman::clock::Time;

use super::scenario::{one_in, up_to};

/// One provider.
#[derive(Debug)]
pub(super) struct Weather {
    /// What a call takes on the average.
    mean: Duration,
    /// More calls than this are refused.
    capacity: usize,
    /// More calls than this in a minute are refused until the minute is over.
    per_minute: usize,
    /// What a refusal for too many calls says about when to come again.
    retry_after: Option<Duration>,
    /// What goes wrong, from when until when, in calls of a hundred.
    troubles: Vec<(Time, Time, Trouble, u32)>,
    in_flight: usize,
    lately: VecDeque<Time>,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// 429, 503, 529, with what they say about when to come again.
    Refused(Option<Duration>),
    /// The plan's window is used up.
    Plan(Option<Duration>),
    /// No connection.
    Down,
    /// 500, 502.
    Failing(bool),
    /// Not a byte ever comes.
    Silent,
    /// It answers, and then never comes to its end.
    Trickle,
    /// It breaks off before any content.
    Reset,
    /// It breaks off after content.
    HalfClosed,
    /// It answers something else, at once.
    Garbage,
    /// Content went out, and then a refusal came within the stream.
    RefusedLate,
    ModelAway,
    Credentials,
    Quota,
    Forbidden,
    WrongRequest,
    /// The job's own code panics.
    Panic,
    /// The client reads slowly: the call takes many times as long as it would.
    SlowReader,
}

/// How a call will go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    /// When its answer begins.
    pub(super) answer: Option<Duration>,
    /// When it comes to its end, and how; `None`: not before it is interrupted.
    pub(super) end: Option<(Duration, Report)>,
}

impl Weather {
    /// A provider for a scenario of so long a span; a `plain` one knows silence and failures that no rule learns from.
    pub(super) fn draw(rng: &mut Rng, span: Duration, plain: bool) -> Weather {
        let few = one_in(rng, 2) && !plain;
        let paced = one_in(rng, 4) && !plain;
        let troubled = rng.bool();
        let troubles = if troubled { rng.usize(1..=3) } else { 0 };
        Weather {
            mean: Duration::from_millis(rng.u64(1..20_000)),
            capacity: if few { rng.usize(1..12) } else { usize::MAX },
            per_minute: if paced { rng.usize(5..60) } else { usize::MAX },
            retry_after: rng.bool().then(|| Duration::from_secs(rng.u64(1..30))),
            troubles: (0..troubles).map(|_| trouble(rng, span, plain)).collect(),
            in_flight: 0,
            lately: VecDeque::new(),
        }
    }

    /// A call begins; the first byte of its answer has to be in after `patience`.
    pub(super) fn call(&mut self, patience: Option<Duration>, rng: &mut Rng, now: Time) -> Course {
        self.in_flight += 1;
        while self.lately.front().is_some_and(|&at| at + MINUTE <= now) {
            self.lately.pop_front();
        }
        self.lately.push_back(now);
        let at_once = Duration::from_millis(rng.u64(0..5));
        if self.in_flight > self.capacity {
            return refused(at_once, self.retry_after);
        }
        if self.lately.len() > self.per_minute {
            let over = self.lately.front().map(|&at| (at + MINUTE).since(now));
            return refused(at_once, over.map(|over| over + Duration::from_millis(1)));
        }
        let length = self.mean.mul_f64(-rng.f64().max(1e-9).ln());
        let first = length.mul_f64(rng.f64());
        let present = self.troubles.iter().find(|(from, until, _, percent)| {
            *from <= now && now < *until && rng.u32(0..100) < *percent
        });
        match present {
            Some(&(_, _, trouble, _)) => trouble.course(at_once, length, patience),
            None => ends(length, report(Outcome::Completed, true, Some(first))),
        }
    }

    /// A call is over.
    pub(super) fn over(&mut self) {
        self.in_flight -= 1;
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn report(outcome: Outcome, content: bool, first_byte: Option<Duration>) -> Report {
    Report {
        outcome,
        content,
        first_byte,
    }
}

fn ends(after: Duration, report: Report) -> Course {
    Course {
        answer: report.first_byte.filter(|&first| first < after),
        end: Some((after, report)),
    }
}

fn fails(after: Duration, cause: Cause) -> Course {
    ends(after, report(Outcome::Failed(cause), false, None))
}

fn refused(after: Duration, retry_after: Option<Duration>) -> Course {
    fails(after, Cause::Congested { retry_after })
}

impl Trouble {
    fn course(self, at_once: Duration, length: Duration, patience: Option<Duration>) -> Course {
        let broken = Outcome::Failed(Cause::Broken);
        match self {
            Trouble::Refused(wait) => refused(at_once, wait),
            Trouble::Plan(opens_in) => fails(at_once, Cause::WindowUsedUp { opens_in }),
            Trouble::Down => fails(at_once, Cause::Unreachable),
            Trouble::Failing(again) => fails(at_once, Cause::Failing { again }),
            Trouble::Silent => match patience {
                Some(patience) => fails(patience, Cause::Unanswered),
                None => Course {
                    answer: None,
                    end: None,
                },
            },
            Trouble::Trickle => Course {
                answer: Some(at_once),
                end: None,
            },
            Trouble::Reset => fails(length, Cause::Broken),
            Trouble::HalfClosed => ends(length, report(broken, true, Some(length / 2))),
            Trouble::Garbage => ends(at_once, report(broken, false, Some(at_once))),
            Trouble::RefusedLate => {
                let refusal = Outcome::Failed(Cause::Congested { retry_after: None });
                ends(length, report(refusal, true, Some(length / 2)))
            }
            Trouble::ModelAway => fails(at_once, Cause::ModelUnavailable),
            Trouble::Credentials => fails(at_once, Cause::Credentials),
            Trouble::Quota => fails(at_once, Cause::Quota),
            Trouble::Forbidden => fails(at_once, Cause::Barred),
            Trouble::WrongRequest => fails(at_once, Cause::Request),
            Trouble::Panic => fails(at_once, Cause::Own),
            Trouble::SlowReader => {
                let whole = report(Outcome::Completed, true, Some(at_once));
                ends(length * 20 + at_once, whole)
            }
        }
    }
}

fn trouble(rng: &mut Rng, span: Duration, plain: bool) -> (Time, Time, Trouble, u32) {
    let from = Time::ZERO + up_to(rng, span);
    let until = match rng.bool() {
        true => from + up_to(rng, span),
        false => Time::NEVER,
    };
    let wait = rng.bool().then(|| Duration::from_secs(rng.u64(0..40)));
    let any = [
        Trouble::Silent,
        Trouble::WrongRequest,
        Trouble::Panic,
        Trouble::Reset,
        Trouble::Trickle,
        Trouble::SlowReader,
        Trouble::HalfClosed,
        Trouble::Garbage,
        // From here on something is learned by it.
        Trouble::Refused(wait),
        Trouble::Refused(wait),
        Trouble::Plan(wait),
        Trouble::Down,
        Trouble::Down,
        Trouble::Failing(true),
        Trouble::Failing(false),
        Trouble::RefusedLate,
        Trouble::ModelAway,
        Trouble::Credentials,
        Trouble::Quota,
        Trouble::Forbidden,
    ];
    let kinds = if plain { 8 } else { any.len() };
    let from = if rng.bool() { Time::ZERO } else { from };
    (from, until, any[rng.usize(0..kinds)], rng.u32(5..=100))
}
