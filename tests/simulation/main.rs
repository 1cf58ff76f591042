//! The admission core under hours of trouble, in seconds.
//!
//! A *scenario* is drawn from a seed: limits small or large, clients of every class, providers that answer, fail at
//! once or stay silent, cancels, late ticks, permits given back late or twice, a drain. The *world* plays it against
//! a core on a virtual clock, by events and actions just as the engine does, simultaneous events in random order. The
//! *ledger* keeps books of its own and checks every action as it comes, and everything that can be seen of the core
//! after every step.
//!
//! `POINTSMAN_SEEDS` sets how many seeds are played. A failure names its seed; `POINTSMAN_SEED` plays it alone and
//! shows the last things that happened.

mod ledger;
mod quantity;
mod rules;

mod scenario;
mod world;

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::str::FromStr;

use rayon::prelude::*;

use scenario::Scenario;
use world::World;

/// Seeds played unless `POINTSMAN_SEEDS` says otherwise.
const SEEDS: u64 = 10_000;

#[test]
fn whatever_happens_the_promises_of_admission_hold() {
    if let Some(seed) = number_from("POINTSMAN_SEED") {
        play(seed, true).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        return;
    }
    let seeds = number_from("POINTSMAN_SEEDS").unwrap_or(SEEDS);
    let failure = (0..seeds)
        .into_par_iter()
        .find_map_first(|seed| Some((seed, play(seed, false).err()?)));
    if let Some((seed, what)) = failure {
        panic!(
            "{what}\nseed {seed}: play it again with POINTSMAN_SEED={seed} cargo test --test simulation"
        );
    }
}

#[test]
fn the_scenarios_reach_every_way_to_end() {
    let endings = (0..500).filter_map(|seed| play(seed, false).ok());
    let endings: BTreeSet<&str> = endings.flatten().collect();
    assert_eq!(endings.len(), rules::ENDINGS, "seen: {endings:?}");
}

/// Plays one scenario to its end, and says which ways to end were seen. `Err` says which promise was broken.
fn play(seed: u64, traced: bool) -> Result<BTreeSet<&'static str>, String> {
    let played = catch_unwind(|| World::new(Scenario::draw(seed), seed, traced).play());
    played.unwrap_or_else(|_| Err("the core panicked: see above".into()))
}

fn number_from<T: FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}
