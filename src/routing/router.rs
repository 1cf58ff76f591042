//! The router itself: names of models, and who is meant by them.

use std::collections::BTreeMap;

use crate::chat::ChatRequest;
use crate::config::{Config, Fallback, Provider};
use crate::providers::{List, Models, Providers, prompt_tokens};
use crate::routing::offer::{Offer, Source};
use crate::routing::{Route, RouteError, Stage, TargetRef, auto};

/// The name that leaves the choice to us.
const AUTO: &str = "auto";
/// Whose model `auto` is, in lists.
const OURS: &str = "pointsman";
/// Suggestions that an unknown name gets.
const SUGGESTIONS: usize = 3;
/// Characters of an unknown name that are looked at and said back: a client may send megabytes of it.
const MAX_NAME: usize = 128;

/// From the name of a model to where the call goes. Made once per configuration; shared by all threads.
#[derive(Debug, Clone)]
pub struct Router {
    /// In the order of preference: those of `routing.auto`, other real ones by name, embedded ones by name.
    sources: Vec<Source>,
    /// Who steps in, the preferred first.
    fallback: Vec<Fallback>,
}

/// A model that a client may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// What the client says: the bare name where that leads here, else `provider/name`.
    pub id: String,
    /// The provider's name; our own for `auto`.
    pub provider: String,
    /// Tokens of question and answer together, where that is known.
    pub context: Option<u64>,
    /// Whether it can be called now.
    pub available: bool,
}

impl Router {
    /// A router for the providers of `config`, as available as they were when it was read, with the models that
    /// `providers` offer at the moment of each question.
    pub fn new(config: &Config, providers: &Providers) -> Self {
        let models = |provider: &Provider| providers.models(&provider.name).cloned();
        let router = Router::over(&config.providers, &config.routing.auto, models);
        router.with_fallback(&config.routing.fallback)
    }

    /// A provider without `models` offers what its configuration names.
    pub(super) fn over(
        providers: &BTreeMap<String, Provider>,
        auto: &[String],
        models: impl Fn(&Provider) -> Option<Models>,
    ) -> Self {
        let place = |provider: &Provider| auto.iter().position(|name| *name == provider.name);
        let source = |provider| {
            let models = models(provider).unwrap_or_else(|| Models::new(provider));
            Source::new(provider, place(provider), models)
        };
        let mut sources: Vec<Source> = providers.values().map(source).collect();
        // The sort is stable, and the map is in the order of names.
        sources.sort_by_key(|it| (it.is_embedded, it.auto_place.unwrap_or(usize::MAX)));
        Router {
            sources,
            fallback: Vec::new(),
        }
    }

    pub(super) fn with_fallback(self, fallback: &[Fallback]) -> Self {
        Router {
            fallback: fallback.to_vec(),
            ..self
        }
    }

    /// Where a request goes.
    ///
    /// # Errors
    /// [`RouteError`]: no such model, nobody to call, or a prompt too long for `auto`. A prompt that is too long for a
    /// model that was named isn't refused here: its length is only estimated, and the provider knows.
    pub fn route(&self, request: &ChatRequest) -> Result<Route, RouteError> {
        let now = self.now();
        let mut route = now.route(request)?;
        // Nobody who asks for a made-up answer wants another's, who may be paid for it.
        let first = now.offer(&route.provider);
        if !self.fallback.is_empty() && first.is_some_and(|offer| !offer.source.is_embedded) {
            let tokens = prompt_tokens(request);
            let stages = self
                .fallback
                .iter()
                .filter_map(|next| now.stage(next, tokens));
            let stages = stages.filter(|stage| *stage != route.stages[0]);
            route.stages.extend(stages.collect::<Vec<_>>());
        }
        Ok(route)
    }

    /// All models that are listed, in the order of preference: `auto` first, where somebody answers it.
    pub fn models(&self) -> Vec<ModelInfo> {
        let now = self.now();
        let auto = now.auto().ok();
        auto.into_iter().chain(now.models()).collect()
    }

    /// What a request for `name` would get.
    ///
    /// # Errors
    /// As [`Router::route`].
    pub fn model(&self, name: &str) -> Result<ModelInfo, RouteError> {
        let now = self.now();
        if name == AUTO {
            return now.auto();
        }
        let (offer, model) = now.meant(name)?;
        let route = offer.route(model, String::new())?;
        Ok(ModelInfo {
            id: name.to_string(),
            context: route.known.and_then(|offered| offered.context),
            provider: route.provider,
            available: true,
        })
    }

    fn now(&self) -> Now<'_> {
        Now {
            offers: self.sources.iter().map(Source::offer).collect(),
        }
    }
}

/// All that is offered at one moment, in the order of preference.
struct Now<'a> {
    offers: Vec<Offer<'a>>,
}

impl Now<'_> {
    fn route(&self, request: &ChatRequest) -> Result<Route, RouteError> {
        match request.model.as_str() {
            AUTO => auto::choose(&self.offers, prompt_tokens(request)),
            name => {
                let (offer, model) = self.meant(name)?;
                offer.route(model, "asked for by name".to_string())
            }
        }
    }

    /// One who steps in, if it can be called and the prompt fits.
    fn stage(&self, next: &Fallback, tokens: u64) -> Option<Stage> {
        let offer = self.offer(&next.provider)?;
        let may = offer.is_available() && offer.holds(&next.model, tokens);
        may.then(|| Stage {
            targets: vec![TargetRef {
                provider: next.provider.clone(),
            }],
            model: next.model.clone(),
        })
    }

    fn auto(&self) -> Result<ModelInfo, RouteError> {
        auto::choose(&self.offers, 0)?;
        Ok(ModelInfo {
            id: AUTO.to_string(),
            provider: OURS.to_string(),
            context: auto::context(&self.offers),
            available: true,
        })
    }

    fn models(&self) -> impl Iterator<Item = ModelInfo> {
        let listed = self.offers.iter().flat_map(|offer| {
            let models = offer.known.models.iter();
            models.map(move |offered| (offer, offered))
        });
        listed.map(|(offer, offered)| ModelInfo {
            id: self.id(offer, &offered.model.name),
            provider: offer.provider().to_string(),
            context: offered.context,
            available: offer.is_available(),
        })
    }

    /// Who is meant by a name other than `auto`, and which model of theirs.
    fn meant<'n>(&self, name: &'n str) -> Result<(&Offer<'_>, &'n str), RouteError> {
        let found = self.explicit(name).or_else(|| self.bare(name));
        found.ok_or_else(|| self.unknown(name))
    }

    /// `provider/model`
    fn explicit<'n>(&self, name: &'n str) -> Option<(&Offer<'_>, &'n str)> {
        let (provider, model) = name.split_once('/')?;
        let offer = self.offer(provider)?;
        offer.takes(model).then_some((offer, model))
    }

    /// The first available provider whose configuration names the model, else the first available one that lists it, else
    /// the first that knows it: its advice is the one to give. An embedded provider never stands in for a real one.
    fn bare<'n>(&self, model: &'n str) -> Option<(&Offer<'_>, &'n str)> {
        let listing = || self.offers.iter().filter(|offer| offer.lists(model));
        let first = listing().next()?;
        let alike = |offer: &&Offer<'_>| offer.source.is_embedded == first.source.is_embedded;
        let available = || {
            let alike = listing().filter(alike);
            alike.filter(|offer| offer.is_available())
        };
        let configured = available().find(|offer| offer.configures(model));
        let meant = configured.or_else(|| available().next());
        Some((meant.unwrap_or(first), model))
    }

    fn offer(&self, provider: &str) -> Option<&Offer<'_>> {
        let mut offers = self.offers.iter();
        offers.find(|offer| offer.provider() == provider)
    }

    /// The bare name where that leads to this provider, else the full one.
    fn id(&self, offer: &Offer<'_>, model: &str) -> String {
        match self.explicit(model).or_else(|| self.bare(model)) {
            Some((meant, _)) if meant.provider() == offer.provider() => model.to_string(),
            _ => format!("{}/{model}", offer.provider()),
        }
    }

    fn unknown(&self, name: &str) -> RouteError {
        let name: String = name.chars().take(MAX_NAME).collect();
        let likeness = |known: String| (strsim::jaro_winkler(&name, &known), known);
        let mut known: Vec<(f64, String)> = self.known(&name).into_iter().map(likeness).collect();
        known.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let nearest = known.into_iter().take(SUGGESTIONS);
        let suggestions = nearest.map(|(_, known)| known).collect();
        let (mut awaited, mut unread) = (Vec::new(), Vec::new());
        for offer in self.asked_for(&name).filter(|offer| offer.is_available()) {
            match offer.known.list {
                List::Awaited => awaited.push(offer.provider().to_string()),
                List::Failed(_) => unread.push(offer.provider().to_string()),
                List::Unasked | List::Read(_) => {}
            }
        }
        RouteError::UnknownModel {
            name,
            suggestions,
            awaited,
            unread,
        }
    }

    /// Those who may offer a model of that name: the provider that it begins with, else all.
    fn asked_for(&self, name: &str) -> impl Iterator<Item = &Offer<'_>> {
        let named = self.named_in(name).map(Offer::provider);
        let offers = self.offers.iter();
        offers.filter(move |offer| named.is_none_or(|named| named == offer.provider()))
    }

    /// The provider that a name begins with.
    fn named_in(&self, name: &str) -> Option<&Offer<'_>> {
        let (provider, _) = name.split_once('/')?;
        self.offer(provider)
    }

    /// What might have been meant by `name`: whoever names a provider wants that one.
    fn known(&self, name: &str) -> Vec<String> {
        match self.named_in(name) {
            Some(offer) => {
                let models = offer.known.models.iter();
                let full = models.map(|it| format!("{}/{}", offer.provider(), it.model.name));
                full.collect()
            }
            None => {
                let ids = self.models().map(|model| model.id);
                ids.chain([AUTO.to_string()]).collect()
            }
        }
    }
}
