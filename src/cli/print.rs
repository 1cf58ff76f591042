//! `pointsman print`

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::terminal::say;
use super::{Source, fail, refuse};
use crate::telemetry::{grafana_dashboard, prometheus_rules};

/// What `pointsman print` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// What to print
    what: What,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Rules for Prometheus: the alerts of this configuration over its metrics
    PrometheusRules,
    /// A dashboard for Grafana over the metrics
    Grafana,
}

/// Prints it to standard output.
pub(super) fn print(options: Options) -> ExitCode {
    let config = match options.source.load(None) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let text = match options.what {
        What::PrometheusRules => prometheus_rules(&config.alerts),
        What::Grafana => grafana_dashboard(),
    };
    match say(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}
