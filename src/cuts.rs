//! How the bytes of one input fall into reads, for tests and fuzzers: what is made of them must not depend on it.

use std::ops::Range;

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
