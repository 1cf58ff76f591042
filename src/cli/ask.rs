//! `pointsman ask`

use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::signals::{INTERRUPTED, cancelled_by_signal};
use super::terminal::{Page, remark};
use super::{Source, fail, logging, refuse};
use crate::cancel::CancelReason;
use crate::chat::{ChatRequest, Delta, Piece, Usage};
use crate::config::{Config, Priority};
use crate::gateway::{Answered, AskError, Gateway, Question};

/// What goes wrong is said in words, once; `RUST_LOG` shows more.
const LOG_LEVEL: &str = "off";

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
    /// Print the answer as it comes (the default)
    #[arg(long, overrides_with = "no_stream")]
    stream: bool,
    /// Ask for the answer in one piece
    #[arg(long, overrides_with = "stream")]
    no_stream: bool,
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
    let question = Question {
        request,
        priority: Priority::High,
        timeout,
        cancel,
    };
    match answer(config, question) {
        Ok(()) => ExitCode::SUCCESS,
        Err(AskError::Cancelled(CancelReason::Requested)) => ExitCode::from(INTERRUPTED),
        // Whoever reads our output has read enough: that is no failure.
        Err(AskError::Cancelled(CancelReason::ClientLeft)) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// Prints the answer, and then, beside it, where the time went.
fn answer(config: Config, question: Question) -> Result<(), AskError> {
    let gateway = Gateway::start(config).map_err(|error| AskError::Failed(error.to_string()))?;
    let mut page = Page::of_stdout();
    let mut usage = None;
    let answered = gateway.ask(question, &mut |piece| {
        let written = match piece {
            Piece::Delta(delta) if delta.choice == 0 => print(&mut page, &delta),
            Piece::Delta(_) | Piece::Head(_) => Ok(()),
            Piece::Usage(tokens) => {
                usage = Some(tokens);
                Ok(())
            }
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    // An error means that nobody reads our output any more, and the question knows.
    let _ = page.end();
    remark(&timings(&answered?, usage.as_ref()));
    Ok(())
}

fn print<W: io::Write>(page: &mut Page<W>, delta: &Delta) -> io::Result<()> {
    page.reasoning(delta.reasoning.as_deref().unwrap_or_default())?;
    page.text(delta.content.as_deref().unwrap_or_default())
}

fn timings(answered: &Answered, usage: Option<&Usage>) -> String {
    let Answered {
        provider,
        model,
        reason,
        phases,
    } = answered;
    let tokens = usage.map_or_else(String::new, |usage| {
        format!(", tokens {} + {}", usage.prompt, usage.completion)
    });
    format!(
        "{provider}/{model} ({reason}): in line {:.3} s, connect {:.3} s, first byte {:.3} s, total {:.3} s{tokens}",
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
        request.stream = !self.no_stream;
        request.include_usage = request.stream;
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
