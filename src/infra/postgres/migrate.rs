//! Migrations: forward-only, on a connection of their own, one process at a time.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::infra::postgres::connect::{Connector, Server};
use crate::infra::postgres::error::{DbError, class_of};
use crate::kernel::{Classified, FailureClass};

/// Key of the advisory lock around migrations; arbitrary, but it must never change ("purse" in ASCII).
const LOCK_KEY: i64 = 0x70_75_72_73_65;
/// Longest wait for the migrations of another process.
const LOCK_WAIT_MAX: Duration = Duration::from_mins(1);

/// The schema and the privileges of a role's database.
#[derive(Clone, Copy)]
pub struct Migrations {
    /// Returns the scripts in order.
    pub runner: fn() -> refinery::Runner,
    /// Privileges of the runtime user, each a `GRANT … TO` without the user. All others are revoked.
    pub grants: &'static [&'static str],
    /// Statements that need each privilege that requests need, and change nothing.
    pub probe: &'static str,
}

/// A script that has just been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// `V1`, `V2`, …
    pub version: String,
    /// The part of the file name after the version.
    pub name: String,
}

impl Migration {
    fn of(script: &refinery::Migration) -> Self {
        Self { version: format!("V{}", script.version()), name: script.name().to_owned() }
    }
}

/// Why a database is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database is unreachable, or reported an error.
    #[error("migration database")]
    Database(#[source] DbError),
    /// Lengths would be counted in bytes, and invalid text would be accepted.
    #[error("the database is encoded in {0}; recreate it with ENCODING 'UTF8'")]
    NotUtf8(String),
    /// Scripts are missing, and no owner is configured to apply them.
    #[error(
        "the runtime user may not bring the database up to date; run `purse migrate` as the owner first, or set the URL of the owner"
    )]
    NotOwner(#[source] Box<refinery::Error>),
    /// A script failed, or an applied one has changed since.
    #[error("migration")]
    Script(#[source] Box<refinery::Error>),
}

impl Classified for MigrateError {
    fn class(&self) -> FailureClass {
        match self {
            Self::Database(e) => e.class(),
            // A lost connection has rolled the script back: the next attempt may succeed.
            Self::Script(e) if is_unreachable(e.as_ref()) => FailureClass::Unavailable,
            Self::Script(_) | Self::NotUtf8(_) | Self::NotOwner(_) => FailureClass::Permanent,
        }
    }
}

/// Whether a source of this error says that the database is unreachable.
fn is_unreachable(error: &(dyn std::error::Error + 'static)) -> bool {
    driver_errors(error).any(|e| class_of(e) == FailureClass::Unavailable)
}

/// Whether a source of this error says that the user lacks a privilege.
fn lacks_privilege(error: &(dyn std::error::Error + 'static)) -> bool {
    driver_errors(error).any(|e| e.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
}

fn driver_errors<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e tokio_postgres::Error> + use<'e> {
    std::iter::successors(Some(error), |e| e.source()).filter_map(|e| e.downcast_ref::<tokio_postgres::Error>())
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(e: tokio_postgres::Error) -> Self {
        Self::Database(DbError::Postgres(e))
    }
}

/// The outcome of a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// In order.
    pub applied: Vec<Migration>,
    /// Settings of the server that are off, so that acknowledged commits may be lost in a crash.
    pub not_durable: Vec<&'static str>,
}

/// Applies the missing scripts as the owner, and grants the runtime user its privileges if the two differ.
///
/// # Errors
/// [`MigrateError`]; a failed script has been rolled back.
pub async fn migrate(connector: &Connector, migrations: Migrations) -> Result<Migrated, MigrateError> {
    let here = connector.clone();
    let task = connector.io.spawn(async move { migrate_here(&here, migrations).await });
    task.await.unwrap_or(Err(MigrateError::Database(DbError::Panicked)))
}

async fn migrate_here(connector: &Connector, migrations: Migrations) -> Result<Migrated, MigrateError> {
    // No session limits: a migration may take long. The wait for the lock is limited below.
    let (owner, runtime) = (connector.owner.user(), connector.runtime.user());
    let opened = connector.owner.open("purse migrations", None, Server::Writable).await;
    let (mut client, connection) = opened.map_err(|e| MigrateError::Database(e.into()))?;
    // A session lock, because refinery opens its own transactions on this connection and does not lock.
    client.batch_execute(&format!("SET lock_timeout = {}", LOCK_WAIT_MAX.as_millis())).await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK_KEY]).await?;
    let encoding: String = client.query_one("SELECT current_setting('server_encoding')", &[]).await?.try_get(0)?;
    if encoding != "UTF8" {
        return Err(MigrateError::NotUtf8(encoding));
    }
    let runner = (migrations.runner)().set_abort_missing(false); // during a rollout, an older binary meets the scripts of a newer one
    let has_owner = runtime != owner;
    let applied = if !has_owner && nothing_is_missing(&client, runner.get_migrations()).await {
        // Already migrated by a process with the owner's password, which this process need not have.
        Vec::new()
    } else {
        let report = runner.run_async(&mut client).await.map_err(|e| {
            let (lacks_privilege, e) = (lacks_privilege(&e), Box::new(e));
            if lacks_privilege && !has_owner { MigrateError::NotOwner(e) } else { MigrateError::Script(e) }
        })?;
        report.applied_migrations().iter().map(Migration::of).collect()
    };
    if let (Some(user), true) = (runtime, has_owner) {
        grant(&mut client, user, migrations.grants).await?;
    }
    let not_durable = not_durable(&client).await?;
    // Dropping the client ends the session, and with it the lock.
    drop(client);
    let _ = connection.await;
    Ok(Migrated { applied, not_durable })
}

/// Whether each script has been applied unchanged; false if the history does not exist or may not be read.
async fn nothing_is_missing(client: &Client, scripts: &[refinery::Migration]) -> bool {
    let Ok(rows) = client.query("SELECT version::bigint, checksum FROM refinery_schema_history", &[]).await else {
        return false;
    };
    let applied = |row: &Row| Some((row.try_get::<_, i64>(0).ok()?, row.try_get::<_, String>(1).ok()?));
    let applied: Vec<_> = rows.iter().filter_map(applied).collect();
    scripts.iter().all(|script| applied.contains(&(i64::from(script.version()), script.checksum().to_string())))
}

/// The settings that make commits survive a crash, as far as they are off.
async fn not_durable(client: &Client) -> Result<Vec<&'static str>, tokio_postgres::Error> {
    let mut off = Vec::new();
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let row = client.query_one("SELECT current_setting($1)", &[&setting]).await?;
        if row.try_get::<_, &str>(0)? == "off" {
            off.push(setting);
        }
    }
    Ok(off)
}

/// Replaces the privileges of `user` with `grants`, in one transaction.
async fn grant(client: &mut Client, user: &str, grants: &[&str]) -> Result<(), tokio_postgres::Error> {
    let user = format!("\"{}\"", user.replace('"', "\"\""));
    let tx = client.transaction().await?;
    tx.batch_execute(&format!(
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {user}; REVOKE CREATE ON SCHEMA public FROM {user}, PUBLIC;
         GRANT USAGE ON SCHEMA public TO {user};"
    ))
    .await?;
    for grant in grants {
        tx.batch_execute(&format!("{grant} TO {user}")).await?;
    }
    tx.commit().await
}

impl DbError {
    /// Whether a table, a column or a privilege is missing, which migrations would add.
    pub fn is_unmigrated(&self) -> bool {
        let Self::Postgres(e) = self else { return false };
        let missing = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::INSUFFICIENT_PRIVILEGE];
        e.code().is_some_and(|code| missing.contains(code))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_lock_key_is_the_name_of_the_product() {
        assert_eq!(&super::LOCK_KEY.to_be_bytes()[3..], b"purse");
    }
}
