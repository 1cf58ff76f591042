//! `pointsman print systemd`: the service and its socket, for the system or for one user.
//!
//! The units stand as they are beside this file; what depends on the installation is put in for `@words@`.

use std::env;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::config::{Config, Listen, Profile};

const SERVICE: &str = include_str!("pointsman.service");
const USER_SERVICE: &str = include_str!("pointsman-user.service");
const SOCKET: &str = include_str!("pointsman.socket");

/// Where a program for all users lies. The sandbox of the service does not see anybody's home.
const PROGRAM: &str = "/usr/local/bin/pointsman";
/// Below these everybody finds a program.
const PUBLIC: [&str; 2] = ["/usr", "/opt"];
/// What follows the drain: the last answers, and the threads.
const BESIDE_DRAIN_SECS: u64 = 15;

/// What `pointsman print systemd` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Which unit
    #[arg(value_enum, default_value_t = Unit::Service)]
    unit: Unit,
    /// For `systemctl --user`: one person's service, without a user and a sandbox of its own
    #[arg(long)]
    user: bool,
    /// The program [default: this one, where everybody can find it, or with --user; else /usr/local/bin/pointsman]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// The configuration [default: /etc/pointsman/config.toml, with --user ~/.config/pointsman/config.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the socket listens [default: that of the built-in configuration]
    #[arg(short, long, value_name = "ADDRESS")]
    listen: Option<Listen>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unit {
    /// pointsman.service
    Service,
    /// pointsman.socket
    Socket,
}

/// The text of the unit.
///
/// # Errors
/// A path that no unit can name, in words.
pub(super) fn unit(options: &Options) -> Result<String, String> {
    let built_in = Config::builtin(Profile::Dev).server;
    let home = |file: &str| match options.user {
        true => format!("%E/{file}"),
        false => format!("/etc/{file}"),
    };
    let text = match options.unit {
        Unit::Socket => {
            let listen = options.listen.as_ref().unwrap_or(&built_in.listen);
            let place = match options.user {
                true => "~/.config/systemd/user",
                false => "/etc/systemd/system",
            };
            return Ok(SOCKET
                .replace("@place@", place)
                .replace("@listen@", &stream(listen)?));
        }
        Unit::Service if options.user => USER_SERVICE,
        Unit::Service => SERVICE,
    };
    let config = match &options.config {
        Some(file) => quoted(file)?,
        None => home("pointsman/config.toml"),
    };
    let stop = built_in.drain.as_secs() + BESIDE_DRAIN_SECS;
    Ok(text
        .replace("@program@", &quoted(&program(options))?)
        .replace("@config@", &config)
        .replace("@url@", &url(options.listen.as_ref()))
        .replace("@stop@", &stop.to_string()))
}

/// Where `reload` finds the server, if not where the configuration says.
fn url(listen: Option<&Listen>) -> String {
    match listen {
        None => String::new(),
        Some(Listen::Unix(path)) => format!(" --url unix:{}", path.display()),
        Some(tcp) => format!(" --url http://{tcp}"),
    }
}

fn program(options: &Options) -> PathBuf {
    let is_public =
        |file: &PathBuf| options.user || PUBLIC.iter().any(|place| file.starts_with(place));
    let own = || env::current_exe().ok().filter(is_public);
    let chosen = options.program.clone().or_else(own);
    chosen.unwrap_or_else(|| PROGRAM.into())
}

/// A whole path as a word of a command line in a unit, where `%` and `$` mean something.
fn quoted(path: &Path) -> Result<String, String> {
    let whole =
        std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = escaped(&whole)?.replace('$', "$$");
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\' | ';');
    Ok(match text.chars().all(is_plain) {
        true => text,
        false => {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{text}\"")
        }
    })
}

/// Where to listen, as `ListenStream=` has it.
fn stream(listen: &Listen) -> Result<String, String> {
    match listen {
        Listen::Tcp(address) => Ok(address.replace("localhost:", "127.0.0.1:")),
        Listen::Unix(path) if path.is_absolute() => escaped(path),
        Listen::Unix(path) => Err(format!("unix:{}: accepted is a whole path", path.display())),
    }
}

/// A path on one line, with its `%` doubled.
fn escaped(path: &Path) -> Result<String, String> {
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(text.replace('%', "%%")),
        Some(_) | None => Err(format!("{}: a unit can't name this path", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(unit: Unit, user: bool) -> Options {
        Options {
            unit,
            user,
            program: None,
            config: None,
            listen: None,
        }
    }

    /// The values of a setting.
    fn values(text: &str, setting: &str) -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        let ours = pairs.filter(|(name, _)| *name == setting);
        ours.map(|(_, value)| value.to_owned()).collect()
    }

    #[test]
    fn no_word_is_left_open() {
        for unit in [Unit::Service, Unit::Socket] {
            for user in [false, true] {
                let text = super::unit(&options(unit, user)).expect("a unit");
                for word in ["program", "config", "stop", "listen", "place"] {
                    assert!(!text.contains(&format!("@{word}@")), "{word} in {text}");
                }
            }
        }
    }

    #[test]
    fn stopping_may_take_longer_than_the_drain() {
        let drain = Config::builtin(Profile::Prod).server.drain.as_secs();
        for user in [false, true] {
            let text = super::unit(&options(Unit::Service, user)).expect("a unit");
            let [stop] = &values(&text, "TimeoutStopSec")[..] else {
                panic!("one: {text}");
            };
            assert!(stop.parse::<u64>().expect("seconds") > drain + 5);
        }
    }

    #[test]
    fn a_path_is_named_so_that_systemd_reads_it_as_it_is() {
        for (path, word) in [
            ("/opt/pointsman", "/opt/pointsman"),
            ("/opt/my tools/p", "\"/opt/my tools/p\""),
            ("/opt/100%/$HOME", "/opt/100%%/$$HOME"),
            ("/opt/a\"b\\c", "\"/opt/a\\\"b\\\\c\""),
        ] {
            assert_eq!(quoted(Path::new(path)).as_deref(), Ok(word));
        }
        assert!(quoted(Path::new("/opt/a\nExecStart=/bin/sh")).is_err());
    }

    #[test]
    fn the_service_names_its_program_and_configuration_and_the_socket_its_address() {
        let mut options = options(Unit::Service, false);
        assert_eq!(
            values(&super::unit(&options).expect("a unit"), "ExecStart"),
            ["/usr/local/bin/pointsman serve --config /etc/pointsman/config.toml"],
            "what tests run lies in nobody's path"
        );
        options.program = Some("/opt/p".into());
        options.config = Some("/etc/p.toml".into());
        let text = super::unit(&options).expect("a unit");
        assert_eq!(
            values(&text, "ExecStart"),
            ["/opt/p serve --config /etc/p.toml"]
        );
        options.unit = Unit::Socket;
        for (listen, stream) in [
            (None, "127.0.0.1:8787"),
            (Some("localhost:80"), "127.0.0.1:80"),
            (Some("[::1]:80"), "[::1]:80"),
            (Some("unix:/run/p.sock"), "/run/p.sock"),
        ] {
            options.listen = listen.map(|text| text.parse().expect("an address"));
            let text = super::unit(&options).expect("a unit");
            assert_eq!(values(&text, "ListenStream"), [stream]);
        }
        options.listen = Some(Listen::Unix("p.sock".into()));
        assert!(super::unit(&options).is_err(), "relative to what?");
    }
}
