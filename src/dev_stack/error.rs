//! What can go wrong around the private servers: each variant is something that somebody does differently next.
//!
//! The text of a variant is a sentence for the person at the terminal and ends with what to do. The cause stands in
//! `source` and is not repeated here.

use std::io;
use std::path::PathBuf;

/// Why the stack did not start, or did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum DevStackError {
    /// A server package is not on this machine.
    #[error("{missing} not installed; {remedy}")]
    NotInstalled {
        /// What is missing, with its verb: `PostgreSQL is`.
        missing: String,
        /// The one command to type, or a sentence where there is none.
        remedy: String,
    },
    /// The folder belongs to somebody else, or is not a folder.
    #[error("{} is not a folder of this user; remove it, or name another one with PURSE_DEV_DIR", path.display())]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
    },
    /// PostgreSQL runs under another account, which cannot enter the folder.
    #[error(
        "PostgreSQL does not run as root, and the account it runs as cannot enter {}; name a folder under /var/tmp with PURSE_DEV_DIR",
        path.display()
    )]
    NotTraversable {
        /// The ancestor that is closed.
        path: PathBuf,
    },
    /// Another process works with the folder.
    #[error("`purse dev up` runs already as process {holder}; `just status` shows it and `just down` ends it")]
    Busy {
        /// The process id that the holder wrote, `?` when it wrote none.
        holder: String,
    },
    /// A port that was asked for by number is taken.
    #[error(
        "port {port}, for the {role} API, is taken by another program; end that program, or choose another port with {variable}=<port>"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// The role that wants it.
        role: &'static str,
        /// The variable that moves it.
        variable: &'static str,
    },
    /// No free port was found.
    #[error("no free port was found on 127.0.0.1; end some of the programs that listen and try again")]
    NoFreePort,
    /// A setting of the stack cannot be used.
    #[error("{variable}={value} cannot be used: {problem}")]
    Setting {
        /// The environment variable.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file or folder could not be read or written.
    #[error("{} could not be used", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program could not be started.
    #[error("{program} could not be started")]
    Spawn {
        /// Which one.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A server, or a program it needs, ended or did not become ready in time.
    #[error("{server} {problem}; its last lines were:\n{log}")]
    Server {
        /// Which one.
        server: &'static str,
        /// What it did.
        problem: String,
        /// The end of what it wrote.
        log: String,
    },
    /// A statement for setting up databases was refused.
    #[error("psql refused the set-up of the databases: {message}")]
    Psql {
        /// What psql wrote.
        message: String,
    },
    /// The prefix for databases and roles is no plain identifier.
    #[error("`{prefix}` cannot begin a database name: use a-z, 0-9 and _, at most 40 characters, a letter first")]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// A line that should hold addresses does not.
    #[error("the line does not hold the addresses of the servers ({missing})")]
    Addresses {
        /// The first field that is missing or of another type.
        missing: &'static str,
    },
    /// The process that lends servers ended or answered with an error.
    #[error("the process that lends the servers failed: {message}")]
    Lent {
        /// What it wrote to its standard error, or answered.
        message: String,
    },
    /// A role ended by itself.
    #[error("the {role} role ended by itself ({status}); its last lines were:\n{log}")]
    RoleEnded {
        /// Which one.
        role: &'static str,
        /// How.
        status: String,
        /// The end of what it logged.
        log: String,
    },
    /// A role runs but never reported itself ready.
    #[error("the {role} role was not ready after {seconds} s; its last lines were:\n{log}")]
    RoleNotReady {
        /// Which one.
        role: &'static str,
        /// How long it was given.
        seconds: u64,
        /// The end of what it logged.
        log: String,
    },
    /// Somebody asked to stop before everything ran.
    #[error("stopped on request")]
    Interrupted,
}

impl DevStackError {
    /// The sentence and every cause under it, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// The exit code of the command that ended with this error: 0 on request, 64 usage, 69 what we depend on, 70 ours.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => 0,
            Self::Setting { .. } | Self::Prefix { .. } => 64,
            Self::RoleEnded { .. } | Self::RoleNotReady { .. } | Self::Psql { .. } | Self::Addresses { .. } => 70,
            _ => 69,
        }
    }

    pub(super) fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}
