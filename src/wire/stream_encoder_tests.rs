//! What a client's reader sees of a stream.

use serde_json::json;

use super::*;
use crate::chat::FinishReason;
use crate::wire::StreamDecoder;

fn head() -> Piece {
    Piece::Head(Head {
        id: "c".into(),
        created: 7,
        model: "m".into(),
        ..Head::default()
    })
}

fn finish(reason: FinishReason) -> Piece {
    Piece::Delta(Delta {
        finish: Some(reason),
        ..Delta::default()
    })
}

fn usage() -> Piece {
    Piece::Usage(Usage {
        prompt: 1,
        completion: 2,
        total: 3,
        ..Usage::default()
    })
}

/// What stands on the wire after each piece, without what is the same in each chunk.
fn written(encoder: &mut StreamEncoder, pieces: &[Piece]) -> Vec<String> {
    let sent = pieces.iter().map(|piece| {
        let mut out = Vec::new();
        encoder.piece(piece, &mut out);
        short(out)
    });
    sent.collect()
}

fn short(out: Vec<u8>) -> String {
    let same = r#"data: {"id":"c","object":"chat.completion.chunk","created":7,"model":"m","#;
    String::from_utf8(out).expect("text").replace(same, "+")
}

#[test]
fn a_stream_is_written_as_openai_writes_it() {
    let pieces = [
        head(),
        Piece::Delta(Delta::text("Hi")),
        Piece::Delta(Delta::text("!")),
        finish(FinishReason::Stop),
        usage(),
    ];
    let mut encoder = StreamEncoder::new(true);
    let mut sent = written(&mut encoder, &pieces);
    let mut out = Vec::new();
    encoder.end(None, &mut out);
    sent.push(short(out));
    let expected = [
        "",
        "+\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "+\"choices\":[{\"index\":0,\"delta\":{\"content\":\"!\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "",
        "+\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
        "+\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n\ndata: [DONE]\n\n",
    ];
    assert_eq!(sent, expected);
}

#[test]
fn usage_and_its_chunk_without_choices_are_not_sent_unasked() {
    let mut encoder = StreamEncoder::new(false);
    let sent = written(
        &mut encoder,
        &[
            head(),
            Piece::Delta(Delta::text("Hi")),
            finish(FinishReason::Stop),
            usage(),
        ],
    );
    assert!(sent.iter().all(|chunk| !chunk.contains("usage")));
    let mut out = Vec::new();
    encoder.end(None, &mut out);
    assert!(!short(out).contains("\"choices\":[]"));
}

#[test]
fn late_values_stand_in_the_last_chunk() {
    for (include_usage, last) in [
        (false, "\"finish_reason\":\"stop\"}]"),
        (true, "\"total_tokens\":3}"),
    ] {
        let mut encoder = StreamEncoder::new(include_usage);
        written(
            &mut encoder,
            &[
                head(),
                Piece::Delta(Delta::text("x")),
                finish(FinishReason::Stop),
                usage(),
            ],
        );
        let mut out = Vec::new();
        encoder.end(Some(&json!({"attempts": 2})), &mut out);
        let out = short(out);
        assert!(
            out.contains(&format!(
                "{last},\"pointsman\":{{\"attempts\":2}}}}\n\ndata: [DONE]"
            )),
            "{out}"
        );
    }
}

#[test]
fn a_stream_that_fails_after_its_finish_reason_never_shows_it() {
    let mut encoder = StreamEncoder::new(false);
    let mut out = Vec::new();
    for piece in [
        head(),
        Piece::Delta(Delta::text("x")),
        finish(FinishReason::Stop),
    ] {
        encoder.piece(&piece, &mut out);
    }
    let error = ErrorBody {
        message: "it broke off".into(),
        ..ErrorBody::default()
    };
    encoder.fail(&error, None, &mut out);
    let out = short(out);
    assert!(!out.contains("stop") && !out.contains("[DONE]"), "{out}");
    assert!(out.ends_with("data: {\"error\":{\"message\":\"it broke off\",\"type\":null,\"param\":null,\"code\":null}}\n\n"));
}

#[test]
fn each_answer_has_its_role_once_and_a_call_starts_with_null_content() {
    let of = |choice, call: bool| {
        let bit = ToolCallDelta {
            id: Some("1".into()),
            kind: Some("function".into()),
            name: Some("f".into()),
            ..ToolCallDelta::default()
        };
        Piece::Delta(Delta {
            choice,
            tool_calls: Vec::from_iter(call.then_some(bit)),
            ..Delta::default()
        })
    };
    let mut encoder = StreamEncoder::new(false);
    let sent = written(
        &mut encoder,
        &[head(), of(0, true), of(1, false), of(0, true)],
    );
    assert!(sent[1].contains(r#"{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"1","type":"function","function":{"name":"f","arguments":""}}]}"#), "{}", sent[1]);
    assert!(sent[2].contains(r#""index":1,"delta":{"role":"assistant","content":""}"#));
    assert!(!sent[3].contains("role"));
}

#[test]
fn what_was_read_from_a_provider_is_what_a_client_reads() {
    let pieces = vec![
        head(),
        Piece::Delta(Delta::text("a\u{1F682}\"\\")),
        finish(FinishReason::Length),
        usage(),
    ];
    let mut encoder = StreamEncoder::new(true);
    let mut out = Vec::new();
    pieces
        .iter()
        .for_each(|piece| encoder.piece(piece, &mut out));
    encoder.end(None, &mut out);
    let mut decoder = StreamDecoder::default();
    let mut read = Vec::new();
    for event in String::from_utf8(out)
        .expect("text")
        .split_terminator("\n\n")
    {
        let data = event.strip_prefix("data: ").expect("data");
        decoder.push(data, &mut read).expect("a chunk");
    }
    assert!(decoder.is_complete());
    assert_eq!(read, pieces);
}

#[test]
fn a_large_field_is_sent_once_and_a_word_in_each_chunk() {
    let mut head = Head {
        id: "c".into(),
        created: 7,
        model: "m".into(),
        ..Head::default()
    };
    head.extra.insert("system_fingerprint".into(), json!("f"));
    head.extra.insert("web_search".into(), json!([1]));
    let mut encoder = StreamEncoder::new(false);
    let text = || Piece::Delta(Delta::text("x"));
    let sent = written(&mut encoder, &[Piece::Head(head), text(), text()]);
    assert!(sent[1].contains("\"system_fingerprint\":\"f\",\"web_search\":[1]"));
    assert!(sent[2].contains("system_fingerprint") && !sent[2].contains("web_search"));
}

#[test]
fn a_comment_is_a_line_that_readers_skip() {
    let mut out = Vec::new();
    comment("keep-alive", &mut out);
    assert_eq!(out, b": keep-alive\n\n");
}
