//! The number of shards that a database was set up with, compared with the configured one.

use tokio_postgres::Client;

use crate::infra::postgres::shard::Shards;

/// The configured number of shards is not that of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "WALLET_SHARDS is {configured}, but the database was set up with {stored}; set WALLET_SHARDS={stored}, because the number of \
     shards cannot be changed"
)]
pub struct ShardsDiffer {
    configured: Shards,
    stored: i64,
}

/// Compares `shards` with the database, in which this user has to be able to read the table `ledger_shards`. Returns whether the
/// database has been set up.
pub(super) async fn check(
    client: &Client,
    shards: Shards,
) -> Result<Result<bool, ShardsDiffer>, tokio_postgres::Error> {
    Ok(match stored_shards(client).await? {
        None => Ok(false),
        Some(stored) if stored == i64::from(shards.count()) => Ok(true),
        Some(stored) => Err(ShardsDiffer { configured: shards, stored }),
    })
}

/// `None` before the first script of the tables has been applied, also if setting up was interrupted.
async fn stored_shards(client: &Client) -> Result<Option<i64>, tokio_postgres::Error> {
    let found = client
        .query_one(
            "SELECT to_regclass('ledger_shards') IS NOT NULL AS is_kept,
                    to_regclass('refinery_schema_history') IS NOT NULL AS has_history",
            &[],
        )
        .await?;
    if found.try_get("is_kept")? {
        let kept = client.query_opt("SELECT shards::bigint FROM ledger_shards", &[]).await?;
        kept.map(|row| row.try_get(0)).transpose()
    } else if found.try_get("has_history")? {
        // Set up by an older release, or without shards.
        let tables = client.query_opt("SELECT 1::bigint FROM refinery_schema_history WHERE version = 1", &[]).await?;
        tables.map(|row| row.try_get(0)).transpose()
    } else {
        Ok(None)
    }
}
