//! Published events are deleted when their retention is over, by the users role and by `purse outbox prune`, and a
//! republication reports what is gone.

use std::collections::BTreeMap;

use purse::kernel::Role;
use serde_json::json;

use crate::support::{CommandOutput, PATIENCE, RoleProcess, Scrape, World, eventually, purse};

const PRUNED: &str = "purse_outbox_pruned_events_total";
/// The users database is migrated, and no users role is running.
async fn migrated_world() -> World {
    let world = World::new().await;
    let migrated = purse(&["migrate", "--role", "users"], &world.settings(Role::Users)).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    world
}

/// Writes so many events that were created and published at these times before now, as intervals.
async fn publish(world: &World, count: u32, created: &str, published: &str) {
    let insert = format!(
        "INSERT INTO outbox (id, type, payload_json, status, created_at, published_at)
         SELECT gen_random_uuid(), '{created}, {published}', '{{}}', 'published', now() - interval '{created}',
                now() - interval '{published}' FROM generate_series(1, {count})"
    );
    world.sql(Role::Users, &insert).await;
}

/// The kinds of events that are left, with their numbers.
async fn left(world: &World) -> String {
    let kinds = "SELECT string_agg(type || ': ' || events, '; ' ORDER BY type)
                 FROM (SELECT type, count(*) AS events FROM outbox GROUP BY type) AS kinds";
    world.sql(Role::Users, kinds).await
}

async fn outbox(world: &World, arguments: &[&str], settings: &[(&str, &str)]) -> CommandOutput {
    let all: Vec<&str> = std::iter::once("outbox").chain(arguments.iter().copied()).collect();
    let mut environment: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment.insert("USERS_DATABASE_URL".to_owned(), world.databases.users.runtime_url.clone());
    purse(&all, &environment).await
}

async fn pruned(process: &RoleProcess) -> u64 {
    let value = Scrape::of(&process.url()).await.value(PRUNED).expect("the counter");
    value.parse().expect("a count")
}

#[tokio::test]
async fn the_users_role_deletes_every_expired_event_and_keeps_pending_recent_and_republished_ones() {
    let world = migrated_world().await;
    // More than two batches.
    publish(&world, 2_300, "40 days", "31 days").await;
    publish(&world, 2, "40 days", "29 days").await;
    publish(&world, 3, "2 days", "1 day").await;
    world
        .sql(
            Role::Users,
            "INSERT INTO outbox (id, type, payload_json, created_at, next_attempt_at)
             VALUES (gen_random_uuid(), 'pending', '{}', now() - interval '90 days', now() + interval '1 hour')",
        )
        .await;
    let users = world.start(Role::Users).await;
    eventually(PATIENCE, "the expired events are gone", || async {
        let report = users.logged("deleted published events that are older than OUTBOX_RETENTION");
        (report.first()?["events"] == 2_300).then_some(())
    })
    .await;
    assert_eq!(left(&world).await, "2 days, 1 day: 3; 40 days, 29 days: 2; pending: 1");
    assert_eq!(pruned(&users).await, 2_300);
}

#[tokio::test]
async fn a_retention_of_one_hour_deletes_events_of_the_last_day() {
    let world = migrated_world().await;
    publish(&world, 4, "61 minutes", "61 minutes").await;
    publish(&world, 5, "61 minutes", "59 minutes").await;
    publish(&world, 6, "59 minutes", "59 minutes").await;
    // The database's clock was set back in between. Such an event is no reason to keep the others.
    publish(&world, 7, "59 minutes", "61 minutes").await;
    let _users = world.start_with(Role::Users, &[("OUTBOX_RETENTION", "1h")]).await;
    eventually(PATIENCE, "the expired events are gone", || async {
        let left = left(&world).await;
        let kept = "59 minutes, 59 minutes: 6; 59 minutes, 61 minutes: 7; 61 minutes, 59 minutes: 5";
        (left == kept).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_processes_delete_each_event_once_and_none_waits_for_the_other() {
    let world = migrated_world().await;
    publish(&world, 12_000, "40 days", "31 days").await;
    // Another transaction that stays open.
    let url = world.addresses.superuser_url(&world.databases.users.database);
    let (other, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    let lock = "BEGIN; SELECT 1 FROM outbox ORDER BY published_at LIMIT 100 FOR UPDATE";
    other.batch_execute(lock).await.expect("locked");

    let (first, second) = tokio::join!(world.start(Role::Users), world.start(Role::Users));
    eventually(PATIENCE, "all events that are not locked are gone", || async {
        (left(&world).await == "40 days, 31 days: 100").then_some(())
    })
    .await;
    let both = eventually(PATIENCE, "both have counted", || async {
        let (one, two) = (pruned(&first).await, pruned(&second).await);
        (one + two >= 11_900).then_some((one, two))
    })
    .await;
    assert_eq!(both.0 + both.1, 11_900, "{both:?}: an event was counted twice");
    other.batch_execute("ROLLBACK").await.expect("released");
}

#[tokio::test]
async fn a_role_that_may_not_delete_stays_ready_and_warns() {
    let world = migrated_world().await;
    publish(&world, 1, "40 days", "31 days").await;
    let runtime_user = "SELECT format('REVOKE EXECUTE ON FUNCTION delete_expired_events FROM %I', usename) FROM pg_user WHERE usename ~ current_database() AND usename ~ '_app$'";
    let revoke = world.sql(Role::Users, runtime_user).await;
    world.sql(Role::Users, &revoke).await;
    // Without the owner's URL the role leaves the privileges as they are.
    let runtime_url = world.databases.users.runtime_url.clone();
    let users = world.start_with(Role::Users, &[("USERS_MIGRATION_DATABASE_URL", &runtime_url)]).await;
    let warning = eventually(PATIENCE, "a warning", || async {
        users.logged("could not delete old events; the outbox grows").first().cloned()
    })
    .await;
    assert!(
        warning["error"].as_str().is_some_and(|e| e.contains("permission denied for function delete_expired_events")),
        "{warning}"
    );
    assert_eq!(warning["level"], "warn", "{warning}");
    users.ready().await;
    assert_eq!(left(&world).await, "40 days, 31 days: 1");
}

#[tokio::test]
async fn the_runtime_account_can_delete_published_events_of_more_than_an_hour_ago_and_no_others() {
    let world = migrated_world().await;
    publish(&world, 1, "59 minutes", "59 minutes").await;
    publish(&world, 2, "61 minutes", "61 minutes").await;
    world
        .sql(
            Role::Users,
            "INSERT INTO outbox (id, type, payload_json, created_at)
             VALUES (gen_random_uuid(), 'pending', '{}', now() - interval '90 days')",
        )
        .await;
    let psql = |url: &str, statements: &[&str]| {
        let mut command = std::process::Command::new(world.addresses.postgres_bin_dir.join("psql"));
        command.args(["-X", "-qtA", "-v", "ON_ERROR_STOP=1", "-d", url]);
        for statement in statements {
            command.args(["-c", statement]);
        }
        let ran = command.output().expect("psql");
        format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
    };
    let app = &world.databases.users.runtime_url;
    for (statement, error) in [
        ("DELETE FROM outbox", "permission denied for table outbox"),
        ("SELECT delete_expired_events(3599, 10)", "the outbox keeps published events for at least one hour"),
        ("SELECT delete_expired_events(-1, 10)", "the outbox keeps published events for at least one hour"),
        ("SELECT delete_expired_events('NaN', 10)", "out of range"),
        ("SELECT delete_expired_events(NULL, 10)", "the outbox keeps published events for at least one hour"),
    ] {
        let refused = psql(app, &[statement]);
        assert!(refused.contains(error), "{statement}: {refused}");
    }
    // The account may update the time of the publication, and gains nothing by that.
    let disguised = [
        "UPDATE outbox SET published_at = 'epoch' WHERE status = 'published'",
        "SELECT delete_expired_events(3600, 10)",
    ];
    assert_eq!(psql(app, &disguised), "2\n");
    assert_eq!(left(&world).await, "59 minutes, 59 minutes: 1; pending: 1");
    // Tables of the caller do not take the place of the real ones, although the function runs as the owner.
    let database = &world.databases.users.database;
    world.sql(Role::Users, &format!("GRANT TEMPORARY ON DATABASE {database} TO PUBLIC")).await;
    let shadow = [
        "CREATE TEMPORARY TABLE outbox (id uuid, status text, published_at timestamptz, created_at timestamptz)",
        "INSERT INTO pg_temp.outbox VALUES (gen_random_uuid(), 'published', 'epoch', 'epoch')",
        "SELECT delete_expired_events(3600, 10)",
        "SELECT count(*) FROM pg_temp.outbox",
    ];
    assert_eq!(psql(app, &shadow), "0\n1\n");
    // Another account gets no right by default.
    let public =
        "SELECT has_function_privilege('public', 'delete_expired_events(double precision, bigint)', 'EXECUTE')";
    assert_eq!(world.sql(Role::Users, public).await, "f");
}

/// With the planner options of the roles' sessions. The function's own statements are not in the log of plans by name.
#[tokio::test]
async fn a_pass_without_an_expired_event_reads_as_few_pages_of_a_long_outbox_as_of_a_short_one() {
    let world = migrated_world().await;
    world.sql(Role::Users, "ALTER TABLE outbox SET (autovacuum_enabled = off)").await;
    publish(&world, 500, "40 days", "31 days").await;
    world.sql(Role::Users, "ANALYZE outbox").await;
    publish(&world, 20_000, "40 days", "29 days").await;
    let call = "SELECT delete_expired_events(2592000, 400)";
    let explained = format!("EXPLAIN (ANALYZE, BUFFERS) {call}");
    let ran = std::process::Command::new(world.addresses.postgres_bin_dir.join("psql"))
        .env("PGOPTIONS", "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off")
        // The first call reads the catalogue, the second deletes the rest of what is expired.
        .args(["-X", "-qtA", "-d", &world.databases.users.runtime_url, "-c", call, "-c", call, "-c", &explained])
        .output()
        .expect("psql");
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(printed.starts_with("400\n100\n"), "{printed} {}", String::from_utf8_lossy(&ran.stderr));
    let hit = printed.split_once("shared hit=").expect("the pages").1;
    let pages = hit.split(|c: char| !c.is_ascii_digit()).next().and_then(|pages| pages.parse::<u32>().ok());
    // The outbox has about 500. Those of the deleted entries of the index are read until it is vacuumed.
    assert!(pages.is_some_and(|pages| pages <= 60), "{printed}");
}

#[tokio::test]
async fn the_command_deletes_what_is_older_than_the_retention_or_than_its_argument() {
    let world = migrated_world().await;
    // More than one page.
    publish(&world, 5_500, "40 days", "31 days").await;
    publish(&world, 2, "9 days", "8 days").await;
    publish(&world, 1, "2 hours", "2 hours").await;

    let dry = outbox(&world, &["prune", "--dry-run"], &[]).await;
    assert_eq!(
        (dry.code, dry.out.as_str()),
        (Some(0), "5500 published events older than 30d would be deleted; nothing was changed.\n"),
        "{dry:?}"
    );
    let dry = outbox(&world, &["prune", "--dry-run", "--format", "json"], &[("OUTBOX_RETENTION", "7d")]).await.done();
    assert_eq!(dry, json!({"dryRun": true, "deleted": 5_502, "olderThanSeconds": 604_800}));
    assert_eq!(left(&world).await, "2 hours, 2 hours: 1; 40 days, 31 days: 5500; 9 days, 8 days: 2");

    let done = outbox(&world, &["prune", "--format", "json"], &[]).await.done();
    assert_eq!(done, json!({"dryRun": false, "deleted": 5_500, "olderThanSeconds": 2_592_000}));
    let done = outbox(&world, &["prune", "--older-than", "7d"], &[("OUTBOX_RETENTION", "30d")]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "Deleted 2 published events older than 7d.\n"), "{done:?}");
    assert_eq!(left(&world).await, "2 hours, 2 hours: 1");
    let done = outbox(&world, &["prune"], &[]).await;
    assert_eq!(done.out, "Deleted 0 published events older than 30d.\n", "{done:?}");

    for wrong in ["59m", "0h", "30", "36501d", "-1d"] {
        let refused = outbox(&world, &["prune", "--older-than", wrong], &[]).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(64), ""), "{wrong}: {refused:?}");
    }
    let refused = outbox(&world, &["prune"], &[("OUTBOX_RETENTION", "1m")]).await;
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.err.contains("OUTBOX_RETENTION: `1m` must be a duration from 1h to 36500d"), "{refused:?}");
}

#[tokio::test]
async fn a_republication_from_before_the_last_deleted_event_is_refused_and_one_of_everything_reports_it() {
    let world = migrated_world().await;
    publish(&world, 3, "40 days", "31 days").await;
    publish(&world, 2, "20 days", "20 days").await;
    let ago = |days: u32| {
        let world = &world;
        async move {
            let time = format!(
                "SELECT to_char(now() AT TIME ZONE 'UTC' - interval '{days} days', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
            );
            world.sql(Role::Users, &time).await
        }
    };
    let (before, after) = (ago(41).await, ago(39).await);
    let since = |time: &str| ["republish", "--since", time, "--format", "json"].map(str::to_owned);
    let republish = async |time: &str, dry_run: bool| {
        let mut arguments = since(time).to_vec();
        arguments.extend(dry_run.then(|| "--dry-run".to_owned()));
        outbox(&world, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[]).await
    };
    assert_eq!(republish(&before, true).await.done()["republished"], 5, "nothing is deleted yet");

    assert_eq!(outbox(&world, &["prune", "--format", "json"], &[]).await.done()["deleted"], 3);
    for dry_run in [true, false] {
        let refused = republish(&before, dry_run).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.err.contains("the outbox is complete only for events created after "), "{refused:?}");
        assert!(refused.err.contains("Nothing was changed. Use a later --since, or --all"), "{refused:?}");
    }
    let pending = "SELECT count(*) FROM outbox WHERE status = 'pending'";
    assert_eq!(world.sql(Role::Users, pending).await, "0");
    assert_eq!(republish(&after, true).await.done()["republished"], 2, "the range is complete");

    for rest in [&["--all"][..], &["--until", &ago(1).await]] {
        let arguments = [&["republish", "--dry-run", "--format", "json"], rest].concat();
        let done = outbox(&world, &arguments, &[]).await;
        assert_eq!((done.code, &done.json()["republished"]), (Some(0), &json!(2)), "{done:?}");
        assert!(done.err.contains("were deleted when their retention was over; they are not republished"), "{done:?}");
    }
}
