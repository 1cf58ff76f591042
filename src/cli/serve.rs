//! `pointsman serve`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::signals::Signals;
use super::{Settings, fail, logging};
use crate::config::{Config, ConfigError, Provider, ProviderKind};
use crate::gateway::{ConfigSource, Gateway, Server, StartError};

/// Serves until a signal comes, then drains. A second signal ends the process at once.
/// `file` is where the configuration was read, and `settings` what it is read by: also when it is reloaded.
pub(super) fn serve(config: Config, file: Option<&Path>, settings: Settings) -> ExitCode {
    let log = logging::start(&config.log.level);
    // Before anything runs: a signal that comes while we start is not lost.
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("signals can't be taken: {error}")),
    };
    raise_handles();
    say_what_is_configured(&config, file);
    let server = match start(config, Reread { settings, log }) {
        Ok(server) => server,
        Err(error) => return fail(&error.to_string()),
    };
    if let Err(error) = announce(&server.address()) {
        return fail(&format!("standard output is gone: {error}"));
    }
    signals.wait();
    let drain = server.drain();
    log::info!(
        "stopping: what runs has {} to finish",
        humantime::format_duration(drain)
    );
    server.stop(drain);
    log::info!("stopped");
    ExitCode::SUCCESS
}

/// Takes as many file handles as the system lets us have: what it gives unasked is for programs that know no poll.
fn raise_handles() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::debug!("the limit on open files stays: {error}");
    }
}

fn start(config: Config, source: Reread) -> Result<Server, StartError> {
    let gateway = Gateway::start(config)?;
    gateway.reload_from(source);
    gateway.serve()
}

/// The configuration once more: the same file, under the same environment and command line.
struct Reread {
    settings: Settings,
    log: logging::Level,
}

impl ConfigSource for Reread {
    fn read(&self) -> Result<Config, ConfigError> {
        self.settings.load()
    }

    fn in_force(&self, config: &Config) {
        self.log.set(&config.log.level);
    }
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

fn say_what_is_configured(config: &Config, file: Option<&Path>) {
    match file {
        Some(file) => {
            let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
            log::info!("configuration: {}", whole.display());
        }
        None => log::info!("configuration: built-in defaults, there is no ./config.toml"),
    }
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
    // No password can stand in a base URL: the configuration refuses one.
    let place = match provider.kind {
        ProviderKind::Embedded => "in this process",
        ProviderKind::Kimi | ProviderKind::Glm | ProviderKind::OpenAi => &provider.base_url,
    };
    let name = &provider.name;
    match provider.missing_key() {
        None => log::info!(
            "provider {name}: {place}, at most {} calls in flight",
            provider.max_inflight
        ),
        Some(advice) => log::info!("provider {name} ({place}) is not available: {advice}"),
    }
}
