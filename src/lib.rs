//! Pointsman: one local server between many agents and their language-model providers.

pub mod clock;

pub mod cancel;

pub mod chat;

pub mod config;

pub mod wire;

pub mod providers;

pub mod engine;
