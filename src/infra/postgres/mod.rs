//! PostgreSQL without a schema: connections, units of work with a deadline, long reads, error classes, migrations. The one
//! exception is a table that both roles have: the counts of shared rate limits.

mod citus;
mod connect;
mod database;
mod error;
mod find_out;
mod gate;
mod inspect;
mod layout;
mod migrate;
mod pool;
mod reminders;
mod rights;
mod session;
mod shard;
mod shared_counts;
mod tls;
mod url;

pub use citus::workers;
pub use connect::Connector;
pub use database::{BEGIN, Client, Database, PoolOptions, Probing, Work, begin};
pub use error::{DbError, violated_constraint};
pub use find_out::find_out;
pub use inspect::{COMMIT, History, Inspector, ServerState, confirms_commits};
pub use migrate::{MigrateError, Migrated, Migrations, Unreachable, check_runtime_user, migrate};
pub use reminders::with_reminders;
pub use rights::Rights;
pub use session::Session;
pub use shard::{Shard, ShardStatement, Shards};
pub use shared_counts::{CountKey, Decision, SharedCounts};
pub use url::{database_url_doubt, database_url_problem, is_database_url, url_without_password};
