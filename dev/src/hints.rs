//! What the user's shell says: the variables that are set, and how this program was started.

use std::env;
use std::ffi::OsString;

/// The value of a variable. An empty one counts as unset.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// How to run another command, in the form that this one was started by: with `./justw`, `just`, or this program itself.
pub(crate) fn another_command(command: &str) -> String {
    let by_just = variable("JUST_COMMAND").map(|just| just.to_string_lossy().into_owned());
    format!("{} {command}", by_just.or_else(|| env::args().next()).unwrap_or_else(|| "purse-dev".into()))
}
