//! What keeps one wallet from being made, and no other.

use tokio_postgres::NoTls;
use uuid::Uuid;

use super::World;

/// A transaction that has begun to make the user's wallet and does not end: whoever else makes it has to wait, and
/// gives up at the lock timeout. A failure that may pass, for this one user alone.
pub struct Obstacle {
    client: tokio_postgres::Client,
    _connection: tokio::task::JoinHandle<()>,
}

impl Obstacle {
    pub async fn before(world: &World, user: Uuid) -> Self {
        let url = world.addresses.superuser_url(&world.databases.wallet.database);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("connected");
        let connection = tokio::spawn(async move { drop(connection.await) });
        let insert = format!("BEGIN; INSERT INTO wallets (user_id, id) VALUES ('{user}', '{user}')");
        client.batch_execute(&insert).await.expect("begun");
        Self { client, _connection: connection }
    }

    pub async fn vanish(self) {
        self.client.batch_execute("ROLLBACK").await.expect("rolled back");
    }
}
