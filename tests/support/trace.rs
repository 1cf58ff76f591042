//! A strict reader of Chrome trace events: whatever Perfetto would drop or misread is a fault here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A trace that was read and found right.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// Spans of lanes, in order.
    pub(crate) slices: Vec<Span>,
    /// Asynchronous spans, in the order of their ends.
    pub(crate) spans: Vec<Span>,
    /// How many flows lead through all of it.
    pub(crate) flows: usize,
}

/// A span of time, in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// The process and the lane.
    pub(crate) lane: (String, String),
    pub(crate) name: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) args: Value,
}

/// A process and a lane of it, by number.
type Place = (u64, u64);

impl Timeline {
    /// Reads a trace.
    ///
    /// # Panics
    /// When anything is wrong with it.
    pub(crate) fn read(trace: &Value) -> Timeline {
        assert_eq!(trace["displayTimeUnit"], "ms");
        let events = trace["traceEvents"].as_array().expect("a list of events");
        let names = names(events);
        let rest = events.iter().filter(|event| event["ph"] != "M");
        let rest: Vec<&Value> = rest.collect();
        let mut before = 0;
        for event in &rest {
            let now = nanos(&event["ts"]);
            assert!(now >= before, "time goes back: {event}");
            before = now;
            assert!(event["name"].is_string(), "{event}");
            assert!(
                names.contains_key(&place(event)),
                "a lane without a name: {event}"
            );
            let ph = event["ph"].as_str().unwrap_or_default();
            assert!(["X", "b", "e", "s", "t", "f"].contains(&ph), "{event}");
        }
        let of = |ph: &'static str| rest.iter().copied().filter(move |event| event["ph"] == ph);
        let slices: Vec<(Place, Span)> = of("X").map(|event| slice(event, &names)).collect();
        nested(&slices);
        let flows = flows(&rest, &slices);
        Timeline {
            spans: pairs(&rest, &names),
            slices: slices.into_iter().map(|(_, span)| span).collect(),
            flows,
        }
    }

    /// The slices of a process.
    pub(crate) fn of(&self, process: &str) -> Vec<&Span> {
        let slices = self.slices.iter();
        slices.filter(|span| span.lane.0 == process).collect()
    }

    /// The request's own span.
    pub(crate) fn request(&self, id: &str) -> &Span {
        let mut requests = self
            .spans
            .iter()
            .filter(|span| span.args["request_id"] == id);
        let found = requests.next();
        found.unwrap_or_else(|| panic!("no request {id} in {:#?}", self.spans))
    }

    /// How long the spans of this name are, which are within `outer`, all together; in nanoseconds.
    pub(crate) fn sum(&self, outer: &Span, name: &str) -> u64 {
        let spans = self.spans.iter();
        let within = spans.filter(|span| {
            span.name == name
                && span.lane == outer.lane
                && span.from >= outer.from
                && span.to <= outer.to
        });
        within.map(|span| span.to - span.from).sum()
    }
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// A time or a length, which is in microseconds with at most three digits after the point.
fn nanos(value: &Value) -> u64 {
    let micros = value.as_f64().unwrap_or_else(|| panic!("no time: {value}"));
    let nanos = micros * 1_000.0;
    assert!(
        nanos >= 0.0 && (nanos - nanos.round()).abs() < 0.01,
        "{value}"
    );
    nanos.round() as u64
}

fn place(event: &Value) -> Place {
    (number(&event["pid"]), number(&event["tid"]))
}

/// The names of processes and lanes, which stand before all else, each once.
fn names(events: &[Value]) -> BTreeMap<Place, (String, String)> {
    let first = events.iter().position(|event| event["ph"] != "M");
    let (names, rest) = events.split_at(first.unwrap_or(events.len()));
    assert!(
        rest.iter().all(|event| event["ph"] != "M"),
        "a name comes late"
    );
    let mut processes = BTreeMap::new();
    let mut lanes = BTreeMap::new();
    for event in names {
        let name = event["args"]["name"].as_str().expect("a name").to_owned();
        let before = match event["name"].as_str() {
            Some("process_name") => processes.insert(number(&event["pid"]), name),
            Some("thread_name") => lanes.insert(place(event), name),
            _ => panic!("nobody knows {event}"),
        };
        assert_eq!(before, None, "named twice: {event}");
    }
    let whole = |((pid, tid), lane): (Place, String)| {
        let process: &String = processes.get(&pid).expect("a process with a name");
        ((pid, tid), (process.clone(), lane))
    };
    let mut names: BTreeMap<Place, (String, String)> = lanes.into_iter().map(whole).collect();
    for (pid, process) in processes {
        // Asynchronous spans stand in lane 0, and each in a lane of its own there.
        names.entry((pid, 0)).or_insert((process, String::new()));
    }
    names
}

fn slice(event: &Value, names: &BTreeMap<Place, (String, String)>) -> (Place, Span) {
    let from = nanos(&event["ts"]);
    let span = Span {
        lane: names[&place(event)].clone(),
        name: event["name"].as_str().expect("a name").to_owned(),
        from,
        to: from + nanos(&event["dur"]),
        args: event["args"].clone(),
    };
    assert_ne!(place(event).1, 0, "a slice stands in a lane: {event}");
    (place(event), span)
}

/// In each lane a slice either ends before the next one begins, or holds all of it.
fn nested(slices: &[(Place, Span)]) {
    let mut open: BTreeMap<Place, Vec<&Span>> = BTreeMap::new();
    for (place, span) in slices {
        let stack = open.entry(*place).or_default();
        while stack.last().is_some_and(|outer| outer.to <= span.from) {
            stack.pop();
        }
        if let Some(outer) = stack.last() {
            assert!(span.to <= outer.to, "{span:?} sticks out of {outer:?}");
        }
        stack.push(span);
    }
}

/// Each flow begins, goes on and ends, once each and in this order, and each time in a slice that is there.
fn flows(events: &[&Value], slices: &[(Place, Span)]) -> usize {
    let mut steps: BTreeMap<u64, String> = BTreeMap::new();
    for event in events.iter().filter(|event| event["cat"] == "flow") {
        let (at, ph) = (nanos(&event["ts"]), event["ph"].as_str().expect("a kind"));
        steps.entry(number(&event["id"])).or_default().push_str(ph);
        let binds = |(lane, span): &(Place, Span)| {
            *lane == place(event) && span.from <= at && at <= span.to
        };
        assert!(slices.iter().any(binds), "a flow through nothing: {event}");
        assert_eq!(event["bp"] == "e", ph == "f", "{event}");
    }
    for (id, steps) in &steps {
        assert_eq!(steps, "stf", "flow {id}");
    }
    steps.len()
}

/// Asynchronous spans: each that begins ends, the inner before the outer.
fn pairs(events: &[&Value], names: &BTreeMap<Place, (String, String)>) -> Vec<Span> {
    let mut open: BTreeMap<(String, u64), Vec<Span>> = BTreeMap::new();
    let mut closed = Vec::new();
    let mut requests = BTreeSet::new();
    for event in events
        .iter()
        .filter(|event| event["ph"] == "b" || event["ph"] == "e")
    {
        let id = number(&event["id"]);
        let category = event["cat"].as_str().expect("a category").to_owned();
        let stack = open.entry((category, id)).or_default();
        let (at, name) = (nanos(&event["ts"]), event["name"].as_str().expect("a name"));
        if event["ph"] == "b" {
            assert!(
                !stack.is_empty() || requests.insert(id),
                "{id} begins twice"
            );
            let (process, _) = names[&place(event)].clone();
            stack.push(Span {
                lane: (process, id.to_string()),
                name: name.to_owned(),
                from: at,
                to: at,
                args: event["args"].clone(),
            });
        } else {
            let mut span = stack
                .pop()
                .unwrap_or_else(|| panic!("an end of nothing: {event}"));
            assert_eq!(span.name, name, "the wrong span ends: {event}");
            span.to = at;
            closed.push(span);
        }
    }
    assert!(open.values().all(Vec::is_empty), "never ended: {open:?}");
    closed
}
