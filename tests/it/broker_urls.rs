//! Several URLs of the broker: each is tried within its own limit, and none of them is shown with its password.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use purse::kernel::Role;

use crate::support::amqp_proxy as amqp;
use crate::support::{AmqpProxy, Client, PATIENCE, World, eventually, free_port, purse};

/// Accepts connections and never responds, as a frozen node does.
struct Silent(TcpListener);

impl Silent {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("bound"))
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("an address").port()
    }
}

/// The URL of the test's virtual host with another port.
fn with_port(world: &World, port: u16) -> String {
    world.broker.url().replace(&format!(":{}/", world.addresses.amqp_port), &format!(":{port}/"))
}

fn only(urls: &str) -> BTreeMap<String, String> {
    [("RABBITMQ_URL".to_owned(), urls.to_owned())].into()
}

#[tokio::test]
async fn both_roles_use_the_node_that_responds_while_others_are_down_or_silent() {
    let world = World::new().await;
    let silent = [Silent::new(), Silent::new()];
    let urls = [
        with_port(&world, free_port()),
        with_port(&world, silent[0].port()),
        with_port(&world, silent[1].port()),
        world.broker.url(),
    ];
    let urls = urls.join(", ");
    let changed = [("RABBITMQ_URL", urls.as_str())];
    let (users, wallet) =
        tokio::join!(world.start_with(Role::Users, &changed), world.start_with(Role::Wallet, &changed));
    let client = Client::new(&users.url(), &wallet.url());
    client.ready_user().await;
    world.broker.close_connections().await;
    client.ready_user().await;
    users.ready().await;
    wallet.ready().await;
}

#[tokio::test]
async fn a_node_that_stops_responding_during_the_handshake_is_left_for_another_one() {
    let world = World::new().await;
    let stuck = AmqpProxy::start(world.addresses.amqp_port).await;
    for method in [amqp::START, amqp::TUNE, amqp::OPEN_OK, amqp::CHANNEL_OPEN_OK] {
        stuck.hold(method, usize::MAX, Duration::from_mins(10));
    }
    let urls = format!("{},{}", stuck.url(&world.broker.url()), world.broker.url());
    world.start(Role::Wallet).await.kill().await;
    // Whichever is tried first.
    for _ in 0..6 {
        let listed = purse(&["dlq", "list", "--json"], &only(&urls)).await.done();
        assert_eq!(listed["total"], 0);
    }
    let mut tried = 0;
    while stuck.opened() == 0 {
        tried += 1;
        assert!(tried < 60, "the order is not random");
        purse(&["dlq", "list", "--json"], &only(&urls)).await.done();
    }
    eventually(PATIENCE, "no connection is left behind", || async { (stuck.open() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn connections_spread_over_all_nodes() {
    let world = World::new().await;
    world.start(Role::Wallet).await.kill().await;
    let nodes = [AmqpProxy::start(world.addresses.amqp_port).await, AmqpProxy::start(world.addresses.amqp_port).await];
    let urls = nodes.each_ref().map(|node| node.url(&world.broker.url())).join(",");
    for _ in 0..24 {
        purse(&["dlq", "list", "--json"], &only(&urls)).await.done();
    }
    let opened = nodes.each_ref().map(AmqpProxy::opened);
    assert!(opened.iter().all(|count| *count > 0) && opened.iter().sum::<usize>() == 24, "{opened:?}");
}

#[tokio::test]
async fn the_error_names_each_address_with_its_own_reason_and_no_login() {
    let (silent, closed) = (Silent::new(), free_port());
    let urls = format!(
        "amqp://broker:hunter22@127.0.0.1:{closed}/team,amqp://broker:hunter22@127.0.0.1:{}/team,amqp://broker:hunter22@no-such-host.invalid/team",
        silent.port()
    );
    let failed = purse(&["dlq", "list"], &only(&urls)).await;
    assert_eq!(failed.code, Some(69), "{failed:?}");
    for part in [
        "virtual host \"team\"".to_owned(),
        format!("127.0.0.1:{closed}: opening the connection"),
        format!("127.0.0.1:{}: opening the connection", silent.port()),
        "no-such-host.invalid:5672: looking up the host".to_owned(),
        "Connection refused".to_owned(),
    ] {
        assert!(failed.err.contains(&part), "{part}: {failed:?}");
    }
    assert!(!failed.err.contains("hunter22") && !failed.err.contains("broker:"), "{failed:?}");
}

#[tokio::test]
async fn check_config_validates_each_url_and_says_how_several_are_written() {
    let world = World::new().await;
    let mut settings = world.settings(Role::Users);
    for (urls, problem) in [
        ("amqp://u:hunter22@one/%2f,amqps://u:hunter22@two:1/%2f", None),
        ("amqp://u:hunter22,amqp@one/%2f", None),
        (
            "amqp://u:hunter22@one,two",
            Some("names several hosts. Write a URL for each of them, separated by commas: amqp://"),
        ),
        ("amqp://u:hunter22@one:5672,two:5672/%2f", Some("names several hosts. Write a URL for each of them")),
        ("amqp://u:hunter22@one/%2f,amqp://u:hunter22@two:x/%2f", Some("number 2 is not")),
        ("amqp://u:hunter22@one/a,amqp://u:hunter22@two/b", Some("must name the same virtual host in every URL")),
        (
            "amqp://u:hunter22@one/%2f,u:hunter22@two/%2f",
            Some("has a comma after which no amqp:// or amqps:// URL begins"),
        ),
    ] {
        settings.insert("RABBITMQ_URL".to_owned(), urls.to_owned());
        let checked = purse(&["check-config", "--role", "users"], &settings).await;
        assert_eq!(checked.code, Some(if problem.is_some() { 64 } else { 0 }), "{urls}: {checked:?}");
        let lines: Vec<&str> = checked.err.lines().filter(|line| line.contains("RABBITMQ_URL")).collect();
        match problem {
            Some(problem) => assert!(lines.len() == 1 && lines[0].contains(problem), "{urls}: {checked:?}"),
            None => assert!(lines.is_empty(), "{urls}: {checked:?}"),
        }
        let shown = purse(&["config", "show", "--role", "users", "--json"], &settings).await;
        assert!(shown.out.contains("RABBITMQ_URL"), "{shown:?}");
        for output in [&checked.err, &checked.out, &shown.err, &shown.out] {
            assert!(!output.contains("hunter22"), "{urls}: {output}");
        }
    }
}

#[tokio::test]
async fn doctor_warns_about_a_node_that_cannot_be_reached() {
    let world = World::new().await;
    world.start(Role::Wallet).await.kill().await;
    let down = free_port();
    let mut settings = world.settings(Role::Wallet);
    let mut broker_finding = async |urls: String| {
        settings.insert("RABBITMQ_URL".to_owned(), urls);
        let report = purse(&["doctor", "--role", "wallet", "--json"], &settings).await.json();
        let checks = report["checks"].as_array().expect("checks").clone();
        checks.into_iter().find(|check| check["check"] == "broker").expect("the broker")
    };
    let both = broker_finding(format!("{},{}", world.broker.url(), world.broker.url())).await;
    assert_eq!((&both["result"], &both["finding"]), (&"ok".into(), &"connected to every node".into()));
    let one = broker_finding(format!("{},{}", with_port(&world, down), world.broker.url())).await;
    assert_eq!(one["result"], "warning", "{one}");
    let finding = one["finding"].as_str().expect("text");
    assert!(
        finding.starts_with("connected, but not to every node: ") && finding.contains(&format!("127.0.0.1:{down}"))
    );
}
