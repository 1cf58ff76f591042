//! The program itself, as a child process with a configuration of its own and a free port.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{BOUND, Client, eventually, spawn};

/// A running server; it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it listens; nowhere (port 0) where that is no TCP port.
    pub(crate) address: SocketAddr,
    /// The first line of its standard output.
    pub(crate) said: String,
    child: Child,
    log: Arc<Log>,
    /// Holds `config.toml`, and is the working directory.
    directory: TempDir,
}

/// Where what it writes goes.
struct Output {
    stdout: Stdio,
    stderr: Stdio,
}

impl Default for Output {
    fn default() -> Self {
        Output {
            stdout: Stdio::piped(),
            stderr: Stdio::piped(),
        }
    }
}

/// What it wrote to standard error.
#[derive(Debug, Default)]
struct Log {
    text: Mutex<Text>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    lines: Vec<String>,
    /// Nothing will be added.
    is_whole: bool,
}

/// A program that ended instead of serving.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard error.
    pub(crate) text: String,
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
        Server::start_as(config, &["--listen", "127.0.0.1:0"], environment)
    }

    /// Starts the program with `config`, further arguments and environment variables. In an argument `{}` stands for its
    /// directory.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub(crate) fn start_as(
        config: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let command = program(&directory, "serve", config, arguments, environment);
        Server::run(command, directory)
    }

    /// Starts the program with `config` and arguments, which it is expected to refuse.
    ///
    /// # Panics
    /// When it does not end within [`BOUND`].
    pub(crate) fn fail(config: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Failure {
        let directory = tempfile::tempdir().expect("a directory");
        let command = program(&directory, "serve", config, arguments, environment);
        let (mut server, _said) = Server::launch(command, directory, Output::default());
        let code = server.wait().code();
        Failure {
            code,
            text: server.whole_log().join("\n"),
        }
    }

    /// Starts the program as a service manager does: by way of a shell's `script`, whose `exec "$@"` becomes the program, with
    /// `input` as its standard input.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub(crate) fn start_by(
        script: &str,
        config: &str,
        environment: &[(&str, &str)],
        input: Stdio,
    ) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let arguments = ["--listen", "127.0.0.1:0"];
        let program = program(&directory, "serve", config, &arguments, environment);
        Server::run(by_shell(script, &program, input), directory)
    }

    /// As [`Server::start_by`], for a program that is expected to end by itself.
    ///
    /// # Panics
    /// When it does not end within [`BOUND`].
    pub(crate) fn fail_by(
        script: &str,
        config: &str,
        environment: &[(&str, &str)],
        input: Stdio,
    ) -> Failure {
        let directory = tempfile::tempdir().expect("a directory");
        let program = program(&directory, "serve", config, &[], environment);
        let shell = by_shell(script, &program, input);
        let (mut server, _said) = Server::launch(shell, directory, Output::default());
        let code = server.wait().code();
        Failure {
            code,
            text: server.whole_log().join("\n"),
        }
    }

    /// Starts the program with `config`, and a standard error that goes elsewhere than into [`Server::log`].
    ///
    /// # Panics
    /// As [`Server::start`].
    pub(crate) fn start_logging_to(config: &str, stderr: Stdio) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let free = ["--listen", "127.0.0.1:0"];
        let command = program(&directory, "serve", config, &free, &[]);
        let output = Output {
            stderr,
            ..Output::default()
        };
        let (server, said) = Server::launch(command, directory, output);
        server.found(&said)
    }

    /// Starts the program with `config` and a standard output that goes elsewhere. It listens at the Unix socket `socket` of
    /// its directory, some time later.
    pub(crate) fn start_saying_to(config: &str, stdout: Stdio) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = ["--listen", "unix:{}/socket"];
        let command = program(&directory, "serve", config, &socket, &[]);
        let output = Output {
            stdout,
            ..Output::default()
        };
        Server::launch(command, directory, output).0
    }

    fn run(command: Command, directory: TempDir) -> Server {
        let (server, said) = Server::launch(command, directory, Output::default());
        server.found(&said)
    }

    /// The same, once it has said where it listens.
    fn found(mut self, said: &Receiver<String>) -> Server {
        let server = &mut self;
        server.said = said.recv_timeout(BOUND).unwrap_or_default();
        server.said.truncate(server.said.trim_end().len());
        let address = server.said.strip_prefix("listening on ");
        let tcp = address.and_then(|address| address.strip_prefix("http://")?.parse().ok());
        match (tcp, address) {
            (Some(tcp), _) => server.address = tcp,
            (None, Some(path)) if path.starts_with("unix:") => {}
            _ => panic!("it said {:?}, and its log {:#?}", server.said, server.log()),
        }
        self
    }

    /// A child that is killed when this is dropped, and the first line that it will say.
    fn launch(
        mut command: Command,
        directory: TempDir,
        output: Output,
    ) -> (Server, Receiver<String>) {
        let mut child = command
            .current_dir(directory.path())
            .stdout(output.stdout)
            .stderr(output.stderr)
            .spawn()
            .expect("the program starts");
        let log = Arc::<Log>::default();
        let lines = Arc::clone(&log);
        if let Some(stderr) = child.stderr.take() {
            spawn("server-log", move || lines.follow(stderr));
        }
        let said = match child.stdout.take() {
            Some(stdout) => first_line(stdout),
            None => channel().1,
        };
        let server = Server {
            address: ([0, 0, 0, 0], 0).into(),
            said: String::new(),
            child,
            log,
            directory,
        };
        (server, said)
    }

    /// A new connection to it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// What it shows of itself under `path`.
    ///
    /// # Panics
    /// When that is no JSON.
    pub(crate) fn page(&self, path: &str) -> Value {
        self.client().get(path).json()
    }

    /// Waits until `/api/status` is as `cond` wants it, and returns it.
    ///
    /// # Panics
    /// When that does not happen within [`BOUND`].
    pub(crate) fn wait_for_status(&self, what: &str, cond: impl Fn(&Value) -> bool) -> Value {
        let mut status = Value::Null;
        let mut client = self.client();
        eventually(what, || {
            status = client.get("/api/status").json();
            cond(&status)
        });
        status
    }

    /// Waits until nothing runs and nothing waits, and sees that all permits came back and the books agree.
    ///
    /// # Panics
    /// When that does not happen within [`BOUND`], or the books don't agree then.
    pub(crate) fn wait_until_idle(&self) {
        let status = self.wait_for_status("all slots are free", |status| {
            status["slots"]["global"]["in_use"] == 0
                && status["queue"]["waiting"] == 0
                && status["requests"]["active"] == 0
        });
        let slots = &status["slots"];
        assert_eq!(slots["taken"], slots["given_back"], "{status:#}");
        let health = self.client().get("/healthz");
        assert_eq!(health.status, 200, "{:#}", health.json());
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.text.lock().expect("no panic").lines.clone()
    }

    /// All that it wrote to standard error, once it has ended.
    ///
    /// # Panics
    /// When that is not closed within [`BOUND`].
    pub(crate) fn whole_log(&self) -> Vec<String> {
        let is_whole = self.log.wait_for(|text| text.is_whole).is_whole;
        assert!(is_whole, "still open: {:#?}", self.log());
        self.log()
    }

    /// Waits for a line of the log that contains `text`, and returns it.
    ///
    /// # Panics
    /// When it does not come within [`BOUND`].
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        let find = |log: &Text| log.lines.iter().find(|line| line.contains(text)).cloned();
        let found = find(&self.log.wait_for(|log| find(log).is_some()));
        found.unwrap_or_else(|| panic!("no {text:?} in {:#?}", self.log()))
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
            self.text.lock().expect("no panic").lines.push(line);
            self.grown.notify_all();
        }
        self.text.lock().expect("no panic").is_whole = true;
        self.grown.notify_all();
    }

    /// The text once `cond` holds, or after [`BOUND`].
    fn wait_for(&self, cond: impl Fn(&Text) -> bool) -> MutexGuard<'_, Text> {
        let text = self.text.lock().expect("no panic");
        let waited = self
            .grown
            .wait_timeout_while(text, BOUND, |text| !cond(text));
        waited.expect("no panic").0
    }
}

/// The program on an `errand` (its command), with `config` in `directory`.
pub(super) fn program(
    directory: &TempDir,
    errand: &str,
    config: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Command {
    let file = directory.path().join("config.toml");
    std::fs::write(&file, config).expect("a file");
    let place = directory.path().to_str().expect("a name in UTF-8");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg(errand);
    if !arguments.contains(&"--config") {
        command.arg("--config").arg(file);
    }
    command.args(arguments.iter().map(|text| text.replace("{}", place)));
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    // Nobody else's models are asked for but where a test is about them: so connections can be counted.
    command.env("POINTSMAN_ROUTING__MODEL_LIST_REFRESH", "0s");
    if !config.contains("limits.adaptive") {
        // Whoever counts calls in flight wants all the slots from the start.
        command.env("POINTSMAN_LIMITS__ADAPTIVE__START", "4096");
    }
    if !config.contains("throttle.enabled") {
        // Nor is it a test's affair what else this machine does.
        command.env("POINTSMAN_THROTTLE__ENABLED", "false");
    }
    command.envs(environment.iter().copied());
    command.stdin(Stdio::null());
    command
}

/// A shell with this script, whose arguments are a program's and whose environment is what that would have.
fn by_shell(script: &str, program: &Command, input: Stdio) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(input);
    command
}

/// Whether a variable of the developer's own shell would change what the program does.
fn is_ours(name: &OsStr) -> bool {
    const MANAGERS: [&str; 5] = [
        "GLIBC_TUNABLES",
        "NOTIFY_SOCKET",
        "JOURNAL_STREAM",
        "CREDENTIALS_DIRECTORY",
        "RUST_LOG",
    ];
    let name = name.to_string_lossy();
    let begins = ["POINTSMAN_", "LISTEN_", "WATCHDOG_"].iter();
    begins.into_iter().any(|start| name.starts_with(start))
        || name.ends_with("_API_KEY")
        || MANAGERS.contains(&&*name)
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
        command.args(["-c", script]).stdin(Stdio::null());
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
