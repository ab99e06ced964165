//! Decides a batch of postings with the same result as one at a time, in their order.

use std::collections::{HashMap, HashSet};

use crate::kernel::{Timestamp, UserId, fault};
use crate::wallet::domain::acting::Acting;
use crate::wallet::domain::head::Lead;
use crate::wallet::domain::{Entry, EntryRefused, NewEntry, OneOrMore, Posting, UsedKey, WalletStates};

/// What becomes of a batch.
#[derive(Debug, Default)]
pub struct DecidedBatch {
    /// To be written, in this order.
    pub entries: Vec<NewEntry>,
    /// One per posting, in their order.
    pub decisions: Vec<Decision>,
}

/// The decision on one posting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It becomes these entries of its wallet.
    Post(OneOrMore<Entry>),
    /// Nothing of its own is written: it only ended the holds that were due.
    Settled,
    /// An earlier request with the same key created these entries.
    Replay(OneOrMore<Entry>),
    /// A rule of the ledger refuses this draft, and with it the whole posting.
    Refuse {
        reason: EntryRefused,
        /// The place of the draft in the posting.
        draft: usize,
    },
    /// Undecided: a wallet that it needs is not locked by this batch, or does not exist.
    NotLocked { contested: UserId },
    /// Undecided: more holds of the wallet are due than one batch ends, and what they hold decides.
    MoreDue,
}

/// Decides `postings` in order. `wallets` is updated, so a later posting sees the balance, the sequence number, the hash and
/// the key of an earlier one. Of a refused posting nothing remains; holds that were due end all the same.
pub fn decide_batch(wallets: &mut WalletStates, postings: &[Posting], now: Timestamp) -> DecidedBatch {
    let mut acting = Acting::new(wallets, now);
    // Or a later posting of a user would overtake an earlier one.
    let mut held_back = HashMap::<UserId, Decision>::new();
    let mut settled = HashSet::new();
    let mut decisions = Vec::with_capacity(postings.len());
    for posting in postings {
        let needed = [Some(posting.user_id), posting.other_wallet()];
        let missing = || {
            let missing = needed.into_iter().flatten().find(|user| acting.head(*user).is_none());
            missing.map(|contested| Decision::NotLocked { contested })
        };
        if let Some(undecided) = held_back.get(&posting.user_id).cloned().or_else(missing) {
            held_back.insert(posting.user_id, undecided.clone());
            decisions.push(undecided);
            continue;
        }
        for user in needed.into_iter().flatten() {
            if settled.insert(user) {
                acting.expire_due(user);
            }
        }
        let decision = match decide(&mut acting, posting) {
            Decision::Refuse { reason: EntryRefused::InsufficientFunds, .. }
                if acting.has_more_due(posting.user_id) =>
            {
                held_back.insert(posting.user_id, Decision::MoreDue);
                Decision::MoreDue
            }
            decision => decision,
        };
        decisions.push(decision);
    }
    DecidedBatch { entries: acting.entries, decisions }
}

fn decide(acting: &mut Acting<'_>, posting: &Posting) -> Decision {
    let key = posting.request.as_ref().map(|request| (posting.posted_by.clone(), request.key.clone()));
    if let Some(used) = key.as_ref().and_then(|key| acting.wallets.get(&posting.user_id)?.used_keys.get(key)) {
        return if used.is_of(posting) || fault::disabled("ledger.payload") {
            Decision::Replay(used.entries.clone())
        } else {
            Decision::Refuse { reason: EntryRefused::IdempotencyKeyReused, draft: 0 }
        };
    }
    let before = acting.entries.len();
    let undo = (posting.drafts.count() > 1).then(|| acting.snapshot(posting));
    let mut lead = Lead {
        request: posting.request.as_ref(),
        group_size: i16::try_from(posting.drafts.count()).ok().filter(|size| *size > 1),
    };
    for (number, draft) in posting.drafts.iter().enumerate() {
        if let Err(reason) = acting.act(posting, draft, lead) {
            acting.entries.truncate(before);
            acting.restore(undo.into_iter().flatten());
            return Decision::Refuse { reason, draft: number };
        }
        lead = Lead::default();
    }
    let own = acting.entries.iter().skip(before).filter(|new| new.user_id == posting.user_id);
    let Some(entries) = OneOrMore::collect(own.map(|new| new.entry.clone())) else { return Decision::Settled };
    if let (Some(key), Some(request)) = (key, &posting.request)
        && let Some(wallet) = acting.wallets.get_mut(&posting.user_id)
    {
        let used = UsedKey { digest: Some(request.digest), entries: entries.clone() };
        wallet.used_keys.insert(key, used);
    }
    Decision::Post(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{EntryId, IdempotencyKey};
    use crate::wallet::domain::texts::tests::SALT;
    use crate::wallet::domain::{
        Act, AmountMinor, Balance, Description, Direction, Draft, EntryHash, EntryKind, HashedEntry, LedgerHead,
        MINOR_MAX, Texts, WalletState,
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn draft(n: u128, cents: i64) -> Draft {
        let description = Description::parse(&format!("entry {n}")).expect("a description");
        let direction = if cents > 0 { Direction::Credit } else { Direction::Debit };
        let amount = AmountMinor::try_new(cents.abs()).expect("amount");
        let texts = Texts::of_description(n.is_multiple_of(3).then_some(description)).salted(|| SALT);
        Draft { id: EntryId::from_uuid(Uuid::from_u128(n)), act: Act::Post { direction, amount }, texts }
    }

    /// Without texts, so that the digest depends on the amounts alone.
    fn group(n: u128, owner: u128, cents: &[i64], key: Option<&str>) -> Posting {
        let drafts = (n * 100..).zip(cents).map(|(n, cents)| Draft { texts: None, ..draft(n, *cents) });
        let key = key.map(|key| IdempotencyKey::parse(key).expect("key"));
        Posting::new(user(owner), OneOrMore::collect(drafts).expect("a draft"), key)
    }

    fn post(n: u128, owner: u128, cents: i64, key: Option<&str>) -> Posting {
        group(n, owner, &[cents], key)
    }

    fn decide_all(wallets: &mut WalletStates, postings: &[Posting], now: Timestamp) -> Vec<Decision> {
        decide_batch(wallets, postings, now).decisions
    }

    fn refuse(reason: EntryRefused) -> Decision {
        Decision::Refuse { reason, draft: 0 }
    }

    fn empty(owners: &[u128]) -> WalletStates {
        owners.iter().map(|o| (user(*o), WalletState::new(LedgerHead::empty(user(*o))))).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("second")
    }

    fn places(entries: &OneOrMore<Entry>) -> Vec<(i64, i64)> {
        entries.iter().map(|entry| (entry.seq, entry.balance_after.cents())).collect()
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
        let decisions = decide_all(&mut empty(&[7]), &postings, at(0));
        let [Decision::Post(first), refused, Decision::Replay(again), reused, Decision::Post(debit), elsewhere] =
            decisions.as_slice()
        else {
            panic!("{decisions:?}")
        };
        assert_eq!(refused, &refuse(EntryRefused::InsufficientFunds));
        assert_eq!(again, first);
        assert_eq!(reused, &refuse(EntryRefused::IdempotencyKeyReused));
        assert_eq!(places(debit), [(2, 0)], "a refused post consumes neither a key nor a sequence number");
        assert_eq!(elsewhere, &Decision::NotLocked { contested: user(8) });
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
        let DecidedBatch { entries, decisions } = decide_batch(&mut empty(&[7]), &postings, at(0));
        let [Decision::Post(first), refused, reused, Decision::Replay(again), Decision::Post(second), single] =
            decisions.as_slice()
        else {
            panic!("{decisions:?}")
        };
        assert_eq!(places(first), [(1, 5), (2, 0), (3, 7)]);
        assert_eq!(
            refused,
            &Decision::Refuse { reason: EntryRefused::InsufficientFunds, draft: 2 },
            "1 + 2 + 7 are less than 11"
        );
        assert_eq!(reused, &refuse(EntryRefused::IdempotencyKeyReused));
        assert_eq!(again, first);
        assert_eq!(places(second), [(4, 0), (5, 7)], "nothing of the refused group remains, nor its key");
        assert_eq!(single, &refuse(EntryRefused::IdempotencyKeyReused), "one post is not a group");
        let leads: Vec<_> = entries.iter().map(|new| (new.group_size, new.request.is_some())).collect();
        assert_eq!(leads, [(Some(3), true), (None, false), (None, false), (Some(2), true), (None, false)]);
    }

    #[test]
    fn a_key_from_before_the_digests_is_compared_by_its_fields() {
        // The text of a draft depends on its number.
        let with_text = |n, cents| Posting { drafts: draft(n, cents).into(), ..post(n, 7, cents, Some("old")) };
        let mut wallets = empty(&[7]);
        let Some(Decision::Post(old)) = decide_all(&mut wallets, &[with_text(3, 5)], at(0)).pop() else {
            panic!("not posted")
        };
        let used = &mut wallets.get_mut(&user(7)).expect("the wallet").used_keys;
        for key in used.values_mut() {
            key.digest = None;
        }
        let postings =
            [with_text(3, 5), with_text(6, 5), with_text(3, 6), with_text(3, -5), group(3, 7, &[5, 5], Some("old"))];
        let [replay, others @ ..] = &decide_all(&mut wallets, &postings, at(0))[..] else { panic!("no decision") };
        assert_eq!(replay, &Decision::Replay(old));
        assert_eq!(others, vec![refuse(EntryRefused::IdempotencyKeyReused); 4]);
    }

    #[test]
    fn a_debit_cannot_use_what_is_held_and_every_entry_carries_it_on() {
        let cents = |cents| Balance::from_stored(cents).expect("in range");
        let head = LedgerHead { seq: 4, balance: cents(100), held: cents(60), ..LedgerHead::empty(user(7)) };
        let mut wallets = WalletStates::from([(user(7), WalletState::new(head))]);
        let postings = [post(1, 7, -41, None), post(2, 7, -40, None), post(3, 7, -1, None), post(4, 7, 1, None)];
        let [refused, Decision::Post(debit), none_left, Decision::Post(credit)] =
            &decide_all(&mut wallets, &postings, at(0))[..]
        else {
            panic!("not as expected")
        };
        assert_eq!([refused, none_left], [&refuse(EntryRefused::InsufficientFunds); 2]);
        assert_eq!((places(debit), places(credit)), (vec![(5, 60)], vec![(6, 61)]));
        assert_eq!([debit, credit].map(|entries| entries.first().held_after), [cents(60); 2]);
    }

    #[test]
    fn times_never_decrease_along_the_sequence() {
        let mut wallets = empty(&[7]);
        let later = decide_all(&mut wallets, &[post(1, 7, 1, None)], at(100));
        let earlier = decide_all(&mut wallets, &[post(2, 7, 1, None)], at(50));
        let times: Vec<_> = [later, earlier]
            .concat()
            .into_iter()
            .map(|d| if let Decision::Post(e) = d { e.first().created_at } else { panic!("{d:?}") })
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
            kind: new.entry.kind,
            amount: new.entry.amount.cents(),
            balance_after: new.entry.balance_after,
            held_after: new.entry.held_after,
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
            let DecidedBatch { entries, decisions: together } = decide_batch(&mut empty(&[0, 1, 2]), &postings, at(1));
            let mut split = empty(&[0, 1, 2]);
            let (front, back) = postings.split_at(cut.min(postings.len()));
            let mut apart = decide_all(&mut split, front, at(1));
            apart.extend(decide_all(&mut split, back, at(1)));
            prop_assert_eq!(&together, &apart);

            for owner in 0..3 {
                let (mut model, mut written) = (Model::default(), Vec::<Entry>::new());
                for ((_, cents, key), decision) in posts.iter().zip(&together).filter(|((o, ..), _)| *o == owner) {
                    let of = |begin: usize| written.get(begin..begin + cents.len()).map(<[Entry]>::to_vec);
                    match (model.post(cents, *key), decision) {
                        (Expected::Post(begin), Decision::Post(entries)) => {
                            prop_assert_eq!(begin, written.len());
                            written.extend(entries.iter().cloned());
                            let amounts: Vec<_> = entries.iter().map(|entry| {
                                let cents = entry.amount.cents();
                                if entry.kind == EntryKind::Credit { cents } else { -cents }
                            }).collect();
                            prop_assert_eq!(&amounts, cents);
                        }
                        (Expected::Replay(begin), Decision::Replay(entries)) => {
                            prop_assert_eq!(Some(entries.iter().cloned().collect()), of(begin));
                        }
                        (Expected::Refuse(expected), Decision::Refuse { reason, .. }) => prop_assert_eq!(&expected, reason),
                        (expected, decision) => prop_assert!(false, "{:?}, but {:?}", expected, decision),
                    }
                }
                let balances = model.amounts.iter().scan(0, |sum, amount| { *sum += amount; Some(*sum) });
                let expected: Vec<_> = (1_i64..).zip(balances).collect();
                let mut hash = EntryHash::genesis(user(owner));
                let new: Vec<_> = entries.iter().filter(|new| new.user_id == user(owner)).collect();
                for new in &new {
                    hash = rehashed(hash, new);
                    prop_assert_eq!(new.hash, hash);
                }
                prop_assert!(new.iter().map(|new| &new.entry).eq(&written));
                let stored: Vec<_> = written.iter().map(|entry| (entry.seq, entry.balance_after.cents())).collect();
                prop_assert_eq!(stored, expected);
            }
        }
    }
}
