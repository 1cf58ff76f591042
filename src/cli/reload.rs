//! `pointsman reload`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::signals::{INTERRUPTED, cancelled_by_signal};
use super::terminal::say;
use super::{Source, fail};
use crate::cancel::CancelToken;
use crate::client::{Client, ClientError};
use crate::config::{Config, Listen};

/// Bytes of an answer: a configuration has at most some thousand knobs.
const MAX_ANSWER: usize = 1 << 20;

/// What `pointsman reload` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    source: Source,
    /// The server: http://HOST:PORT or unix:PATH [default: where the configuration listens]
    #[arg(short, long)]
    url: Option<String>,
    /// The environment variable that holds an admin's key [default: the first admin's key of the configuration]
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
    /// The longest that it may take
    #[arg(short, long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Where the server is, and the key to show it.
struct Door {
    url: String,
    key: Option<String>,
}

/// Has a running server read its configuration anew, and says what is different. Exit code 1 if it did not.
pub(super) fn reload(options: Options) -> ExitCode {
    let timeout = options.timeout;
    let door = match options.door() {
        Ok(door) => door,
        Err(why) => return fail(&why),
    };
    let cancel = match cancelled_by_signal() {
        Ok(cancel) => cancel,
        Err(error) => return fail(&format!("signals can't be taken: {error}")),
    };
    match door.knock(timeout, &cancel) {
        Ok((200, answer)) => match say(&words(&answer)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("what changed can't be written: {error}")),
        },
        Ok((status, answer)) => {
            let message = answer["error"]["message"].as_str();
            fail(message.unwrap_or(&format!("{} answered with status {status}", door.url)))
        }
        Err(_) if cancel.is_cancelled() => ExitCode::from(INTERRUPTED),
        Err(error) => fail(&format!("{}: {error}", door.url)),
    }
}

impl Options {
    fn door(self) -> Result<Door, String> {
        let key = self.key_env.map(|name| match std::env::var(&name) {
            Ok(key) => Ok(key),
            Err(error) => Err(format!("the environment variable {name}: {error}")),
        });
        let key = key.transpose()?;
        if let (Some(url), Some(key)) = (&self.url, &key) {
            return Ok(Door {
                url: url.clone(),
                key: Some(key.clone()),
            });
        }
        // What the server will read is looked at here too: it says where the server is, and what is wrong with it.
        match (self.source.load(None), self.url) {
            (Ok(config), url) => Ok(Door {
                url: url.map_or_else(|| configured(&config), Ok)?,
                key: key.or_else(|| admins_key(&config)),
            }),
            (Err(_), Some(url)) => Ok(Door { url, key }),
            (Err(error), None) => Err(format!(
                "the configuration is refused, and nothing has changed\n{error}"
            )),
        }
    }
}

/// Where the configured server is.
pub(super) fn configured(config: &Config) -> Result<String, String> {
    match &config.server.listen {
        Listen::Tcp(address) if address.ends_with(":0") => Err(format!(
            "the configuration listens on {address}, which is any free port: say with --url which one it is"
        )),
        Listen::Tcp(address) => Ok(format!("http://{address}")),
        listen @ Listen::Unix(_) => Ok(listen.to_string()),
    }
}

fn admins_key(config: &Config) -> Option<String> {
    let mut admins = config.access.keys.iter().filter(|key| key.admin);
    admins.next().map(|admin| admin.key.clone())
}

impl Door {
    /// The status and the answer.
    fn knock(&self, timeout: Duration, cancel: &CancelToken) -> Result<(u16, Value), ClientError> {
        let client = Client::new(&self.url, cancel)?;
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer
            .iter()
            .map(|bearer| ("Authorization", bearer.as_str()))
            .collect();
        let answer = client.post("/api/reload", &headers, b"", timeout)?;
        let status = answer.status;
        let text = answer.text(MAX_ANSWER)?;
        Ok((status, serde_json::from_slice(&text).unwrap_or_default()))
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

    #[test]
    fn a_server_on_any_free_port_has_to_be_named() {
        let at = |listen: &str| {
            let text = format!("server.listen = \"{listen}\"");
            configured(&Config::from_toml(&text, "test.toml").expect("accepted"))
        };
        assert_eq!(at("127.0.0.1:9000").as_deref(), Ok("http://127.0.0.1:9000"));
        assert_eq!(at("unix:/run/p.sock").as_deref(), Ok("unix:/run/p.sock"));
        assert!(at("127.0.0.1:0").expect_err("no port").contains("--url"));
    }
}
