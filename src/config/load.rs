//! File, environment and command line become one configuration.

use std::path::{Path, PathBuf};

use super::document::{self, overlay, parse};
use super::environment::Environment;
use super::error::{ConfigError, Place, Problem};
use super::file::read_text;
use super::report::Report;
use super::section::Section;
use super::value::{Node, Table, Value};
use super::{Config, Listen, Profile};

/// Where the configuration is looked for when nobody says.
const DEFAULT_FILE: &str = "config.toml";

/// A configuration of more than this is none.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// What the command line says: it wins over environment and file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--profile`
    pub profile: Option<Profile>,
    /// `--listen`
    pub listen: Option<Listen>,
}

/// Makes a [`Config`] of a file, an environment and a command line. The latter two are values, so that a test or a host
/// program decides what counts.
///
/// ```
/// use pointsman::config::{Environment, Loader, Overrides, Profile};
///
/// let environment = Environment::from_iter([("POINTSMAN_LIMITS__GLOBAL", "12")]);
/// let overrides = Overrides { profile: Some(Profile::Prod), ..Overrides::default() };
/// let loader = Loader::new(environment).overrides(overrides);
/// let config = loader.from_toml("profile = \"dev\"\nlimits.session = 3", "example.toml")?;
///
/// assert_eq!(config.limits.global, 12); // the environment
/// assert_eq!(config.limits.session, 3); // the file
/// assert_eq!(config.limits.sessions, 100); // the profile of the command line
/// # Ok::<(), pointsman::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Loader {
    environment: Environment,
    overrides: Overrides,
}

impl Loader {
    /// With this environment, for knobs and for keys. [`Environment::default`] is an empty one.
    pub fn new(environment: Environment) -> Self {
        Loader {
            environment,
            overrides: Overrides::default(),
        }
    }

    /// With the environment of this process.
    pub fn of_process() -> Self {
        Loader::new(Environment::of_process())
    }

    /// With what the command line says.
    #[must_use]
    pub fn overrides(mut self, overrides: Overrides) -> Self {
        self.overrides = overrides;
        self
    }

    /// The file that [`Loader::find`] would read: `path`, else `./config.toml` if there is one.
    pub fn locate(path: Option<&Path>) -> Option<PathBuf> {
        let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
        path.map(Path::to_owned).or_else(default)
    }

    /// Reads `path`, else `./config.toml`, else starts from the built-in defaults.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn find(&self, path: Option<&Path>) -> Result<Config, ConfigError> {
        match Loader::locate(path) {
            Some(path) => self.load(&path),
            None => self.from_toml("", ""),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(&self, path: &Path) -> Result<Config, ConfigError> {
        let text = read_text(path, MAX_FILE_BYTES).map_err(|cause| ConfigError::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
        self.from_toml(&text, &path.to_string_lossy())
    }

    /// Reads a text; `name` is what errors call it.
    ///
    /// # Errors
    /// [`ConfigError::Refused`]
    pub fn from_toml(&self, text: &str, name: &str) -> Result<Config, ConfigError> {
        let mut root = parse(text, name).map_err(ConfigError::Refused)?;
        let mut report = Report::default();
        report.problems.extend(self.lay_over(&mut root));
        let config = Section::root(&root, &mut report, |root| {
            Config::read(root, &self.environment)
        });
        match report.into_problems() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(ConfigError::Refused(problems)),
        }
    }

    fn lay_over(&self, root: &mut Table) -> Vec<Problem> {
        let problems = overlay(root, &self.environment);
        let Overrides { profile, listen } = &self.overrides;
        let mut set = |path: &[&str], option, text: Option<String>| {
            if let Some(text) = text {
                let value = Value::Untyped(text);
                let place = Place::Option(option);
                document::set(root, path, Node { value, place });
            }
        };
        set(
            &["profile"],
            "--profile",
            profile.map(|profile| profile.to_string()),
        );
        set(
            &["server", "listen"],
            "--listen",
            listen.as_ref().map(Listen::to_string),
        );
        problems
    }
}
