//! Decides a batch of postings with the same result as one at a time, in their order.

use std::collections::HashMap;

use crate::kernel::{IdempotencyKey, Timestamp, UserId, fault};
use crate::wallet::domain::{Entry, EntryRefused, LedgerHead, NewEntry, OneOrMore, Posting, RequestDigest};

/// The state of a locked wallet.
#[derive(Clone, Debug)]
pub struct WalletState {
    /// The last entry of the wallet.
    pub head: LedgerHead,
    /// What the idempotency keys of this batch were used for.
    pub used_keys: HashMap<IdempotencyKey, UsedKey>,
}

impl WalletState {
    /// No key of the batch has been used.
    pub fn new(head: LedgerHead) -> Self {
        Self { head, used_keys: HashMap::new() }
    }
}

/// The request under a used idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedKey {
    /// `None` on entries that are older than the hash chain.
    pub digest: Option<RequestDigest>,
    /// What the request created.
    pub entries: OneOrMore<Entry>,
}

impl UsedKey {
    fn is_of(&self, posting: &Posting) -> bool {
        let Some(digest) = self.digest else {
            // Only single drafts were posted at that time.
            return posting.drafts.count() == 1 && self.entries.first().is_requested_by(posting.drafts.first());
        };
        posting.request.as_ref().is_some_and(|request| request.digest == digest)
    }
}

/// The locked wallets of a batch.
pub type WalletStates = HashMap<UserId, WalletState>;

/// The decision on one posting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write these entries.
    Post(OneOrMore<NewEntry>),
    /// An earlier request with the same key created these entries; write nothing.
    Replay(OneOrMore<Entry>),
    /// A rule of the ledger; write nothing.
    Refuse(EntryRefused),
    /// The user has no wallet, or it is not locked by this batch.
    NoWallet,
}

/// Decides `postings` in order. `wallets` is updated, so a later posting sees the balance, the sequence number, the hash and
/// the key of an earlier one. Of a refused group nothing remains.
pub fn decide_batch(wallets: &mut WalletStates, postings: &[Posting], now: Timestamp) -> Vec<Decision> {
    let decisions = postings.iter().map(|posting| {
        wallets.get_mut(&posting.user_id).map_or(Decision::NoWallet, |wallet| decide(wallet, posting, now))
    });
    decisions.collect()
}

fn decide(wallet: &mut WalletState, posting: &Posting, now: Timestamp) -> Decision {
    if let Some(used) = posting.request.as_ref().and_then(|request| wallet.used_keys.get(&request.key)) {
        return if used.is_of(posting) || fault::disabled("ledger.payload") {
            Decision::Replay(used.entries.clone())
        } else {
            Decision::Refuse(EntryRefused::IdempotencyKeyReused)
        };
    }
    match posting.append_to(wallet.head, now) {
        Ok(entries) => {
            wallet.head = LedgerHead::from(entries.last());
            if let Some(request) = &posting.request {
                let used = UsedKey { digest: Some(request.digest), entries: entries.map(|new| new.entry.clone()) };
                wallet.used_keys.insert(request.key.clone(), used);
            }
            Decision::Post(entries)
        }
        Err(refused) => Decision::Refuse(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::EntryId;
    use crate::wallet::domain::texts::tests::SALT;
    use crate::wallet::domain::{
        AmountMinor, Balance, Description, Direction, Draft, EntryHash, HashedEntry, KeyedRequest, MINOR_MAX, Texts,
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn draft(n: u128, cents: i64) -> Draft {
        let description = Description::parse(&format!("entry {n}")).expect("a description");
        Draft {
            id: EntryId::from_uuid(Uuid::from_u128(n)),
            direction: if cents > 0 { Direction::Credit } else { Direction::Debit },
            amount: AmountMinor::try_new(cents.abs()).expect("amount"),
            texts: n.is_multiple_of(3).then_some(Texts { salt: SALT, description }),
        }
    }

    /// The digest stands for the amounts.
    fn request(key: &str, cents: &[i64]) -> KeyedRequest {
        let sum = cents.iter().fold(cents.len() as u128, |sum, cents| sum * 1_000 + u128::from(cents.unsigned_abs()));
        let credits = cents.iter().fold(0, |bits, cents| bits * 2 + u128::from(*cents > 0));
        let digest = RequestDigest::from_stored(&(sum << 20 | credits).to_be_bytes()).expect("16 bytes");
        KeyedRequest { key: IdempotencyKey::parse(key).expect("key"), digest }
    }

    fn group(n: u128, owner: u128, cents: &[i64], key: Option<&str>) -> Posting {
        Posting {
            user_id: user(owner),
            drafts: OneOrMore::collect((n * 100..).zip(cents).map(|(n, cents)| draft(n, *cents))).expect("a draft"),
            request: key.map(|key| request(key, cents)),
        }
    }

    fn post(n: u128, owner: u128, cents: i64, key: Option<&str>) -> Posting {
        group(n, owner, &[cents], key)
    }

    fn empty(owners: &[u128]) -> WalletStates {
        owners.iter().map(|o| (user(*o), WalletState::new(LedgerHead::empty(user(*o))))).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("second")
    }

    fn places(entries: &OneOrMore<NewEntry>) -> Vec<(i64, i64)> {
        entries.iter().map(|new| (new.entry.seq, new.entry.balance_after.cents())).collect()
    }

    #[test]
    fn one_batch_may_hold_a_replay_a_refusal_and_a_post_of_one_wallet() {
        let postings = [
            post(1, 7, 100, Some("a")),
            post(2, 7, -200, Some("b")),
            post(3, 7, 100, Some("a")),
            post(4, 7, 50, Some("a")),
            post(5, 7, -100, Some("b")),
            post(6, 8, 5, None),
        ];
        let decisions = decide_batch(&mut empty(&[7]), &postings, at(0));
        let [Decision::Post(first), refused, Decision::Replay(again), reused, Decision::Post(debit), elsewhere] =
            decisions.as_slice()
        else {
            panic!("{decisions:?}")
        };
        assert_eq!(refused, &Decision::Refuse(EntryRefused::InsufficientFunds));
        assert_eq!(again.first(), &first.first().entry);
        assert_eq!(reused, &Decision::Refuse(EntryRefused::IdempotencyKeyReused));
        assert_eq!(places(debit), [(2, 0)], "a refused post consumes neither a key nor a sequence number");
        assert_eq!(elsewhere, &Decision::NoWallet);
    }

    #[test]
    fn a_group_is_written_as_a_whole_or_not_at_all() {
        let postings = [
            group(1, 7, &[5, -5, 7], Some("whole")),
            group(2, 7, &[1, 2, -11, 20], Some("refused")),
            group(3, 7, &[-7, 7], Some("whole")),
            group(4, 7, &[5, -5, 7], Some("whole")),
            group(5, 7, &[-7, 7], Some("refused")),
            post(6, 7, 5, Some("whole")),
        ];
        let decisions = decide_batch(&mut empty(&[7]), &postings, at(0));
        let [Decision::Post(first), refused, reused, Decision::Replay(again), Decision::Post(second), single] =
            decisions.as_slice()
        else {
            panic!("{decisions:?}")
        };
        assert_eq!(places(first), [(1, 5), (2, 0), (3, 7)]);
        assert_eq!(refused, &Decision::Refuse(EntryRefused::InsufficientFunds), "1 + 2 + 7 are less than 11");
        assert_eq!(reused, &Decision::Refuse(EntryRefused::IdempotencyKeyReused));
        assert!(again.iter().eq(first.iter().map(|new| &new.entry)));
        assert_eq!(places(second), [(4, 0), (5, 7)], "nothing of the refused group remains, nor its key");
        assert_eq!(single, &Decision::Refuse(EntryRefused::IdempotencyKeyReused), "one post is not a group");
        let leads = |entries: &OneOrMore<NewEntry>| -> Vec<_> {
            entries.iter().map(|new| (new.group_size, new.request.is_some())).collect()
        };
        assert_eq!(leads(first), [(Some(3), true), (None, false), (None, false)]);
        assert_eq!(leads(second), [(Some(2), true), (None, false)]);
    }

    #[test]
    fn a_key_from_before_the_digests_is_compared_by_its_fields() {
        let mut wallets = empty(&[7]);
        let Some(Decision::Post(old)) = decide_batch(&mut wallets, &[post(3, 7, 5, Some("old"))], at(0)).pop() else {
            panic!("not posted")
        };
        let used = &mut wallets.get_mut(&user(7)).expect("the wallet").used_keys;
        for key in used.values_mut() {
            key.digest = None;
        }
        // The text of a draft depends on its number.
        let postings = [
            post(3, 7, 5, Some("old")),
            post(6, 7, 5, Some("old")),
            post(3, 7, 6, Some("old")),
            post(3, 7, -5, Some("old")),
            group(3, 7, &[5, 5], Some("old")),
        ];
        let [replay, others @ ..] = &decide_batch(&mut wallets, &postings, at(0))[..] else { panic!("no decision") };
        assert_eq!(replay, &Decision::Replay(old.map(|new| new.entry.clone())));
        assert_eq!(others, vec![Decision::Refuse(EntryRefused::IdempotencyKeyReused); 4]);
    }

    #[test]
    fn a_debit_cannot_use_what_is_held_and_every_entry_carries_it_on() {
        let cents = |cents| Balance::from_stored(cents).expect("in range");
        let head = LedgerHead { seq: 4, balance: cents(100), held: cents(60), ..LedgerHead::empty(user(7)) };
        let mut wallets = WalletStates::from([(user(7), WalletState::new(head))]);
        let postings = [post(1, 7, -41, None), post(2, 7, -40, None), post(3, 7, -1, None), post(4, 7, 1, None)];
        let [refused, Decision::Post(debit), none_left, Decision::Post(credit)] =
            &decide_batch(&mut wallets, &postings, at(0))[..]
        else {
            panic!("not as expected")
        };
        assert_eq!([refused, none_left], [&Decision::Refuse(EntryRefused::InsufficientFunds); 2]);
        assert_eq!((places(debit), places(credit)), (vec![(5, 60)], vec![(6, 61)]));
        assert_eq!([debit, credit].map(|entries| entries.first().held_after), [cents(60); 2]);
    }

    #[test]
    fn times_never_decrease_along_the_sequence() {
        let mut wallets = empty(&[7]);
        let later = decide_batch(&mut wallets, &[post(1, 7, 1, None)], at(100));
        let earlier = decide_batch(&mut wallets, &[post(2, 7, 1, None)], at(50));
        let times: Vec<_> = [later, earlier]
            .concat()
            .into_iter()
            .map(|d| if let Decision::Post(e) = d { e.first().entry.created_at } else { panic!("{d:?}") })
            .collect();
        assert_eq!(times, [at(100), at(100)]);
    }

    /// The reference: a wallet as a list of amounts.
    #[derive(Default)]
    struct Model {
        amounts: Vec<i64>,
        /// The amounts that were requested under each key, and where they begin.
        keys: HashMap<u8, (Vec<i64>, usize)>,
    }

    #[derive(Debug, PartialEq)]
    enum Expected {
        /// At this place.
        Post(usize),
        Replay(usize),
        Refuse(EntryRefused),
    }

    impl Model {
        fn post(&mut self, amounts: &[i64], key: Option<u8>) -> Expected {
            if let Some((earlier, begin)) = key.and_then(|key| self.keys.get(&key)) {
                return if earlier == amounts {
                    Expected::Replay(*begin)
                } else {
                    Expected::Refuse(EntryRefused::IdempotencyKeyReused)
                };
            }
            let mut balance: i64 = self.amounts.iter().sum();
            for amount in amounts {
                balance += amount;
                if balance < 0 {
                    return Expected::Refuse(EntryRefused::InsufficientFunds);
                }
                if balance > MINOR_MAX {
                    return Expected::Refuse(EntryRefused::BalanceLimit);
                }
            }
            let begin = self.amounts.len();
            self.amounts.extend(amounts);
            self.keys.extend(key.map(|key| (key, (amounts.to_vec(), begin))));
            Expected::Post(begin)
        }
    }

    /// The hash of `new` after `before`, from what its row will have.
    fn rehashed(before: EntryHash, new: &NewEntry) -> EntryHash {
        before.next(&HashedEntry {
            user_id: new.user_id,
            seq: new.entry.seq,
            id: new.entry.id,
            kind: new.entry.direction.into(),
            amount: new.entry.amount.cents(),
            balance_after: new.entry.balance_after,
            held_after: new.held_after,
            created_at: new.entry.created_at,
            origin: None,
            transfer: None,
            expires_at: None,
            request: new.request.as_ref(),
            texts: new.texts.as_ref().map(|(texts, _)| texts.digest()),
            group_size: new.group_size,
            posted_by: None,
        })
    }

    fn postings() -> impl Strategy<Value = Vec<(u128, Vec<i64>, Option<u8>)>> {
        let cents = prop_oneof![
            8 => (-50_i64..50).prop_filter("an amount", |cents| *cents != 0),
            1 => Just(MINOR_MAX),
            1 => Just(-MINOR_MAX),
        ];
        let amounts = prop_oneof![
            3 => proptest::collection::vec(cents.clone(), 1),
            1 => proptest::collection::vec(cents, 2..6),
        ];
        proptest::collection::vec((0_u128..3, amounts, proptest::option::of(0_u8..6)), 0..80)
    }

    proptest! {
        #[test]
        fn a_batch_decides_as_a_list_of_amounts_would_and_chains_every_entry(posts in postings(), cut in 0_usize..80) {
            let key = |key: &Option<u8>| key.map(|k| format!("k{k}"));
            let postings: Vec<_> = (1..).zip(&posts)
                .map(|(n, (owner, cents, k))| group(n, *owner, cents, key(k).as_deref()))
                .collect();
            let together = decide_batch(&mut empty(&[0, 1, 2]), &postings, at(1));
            let mut split = empty(&[0, 1, 2]);
            let (front, back) = postings.split_at(cut.min(postings.len()));
            let mut apart = decide_batch(&mut split, front, at(1));
            apart.extend(decide_batch(&mut split, back, at(1)));
            prop_assert_eq!(&together, &apart);

            for owner in 0..3 {
                let (mut model, mut written) = (Model::default(), Vec::<Entry>::new());
                let mut hash = EntryHash::genesis(user(owner));
                for ((_, cents, key), decision) in posts.iter().zip(&together).filter(|((o, ..), _)| *o == owner) {
                    let of = |begin: usize| written.get(begin..begin + cents.len()).map(<[Entry]>::to_vec);
                    match (model.post(cents, *key), decision) {
                        (Expected::Post(begin), Decision::Post(entries)) => {
                            prop_assert_eq!(begin, written.len());
                            for new in entries.iter() {
                                hash = rehashed(hash, new);
                                prop_assert_eq!(new.hash, hash);
                                written.push(new.entry.clone());
                            }
                            let amounts: Vec<_> = entries.iter().map(|new| {
                                let cents = new.entry.amount.cents();
                                if new.entry.direction == Direction::Credit { cents } else { -cents }
                            }).collect();
                            prop_assert_eq!(&amounts, cents);
                        }
                        (Expected::Replay(begin), Decision::Replay(entries)) => {
                            prop_assert_eq!(Some(entries.iter().cloned().collect()), of(begin));
                        }
                        (Expected::Refuse(expected), Decision::Refuse(refused)) => prop_assert_eq!(&expected, refused),
                        (expected, decision) => prop_assert!(false, "{:?}, but {:?}", expected, decision),
                    }
                }
                let balances = model.amounts.iter().scan(0, |sum, amount| { *sum += amount; Some(*sum) });
                let expected: Vec<_> = (1_i64..).zip(balances).collect();
                let stored: Vec<_> = written.iter().map(|entry| (entry.seq, entry.balance_after.cents())).collect();
                prop_assert_eq!(stored, expected);
            }
        }
    }
}
