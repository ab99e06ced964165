//! Looks values up: `base.toml`, `<role>.toml`, environment, flags, each over the one before.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::infra::config::setting::{self, Fallback, Setting};
use crate::kernel::{Role, Secret};

/// All layers of one process, and the problems met so far.
pub struct Layers {
    role: Role,
    files: Vec<(String, BTreeMap<String, String>)>,
    environment: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

/// Something that is wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, and the layer that its value came from.
    pub place: String,
    /// What is wrong and what would be right. Never a secret's value.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.page())]
pub struct ConfigError(pub Vec<Problem>);

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
    /// Reads the files of `folder` that exist and takes the other layers over. An unreadable file or an unknown key is
    /// a problem, told with all others when the configuration is built.
    pub fn new(
        role: Role,
        folder: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: BTreeMap<String, String>,
    ) -> Self {
        // An empty variable counts as unset: that is what `${NAME:-}` in a compose file becomes.
        let environment = environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut layers = Self { role, files: Vec::new(), environment, flags, problems: Vec::new() };
        for name in ["base.toml".to_owned(), format!("{role}.toml")] {
            layers.read_file(&folder.join(&name));
        }
        layers
    }

    /// The role whose settings are read.
    pub const fn role(&self) -> Role {
        self.role
    }

    fn read_file(&mut self, path: &Path) {
        let place = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => return self.problem(place, format!("cannot be read: {e}")),
        };
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(e) => return self.problem(place, format!("is no valid TOML: {}", e.message())),
        };
        let mut values = BTreeMap::new();
        for (key, value) in table {
            match setting::ALL.iter().find(|s| s.key() == key) {
                None => self.problem(place.clone(), format!("unknown key `{key}`; `purse --help` lists the settings")),
                Some(s) if s.is_secret() => {
                    self.problem(place.clone(), format!("`{key}` is a secret: set it in the environment as {}", s.env));
                }
                Some(_) => match scalar(&value) {
                    Some(text) => drop(values.insert(key, text)),
                    None => self.problem(place.clone(), format!("`{key}` must be a text, a number or a boolean")),
                },
            }
        }
        self.files.push((place, values));
    }

    /// Notes a problem.
    pub fn problem(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { place: place.into(), message: message.into() });
    }

    /// Notes a problem with a setting that came from nowhere in particular.
    pub fn problem_with(&mut self, setting: &Setting, message: impl Into<String>) {
        self.problem(setting.env, message);
    }

    /// The value of the highest layer that has one, and that layer's name.
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

    /// Reads a setting by `parse`. `None` if no layer and no default has a value, or if the value is refused, which is
    /// noted as a problem.
    pub fn optional<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, place) = match (self.look_up(setting), setting.default) {
            (Some(found), _) => found,
            (None, Fallback::Text(text)) => (text.to_owned(), format!("default of {}", setting.env)),
            (None, Fallback::RequiredSecret) => {
                self.problem_with(setting, format!("is required. {}.", setting.help));
                return None;
            }
            (None, Fallback::Absent | Fallback::OptionalSecret) => return None,
        };
        match parse(&text) {
            Ok(value) => Some(value),
            Err(e) if setting.is_secret() => {
                self.problem(place, e.to_string());
                None
            }
            Err(e) => {
                self.problem(place, format!("`{text}` {e}"));
                None
            }
        }
    }

    /// Reads a setting that has a default or is required; `stand_in` keeps the reading going after a problem.
    pub fn value<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        stand_in: T,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> T {
        self.optional(setting, parse).unwrap_or(stand_in)
    }

    /// Reads a secret text.
    pub fn secret(&mut self, setting: &Setting) -> Option<Secret> {
        self.optional(setting, |text| Ok::<_, std::convert::Infallible>(Secret::new(text)))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem that was noted.
    pub fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigError(self.problems)) }
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
