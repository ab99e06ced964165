//! Looks values up in `base.toml`, `<role>.toml`, the environment and flags; each layer overrides the one before.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use crate::infra::config::kind::{Fallback, Setting, Typed};
use crate::infra::config::raw::{self, FILE_BYTES_MAX};
use crate::kernel::Role;

/// The values of a file by key. One of the wrong type is an error message: a problem only where no later layer has one.
type FileValues = BTreeMap<String, Result<String, String>>;

/// All layers of one process, and the problems found so far.
pub struct Layers {
    role: Role,
    files: Vec<(String, FileValues)>,
    environment: BTreeMap<OsString, OsString>,
    flags: BTreeMap<String, Flag>,
    problems: Vec<Problem>,
}

/// The value of a flag.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the command line spells it: `--port`.
    pub name: String,
    /// Possibly not UTF-8, which is reported with all other problems.
    pub value: OsString,
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The setting that it is about, unless it is about a whole file.
    setting: Option<&'static str>,
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

/// The value of one layer, or why it has none that can be read.
type Found = Result<OsString, String>;

impl Layers {
    /// Reads the files that exist in `folder`, which may contain the keys of `table`. An unreadable file or an unknown key
    /// is reported with all other problems when a section is built.
    pub fn new(
        table: &[Setting],
        role: Role,
        folder: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: BTreeMap<String, Flag>,
    ) -> Self {
        // An empty variable counts as unset: `${NAME:-}` in a compose file expands to one.
        let environment = environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut layers = Self { role, files: Vec::new(), environment, flags, problems: Vec::new() };
        for name in ["base.toml".to_owned(), format!("{role}.toml")] {
            layers.read_file(&folder.join(&name), table);
        }
        layers
    }

    /// The role whose settings are read.
    pub const fn role(&self) -> Role {
        self.role
    }

    fn read_file(&mut self, path: &Path, table: &[Setting]) {
        let place = raw::shown(path.as_os_str());
        let content = match parse_file(path) {
            Ok(Some(content)) => content,
            Ok(None) => return,
            Err(why) => return self.problem(None, place, why),
        };
        let mut values = BTreeMap::new();
        for (key, value) in content {
            match table.iter().find(|s| s.key() == key) {
                None => {
                    let key = raw::shown(OsStr::new(&key));
                    self.problem(
                        None,
                        place.clone(),
                        format!("unknown key `{key}`; `purse --help` lists the settings"),
                    );
                }
                Some(s) if s.is_secret() => {
                    let where_to = format!("set it in the environment as {}", s.env);
                    self.problem(Some(s), format!("{key} in {place}"), format!("is a secret: {where_to}"));
                }
                Some(_) => drop(values.insert(key, scalar(&value))),
            }
        }
        self.files.push((place, values));
    }

    /// Adds a problem. A second one of the same setting and place joins the first, so that each is listed once.
    fn problem(&mut self, setting: Option<&Setting>, place: impl Into<String>, message: impl Into<String>) {
        let (setting, place, message) = (setting.map(|s| s.env), place.into(), message.into());
        let same = |known: &&mut Problem| setting.is_some() && known.setting == setting && known.place == place;
        match self.problems.iter_mut().find(same) {
            // Two sections may read one setting.
            Some(known) if known.message.contains(&message) => {}
            Some(known) => known.message = format!("{}. It also {message}", known.message.trim_end_matches('.')),
            None => self.problems.push(Problem { setting, place, message }),
        }
    }

    /// Reports a flag that cannot be used, together with all other problems. The message can follow "it".
    pub fn problem_with_flag(&mut self, flag: &str, message: &str) {
        self.problem(None, flag, message);
    }

    /// Reports a problem that does not depend on where the value came from. The message can follow "it".
    pub(super) fn problem_with(&mut self, setting: &Setting, message: impl Into<String>) {
        self.problem(Some(setting), setting.env, message);
    }

    /// The value of the topmost layer that has one, and where that is.
    fn look_up(&self, setting: &Setting) -> Option<(Found, String)> {
        if setting.is_secret() {
            return self.look_up_secret(setting);
        }
        let from_flag = || self.flags.get(setting.env).map(|flag| (Ok(flag.value.clone()), flag.name.clone()));
        let from_files = || {
            let key = setting.key();
            self.files.iter().rev().find_map(|(place, values)| {
                values.get(&key).cloned().map(|found| (found.map(OsString::from), format!("{key} in {place}")))
            })
        };
        from_flag().or_else(|| self.variable(setting.env)).or_else(from_files)
    }

    fn variable(&self, name: &str) -> Option<(Found, String)> {
        self.environment.get(OsStr::new(name)).map(|value| (Ok(value.clone()), name.to_owned()))
    }

    /// From its variable, or from the file that `<NAME>_FILE` names, as Docker and Kubernetes mount secrets.
    fn look_up_secret(&self, setting: &Setting) -> Option<(Found, String)> {
        let (direct, file_variable) = (self.variable(setting.env), setting.file_variable());
        let Some((Ok(path), _)) = self.variable(&file_variable) else { return direct };
        if direct.is_some() {
            return Some((Err(format!("{file_variable} is set too: unset one of them")), setting.env.to_owned()));
        }
        Some((raw::read_secret(Path::new(&path)), file_variable))
    }

    /// The value of a setting. `None` if no layer has one and there is no default, or after an invalid or missing value
    /// was reported.
    pub(super) fn optional<T>(&mut self, setting: &Typed<T>) -> Option<T> {
        let (found, place) = match (self.look_up(setting), setting.default) {
            (Some(found), _) => found,
            (None, Fallback::Text(text)) => (Ok(text.into()), format!("default of {}", setting.env)),
            (None, Fallback::RequiredSecret) => {
                // A secret in a file is reported already.
                if self.problems.iter().all(|problem| problem.setting != Some(setting.env)) {
                    self.problem_with(setting, format!("is required. {}.", setting.help));
                }
                return None;
            }
            (None, Fallback::Absent | Fallback::OptionalSecret) => return None,
        };
        let why = match &found {
            Err(why) => why.clone(),
            Ok(value) => match raw::clean(value).and_then(|text| setting.kind.read(text)) {
                Ok(value) => return Some(value),
                Err(why) if setting.is_secret() => format!("{why}; its value is not shown because it is a secret"),
                Err(why) => format!("`{}` {why}", raw::shown(value)),
            },
        };
        self.problem(Some(setting), place, why);
        None
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

/// The table of a configuration file; `None` if the file does not exist. The error is the end of a sentence that begins
/// with the path.
fn parse_file(path: &Path) -> Result<Option<toml::Table>, String> {
    let Some(content) = raw::read_file(path, FILE_BYTES_MAX.saturating_add(1))? else { return Ok(None) };
    if u64::try_from(content.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(format!("has more than {FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(content).map_err(|_| "is not valid UTF-8")?;
    // Without the text around the error, which may be a secret that was put into the wrong file.
    text.parse().map(Some).map_err(|e: toml::de::Error| format!("is not valid TOML: {}", e.message()))
}

fn scalar(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(yes) => Ok(yes.to_string()),
        _ => Err("must be a string, a whole number or a boolean".to_owned()),
    }
}
