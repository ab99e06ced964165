//! What must hold after any fault: in both databases, at the broker, and between what clients were told and what is
//! there. The names are those of docs/reliability.md.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use purse::kernel::Role;

use super::history::{History, Told};
use crate::support::{Client, PASSWORD, World};

const DEAD: &str = "wallet.provision.dlq";

/// Each prints one word a breach.
const USERS: &[(&str, &str)] = &[
    ("U1 one account an address", "SELECT lower(email) FROM users GROUP BY 1 HAVING count(*) > 1"),
    (
        "U2 one event a user",
        "SELECT u.id FROM users u LEFT JOIN outbox o ON o.type = 'UserRegistered' AND o.payload_json->>'userId' = u.id::text
         GROUP BY u.id HAVING count(o.id) <> 1",
    ),
    (
        "U3 no event without its user",
        "SELECT id FROM outbox WHERE NOT EXISTS (SELECT FROM users u WHERE u.id::text = payload_json->>'userId')",
    ),
    ("U4 nothing pending", "SELECT id FROM outbox WHERE status <> 'published'"),
    ("U5 published has its time", "SELECT id FROM outbox WHERE (status = 'published') <> (published_at IS NOT NULL)"),
    ("U6 argon2id alone", "SELECT id FROM users WHERE password_hash NOT LIKE '$argon2id$v=19$m=%'"),
];

const WALLET: &[(&str, &str)] = &[
    ("W1 one wallet a user", "SELECT user_id FROM wallets GROUP BY 1 HAVING count(*) > 1"),
    (
        "W3 no entry without its wallet",
        "SELECT DISTINCT user_id FROM transactions t WHERE NOT EXISTS (SELECT FROM wallets w WHERE w.user_id = t.user_id)",
    ),
    (
        "W4, W5, W8 the ledger adds up",
        "SELECT user_id FROM (
             SELECT user_id, seq, balance_after_minor, created_at, row_number() OVER w AS place,
                    sum(CASE type WHEN 'credit' THEN amount_minor ELSE -amount_minor END) OVER w AS balance,
                    lag(created_at) OVER w AS before
             FROM transactions WINDOW w AS (PARTITION BY user_id ORDER BY seq)
         ) AS entry
         WHERE seq <> place OR balance <> balance_after_minor OR balance < 0 OR created_at < before",
    ),
    (
        "W6 one entry a key",
        "SELECT idempotency_key FROM transactions WHERE idempotency_key IS NOT NULL
         GROUP BY user_id, idempotency_key HAVING count(*) > 1",
    ),
    (
        "W7 amounts and types",
        "SELECT id FROM transactions WHERE amount_minor NOT BETWEEN 1 AND 9007199254740991 OR type NOT IN ('credit', 'debit')",
    ),
];

/// Both databases.
const EITHER: &[(&str, &str)] = &[
    (
        "P4 no transaction that nobody goes on with",
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'
         AND state_change < clock_timestamp() - interval '5 s'",
    ),
    ("P5 no deadlock", "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database() AND deadlocks > 0"),
];

/// Waits until nothing is on its way any more, and says how long that took.
pub async fn quiet(world: &World, within: Duration) -> Duration {
    let began = Instant::now();
    loop {
        let pending = world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status <> 'published'").await;
        let queues = world.broker.queues().await;
        // Queues of a test's own are its own affair.
        let ours = |name: &str| name.starts_with("wallet.provision") && name != DEAD;
        let waiting: u64 = queues.iter().filter(|(name, _)| ours(name)).map(|(_, messages)| messages).sum();
        let (people, wallets) = both_sides(world).await;
        if pending == "0" && waiting == 0 && people.is_subset(&wallets) {
            return began.elapsed();
        }
        assert!(
            began.elapsed() < within,
            "not quiet within {within:?}: {pending} events pending, queues {queues:?}, {} people without a wallet",
            people.difference(&wallets).count()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn both_sides(world: &World) -> (BTreeSet<String>, BTreeSet<String>) {
    let ids = |printed: String| printed.lines().map(str::to_owned).collect();
    (
        ids(world.sql(Role::Users, "SELECT id FROM users").await),
        ids(world.sql(Role::Wallet, "SELECT user_id FROM wallets").await),
    )
}

/// Everything that is broken now, in words. `poison` names the dead letters that belong there.
pub async fn breaches(world: &World, history: &History, client: &Client, poison: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for (role, laws) in [(Role::Users, USERS), (Role::Wallet, WALLET), (Role::Users, EITHER), (Role::Wallet, EITHER)] {
        for (law, query) in laws {
            let found = world.sql(role, query).await;
            if !found.is_empty() {
                broken.push(format!("{law} ({role}): {}", found.replace('\n', " ")));
            }
        }
    }
    let (people, wallets) = both_sides(world).await;
    let missing: Vec<_> = people.difference(&wallets).collect();
    if !missing.is_empty() {
        broken.push(format!("W2 every user has a wallet: not {missing:?}"));
    }
    broken.extend(posts_against_ledger(world, history).await);
    broken.extend(registrations_against_store(world, history, client).await);
    let dead = world.broker.ids_in(DEAD).await;
    let expected: BTreeSet<String> = poison.iter().map(|id| (*id).to_owned()).collect();
    if dead != expected {
        broken.push(format!("B2 the dead letters are the poison: {dead:?} instead of {expected:?}"));
    }
    broken
}

/// H1 to H4 and H6.
async fn posts_against_ledger(world: &World, history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let rows = world
        .sql(Role::Wallet, "SELECT user_id, idempotency_key, id, type, amount_minor FROM transactions WHERE idempotency_key IS NOT NULL")
        .await;
    let rows: HashMap<(String, String), (String, String, String)> = rows
        .lines()
        .filter_map(|line| {
            let columns: Vec<String> = line.split('|').map(str::to_owned).collect();
            let [user, key, id, kind, cents] = <[String; 5]>::try_from(columns).ok()?;
            Some(((user, key), (id, kind, cents)))
        })
        .collect();
    let mut asked_for = HashSet::new();
    for post in history.posts() {
        let name = (post.user.clone(), post.key.clone());
        let row = rows.get(&name);
        asked_for.insert(name);
        let ids: HashSet<_> =
            post.told.iter().filter_map(|told| if let Told::Done(id) = told { Some(id) } else { None }).collect();
        if ids.len() > 1 {
            broken.push(format!("H3 all answers under one key carry one id: {post:?}"));
        }
        match (post.id(), row) {
            (Some(id), Some((stored, kind, cents)))
                if id == stored && kind == post.kind && *cents == post.cents.to_string() => {}
            (Some(_), row) => broken.push(format!("H1 what was answered is there: {post:?}, but {row:?}")),
            (None, Some(row)) if !post.in_doubt() => {
                broken.push(format!("H4 what was refused is not there: {post:?}, but {row:?}"));
            }
            (None, _) => {}
        }
    }
    let unasked: Vec<_> = rows.keys().filter(|name| !asked_for.contains(name)).collect();
    if !unasked.is_empty() {
        broken.push(format!("H2 nothing is there that nobody asked for: {unasked:?}"));
    }
    broken
}

/// H5, and that an address which was not registered is free.
async fn registrations_against_store(world: &World, history: &History, client: &Client) -> Vec<String> {
    let mut broken = Vec::new();
    let rows = world.sql(Role::Users, "SELECT email, id FROM users").await;
    let rows: HashMap<&str, &str> = rows.lines().filter_map(|line| line.split_once('|')).collect();
    let registrations = history.registrations();
    for registration in &registrations {
        match (&registration.told, rows.get(registration.email.as_str())) {
            (Told::Done(id), Some(stored)) if id == stored => {}
            (Told::Done(_), stored) => {
                broken.push(format!("H5 who was registered is there: {registration:?}, but {stored:?}"));
            }
            (Told::NotDone(_), Some(stored)) => {
                broken.push(format!("H4 who was refused is not there: {registration:?}, but {stored}"));
            }
            (Told::NotDone(_) | Told::Unknown, _) => {}
        }
    }
    // A hash a login: some of them stand for all.
    for user in history.people().iter().rev().take(5) {
        let login = client.log_in(&user.email, PASSWORD).await;
        if login.status != 200 {
            broken.push(format!("H5 who was registered can log in: {login:?}"));
        }
    }
    broken
}

/// Waits for quiet, and fails with every breach that there is then. Returns how long it took to become quiet.
pub async fn hold(world: &World, history: &History, client: &Client, within: Duration) -> Duration {
    hold_but_for(world, history, client, within, &[]).await
}

/// The same, where these ids belong among the dead letters.
pub async fn hold_but_for(
    world: &World,
    history: &History,
    client: &Client,
    within: Duration,
    poison: &[&str],
) -> Duration {
    let took = quiet(world, within).await;
    let broken = breaches(world, history, client, poison).await;
    assert!(broken.is_empty(), "{} laws are broken:\n{}", broken.len(), broken.join("\n"));
    took
}
