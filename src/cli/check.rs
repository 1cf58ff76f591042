//! `pointsman check`

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::signals::{INTERRUPTED, cancelled_by_signal};
use super::terminal::say;
use super::{Source, fail, logging};
use crate::cancel::CancelToken;
use crate::config::{Config, Loader};
use crate::gateway::{self, Finding, State};

/// What stands in the way is said in words; `RUST_LOG` shows more.
const LOG_LEVEL: &str = "off";

/// What `pointsman check` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    source: Source,
    /// The longest that a provider may take to answer
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Says a line for the configuration and one for each provider. Exit code 1 if one that is configured does not work.
pub(super) fn check(options: Options) -> ExitCode {
    logging::start(LOG_LEVEL);
    let cancel = match cancelled_by_signal() {
        Ok(cancel) => cancel,
        Err(error) => return fail(&format!("signals can't be taken: {error}")),
    };
    let file = Loader::locate(options.source.config.as_deref());
    let file = file.map_or("the built-in defaults".to_owned(), |f| {
        f.display().to_string()
    });
    let config = match options.source.load(None) {
        Ok(config) => config,
        Err(error) => return fail(&format!("the configuration is refused\n{error}")),
    };
    let head = line(
        "configuration",
        &format!("OK: {file}, profile {}", config.profile),
    );
    match look(&config, &head, options.timeout, &cancel) {
        Ok(_) if cancel.is_cancelled() => ExitCode::from(INTERRUPTED),
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error.to_string()),
    }
}

/// Whether all is well.
fn look(config: &Config, head: &str, within: Duration, cancel: &CancelToken) -> io::Result<bool> {
    say(head)?;
    let findings = gateway::check(config, cancel, within)?;
    for finding in &findings {
        say(&line(&finding.provider, &words(finding)))?;
    }
    let is_real = |finding: &Finding| matches!(finding.state, State::Works(_) | State::Reached);
    if !findings.iter().any(is_real) {
        let advice = "no provider can be called: the model `auto` is answered offline";
        say(&line("auto", advice))?;
    }
    Ok(findings.iter().all(|finding| finding.state.is_ok()))
}

fn line(who: &str, what: &str) -> String {
    format!("{who:<15}{what}\n")
}

/// A model that is configured and not listed may be misspelt, or gone: both are common.
fn unlisted(missing: &[String]) -> String {
    match missing {
        [] => String::new(),
        missing => format!(
            "; it does not list these of the configured models: {}",
            missing.join(", ")
        ),
    }
}

fn words(finding: &Finding) -> String {
    let url = &finding.base_url;
    match &finding.state {
        State::InProcess => "OK: in this process, needs no network".into(),
        State::Works(missing) => format!("OK: {url} answers{}", unlisted(missing)),
        State::Reached => {
            format!("OK: {url} answers; it lists no models, so the key was not tried")
        }
        State::NotSetUp(advice) => format!("not set up: to use it, {advice}"),
        State::MissingKey(advice) => format!("missing key: {advice}"),
        State::RefusedKey(why) => format!("refused key: {url} says {why:?}"),
        State::Unreachable(why) => format!("cannot connect to {url}: {why}"),
        State::Troubled(why) => format!("trouble: {url}: {why}"),
    }
}
