//! `pointsman serve`

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::service::{self, Given, Manager, Watch};
use super::signals::Signals;
use super::{Settings, fail, logging};
use crate::config::{Config, ConfigError, Environment, Loader, Provider, ProviderKind};
use crate::gateway::{ConfigSource, Gateway, Server, StartError, Unhealthy};

/// How often it is seen whether too many workers are lost.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Serves until a signal comes, then drains. A second signal ends the process at once.
/// `file` is where the configuration was read, and `settings` what it is read by: also when it is reloaded. `lean` is
/// whether its threads keep no memory for themselves, or why not.
pub(super) fn serve(
    config: Config,
    file: Option<&Path>,
    settings: Settings,
    lean: io::Result<()>,
) -> ExitCode {
    // Before anything opens a handle, or starts a thread.
    let given = service::given();
    let log = logging::start(&config.log.level);
    if let Err(error) = lean {
        log::warn!(
            "threads may keep more memory than they need: this program can't be started once more: {error}"
        );
    }
    let given = match given {
        Ok(given) => given,
        Err(error) => return fail(&error),
    };
    let manager = Manager::of(&Environment::of_process());
    // Before anything runs: a signal that comes while we start is not lost.
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("signals can't be taken: {error}")),
    };
    raise_handles();
    say_what_is_configured(&config, file);
    let (gateway, server) = match start(config, given, Reread { settings, log }) {
        Ok(started) => started,
        Err(error) => return fail(&error.to_string()),
    };
    if let Err(error) = announce(server.addresses()) {
        // A disk that is full, or a reader that is gone, is no reason to serve nobody.
        log::warn!("nothing can be written to standard output: {error}");
    }
    manager.ready(&format!("listening on {}", server.addresses().join(", ")));
    let watch = match Watch::start(&manager, &gateway) {
        Ok(watch) => watch,
        Err(error) => return fail(&StartError::Threads(error).to_string()),
    };
    let ailment = wait(&signals, &gateway);
    let drain = server.drain();
    log::info!(
        "stopping: what runs has {} to finish",
        humantime::format_duration(drain)
    );
    manager.stopping(drain);
    server.stop(drain);
    // To the end: the manager's watchdog may be less patient than the drain.
    drop(watch);
    log::info!("stopped");
    match ailment {
        None => ExitCode::SUCCESS,
        Some(why) => fail(&why.to_string()),
    }
}

/// Waits for a signal, or until so many workers are lost that only a new process helps.
fn wait(signals: &Signals, gateway: &Gateway) -> Option<Unhealthy> {
    while !signals.wait_for(LOOK_AFTER) {
        if let Err(lost @ Unhealthy::WorkersLost { .. }) = gateway.health() {
            log::error!("{lost}: this process ends, for its service manager to start a new one");
            return Some(lost);
        }
    }
    None
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

/// On the sockets that were handed over, else on one of our own.
fn start(config: Config, given: Given, source: Reread) -> Result<(Gateway, Server), StartError> {
    let listen = config.server.listen.to_string();
    let gateway = Gateway::start(config)?;
    gateway.reload_from(source);
    if given.sockets.is_empty() {
        let server = gateway.serve()?;
        return Ok((gateway, server));
    }
    let server = gateway.serve_on(given.sockets)?;
    log::info!(
        "serving on {} as handed over by the service manager (named {:?}), in place of {listen} (server.listen)",
        server.addresses().join(", "),
        given.names
    );
    Ok((gateway, server))
}

/// The configuration once more: the same file, under the same environment and command line.
struct Reread {
    settings: Settings,
    log: logging::Dial,
}

impl ConfigSource for Reread {
    fn read(&self) -> Result<Config, ConfigError> {
        if let Some(path) = Loader::locate(self.settings.source.config.as_deref()) {
            readable_again(&path).map_err(|cause| ConfigError::Unreadable { path, cause })?;
        }
        self.settings.load()
    }

    fn in_force(&self, config: &Config) {
        self.log.set(&config.log.level);
    }
}

/// What a pipe said at the start it does not say again, and a reader of one waits for whoever writes. An empty file is
/// most likely one that somebody is about to write.
fn readable_again(path: &Path) -> io::Result<()> {
    let about = fs::metadata(path)?;
    match (about.is_file(), about.len()) {
        (false, _) => Err(io::Error::other(
            "it is no regular file, so it is read at the start alone",
        )),
        (true, 0) => Err(io::Error::other(
            "it is empty; a comment in it says that it is meant to be",
        )),
        (true, _) => Ok(()),
    }
}

/// The first line on standard output: programs that start us read the address from it. One for each further socket.
fn announce(addresses: &[String]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for address in addresses {
        match address.starts_with("unix:") {
            true => writeln!(out, "listening on {address}")?,
            false => writeln!(out, "listening on http://{address}")?,
        }
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

#[cfg(test)]
mod tests {
    use crossbeam::channel::unbounded;

    use super::*;
    use crate::Profile;
    use crate::gateway::Call;

    #[test]
    fn a_process_ends_when_too_many_workers_are_lost_and_not_before() {
        let mut config = Config::builtin(Profile::Test);
        config.watchdog.quarantine_after = Duration::from_millis(10);
        config.watchdog.reclaim_after = Duration::from_millis(20);
        config.watchdog.max_lost_workers = 0;
        let gateway = Gateway::start(config).expect("threads start");
        let (signals, told) = Signals::told();
        told.send(()).expect("there is room");
        assert_eq!(wait(&signals, &gateway), None, "a signal ends it");

        let (release, released) = unbounded::<()>();
        let deaf = Call::new().timeout(Duration::from_millis(10));
        let late = gateway.execute(deaf, move |_| {
            let _ = released.recv();
            Ok::<(), String>(())
        });
        assert!(late.is_err(), "it heeds no deadline");
        let lost = Unhealthy::WorkersLost { lost: 1, max: 0 };
        assert_eq!(wait(&signals, &gateway), Some(lost));
        drop(release);
    }
}
