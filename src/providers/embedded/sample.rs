//! A plausible value for a JSON schema.

use serde_json::{Map, Value, json};

/// Schemas may contain themselves; below this depth everything is null.
const MAX_DEPTH: usize = 8;

/// A value that fits `schema` as far as types, constants, enumerations and required properties go. Strings are `text`.
pub(super) fn sample(schema: &Value, text: &str) -> Value {
    at_depth(schema, text, MAX_DEPTH)
}

fn at_depth(schema: &Value, text: &str, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    for key in ["const", "default"] {
        if let Some(value) = schema.get(key) {
            return value.clone();
        }
    }
    for key in ["enum", "examples"] {
        if let Some(value) = first(schema, key) {
            return value.clone();
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(inner) = first(schema, key) {
            return at_depth(inner, text, depth - 1);
        }
    }
    match kind(schema) {
        "object" => object(schema, text, depth),
        "array" => {
            let item = schema.get("items").filter(|items| items.is_object());
            let items = item.map(|item| at_depth(item, text, depth - 1));
            Value::Array(Vec::from_iter(items))
        }
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or(json!(1)),
        "boolean" => Value::Bool(true),
        "null" => Value::Null,
        _ => text.into(),
    }
}

fn first<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema.get(key)?.as_array()?.first()
}

/// The type, of several the first that is not null; an object where only its properties are given.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => {
            let mut words = kinds.iter().filter_map(Value::as_str);
            words.find(|word| *word != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    }
}

/// The required properties, or all of them where none is.
fn object(schema: &Value, text: &str, depth: usize) -> Value {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Value::Object(Map::new());
    };
    let required = schema.get("required").and_then(Value::as_array);
    let wanted = |name: &str| required.is_none_or(|names| names.iter().any(|n| n == name));
    let fields = properties.iter().filter(|(name, _)| wanted(name));
    fields
        .map(|(name, schema)| (name.clone(), at_depth(schema, text, depth - 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: Value, expected: Value) {
        assert_eq!(sample(&schema, "Ulm"), expected, "{schema}");
    }

    #[test]
    fn every_type_has_a_plausible_value() {
        check(json!({"type": "string"}), json!("Ulm"));
        check(json!({"type": ["null", "integer"], "minimum": 3}), json!(3));
        check(json!({"enum": ["c", "f"]}), json!("c"));
        check(
            json!({"type": "array", "items": {"type": "boolean"}}),
            json!([true]),
        );
        check(
            json!({"anyOf": [{"type": "number"}, {"type": "null"}]}),
            json!(1),
        );
        check(json!({"type": "object"}), json!({}));
    }

    #[test]
    fn required_properties_are_there_and_others_are_not() {
        let schema = json!({"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string"}, "unit": {"type": "string"}}});
        check(schema, json!({"city": "Ulm"}));
    }

    #[test]
    fn a_schema_without_a_floor_ends() {
        let mut schema = json!({"type": "string"});
        for _ in 0..50 {
            schema = json!({"type": "array", "items": schema});
        }
        assert!(sample(&schema, "x").to_string().ends_with(']'));
    }
}
