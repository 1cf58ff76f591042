//! `[[alerts.webhooks]]`: who is told. An address of a webhook may be a secret as much as a key is, so both may stand in
//! variables and files, and neither is ever shown.

use std::fmt;

use http::Uri;

use super::super::environment::Environment;
use super::super::secret;
use super::super::section::Section;
use super::super::word::{Word, written_as_word};

/// Where PagerDuty takes events.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// What a webhook understands.
///
/// ```
/// use pointsman::config::WebhookKind;
///
/// assert_eq!("slack".parse(), Ok(WebhookKind::Slack));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookKind {
    /// A text, as Slack's incoming webhooks and those of its kin take it.
    Slack,
    /// Events of PagerDuty, version 2: trigger, acknowledge, resolve.
    PagerDuty,
    /// The alert as it is.
    Json,
}

impl Word for WebhookKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("slack", WebhookKind::Slack),
        ("pagerduty", WebhookKind::PagerDuty),
        ("json", WebhookKind::Json),
    ];
}

written_as_word!(WebhookKind);

/// Somebody who is told of alerts.
#[derive(Clone, PartialEq)]
pub struct Webhook {
    /// What it understands.
    pub kind: WebhookKind,
    /// Where it is. May hold a secret.
    pub url: String,
    /// PagerDuty's routing key; for `json` what is sent as `Authorization: Bearer`.
    pub key: Option<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("kind", &self.kind)
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

impl Webhook {
    pub(super) fn read(section: &mut Section<'_>, environment: &Environment) -> Self {
        let kind = section.parsed("kind");
        if !section.keys().iter().any(|key| key == "kind") {
            section.refuse("kind", "missing, accepted is slack | pagerduty | json");
        }
        let kind = kind.unwrap_or(WebhookKind::Json);
        let accepted = "http:// or https://, a host, and the rest of the address";
        let plain = section.unshown_knob("url", accepted, |value| {
            let text = value.as_text().filter(|text| is_url(text))?;
            Some(text.to_owned())
        });
        let found = find(section, "url", environment);
        let url = plain.or(found);
        let url = url.filter(|url| {
            let is_fine = is_url(url);
            if !is_fine {
                let message = format!("what it names is no address, accepted is {accepted}");
                section.refuse("url_env", message);
            }
            is_fine
        });
        let key = find(section, "key", environment);
        let says = |section: &Section<'_>, knobs: [&str; 3]| {
            let said = section.keys();
            knobs.iter().any(|knob| said.iter().any(|key| key == knob))
        };
        let names_url = says(section, ["url", "url_env", "url_file"]);
        let names_key = says(section, ["key_env", "key_file", "key_file"]);
        match kind {
            WebhookKind::PagerDuty if !names_key => section.refuse(
                "key_env",
                "missing, accepted is the variable that holds PagerDuty's routing key, or a file in key_file",
            ),
            WebhookKind::Slack | WebhookKind::Json if !names_url => section.refuse(
                "url",
                "missing, accepted is an address here, the name of a variable in url_env, or a file in url_file",
            ),
            WebhookKind::Slack if names_key => section.refuse(
                "key_env",
                "slack takes no key: its address is the secret (url_env, url_file)",
            ),
            WebhookKind::Slack | WebhookKind::PagerDuty | WebhookKind::Json => {}
        }
        Webhook {
            kind,
            url: url.unwrap_or_else(|| PAGERDUTY.to_owned()),
            key,
        }
    }

    /// The host alone, for log and pages.
    pub fn host(&self) -> String {
        let uri = self.url.parse::<Uri>().ok();
        let host = uri.as_ref().and_then(Uri::host);
        host.unwrap_or_default().to_owned()
    }
}

/// What `NAME_env` or `NAME_file` holds; one that is named and not there is refused, for nobody would notice that alerts
/// go nowhere.
fn find(section: &mut Section<'_>, name: &str, environment: &Environment) -> Option<String> {
    let (variable_knob, file_knob) = (format!("{name}_env"), format!("{name}_file"));
    let (variable, file) = secret::read(section, &variable_knob, &file_knob);
    let knob = if file.is_some() {
        file_knob
    } else {
        variable_knob
    };
    match secret::find(variable.as_deref(), file.as_deref(), environment) {
        Ok(Some(found)) => Some(found),
        Ok(None) => {
            if let Some(variable) = variable {
                let message = format!("the environment variable {variable} is not set");
                section.refuse(&knob, message);
            }
            None
        }
        Err(problem) => {
            section.refuse(&knob, problem);
            None
        }
    }
}

fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    is_web && uri.host().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError, Loader, Problem};

    fn load(webhook: &str) -> Result<Config, ConfigError> {
        let environment = Environment::from_iter([
            ("HOOK", "http://127.0.0.1:9/secret-path"),
            ("ROUTING", "r-1"),
            ("WORD", "nothing-like-an-address"),
        ]);
        let text = format!("alerts.webhooks = [{webhook}]");
        Loader::new(environment).from_toml(&text, "test.toml")
    }

    #[test]
    fn secrets_are_found_and_not_shown() {
        let both = "{ kind = \"slack\", url_env = \"HOOK\" }, { kind = \"pagerduty\", key_env = \"ROUTING\" }";
        let config = load(both).expect("accepted");
        let [slack, pagerduty] = &*config.alerts.webhooks else {
            panic!("two");
        };
        assert_eq!(slack.url, "http://127.0.0.1:9/secret-path");
        assert_eq!(slack.host(), "127.0.0.1");
        assert_eq!(pagerduty.key.as_deref(), Some("r-1"));
        assert_eq!(pagerduty.host(), "events.pagerduty.com");
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("secret-path") && !shown.contains("r-1"),
            "{shown}"
        );
    }

    #[test]
    fn what_can_tell_nobody_is_refused() {
        for (webhook, place) in [
            ("{ url = \"http://127.0.0.1/\" }", "kind: missing"),
            (
                "{ kind = \"mail\", url = \"http://127.0.0.1/\" }",
                "slack | pagerduty | json",
            ),
            ("{ kind = \"slack\" }", "url: missing"),
            (
                "{ kind = \"slack\", url_env = \"NONE\" }",
                "NONE is not set",
            ),
            (
                "{ kind = \"slack\", url_env = \"WORD\" }",
                "url_env: what it names is no address",
            ),
            (
                "{ kind = \"slack\", url = \"secret\" }",
                "url: found a string",
            ),
            (
                "{ kind = \"slack\", url_env = \"HOOK\", key_env = \"ROUTING\" }",
                "slack takes no key",
            ),
            ("{ kind = \"pagerduty\" }", "key_env: missing"),
            (
                "{ kind = \"pagerduty\", key_env = \"NONE\" }",
                "NONE is not set",
            ),
        ] {
            let Err(ConfigError::Refused(problems)) = load(webhook) else {
                panic!("{webhook} is accepted");
            };
            let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
            let all = problems.join("\n");
            assert!(all.contains(place), "{webhook}: {all}");
            assert!(!all.contains("nothing-like"), "{all}");
        }
    }
}
