//! Migrations: forward-only, on a connection of their own, one process at a time.

use std::fmt;
use std::time::Duration;

use refinery::error::Kind;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::infra::postgres::citus;
use crate::infra::postgres::connect::{Connector, Opened, Server};
use crate::infra::postgres::error::{DbError, class_of};
use crate::infra::postgres::layout::{self, ShardsDiffer};
use crate::infra::postgres::shard::{Shard, Shards, names_a_shard};
use crate::kernel::{Classified, FailureClass, chain};

/// Key of the advisory lock around migrations; arbitrary, but it must never change ("purse" in ASCII).
const LOCK_KEY: i64 = 0x70_75_72_73_65;
/// Longest wait for the migrations of another process.
const LOCK_WAIT_MAX: Duration = Duration::from_mins(1);
/// Longest wait of a script for the lock of a table. Requests queue behind a waiting script, so it waits shortly, and the
/// caller tries again.
const TABLE_LOCK_WAIT_MAX: Duration = Duration::from_secs(2);

/// The schema and the privileges of a role's database. Tables of a shard are named as `shard.wallets`.
#[derive(Clone, Copy)]
pub struct Migrations {
    /// Returns the scripts in order.
    pub runner: fn() -> refinery::Runner,
    /// The versions of the scripts that are applied once however many shards there are. The others are applied in each.
    pub shared: &'static [i32],
    /// Privileges of the runtime user, each a `GRANT … TO` without the user. All others are revoked.
    pub grants: &'static [&'static str],
    /// Statements that need each privilege that requests need, and change nothing.
    pub probe: &'static str,
}

/// A schema, and the scripts that belong there.
pub(super) struct Part {
    /// `None`: the schema in use.
    pub(super) schema: Option<&'static str>,
    pub(super) scripts: Vec<refinery::Migration>,
}

impl Part {
    /// The history of its scripts, as a statement names it.
    pub(super) fn history(&self) -> String {
        self.schema.map_or_else(|| HISTORY.to_owned(), |schema| format!("{schema}.{HISTORY}"))
    }
}

/// The table in which refinery keeps what it has applied.
const HISTORY: &str = "refinery_schema_history";

impl Migrations {
    /// The schemas in the order in which they are brought up to date: scripts of a shard may name tables that all shards share.
    pub(super) fn parts(self, shards: Shards) -> Vec<Part> {
        let scripts = (self.runner)().get_migrations().clone();
        if shards == Shards::ONE {
            return vec![Part { schema: None, scripts }];
        }
        let (shared, own): (Vec<_>, Vec<_>) =
            scripts.into_iter().partition(|script| self.shared.contains(&script.version()));
        let of_shards = shards.all().map(|shard| Part { schema: shard.schema(), scripts: own.clone() });
        std::iter::once(Part { schema: None, scripts: shared }).chain(of_shards).collect()
    }

    /// The version of the newest script.
    pub(super) fn newest(self) -> i64 {
        (self.runner)().get_migrations().iter().map(|script| i64::from(script.version())).max().unwrap_or(0)
    }

    /// The privileges on the tables that all shards share, and on those of each shard.
    pub(super) fn grants(self, shards: Shards) -> Vec<String> {
        let (of_shard, shared): (Vec<&str>, Vec<&str>) = self.grants.iter().partition(|grant| names_a_shard(grant));
        let of_shards = shards.all().flat_map(|shard| of_shard.iter().map(move |grant| shard.render(grant)));
        shared.into_iter().map(str::to_owned).chain(of_shards).collect()
    }

    /// The statements that need each privilege on the tables of this shard.
    pub fn probe(self, shard: Shard) -> String {
        shard.render(self.probe)
    }
}

#[cfg(test)]
impl Migrations {
    /// The version of the newest script, and a digest of the privileges (FNV-1a). A test of each role pins them together: a
    /// release that changed the privileges without a script would have them taken back by each older process that starts,
    /// because that one knows every script of the history.
    pub fn privileges(&self) -> (Option<i32>, u64) {
        let newest = (self.runner)().get_migrations().iter().map(refinery::Migration::version).max();
        let bytes = self.grants.iter().flat_map(|grant| grant.bytes());
        let digest = bytes
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        (newest, digest)
    }
}

/// A script that has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// `V1`, `V2`, …
    pub version: String,
    /// The part of the file name after the version.
    pub name: String,
    /// The schema of its shard, if there are several.
    pub schema: Option<&'static str>,
}

impl Migration {
    fn of(script: &refinery::Migration, schema: Option<&'static str>) -> Self {
        Self { version: format!("V{}", script.version()), name: script.name().to_owned(), schema }
    }
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.name)?;
        self.schema.map_or(Ok(()), |schema| write!(f, " in {schema}"))
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
    NotOwner(#[source] Option<Box<refinery::Error>>),
    /// The tables would be looked for, or created, where they are not.
    #[error(transparent)]
    Shards(#[from] ShardsDiffer),
    /// Tables would have no schema to be created in.
    #[error(
        "the search_path of {0} names no schema that exists; create one that this user owns, or set its search_path"
    )]
    NoSchema(String),
    /// The owner lacks a privilege that the schema of a shard needs.
    #[error("the user of the migrations may not {may_not}; as a superuser, run: {grant}")]
    ShardSchema {
        /// `create the schema shard_02`.
        may_not: String,
        /// The statement that grants it.
        grant: String,
    },
    /// The tables were found or created by the owner, and the runtime user looks elsewhere.
    #[error("{0} does not find the tables, which are in schema {1}; run ALTER ROLE … SET search_path for this user")]
    OtherSchema(String, String),
    /// The runtime user cannot be given its privileges, or has others than requests need.
    #[error("the privileges of {0}")]
    Privileges(String, #[source] DbError),
    /// An applied script is not the one that this version has.
    #[error(
        "V{0} was applied in another form than this version has; run the version that migrated this database, or, in development, \
         delete the data with `just reset`"
    )]
    Changed(i32),
    /// A script failed.
    #[error("migration")]
    Script(#[source] Box<refinery::Error>),
}

impl Classified for MigrateError {
    fn class(&self) -> FailureClass {
        match self {
            Self::Database(e) | Self::Privileges(_, e) => match e.class() {
                // The server rejects a statement because of how it is set up.
                FailureClass::Bug if matches!(e, DbError::Postgres(_)) => FailureClass::Permanent,
                class => class,
            },
            // A lost connection or a lock has rolled the script back: the next attempt may succeed.
            Self::Script(e) => driver_errors(e.as_ref())
                .map(class_of)
                .find(|class| matches!(class, FailureClass::Unavailable | FailureClass::Transient))
                .unwrap_or(FailureClass::Permanent),
            Self::NotUtf8(_)
            | Self::NotOwner(_)
            | Self::Shards(_)
            | Self::NoSchema(_)
            | Self::ShardSchema { .. }
            | Self::OtherSchema(..)
            | Self::Changed(_) => FailureClass::Permanent,
        }
    }
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
    /// The schema of the tables.
    pub schema: String,
    /// The newest script, if a newer version has applied it and privileges were left as they are.
    pub newer: Option<Migration>,
    /// Schemas that Citus has moved to its workers.
    pub distributed: Vec<String>,
    /// Schemas on a server that cannot be reached. They have every script of this version; neither these nor any privileges were
    /// looked at.
    pub unreachable: Vec<Unreachable>,
    /// Settings of the server that are off, so that acknowledged commits may be lost in a crash.
    pub not_durable: Vec<&'static str>,
}

/// The schema of a shard that could not be read, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    pub schema: &'static str,
    pub error: String,
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
    let (owner, runtime) = (connector.owner.user(), connector.runtime.user().unwrap_or_default());
    let opened = connector.owner.open("purse migrations", None, Server::Writable).await;
    let Opened { mut client, driver, .. } = opened.map_err(|e| MigrateError::Database(e.into()))?;
    let encoding: String = client.query_one("SELECT current_setting('server_encoding')", &[]).await?.try_get(0)?;
    if encoding != "UTF8" {
        return Err(MigrateError::NotUtf8(encoding));
    }
    // A session lock, because refinery opens its own transactions on this connection and does not lock.
    set_lock_timeout(&client, LOCK_WAIT_MAX).await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK_KEY]).await?;
    // Half of what requests wait, so that those behind a script get the lock in time when it gives up.
    set_lock_timeout(&client, TABLE_LOCK_WAIT_MAX.min(connector.config.lock_timeout / 2)).await?;
    let Some(schema) = schema_in_use(&client).await? else {
        return Err(MigrateError::NoSchema(owner.unwrap_or_default().to_owned()));
    };
    let shards = connector.config.shards;
    if shards != Shards::ONE {
        // For each shard on a worker of Citus that does not respond.
        client.batch_execute("SET citus.node_connection_timeout = 2000").await?;
    }
    // Before anything is created.
    let is_set_up = layout::check(&client, shards).await??;
    let has_owner = Some(runtime) != owner;
    let (mut applied, mut unreachable) = (Vec::new(), Vec::new());
    let (newest, parts) = (migrations.newest(), migrations.parts(shards));
    for part in &parts {
        // One that does not respond costs a time limit, which is not spent for each of its shards.
        if unreachable.iter().any(|shard: &Unreachable| part.schema == Some(shard.schema)) {
            continue;
        }
        match apply(&mut client, part, &schema).await {
            Ok(of_part) => applied.extend(of_part),
            Err(MigrateError::Script(e)) if lacks_privilege(e.as_ref()) && !has_owner => {
                return Err(MigrateError::NotOwner(Some(e)));
            }
            Err(MigrateError::ShardSchema { .. }) if !has_owner => return Err(MigrateError::NotOwner(None)),
            Err(e) => match part.schema {
                Some(schema) if is_elsewhere_and_down(&client, &e, newest).await => {
                    let error = chain(&e);
                    let of_worker = citus::beside(&client, shards, schema).await.unwrap_or_default();
                    let later = of_worker.into_iter().filter(|other| *other > schema);
                    let schemas = std::iter::once(schema).chain(later);
                    unreachable.extend(schemas.map(|schema| Unreachable { schema, error: error.clone() }));
                }
                _ => return Err(e),
            },
        }
        if part.schema.is_none() && !is_set_up && shards != Shards::ONE {
            let keep = "INSERT INTO ledger_shards (shards) VALUES ($1::bigint::smallint)";
            client.execute(keep, &[&i64::from(shards.count())]).await?;
        }
    }
    let reached = |part: &&Part| unreachable.iter().all(|shard| part.schema != Some(shard.schema));
    // Under the lock, so that a newer version either has applied its scripts or grants after this.
    let newer = newer_script(&client, parts.iter().filter(reached), newest).await?;
    // With Citus, a grant needs every worker.
    if has_owner && newer.is_none() && unreachable.is_empty() {
        let granted = grant(&mut client, &schema, runtime, migrations, shards).await;
        granted.map_err(|e| MigrateError::Privileges(runtime.to_owned(), e.into()))?;
    }
    if shards != Shards::ONE && unreachable.is_empty() {
        let may = "SELECT has_table_privilege('ledger_shards', 'UPDATE')";
        if client.query_one(may, &[]).await?.try_get(0)? {
            let all_have_it =
                "UPDATE ledger_shards SET newest_script = $1::bigint::smallint WHERE newest_script < $1::bigint";
            client.execute(all_have_it, &[&newest]).await?;
        }
    }
    let distributed = citus::distribute(&client, shards).await?;
    let not_durable = not_durable(&client).await?;
    // Dropping the client ends the session, and with it the lock.
    drop(client);
    let _ = driver.await;
    Ok(Migrated { applied, schema, newer, distributed, unreachable, not_durable })
}

/// Whether the schema of a shard could not be read because the server that has it is down, and has every script up to `newest`.
async fn is_elsewhere_and_down(client: &Client, error: &MigrateError, newest: i64) -> bool {
    let MigrateError::Database(DbError::Postgres(e)) = error else { return false };
    // Connection errors, and those of a server that starts or stops.
    let is_down = e.code().is_some_and(|code| ["08", "57P"].iter().any(|class| code.code().starts_with(class)));
    if !is_down || client.is_closed() {
        return false;
    }
    let has_it = "SELECT FROM ledger_shards WHERE newest_script >= $1::bigint";
    client.query_opt(has_it, &[&newest]).await.is_ok_and(|found| found.is_some())
}

/// Applies the missing scripts of a part, in its schema, which is created if necessary.
async fn apply(client: &mut Client, part: &Part, schema_in_use: &str) -> Result<Vec<Migration>, MigrateError> {
    if nothing_is_missing(client, part).await? {
        // A process without the owner's password could not run the scripts; and on a newer schema, refinery would report
        // the newer ones as errors.
        return Ok(Vec::new());
    }
    if let Some(schema) = part.schema {
        create_schema(client, schema).await?;
        // The scripts do not name schemas. Those of a shard also name tables that all shards share.
        client.batch_execute(&format!("SET search_path = {schema}, {}", quoted(schema_in_use))).await?;
    }
    let runner = refinery::Runner::new(&part.scripts);
    // During a rollout, an older binary meets the scripts of a newer one.
    let report = runner.set_abort_missing(false).run_async(client).await;
    let report = report.map_err(|e| match e.kind() {
        Kind::DivergentVersion(applied, _) => MigrateError::Changed(applied.version()),
        _ => MigrateError::Script(Box::new(e)),
    })?;
    if part.schema.is_some() {
        client.batch_execute("RESET search_path").await?;
    }
    Ok(report.applied_migrations().iter().map(|script| Migration::of(script, part.schema)).collect())
}

/// Creates the schema of a shard if necessary.
async fn create_schema(client: &Client, schema: &'static str) -> Result<(), MigrateError> {
    let exists = schema_exists(client, schema).await?;
    let (may_not, check) = if exists {
        (
            format!("create tables in the schema {schema}, which exists"),
            format!(
                "SELECT has_schema_privilege('{schema}', 'CREATE'), format('ALTER SCHEMA {schema} OWNER TO %I', current_user)"
            ),
        )
    } else {
        (
            format!("create the schema {schema}"),
            "SELECT has_database_privilege(current_database(), 'CREATE'),
                    format('GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user)"
                .to_owned(),
        )
    };
    let row = client.query_one(&check, &[]).await?;
    if !row.try_get::<_, bool>(0)? {
        return Err(MigrateError::ShardSchema { may_not, grant: row.try_get(1)? });
    }
    // Not `IF NOT EXISTS`, which needs the privilege to create schemas although there is nothing to create.
    if !exists {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
    }
    Ok(())
}

/// Checks that the runtime user finds the tables and may do with them what requests do. Changes nothing.
///
/// # Errors
/// [`MigrateError`].
pub async fn check_runtime_user(
    connector: &Connector,
    migrations: Migrations,
    migrated: &Migrated,
) -> Result<(), MigrateError> {
    let (here, schema) = (connector.clone(), migrated.schema.clone());
    let unreachable: Vec<_> = migrated.unreachable.iter().map(|shard| Some(shard.schema)).collect();
    let task = connector.io.spawn(async move {
        let user = here.runtime.user().unwrap_or_default().to_owned();
        let opened = here.runtime.open("purse migrations", None, Server::Writable).await;
        let client = opened.map_err(|e| MigrateError::Database(e.into()))?.client;
        set_lock_timeout(&client, here.config.lock_timeout).await?;
        if schema_of_the_tables(&client).await?.as_ref() != Some(&schema) {
            return Err(MigrateError::OtherSchema(user, schema));
        }
        for shard in here.config.shards.all().filter(|shard| !unreachable.contains(&shard.schema())) {
            let probed = client.batch_execute(&migrations.probe(shard)).await;
            probed.map_err(|e| MigrateError::Privileges(user.clone(), e.into()))?;
        }
        Ok(())
    });
    task.await.unwrap_or(Err(MigrateError::Database(DbError::Panicked)))
}

async fn set_lock_timeout(client: &Client, limit: Duration) -> Result<(), tokio_postgres::Error> {
    // Zero would be no limit.
    client.batch_execute(&format!("SET lock_timeout = {}", limit.as_millis().max(1))).await
}

pub(super) async fn schema_exists(client: &Client, schema: &str) -> Result<bool, tokio_postgres::Error> {
    client.query_one("SELECT to_regnamespace($1::text) IS NOT NULL", &[&schema]).await?.try_get(0)
}

/// Where the tables are, or where they would be created. `None` if there is no such place.
async fn schema_in_use(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    match schema_of_the_tables(client).await? {
        Some(schema) => Ok(Some(schema)),
        None => client.query_one("SELECT current_schema()::text", &[]).await?.try_get(0),
    }
}

/// The schema in which this user finds the history of migrations.
pub(super) async fn schema_of_the_tables(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let found = client.query_opt(
        "SELECT nspname::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE pg_class.oid = to_regclass('refinery_schema_history')",
        &[],
    );
    found.await?.map(|row| row.try_get("nspname")).transpose()
}

/// The newest script of the histories, if it is newer than `known`.
async fn newer_script<'p>(
    client: &Client,
    parts: impl Iterator<Item = &'p Part>,
    known: i64,
) -> Result<Option<Migration>, tokio_postgres::Error> {
    let mut newer: Option<(i64, Migration)> = None;
    for part in parts {
        let newest = format!(
            "SELECT version::bigint, name::text FROM {} WHERE version > $1::bigint ORDER BY version DESC LIMIT 1",
            part.history()
        );
        if let Some(row) = client.query_opt(&newest, &[&known]).await? {
            let (version, name): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
            if newer.as_ref().is_none_or(|(newest, _)| *newest < version) {
                newer = Some((version, Migration { version: format!("V{version}"), name, schema: part.schema }));
            }
        }
    }
    Ok(newer.map(|(_, script)| script))
}

/// Whether each script has been applied unchanged; false if the history does not exist or may not be read.
async fn nothing_is_missing(client: &Client, part: &Part) -> Result<bool, tokio_postgres::Error> {
    let history = format!("SELECT version::bigint, checksum FROM {}", part.history());
    let rows = match client.query(&history, &[]).await {
        Err(e)
            if e.code()
                .is_some_and(|code| [SqlState::UNDEFINED_TABLE, SqlState::INSUFFICIENT_PRIVILEGE].contains(code)) =>
        {
            return Ok(false);
        }
        rows => rows?,
    };
    let applied = |row: &Row| Some((row.try_get::<_, i64>(0).ok()?, row.try_get::<_, String>(1).ok()?));
    let applied: Vec<_> = rows.iter().filter_map(applied).collect();
    let has = |script: &refinery::Migration| (i64::from(script.version()), script.checksum().to_string());
    Ok(part.scripts.iter().all(|script| applied.contains(&has(script))))
}

/// The settings that make commits survive a crash, as far as they are off.
pub(super) async fn not_durable(client: &Client) -> Result<Vec<&'static str>, tokio_postgres::Error> {
    let mut off = Vec::new();
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let row = client.query_one("SELECT current_setting($1)", &[&setting]).await?;
        if row.try_get::<_, &str>(0)? == "off" {
            off.push(setting);
        }
    }
    Ok(off)
}

/// Replaces the privileges of `user` in `schema` and in those of the shards, in one transaction.
async fn grant(
    client: &mut Client,
    schema: &str,
    user: &str,
    migrations: Migrations,
    shards: Shards,
) -> Result<(), tokio_postgres::Error> {
    let user = quoted(user);
    let tx = client.transaction().await?;
    for schema in [&[schema][..], &shards.schemas()].concat().into_iter().map(quoted) {
        tx.batch_execute(&format!(
            "REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {user}; REVOKE CREATE ON SCHEMA {schema} FROM {user}, PUBLIC;
             GRANT USAGE ON SCHEMA {schema} TO {user};"
        ))
        .await?;
    }
    for grant in migrations.grants(shards) {
        tx.batch_execute(&format!("{grant} TO {user}")).await?;
    }
    tx.commit().await
}

/// As an identifier in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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
