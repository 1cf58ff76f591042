//! Gathers what reading finds out: problems, the knobs there are, and keys that nobody knows.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{Place, Problem};

/// Names at least as alike as this are taken for typing errors of each other; 1.0 is the same name.
const NEAR: f64 = 0.85;

/// What reading found out.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
    /// Every knob that was asked for, set or not.
    pub(super) knobs: BTreeSet<String>,
    /// Where the set ones are set.
    pub(super) places: BTreeMap<String, Place>,
    /// What is set and was not asked for.
    pub(super) unknown: Vec<Unknown>,
    /// Variables that look like ours, but hold a provider's key.
    key_variables: BTreeSet<String>,
}

/// A key that nobody asked for.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) place: Place,
}

impl Report {
    pub(super) fn refuse(&mut self, place: Place, key: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            place,
            key: key.to_owned(),
            message: message.into(),
        });
    }

    /// Refuses what two knobs say together. It stands where the first of them is set, else the second.
    pub(super) fn refuse_pair(&mut self, first: &str, second: &str, message: impl Into<String>) {
        let place = self.places.get(first).or_else(|| self.places.get(second));
        let place = place.cloned().unwrap_or(Place::Default);
        self.refuse(place, first, message);
    }

    /// The variable of this name holds a key, whatever its name looks like.
    pub(super) fn holds_a_key(&mut self, variable: &str) {
        self.key_variables.insert(variable.to_owned());
    }

    /// All that is wrong, unknown keys included, in the order of the sources.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        for unknown in std::mem::take(&mut self.unknown) {
            let excused = matches!(&unknown.place, Place::Variable(name) if self.key_variables.contains(name));
            if !excused {
                let message = format!("unknown key{}", self.hint(&unknown));
                self.refuse(
                    unknown.place,
                    &join(&unknown.section, &unknown.key),
                    message,
                );
            }
        }
        self.problems.sort();
        self.problems
    }

    /// The nearest name in the same section, else the same name in another one.
    fn hint(&self, unknown: &Unknown) -> String {
        let siblings: BTreeSet<&str> = self
            .knobs
            .iter()
            .filter_map(|knob| below(knob, &unknown.section))
            .collect();
        let nearness = |name: &str| strsim::jaro_winkler(name, &unknown.key);
        let nearest = siblings
            .iter()
            .max_by(|one, other| nearness(one).total_cmp(&nearness(other)));
        if let Some(near) = nearest.filter(|name| nearness(name) >= NEAR) {
            return format!(", did you mean `{near}`?");
        }
        let elsewhere = format!(".{}", unknown.key);
        if let Some(knob) = self.knobs.iter().find(|knob| knob.ends_with(&elsewhere)) {
            return format!(", did you mean `{knob}`?");
        }
        let names: Vec<&str> = siblings.into_iter().collect();
        format!(", known here: {}", names.join(", "))
    }
}

/// The name of `knob` or of the section that it is in, as seen from `section`.
fn below<'k>(knob: &'k str, section: &str) -> Option<&'k str> {
    let rest = match section {
        "" => knob,
        _ => knob.strip_prefix(section)?.strip_prefix('.')?,
    };
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// A key's name in full.
pub(super) fn join(section: &str, key: &str) -> String {
    match section {
        "" => key.to_owned(),
        _ => format!("{section}.{key}"),
    }
}
