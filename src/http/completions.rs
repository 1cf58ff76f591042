//! `POST /v1/chat/completions`: OpenAI's chat, streaming and not.

use std::sync::Arc;

use super::error::ApiError;
use super::meta::Meta;
use super::options::Options;
use super::resend::{Asked, Ear, Entered, Guest, Manner, Sent, SharedCall, Stay};
use super::sink::{AnswerForm, ChatSink};
use super::{Api, Visit};
use crate::engine::{Ask, JobHandle, JobSpec, Owner, Plan, Sink};
use crate::wire::parse_request_within;

/// A chat that is understood: where it goes, and whose it is.
struct Order {
    plan: Plan,
    asked: Asked,
    /// As the answer names it.
    session_id: String,
    bytes: usize,
}

impl Api {
    /// Reads the request, finds out where it goes and until when, and stays with the client until it is answered.
    pub(super) fn completions(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let taken = self.take(visit);
        taken.inspect_err(|error| self.count_chat_refusal(error))
    }

    fn take(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        let body = &visit.request.body;
        // Held for as long as the request is.
        let mut room = None;
        let parsed = parse_request_within(body, visit.terms.json_depth, |bytes| {
            room = visit.request.reserve(bytes);
            match room {
                Some(_) => Ok(()),
                None => Err(self.no_room(body.len().saturating_add(bytes))),
            }
        })?;
        let caller = visit.caller;
        let headers = &visit.request.head.headers;
        let options = Options::read(headers, &parsed.options, caller.priority())?;
        let session_id = options.session_id(visit.request_id);
        let owner = Owner::of(caller.key(), options.session);
        let chat = parsed.chat;
        let (form, sent) = match chat.stream {
            true => {
                let include_usage = chat.include_usage;
                (AnswerForm::Stream { include_usage }, None)
            }
            false => (AnswerForm::Whole, self.resends.read(headers, &owner, body)?),
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
        let asked = Asked {
            owner,
            priority: options.priority,
            received,
            deadline: received + plan.timeout,
        };
        let order = Order {
            plan,
            asked,
            session_id,
            bytes: body.len(),
        };
        match sent {
            Some(sent) => self.share(visit, &sent, &order)?,
            None => self.answer(visit, form, order)?,
        }
        drop(room);
        Ok(())
    }

    /// A call of its own, which nobody can join.
    fn answer(&self, visit: &Visit<'_>, form: AnswerForm, order: Order) -> Result<(), ApiError> {
        let sink = ChatSink::new(
            visit.exchange.clone(),
            Arc::clone(&self.clock),
            self.meta(visit, &order),
            form,
            visit.terms.stream_keepalive,
        );
        let job = self.submit(visit, &order, sink.clone(), None);
        let job = job.map_err(ApiError::internal)?;
        sink.attend(&job, self.server.write_timeout);
        Ok(())
    }

    /// A call that others can join, or that of another.
    fn share(&self, visit: &Visit<'_>, sent: &Sent, order: &Order) -> Result<(), ApiError> {
        let reserve = |bytes| visit.request.reserve(bytes);
        let manner = Manner {
            write_timeout: self.server.write_timeout,
            reserve: &reserve,
        };
        // Given with the first call that it joins.
        let mut number = None;
        loop {
            let first = || self.ear(visit, self.meta(visit, order), None);
            let own_number = number.unwrap_or_else(|| self.engine.number());
            let joiner = |call: &SharedCall| self.joiner(visit, order, call, own_number);
            match self.resends.enter(sent, first, joiner)? {
                Entered::First(call, ear) => {
                    let sink: Arc<dyn Sink> = Arc::clone(&call) as _;
                    match self.submit(visit, order, sink, number) {
                        Ok(job) => call.set_job(job),
                        Err(why) => call.fail(why),
                    }
                    ear.stay(&call, &manner);
                    return Ok(());
                }
                Entered::Joined(call, ear) => {
                    self.begin_story(&ear, number);
                    if ear.stay(&call, &manner) == Stay::Over {
                        return Ok(());
                    }
                    number = Some(own_number);
                }
                Entered::Kept(ear, ended) => {
                    self.begin_story(&ear, number);
                    ear.tell(&ended);
                    return Ok(());
                }
            }
        }
    }

    /// Puts on record that a joiner was received, unless it has been before, and that it has joined.
    fn begin_story(&self, ear: &Ear, known: Option<u64>) {
        if let Some(guest) = ear.guest() {
            if known.is_none() {
                guest.receive();
            }
            guest.join(self.clock.now());
        }
    }

    fn joiner(&self, visit: &Visit<'_>, order: &Order, call: &SharedCall, number: u64) -> Ear {
        let (id, asked) = (visit.request_id, order.asked.clone());
        let meta = call.meta().shared_by(
            Arc::clone(id),
            order.session_id.clone(),
            Arc::clone(&order.plan.timeout_text),
        );
        let guest = Guest::new(asked, id, number, call, &self.lifecycle);
        self.ear(visit, meta, Some(guest))
    }

    fn ear(&self, visit: &Visit<'_>, meta: Meta, guest: Option<Guest>) -> Ear {
        let clock = Arc::clone(&self.clock);
        Ear::new(visit.exchange.clone(), clock, meta, guest)
    }

    fn meta(&self, visit: &Visit<'_>, order: &Order) -> Meta {
        let id = Arc::clone(visit.request_id);
        Meta::new(id, order.session_id.clone(), order.plan.clone())
    }

    /// Makes it a job; under this number if it has one.
    fn submit(
        &self,
        visit: &Visit<'_>,
        order: &Order,
        sink: Arc<dyn Sink>,
        number: Option<u64>,
    ) -> Result<JobHandle, String> {
        let id = Arc::clone(visit.request_id);
        let asked = &order.asked;
        let job = self.engine.submit(JobSpec {
            number,
            owner: asked.owner.clone(),
            priority: asked.priority,
            sink,
            bytes: order.bytes,
            ..JobSpec::chat(id, &order.plan, asked.received)
        });
        job.map_err(|error| error.to_string())
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
