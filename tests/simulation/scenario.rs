//! What is played: limits, providers, clients and troubles, drawn from a seed.

use std::time::Duration;

use crate::admission::{
    BreakerSettings, Change, GateSettings, Learning, LimitSettings, OrphanSettings, ProviderId,
    ProviderSettings, QueueSettings, RetrySettings, Settings, TargetId, Throttle,
};
use fastrand::Rng;
use pointsman::clock::Time;
use pointsman::config::Priority;

use super::weather::Weather;

/// One evening of a gateway.
#[derive(Debug)]
pub(super) struct Scenario {
    /// What is in force at first.
    pub(super) settings: Settings,
    /// How each provider behaves, those that come later included.
    pub(super) providers: Vec<Weather>,
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
    /// Other settings, and from when; in the order of time.
    pub(super) changes: Vec<(Time, Change)>,
    /// What the load of the box leaves of the limits, and from when.
    pub(super) throttles: Vec<(Time, Throttle)>,
    /// When the clock leaps, and how far.
    pub(super) leap: Option<(Time, Duration)>,
    /// The guard of one call in so many is lost, and found to be so up to this much later.
    pub(super) leaks: (usize, Duration),
    /// One interrupted call in so many takes this long to come back: its worker is lost.
    pub(super) lost: (usize, Duration),
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
    /// Which model it asks for, if that matters.
    pub(super) model: Option<u64>,
    /// From its arrival to its deadline.
    pub(super) patience: Duration,
    /// What it holds while it waits.
    pub(super) bytes: usize,
    /// From its arrival until somebody cancels it.
    pub(super) cancel: Option<Duration>,
    /// Whether its slot may be taken from a holder that does not come back.
    pub(super) reclaim: bool,
}

impl Scenario {
    /// The scenario of this seed.
    pub(super) fn draw(seed: u64) -> Scenario {
        let rng = &mut Rng::with_seed(seed);
        let learns = !one_in(rng, 3);
        let settings = settings(rng, learns, seed);
        let span = Duration::from_secs(rng.u64(5..240));
        let changes = if one_in(rng, 4) { rng.usize(1..20) } else { 0 };
        let changes = changes_of(rng, span, &settings, changes, learns);
        let last = changes.last().map_or(&settings, |(_, last)| &last.settings);
        let providers = last.providers.iter();
        let providers = providers
            .map(|_| Weather::draw(rng, span, !learns))
            .collect();
        let models = learns && one_in(rng, 3);
        let flows = rng.u64(1..16);
        let routes = routes(rng, last.targets.len() as u32);
        let jobs = if one_in(rng, 10) {
            rng.usize(200..600)
        } else {
            rng.usize(5..160)
        };
        let arrivals = (0..jobs)
            .map(|_| arrival(rng, span, flows, models, &routes))
            .collect();
        let stop = one_in(rng, 4).then(|| {
            let at = Time::ZERO + up_to(rng, span);
            (at, at + up_to(rng, Duration::from_secs(30)))
        });
        let leap = one_in(rng, 8).then(|| {
            let at = Time::ZERO + up_to(rng, span);
            (at, up_to(rng, Duration::from_secs(300)))
        });
        Scenario {
            changes,
            leap,
            leaks: (rng.usize(30..300), Duration::from_secs(1)),
            lost: (rng.usize(2..30), up_to(rng, Duration::from_secs(60))),
            settings,
            providers,
            arrivals,
            lateness: seldom(rng, Duration::from_secs(20)),
            stop,
            slow_begin: seldom(rng, Duration::from_secs(5)) + Duration::from_millis(1),
            slow_return: seldom(rng, Duration::from_secs(10)),
            double_returns: rng.usize(2..20),
            throttles: throttles(rng, span),
        }
    }
}

/// So many changes, each from what the one before it left.
fn changes_of(
    rng: &mut Rng,
    span: Duration,
    first: &Settings,
    count: usize,
    learns: bool,
) -> Vec<(Time, Change)> {
    let mut times: Vec<Time> = (0..count).map(|_| Time::ZERO + up_to(rng, span)).collect();
    times.sort_unstable();
    // Half of the time nothing but limits.
    let limits_alone = rng.bool();
    let mut last = Change {
        settings: first.clone(),
        anew: Vec::new(),
        gone: Vec::new(),
    };
    let mut next = |at| {
        change_limits(rng, &mut last.settings);
        if !limits_alone {
            change_targets(rng, &mut last, learns);
        }
        (at, last.clone())
    };
    times.into_iter().map(&mut next).collect()
}

fn change_limits(rng: &mut Rng, settings: &mut Settings) {
    let mut limit = || rng.usize(1..=20);
    (settings.workers, settings.global) = (limit(), limit());
    (settings.session, settings.sessions) = (limit(), limit());
    for provider in &mut settings.providers {
        provider.limit = limit();
    }
}

/// Bounds and shares change; targets come, go, come back, or become others.
fn change_targets(rng: &mut Rng, change: &mut Change, learns: bool) {
    let settings = &mut change.settings;
    let kept = settings.targets.len() as u32;
    if one_in(rng, 3) {
        let places = rng.usize(1..=20);
        settings.queue = QueueSettings {
            weights: [rng.u32(1..20), rng.u32(1..20), rng.u32(1..20)],
            // Who comes back in the very step of a change is still given the time from before.
            timeout: settings.queue.timeout,
            ..queue(rng, places)
        };
        settings.session_turn = Duration::from_secs(rng.u64(1..20));
        settings.learning.fallback_after = Duration::from_secs(rng.u64(0..10));
    }
    if settings.providers.len() < 6 && one_in(rng, 3) {
        let (limit, id) = (rng.usize(1..=20), settings.providers.len() as u32);
        let provider = match learns {
            true => learning_provider(rng, limit),
            false => ProviderSettings::fixed(limit),
        };
        settings.providers.push(provider);
        settings.targets.push(ProviderId(id));
    }
    for provider in &mut settings.providers {
        provider.reserves = rng.bool();
    }
    let mut some = |one_of| {
        let targets = (0..kept).map(TargetId);
        targets.filter(|_| one_in(rng, one_of)).collect()
    };
    (change.anew, change.gone) = (some(6), some(4));
}

/// A box whose load comes and goes; one in three does.
fn throttles(rng: &mut Rng, span: Duration) -> Vec<(Time, Throttle)> {
    let changes = if one_in(rng, 3) { rng.usize(1..20) } else { 0 };
    let mut change = || {
        let throttle = Throttle {
            most: rng.usize(1..=20),
            refuses_low: one_in(rng, 4),
        };
        (Time::ZERO + up_to(rng, span), throttle)
    };
    (0..changes).map(|_| change()).collect()
}

fn settings(rng: &mut Rng, learns: bool, seed: u64) -> Settings {
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
            let reserves = rng.bool();
            let fixed = ProviderSettings::fixed(limit);
            let provider = if learns {
                learning_provider(rng, limit)
            } else {
                fixed
            };
            ProviderSettings {
                reserves,
                ..provider
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
        learning: if learns {
            learning(rng, seed)
        } else {
            Learning::default()
        },
        orphans: orphans(rng),
    }
}

fn orphans(rng: &mut Rng) -> OrphanSettings {
    let quarantine_after = Duration::from_millis(rng.u64(1..3_000));
    OrphanSettings {
        quarantine_after,
        reclaim_after: quarantine_after + Duration::from_millis(rng.u64(1..10_000)),
        max_lost: if rng.bool() { rng.usize(0..4) } else { 16 },
    }
}

fn learning_provider(rng: &mut Rng, limit: usize) -> ProviderSettings {
    let breaker = BreakerSettings {
        attempts: rng.u32(2..12),
        connects: rng.u32(1..6),
        wait: Duration::from_millis(rng.u64(100..6_000)),
        lease: Duration::from_millis(rng.u64(500..60_000)),
        successes: rng.u32(1..4),
        ..BreakerSettings::default()
    };
    ProviderSettings {
        limit,
        reserves: false,
        adaptive: !one_in(rng, 5),
        breaker: (!one_in(rng, 5)).then_some(breaker),
        retry: RetrySettings {
            attempts: rng.u32(1..5),
            ..RetrySettings::default()
        },
    }
}

fn learning(rng: &mut Rng, seed: u64) -> Learning {
    let recover = Duration::from_secs(rng.u64(2..120));
    Learning {
        seed,
        limit: LimitSettings {
            recover,
            recover_small: recover * rng.u32(1..4),
            ..LimitSettings::default()
        },
        gate: GateSettings {
            max: Duration::from_secs(rng.u64(5..300)),
            window: Duration::from_secs(rng.u64(5..300)),
            ..GateSettings::default()
        },
        fallback_after: Duration::from_secs(rng.u64(0..10)),
        model_away: Duration::from_secs(rng.u64(10..300)),
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

fn arrival(
    rng: &mut Rng,
    span: Duration,
    flows: u64,
    models: bool,
    routes: &[Vec<Vec<TargetId>>],
) -> Arrival {
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
        model: (models && rng.bool()).then(|| rng.u64(0..3)),
        patience: Duration::from_millis(patience),
        bytes: rng.usize(1..1_000),
        cancel: one_in(rng, 6).then(|| up_to(rng, Duration::from_secs(30))),
        reclaim: !one_in(rng, 8),
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
