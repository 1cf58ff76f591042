//! What must hold whatever anybody sends: one function for each fuzz target, which panics where it doesn't.
//!
//! Compiled for tests and under `cargo fuzz` only. The targets in `tests/fuzz` do nothing but call these, with what the
//! fuzzer makes up; the tests below call them with the inputs kept in `tests/fuzz/seeds`, and with mutations of those.

use std::ops::Range;

use crate::{door, wire};

#[cfg(test)]
mod tests;

/// The head of a request.
pub fn head(bytes: &[u8]) {
    door::fuzz::head(bytes);
}

/// A chunked body.
pub fn chunks(bytes: &[u8]) {
    door::fuzz::chunks(bytes);
}

/// All that a client sends on one connection.
pub fn connection(bytes: &[u8]) {
    door::fuzz::connection(bytes);
}

/// A provider's event stream.
pub fn events(bytes: &[u8]) {
    wire::fuzz::events(bytes);
}

/// A client's body.
pub fn request(bytes: &[u8]) {
    wire::fuzz::request(bytes);
}

/// A provider's whole answer.
pub fn answer(bytes: &[u8]) {
    wire::fuzz::answer(bytes);
}

/// At once, byte by byte where that is not too long, and at places that follow from the bytes themselves: so a kept
/// input is cut in the same way each time.
pub(crate) fn ways_to_cut(bytes: &[u8]) -> Vec<Vec<Range<usize>>> {
    const BYTE_BY_BYTE: usize = 256;
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let mut random = fastrand::Rng::with_seed(hash);
    let longest = 1 << random.u32(1..10);
    let mut cuts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + random.usize(1..=longest));
        cuts.push(at..end);
        at = end;
    }
    let whole = 0..bytes.len();
    let mut ways = vec![vec![whole], cuts];
    if bytes.len() <= BYTE_BY_BYTE {
        ways.push((0..bytes.len()).map(|at| at..at + 1).collect());
    }
    ways
}
