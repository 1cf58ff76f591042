//! The kept inputs, replayed, and mutations of them: what `cargo fuzz` does for hours, for a second.
//!
//! `POINTSMAN_SEEDS` sets how many mutations of each target are tried. A failure names its seed; `POINTSMAN_SEED` tries
//! that one alone.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::str::FromStr;

use fastrand::Rng;

/// Mutations of each target unless `POINTSMAN_SEEDS` says otherwise.
const SEEDS: u64 = 20_000;

type Check = fn(&[u8]);

/// Tries all kept inputs of a target, then mutations of them.
fn check(target: &str, seeds: u64, check: Check) {
    let kept = kept(target);
    for (name, bytes) in &kept {
        if catch_unwind(|| check(bytes)).is_err() {
            panic!("tests/fuzz/seeds/{target}/{name} breaks a promise: see above");
        }
    }
    let inputs: Vec<&[u8]> = kept.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let seeds = match number_from("POINTSMAN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("POINTSMAN_SEEDS").unwrap_or(seeds),
    };
    for seed in seeds {
        let bytes = mutation(&inputs, &mut Rng::with_seed(seed));
        if catch_unwind(|| check(&bytes)).is_err() {
            let shown = bytes.escape_ascii();
            panic!(
                "{shown}\nseed {seed}: try it again with POINTSMAN_SEED={seed} cargo test --lib fuzz::tests::{target}"
            );
        }
    }
}

fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    let files = fs::read_dir(folder.join(target)).expect("a folder of kept inputs");
    let mut kept: Vec<_> = files
        .map(|file| {
            let path = file.expect("a readable folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (name.into_owned(), fs::read(&path).expect("a readable file"))
        })
        .collect();
    // The order of a folder is the file system's; that of the mutations is not.
    kept.sort();
    assert!(kept.len() >= 5, "the inputs of {target} are gone");
    kept
}

/// One kept input with a few changes: bits, bytes, pieces taken out, put in twice, or taken from another input.
fn mutation(inputs: &[&[u8]], random: &mut Rng) -> Vec<u8> {
    const SHARP: &[u8] = b"\r\n\t \0:;,/?#@\"{}[]\\0159afAFx-+.\x7f\x80\xc3\xff";
    let mut bytes = inputs[random.usize(..inputs.len())].to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        let end = bytes.len().min(at + random.usize(1..24));
        match random.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes.insert(at, SHARP[random.usize(..SHARP.len())]),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let twice = bytes[at..end].to_vec();
                bytes.splice(at..at, twice);
            }
            4 => {
                let other = inputs[random.usize(..inputs.len())];
                let from = random.usize(..=other.len());
                let to = other.len().min(from + random.usize(1..64));
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            5 if at < bytes.len() => bytes[at] = SHARP[random.usize(..SHARP.len())],
            6 => bytes.extend_from_slice(inputs[random.usize(..inputs.len())]),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn number_from<T: FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number")))
}

#[test]
fn head() {
    check("head", SEEDS, super::head);
}

#[test]
fn chunks() {
    check("chunks", SEEDS, super::chunks);
}

/// Each of these plays three connections.
#[test]
fn connection() {
    check("connection", SEEDS / 10, super::connection);
}

/// These are long.
#[test]
fn events() {
    check("events", SEEDS / 2, super::events);
}

#[test]
fn request() {
    check("request", SEEDS, super::request);
}

#[test]
fn answer() {
    check("answer", SEEDS, super::answer);
}
