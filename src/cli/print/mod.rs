//! `pointsman print`: files for others, made to fit this program.

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
    /// Rules for Prometheus: the alerts of this configuration over its metrics
    PrometheusRules(Source),
    /// A dashboard for Grafana over the metrics
    Grafana,
}

/// Prints it on standard output.
pub(super) fn print(options: Options) -> ExitCode {
    let text = match options.what {
        What::PrometheusRules(source) => match source.load(None) {
            Ok(config) => prometheus_rules(&config.alerts),
            Err(error) => return refuse(&error),
        },
        What::Grafana => grafana_dashboard(),
    };
    match terminal::say(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("standard output is gone: {error}")),
    }
}
