//! Web searches that a provider has us echo.
//!
//! Kimi's model asks for a search as if it were a function of ours. Nothing is to be done but to send its call and the
//! call's arguments, unchanged, back to it; the search runs there, in the course of the next request. The client asked
//! for an answer and must see nothing of it, so a [`Sieve`] stands between the pieces of a round and the client:
//!
//! * bits of such calls, and the finish reason of a round that made no other, stop in the sieve;
//! * reasoning, text and calls of the client's own tools pass, the latter numbered without gaps;
//! * after a round that only searched, [`Sieve::echo`] has the turns for the next one.
//!
//! A round that calls the client's tools *and* searches ends the answer: the client has to speak next, and the model
//! may search again then.

use crate::chat::{ChatReply, Delta, FinishReason, Message, Piece, ReplyBuilder, Role, ToolCall};

use super::dialect::Dialect;

/// Rounds of search in one call; a model that wants more is lost.
pub(super) const MAX_ROUNDS: usize = 8;

/// One round's pieces, sorted.
#[derive(Debug)]
pub(super) struct Sieve<'a> {
    dialect: &'a dyn Dialect,
    /// The whole round, for the echo.
    record: ReplyBuilder,
    /// The provider's numbers of calls, and ours; `None` for a call that is echoed.
    numbers: Vec<(u32, Option<u32>)>,
    /// Whether the round ended with searches alone.
    again: bool,
}

impl<'a> Sieve<'a> {
    pub(super) fn new(dialect: &'a dyn Dialect) -> Self {
        Sieve {
            dialect,
            record: ReplyBuilder::default(),
            numbers: Vec::new(),
            again: false,
        }
    }

    /// What of `delta` is the client's.
    pub(super) fn pass(&mut self, mut delta: Delta) -> Delta {
        self.record.push(Piece::Delta(delta.clone()));
        delta.tool_calls.retain_mut(|bit| {
            let name = bit.name.as_deref();
            match self.number(bit.index, name) {
                Some(number) => {
                    bit.index = number;
                    true
                }
                None => false,
            }
        });
        let searched =
            !self.numbers.is_empty() && self.numbers.iter().all(|(_, ours)| ours.is_none());
        if searched && delta.finish == Some(FinishReason::ToolCalls) {
            delta.finish = None;
            self.again = true;
        }
        delta
    }

    /// Our number of the call that the provider numbers `index`; its first bit has its name.
    fn number(&mut self, index: u32, name: Option<&str>) -> Option<u32> {
        if let Some((_, ours)) = self.numbers.iter().find(|(theirs, _)| *theirs == index) {
            return *ours;
        }
        let given = self.numbers.iter().filter(|(_, ours)| ours.is_some());
        let next = u32::try_from(given.count()).unwrap_or(u32::MAX);
        let echoed = name.is_some_and(|name| self.dialect.is_echoed(name));
        let ours = (!echoed).then_some(next);
        self.numbers.push((index, ours));
        ours
    }

    /// The turns that the next round has to begin with; `None` where the answer is whole.
    pub(super) fn echo(self) -> Option<Vec<Message>> {
        if !self.again {
            return None;
        }
        let ChatReply { choices, .. } = self.record.finish();
        let asked = choices.into_iter().next()?.message;
        let results: Vec<Message> = asked.tool_calls.iter().map(result).collect();
        Some([vec![asked], results].concat())
    }
}

fn result(call: &ToolCall) -> Message {
    Message {
        tool_call_id: Some(call.id.clone()),
        name: Some(call.name.clone()),
        ..Message::new(Role::Tool, call.arguments.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ToolCallDelta;
    use crate::providers::kimi::Kimi;

    fn bit(index: u32, name: Option<&str>, arguments: &str) -> Delta {
        Delta {
            tool_calls: vec![ToolCallDelta {
                index,
                id: name.map(|name| format!("{name}_{index}")),
                name: name.map(String::from),
                arguments: arguments.into(),
                ..ToolCallDelta::default()
            }],
            ..Delta::default()
        }
    }

    fn end() -> Delta {
        Delta {
            finish: Some(FinishReason::ToolCalls),
            ..Delta::default()
        }
    }

    #[test]
    fn a_search_stays_in_the_sieve_and_is_echoed_unchanged() {
        let mut sieve = Sieve::new(&Kimi);
        assert!(
            sieve
                .pass(bit(0, Some("$web_search"), "{\"a\":"))
                .is_empty()
        );
        assert!(sieve.pass(bit(0, None, "1}")).is_empty());
        assert!(sieve.pass(end()).is_empty());
        let turns = sieve.echo().expect("a further round");
        assert_eq!(turns[0].tool_calls[0].arguments, "{\"a\":1}");
        assert_eq!(turns[1].text(), "{\"a\":1}");
        assert_eq!(turns[1].tool_call_id.as_deref(), Some("$web_search_0"));
        assert_eq!(turns[1].name.as_deref(), Some("$web_search"));
    }

    #[test]
    fn a_clients_own_call_passes_with_a_number_without_gaps_and_ends_the_answer() {
        let mut sieve = Sieve::new(&Kimi);
        sieve.pass(bit(0, Some("$web_search"), "{}"));
        let passed = sieve.pass(bit(1, Some("lookup"), ""));
        assert_eq!(passed.tool_calls[0].index, 0);
        assert_eq!(sieve.pass(bit(1, None, "{}")).tool_calls[0].index, 0);
        assert_eq!(sieve.pass(end()).finish, Some(FinishReason::ToolCalls));
        assert_eq!(sieve.echo(), None);
    }
}
