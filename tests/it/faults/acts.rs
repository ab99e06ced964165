//! A transfer, captures, a void, a reversal, a hold of everything and a group, interrupted between any two steps.

use purse::kernel::Role;

use super::history::{Ask, History, Outcome};
use super::invariants::assert_invariants;
use super::proxy::{CommitFault, Proxy};
use super::start_with_failpoints;
use crate::support::{Client, User, World};

const FUNDS: i64 = 1_000;
/// The number of kinds of acts.
const ACTS: usize = 8;

/// Two wallets, of which the first one has money, a hold and a credit to undo.
struct Prepared {
    user: User,
    other: User,
    hold: String,
    credit: String,
}

impl Prepared {
    async fn new(history: &History, client: &Client) -> Self {
        let (user, other) = tokio::join!(client.ready_user(), client.ready_user());
        let mut ids = Vec::new();
        let asks = [
            ("funds", Ask::post("credit", FUNDS)),
            ("credit", Ask::post("credit", 7)),
            ("hold", Ask::hold(300, 3_600)),
        ];
        for (key, ask) in asks {
            let Outcome::Done(id) = history.ask(client, &user, &ask, key).await else { panic!("{key} was not done") };
            ids.push(id);
        }
        let [_, credit, hold] = <[String; 3]>::try_from(ids).expect("three ids");
        Self { user, other, hold, credit }
    }

    /// Each kind of act, and how many rows it writes.
    fn acts(&self) -> [(&'static str, Ask, usize); ACTS] {
        [
            ("a transfer", Ask::transfer(&self.other, 5), 2),
            ("a capture", Ask::capture(&self.hold, Some(100)), 1),
            ("a final capture", Ask::capture(&self.hold, None), 1),
            ("a void", Ask::void(&self.hold), 1),
            ("a reversal", Ask::reverse(&self.credit, "debit"), 1),
            ("a hold of everything", Ask::hold(FUNDS + 7 - 300, 3_600), 1),
            ("a group", Ask::bulk(3, 4), 5),
            ("a credit by a service", Ask::post("credit", 4).by("payments"), 1),
        ]
    }
}

async fn rows(world: &World) -> usize {
    world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await.parse().expect("a count")
}

/// Kills the wallet role at `point` while each kind of act is under way; `written` says whether it is committed by then.
async fn crash_at(point: &str, written: bool) {
    for number in 0..ACTS {
        let (world, history) = (World::new().await, History::default());
        // The first three posts prepare.
        let points = format!("{point}=3*off->return");
        let (crashing, users, client) = start_with_failpoints(&world, Role::Wallet, &points, &[]).await;
        let prepared = Prepared::new(&history, &client).await;
        let (name, ask, added) = prepared.acts()[number].clone();
        assert_eq!(history.ask(&client, &prepared.user, &ask, "k").await, Outcome::Unknown, "{name} at {point}");
        crashing.aborted().await;
        assert_eq!(rows(&world).await, if written { 3 + added } else { 3 }, "{name} at {point}");
        let wallet = world.start(Role::Wallet).await;
        let client = Client::new(&users.url(), &wallet.url());
        let known = history.ask_until_known(&client, &prepared.user, &ask, "k").await;
        assert!(matches!(known, Outcome::Done(_)), "{name} at {point}: {known:?}");
        assert_eq!(history.ask(&client, &prepared.user, &ask, "k").await, known, "{name} at {point}: a replay");
        assert_eq!(rows(&world).await, 3 + added, "{name} at {point}");
        assert_invariants(&world, &history, &client).await;
    }
}

#[tokio::test]
async fn fm_15_a_crash_before_the_commit_of_any_act_leaves_none_of_its_rows() {
    for point in ["ledger.locked", "ledger.decided"] {
        crash_at(point, false).await;
    }
}

#[tokio::test]
async fn fm_16_a_crash_after_the_commit_of_any_act_leaves_all_of_its_rows_and_its_key_finds_them() {
    crash_at("ledger.committed", true).await;
}

#[tokio::test]
async fn a_commit_in_doubt_of_any_act_is_looked_up_and_reported_correctly() {
    for commit in [CommitFault::RequestLost, CommitFault::ResponseLost] {
        let (world, history) = (World::new().await, History::default());
        let proxy = Proxy::start(world.addresses.postgres_port).await;
        let url = proxy.url(&world.databases.wallet.runtime_url);
        let changed = [("WALLET_DATABASE_URL", url.as_str()), ("DB_STATEMENT_TIMEOUT_MS", "1000")];
        let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &changed));
        let client = Client::new(&users.url(), &wallet.url());
        for number in 0..ACTS {
            let prepared = Prepared::new(&history, &client).await;
            let (name, ask, added) = prepared.acts()[number].clone();
            let before = rows(&world).await;
            proxy.fail_next_commit(commit);
            let outcome = history.ask(&client, &prepared.user, &ask, "k").await;
            assert_eq!(proxy.commits_intercepted(), number + 1, "{name}, {commit:?}");
            if matches!(commit, CommitFault::RequestLost) {
                assert_eq!(outcome, Outcome::NotDone("DEPENDENCY_UNAVAILABLE".into()), "{name}");
                assert_eq!(rows(&world).await, before, "{name}");
            } else {
                assert!(matches!(outcome, Outcome::Done(_)), "{name}: {outcome:?}");
                assert_eq!(rows(&world).await, before + added, "{name}");
            }
            let known = history.ask_until_known(&client, &prepared.user, &ask, "k").await;
            assert!(matches!(known, Outcome::Done(_)), "{name}, {commit:?}: {known:?}");
            assert_eq!(rows(&world).await, before + added, "{name}, {commit:?}");
        }
        assert_invariants(&world, &history, &client).await;
    }
}
