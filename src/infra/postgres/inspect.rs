//! The state of a database as its runtime user sees it, for an operator. Changes nothing: a commit leaves a message in the log of the
//! server.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;

use crate::infra::postgres::connect::{Connector, Server};
use crate::infra::postgres::error::DbError;
use crate::infra::postgres::layout::{self, ShardsDiffer};
use crate::infra::postgres::migrate::{Migrations, not_durable, schema_exists, schema_of_the_tables};
use crate::infra::postgres::rights::{Right, Rights, execute, functions, tables};
use crate::infra::postgres::session::Session;
use crate::infra::postgres::shard::{Shard, Shards};
use crate::kernel::Timestamp;

/// Longest run of one statement.
const STATEMENT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a commit.
const COMMIT_MAX: Duration = Duration::from_secs(5);

/// Commits a message in the log of the server. It has no reader, but where commits wait for a standby, this one does too;
/// statements that change nothing would not.
pub const COMMIT: &str = "-- health.commit
    SELECT pg_logical_emit_message(true, 'purse', '')";

/// Whether the server that a role would use confirms a commit within five seconds.
///
/// # Errors
/// [`DbError`].
pub async fn confirms_commits(connector: &Connector, application_name: &'static str) -> Result<bool, DbError> {
    let session = Session::open_on(Server::Writable, connector, application_name).await?;
    match timeout(COMMIT_MAX, session.client().batch_execute(COMMIT)).await {
        Err(_) => {
            // The server does not notice that nobody waits any more.
            connector.runtime.cancel(&session.client().cancel_token()).await;
            Ok(false)
        }
        Ok(committed) => match committed.map_err(DbError::from) {
            // The account may not execute the function. Requests do not need it.
            Err(e) if e.is_unmigrated() => Ok(true),
            committed => committed.map(|()| true),
        },
    }
}

/// A session that writes nothing and waits for nothing for long.
pub struct Inspector {
    session: Session,
    server: ServerState,
    shards: Shards,
}

/// What the server reports about itself and this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// The user of the session.
    pub user: String,
    /// `15.18`.
    pub version: String,
    /// 15.
    pub major: i32,
    /// `UTF8`.
    pub encoding: String,
    /// Whether it is a standby, or its sessions are read-only.
    pub is_read_only: bool,
    /// Settings that are off, so that acknowledged commits may be lost in a crash.
    pub not_durable: Vec<&'static str>,
}

/// The applied migrations, compared with those of this binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Not applied yet: `V3 rate_limits`.
    pub missing: Vec<String>,
    /// Applied, and different from the script of this binary.
    pub changed: Vec<String>,
    /// Applied by a newer release.
    pub newer: Vec<String>,
    /// The number of scripts of this binary.
    pub known: usize,
}

impl Inspector {
    /// Connects as the runtime user to the server that a role would use, or else to one that accepts no writes, and makes
    /// the session read-only.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector, application_name: &'static str) -> Result<Self, DbError> {
        let session = match Session::open_on(Server::Writable, connector, application_name).await {
            Err(e) if e.is_read_only() => Session::open(connector, application_name).await?,
            opened => opened?,
        };
        let client = session.client();
        let row = client
            .query_one(
                "SELECT current_user::text AS owner, current_setting('server_version') AS version,
                        current_setting('server_version_num')::int / 10000 AS major,
                        current_setting('server_encoding') AS encoding,
                        pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only",
                &[],
            )
            .await?;
        let version: String = row.try_get("version")?;
        let server = ServerState {
            user: row.try_get("owner")?,
            // Distributions append their own name.
            version: version.split(' ').next().unwrap_or_default().to_owned(),
            major: row.try_get("major")?,
            encoding: row.try_get("encoding")?,
            is_read_only: row.try_get("read_only")?,
            not_durable: not_durable(client).await?,
        };
        let limit = STATEMENT_MAX.as_millis();
        client
            .batch_execute(&format!(
                "SET default_transaction_read_only = on; SET statement_timeout = {limit}; SET lock_timeout = {limit}"
            ))
            .await?;
        Ok(Self { session, server, shards: connector.shards() })
    }

    /// As it was when the session was opened.
    pub const fn server(&self) -> &ServerState {
        &self.server
    }

    /// The time of the server's clock.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn clock(&self) -> Result<Timestamp, DbError> {
        Ok(self.session.client().query_one("SELECT clock_timestamp()", &[]).await?.try_get(0)?)
    }

    /// Whether the database has as many shards as are configured.
    ///
    /// # Errors
    /// [`DbError`], also if this user may not read their number.
    pub async fn shards(&self) -> Result<Result<(), ShardsDiffer>, DbError> {
        Ok(layout::check(self.session.client(), self.shards).await?.map(|_| ()))
    }

    /// The applied migrations; `None` if this user finds none.
    ///
    /// # Errors
    /// [`DbError`], also if this user may not read them.
    pub async fn history(&self, migrations: Migrations) -> Result<Option<History>, DbError> {
        let client = self.session.client();
        if schema_of_the_tables(client).await?.is_none() {
            return Ok(None);
        }
        let (parts, newest) = (migrations.parts(self.shards), migrations.newest());
        let mut history = History { known: (migrations.runner)().get_migrations().len(), ..History::default() };
        for part in &parts {
            let place = part.schema.map_or_else(String::new, |schema| format!(" in {schema}"));
            let mut applied = Vec::new();
            if let Some(schema) = part.schema
                && !schema_exists(client, schema).await?
            {
                history.missing.push(format!("schema {schema}"));
                continue;
            }
            let rows = format!("SELECT version::bigint, name, checksum FROM {} ORDER BY 1", part.history());
            for row in client.query(&rows, &[]).await? {
                let (version, name): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
                if version > newest {
                    history.newer.push(format!("V{version} {name}{place}"));
                }
                applied.push((version, row.try_get::<_, String>(2)?));
            }
            for script in &part.scripts {
                let version = i64::from(script.version());
                let named = || format!("V{version} {}{place}", script.name());
                match applied.iter().find(|(applied, _)| *applied == version) {
                    None => history.missing.push(named()),
                    Some((_, checksum)) if *checksum != script.checksum().to_string() => history.changed.push(named()),
                    Some(_) => {}
                }
            }
        }
        Ok(Some(history))
    }

    /// The privileges of this user, however it has them: granted to itself, to a role that it is a member of, or to all. With them,
    /// the triggers that are disabled.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn rights(&self, migrations: Migrations) -> Result<Rights, DbError> {
        let client = self.session.client();
        let grants = migrations.grants(self.shards);
        let tables = tables(&grants);
        let schemas: Vec<&str> = self.shards.all().filter_map(Shard::schema).collect();
        let held = client
            .query(
                "WITH own AS (
                     SELECT to_regclass(name)::oid AS oid, name AS relname FROM unnest($1::text[]) AS name
                     WHERE to_regclass(name) IS NOT NULL
                 ), whole AS (
                     SELECT own.oid, relname, privilege FROM own,
                            unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
                     WHERE has_table_privilege(own.oid, privilege)
                 )
                 SELECT relname, privilege, NULL::text AS attname FROM whole
                 UNION ALL
                 SELECT relname, privilege, attname::text FROM own JOIN pg_attribute ON attrelid = own.oid AND attnum > 0,
                        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS privilege
                 WHERE NOT attisdropped AND has_column_privilege(own.oid, attnum, privilege)
                   AND NOT EXISTS (SELECT FROM whole WHERE whole.oid = own.oid AND whole.privilege = privilege.privilege)",
                &[&tables],
            )
            .await?;
        let mut rights = BTreeSet::new();
        for row in &held {
            rights.insert(Right {
                table: row.try_get("relname")?,
                privilege: row.try_get("privilege")?,
                column: row.try_get("attname")?,
            });
        }
        let callable = client
            .query(
                "SELECT name FROM unnest($1::text[]) AS name
                 WHERE COALESCE(has_function_privilege(to_regprocedure(name), 'EXECUTE'), false)",
                &[&functions(&grants)],
            )
            .await?;
        for row in &callable {
            rights.insert(execute(row.try_get("name")?));
        }
        let row = client
            .query_one(
                "SELECT array_remove(ARRAY[
                            CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
                            CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
                            CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
                            CASE WHEN has_database_privilege(current_database(), 'CREATE') THEN 'CREATE ON DATABASE' END,
                            CASE WHEN has_schema_privilege(current_schema(), 'CREATE')
                                   OR (SELECT bool_or(has_schema_privilege(to_regnamespace(schema), 'CREATE'))
                                       FROM unnest($2::text[]) AS schema)
                                 THEN 'CREATE ON SCHEMA' END
                        ], NULL) AS attributes,
                        EXISTS (SELECT FROM unnest($1::text[]) AS name
                                JOIN pg_class ON pg_class.oid = to_regclass(name)
                                WHERE pg_has_role(relowner, 'USAGE')) AS owns_tables
                 FROM pg_roles WHERE rolname = current_user",
                &[&tables, &schemas],
            )
            .await?;
        let disabled = client
            .query_one(
                "SELECT COALESCE(array_agg(tgname || ' ON ' || name ORDER BY tgname, name), '{}')
                 FROM unnest($1::text[]) AS name JOIN pg_trigger ON tgrelid = to_regclass(name)
                 WHERE NOT tgisinternal AND tgenabled NOT IN ('O', 'A')",
                &[&tables],
            )
            .await?
            .try_get(0)?;
        let attributes = row.try_get("attributes")?;
        Ok(Rights::compare(&grants, rights, attributes, row.try_get("owns_tables")?, disabled))
    }
}
