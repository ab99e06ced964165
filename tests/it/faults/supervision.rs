//! Every actor of both roles panics in every place that it has, and the role does its work all the same.

use purse::kernel::Role;
use uuid::Uuid;

use super::{FAST_LADDER, start_with_failpoints};
use crate::support::{Client, PATIENCE, RoleProcess, World, assert_error, eventually};

/// How often an actor was built again after a panic.
fn rebuilt(process: &RoleProcess, actor: &str) -> usize {
    process.logged("actor ended and is built again").iter().filter(|line| line["actor"] == actor).count()
}

async fn is_live(process: &RoleProcess) -> bool {
    reqwest::get(format!("{}/health/live", process.url())).await.is_ok_and(|answer| answer.status() == 200)
}

#[tokio::test]
async fn every_actor_of_the_users_role_is_built_again_wherever_it_panics() {
    let world = World::new().await;
    // Constructor, handler, timer, unit of work on the database, unit of work at the broker. The database's fails its
    // batch alone.
    let points = "outbox_poller=1*panic;outbox_poller.wake=1*panic;outbox_poller.tick=1*panic;users.S5=1*panic;amqp.written=1*panic;\
                  database_probe=1*panic;database_probe.ask=1*panic;housekeeper=1*panic;password_hasher=1*panic;http=1*panic";
    let (users, _wallet, client) =
        start_with_failpoints(&world, Role::Users, points, &[("OUTBOX_LEASE_MS", "6000")]).await;
    eventually(PATIENCE, "the listener is built again", || async { is_live(&users).await.then_some(()) }).await;
    let user = eventually(PATIENCE, "the hasher is built again", || async {
        Client::registered_user(&client.register(&Client::fresh_email()).await)
    })
    .await;
    let status = eventually(PATIENCE, "the wallet is there", || async {
        let status = client.get(&user, "/v1/wallet/status?wait=5").await;
        (status.status == 200).then_some(status)
    });
    status.await;
    for (actor, times) in
        [("outbox_poller", 4), ("database_probe", 2), ("housekeeper", 1), ("password_hasher", 1), ("http", 1)]
    {
        eventually(PATIENCE, &format!("{actor} was built again {times} times\n{}", users.output()), || async {
            (rebuilt(&users, actor) == times).then_some(())
        })
        .await;
    }
    assert!(is_live(&users).await);
    users.ready().await;
}

#[tokio::test]
async fn every_actor_of_the_wallet_role_is_built_again_wherever_it_panics() {
    let world = World::new().await;
    let points = "provision_consumer=1*panic;provision_consumer.delivery=1*panic;wallet.S10=1*panic;\
                  retry_router=1*panic;retry_router.publish=1*panic;amqp.written=1*panic;\
                  ledger_writer=1*panic;ledger_writer.post=1*panic;ledger_writer.batch=1*panic";
    let (wallet, _users, client) = start_with_failpoints(&world, Role::Wallet, points, FAST_LADDER).await;
    let user = client.user().await;
    eventually(PATIENCE, "the wallet is there", || async {
        (client.get(&user, "/v1/wallet/status?wait=5").await.status == 200).then_some(())
    })
    .await;
    world.broker.publish("domain.events", "user.registered", b"poison", Some("poison"), &[]).await;
    eventually(PATIENCE, "the poison is a dead letter", || async {
        (world.broker.depth("wallet.provision.dlq").await? >= 1).then_some(())
    })
    .await;
    let made = eventually(PATIENCE, "the credit is made", || async {
        let answer = client.post(&user, "credit", 5, Some("k")).await;
        answer.status.is_success().then_some(answer)
    });
    assert_eq!(made.await.body["balanceAfterMinor"], 5);
    for (actor, times) in [("provision_consumer", 3), ("retry_router", 3), ("ledger_writer", 3)] {
        assert_eq!(rebuilt(&wallet, actor), times, "{actor}\n{}", wallet.output());
    }
    assert!(is_live(&wallet).await);
    wallet.ready().await;
}

#[tokio::test]
async fn an_actor_that_panics_more_often_than_its_budget_ends_the_process_with_70() {
    let world = World::new().await;
    for (role, actor) in [(Role::Users, "housekeeper"), (Role::Wallet, "ledger_writer")] {
        let mut process = world.spawn_with_failpoints(role, &format!("{actor}=panic"), &[]).await;
        assert_eq!(process.exited().await.code(), Some(70), "{}", process.output());
        assert_eq!(rebuilt(&process, actor), 5, "{}", process.output());
        assert_eq!(process.logged("actor ended too often and is given up").len(), 1);
        assert!(process.stderr().contains(&format!("actor {actor} ended too often")), "{}", process.stderr());
    }
}

#[tokio::test]
async fn a_handler_that_panics_is_a_500_in_our_form_and_its_thread_serves_the_next_request() {
    let world = World::new().await;
    let one_thread = [("HTTP_WORKERS", "1")];
    let points = "http.handler=3*panic;password_hasher.job=1*panic";
    let (users, _wallet, client) = start_with_failpoints(&world, Role::Users, points, &one_thread).await;
    assert_error(&client.register(&Client::fresh_email()).await, 500, "INTERNAL_ERROR", "a hash that panics");
    let user = client.user().await;
    for n in 0..3 {
        assert_error(&client.me(&user.token).await, 500, "INTERNAL_ERROR", &format!("panic {n}"));
    }
    assert_eq!(client.me(&user.token).await.status, 200);
    eventually(PATIENCE, "four panics are told", || async { (users.logged("panicked").len() == 4).then_some(()) })
        .await;
    assert!(is_live(&users).await);
}

#[tokio::test]
async fn fp_25_a_delivery_whose_handler_panics_climbs_the_ladder_alone() {
    let world = World::new().await;
    let (poison, innocent) = (Uuid::now_v7(), Uuid::now_v7());
    let points = format!("wallet.provision.{poison}=panic");
    let wallet = world.spawn_with_failpoints(Role::Wallet, &points, FAST_LADDER).await;
    wallet.ready().await;
    for (user, id) in [(poison, "poison"), (innocent, "innocent")] {
        world.publish_event(user, id).await;
    }
    let dead =
        eventually(PATIENCE, "a dead letter", || async { world.broker.take("wallet.provision.dlq").await }).await;
    assert_eq!(dead.id.as_deref(), Some("poison"));
    assert!(dead.headers["x-error"].contains("the handler panicked"), "{dead:?}");
    let wallets = format!("SELECT user_id FROM wallets WHERE user_id IN ('{poison}', '{innocent}')");
    assert_eq!(world.sql(Role::Wallet, &wallets).await, innocent.to_string());
    assert_eq!(rebuilt(&wallet, "provision_consumer"), 0, "a panic over one delivery is not the consumer's end");
}

#[tokio::test]
async fn fp_26_a_delivery_that_ends_the_process_each_time_takes_no_innocent_with_it() {
    let world = World::new().await;
    let culprit = Uuid::now_v7();
    let innocents: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
    let points = format!("wallet.provision.{culprit}=return");
    // The queue is there before the process that dies over it.
    drop(world.start(Role::Wallet).await);
    for (n, user) in innocents.iter().enumerate() {
        if n == 20 {
            world.publish_event(culprit, "culprit").await;
        }
        world.publish_event(*user, "innocent").await;
    }
    // Started again each time, as whoever watches a process would do.
    let mut deaths = 0;
    while world.broker.depth("wallet.provision.dlq").await == Some(0) {
        let mut wallet = RoleProcess::spawn(&["--role", "wallet"], &{
            let mut settings = world.settings(Role::Wallet);
            settings.insert("FAILPOINTS".to_owned(), points.clone());
            settings
        });
        eventually(PATIENCE, "it dies, or the culprit is a dead letter", || {
            let ended = wallet.has_exited();
            let broker = &world.broker;
            async move { (ended || broker.depth("wallet.provision.dlq").await != Some(0)).then_some(()) }
        })
        .await;
        deaths += usize::from(wallet.has_exited());
        assert!(deaths <= 30, "the broker gives it up after twenty deliveries");
    }
    let _wallet = world.start(Role::Wallet).await;
    let count = "SELECT count(*) FROM wallets";
    eventually(PATIENCE, "every innocent has a wallet", || async {
        (world.sql(Role::Wallet, count).await == "40").then_some(())
    })
    .await;
    assert_eq!(world.broker.ids_in("wallet.provision.dlq").await, ["culprit".to_owned()].into());
}
