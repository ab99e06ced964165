//! A transfer, interrupted between any two steps: both of its legs are written, or neither (FM-09, FM-10).

use purse::kernel::Role;
use serde_json::json;

use super::proxy::{CommitFault, Proxy};
use crate::support::{Client, World};
use crate::transfers::{assert_verified, owners, transfer, transfer_request};

/// The number of legs, and how much each kind of leg adds up to.
async fn legs(world: &World) -> String {
    let legs =
        "SELECT count(*), count(DISTINCT transfer_id), coalesce(sum(amount_minor) FILTER (WHERE type = 'debit'), 0),
                       coalesce(sum(amount_minor) FILTER (WHERE type = 'credit'), 0)
                FROM transactions WHERE transfer_id IS NOT NULL";
    world.sql(Role::Wallet, legs).await
}

const NEITHER: &str = "0|0|0|0";
const BOTH: &str = "2|1|60|60";

#[tokio::test]
async fn fm_09_a_crash_during_a_transfer_leaves_both_legs_or_neither_and_the_key_tells_which() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    for (point, left, again) in [
        ("ledger.begun", NEITHER, 201),
        ("ledger.locked", NEITHER, 201),
        ("ledger.decided", NEITHER, 201),
        ("ledger.committed", BOTH, 200),
    ] {
        world.sql(Role::Wallet, "SET session_replication_role = replica; DELETE FROM transactions").await;
        let users = owners(&world, &client, 2, 100).await;
        let crashing = world.spawn_with_failpoints(Role::Wallet, &format!("{point}=return"), &[]).await;
        crashing.ready().await;
        let dying = Client::new("", &crashing.url());
        let body = json!({"toUserId": users[1].id, "amountMinor": 60});
        assert!(dying.try_send(transfer_request(&dying, &users[0], &body, Some("k"))).await.is_none(), "{point}");
        crashing.aborted().await;
        assert_eq!(legs(&world).await, left, "{point}");
        let retried = transfer(&client, &users[0], &users[1], 60, Some("k")).await;
        assert_eq!((retried.status.as_u16(), legs(&world).await.as_str()), (again, BOTH), "{point}");
        assert_eq!((client.balance(&users[0]).await, client.balance(&users[1]).await), (40, 160), "{point}");
        assert_verified(&world).await;
    }
}

#[tokio::test]
async fn fm_10_a_transfer_whose_commit_is_in_doubt_is_looked_up_and_reported_correctly() {
    let world = World::new().await;
    let proxy = Proxy::start(world.addresses.postgres_port).await;
    let url = proxy.url(&world.databases.wallet.runtime_url);
    let changed = [("WALLET_DATABASE_URL", url.as_str()), ("DB_STATEMENT_TIMEOUT_MS", "1000")];
    let wallet = world.start_with(Role::Wallet, &changed).await;
    let client = Client::new("", &wallet.url());
    let users = owners(&world, &client, 2, 100).await;

    proxy.fail_next_commit(CommitFault::RequestLost);
    let lost = transfer(&client, &users[0], &users[1], 60, Some("k")).await;
    assert_eq!((lost.status.as_u16(), lost.code()), (503, "DEPENDENCY_UNAVAILABLE"), "{lost:?}");
    assert_eq!(legs(&world).await, NEITHER);

    proxy.fail_next_commit(CommitFault::ResponseLost);
    let written = transfer(&client, &users[0], &users[1], 60, Some("k")).await;
    assert_eq!(written.status, 201, "{written:?}");
    assert_eq!((legs(&world).await.as_str(), proxy.commits_intercepted()), (BOTH, 2));
    let again = transfer(&client, &users[0], &users[1], 60, Some("k")).await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &written.body));
    assert_verified(&world).await;
}
