//! The wallet database: its schema, stores and queries.

mod journal;
mod ledger_audit;
mod missing_wallets;
mod queries;
mod rows;
mod wallet_store;

pub use journal::PgJournal;
pub use ledger_audit::{AuditCursor, PgLedgerAudit};
pub use missing_wallets::PgMissingWallets;
pub use queries::PgWalletQueries;
pub use wallet_store::PgWalletStore;

use crate::infra::postgres::Migrations;

mod scripts {
    refinery::embed_migrations!("migrations/wallet");
}

/// The schema, and the rights of the runtime user.
pub const MIGRATIONS: Migrations = Migrations {
    runner: scripts::migrations::runner,
    grants: &[
        "GRANT SELECT, INSERT ON wallets",
        // Never written: SELECT … FOR UPDATE requires the right to update some column.
        "GRANT UPDATE (lock_anchor) ON wallets",
        "GRANT SELECT, INSERT ON transactions",
        "GRANT SELECT, INSERT, DELETE, UPDATE (spent_until) ON rate_limits",
        // A process without the password of the owner checks that every migration is applied.
        "GRANT SELECT ON refinery_schema_history",
    ],
    probe: "-- health.probe
        INSERT INTO wallets (user_id, id) SELECT user_id, id FROM wallets WHERE false;
        SELECT user_id FROM wallets WHERE false FOR UPDATE;
        INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, description, idempotency_key,
                                  created_at)
        SELECT user_id, seq, id, type, amount_minor, balance_after_minor, description, idempotency_key, created_at
        FROM transactions WHERE false",
};

#[cfg(test)]
mod tests {
    #[test]
    fn privileges_change_only_together_with_a_script() {
        assert_eq!(super::MIGRATIONS.privileges(), (Some(6), 0x004d_a4ba_07a7_cb5b));
    }
}
