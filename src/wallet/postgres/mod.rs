//! The wallet database: its schema, stores and queries.

mod holds;
mod journal;
mod ledger_audit;
mod missing_wallets;
mod multi_insert;
mod open_holds;
mod queries;
mod receipts;
mod rows;
mod sharded_database;
mod wallet_store;

pub use holds::PgHoldQueries;
pub use journal::PgJournal;
pub use ledger_audit::{AuditCursor, PgLedgerAudit, Posters};
pub use missing_wallets::PgMissingWallets;
pub use open_holds::{OpenHold, PgOpenHolds};
pub use queries::PgWalletQueries;
pub use receipts::PgReceipts;
pub use sharded_database::{Breakers, ShardedDatabase};
pub use wallet_store::PgWalletStore;

use crate::infra::postgres::{Migrations, Shards};

mod scripts {
    refinery::embed_migrations!("migrations/wallet");
}

/// The schema, and the rights of the runtime user.
pub const MIGRATIONS: Migrations = Migrations {
    runner: scripts::migrations::runner,
    // Rate limits belong to no wallet, and V9 keeps the number of the shards.
    shared: &[4, 9],
    grants: &[
        "GRANT SELECT, INSERT ON shard.wallets",
        // Never written: SELECT … FOR UPDATE requires the right to update some column.
        "GRANT UPDATE (lock_anchor) ON shard.wallets",
        "GRANT SELECT, INSERT ON shard.transactions",
        "GRANT SELECT, INSERT ON shard.entry_texts",
        "GRANT SELECT, INSERT, DELETE, UPDATE (left_minor, acts) ON shard.open_holds",
        "GRANT SELECT ON shard.hash_chain",
        "GRANT SELECT, INSERT, DELETE, UPDATE (spent_until) ON rate_limits",
        // A process without the password of the owner checks that every migration is applied.
        "GRANT SELECT ON refinery_schema_history",
        "GRANT SELECT ON shard.refinery_schema_history",
        "GRANT SELECT ON ledger_shards",
    ],
    probe: "-- health.probe
        INSERT INTO shard.wallets (user_id, id) SELECT user_id, id FROM shard.wallets WHERE false;
        SELECT user_id FROM shard.wallets WHERE false FOR UPDATE;
        INSERT INTO shard.transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, idempotency_key,
                                  request_digest, texts_digest, group_size, created_at, hash)
        SELECT user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, idempotency_key, request_digest,
               texts_digest, group_size, created_at, hash
        FROM shard.transactions WHERE false;
        INSERT INTO shard.entry_texts (user_id, seq, salt, description)
        SELECT user_id, seq, salt, description FROM shard.entry_texts WHERE false",
};

/// What readiness depends on while the database is set up. With several shards these are the tables that all of them share: a
/// server that is down with some shards must not take a process out of service that serves the others.
pub fn readiness_probe(shards: Shards) -> String {
    match shards {
        Shards::ONE => MIGRATIONS.probe(shards.first()),
        _ => SHARED_PROBE.to_owned(),
    }
}

const SHARED_PROBE: &str = "-- health.probe
    SELECT shards FROM ledger_shards WHERE false;
    INSERT INTO rate_limits (key, spent_until) SELECT key, spent_until FROM rate_limits WHERE false";

#[cfg(test)]
mod tests {
    #[test]
    fn privileges_change_only_together_with_a_script() {
        assert_eq!(super::MIGRATIONS.privileges(), (Some(9), 0xf6d8_4990_0a6b_9a2d));
    }
}
