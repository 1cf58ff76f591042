//! What is tried under many schedules: who does what in the small gateway, and which turns of events it must have taken.

use std::time::Duration;

use pointsman::admission::{
    BreakerSettings, Cause, Change, Core, CoreView, Ending, Event, FlowId, JobId, Learning,
    OrphanSettings, Outcome, ProviderId, ProviderSettings, QueueSettings, RefusalReason, Report,
    RetrySettings, Settings, StageId, Step, Submission, TargetId, Throttle,
};
use pointsman::cancel::CancelReason;
use pointsman::clock::Time;
use pointsman::config::Priority;

use super::record::{
    Record, backs_off, ends, ends_without_interrupt, given_up, is_start, probes, refused,
    serves_again, takes,
};

/// A turn that events can take, seen when all is over. One that no schedule took was not tried.
pub(super) type Turn = (&'static str, fn(&CoreView, &Record) -> bool);

/// Who does what. Jobs are numbered from 0; targets too, one at each provider.
#[derive(Clone, Copy)]
pub(super) struct Scenario {
    /// Jobs, shared out evenly among so many threads.
    pub(super) jobs: u64,
    pub(super) submitters: usize,
    /// For how many turns such a thread rests after each of them.
    pub(super) rest: u32,
    pub(super) workers: usize,
    pub(super) watchdogs: usize,
    /// Each by a thread of its own, perhaps before it arrives.
    pub(super) cancelled: &'static [u64],
    /// Somebody stops the gateway at some moment, and gives it so long.
    pub(super) drain: Option<Duration>,
    /// Each permit comes back twice: from its owner and from somebody else, in any order and at any distance.
    pub(super) reclaims: bool,
    /// What becomes of slots whose holders don't come back; without it they are waited for.
    pub(super) orphans: Option<OrphanSettings>,
    /// For how many turns a worker is at the call of a job, whatever it is told meanwhile.
    pub(super) holds: fn(u64) -> u32,
    /// What the load of the box leaves of the global limit: one after the other, from a thread of its own.
    pub(super) loads: &'static [usize],
    /// Global limits that are configured: one after the other, from a thread of its own.
    pub(super) reloads: &'static [usize],
    /// The time of each job, by its number.
    pub(super) patience: fn(u64) -> Duration,
    /// The longest time in line; without it that of the first job.
    pub(super) in_line: Option<Duration>,
    /// Calls in flight at each provider.
    pub(super) limit: usize,
    /// Calls in flight of one session.
    pub(super) session: usize,
    pub(super) adaptive: bool,
    pub(super) breaker: Option<BreakerSettings>,
    pub(super) retry: RetrySettings,
    /// What becomes of a call: of this job, at this target, so many calls after its first.
    pub(super) report: fn(u64, u32, u32) -> Outcome,
    pub(super) turns: &'static [Turn],
}

/// Jobs that have a little time and calls that come back at once: a scenario says where it differs.
pub(super) const PLAIN: Scenario = Scenario {
    jobs: 5,
    submitters: 1,
    rest: 0,
    workers: 2,
    watchdogs: 1,
    cancelled: &[],
    drain: None,
    reclaims: false,
    orphans: None,
    holds: |_| 1,
    loads: &[],
    reloads: &[],
    patience: |job| Duration::from_secs(2 + job % 3),
    in_line: None,
    limit: 2,
    session: 1,
    adaptive: false,
    breaker: None,
    retry: NO_RETRY,
    report: |job, _, _| {
        if job.is_multiple_of(2) {
            Outcome::Completed
        } else {
            Outcome::Failed(Cause::Broken)
        }
    },
    turns: &[],
};

const NO_RETRY: RetrySettings = RetrySettings {
    attempts: 1,
    base: Duration::from_millis(500),
    max: Duration::from_secs(20),
    budget: 10.0,
    floor: 5.0,
    refill: 0.1,
};

const RETRIES: RetrySettings = RetrySettings {
    attempts: 3,
    ..NO_RETRY
};

/// Jobs from several threads at once, more than there are places.
pub(super) const ARRIVALS: Scenario = Scenario {
    jobs: 7,
    submitters: 3,
    workers: 1,
    turns: &[
        ("a bound refuses", |_, record| {
            ends(record, |end| refused(end, RefusalReason::QueueFull))
                || ends(record, |end| refused(end, RefusalReason::SessionQueueFull))
        }),
        ("one gives way", |_, record| {
            ends(record, |end| refused(end, RefusalReason::Displaced))
        }),
        ("most are served", |_, record| {
            record.iter().filter(|(_, action)| is_start(action)).count() > 3
        }),
    ],
    ..PLAIN
};

/// Returns of permits, each of which may start another job.
pub(super) const RETURNS: Scenario = Scenario {
    jobs: 6,
    workers: 3,
    patience: |_| Duration::from_secs(30),
    turns: &[
        ("all slots are taken", |view, _| view.peak == 2),
        ("one goes on to its next stage", |_, record| {
            record
                .iter()
                .any(|(_, action)| matches!(action.step, Step::Start { stage, .. } if stage == 1))
        }),
    ],
    ..PLAIN
};

/// Cancels that come at any moment: before the job, while it waits, between its start and its call, while it runs.
pub(super) const CANCELS: Scenario = Scenario {
    jobs: 4,
    cancelled: &[0, 1, 3],
    turns: &[
        ("one is cancelled in line", |_, record| {
            ends_without_interrupt(record, &Ending::Cancelled(CancelReason::ClientLeft))
        }),
        ("a call is interrupted", |_, record| {
            let interrupt = Step::Interrupt(CancelReason::ClientLeft);
            record.iter().any(|(_, action)| action.step == interrupt)
        }),
        ("a cancel comes too early", |_, record| {
            let cancelled = Ending::Cancelled(CancelReason::ClientLeft);
            [0, 1, 3].into_iter().all(|job| {
                let mut own = record.iter().filter(|(_, action)| action.job == JobId(job));
                !own.any(|(_, action)| action.step == Step::End(cancelled.clone()))
            })
        }),
    ],
    ..PLAIN
};

/// Two watchdogs whose ticks come at any moment: at the end of a time in line, of a deadline, of a session's turn.
pub(super) const TICKS: Scenario = Scenario {
    watchdogs: 2,
    workers: 1,
    turns: &[
        ("a time in line is over", |_, record| {
            ends(record, |end| matches!(end, Ending::QueueTimeout(_)))
        }),
        ("a call runs into its deadline", |_, record| {
            let interrupt = Step::Interrupt(CancelReason::Deadline);
            record.iter().any(|(_, action)| action.step == interrupt)
        }),
        ("one is served in time", |_, record| {
            ends(record, |end| matches!(end, Ending::Finished(_)))
        }),
    ],
    ..PLAIN
};

/// Limits that are cut while calls are in flight, and grow back.
pub(super) const CUTS: Scenario = Scenario {
    workers: 3,
    jobs: 5,
    limit: 3,
    adaptive: true,
    retry: RETRIES,
    patience: |_| Duration::from_secs(900),
    report: |job, _, attempt| match (job + u64::from(attempt)) % 3 {
        0 => Outcome::Failed(Cause::Congested {
            retry_after: Some(Duration::from_secs(2)),
        }),
        1 => Outcome::Failed(Cause::Congested { retry_after: None }),
        _ => Outcome::Completed,
    },
    turns: &[
        ("a limit is cut to one", |view, _| {
            view.targets.iter().any(|target| target.limit == 1)
        }),
        ("one backs off", |_, record| backs_off(record)),
        ("one is served after a refusal", |_, record| {
            serves_again(record)
        }),
    ],
    ..PLAIN
};

/// Calls that fail, are tried again and go elsewhere; breakers that open, let one probe through, and close.
pub(super) const ONWARD: Scenario = Scenario {
    jobs: 4,
    workers: 2,
    retry: RETRIES,
    breaker: Some(BreakerSettings {
        attempts: 2,
        window: Duration::from_secs(60),
        failures: 0.5,
        connects: 2,
        wait: Duration::from_secs(1),
        max_wait: Duration::from_secs(4),
        jitter: 0.2,
        lease: Duration::from_secs(3),
        successes: 1,
    }),
    patience: |_| Duration::from_secs(60),
    report: |job, target, attempt| match (job, target, attempt) {
        (3, 0, 1) => Outcome::Failed(Cause::Unanswered),
        (_, 0, 1) => Outcome::Failed(Cause::Unreachable),
        (2, 0, 2) => Outcome::Failed(Cause::Failing { again: true }),
        _ => Outcome::Completed,
    },
    turns: &[
        ("one backs off", |_, record| backs_off(record)),
        ("one is served after a failure", |_, record| {
            serves_again(record)
        }),
        ("a breaker stays open", |view, _| {
            view.targets.iter().any(|target| target.breaker == "open")
        }),
        ("a probe closes its breaker", |view, record| {
            probes(record) && view.targets[0].breaker == "closed"
        }),
        ("a further stage steps in", |_, record| {
            record.iter().any(|(_, action)| {
                matches!(
                    action.step,
                    Step::Start {
                        stage: 1,
                        target: TargetId(1),
                        ..
                    }
                )
            })
        }),
    ],
    ..PLAIN
};

/// Permits that come back twice, the second time perhaps when their rows of the ledger have gone to others.
pub(super) const LATE_RETURNS: Scenario = Scenario {
    reclaims: true,
    cancelled: &[1],
    retry: RETRIES,
    report: |job, _, attempt| match (job % 2, attempt) {
        (1, 1) => Outcome::Failed(Cause::Unreachable),
        _ => Outcome::Completed,
    },
    turns: &[
        ("the second return is late", |view, _| {
            view.turnover.late_returns > 2
        }),
        ("somebody else is first", |_, record| {
            ends(record, |end| {
                *end == Ending::Finished(Outcome::Failed(Cause::Unwanted))
            })
        }),
        ("one backs off", |_, record| backs_off(record)),
    ],
    ..PLAIN
};

/// A stop at any moment, with a little time for what has been taken in.
pub(super) const STOPS: Scenario = Scenario {
    submitters: 2,
    drain: Some(Duration::from_secs(1)),
    retry: RETRIES,
    report: |job, _, attempt| match (job % 2, attempt) {
        (1, 1) => Outcome::Failed(Cause::Unreachable),
        _ => Outcome::Completed,
    },
    turns: &[
        ("one is refused", |_, record| {
            ends(record, |end| refused(end, RefusalReason::Stopping))
        }),
        ("a call is interrupted", |_, record| {
            ends(record, |end| {
                *end == Ending::Cancelled(CancelReason::Stopping)
            })
        }),
        ("one is served before", |_, record| {
            ends(record, |end| matches!(end, Ending::Finished(_)))
        }),
    ],
    ..PLAIN
};

/// Calls that take no notice of their interrupt, and come back when they like: some before they are given up on, some
/// before their slot is taken from them, some when another has it.
pub(super) const ORPHANS: Scenario = Scenario {
    jobs: 6,
    rest: 12,
    cancelled: &[1],
    orphans: Some(OrphanSettings {
        quarantine_after: Duration::from_secs(1),
        reclaim_after: Duration::from_secs(2),
        max_lost: 1,
    }),
    holds: |job| [100, 60, 12, 20, 12, 12][job as usize],
    session: 2,
    in_line: Some(Duration::from_secs(120)),
    patience: |job| Duration::from_secs([1, 2, 30, 60, 90, 120][job as usize]),
    report: |_, _, _| Outcome::Completed,
    turns: &[
        ("one is back before it is given up on", |_, record| {
            let mut told = record
                .iter()
                .filter(|(_, action)| matches!(action.step, Step::Interrupt(_)));
            told.any(|(_, told)| {
                let mut own = record.iter().filter(|(_, action)| action.job == told.job);
                !own.any(|(_, action)| given_up(action).is_some())
            })
        }),
        (
            "one is given up on, and back before its slot is taken",
            |_, record| {
                let mut lost = record.iter().filter_map(|(_, action)| given_up(action));
                lost.any(|permit| !record.iter().any(|(_, action)| takes(action, permit)))
            },
        ),
        (
            "one that no worker has taken is given up on",
            |_, record| {
                let mut actions = record.iter();
                actions
                    .any(|(_, action)| matches!(action.step, Step::Quarantine { worker: None, .. }))
            },
        ),
        ("one is back late, and its slot is free", |_, record| {
            record.late.iter().any(|late| !late.taken)
        }),
        (
            "one is back late, and its slot is another's",
            |_, record| record.late.iter().any(|late| late.taken),
        ),
        ("so many are lost that nothing is taken in", |_, record| {
            ends(record, |end| {
                refused(end, RefusalReason::WorkersLost { lost: 2 })
            })
        }),
        ("one is served by who was hired", |_, record| {
            let mut actions = record.iter();
            let lost = actions.position(|(_, action)| given_up(action).is_some());
            let after = &record.actions[lost.unwrap_or(record.actions.len())..];
            let mut started = after.iter().filter(|(_, action)| is_start(action));
            started.any(|(_, start)| {
                let done = Step::End(Ending::Finished(Outcome::Completed));
                let mut actions = after.iter();
                actions.any(|(_, action)| action.job == start.job && action.step == done)
            })
        }),
    ],
    ..PLAIN
};

/// The same where nobody counts as replaced: as many as are lost are missing, though slots be free, until some come back.
pub(super) const MISSING: Scenario = Scenario {
    rest: 5,
    orphans: Some(OrphanSettings {
        quarantine_after: Duration::from_secs(1),
        reclaim_after: Duration::from_secs(2),
        max_lost: 0,
    }),
    turns: &[
        ("nothing is taken in for one who is lost", |_, record| {
            ends(record, |end| {
                refused(end, RefusalReason::WorkersLost { lost: 1 })
            })
        }),
        ("all are lost", |_, record| {
            ends(record, |end| {
                refused(end, RefusalReason::WorkersLost { lost: 2 })
            })
        }),
        ("one starts after that", |_, record| {
            let mut actions = record.iter().rev();
            let last = actions.find(|(_, action)| is_start(action) || given_up(action).is_some());
            last.is_some_and(|(_, action)| is_start(action))
                && record.iter().any(|(_, action)| given_up(action).is_some())
        }),
    ],
    ..ORPHANS
};

/// A box that is loaded, more and less, while jobs come and calls are in flight.
pub(super) const THROTTLES: Scenario = Scenario {
    submitters: 2,
    jobs: 6,
    workers: 3,
    limit: 3,
    session: 3,
    loads: &[2, 0, 2, usize::MAX],
    holds: |job| 1 + job as u32 % 4,
    patience: |_| Duration::from_secs(30),
    turns: &[
        ("less is left than is in flight", |_, record| {
            let mut limits = record.limits.iter();
            limits.any(|set| set.to < set.in_flight)
        }),
        ("one starts in the step that lets go", |_, record| {
            let mut limits = record.limits.iter();
            limits.any(|set| set.from < set.to && set.started > 0)
        }),
        ("nothing of the lowest class is taken in", |_, record| {
            ends(record, |end| refused(end, RefusalReason::BoxLoaded))
        }),
        ("a refusal tells of it", |_, record| {
            ends(
                record,
                |end| matches!(end, Ending::Refused(refusal) if refusal.throttled.is_some()),
            )
        }),
    ],
    ..PLAIN
};

/// New limits for a box whose load changes at the same time.
pub(super) const CHANGES: Scenario = Scenario {
    loads: &[1, usize::MAX],
    reloads: &[2, 0, 3],
    turns: &[
        ("less is configured than is in flight", |_, record| {
            let mut limits = record.limits.iter().filter(|set| set.configured);
            limits.any(|set| set.to < set.in_flight)
        }),
        (
            "one starts in the step that configures more",
            |_, record| {
                let mut limits = record.limits.iter().filter(|set| set.configured);
                limits.any(|set| set.started > 0)
            },
        ),
        ("more is configured for a loaded box", |_, record| {
            let mut limits = record.limits.iter();
            limits.any(|set| set.configured && set.throttled)
        }),
        (
            "the load lets go, and less is configured than before",
            |_, record| {
                let mut limits = record.limits.iter().filter(|set| !set.configured);
                limits.any(|set| set.from < set.to && set.to < 3)
            },
        ),
    ],
    ..THROTTLES
};

impl Scenario {
    /// Whether nothing but the global limit and the workers holds a job back.
    pub(super) fn is_open(&self) -> bool {
        let judged = self.adaptive || self.breaker.is_some() || self.drain.is_some();
        self.session >= self.limit && !judged
    }

    /// The global limits that are set, thread by thread: by the load of the box, and by new settings.
    pub(super) fn limits(&self) -> impl Iterator<Item = Vec<Event>> {
        let loads = self.loads.iter().map(|&most| {
            let refuses_low = most < 2;
            Event::Throttle(Throttle { most, refuses_low })
        });
        let reloads = self.reloads.iter().map(|&global| {
            Event::Change(Box::new(Change {
                settings: Settings {
                    global,
                    ..self.settings()
                },
                anew: Vec::new(),
                gone: Vec::new(),
            }))
        });
        let threads: [Vec<Event>; 2] = [loads.collect(), reloads.collect()];
        threads.into_iter().filter(|limits| !limits.is_empty())
    }

    pub(super) fn settings(&self) -> Settings {
        let provider = ProviderSettings {
            adaptive: self.adaptive,
            breaker: self.breaker,
            retry: self.retry,
            ..ProviderSettings::fixed(self.limit)
        };
        Settings {
            workers: self.limit,
            global: self.limit,
            session: self.session,
            sessions: self.limit,
            session_turn: Duration::from_secs(1),
            queue: QueueSettings {
                capacity: 3,
                per_session: 2,
                max_bytes: 100,
                per_provider: 3,
                timeout: self.in_line.unwrap_or((self.patience)(0)),
                weights: [16, 4, 1],
                pressure_on: 2,
                pressure_off: 1,
            },
            providers: vec![provider; 2],
            targets: vec![ProviderId(0), ProviderId(1)],
            learning: Learning::default(),
            orphans: self.orphans.unwrap_or_default(),
        }
    }

    /// Every second job has a further stage, at the other provider.
    pub(super) fn submissions(&self, core: &mut Core) -> Vec<Submission> {
        let stages = [TargetId(0), TargetId(1)].map(|target| core.stage(&[target]));
        let job = |number: u64| {
            let stages: &[StageId] = &stages[..1 + (number % 2) as usize];
            Submission {
                job: JobId(number),
                route: stages.iter().map(|&stage| stage.into()).collect(),
                flow: FlowId(number % 3),
                session: true,
                session_limit: None,
                class: Priority::ALL[(number % 2) as usize * 2],
                deadline: Time::ZERO + (self.patience)(number),
                bytes: 1,
                reclaim: self.orphans.is_some(),
            }
        };
        (0..self.jobs).map(job).collect()
    }

    /// Of a call that comes back: nothing of it went to anybody.
    pub(super) fn report(&self, job: JobId, target: TargetId, attempt: u32) -> Report {
        (self.report)(job.0, target.0, attempt).into()
    }
}
