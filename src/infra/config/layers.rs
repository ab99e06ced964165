//! Looks values up in `base.toml`, `<role>.toml`, the environment and flags; each layer overrides the one before.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::infra::config::kind::{Fallback, Setting, Typed};
use crate::kernel::Role;

/// All layers of one process, and the problems found so far.
pub struct Layers {
    role: Role,
    files: Vec<(String, BTreeMap<String, String>)>,
    environment: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    place: String,
    /// Never contains a secret.
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All problems of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.page())]
pub struct ConfigError(pub(super) Vec<Problem>);

impl ConfigError {
    fn page(&self) -> String {
        let head = match self.0.len() {
            1 => "the configuration has 1 problem:".to_owned(),
            n => format!("the configuration has {n} problems:"),
        };
        self.0.iter().fold(head, |page, problem| format!("{page}\n  {problem}"))
    }
}

impl Layers {
    /// `Layers::new` with its table of settings.
    pub(super) fn read(
        settings: &[Setting],
        role: Role,
        folder: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: BTreeMap<String, String>,
    ) -> Self {
        // An empty variable counts as unset: `${NAME:-}` in a compose file expands to one.
        let environment = environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut layers = Self { role, files: Vec::new(), environment, flags, problems: Vec::new() };
        for name in ["base.toml".to_owned(), format!("{role}.toml")] {
            layers.read_file(settings, &folder.join(&name));
        }
        layers
    }

    /// The role whose settings are read.
    pub const fn role(&self) -> Role {
        self.role
    }

    fn read_file(&mut self, settings: &[Setting], path: &Path) {
        let place = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => return self.problem(place, format!("cannot be read: {e}")),
        };
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(e) => return self.problem(place, format!("is not valid TOML: {}", e.message())),
        };
        let mut values = BTreeMap::new();
        for (key, value) in table {
            match settings.iter().find(|s| s.key() == key) {
                None => self.problem(place.clone(), format!("unknown key `{key}`; `purse --help` lists the settings")),
                Some(s) if s.is_secret() => {
                    self.problem(place.clone(), format!("`{key}` is a secret: set it in the environment as {}", s.env));
                }
                Some(_) => match scalar(&value) {
                    Some(text) => drop(values.insert(key, text)),
                    None => self.problem(place.clone(), format!("`{key}` must be a string, a number or a boolean")),
                },
            }
        }
        self.files.push((place, values));
    }

    fn problem(&mut self, place: impl Into<String>, message: impl Into<String>) {
        let problem = Problem { place: place.into(), message: message.into() };
        // A setting that two sections read is reported once.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Reports a problem that does not depend on where the value came from.
    pub(super) fn problem_with(&mut self, setting: &Setting, message: impl Into<String>) {
        self.problem(setting.env, message);
    }

    /// The value of the topmost layer that has one, and where that was.
    fn look_up(&self, setting: &Setting) -> Option<(String, String)> {
        let from_flag = || self.flags.get(setting.env).map(|v| (v.clone(), format!("--{}", setting.flag())));
        let from_environment = || self.environment.get(setting.env).map(|v| (v.clone(), setting.env.to_owned()));
        let from_files = || {
            let key = setting.key();
            self.files.iter().rev().find_map(|(place, values)| {
                values.get(&key).map(|v| (v.clone(), format!("{} in {place}", setting.key())))
            })
        };
        if setting.is_secret() { from_environment() } else { from_flag().or_else(from_environment).or_else(from_files) }
    }

    /// The value of a setting. `None` if no layer has one and there is no default, or after an invalid or missing value
    /// was reported.
    pub(super) fn optional<T>(&mut self, setting: &Typed<T>) -> Option<T> {
        let (text, place) = match (self.look_up(setting), setting.default) {
            (Some(found), _) => found,
            (None, Fallback::Text(text)) => (text.to_owned(), format!("default of {}", setting.env)),
            (None, Fallback::RequiredSecret) => {
                self.problem_with(setting, format!("is required. {}.", setting.help));
                return None;
            }
            (None, Fallback::Absent | Fallback::OptionalSecret) => return None,
        };
        match setting.kind.read(&text) {
            Ok(value) => Some(value),
            Err(why) if setting.is_secret() => {
                self.problem(place, format!("{why}; its value is not shown because it is a secret"));
                None
            }
            Err(why) => {
                self.problem(place, format!("`{text}` {why}"));
                None
            }
        }
    }

    /// The value of a setting that has a default. After a problem, which fails the build anyway, any value will do.
    pub(super) fn value<T: Default>(&mut self, setting: &Typed<T>) -> T {
        self.optional(setting).unwrap_or_default()
    }

    /// Reads a section; `None` means that a required value was reported missing.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the files and of what `read` has read.
    pub(super) fn build<T>(mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, ConfigError> {
        match read(&mut self) {
            Some(section) if self.problems.is_empty() => Ok(section),
            Some(_) | None => Err(ConfigError(self.problems)),
        }
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        _ => None,
    }
}
