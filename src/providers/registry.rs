//! All providers of a configuration, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::SharedClock;
use crate::config::{self, Config, Model, ProviderKind, Timeouts};

use super::Provider;
use super::dialect::Plain;
use super::embedded::{Embedded, fault_models};
use super::glm::Glm;
use super::kimi::Kimi;
use super::openai::OpenAi;

/// The providers, made once at the start and shared by all workers.
#[derive(Debug, Clone)]
pub struct Providers {
    by_name: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    config: config::Provider,
    provider: Arc<dyn Provider>,
}

/// A model that somebody offers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offer<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// The model.
    pub model: &'a Model,
    /// Whether calls can be made at all: a provider without its key is listed all the same.
    pub is_available: bool,
}

impl Providers {
    /// Makes all of them. Nothing is connected to yet.
    pub fn new(config: &Config, clock: SharedClock) -> Self {
        Providers::of(&config.providers, &config.timeouts, &clock)
    }

    fn of(
        providers: &BTreeMap<String, config::Provider>,
        timeouts: &Timeouts,
        clock: &SharedClock,
    ) -> Self {
        let make = |(name, entry): (&String, &config::Provider)| {
            let mut entry = entry.clone();
            let provider = provider(&entry, timeouts, SharedClock::clone(clock));
            if entry.kind == ProviderKind::Embedded {
                entry.models.extend(fault_models(&entry));
            }
            let entry = Entry {
                config: entry,
                provider,
            };
            (name.clone(), entry)
        };
        Providers {
            by_name: providers.iter().map(make).collect(),
        }
    }

    /// The provider of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.by_name.get(name).map(|entry| &entry.provider)
    }

    /// Its configuration, with the models that it offers by itself.
    pub fn config(&self, name: &str) -> Option<&config::Provider> {
        self.by_name.get(name).map(|entry| &entry.config)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// All models of all providers.
    pub fn offers(&self) -> impl Iterator<Item = Offer<'_>> {
        self.by_name.iter().flat_map(|(name, entry)| {
            let is_available = entry.config.is_available();
            entry.config.models.iter().map(move |model| Offer {
                provider: name,
                model,
                is_available,
            })
        })
    }
}

fn provider(
    entry: &config::Provider,
    timeouts: &Timeouts,
    clock: SharedClock,
) -> Arc<dyn Provider> {
    match entry.kind {
        ProviderKind::Kimi => Arc::new(OpenAi::new(entry, timeouts, clock, Box::new(Kimi))),
        ProviderKind::Glm => {
            let dialect = Box::new(Glm::at(&entry.base_url));
            Arc::new(OpenAi::new(entry, timeouts, clock, dialect))
        }
        ProviderKind::OpenAi => Arc::new(OpenAi::new(entry, timeouts, clock, Box::new(Plain))),
        ProviderKind::Embedded => Arc::new(Embedded::new(entry, timeouts, clock)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ChatRequest;
    use crate::clock::SystemClock;
    use crate::config::Thinking;
    use crate::providers::testing::{answer, model, provider, timeouts};

    fn providers(faults: bool) -> Providers {
        let mut embedded = provider("embedded", ProviderKind::Embedded);
        embedded.models = vec![model("embedded", Thinking::Never)];
        embedded.faults = faults;
        let mut kimi = provider("kimi", ProviderKind::Kimi);
        kimi.models = vec![model("kimi-k3", Thinking::Always)];
        let both = [embedded, kimi].map(|entry| (entry.name.clone(), entry));
        Providers::of(&both.into(), &timeouts(), &SystemClock::shared())
    }

    #[test]
    fn a_provider_without_its_key_is_listed_as_not_available() {
        let providers = providers(false);
        let offers = providers.offers().map(|offer| {
            let Offer {
                provider,
                model,
                is_available,
            } = offer;
            (provider, model.name.as_str(), is_available)
        });
        let expected = [("embedded", "embedded", true), ("kimi", "kimi-k3", false)];
        assert_eq!(offers.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn models_that_break_things_are_offered_where_they_are_switched_on() {
        let faulty = |providers: &Providers| {
            let names = providers.offers().map(|offer| offer.model.name.clone());
            names.filter(|name| name.starts_with("fault-")).count()
        };
        assert_eq!(faulty(&providers(false)), 0);
        assert!(faulty(&providers(true)) > 0);
    }

    #[test]
    fn a_provider_is_found_by_its_name_and_answers() {
        let providers = providers(false);
        let embedded = providers.get("embedded").expect("it is there");
        let reply = answer(&**embedded, &ChatRequest::new("auto").user("Hi"));
        assert_eq!(reply.model, "embedded");
        assert!(providers.get("other").is_none());
        assert_eq!(providers.names().collect::<Vec<_>>(), ["embedded", "kimi"]);
    }
}
