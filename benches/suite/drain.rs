//! Outbox throughput compared with a bare publisher with the same window on the same type of queue, and the time from a
//! registration to its wallet.

use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use purse::kernel::Role;

use crate::figures::{Figures, percentile, rounds};
use crate::report::{Report, Target};
use crate::support::{Broker, Client, Outages, World};

const ROWS: usize = 20_000;
/// Messages in flight at once: `OUTBOX_BATCH_MAX`.
const WINDOW: usize = 500;
/// Rows per second that suffice on any machine.
const DRAIN_MIN: f64 = 8_000.0;
const REGISTRATIONS: usize = 200;

pub async fn measure(servers: &Outages, report: &mut Report) {
    let (mut drained, mut bare) = (Figures::default(), Figures::default());
    for round in 1..=rounds() {
        let world = World::on(servers.servers).await;
        drop(world.both().await);
        bare.push(bare_publisher(&world.broker).await);
        drained.push(drain(&world).await);
        println!(
            "  round {round}: outbox {:.0} rows/s, bare publisher {:.0} messages/s",
            drained.median(),
            bare.median()
        );
    }
    // Either target suffices; the ratio is for machines with other load.
    report.target(if drained.median() >= DRAIN_MIN {
        Target::at_least("outbox rows drained per second", drained.median(), DRAIN_MIN)
    } else {
        let ratio = drained.median() / bare.median();
        Target::at_least("outbox drain ÷ a bare publisher with the same window", ratio, 0.7)
    });
    report.heading("Relay", &["what", "per second (min–max)"]);
    report.row(&[format!("outbox of {ROWS} rows, claimed, published, confirmed, marked"), drained.shown()]);
    report.row(&[format!("bare publisher, window of {WINDOW}, same queue type"), bare.shown()]);
    latency(servers, report).await;
}

async fn drain(world: &World) -> f64 {
    let script = format!(
        "WITH registered AS (
             INSERT INTO users (id, first_name, last_name, email, password_hash, created_at)
             SELECT gen_random_uuid(), 'A', 'B', 'p' || n || '@example.com', '$argon2id$v=19$m=8,t=1,p=1$x$y', now()
             FROM generate_series(1, {ROWS}) AS n RETURNING id
         )
         INSERT INTO outbox (id, type, payload_json)
         SELECT gen_random_uuid(), 'UserRegistered', json_build_object('userId', id) FROM registered"
    );
    world.sql(Role::Users, &script).await;
    world.sql(Role::Users, "ANALYZE outbox").await;
    let began = Instant::now();
    let _users = world.spawn(Role::Users, &[]).await;
    while world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status = 'pending'").await != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ROWS as f64 / began.elapsed().as_secs_f64()
}

async fn bare_publisher(broker: &Broker) -> f64 {
    let (_connection, channel) = broker.channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let declared = channel.queue_declare("bare".into(), QueueDeclareOptions::durable(), arguments);
    declared.await.expect("declared");
    let began = Instant::now();
    for window in 0..ROWS / WINDOW {
        publish(&channel, window).await;
    }
    ROWS as f64 / began.elapsed().as_secs_f64()
}

async fn publish(channel: &Channel, window: usize) {
    let mut confirms = Vec::with_capacity(WINDOW);
    for number in 0..WINDOW {
        let body = format!(r#"{{"userId":"00000000-0000-7000-8000-{:012}"}}"#, window * WINDOW + number);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(number.to_string().into());
        let sent = channel.basic_publish("".into(), "bare".into(), options, body.as_bytes(), properties);
        confirms.push(sent.await.expect("sent"));
    }
    for confirm in confirms {
        assert!(matches!(confirm.await.expect("confirmed"), Confirmation::Ack(None)));
    }
}

/// From the response to a registration until the wallet is ready, one at a time.
async fn latency(servers: &Outages, report: &mut Report) {
    let world = World::on(servers.servers).await;
    // With such a long interval only the wake-up can start a poll.
    let rare_polls = [("OUTBOX_POLL_INTERVAL_MS", "60000")];
    let (users, wallet) = tokio::join!(world.start_with(Role::Users, &rare_polls), world.start(Role::Wallet));
    let client = Client::new(&users.url(), &wallet.url());
    let mut times = Vec::new();
    for number in 0..REGISTRATIONS + 20 {
        let user = client.user().await;
        let registered = Instant::now();
        assert_eq!(client.get(&user, "/v1/wallet/status?wait=30").await.status, 200);
        if number >= 20 {
            times.push(registered.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    report.tails(
        "ready.svg",
        "From acknowledged registration to wallet, in ms: one in N takes at least",
        &[("one at a time", &times)],
    );
    report
        .heading("From acknowledged registration to wallet, one at a time", &["p50 ms", "p95 ms", "p99 ms", "max ms"]);
    report.row(&[50, 95, 99, 100].map(|percent| format!("{:.2}", percentile(&times, percent))));
}
