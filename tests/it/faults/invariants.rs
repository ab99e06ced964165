//! Invariants that hold after any fault: in both databases, at the broker, and between the clients' history and the
//! stored state. docs/reliability.md lists them by these ids.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use purse::kernel::Role;

use super::history::{History, NO_ID, Outcome};
use crate::support::{Client, PASSWORD, PATIENCE, World, purse};

const DEAD: &str = "wallet.provision.dlq";

/// Each query returns one row per violation.
const USERS: &[(&str, &str)] = &[
    ("U1 one account per address", "SELECT lower(email) FROM users GROUP BY 1 HAVING count(*) > 1"),
    (
        "U2 one event per user",
        "SELECT u.id FROM users u LEFT JOIN outbox o ON o.type = 'UserRegistered' AND o.payload_json->>'userId' = u.id::text
         GROUP BY u.id HAVING count(o.id) <> 1",
    ),
    (
        "U3 no event without its user",
        "SELECT id FROM outbox WHERE NOT EXISTS (SELECT FROM users u WHERE u.id::text = payload_json->>'userId')",
    ),
    ("U4 nothing pending", "SELECT id FROM outbox WHERE status <> 'published'"),
    ("U5 published events have their time", "SELECT id FROM outbox WHERE (status = 'published') <> (published_at IS NOT NULL)"),
    ("U6 argon2id only", "SELECT id FROM users WHERE password_hash NOT LIKE '$argon2id$v=19$m=%'"),
];

const WALLET: &[(&str, &str)] = &[
    ("W1 one wallet per user", "SELECT user_id FROM wallets GROUP BY 1 HAVING count(*) > 1"),
    (
        "W3 no entry without its wallet",
        "SELECT DISTINCT user_id FROM transactions t WHERE NOT EXISTS (SELECT FROM wallets w WHERE w.user_id = t.user_id)",
    ),
    (
        "W4, W5, W8 the ledger adds up",
        "SELECT user_id FROM (
             SELECT user_id, seq, balance_after_minor, created_at, row_number() OVER w AS expected_seq,
                    sum(CASE type WHEN 'credit' THEN amount_minor WHEN 'debit' THEN -amount_minor ELSE 0 END) OVER w AS balance,
                    lag(created_at) OVER w AS before
             FROM transactions WINDOW w AS (PARTITION BY user_id ORDER BY seq)
         ) AS entry
         WHERE seq <> expected_seq OR balance <> balance_after_minor OR balance < 0 OR created_at < before",
    ),
    (
        "W4 what is held is what the open holds have left",
        "SELECT last.user_id FROM (
             SELECT DISTINCT ON (user_id) user_id, held_after_minor FROM transactions ORDER BY user_id, seq DESC
         ) AS last
         LEFT JOIN (
             SELECT hold.user_id, sum(coalesce((
                 SELECT origin_left_minor FROM transactions act WHERE act.user_id = hold.user_id AND act.origin_seq = hold.seq
                 ORDER BY origin_nth DESC LIMIT 1
             ), hold.amount_minor)) AS open
             FROM transactions hold WHERE type = 'hold' GROUP BY 1
         ) AS holds USING (user_id)
         LEFT JOIN (SELECT user_id, sum(left_minor) AS listed FROM open_holds GROUP BY 1) AS list USING (user_id)
         WHERE held_after_minor <> coalesce(open, 0) OR held_after_minor <> coalesce(listed, 0)",
    ),
    (
        "W4 nothing is captured, voided, expired or reversed twice",
        "SELECT origin.id FROM transactions origin JOIN transactions act
           ON act.user_id = origin.user_id AND act.origin_seq = origin.seq
         GROUP BY origin.id, origin.amount_minor
         HAVING count(DISTINCT act.origin_nth) <> count(*) OR max(act.origin_nth) <> count(*) OR sum(act.amount_minor) > origin.amount_minor",
    ),
    (
        "W4 every transfer has two legs of one amount",
        "SELECT transfer_id FROM transactions WHERE transfer_id IS NOT NULL GROUP BY 1
         HAVING count(*) <> 2 OR sum(CASE type WHEN 'credit' THEN amount_minor ELSE -amount_minor END) <> 0
             OR max(user_id::text) <> max(counterparty_user_id::text) OR min(user_id::text) <> min(counterparty_user_id::text)",
    ),
    (
        "W4 every group is whole",
        "SELECT lead.id FROM transactions lead WHERE group_size <> 1 + (
             SELECT count(*) FROM transactions next
             WHERE next.user_id = lead.user_id AND next.seq > lead.seq AND next.seq < lead.seq + lead.group_size
               AND next.type IN ('credit', 'debit') AND next.group_size IS NULL AND next.idempotency_key IS NULL
               AND next.origin_seq IS NULL AND next.transfer_id IS NULL
               AND next.posted_by IS NOT DISTINCT FROM lead.posted_by AND next.created_at = lead.created_at)",
    ),
    (
        "W6 one entry per key",
        "SELECT idempotency_key FROM transactions WHERE idempotency_key IS NOT NULL
         GROUP BY user_id, posted_by, idempotency_key HAVING count(*) > 1",
    ),
    (
        "W7 amounts and types in range",
        "SELECT id FROM transactions WHERE amount_minor NOT BETWEEN 1 AND 9007199254740991
         OR type NOT IN ('credit', 'debit', 'hold', 'void', 'expire') OR held_after_minor NOT BETWEEN 0 AND balance_after_minor",
    ),
];

/// For both databases.
const EITHER: &[(&str, &str)] = &[
    (
        "P4 no abandoned transaction",
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'
         AND state_change < clock_timestamp() - interval '5 s'",
    ),
    ("P5 no deadlock", "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database() AND deadlocks > 0"),
];

/// Wallet processes that run now: each has one connection for its probe.
const WALLET_PROCESSES: &str = "SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'purse wallet: probe'";

/// Waits until nothing is in flight, and returns how long that took.
async fn wait_until_quiet(world: &World, within: Duration) -> Duration {
    let began = Instant::now();
    loop {
        let pending = world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status <> 'published'").await;
        let queues = world.broker.queues().await;
        // Ignores queues that a test declared for itself.
        let is_ours = |name: &str| name.starts_with("wallet.provision") && name != DEAD;
        let waiting: u64 = queues.iter().filter(|(name, _)| is_ours(name)).map(|(_, messages)| messages).sum();
        let (users, owners) = users_and_wallet_owners(world).await;
        // B3: a consumer without a process takes messages and acks none.
        let consumers = world.broker.consumers("wallet.provision").await.unwrap_or_default();
        let processes: u32 = world.sql(Role::Wallet, WALLET_PROCESSES).await.parse().expect("a count");
        if pending == "0" && waiting == 0 && consumers <= processes && users.is_subset(&owners) {
            return began.elapsed();
        }
        assert!(
            began.elapsed() < within,
            "not quiet within {within:?}: {pending} events pending, queues {queues:?}, {consumers} consumers of \
             {processes} processes, {} users without a wallet",
            users.difference(&owners).count()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn users_and_wallet_owners(world: &World) -> (BTreeSet<String>, BTreeSet<String>) {
    let ids = |printed: String| printed.lines().map(str::to_owned).collect();
    (
        ids(world.sql(Role::Users, "SELECT id FROM users").await),
        ids(world.sql(Role::Wallet, "SELECT user_id FROM wallets").await),
    )
}

/// All current violations. `poison` has the ids of the expected dead letters.
async fn violations(world: &World, history: &History, client: &Client, poison: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (role, invariants) in
        [(Role::Users, USERS), (Role::Wallet, WALLET), (Role::Users, EITHER), (Role::Wallet, EITHER)]
    {
        for (invariant, query) in invariants {
            let rows = world.sql(role, query).await;
            if !rows.is_empty() {
                found.push(format!("{invariant} ({role}): {}", rows.replace('\n', " ")));
            }
        }
    }
    let (users, owners) = users_and_wallet_owners(world).await;
    let missing: Vec<_> = users.difference(&owners).collect();
    if !missing.is_empty() {
        found.push(format!("W2 every user has a wallet: not {missing:?}"));
    }
    found.extend(verification(world).await);
    found.extend(post_violations(world, history).await);
    found.extend(registration_violations(world, history, client).await);
    let dead = world.broker.ids_in(DEAD).await;
    let expected: BTreeSet<String> = poison.iter().map(|id| (*id).to_owned()).collect();
    if dead != expected {
        found.push(format!("B2 the dead letters are the poison: {dead:?} instead of {expected:?}"));
    }
    found
}

/// W9: every hash, text and act of the ledger is what it was written as.
async fn verification(world: &World) -> Option<String> {
    let database = world.databases.wallet.runtime_url.clone();
    let verified = purse(&["ledger", "verify"], &[("WALLET_DATABASE_URL".to_owned(), database)].into()).await;
    (verified.code != Some(0)).then(|| format!("W9 the ledger is verified: {verified:?}"))
}

/// H1 to H4 and H6.
async fn post_violations(world: &World, history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let rows = world
        .sql(
            Role::Wallet,
            "SELECT user_id, posted_by, idempotency_key, id, type, amount_minor FROM transactions
             WHERE idempotency_key IS NOT NULL",
        )
        .await;
    let rows: HashMap<[String; 3], (String, String, String)> = rows
        .lines()
        .filter_map(|line| {
            let columns: Vec<String> = line.split('|').map(str::to_owned).collect();
            let [user, service, key, id, kind, cents] = <[String; 6]>::try_from(columns).ok()?;
            Some(([user, service, key], (id, kind, cents)))
        })
        .collect();
    let mut requested = HashSet::new();
    for post in history.posts() {
        let name = [post.user.clone(), post.ask.service.unwrap_or_default().to_owned(), post.key.clone()];
        let row = rows.get(&name);
        requested.insert(name);
        let ids: HashSet<_> = post.outcomes.iter().filter_map(Outcome::id).collect();
        if ids.len() > 1 {
            found.push(format!("H3 one id per key: {post:?}"));
        }
        match (post.id(), row) {
            (Some(id), Some((stored, kind, cents)))
                if (id == NO_ID || id == stored)
                    && kind == post.ask.kind
                    && post.ask.cents.is_none_or(|asked| *cents == asked.to_string()) => {}
            (Some(_), row) => found.push(format!("H1 every returned id exists as requested: {post:?}, but {row:?}")),
            (None, Some(row)) if !post.in_doubt() => {
                found.push(format!("H4 a rejected post wrote nothing: {post:?}, but {row:?}"));
            }
            (None, _) => {}
        }
    }
    let unrequested: Vec<_> = rows.keys().filter(|name| !requested.contains(*name)).collect();
    if !unrequested.is_empty() {
        found.push(format!("H2 nothing exists that was not requested: {unrequested:?}"));
    }
    found
}

/// H4 and H5 for registrations.
async fn registration_violations(world: &World, history: &History, client: &Client) -> Vec<String> {
    let mut found = Vec::new();
    let rows = world.sql(Role::Users, "SELECT email, id FROM users").await;
    let rows: HashMap<&str, &str> = rows.lines().filter_map(|line| line.split_once('|')).collect();
    let registrations = history.registrations();
    for registration in &registrations {
        match (&registration.outcome, rows.get(registration.email.as_str())) {
            (Outcome::Done(id), Some(stored)) if id == stored => {}
            (Outcome::Done(_), stored) => {
                found.push(format!("H5 a registered user exists: {registration:?}, but {stored:?}"));
            }
            (Outcome::NotDone(_), Some(stored)) => {
                found.push(format!("H4 a rejected registration wrote nothing: {registration:?}, but {stored}"));
            }
            (Outcome::NotDone(_) | Outcome::Unknown, _) => {}
        }
    }
    // Each login costs a hash, so this checks a sample.
    for user in history.registered_users().iter().rev().take(5) {
        let login = client.log_in(&user.email, PASSWORD).await;
        if login.status != 200 {
            found.push(format!("H5 a registered user can log in: {login:?}"));
        }
    }
    found
}

/// Waits until nothing is in flight and fails if an invariant is violated then. Returns how long it took.
pub async fn assert_invariants(world: &World, history: &History, client: &Client) -> Duration {
    assert_invariants_within(PATIENCE, world, history, client).await
}

pub async fn assert_invariants_within(within: Duration, world: &World, history: &History, client: &Client) -> Duration {
    check(within, world, history, client, &[]).await
}

/// The same, with these ids as the only dead letters.
pub async fn assert_invariants_with_poison(
    world: &World,
    history: &History,
    client: &Client,
    poison: &[&str],
) -> Duration {
    check(PATIENCE, world, history, client, poison).await
}

async fn check(within: Duration, world: &World, history: &History, client: &Client, poison: &[&str]) -> Duration {
    let took = wait_until_quiet(world, within).await;
    let mut found = violations(world, history, client, poison).await;
    // A copy of the shards is not of one moment, and the sweeper may end a hold meanwhile. What is wrong stays wrong.
    for _ in 0..5 {
        if found.is_empty() || !world.copies_shards {
            break;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        found = violations(world, history, client, poison).await;
    }
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
    took
}
