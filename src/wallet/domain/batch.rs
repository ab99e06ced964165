//! Decides a batch of posts with the same result as one at a time, in their order.

use std::collections::HashMap;

use crate::kernel::{IdempotencyKey, Timestamp, UserId, fault};
use crate::wallet::domain::{Draft, Entry, EntryRefused, LedgerHead};

/// The state of a locked wallet.
#[derive(Clone, Debug)]
pub struct WalletState {
    /// The last entry of the wallet.
    pub head: LedgerHead,
    /// The existing entries with an idempotency key of this batch.
    pub used_keys: HashMap<IdempotencyKey, Entry>,
}

impl WalletState {
    /// No key of the batch has been used.
    pub fn new(head: LedgerHead) -> Self {
        Self { head, used_keys: HashMap::new() }
    }
}

/// The locked wallets of a batch.
pub type WalletStates = HashMap<UserId, WalletState>;

/// The decision on one post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Post(Entry),
    /// An earlier request with the same key created this entry; write nothing.
    Replay(Entry),
    /// A rule of the ledger; write nothing.
    Refuse(EntryRefused),
    /// The user has no wallet, or it is not locked by this batch.
    NoWallet,
}

/// Decides `drafts` in order. `wallets` is updated, so a later post sees the balance, the sequence number and the key of
/// an earlier one.
pub fn decide_batch(wallets: &mut WalletStates, drafts: &[Draft], now: Timestamp) -> Vec<Decision> {
    drafts
        .iter()
        .map(|draft| wallets.get_mut(&draft.user_id).map_or(Decision::NoWallet, |wallet| decide(wallet, draft, now)))
        .collect()
}

fn decide(wallet: &mut WalletState, draft: &Draft, now: Timestamp) -> Decision {
    if let Some(earlier) = draft.idempotency_key.as_ref().and_then(|key| wallet.used_keys.get(key)) {
        return if earlier.is_requested_by(draft) || fault::disabled("ledger.payload") {
            Decision::Replay(earlier.clone())
        } else {
            Decision::Refuse(EntryRefused::IdempotencyKeyReused)
        };
    }
    match wallet.head.append(draft, now) {
        Ok(entry) => {
            wallet.head = LedgerHead::from(&entry);
            if let Some(key) = &draft.idempotency_key {
                wallet.used_keys.insert(key.clone(), entry.clone());
            }
            Decision::Post(entry)
        }
        Err(refused) => Decision::Refuse(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::EntryId;
    use crate::wallet::domain::{AmountMinor, Balance, Direction};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn draft(n: u128, owner: u128, cents: i64, key: Option<&str>) -> Draft {
        Draft {
            id: EntryId::from_uuid(Uuid::from_u128(n)),
            user_id: user(owner),
            direction: if cents > 0 { Direction::Credit } else { Direction::Debit },
            amount: AmountMinor::try_new(cents.abs()).expect("amount"),
            description: None,
            idempotency_key: key.map(|k| IdempotencyKey::parse(k).expect("key")),
        }
    }

    fn empty(owners: &[u128]) -> HashMap<UserId, WalletState> {
        owners.iter().map(|o| (user(*o), WalletState::new(LedgerHead::EMPTY))).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("second")
    }

    #[test]
    fn one_batch_may_hold_a_replay_a_refusal_and_a_post_of_one_wallet() {
        let drafts = [
            draft(1, 7, 100, Some("a")),
            draft(2, 7, -200, Some("b")),
            draft(3, 7, 100, Some("a")),
            draft(4, 7, 50, Some("a")),
            draft(5, 7, -100, Some("b")),
            draft(6, 8, 5, None),
        ];
        let decisions = decide_batch(&mut empty(&[7]), &drafts, at(0));
        let [Decision::Post(first), refused, Decision::Replay(again), reused, Decision::Post(debit), elsewhere] =
            decisions.as_slice()
        else {
            panic!("{decisions:?}")
        };
        assert_eq!(refused, &Decision::Refuse(EntryRefused::InsufficientFunds));
        assert_eq!(again, first);
        assert_eq!(reused, &Decision::Refuse(EntryRefused::IdempotencyKeyReused));
        assert_eq!(
            (debit.seq, debit.balance_after),
            (2, Balance::ZERO),
            "a refused post consumes neither a key nor a sequence number"
        );
        assert_eq!(elsewhere, &Decision::NoWallet);
    }

    #[test]
    fn times_never_decrease_along_the_sequence() {
        let mut wallets = empty(&[7]);
        let later = decide_batch(&mut wallets, &[draft(1, 7, 1, None)], at(100));
        let earlier = decide_batch(&mut wallets, &[draft(2, 7, 1, None)], at(50));
        let times: Vec<_> = [later, earlier]
            .concat()
            .into_iter()
            .map(|d| if let Decision::Post(e) = d { e.created_at } else { panic!("{d:?}") })
            .collect();
        assert_eq!(times, [at(100), at(100)]);
    }

    proptest! {
        /// The reference: a plain loop over the amounts of one wallet.
        #[test]
        fn a_batch_decides_as_one_post_at_a_time_would(
            posts in proptest::collection::vec((0_u128..3, -50_i64..50, proptest::option::of(0_u8..6)), 0..80),
            cut in 0_usize..80,
        ) {
            let drafts: Vec<_> = posts.iter().enumerate().filter(|(_, p)| p.1 != 0)
                .map(|(n, (owner, cents, key))| draft(n as u128, *owner, *cents, key.map(|k| format!("k{k}")).as_deref()))
                .collect();
            let mut whole = empty(&[0, 1, 2]);
            let together = decide_batch(&mut whole, &drafts, at(1));
            let mut split = empty(&[0, 1, 2]);
            let (front, back) = drafts.split_at(cut.min(drafts.len()));
            let mut apart = decide_batch(&mut split, front, at(1));
            apart.extend(decide_batch(&mut split, back, at(1)));
            prop_assert_eq!(&together, &apart);

            for owner in 0..3 {
                let (mut balance, mut seq) = (0_i64, 0_i64);
                for (draft, decision) in drafts.iter().zip(&together).filter(|(d, _)| d.user_id == user(owner)) {
                    if let Decision::Post(entry) = decision {
                        seq += 1;
                        balance += if draft.direction == Direction::Credit { draft.amount.cents() } else { -draft.amount.cents() };
                        prop_assert!(balance >= 0);
                        prop_assert_eq!((entry.seq, entry.balance_after.cents()), (seq, balance));
                    }
                }
            }
        }
    }
}
