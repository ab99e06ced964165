//! Looks values up in `base.toml`, `<role>.toml`, the environment and flags; each layer overrides the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::path::Path;

use crate::infra::config::file::{self, FileValue};
use crate::infra::config::kind::{Fallback, Setting, Typed};
use crate::infra::config::raw;
use crate::infra::config::suggest::{misspelled, nearest};
use crate::kernel::Role;

/// All layers of one process, and the problems found so far.
pub struct Layers {
    table: &'static [Setting],
    role: Role,
    files: Vec<BTreeMap<String, FileValue>>,
    environment: BTreeMap<OsString, OsString>,
    flags: BTreeMap<String, Flag>,
    problems: Vec<Problem>,
    /// Settings that a section has read, by environment name.
    read: BTreeSet<&'static str>,
    /// Values that no layer has and that depend on something else.
    derived: BTreeMap<&'static str, String>,
}

/// The layer that a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// No layer has one.
    Default,
    /// `base.toml` or `<role>.toml`.
    File,
    /// The variable itself.
    Environment,
    /// The file that `<NAME>_FILE` names.
    SecretFile,
    /// The command line.
    Flag,
}

/// Where a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) source: Source,
    /// `USERS_PORT`, `--port`, `users_port in config/base.toml:3:14`.
    pub(super) text: String,
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
        table: &'static [Setting],
        role: Role,
        folder: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: BTreeMap<String, Flag>,
    ) -> Self {
        // An empty variable counts as unset: `${NAME:-}` in a compose file expands to one.
        let environment = environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut layers = Self { environment, flags, ..Self::empty(table, role) };
        for name in ["base.toml".to_owned(), format!("{role}.toml")] {
            layers.read_file(&folder.join(&name));
        }
        layers
    }

    /// Layers without any value.
    pub(super) const fn empty(table: &'static [Setting], role: Role) -> Self {
        Self {
            table,
            role,
            files: Vec::new(),
            environment: BTreeMap::new(),
            flags: BTreeMap::new(),
            problems: Vec::new(),
            read: BTreeSet::new(),
            derived: BTreeMap::new(),
        }
    }

    /// The role whose settings are read.
    pub const fn role(&self) -> Role {
        self.role
    }

    fn read_file(&mut self, path: &Path) {
        let content = match file::read(path) {
            Ok(content) => content,
            Err((place, why)) => return self.problem(None, place, why),
        };
        let mut values = BTreeMap::new();
        for (key, value) in content {
            match self.table.iter().find(|s| s.key() == key) {
                None => {
                    let written = key.to_ascii_lowercase().replace('-', "_");
                    let keys: Vec<String> = self.table.iter().filter(|s| !s.is_secret()).map(Setting::key).collect();
                    let advice = match nearest(&written, keys.iter().map(String::as_str)) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => "`purse --help` lists the settings".to_owned(),
                    };
                    let key = raw::shown(OsStr::new(&key));
                    self.problem(None, value.key_at, format!("unknown key `{key}`; {advice}"));
                }
                Some(s) if s.is_secret() => {
                    let where_to = format!("set it in the environment as {}", s.env);
                    self.problem(Some(s), format!("{key} in {}", value.key_at), format!("is a secret: {where_to}"));
                }
                Some(_) => drop(values.insert(key, value)),
            }
        }
        self.files.push(values);
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
    pub(super) fn look_up(&self, setting: &Setting) -> Option<(Found, Place)> {
        if setting.is_secret() {
            return self.look_up_secret(setting);
        }
        let from_flag = || {
            let flag = self.flags.get(setting.env)?;
            Some((Ok(flag.value.clone()), Place { source: Source::Flag, text: flag.name.clone() }))
        };
        let from_files = || {
            let key = setting.key();
            let value = self.files.iter().rev().find_map(|values| values.get(&key))?;
            let place = Place { source: Source::File, text: format!("{key} in {}", value.at) };
            Some((value.text.clone().map(OsString::from), place))
        };
        from_flag().or_else(|| self.variable(setting.env)).or_else(from_files)
    }

    fn variable(&self, name: &str) -> Option<(Found, Place)> {
        let value = self.environment.get(OsStr::new(name))?;
        Some((Ok(value.clone()), Place { source: Source::Environment, text: name.to_owned() }))
    }

    /// From its variable, or from the file that `<NAME>_FILE` names, as Docker and Kubernetes mount secrets.
    fn look_up_secret(&self, setting: &Setting) -> Option<(Found, Place)> {
        let (direct, file_variable) = (self.variable(setting.env), setting.file_variable());
        let Some((Ok(path), _)) = self.variable(&file_variable) else { return direct };
        if let Some((_, place)) = direct {
            return Some((Err(format!("{file_variable} is set too: unset one of them")), place));
        }
        let place = Place { source: Source::SecretFile, text: file_variable };
        Some((raw::read_secret(Path::new(&path)), place))
    }

    /// Variables that no program is known to read and that look like a setting which has no value, each with that setting.
    pub(super) fn misspelled_variables(&self) -> Vec<(&str, &'static Setting)> {
        let names = |setting: &Setting| {
            let file = setting.is_secret().then(|| setting.file_variable());
            std::iter::once(setting.env.to_owned()).chain(file).collect()
        };
        let names: Vec<Vec<String>> = self.table.iter().map(names).collect();
        let found = misspelled(&self.environment, &names).into_iter();
        found.filter_map(|(name, index)| Some((name, self.table.get(index)?))).collect()
    }

    /// The value of a setting. `None` if no layer has one and there is no default, or after an invalid or missing value
    /// was reported.
    pub(super) fn optional<T>(&mut self, setting: &Typed<T>) -> Option<T> {
        self.read.insert(setting.env);
        let (found, place) = match (self.look_up(setting), setting.default) {
            (Some((found, place)), _) => (found, place.text),
            (None, Fallback::Text(text)) => (Ok(text.into()), format!("default of {}", setting.env)),
            (None, Fallback::RequiredSecret) => {
                // A secret in a file is reported already.
                if self.problems.iter().all(|problem| problem.setting != Some(setting.env)) {
                    let misspelled =
                        self.misspelled_variables().into_iter().find(|(_, meant)| meant.env == setting.env);
                    let misspelled = misspelled.map(|(name, _)| format!(" {name} is set; is it misspelled?"));
                    let misspelled = misspelled.unwrap_or_default();
                    self.problem_with(setting, format!("is required. {}.{misspelled}", setting.help));
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

    /// The value of a setting, or `otherwise`, which depends on something else than the setting.
    pub(super) fn or_derived<T: Display>(&mut self, setting: &Typed<T>, otherwise: T) -> T {
        self.optional(setting).unwrap_or_else(|| {
            self.derived.insert(setting.env, otherwise.to_string());
            otherwise
        })
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

    /// The settings that have been read so far, in the order of the table.
    pub(super) fn settings_read(&self) -> impl Iterator<Item = &'static Setting> {
        self.table.iter().filter(|setting| self.read.contains(setting.env))
    }

    /// The value of a setting that no layer has, as a section has derived it.
    pub(super) fn derived(&self, setting: &Setting) -> Option<&str> {
        self.derived.get(setting.env).map(String::as_str)
    }

    /// Every problem that has been found so far.
    pub(super) fn into_problems(self) -> Option<ConfigError> {
        (!self.problems.is_empty()).then_some(ConfigError(self.problems))
    }
}
