//! What our limit makes of a provider, beside what other rules make of it: a true capacity of 64 calls, calls of a median
//! of 12 s (log-normal), refusals at once above the capacity, and always somebody in line.
//!
//! `cargo test --test simulation race -- --nocapture` prints the table.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use fastrand::Rng;
use pointsman::clock::Time;
use pointsman::config::Priority;

use super::admission::{
    Cause, Core, Event, FlowId, JobId, Learning, Outcome, PermitKey, ProviderId, ProviderSettings,
    QueueSettings, Report, RetrySettings, Settings, StageId, Step, Submission, TargetId,
};
use super::rivals::{Aimd, Gradient, NetflixAimd, Rule, Vegas};

const CAPACITY: usize = 64;
/// Configured, where that is asked for: far above the capacity.
const CONFIGURED: usize = 200;
const HOURS: f64 = 15.0;
/// A refusal takes so long, in seconds.
const REFUSAL: f64 = 0.2;

/// What came of a run.
#[derive(Debug, Default)]
struct Score {
    /// Call seconds that the provider gave.
    served: f64,
    successes: f64,
    refusals: f64,
}

impl Score {
    fn utilisation(&self) -> f64 {
        self.served / (CAPACITY as f64 * HOURS * 3_600.0)
    }

    fn refused(&self) -> f64 {
        self.refusals / self.successes
    }
}

/// A log-normal length with a median of 12 s; one in twenty takes more than a minute.
fn length(rng: &mut Rng) -> f64 {
    let (a, b) = (rng.f64().max(1e-12), rng.f64());
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    12.0 * normal.exp()
}

/// Calls under way: when each ends (in nanoseconds), when it began, how many were in flight, and whether it is refused.
type Calls = BinaryHeap<Reverse<(u64, u64, usize, bool)>>;

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Plays a rule that is nothing but a limit.
fn rival(mut rule: impl Rule) -> Score {
    let (mut rng, mut calls, mut score) = (Rng::with_seed(1), Calls::new(), Score::default());
    let (mut now, mut really) = (0_u64, 0);
    while now < nanos(HOURS * 3_600.0) {
        // Always somebody is in line, so a place that a refusal leaves is taken again at once.
        while calls.len() < rule.limit() {
            let refused = really == CAPACITY;
            let took = if refused { REFUSAL } else { length(&mut rng) };
            really += usize::from(!refused);
            calls.push(Reverse((now + nanos(took), now, calls.len() + 1, refused)));
        }
        let Some(Reverse((end, began, in_flight, refused))) = calls.pop() else {
            return score;
        };
        now = end;
        let took = (end - began) as f64 / 1e9;
        if refused {
            score.refusals += 1.0;
            rule.refuse(began as f64 / 1e9, now as f64 / 1e9);
        } else {
            really -= 1;
            (score.served, score.successes) = (score.served + took, score.successes + 1.0);
            rule.succeed(took, in_flight, now as f64 / 1e9);
        }
    }
    score
}

/// Our core with such a provider.
struct Ours {
    core: Core,
    stage: StageId,
    calls: BinaryHeap<Reverse<(Time, JobId)>>,
    /// By job: its permit, how long its call takes in seconds, and whether it is refused.
    courses: HashMap<JobId, (PermitKey, f64, bool)>,
    really: usize,
    jobs: u64,
    rng: Rng,
    now: Time,
    score: Score,
}

impl Ours {
    fn new(learning: Learning) -> Ours {
        let mut core = Core::new(Settings {
            workers: CONFIGURED,
            global: CONFIGURED,
            session: CONFIGURED,
            sessions: 1_000,
            session_turn: Duration::from_secs(10),
            queue: QueueSettings {
                capacity: 10_000,
                per_session: 10_000,
                max_bytes: 1_000_000,
                per_provider: 10_000,
                timeout: Duration::from_secs(1_000_000),
                weights: [16, 4, 1],
                pressure_on: 1_000,
                pressure_off: 100,
            },
            providers: vec![ProviderSettings {
                adaptive: true,
                retry: RetrySettings::default(),
                ..ProviderSettings::fixed(CONFIGURED)
            }],
            targets: vec![ProviderId(0)],
            learning,
            orphans: Default::default(),
        });
        Ours {
            stage: core.stage(&[TargetId(0)]),
            core,
            calls: BinaryHeap::new(),
            courses: HashMap::new(),
            really: 0,
            jobs: 0,
            rng: Rng::with_seed(1),
            now: Time::ZERO,
            score: Score::default(),
        }
    }

    fn play(mut self) -> Score {
        for _ in 0..300 {
            self.submit();
        }
        while self.now < Time::from_nanos(nanos(HOURS * 3_600.0)) {
            let ends = self.calls.peek().map_or(Time::NEVER, |call| call.0.0);
            let due = self.core.next_due().max(self.now);
            self.now = ends.min(due);
            if ends > due {
                self.tell(Event::Tick);
            } else if let Some(Reverse((_, job))) = self.calls.pop()
                && let Some((permit, took, refused)) = self.courses.remove(&job)
            {
                self.end(permit, took, refused);
            }
        }
        self.score
    }

    fn end(&mut self, permit: PermitKey, took: f64, refused: bool) {
        let report = if refused {
            self.score.refusals += 1.0;
            Outcome::Failed(Cause::Congested { retry_after: None }).into()
        } else {
            self.really -= 1;
            self.score.served += took;
            self.score.successes += 1.0;
            Report {
                outcome: Outcome::Completed,
                content: true,
                first_byte: Some(Duration::from_secs_f64(took / 4.0)),
            }
        };
        self.tell(Event::GiveBack(permit, report));
    }

    fn submit(&mut self) {
        self.jobs += 1;
        let submission = Submission {
            job: JobId(self.jobs),
            route: vec![self.stage.into()],
            flow: FlowId(self.jobs % 7),
            session: false,
            session_limit: None,
            class: Priority::Medium,
            deadline: Time::NEVER,
            bytes: 1,
            reclaim: true,
        };
        self.tell(Event::Submit(submission));
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.on(event, self.now, &mut actions);
        for action in actions {
            match action.step {
                Step::Start { permit, .. } => {
                    let refused = self.really == CAPACITY;
                    let took = if refused {
                        REFUSAL
                    } else {
                        length(&mut self.rng)
                    };
                    self.really += usize::from(!refused);
                    let end = self.now + Duration::from_secs_f64(took);
                    self.courses.insert(action.job, (permit, took, refused));
                    self.calls.push(Reverse((end, action.job)));
                }
                Step::End(_) => self.submit(),
                Step::Wait { .. }
                | Step::BackOff { .. }
                | Step::Interrupt(_)
                | Step::Quarantine { .. }
                | Step::Reclaim { .. } => {}
            }
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "shown with --nocapture")]
fn our_limit_uses_a_provider_well_and_is_hardly_ever_refused() {
    let ours = Ours::new(Learning::default()).play();
    let rivals = [
        ("AIMD on 429 only", rival(Aimd::default())),
        ("Netflix AIMD, its defaults", rival(NetflixAimd::default())),
        ("Vegas, its defaults", rival(Vegas::default())),
        ("Gradient2, per sample", rival(Gradient::new(false))),
        ("Gradient2, windowed", rival(Gradient::new(true))),
    ];
    println!("| rule | utilisation | refusals per success |\n|---|---|---|");
    for (name, score) in [("these rules", &ours)]
        .into_iter()
        .chain(rivals.iter().map(|(name, score)| (*name, score)))
    {
        let (used, refused) = (100.0 * score.utilisation(), score.refused());
        println!("| {name} | {used:.0} % | {refused:.3} |");
    }
    assert!(ours.utilisation() >= 0.9, "{ours:?}");
    assert!(ours.refused() < 0.01, "{ours:?}");
    for (name, score) in &rivals {
        let worse = score.utilisation() < 0.75 || score.refused() > 10.0 * ours.refused();
        assert!(worse, "{name}: {score:?}");
    }
}
