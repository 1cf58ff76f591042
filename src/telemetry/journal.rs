//! The lifecycle log as a file: one line of JSON for each event, written by a thread of its own.
//!
//! Nobody waits for the disk. An event goes into a bounded queue; where that is full, because the disk is slower than
//! what happens, the event is lost to the file, and counted. So are those that can't be written. The log says so when it
//! begins, once, and when it is over.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use serde::Serialize;

use super::rotation::RotatingFile;
use super::{Event, Figure, Phases};
use crate::clock::{Calendar, SharedClock, Time};
use crate::config::Telemetry;

/// Bytes after which lines that came together are written.
const BATCH: usize = 16 * 1024;
/// How long somebody waits for what was recorded to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Hands events to the thread that writes them.
#[derive(Debug)]
pub(super) struct Journal {
    queue: Option<Sender<Message>>,
    counts: Arc<Counts>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Closed when the thread has gone.
    gone: Receiver<()>,
}

#[derive(Debug)]
enum Message {
    Event(Event),
    /// Whoever waits until all that came before is written.
    Flush(Sender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    /// Found no room in the queue, since the last look.
    crowded_out: AtomicU64,
    lost: AtomicU64,
}

/// What became of the events that were to be written to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FileStatistics {
    /// Written.
    pub written: u64,
    /// Not written, since the file could not be written or not fast enough.
    pub lost: u64,
}

impl Journal {
    /// Opens the file, and starts its thread.
    ///
    /// # Errors
    /// When the file can't be opened, or the system gives no thread.
    pub(super) fn start(path: &Path, config: &Telemetry, clock: SharedClock) -> io::Result<Self> {
        let (size, kept) = (config.lifecycle_file_size as u64, config.lifecycle_files);
        let file = RotatingFile::open(path, size, kept)?;
        let (queue, messages) = bounded(config.lifecycle_backlog);
        let (alive, gone) = bounded::<()>(0);
        let counts = Arc::<Counts>::default();
        let mut writer = Writer {
            file,
            clock,
            counts: Arc::clone(&counts),
            text: Vec::new(),
            failing: false,
        };
        let thread = Builder::new()
            .name("pointsman-lifecycle".into())
            .spawn(move || {
                writer.run(&messages);
                drop(alive);
            })?;
        Ok(Journal {
            queue: Some(queue),
            counts,
            thread: Mutex::new(Some(thread)),
            gone,
        })
    }

    /// Will write the event, unless it can't. Never waits.
    pub(super) fn put(&self, event: &Event) {
        let queue = self.queue.as_ref();
        let taken =
            queue.is_some_and(|queue| queue.try_send(Message::Event(event.clone())).is_ok());
        if !taken {
            self.counts.crowded_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was put before is written, for a second at most.
    pub(super) fn flush(&self) {
        let (done, word) = bounded(1);
        let queue = self.queue.as_ref();
        let asked = queue.map(|queue| queue.send_timeout(Message::Flush(done), PATIENCE));
        if asked.is_some_and(|asked| asked.is_ok()) {
            let _ = word.recv_timeout(PATIENCE);
        }
    }

    pub(super) fn statistics(&self) -> FileStatistics {
        let lost = self.counts.lost.load(Ordering::Relaxed);
        FileStatistics {
            written: self.counts.written.load(Ordering::Relaxed),
            lost: lost + self.counts.crowded_out.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Journal {
    /// Writes what is left, for a second at most; a thread that hangs in the disk is left behind.
    fn drop(&mut self) {
        drop(self.queue.take());
        let gone = self.gone.recv_timeout(PATIENCE);
        let is_gone = gone.is_err_and(|error| error.is_disconnected());
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        if !is_gone && !thread.is_finished() {
            log::error!("the lifecycle file is not written in time and is left as it is");
        } else if thread.join().is_err() {
            log::error!("thread pointsman-lifecycle panicked");
        }
    }
}

/// The thread's own.
struct Writer {
    file: RotatingFile,
    clock: SharedClock,
    counts: Arc<Counts>,
    /// Lines to be written together.
    text: Vec<u8>,
    /// Lines are being lost, and the log has been told.
    failing: bool,
}

impl Writer {
    fn run(&mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let calendar = Calendar::of(&*self.clock);
            let mut flushed = Vec::new();
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    Message::Event(event) => self.add(&event, &calendar),
                    Message::Flush(done) => flushed.push(done),
                }
                if self.text.len() >= BATCH {
                    break;
                }
            }
            self.write();
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    fn add(&mut self, event: &Event, calendar: &Calendar) {
        let before = self.text.len();
        match serde_json::to_writer(&mut self.text, &Line::of(event, calendar)) {
            Ok(()) => self.text.push(b'\n'),
            Err(error) => {
                self.text.truncate(before);
                log::error!("an event can't be written as JSON: {error}");
            }
        }
    }

    fn write(&mut self) {
        let text = mem::take(&mut self.text);
        let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count() as u64;
        let (all, written) = (lines(&text), self.file.write(&text));
        let (unwritten, error) = match written {
            Ok(()) => (0, None),
            Err((written, error)) => (all - lines(&text[..written]), Some(error)),
        };
        let crowded_out = self.counts.crowded_out.swap(0, Ordering::Relaxed);
        self.counts
            .written
            .fetch_add(all - unwritten, Ordering::Relaxed);
        let lost = self
            .counts
            .lost
            .fetch_add(unwritten + crowded_out, Ordering::Relaxed);
        self.say(
            unwritten + crowded_out > 0,
            lost + unwritten + crowded_out,
            error,
        );
        self.text = text;
        self.text.clear();
    }

    /// Tells the log when lines begin to be lost, and when they no longer are.
    fn say(&mut self, failing: bool, lost: u64, error: Option<io::Error>) {
        let path = self.file.path().display();
        match (mem::replace(&mut self.failing, failing), failing, error) {
            (false, true, Some(error)) => {
                log::error!(
                    "lifecycle file {path}: {error}; events are not written until that is over"
                );
            }
            (false, true, None) => {
                log::warn!("lifecycle file {path}: written too slowly; some events are left out");
            }
            (true, false, _) => {
                log::warn!("lifecycle file {path}: written again; {lost} events in all were not");
            }
            (true, true, _) | (false, false, _) => {}
        }
    }
}

/// An event in the file.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: String,
    request_id: &'a str,
    job: u64,
    seq: u64,
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_s: Option<f64>,
    thread: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<&'a str>,
    /// Of the whole request, at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    phases: Option<&'a Phases>,
}

impl<'a> Line<'a> {
    fn of(event: &'a Event, calendar: &Calendar) -> Self {
        let wall = |at: Time| humantime::format_rfc3339_micros(calendar.at(at)).to_string();
        let subject = &event.subject;
        Line {
            at: wall(event.at),
            request_id: &subject.request,
            job: subject.job,
            seq: event.seq,
            step: event.step.name(),
            took_s: event.took.map(|took| Figure::of(took).seconds()),
            thread: event.thread.name(),
            key: subject.key.as_deref(),
            session: subject.session.as_deref(),
            provider: subject.provider.as_deref(),
            model: subject.model.as_deref(),
            joined: subject.joined.as_deref(),
            phases: event.phases.as_deref().filter(|_| event.step.is_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::{Config, Profile};
    use crate::telemetry::{LifecycleLog, Step, Subject};

    fn config(path: &Path) -> Telemetry {
        Telemetry {
            lifecycle_file: Some(path.to_owned()),
            ..Config::builtin(Profile::Test).telemetry
        }
    }

    fn event(seq: u64, step: Step) -> Event {
        let subject = Subject {
            request: "r-\"1\"\n".into(),
            job: 7,
            key: None,
            session: Some("agent".into()),
            provider: None,
            model: None,
            joined: None,
        };
        Event {
            seq,
            at: Time::ZERO,
            step,
            subject: Arc::new(subject),
            thread: std::thread::current(),
            took: Some(Duration::from_millis(5)),
            phases: Some(Box::default()),
        }
    }

    fn open(config: &Telemetry) -> LifecycleLog {
        LifecycleLog::open(config, SystemClock::shared()).expect("it opens")
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).expect("a file");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    #[test]
    fn each_event_is_a_line_of_json() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("events.jsonl");
        let log = open(&config(&path));
        log.push([event(1, Step::Queued), event(2, Step::Completed)]);
        log.flush();
        let found = lines(&path);
        let steps: Vec<&Value> = found.iter().map(|line| &line["step"]).collect();
        assert_eq!(steps, ["QUEUED", "COMPLETED"]);
        assert_eq!(
            (&found[1]["request_id"], &found[1]["job"]),
            (&"r-\"1\"\n".into(), &7.into())
        );
        assert!(found[1]["phases"]["total_s"].is_number() && found[0]["phases"].is_null());
        let at = found[0]["at"].as_str().expect("a time");
        assert!(humantime::parse_rfc3339(at).is_ok(), "{at}");
        let statistics = FileStatistics {
            written: 2,
            lost: 0,
        };
        assert_eq!(log.file(), Some(statistics));
    }

    #[test]
    fn what_was_recorded_is_written_when_the_log_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("events.jsonl");
        let log = open(&config(&path));
        for seq in 0..5_000 {
            log.push([event(seq, Step::Queued)]);
        }
        drop(log);
        let seqs: Vec<u64> = lines(&path)
            .iter()
            .filter_map(|line| line["seq"].as_u64())
            .collect();
        assert_eq!(seqs, Vec::from_iter(0..5_000));
    }

    #[test]
    fn a_full_disk_loses_events_and_counts_them_and_nobody_waits() {
        let log = open(&config(Path::new("/dev/full")));
        for seq in 0..100 {
            log.push([event(seq, Step::Queued)]);
        }
        log.flush();
        let statistics = FileStatistics {
            written: 0,
            lost: 100,
        };
        assert_eq!(log.file(), Some(statistics));
        assert_eq!(log.statistics().recorded, 100);
    }

    #[test]
    fn a_file_that_cannot_be_is_an_error_at_the_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("missing/events.jsonl");
        let error = LifecycleLog::open(&config(&path), SystemClock::shared());
        let error = error.map(drop).expect_err("there is no such directory");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_log_without_a_file_says_nothing_of_one() {
        let config = Config::builtin(Profile::Test).telemetry;
        assert_eq!(open(&config).file(), None);
    }
}
