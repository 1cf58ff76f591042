//! The OpenAI wire, both ways, and server-sent events: the only place that knows that JSON.
//!
//! ```text
//!            towards the client                        towards the providers
//!  body ---- parse_request ----> ChatRequest ---- Outgoing::to_bytes ----> body
//!  body <--- reply_json -------- ChatReply <----- parse_reply ------------ body
//!  chunks <- StreamEncoder ----- Piece <--------- StreamDecoder <- sse --- events
//!  body <--- error_json -------- ErrorBody <----- parse_error ------------ body
//!  body <--- models_json ------- ModelEntry       ListedModel <- parse_models ---- body
//! ```
//!
//! Rules that hold in all of it:
//!
//! * *Unknown fields pass through*, both ways, in the `extra` maps of [`crate::chat`]; what is known but has the
//!   wrong type is refused with the field's name, what was found and what is accepted ([`WireError`]).
//! * *A key that stands twice counts once*: the last one wins, as in `serde_json` and in JavaScript.
//! * *Nothing recurses without a bound.* A client's nesting is counted over the bytes before anything is parsed;
//!   a provider's meets `serde_json`'s own bound of 127 levels.
//! * *Nothing large is copied to be written.* Requests and answers are serialised from where they lie; requests are
//!   parsed into one tree, whose strings are then moved out of it.
//! * *A stream is complete only with its proper end*: a finish reason for each answer and `[DONE]`.

mod answer;
mod encode;
mod error;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod message;
mod models;
mod outgoing;
mod request;
pub mod sse;
mod stream_decoder;
mod stream_encoder;

pub use answer::{AnswerError, parse_reply};
pub use encode::{ModelEntry, model_json, models_json, reply_json};
pub use error::{ErrorBody, WireError, error_json, parse_error};
pub use models::{ListedModel, parse_models};
pub use outgoing::{Outgoing, Style};
pub use request::{MAX_DEPTH, Options, ParsedRequest, parse_request, parse_request_within};
pub use stream_decoder::StreamDecoder;
pub use stream_encoder::{StreamEncoder, comment};
