//! Who answers `auto`.

use crate::routing::offer::Offer;
use crate::routing::{Route, RouteError};

/// The first available provider with a model whose context holds `tokens`, and that model. Offers come in the order of
/// preference. Embedded ones count only where no other provider is available, whether or not those may answer `auto`.
///
/// # Errors
/// [`RouteError::TooLong`] where all contexts are too small, [`RouteError::Unavailable`] where nobody can be asked.
pub(super) fn choose(offers: &[Offer], tokens: u64) -> Result<Route, RouteError> {
    let is_real = |offer: &&Offer| !offer.is_embedded;
    let real = offers.iter().filter(is_real).any(Offer::is_available);
    let may = |offer: &&Offer| {
        if real {
            offer.is_auto() && offer.is_available()
        } else {
            offer.is_embedded
        }
    };
    let fits = |offer: &Offer| offer.first_fitting(tokens).map(str::to_string);
    let mut asked = offers.iter().filter(may);
    match asked.find_map(|offer| Some((offer, fits(offer)?))) {
        Some((offer, model)) => offer.route(&model, reason(offers, offer, &model, tokens)),
        None => Err(nobody(offers, offers.iter().filter(may), tokens)),
    }
}

fn reason(offers: &[Offer], chosen: &Offer, model: &str, tokens: u64) -> String {
    let why = if !chosen.is_embedded {
        format!("the first that fits about {tokens} tokens")
    } else if offers.iter().all(|offer| offer.is_embedded) {
        "since no other provider is configured".to_string()
    } else {
        "since no other provider has a key".to_string()
    };
    let before = offers
        .iter()
        .take_while(|offer| offer.provider != chosen.provider);
    let passed: Vec<String> = before
        .filter(|offer| offer.is_auto() || chosen.is_embedded)
        .map(why_passed)
        .collect();
    let passed = match passed.as_slice() {
        [] => String::new(),
        passed => format!(" ({})", passed.join("; ")),
    };
    format!("auto: {}/{model}, {why}{passed}", chosen.provider)
}

fn why_passed(offer: &Offer) -> String {
    let why = match &offer.advice {
        Some(advice) => advice,
        None if offer.models.is_empty() => "lists no models",
        None => "no model fits",
    };
    format!("{}: {why}", offer.provider)
}

/// What a provider lacks to answer `auto`.
fn what_it_lacks(offer: &Offer) -> Option<String> {
    let unlisted = || format!("list models in providers.{}.models", offer.provider);
    let advice = offer.advice.clone();
    advice.or_else(|| offer.models.is_empty().then(unlisted))
}

fn nobody<'a>(offers: &[Offer], asked: impl Iterator<Item = &'a Offer>, tokens: u64) -> RouteError {
    let contexts = asked.flat_map(|offer| offer.models.iter().map(|model| model.context));
    if let Some(context) = contexts.max() {
        return RouteError::TooLong { tokens, context };
    }
    let may = offers.iter().filter(|offer| offer.is_auto());
    let missing: Vec<String> = may.filter_map(what_it_lacks).collect();
    RouteError::Unavailable {
        provider: "auto".to_string(),
        advice: match missing.as_slice() {
            [] => "name a provider with a list of models in routing.auto".to_string(),
            missing => missing.join(", or "),
        },
    }
}
