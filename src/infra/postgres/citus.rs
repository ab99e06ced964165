//! Citus: puts the schemas of the shards on its workers, and says which of them are on the same one.

use tokio_postgres::Client;

use crate::infra::postgres::shard::{Shard, Shards};

/// Citus has the table from version 12 on.
const IS_THERE: &str = "SELECT to_regclass('pg_catalog.pg_dist_schema') IS NOT NULL";

/// The schemas that are on the coordinator. A user who does not own them could not distribute them.
const ON_THE_COORDINATOR: &str = "
    SELECT nspname::text FROM pg_namespace
    WHERE nspname = ANY($1::text[]) AND pg_has_role(nspowner, 'MEMBER')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_schema WHERE schemaid = pg_namespace.oid)
    ORDER BY nspname";

/// The coordinator answers, also while workers do not.
const PLACES: &str = "
    SELECT nspname::text, groupid
    FROM pg_catalog.pg_dist_shard
    JOIN pg_catalog.pg_dist_placement USING (shardid)
    JOIN pg_catalog.pg_class ON pg_class.oid = logicalrelid
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = 'wallets' AND nspname = ANY($1::text[])";

/// The number of the worker that has each of the shards; none without Citus.
///
/// # Errors
/// An error of the server or of the connection.
pub async fn workers(client: &Client, shards: Shards) -> Result<Vec<(Shard, i32)>, tokio_postgres::Error> {
    if shards == Shards::ONE || !client.query_one(IS_THERE, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    let mut workers = Vec::new();
    for row in client.query(PLACES, &[&shards.schemas()]).await? {
        let (schema, worker): (&str, i32) = (row.try_get(0)?, row.try_get(1)?);
        workers.extend(shards.all().find(|shard| shard.schema() == Some(schema)).map(|shard| (shard, worker)));
    }
    Ok(workers)
}

/// The schemas on the worker of `schema`, one of them.
pub(super) async fn beside(
    client: &Client,
    shards: Shards,
    schema: &str,
) -> Result<Vec<&'static str>, tokio_postgres::Error> {
    let workers = workers(client, shards).await?;
    let own = workers.iter().find(|(shard, _)| shard.schema() == Some(schema)).map(|(_, worker)| worker);
    Ok(workers.iter().filter(|(_, worker)| Some(worker) == own).filter_map(|(shard, _)| shard.schema()).collect())
}

/// Distributes the schemas that are not distributed yet, each to the worker whose turn it is, with the rows that they have. Returns
/// their names: none without Citus.
pub(super) async fn distribute(client: &Client, shards: Shards) -> Result<Vec<String>, tokio_postgres::Error> {
    if shards == Shards::ONE || !client.query_one(IS_THERE, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    let mut distributed = Vec::new();
    for row in client.query(ON_THE_COORDINATOR, &[&shards.schemas()]).await? {
        let schema: String = row.try_get(0)?;
        // The triggers read nothing of another shard.
        client.batch_execute("SET citus.enable_unsafe_triggers = on").await?;
        client.execute("SELECT citus_schema_distribute($1::text::regnamespace)", &[&schema]).await?;
        distributed.push(schema);
    }
    Ok(distributed)
}
