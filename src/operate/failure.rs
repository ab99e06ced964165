//! Why a command did not do what it was told, and what the person who typed it does next.

use std::fmt;
use std::io;

use crate::infra::amqp::AmqpError;
use crate::infra::config::ConfigError;
use crate::infra::postgres::DbError;
use crate::kernel::{Classified as _, FailureClass, Role};

/// Bad usage or configuration.
const EX_USAGE: u8 = 64;
/// Something that the command needs is away, or refuses.
const EX_UNAVAILABLE: u8 = 69;
/// Our own fault.
const EX_SOFTWARE: u8 = 70;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// Arguments that do not fit together.
    Usage(String),
    /// The settings are wrong.
    Config(ConfigError),
    /// The broker, or what is in it.
    Broker(AmqpError),
    /// A role's database.
    Database(Role, DbError),
    /// A queue did not take everything.
    Refused(String),
    /// It began and was broken off by something else.
    BrokenOff {
        /// How many messages it had moved.
        moved: u64,
        /// By what.
        by: Box<Failure>,
    },
    /// Standard output takes no more.
    Output(io::Error),
    /// Our own fault.
    Own(String),
}

impl Failure {
    /// The exit code of the process.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => EX_USAGE,
            Self::Database(_, e) if e.class() == FailureClass::Bug && !e.is_unmigrated() => EX_SOFTWARE,
            Self::Broker(_) | Self::Database(..) | Self::Refused(_) => EX_UNAVAILABLE,
            Self::BrokenOff { by, .. } => by.exit_code(),
            Self::Output(_) | Self::Own(_) => EX_SOFTWARE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::Refused(what) | Self::Own(what) => f.write_str(what),
            Self::Config(e) => e.fmt(f),
            Self::Broker(AmqpError::Missing { name }) => write!(
                f,
                "RabbitMQ has no queue {name}. The wallet role declares it when it starts: start that role once, and check that RABBITMQ_URL names the virtual host that it uses."
            ),
            Self::Broker(e) => write!(
                f,
                "RabbitMQ cannot be used: {}. Check that it runs and that RABBITMQ_URL is right, then try again.",
                causes(e)
            ),
            Self::Database(role, e) if e.is_unmigrated() => write!(
                f,
                "the {role} database has not what this version needs: {}. Run `purse migrate --role {role}` first.",
                causes(e)
            ),
            Self::Database(role, e) if e.class() == FailureClass::Bug => {
                write!(f, "the {role} database did not understand: {}", causes(e))
            }
            Self::Database(role, e) => write!(
                f,
                "the {role} database cannot be used: {}. Check that it runs and that {}_DATABASE_URL is right, then try again.",
                causes(e),
                role.as_str().to_uppercase()
            ),
            Self::BrokenOff { moved, by } => write!(
                f,
                "{by} {moved} dead letters had gone back before; the others are still where they were. The same command goes on from there."
            ),
            Self::Output(e) => write!(f, "standard output cannot be written: {e}"),
        }
    }
}

/// An error with its causes in one line. Some libraries repeat the cause in their own words; a person reads it once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string) {
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line.trim_end_matches('.').to_owned()
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Self::Config(e)
    }
}

impl From<AmqpError> for Failure {
    fn from(e: AmqpError) -> Self {
        Self::Broker(e)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}
