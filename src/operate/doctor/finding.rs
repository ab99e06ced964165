//! What the checks find, and their table, which `--help` and the handbook show.

use serde_json::{Value, json};

/// One subject of `purse doctor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`about` describes each variant")]
pub enum Check {
    Configuration,
    Database,
    PostgresqlVersion,
    Durability,
    Migrations,
    Rights,
    Clock,
    Outbox,
    Broker,
    RabbitmqVersion,
    Topology,
    Consumers,
    DeadLetters,
    Wallets,
}

impl Check {
    /// In the order of the report.
    pub const ALL: [Self; 14] = [
        Self::Configuration,
        Self::Database,
        Self::PostgresqlVersion,
        Self::Durability,
        Self::Migrations,
        Self::Rights,
        Self::Clock,
        Self::Outbox,
        Self::Broker,
        Self::RabbitmqVersion,
        Self::Topology,
        Self::Consumers,
        Self::DeadLetters,
        Self::Wallets,
    ];

    /// As in the report.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// What is checked, as a phrase.
    pub const fn about(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Configuration => ("configuration", "no key is weak, no value unsafe and no variable misspelled"),
            Self::Database => ("database", "the runtime user can connect; the database is UTF-8 and accepts writes"),
            Self::PostgresqlVersion => ("postgresql-version", "PostgreSQL 15 to 18"),
            Self::Durability => {
                ("durability", "fsync, full_page_writes and synchronous_commit are on, and commits are confirmed")
            }
            Self::Migrations => ("migrations", "every migration of this release is applied, unchanged"),
            Self::Rights => (
                "rights",
                "the runtime user has the privileges that it needs, and no others; no trigger of the tables is disabled",
            ),
            Self::Clock => ("clock", "this machine and the database agree on the time to within 2 seconds"),
            Self::Outbox => ("outbox", "users role: no event is refused or pending for more than a minute"),
            Self::Broker => (
                "broker",
                "the account can connect to RabbitMQ and its virtual host, and with several URLs to each node",
            ),
            Self::RabbitmqVersion => ("rabbitmq-version", "RabbitMQ 3.10 to 4"),
            Self::Topology => {
                ("topology", "exchanges and queues exist with the right arguments (bindings: see outbox)")
            }
            Self::Consumers => ("consumers", "a wallet role consumes wallet.provision"),
            Self::DeadLetters => ("dead-letters", "wallet role: there are none"),
            Self::Wallets => ("wallets", "every user older than a minute has a wallet; needs both database URLs"),
        }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok,
    /// Not checked, for a reason that is no problem by itself.
    Skipped,
    Warning,
    Error,
}

impl Level {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The result of a check. One check may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) level: Level,
    pub(super) message: String,
    /// What the operator does about it.
    pub(super) advice: Option<String>,
    /// Whether a server could not be reached, so that checks were left out.
    pub(super) unreachable: bool,
}

impl Finding {
    pub(super) fn ok(check: Check, message: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, message: message.into(), advice: None, unreachable: false }
    }

    pub(super) fn skipped(check: Check, message: impl Into<String>) -> Self {
        Self { level: Level::Skipped, ..Self::ok(check, message) }
    }

    pub(super) fn warning(check: Check, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: Some(advice.into()), ..Self::ok(check, message) }
    }

    pub(super) fn error(check: Check, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Error, advice: Some(advice.into()), ..Self::ok(check, message) }
    }

    pub(super) fn unreachable(check: Check, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { unreachable: true, ..Self::error(check, message, advice) }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "check": self.check.name(), "result": self.level.name(), "finding": self.message, "advice": self.advice,
        })
    }

    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let first = vec![self.level.name().to_uppercase(), self.check.name().to_owned(), self.message.clone()];
        let advice = self.advice.as_ref().map(|advice| vec![String::new(), String::new(), format!("→ {advice}")]);
        std::iter::once(first).chain(advice).collect()
    }
}
