//! The command line: `pointsman` and its commands.

mod logging;
mod serve;
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Listen, Loader, Overrides, Profile};

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
}

/// What every command takes.
#[derive(Debug, Args)]
struct Settings {
    /// The configuration [default: ./config.toml if there is one, else the built-in defaults]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen: host:port (port 0 takes a free one) or unix:PATH
    #[arg(short, long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// The set of defaults: dev, demo, prod or test
    #[arg(short, long, value_name = "NAME")]
    profile: Option<Profile>,
}

impl Settings {
    fn load(self) -> Result<Config, ConfigError> {
        let overrides = Overrides {
            profile: self.profile,
            listen: self.listen,
        };
        Loader::of_process()
            .overrides(overrides)
            .find(self.config.as_deref())
    }
}

/// Runs the program with the process's arguments. The exit code: 0 done, 1 failed, 2 wrong arguments or configuration.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let settings = match cli.command {
        Some(Command::Serve(settings)) => settings,
        None => cli.settings,
    };
    match settings.load() {
        Ok(config) => serve::serve(config),
        Err(error) => {
            complain(&format!("the configuration is refused\n{error}"));
            ExitCode::from(2)
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "an error before the log is set up goes to the terminal"
)]
fn complain(text: &str) {
    eprintln!("pointsman: {text}");
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
