//! A connection outside of the pools, for statements of any duration.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::infra::postgres::connect::{Connector, Server};
use crate::infra::postgres::error::DbError;

/// Limits of the database or the account are meant for requests, and would cancel a long statement or a wait. Those that
/// this server does not have are left out. The check interval cancels a statement on the server when this process is killed.
pub(super) const UNLIMITED: &str =
    "SELECT set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '1s' ELSE '0' END, false)
     FROM pg_settings
     WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
                    'transaction_timeout', 'client_connection_check_interval')";

/// A connection without the limits of a unit of work: for commands of an operator, never for requests.
pub struct Session {
    client: Client,
    /// Runs on the IO runtime; ends with the client.
    _driver: JoinHandle<()>,
}

impl Session {
    /// Connects as the runtime user. `application_name` is shown in `pg_stat_activity`.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn open(connector: &Connector, application_name: &'static str) -> Result<Self, DbError> {
        Self::open_on(Server::AsTheUrlSays, connector, application_name).await
    }

    pub(super) async fn open_on(
        server: Server,
        connector: &Connector,
        application_name: &'static str,
    ) -> Result<Self, DbError> {
        let servers = Arc::clone(&connector.runtime);
        let opened = connector.io.spawn(async move { servers.open(application_name, None, server).await });
        let (client, driver) = opened.await.map_err(|_| DbError::Panicked)??;
        client.batch_execute(UNLIMITED).await?;
        Ok(Self { client, _driver: driver })
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
        Ok(begun.start().await?)
    }
}
