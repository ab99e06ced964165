//! The permissions of the container stack's broker accounts, tried out as each account.
//!
//! The accounts are those that docker/rabbitmq/start.sh prints, imported into the tests' broker.

use std::path::Path;
use std::process::Command;

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind};
use purse::kernel::Role;
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, World, eventually};

pub const USERS: &str = "purse_users";
pub const WALLET: &str = "purse_wallet";
/// One password for all accounts, which the scan of the logs cannot mistake for another secret.
pub const PASSWORD: &str = "stack-account-1";

fn script() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/rabbitmq/start.sh")
}

/// The definitions that the script prints for a virtual host.
pub fn accounts(virtual_host: &str) -> Value {
    let printed = Command::new("sh")
        .arg(script())
        .arg("print")
        .envs([("ADMIN_USER", "stack_admin"), ("ADMIN_PASSWORD", PASSWORD), ("VHOST", virtual_host)])
        .envs([("USERS_PASSWORD", PASSWORD), ("WALLET_PASSWORD", PASSWORD)])
        .output()
        .expect("sh");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    serde_json::from_slice(&printed.stdout).expect("JSON")
}

/// The AMQP reply code for a missing permission.
const ACCESS_REFUSED: u16 = 403;

/// Performs an operation as an account, on a separate channel, because an error closes the channel.
async fn try_as(world: &World, user: &str, name: &str) -> Result<(), ErrorKind> {
    let url = world.broker.url_for(user, PASSWORD);
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.expect("logged in");
    let channel = connection.create_channel().await.expect("channel");
    perform(&channel, name).await.map_err(|e| e.kind().clone())
}

async fn perform(channel: &Channel, name: &str) -> lapin::Result<()> {
    let nothing = FieldTable::default();
    let (verb, target) = name.split_once(' ').expect("a verb and a target");
    let short = || target.into();
    match verb {
        "consume" => {
            let consumer = channel.basic_consume(short(), "tag".into(), BasicConsumeOptions::default(), nothing);
            consumer.await.map(drop)
        }
        "get" => channel.basic_get(short(), BasicGetOptions::default()).await.map(drop),
        "purge" => channel.queue_purge(short(), QueuePurgeOptions::default()).await.map(drop),
        "delete-queue" => channel.queue_delete(short(), QueueDeleteOptions::default()).await.map(drop),
        "delete-exchange" => channel.exchange_delete(short(), ExchangeDeleteOptions::default()).await,
        "declare-queue" => channel.queue_declare(short(), QueueDeclareOptions::durable(), nothing).await.map(drop),
        "declare-exchange" => {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(short(), ExchangeKind::Topic, options, nothing).await
        }
        "bind" => {
            let (queue, exchange) = target.split_once(" to ").expect("a queue and an exchange");
            channel.queue_bind(queue.into(), exchange.into(), "#".into(), QueueBindOptions::default(), nothing).await
        }
        "publish" => {
            let (exchange, key) = target.split_once('/').expect("an exchange and a key");
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let (options, plain) = (BasicPublishOptions::default(), BasicProperties::default());
            channel.basic_publish(exchange.into(), key.into(), options, b"{}", plain).await?.await.map(drop)
        }
        other => panic!("no such verb: {other}"),
    }
}

fn is_access_refused(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::ProtocolError(e) if e.get_id() == ACCESS_REFUSED)
}

#[tokio::test]
async fn the_accounts_of_the_stack_have_every_permission_that_the_roles_need() {
    let world = World::new().await;
    world.broker.import_definitions(&accounts(world.broker.virtual_host())).await;
    let (users_url, wallet_url) = (world.broker.url_for(USERS, PASSWORD), world.broker.url_for(WALLET, PASSWORD));
    let fast =
        [("RETRY_TTL_1_MS", "200"), ("RETRY_TTL_2_MS", "400"), ("RETRY_TTL_3_MS", "800"), ("DB_LOCK_TIMEOUT_MS", "50")];
    let users = world.start_with(Role::Users, &[("RABBITMQ_URL", &*users_url)]).await;
    let wallet = world.start_with(Role::Wallet, &[&fast[..], &[("RABBITMQ_URL", &*wallet_url)]].concat()).await;
    let client = Client::new(&users.url(), &wallet.url());
    client.ready_user().await;
    world.broker.publish("domain.events", "user.registered", b"poison", Some("p"), &[]).await;
    let dead = || async { world.broker.take("wallet.provision.dlq").await };
    assert_eq!(eventually(PATIENCE, "poison is a dead letter", dead).await.id.as_deref(), Some("p"));
    // A locked wallet: the event climbs the whole ladder, into every tier and out again.
    let stuck = uuid::Uuid::now_v7();
    let url = world.addresses.superuser_url(&world.databases.wallet.database);
    let (holder, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    let insert = format!("BEGIN; INSERT INTO wallets (user_id, id) VALUES ('{stuck}', '{stuck}')");
    holder.batch_execute(&insert).await.expect("locked");
    let event = format!(r#"{{"userId":"{stuck}"}}"#);
    world.broker.publish("domain.events", "user.registered", event.as_bytes(), Some("stuck"), &[]).await;
    let dead = eventually(PATIENCE, "a dead letter from the top of the ladder", dead).await;
    assert_eq!((dead.id.as_deref(), dead.headers.get("x-attempt").map(String::as_str)), (Some("stuck"), Some("3")));
}

#[tokio::test]
async fn each_account_may_do_only_what_its_role_needs() {
    let world = World::new().await;
    world.broker.import_definitions(&accounts(world.broker.virtual_host())).await;
    // Declares the topology, so that no operation fails because its queue does not exist.
    let _wallet = world.start(Role::Wallet).await;
    world.broker.declare_plain("unrelated").await;
    let forbidden_to_users = [
        "consume wallet.provision",
        "get wallet.provision",
        "get wallet.provision.dlq",
        "purge wallet.provision",
        "delete-queue wallet.provision",
        "delete-queue wallet.provision.dlq",
        "declare-queue wallet.provision.mine",
        "declare-queue mine",
        "declare-exchange domain.events.dlx",
        "declare-exchange mine",
        "delete-exchange domain.events.dlx",
        "bind wallet.provision to domain.events",
        "publish /wallet.provision",
        "publish /wallet.provision.dlq",
        "publish domain.events.dlx/wallet.provision.dlq",
        "publish amq.topic/x",
    ];
    let forbidden_to_wallet = [
        "publish domain.events/user.registered",
        "publish amq.topic/x",
        "consume unrelated",
        "get unrelated",
        "purge unrelated",
        "delete-queue unrelated",
        "declare-queue mine",
        "declare-queue wallet.provision.mine",
        "declare-queue wallet.provision.retry.10s.mine",
        "declare-queue xwallet.provision",
        "declare-exchange mine",
        "declare-exchange domainxevents",
        "bind unrelated to domain.events",
        "bind wallet.provision to amq.topic",
    ];
    for (user, names) in [(USERS, &forbidden_to_users[..]), (WALLET, &forbidden_to_wallet[..])] {
        for name in names {
            let result = try_as(&world, user, name).await;
            assert!(result.as_ref().is_err_and(is_access_refused), "{user} may {name}: {result:?}");
        }
    }
    // The account that needs one of these operations may perform it.
    for (user, name) in [
        (USERS, "publish domain.events/user.registered"),
        (USERS, "declare-exchange domain.events"),
        (WALLET, "get wallet.provision.dlq"),
        (WALLET, "publish /wallet.provision"),
        (WALLET, "publish domain.events.dlx/wallet.provision.dlq"),
    ] {
        let result = try_as(&world, user, name).await;
        assert!(result.is_ok(), "{user} may not {name}: {result:?}");
    }
}

#[tokio::test]
async fn a_role_account_cannot_log_in_to_another_virtual_host_or_the_management_api() {
    let (world, neighbour) = (World::new().await, World::new().await);
    world.broker.import_definitions(&accounts(world.broker.virtual_host())).await;
    for user in [USERS, WALLET] {
        let there = neighbour.broker.url_for(user, PASSWORD);
        let connected = Connection::connect(&there, ConnectionProperties::default()).await;
        assert!(connected.is_err(), "{user} may log in to another virtual host");
        let wrong = world.broker.url_for(user, "another password");
        assert!(Connection::connect(&wrong, ConnectionProperties::default()).await.is_err(), "{user}");
        let pages = format!("{}/api/overview", world.addresses.management_url());
        let response =
            reqwest::Client::new().get(&pages).basic_auth(user, Some(PASSWORD)).send().await.expect("response");
        assert_eq!(response.status(), 401, "{user} may log in to the management API");
    }
}

#[test]
fn the_stack_gives_each_role_its_own_account_and_creates_no_other() {
    let accounts = accounts("/");
    let names: Vec<_> = accounts["users"].as_array().expect("users").iter().map(|user| &user["name"]).collect();
    assert_eq!(names, ["stack_admin", USERS, WALLET]);
    let compose = include_str!("../../docker/compose.yaml");
    for role in [USERS, WALLET] {
        assert_eq!(compose.matches(&format!("RABBITMQ_URL: amqp://{role}:")).count(), 1, "{role}");
    }
    assert_eq!(compose.matches("RABBITMQ_URL:").count(), 2);
    assert!(compose.contains("command: [sh, /purse/start.sh]"));
    // A name or password that JSON or a URL would misread is an error and is not printed.
    let broken = Command::new("sh")
        .arg(script())
        .arg("print")
        .envs([
            ("ADMIN_USER", "a"),
            ("ADMIN_PASSWORD", "x\",\"tags\":\"administrator"),
            ("USERS_PASSWORD", "b"),
            ("WALLET_PASSWORD", "c"),
        ])
        .output()
        .expect("sh");
    assert_eq!((broken.status.code(), broken.stdout.len()), (Some(64), 0));
    assert_eq!(accounts["permissions"].as_array().map(Vec::len), Some(3));
    assert!(accounts["permissions"].as_array().is_some_and(|all| all.iter().all(|one| one["vhost"] == json!("/"))));
}
