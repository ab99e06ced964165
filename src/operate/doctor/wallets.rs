//! Users without a wallet, which only both databases together show.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::infra::config::DatabaseConfig;
use crate::infra::postgres::{Connector, DbError};
use crate::kernel::{Role, UserId};
use crate::operate::doctor::database::is_away;
use crate::operate::doctor::finding::{Check, Finding};
use crate::operate::doctor::target::NAME;
use crate::operate::failure::causes;
use crate::operate::humanize::count;
use crate::users::postgres::PgRegistrations;
use crate::wallet::postgres::PgMissingWallets;

/// Longest duration of the comparison; the newest users are compared first.
const COMPARISON_MAX: Duration = Duration::from_secs(30);
/// Users that a finding names.
const NAMED_MAX: usize = 5;

/// How far the comparison came.
#[derive(Default)]
struct Progress {
    users: usize,
    without: usize,
    /// The newest of them.
    named: Vec<UserId>,
    is_complete: bool,
}

/// `other` is the database of the other role, if its URL is known.
pub(super) async fn check(role: Role, own: &DatabaseConfig, other: Option<&DatabaseConfig>, io: Handle) -> Finding {
    let Some(other) = other else {
        let missing = match role {
            Role::Users => "WALLET_DATABASE_URL",
            Role::Wallet => "USERS_DATABASE_URL",
        };
        return Finding::skipped(Check::Wallets, format!("set {missing} too to find users without a wallet"));
    };
    let (users, wallets) = match role {
        Role::Users => (own, other),
        Role::Wallet => (other, own),
    };
    let mut progress = Progress::default();
    let deadline = Instant::now() + COMPARISON_MAX;
    match timeout_at(deadline, compare(users, wallets, io, &mut progress)).await {
        Ok(Ok(())) => progress.is_complete = true,
        Ok(Err(DbError::Shards(_))) => {
            return Finding::skipped(Check::Wallets, "the number of shards is not that of the database");
        }
        Ok(Err(e)) => {
            let advice = "Check that both databases are running and migrated, and that both URLs are correct.";
            let finding = Finding::error(Check::Wallets, causes(&e), advice);
            return Finding { unreachable: is_away(&e), ..finding };
        }
        Err(_) => {}
    }
    found(&progress)
}

async fn compare(
    users: &DatabaseConfig,
    wallets: &DatabaseConfig,
    io: Handle,
    progress: &mut Progress,
) -> Result<(), DbError> {
    let connector = |config| Connector::new(config, io.clone()).map_err(|_| DbError::Unreachable);
    let registrations = PgRegistrations::connect(&connector(users)?, NAME).await?;
    let mut missing_wallets = PgMissingWallets::connect(&connector(wallets)?, NAME).await?;
    let mut before = None;
    loop {
        let page = registrations.page(before).await?;
        before = page.last().copied();
        if before.is_none() {
            return Ok(());
        }
        let missing = missing_wallets.among(&page).await?;
        progress.users = progress.users.saturating_add(page.len());
        progress.without = progress.without.saturating_add(missing.len());
        let space = NAMED_MAX.saturating_sub(progress.named.len());
        progress.named.extend(missing.into_iter().take(space));
    }
}

fn found(progress: &Progress) -> Finding {
    if progress.users == 0 && !progress.is_complete {
        let advice = "Check the load of both databases and of the servers behind them, then try again.";
        return Finding::unreachable(Check::Wallets, "time was up before any user was compared", advice);
    }
    let users = count(u64::try_from(progress.users).unwrap_or(u64::MAX), "user");
    let scope = if progress.is_complete { users } else { format!("the newest {users}; time was up for the others") };
    if progress.without == 0 {
        return Finding::ok(Check::Wallets, format!("every user older than a minute has a wallet ({scope})"));
    }
    let named: Vec<String> = progress.named.iter().map(ToString::to_string).collect();
    let more = if progress.without > named.len() { ", …" } else { "" };
    let message = format!("{} without a wallet, of {scope}: {}{more}", progress.without, named.join(", "));
    let advice = "Look into `purse outbox status` and `purse dlq list` first. If their events are in neither, publish them \
                  again: `purse outbox republish --all`, or with --since.";
    Finding::error(Check::Wallets, message, advice)
}
