//! The users database: its schema, stores and queries.

mod outbox_backlog;
mod outbox_retention;
mod outbox_store;
mod queries;
mod registrations;
mod user_store;

pub use outbox_backlog::{Backlog, PgOutboxBacklog, TimeRange};
pub use outbox_retention::PgPublishedEvents;
pub use outbox_store::PgOutbox;
pub use queries::PgUserQueries;
pub use registrations::PgRegistrations;
pub use user_store::PgUserStore;

use crate::infra::postgres::Migrations;

mod scripts {
    refinery::embed_migrations!("migrations/users");
}

/// The schema, and the rights of the runtime user.
pub const MIGRATIONS: Migrations = Migrations {
    runner: scripts::migrations::runner,
    shared: &[],
    grants: &[
        "GRANT SELECT, INSERT ON users",
        "GRANT UPDATE (password_hash) ON users",
        "GRANT SELECT, INSERT ON outbox",
        "GRANT UPDATE (status, attempts, last_error, published_at, next_attempt_at, claimed_until, claim_token) ON outbox",
        "GRANT EXECUTE ON FUNCTION delete_expired_events(double precision, bigint)",
        "GRANT SELECT ON outbox_retention",
        "GRANT SELECT, INSERT, DELETE, UPDATE (spent_until) ON rate_limits",
        // A process without the password of the owner checks that every migration is applied.
        "GRANT SELECT ON refinery_schema_history",
    ],
    probe: "-- health.probe
        INSERT INTO users (id, first_name, last_name, email, password_hash, created_at, registration_key)
        SELECT id, first_name, last_name, email, password_hash, created_at, registration_key FROM users WHERE false;
        UPDATE users SET password_hash = password_hash WHERE false;
        INSERT INTO outbox (id, type, payload_json, request_id, traceparent)
        SELECT id, type, payload_json, request_id, traceparent FROM outbox WHERE false;
        UPDATE outbox SET status = status, attempts = attempts, last_error = last_error, published_at = published_at,
               next_attempt_at = next_attempt_at, claimed_until = claimed_until, claim_token = claim_token WHERE false",
};

#[cfg(test)]
mod tests {
    #[test]
    fn privileges_change_only_together_with_a_script() {
        assert_eq!(super::MIGRATIONS.privileges(), (Some(7), 0x41fd_f104_3780_93dd));
    }
}
