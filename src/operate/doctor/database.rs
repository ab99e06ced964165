//! The role's database: server, migrations, rights, clock, and the outbox of the users role.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::runtime::Handle;

use crate::infra::config::DatabaseConfig;
use crate::infra::postgres::{
    Connector, DbError, History, Inspector, Migrations, Rights, ServerState, confirms_commits,
};
use crate::infra::system::System;
use crate::kernel::{Classified as _, Clock as _, FailureClass, Role, Timestamp};
use crate::operate::doctor::finding::{Check, Finding};
use crate::operate::doctor::target::NAME;
use crate::operate::failure::causes;
use crate::operate::humanize::{cell, count, duration};
use crate::users::postgres::{Backlog, PgOutboxBacklog};

/// Oldest and newest major version that is supported.
const POSTGRESQL: (i32, i32) = (15, 18);
/// Largest difference of two clocks that does not matter: tokens allow a few seconds.
const CLOCKS_MAX: SignedDuration = SignedDuration::from_secs(2);
/// Age from which a pending event is late. The relay publishes within milliseconds, and retries within 10 seconds.
const PENDING_MAX: Duration = Duration::from_mins(1);
/// Privileges and migrations that a finding names.
const NAMED_MAX: usize = 8;

pub(super) async fn check(role: Role, config: &DatabaseConfig, io: Handle) -> Vec<Finding> {
    let connector = match Connector::new(config, io) {
        Ok(connector) => connector,
        Err(e) => {
            let advice = "Check the certificates that the database URL names.";
            return vec![Finding::error(Check::Database, format!("cannot set up TLS: {e}"), advice)];
        }
    };
    let inspector = match Inspector::connect(&connector, NAME).await {
        Ok(inspector) => inspector,
        Err(e) => {
            let advice = format!(
                "Check that it is running and reachable from here, and that {}_DATABASE_URL is correct.",
                role.as_str().to_uppercase()
            );
            return vec![Finding::unreachable(Check::Database, causes(&e), advice)];
        }
    };
    let mut findings = server(inspector.server());
    if !inspector.server().is_read_only {
        findings.extend(commits(role, &connector).await);
    }
    let migrations = match role {
        Role::Users => crate::users::postgres::MIGRATIONS,
        Role::Wallet => crate::wallet::postgres::MIGRATIONS,
    };
    findings.extend(schema(role, &inspector, migrations).await);
    findings.push(clock(role, &inspector).await);
    if role == Role::Users {
        findings.push(outbox(&connector).await);
    }
    findings
}

/// A check that the database did not let end.
fn failed(check: Check, role: Role, e: &DbError) -> Finding {
    let message = format!("cannot be checked: {}", causes(e));
    if is_away(e) {
        Finding::unreachable(check, message, "Check the load of the server and the network, then try again.")
    } else {
        Finding::error(check, message, format!("Run `purse migrate --role {role}`, then try again."))
    }
}

/// Whether the server did not respond, and not to this statement in particular.
pub(super) fn is_away(e: &DbError) -> bool {
    matches!(e.class(), FailureClass::Unavailable | FailureClass::Transient)
}

fn server(server: &ServerState) -> Vec<Finding> {
    let mut findings = Vec::new();
    if server.encoding != "UTF8" {
        let advice =
            "Recreate it with ENCODING 'UTF8' and restore a dump: other encodings count characters differently.";
        findings.push(Finding::error(Check::Database, format!("its encoding is {}", server.encoding), advice));
    }
    if server.is_read_only {
        let advice = "Connect to the primary; several servers in the URL are tried in turn.";
        findings.push(Finding::error(Check::Database, "it is a standby or read-only, so no request succeeds", advice));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(Check::Database, format!("connected as {}", server.user)));
    }
    let version = format!("PostgreSQL {}", server.version);
    findings.push(supported(
        Check::PostgresqlVersion,
        version,
        server.major < POSTGRESQL.0,
        server.major > POSTGRESQL.1,
        "PostgreSQL 15 to 18",
    ));
    findings.push(if server.not_durable.is_empty() {
        Finding::ok(Check::Durability, "fsync, full_page_writes and synchronous_commit are on")
    } else {
        let message = format!("off: {}. Acknowledged commits may be lost in a crash", server.not_durable.join(", "));
        let advice = "Turn them on in postgresql.conf, or with ALTER DATABASE or ALTER ROLE, and restart the roles.";
        Finding::warning(Check::Durability, message, advice)
    });
    findings
}

/// Whether commits wait for a standby in vain, so that every request that writes fails.
async fn commits(role: Role, connector: &Connector) -> Option<Finding> {
    match confirms_commits(connector, NAME).await {
        Ok(true) => None,
        Ok(false) => {
            let message = "a commit was not confirmed within 5 seconds, so no request that writes succeeds";
            let advice = "Check the standbys that synchronous_standby_names asks for.";
            Some(Finding::error(Check::Durability, message, advice))
        }
        Err(e) => Some(failed(Check::Durability, role, &e)),
    }
}

/// A version that is too old is an error, one that is too new a warning.
pub(super) fn supported(check: Check, version: String, too_old: bool, too_new: bool, range: &str) -> Finding {
    if too_old {
        Finding::error(check, format!("{version} is too old"), format!("Upgrade to {range}."))
    } else if too_new {
        let message = format!("{version} is newer than the versions that this release supports");
        Finding::warning(check, message, format!("Use {range}, or a newer release of purse."))
    } else {
        Finding::ok(check, version)
    }
}

async fn schema(role: Role, inspector: &Inspector, migrations: Migrations) -> Vec<Finding> {
    let user = &inspector.server().user;
    if let Ok(Err(differ)) = inspector.shards().await {
        let advice = "Otherwise, connect to the database that was set up with this number.";
        let skipped = Finding::skipped(Check::Rights, "the tables are elsewhere");
        return vec![Finding::error(Check::Migrations, differ.to_string(), advice), skipped];
    }
    let history = match inspector.history(migrations).await {
        Ok(Some(history)) => history,
        Ok(None) => {
            let message = format!("{user} finds no tables");
            let advice = format!(
                "Run `purse migrate --role {role}`. If that is done, set the search_path of {user} to the schema of the tables."
            );
            let skipped = Finding::skipped(Check::Rights, "there are no tables");
            return vec![Finding::error(Check::Migrations, message, advice), skipped];
        }
        // The privilege to read it is one of those that are reported below.
        Err(e) => {
            let rights = rights(role, inspector, migrations, false).await;
            return std::iter::once(failed(Check::Migrations, role, &e)).chain(rights).collect();
        }
    };
    let rights = rights(role, inspector, migrations, !history.newer.is_empty()).await;
    applied(role, &history).into_iter().chain(rights).collect()
}

fn applied(role: Role, history: &History) -> Vec<Finding> {
    let check = Check::Migrations;
    let mut findings = Vec::new();
    if !history.missing.is_empty() {
        let message = format!("not applied: {}", named(&history.missing));
        findings.push(Finding::error(check, message, format!("Run `purse migrate --role {role}`.")));
    }
    if !history.changed.is_empty() {
        let message = format!("applied in another form than this release has: {}", named(&history.changed));
        let advice = "Find out which build migrated the database, and run a release that has the same scripts.";
        findings.push(Finding::error(check, message, advice));
    }
    if findings.is_empty() {
        let newer = if history.newer.is_empty() {
            String::new()
        } else {
            format!("; a newer release has applied {}, which this one can be run beside", named(&history.newer))
        };
        findings.push(Finding::ok(check, format!("all {} applied{newer}", history.known)));
    }
    findings
}

/// A newer release may grant more than this one knows of.
async fn rights(role: Role, inspector: &Inspector, migrations: Migrations, is_newer: bool) -> Vec<Finding> {
    match inspector.rights(migrations).await {
        Ok(rights) => compared(role, &inspector.server().user, &rights, is_newer),
        Err(e) => vec![failed(Check::Rights, role, &e)],
    }
}

fn compared(role: Role, user: &str, rights: &Rights, is_newer: bool) -> Vec<Finding> {
    let check = Check::Rights;
    let upper = role.as_str().to_uppercase();
    let mut findings = Vec::new();
    if !rights.missing.is_empty() {
        let message = format!("{user} lacks {}", named(&rights.missing));
        let advice = format!(
            "Run `purse migrate --role {role}` with {upper}_MIGRATION_DATABASE_URL set to the owner's URL; it grants them."
        );
        findings.push(Finding::error(check, message, advice));
    }
    if !rights.disabled_triggers.is_empty() {
        let message = format!("disabled triggers: {}", named(&rights.disabled_triggers));
        let advice = "Enable them as the owner, with ALTER TABLE … ENABLE TRIGGER: without them, entries of the ledger can be \
                      changed. Then run `purse ledger verify`.";
        findings.push(Finding::error(check, message, advice));
    }
    let separate = format!(
        "Let another account own the database, and set {upper}_MIGRATION_DATABASE_URL to its URL; `purse migrate --role {role}` grants {user} what it needs."
    );
    if rights.owns_tables {
        let message = format!("{user} owns the tables, so a role that is taken over can change and delete everything");
        findings.push(Finding::warning(check, message, separate));
    } else {
        if !rights.attributes.is_empty() {
            let message = format!("{user} has {}, which no role needs", named(&rights.attributes));
            findings.push(Finding::warning(check, message, "Revoke it, with ALTER ROLE or REVOKE."));
        }
        if !rights.excess.is_empty() && !is_newer {
            let message = format!("{user} has more than requests need: {}", named(&rights.excess));
            let advice = format!(
                "Run `purse migrate --role {role}` as the owner; it revokes what is granted to {user}. \
                                  Revoke by hand what is granted to PUBLIC or to roles that {user} is a member of."
            );
            findings.push(Finding::warning(check, message, advice));
        }
    }
    if findings.is_empty() {
        // A newer release may need others.
        let others = if is_newer { "" } else { ", and no others" };
        findings.push(Finding::ok(check, format!("{user} has the privileges that requests need{others}")));
    }
    findings
}

fn named<T: ToString>(items: &[T]) -> String {
    let mut names: Vec<String> = items.iter().take(NAMED_MAX).map(|item| cell(&item.to_string())).collect();
    if items.len() > NAMED_MAX {
        names.push(format!("and {} more", items.len().saturating_sub(NAMED_MAX)));
    }
    names.join(", ")
}

async fn clock(role: Role, inspector: &Inspector) -> Finding {
    let before = System.now();
    match inspector.clock().await {
        Ok(server) => compared_clocks(before, server, System.now()),
        Err(e) => failed(Check::Clock, role, &e),
    }
}

/// `server` was read between the other two, which are of this machine.
fn compared_clocks(before: Timestamp, server: Timestamp, after: Timestamp) -> Finding {
    let ahead = server.duration_since(after).max(SignedDuration::ZERO);
    let behind = before.duration_since(server).max(SignedDuration::ZERO);
    let (difference, direction) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    if difference <= CLOCKS_MAX {
        return Finding::ok(Check::Clock, "this machine and the database agree on the time");
    }
    let message = format!("the database is {} {direction} this machine", duration(difference.as_secs()));
    let advice =
        "Synchronise both clocks with NTP: tokens expire by this one, and transactions are dated by the other.";
    Finding::error(Check::Clock, message, advice)
}

async fn outbox(connector: &Connector) -> Finding {
    let backlog = async { PgOutboxBacklog::connect(connector).await?.status().await };
    match backlog.await {
        Ok(backlog) => pending(&backlog),
        Err(e) => failed(Check::Outbox, Role::Users, &e),
    }
}

fn pending(backlog: &Backlog) -> Finding {
    let age = backlog.oldest_seconds.unwrap_or(0);
    let events = format!(
        "{} pending, the oldest for {}",
        count(u64::try_from(backlog.pending).unwrap_or(0), "event"),
        duration(age)
    );
    if let Some(refusal) = backlog.refusals.first() {
        let message = format!("{events}; {} refused by the broker: {}", backlog.refused, cell(&refusal.error));
        let advice = if refusal.error.contains("NO_ROUTE") {
            "No queue is bound: start the wallet role, which declares wallet.provision and its binding. Events are retried within 10 seconds."
        } else {
            "See `purse outbox status`, and why wallet.provision takes no messages."
        };
        return Finding::warning(Check::Outbox, message, advice);
    }
    if backlog.pending == 0 {
        Finding::ok(Check::Outbox, "all events are published")
    } else if u64::try_from(age).unwrap_or(0) > PENDING_MAX.as_secs() {
        let advice = "Check that a users role is running and that it reaches RabbitMQ: /health/ready shows `rabbitmq`.";
        Finding::warning(Check::Outbox, events, advice)
    } else {
        Finding::ok(Check::Outbox, events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::doctor::finding::Level;

    #[test]
    fn clocks_may_differ_by_two_seconds_and_by_the_time_that_the_question_took() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let level = |before, server, after| compared_clocks(at(before), at(server), at(after)).level;
        assert_eq!(level("2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z", "2026-01-01T00:00:00Z"), Level::Ok);
        assert_eq!(level("2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z", "2026-01-01T00:00:08Z"), Level::Ok);
        assert_eq!(level("2026-01-01T00:00:03Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:04Z"), Level::Error);
        assert_eq!(level("2026-01-01T00:00:00Z", "2026-01-01T00:00:06Z", "2026-01-01T00:00:03Z"), Level::Error);
    }

    #[test]
    fn a_version_below_the_range_is_an_error_and_one_above_a_warning() {
        let of = |major| {
            let server = ServerState {
                user: "app".to_owned(),
                version: format!("{major}.1"),
                major,
                encoding: "UTF8".to_owned(),
                is_read_only: false,
                not_durable: Vec::new(),
            };
            let findings = super::server(&server);
            findings.iter().find(|finding| finding.check == Check::PostgresqlVersion).map(|finding| finding.level)
        };
        assert_eq!([14, 15, 18, 19].map(of), [Level::Error, Level::Ok, Level::Ok, Level::Warning].map(Some));
    }
}
