//! A connection outside of the pools, for statements of any duration.

use std::sync::Arc;

use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::infra::postgres::connect::{Connector, Server};
use crate::infra::postgres::error::DbError;
use crate::infra::postgres::layout;
use crate::infra::postgres::shard::Shards;

/// Where Citus has the shards, the role of the runtime user has limits on the workers. They are for requests, and a snapshot may take
/// longer. On a server without Citus its setting is one that nothing reads.
const WITHOUT_LIMITS_ON_WORKERS: &str = "SET LOCAL citus.propagate_set_commands = 'local';
    SET LOCAL statement_timeout = 0;
    SET LOCAL lock_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0";

/// A connection without the limits of a unit of work: for commands of an operator, never for requests.
pub struct Session {
    client: Client,
    is_sharded: bool,
}

impl Session {
    /// Connects as the runtime user. `application_name` is shown in `pg_stat_activity`.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn open(connector: &Connector, application_name: &'static str) -> Result<Self, DbError> {
        Self::open_on(Server::AsTheUrlSays, connector, application_name).await
    }

    /// The same, and checks that the database has as many shards as are configured.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn open_sharded(connector: &Connector, application_name: &'static str) -> Result<Self, DbError> {
        let Self { client, .. } = Self::open(connector, application_name).await?;
        layout::check(&client, connector.shards()).await??;
        Ok(Self { client, is_sharded: connector.shards() != Shards::ONE })
    }

    pub(super) async fn open_on(
        server: Server,
        connector: &Connector,
        application_name: &'static str,
    ) -> Result<Self, DbError> {
        let servers = Arc::clone(&connector.runtime);
        let opened = connector.io.spawn(async move { servers.open(application_name, None, server).await });
        // What drives it runs on the IO runtime, and ends with the client.
        Ok(Self { client: opened.await.map_err(|_| DbError::Panicked)??.client, is_sharded: false })
    }

    /// For statements that are each their own transaction.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Begins a read-only transaction on a snapshot of the database.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn snapshot(&mut self) -> Result<Transaction<'_>, DbError> {
        let begun = self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let tx = begun.start().await?;
        if self.is_sharded {
            tx.batch_execute(WITHOUT_LIMITS_ON_WORKERS).await?;
        }
        Ok(tx)
    }
}
