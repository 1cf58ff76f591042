//! Feeds the service manager's watchdog, for as long as all is well inside.
//!
//! Every half of the time that the manager allows (`WATCHDOG_USEC`), a thread asks the gateway for its pulse: its own
//! watchdog has to answer, and then the books have to agree. Only then the manager hears `WATCHDOG=1`. Where either
//! fails it hears in words why not, the log says it too, and it is the manager who decides: systemd ends
//! us and starts us anew. So a gateway that hangs, or that has lost count of its slots, is not kept alive by a thread that
//! knows nothing of it.
//!
//! It goes on while the gateway drains, which may take longer than the manager's patience.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};

use super::Manager;
use crate::gateway::Gateway;

/// The thread that feeds. Dropping it ends it.
#[derive(Debug)]
pub(in crate::cli) struct Watch {
    /// Its end is the word to stop: nothing is ever sent.
    word: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to feed; does nothing where the manager does not ask for it.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(in crate::cli) fn start(manager: &Manager, gateway: &Gateway) -> io::Result<Watch> {
        let Some(allowed) = manager.watchdog() else {
            return Ok(Watch {
                word: None,
                thread: None,
            });
        };
        let (word, stopped) = bounded::<()>(0);
        let mut keeper = Keeper {
            manager: manager.clone(),
            gateway: gateway.clone(),
            trouble: None,
        };
        let thread = Builder::new().name("pointsman-service".into());
        let thread = thread.spawn(move || {
            keeper.look(allowed / 4);
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(allowed / 2) {
                keeper.look(allowed / 4);
            }
        });
        Ok(Watch {
            word: Some(word),
            thread: Some(thread?),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.word = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            log::error!("the thread that feeds the service manager's watchdog panicked");
        }
    }
}

/// Looks, and tells.
struct Keeper {
    manager: Manager,
    gateway: Gateway,
    /// What was wrong when it last looked.
    trouble: Option<String>,
}

impl Keeper {
    fn look(&mut self, within: Duration) {
        let trouble = self.gateway.pulse(within).err();
        match &trouble {
            None => {
                let (running, waiting) = self.gateway.busy();
                self.manager
                    .alive(&format!("{running} calls run, {waiting} wait"));
            }
            Some(why) => self.manager.status(&format!("unhealthy: {why}")),
        }
        if trouble == self.trouble {
            return;
        }
        match &trouble {
            None => log::info!("the service manager's watchdog is fed again"),
            Some(why) => log::error!("the service manager's watchdog is not fed: {why}"),
        }
        self.trouble = trouble;
    }
}
