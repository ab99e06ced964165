//! Exit codes of the binary.

use std::fmt;
use std::process::ExitCode;

/// How a process of this binary ends, as the shell or the orchestrator sees it.
///
/// # Source
/// `sysexits.h`, for the numbers from 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`meaning` describes each variant")]
pub enum ExitStatus {
    Success,
    CheckFailed,
    Usage,
    Unavailable,
    InternalError,
}

impl ExitStatus {
    /// In ascending order of their numbers.
    pub const ALL: [Self; 5] = [Self::Success, Self::CheckFailed, Self::Usage, Self::Unavailable, Self::InternalError];

    /// The number in `$?`.
    pub const fn code(self) -> u8 {
        self.row().0
    }

    /// What the number means, for `--help` and the handbook.
    pub const fn meaning(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (u8, &'static str) {
        match self {
            Self::Success => (0, "done, or stopped on request"),
            Self::CheckFailed => {
                (1, "a check failed: not ready, an inconsistent wallet, an unknown ID, deleted events, a finding")
            }
            Self::Usage => (64, "invalid command line or configuration"),
            Self::Unavailable => (69, "a dependency or a port is unavailable; operator action required"),
            Self::InternalError => (70, "internal error (a bug), or the output could not be written"),
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.code().into()
    }
}

/// An error that ends the process: its exit status, and the line that stderr shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitError {
    /// Never [`ExitStatus::Success`].
    pub status: ExitStatus,
    message: String,
}

impl ExitError {
    /// An error with any status.
    pub fn new(status: ExitStatus, message: impl fmt::Display) -> Self {
        Self { status, message: message.to_string() }
    }

    /// Exit code 64.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(ExitStatus::Usage, message)
    }

    /// Exit code 69.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(ExitStatus::Unavailable, message)
    }

    /// Exit code 70.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ExitStatus::InternalError, message)
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
