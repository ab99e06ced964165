//! PostgreSQL without a schema: connections, units of work with a deadline, long reads, error classes, migrations. The one
//! exception is a table that both roles have: the counts of shared rate limits.

mod connect;
mod database;
mod error;
mod find_out;
mod gate;
mod migrate;
mod session;
mod shared_counts;

pub use connect::{Connector, is_database_url};
pub use database::{Client, Database, PoolOptions, Work};
pub use error::{DbError, violated_constraint};
pub use find_out::find_out;
pub use migrate::{MigrateError, Migrated, Migration, Migrations, migrate};
pub use session::Session;
pub use shared_counts::{CountKey, Decision, SharedCounts};
