//! Without the sweeper, which ends holds within a second, whatever meets a due hold has to end it.

use futures_util::future::join_all;
use purse::kernel::Role;
use serde_json::json;

use crate::holds::{DatabaseClock, assert_valid_ledger, capture, funds, held, held_for, is, kinds, owner, page, state};
use crate::support::{Client, PATIENCE, RoleProcess, Scrape, User, World, assert_error, eventually};

async fn started(world: &World, cents: i64) -> (RoleProcess, Client, User) {
    let wallet = world.spawn_with_failpoints(Role::Wallet, "holds.sweep=return", &[]).await;
    wallet.ready().await;
    let client = Client::new("", &wallet.url());
    let user = owner(world, &client, cents).await;
    (wallet, client, user)
}

#[tokio::test]
async fn a_capture_after_the_time_of_its_hold_ends_it_and_is_refused() {
    let world = World::new().await;
    let clock = DatabaseClock::set_up(&world).await;
    let (_wallet, client, user) = started(&world, 100).await;
    let id = held_for(&client, &user, 60, 60).await;
    clock.set(61).await;
    assert_error(&capture(&client, &user, &id, &json!({}), None).await, 409, "HOLD_EXPIRED", "the first");
    assert_error(&capture(&client, &user, &id, &json!({}), None).await, 409, "HOLD_EXPIRED", "and the second");
    assert_eq!(kinds(&world, &user).await, "credit hold expire");
    assert_eq!(funds(&client, &user).await, [100, 0, 100]);
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn an_expired_hold_binds_nothing_before_its_end_is_written() {
    let world = World::new().await;
    let clock = DatabaseClock::set_up(&world).await;
    let (wallet, client, user) = started(&world, 100).await;
    let kept = held(&client, &user, 10).await;
    let id = held_for(&client, &user, 60, 60).await;
    clock.set(61).await;
    assert_eq!(funds(&client, &user).await, [100, 10, 90]);
    assert_eq!(state(&client, &user, &id).await, is("expired", 0, 0));
    assert_eq!(page(&client, &user, "").await.0, std::slice::from_ref(&kept));
    assert_eq!(page(&client, &user, "status=all").await.0, [id.clone(), kept]);
    assert_eq!(kinds(&world, &user).await, "credit hold hold", "reads write nothing");
    eventually(PATIENCE, "the metric shows the overdue hold", || async {
        let overdue = Scrape::of(&wallet.url()).await.number("purse_holds_overdue_seconds");
        overdue.filter(|seconds| *seconds >= 1.0)
    })
    .await;
    assert_eq!(client.post(&user, "debit", 90, None).await.status, 201);
    assert_eq!(kinds(&world, &user).await, "credit hold hold expire debit");
    assert_eq!(state(&client, &user, &id).await, is("expired", 0, 0));
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn nobody_is_refused_for_money_that_more_expired_holds_bind_than_one_batch_ends() {
    let world = World::new().await;
    let clock = DatabaseClock::set_up(&world).await;
    let (_wallet, client, user) = started(&world, 450).await;
    join_all((0..450).map(|_| held_for(&client, &user, 1, 60))).await;
    clock.set(61).await;
    assert_eq!(funds(&client, &user).await, [450, 0, 450], "before anything was written");
    // The first one needs what holds of four further batches bind; the second comes after it all the same.
    let (all, credit) = tokio::join!(client.post(&user, "debit", 450, None), async {
        eventually(PATIENCE, "the first holds have ended", || async {
            kinds(&world, &user).await.contains("expire").then_some(())
        })
        .await;
        client.post(&user, "credit", 7, None).await
    });
    assert_eq!((all.status.as_u16(), credit.status.as_u16()), (201, 201), "{all:?} {credit:?}");
    assert_error(&client.post(&user, "debit", 8, None).await, 409, "INSUFFICIENT_FUNDS", "there are only 7");
    assert_eq!(kinds(&world, &user).await.matches("expire").count(), 450);
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn a_crash_while_a_refused_debit_ends_a_due_hold_ends_the_hold_once() {
    for (point, left) in [
        ("ledger.locked", "credit hold"),
        ("ledger.decided", "credit hold"),
        ("ledger.committed", "credit hold expire"),
    ] {
        let world = World::new().await;
        let clock = DatabaseClock::set_up(&world).await;
        // The first two batches write the credit and the hold.
        let points = format!("holds.sweep=return;{point}=2*off->return");
        let crashing = world.spawn_with_failpoints(Role::Wallet, &points, &[]).await;
        crashing.ready().await;
        let dying = Client::new("", &crashing.url());
        let user = owner(&world, &dying, 100).await;
        let id = held_for(&dying, &user, 60, 60).await;
        clock.set(61).await;
        let debit = |client: &Client| client.post_request(&user, "debit", &json!({"amountMinor": 101}), Some("k"));
        assert!(dying.try_send(debit(&dying)).await.is_none(), "{point}");
        crashing.aborted().await;
        assert_eq!(kinds(&world, &user).await, left, "{point}");

        let wallet = world.spawn_with_failpoints(Role::Wallet, "holds.sweep=return", &[]).await;
        wallet.ready().await;
        let client = Client::new("", &wallet.url());
        for attempt in ["the first retry", "the second retry"] {
            let about = format!("{point}: {attempt}");
            assert_error(&client.send(debit(&client)).await, 409, "INSUFFICIENT_FUNDS", &about);
            assert_eq!(kinds(&world, &user).await, "credit hold expire", "{about}");
            assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM open_holds").await, "0", "{about}");
        }
        assert_eq!(state(&client, &user, &id).await, is("expired", 0, 0), "{point}");
        assert_eq!(funds(&client, &user).await, [100, 0, 100], "{point}");
        assert_valid_ledger(&world).await;
    }
}
