//! A connection outside of the pools, for statements of any duration.

use tokio::task::JoinHandle;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::infra::postgres::connect::{Connector, driver_config};
use crate::infra::postgres::error::DbError;

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
        let driver = driver_config(&connector.config.url, application_name, None)?;
        let tls = connector.tls.clone();
        let connected = connector.io.spawn(async move { driver.connect(tls).await });
        let (client, connection) = connected.await.map_err(|_| DbError::Panicked)??;
        let driver = connector.io.spawn(async move { drop(connection.await) });
        // Limits of the database or the user would cancel a long read. The check interval cancels it on the server when this
        // process is killed.
        client
            .batch_execute(
                "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
                 SET client_connection_check_interval = '1s'",
            )
            .await?;
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
