//! Reads the box and this process from a folder that is, or looks like, `/proc`.
//!
//! (A crate that parses all of `/proc` is not used: the kept one slices lines by place and panics where a file is not as
//! it expects, and this is some twenty figures.) A figure whose file is missing or is not understood is not known, and the
//! others are.

use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::param::{clock_ticks_per_second, page_size};

use super::view::{HostView, ProcessView, ResourceView};
use crate::clock::Time;
use crate::config::Throttle;

/// Reads, and remembers what shares of time are reckoned from.
#[derive(Debug)]
pub(super) struct Reader {
    root: PathBuf,
    groups: PathBuf,
    before: Option<Ticks>,
}

/// Processor time since the box was started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticks {
    all: u64,
    used: u64,
}

impl Reader {
    pub(super) fn new(settings: &Throttle) -> Self {
        Reader {
            root: settings.proc.clone(),
            groups: settings.cgroup.clone(),
            before: None,
        }
    }

    /// What is there now.
    pub(super) fn read(&mut self, now: Time) -> ResourceView {
        ResourceView {
            at: now,
            process: self.process(),
            host: self.host(),
        }
    }

    fn process(&self) -> ProcessView {
        let stat = self.text("self/stat").unwrap_or_default();
        let limits = self.text("self/limits").unwrap_or_default();
        // The second field is a name that may hold anything; the third is the first behind its last parenthesis.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |number: usize| -> Option<u64> {
            fields.split_whitespace().nth(number - 3)?.parse().ok()
        };
        let ticks = field(14).zip(field(15));
        ProcessView {
            cpu_s: ticks.map(|(user, system)| {
                user.saturating_add(system) as f64 / clock_ticks_per_second().max(1) as f64
            }),
            resident_bytes: field(24).map(|pages| pages.saturating_mul(page_size() as u64)),
            threads: field(20),
            open_files: self.open_files(),
            max_files: after(&limits, "Max open files").and_then(first_number),
        }
    }

    fn host(&mut self) -> HostView {
        let stat = self.text("stat").unwrap_or_default();
        let memory = self.text("meminfo").unwrap_or_default();
        let files = self.text("sys/fs/file-nr").unwrap_or_default();
        let mut files = files.split_whitespace().map(str::parse);
        let mut file = || files.next()?.ok();
        let (open, unused, max) = (file(), file(), file());
        let kibibytes = |name| {
            after(&memory, name)
                .and_then(first_number)?
                .checked_mul(1024)
        };
        let is_processor = |line: &&str| {
            let rest = line.strip_prefix("cpu");
            rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let cpus = stat.lines().filter(is_processor).count() as u64;
        let (group_used, group_max) = self.group().unzip();
        HostView {
            cpus: (cpus > 0).then_some(cpus),
            cpu_busy: self.busy(Ticks::of(&stat)),
            load: self.load(),
            memory_bytes: kibibytes("MemTotal:"),
            memory_available_bytes: kibibytes("MemAvailable:"),
            group_memory_bytes: group_used,
            group_memory_max_bytes: group_max,
            open_files: open.map(|open: u64| open.saturating_sub(unused.unwrap_or(0))),
            max_files: max,
            cpu_pressure: self.pressure("cpu"),
            memory_pressure: self.pressure("memory"),
            io_pressure: self.pressure("io"),
        }
    }

    /// Of the control groups (version 2) that this process is in, from its own up, the one that is nearest to its limit of
    /// memory: what it uses, and may use.
    fn group(&self) -> Option<(u64, u64)> {
        let groups = self.text("self/cgroup")?;
        let own = Path::new(after(&groups, "0::/")?);
        let is_below = |part| matches!(part, Component::Normal(_));
        let own = Some(own).filter(|own| own.components().all(is_below))?;
        let usage = |group: &Path| {
            let folder = self.groups.join(group);
            let number = |name| first_number(&fs::read_to_string(folder.join(name)).ok()?);
            let max = number("memory.max").filter(|&max| max > 0)?;
            let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
            // What was read from files and not for a while makes room by itself.
            let idle = after(&stat, "inactive_file ").and_then(first_number);
            let used = number("memory.current")?.saturating_sub(idle.unwrap_or(0));
            Some((used, max))
        };
        let part = |&(used, max): &(u64, u64)| used as f64 / max as f64;
        let usages = own.ancestors().filter_map(usage);
        usages.max_by(|one, other| part(one).total_cmp(&part(other)))
    }

    /// The part of the time since the look before that was used.
    fn busy(&mut self, now: Option<Ticks>) -> Option<f64> {
        let before = std::mem::replace(&mut self.before, now)?;
        let now = now?;
        let all = now.all.checked_sub(before.all).filter(|&all| all > 0)?;
        let used = now.used.saturating_sub(before.used);
        Some((used as f64 / all as f64).min(1.0))
    }

    fn load(&self) -> Option<[f64; 3]> {
        let text = self.text("loadavg")?;
        let mut means = text.split_whitespace().map(|word| finite(word).ok_or(()));
        let mut mean = || means.next()?.ok();
        Some([mean()?, mean()?, mean()?])
    }

    /// `some avg10=1.25 avg60=...`, in hundredths.
    fn pressure(&self, what: &str) -> Option<f64> {
        let text = self.text(&format!("pressure/{what}"))?;
        let mut fields = after(&text, "some")?.split_whitespace();
        let percent = fields.find_map(|field| field.strip_prefix("avg10="))?;
        Some((finite(percent)? / 100.0).clamp(0.0, 1.0))
    }

    /// The folder that is read for this is one of them, and closed again.
    fn open_files(&self) -> Option<u64> {
        let open = fs::read_dir(self.root.join("self/fd")).ok()?.count() as u64;
        Some(open.saturating_sub(1))
    }

    /// A file's text; the name of a process need not be UTF-8.
    fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.root.join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Ticks {
    /// Of the line `cpu user nice system idle iowait irq softirq steal guest guest_nice`. Guests are in user and nice
    /// already; who waits for a disk uses no processor; what other machines of the same host took is not ours to use.
    fn of(stat: &str) -> Option<Ticks> {
        let fields = after(stat, "cpu ")?.split_whitespace().take(8);
        let fields: Option<Vec<u64>> = fields.map(|field| field.parse().ok()).collect();
        let fields = fields.filter(|fields| fields.len() >= 4)?;
        let all = fields.iter().fold(0, |sum: u64, &n| sum.saturating_add(n));
        let idle = fields.iter().skip(3).take(2);
        let idle = idle.fold(0, |sum: u64, &n| sum.saturating_add(n));
        Some(Ticks {
            all,
            used: all.saturating_sub(idle),
        })
    }
}

/// What follows on the line that begins so.
fn after<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(start))
}

/// `unlimited` is none.
fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}
