//! `[timeouts]`: deadlines by kind of request, and the limits inside them.

use std::time::Duration;

use super::section::Section;
use super::{HOUR, millis, secs};

/// `[timeouts]`
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// A request that wants one body.
    pub normal: Duration,
    /// A request that wants a stream.
    pub streaming: Duration,
    /// A request that continues a conversation.
    pub continuation: Duration,
    /// Name lookup, TCP and TLS.
    pub connect: Duration,
    /// Silence between two pieces of an answer.
    pub idle: Duration,
    /// Until the first byte of an answer; `None`: the deadline.
    pub first_byte: Option<Duration>,
    /// The longest deadline that a caller may ask for.
    pub max: Duration,
    /// A prompt of more tokens than this takes the next longer row of a provider's table.
    pub long_prompt_tokens: u64,
}

impl Timeouts {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let range = millis(1)..=24 * HOUR;
        let timeouts = Timeouts {
            normal: section
                .duration("normal", range.clone())
                .unwrap_or(secs(30)),
            streaming: section
                .duration("streaming", range.clone())
                .unwrap_or(secs(300)),
            continuation: section
                .duration("continuation", range.clone())
                .unwrap_or(secs(120)),
            connect: section
                .duration("connect", range.clone())
                .unwrap_or(secs(10)),
            idle: section.duration("idle", range.clone()).unwrap_or(secs(60)),
            first_byte: section.duration("first_byte", range.clone()),
            max: section.duration("max", range).unwrap_or(HOUR),
            long_prompt_tokens: section
                .count("long_prompt_tokens", 1..=100_000_000)
                .unwrap_or(64_000),
        };
        timeouts.check(section);
        timeouts
    }

    /// A ladder that can't work: if connecting may take as long as the longest deadline, then its own timeout never
    /// fires, and a dead provider is told as *deadline exceeded*. Providers with a table of their own may have longer
    /// deadlines, but not every request goes to one of them.
    fn check(&self, section: &mut Section<'_>) {
        let kinds = [
            (self.normal, "normal"),
            (self.streaming, "streaming"),
            (self.continuation, "continuation"),
        ];
        let (longest, key) = kinds.into_iter().max().expect("there are three kinds");
        if self.connect >= longest {
            let [connect, longest] = [self.connect, longest].map(humantime::format_duration);
            let message = format!(
                "{connect} is not shorter than every deadline: the longest is timeouts.{key} ({longest}), accepted is \
                 less than that"
            );
            section.refuse_pair("connect", key, message);
        }
    }

    /// The shortest deadline of a kind of request.
    pub(super) fn shortest(&self) -> Duration {
        self.normal.min(self.streaming).min(self.continuation)
    }
}
