//! Reads a table knob by knob: each knob with its range, and what nobody asked for is unknown.
//!
//! A [`Section`] hands out `None` where nothing is said *or* what is said is not accepted; the reader then goes on with
//! the default, so that one run finds all problems. They gather in the [`Report`], and no configuration comes of it
//! unless it is empty.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::error::{NotAccepted, Place};
use super::report::{Report, Unknown, join};
use super::value::{Node, Table, Value, show_size};

/// A table being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    place: Place,
    table: Option<&'a Table>,
    taken: BTreeSet<String>,
    pub(super) report: &'a mut Report,
}

impl<'a> Section<'a> {
    /// Reads the whole tree.
    pub(super) fn root<T>(
        table: &Table,
        report: &mut Report,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut section = Section {
            path: String::new(),
            place: Place::Default,
            table: Some(table),
            taken: BTreeSet::new(),
            report,
        };
        let value = read(&mut section);
        section.finish();
        value
    }

    fn finish(self) {
        let entries = self.table.into_iter().flatten();
        let left = entries.filter(|(key, _)| !self.taken.contains(*key));
        self.report.unknown.extend(left.map(|(key, node)| Unknown {
            section: self.path.clone(),
            key: key.clone(),
            place: node.place.clone(),
        }));
    }

    /// How `key` of this section is called in full.
    pub(super) fn full(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The keys that are set here.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table
            .into_iter()
            .flat_map(Table::keys)
            .cloned()
            .collect()
    }

    /// Where `key` is set; where it isn't, where this section begins.
    pub(super) fn place(&self, key: &str) -> Place {
        let node = self.table.and_then(|table| table.get(key));
        node.map_or_else(|| self.place.clone(), |node| node.place.clone())
    }

    /// Refuses what `key` says, or that it says nothing.
    pub(super) fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let (place, key) = (self.place(key), self.full(key));
        self.report.refuse(place, &key, message);
    }

    /// Refuses what two keys of this section say together.
    pub(super) fn refuse_pair(&mut self, first: &str, second: &str, message: impl Into<String>) {
        let (first, second) = (self.full(first), self.full(second));
        self.report.refuse_pair(&first, &second, message);
    }

    fn lookup(&mut self, key: &str) -> Option<&'a Node> {
        self.taken.insert(key.to_owned());
        self.table.and_then(|table| table.get(key))
    }

    fn lookup_knob(&mut self, key: &str) -> Option<&'a Node> {
        let full = self.full(key);
        let node = self.lookup(key);
        if let Some(node) = node {
            self.report.places.insert(full.clone(), node.place.clone());
        }
        self.report.knobs.insert(full);
        node
    }

    /// A knob that `decode` understands; `accepted` says in words what that is.
    pub(super) fn knob<T>(
        &mut self,
        key: &str,
        accepted: impl Display,
        decode: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let node = self.lookup_knob(key)?;
        let value = decode(&node.value);
        if value.is_none() {
            self.refuse(
                key,
                format!("found {}, accepted is {accepted}", node.value.describe()),
            );
        }
        value
    }

    /// Like [`Section::knob`], but an error does not show what was found: it may be a key in the wrong place.
    pub(super) fn unshown_knob<T>(
        &mut self,
        key: &str,
        accepted: impl Display,
        decode: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let node = self.lookup_knob(key)?;
        let value = decode(&node.value);
        if value.is_none() {
            let kind = node.value.kind();
            self.refuse(
                key,
                format!("found {kind} that is not accepted here, accepted is {accepted}"),
            );
        }
        value
    }

    /// A name that must be there; empty where it is not accepted.
    pub(super) fn name(
        &mut self,
        key: &str,
        accepted: &str,
        is_accepted: impl Fn(&str) -> bool,
    ) -> String {
        let name = self.knob(key, accepted, |value| text_if(value, is_accepted));
        self.needed(key, name, accepted)
    }

    /// Like [`Section::name`], but an error does not show what was found: it may be a key in the wrong place.
    pub(super) fn unshown_name(
        &mut self,
        key: &str,
        accepted: &str,
        is_accepted: impl Fn(&str) -> bool,
    ) -> String {
        let name = self.unshown_knob(key, accepted, |value| text_if(value, is_accepted));
        self.needed(key, name, accepted)
    }

    fn needed(&mut self, key: &str, name: Option<String>, accepted: &str) -> String {
        if !self.table.is_some_and(|table| table.contains_key(key)) {
            self.refuse(key, format!("missing, accepted is {accepted}"));
        }
        name.unwrap_or_default()
    }

    /// A whole number.
    pub(super) fn count<N>(&mut self, key: &str, range: RangeInclusive<N>) -> Option<N>
    where
        N: TryFrom<i128> + PartialOrd + Display,
    {
        let accepted = format!("a whole number from {} to {}", range.start(), range.end());
        self.knob(key, accepted, |value| {
            let number = N::try_from(value.as_whole()?).ok()?;
            range.contains(&number).then_some(number)
        })
    }

    /// A number with a fraction.
    pub(super) fn fraction(&mut self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let accepted = format!("a number from {} to {}", range.start(), range.end());
        self.knob(key, accepted, |value| {
            value.as_fraction().filter(|number| range.contains(number))
        })
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        self.knob(key, "true or false", Value::as_flag)
    }

    /// A length of time.
    pub(super) fn duration(
        &mut self,
        key: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let [start, end] = [*range.start(), *range.end()].map(humantime::format_duration);
        let accepted = format!("a duration from \"{start}\" to \"{end}\"");
        self.knob(key, accepted, |value| {
            value.as_duration().filter(|length| range.contains(length))
        })
    }

    /// A number of bytes.
    pub(super) fn size(&mut self, key: &str, range: RangeInclusive<usize>) -> Option<usize> {
        let [start, end] = [*range.start(), *range.end()].map(show_size);
        let accepted = format!("a size from \"{start}\" to \"{end}\"");
        self.knob(key, accepted, |value| {
            value.as_size().filter(|bytes| range.contains(bytes))
        })
    }

    /// One of several words.
    pub(super) fn parsed<T: FromStr<Err = NotAccepted>>(&mut self, key: &str) -> Option<T> {
        let node = self.lookup_knob(key)?;
        let parsed: Result<T, NotAccepted> = match node.value.as_text() {
            Some(text) => text.parse(),
            None => node.value.describe().parse(),
        };
        parsed
            .map_err(|error| self.refuse(key, error.to_string()))
            .ok()
    }

    /// A list of strings.
    pub(super) fn words(&mut self, key: &str) -> Option<Vec<String>> {
        self.knob(key, "a list of strings", Value::as_words)
    }

    /// A table of knobs, set or not.
    pub(super) fn section<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let node = self.lookup(key);
        let place = node.map_or(Place::Default, |node| node.place.clone());
        let path = self.full(key);
        let table = match node.map(|node| &node.value) {
            None => None,
            Some(Value::Table(table)) => Some(table),
            Some(other) => {
                self.refuse(key, format!("found {}, accepted is a table", other.kind()));
                None
            }
        };
        self.inner(path, place, table, read)
    }

    /// A list of tables of knobs.
    pub(super) fn sections<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Option<Vec<T>> {
        let node = self.lookup_knob(key)?;
        let Value::Array(items) = &node.value else {
            self.refuse(
                key,
                format!("found {}, accepted is a list of tables", node.value.kind()),
            );
            return None;
        };
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", self.full(key));
            if let Value::Table(table) = &item.value {
                values.push(self.inner(path, item.place.clone(), Some(table), &mut read));
            } else {
                let message = format!("found {}, accepted is a table", item.value.kind());
                self.report.refuse(item.place.clone(), &path, message);
            }
        }
        (values.len() == items.len()).then_some(values)
    }

    fn inner<T>(
        &mut self,
        path: String,
        place: Place,
        table: Option<&Table>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut section = Section {
            path,
            place,
            table,
            taken: BTreeSet::new(),
            report: &mut *self.report,
        };
        let value = read(&mut section);
        section.finish();
        value
    }
}

fn text_if(value: &Value, is_accepted: impl Fn(&str) -> bool) -> Option<String> {
    let text = value.as_text().filter(|text| is_accepted(text));
    text.map(str::to_owned)
}
