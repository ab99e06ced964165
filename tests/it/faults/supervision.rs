//! Every actor of both roles panics at every place where it can, and the role still does its work.

use purse::kernel::Role;
use uuid::Uuid;

use super::{FAST_LADDER, start_with_failpoints};
use crate::support::{Client, PATIENCE, RoleProcess, World, assert_error, eventually};

/// How often an actor was restarted after a panic.
fn restarts(process: &RoleProcess, actor: &str) -> usize {
    process.logged("actor ended; restarting it").iter().filter(|line| line["actor"] == actor).count()
}

async fn is_live(process: &RoleProcess) -> bool {
    reqwest::get(format!("{}/health/live", process.url())).await.is_ok_and(|response| response.status() == 200)
}

#[tokio::test]
async fn every_actor_of_the_users_role_is_restarted_wherever_it_panics() {
    let world = World::new().await;
    // Constructor, handler, timer, database work, broker work. A panic in database work fails only its batch.
    let points = "outbox_poller=1*panic;outbox_poller.wake=1*panic;outbox_poller.tick=1*panic;users.S5=1*panic;amqp.written=1*panic;\
                  database_probe=1*panic;database_probe.probe=1*panic;housekeeper=1*panic;password_hasher=1*panic;http=1*panic";
    let (users, _wallet, client) =
        start_with_failpoints(&world, Role::Users, points, &[("OUTBOX_LEASE_MS", "6000")]).await;
    eventually(PATIENCE, "the listener is restarted", || async { is_live(&users).await.then_some(()) }).await;
    let user = eventually(PATIENCE, "the hasher is restarted", || async {
        Client::registered_user(&client.register(&Client::fresh_email()).await)
    })
    .await;
    eventually(PATIENCE, "the wallet exists", || async {
        (client.get(&user, "/v1/wallet/status?wait=5").await.status == 200).then_some(())
    })
    .await;
    for (actor, times) in
        [("outbox_poller", 4), ("database_probe", 2), ("housekeeper", 1), ("password_hasher", 1), ("http", 1)]
    {
        eventually(PATIENCE, &format!("{actor} is restarted {times} times\n{}", users.output()), || async {
            (restarts(&users, actor) == times).then_some(())
        })
        .await;
    }
    assert!(is_live(&users).await);
    users.ready().await;
}

#[tokio::test]
async fn every_actor_of_the_wallet_role_is_restarted_wherever_it_panics() {
    let world = World::new().await;
    let points = "provision_consumer=1*panic;provision_consumer.delivery=1*panic;wallet.S10=1*panic;\
                  retry_router=1*panic;retry_router.publish=1*panic;amqp.written=1*panic;\
                  topology_keeper=1*panic;topology_keeper.pass=1*panic;\
                  ledger_writer=1*panic;ledger_writer.post=1*panic;ledger_writer.batch=1*panic";
    let (wallet, _users, client) = start_with_failpoints(&world, Role::Wallet, points, FAST_LADDER).await;
    let user = client.user().await;
    eventually(PATIENCE, "the wallet exists", || async {
        (client.get(&user, "/v1/wallet/status?wait=5").await.status == 200).then_some(())
    })
    .await;
    world.broker.publish("domain.events", "user.registered", b"poison", Some("poison"), &[]).await;
    eventually(PATIENCE, "the poison message is dead-lettered", || async {
        (world.broker.depth("wallet.provision.dlq").await? >= 1).then_some(())
    })
    .await;
    let credit = eventually(PATIENCE, "the credit is written", || async {
        let response = client.post(&user, "credit", 5, Some("k")).await;
        response.status.is_success().then_some(response)
    });
    assert_eq!(credit.await.body["balanceAfterMinor"], 5);
    for (actor, times) in [("provision_consumer", 3), ("retry_router", 3), ("topology_keeper", 2), ("ledger_writer", 3)]
    {
        assert_eq!(restarts(&wallet, actor), times, "{actor}\n{}", wallet.output());
    }
    assert!(is_live(&wallet).await);
    wallet.ready().await;
}

#[tokio::test]
async fn an_actor_that_exceeds_its_restart_budget_ends_the_process_with_exit_code_70() {
    let world = World::new().await;
    for (role, actor) in [(Role::Users, "housekeeper"), (Role::Wallet, "ledger_writer")] {
        let mut process = world.spawn_with_failpoints(role, &format!("{actor}=panic"), &[]).await;
        assert_eq!(process.exited().await.code(), Some(70), "{}", process.output());
        assert_eq!(restarts(&process, actor), 5, "{}", process.output());
        assert_eq!(process.logged("actor exceeded its restart budget; giving up").len(), 1);
        assert!(
            process.stderr().contains(&format!("actor {actor} exceeded its restart budget")),
            "{}",
            process.stderr()
        );
    }
}

#[tokio::test]
async fn a_panicking_handler_is_a_500_in_the_error_format_and_its_thread_serves_the_next_request() {
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
    eventually(PATIENCE, "four panics are logged", || async { (users.logged("panicked").len() == 4).then_some(()) })
        .await;
    assert!(is_live(&users).await);
}

#[tokio::test]
async fn fp_25_a_delivery_whose_handler_panics_is_the_only_one_to_climb_the_ladder() {
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
    assert_eq!(restarts(&wallet, "provision_consumer"), 0, "a panic in one delivery does not restart the consumer");
}

#[tokio::test]
async fn fp_26_a_delivery_that_always_crashes_the_process_is_the_only_one_dead_lettered() {
    let world = World::new().await;
    let culprit = Uuid::now_v7();
    let innocents: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
    let points = format!("wallet.provision.{culprit}=return");
    // Declares the queue before the process that crashes consumes from it.
    drop(world.start(Role::Wallet).await);
    for (n, user) in innocents.iter().enumerate() {
        if n == 20 {
            world.publish_event(culprit, "culprit").await;
        }
        world.publish_event(*user, "innocent").await;
    }
    // Restarts the process each time, as a process manager would.
    let mut crashes = 0;
    while world.broker.depth("wallet.provision.dlq").await == Some(0) {
        let mut wallet = RoleProcess::spawn(&["--role", "wallet"], &{
            let mut settings = world.settings(Role::Wallet);
            settings.insert("FAILPOINTS".to_owned(), points.clone());
            settings
        });
        eventually(PATIENCE, "it crashes, or the culprit is dead-lettered", || {
            let ended = wallet.has_exited();
            let broker = &world.broker;
            async move { (ended || broker.depth("wallet.provision.dlq").await != Some(0)).then_some(()) }
        })
        .await;
        crashes += usize::from(wallet.has_exited());
        assert!(crashes <= 30, "the broker dead-letters it after twenty deliveries");
    }
    let _wallet = world.start(Role::Wallet).await;
    let count = "SELECT count(*) FROM wallets";
    eventually(PATIENCE, "every innocent has a wallet", || async {
        (world.sql(Role::Wallet, count).await == "40").then_some(())
    })
    .await;
    assert_eq!(world.broker.ids_in("wallet.provision.dlq").await, ["culprit".to_owned()].into());
}
