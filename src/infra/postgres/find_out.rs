//! Finds out whether a commit succeeded whose response was lost.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::infra::postgres::DbError;

/// How long the outcome of an interrupted commit is looked up before it is reported as unknown, and the pause between
/// two attempts.
const LOOK_UP_MAX: Duration = Duration::from_secs(2);
const LOOK_UP_PAUSE: Duration = Duration::from_millis(200);

/// Repeats `look_up` until it succeeds. It must not return `false` before it has waited for the interrupted transaction,
/// which may still be committing. It must end with a commit after a write or a row lock before it returns `true`: where
/// commits wait for a standby, that commit waits too, so that a failover cannot lose what was reported.
///
/// # Errors
/// The last error, if the database is unreachable for too long.
pub async fn find_out<F: Future<Output = Result<bool, DbError>>>(look_up: impl Fn() -> F) -> Result<bool, DbError> {
    let give_up = Instant::now() + LOOK_UP_MAX;
    loop {
        match look_up().await {
            Err(_) if Instant::now() < give_up => tokio::time::sleep(LOOK_UP_PAUSE).await,
            known => return known,
        }
    }
}
