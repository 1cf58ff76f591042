//! `[alerts]`: what is worth telling somebody about, and whom.

mod rule;
mod webhook;

use std::time::Duration;

use super::environment::Environment;
use super::profile::Profile;
use super::section::Section;
use super::{HOUR, millis, secs};

pub use rule::{AlertKind, AlertRule};
pub use webhook::{Webhook, WebhookKind};

/// `[alerts]`
#[derive(Debug, Clone, PartialEq)]
pub struct Alerts {
    /// Whether anybody looks.
    pub enabled: bool,
    /// How often.
    pub interval: Duration,
    /// Calls, or requests, that a share is judged from.
    pub min_calls: u64,
    /// Alerts that are remembered after they are over.
    pub history: usize,
    /// In the order of [`AlertKind::ALL`].
    pub rules: Vec<AlertRule>,
    /// Who is told, besides the log.
    pub webhooks: Vec<Webhook>,
    /// Of one try to tell a webhook.
    pub webhook_timeout: Duration,
    /// Tries to tell it, the first included.
    pub webhook_attempts: u32,
    /// The wait before the second try; it doubles before each further one.
    pub webhook_wait: Duration,
    /// What may wait to be told to one.
    pub webhook_queue: usize,
}

impl Alerts {
    pub(super) fn read(
        section: &mut Section<'_>,
        profile: Profile,
        metrics: bool,
        environment: &Environment,
    ) -> Self {
        let enabled = section.flag("enabled");
        if enabled == Some(true) && !metrics {
            let message =
                "needs telemetry.metrics, which is false: alerts go by what is counted there";
            section.refuse("enabled", message);
        }
        let rules = section.section("rules", |section| {
            let kinds = AlertKind::ALL.into_iter();
            kinds
                .map(|kind| section.section(kind.word(), |section| AlertRule::read(section, kind)))
                .collect()
        });
        let webhooks = section.sections("webhooks", |section| Webhook::read(section, environment));
        Alerts {
            enabled: enabled.unwrap_or(metrics && profile != Profile::Test),
            interval: section
                .duration("interval", millis(100)..=HOUR)
                .unwrap_or(secs(5)),
            min_calls: section.count("min_calls", 1..=1_000_000).unwrap_or(20),
            history: section.count("history", 1..=10_000).unwrap_or(100),
            rules,
            webhooks: webhooks.unwrap_or_default(),
            webhook_timeout: section
                .duration("webhook_timeout", millis(10)..=HOUR)
                .unwrap_or(secs(10)),
            webhook_attempts: section.count("webhook_attempts", 1..=100).unwrap_or(6),
            webhook_wait: section
                .duration("webhook_wait", millis(1)..=HOUR)
                .unwrap_or(secs(2)),
            webhook_queue: section.count("webhook_queue", 1..=10_000).unwrap_or(64),
        }
    }
}
