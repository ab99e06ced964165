//! Citus: puts the schemas of the shards on its workers.

use tokio_postgres::Client;

use crate::infra::postgres::shard::Shards;

/// Citus has the table from version 12 on.
const IS_THERE: &str = "SELECT to_regclass('pg_catalog.pg_dist_schema') IS NOT NULL";

/// The schemas that are on the coordinator. A user who does not own them could not distribute them.
const ON_THE_COORDINATOR: &str = "
    SELECT nspname::text FROM pg_namespace
    WHERE nspname = ANY($1::text[]) AND pg_has_role(nspowner, 'MEMBER')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_schema WHERE schemaid = pg_namespace.oid)
    ORDER BY nspname";

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
