use tokio_postgres::NoTls;
use uuid::Uuid;

use super::World;

/// An open transaction that has inserted the user's wallet. Provisioning this user, and no other, waits for it and
/// fails at the lock timeout: a transient error.
pub struct UncommittedWallet {
    client: tokio_postgres::Client,
    _connection: tokio::task::JoinHandle<()>,
}

impl UncommittedWallet {
    pub async fn insert(world: &World, user: Uuid) -> Self {
        let url = world.addresses.superuser_url(&world.databases.wallet.database);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("connected");
        let connection = tokio::spawn(async move { drop(connection.await) });
        let insert = format!("BEGIN; INSERT INTO wallets (user_id, id) VALUES ('{user}', '{user}')");
        client.batch_execute(&insert).await.expect("inserted");
        Self { client, _connection: connection }
    }

    pub async fn roll_back(self) {
        self.client.batch_execute("ROLLBACK").await.expect("rolled back");
    }
}
