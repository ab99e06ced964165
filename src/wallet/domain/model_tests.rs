//! Random acts on a few wallets, compared with an independent model and with the laws of the ledger.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use uuid::Uuid;

use super::batch::{DecidedBatch, decide_batch};
use super::texts::tests::SALT;
use super::wallet_state::{NamedEntry, UsedKey, WalletState, WalletStates};
use super::{
    Act, AmountMinor, BackTransfer, Decision, Direction, Draft, DueHold, Entry, EntryKind, EntryRefused, HoldLifetime,
    HoldStatus, KeyedRequest, LedgerHead, MINOR_MAX, NewEntry, OneOrMore, OtherLeg, Posting, RequestDigest, Texts,
};
use crate::kernel::{EntryId, IdempotencyKey, Timestamp, UserId};

fn user(n: usize) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n as u128))
}

fn id(n: usize) -> EntryId {
    EntryId::from_uuid(Uuid::from_u128(n as u128))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("second")
}

fn cents(amount: i64) -> AmountMinor {
    AmountMinor::try_new(amount).expect("amount")
}

const USERS: usize = 3;

/// What a database would have.
#[derive(Clone, Debug, Default)]
struct Store {
    wallets: BTreeMap<UserId, Vec<NewEntry>>,
}

impl Store {
    fn entries(&self, user: UserId) -> &[NewEntry] {
        self.wallets.get(&user).map_or(&[], Vec::as_slice)
    }

    fn write(&mut self, entries: &[NewEntry]) {
        for new in entries {
            self.wallets.entry(new.user_id).or_default().push(new.clone());
        }
    }

    fn named(&self, user: UserId, entry: &Entry) -> NamedEntry {
        let acts = self.entries(user).iter().filter_map(|new| {
            let acts_on = new.entry.acts_on.as_ref().filter(|acts_on| acts_on.origin.seq == entry.seq)?;
            Some((acts_on.origin, new.entry.kind))
        });
        let last = acts.max_by_key(|(origin, _)| origin.nth);
        NamedEntry {
            entry: entry.clone(),
            acts: last.map_or(0, |(origin, _)| origin.nth),
            left: last.map_or(entry.amount.cents(), |(origin, _)| origin.left),
            last_act: last.map(|(_, kind)| kind),
        }
    }

    fn by_id(&self, user: UserId, id: EntryId) -> Option<&Entry> {
        self.entries(user).iter().map(|new| &new.entry).find(|entry| entry.id == id)
    }

    /// The state of every wallet, with everything that `postings` name, and at most `due_max` due holds each.
    fn load(&self, postings: &[Posting], now: Timestamp, due_max: usize) -> WalletStates {
        let mut states = WalletStates::new();
        for user in (0..USERS).map(user) {
            let entries = self.entries(user);
            let head = entries.last().map_or_else(
                || LedgerHead::empty(user),
                |new| LedgerHead {
                    user_id: user,
                    seq: new.entry.seq,
                    balance: new.entry.balance_after,
                    held: new.entry.held_after,
                    is_closed: false,
                    created_at: Some(new.entry.created_at),
                    hash: new.hash,
                },
            );
            let mut state = WalletState::new(head);
            let holds = entries.iter().map(|new| self.named(user, &new.entry));
            let mut due: Vec<_> = holds
                .filter(|named| named.entry.kind == EntryKind::Hold && named.left > 0)
                .filter(|named| named.entry.expires_at.is_some_and(|at| at <= now))
                .collect();
            due.sort_by_key(|named| named.entry.expires_at);
            state.due.extend(due.iter().take(due_max).map(|named| DueHold {
                seq: named.entry.seq,
                id: named.entry.id,
                left: cents(named.left),
                acts: named.acts,
                expiry: EntryId::from_uuid(Uuid::from_u128(named.entry.id.as_uuid().as_u128() + (1 << 64))),
            }));
            states.insert(user, state);
        }
        for posting in postings {
            for draft in posting.drafts.iter() {
                if let Some(entry) = draft.act.named_entry().and_then(|id| self.by_id(posting.user_id, id)) {
                    let named = self.named(posting.user_id, entry);
                    states.get_mut(&posting.user_id).expect("a wallet").named.insert(entry.id, named);
                }
                if let Act::Reverse { back: Some(back), .. } = draft.act {
                    let mut entries = self.entries(back.sender).iter().map(|new| &new.entry);
                    let leg = entries.find(|entry| entry.transfer.is_some_and(|leg| leg.transfer == back.transfer));
                    let leg = self.named(back.sender, leg.expect("the sender's leg"));
                    states.get_mut(&back.sender).expect("a wallet").sent.insert(back.transfer, leg);
                }
            }
            let Some(request) = &posting.request else { continue };
            let entries = self.entries(posting.user_id);
            let of_key = |new: &&NewEntry| new.request.as_ref().is_some_and(|used| used.key == request.key);
            let Some(first) = entries.iter().position(|new| of_key(&new)) else { continue };
            let count = entries[first].group_size.map_or(1, |size| usize::try_from(size).expect("a size"));
            let digest = entries[first].request.as_ref().map(|used| used.digest);
            let entries = entries[first..first + count].iter().map(|new| new.entry.clone());
            let used = UsedKey { digest, entries: OneOrMore::collect(entries).expect("an entry") };
            let key = (None, request.key.clone());
            states.get_mut(&posting.user_id).expect("a wallet").used_keys.insert(key, used);
        }
        states
    }
}

/// A random request. Entries are chosen by their place among those of the wallet.
#[derive(Clone, Debug)]
enum Ask {
    Post { credit: bool, amount: i64 },
    Transfer { to: usize, amount: i64 },
    Hold { amount: i64, lifetime: i64 },
    Capture { nth: usize, amount: Option<i64>, is_final: bool },
    Void { nth: usize },
    Reverse { nth: usize, amount: Option<i64> },
    Group { amounts: Vec<i64> },
    ExpireDue,
}

fn asks() -> impl Strategy<Value = (usize, Ask, Option<u8>)> {
    let amount = || prop_oneof![12 => 1..60_i64, 1 => Just(MINOR_MAX)];
    let part = || proptest::option::of(1..40_i64);
    let ask = prop_oneof![
        4 => (any::<bool>(), amount()).prop_map(|(credit, amount)| Ask::Post { credit, amount }),
        4 => (0..USERS, amount()).prop_map(|(to, amount)| Ask::Transfer { to, amount }),
        4 => (amount(), 60..200_i64).prop_map(|(amount, lifetime)| Ask::Hold { amount, lifetime }),
        4 => (0..6_usize, part(), any::<bool>())
            .prop_map(|(nth, amount, is_final)| Ask::Capture { nth, amount, is_final }),
        1 => (0..6_usize).prop_map(|nth| Ask::Void { nth }),
        4 => (0..9_usize, part()).prop_map(|(nth, amount)| Ask::Reverse { nth, amount }),
        2 => proptest::collection::vec(-30..40_i64, 2..5).prop_map(|amounts| Ask::Group { amounts }),
        1 => Just(Ask::ExpireDue),
    ];
    (0..USERS, ask, proptest::option::of(0..12_u8))
}

/// The posting that a request becomes. `number` makes its ids unique.
fn posting(store: &Store, number: usize, owner: usize, ask: &Ask, key: Option<u8>) -> Posting {
    let owner_id = user(owner);
    let nth = |kinds: &[EntryKind], nth: usize| {
        let of_kind: Vec<_> =
            store.entries(owner_id).iter().map(|new| &new.entry).filter(|entry| kinds.contains(&entry.kind)).collect();
        // From the newest one backwards; beyond the first one, an unknown entry.
        let place = of_kind.len().checked_sub(nth + 1);
        place.map(|place| of_kind[place].clone())
    };
    let unknown = id(usize::MAX);
    let act = match ask {
        Ask::Post { credit, amount } => {
            Act::Post { direction: if *credit { Direction::Credit } else { Direction::Debit }, amount: cents(*amount) }
        }
        Ask::Transfer { to, amount } => Act::Transfer {
            amount: cents(*amount),
            recipient: user(if *to == owner { (to + 1) % USERS } else { *to }),
            recipient_exists: true,
            leg: OtherLeg { id: id(number * 1_000 + 500), salt: SALT },
        },
        Ask::Hold { amount, lifetime } => {
            Act::Hold { amount: cents(*amount), lifetime: HoldLifetime::try_new(*lifetime).expect("a lifetime") }
        }
        Ask::Capture { nth: place, amount, is_final } => Act::Capture {
            hold: nth(&[EntryKind::Hold], *place).map_or(unknown, |hold| hold.id),
            amount: amount.map(cents),
            is_final: *is_final,
        },
        Ask::Void { nth: place } => Act::Void { hold: nth(&[EntryKind::Hold], *place).map_or(unknown, |hold| hold.id) },
        Ask::Reverse { nth: place, amount } => {
            let kinds = [EntryKind::Credit, EntryKind::Debit, EntryKind::Hold, EntryKind::Void, EntryKind::Expire];
            let entry = nth(&kinds, *place);
            let received = entry.as_ref().filter(|entry| entry.kind == EntryKind::Credit).and_then(|e| e.transfer);
            Act::Reverse {
                entry: entry.map_or(unknown, |entry| entry.id),
                amount: amount.map(cents),
                back: received.map(|leg| BackTransfer {
                    sender: leg.counterparty,
                    transfer: leg.transfer,
                    leg: OtherLeg { id: id(number * 1_000 + 500), salt: SALT },
                }),
            }
        }
        Ask::Group { amounts } => {
            let post = |(place, amount): (usize, &i64)| Draft {
                id: id(number * 1_000 + place),
                act: Act::Post {
                    direction: if *amount > 0 { Direction::Credit } else { Direction::Debit },
                    amount: cents(amount.abs().max(1)),
                },
                texts: None,
            };
            let drafts = OneOrMore::collect(amounts.iter().enumerate().map(post)).expect("a draft");
            return Posting::new(owner_id, drafts, key.map(key_of));
        }
        Ask::ExpireDue => Act::ExpireDue,
    };
    let key = key.filter(|_| !matches!(ask, Ask::ExpireDue)).map(key_of);
    Posting::new(owner_id, Draft { id: id(number * 1_000), act, texts: None }.into(), key)
}

fn key_of(key: u8) -> IdempotencyKey {
    IdempotencyKey::parse(&format!("k{key}")).expect("a key")
}

/// Recounts every wallet from its entries alone.
fn check(store: &Store) -> Result<(), TestCaseError> {
    for (user, entries) in &store.wallets {
        let (mut balance, mut held) = (0_i64, 0_i64);
        let mut left = HashMap::<i64, (EntryKind, i64, i32)>::new();
        for (place, new) in (1_i64..).zip(entries) {
            let entry = &new.entry;
            let amount = entry.amount.cents();
            prop_assert_eq!(entry.seq, place);
            let origin = entry.acts_on.as_ref();
            let on_hold = origin.is_some_and(|origin| origin.kind == EntryKind::Hold);
            match entry.kind {
                EntryKind::Credit => balance += amount,
                EntryKind::Debit => balance -= amount,
                EntryKind::Hold => held += amount,
                EntryKind::Void | EntryKind::Expire => prop_assert!(on_hold),
                EntryKind::Close => prop_assert!(false),
            }
            if let Some(acts_on) = origin {
                let (kind, before, acts) = left[&acts_on.origin.seq];
                prop_assert_eq!((kind, acts + 1), (acts_on.kind, acts_on.origin.nth));
                prop_assert!(before > 0 && (0..before).contains(&acts_on.origin.left));
                let taken = before - acts_on.origin.left;
                match (kind, entry.kind) {
                    (EntryKind::Hold, EntryKind::Debit) => {
                        prop_assert!(amount == taken || (acts_on.origin.left == 0 && amount < taken));
                    }
                    (EntryKind::Hold, EntryKind::Void | EntryKind::Expire) => {
                        prop_assert_eq!((amount, acts_on.origin.left), (before, 0));
                    }
                    (EntryKind::Credit, EntryKind::Debit) | (EntryKind::Debit, EntryKind::Credit) => {
                        prop_assert_eq!(amount, taken);
                    }
                    kinds => prop_assert!(false, "{:?}", kinds),
                }
                held -= if on_hold { taken } else { 0 };
                left.insert(acts_on.origin.seq, (kind, acts_on.origin.left, acts_on.origin.nth));
                if let Some(hold) = acts_on.hold.as_ref() {
                    let captures = entries.iter().filter(|new| {
                        let same = new.entry.acts_on.as_ref().is_some_and(|o| o.origin.seq == acts_on.origin.seq);
                        same && new.entry.kind == EntryKind::Debit && new.entry.seq <= entry.seq
                    });
                    let captured: i64 = captures.map(|new| new.entry.amount.cents()).sum();
                    prop_assert_eq!((hold.captured.cents(), hold.remaining.cents()), (captured, acts_on.origin.left));
                    let ended = acts_on.origin.left == 0;
                    prop_assert_eq!(hold.status == HoldStatus::Open, !ended);
                }
            }
            left.insert(entry.seq, (entry.kind, amount, 0));
            prop_assert!(0 <= held && held <= balance && balance <= MINOR_MAX);
            prop_assert_eq!((entry.balance_after.cents(), entry.held_after.cents()), (balance, held));
            if let Some(leg) = entry.transfer {
                let other = store.entries(leg.counterparty).iter().map(|new| &new.entry);
                let twins: Vec<_> =
                    other.filter(|other| other.transfer.is_some_and(|twin| twin.transfer == leg.transfer)).collect();
                prop_assert_eq!(twins.len(), 1);
                prop_assert_eq!(twins[0].transfer.map(|twin| twin.counterparty), Some(*user));
                prop_assert_eq!(twins[0].amount, entry.amount);
                prop_assert_ne!(twins[0].kind, entry.kind);
            }
        }
    }
    Ok(())
}

/// The sum of all balances changes by credits and debits that are no legs of transfers.
fn money(store: &Store) -> (i64, i64) {
    let entries = || store.wallets.values().flatten().map(|new| &new.entry);
    let from_outside = entries().filter(|entry| entry.transfer.is_none()).map(|entry| match entry.kind {
        EntryKind::Credit => entry.amount.cents(),
        EntryKind::Debit => -entry.amount.cents(),
        _ => 0,
    });
    let balances = store.wallets.values().filter_map(|entries| Some(entries.last()?.entry.balance_after.cents()));
    (balances.sum(), from_outside.sum())
}

/// What a request may be refused for, whatever the state of the ledger.
fn may_refuse(ask: &Ask, reason: EntryRefused) -> bool {
    use EntryRefused as R;
    match reason {
        R::IdempotencyKeyReused => true,
        R::InsufficientFunds => !matches!(ask, Ask::Capture { .. } | Ask::Void { .. } | Ask::ExpireDue),
        R::BalanceLimit => matches!(ask, Ask::Post { .. } | Ask::Group { .. } | Ask::Reverse { .. }),
        R::RecipientCannotReceive => matches!(ask, Ask::Transfer { .. } | Ask::Reverse { .. }),
        R::HoldNotFound | R::HoldClosed | R::HoldExpired => matches!(ask, Ask::Capture { .. } | Ask::Void { .. }),
        R::HoldAmountExceeded | R::CaptureLimit => matches!(ask, Ask::Capture { .. }),
        R::EntryNotFound | R::NotReversible | R::AlreadyReversed | R::ReversalExceeds => {
            matches!(ask, Ask::Reverse { .. })
        }
        R::NotAllowed | R::WalletClosed | R::RecipientNotFound => false,
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_the_laws_of_the_ledger_hold(
        rounds in proptest::collection::vec((0..90_i64, proptest::collection::vec(asks(), 1..6)), 1..24),
        due_max in prop_oneof![Just(1_usize), Just(100)],
    ) {
        let (mut store, mut now) = (Store::default(), 0);
        for (number, (seconds, asked)) in rounds.iter().enumerate() {
            now += seconds;
            let postings: Vec<_> = asked
                .iter()
                .enumerate()
                .map(|(place, (owner, ask, key))| posting(&store, 1 + number * 10 + place, *owner, ask, *key))
                .collect();
            let DecidedBatch { entries, decisions } =
                decide_batch(&mut store.load(&postings, at(now), due_max), &postings, at(now));
            let mut apart = store.clone();
            for (posting, decision) in postings.iter().zip(&decisions) {
                let one = std::slice::from_ref(posting);
                let alone = decide_batch(&mut apart.load(one, at(now), due_max), one, at(now));
                apart.write(&alone.entries);
                // Alone, more of the holds that are due may have ended before.
                if due_max > 1 {
                    prop_assert_eq!(&alone.decisions[0], decision);
                }
            }
            store.write(&entries);
            if due_max > 1 {
                prop_assert_eq!(money(&apart), money(&store));
            }
            for ((owner, ask, _), decision) in asked.iter().zip(&decisions) {
                match decision {
                    Decision::Refuse { reason, .. } => prop_assert!(may_refuse(ask, *reason), "{:?} {:?}", ask, reason),
                    Decision::Post(own) => {
                        let written = |entry: &Entry| store.by_id(user(*owner), entry.id) == Some(entry);
                        prop_assert!(own.iter().all(written));
                    }
                    Decision::Replay(_) | Decision::Settled => {}
                    Decision::NotLocked { .. } | Decision::MoreDue => prop_assert!(false),
                }
            }
            check(&store)?;
            let (balances, from_outside) = money(&store);
            prop_assert_eq!(balances, from_outside);
        }
    }
}

/// Every wallet but those of `missing` is locked.
fn decide_without(missing: &[usize], postings: &[Posting]) -> Vec<Decision> {
    let mut states = Store::default().load(postings, at(0), 100);
    states.retain(|owner, _| !missing.iter().any(|n| user(*n) == *owner));
    decide_batch(&mut states, postings, at(0)).decisions
}

#[test]
fn no_posting_of_a_user_overtakes_one_that_needs_a_wallet_that_is_not_locked() {
    let store = Store::default();
    let ask = |number, owner, ask: Ask| posting(&store, number, owner, &ask, None);
    let credit = |number, owner| ask(number, owner, Ask::Post { credit: true, amount: 5 });
    let transfer = |number, owner, to| ask(number, owner, Ask::Transfer { to, amount: 1 });
    let postings = [
        credit(1, 0),
        transfer(2, 0, 1),
        transfer(3, 0, 2),
        credit(4, 0),
        credit(5, 1),
        credit(6, 2),
        transfer(7, 2, 0),
    ];
    let decisions = decide_without(&[2], &postings);
    let contested = Decision::NotLocked { contested: user(2) };
    let is_posted = |n: usize| matches!(decisions[n], Decision::Post(_));
    assert!(is_posted(0) && is_posted(1) && is_posted(4), "{decisions:?}");
    for held_back in [2, 3, 5, 6] {
        assert_eq!(decisions[held_back], contested, "posting {held_back}");
    }
}

#[test]
fn a_closed_wallet_sends_nothing_and_receives_nothing() {
    let store = Store::default();
    let ask = |number, owner, ask: Ask| posting(&store, number, owner, &ask, None);
    let postings = [
        ask(1, 0, Ask::Post { credit: true, amount: 5 }),
        ask(2, 0, Ask::Hold { amount: 5, lifetime: 60 }),
        ask(3, 0, Ask::Transfer { to: 1, amount: 5 }),
        ask(4, 1, Ask::Post { credit: true, amount: 5 }),
        ask(5, 1, Ask::Transfer { to: 0, amount: 5 }),
    ];
    let mut states = store.load(&postings, at(0), 100);
    states.get_mut(&user(0)).expect("a wallet").head.is_closed = true;
    let decisions = decide_batch(&mut states, &postings, at(0)).decisions;
    let refuse = |reason| Decision::Refuse { reason, draft: 0 };
    assert_eq!(decisions[..3], vec![refuse(EntryRefused::WalletClosed); 3]);
    assert_eq!(decisions[4], refuse(EntryRefused::RecipientNotFound));
    assert_eq!(states[&user(1)].head.balance.cents(), 5);
}

#[test]
fn a_recipient_without_a_wallet_is_refused_but_a_used_key_wins() {
    let key = IdempotencyKey::parse("k").expect("a key");
    let to_nobody = |number| {
        let leg = OtherLeg { id: id(number + 500), salt: SALT };
        let act = Act::Transfer { amount: cents(1), recipient: user(77), recipient_exists: false, leg };
        Draft { id: id(number), act, texts: None }
    };
    let credit = Draft { id: id(1), act: Act::Post { direction: Direction::Credit, amount: cents(5) }, texts: None };
    let postings = [
        Posting::new(user(0), to_nobody(9).into(), Some(key.clone())),
        Posting::new(user(0), credit.into(), Some(key.clone())),
        Posting::new(user(0), to_nobody(2).into(), Some(key)),
    ];
    let decisions = decide_without(&[], &postings);
    let refuse = |reason| Decision::Refuse { reason, draft: 0 };
    assert_eq!(decisions[0], refuse(EntryRefused::RecipientNotFound), "a rejected posting uses no key");
    assert_eq!(decisions[2], refuse(EntryRefused::IdempotencyKeyReused));
}

#[test]
fn the_fiftieth_capture_has_to_be_final_and_an_expired_hold_binds_nothing() {
    let mut store = Store::default();
    let run = |postings: &[Posting], now: i64, store: &mut Store| {
        let DecidedBatch { entries, decisions } =
            decide_batch(&mut store.load(postings, at(now), 100), postings, at(now));
        store.write(&entries);
        decisions
    };
    let ask = |store: &Store, number, ask: Ask| vec![posting(store, number, 0, &ask, None)];
    let funded = ask(&store, 1, Ask::Post { credit: true, amount: 100 });
    run(&funded, 0, &mut store);
    let hold = ask(&store, 2, Ask::Hold { amount: 100, lifetime: 60 });
    run(&hold, 0, &mut store);
    let capture = |is_final| Ask::Capture { nth: 0, amount: Some(1), is_final };
    for number in 3..52 {
        let capture = ask(&store, number, capture(false));
        assert!(matches!(run(&capture, 1, &mut store)[0], Decision::Post(_)), "capture {number}");
    }
    let refuse = |reason| Decision::Refuse { reason, draft: 0 };
    let fiftieth = ask(&store, 52, capture(false));
    assert_eq!(run(&fiftieth, 1, &mut store)[0], refuse(EntryRefused::CaptureLimit));
    // One second before its end everything but the captured part is held; at its end nothing is.
    let spend = |store: &Store, number| ask(store, number, Ask::Post { credit: false, amount: 51 });
    let early = spend(&store, 53);
    assert_eq!(run(&early, 59, &mut store)[0], refuse(EntryRefused::InsufficientFunds));
    let last = ask(&store, 54, capture(true));
    let mut late = store.clone();
    assert!(matches!(run(&last, 59, &mut store)[0], Decision::Post(_)));
    assert_eq!(run(&last, 60, &mut late)[0], refuse(EntryRefused::HoldExpired));
    let all = spend(&late, 55);
    assert!(matches!(run(&all, 60, &mut late)[0], Decision::Post(_)));
    let kinds: Vec<_> = late.entries(user(0)).iter().rev().take(2).map(|new| new.entry.kind).collect();
    assert_eq!(kinds, [EntryKind::Debit, EntryKind::Expire], "expired once");
}

#[test]
fn both_entries_of_a_transfer_have_the_description_and_only_the_senders_the_key() {
    let texts = Texts {
        description: Some(super::Description::parse("lunch").expect("a description")),
        reference: Some(super::Reference::parse("order-17").expect("a reference")),
        metadata: None,
    };
    let act = Act::Transfer {
        amount: cents(5),
        recipient: user(1),
        recipient_exists: true,
        leg: OtherLeg { id: id(500), salt: SALT },
    };
    let draft = Draft { id: id(2), act, texts: texts.clone().salted(|| SALT) };
    let drafts = OneOrMore::one(draft);
    let request = KeyedRequest { key: IdempotencyKey::parse("k").expect("a key"), digest: RequestDigest::of(&drafts) };
    let store = Store::default();
    let postings = [
        posting(&store, 1, 0, &Ask::Post { credit: true, amount: 5 }, None),
        Posting { request: Some(request), ..Posting::new(user(0), drafts, None) },
    ];
    let entries = decide_batch(&mut store.load(&postings, at(0), 100), &postings, at(0)).entries;
    let [_, sent, received] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&sent.entry.texts, sent.request.is_some()), (&texts, true));
    let shown = Texts { reference: None, ..texts };
    assert_eq!((&received.entry.texts, received.request.is_some()), (&shown, false));
    assert_eq!(sent.entry.transfer.map(|leg| leg.transfer), Some(sent.entry.id));
    assert_eq!(received.entry.transfer.map(|leg| (leg.transfer, leg.counterparty)), Some((sent.entry.id, user(0))));
}
