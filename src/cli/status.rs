//! `pointsman status`

mod picture;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use self::picture::{Extent, picture};
use super::server::{Server, Unknown, Which};
use super::signals::{INTERRUPTED, cancelled_by_signal};
use super::terminal::say;
use super::{fail, refuse};
use crate::cancel::CancelToken;
use crate::client::ClientError;

/// Bytes of a picture: of ten thousand rows in each of its lists, as many as may be configured.
const MAX_ANSWER: usize = 64 << 20;
/// The top left corner, and nothing on the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What `pointsman status` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    which: Which,
    /// Again and again, until it is interrupted
    #[arg(short, long)]
    watch: bool,
    /// As JSON, whole: one object, or with --watch one on each line
    #[arg(long)]
    json: bool,
    /// The longest that an answer may take
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Why there is no picture.
enum Failure {
    Client(ClientError),
    /// It said no, in words.
    Told(String),
}

/// Shows what a running server does. Exit code 1 if none answers, 130 if it was interrupted.
pub(super) fn status(options: Options) -> ExitCode {
    let cancel = match cancelled_by_signal() {
        Ok(cancel) => cancel,
        Err(error) => return fail(&format!("signals can't be taken: {error}")),
    };
    let server = match options.which.find() {
        Ok(server) => server,
        Err(Unknown::Refused(error)) => return refuse(&error),
        Err(Unknown::Other(why)) => return fail(&why),
    };
    let mut shown = false;
    loop {
        let (text, pause) = match shot(&server, options.timeout, &cancel) {
            Ok(shot) => {
                shown = true;
                (options.text(&shot, &server.url), interval(&shot))
            }
            Err(_) if cancel.is_cancelled() => return ExitCode::from(INTERRUPTED),
            // One that was there may come back, and whoever watches waits for it.
            Err(failure) if shown && options.watch => (
                options.trouble(&failure.in_words(&server.url)),
                Duration::from_secs(1),
            ),
            Err(failure) => return fail(&failure.in_words(&server.url)),
        };
        match say(&text) {
            Ok(()) => {}
            // Whoever reads our output has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Err(error) => return fail(&format!("the picture can't be written: {error}")),
        }
        if !options.watch {
            return ExitCode::SUCCESS;
        }
        if cancel.wait(pause).is_some() {
            return ExitCode::from(INTERRUPTED);
        }
    }
}

/// How long until there is a newer picture.
fn interval(shot: &Value) -> Duration {
    let seconds = shot["interval_s"].as_f64().unwrap_or(1.0);
    Duration::from_secs_f64(seconds.clamp(0.05, 60.0))
}

impl Options {
    fn text(&self, shot: &Value, url: &str) -> String {
        let is_terminal = io::stdout().is_terminal();
        match (self.json, self.watch) {
            (true, true) => format!("{shot}\n"),
            (true, false) => format!("{shot:#}\n"),
            (false, true) if is_terminal => {
                let screen = picture(shot, url, Extent::of_terminal());
                format!("{CLEAR}{}", screen.trim_end())
            }
            (false, true) => format!("{}\n", picture(shot, url, Extent::WHOLE)),
            (false, false) => {
                let wide = Extent {
                    rows: usize::MAX,
                    ..Extent::of_terminal()
                };
                picture(shot, url, if is_terminal { wide } else { Extent::WHOLE })
            }
        }
    }

    /// What a watcher is told while nobody answers.
    fn trouble(&self, why: &str) -> String {
        match (self.json, io::stdout().is_terminal()) {
            (true, _) => format!("{}\n", serde_json::json!({ "error": why })),
            (false, true) => format!("{CLEAR}{why}; trying again"),
            (false, false) => format!("{why}; trying again\n\n"),
        }
    }
}

/// The picture of now.
fn shot(server: &Server, timeout: Duration, cancel: &CancelToken) -> Result<Value, Failure> {
    let exchanged = server.exchange(cancel, MAX_ANSWER, |client, key| {
        client.get("/api/overview", key, timeout)
    });
    let (status, body) = exchanged.map_err(Failure::Client)?;
    if status == 200 && body.is_object() {
        return Ok(body);
    }
    let words = body["error"]["message"].as_str().map(str::to_owned);
    let other = || format!("it answers with status {status}, and not as pointsman would");
    Err(Failure::Told(words.unwrap_or_else(other)))
}

impl Failure {
    /// In words, of the server at `url`.
    fn in_words(&self, url: &str) -> String {
        match self {
            Failure::Client(error @ ClientError::Url(_)) => error.to_string(),
            Failure::Client(error) => format!("nobody answers at {url}: {error}"),
            Failure::Told(words) => format!("{url}: {words}"),
        }
    }
}
