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
        let (mut keeper, gateway) = (Keeper::new(manager.clone()), gateway.clone());
        let feed = move || {
            let look = || {
                let pulse = gateway.pulse(allowed / 4);
                pulse.map_or_else(|why| Err(why.to_string()), |()| Ok(gateway.busy()))
            };
            keeper.tell(look());
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(allowed / 2) {
                keeper.tell(look());
            }
        };
        let thread = Builder::new()
            .name("pointsman-service".into())
            .spawn(feed)?;
        Ok(Watch {
            word: Some(word),
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.word = None;
        let thread = self.thread.take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that feeds the service manager's watchdog panicked");
        }
    }
}

/// Tells the manager, and the log what has changed.
#[derive(Debug)]
struct Keeper {
    manager: Manager,
    /// What was wrong the last time.
    trouble: Option<String>,
}

impl Keeper {
    fn new(manager: Manager) -> Self {
        Keeper {
            manager,
            trouble: None,
        }
    }

    /// How many calls run and how many jobs wait; or what is wrong.
    fn tell(&mut self, pulse: Result<(usize, usize), String>) {
        match &pulse {
            Ok((running, waiting)) => {
                let status = format!("{running} calls run, {waiting} jobs wait");
                self.manager.alive(&status);
            }
            Err(why) => self.manager.status(&format!("unhealthy: {why}")),
        }
        let trouble = pulse.err();
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use super::*;
    use crate::config::Environment;

    #[test]
    fn the_manager_is_told_what_is_wrong_and_not_that_all_is_well() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a live socket");
        let name = path.display().to_string();
        let manager = Manager::of(&Environment::from_iter([("NOTIFY_SOCKET", name)]));
        let mut keeper = Keeper::new(manager);
        for (pulse, expected) in [
            (Ok((2, 1)), "WATCHDOG=1\nSTATUS=2 calls run, 1 jobs wait"),
            (Err("it hangs".to_owned()), "STATUS=unhealthy: it hangs"),
            (Err("it hangs".to_owned()), "STATUS=unhealthy: it hangs"),
            (Ok((0, 0)), "WATCHDOG=1\nSTATUS=0 calls run, 0 jobs wait"),
        ] {
            keeper.tell(pulse);
            let mut heard = [0; 256];
            let length = socket.recv(&mut heard).expect("a word");
            assert_eq!(std::str::from_utf8(&heard[..length]), Ok(expected));
        }
    }
}
