//! `purse outbox`: the backlog, and republished events.

use std::collections::BTreeMap;

use purse::kernel::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Client, CommandOutput, PATIENCE, World, eventually, purse};

async fn outbox(world: &World, arguments: &[&str]) -> CommandOutput {
    let database = world.databases.users.runtime_url.clone();
    let all: Vec<&str> = std::iter::once("outbox").chain(arguments.iter().copied()).collect();
    purse(&all, &[("USERS_DATABASE_URL".to_owned(), database)].into()).await
}

/// The users database is migrated, and no users role is running.
async fn migrated_world() -> World {
    let world = World::new().await;
    let migrated = purse(&["migrate", "--role", "users"], &world.settings(Role::Users)).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    world
}

/// Inserts an event with this status and creation time; returns its id.
async fn write(world: &World, status: &str, written: &str) -> String {
    let id = Uuid::now_v7().to_string();
    let published = if status == "published" { "now()" } else { "NULL" };
    let insert = format!(
        "INSERT INTO outbox (id, type, payload_json, status, published_at, created_at, attempts, last_error)
         VALUES ('{id}', 'UserRegistered', '{{\"userId\":\"{id}\"}}', '{status}', {published}, '{written}', 2, 'unroutable')"
    );
    world.sql(Role::Users, &insert).await;
    id
}

async fn statuses(world: &World) -> String {
    world.sql(Role::Users, "SELECT string_agg(status, ' ' ORDER BY id) FROM outbox").await
}

async fn wallets(world: &World) -> String {
    world.sql(Role::Wallet, "SELECT count(*) || ' of ' || count(DISTINCT user_id) FROM wallets").await
}

#[tokio::test]
async fn the_status_shows_what_is_pending_since_when_and_why_the_broker_refused_it() {
    let world = migrated_world().await;
    let nothing = outbox(&world, &["status"]).await;
    assert_eq!((nothing.code, nothing.out.as_str()), (Some(0), "Nothing pending: all events are published.\n"));
    let empty = json!({
        "refusals": [], "pending": 0, "claimed": 0, "refused": 0, "attemptsMax": 0, "oldestAt": null, "oldestSeconds": null,
    });
    assert_eq!(outbox(&world, &["status", "--format", "json"]).await.done(), empty);

    // No wallet role has declared the queue, so the broker returns every event.
    let users = world.spawn(Role::Users, &[]).await;
    let client = Client::new(&users.url(), &users.url());
    client.user().await;
    client.user().await;
    let report = eventually(PATIENCE, "both are refused", || async {
        let report = outbox(&world, &["status", "--format", "json"]).await.done();
        (report["refusals"][0]["events"] == 2).then_some(report)
    })
    .await;
    assert_eq!((&report["pending"], &report["refused"]), (&json!(2), &json!(2)), "{report}");
    assert!(report["oldestSeconds"].as_i64().is_some_and(|age| (0..600).contains(&age)), "{report}");
    let refusal = &report["refusals"][0];
    assert_eq!(refusal["error"], "unroutable: 312 NO_ROUTE", "{report}");
    assert!(refusal["attemptsMax"].as_i64().is_some_and(|n| n >= 1), "{report}");
    assert!(refusal["nextAttemptAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{report}");
    let table = outbox(&world, &["status"]).await;
    assert!(table.out.starts_with("EVENTS  ATTEMPTS  NEXT ATTEMPT") && table.err.is_empty(), "{table:?}");
    assert!(table.out.contains("\npending   2\noldest    "), "{table:?}");
}

#[tokio::test]
async fn republishing_everything_after_a_lost_queue_creates_one_wallet_per_user() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    client.ready_user().await;
    drop(wallet);
    for _ in 0..5 {
        client.user().await;
    }
    eventually(PATIENCE, "all are published", || async {
        let open = world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status <> 'published'").await;
        (open == "0").then_some(())
    })
    .await;
    world.broker.delete_queue("wallet.provision").await;
    let _wallet = world.start(Role::Wallet).await;
    assert_eq!(wallets(&world).await, "1 of 1", "five events are lost with the queue");
    let dry = outbox(&world, &["republish", "--all", "--dry-run", "--format", "json"]).await.done();
    assert_eq!(dry, json!({"dryRun": true, "republished": 6, "alreadyPending": 0, "notFound": []}));
    let done = outbox(&world, &["republish", "--all", "--format", "json"]).await.done();
    assert_eq!(done, json!({"dryRun": false, "republished": 6, "alreadyPending": 0, "notFound": []}));
    eventually(PATIENCE, "one wallet per user", || async { (wallets(&world).await == "6 of 6").then_some(()) }).await;
    assert_eq!(outbox(&world, &["republish", "--all"]).await.code, Some(0), "a second time");
    eventually(PATIENCE, "all are published again", || async {
        (outbox(&world, &["status", "--format", "json"]).await.done()["pending"] == 0).then_some(())
    })
    .await;
    assert_eq!(wallets(&world).await, "6 of 6");
    drop(users);
}

#[tokio::test]
async fn named_events_are_republished_and_pending_or_missing_ones_are_reported() {
    let world = migrated_world().await;
    let first = write(&world, "published", "2026-01-01T00:00:00Z").await;
    let waiting = write(&world, "pending", "2026-01-01T00:00:00Z").await;
    write(&world, "published", "2026-01-01T00:00:00Z").await;
    let unknown = Uuid::now_v7().to_string();
    let ids = [first.as_str(), first.as_str(), waiting.as_str(), unknown.as_str()];
    let dry = outbox(&world, &[&["republish", "--dry-run", "--format", "json"], &ids[..]].concat()).await;
    let expected = |dry| json!({"dryRun": dry, "republished": 1, "alreadyPending": 1, "notFound": [unknown]});
    assert_eq!((dry.code, dry.json()), (Some(1), expected(true)));
    assert_eq!(statuses(&world).await, "published pending published");
    let done = outbox(&world, &[&["republish", "--format", "json"], &ids[..]].concat()).await;
    assert_eq!((done.code, done.json()), (Some(1), expected(false)));
    assert!(done.err.contains(&format!("the outbox has no event {unknown}")), "{done:?}");
    assert_eq!(statuses(&world).await, "pending pending published");
    let row = "SELECT status, attempts, last_error IS NULL, published_at IS NULL, next_attempt_at <= clock_timestamp()
               FROM outbox ORDER BY id LIMIT 1";
    assert_eq!(world.sql(Role::Users, row).await, "pending|0|t|t|t", "not reset");
}

#[tokio::test]
async fn a_time_range_includes_its_start_and_excludes_its_end() {
    let world = migrated_world().await;
    for written in ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"] {
        write(&world, "published", written).await;
    }
    let count = |ran: CommandOutput| ran.done()["republished"].clone();
    for (range, events) in [
        (&["--since", "2026-01-02T00:00:00Z"][..], 3),
        (&["--until", "2026-01-02T00:00:00Z"], 1),
        (&["--since", "2026-01-02T01:00:00+01:00", "--until", "2026-01-04T00:00:00Z"], 2),
        (&["--since", "2030-01-01T00:00:00Z"], 0),
    ] {
        let dry = outbox(&world, &[&["republish", "--dry-run", "--format", "json"], range].concat()).await;
        assert_eq!(count(dry), json!(events), "{range:?}");
    }
    let range = ["republish", "--since", "2026-01-02T00:00:00Z", "--until", "2026-01-04T00:00:00Z"];
    let report = outbox(&world, &range).await;
    assert_eq!(
        report.out, "2 events marked for republishing; the users role publishes them at its next poll.\n",
        "{report:?}"
    );
    assert_eq!(statuses(&world).await, "published pending pending published");
}

#[tokio::test]
async fn an_outbox_of_many_pages_is_republished_completely() {
    let world = migrated_world().await;
    let insert = "INSERT INTO outbox (id, type, payload_json, status, published_at)
                  SELECT gen_random_uuid(), 'UserRegistered', '{}', 'published', now() FROM generate_series(1, 12000)";
    world.sql(Role::Users, insert).await;
    let dry = outbox(&world, &["republish", "--all", "--dry-run", "--format", "json"]).await.done();
    assert_eq!(dry["republished"], 12_000);
    let done = outbox(&world, &["republish", "--all", "--format", "json"]).await.done();
    assert_eq!(done["republished"], 12_000);
    let open = world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status = 'pending'").await;
    assert_eq!(open, "12000");
    assert_eq!(outbox(&world, &["republish", "--all", "--format", "json"]).await.done()["republished"], 0);
}

#[tokio::test]
async fn without_its_database_or_its_tables_the_command_reports_what_to_do_and_exits_with_69() {
    let world = World::new().await;
    for arguments in [&["status"][..], &["republish", "--all"], &["prune"]] {
        let bare = outbox(&world, arguments).await;
        assert_eq!((bare.code, bare.out.as_str()), (Some(69), ""), "{bare:?}");
        assert!(bare.err.contains("Run `purse migrate --role users` first"), "{bare:?}");
    }
    let unreachable = [("USERS_DATABASE_URL".to_owned(), "postgres://u:hunter22@127.0.0.1:1/x".to_owned())].into();
    let output = purse(&["outbox", "status"], &unreachable).await;
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(output.err.contains("USERS_DATABASE_URL is correct") && !output.err.contains("hunter22"), "{output:?}");
}

#[tokio::test]
async fn invalid_usage_exits_with_64() {
    let settings: BTreeMap<String, String> =
        [("USERS_DATABASE_URL".to_owned(), "postgres://u:p@127.0.0.1:1/x".to_owned())].into();
    let id = Uuid::now_v7().to_string();
    for arguments in [
        &["outbox"][..],
        &["outbox", "republish"],
        &["outbox", "republish", "--dry-run"],
        &["outbox", "republish", "no-uuid"],
        &["outbox", "republish", "--all", &id],
        &["outbox", "republish", "--since", "yesterday"],
        &["outbox", "republish", "--since", "2026-01-02T00:00:00Z", "--until", "2026-01-02T00:00:00Z"],
        &["outbox", "status", "--format", "xml"],
    ] {
        let output = purse(arguments, &settings).await;
        assert_eq!((output.code, output.out.as_str()), (Some(64), ""), "{arguments:?} {output:?}");
    }
    let nothing = purse(&["outbox", "status"], &BTreeMap::new()).await;
    assert_eq!(
        (nothing.code, Value::from(nothing.err.contains("USERS_DATABASE_URL: is required"))),
        (Some(64), true.into())
    );
}
