//! The admission core under hours of trouble, in seconds.
//!
//! A *scenario* is drawn from a seed: limits small or large, and changing; clients of every class; cancels, late ticks, a
//! leaping clock, lost workers, permits given back late or twice, a drain. Its *weather* is how providers behave: a true
//! capacity, calls in a minute, a plan, silence, broken answers, lost keys. The *world* plays it against a core on a virtual
//! clock, by events and actions just as the engine does, simultaneous events in random order. The *ledger* keeps books of
//! its own, of jobs and (in *targets*) of limits, gates, breakers and budgets; it checks every action as it comes, and
//! everything that can be seen of the core after every step. *Faults* planted in the core show that it would notice.
//!
//! *Quantity* and *race* are long runs: whether shares are fair, and what the learned limit makes of a provider.
//!
//! `POINTSMAN_SEEDS` sets how many seeds are played. A failure names its seed; `POINTSMAN_SEED` plays it alone and
//! shows the last things that happened.

/// The core, compiled once more and from the same files: as a part of a test, where faults can be planted in it.
#[path = "../../src/admission/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod admission;
mod faults;
mod ledger;
mod moves;
mod orphans;
mod quantity;
mod race;
mod rivals;
mod rules;
mod scenario;
mod targets;
mod weather;
mod world;

// What the core uses of the house.
use pointsman::{cancel, clock, config};

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::str::FromStr;

use rayon::prelude::*;

use admission::Fault;
use scenario::Scenario;
use world::World;

/// Seeds played unless `POINTSMAN_SEEDS` says otherwise.
const SEEDS: u64 = 10_000;

#[test]
fn whatever_happens_the_promises_of_admission_hold() {
    if let Some(seed) = number_from("POINTSMAN_SEED") {
        play(seed, None, true).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        return;
    }
    let seeds = number_from("POINTSMAN_SEEDS").unwrap_or(SEEDS);
    let failure = (0..seeds)
        .into_par_iter()
        .find_map_first(|seed| Some((seed, play(seed, None, false).err()?)));
    if let Some((seed, what)) = failure {
        panic!(
            "{what}\nseed {seed}: play it again with POINTSMAN_SEED={seed} cargo test --test simulation"
        );
    }
}

#[test]
fn the_scenarios_reach_every_way_to_end() {
    let mut endings: BTreeSet<&str> = BTreeSet::new();
    let mut seeds = 0..SEEDS;
    while endings.len() < rules::ENDINGS
        && let Some(seed) = seeds.next()
    {
        endings.extend(play(seed, None, false).ok().into_iter().flatten());
    }
    assert_eq!(endings.len(), rules::ENDINGS, "seen: {endings:?}");
}

/// Plays one scenario to its end, and says which ways to end were seen. `Err` says which promise was broken.
fn play(seed: u64, fault: Option<Fault>, traced: bool) -> Result<BTreeSet<&'static str>, String> {
    let played = catch_unwind(|| World::new(Scenario::draw(seed), seed, fault, traced).play());
    played.unwrap_or_else(|_| Err("the core panicked: see above".into()))
}

fn number_from<T: FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}
