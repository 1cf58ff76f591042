//! What must hold whatever anybody sends: one function for each fuzz target, which panics where it doesn't.
//!
//! Compiled for tests and under `cargo fuzz` only. The targets in `tests/fuzz` do nothing but call these, with what the
//! fuzzer makes up; the tests below call them with the inputs kept in `tests/fuzz/seeds`, and with mutations of those.

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
