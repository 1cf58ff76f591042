//! A provider's list of models, read (`GET /models`).
//!
//! OpenAI's list has names and little else; others add what a model can. Kimi's words for that are read, and the words
//! of those servers that say how long a context is.

use serde_json::{Map, Value};

use super::answer::{AnswerError, answer_fields};

/// The fields in which servers say how many tokens a model's context holds.
const CONTEXT: [&str; 4] = [
    "context_length",
    "max_model_len",
    "context_window",
    "max_context_length",
];

/// A model that a provider lists, as far as the list says anything of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedModel {
    /// Its name.
    pub id: String,
    /// Tokens of question and answer together.
    pub context: Option<u64>,
    /// Whether it can think.
    pub thinks: Option<bool>,
    /// Whether it can do nothing else.
    pub only_thinks: bool,
    /// Words that `reasoning_effort` may be; empty: not said.
    pub efforts: Vec<String>,
}

/// Reads a list of models. What has no name is passed over.
///
/// # Errors
/// [`AnswerError::Refused`] for an error body, whatever its status was; else why it is no list.
pub fn parse_models(body: &[u8]) -> Result<Vec<ListedModel>, AnswerError> {
    let entries = match serde_json::from_slice(body)? {
        // Some servers leave the envelope out.
        Value::Array(entries) => entries,
        root => match answer_fields(root)?.remove("data") {
            Some(Value::Array(entries)) => entries,
            // A server without models.
            Some(Value::Null) => Vec::new(),
            Some(_) | None => {
                let message = "it has no list of models in `data`";
                return Err(AnswerError::Malformed(message.into()));
            }
        },
    };
    Ok(entries.iter().filter_map(listed).collect())
}

fn listed(entry: &Value) -> Option<ListedModel> {
    let fields = entry.as_object()?;
    let efforts = fields
        .get("reasoning_efforts")
        .and_then(|efforts| efforts.get("valid_efforts"))
        .and_then(Value::as_array);
    Some(ListedModel {
        id: fields.get("id")?.as_str()?.to_owned(),
        context: context(fields),
        thinks: fields.get("supports_reasoning").and_then(Value::as_bool),
        only_thinks: fields.get("supports_thinking_type").and_then(Value::as_str) == Some("only"),
        efforts: efforts
            .into_iter()
            .flatten()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect(),
    })
}

fn context(fields: &Map<String, Value>) -> Option<u64> {
    let mut said = CONTEXT.iter().filter_map(|key| fields.get(*key)?.as_u64());
    said.find(|tokens| *tokens > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<Vec<ListedModel>, AnswerError> {
        parse_models(body.to_string().as_bytes())
    }

    fn named(id: &str) -> ListedModel {
        ListedModel {
            id: id.into(),
            ..ListedModel::default()
        }
    }

    #[test]
    fn what_kimi_says_of_a_model_is_heard() {
        let list = read(json!({"object": "list", "data": [{
            "id": "kimi-k9", "object": "model", "owned_by": "moonshot", "context_length": 2_000_000,
            "supports_reasoning": true, "supports_thinking_type": "only",
            "reasoning_efforts": {"support": true, "valid_efforts": ["low", "max"], "default_effort": "max"},
        }]}));
        let expected = ListedModel {
            context: Some(2_000_000),
            thinks: Some(true),
            only_thinks: true,
            efforts: vec!["low".into(), "max".into()],
            ..named("kimi-k9")
        };
        assert_eq!(list, Ok(vec![expected]));
    }

    #[test]
    fn a_list_of_bare_names_is_enough_and_what_has_none_is_passed_over() {
        let list = read(json!({"data": [{"id": "a"}, {"name": "b"}, 7, {"id": 8}, {"id": "c"}]}));
        assert_eq!(list, Ok(vec![named("a"), named("c")]));
        assert_eq!(read(json!([{"id": "a"}])), Ok(vec![named("a")]));
        assert_eq!(read(json!({"object": "list", "data": null})), Ok(vec![]));
    }

    #[test]
    fn servers_say_the_length_of_a_context_in_different_words() {
        for key in CONTEXT {
            let list = read(json!({"data": [{"id": "a", key: 4096}]})).expect("a list");
            assert_eq!(list[0].context, Some(4096), "{key}");
        }
        let list = read(json!({"data": [{"id": "a", "context_length": 0, "max_model_len": "x"}]}));
        assert_eq!(list, Ok(vec![named("a")]));
    }

    #[test]
    fn what_is_no_list_is_told_from_a_refusal() {
        let refusal = read(json!({"error": {"message": "no", "code": "1113"}}));
        assert!(
            matches!(refusal, Err(AnswerError::Refused(_))),
            "{refusal:?}"
        );
        for body in [json!({"data": "x"}), json!({}), json!(7), json!("x")] {
            let error = read(body).expect_err("no list");
            assert!(matches!(error, AnswerError::Malformed(_)), "{error:?}");
        }
        assert_eq!(parse_models(b"{\"data\": ["), Err(AnswerError::Truncated));
    }
}
