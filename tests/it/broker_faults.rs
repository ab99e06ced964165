//! Brokers that reply late or never, that refuse part of the topology, or that reject what is published: nothing leaks,
//! nothing is lost, and only what needs the refused part waits.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purse::kernel::Role;
use serde_json::Value;

use crate::query_plans::{enable_auto_explain, plans_after};
use crate::support::amqp_proxy as amqp;
use crate::support::{AmqpProxy, Client, PATIENCE, RoleProcess, Scrape, World, eventually, purse};

const QUEUE: &str = "wallet.provision";
const DEAD: &str = "wallet.provision.dlq";
/// Longer than any test runs.
const NEVER: Duration = Duration::from_mins(10);
const PASSWORD: &str = "limited-account-1";
/// Connections of one users role and one wallet role.
const CONNECTIONS: usize = 4;

/// Both roles, connected to RabbitMQ through a proxy, and ready.
async fn start_proxied(world: &World, changed: &[(&str, &str)]) -> (AmqpProxy, RoleProcess, RoleProcess, Client) {
    let proxy = AmqpProxy::start(world.addresses.amqp_port).await;
    let broker = proxy.url(&world.broker.url());
    let settings = [changed, &[("RABBITMQ_URL", broker.as_str())]].concat();
    let (users, wallet) =
        tokio::join!(world.start_with(Role::Users, &settings), world.start_with(Role::Wallet, &settings));
    let client = Client::new(&users.url(), &wallet.url());
    (proxy, users, wallet, client)
}

/// The body of `/health/ready`, and the broker's check in it.
async fn broker_health(role: &RoleProcess) -> (String, Value) {
    let (status, body) = role.readiness().await;
    assert_eq!(status, 200);
    let checks = body["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == "rabbitmq").expect("the broker's check");
    (body["status"].as_str().expect("a status").to_owned(), check.clone())
}

/// Waits until the role is degraded because of the broker, for a reason that contains `reason`.
async fn degraded(role: &RoleProcess, reason: &str) {
    eventually(PATIENCE, &format!("degraded: {reason}"), || async {
        let (status, check) = broker_health(role).await;
        (status == "degraded" && check["details"].as_str().is_some_and(|details| details.contains(reason)))
            .then_some(())
    })
    .await;
}

/// purse's own lines at the level of errors that contain `text`.
fn errors(role: &RoleProcess, text: &str) -> usize {
    let is_ours = |line: &Value| line["target"].as_str().is_some_and(|target| target.starts_with("purse"));
    let lines = role.log();
    lines.iter().filter(|line| line["level"] == "error" && is_ours(line) && line.to_string().contains(text)).count()
}

async fn wallets(world: &World) -> usize {
    world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await.parse().expect("a count")
}

async fn all_have_wallets(world: &World, count: usize) {
    eventually(PATIENCE, "every user has a wallet", || async { (wallets(world).await == count).then_some(()) }).await;
}

async fn settled_connections(world: &World, proxy: &AmqpProxy) {
    eventually(PATIENCE, "each actor has one connection", || async {
        (proxy.open() == CONNECTIONS && world.broker.connections().await == CONNECTIONS).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_subscription_whose_reply_is_late_leaves_no_second_consumer() {
    let world = World::new().await;
    let proxy = AmqpProxy::start(world.addresses.amqp_port).await;
    let broker = proxy.url(&world.broker.url());
    proxy.hold(amqp::CONSUME_OK, 2, Duration::from_secs(6));
    let users = world.start(Role::Users).await;
    let wallet = world.spawn(Role::Wallet, &[("PREFETCH", "10"), ("RABBITMQ_URL", &broker)]).await;
    eventually(PATIENCE, "the queue is bound", || async { world.broker.depth(QUEUE).await }).await;
    let client = Client::new(&users.url(), &wallet.url());
    join_all((0..40).map(|_| client.user())).await;
    all_have_wallets(&world, 40).await;
    assert_eq!(proxy.held(), 2);
    eventually(PATIENCE, "nothing is unacknowledged", || async {
        (world.broker.depth(QUEUE).await == Some(0) && world.broker.unacked().await == 0).then_some(())
    })
    .await;
    assert_eq!(world.broker.consumers(QUEUE).await, Some(1));
}

#[tokio::test]
async fn a_reply_that_never_comes_ends_its_connection_whatever_was_requested() {
    let world = World::new().await;
    let (proxy, users, wallet, client) = start_proxied(&world, &[]).await;
    client.ready_user().await;
    settled_connections(&world, &proxy).await;
    let before = [&users, &wallet].map(|role| (role.descriptors(), role.threads()));
    let methods = [
        amqp::START,
        amqp::TUNE,
        amqp::OPEN_OK,
        amqp::CHANNEL_OPEN_OK,
        amqp::EXCHANGE_DECLARE_OK,
        amqp::QUEUE_DECLARE_OK,
        amqp::BIND_OK,
        amqp::CONFIRM_SELECT_OK,
        amqp::QOS_OK,
        amqp::CONSUME_OK,
    ];
    for method in methods {
        proxy.hold(method, 1, NEVER);
    }
    proxy.reset();
    eventually(PATIENCE, "each reply was withheld once", || async { (proxy.held() == methods.len()).then_some(()) })
        .await;
    settled_connections(&world, &proxy).await;
    assert_eq!(world.broker.consumers(QUEUE).await, Some(1));
    client.ready_user().await;
    for (role, (descriptors, threads)) in [&users, &wallet].into_iter().zip(before) {
        role.ready().await;
        eventually(PATIENCE, "descriptors and threads are as before", || async {
            (role.descriptors() <= descriptors + 4 && role.threads() <= threads + 2).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn connections_do_not_pile_up_while_no_declaration_is_answered() {
    let world = World::new().await;
    let (proxy, _users, wallet, client) = start_proxied(&world, &[]).await;
    for method in [amqp::QUEUE_DECLARE_OK, amqp::EXCHANGE_DECLARE_OK] {
        proxy.hold(method, usize::MAX, NEVER);
    }
    proxy.reset();
    let mut most = 0;
    eventually(PATIENCE, "every actor has tried several times", || {
        most = most.max(proxy.open());
        let opened = proxy.opened();
        async move { (opened >= 4 * CONNECTIONS).then_some(()) }
    })
    .await;
    // One connection may be closing while its successor opens.
    assert!(most <= 2 * CONNECTIONS, "{most} connections at once");
    proxy.hold_nothing();
    proxy.reset();
    wallet.ready().await;
    client.ready_user().await;
    settled_connections(&world, &proxy).await;
}

#[tokio::test]
async fn a_role_that_may_not_declare_its_dead_letter_queue_still_provisions_and_keeps_the_poison() {
    let world = World::new().await;
    let account = format!("limited_{}", world.broker.virtual_host());
    let all_but_dead = r"^(domain\.events(\.dlx)?|wallet\.provision(\.retry\..*)?)$";
    world.broker.account(&account, PASSWORD, all_but_dead).await;
    let broker = world.broker.url_for(&account, PASSWORD);
    let users = world.start(Role::Users).await;
    let wallet = world.spawn(Role::Wallet, &[("RABBITMQ_URL", &broker)]).await;
    let client = Client::new(&users.url(), &wallet.url());
    eventually(PATIENCE, "the queue exists", || async { world.broker.depth(QUEUE).await }).await;
    world.broker.publish("", QUEUE, b"poison", Some("p"), &[]).await;
    for _ in 0..3 {
        client.ready_user().await;
    }
    degraded(&wallet, DEAD).await;
    let series = "purse_broker_undeclared{connection=\"topology\"}";
    assert!(Scrape::of(&wallet.url()).await.number(series) >= Some(1.0));
    // Several passes of the declarations later there is still one line.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(errors(&wallet, DEAD), 1, "{}", wallet.output());
    assert_eq!(world.broker.depth(DEAD).await, None);
    client.ready_user().await;

    world.broker.account(&account, PASSWORD, ".*").await;
    let dead = eventually(PATIENCE, "the poison is a dead letter", || async {
        world.broker.depth(DEAD).await.filter(|depth| *depth > 0)?;
        world.broker.take(DEAD).await
    });
    assert_eq!(dead.await.id.as_deref(), Some("p"));
    wallet.ready().await;
    assert_eq!(Scrape::of(&wallet.url()).await.number(series), Some(0.0));
}

#[tokio::test]
async fn a_dead_letter_queue_whose_declaration_is_never_answered_does_not_stop_provisioning() {
    let world = World::new().await;
    let proxy = AmqpProxy::start(world.addresses.amqp_port).await;
    // As RabbitMQ 4 does while the node of a classic queue is down.
    proxy.hold_about(DEAD, amqp::QUEUE_DECLARE_OK, usize::MAX, NEVER);
    let broker = proxy.url(&world.broker.url());
    let users = world.start(Role::Users).await;
    let wallet = world.spawn(Role::Wallet, &[("RABBITMQ_URL", &broker)]).await;
    let client = Client::new(&users.url(), &wallet.url());
    client.ready_user().await;
    degraded(&wallet, DEAD).await;
    eventually(PATIENCE, "the declaration is tried again", || async { (proxy.held() >= 3).then_some(()) }).await;
    assert!(proxy.open() <= CONNECTIONS, "{} connections", proxy.open());
    client.ready_user().await;
    assert_eq!(errors(&wallet, DEAD), 1, "{}", wallet.output());
    proxy.hold_nothing();
    wallet.ready().await;
}

#[tokio::test]
async fn a_dead_letter_queue_recreated_with_other_arguments_degrades_a_running_wallet_role() {
    let world = World::new().await;
    let (proxy, users, mut wallet, client) = start_proxied(&world, &[]).await;
    let user = client.ready_user().await;
    world.broker.recreate_with_other_arguments(DEAD).await;
    degraded(&wallet, DEAD).await;
    // A new subscription and a new router do not need it either.
    proxy.reset();
    client.ready_user().await;
    assert_eq!(client.post(&user, "credit", 5, None).await.status, 201);
    tokio::time::sleep(Duration::from_secs(12)).await;
    degraded(&wallet, DEAD).await;
    assert!(!wallet.has_exited(), "{}", wallet.output());
    assert_eq!(errors(&wallet, DEAD), 1, "{}", wallet.output());
    let series = "purse_broker_undeclared{connection=\"topology\"}";
    assert_eq!(Scrape::of(&wallet.url()).await.number(series), Some(1.0));
    // Its binding went with the old queue and was declared again.
    world.broker.publish("", QUEUE, b"poison", Some("p"), &[]).await;
    let dead = eventually(PATIENCE, "the poison is a dead letter", || async { world.broker.take(DEAD).await });
    assert_eq!(dead.await.id.as_deref(), Some("p"));
    world.broker.delete_queue(DEAD).await;
    wallet.ready().await;
    users.ready().await;
}

#[tokio::test]
async fn a_main_queue_recreated_with_other_arguments_degrades_a_running_wallet_role() {
    let world = World::new().await;
    let (_proxy, _users, mut wallet, client) = start_proxied(&world, &[]).await;
    let user = client.ready_user().await;
    world.broker.recreate_with_other_arguments(QUEUE).await;
    degraded(&wallet, QUEUE).await;
    let series = "purse_broker_undeclared{connection=\"provisioning\"}";
    eventually(PATIENCE, "the consumer reports it", || async {
        (Scrape::of(&wallet.url()).await.number(series) == Some(1.0)).then_some(())
    })
    .await;
    assert_eq!(client.post(&user, "credit", 5, None).await.status, 201);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(!wallet.has_exited(), "{}", wallet.output());
    assert_eq!(client.post(&user, "debit", 5, None).await.status, 201);
    // One line of the consumer, one of the actor that declares everything.
    assert_eq!(errors(&wallet, QUEUE), 2, "{}", wallet.output());
    let waiting = client.user().await;
    world.broker.delete_queue(QUEUE).await;
    wallet.ready().await;
    assert_eq!(Scrape::of(&wallet.url()).await.number(series), Some(0.0));
    let registered = client.ready_user().await;
    assert_ne!(registered.id, waiting.id);
}

#[tokio::test]
async fn an_exchange_recreated_with_another_type_degrades_both_roles_while_they_run() {
    let world = World::new().await;
    let (proxy, mut users, mut wallet, client) = start_proxied(&world, &[]).await;
    let user = client.ready_user().await;
    world.broker.delete_exchange("domain.events").await;
    world.broker.declare_fanout("domain.events").await;
    proxy.reset();
    degraded(&users, "domain.events").await;
    degraded(&wallet, "domain.events").await;
    let waiting = client.user().await;
    assert_eq!(client.post(&user, "credit", 5, None).await.status, 201);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(!users.has_exited() && !wallet.has_exited());
    assert_eq!(errors(&users, "domain.events"), 1, "{}", users.output());
    assert_eq!(Scrape::of(&users.url()).await.number("purse_broker_undeclared{connection=\"outbox\"}"), Some(1.0));
    world.broker.delete_exchange("domain.events").await;
    let has_wallet = || async { (client.get(&waiting, "/v1/balance").await.status == 200).then_some(()) };
    eventually(PATIENCE, "the waiting event is published", has_wallet).await;
    users.ready().await;
    wallet.ready().await;
}

#[tokio::test]
async fn a_blocked_retry_connection_is_visible_in_the_health_of_the_wallet_role() {
    let world = World::new().await;
    let (proxy, users, wallet, client) = start_proxied(&world, &[]).await;
    client.ready_user().await;
    proxy.announce_blocked(true);
    degraded(&wallet, "publishing is blocked").await;
    degraded(&users, "publishing is blocked").await;
    proxy.announce_blocked(false);
    users.ready().await;
    wallet.ready().await;
}

#[tokio::test]
async fn a_channel_on_which_everything_is_rejected_is_replaced_by_a_fresh_one() {
    let world = World::new().await;
    let (proxy, _users, _wallet, client) = start_proxied(&world, &[("RETRY_TTL_1_MS", "200")]).await;
    client.ready_user().await;
    proxy.reject_on_open_connections();
    join_all((0..20).map(|_| client.user())).await;
    // The retry router's channel likewise.
    world.broker.publish("", QUEUE, b"poison", Some("p"), &[]).await;
    all_have_wallets(&world, 21).await;
    let dead = || async {
        world.broker.depth(DEAD).await.filter(|depth| *depth > 0)?;
        world.broker.take(DEAD).await
    };
    assert_eq!(eventually(PATIENCE, "the poison is a dead letter", dead).await.id.as_deref(), Some("p"));
    let pending = "SELECT count(*) FROM outbox WHERE status = 'pending'";
    eventually(PATIENCE, "nothing is pending", || async {
        (world.sql(Role::Users, pending).await == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_rejects_everything_costs_few_connections_and_degrades_the_users_role() {
    let world = World::new().await;
    let (proxy, users, wallet, client) = start_proxied(&world, &[]).await;
    client.ready_user().await;
    wallet.kill().await;
    world.broker.limit_length(QUEUE, 0).await;
    eventually(PATIENCE, "an event is rejected", || async {
        client.user().await;
        let rejected = "SELECT count(*) > 0 FROM outbox WHERE last_error = 'rejected by the queue'";
        (world.sql(Role::Users, rejected).await == "t").then_some(())
    })
    .await;
    degraded(&users, "rejected").await;
    let opened = proxy.opened();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(proxy.opened() > opened, "the channel is replaced");
    assert!(proxy.opened() - opened <= 10, "{} connections in ten seconds", proxy.opened() - opened);
    world.broker.unlimit_length().await;
    let pending = "SELECT count(*) FROM outbox WHERE status = 'pending'";
    eventually(PATIENCE, "nothing is pending", || async {
        (world.sql(Role::Users, pending).await == "0").then_some(())
    })
    .await;
    users.ready().await;
}

#[tokio::test]
async fn a_questionable_broker_url_is_a_warning_that_names_what_is_wrong() {
    let world = World::new().await;
    let host = &world.addresses.host;
    let mut settings = world.settings(Role::Users);
    for (url, warning) in [
        (format!("amqp://u:p@{host}:5672/"), Some(r#"names the virtual host "". End it with /%2f"#)),
        (format!("amqp://u:p@{host}:5672/team/a"), Some(r#"names the virtual host "team/a""#)),
        (format!("amqp://u:p@{host}:15672/%2f"), Some("15672")),
        (format!("amqp://u:p@{host}:5672/%2f,amqp://u:p@{host}:15672/%2f"), Some("15672")),
        (format!("amqp://u:p@{host}:5672/%2f"), None),
        (format!("amqp://u:p@{host}:5672/team%2fa"), None),
        (format!("amqp://u:p@{host}:5672"), None),
    ] {
        settings.insert("RABBITMQ_URL".to_owned(), url.clone());
        let checked = purse(&["check-config", "--role", "users"], &settings).await;
        assert_eq!(checked.code, Some(0), "{url}: {checked:?}");
        let warnings: Vec<&str> = checked.err.lines().filter(|line| line.contains("RABBITMQ_URL")).collect();
        match warning {
            Some(text) => assert!(warnings.len() == 1 && warnings[0].contains(text), "{url}: {warnings:?}"),
            None => assert!(warnings.is_empty(), "{url}: {warnings:?}"),
        }
    }
}

#[tokio::test]
async fn the_first_failure_to_connect_names_the_virtual_host() {
    let world = World::new().await;
    let direct = world.broker.url();
    let (server, _) = direct.rsplit_once('/').expect("a virtual host");
    for (path, name) in [("", r#"virtual host \"\""#), ("no-such-host", r#"virtual host \"no-such-host\""#)] {
        let url = format!("{server}/{path}");
        let users = world.spawn(Role::Users, &[("RABBITMQ_URL", &url)]).await;
        let away = "a dependency is unavailable; retrying until it is back";
        let line = eventually(PATIENCE, "the failure is logged", || async { users.logged(away).pop() }).await;
        assert!(line["error"].to_string().contains(name), "{line}");
        assert!(line["error"].to_string().contains("NOT_ALLOWED"), "{line}");
    }
}

#[tokio::test]
async fn the_relay_pauses_while_nothing_is_confirmed_and_drains_as_soon_as_something_is() {
    let world = World::new().await;
    drop(world.start(Role::Users).await); // for the migrations
    world
        .sql(
            Role::Users,
            "INSERT INTO outbox (id, type, payload_json)
             SELECT gen_random_uuid(), 'UserRegistered', json_build_object('userId', gen_random_uuid())
             FROM generate_series(1, 5000)",
        )
        .await;
    let users = world.start_with(Role::Users, &[("OUTBOX_BATCH_MAX", "10")]).await;
    let refused = || async {
        let series = "purse_outbox_events_total{result=\"refused\"}";
        Scrape::of(&users.url()).await.number(series).unwrap_or_default()
    };
    eventually(PATIENCE, "the first events are returned", || async { (refused().await > 0.0).then_some(()) }).await;
    let (before, began) = (refused().await, Instant::now());
    let client = Client::new(&users.url(), &users.url());
    // Each registration wakes the relay.
    for _ in 0..10 {
        client.user().await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let (batches, seconds) = ((refused().await - before) / 10.0, began.elapsed().as_secs_f64());
    assert!(batches <= 5.0 * seconds, "{batches} batches in {seconds} seconds");
    let _wallet = world.start(Role::Wallet).await;
    all_have_wallets(&world, 5010).await;
}

#[tokio::test]
async fn a_claim_reads_only_what_is_due_however_much_is_not() {
    let world = World::new().await;
    drop(world.start(Role::Users).await); // for the migrations
    for statement in [
        "ALTER TABLE outbox SET (autovacuum_enabled = off)",
        "INSERT INTO outbox (id, type, payload_json, attempts, next_attempt_at)
         SELECT gen_random_uuid(), 'UserRegistered', json_build_object('userId', gen_random_uuid()), 9, now() + interval '1 h'
         FROM generate_series(1, 50000)",
    ] {
        world.sql(Role::Users, statement).await;
    }
    let _turn = enable_auto_explain(&world).await;
    let from = std::fs::metadata(&world.addresses.postgres_log).expect("the server's log").len();
    let (_users, _wallet, client) = world.both().await;
    client.ready_user().await;
    let plans = plans_after(&world, usize::try_from(from).expect("a length"));
    for plan in &plans["users.outbox.claim"] {
        let pages = ["Shared Hit Blocks", "Shared Read Blocks"].map(|field| plan[field].as_i64().expect("pages"));
        assert!(pages.iter().sum::<i64>() <= 60, "{pages:?} pages\n{plan:#}");
    }
}
