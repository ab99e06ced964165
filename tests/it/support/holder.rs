//! What keeps the posts of one wallet waiting, and no other's.

use tokio_postgres::NoTls;

use super::{User, World};

/// Somebody else's transaction that has the lock of a wallet.
pub struct Holder(tokio_postgres::Client);

impl Holder {
    pub async fn of(world: &World, user: &User) -> Self {
        let url = world.addresses.superuser_url(&world.databases.wallet.database);
        let (holder, connection) = tokio_postgres::connect(&url, NoTls).await.expect("connected");
        tokio::spawn(connection);
        let hold = format!("BEGIN; SELECT FROM wallets WHERE user_id = '{}' FOR UPDATE", user.id);
        holder.batch_execute(&hold).await.expect("held");
        Self(holder)
    }

    pub async fn lets_go(self) {
        self.0.batch_execute("ROLLBACK").await.expect("let go");
    }

    /// Does this with the wallet, and lets go.
    pub async fn writes(self, statement: &str) {
        self.0.batch_execute(&format!("{statement}; COMMIT")).await.expect("written");
    }
}
