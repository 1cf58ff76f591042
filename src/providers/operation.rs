//! How long a request may take: by what it asks for, by what its provider is known to need, or as its caller wishes.
//!
//! | the caller named a time | deadline |
//! |---|---|
//! | yes | that, at most `timeouts.max` |
//! | no | the longer of the kind's (`timeouts.normal`, `streaming`, `continuation`) and the row of the provider's table |
//!
//! The table has a row for each [`Operation`]. A prompt of more than `timeouts.long_prompt_tokens` takes the next longer
//! row. How many tokens a prompt has is only guessed: see [`prompt_tokens`]. What calls really took may change the second
//! line: see `learned.rs`.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::chat::{ChatRequest, Content};
use crate::config::{self, Model, OperationTimeouts, ProviderKind, Thinking, Timeouts};

use super::prompt::prompt_tokens;

/// What a request asks for, as far as it matters for how long it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Operation {
    /// Whether the web is searched.
    pub web: bool,
    /// Whether the model thinks: asked for, or in its name, or its habit that was not switched off.
    pub thinking: bool,
}

impl Operation {
    /// What `request` is at a model of this entry; `None` for a model that the configuration doesn't know.
    pub fn of(request: &ChatRequest, model: Option<&Model>) -> Self {
        Operation {
            web: request.web_search,
            thinking: thinks(request, model),
        }
    }

    /// The row of a provider's table.
    pub fn row(self, table: &OperationTimeouts) -> Duration {
        match (self.web, self.thinking) {
            (false, false) => table.plain,
            (true, false) => table.web_search,
            (false, true) => table.thinking,
            (true, true) => table.web_search_thinking,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "web={}, thinking={}", self.web, self.thinking)
    }
}

fn thinks(request: &ChatRequest, model: Option<&Model>) -> bool {
    match (model.map(|model| model.thinking), request.thinking) {
        (Some(Thinking::Always), _) => true,
        (Some(Thinking::Never), _) => false,
        (_, Some(wanted)) => wanted,
        (Some(Thinking::Default), None) => true,
        (Some(Thinking::Optional) | None, None) => {
            request.reasoning_effort.is_some() || request.model.contains("thinking")
        }
    }
}

/// The kind of a request, whatever its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One body.
    Normal,
    /// A stream.
    Streaming,
    /// A further turn of a kept conversation.
    Continuation,
}

impl Kind {
    fn timeout(self, timeouts: &Timeouts) -> Duration {
        match self {
            Kind::Normal => timeouts.normal,
            Kind::Streaming => timeouts.streaming,
            Kind::Continuation => timeouts.continuation,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Normal => "normal",
            Kind::Streaming => "streaming",
            Kind::Continuation => "continuation",
        })
    }
}

/// A request, as far as it matters for how long it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// What it asks for.
    pub operation: Operation,
    /// Its kind.
    pub kind: Kind,
    /// About how many tokens its prompt has.
    pub tokens: u64,
    /// Whether those are more than `timeouts.long_prompt_tokens`.
    pub is_long: bool,
    /// Whether whoever answers it in good health begins soon: the answer is streamed, the prompt is text of no great
    /// length, nothing is searched, and the model is one that the configuration knows not to think now.
    pub speaks_soon: bool,
}

impl Demand {
    /// What `request` is at `provider`; `model` is what is known of the model.
    pub fn of(
        request: &ChatRequest,
        model: Option<&Model>,
        kind: Kind,
        provider: &config::Provider,
        timeouts: &Timeouts,
    ) -> Self {
        let operation = Operation::of(request, model);
        let tokens = prompt_tokens(request);
        let is_long = tokens > timeouts.long_prompt_tokens;
        // Kimi and GLM are always asked for a stream.
        let is_streamed = request.stream || provider.kind != ProviderKind::OpenAi;
        let is_known = || {
            let mut known = provider.models.iter();
            known.any(|known| model.is_some_and(|model| model.name == known.name))
        };
        let is_plain = operation == Operation::default();
        let speaks_soon = is_plain && is_streamed && !is_long && is_text(request) && is_known();
        Demand {
            operation,
            kind,
            tokens,
            is_long,
            speaks_soon,
        }
    }
}

/// Whether the prompt has nothing but text: of pictures nobody knows how long they take to send and to look at.
fn is_text(request: &ChatRequest) -> bool {
    let contents = request.messages.iter();
    let mut contents = contents.filter_map(|message| message.content.as_ref());
    contents.all(|content| match content {
        Content::Text(_) => true,
        Content::Parts(parts) => parts
            .iter()
            .all(|part| part.get("text").is_some_and(Value::is_string)),
    })
}

/// How long a request may take, and why. Its `Display` is made for a header: `420s (web=true, thinking=true)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenTimeout {
    /// From the receipt of the request to its end.
    pub value: Duration,
    /// In words.
    pub reason: String,
    /// How long each of its calls may be silent before the answer's first byte, where that is bounded by what was learned.
    pub first_byte: Option<Duration>,
}

impl ChosenTimeout {
    /// The line for the log: `kimi timeout: 420s (web=true, thinking=true)`.
    pub fn log_line(&self, provider: &str) -> String {
        format!("{provider} timeout: {self}")
    }
}

impl fmt::Display for ChosenTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", Length(self.value), self.reason)
    }
}

/// A length of time as it stands in headers: whole seconds, else milliseconds.
pub(super) struct Length(pub(super) Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_nanos() {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}ms", self.0.as_millis()),
        }
    }
}

/// Chooses how long a request may take at `provider`; `wished` is what the caller named.
pub fn choose_timeout(
    demand: &Demand,
    wished: Option<Duration>,
    provider: &config::Provider,
    timeouts: &Timeouts,
) -> ChosenTimeout {
    if let Some(wished) = wished {
        return wish(wished, timeouts.max);
    }
    let mut reason = demand.operation.to_string();
    let mut row = demand.operation.row(&provider.timeouts);
    if demand.is_long {
        row = next_longer(row, &provider.timeouts);
        reason += &format!(", a prompt of about {} tokens", demand.tokens);
    }
    let least = demand.kind.timeout(timeouts);
    if least > row {
        reason += &format!(", {}", demand.kind);
    }
    let value = row.max(least);
    if value > timeouts.max {
        reason += ", bounded by timeouts.max";
    }
    ChosenTimeout {
        value: value.min(timeouts.max),
        reason,
        first_byte: None,
    }
}

fn wish(wished: Duration, max: Duration) -> ChosenTimeout {
    let reason = if wished > max {
        "asked for more, bounded by timeouts.max"
    } else {
        "asked for"
    };
    ChosenTimeout {
        value: wished.min(max),
        reason: reason.into(),
        first_byte: None,
    }
}

/// The shortest row of the table that is longer than `row`, else `row`.
fn next_longer(row: Duration, table: &OperationTimeouts) -> Duration {
    let rows = [
        table.plain,
        table.web_search,
        table.thinking,
        table.web_search_thinking,
    ];
    let longer = rows.into_iter().filter(|other| *other > row);
    longer.min().unwrap_or(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::testing::{model, provider, timeouts};

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn kimi() -> config::Provider {
        let mut kimi = provider("kimi", config::ProviderKind::Kimi);
        kimi.models = vec![
            model("k-always", Thinking::Always),
            model("k-default", Thinking::Default),
            model("k-never", Thinking::Never),
        ];
        kimi
    }

    fn choose(request: &ChatRequest, kind: Kind, wished: Option<Duration>) -> ChosenTimeout {
        let kimi = kimi();
        let mut models = kimi.models.iter();
        let model = models.find(|model| model.name == request.model);
        let demand = Demand::of(request, model, kind, &kimi, &timeouts());
        choose_timeout(&demand, wished, &kimi, &timeouts())
    }

    fn check(request: &ChatRequest, kind: Kind, expected: &str) {
        let chosen = choose(request, kind, None);
        assert_eq!(chosen.to_string(), expected);
    }

    #[test]
    fn each_operation_takes_its_row_of_the_table() {
        let mut request = ChatRequest::new("k-never").user("x");
        check(&request, Kind::Normal, "240s (web=false, thinking=false)");
        request.web_search = true;
        check(&request, Kind::Normal, "300s (web=true, thinking=false)");
        request.model = "k-always".into();
        check(&request, Kind::Normal, "420s (web=true, thinking=true)");
        request.web_search = false;
        check(&request, Kind::Normal, "360s (web=false, thinking=true)");
    }

    #[test]
    fn thinking_is_a_wish_a_name_or_a_habit() {
        let thinks = |name: &str, wanted| {
            let mut request = ChatRequest::new(name);
            request.thinking = wanted;
            let kimi = kimi();
            let model = kimi.models.iter().find(|model| model.name == name);
            Operation::of(&request, model).thinking
        };
        assert!(thinks("k-default", None) && !thinks("k-default", Some(false)));
        assert!(thinks("k-always", Some(false)) && !thinks("k-never", Some(true)));
        assert!(thinks("some-thinking-model", None) && !thinks("some-model", None));
        assert!(thinks("some-model", Some(true)) && !thinks("some-thinking", Some(false)));
    }

    #[test]
    fn only_a_plain_streamed_answer_of_a_known_model_begins_soon() {
        let soon = |provider: &config::Provider, change: fn(&mut ChatRequest)| {
            let mut request = ChatRequest::new("k-never").user("x");
            change(&mut request);
            let listed = model("listed-only", Thinking::Never);
            let mut models = provider.models.iter().chain([&listed]);
            let model = models.find(|model| model.name == request.model);
            let demand = Demand::of(&request, model, Kind::Normal, provider, &timeouts());
            demand.speaks_soon
        };
        let kimi = kimi();
        assert!(soon(&kimi, |_| ()));
        assert!(soon(&kimi, |request| {
            request.model = "k-default".into();
            request.thinking = Some(false);
        }));
        let slow: [fn(&mut ChatRequest); 6] = [
            |request| request.model = "k-always".into(),
            |request| request.model = "k-default".into(),
            |request| request.model = "listed-only".into(),
            |request| request.model = "of-nobody".into(),
            |request| request.web_search = true,
            |request| *request = request.clone().user("x".repeat(64_001 * 4)),
        ];
        for change in slow {
            assert!(!soon(&kimi, change));
        }
        assert!(!soon(&kimi, |request| {
            let picture = serde_json::json!({"type": "image_url", "image_url": {"url": "data:"}});
            request.messages[0].content = Some(Content::Parts(vec![picture]));
        }));
        // Asked for one body, such a server says nothing until all is written.
        let openai = config::Provider {
            kind: ProviderKind::OpenAi,
            ..kimi
        };
        assert!(!soon(&openai, |_| ()) && soon(&openai, |request| request.stream = true));
    }

    #[test]
    fn a_long_prompt_takes_the_next_longer_row() {
        let long = "x".repeat(64_001 * 4);
        let mut request = ChatRequest::new("k-never").user(long);
        let expected = "300s (web=false, thinking=false, a prompt of about 64001 tokens)";
        check(&request, Kind::Normal, expected);
        request.web_search = true;
        request.model = "k-always".into();
        let expected = "420s (web=true, thinking=true, a prompt of about 64001 tokens)";
        check(&request, Kind::Normal, expected);
        // Two rows of the same length are one step.
        let table = OperationTimeouts {
            thinking: secs(300),
            ..kimi().timeouts
        };
        assert_eq!(next_longer(secs(300), &table), secs(420));
    }

    #[test]
    fn the_kind_counts_where_it_is_longer_and_says_so() {
        let request = ChatRequest::new("k-never").user("x");
        check(
            &request,
            Kind::Streaming,
            "300s (web=false, thinking=false, streaming)",
        );
        check(
            &request,
            Kind::Continuation,
            "240s (web=false, thinking=false)",
        );
    }

    #[test]
    fn the_callers_wish_wins_within_the_bound() {
        let request = ChatRequest::new("k-always").user("x");
        let wished = |wish| choose(&request, Kind::Normal, Some(wish));
        assert_eq!(wished(secs(7)).to_string(), "7s (asked for)");
        assert_eq!(
            wished(Duration::from_millis(1500)).to_string(),
            "1500ms (asked for)"
        );
        let long = wished(secs(1_000_000));
        assert_eq!(long.value, timeouts().max);
        assert_eq!(long.reason, "asked for more, bounded by timeouts.max");
    }

    #[test]
    fn the_line_in_the_log_is_the_one_that_people_look_for() {
        let mut request = ChatRequest::new("k-always").user("x");
        request.web_search = true;
        let chosen = choose(&request, Kind::Normal, None);
        assert_eq!(
            chosen.log_line("kimi"),
            "kimi timeout: 420s (web=true, thinking=true)"
        );
    }
}
