//! `POST /v1/chat/completions`: OpenAI's chat, streaming and not.

use std::sync::Arc;

use super::error::ApiError;
use super::meta::Meta;
use super::options::Options;
use super::sink::{AnswerForm, ChatSink};
use super::{Api, Visit};
use crate::engine::{Ask, JobSpec, Owner};
use crate::wire::parse_request_within;

impl Api {
    /// Reads the request, finds out where it goes and until when, and stays with the client until it is answered.
    pub(super) fn completions(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let body = &visit.request.body;
        // Held for as long as the request is.
        let mut room = None;
        let parsed = parse_request_within(body, self.server.json_depth, |bytes| {
            room = visit.request.reserve(bytes);
            match room {
                Some(_) => Ok(()),
                None => Err(self.no_room(body.len().saturating_add(bytes))),
            }
        })?;
        let caller = visit.caller;
        let headers = &visit.request.head.headers;
        let options = Options::read(headers, &parsed.options, caller.priority())?;
        let chat = parsed.chat;
        let form = match chat.stream {
            true => AnswerForm::Stream {
                include_usage: chat.include_usage,
            },
            false => AnswerForm::Whole,
        };
        let continues = parsed.options.continuation_id.is_some();
        let plan = self.engine.plan(
            chat,
            &Ask {
                timeout: options.timeout,
                continues,
            },
        )?;
        let received = visit.request.received;
        let spec = JobSpec::chat(Arc::clone(visit.request_id), &plan, received);
        let meta = Meta::new(
            Arc::clone(visit.request_id),
            options.session_id(visit.request_id),
            plan,
        );
        let clock = Arc::clone(&self.clock);
        let sink = ChatSink::new(
            visit.exchange.clone(),
            clock,
            meta,
            form,
            self.server.stream_keepalive,
        );
        let job = self.engine.submit(JobSpec {
            owner: Owner::of(caller.key(), options.session),
            priority: options.priority,
            sink: sink.clone(),
            bytes: visit.request.body.len(),
            ..spec
        });
        let job = job.map_err(|error| ApiError::internal(error.to_string()))?;
        sink.attend(&job, self.server.write_timeout);
        drop(room);
        Ok(())
    }

    /// Why a request that takes so many bytes of memory is not read.
    fn no_room(&self, bytes: usize) -> ApiError {
        let bound = self.server.max_body_total;
        match bytes > bound {
            true => ApiError::framing(
                413,
                &format!(
                    "the values in the body take some {bytes} bytes of memory, more than the {bound} of server.max_body_total"
                ),
            ),
            false => ApiError::framing(503, "too many bytes of requests are held"),
        }
    }
}
