//! Tokens by model. Which models there are is known only as they answer, so these counters are made then, and bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use prometheus::{IntCounter, IntCounterVec};

use super::table::Maker;
use super::words::{OTHER, TOKENS};

/// A model's counters, in the order of [`TOKENS`].
type Counters = Arc<Vec<IntCounter>>;
/// Counters by model.
type Models = RwLock<HashMap<Box<str>, Counters>>;

/// A provider, with its models that were heard of.
#[derive(Debug)]
struct Provider {
    name: Arc<str>,
    models: Models,
}

/// What one call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokensUsed {
    /// Tokens of the question.
    pub prompt: u64,
    /// Tokens of the answer, reasoning included.
    pub completion: u64,
    /// Tokens of the question that came from the provider's cache.
    pub cached: u64,
    /// Tokens of the answer that were reasoning.
    pub reasoning: u64,
}

/// The counters of all models.
#[derive(Debug)]
pub(super) struct Tokens {
    family: IntCounterVec,
    /// By row. A model is looked up once for each call that ends well.
    providers: RwLock<Vec<Arc<Provider>>>,
    /// How many more models get counters of their own.
    room: AtomicUsize,
}

impl Tokens {
    pub(super) fn new(make: &Maker, models: usize) -> Tokens {
        let family = make.open_counters(
            "tokens_total",
            "Tokens that providers say they counted. Cached ones are among the prompt's, reasoning among the completion's.",
            &["provider", "model", "kind"],
        );
        Tokens {
            family,
            providers: RwLock::default(),
            room: AtomicUsize::new(models),
        }
    }

    /// There are these rows from now on: those that there were, and others after them.
    pub(super) fn grow(&self, names: &[Arc<str>]) {
        let mut providers = self.providers.write();
        let there = providers.len();
        providers.extend(names.iter().skip(there).map(|name| {
            // So that each provider has its family before the first answer.
            let others = (OTHER.into(), self.make(name, OTHER));
            let models = RwLock::new(HashMap::from([others]));
            let name = Arc::clone(name);
            Arc::new(Provider { name, models })
        }));
    }

    pub(super) fn record(&self, provider: usize, model: &str, used: TokensUsed) {
        let found = self.providers.read().get(provider).cloned();
        let Some(found) = found else { return };
        let Provider { name, models } = &*found;
        let known = models.read().get(model).cloned();
        let counters = known.unwrap_or_else(|| self.meet(name, models, model));
        let counts = [used.prompt, used.completion, used.cached, used.reasoning];
        for (counter, count) in counters.iter().zip(counts) {
            counter.inc_by(count);
        }
    }

    /// The counters of a model that was not heard of; those of [`OTHER`] where there are too many.
    fn meet(&self, provider: &str, models: &Models, model: &str) -> Counters {
        let mut models = models.write();
        if let Some(counters) = models.get(model) {
            return Arc::clone(counters);
        }
        let take = |left: usize| left.checked_sub(1);
        let has_room = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        match (has_room, models.get(OTHER)) {
            (Err(_), Some(others)) => Arc::clone(others),
            _ => {
                let counters = self.make(provider, model);
                models.insert(model.into(), Arc::clone(&counters));
                counters
            }
        }
    }

    fn make(&self, provider: &str, model: &str) -> Counters {
        let kinds = TOKENS.iter();
        let counter = |kind: &&str| {
            let found = self
                .family
                .get_metric_with_label_values(&[provider, model, *kind]);
            found.expect("as many values as labels")
        };
        Arc::new(kinds.map(counter).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(prompt: u64) -> TokensUsed {
        TokensUsed {
            prompt,
            ..TokensUsed::default()
        }
    }

    #[test]
    fn models_beyond_the_bound_are_counted_together() {
        let tokens = Tokens::new(&Maker::default(), 2);
        tokens.grow(&["kimi".into(), "glm".into()]);
        for (provider, model) in [(0, "a"), (1, "b"), (0, "c"), (1, "d"), (0, "a")] {
            tokens.record(provider, model, used(10));
        }
        let count = |provider: &str, model: &str| {
            let labels = [provider, model, "prompt"];
            tokens.family.with_label_values(&labels).get()
        };
        assert_eq!((count("kimi", "a"), count("glm", "b")), (20, 10));
        assert_eq!((count("kimi", OTHER), count("glm", OTHER)), (10, 10));
    }

    #[test]
    fn nobody_s_tokens_are_counted_nowhere() {
        let tokens = Tokens::new(&Maker::default(), 2);
        tokens.grow(&["kimi".into()]);
        tokens.record(1, "a", used(10));
        assert_eq!(tokens.room.load(Ordering::Relaxed), 2);
    }
}
