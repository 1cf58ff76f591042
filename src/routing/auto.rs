//! Who answers `auto`.

use crate::providers::List;
use crate::routing::offer::Offer;
use crate::routing::{Route, RouteError};

/// The first available provider with a model whose context holds `tokens`, and that model; where no context is known to,
/// the first whose model might. Offers come in the order of preference. Embedded ones count only where no other provider
/// is available, whether or not those may answer `auto`.
///
/// # Errors
/// [`RouteError::TooLong`] where all contexts are too small, [`RouteError::Unavailable`] where nobody can be asked.
pub(super) fn choose(offers: &[Offer<'_>], tokens: u64) -> Result<Route, RouteError> {
    let asked = candidates(offers);
    let fitting = || first(&asked, |offer| offer.first_fitting(tokens));
    let unmeasured = || first(&asked, Offer::first_unmeasured);
    match fitting().or_else(unmeasured) {
        Some((offer, model)) => offer.route(model, reason(offers, offer, model, tokens)),
        None => Err(nobody(offers, &asked, tokens)),
    }
}

/// The largest context that a prompt for `auto` may fill, in tokens; `None` where nobody says.
pub(super) fn context(offers: &[Offer<'_>]) -> Option<u64> {
    let asked = candidates(offers);
    let models = asked.iter().flat_map(|offer| offer.for_auto());
    models.filter_map(|offered| offered.context).max()
}

/// Those who may answer now.
fn candidates<'a, 'b>(offers: &'a [Offer<'b>]) -> Vec<&'a Offer<'b>> {
    let is_real = |offer: &&Offer<'_>| !offer.source.is_embedded;
    let real = offers.iter().filter(is_real).any(Offer::is_available);
    let may = |offer: &&Offer<'_>| {
        if real {
            offer.is_auto() && offer.is_available()
        } else {
            offer.source.is_embedded
        }
    };
    offers.iter().filter(may).collect()
}

fn first<'a, 'b>(
    asked: &[&'a Offer<'b>],
    model: impl Fn(&'a Offer<'b>) -> Option<&'a str>,
) -> Option<(&'a Offer<'b>, &'a str)> {
    asked.iter().find_map(|offer| Some((*offer, model(offer)?)))
}

fn reason(offers: &[Offer<'_>], chosen: &Offer<'_>, model: &str, tokens: u64) -> String {
    let why = if !chosen.source.is_embedded {
        format!("the first that fits about {tokens} tokens")
    } else if offers.iter().all(|offer| offer.source.is_embedded) {
        "since no other provider is configured".to_string()
    } else {
        "since no other provider has a key".to_string()
    };
    let before = offers
        .iter()
        .take_while(|offer| offer.provider() != chosen.provider());
    let passed: Vec<String> = before
        .filter(|offer| offer.is_auto() || chosen.source.is_embedded)
        .map(why_passed)
        .collect();
    let passed = match passed.as_slice() {
        [] => String::new(),
        passed => format!(" ({})", passed.join("; ")),
    };
    format!("auto: {}/{model}, {why}{passed}", chosen.provider())
}

fn why_passed(offer: &Offer<'_>) -> String {
    let why = match &offer.source.advice {
        Some(advice) => advice,
        None if offer.is_awaited() => "its models are not known yet",
        None if offer.for_auto().next().is_none() => "lists no models",
        None => "no model fits",
    };
    format!("{}: {why}", offer.provider())
}

/// What to do so that a provider can answer `auto`; `None` where it can.
fn what_it_lacks(offer: &Offer<'_>) -> Option<String> {
    let advice = offer.source.advice.clone();
    advice.or_else(|| offer.for_auto().next().is_none().then(|| unlisted(offer)))
}

/// What to do about a provider of which no model is known.
fn unlisted(offer: &Offer<'_>) -> String {
    let name = offer.provider();
    let knob = format!("providers.{name}.models");
    match &offer.known.list {
        List::Unasked => format!("list models in {knob}"),
        List::Awaited => format!(
            "ask again in a moment, when {name} has said which models it has, or list models in {knob}"
        ),
        List::Failed(why) => {
            format!("list models in {knob}, since {name} does not say which it has: {why}")
        }
        List::Read(_) => format!("list models in {knob}, since {name} says that it has none"),
    }
}

fn nobody(offers: &[Offer<'_>], asked: &[&Offer<'_>], tokens: u64) -> RouteError {
    let models = asked.iter().flat_map(|offer| offer.for_auto());
    if let Some(context) = models.map(|offered| offered.model.context).max() {
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
