//! What users may do to their own wallets, and what is left to services.

use crate::kernel::SelfPost;
use crate::wallet::domain::{EntryRefused, Posting};

impl Posting {
    /// Whether its poster may write to the wallet and, if `adds_money`, raise its balance at no other wallet's cost: by a credit,
    /// or by the reversal of a debit or of a capture.
    ///
    /// # Errors
    /// [`EntryRefused::NotAllowed`].
    pub(super) const fn permit(&self, adds_money: bool) -> Result<(), EntryRefused> {
        match self.self_post {
            _ if self.posted_by.is_some() => Ok(()),
            SelfPost::CreditAndDebit => Ok(()),
            SelfPost::Debit if !adds_money => Ok(()),
            SelfPost::Debit | SelfPost::None => Err(EntryRefused::NotAllowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{EntryId, IdempotencyKey, ServiceName, Timestamp, UserId};
    use crate::wallet::domain::texts::tests::SALT;
    use crate::wallet::domain::{
        Act, AmountMinor, DecidedBatch, Decision, Direction, Draft, EntryKind, HoldLifetime, LedgerHead, NamedEntry,
        NewEntry, OneOrMore, OtherLeg, WalletState, WalletStates, decide_batch,
    };
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn id(n: u128) -> EntryId {
        EntryId::from_uuid(Uuid::from_u128(n))
    }

    fn cents(cents: i64) -> AmountMinor {
        AmountMinor::try_new(cents).expect("an amount")
    }

    fn posting(n: u128, act: Act, service: Option<&str>, self_post: SelfPost) -> Posting {
        let posted_by = service.map(|name| ServiceName::parse(name).expect("a name"));
        let draft = Draft { id: id(n), act, texts: None };
        Posting { posted_by, self_post, ..Posting::new(user(7), draft.into(), None) }
    }

    fn hold(amount: i64) -> Act {
        Act::Hold { amount: cents(amount), lifetime: HoldLifetime::DEFAULT }
    }

    fn credit(amount: i64) -> Act {
        Act::Post { direction: Direction::Credit, amount: cents(amount) }
    }

    fn debit(amount: i64) -> Act {
        Act::Post { direction: Direction::Debit, amount: cents(amount) }
    }

    /// Wallets 7 and 8. The entries of 7: a credit (1), a debit (2), a hold of its user (3) and one of a service (4).
    fn wallets() -> WalletStates {
        let mut wallets = [7, 8].map(|n| (user(n), WalletState::new(LedgerHead::empty(user(n))))).into();
        let by_user = |n, act| posting(n, act, None, SelfPost::CreditAndDebit);
        let by_service = posting(4, hold(20), Some("shop"), SelfPost::None);
        let before = [by_user(1, credit(100)), by_user(2, debit(10)), by_user(3, hold(20)), by_service];
        let DecidedBatch { entries, .. } = decide_batch(&mut wallets, &before, Timestamp::UNIX_EPOCH);
        assert_eq!(entries.len(), 4);
        let wallet = wallets.get_mut(&user(7)).expect("a wallet");
        wallet.named.extend(entries.into_iter().map(|NewEntry { entry, .. }| {
            let left = entry.amount.cents();
            (entry.id, NamedEntry { entry, acts: 0, left, last_act: None })
        }));
        wallets
    }

    #[test]
    fn users_may_do_what_self_post_says_and_never_act_on_the_hold_of_a_service() {
        let transfer = Act::Transfer {
            amount: cents(5),
            recipient: user(8),
            recipient_exists: true,
            leg: OtherLeg { id: id(9), salt: SALT },
        };
        let capture = |n| Act::Capture { hold: id(n), amount: None, is_final: true };
        let reverse = |n| Act::Reverse { entry: id(n), amount: Some(cents(5)), back: None };
        let adds_none = || [debit(5), transfer.clone(), hold(5), capture(3), Act::Void { hold: id(3) }, reverse(1)];
        let adds_money = || [credit(5), reverse(2)];
        let of_service = || [capture(4), Act::Void { hold: id(4) }];
        let is_allowed = |act: Act, service, self_post| {
            let decided = decide_batch(&mut wallets(), &[posting(5, act, service, self_post)], Timestamp::UNIX_EPOCH);
            match decided.decisions.as_slice() {
                [Decision::Post(entries)] => {
                    assert_eq!(entries.first().posted_by.as_ref().map(ServiceName::as_str), service);
                    true
                }
                [Decision::Refuse { reason: EntryRefused::NotAllowed, draft: 0 }] => {
                    assert_eq!(decided.entries, []);
                    false
                }
                other => panic!("{other:?}"),
            }
        };
        for (self_post, may_take, may_add) in
            [(SelfPost::CreditAndDebit, true, true), (SelfPost::Debit, true, false), (SelfPost::None, false, false)]
        {
            for (acts, expected) in
                [(adds_none().to_vec(), may_take), (adds_money().to_vec(), may_add), (of_service().to_vec(), false)]
            {
                for act in acts {
                    assert_eq!(is_allowed(act.clone(), None, self_post), expected, "{self_post}: {act:?} by the user");
                    assert!(is_allowed(act.clone(), Some("other"), self_post), "{self_post}: {act:?} by a service");
                }
            }
        }
    }

    #[test]
    fn a_replay_wins_over_a_permission_that_was_withdrawn() {
        let keyed = |n, self_post| {
            let drafts: OneOrMore<Draft> = Draft { id: id(n), act: credit(5), texts: None }.into();
            let key = IdempotencyKey::parse("k").expect("a key");
            Posting { self_post, ..Posting::new(user(7), drafts, Some(key)) }
        };
        let mut wallets = wallets();
        let both = [keyed(5, SelfPost::CreditAndDebit), keyed(6, SelfPost::None)];
        let DecidedBatch { decisions, .. } = decide_batch(&mut wallets, &both, Timestamp::UNIX_EPOCH);
        let [Decision::Post(first), Decision::Replay(again)] = decisions.as_slice() else { panic!("{decisions:?}") };
        assert_eq!(first, again);
        assert_eq!(first.first().kind, EntryKind::Credit);
    }
}
