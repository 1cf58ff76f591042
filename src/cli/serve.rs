//! `pointsman serve`

use std::io::Write;
use std::process::ExitCode;

use super::signals::Signals;
use super::{fail, logging};
use crate::config::{Config, Provider, ProviderKind};
use crate::gateway::{Gateway, Server, StartError};

/// Serves until a signal comes, then drains. A second signal ends the process at once.
pub(super) fn serve(config: Config) -> ExitCode {
    logging::start(&config.log.level);
    let drain = config.server.drain;
    // Before anything runs: a signal that comes while we start is not lost.
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("signals can't be taken: {error}")),
    };
    say_what_is_configured(&config);
    let server = match start(config) {
        Ok(server) => server,
        Err(error) => return fail(&error.to_string()),
    };
    if let Err(error) = announce(&server.address()) {
        return fail(&format!("standard output is gone: {error}"));
    }
    signals.wait();
    log::info!(
        "stopping: what runs has {} to finish",
        humantime::format_duration(drain)
    );
    server.stop(drain);
    log::info!("stopped");
    ExitCode::SUCCESS
}

fn start(config: Config) -> Result<Server, StartError> {
    Gateway::start(config)?.serve()
}

/// The first line on standard output: programs that start us read the address from it.
fn announce(address: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match address.starts_with("unix:") {
        true => writeln!(out, "listening on {address}")?,
        false => writeln!(out, "listening on http://{address}")?,
    }
    out.flush()
}

fn say_what_is_configured(config: &Config) {
    let limits = &config.limits;
    log::info!(
        "profile {}: limits global {}, session {}, sessions {}; queue {} places, {}",
        config.profile,
        limits.global,
        limits.session,
        limits.sessions,
        config.queue.capacity,
        humantime::format_duration(config.queue.timeout),
    );
    for provider in config.providers.values() {
        say_provider(provider);
    }
    let real = config
        .providers
        .values()
        .any(|provider| provider.kind != ProviderKind::Embedded && provider.is_available());
    if !real {
        log::warn!(
            "no provider has a key: the model `auto` is answered by the embedded provider, offline"
        );
    }
}

fn say_provider(provider: &Provider) {
    match provider.missing_key() {
        None => log::info!(
            "provider {}: at most {} calls in flight",
            provider.name,
            provider.max_inflight
        ),
        Some(advice) => log::info!("provider {} is not available: {advice}", provider.name),
    }
}
