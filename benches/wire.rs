//! What the wire costs: JSON and event streams, both ways. Nothing here waits for anybody.
//!
//! Bars, on one core: a small request under 3 us, 100 KB of it under 1 ms; a chunk of a stream under 0.3 us out and under
//! 3 us in. (Seen: 1.1 us, 560 us, 0.08 us, 1.2 us.) A token of an answer comes every 10 ms or so: the wire is not
//! noticed.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pointsman::chat::{ChatReply, Delta, FinishReason, Head, Piece, ReplyBuilder, Usage};
use pointsman::wire::sse::{Event, Reader};
use pointsman::wire::{MAX_DEPTH, StreamDecoder, StreamEncoder, parse_request, reply_json};
use serde_json::json;

/// Chunks of the streams here.
const CHUNKS: usize = 100;

/// A conversation of about so many bytes.
fn request(bytes: usize) -> Vec<u8> {
    let turn = "The points are set for the siding, and \"the signal\" is at danger.\n";
    let count = (bytes / (turn.len() + 32)).max(1);
    let message = |index| {
        let role = ["user", "assistant"][index % 2];
        json!({"role": role, "content": turn})
    };
    let messages: Vec<_> = (0..count).map(message).collect();
    let body = json!({"model": "auto", "messages": messages, "temperature": 0.5, "stream": true});
    body.to_string().into_bytes()
}

/// The pieces of an answer.
fn pieces() -> Vec<Piece> {
    let head = Head {
        id: "chatcmpl-1".into(),
        created: 1_788_000_000,
        model: "m".into(),
        ..Head::default()
    };
    let words = (0..CHUNKS).map(|index| Piece::Delta(Delta::text(format!(" word-{index}"))));
    let last = Delta {
        finish: Some(FinishReason::Stop),
        ..Delta::default()
    };
    let usage = Usage {
        prompt: 10,
        completion: CHUNKS as u64,
        total: 10 + CHUNKS as u64,
        ..Usage::default()
    };
    let end = [Piece::Delta(last), Piece::Usage(usage)];
    std::iter::once(Piece::Head(head))
        .chain(words)
        .chain(end)
        .collect()
}

fn encode(pieces: &[Piece], out: &mut Vec<u8>) {
    let mut encoder = StreamEncoder::new(true);
    for piece in pieces {
        encoder.piece(piece, out);
    }
    encoder.end(None, out);
}

fn reply() -> ChatReply {
    let mut builder = ReplyBuilder::default();
    pieces().into_iter().for_each(|piece| builder.push(piece));
    builder.finish()
}

/// All pieces of a stream, read as a provider's is.
fn decode(stream: &[u8]) -> usize {
    let (mut reader, mut decoder) = (Reader::new(stream, 1 << 20), StreamDecoder::default());
    let mut pieces = Vec::new();
    while let Some(event) = reader.next_event().expect("a stream") {
        if let Event::Data { data, .. } = event {
            decoder.push(data, &mut pieces).expect("a chunk");
        }
    }
    assert!(decoder.is_complete());
    pieces.len()
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse_request");
    for (name, bytes) in [("small", 100), ("100_kb", 100_000)] {
        let body = request(bytes);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse_request(black_box(&body), MAX_DEPTH).expect("a request"));
        });
    }
    group.finish();
}

fn whole_reply(criterion: &mut Criterion) {
    let reply = reply();
    criterion.bench_function("encode_reply", |bencher| {
        bencher.iter(|| reply_json(black_box(&reply), None::<&()>));
    });
}

fn stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream_of_100_chunks");
    group.throughput(Throughput::Elements(CHUNKS as u64));
    let (pieces, mut out) = (pieces(), Vec::new());
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&pieces), &mut out);
            out.len()
        });
    });
    out.clear();
    encode(&pieces, &mut out);
    group.bench_function("decode", |bencher| bencher.iter(|| decode(black_box(&out))));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = parse, whole_reply, stream
}
criterion_main!(benches);
