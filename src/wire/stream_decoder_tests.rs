//! Streams of both providers and of OpenAI, and what goes wrong with streams.

use super::*;
use crate::chat::{ChatReply, FinishReason, ReplyBuilder};
use crate::wire::sse::{Event, Reader};

const KIMI: &str = include_str!("../../tests/fixtures/wire/kimi.sse");
const KIMI_TOOLS: &str = include_str!("../../tests/fixtures/wire/kimi-tools.sse");
const GLM_TOOLS: &str = include_str!("../../tests/fixtures/wire/glm-tools.sse");
const OPENAI: &str = include_str!("../../tests/fixtures/wire/openai.sse");

fn read(stream: &str) -> Result<(Vec<Piece>, bool), AnswerError> {
    let mut reader = Reader::new(stream.as_bytes(), 1 << 16);
    let mut decoder = StreamDecoder::default();
    let mut pieces = Vec::new();
    while let Some(event) = reader.next_event().expect("events") {
        if let Event::Data { data, .. } = event {
            decoder.push(data, &mut pieces)?;
        }
    }
    Ok((pieces, decoder.is_complete()))
}

fn reply(stream: &str) -> ChatReply {
    let (pieces, complete) = read(stream).expect("pieces");
    assert!(complete);
    assert!(matches!(pieces.first(), Some(Piece::Head(_))));
    assert!(matches!(pieces.last(), Some(Piece::Usage(_))));
    let count = |is: fn(&Piece) -> bool| pieces.iter().filter(|piece| is(piece)).count();
    assert_eq!(count(|piece| matches!(piece, Piece::Head(_))), 1);
    assert_eq!(count(|piece| matches!(piece, Piece::Usage(_))), 1);
    let mut builder = ReplyBuilder::default();
    pieces.into_iter().for_each(|piece| builder.push(piece));
    builder.finish()
}

#[test]
fn kimis_reasoning_content_and_usage_come_out_once() {
    let reply = reply(KIMI);
    let message = &reply.choices[0].message;
    assert_eq!(message.reasoning.as_deref(), Some("They greet."));
    assert_eq!(message.text(), "Good day");
    assert_eq!(reply.choices[0].finish, Some(FinishReason::Stop));
    let usage = reply.usage.expect("usage");
    assert_eq!(
        (usage.prompt, usage.cached, usage.reasoning),
        (70, Some(64), Some(3))
    );
    assert_eq!(reply.extra["system_fingerprint"], "fp_test");
}

#[test]
fn fragments_of_a_tool_call_keep_their_order_and_their_id() {
    let (pieces, _) = read(KIMI_TOOLS).expect("pieces");
    let bits = pieces.iter().filter_map(|piece| match piece {
        Piece::Delta(delta) => delta.tool_calls.first(),
        _ => None,
    });
    let arguments: Vec<&str> = bits.map(|bit| bit.arguments.as_str()).collect();
    assert_eq!(arguments, ["", "{\"track\":", "4", "}"]);
    let reply = reply(KIMI_TOOLS);
    let call = &reply.choices[0].message.tool_calls[0];
    assert_eq!(
        (call.id.as_str(), call.name.as_str()),
        ("set_points_0", "set_points")
    );
    assert_eq!(reply.choices[0].finish, Some(FinishReason::ToolCalls));
}

#[test]
fn glms_repeated_roles_and_whole_call_read_like_anybodys() {
    let reply = reply(GLM_TOOLS);
    let message = &reply.choices[0].message;
    assert_eq!(message.reasoning.as_deref(), Some("Track four."));
    assert_eq!(message.tool_calls[0].arguments, "{\"track\":4}");
    assert_eq!(reply.usage.expect("usage").total, 150);
}

#[test]
fn openais_own_stream_with_two_answers_is_read() {
    let reply = reply(OPENAI);
    let texts: Vec<String> = reply
        .choices
        .iter()
        .map(|choice| choice.message.text())
        .collect();
    assert_eq!(texts, ["Left", "Right"]);
}

#[test]
fn a_stream_without_its_proper_end_is_not_complete() {
    let without_done = KIMI.replace("data: [DONE]\n\n", "");
    assert!(
        !read(&without_done).expect("pieces").1,
        "a finish reason alone is no end"
    );
    assert!(
        !read("data: [DONE]\n\n").expect("pieces").1,
        "[DONE] alone is no end either"
    );
    let unfinished = KIMI.replace("\"stop\"", "null");
    assert!(!read(&unfinished).expect("pieces").1);
    let one_of_two = OPENAI.replace("\"length\"", "null");
    assert!(!read(&one_of_two).expect("pieces").1);
}

#[test]
fn an_error_event_is_an_error() {
    let stream = "data: {\"error\":{\"message\":\"engine overloaded\",\"type\":\"engine_overloaded_error\"}}\n\n";
    let AnswerError::Refused(error) = read(stream).expect_err("an error") else {
        panic!("not taken for a refusal");
    };
    assert_eq!(error.kind.as_deref(), Some("engine_overloaded_error"));
}

#[test]
fn a_field_beside_the_choices_that_comes_late_makes_a_second_head() {
    let stream = concat!(
        "data: {\"id\":\"g\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n",
        "data: {\"id\":\"g\",\"model\":\"m\",\"web_search\":[{\"link\":\"l\"}],\"choices\":[{\"index\":0,\"delta\":{}}]}\n\n",
    );
    let (pieces, _) = read(stream).expect("pieces");
    let Some(Piece::Head(late)) = pieces.last() else {
        panic!("no head: {pieces:?}");
    };
    assert_eq!((late.id.as_str(), late.extra.len()), ("g", 1));
}

#[test]
fn garbage_and_absurd_numbers_of_answers_are_refused() {
    for data in [
        "<html>",
        "[]",
        "{\"choices\":3}",
        "{\"choices\":[{\"delta\":7}]}",
    ] {
        let error = read(&format!("data: {data}\n\n")).expect_err("no chunk");
        assert!(matches!(error, AnswerError::Malformed(_)), "{data}");
    }
    let flood: String = (0..200)
        .map(|i| format!("data: {{\"choices\":[{{\"index\":{i},\"delta\":{{}}}}]}}\n\n"))
        .collect();
    assert!(matches!(read(&flood), Err(AnswerError::Malformed(_))));
}
