//! `purse dlq list`, `show` and `purge`.

use std::collections::BTreeMap;

use purse::kernel::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::operate_redrive::publish_dead_letters;
use crate::support::{CommandOutput, World, answer_on_terminal, command, eventually, purse, run_on_terminal};

const DEAD: &str = "wallet.provision.dlq";

/// The queues are declared, and no wallet role is running.
pub async fn world_with_queues() -> World {
    let world = World::new().await;
    world.start(Role::Wallet).await.kill().await;
    world.broker.wait_until_unconsumed("wallet.provision").await;
    world
}

/// The only setting that the commands need.
pub fn broker_url_only(world: &World) -> BTreeMap<String, String> {
    [("RABBITMQ_URL".to_owned(), world.broker.url())].into()
}

pub async fn dlq(world: &World, arguments: &[&str]) -> CommandOutput {
    let all: Vec<&str> = std::iter::once("dlq").chain(arguments.iter().copied()).collect();
    purse(&all, &broker_url_only(world)).await
}

/// Publishes a dead letter as the wallet role does.
pub async fn publish_dead_letter(world: &World, id: &str, body: &[u8], reason: &str) {
    let headers = [("x-error", reason), ("x-request-id", "r-1")];
    world.broker.publish("domain.events.dlx", DEAD, body, Some(id), &headers).await;
}

/// The ids of the dead letters, in order.
async fn ids_in_order(world: &World) -> Vec<String> {
    let listed = dlq(world, &["list", "--format", "json"]).await.done();
    let letters = listed["deadLetters"].as_array().expect("a list");
    letters.iter().map(|letter| letter["id"].as_str().expect("id").to_owned()).collect()
}

/// Returned messages are in the queue a moment later.
pub async fn wait_for_depth(world: &World, queue: &str, depth: u32) {
    eventually(crate::support::PATIENCE, &format!("{queue} has {depth} messages"), || async {
        (world.broker.depth(queue).await == Some(depth)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_list_shows_each_dead_letter_with_its_reason_attempts_and_age_and_removes_none() {
    let world = world_with_queues().await;
    let empty = dlq(&world, &["list"]).await;
    assert_eq!((empty.code, empty.out.as_str(), empty.err.as_str()), (Some(0), "No dead letters.\n", ""));
    assert_eq!(
        dlq(&world, &["list", "--format", "json"]).await.done(),
        json!({"deadLetters": [], "total": 0, "messages": 0})
    );

    let id_with_time = Uuid::now_v7().to_string();
    publish_dead_letter(&world, &id_with_time, b"{}", "userId is not a UUID").await;
    publish_dead_letter(&world, "by-hand", b"{}", "some\u{1b}[31m reason\nof two lines").await;
    world.broker.publish("", DEAD, b"bare", None, &[]).await;
    for _ in 0..2 {
        let listed = dlq(&world, &["list", "--format", "json"]).await.done();
        assert_eq!(listed["total"], 3);
        let letters = listed["deadLetters"].as_array().expect("a list");
        assert_eq!((&letters[0]["id"], &letters[0]["reason"]), (&json!(id_with_time), &json!("userId is not a UUID")));
        assert!(letters[0]["ageSeconds"].as_i64().is_some_and(|age| (0..600).contains(&age)), "{listed}");
        assert!(letters[0]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{listed}");
        assert_eq!(letters[1]["reason"], "some\u{1b}[31m reason\nof two lines");
        let unknown = json!({"userId": null, "reason": null, "attempts": null, "at": null, "ageSeconds": null});
        assert_eq!(letters[2]["id"], "body:9b828d53402d6e33", "the beginning of the SHA-256 of its body");
        for (name, value) in unknown.as_object().expect("object") {
            assert_eq!(&letters[2][name], value, "{name}: {listed}");
        }
    }
    let table = dlq(&world, &["list"]).await;
    assert_eq!((table.code, table.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = table.out.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["ID", "USER", "ATTEMPTS", "AGE", "REASON"]);
    assert!(lines[1].starts_with(&id_with_time) && lines[1].ends_with("userId is not a UUID"), "{lines:?}");
    assert!(
        lines[2].ends_with(r"some\u{1b}[31m reason\nof two lines"),
        "control characters reach the terminal: {lines:?}"
    );
    assert_eq!(lines.last(), Some(&"3 dead letters. See `purse dlq show ID` for details."));
    wait_for_depth(&world, DEAD, 3).await;
}

#[tokio::test]
async fn a_limited_list_reports_the_total_and_keeps_the_order() {
    let world = world_with_queues().await;
    let ids: Vec<String> = (0..7).map(|n| format!("letter-{n}")).collect();
    for id in &ids {
        publish_dead_letter(&world, id, b"{}", "no").await;
    }
    let short = dlq(&world, &["list", "--first", "2"]).await;
    assert!(short.out.contains("letter-1") && !short.out.contains("letter-2"), "{short:?}");
    assert!(short.out.ends_with("Showing 2 of 7 dead letters; `--first 7` shows more.\n"), "{short:?}");
    assert_eq!(ids_in_order(&world).await, ids);
    assert_eq!(dlq(&world, &["show", "letter-4"]).await.code, Some(0));
    assert_eq!(ids_in_order(&world).await, ids);
}

#[tokio::test]
async fn one_dead_letter_is_shown_with_its_body_and_all_headers() {
    let world = world_with_queues().await;
    publish_dead_letter(&world, "first", b"{\"userId\":\"x\"}", "userId is not a UUID").await;
    world.broker.publish("", DEAD, b"\xff\x00", Some("bytes"), &[]).await;
    let shown = dlq(&world, &["show", "first", "--format", "json"]).await.done();
    let expected = json!({
        "id": "first", "userId": "x", "reason": "userId is not a UUID", "attempts": null, "at": null, "ageSeconds": null,
        "type": null, "contentType": null, "body": "{\"userId\":\"x\"}", "bodyBase64": null,
        "headers": {"x-error": "userId is not a UUID", "x-request-id": "r-1"},
    });
    assert_eq!(shown, expected);
    let bytes = dlq(&world, &["show", "bytes", "--format", "json"]).await.done();
    assert_eq!((&bytes["body"], &bytes["bodyBase64"]), (&Value::Null, &json!("/wA=")));
    let table = dlq(&world, &["show", "first"]).await;
    let line =
        |name: &str| table.out.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
    assert_eq!(line("body").as_deref(), Some("{\"userId\":\"x\"}"), "{table:?}");
    assert_eq!(line("header x-request-id").as_deref(), Some("r-1"), "{table:?}");

    let missing = dlq(&world, &["show", "unknown"]).await;
    assert_eq!((missing.code, missing.out.as_str()), (Some(1), ""));
    assert!(
        missing.err.contains("no dead letter with ID unknown") && missing.err.contains("purse dlq list"),
        "{missing:?}"
    );
    wait_for_depth(&world, DEAD, 2).await;
}

#[tokio::test]
async fn a_dead_letter_of_any_size_is_shown_or_cut_and_whole_in_json() {
    let world = world_with_queues().await;
    // From 65,536 characters on, a width is more than the formatting of the standard library takes.
    for length in [65_536, 10_000, 10_001, 65_535, 200_000, 3_000_000] {
        let (id, body) = (format!("text-{length}"), "x".repeat(length));
        publish_dead_letter(&world, &id, body.as_bytes(), "no").await;
        let shown = dlq(&world, &["show", &id]).await;
        assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""), "{length}");
        let line = shown.out.lines().find_map(|line| line.strip_prefix("body ")).expect("body").trim();
        let whole = match length {
            10_000 => line == body,
            _ => line.ends_with(&format!("x… ({} more characters; `--format json` shows all)", length - 10_000)),
        };
        assert!(whole && line.len() < 10_100, "{length}: {} bytes", line.len());
        assert_eq!(dlq(&world, &["show", &id, "--format", "json"]).await.done()["body"], json!(body));
    }
    world.broker.publish("", DEAD, &vec![0xff; 70_000], Some("bytes"), &[]).await;
    let shown = dlq(&world, &["show", "bytes"]).await;
    assert!(shown.out.contains("… (base64; 60000 more bytes; `--format json` shows all)"), "{:?}", shown.code);
    // Headers are long texts from outside too, and so are the names of headers and the ids, up to 255 bytes.
    let (name, id) = ("n".repeat(255), "i".repeat(255));
    let (long, headers_of) = ("y".repeat(100_000), |name| vec![("x-error", "no"), (name, "1")]);
    world.broker.publish("", DEAD, b"{}", Some("header"), &[("x-error", &long), ("x-other", "1")]).await;
    world.broker.publish("", DEAD, b"{}", Some(&id), &headers_of(&name)).await;
    for id in ["header", &id] {
        let shown = dlq(&world, &["show", id]).await;
        assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""));
        assert!(shown.out.len() < 30_000, "{} bytes", shown.out.len());
    }
    let listed = dlq(&world, &["list"]).await;
    assert_eq!((listed.code, listed.err.as_str()), (Some(0), ""));
    assert!(listed.out.lines().all(|line| line.chars().count() < 600), "{listed:?}");
}

#[tokio::test]
async fn a_message_dead_lettered_by_the_broker_is_listed_with_its_reason_and_age() {
    let world = world_with_queues().await;
    // The broker dead-letters the expired messages of this queue, as it does when a limit is reached.
    let (_connection, channel) = world.broker.channel().await;
    let mut arguments = lapin::types::FieldTable::default();
    for (name, value) in [("x-dead-letter-exchange", "domain.events.dlx"), ("x-dead-letter-routing-key", DEAD)] {
        arguments.insert(name.into(), lapin::types::AMQPValue::LongString(value.into()));
    }
    arguments.insert("x-message-ttl".into(), lapin::types::AMQPValue::LongInt(1));
    let durable = lapin::options::QueueDeclareOptions::durable();
    channel.queue_declare("short-lived".into(), durable, arguments).await.expect("declared");
    world.broker.publish("", "short-lived", b"{}", Some("aged"), &[]).await;
    wait_for_depth(&world, DEAD, 1).await;
    let letter = &dlq(&world, &["list", "--format", "json"]).await.done()["deadLetters"][0];
    assert_eq!(letter["reason"], "dead-lettered by the broker: expired in short-lived");
    assert!(letter["ageSeconds"].as_i64().is_some_and(|age| (0..600).contains(&age)), "{letter}");
    // The broker drops messages that are dead-lettered in a cycle, so a redriven message must not keep its x-death.
    assert_eq!(dlq(&world, &["redrive", "aged", "--format", "json"]).await.done()["redriven"], 1);
    let again = world.broker.take("wallet.provision").await.expect("redriven");
    assert!(again.headers.keys().all(|name| !name.contains("death")), "{again:?}");
}

#[tokio::test]
async fn a_progress_bar_is_shown_on_a_terminal_only() {
    let world = world_with_queues().await;
    for n in 0..3 {
        publish_dead_letter(&world, &n.to_string(), b"{}", "no").await;
    }
    let mut listing = command(&["dlq", "list"], &broker_url_only(&world));
    listing.env("TERM", "xterm");
    let output = tokio::task::spawn_blocking(move || run_on_terminal(listing)).await.expect("thread");
    assert!(output.contains("reading dead letters"), "{output:?}");
    let elsewhere = dlq(&world, &["list"]).await;
    assert_eq!((elsewhere.code, elsewhere.err.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn the_list_shows_whose_events_they_are_and_counts_copies_of_one_event_once() {
    let world = world_with_queues().await;
    let (user, id) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    for _ in 0..2 {
        publish_dead_letter(&world, &id, format!(r#"{{"userId":"{user}"}}"#).as_bytes(), "no").await;
    }
    publish_dead_letter(&world, "poison", b"{\"userId\":5}", "no").await;
    let listed = dlq(&world, &["list", "--format", "json"]).await.done();
    assert_eq!((&listed["total"], &listed["messages"]), (&json!(2), &json!(3)));
    let users: Vec<&Value> = listed["deadLetters"].as_array().expect("a list").iter().map(|l| &l["userId"]).collect();
    assert_eq!(users, [&json!(user), &json!(user), &Value::Null]);
    let table = dlq(&world, &["list"]).await;
    let line = table.out.lines().nth(1).expect("a row").split_whitespace().collect::<Vec<_>>();
    assert_eq!(line[..2], [id.as_str(), user.as_str()]);
    assert!(table.out.ends_with("\n2 dead letters (3 copies). See `purse dlq show ID` for details.\n"), "{table:?}");
    let shown = dlq(&world, &["show", &id]).await;
    let line = shown.out.lines().find_map(|line| line.strip_prefix("user ")).map(str::trim);
    assert_eq!(line, Some(user.as_str()), "{shown:?}");
}

#[tokio::test]
async fn a_purge_removes_the_named_ones_and_keeps_the_others_in_their_order() {
    let world = world_with_queues().await;
    for id in ["a", "poison", "b", "--all", "poison", "c"] {
        publish_dead_letter(&world, id, b"{}", "no").await;
    }
    let arguments = ["purge", "--format", "json", "poison", "poison", "nobody"];
    let dry = dlq(&world, &[&arguments[..], &["--dry-run"]].concat()).await;
    let counts = |dry_run: bool, left: u32| json!({"dryRun": dry_run, "purged": 1, "messages": 2, "notFound": ["nobody"], "left": left});
    assert_eq!((dry.code, dry.json()), (Some(1), counts(true, 6)));
    assert_eq!(ids_in_order(&world).await, ["a", "poison", "b", "--all", "poison", "c"]);
    let purged = dlq(&world, &arguments).await;
    assert_eq!((purged.code, purged.json()), (Some(1), counts(false, 4)));
    assert!(purged.err.contains("no dead letter with ID nobody"), "{purged:?}");
    assert_eq!(ids_in_order(&world).await, ["a", "b", "--all", "c"]);
    // An id comes from outside, and may look like a flag.
    let purged = dlq(&world, &["purge", "--", "--all"]).await;
    assert_eq!((purged.code, purged.out.as_str()), (Some(0), "Removed 1 dead letter for good; 3 left.\n"));
    assert_eq!(ids_in_order(&world).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn all_are_purged_only_when_that_is_confirmed() {
    let world = world_with_queues().await;
    for id in ["a", "b", "b"] {
        publish_dead_letter(&world, id, b"{}", "no").await;
    }
    let dry = dlq(&world, &["purge", "--all", "--dry-run", "--format", "json"]).await.done();
    assert_eq!(dry, json!({"dryRun": true, "purged": 2, "messages": 3, "notFound": [], "left": 3}));
    // Without a terminal there is no way to ask.
    for arguments in [&["purge"][..], &["purge", "--yes"], &["purge", "--all"], &["purge", "--all", "a"]] {
        let refused = dlq(&world, arguments).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(64), ""), "{arguments:?} {refused:?}");
        assert_eq!(refused.err.contains("Add --yes"), arguments == ["purge", "--all"], "{refused:?}");
    }
    wait_for_depth(&world, DEAD, 3).await;
    let purge = || command(&["dlq", "purge", "--all"], &broker_url_only(&world));
    for (answer, code) in [("no\n", 1), ("\n", 1), ("y\n", 1)] {
        let (asking, answer) = (purge(), answer.to_owned());
        let answered = tokio::task::spawn_blocking(move || answer_on_terminal(asking, &answer, || {}));
        let (printed, ended) = answered.await.expect("thread");
        assert!(printed.contains("Remove 3 dead letters for good? Type yes: "), "{printed:?}");
        assert_eq!(ended, Some(code), "{printed:?}");
        wait_for_depth(&world, DEAD, 3).await;
    }
    // What arrives while the question is open is not part of it.
    let asking = purge();
    let (asked, is_asked) = tokio::sync::oneshot::channel();
    let (buried, is_buried) = std::sync::mpsc::channel();
    let answered = tokio::task::spawn_blocking(move || {
        let wait = || {
            asked.send(()).expect("waits");
            is_buried.recv().expect("buried");
        };
        answer_on_terminal(asking, "yes\n", wait)
    });
    is_asked.await.expect("asked");
    publish_dead_letter(&world, "late", b"{}", "no").await;
    buried.send(()).expect("waits");
    let (printed, ended) = answered.await.expect("thread");
    assert_eq!(ended, Some(0), "{printed:?}");
    assert_eq!(ids_in_order(&world).await, ["late"]);
    let purged = dlq(&world, &["purge", "--all", "--yes"]).await;
    assert_eq!((purged.code, purged.out.as_str()), (Some(0), "Removed 1 dead letter for good; 0 left.\n"));
    let nothing = dlq(&world, &["purge", "--all", "--yes", "--format", "json"]).await.done();
    assert_eq!(nothing, json!({"dryRun": false, "purged": 0, "messages": 0, "notFound": [], "left": 0}));
}

#[tokio::test]
async fn an_export_has_everything_of_each_dead_letter_and_takes_none() {
    let world = world_with_queues().await;
    let user = Uuid::now_v7().to_string();
    publish_dead_letter(&world, "event", format!(r#"{{"userId":"{user}"}}"#).as_bytes(), "no\ntwo lines").await;
    world.broker.publish("", DEAD, b"\xff\x00", Some("bytes"), &[]).await;
    publish_dead_letter(&world, "third", b"{}", "no").await;
    let lines = |output: &CommandOutput| -> Vec<Value> {
        output.out.lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect()
    };
    let exported = dlq(&world, &["export"]).await;
    assert_eq!((exported.code, exported.err.as_str()), (Some(0), ""));
    let [event, bytes, third] = &lines(&exported)[..] else { panic!("{exported:?}") };
    assert_eq!(
        (&event["id"], &event["userId"], &event["reason"]),
        (&json!("event"), &json!(user), &json!("no\ntwo lines"))
    );
    assert_eq!(event["body"], json!(format!(r#"{{"userId":"{user}"}}"#)));
    assert_eq!(event["headers"], json!({"x-error": "no\ntwo lines", "x-request-id": "r-1"}));
    assert_eq!((&bytes["body"], &bytes["bodyBase64"]), (&Value::Null, &json!("/wA=")));
    assert_eq!(third["id"], "third");
    assert_eq!(ids_in_order(&world).await, ["event", "bytes", "third"]);
    let some = dlq(&world, &["export", "third", "nobody"]).await;
    assert_eq!((some.code, lines(&some).len()), (Some(1), 1), "{some:?}");
    assert!(some.err.contains("no dead letter with ID nobody"), "{some:?}");
    // An export that is not complete must not be taken for one: it comes before a purge.
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut exporting = command(&["dlq", "export"], &broker_url_only(&world));
    exporting.stdout(full);
    let failed = tokio::task::spawn_blocking(move || exporting.output().expect("spawned")).await.expect("thread");
    assert_eq!(failed.status.code(), Some(70), "{failed:?}");
    wait_for_depth(&world, DEAD, 3).await;
}

#[tokio::test]
async fn an_export_of_more_than_can_be_read_says_so_and_ends_with_1() {
    let world = world_with_queues().await;
    publish_dead_letters(&world, 2_001).await;
    let exported = dlq(&world, &["export"]).await;
    assert_eq!((exported.code, exported.out.lines().count()), (Some(1), 2_000));
    assert!(exported.err.contains("exported the first 2000 of 2001 dead letters"), "{}", exported.err);
    let dry = dlq(&world, &["purge", "--all", "--dry-run", "--format", "json"]).await.done();
    assert_eq!((&dry["purged"], &dry["messages"]), (&Value::Null, &json!(2_001)));
    let purged = dlq(&world, &["purge", "--all", "--yes"]).await;
    assert_eq!(purged.out, "Removed 2001 dead letters for good; 0 left.\n");
}

#[tokio::test]
async fn without_a_broker_or_its_queue_the_command_reports_what_to_do_and_exits_with_69() {
    let world = World::new().await;
    for arguments in
        [&["list"][..], &["show", "x"], &["redrive"], &["export"], &["purge", "x"], &["purge", "--all", "--yes"]]
    {
        let missing = dlq(&world, arguments).await;
        assert_eq!((missing.code, missing.out.as_str()), (Some(69), ""), "{arguments:?} {missing:?}");
        assert!(missing.err.contains("RabbitMQ has no queue wallet.provision.dlq"), "{missing:?}");
        assert!(missing.err.contains("start that role once"), "{missing:?}");
    }
    let unreachable = [("RABBITMQ_URL".to_owned(), "amqp://u:hunter22@127.0.0.1:1/%2f".to_owned())].into();
    let output = purse(&["dlq", "list"], &unreachable).await;
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(output.err.contains("Check that it is running and that RABBITMQ_URL is correct"), "{output:?}");
    assert!(!output.err.contains("hunter22"), "{output:?}");
}

#[tokio::test]
async fn invalid_usage_exits_with_64_before_any_connection() {
    let nowhere: BTreeMap<String, String> = [("RABBITMQ_URL".to_owned(), "amqp://127.0.0.1:1".to_owned())].into();
    for arguments in [
        &["dlq"][..],
        &["dlq", "burn"],
        &["dlq", "show"],
        &["dlq", "show", "a", "b"],
        &["dlq", "list", "--first", "0"],
        &["dlq", "list", "--first", "2001"],
        &["dlq", "redrive", "a", "--first", "1"],
        &["dlq", "list", "--dry-run"],
        &["dlq", "list", "--format", "yaml"],
        &["dlq", "list", "--config-dir", "/nonexistent"],
    ] {
        let output = purse(arguments, &nowhere).await;
        assert_eq!(output.code, Some(64), "{arguments:?} {output:?}");
        assert!(!output.err.is_empty(), "{arguments:?}");
    }
    let nothing = purse(&["dlq", "list"], &BTreeMap::new()).await;
    assert_eq!(nothing.code, Some(64));
    assert!(nothing.err.contains("RABBITMQ_URL: is required"), "{nothing:?}");
}
