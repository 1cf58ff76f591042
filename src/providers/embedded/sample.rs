//! A plausible value for a JSON schema.

use serde_json::{Map, Value, json};

/// Schemas may contain themselves; below this depth everything is null.
const MAX_DEPTH: usize = 8;

/// Items of an array, at most.
const MAX_ITEMS: u64 = 8;

/// A value that fits `schema` as far as types, constants, enumerations, references, bounds of numbers and lists, and
/// required properties go. Strings are `text`.
pub(super) fn sample(schema: &Value, text: &str) -> Value {
    let sampler = Sampler { root: schema, text };
    sampler.at_depth(schema, MAX_DEPTH)
}

struct Sampler<'a> {
    /// Where references begin.
    root: &'a Value,
    text: &'a str,
}

impl Sampler<'_> {
    fn at_depth(&self, schema: &Value, depth: usize) -> Value {
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
        let inner = ["anyOf", "oneOf", "allOf"].into_iter();
        let mut inner = inner.filter_map(|key| first(schema, key));
        if let Some(inner) = self.target(schema).or_else(|| inner.next()) {
            return self.at_depth(inner, depth - 1);
        }
        match kind(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "integer" | "number" => number(schema),
            "boolean" => Value::Bool(true),
            "null" => Value::Null,
            _ => self.text.into(),
        }
    }

    /// What `$ref` leads to, within the schema.
    fn target(&self, schema: &Value) -> Option<&Value> {
        let place = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(place)
    }

    fn array(&self, schema: &Value, depth: usize) -> Value {
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1);
        let count = match schema.get("maxItems").and_then(Value::as_u64) {
            Some(0) => 0,
            Some(_) | None => least.clamp(1, MAX_ITEMS),
        };
        let item = schema.get("items").filter(|items| items.is_object());
        let items = item.map(|item| self.at_depth(item, depth - 1));
        let items = items.into_iter().cycle().take(count as usize);
        Value::Array(items.collect())
    }

    /// The required properties, or all of them where none is.
    fn object(&self, schema: &Value, depth: usize) -> Value {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return Value::Object(Map::new());
        };
        let required = schema.get("required").and_then(Value::as_array);
        let wanted = |name: &str| required.is_none_or(|names| names.iter().any(|n| n == name));
        let fields = properties.iter().filter(|(name, _)| wanted(name));
        fields
            .map(|(name, schema)| (name.clone(), self.at_depth(schema, depth - 1)))
            .collect()
    }
}

/// 1, or what is next to it within the bounds.
fn number(schema: &Value) -> Value {
    let bound = |key: &str| schema.get(key).filter(|value| value.is_number()).cloned();
    let above = schema.get("exclusiveMinimum").and_then(Value::as_i64);
    let least = bound("minimum").or_else(|| Some(json!(above?.saturating_add(1))));
    let most = bound("maximum").filter(|most| most.as_f64() < Some(1.0));
    least.or(most).unwrap_or(json!(1))
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
    fn references_within_the_schema_are_followed_and_bounds_are_kept() {
        let schema = json!({"$defs": {"Stop": {"type": "object", "required": ["name", "km"], "properties": {
            "name": {"type": "string"}, "km": {"type": "number", "maximum": 0.5}}}},
            "type": "object", "properties": {
                "stops": {"type": "array", "items": {"$ref": "#/$defs/Stop"}, "minItems": 2},
                "none": {"type": "array", "items": {}, "maxItems": 0},
                "count": {"type": "integer", "exclusiveMinimum": 4}, "lost": {"$ref": "#/nowhere"}}});
        let stop = json!({"name": "Ulm", "km": 0.5});
        let expected = json!({"stops": [stop, stop], "none": [], "count": 5, "lost": "Ulm"});
        check(schema, expected);
        let own = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(sample(&own, "x").to_string().contains("null"), "it ends");
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
