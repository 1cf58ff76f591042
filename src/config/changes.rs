//! What differs between two configurations, knob by knob, and which of it a running gateway can follow.
//!
//! Every field of every section is named here once: one that is forgotten does not compile.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Access, Adaptive, Alerts, Breaker, ClientKey, Config, Engine, Gate, Learn, Limits, Live, Log,
    OperationTimeouts, Pool, Provider, Queue, Retry, Routing, Server, Shares, Telemetry,
    Thresholds, Throttle, Timeouts, Watchdog, Weights,
};

/// What differs between two configurations, by the names of knobs. No values: one may be a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a running gateway can follow; a provider, or a client's key, that is there on one side alone is named itself.
    pub changed: Vec<String>,
    /// What counts from the next start on.
    pub needs_restart: Vec<String>,
    /// Providers that there were not before, by name.
    pub added: Vec<String>,
    /// Providers that there are no more, by name.
    pub removed: Vec<String>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.needs_restart.is_empty()
    }
}

/// Names the fields of a struct that differ; it does not compile with one left out. Each stands under `live` or, where it
/// counts from the next start on, under `fixed`. Those under `apart` are looked at by whoever calls.
macro_rules! compare {
    (
        $changes:expr, $path:expr, $old:expr, $new:expr, $of:ident =>
        live($($live:ident),*) fixed($($fixed:ident),*) apart($($apart:ident),*)
    ) => {{
        let (path, old, new) = ($path, $old, $new);
        let $of { $($live: _,)* $($fixed: _,)* $($apart: _,)* } = old;
        $(if old.$live != new.$live {
            $changes.changed.push(format!("{path}{}", stringify!($live)));
        })*
        $(if old.$fixed != new.$fixed {
            $changes.needs_restart.push(format!("{path}{}", stringify!($fixed)));
        })*
    }};
}

impl Config {
    /// What is different in `to`.
    ///
    /// ```
    /// use pointsman::Config;
    ///
    /// let before = Config::from_toml("limits.global = 4", "before.toml")?;
    /// let after = Config::from_toml("limits.global = 5\nserver.listen = \"127.0.0.1:9000\"", "after.toml")?;
    /// let changes = before.changes(&after);
    /// // The embedded provider may have as many calls in flight as there are in all.
    /// assert_eq!(changes.changed, ["limits.global", "providers.embedded.max_inflight"]);
    /// assert_eq!(changes.needs_restart, ["server.listen"]);
    /// # Ok::<(), pointsman::config::ConfigError>(())
    /// ```
    pub fn changes(&self, to: &Config) -> Changes {
        let mut changes = Changes::default();
        let found = &mut changes;
        compare!(found, "", self, to, Config =>
            live(profile) fixed()
            apart(
                server, access, engine, limits, queue, timeouts, providers, routing, watchdog, throttle,
                telemetry, alerts, log
            )
        );
        of_server(found, self, to);
        compare!(found, "engine.", &self.engine, &to.engine, Engine =>
            live(workers) fixed() apart()
        );
        of_limits(found, &self.limits, &to.limits);
        of_queue(found, &self.queue, &to.queue);
        of_timeouts(found, &self.timeouts, &to.timeouts);
        of_providers(found, &self.providers, &to.providers);
        compare!(found, "routing.", &self.routing, &to.routing, Routing =>
            live(auto, model_list_refresh, fallback, fallback_after, model_away) fixed() apart()
        );
        compare!(found, "watchdog.", &self.watchdog, &to.watchdog, Watchdog =>
            live(quarantine_after, reclaim_after, reclaim_execute)
            fixed(max_lost_workers, audit, health_check) apart()
        );
        of_throttle(found, &self.throttle, &to.throttle);
        compare!(found, "telemetry.", &self.telemetry, &to.telemetry, Telemetry =>
            live()
            fixed(
                max_events, max_age, metrics, metric_models, window, lifecycle_file, lifecycle_file_size,
                lifecycle_files, lifecycle_backlog
            )
            apart(live)
        );
        compare!(found, "telemetry.live_", &self.telemetry.live, &to.telemetry.live, Live =>
            live() fixed(interval, max, rows, target) apart()
        );
        of_alerts(found, &self.alerts, &to.alerts);
        compare!(found, "log.", &self.log, &to.log, Log =>
            live(level) fixed() apart()
        );
        changes.changed.sort();
        changes.needs_restart.sort();
        changes
    }

    /// This configuration, in a gateway that runs with `running`: what counts from the next start on is as it was.
    pub(crate) fn in_force_after(mut self, running: &Config) -> Config {
        self.server = Server {
            json_depth: self.server.json_depth,
            stream_keepalive: self.server.stream_keepalive,
            drain: self.server.drain,
            ..running.server.clone()
        };
        self.throttle = Throttle {
            proc: running.throttle.proc.clone(),
            cgroup: running.throttle.cgroup.clone(),
            interval: running.throttle.interval,
            history: running.throttle.history,
            ..self.throttle
        };
        self.telemetry = running.telemetry.clone();
        self.alerts = running.alerts.clone();
        self.watchdog = Watchdog {
            quarantine_after: self.watchdog.quarantine_after,
            reclaim_after: self.watchdog.reclaim_after,
            reclaim_execute: self.watchdog.reclaim_execute,
            ..running.watchdog
        };
        self
    }
}

fn of_server(found: &mut Changes, old: &Config, new: &Config) {
    compare!(found, "server.", &old.server, &new.server, Server =>
        live(json_depth, stream_keepalive, drain)
        fixed(
            listen, max_connections, operation_connections, max_head, max_headers, max_body,
            max_body_total, head_timeout, body_timeout, idle_timeout, park_after, write_timeout,
            resend_grace, hand_over
        ) apart()
    );
    compare!(found, "server.", &old.access, &new.access, Access =>
        live(allowed_hosts, allowed_origins) fixed() apart(keys)
    );
    let by_name = |keys: &'_ [ClientKey]| -> BTreeMap<String, ClientKey> {
        let named = keys.iter().map(|key| (key.name.clone(), key.clone()));
        named.collect()
    };
    let (old, new) = (by_name(&old.access.keys), by_name(&new.access.keys));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name));
    found
        .changed
        .extend(differ.map(|name| format!("server.keys.{name}")));
}

fn of_limits(found: &mut Changes, old: &Limits, new: &Limits) {
    compare!(found, "limits.", old, new, Limits =>
        live(global, session, sessions, session_idle, session_turn) fixed() apart(adaptive, gate)
    );
    compare!(found, "limits.adaptive.", &old.adaptive, &new.adaptive, Adaptive =>
        live(enabled, start, bound, cut, recover, recover_small, small, latency) fixed() apart()
    );
    compare!(found, "limits.gate.", &old.gate, &new.gate, Gate =>
        live(max, jitter, pace, window) fixed() apart()
    );
}

fn of_queue(found: &mut Changes, old: &Queue, new: &Queue) {
    compare!(found, "queue.", old, new, Queue =>
        live(capacity, per_session, max_bytes, provider_share, timeout, pressure_on, pressure_off)
        fixed() apart(weights)
    );
    compare!(found, "queue.weights.", &old.weights, &new.weights, Weights =>
        live(high, medium, low) fixed() apart()
    );
}

fn of_throttle(found: &mut Changes, old: &Throttle, new: &Throttle) {
    compare!(found, "throttle.", old, new, Throttle =>
        live(
            enabled, smoothing, margin, rise_after, fall_after, raise_every, min, max, refuse_low,
            force_max
        )
        fixed(proc, cgroup, interval, history) apart(cpu, memory, files, share)
    );
    for (name, old, new) in [
        ("cpu", &old.cpu, &new.cpu),
        ("memory", &old.memory, &new.memory),
        ("files", &old.files, &new.files),
    ] {
        compare!(found, format!("throttle.{name}."), old, new, Thresholds =>
            live(normal, high, critical, emergency) fixed() apart()
        );
    }
    compare!(found, "throttle.share.", &old.share, &new.share, Shares =>
        live(high, critical, emergency) fixed() apart()
    );
}

fn of_alerts(found: &mut Changes, old: &Alerts, new: &Alerts) {
    compare!(found, "alerts.", old, new, Alerts =>
        live()
        fixed(
            enabled, interval, min_calls, history, webhooks, webhook_timeout, webhook_attempts, webhook_wait,
            webhook_queue
        )
        apart(rules)
    );
    // Each kind has its own, at its place.
    let rules = old.rules.iter().zip(&new.rules);
    let differ = rules.filter(|(old, new)| old != new);
    found
        .needs_restart
        .extend(differ.map(|(_, rule)| format!("alerts.rules.{}", rule.kind)));
}

fn of_timeouts(found: &mut Changes, old: &Timeouts, new: &Timeouts) {
    compare!(found, "timeouts.", old, new, Timeouts =>
        live(normal, streaming, continuation, connect, idle, first_byte, max, long_prompt_tokens)
        fixed() apart(learn)
    );
    compare!(found, "timeouts.learn.", &old.learn, &new.learn, Learn =>
        live(enabled, samples, window, factor, floor, keys) fixed() apart()
    );
}

fn of_providers(
    found: &mut Changes,
    old: &BTreeMap<String, Provider>,
    new: &BTreeMap<String, Provider>,
) {
    let only = |these: &BTreeMap<String, Provider>, those: &BTreeMap<String, Provider>| {
        let names = these.keys().filter(|name| !those.contains_key(*name));
        names.cloned().collect::<Vec<_>>()
    };
    (found.added, found.removed) = (only(new, old), only(old, new));
    let alone = found.added.iter().chain(&found.removed);
    let alone: Vec<String> = alone.map(|name| format!("providers.{name}")).collect();
    found.changed.extend(alone);
    for (name, new) in new {
        if let Some(old) = old.get(name) {
            of_provider(found, &format!("providers.{name}."), old, new);
        }
    }
}

// What is wrong with the place of a key is told beside the key, which is then missing.
fn of_provider(found: &mut Changes, path: &str, old: &Provider, new: &Provider) {
    compare!(found, path, old, new, Provider =>
        live(
            kind, base_url, ca_file, api_key_env, api_key_file, api_key, max_inflight, models, model_list,
            faults, latency, pace
        ) fixed() apart(name, api_key_problem, pool, timeouts, retry, breaker)
    );
    compare!(found, format!("{path}pool."), &old.pool, &new.pool, Pool =>
        live(max_connections, max_idle_age, max_age) fixed() apart()
    );
    compare!(found, format!("{path}timeouts."), &old.timeouts, &new.timeouts, OperationTimeouts =>
        live(plain, web_search, thinking, web_search_thinking) fixed() apart()
    );
    compare!(found, format!("{path}retry."), &old.retry, &new.retry, Retry =>
        live(attempts, base, max, budget, floor, refill) fixed() apart()
    );
    compare!(found, format!("{path}breaker."), &old.breaker, &new.breaker, Breaker =>
        live(enabled, attempts, window, failures, connects, wait, max_wait, jitter, lease, successes)
        fixed() apart()
    );
}

impl Provider {
    /// Whether calls to it are made just as calls to `other`: what admission alone goes by may differ.
    pub(crate) fn calls_as(&self, other: &Provider) -> bool {
        let alike = Provider {
            max_inflight: other.max_inflight,
            retry: other.retry,
            breaker: other.breaker,
            ..self.clone()
        };
        alike == *other
    }

    /// Whether it is reached as `other` is: the same kind, address and key. What was learned of one then holds for the other.
    pub(crate) fn is_reached_as(&self, other: &Provider) -> bool {
        let identity = |provider: &Provider| {
            let Provider {
                kind,
                base_url,
                api_key,
                ..
            } = provider;
            (*kind, base_url.clone(), api_key.clone())
        };
        identity(self) == identity(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Loader};

    fn config(text: &str) -> Config {
        let environment = Environment::from_iter([("A", "sk-one"), ("B", "sk-two")]);
        let config = Loader::new(environment).from_toml(text, "test.toml");
        config.expect("accepted")
    }

    #[test]
    fn what_is_alike_has_not_changed() {
        let text = "profile = \"prod\"\n[providers.mine]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1\"";
        assert!(config(text).changes(&config(text)).is_empty());
    }

    #[test]
    fn a_profile_changes_all_that_follows_it() {
        let changes = config("").changes(&config("profile = \"prod\""));
        for knob in [
            "profile",
            "limits.global",
            "queue.capacity",
            "providers.kimi.max_inflight",
            "providers.glm.pool.max_connections",
        ] {
            assert!(
                changes.changed.iter().any(|changed| changed == knob),
                "{knob}"
            );
        }
        assert_eq!(changes.needs_restart, ["server.max_connections"]);
    }

    #[test]
    fn providers_and_keys_are_named_and_what_they_hold_is_not() {
        let before = config(
            "server.keys = [{ name = \"one\", key_env = \"A\" }, { name = \"old\", key_env = \"B\" }]\n\
             [providers.gone]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1\"\n\
             [providers.mine]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1\"\napi_key_env = \"A\"",
        );
        let after = config(
            "server.keys = [{ name = \"one\", key_env = \"B\", admin = true }]\n\
             [providers.new]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1\"\n\
             [providers.mine]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:2\"\napi_key_env = \"B\"\nretry.attempts = 5",
        );
        let changes = before.changes(&after);
        assert_eq!(
            changes.changed,
            [
                "providers.gone",
                "providers.mine.api_key",
                "providers.mine.api_key_env",
                "providers.mine.base_url",
                "providers.mine.retry.attempts",
                "providers.new",
                "routing.auto",
                "server.keys.old",
                "server.keys.one",
            ]
        );
        assert_eq!(
            (changes.added.join(","), changes.removed.join(",")),
            ("new".into(), "gone".into())
        );
        assert!(!format!("{changes:?}").contains("sk-"));
        let mine = |config: &Config| config.providers["mine"].clone();
        assert!(!mine(&after).is_reached_as(&mine(&before)));
    }

    #[test]
    fn what_needs_a_restart_stays_in_force_and_is_told_again() {
        let running = config("server.max_body = \"1MiB\"\nserver.drain = \"5s\"");
        let file = config(
            "server.max_body = \"2MiB\"\nserver.drain = \"6s\"\ntelemetry.max_events = 500\ntelemetry.metrics = false",
        );
        let after = file.clone().in_force_after(&running);
        let now = running.changes(&after);
        assert_eq!(
            (now.changed.as_slice(), now.needs_restart.len()),
            (&["server.drain".to_owned()][..], 0)
        );
        assert_eq!(
            after.changes(&file).needs_restart,
            [
                "alerts.enabled",
                "server.max_body",
                "telemetry.max_events",
                "telemetry.metrics"
            ],
            "nobody looks for alerts where nothing is counted"
        );
    }
}
