//! What we tell the service manager: one datagram each, of lines `NAME=value`.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::config::Environment;

/// How long a manager may take to take a word. One that is slower than that misses it: we don't wait for whoever watches us.
const PATIENCE: Duration = Duration::from_millis(500);

/// What stopping takes beside the drain: the last answers, and the threads.
const BESIDE_DRAIN: Duration = Duration::from_secs(10);

/// Whoever started us and wants to know how things are; or nobody.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Manager {
    address: Option<SocketAddr>,
    /// How often it has to hear that all is well.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names (`NOTIFY_SOCKET`).
    pub(in crate::cli) fn of(environment: &Environment) -> Self {
        let address = environment.get("NOTIFY_SOCKET").and_then(|name| {
            address(name)
                .inspect_err(|error| log::warn!("NOTIFY_SOCKET {name:?} is no address: {error}"))
                .ok()
        });
        Manager {
            watchdog: watchdog(environment).filter(|_| address.is_some()),
            address,
        }
    }

    /// How often it has to hear [`Manager::alive`]; `None` if it does not ask for that.
    pub(in crate::cli) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Clients can come in.
    pub(in crate::cli) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// All is well.
    pub(in crate::cli) fn alive(&self, status: &str) {
        self.say(&format!("WATCHDOG=1\nSTATUS={}", line(status)));
    }

    /// What goes on, for people to read.
    pub(in crate::cli) fn status(&self, status: &str) {
        self.say(&format!("STATUS={}", line(status)));
    }

    /// It stops, which takes `drain` and a little more at most: it is given that time, whatever its unit says.
    pub(in crate::cli) fn stopping(&self, drain: Duration) {
        let micros = (drain + BESIDE_DRAIN).as_micros();
        let drain = humantime::format_duration(drain);
        self.say(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=stopping: what runs has {drain} to finish"
        ));
    }

    fn say(&self, text: &str) {
        let Some(address) = &self.address else {
            return;
        };
        if let Err(error) = send(address, text) {
            log::warn!("the service manager can't be told {text:?}: {error}");
        }
    }
}

/// A path, or an abstract name behind an `@`.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

fn send(address: &SocketAddr, text: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(text.as_bytes(), address).map(drop)
}

/// `WATCHDOG_USEC`, where it is meant for this process.
fn watchdog(environment: &Environment) -> Option<Duration> {
    let number = |name| environment.get(name).map(str::parse::<u64>);
    match number("WATCHDOG_PID") {
        Some(pid) if pid != Ok(std::process::id().into()) => return None,
        Some(_) | None => {}
    }
    let micros = number("WATCHDOG_USEC")?.ok().filter(|micros| *micros > 0);
    micros.map(Duration::from_micros)
}

/// One line: what follows would be read as another word.
fn line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(variables: &[(&str, &str)]) -> Manager {
        Manager::of(&variables.iter().copied().collect())
    }

    #[test]
    fn an_abstract_name_is_heard_as_well_as_a_path() {
        let name = format!("pointsman-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("nobody else has it");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a live socket");
        let told = manager(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
        told.ready("listening\nSTOPPING=1");
        let mut heard = [0; 256];
        let length = socket.recv(&mut heard).expect("a word");
        let heard = std::str::from_utf8(&heard[..length]).expect("text");
        assert_eq!(heard, "READY=1\nSTATUS=listening STOPPING=1");
    }

    #[test]
    fn a_watchdog_counts_only_for_the_process_that_it_names() {
        let own = std::process::id().to_string();
        let seconds = Some(Duration::from_secs(2));
        for (pid, usec, expected) in [
            (Some(own.as_str()), "2000000", seconds),
            (None, "2000000", seconds),
            (Some("1"), "2000000", None),
            (Some("x"), "2000000", None),
            (None, "0", None),
            (None, "soon", None),
        ] {
            let mut variables = vec![("NOTIFY_SOCKET", "/nowhere"), ("WATCHDOG_USEC", usec)];
            variables.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
            assert_eq!(manager(&variables).watchdog(), expected, "{variables:?}");
        }
        assert_eq!(
            manager(&[("WATCHDOG_USEC", "2000000")]).watchdog(),
            None,
            "nobody listens"
        );
    }

    #[test]
    fn a_manager_that_does_not_listen_does_no_harm() {
        for name in ["/nowhere/notify", "", &"x".repeat(200)] {
            manager(&[("NOTIFY_SOCKET", name)]).stopping(Duration::ZERO);
        }
    }
}
