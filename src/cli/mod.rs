//! The command line: `pointsman` and its commands.

mod allocator;
mod ask;
mod check;
mod load;
mod logging;
mod print;
mod reload;
mod serve;
mod server;
mod service;
mod signals;
mod status;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Listen, Loader, Overrides, Profile};

/// The exit code of a command that was given wrong arguments, or a configuration that is refused.
const MISUSED: u8 = 2;

/// One local server between many coding agents and their language-model providers.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, about, max_term_width = 100)]
// Options stand behind their command; those before it would go unheard.
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGINT, SIGTERM or SIGHUP, then drain (the default)
    Serve(Settings),
    /// Ask one question, in this process, and print the answer as it comes
    Ask(ask::Options),
    /// Say of each provider whether its key and the way to it work; the exit code says whether all do
    Check(check::Options),
    /// Put load on a running server, and report what became of it
    Load(load::Options),
    /// Show what a running server does: slots, lines, sessions, providers, requests
    Status(status::Options),
    /// Print a file for somebody else: a unit for systemd, rules for Prometheus, a dashboard for Grafana
    Print(print::Options),
    /// Have a running server read its configuration anew, and say what is different
    Reload(reload::Options),
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
struct Source {
    /// The configuration [default: ./config.toml if there is one, else the built-in defaults]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The set of defaults: dev, demo, prod or test
    #[arg(short, long, value_name = "NAME")]
    profile: Option<Profile>,
}

impl Source {
    fn load(&self, listen: Option<Listen>) -> Result<Config, ConfigError> {
        let overrides = Overrides {
            profile: self.profile,
            listen,
        };
        Loader::of_process()
            .overrides(overrides)
            .find(self.config.as_deref())
    }
}

/// What a server takes.
#[derive(Debug, Clone, Args)]
struct Settings {
    #[command(flatten)]
    source: Source,
    /// Where to listen: host:port (port 0 takes a free one) or unix:PATH
    #[arg(short, long, value_name = "ADDRESS")]
    listen: Option<Listen>,
}

impl Settings {
    fn load(&self) -> Result<Config, ConfigError> {
        self.source.load(self.listen.clone())
    }
}

/// Runs the program with the process's arguments. The exit code: 0 done, 1 failed, 2 wrong arguments or configuration,
/// 130 interrupted.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => serve(cli.settings),
        Some(Command::Serve(settings)) => serve(settings),
        Some(Command::Ask(options)) => ask::ask(options),
        Some(Command::Check(options)) => check::check(options),
        Some(Command::Load(options)) => load::load(options),
        Some(Command::Status(options)) => status::status(options),
        Some(Command::Print(options)) => print::print(options),
        Some(Command::Reload(options)) => reload::reload(options),
    }
}

fn serve(settings: Settings) -> ExitCode {
    // Before anything is read: what a pipe says it says once.
    let lean = allocator::keep_none();
    let file = Loader::locate(settings.source.config.as_deref());
    match settings.load() {
        Ok(config) => serve::serve(config, file.as_deref(), settings, lean),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    terminal::complain(&format!("the configuration is refused\n{error}"));
    ExitCode::from(MISUSED)
}

fn fail(text: &str) -> ExitCode {
    terminal::complain(text);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_before_a_command_is_refused_and_not_passed_over() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("pointsman --profile test").is_ok());
        assert!(parse("pointsman serve --profile test").is_ok());
        assert!(parse("pointsman --profile test serve").is_err());
    }
}
