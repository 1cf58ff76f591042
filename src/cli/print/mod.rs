//! `pointsman print`: files for others, made to fit this program.

mod systemd;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{fail, terminal};

/// What `pointsman print` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A unit for systemd: the service, or the socket that keeps its clients over a restart
    Systemd(systemd::Options),
}

/// Prints it on standard output.
pub(super) fn print(options: &Options) -> ExitCode {
    let text = match &options.what {
        What::Systemd(options) => systemd::unit(options),
    };
    let said = text.and_then(|text| {
        terminal::say(&text).map_err(|error| format!("standard output is gone: {error}"))
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}
