//! `pointsman status`

mod picture;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use self::picture::{Extent, picture};
use super::reload::configured;
use super::signals::{INTERRUPTED, cancelled_by_signal};
use super::terminal::say;
use super::{Source, fail, refuse};
use crate::cancel::CancelToken;
use crate::client::{Client, ClientError};
use crate::config::Config;

/// Bytes of a picture: of ten thousand rows in each of its lists, as many as may be configured.
const MAX_ANSWER: usize = 64 << 20;
/// The top left corner, and nothing on the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What `pointsman status` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    source: Source,
    /// The server: http://HOST:PORT or unix:PATH [default: where the configuration listens]
    #[arg(short, long)]
    url: Option<String>,
    /// The environment variable that holds a key of the server [default: the configuration's first, an admin's if it has one]
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
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

/// A running server, and who asks it.
struct Server {
    url: String,
    key: Option<String>,
    timeout: Duration,
    cancel: CancelToken,
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
    let server = match options.server(&cancel) {
        Ok(server) => server,
        Err(code) => return code,
    };
    let mut shown = false;
    loop {
        let (text, pause) = match server.ask() {
            Ok(shot) => {
                shown = true;
                (options.text(&shot, &server.url), interval(&shot))
            }
            Err(_) if cancel.is_cancelled() => return ExitCode::from(INTERRUPTED),
            // One that was there may come back, and whoever watches waits for it.
            Err(failure) if shown && options.watch => (
                options.trouble(&server.in_words(&failure)),
                Duration::from_secs(1),
            ),
            Err(failure) => return fail(&server.in_words(&failure)),
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
    fn server(&self, cancel: &CancelToken) -> Result<Server, ExitCode> {
        let key = self.key_env.as_ref().map(|name| match std::env::var(name) {
            Ok(key) => Ok(key),
            Err(error) => Err(fail(&format!("the environment variable {name}: {error}"))),
        });
        let key = key.transpose()?;
        let (url, key) = match (&self.url, key) {
            (Some(url), Some(key)) => (url.clone(), Some(key)),
            (url, key) => match (self.source.load(None), url) {
                (Ok(config), url) => {
                    let url = url.clone().map_or_else(|| configured(&config), Ok);
                    (
                        url.map_err(|why| fail(&why))?,
                        key.or_else(|| a_key(&config)),
                    )
                }
                (Err(_), Some(url)) => (url.clone(), key),
                (Err(error), None) => return Err(refuse(&error)),
            },
        };
        Ok(Server {
            url,
            key,
            timeout: self.timeout,
            cancel: cancel.clone(),
        })
    }

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

/// An admin sees everything.
fn a_key(config: &Config) -> Option<String> {
    let keys = &config.access.keys;
    let admin = keys.iter().find(|key| key.admin);
    admin.or(keys.first()).map(|found| found.key.clone())
}

impl Server {
    fn ask(&self) -> Result<Value, Failure> {
        let client = Client::new(&self.url, &self.cancel).map_err(Failure::Client)?;
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer
            .iter()
            .map(|bearer| ("Authorization", bearer.as_str()))
            .collect();
        let answer = client.get("/api/overview", &headers, self.timeout);
        let answer = answer.map_err(Failure::Client)?;
        let status = answer.status;
        let text = answer.text(MAX_ANSWER).map_err(Failure::Client)?;
        let body: Value = serde_json::from_slice(&text).unwrap_or_default();
        match (status, &body) {
            (200, Value::Object(_)) => Ok(body),
            _ => {
                let words = body["error"]["message"].as_str().map(str::to_owned);
                let other =
                    || format!("it answers with status {status}, and not as pointsman would");
                Err(Failure::Told(words.unwrap_or_else(other)))
            }
        }
    }

    fn in_words(&self, failure: &Failure) -> String {
        match failure {
            Failure::Client(error @ ClientError::Url(_)) => error.to_string(),
            Failure::Client(error) => {
                format!("nobody answers at {}: {error}", self.url)
            }
            Failure::Told(words) => format!("{}: {words}", self.url),
        }
    }
}
