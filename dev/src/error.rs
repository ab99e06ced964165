//! Errors of the development stack. Each message is a sentence for the user at the terminal and says what to do.

use std::io;
use std::path::Path;

/// Why the stack did not start or did not carry out a command. Each variant has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A setting cannot be used; exit code 64.
    #[error("{0}")]
    Setting(String),
    /// A server, port, folder or program that the stack depends on; exit code 69.
    #[error("{0}")]
    Unavailable(String),
    /// A role, or a step of our own, failed; exit code 70.
    #[error("{0}")]
    Failed(String),
    /// A signal asked to stop before everything ran; exit code 0.
    #[error("stopped on request")]
    Interrupted,
}

impl DevError {
    /// # Source
    /// `sysexits.h`
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => 0,
            Self::Setting(_) => 64,
            Self::Unavailable(_) => 69,
            Self::Failed(_) => 70,
        }
    }
}

/// Names the file, folder or program that a system call failed for.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T, DevError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, DevError> {
        self.map_err(|error| DevError::Unavailable(format!("cannot use {}: {error}", path.display())))
    }
}
