//! From text to a tree whose every value knows its place, and the environment laid over it.

use std::sync::Arc;

use toml::de::{DeInteger, DeTable, DeValue, Error as TomlError};

use super::environment::Environment;
use super::error::{Place, Problem};
use super::value::{Node, Table, Value};

/// What the names of our environment variables begin with.
const PREFIX: &str = "POINTSMAN_";

/// Reads TOML. `name` is what the file is called in errors.
///
/// # Errors
/// Every place where it is no TOML. The text of a line is not shown, for it may hold a key.
pub(super) fn parse(text: &str, name: &str) -> Result<Table, Vec<Problem>> {
    let source = Source::new(text, name);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        Ok(source.table(table.into_inner()))
    } else {
        Err(errors.iter().map(|error| source.problem(error)).collect())
    }
}

/// A text and where its lines begin.
struct Source {
    name: Arc<str>,
    line_starts: Vec<usize>,
}

impl Source {
    fn new(text: &str, name: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Source {
            name: name.into(),
            line_starts: breaks.map(|(at, _)| at + 1).collect(),
        }
    }

    fn place(&self, offset: usize) -> Place {
        Place::File {
            name: self.name.clone(),
            line: 1 + self.line_starts.partition_point(|start| *start <= offset),
        }
    }

    fn problem(&self, error: &TomlError) -> Problem {
        Problem {
            place: self.place(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            message: error.message().replace('\n', ", "),
        }
    }

    fn table(&self, table: DeTable<'_>) -> Table {
        let entries = table.into_iter().map(|(key, value)| {
            let place = self.place(key.span().start);
            let value = self.value(value.into_inner());
            (key.into_inner().into_owned(), Node { value, place })
        });
        entries.collect()
    }

    fn value(&self, value: DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(number) => Value::Integer(whole(&number)),
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Boolean(flag),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::Array(items) => {
                let nodes = items.into_iter().map(|item| Node {
                    place: self.place(item.span().start),
                    value: self.value(item.into_inner()),
                });
                Value::Array(nodes.collect())
            }
        }
    }
}

/// A number that no integer holds is out of every range too, so the largest stands for it.
fn whole(number: &DeInteger<'_>) -> i128 {
    i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX)
}

/// Lays `POINTSMAN_LIMITS__GLOBAL=24` and its like over the tree: `__` stands between levels, case does not matter,
/// and `_` also finds a name that is written with `-`. A value that begins with `[` or `{` is read as TOML, so that
/// lists of models can be given too.
pub(super) fn overlay(root: &mut Table, environment: &Environment) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (variable, text) in environment.iter() {
        let Some(name) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let place = Place::Variable(variable.to_owned());
        match structured(text, &place) {
            Ok(value) => {
                let lower = name.to_ascii_lowercase();
                let path: Vec<&str> = lower.split("__").collect();
                set(root, &path, Node { value, place });
            }
            Err(message) => problems.push(Problem {
                place,
                key: String::new(),
                message,
            }),
        }
    }
    problems
}

fn structured(text: &str, place: &Place) -> Result<Value, String> {
    if !text.trim_start().starts_with(['[', '{']) {
        return Ok(Value::Untyped(text.to_owned()));
    }
    match DeValue::parse(text.trim()) {
        Ok(value) => {
            let mut value = Source::new(text, "").value(value.into_inner());
            move_to(&mut value, place);
            Ok(value)
        }
        Err(error) => Err(error.message().replace('\n', ", ")),
    }
}

/// What came from a variable stands at that variable, not on a line of it.
fn move_to(value: &mut Value, place: &Place) {
    let nodes: Vec<&mut Node> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Table(table) => table.values_mut().collect(),
        _ => return,
    };
    for node in nodes {
        node.place = place.clone();
        move_to(&mut node.value, place);
    }
}

/// Puts `node` where `path` leads; what is not a table on the way gives way to one.
pub(super) fn set(table: &mut Table, path: &[&str], node: Node) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let key = existing(table, first).unwrap_or_else(|| (*first).to_owned());
    if rest.is_empty() {
        table.insert(key, node);
        return;
    }
    let place = node.place.clone();
    let entry = table.entry(key).or_insert_with(|| empty(place.clone()));
    if !matches!(entry.value, Value::Table(_)) {
        *entry = empty(place);
    }
    if let Value::Table(inner) = &mut entry.value {
        set(inner, rest, node);
    }
}

fn empty(place: Place) -> Node {
    Node {
        value: Value::Table(Table::new()),
        place,
    }
}

/// The key that is there already, as it is written there.
fn existing(table: &Table, wanted: &str) -> Option<String> {
    let same = |key: &&String| fold(key) == fold(wanted);
    table.keys().find(same).cloned()
}

/// Names that differ only in case or in `-` and `_` are one name to the environment.
pub(super) fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}
