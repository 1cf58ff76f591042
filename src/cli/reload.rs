//! `pointsman reload`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::fail;
use super::server::{Unknown, Which};
use super::signals::{INTERRUPTED, cancelled_by_signal};
use super::terminal::say;

/// Bytes of an answer: a configuration has at most some thousand knobs.
const MAX_ANSWER: usize = 1 << 20;

/// What `pointsman reload` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    which: Which,
    /// The longest that it may take
    #[arg(short, long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Has a running server read its configuration anew, and says what is different. Exit code 1 if it did not.
pub(super) fn reload(options: Options) -> ExitCode {
    // What the server will read is looked at here too: it says where the server is, and what is wrong with it.
    let server = match options.which.find() {
        Ok(server) => server,
        Err(Unknown::Refused(error)) => {
            return fail(&format!(
                "the configuration is refused, and nothing has changed\n{error}"
            ));
        }
        Err(Unknown::Other(why)) => return fail(&why),
    };
    let cancel = match cancelled_by_signal() {
        Ok(cancel) => cancel,
        Err(error) => return fail(&format!("signals can't be taken: {error}")),
    };
    match server.exchange(&cancel, MAX_ANSWER, |client, key| {
        client.post("/api/reload", key, b"", options.timeout)
    }) {
        Ok((200, answer)) => match say(&words(&answer)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("what changed can't be written: {error}")),
        },
        Ok((status, answer)) => {
            let message = answer["error"]["message"].as_str();
            fail(message.unwrap_or(&format!("{} answered with status {status}", server.url)))
        }
        Err(_) if cancel.is_cancelled() => ExitCode::from(INTERRUPTED),
        Err(error) => fail(&format!("{}: {error}", server.url)),
    }
}

/// What is different, a line for each knob.
fn words(answer: &Value) -> String {
    let lines = |list: &str, what: &str| {
        let knobs = answer[list].as_array().into_iter().flatten();
        let knobs = knobs.filter_map(Value::as_str);
        knobs
            .map(|knob| format!("{what}{knob}\n"))
            .collect::<String>()
    };
    let words = lines("changed", "changed         ") + &lines("needs_restart", "needs a restart ");
    match words.is_empty() {
        true => "nothing has changed\n".to_owned(),
        false => words,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_different_has_a_line_for_each_knob() {
        let answer = json!({ "changed": ["limits.global", "queue.timeout"], "needs_restart": ["server.listen"] });
        assert_eq!(
            words(&answer),
            "changed         limits.global\nchanged         queue.timeout\nneeds a restart server.listen\n"
        );
        assert_eq!(words(&json!({ "changed": [] })), "nothing has changed\n");
    }
}
