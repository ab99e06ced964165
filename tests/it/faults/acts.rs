//! A transfer, a capture, a reversal, a hold of nearly everything and a group, interrupted between any two steps.

use purse::kernel::Role;

use super::history::{Ask, History, Outcome};
use super::invariants::assert_invariants;
use super::start_with_failpoints;
use crate::support::{Client, User, World};

const FUNDS: i64 = 1_000;

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
    fn acts(&self) -> [(&'static str, Ask, usize); 6] {
        [
            ("a transfer", Ask::transfer(&self.other, 5), 2),
            ("a capture", Ask::capture(&self.hold, Some(100)), 1),
            ("a void", Ask::void(&self.hold), 1),
            ("a reversal", Ask::reverse(&self.credit, "debit"), 1),
            ("a hold of everything", Ask::hold(FUNDS + 7 - 300, 3_600), 1),
            ("a group", Ask::bulk(3, 4), 5),
        ]
    }
}

async fn rows(world: &World) -> usize {
    world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await.parse().expect("a count")
}

/// Kills the wallet role at `point` while each kind of act is under way; `written` says whether it is committed by then.
async fn crash_at(point: &str, written: bool) {
    for number in 0..6 {
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
