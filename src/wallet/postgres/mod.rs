//! The wallet database: its schema, and the stores over it.

mod journal;
mod ledger_audit;
mod queries;
mod rows;
mod wallet_store;

pub use journal::PgJournal;
pub use ledger_audit::{PgLedgerAudit, Recount};
pub use queries::PgWalletQueries;
pub use wallet_store::PgWalletStore;

use crate::infra::postgres::Migrations;

mod scripts {
    refinery::embed_migrations!("migrations/wallet");
}

/// What this role's database needs.
pub const MIGRATIONS: Migrations = Migrations {
    runner: scripts::migrations::runner,
    grants: &[
        "GRANT SELECT, INSERT ON wallets",
        // Nothing is ever written there: SELECT … FOR UPDATE asks for the right to update some column.
        "GRANT UPDATE (lock_anchor) ON wallets",
        "GRANT SELECT, INSERT ON transactions",
        "GRANT SELECT, INSERT, DELETE, UPDATE (spent_until) ON rate_limits",
        // What has been applied: a process without the owner's password sees that nothing is missing.
        "GRANT SELECT ON refinery_schema_history",
    ],
};
