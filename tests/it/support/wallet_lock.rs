use tokio_postgres::NoTls;

use super::{User, World};

/// A test's own transaction that holds the row lock of one wallet, so that posts to this wallet wait.
pub struct WalletLock(tokio_postgres::Client);

impl WalletLock {
    pub async fn acquire(world: &World, user: &User) -> Self {
        Self::acquire_as(&world.addresses.superuser_url(&world.databases.wallet.database), user).await
    }

    /// As the account of this URL.
    pub async fn acquire_as(url: &str, user: &User) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connected");
        tokio::spawn(connection);
        let lock = format!("BEGIN; SELECT FROM wallets WHERE user_id = '{}' FOR UPDATE", user.id);
        client.batch_execute(&lock).await.expect("locked");
        Self(client)
    }

    /// The process of the server that has the lock.
    pub async fn pid(&self) -> i32 {
        self.0.query_one("SELECT pg_backend_pid()", &[]).await.expect("a row").get(0)
    }

    pub async fn release(self) {
        self.0.batch_execute("ROLLBACK").await.expect("released");
    }

    /// Runs the statement, commits and so releases the lock.
    pub async fn write(self, statement: &str) {
        self.0.batch_execute(&format!("{statement}; COMMIT")).await.expect("committed");
    }
}
