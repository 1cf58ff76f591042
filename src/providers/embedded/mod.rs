//! The embedded provider: offline, deterministic, in this process. A first run needs no key, and neither do tests.
//!
//! | model | what it does |
//! |---|---|
//! | `embedded` | answers with its name and the user's last words; calls a tool where it has to |
//! | `embedded-reasoning` | the same, and thinks aloud first, unless thinking is switched off |
//! | `embedded-tools` | calls a tool that it was offered, and answers from the tool's result |
//! | `fault-...` | go wrong in one way each, where `faults = true`: see [`faults`] |
//!
//! The same question gets the same answer, id included; only `created` follows the clock. A token is a word. What a model
//! of a company does, it does too: bounds on the answer, words to stop at, several answers, several calls of tools at
//! once, JSON on request, by a schema too, usage, cancellation at any moment, no call
//! beyond its deadline. `latency` is its silence before the first piece, `pace` the silence between two.

mod faults;
mod sample;
mod script;
mod wishes;

use crate::chat::{Delta, FinishReason, Head, Piece, Usage};
use crate::clock::{SharedClock, Time};
use crate::config::{self, Model, Thinking, Timeouts};
use std::time::Duration;

use super::prompt::prompt_tokens;
use super::{Call, ErrorClass, OnPiece, Provider, ProviderError, model_name};

use script::Script;

/// The longest single wait; longer ones are several of them.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Answers by itself.
#[derive(Debug)]
pub(super) struct Embedded {
    config: config::Provider,
    timeouts: Timeouts,
    clock: SharedClock,
}

impl Embedded {
    pub(super) fn new(config: &config::Provider, timeouts: &Timeouts, clock: SharedClock) -> Self {
        Embedded {
            config: config.clone(),
            timeouts: timeouts.clone(),
            clock,
        }
    }
}

/// The models that break things, where they are switched on.
pub(super) fn fault_models(config: &config::Provider) -> Vec<Model> {
    let names = faults::Fault::ALL.iter().filter(|_| config.faults);
    let model = |fault: &faults::Fault| Model {
        name: fault.name().into(),
        context: 131_072,
        max_output: None,
        thinking: Thinking::Never,
        efforts: Vec::new(),
        drop: Vec::new(),
    };
    names.map(model).collect()
}

impl Provider for Embedded {
    fn chat(&self, call: &Call<'_>, on_piece: &mut OnPiece<'_>) -> Result<(), ProviderError> {
        let model = model_name(&call.request.model, &self.config);
        let stage = &mut Stage {
            call,
            clock: &self.clock,
            on_piece,
            spoken: false,
        };
        if let Some(fault) = faults::Fault::of(model).filter(|_| self.config.faults) {
            return fault.play(stage, &self.timeouts);
        }
        let answers = wishes::answers(call.request)?;
        let Some(script) = Script::of(model, call.request)? else {
            let message = format!("the embedded provider has no model `{model}`");
            return Err(ProviderError::new(ErrorClass::ModelNotFound, message));
        };
        call.watch.connected(true);
        stage.wait(self.config.latency)?;
        call.watch.first_byte();
        stage.say(Piece::Head(self.head(model, call, &script)))?;
        self.play(stage, script, answers)
    }
}

impl Embedded {
    fn head(&self, model: &str, call: &Call<'_>, script: &Script) -> Head {
        Head {
            id: format!(
                "chatcmpl-embedded-{:016x}",
                script.fingerprint(call.request)
            ),
            created: self.clock.unix_seconds(),
            model: model.into(),
            dropped: wishes::without_effect(model, call.request),
            ..Head::default()
        }
    }

    /// Says word for word what the script has, as far as the bound on an answer allows, `answers` times.
    fn play(
        &self,
        stage: &mut Stage<'_, '_, '_>,
        script: Script,
        answers: u32,
    ) -> Result<(), ProviderError> {
        let prompt = prompt_tokens(stage.call.request);
        let bound = stage.call.request.max_output_tokens.unwrap_or(u64::MAX);
        let is_thought = |delta: &&Delta| delta.reasoning.is_some();
        let count = (script.deltas.len() as u64).min(bound);
        let said = &script.deltas[..count as usize];
        let finish = match count < script.deltas.len() as u64 {
            true => FinishReason::Length,
            false => script.finish,
        };
        for choice in 0..answers {
            self.say_all(stage, choice, said)?;
            stage.say(Piece::Delta(Delta {
                choice,
                finish: Some(finish.clone()),
                ..Delta::default()
            }))?;
        }
        let times = u64::from(answers);
        let completion = count * times;
        stage.say(Piece::Usage(Usage {
            prompt,
            completion,
            total: prompt + completion,
            reasoning: Some(said.iter().filter(is_thought).count() as u64 * times),
            ..Usage::default()
        }))
    }

    fn say_all(
        &self,
        stage: &mut Stage<'_, '_, '_>,
        choice: u32,
        deltas: &[Delta],
    ) -> Result<(), ProviderError> {
        for (index, delta) in deltas.iter().enumerate() {
            if index > 0 || choice > 0 {
                stage.wait(self.config.pace)?;
            }
            stage.say(Piece::Delta(Delta {
                choice,
                ..delta.clone()
            }))?;
        }
        Ok(())
    }
}

/// Where a model speaks: pieces go out, and waits end with the call.
struct Stage<'a, 'b, 'c> {
    call: &'a Call<'b>,
    clock: &'a SharedClock,
    on_piece: &'a mut OnPiece<'c>,
    /// Whether a piece went out.
    spoken: bool,
}

impl Stage<'_, '_, '_> {
    /// Waits, at most until the call is cancelled or its deadline has come, which are errors.
    fn wait(&self, length: Duration) -> Result<(), ProviderError> {
        let mut rest = length;
        loop {
            let left = self.call.deadline.until(self.clock.now());
            if let Some(reason) = self.call.cancel.reason() {
                return Err(ProviderError::cancelled(reason));
            }
            if left.is_zero() {
                return Err(ProviderError::deadline());
            }
            if rest.is_zero() {
                return Ok(());
            }
            // What was waited for is counted off, not looked up: under a clock that stands still a wait ends too.
            let step = rest.min(left).min(LONGEST_WAIT);
            if let Some(reason) = self.call.cancel.wait(step) {
                return Err(ProviderError::cancelled(reason));
            }
            rest -= step;
            if step == left {
                return Err(ProviderError::deadline());
            }
        }
    }

    /// Says nothing until somebody has had enough: what a provider's transport would say then.
    fn fall_silent(&self, timeouts: &Timeouts) -> ProviderError {
        let (bound, class) = if self.spoken {
            (timeouts.idle, ErrorClass::IdleTimeout)
        } else {
            let share = self.call.first_byte_by.until(self.clock.now());
            let patience = timeouts.first_byte.into_iter().chain(self.call.first_byte);
            let bound = patience.fold(share, Duration::min);
            (bound, ErrorClass::FirstByteTimeout)
        };
        match self.wait(bound) {
            Err(error) => error,
            Ok(()) => ProviderError::new(class, "the embedded provider fell silent, as asked"),
        }
    }

    fn say(&mut self, piece: Piece) -> Result<(), ProviderError> {
        self.spoken = true;
        if let Some(reason) = self.call.cancel.reason() {
            return Err(ProviderError::cancelled(reason));
        }
        if (self.on_piece)(piece).is_break() {
            return Err(ProviderError::unwanted(self.call.cancel));
        }
        Ok(())
    }

    /// When the call must be over.
    fn deadline(&self) -> Time {
        self.call.deadline
    }
}

#[cfg(test)]
mod tests;
