//! `GET /v1/statements`: exact at both ends of the period, complete or visibly cut off, and harmless in a spreadsheet.

use std::collections::BTreeSet;
use std::time::Duration;

use purse::kernel::{Role, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::sockets::narrow;
use crate::support::{
    Client, PATIENCE, Response, RoleProcess, Scrape, User, WalletLock, World, assert_error, assert_invalid, eventually,
    seconds_from_now, token_of,
};

const HEADER: &str = "date,id,type,description,reference,counterparty,money_in,money_out,balance";

/// A period that contains everything that a test posts.
pub fn until_tomorrow() -> String {
    let day = |seconds| Timestamp::from_second(seconds_from_now(seconds)).expect("a time").to_string();
    format!("from={}&to={}", day(-24 * 3600), day(24 * 3600))
}

async fn statement(client: &Client, user: &User, query: &str) -> Response {
    let response = client.get(user, &format!("/v1/statements?{query}")).await;
    assert_eq!(response.status, 200, "{query}: {response:?}");
    response
}

fn text(response: &Response) -> &str {
    response.body.as_str().expect("a text")
}

/// The records of a CSV after its header, read as RFC 4180 has it.
fn records(csv: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut characters = csv.chars().peekable();
    let mut is_quoted = false;
    while let Some(c) = characters.next() {
        match c {
            '"' if is_quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => record.push(std::mem::take(&mut field)),
            '\r' if !is_quoted => {
                assert_eq!(characters.next(), Some('\n'), "a lone CR");
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            other => {
                assert!(is_quoted || other != '\n', "a lone LF");
                field.push(other);
            }
        }
    }
    assert!(field.is_empty() && record.is_empty() && !is_quoted, "the last record has no end");
    assert_eq!(records.first().map(|header| header.join(",")).as_deref(), Some(HEADER));
    records.remove(0);
    assert!(records.iter().all(|record| record.len() == 9), "{records:?}");
    records
}

/// The cents that a column of dollars adds up to.
fn cents(column: &str) -> i64 {
    if column.is_empty() { 0 } else { column.replace('.', "").parse().expect("cents") }
}

/// Fails unless the entries lead from the opening balance to the closing balance.
fn assert_adds_up(records: &[Vec<String>]) {
    let (first, last) = (records.first().expect("an opening balance"), records.last().expect("a closing balance"));
    assert_eq!((first[2].as_str(), last[2].as_str()), ("opening balance", "closing balance"));
    let entries = &records[1..records.len() - 1];
    let mut balance = cents(&first[8]);
    for entry in entries {
        balance += cents(&entry[6]) - cents(&entry[7]);
        assert_eq!(cents(&entry[8]), balance, "{entry:?}");
    }
    assert_eq!(cents(&last[8]), balance);
}

/// Writes a wallet with `count` credits of one cent, a second apart, from `first` on.
async fn wallet_with_history(world: &World, count: usize, first: &str) -> User {
    let id = Uuid::now_v7().to_string();
    world
        .sql(
            Role::Wallet,
            &format!(
                "INSERT INTO wallets (user_id, id) VALUES ('{id}', gen_random_uuid());
                 INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, hash)
                 SELECT '{id}', n, gen_random_uuid(), 'credit', 1, n, 0, timestamptz '{first}' + (n - 1) * interval '1 second', sha256('')
                 FROM generate_series(1, {count}) AS n;
                 ANALYZE transactions"
            ),
        )
        .await;
    User { token: token_of(&id), email: String::new(), id }
}

/// Requests a statement and reads only its head.
async fn begin(wallet: &RoleProcess, user: &User, query: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = narrow(&wallet.url()).await;
    let head =
        format!("GET /v1/statements?{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", user.token);
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut received = Vec::new();
    while !received.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut part = [0; 512];
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut part)).await.expect("in time").expect("a head");
        assert!(count > 0, "the connection ended within the head");
        received.extend_from_slice(&part[..count]);
    }
    assert!(received.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&received));
    (stream, received)
}

/// The rest of a response, until the connection is closed or reset, or the last chunk has come.
async fn read_to_end((mut stream, mut received): (TcpStream, Vec<u8>)) -> Vec<u8> {
    let mut part = vec![0; 64 * 1024];
    while !received.ends_with(b"\r\n0\r\n\r\n") {
        match tokio::time::timeout(PATIENCE, stream.read(&mut part)).await.expect("data or the end") {
            Ok(0) | Err(_) => break,
            Ok(count) => received.extend_from_slice(&part[..count]),
        }
    }
    received
}

/// The body of a chunked response that ended properly.
fn whole_body(response: &[u8]) -> String {
    let at = response.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let (mut rest, mut body) = (&response[at..], Vec::new());
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").expect("the size of a chunk");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("ASCII"), 16).expect("a number");
        rest = &rest[end + 2..];
        if size == 0 {
            return String::from_utf8(body).expect("UTF-8");
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

async fn ended(wallet: &RoleProcess, result: &str) -> Option<f64> {
    Scrape::of(&wallet.url()).await.number(&format!("purse_statements_total{{result=\"{result}\"}}"))
}

async fn running(wallet: &RoleProcess) -> Option<f64> {
    Scrape::of(&wallet.url()).await.number("purse_statements_running")
}

#[tokio::test]
async fn a_statement_has_the_entries_from_its_start_until_just_before_its_end() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let mut posted = Vec::new();
    for (kind, cents, description) in
        [("credit", 1234, None), ("credit", 1500, Some("order 17")), ("debit", 5, Some("")), ("credit", 100, None)]
    {
        let body = json!({"amountMinor": cents, "description": description});
        let response = client.send(client.post_request(&user, kind, &body, None)).await;
        assert_eq!(response.status, 201, "{response:?}");
        posted.push(response.body);
    }
    let [id, at] = ["id", "createdAt"].map(|field| {
        let posted = posted.clone();
        move |n: usize| posted[n][field].as_str().expect("a text").to_owned()
    });
    let response = statement(&client, &user, &format!("from={}&to={}", at(1), at(3))).await;
    let expected = [
        HEADER.to_owned(),
        format!("{},,opening balance,,,,,,12.34", at(1)),
        format!("{},{},credit,\"order 17\",,,15.00,,27.34", at(1), id(1)),
        format!("{},{},debit,\"\",,,,0.05,27.29", at(2), id(2)),
        format!("{},,closing balance,,,,,,27.29", at(3)),
    ];
    assert_eq!(text(&response), expected.map(|line| line + "\r\n").concat());
    assert_eq!(response.header("content-type"), "text/csv; charset=utf-8; header=present");
    let day = |time: &str| time[..10].to_owned();
    assert_eq!(
        response.header("content-disposition"),
        format!("attachment; filename=\"purse-{}-{}.csv\"", day(&at(1)), day(&at(3)))
    );
    assert_eq!(
        (response.header("statement-opening-minor"), response.header("statement-closing-minor")),
        ("1234", "2729")
    );

    // The same period in another zone, and with a byte order mark.
    let elsewhere = |time: &str| {
        let at: Timestamp = time.parse().expect("a time");
        let shifted = Timestamp::from_microsecond(at.as_microsecond() + 2 * 3_600_000_000).expect("a time");
        format!("{}%2B02:00", format!("{shifted:.6}").trim_end_matches('Z'))
    };
    let query = format!("from={}&to={}&bom=true", elsewhere(&at(1)), elsewhere(&at(3)));
    assert_eq!(text(&statement(&client, &user, &query).await), format!("\u{feff}{}", text(&response)));
}

#[tokio::test]
async fn adjacent_periods_have_each_entry_once_and_the_closing_balance_of_one_opens_the_next() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    let user = wallet_with_history(&world, 1_100, "2026-01-01T00:00:00.5Z").await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let times = ["00:00:00", "00:00:10.5", "00:00:10.500001", "00:08:20.5", "00:17:00.000001", "01:00:00"];
    let (mut balance, mut seen) = (0, Vec::new());
    for pair in times.windows(2) {
        let query = format!("from=2026-01-01T{}Z&to=2026-01-01T{}Z", pair[0], pair[1]);
        let records = records(text(&statement(&client, &user, &query).await));
        assert_adds_up(&records);
        assert_eq!(cents(&records[0][8]), balance, "{query}");
        balance = cents(&records[records.len() - 1][8]);
        seen.extend(records[1..records.len() - 1].iter().map(|entry| cents(&entry[8])));
    }
    assert_eq!(seen, (1..=1_100).collect::<Vec<i64>>());
}

#[tokio::test]
async fn an_empty_period_has_two_equal_balances() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let empty = |balance: &str| {
        let line = |at: &str, end: &str| format!("{at},,{end} balance,,,,,,{balance}\r\n");
        format!(
            "{HEADER}\r\n{}{}",
            line("2020-01-01T00:00:00.000000Z", "opening"),
            line("2020-02-01T00:00:00.000000Z", "closing")
        )
    };
    let period = "from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z";
    assert_eq!(text(&statement(&client, &user, period).await), empty("0.00"), "a wallet without entries");
    client.post(&user, "credit", 700, None).await;
    assert_eq!(text(&statement(&client, &user, period).await), empty("0.00"), "before its first entry");
    let later = statement(&client, &user, "from=9999-01-01T00:00:00Z&to=9999-01-01T00:00:00Z&format=ndjson").await;
    assert_eq!(text(&later), "", "no time at all");
    assert_eq!((later.header("statement-opening-minor"), later.header("statement-closing-minor")), ("700", "700"));
    assert_eq!(later.header("content-disposition"), "attachment; filename=\"purse-9999-01-01-9999-01-01.ndjson\"");
}

#[tokio::test]
async fn a_line_of_ndjson_is_the_body_of_the_transaction_with_its_exact_time() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    for (kind, cents) in [("credit", 500), ("credit", 7), ("debit", 99)] {
        let body = json!({"amountMinor": cents, "description": "a \"quoted\"\n\u{2028}=1 ü"});
        assert_eq!(client.send(client.post_request(&user, kind, &body, None)).await.status, 201);
    }
    let response = statement(&client, &user, &format!("{}&format=ndjson", until_tomorrow())).await;
    assert_eq!(response.header("content-type"), "application/x-ndjson");
    let mut lines: Vec<Value> = text(&response).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    lines.reverse();
    assert_eq!(Value::Array(lines), client.get(&user, "/v1/transactions").await.body["items"]);

    let old = wallet_with_history(&world, 3, "2026-01-01T00:00:00.12Z").await;
    let old =
        statement(&Client::new("", &wallet.url()), &old, "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z").await;
    let times: Vec<String> = records(text(&old)).into_iter().map(|record| record[0].clone()).collect();
    assert_eq!(
        times[1..4],
        ["2026-01-01T00:00:00.120000Z", "2026-01-01T00:00:01.120000Z", "2026-01-01T00:00:02.120000Z"]
    );
}

#[tokio::test]
async fn no_text_of_a_statement_is_a_formula_in_a_spreadsheet() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let formulas = ["=HYPERLINK(\"http://x\")", "+1", "-1+1", "@SUM(1)", "\t=1", "\"=1", "＝1", "\r\n=1", " =1"];
    for text in formulas {
        let body = json!({"amountMinor": 1500, "description": text});
        assert_eq!(client.send(client.post_request(&user, "credit", &body, None)).await.status, 201, "{text:?}");
    }
    let csv = statement(&client, &user, &until_tomorrow()).await;
    let csv = text(&csv);
    let records = records(csv);
    assert_eq!(records.len(), formulas.len() + 2);
    for (formula, record) in formulas.iter().zip(&records[1..]) {
        let harmless = format!("'{}", formula.replace(['\t', '\r', '\n'], " "));
        assert_eq!(record[3], harmless);
        assert!(csv.contains(&format!("\"{}\"", harmless.replace('"', "\"\""))), "{formula:?} is quoted");
        assert_eq!(record[6], "15.00", "money is not");
    }
}

#[tokio::test]
async fn a_statement_is_final_once_its_period_is_over() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let past = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z";
    for (query, expected) in [(past, "true"), (until_tomorrow().as_str(), "false")] {
        assert_eq!(statement(&client, &user, query).await.header("statement-final"), expected, "{query}");
    }
}

/// The entry takes its time while the wallet is locked and is committed later.
#[tokio::test]
async fn a_statement_waits_for_an_entry_that_is_being_committed() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let lock = WalletLock::acquire(&world, &user).await;
    let query = until_tomorrow();
    let asked = statement(&client, &user, &query);
    let writes = async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '-- wallet.ledger.statement%' AND wait_event_type = 'Lock'";
        eventually(PATIENCE, "the statement waits", || async {
            (world.sql(Role::Wallet, waits).await.trim() == "1").then_some(())
        })
        .await;
        let insert = format!(
            "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, hash)
             VALUES ('{}', 1, gen_random_uuid(), 'credit', 42, 42, 0, clock_timestamp(), sha256(''))",
            user.id
        );
        lock.write(&insert).await;
    };
    let (response, ()) = tokio::join!(asked, writes);
    assert_eq!(response.header("statement-closing-minor"), "42");
    assert_eq!(records(text(&response)).len(), 3);

    let lock = WalletLock::acquire(&world, &user).await;
    let refused = client.get(&user, &format!("/v1/statements?{query}")).await;
    assert_error(&refused, 503, "DEPENDENCY_UNAVAILABLE", "a wallet that stays locked");
    lock.release().await;
    eventually(PATIENCE, "no statement runs", || async { (running(&wallet).await == Some(0.0)).then_some(()) }).await;
}

#[tokio::test]
async fn entries_that_are_posted_while_a_statement_is_sent_are_not_in_it() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    let user = wallet_with_history(&world, 60_000, "2026-01-01T00:00:00Z").await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let response = begin(&wallet, &user, "from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z").await;
    for _ in 0..20 {
        let posts = (0..50).map(|_| client.post(&user, "debit", 1, None));
        for posted in futures_util::future::join_all(posts).await {
            assert_eq!(posted.status, 201, "{posted:?}");
        }
    }
    assert_eq!(client.balance(&user).await, 59_000);
    let records = records(&whole_body(&read_to_end(response).await));
    assert_eq!(records.len(), 60_002);
    assert_adds_up(&records);
    let ids: BTreeSet<&String> = records[1..60_001].iter().map(|record| &record[1]).collect();
    assert_eq!(ids.len(), 60_000);
    eventually(PATIENCE, "it is counted", || async { (ended(&wallet, "complete").await == Some(1.0)).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_statement_that_cannot_be_completed_ends_without_its_last_chunk_and_its_closing_balance() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    let user = wallet_with_history(&world, 100_000, "2026-01-01T00:00:00Z").await;
    let wallet = world.start(Role::Wallet).await;
    let response = begin(&wallet, &user, "from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z").await;
    world.sql(Role::Wallet, "ALTER TABLE transactions RENAME TO gone").await;
    let received = read_to_end(response).await;
    let received = String::from_utf8(received).expect("UTF-8");
    assert!(received.contains("opening balance") && received.contains(",credit,"), "{received}");
    assert!(!received.contains("closing balance"), "the file looks complete");
    assert!(!received.ends_with("\r\n0\r\n\r\n"), "the response looks complete");
    eventually(PATIENCE, "it is counted", || async { (ended(&wallet, "failed").await == Some(1.0)).then_some(()) })
        .await;
    let logged = eventually(PATIENCE, "it is logged", || async {
        Some(wallet.logged("statement was cut off")).filter(|logged| !logged.is_empty())
    })
    .await;
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert_eq!((&logged[0]["level"], &logged[0]["user_id"]), (&json!("warn"), &json!(user.id)));
    assert!(
        logged[0]["error"].as_str().is_some_and(|error| error.starts_with("a page could not be read: ")),
        "{logged:?}"
    );
    assert_eq!(running(&wallet).await, Some(0.0));
}

/// Both forms, because only one of them has a last record by which a file shows that it is complete.
#[tokio::test]
async fn a_statement_whose_database_goes_away_after_its_first_page_ends_without_its_last_chunk() {
    for (format, last) in [("csv", "closing balance"), ("ndjson", "\"balanceAfterMinor\":100000,")] {
        let world = World::new().await;
        drop(world.both().await); // for the migrations
        let user = wallet_with_history(&world, 100_000, "2026-01-01T00:00:00Z").await;
        let wallet = world.start(Role::Wallet).await;
        let query = format!("from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z&format={format}");
        let response = begin(&wallet, &user, &query).await;
        let away = "UPDATE pg_database SET datallowconn = false WHERE datname = current_database();
                    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'purse%'";
        world.sql(Role::Wallet, away).await;
        let received = String::from_utf8(read_to_end(response).await).expect("UTF-8");
        assert!(received.contains("credit"), "{format}: a page was sent: {received}");
        assert!(!received.contains(last), "{format}: the file looks complete");
        assert!(!received.ends_with("\r\n0\r\n\r\n"), "{format}: the response looks complete");
        eventually(PATIENCE, "it is counted", || async {
            (ended(&wallet, "failed").await == Some(1.0) && running(&wallet).await == Some(0.0)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn clients_that_read_nothing_or_a_byte_per_second_keep_no_database_connection_and_are_disconnected() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    let user = wallet_with_history(&world, 100_000, "2026-01-01T00:00:00Z").await;
    let wallet = world.start_with(Role::Wallet, &[("DB_POOL_MAX", "1"), ("DB_ACQUIRE_TIMEOUT_MS", "500")]).await;
    let client = Client::new("", &wallet.url());
    let period = "from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z";
    let (silent, (mut slow, _)) = (begin(&wallet, &user, period).await, begin(&wallet, &user, period).await);
    let reading = tokio::spawn(async move {
        while slow.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    assert_eq!(running(&wallet).await, Some(2.0));
    let mut balances = 0;
    eventually(PATIENCE, "both statements are abandoned", || {
        balances += 1;
        async {
            // The only connection of the pool is free.
            assert_eq!(client.balance(&user).await, 100_000);
            let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                        AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '1 s'";
            assert_eq!(world.sql(Role::Wallet, idle).await, "0");
            (ended(&wallet, "abandoned").await == Some(2.0)).then_some(())
        }
    })
    .await;
    assert!(balances > 10, "{balances} balances were read meanwhile");
    assert_eq!(running(&wallet).await, Some(0.0));
    reading.abort();
    drop(silent);
}

#[tokio::test]
async fn one_user_gets_two_statements_at_once_and_all_users_together_eight() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    let mut users = Vec::new();
    for _ in 0..5 {
        users.push(wallet_with_history(&world, 60_000, "2026-01-01T00:00:00Z").await);
    }
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let period = "from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z";
    let refused = async |user: &User, about: &str| {
        let response = client.get(user, &format!("/v1/statements?{period}")).await;
        assert_error(&response, 503, "OVERLOADED", about);
        assert_eq!(response.header("retry-after"), "1");
    };
    let mut open = Vec::new();
    for user in users.iter().take(4) {
        open.push(begin(&wallet, user, period).await);
        open.push(begin(&wallet, user, period).await);
        if open.len() == 2 {
            refused(user, "a third statement of one user").await;
        }
    }
    refused(&users[4], "a ninth statement").await;
    assert_eq!(running(&wallet).await, Some(8.0));
    drop(open.pop());
    eventually(PATIENCE, "a place is free", || async { (running(&wallet).await == Some(7.0)).then_some(()) }).await;
    open.push(begin(&wallet, &users[4], period).await);
}

#[tokio::test]
async fn statements_have_a_rate_limit_of_their_own() {
    let world = World::new().await;
    let limits =
        [("RATE_LIMIT_ENABLED", "true"), ("RL_EXPORT_MAX", "2"), ("RL_EXPORT_WINDOW", "1h"), ("RL_TX_MAX", "1")];
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, &limits).await;
    let client = Client::new(&users.url(), &wallet.url());
    let (user, other) = (client.ready_user().await, client.ready_user().await);
    let path = format!("/v1/statements?{}", until_tomorrow());
    for left in ["1", "0"] {
        let response = client.get(&user, &path).await;
        assert_eq!((response.status.as_u16(), response.header("ratelimit-remaining")), (200, left));
        assert_eq!(response.header("ratelimit-policy"), "\"statements\";q=2;w=3600");
    }
    assert_error(&client.get(&user, &path).await, 429, "RATE_LIMITED", "a third statement");
    assert_eq!(client.get(&other, &path).await.status, 200, "another user");
    assert_eq!(client.post(&user, "credit", 1, None).await.status, 201, "posts are counted separately");
}

#[tokio::test]
async fn head_returns_the_headers_of_a_statement_and_runs_nothing() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 700, None).await;
    let url = format!("{}/v1/statements?{}", client.wallet, until_tomorrow());
    for _ in 0..4 {
        let head = client.request(Method::HEAD, &url).bearer_auth(&user.token).send().await.expect("a response");
        assert_eq!(
            (head.status().as_u16(), &head.headers()["statement-closing-minor"]),
            (200, &"700".parse().expect("a value"))
        );
        assert!(head.bytes().await.expect("no body").is_empty());
    }
    assert_eq!(statement(&client, &user, &until_tomorrow()).await.header("statement-closing-minor"), "700");
    eventually(PATIENCE, "one statement was sent", || async {
        (ended(&wallet, "complete").await == Some(1.0) && running(&wallet).await == Some(0.0)).then_some(())
    })
    .await;
    assert_eq!(ended(&wallet, "abandoned").await, Some(0.0));
}

#[tokio::test]
async fn an_invalid_parameter_of_a_statement_returns_400_naming_it() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let (from, to) = ("from=2026-01-01T00:00:00Z", "to=2026-02-01T00:00:00Z");
    let both = format!("{from}&{to}");
    for (query, fields) in [
        (String::new(), vec!["from", "to"]),
        (from.to_owned(), vec!["to"]),
        (to.to_owned(), vec!["from"]),
        (format!("from=yesterday&{to}"), vec!["from"]),
        (format!("{from}&to=2026-02-01"), vec!["to"]),
        (format!("{from}&to=2025-12-31T23:59:59.999999Z"), vec!["to"]),
        (format!("{from}&to=2027-01-02T00:00:00.000001Z"), vec!["to"]),
        ("from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z".to_owned(), vec!["to"]),
        (format!("{both}&format=pdf"), vec!["format"]),
        (format!("{both}&format=CSV"), vec!["format"]),
        (format!("{both}&format="), vec!["format"]),
        (format!("{both}&bom=1"), vec!["bom"]),
        (format!("{both}&bom="), vec!["bom"]),
        (format!("{both}&format=ndjson&bom=true"), vec!["bom"]),
        (format!("{both}&limit=5"), vec!["limit"]),
        (format!("{both}&{to}"), vec!["to"]),
        ("from=x&to=x&format=x&bom=x&x=x".to_owned(), vec!["from", "to", "format", "bom", "x"]),
    ] {
        assert_invalid(&client.get(&user, &format!("/v1/statements?{query}")).await, &fields, &query);
    }
    for query in [
        format!("{from}&to=2027-01-02T00:00:00Z"),
        format!("{both}&format=ndjson&bom=false"),
        format!("{both}&format=csv&bom=true"),
    ] {
        assert_eq!(client.get(&user, &format!("/v1/statements?{query}")).await.status, 200, "{query}");
    }
}

/// A statement of a wallet that a restore from a backup has removed.
#[tokio::test]
async fn a_wallet_that_is_gone_is_being_provisioned_again() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    world.sql(Role::Wallet, &format!("DELETE FROM wallets WHERE user_id = '{}'", user.id)).await;
    let gone = client.get(&user, &format!("/v1/statements?{}", until_tomorrow())).await;
    assert_error(&gone, 503, "WALLET_PROVISIONING", "no wallet");
}
