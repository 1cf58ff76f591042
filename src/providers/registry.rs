//! All providers of a configuration, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::SharedClock;
use crate::config::{self, Config, ProviderKind, Timeouts};

use super::Provider;
use super::dialect::{Dialect, Plain};
use super::embedded::Embedded;
use super::glm::Glm;
use super::kimi::Kimi;
use super::models::Models;
use super::openai::OpenAi;

/// The providers of one configuration, shared by all workers.
#[derive(Debug, Clone)]
pub struct Providers {
    by_name: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    models: Models,
    provider: Arc<dyn Provider>,
}

impl Providers {
    /// Makes all of them. Nothing is connected to yet.
    pub fn new(config: &Config, clock: SharedClock) -> Self {
        Providers::of(&config.providers, &config.timeouts, &clock)
    }

    /// Those of another configuration. Who is configured as before is the same as before, with its connections; who is reached as
    /// before keeps what it was found to list. Nothing is connected to yet.
    pub fn renewed(&self, before: &Config, now: &Config, clock: &SharedClock) -> Self {
        let make = |(name, entry): (&String, &config::Provider)| {
            let known = self.by_name.get(name).zip(before.providers.get(name));
            let renewed = match known {
                Some((known, old)) if old.calls_as(entry) && before.timeouts == now.timeouts => {
                    known.clone()
                }
                known => {
                    let same = known.filter(|(_, old)| old.is_reached_as(entry));
                    let models = same.map_or_else(
                        || Models::new(entry),
                        |(known, _)| known.models.renewed(entry),
                    );
                    let clock = SharedClock::clone(clock);
                    let provider = provider(entry, models.clone(), &now.timeouts, clock);
                    Entry { models, provider }
                }
            };
            (name.clone(), renewed)
        };
        Providers {
            by_name: now.providers.iter().map(make).collect(),
        }
    }

    fn of(
        providers: &BTreeMap<String, config::Provider>,
        timeouts: &Timeouts,
        clock: &SharedClock,
    ) -> Self {
        let make = |(name, entry): (&String, &config::Provider)| {
            let models = Models::new(entry);
            let clock = SharedClock::clone(clock);
            let provider = provider(entry, models.clone(), timeouts, clock);
            (name.clone(), Entry { models, provider })
        };
        Providers {
            by_name: providers.iter().map(make).collect(),
        }
    }

    /// The provider of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.by_name.get(name).map(|entry| &entry.provider)
    }

    /// The models of the provider of that name: shared, so that whoever has them sees what becomes known of them.
    pub fn models(&self, name: &str) -> Option<&Models> {
        self.by_name.get(name).map(|entry| &entry.models)
    }

    /// All of them with their names, in alphabetical order.
    pub fn named(&self) -> impl Iterator<Item = (Arc<str>, Arc<dyn Provider>)> {
        let entries = self.by_name.iter();
        entries.map(|(name, entry)| (Arc::from(name.as_str()), Arc::clone(&entry.provider)))
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

fn provider(
    entry: &config::Provider,
    models: Models,
    timeouts: &Timeouts,
    clock: SharedClock,
) -> Arc<dyn Provider> {
    let dialect: Box<dyn Dialect> = match entry.kind {
        ProviderKind::Embedded => return Arc::new(Embedded::new(entry, timeouts, clock)),
        ProviderKind::Kimi => Box::new(Kimi),
        ProviderKind::Glm => Box::new(Glm::at(&entry.base_url)),
        ProviderKind::OpenAi => Box::new(Plain),
    };
    Arc::new(OpenAi::new(entry, models, timeouts, clock, dialect))
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
    fn models_that_break_things_are_offered_where_they_are_switched_on() {
        let faulty = |providers: &Providers| {
            let known = providers.models("embedded").expect("it is there").known();
            let names = known.models.iter().map(|offered| &offered.model.name);
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
