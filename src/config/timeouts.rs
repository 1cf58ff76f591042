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
    /// What the deadlines learn from the calls.
    pub learn: Learn,
}

/// `[timeouts.learn]`: what follows for the next call from what calls took.
#[derive(Debug, Clone, PartialEq)]
pub struct Learn {
    /// Whether anything does.
    pub enabled: bool,
    /// Calls of a sort that must have gone well before anything follows from how long they took.
    pub samples: u32,
    /// Calls are remembered for so long.
    pub window: Duration,
    /// A call may take so many times as long as the slowest one did.
    pub factor: f64,
    /// No first byte is given up on sooner.
    pub floor: Duration,
    /// Sorts of calls (provider, model, operation, kind) that are remembered.
    pub keys: usize,
}

impl Learn {
    fn read(section: &mut Section<'_>) -> Self {
        let default = Learn::default();
        Learn {
            enabled: section.flag("enabled").unwrap_or(default.enabled),
            samples: section
                .count("samples", 1..=1_000_000)
                .unwrap_or(default.samples),
            window: section
                .duration("window", secs(1)..=720 * HOUR)
                .unwrap_or(default.window),
            factor: section
                .fraction("factor", 1.0..=100.0)
                .unwrap_or(default.factor),
            floor: section
                .duration("floor", millis(1)..=24 * HOUR)
                .unwrap_or(default.floor),
            keys: section.count("keys", 1..=65_536).unwrap_or(default.keys),
        }
    }
}

impl Default for Learn {
    fn default() -> Self {
        Learn {
            enabled: true,
            samples: 100,
            window: 24 * HOUR,
            factor: 3.0,
            floor: secs(60),
            keys: 256,
        }
    }
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
            learn: section.section("learn", Learn::read),
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

    /// The longest deadline of a kind of request.
    pub fn longest(&self) -> Duration {
        self.normal.max(self.streaming).max(self.continuation)
    }

    /// The shortest deadline of a kind of request.
    pub(super) fn shortest(&self) -> Duration {
        self.normal.min(self.streaming).min(self.continuation)
    }
}
