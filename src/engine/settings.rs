//! From the configuration to what the core works by.

use std::collections::HashMap;
use std::sync::Arc;

use super::shell::Target;
use crate::admission::{
    BreakerSettings, GateSettings, Learning, LimitSettings, OrphanSettings, ProviderId,
    ProviderSettings, QueueSettings, RetrySettings, Settings,
};
use crate::config::{Config, Provider, ProviderKind};

/// The core's settings for these targets, in this order: one provider each. One without a name is for jobs that need no
/// provider. It has no limit but the global one, and like every other may not take the slots kept for idle providers.
pub(super) fn settings(config: &Config, targets: &[Target]) -> Settings {
    let there = targets.iter().filter(|target| !target.is_gone);
    let named = there.filter(|target| target.name.is_some()).count();
    let providers = targets.iter().map(|target| {
        let name = target.name.as_ref();
        provider(config, name.and_then(|name| config.providers.get(&**name)))
    });
    Settings {
        workers: config.engine.workers.unwrap_or(config.limits.global),
        global: config.limits.global,
        session: config.limits.session,
        sessions: config.limits.sessions,
        session_turn: config.limits.session_turn,
        queue: queue(config, named),
        providers: providers.collect(),
        targets: (0..targets.len())
            .map(|index| ProviderId(index as u32))
            .collect(),
        learning: learning(config),
        orphans: OrphanSettings {
            quarantine_after: config.watchdog.quarantine_after,
            reclaim_after: config.watchdog.reclaim_after,
            max_lost: config.watchdog.max_lost_workers,
        },
    }
}

/// The names of those who can be called, in the order of their rows; the first row is nobody's.
pub(super) fn names(targets: &[Target]) -> Vec<Arc<str>> {
    let names = targets.iter().filter_map(|target| target.name.clone());
    names.collect()
}

/// The limit that an API key gives each of its sessions, by the key's name.
pub(super) fn session_limits(config: &Config) -> HashMap<String, usize> {
    let keys = config.access.keys.iter();
    keys.filter_map(|key| Some((key.name.clone(), key.session_limit?)))
        .collect()
}

fn provider(config: &Config, provider: Option<&Provider>) -> ProviderSettings {
    match provider {
        Some(provider) => ProviderSettings {
            reserves: provider.kind != ProviderKind::Embedded && provider.is_available(),
            limit: provider.max_inflight,
            // Who is in this process takes what it is given.
            adaptive: config.limits.adaptive.enabled && provider.kind != ProviderKind::Embedded,
            breaker: breaker(provider),
            retry: retry(provider),
        },
        // Nobody, one that is gone, or a provider handed in by an embedding program without a section of its own.
        None => ProviderSettings::fixed(config.limits.global),
    }
}

fn breaker(provider: &Provider) -> Option<BreakerSettings> {
    let breaker = &provider.breaker;
    breaker.enabled.then_some(BreakerSettings {
        attempts: breaker.attempts,
        window: breaker.window,
        failures: breaker.failures,
        connects: breaker.connects,
        wait: breaker.wait,
        max_wait: breaker.max_wait,
        jitter: breaker.jitter,
        lease: breaker.lease,
        successes: breaker.successes,
    })
}

fn retry(provider: &Provider) -> RetrySettings {
    let retry = &provider.retry;
    RetrySettings {
        attempts: retry.attempts,
        base: retry.base,
        max: retry.max,
        budget: retry.budget,
        floor: retry.floor,
        refill: retry.refill,
    }
}

fn learning(config: &Config) -> Learning {
    let (adaptive, gate) = (&config.limits.adaptive, &config.limits.gate);
    Learning {
        seed: fastrand::Rng::new().u64(..),
        limit: LimitSettings {
            start: adaptive.start,
            bound: adaptive.bound,
            cut: adaptive.cut,
            recover: adaptive.recover,
            recover_small: adaptive.recover_small,
            small: adaptive.small,
            latency: adaptive.latency,
        },
        gate: GateSettings {
            max: gate.max,
            jitter: gate.jitter,
            pace: gate.pace,
            window: gate.window,
        },
        fallback_after: config.routing.fallback_after,
        model_away: config.routing.model_away,
    }
}

fn queue(config: &Config, providers: usize) -> QueueSettings {
    let queue = &config.queue;
    let places = |share: f64| (queue.capacity as f64 * share).ceil() as usize;
    QueueSettings {
        capacity: queue.capacity,
        per_session: queue.per_session,
        max_bytes: queue.max_bytes,
        // With nobody else to keep places for, one provider may have them all.
        per_provider: if providers > 1 {
            places(queue.provider_share)
        } else {
            queue.capacity
        },
        timeout: queue.timeout,
        weights: [queue.weights.high, queue.weights.medium, queue.weights.low],
        pressure_on: places(queue.pressure_on),
        pressure_off: places(queue.pressure_off),
    }
}
