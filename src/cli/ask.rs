//! `pointsman ask`

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::signals::{INTERRUPTED, cancelled_by_signal};
use super::terminal::{Page, remark};
use super::{Source, fail, logging, refuse};
use crate::cancel::CancelToken;
use crate::chat::{ChatRequest, Delta, Piece, Usage};
use crate::config::{Config, Priority};
use crate::gateway::{CallInfo, ChatError, Gateway, Job, Phases, StartError};

/// What goes wrong is said in words, once; `RUST_LOG` shows more.
const LOG_LEVEL: &str = "off";
/// Between two looks at whether a signal came, while models are waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// What `pointsman ask` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    wanted: Wanted,
}

/// The question, and how it is to be asked.
#[derive(Debug, Args)]
struct Wanted {
    /// The model: a name, provider/name, or auto
    #[arg(short, long, value_name = "NAME", default_value = "auto")]
    model: String,
    /// Rules that the model is given before the question
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// The longest that it may take [default: by the tables of timeouts]
    #[arg(short, long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// The question [default: standard input]
    #[arg(value_name = "TEXT")]
    text: Option<String>,
}

/// Asks one question and prints the answer. Exit code 1 if there is none, 130 if it was interrupted.
pub(super) fn ask(options: Options) -> ExitCode {
    logging::start(LOG_LEVEL);
    let config = match options.source.load(None) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let timeout = options.wanted.timeout;
    let request = match options.wanted.request(config.server.max_body) {
        Ok(request) => request,
        Err(error) => return fail(&error),
    };
    // Only now: while the question is typed, a signal ends us as it ends any program.
    let cancel = match cancelled_by_signal() {
        Ok(cancel) => cancel,
        Err(error) => return fail(&format!("signals can't be taken: {error}")),
    };
    let job = Job::chat(request)
        .priority(Priority::High)
        .cancelled_by(&cancel);
    let job = match timeout {
        Some(timeout) => job.timeout(timeout),
        None => job,
    };
    match answer(config, job, &cancel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Unread) => ExitCode::SUCCESS,
        Err(Failure::Chat(ChatError::Cancelled(_) | ChatError::Plan(_)))
            if cancel.is_cancelled() =>
        {
            ExitCode::from(INTERRUPTED)
        }
        Err(Failure::Chat(error)) => fail(&in_words(&error)),
        Err(Failure::Start(error)) => fail(&error.to_string()),
    }
}

/// Why the answer was not printed whole.
enum Failure {
    Start(StartError),
    Chat(ChatError),
    /// Whoever reads our output has read enough: that is no failure of ours.
    Unread,
}

/// Prints the answer, and then, beside it, where the time went.
fn answer(config: Config, job: Job, cancel: &CancelToken) -> Result<(), Failure> {
    let gateway = Gateway::start(config).map_err(Failure::Start)?;
    let mut stream = match gateway.stream(job.clone()) {
        // Models that are only the provider's to name are not known in the first moment.
        Err(ChatError::Plan(_)) if await_models(&gateway, cancel) => gateway.stream(job),
        other => other,
    }
    .map_err(Failure::Chat)?;
    let mut page = Page::of_stdout();
    let mut usage = None;
    let mut printed = Ok(());
    for piece in &mut stream {
        printed = match piece {
            Ok(Piece::Delta(delta)) if delta.choice == 0 => {
                print(&mut page, &delta).map_err(|_| Failure::Unread)
            }
            Ok(Piece::Delta(_) | Piece::Head(_)) => Ok(()),
            Ok(Piece::Usage(tokens)) => {
                usage = Some(tokens);
                Ok(())
            }
            Err(error) => Err(Failure::Chat(error)),
        };
        if printed.is_err() {
            break;
        }
    }
    // An error means that nobody reads our output any more: `printed` has said so, or there is nothing left to say.
    let _ = page.end();
    printed?;
    if let Some((Some(call), phases)) = stream.outcome() {
        remark(&timings(&call, &phases, usage.as_ref()));
    }
    Ok(())
}

/// Waits until providers have said which models they have; `false` when a signal came first.
fn await_models(gateway: &Gateway, cancel: &CancelToken) -> bool {
    while !cancel.is_cancelled() {
        if gateway.wait_for_models(PATIENCE) {
            return true;
        }
    }
    false
}

/// With what else the log would say: whoever asks in this process may read it.
fn in_words(error: &ChatError) -> String {
    match error.detail() {
        Some(detail) => format!("{error} ({detail})"),
        None => error.to_string(),
    }
}

fn print<W: io::Write>(page: &mut Page<W>, delta: &Delta) -> io::Result<()> {
    page.reasoning(delta.reasoning.as_deref().unwrap_or_default())?;
    page.text(delta.content.as_deref().unwrap_or_default())
}

fn timings(call: &CallInfo, phases: &Phases, usage: Option<&Usage>) -> String {
    let tokens = usage.map_or_else(String::new, |usage| {
        format!(", tokens {} + {}", usage.prompt, usage.completion)
    });
    let backoff = match phases.backoff.is_zero() {
        true => String::new(),
        false => format!("backing off {:.3} s, ", phases.backoff.as_secs_f64()),
    };
    let name = |name: &Option<std::sync::Arc<str>>| name.as_deref().unwrap_or("-").to_owned();
    format!(
        "{}/{}: in line {:.3} s, {backoff}connect {:.3} s, first byte {:.3} s, total {:.3} s{tokens}",
        name(&call.provider),
        name(&call.model),
        phases.queue.as_secs_f64(),
        phases.connect.as_secs_f64(),
        phases.first_byte.as_secs_f64(),
        phases.total.as_secs_f64(),
    )
}

impl Wanted {
    fn request(self, max_bytes: usize) -> Result<ChatRequest, String> {
        let text = match self.text {
            Some(text) => text,
            None => read_stdin(max_bytes)?,
        };
        if text.trim().is_empty() {
            return Err("there is no question: name it, or write it to standard input".into());
        }
        let mut request = ChatRequest::new(self.model);
        request.include_usage = true;
        if let Some(rules) = self.system {
            request = request.system(rules);
        }
        Ok(request.user(text))
    }
}

fn read_stdin(max_bytes: usize) -> Result<String, String> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        remark("Type your question; Ctrl-D on a line of its own ends it.");
    }
    let mut text = String::new();
    let read = stdin.take(max_bytes as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| format!("standard input can't be read: {error}"))?;
    if text.len() > max_bytes {
        return Err(format!(
            "the question is longer than {max_bytes} bytes (server.max_body)"
        ));
    }
    Ok(text)
}
