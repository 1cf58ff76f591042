//! `pointsman load`

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::server::{Server, Unknown, Which};
use super::signals::{INTERRUPTED, cancelled_by_signal};
use super::terminal::say;
use super::{fail, refuse};
use crate::clock::SystemClock;
use crate::config::Priority;
use crate::loadtest::{Extent, Form, Outcome, Plan, Progress, Report, run};

/// How many requests there are when nothing is said.
const REQUESTS: u64 = 100;

/// What `pointsman load` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    judgement: Judgement,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

/// The load.
#[derive(Debug, Args)]
struct Wanted {
    /// The model that is asked; it has to repeat what it is told
    #[arg(short, long, value_name = "NAME", default_value = "embedded")]
    model: String,
    /// Requests outstanding at once, at most
    #[arg(short = 'n', long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=4096))]
    callers: u16,
    /// How many requests are sent [default: 100]
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// For how long requests are sent
    #[arg(short, long, conflicts_with = "requests", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Requests per second, sent whether or not the server keeps up [default: as fast as answers come]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Ask for streams
    #[arg(long)]
    stream: bool,
    /// Sessions that the callers belong to, in turn; 0 for none
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    sessions: usize,
    /// Priorities of the requests, in turn: high,medium,low
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    priority: Vec<Priority>,
    /// The longest that one request may take
    #[arg(short, long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What is good enough.
#[derive(Debug, Args)]
struct Judgement {
    /// Requests that may fail (run out of time, go wrong, or be answered with another's answer)
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    max_failed: u64,
    /// Requests that may be refused [default: any number]
    #[arg(long, value_name = "COUNT")]
    max_refused: Option<u64>,
}

/// Runs the load and reports. Exit code 1 if too much failed, or nothing was answered; 130 if it was interrupted.
pub(super) fn load(options: Options) -> ExitCode {
    let plan = match options.which.find() {
        Ok(server) => options.wanted.plan(server),
        Err(Unknown::Refused(error)) => return refuse(&error),
        Err(Unknown::Other(why)) => return fail(&why),
    };
    let cancel = match cancelled_by_signal() {
        Ok(cancel) => cancel,
        Err(error) => return fail(&format!("signals can't be taken: {error}")),
    };
    let bar = Bar::new(plan.extent);
    let clock = SystemClock::shared();
    let tested = run(plan, &clock, &cancel, &mut |progress| bar.draw(progress));
    bar.clear();
    let report = match tested {
        Ok(report) => report,
        Err(_) if cancel.is_cancelled() => return ExitCode::from(INTERRUPTED),
        Err(error) => return fail(&error.to_string()),
    };
    let text = match options.json {
        true => format!("{:#}\n", report.to_json()),
        false => report.to_string(),
    };
    match say(&text) {
        Ok(()) => options.judgement.exit_code(&report),
        Err(error) => fail(&format!("the report can't be written: {error}")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (1e-3..=1e6).contains(rate));
    rate.ok_or_else(|| "accepted is a number from 0.001 to 1000000".to_owned())
}

impl Wanted {
    fn plan(self, server: Server) -> Plan {
        Plan {
            url: server.url,
            key: server.key,
            model: self.model,
            callers: self.callers.into(),
            extent: match (self.duration, self.requests) {
                (Some(length), _) => Extent::Duration(length),
                (None, count) => Extent::Requests(count.unwrap_or(REQUESTS)),
            },
            rate: self.rate,
            form: if self.stream {
                Form::Stream
            } else {
                Form::Whole
            },
            sessions: self.sessions,
            priorities: self.priority,
            timeout: self.timeout,
        }
    }
}

impl Judgement {
    fn exit_code(&self, report: &Report) -> ExitCode {
        let refused = report.count(Outcome::Refused);
        let too_many = report.failures() > self.max_failed
            || self.max_refused.is_some_and(|most| refused > most);
        if too_many {
            ExitCode::FAILURE
        } else if report.is_interrupted() {
            ExitCode::from(INTERRUPTED)
        } else if report.count(Outcome::Answered) == 0 {
            // A test that was answered nothing has shown nothing.
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// A line on standard error that shows the progress; nothing where that is no terminal.
struct Bar {
    bar: ProgressBar,
    extent: Extent,
}

impl Bar {
    fn new(extent: Extent) -> Self {
        let (length, template) = match extent {
            Extent::Requests(count) => (count, "[{elapsed}] {wide_bar} {pos}/{len} {msg}"),
            Extent::Duration(length) => (millis(length), "[{elapsed}] {wide_bar} {msg}"),
        };
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(length),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        let bar = bar.with_style(style);
        Bar { bar, extent }
    }

    fn draw(&self, progress: &Progress) {
        let lost = progress.ended - progress.answered;
        let message = format!("{} answered, {lost} not", progress.answered);
        self.bar.set_message(message);
        self.bar.set_position(match self.extent {
            Extent::Requests(_) => progress.ended,
            Extent::Duration(_) => millis(progress.elapsed),
        });
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
