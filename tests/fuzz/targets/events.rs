//! Event streams of providers; see `src/fuzz/mod.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pointsman::fuzz::events(bytes));
