//! Telling webhooks: a thread for each (`pointsman-webhook-N`), with a bounded queue before it.
//!
//! Nobody waits for a webhook: what finds its queue full is left out, counted and said in the log. A try that fails is
//! repeated after `alerts.webhook_wait`, then twice that, and so on, at most `alerts.webhook_attempts` times; a webhook
//! that refuses what it is told (4xx) is not asked again for that. Messages to one webhook keep their order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use parking_lot::Mutex;

use super::evaluate::Transition;
use super::hook::{self, Verdict};
use crate::cancel::{CancelReason, CancelToken};
use crate::client::Client;
use crate::config::{self, Webhook, WebhookKind};

/// How long a thread has to come back when it is told to stop.
const COME_BACK: Duration = Duration::from_secs(1);
/// No wait between two tries is longer.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// What became of telling a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it understands.
    pub kind: WebhookKind,
    /// Its host.
    pub host: String,
    /// Messages that it took.
    pub sent: u64,
    /// Messages that it did not take, however often they were sent.
    pub failed: u64,
    /// Messages that found no place in its queue.
    pub left_out: u64,
    /// Messages that wait for their turn, or for another try.
    pub waiting: usize,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    left_out: AtomicU64,
    /// Messages that are being sent: one, or none.
    under_way: AtomicUsize,
}

/// A webhook and its queue.
#[derive(Debug)]
struct Line {
    webhook: Webhook,
    queue: Sender<Transition>,
    counts: Arc<Counts>,
}

/// All webhooks.
#[derive(Debug)]
pub(super) struct Teller {
    cancel: CancelToken,
    /// Closed when the last thread has gone.
    gone: Receiver<()>,
    lines: Mutex<Vec<Line>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What a webhook's thread works with.
struct Messenger {
    webhook: Webhook,
    queue: Receiver<Transition>,
    counts: Arc<Counts>,
    cancel: CancelToken,
    /// This machine's name.
    host: String,
    timeout: Duration,
    attempts: u32,
    wait: Duration,
}

impl Teller {
    /// Starts a thread for each webhook.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(config: &config::Alerts) -> io::Result<Teller> {
        let (alive, gone) = bounded::<()>(0);
        let teller = Teller {
            cancel: CancelToken::new(),
            gone,
            lines: Mutex::default(),
            threads: Mutex::default(),
        };
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        for (index, webhook) in config.webhooks.iter().enumerate() {
            let (sender, queue) = bounded(config.webhook_queue);
            let counts = Arc::<Counts>::default();
            let messenger = Messenger {
                webhook: webhook.clone(),
                queue,
                counts: Arc::clone(&counts),
                cancel: teller.cancel.clone(),
                host: host.clone(),
                timeout: config.webhook_timeout,
                attempts: config.webhook_attempts,
                wait: config.webhook_wait,
            };
            let alive = alive.clone();
            let thread = Builder::new()
                .name(format!("pointsman-webhook-{index}"))
                .spawn(move || {
                    messenger.run();
                    drop(alive);
                })?;
            teller.threads.lock().push(thread);
            teller.lines.lock().push(Line {
                webhook: webhook.clone(),
                queue: sender,
                counts,
            });
        }
        Ok(teller)
    }

    /// Has every webhook told, sooner or later.
    pub(super) fn tell(&self, change: &Transition) {
        for line in self.lines.lock().iter() {
            let Err(error) = line.queue.try_send(change.clone()) else {
                continue;
            };
            let why = match error {
                TrySendError::Full(_) => "its queue is full (alerts.webhook_queue)",
                TrySendError::Disconnected(_) => "its thread is gone",
            };
            line.counts.left_out.fetch_add(1, Ordering::Relaxed);
            log::warn!(
                "alert {}: the webhook at {} is not told, {why}",
                change.alert.id,
                line.webhook.host()
            );
        }
    }

    pub(super) fn told(&self) -> Vec<Told> {
        let told = |line: &Line| Told {
            kind: line.webhook.kind,
            host: line.webhook.host(),
            sent: line.counts.sent.load(Ordering::Relaxed),
            failed: line.counts.failed.load(Ordering::Relaxed),
            left_out: line.counts.left_out.load(Ordering::Relaxed),
            waiting: line.queue.len() + line.counts.under_way.load(Ordering::Relaxed),
        };
        self.lines.lock().iter().map(told).collect()
    }

    /// Ends what is under way and joins the threads. One that is stuck in the system's look-up of a name, which nothing
    /// ends, is left behind after [`COME_BACK`], and said in the log.
    pub(super) fn stop(&self) {
        self.cancel.cancel(CancelReason::Stopping);
        // A thread that waits for the next message hears that there will be none.
        self.lines.lock().clear();
        let threads = std::mem::take(&mut *self.threads.lock());
        // Nothing is ever sent: the wait ends when the last thread drops its end, or the time is up.
        let _ = self.gone.recv_timeout(COME_BACK);
        for thread in threads {
            if !thread.is_finished() && self.gone.try_recv() != Err(TryRecvError::Disconnected) {
                log::error!("the thread of a webhook does not come back and is left behind");
            } else if thread.join().is_err() {
                log::error!("the thread of a webhook panicked");
            }
        }
    }
}

impl Messenger {
    fn run(self) {
        for change in &self.queue {
            if self.cancel.is_cancelled() {
                return;
            }
            self.counts.under_way.store(1, Ordering::Relaxed);
            let count = match self.deliver(&change) {
                Ok(()) => &self.counts.sent,
                Err(why) => {
                    let (id, host) = (&change.alert.id, self.webhook.host());
                    log::warn!("alert {id}: the webhook at {host} could not be told: {why}");
                    &self.counts.failed
                }
            };
            count.fetch_add(1, Ordering::Relaxed);
            self.counts.under_way.store(0, Ordering::Relaxed);
        }
    }

    /// Tries until it is told.
    ///
    /// # Errors
    /// In words, why it is not: the last reason, where there were several.
    fn deliver(&self, change: &Transition) -> Result<(), String> {
        let body = hook::body(&self.webhook, change, &self.host);
        let mut wait = self.wait;
        for attempt in 1.. {
            let why = match self.send(&body) {
                Ok(status) => match hook::verdict(status) {
                    Verdict::Told => return Ok(()),
                    Verdict::Refused => return Err(format!("it says {status}")),
                    Verdict::Again => format!("it says {status}"),
                },
                Err(why) => why,
            };
            if attempt >= self.attempts {
                return Err(format!("{why}, after {attempt} tries"));
            }
            let (id, host) = (&change.alert.id, self.webhook.host());
            log::info!("alert {id}: the webhook at {host} was not told: {why}; again in {wait:?}");
            if self.cancel.wait(wait).is_some() {
                return Err(format!("the gateway stops; {why}, after {attempt} tries"));
            }
            wait = wait.saturating_mul(2).min(MAX_WAIT);
        }
        Ok(())
    }

    /// The status of its answer. No error has the address in it, which may be a secret.
    fn send(&self, body: &[u8]) -> Result<u16, String> {
        let host = self.webhook.host();
        let hidden =
            |error: crate::client::ClientError| error.to_string().replace(&self.webhook.url, &host);
        // Made anew each time: a name may have moved, and messages are rare.
        let client = Client::new(&self.webhook.url, &self.cancel).map_err(hidden)?;
        let headers = hook::headers(&self.webhook);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, &**v)).collect();
        let answer = client.post("", &headers, body, self.timeout);
        answer.map(|answer| answer.status).map_err(hidden)
    }
}
