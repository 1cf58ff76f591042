//! Asking providers, in the background, which models they have: a thread for each that is asked
//! (`pointsman-models-NAME`).
//!
//! ```text
//!  start --> ask --answers, or has no list--> sleep for routing.model_list_refresh --+
//!             ^  \--fails--> sleep for 5 s, then twice as long each time, ----------+
//!             |              at most for the refresh time                           |
//!             +---------------------------------------------------------------------+
//! ```
//!
//! Nobody waits for an answer but who says so ([`Lists::wait`]): requests are routed by what is known when they come. A
//! question takes no slot and no worker; its connection stays in the provider's pool for the first request. It lasts at
//! most `timeouts.normal`. What is found is said in the log where it is news: a provider that is not there says so once.
//!
//! To stop, the token is cancelled, which ends a question under way at once, and the threads are joined.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use log::Level;
use parking_lot::{Condvar, Mutex};

use crate::cancel::{CancelReason, CancelToken};
use crate::clock::{SharedClock, Time};
use crate::config::{Config, Provider as ProviderConfig};
use crate::providers::{Known, Models, Probe, Provider, Providers};

/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The threads that ask.
#[derive(Debug)]
pub(super) struct Lists {
    cancel: CancelToken,
    firsts: Arc<Firsts>,
    /// By the provider that each asks.
    threads: Mutex<BTreeMap<String, Asking>>,
    clock: SharedClock,
}

/// A thread that asks, and by what it does.
#[derive(Debug)]
struct Asking {
    provider: Arc<dyn Provider>,
    refresh: Duration,
    timeout: Duration,
    cancel: CancelToken,
    thread: JoinHandle<()>,
}

/// How many providers have not yet been heard, or failed, for the first time.
#[derive(Debug, Default)]
struct Firsts {
    left: Mutex<usize>,
    changed: Condvar,
}

/// One provider, and what asking it needs.
struct Asker {
    name: String,
    provider: Arc<dyn Provider>,
    models: Models,
    refresh: Duration,
    /// Of one question.
    timeout: Duration,
    clock: SharedClock,
    cancel: CancelToken,
}

impl Lists {
    /// Starts to ask each provider whose list is wanted and who can be asked.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        config: &Config,
        providers: &Providers,
        clock: &SharedClock,
    ) -> io::Result<Lists> {
        let lists = Lists {
            cancel: CancelToken::new(),
            firsts: Arc::default(),
            threads: Mutex::default(),
            clock: SharedClock::clone(clock),
        };
        for asker in lists.askers(config, providers) {
            lists.send_out(asker)?;
        }
        Ok(lists)
    }

    /// Asks those of another configuration from now on: who is asked as before is left alone. A thread that the system does
    /// not give leaves its provider with the models that are known, and the log says so.
    pub(super) fn renew(&self, config: &Config, providers: &Providers) {
        let askers = self.askers(config, providers);
        let mut dismissed = Vec::new();
        {
            let mut threads = self.threads.lock();
            let names: Vec<String> = threads.keys().cloned().collect();
            for name in names {
                let goes_on = threads.get(&name).is_some_and(|asking| {
                    askers
                        .iter()
                        .any(|asker| asker.name == name && asking.asks_as(asker))
                });
                if !goes_on {
                    dismissed.extend(threads.remove(&name));
                }
            }
        }
        dismissed.into_iter().for_each(Asking::stop);
        for asker in askers {
            let name = asker.name.clone();
            if self.threads.lock().contains_key(&name) {
                continue;
            }
            if let Err(error) = self.send_out(asker) {
                log::error!(
                    "models of {name}: nobody asks for them, no thread can be started: {error}"
                );
            }
        }
    }

    /// Those who would ask the providers of a configuration.
    fn askers(&self, config: &Config, providers: &Providers) -> Vec<Asker> {
        let asked = config.providers.values().filter(|it| is_asked(it, config));
        let asker = |entry: &ProviderConfig| {
            Some(Asker {
                name: entry.name.clone(),
                provider: Arc::clone(providers.get(&entry.name)?),
                models: providers.models(&entry.name)?.clone(),
                refresh: config.routing.model_list_refresh,
                timeout: config.timeouts.normal,
                clock: SharedClock::clone(&self.clock),
                cancel: self.cancel.child(),
            })
        };
        asked.filter_map(asker).collect()
    }

    fn send_out(&self, asker: Asker) -> io::Result<()> {
        asker.models.await_list();
        let name = asker.name.clone();
        let (provider, cancel) = (Arc::clone(&asker.provider), asker.cancel.clone());
        let (refresh, timeout) = (asker.refresh, asker.timeout);
        let first = First::new(&self.firsts);
        let thread = Builder::new()
            .name(format!("pointsman-models-{name}"))
            .spawn(move || asker.run(first))?;
        let asking = Asking {
            provider,
            refresh,
            timeout,
            cancel,
            thread,
        };
        self.threads.lock().insert(name, asking);
        Ok(())
    }

    /// Waits until each provider was heard, or failed, once; `false` when that takes longer than `within`.
    pub(super) fn wait(&self, within: Duration) -> bool {
        let until = self.clock.now() + within;
        let mut left = self.firsts.left.lock();
        while *left > 0 {
            let rest = until.since(self.clock.now());
            if rest.is_zero() {
                return false;
            }
            self.firsts.changed.wait_for(&mut left, rest);
        }
        true
    }

    /// Ends what is under way and joins the threads.
    pub(super) fn stop(&self) {
        self.cancel.cancel(CancelReason::Stopping);
        let threads = std::mem::take(&mut *self.threads.lock());
        threads.into_values().for_each(Asking::stop);
    }
}

impl Asking {
    fn asks_as(&self, asker: &Asker) -> bool {
        Arc::ptr_eq(&self.provider, &asker.provider)
            && (self.refresh, self.timeout) == (asker.refresh, asker.timeout)
    }

    /// Ends what is under way and joins the thread.
    fn stop(self) {
        self.cancel.cancel(CancelReason::Stopping);
        let name = self.thread.thread().name().unwrap_or("unnamed").to_owned();
        if self.thread.join().is_err() {
            log::error!("thread {name} panicked");
        }
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_asked(entry: &ProviderConfig, config: &Config) -> bool {
    entry.model_list && entry.is_available() && !config.routing.model_list_refresh.is_zero()
}

/// Counts a provider as not yet heard, until it is dropped: also by a panic.
struct First(Arc<Firsts>);

impl First {
    fn new(firsts: &Arc<Firsts>) -> First {
        *firsts.left.lock() += 1;
        First(Arc::clone(firsts))
    }
}

impl Drop for First {
    fn drop(&mut self) {
        *self.0.left.lock() -= 1;
        self.0.changed.notify_all();
    }
}

/// What became of one question.
enum Heard {
    /// Its models, in words for the log.
    List(String),
    /// It has no list, or none that can be read.
    Nothing(String),
    /// It did not answer: why, the same in more words for the log, and for how long it wants not to be asked.
    Failed {
        why: String,
        detail: String,
        wait: Duration,
    },
}

impl Asker {
    fn run(self, first: First) {
        let mut first = Some(first);
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        while !self.cancel.is_cancelled() {
            let heard = self.ask(self.clock.now() + self.timeout);
            if self.cancel.is_cancelled() {
                return;
            }
            let rest;
            (rest, pause) = match &heard {
                Heard::Failed { wait, .. } => (pause.max(*wait), pause.saturating_mul(2)),
                Heard::List(_) | Heard::Nothing(_) => (self.refresh, FIRST_PAUSE),
            };
            self.say(heard, &mut said);
            first.take();
            self.cancel.wait(rest.min(self.refresh));
        }
    }

    fn ask(&self, deadline: Time) -> Heard {
        match self.provider.probe(&self.cancel, deadline) {
            Ok(Probe::Accepted(Some(listed))) => {
                self.models.read(listed);
                Heard::List(words(&self.models.known()))
            }
            Ok(Probe::Accepted(None) | Probe::Reached | Probe::InProcess) => {
                let why = "it has no list of models";
                self.models.failed(why);
                Heard::Nothing(why.to_owned())
            }
            Err(error) => {
                self.models.failed(&error.message);
                Heard::Failed {
                    detail: error.detail.unwrap_or_else(|| error.message.clone()),
                    wait: error.retry_after.unwrap_or_default(),
                    why: error.message,
                }
            }
        }
    }

    /// Says what is new: once, and not again until something else is. (Of a failure the details differ each time.)
    fn say(&self, heard: Heard, said: &mut String) {
        let name = &self.name;
        let unlisted = |why: &str| {
            format!("models of {name}: as configured, for {name} does not list them: {why}")
        };
        let (level, line, news) = match heard {
            Heard::List(words) => (Level::Info, format!("models of {name}: {words}"), words),
            Heard::Nothing(why) => (Level::Info, unlisted(&why), why),
            Heard::Failed { why, detail, .. } => (Level::Warn, unlisted(&detail), why),
        };
        if news != *said {
            log::log!(level, "{line}");
            *said = news;
        }
    }
}

/// What is known of a provider's models, in words for the log.
fn words(known: &Known) -> String {
    let configured = known.models.iter().filter(|it| it.is_configured).count();
    let more = known.models.len() - configured;
    let missing = match known.missing() {
        [] => String::new(),
        missing => format!("; not listed by it: {}", missing.join(", ")),
    };
    format!("{configured} configured, {more} more listed by it{missing}")
}
