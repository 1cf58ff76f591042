//! Taking a JSON tree apart by type, with the field's place in every complaint.
//!
//! The place is a chain of borrowed links that is written out only where something is wrong, so that a good request
//! pays nothing for it.

use std::fmt;

use serde_json::{Map, Value};

use super::error::WireError;

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    pub(super) fn key(&'a self, key: &'a str) -> Place<'a> {
        Place::Key(self, key)
    }

    pub(super) fn index(&'a self, index: usize) -> Place<'a> {
        Place::Index(self, index)
    }

    pub(super) fn missing(&self, accepted: &'static str) -> WireError {
        WireError::Missing {
            param: self.to_string(),
            accepted,
        }
    }

    pub(super) fn wrong(&self, found: &Value, accepted: &'static str) -> WireError {
        WireError::Wrong {
            param: self.to_string(),
            found: describe(found),
            accepted,
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Key(Place::Root, key) => f.write_str(key),
            Place::Key(parent, key) => write!(f, "{parent}.{key}"),
            Place::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// What a value is, in words; long strings are cut.
pub(super) fn describe(value: &Value) -> String {
    const SHOWN: usize = 40;
    match value {
        Value::Null => "null".into(),
        Value::Bool(truth) => format!("{truth}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().nth(SHOWN).is_some() => {
            let start: String = text.chars().take(SHOWN).collect();
            format!("the string {start:?}...")
        }
        Value::String(text) => format!("the string {text:?}"),
        Value::Array(list) if list.is_empty() => "an empty array".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// Any value but `null`, which stands for an absent one.
pub(super) fn optional<T>(
    value: Value,
    at: &Place<'_>,
    read: impl FnOnce(Value, &Place<'_>) -> Result<T, WireError>,
) -> Result<Option<T>, WireError> {
    match value {
        Value::Null => Ok(None),
        value => read(value, at).map(Some),
    }
}

pub(super) fn string(value: Value, at: &Place<'_>) -> Result<String, WireError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(at.wrong(&other, "a string")),
    }
}

pub(super) fn boolean(value: Value, at: &Place<'_>) -> Result<bool, WireError> {
    match value {
        Value::Bool(truth) => Ok(truth),
        other => Err(at.wrong(&other, "true or false")),
    }
}

pub(super) fn positive(value: Value, at: &Place<'_>) -> Result<u64, WireError> {
    match value.as_u64() {
        Some(number) if number > 0 => Ok(number),
        _ => Err(at.wrong(&value, "a whole number of at least 1")),
    }
}

pub(super) fn object(value: Value, at: &Place<'_>) -> Result<Map<String, Value>, WireError> {
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(at.wrong(&other, "an object")),
    }
}

pub(super) fn array(value: Value, at: &Place<'_>) -> Result<Vec<Value>, WireError> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(at.wrong(&other, "an array")),
    }
}

/// Reads each element of an array.
pub(super) fn list<T>(
    value: Value,
    at: &Place<'_>,
    read: impl Fn(Value, &Place<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let items = array(value, at)?.into_iter().enumerate();
    items.map(|(i, item)| read(item, &at.index(i))).collect()
}
