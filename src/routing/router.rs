//! The router itself: names of models, and who is meant by them.

use std::collections::BTreeMap;

use crate::chat::ChatRequest;
use crate::config::{Config, Fallback, Provider};
use crate::providers::prompt_tokens;
use crate::routing::offer::Offer;
use crate::routing::{Route, RouteError, Stage, TargetRef, auto};

/// The name that leaves the choice to us.
const AUTO: &str = "auto";
/// Suggestions that an unknown name gets.
const SUGGESTIONS: usize = 3;
/// Characters of an unknown name that are looked at and said back: a client may send megabytes of it.
const MAX_NAME: usize = 128;

/// From the name of a model to where the call goes. Made once per configuration; shared by all threads.
#[derive(Debug, Clone)]
pub struct Router {
    /// In the order of preference: those of `routing.auto`, other real ones by name, embedded ones by name.
    offers: Vec<Offer>,
    /// Who steps in, the preferred first.
    fallback: Vec<Fallback>,
}

/// A model that a client may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// What the client says: the bare name where that leads here, else `provider/name`.
    pub id: String,
    /// The provider's name.
    pub provider: String,
    /// Tokens of question and answer together.
    pub context: u64,
    /// Whether it can be called now.
    pub available: bool,
}

impl Router {
    /// A router for the providers of `config`, as available as they were when it was read.
    pub fn new(config: &Config) -> Self {
        let router = Router::over(&config.providers, &config.routing.auto);
        router.with_fallback(&config.routing.fallback)
    }

    pub(super) fn over(providers: &BTreeMap<String, Provider>, auto: &[String]) -> Self {
        let place = |provider: &Provider| auto.iter().position(|name| *name == provider.name);
        let offer = |provider| Offer::new(provider, place(provider));
        let mut offers: Vec<Offer> = providers.values().map(offer).collect();
        // The sort is stable, and the map is in the order of names.
        offers.sort_by_key(|offer| (offer.is_embedded, offer.auto_place.unwrap_or(usize::MAX)));
        Router {
            offers,
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
        let mut route = self.first(request)?;
        // Nobody who asks for a made-up answer wants another's, who may be paid for it.
        let first = self.offer(&route.provider);
        if !self.fallback.is_empty() && first.is_some_and(|offer| !offer.is_embedded) {
            let tokens = prompt_tokens(request);
            let stages = self
                .fallback
                .iter()
                .filter_map(|next| self.stage(next, tokens));
            let stages = stages.filter(|stage| *stage != route.stages[0]);
            route.stages.extend(stages.collect::<Vec<_>>());
        }
        Ok(route)
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

    fn first(&self, request: &ChatRequest) -> Result<Route, RouteError> {
        match request.model.as_str() {
            AUTO => auto::choose(&self.offers, prompt_tokens(request)),
            name => match self.explicit(name).or_else(|| self.bare(name)) {
                Some((offer, model)) => offer.route(model, "asked for by name".to_string()),
                None => Err(self.unknown(name)),
            },
        }
    }

    /// All models that are listed, in the order of preference.
    pub fn models(&self) -> Vec<ModelInfo> {
        let listed = self.offers.iter().flat_map(|offer| {
            let models = offer.models.iter();
            models.map(move |model| (offer, model))
        });
        listed
            .map(|(offer, model)| ModelInfo {
                id: self.id(offer, &model.name),
                provider: offer.provider.clone(),
                context: model.context,
                available: offer.is_available(),
            })
            .collect()
    }

    /// `provider/model`
    fn explicit<'a>(&self, name: &'a str) -> Option<(&Offer, &'a str)> {
        let (provider, model) = name.split_once('/')?;
        let offer = self.offer(provider)?;
        offer.takes(model).then_some((offer, model))
    }

    /// The first available provider that lists the model, else the first that lists it: its advice is the one to give.
    /// An embedded provider never stands in for a real one.
    fn bare<'a>(&self, model: &'a str) -> Option<(&Offer, &'a str)> {
        let mut listing = self.offers.iter().filter(|offer| offer.lists(model));
        let first = listing.next()?;
        let alike = |offer: &&Offer| offer.is_embedded == first.is_embedded;
        let mut available = std::iter::once(first)
            .chain(listing)
            .filter(alike)
            .filter(|offer| offer.is_available());
        Some((available.next().unwrap_or(first), model))
    }

    fn offer(&self, provider: &str) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.provider == provider)
    }

    /// The bare name where that leads to this provider, else the full one.
    fn id(&self, offer: &Offer, model: &str) -> String {
        match self.explicit(model).or_else(|| self.bare(model)) {
            Some((meant, _)) if meant.provider == offer.provider => model.to_string(),
            _ => format!("{}/{model}", offer.provider),
        }
    }

    fn unknown(&self, name: &str) -> RouteError {
        let name: String = name.chars().take(MAX_NAME).collect();
        let mut suggestions = self.known(&name);
        let likeness = |known: &String| strsim::jaro_winkler(&name, known);
        suggestions.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
        suggestions.truncate(SUGGESTIONS);
        RouteError::UnknownModel { name, suggestions }
    }

    /// What might have been meant by `name`: whoever names a provider wants that one.
    fn known(&self, name: &str) -> Vec<String> {
        let provider = name.split_once('/').map(|(provider, _)| provider);
        match provider.and_then(|provider| self.offer(provider)) {
            Some(offer) => {
                let models = offer.models.iter();
                let full = models.map(|model| format!("{}/{}", offer.provider, model.name));
                full.collect()
            }
            None => {
                let ids = self.models().into_iter().map(|model| model.id);
                ids.chain([AUTO.to_string()]).collect()
            }
        }
    }
}
