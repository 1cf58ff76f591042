//! Pointsman: one local server between many agents and their language-model providers.

pub mod clock;

pub mod cancel;

pub mod chat;

pub mod config;

pub mod wire;

pub mod door;

pub mod telemetry;

pub mod admission;

pub mod providers;

pub mod routing;

pub mod engine;
