//! The line that a request leaves in the log: who, how it ended, where its time went, why.
//!
//! ```text
//! request 0198f3 completed provider=kimi model=kimi-k3 session=agent-1 priority=medium status=completed \
//!     queue=0.0031s backoff=0s connect=0.0402s first_byte=1.2041s upstream=3.1492s rest=0.0005s total=3.1528s attempts=1 \
//!     reason="auto: the first that fits"
//! ```
//!
//! (One line, here broken.) Names come from clients: a session may hold spaces, quotes and line feeds, and must not be able to forge a
//! second line or a field of another name. What isn't plain is therefore quoted and escaped, and cut at [`MAX_VALUE`].

use std::fmt;

use crate::config::Priority;
use crate::telemetry::{Phases, Step};

/// Characters of one value; longer ones are cut and end in `...`.
const MAX_VALUE: usize = 300;
/// The log's name for these lines, to filter by.
const TARGET: &str = "pointsman::request";

/// What the log says of one request.
///
/// ```
/// use pointsman::telemetry::{Phases, RequestLine, Step};
/// use std::time::Duration;
///
/// let line = RequestLine {
///     end: Step::Completed,
///     provider: Some("kimi"),
///     phases: Phases {
///         total: Duration::from_millis(3_210),
///         ..Phases::default()
///     },
///     ..RequestLine::new("0198f3")
/// };
/// assert!(line.to_string().starts_with("request 0198f3 completed provider=kimi model=- "));
/// assert!(line.to_string().contains(" total=3.21s "));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RequestLine<'a> {
    /// The request's id.
    pub request: &'a str,
    /// How it ended.
    pub end: Step,
    /// The provider of the last call, if there was one.
    pub provider: Option<&'a str>,
    /// The provider's name of the model.
    pub model: Option<&'a str>,
    /// The name of the API key that the request came under, if it came under one.
    pub key: Option<&'a str>,
    /// The client session, where the request names one.
    pub session: Option<&'a str>,
    /// How urgent it was.
    pub priority: Priority,
    /// What the client was told: `completed`, or the code of an error.
    pub status: &'a str,
    /// Where its time went.
    pub phases: Phases,
    /// Calls made.
    pub attempts: u32,
    /// Why it went where it went, or what went wrong, in words.
    pub reason: &'a str,
}

impl<'a> RequestLine<'a> {
    /// A line that says as little as possible: to be filled in.
    pub fn new(request: &'a str) -> Self {
        RequestLine {
            request,
            end: Step::Completed,
            provider: None,
            model: None,
            key: None,
            session: None,
            priority: Priority::default(),
            status: "completed",
            phases: Phases::default(),
            attempts: 0,
            reason: "",
        }
    }

    /// Whether the log takes such lines: making one costs more than asking.
    pub fn is_wanted() -> bool {
        log::log_enabled!(target: TARGET, log::Level::Info)
    }

    /// Writes the line to the log, at `info`, with the target `pointsman::request`.
    pub fn log(&self) {
        log::info!(target: TARGET, "{self}");
    }
}

impl fmt::Display for RequestLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.end.name().to_ascii_lowercase();
        write!(f, "request {} {end}", Value(self.request))?;
        write!(f, " provider={}", Value(self.provider.unwrap_or("-")))?;
        write!(f, " model={}", Value(self.model.unwrap_or("-")))?;
        // Where no keys are set the line has no word of them.
        if let Some(key) = self.key {
            write!(f, " key={}", Value(key))?;
        }
        write!(f, " session={}", Value(self.session.unwrap_or("-")))?;
        write!(f, " priority={}", priority_word(self.priority))?;
        write!(f, " status={}", Value(self.status))?;
        for (name, figure) in self.phases.figures() {
            write!(f, " {name}={}s", figure.seconds())?;
        }
        write!(f, " attempts={}", self.attempts)?;
        write!(f, " reason={}", Quoted(self.reason))
    }
}

fn priority_word(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Medium => "medium",
        Priority::Low => "low",
    }
}

/// A value as it is where that is one plain word, else quoted.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@+".contains(c);
        let short = self.0.len() <= MAX_VALUE;
        if short && !self.0.is_empty() && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            Quoted(self.0).fmt(f)
        }
    }
}

/// A value in quotes, escaped, and cut if it is too long.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_VALUE) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}", format!("{}...", &self.0[..end])),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn full() -> RequestLine<'static> {
        RequestLine {
            provider: Some("kimi"),
            model: Some("kimi-k3"),
            session: Some("agent-1"),
            phases: Phases {
                queue: Duration::from_millis(3),
                backoff: Duration::from_secs(2),
                connect: Duration::from_millis(40),
                first_byte: Duration::from_millis(1_204),
                upstream: Duration::from_micros(3_149_270),
                total: Duration::from_millis(5_153),
            },
            attempts: 1,
            reason: "auto: kimi is the first that fits",
            ..RequestLine::new("0198f3")
        }
    }

    #[test]
    fn a_line_says_who_how_where_the_time_went_and_why() {
        let expected = "request 0198f3 completed provider=kimi model=kimi-k3 session=agent-1 priority=medium \
                        status=completed queue=0.003s backoff=2s connect=0.04s first_byte=1.204s \
                        upstream=3.1492s rest=0.0008s total=5.153s attempts=1 reason=\"auto: kimi is the first that fits\"";
        assert_eq!(full().to_string(), expected);
    }

    #[test]
    fn what_was_not_reached_stands_as_a_dash_or_zero() {
        let line = RequestLine {
            end: Step::Refused,
            priority: Priority::High,
            status: "over_capacity",
            ..RequestLine::new("r")
        };
        let expected = "request r refused provider=- model=- session=- priority=high status=over_capacity \
                        queue=0s backoff=0s connect=0s first_byte=0s upstream=0s rest=0s total=0s \
                        attempts=0 reason=\"\"";
        assert_eq!(line.to_string(), expected);
    }

    #[test]
    fn a_request_under_a_key_names_the_key() {
        let key = Some("laptop");
        let line = RequestLine { key, ..full() }.to_string();
        assert!(line.contains(" key=laptop session=agent-1 "), "{line}");
    }

    #[test]
    fn a_client_cannot_forge_a_line_or_a_field() {
        for session in [
            "a\nrequest x completed",
            "a status=completed",
            "a\" b",
            "a\u{1b}[2J",
            "\u{2028}",
            "",
        ] {
            let line = RequestLine {
                session: Some(session),
                ..full()
            };
            let line = line.to_string();
            assert!(line.contains(&format!(" session={session:?} ")), "{line}");
            assert!(line.chars().all(|c| !c.is_control()), "{line}");
        }
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let long = "\u{e4}".repeat(MAX_VALUE + 1);
        let line = RequestLine {
            reason: &long,
            session: Some(&long),
            ..full()
        };
        let cut = format!("\"{}...\"", "\u{e4}".repeat(MAX_VALUE));
        let line = line.to_string();
        assert!(line.ends_with(&format!(" reason={cut}")), "{line}");
        assert!(line.contains(&format!(" session={cut} ")), "{line}");
    }

    #[test]
    fn priorities_are_words() {
        let words = Priority::ALL.map(priority_word);
        assert_eq!(words, ["high", "medium", "low"]);
    }
}
