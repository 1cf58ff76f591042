//! `pointsman print`: files for others, made to fit this program.

mod systemd;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Source, fail, refuse, terminal};
use crate::telemetry::{grafana_dashboard, prometheus_rules};

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
    /// Rules for Prometheus: the alerts of this configuration over its metrics
    PrometheusRules(Source),
    /// A dashboard for Grafana over the metrics
    Grafana,
}

/// Prints it on standard output.
pub(super) fn print(options: Options) -> ExitCode {
    let text = match options.what {
        What::Systemd(options) => systemd::unit(&options),
        What::PrometheusRules(source) => match source.load(None) {
            Ok(config) => Ok(prometheus_rules(&config.alerts)),
            Err(error) => return refuse(&error),
        },
        What::Grafana => Ok(grafana_dashboard()),
    };
    let said = text.and_then(|text| {
        terminal::say(&text).map_err(|error| format!("standard output is gone: {error}"))
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}
