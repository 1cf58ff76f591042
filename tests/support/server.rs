//! The program itself, as a child process with a configuration of its own and a free port.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{BOUND, Client, eventually, spawn};

/// A running server; it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    child: Child,
    log: Arc<Log>,
    /// Holds `config.toml`, and is the working directory.
    directory: TempDir,
}

/// What it wrote to standard error.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Server {
    /// Starts the program with `config` and waits until it listens.
    ///
    /// # Panics
    /// When it ends or says something else instead; with its log.
    pub(crate) fn start(config: &str) -> Server {
        Server::start_with(config, &[])
    }

    /// Starts the program with `config` and environment variables.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub(crate) fn start_with(config: &str, environment: &[(&str, &str)]) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("config.toml");
        std::fs::write(&file, config).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.arg("serve").arg("--config").arg(file);
        command.args(["--listen", "127.0.0.1:0"]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        Server::run(command, directory)
    }

    fn run(mut command: Command, directory: TempDir) -> Server {
        let mut child = command
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Arc::<Log>::default();
        let lines = Arc::clone(&log);
        let stderr = child.stderr.take().expect("it is piped");
        spawn("server-log", move || lines.follow(stderr));
        let said = first_line(child.stdout.take().expect("it is piped"));
        // From here on a panic kills the child.
        let mut server = Server {
            address: ([0, 0, 0, 0], 0).into(),
            child,
            log,
            directory,
        };
        let said = said.recv_timeout(BOUND).unwrap_or_default();
        let address = said.trim_end().strip_prefix("listening on http://");
        match address.and_then(|address| address.parse().ok()) {
            Some(address) => server.address = address,
            None => panic!("it said {said:?}, and its log {:#?}", server.log()),
        }
        server
    }

    /// A new connection to it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines.lock().expect("no panic").clone()
    }

    /// Waits for a line of the log that contains `text`, and returns it.
    ///
    /// # Panics
    /// When it does not come within [`BOUND`].
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        let find = |lines: &Vec<String>| lines.iter().find(|l| l.contains(text)).cloned();
        let lines = self.log.lines.lock().expect("no panic");
        let (lines, _) = self
            .log
            .grown
            .wait_timeout_while(lines, BOUND, |lines| find(lines).is_none())
            .expect("no panic");
        find(&lines).unwrap_or_else(|| panic!("no {text:?} in {lines:#?}"))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .expect("it is ours and not yet waited for");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within [`BOUND`].
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    fn follow(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            self.lines.lock().expect("no panic").push(line);
            self.grown.notify_all();
        }
    }
}

/// Whether a variable of the developer's own shell would change what the program does.
fn is_ours(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("POINTSMAN_") || name.ends_with("_API_KEY") || name == "RUST_LOG"
}

/// The first line, when it comes; nothing if there is none. The rest is read and dropped, so that nobody blocks on a full pipe.
fn first_line(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (say, said) = channel();
    spawn("server-output", move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        if matches!(stdout.read_line(&mut line), Ok(1..)) {
            let _ = say.send(line);
        }
        let _ = std::io::copy(&mut stdout, &mut std::io::sink());
    });
    said
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Something that behaves as a server would.
    fn shell(script: &str) -> Server {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Server::run(command, tempfile::tempdir().expect("a directory"))
    }

    #[test]
    fn a_server_is_found_by_its_first_line_and_killed_when_dropped() {
        let server =
            shell("echo listening on http://127.0.0.1:7; echo started >&2; exec sleep 1000");
        assert_eq!(server.address, ([127, 0, 0, 1], 7).into());
        assert_eq!(server.wait_for_log("start"), "started");
        let pid = Pid::from_child(&server.child);
        drop(server);
        assert!(rustix::process::test_kill_process(pid).is_err(), "it lives");
    }

    #[test]
    fn a_server_that_is_told_to_stop_is_waited_for() {
        let mut server = shell("echo listening on http://127.0.0.1:7; exec sleep 1000");
        server.signal(Signal::TERM);
        assert!(!server.wait().success());
    }

    #[test]
    fn a_server_that_does_not_start_fails_the_test_with_what_it_said() {
        let start = || shell("echo something else; exec sleep 1000");
        let panic = catch_unwind(AssertUnwindSafe(start)).expect_err("it did not start");
        let message = panic.downcast::<String>().expect("a message");
        assert!(message.contains("something else"), "{message}");
    }
}
