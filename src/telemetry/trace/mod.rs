//! The lifecycle log as a timeline, in the JSON object form of Chrome's trace events: for Perfetto and its like.
//!
//! | process | lanes | what stands there |
//! |---|---|---|
//! | `requests` | one for each request | asynchronous spans: the request, and in it its waits, backoffs and calls |
//! | `lines` | as many as waited at once | each wait for a turn, to be seen beside the others |
//! | `workers` | one for each worker | its calls, and in each its connect, first byte and body |
//! | `upstream` | for each provider as many as ran at once | its calls |
//!
//! A flow leads from each wait to the worker that made the call and on to the provider. A span's times are those of the
//! steps in the lifecycle log, to the nanosecond, so that its length is the figure that headers and pages have. What has
//! not ended reaches to the present.

mod events;
mod spans;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::Serialize;

use self::events::{Args, Lane, TraceEvent};
use self::spans::{Call, Kind, Story};
use super::Event;
use crate::clock::{Calendar, Time};

const REQUESTS: u32 = 1;
const LINES: u32 = 2;
const WORKERS: u32 = 3;
const UPSTREAM: u32 = 4;

/// A timeline, ready to be written as JSON.
#[derive(Debug, Serialize)]
pub struct Trace<'a> {
    #[serde(rename = "traceEvents")]
    events: Vec<TraceEvent<'a>>,
    #[serde(rename = "displayTimeUnit")]
    unit: &'static str,
    #[serde(rename = "otherData")]
    about: About,
}

#[derive(Debug, Serialize)]
struct About {
    program: &'static str,
    version: &'static str,
    /// What the clock on the wall said at `ts` 0.
    zero: String,
}

impl<'a> Trace<'a> {
    /// The requests that were under way at any time from `since` to `now`, by these events of theirs.
    pub fn of(events: &'a [Event], since: Time, now: Time, calendar: &Calendar) -> Self {
        let mut jobs: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
        for event in events {
            jobs.entry(event.subject.job).or_default().push(event);
        }
        let stories = jobs.into_values().map(|events| Story::of(events, now));
        let stories: Vec<Story<'a>> = stories.filter(|story| story.to >= since).collect();
        let mut page = Page::default();
        for story in &stories {
            page.request(story);
        }
        page.waits_and_calls(&stories);
        Trace {
            events: page.finish(),
            unit: "ms",
            about: About {
                program: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                zero: humantime::format_rfc3339_micros(calendar.at(Time::ZERO)).to_string(),
            },
        }
    }
}

/// Events as they come, and the lanes that they stand in.
#[derive(Debug, Default)]
struct Page<'a> {
    events: Vec<TraceEvent<'a>>,
    lanes: BTreeMap<Lane, String>,
    flows: u64,
}

/// Lanes that spans are put into so that none of a lane overlap.
#[derive(Debug, Default)]
struct Packing {
    /// When each lane is free again, and which it is.
    free: BinaryHeap<Reverse<(Time, u32)>>,
}

impl Packing {
    /// A lane for a span that begins no earlier than those before it.
    fn lane(&mut self, from: Time, to: Time) -> u32 {
        let first = self.free.peek().filter(|Reverse((free, _))| *free <= from);
        let lane = match first.copied() {
            Some(Reverse((_, lane))) => {
                self.free.pop();
                lane
            }
            None => self.free.len() as u32 + 1,
        };
        self.free.push(Reverse((to, lane)));
        lane
    }
}

impl<'a> Page<'a> {
    /// One request, as spans within each other.
    fn request(&mut self, story: &Story<'a>) {
        let lane = Lane {
            pid: REQUESTS,
            tid: 0,
        };
        let id = story.subject.job;
        let mut async_event = |ph, name, at, args| {
            self.events.push(TraceEvent {
                cat: "request",
                id: Some(id),
                args,
                ..TraceEvent::new(ph, name, at, lane)
            });
        };
        async_event('b', "request", story.from, Some(Args::of_story(story)));
        for part in &story.parts {
            // A call that was given up is over for its request before the worker is back.
            let to = part.to.min(story.to);
            let from = part.from.min(to);
            let name = part.kind.name();
            async_event('b', name, from, None);
            if let Kind::Call(call) = &part.kind {
                for (name, from, to) in call.phases(from, to) {
                    async_event('b', name, from, None);
                    async_event('e', name, to, None);
                }
            }
            async_event('e', name, to, None);
        }
        async_event('e', "request", story.to, None);
    }

    /// Lines, workers and providers, with the flows between them.
    fn waits_and_calls(&mut self, stories: &[Story<'a>]) {
        let workers = self.workers(stories);
        let mut waits: Vec<(Time, Time, &Story<'a>, Option<&Call<'a>>)> = Vec::new();
        for story in stories {
            for (index, part) in story.parts.iter().enumerate() {
                if matches!(part.kind, Kind::Queue) {
                    let next = story.parts.get(index + 1).map(|next| &next.kind);
                    let call = match next {
                        Some(Kind::Call(call)) => Some(call),
                        _ => None,
                    };
                    waits.push((part.from, part.to, story, call));
                }
            }
        }
        waits.sort_by_key(|&(from, _, story, _)| (from, story.subject.job));
        let mut lines = Packing::default();
        let mut calls: Vec<(&Call<'a>, Option<u64>)> = Vec::new();
        for (from, to, story, call) in waits {
            let lane = Lane {
                pid: LINES,
                tid: lines.lane(from, to),
            };
            self.name(lane, || format!("waiting {}", lane.tid));
            self.slice("queue", from, to, lane, Args::of_subject(story.subject));
            let Some(call) = call else { continue };
            self.flows += 1;
            // Within the wait, at its very end.
            let last = Time::from_nanos(to.as_nanos().saturating_sub(1)).max(from);
            self.flow('s', last, lane, self.flows);
            calls.push((call, Some(self.flows)));
        }
        calls.sort_by_key(|(call, _)| (call.from, call.subject.job));
        self.calls(&calls, &workers);
    }

    /// The lane of each worker, by its name.
    fn workers(&mut self, stories: &[Story<'a>]) -> BTreeMap<&'a str, Lane> {
        let parts = stories.iter().flat_map(|story| &story.parts);
        let names = parts.filter_map(|part| match &part.kind {
            Kind::Call(call) => Some(call.thread),
            Kind::Queue | Kind::BackOff | Kind::Joined => None,
        });
        let mut names: Vec<&str> = names.collect();
        // worker-2 before worker-10.
        names.sort_unstable_by_key(|name| (name.len(), *name));
        names.dedup();
        let mut workers = BTreeMap::new();
        for (index, name) in names.into_iter().enumerate() {
            let lane = Lane {
                pid: WORKERS,
                tid: index as u32 + 1,
            };
            self.name(lane, || name.to_owned());
            workers.insert(name, lane);
        }
        workers
    }

    fn calls(&mut self, calls: &[(&Call<'a>, Option<u64>)], workers: &BTreeMap<&'a str, Lane>) {
        let mut slots: BTreeMap<&str, (u32, Packing)> = BTreeMap::new();
        for &(call, flow) in calls {
            let Some(&worker) = workers.get(call.thread) else {
                continue;
            };
            let args = Args::of_subject(call.subject);
            self.slice("call", call.from, call.to, worker, args);
            for (name, from, to) in call.phases(call.from, call.to) {
                self.slice(name, from, to, worker, None);
            }
            let provider = call.subject.provider.as_deref().unwrap_or("no provider");
            let number = slots.len() as u32;
            let (number, packing) = slots
                .entry(provider)
                .or_insert_with(|| (number, Packing::default()));
            let slot = packing.lane(call.from, call.to);
            let upstream = Lane {
                pid: UPSTREAM,
                tid: *number * PER_PROVIDER + slot,
            };
            self.name(upstream, || format!("{provider} {slot}"));
            let model = call.subject.model.as_deref().unwrap_or("call");
            let args = Args::of_subject(call.subject);
            self.slice(model, call.from, call.to, upstream, args);
            if let Some(flow) = flow {
                self.flow('t', call.from, worker, flow);
                self.flow('f', call.connected(), upstream, flow);
            }
        }
    }

    fn name(&mut self, lane: Lane, name: impl FnOnce() -> String) {
        self.lanes.entry(lane).or_insert_with(name);
    }

    fn slice(&mut self, name: &'a str, from: Time, to: Time, lane: Lane, args: Option<Args<'a>>) {
        self.events.push(TraceEvent {
            cat: "slice",
            dur: Some(events::micros(to.since(from))),
            args,
            ..TraceEvent::new('X', name, from, lane)
        });
    }

    fn flow(&mut self, ph: char, at: Time, lane: Lane, id: u64) {
        self.events.push(TraceEvent {
            cat: "flow",
            id: Some(id),
            bp: (ph == 'f').then_some("e"),
            ..TraceEvent::new(ph, "turn", at, lane)
        });
    }

    /// All events: first what the lanes are called, then by time. What happened at one time stays in order.
    fn finish(mut self) -> Vec<TraceEvent<'a>> {
        self.events.sort_by_key(|event| event.at);
        let processes = [
            (REQUESTS, "requests"),
            (LINES, "lines"),
            (WORKERS, "workers"),
            (UPSTREAM, "upstream"),
        ];
        let processes = processes.map(|(pid, name)| {
            TraceEvent::named("process_name", name.to_owned(), Lane { pid, tid: 0 })
        });
        let lanes = self.lanes.into_iter();
        let lanes = lanes.map(|(lane, name)| TraceEvent::named("thread_name", name, lane));
        let mut all: Vec<TraceEvent<'a>> = processes.into_iter().chain(lanes).collect();
        all.append(&mut self.events);
        all
    }
}

/// Lanes of one provider: more than calls can be in flight.
const PER_PROVIDER: u32 = 10_000;
