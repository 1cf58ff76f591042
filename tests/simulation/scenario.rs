//! What is played: limits, providers, clients and troubles, drawn from a seed.

use std::time::Duration;

use fastrand::Rng;
use pointsman::admission::{
    Learning, ProviderId, ProviderSettings, QueueSettings, Settings, TargetId,
};
use pointsman::clock::Time;
use pointsman::config::Priority;

/// One evening of a gateway.
#[derive(Debug)]
pub(super) struct Scenario {
    /// The limits in force.
    pub(super) settings: Settings,
    /// How each provider behaves.
    pub(super) providers: Vec<Behaviour>,
    /// Who comes, in no order.
    pub(super) arrivals: Vec<Arrival>,
    /// How late ticks may be; zero: never.
    pub(super) lateness: Duration,
    /// When the core is told to stop, and the end of the drain.
    pub(super) stop: Option<(Time, Time)>,
    /// How long a worker may take until it looks at the job that it was handed.
    pub(super) slow_begin: Duration,
    /// How long an interrupted call may take to come back.
    pub(super) slow_return: Duration,
    /// One permit in so many is given back twice.
    pub(super) double_returns: usize,
}

/// How a provider answers, in calls of a hundred.
#[derive(Debug)]
pub(super) struct Behaviour {
    /// What a call takes on the average.
    pub(super) mean: Duration,
    /// Say nothing until interrupted.
    pub(super) silent: u32,
    /// Fail at once.
    pub(super) failing: u32,
    /// Fail in a way that lets the next stage try.
    pub(super) falling_back: u32,
}

/// A job to come.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// When.
    pub(super) at: Time,
    /// Whose.
    pub(super) flow: u64,
    /// Whether the flow is a named session.
    pub(super) session: bool,
    /// Its class.
    pub(super) class: Priority,
    /// The targets of each stage.
    pub(super) route: Vec<Vec<TargetId>>,
    /// From its arrival to its deadline.
    pub(super) patience: Duration,
    /// What it holds while it waits.
    pub(super) bytes: usize,
    /// From its arrival until somebody cancels it.
    pub(super) cancel: Option<Duration>,
}

impl Scenario {
    /// The scenario of this seed.
    pub(super) fn draw(seed: u64) -> Scenario {
        let rng = &mut Rng::with_seed(seed);
        let settings = settings(rng);
        let providers = settings.providers.iter().map(|_| behaviour(rng)).collect();
        let span = Duration::from_secs(rng.u64(5..240));
        let flows = rng.u64(1..16);
        let routes = routes(rng, settings.targets.len() as u32);
        let jobs = if one_in(rng, 10) {
            rng.usize(200..600)
        } else {
            rng.usize(5..160)
        };
        let arrivals = (0..jobs)
            .map(|_| arrival(rng, span, flows, &routes))
            .collect();
        let stop = one_in(rng, 4).then(|| {
            let at = Time::ZERO + up_to(rng, span);
            (at, at + up_to(rng, Duration::from_secs(30)))
        });
        Scenario {
            settings,
            providers,
            arrivals,
            lateness: seldom(rng, Duration::from_secs(20)),
            stop,
            slow_begin: seldom(rng, Duration::from_secs(5)) + Duration::from_millis(1),
            slow_return: seldom(rng, Duration::from_secs(10)),
            double_returns: rng.usize(2..20),
        }
    }
}

fn settings(rng: &mut Rng) -> Settings {
    let most = if rng.bool() { 4 } else { 25 };
    let mut limit = || rng.usize(1..=most);
    let (global, session, sessions, places) = (limit(), limit(), limit(), limit());
    let workers = if one_in(rng, 4) {
        rng.usize(1..=most)
    } else {
        global
    };
    let providers: Vec<ProviderSettings> = (0..rng.usize(1..=4))
        .map(|_| {
            let limit = rng.usize(1..=most);
            ProviderSettings {
                reserves: rng.bool(),
                ..ProviderSettings::fixed(limit)
            }
        })
        .collect();
    let mut targets: Vec<ProviderId> = (0..providers.len() as u32).map(ProviderId).collect();
    if rng.bool() {
        targets.push(ProviderId(0));
    }
    Settings {
        workers,
        global,
        session,
        sessions,
        session_turn: Duration::from_secs(rng.u64(1..20)),
        queue: queue(rng, places),
        providers,
        targets,
        learning: Learning::default(),
    }
}

fn queue(rng: &mut Rng, places: usize) -> QueueSettings {
    let capacity = if rng.bool() { places * 4 } else { 1_000 };
    QueueSettings {
        capacity,
        per_session: if rng.bool() { places } else { 50 },
        max_bytes: if rng.bool() { 5_000 } else { 1_000_000 },
        per_provider: (capacity * 3).div_ceil(4),
        timeout: Duration::from_secs(rng.u64(1..=60)),
        weights: [16, 4, 1],
        pressure_on: (capacity * 4).div_ceil(5),
        pressure_off: capacity * 3 / 10,
    }
}

fn behaviour(rng: &mut Rng) -> Behaviour {
    let troubled = rng.bool();
    let mut share = |most: u32| if troubled { rng.u32(0..most) } else { 0 };
    Behaviour {
        silent: share(50),
        failing: share(30),
        falling_back: share(20),
        mean: Duration::from_millis(rng.u64(1..20_000)),
    }
}

/// The routes that jobs take: of one to three stages, each of one or two targets.
fn routes(rng: &mut Rng, targets: u32) -> Vec<Vec<Vec<TargetId>>> {
    let stage = |rng: &mut Rng| {
        let mut stage = vec![TargetId(rng.u32(0..targets))];
        let other = TargetId(rng.u32(0..targets));
        if one_in(rng, 3) && other != stage[0] {
            stage.push(other);
        }
        stage
    };
    (0..rng.usize(1..=4))
        .map(|_| (0..rng.usize(1..=3)).map(|_| stage(rng)).collect())
        .collect()
}

fn arrival(rng: &mut Rng, span: Duration, flows: u64, routes: &[Vec<Vec<TargetId>>]) -> Arrival {
    let flow = rng.u64(0..flows);
    // Whole seconds half of the time: much then happens in one moment.
    let at = up_to(rng, span);
    let at = if rng.bool() {
        Duration::from_secs(at.as_secs())
    } else {
        at
    };
    let patience = if one_in(rng, 20) {
        0
    } else {
        rng.u64(1..120_000)
    };
    Arrival {
        at: Time::ZERO + at,
        flow,
        session: !flow.is_multiple_of(4),
        class: Priority::ALL[rng.usize(0..3)],
        route: routes[rng.usize(0..routes.len())].clone(),
        patience: Duration::from_millis(patience),
        bytes: rng.usize(1..1_000),
        cancel: one_in(rng, 6).then(|| up_to(rng, Duration::from_secs(30))),
    }
}

/// Every fifth session has a limit of its own, which may be above that of all.
pub(super) fn session_limit(flow: u64) -> Option<usize> {
    flow.is_multiple_of(5)
        .then_some(1 + (flow / 5 % 3) as usize)
}

pub(super) fn one_in(rng: &mut Rng, many: usize) -> bool {
    rng.usize(0..many) == 0
}

/// A length from zero to this.
pub(super) fn up_to(rng: &mut Rng, most: Duration) -> Duration {
    Duration::from_nanos(rng.u64(0..=most.as_nanos() as u64))
}

fn seldom(rng: &mut Rng, most: Duration) -> Duration {
    if one_in(rng, 3) {
        up_to(rng, most)
    } else {
        Duration::ZERO
    }
}
