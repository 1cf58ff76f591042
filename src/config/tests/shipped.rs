//! `config.toml` is the reference of every knob: it is held against the code here, in both directions.

use std::collections::BTreeSet;

use crate::config::document::{fold, parse};
use crate::config::report::Report;
use crate::config::section::Section;
use crate::config::value::{Table, Value};
use crate::config::{Config, Environment, Listen, Loader, Overrides, Profile};

const SHIPPED: &str = include_str!("../../../config.toml");

fn loader(profile: Profile) -> Loader {
    Loader::default().overrides(Overrides {
        profile: Some(profile),
        listen: None,
    })
}

/// A commented-out knob: `key = value   # comment`.
struct Knob<'a> {
    key: &'a str,
    value: &'a str,
    comment: &'a str,
}

impl<'a> Knob<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (key, rest) = line.strip_prefix("# ")?.split_once(" = ")?;
        let is_key = key
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_'));
        let (value, comment) = rest.split_once(" # ")?;
        let (value, comment) = (value.trim(), comment.trim());
        is_key.then_some(Knob {
            key,
            value,
            comment,
        })
    }

    fn has_default(&self) -> bool {
        !self.comment.starts_with("no default")
    }

    /// The value that the comment promises for a profile, as in `dev and demo 100, prod 2000: why`. Test is like dev
    /// where it isn't named.
    fn value_of(&self, profile: Profile) -> &'a str {
        let found = self
            .promised(profile)
            .or_else(|| self.promised(Profile::Dev));
        found.unwrap_or_else(|| panic!("{}: {}", self.key, self.comment))
    }

    fn promised(&self, profile: Profile) -> Option<&'a str> {
        let mut is_meant = false;
        for word in self
            .comment
            .split([' ', ','])
            .filter(|word| !matches!(*word, "" | "and"))
        {
            match word.parse::<Profile>() {
                Ok(named) => is_meant |= named == profile,
                Err(_) if is_meant => return Some(word.trim_end_matches(':')),
                Err(_) => {}
            }
        }
        None
    }
}

fn uncommented(replace: impl Fn(&Knob<'_>) -> Option<String>) -> String {
    let lines = SHIPPED.lines().map(|line| {
        let value =
            Knob::of(line).and_then(|knob| Some(format!("{} = {}", knob.key, replace(&knob)?)));
        value.unwrap_or_else(|| line.to_owned())
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_says_what_is_built_in_for_each_profile() {
    for profile in Profile::ALL {
        let config = loader(profile)
            .from_toml(SHIPPED, "config.toml")
            .expect("accepted");
        assert_eq!(config, Config::builtin(profile), "{profile}");
    }
    let config = Config::from_toml(SHIPPED, "config.toml").expect("accepted");
    assert_eq!(config, Config::builtin(Profile::Dev));
}

#[test]
fn commented_knobs_promise_the_defaults_of_each_profile() {
    for profile in Profile::ALL {
        let text = uncommented(|knob| {
            knob.has_default()
                .then(|| knob.value_of(profile).to_owned())
        });
        let config = loader(profile)
            .from_toml(&text, "config.toml")
            .expect("accepted");
        assert_eq!(config, Config::builtin(profile), "{profile}");
    }
}

#[test]
fn commented_knobs_show_the_value_of_dev() {
    for knob in SHIPPED
        .lines()
        .filter_map(Knob::of)
        .filter(Knob::has_default)
    {
        assert_eq!(knob.value, knob.value_of(Profile::Dev), "{}", knob.key);
    }
}

#[test]
fn every_line_that_looks_like_a_knob_can_be_uncommented() {
    let count = SHIPPED.lines().filter_map(Knob::of).count();
    let lines = SHIPPED
        .lines()
        .filter(|line| line.starts_with("# ") && line.contains(" = ") && line.contains(" # "));
    assert_eq!(count, lines.count(), "a line that is taken for prose");
    // This file has to be there.
    let authorities = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(authorities.path(), super::providers::authority()).expect("a file");
    let text = uncommented(|knob| match knob.key.ends_with(".ca_file") {
        true => Some(format!("{:?}", authorities.path())),
        false => Some(knob.value.to_owned()),
    });
    let environment = Environment::from_iter([
        ("AGENT_1_KEY", "k-1"),
        ("ALERTS_URL", "http://127.0.0.1:9000/"),
        ("ALERTS_KEY", "k-2"),
    ]);
    let loader = Loader::new(environment);
    let config = loader.from_toml(&text, "config.toml").expect("accepted");
    assert_eq!(config.providers["mine"].models[0].name, "llama-4");
    assert_eq!(config.access.keys[0].session_limit, Some(2));
    assert_eq!(config.engine.workers, Some(5));
}

/// The knobs that are read when all of the file is uncommented.
fn read_knobs(root: &Table) -> BTreeSet<String> {
    let mut report = Report::default();
    Section::root(root, &mut report, |root| {
        Config::read(root, &Environment::default())
    });
    report.knobs
}

fn everything() -> Table {
    let text = uncommented(|knob| Some(knob.value.to_owned()));
    parse(&text, "config.toml").expect("TOML")
}

#[test]
fn every_knob_that_is_read_is_in_the_shipped_file_and_no_other() {
    let root = everything();
    let read: BTreeSet<String> = read_knobs(&root).iter().map(|knob| general(knob)).collect();
    let mut written = BTreeSet::new();
    paths(&root, "", &mut written);
    let written: BTreeSet<String> = written.iter().map(|knob| general(knob)).collect();
    let difference =
        |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>();
    assert_eq!(
        difference(&read, &written),
        [""; 0],
        "read, but not written"
    );
    assert_eq!(
        difference(&written, &read),
        [""; 0],
        "written, but not read"
    );
    assert!(read.len() > 60, "only {} knobs", read.len());
}

/// A date suits no knob, so each says what it accepts; where that is a range, the file says the same.
#[test]
fn every_knob_refuses_a_wrong_type_and_the_shipped_file_tells_its_range() {
    let knobs = read_knobs(&everything());
    let is_single = |knob: &&String| !knob.contains('[') && !knob.starts_with("providers.mine.");
    let mut ranges = 0;
    for knob in knobs.iter().filter(is_single) {
        let refusals = super::refusals(&format!("{knob} = 1979-05-27"));
        let start = format!("test.toml:1: {knob}: found ");
        let refusal = refusals.iter().find(|refusal| refusal.starts_with(&start));
        let refusal = refusal.unwrap_or_else(|| panic!("{knob}: {refusals:?}"));
        let Some((_, range)) = refusal.split_once(" from ") else {
            continue;
        };
        let told = comment_on(knob).unwrap_or_else(|| panic!("{knob} is not there"));
        assert!(told.contains(range), "{knob} takes {range}: {told}");
        ranges += 1;
    }
    assert!(ranges > 40, "only {ranges} ranges");
}

/// The comment above a knob, as one line. Knobs that follow each other without a word between them share one. Of the rules
/// for alerts, each of which is one line, the comment above the first says the ranges.
fn comment_on(knob: &str) -> Option<String> {
    let rule = knob.strip_prefix("alerts.rules.");
    if let Some((name, _)) = rule.and_then(|rule| rule.split_once('.')) {
        let is_there = SHIPPED.contains(&format!("\nalerts.rules.{name} = {{ "));
        let shared = comment_on("alerts.rules.queue_depth");
        return shared.filter(|_| is_there);
    }
    let mut comment = String::new();
    let mut after_knob = false;
    for line in SHIPPED.lines() {
        let is_comment = line.starts_with('#') && Knob::of(line).is_none();
        if is_comment && after_knob {
            comment.clear();
        }
        if is_comment {
            comment.push_str(line.trim_start_matches('#'));
        }
        after_knob = !is_comment;
        if line
            .trim_start_matches("# ")
            .starts_with(&format!("{knob} = "))
        {
            return Some(comment);
        }
    }
    None
}

/// The same knob of another provider, or another model, is the same knob.
fn general(knob: &str) -> String {
    let parts = knob.split('.').enumerate();
    let parts = parts.map(|(index, part)| match part.split_once('[') {
        Some((list, _)) => list.to_owned(),
        None if index == 1 && knob.starts_with("providers.") => "*".to_owned(),
        None => fold(part),
    });
    parts.collect::<Vec<_>>().join(".")
}

fn paths(table: &Table, prefix: &str, into: &mut BTreeSet<String>) {
    for (key, node) in table {
        let path = format!("{prefix}{key}");
        match &node.value {
            Value::Table(inner) => paths(inner, &format!("{path}."), into),
            Value::Array(items) => {
                for item in items {
                    if let Value::Table(inner) = &item.value {
                        paths(inner, &format!("{path}."), into);
                    }
                }
                into.insert(path);
            }
            _ => {
                into.insert(path);
            }
        }
    }
}

/// What the requirements promise, as figures: not read from the code that they check.
#[test]
fn a_profile_of_the_command_line_really_changes_the_shipped_file() {
    let read = |profile| {
        loader(profile)
            .from_toml(SHIPPED, "config.toml")
            .expect("accepted")
    };
    for (profile, limits, inflight, connections, capacity) in [
        (Profile::Dev, [5, 2, 5], [3, 2, 5], [512, 5], 100),
        (Profile::Demo, [15, 5, 25], [8, 8, 15], [512, 15], 100),
        (Profile::Prod, [24, 8, 100], [6, 4, 24], [4096, 15], 2000),
    ] {
        let config = read(profile);
        let provider = |name: &str| &config.providers[name];
        let found = &config.limits;
        assert_eq!(config.profile, profile);
        assert_eq!(
            [found.global, found.session, found.sessions],
            limits,
            "{profile}"
        );
        let names = ["kimi", "glm", "embedded"];
        assert_eq!(
            names.map(|name| provider(name).max_inflight),
            inflight,
            "{profile}"
        );
        let pool = provider("kimi").pool.max_connections;
        assert_eq!(
            [config.server.max_connections, pool],
            connections,
            "{profile}"
        );
        assert_eq!(config.queue.capacity, capacity, "{profile}");
    }
}

#[test]
fn the_test_profile_stays_on_this_machine() {
    let config = loader(Profile::Test)
        .from_toml(SHIPPED, "config.toml")
        .expect("accepted");
    assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["embedded"]);
    assert_eq!(config.server.listen, Listen::Tcp("127.0.0.1:0".to_owned()));
    assert_eq!(config.log.level, "warn");
    assert_eq!(config.routing.auto, [""; 0]);
}

#[test]
fn a_table_for_a_provider_of_ones_own_can_be_appended_to_the_shipped_file() {
    let mine = "[providers.mine]\nkind = \"openai\"\nbase_url = \"http://localhost:1\"\npool = { max_connections = 9 }\n";
    let config = Config::from_toml(&format!("{SHIPPED}\n{mine}"), "config.toml").expect("accepted");
    assert_eq!(config.providers["mine"].pool.max_connections, 9);
}
