//! Carries out the acts of postings on the wallets of a batch, in memory.

use crate::kernel::{EntryId, Timestamp, UserId};
use crate::wallet::domain::head::{Lead, Next};
use crate::wallet::domain::wallet_state::{NamedEntry, WalletState, WalletStates};
use crate::wallet::domain::{
    Act, ActsOn, AmountMinor, BackTransfer, Balance, CAPTURES_MAX, DUE_MAX, Direction, Draft, DueHold, EntryKind,
    EntryRefused, Hold, HoldLifetime, HoldStatus, LedgerHead, NewEntry, Origin, OtherLeg, Posting, Texts, TransferLeg,
    captured_after,
};

/// The wallets of a batch while it is decided, and the entries that have been decided so far.
pub(super) struct Acting<'a> {
    pub(super) wallets: &'a mut WalletStates,
    pub(super) entries: Vec<NewEntry>,
    now: Timestamp,
}

/// What a draft has besides its act.
#[derive(Clone, Copy)]
struct Frame<'a> {
    posting: &'a Posting,
    draft: &'a Draft,
    lead: Lead<'a>,
}

impl<'a> Frame<'a> {
    /// The draft's own entry.
    fn next(&self, kind: EntryKind, amount: AmountMinor, balance: Balance, held: Balance) -> Next<'a> {
        Next {
            texts: self.draft.texts.clone(),
            posted_by: self.posting.posted_by.as_ref(),
            lead: self.lead,
            ..Next::plain(self.draft.id, kind, amount, balance, held)
        }
    }

    /// The entry in the other wallet. Of the texts it shows the description only.
    fn other(&self, leg: OtherLeg, kind: EntryKind, amount: AmountMinor, balance: Balance, held: Balance) -> Next<'a> {
        let description = self.draft.texts.as_ref().and_then(|salted| salted.texts.description.clone());
        Next {
            texts: Texts::of_description(description).salted(|| leg.salt),
            posted_by: self.posting.posted_by.as_ref(),
            ..Next::plain(leg.id, kind, amount, balance, held)
        }
    }
}

/// A wallet as it was before a posting.
pub(super) struct Snapshot(UserId, WalletState);

impl<'a> Acting<'a> {
    pub(super) const fn new(wallets: &'a mut WalletStates, now: Timestamp) -> Self {
        Self { wallets, entries: Vec::new(), now }
    }

    pub(super) fn head(&self, user: UserId) -> Option<LedgerHead> {
        self.wallets.get(&user).map(|wallet| wallet.head)
    }

    /// The wallets that `posting` may change.
    pub(super) fn snapshot(&self, posting: &Posting) -> Vec<Snapshot> {
        let users = [Some(posting.user_id), posting.other_wallet()].into_iter().flatten();
        users.filter_map(|user| Some(Snapshot(user, self.wallets.get(&user)?.clone()))).collect()
    }

    pub(super) fn restore(&mut self, snapshots: impl Iterator<Item = Snapshot>) {
        self.wallets.extend(snapshots.map(|Snapshot(user, wallet)| (user, wallet)));
    }

    /// Ends the holds of a wallet that are due.
    pub(super) fn expire_due(&mut self, user: UserId) {
        let Some(wallet) = self.wallets.get_mut(&user) else { return };
        let (is_full, before) = (wallet.due.len() >= DUE_MAX, self.entries.len());
        for DueHold { seq, id, left, acts, expiry } in std::mem::take(&mut wallet.due) {
            let head = wallet.head;
            let Some(held) = head.held.less(left) else { continue };
            let origin = Origin { seq, nth: acts.saturating_add(1), left: 0 };
            let next = Next {
                acts_on: Some(ActsOn { origin, id, kind: EntryKind::Hold, hold: None }),
                ..Next::plain(expiry, EntryKind::Expire, left, head.balance, held)
            };
            let Ok(expired) = wallet.head.append(next, self.now) else { continue };
            self.entries.push(expired);
        }
        // Without progress, a retry would find the same.
        wallet.more_due = is_full && self.entries.len() > before;
    }

    /// Whether some due holds of a wallet are left to a later batch.
    pub(super) fn has_more_due(&self, user: UserId) -> bool {
        self.wallets.get(&user).is_some_and(|wallet| wallet.more_due)
    }

    /// Appends the entries of `draft`. After an error nothing has changed.
    ///
    /// # Errors
    /// [`EntryRefused`] if a rule refuses it.
    pub(super) fn act(&mut self, posting: &Posting, draft: &Draft, lead: Lead<'_>) -> Result<(), EntryRefused> {
        posting.permit(false)?;
        let frame = Frame { posting, draft, lead };
        match &draft.act {
            Act::Post { direction, amount } => self.post(frame, *direction, *amount, None),
            Act::Transfer { recipient_exists: false, .. } => Err(EntryRefused::RecipientNotFound),
            Act::Transfer { amount, recipient, leg, .. } => self.transfer(frame, *amount, *recipient, *leg, None),
            Act::Hold { amount, lifetime } => self.hold(frame, *amount, *lifetime),
            Act::Capture { hold, amount, is_final } => {
                let named = self.open_hold(posting, *hold)?;
                self.capture(frame, &named, *amount, *is_final)
            }
            Act::Void { hold } => {
                let named = self.open_hold(posting, *hold)?;
                self.void(frame, &named)
            }
            Act::Reverse { entry, amount, back } => {
                // Also of the entry that closed it, which cannot be named.
                self.open(posting.user_id, EntryRefused::WalletClosed)?;
                let wallet = self.wallets.get(&posting.user_id);
                let named = wallet.and_then(|wallet| wallet.named.get(entry)).ok_or(EntryRefused::EntryNotFound)?;
                let named = named.clone();
                self.reverse(frame, &named, *amount, *back)
            }
            Act::ExpireDue => Ok(()),
        }
    }

    fn open(&self, user: UserId, closed: EntryRefused) -> Result<LedgerHead, EntryRefused> {
        self.head(user).filter(|head| !head.is_closed).ok_or(closed)
    }

    /// Appends `next` to the wallet of `user`.
    fn append(&mut self, user: UserId, next: Next<'_>) -> Result<(), EntryRefused> {
        let acts_on = next.acts_on.as_ref().map(|acts_on| (acts_on.id, acts_on.origin));
        let kind = next.kind;
        let wallet = self.wallets.get_mut(&user).ok_or(EntryRefused::EntryNotFound)?;
        let entry = wallet.head.append(next, self.now)?;
        if let Some((id, origin)) = acts_on {
            let of_sender = wallet.sent.values_mut().filter(|named| named.entry.id == id);
            wallet.named.get_mut(&id).into_iter().chain(of_sender).for_each(|named| named.after(origin, kind));
        }
        self.entries.push(entry);
        Ok(())
    }

    fn post(
        &mut self,
        frame: Frame<'_>,
        direction: Direction,
        amount: AmountMinor,
        acts_on: Option<ActsOn>,
    ) -> Result<(), EntryRefused> {
        frame.posting.permit(direction == Direction::Credit)?;
        let user = frame.posting.user_id;
        let head = self.open(user, EntryRefused::WalletClosed)?;
        let balance = head.balance.after(direction, amount, head.held)?;
        self.append(user, Next { acts_on, ..frame.next(direction.into(), amount, balance, head.held) })
    }

    /// `acts_on`: what the entries of the sender and of the recipient undo, if the transfer is a reversal.
    fn transfer(
        &mut self,
        frame: Frame<'_>,
        amount: AmountMinor,
        recipient: UserId,
        leg: OtherLeg,
        acts_on: Option<(ActsOn, ActsOn)>,
    ) -> Result<(), EntryRefused> {
        let (sender, transfer) = (frame.posting.user_id, frame.draft.id);
        let from = self.open(sender, EntryRefused::WalletClosed)?;
        let to = self.open(recipient, EntryRefused::RecipientNotFound)?;
        let (out_of, into) = acts_on.map_or((None, None), |(out_of, into)| (Some(out_of), Some(into)));
        let less = from.balance.after(Direction::Debit, amount, from.held)?;
        let more = to.balance.after(Direction::Credit, amount, to.held);
        let more = more.map_err(|_| EntryRefused::RecipientCannotReceive)?;
        if to.seq == i64::MAX {
            return Err(EntryRefused::RecipientCannotReceive);
        }
        let debit = Next {
            acts_on: out_of,
            transfer: Some(TransferLeg { transfer, counterparty: recipient }),
            ..frame.next(EntryKind::Debit, amount, less, from.held)
        };
        let credit = Next {
            acts_on: into,
            transfer: Some(TransferLeg { transfer, counterparty: sender }),
            ..frame.other(leg, EntryKind::Credit, amount, more, to.held)
        };
        self.append(sender, debit)?;
        self.append(recipient, credit)
    }

    fn hold(&mut self, frame: Frame<'_>, amount: AmountMinor, lifetime: HoldLifetime) -> Result<(), EntryRefused> {
        let user = frame.posting.user_id;
        let head = self.open(user, EntryRefused::WalletClosed)?;
        let held = head.held.more(amount).filter(|held| *held <= head.balance);
        let held = held.ok_or(EntryRefused::InsufficientFunds)?;
        // From the time of the hold itself: if the clock has gone back, it would expire before it was created.
        let created_at = head.time_of_next(self.now);
        let expires_at = Timestamp::from_microsecond(
            created_at.as_microsecond().saturating_add(lifetime.seconds().saturating_mul(1_000_000)),
        );
        // Only a clock that is thousands of years ahead fails here.
        let expires_at = expires_at.map_err(|_| EntryRefused::HoldExpired)?;
        let next = frame.next(EntryKind::Hold, amount, head.balance, held);
        self.append(user, Next { expires_at: Some(expires_at), ..next })
    }

    /// The hold that a capture or void names.
    fn open_hold(&self, posting: &Posting, hold: EntryId) -> Result<NamedEntry, EntryRefused> {
        let named = self.wallets.get(&posting.user_id).and_then(|wallet| wallet.named.get(&hold));
        let named = named.filter(|named| named.entry.kind == EntryKind::Hold).ok_or(EntryRefused::HoldNotFound)?;
        // What a hold guarantees to a service, the user cannot take back.
        if posting.posted_by.is_none() && named.entry.posted_by.is_some() {
            return Err(EntryRefused::NotAllowed);
        }
        // One wallet may have more due holds than a batch ends at once.
        let is_over = named.entry.expires_at.is_none_or(|expires_at| expires_at <= self.now);
        match (named.left, named.last_act) {
            (0, Some(EntryKind::Expire)) => Err(EntryRefused::HoldExpired),
            (0, _) => Err(EntryRefused::HoldClosed),
            _ if is_over => Err(EntryRefused::HoldExpired),
            _ => Ok(named.clone()),
        }
    }

    fn capture(
        &mut self,
        frame: Frame<'_>,
        named: &NamedEntry,
        amount: Option<AmountMinor>,
        is_final: bool,
    ) -> Result<(), EntryRefused> {
        let amount = match amount {
            Some(amount) => amount,
            None => AmountMinor::try_new(named.left).map_err(|_| EntryRefused::HoldClosed)?,
        };
        let rest = named.left.checked_sub(amount.cents()).filter(|rest| *rest >= 0);
        let rest = rest.ok_or(EntryRefused::HoldAmountExceeded)?;
        let origin = named.next(if is_final { 0 } else { rest });
        if origin.nth >= CAPTURES_MAX && origin.left > 0 {
            return Err(EntryRefused::CaptureLimit);
        }
        self.act_on_hold(frame, named, EntryKind::Debit, amount, origin)
    }

    fn void(&mut self, frame: Frame<'_>, named: &NamedEntry) -> Result<(), EntryRefused> {
        let left = AmountMinor::try_new(named.left).map_err(|_| EntryRefused::HoldClosed)?;
        self.act_on_hold(frame, named, EntryKind::Void, left, named.next(0))
    }

    fn act_on_hold(
        &mut self,
        frame: Frame<'_>,
        named: &NamedEntry,
        kind: EntryKind,
        amount: AmountMinor,
        origin: Origin,
    ) -> Result<(), EntryRefused> {
        let user = frame.posting.user_id;
        let head = self.head(user).ok_or(EntryRefused::HoldNotFound)?;
        let released = AmountMinor::try_new(named.left.saturating_sub(origin.left));
        let held = released.ok().and_then(|released| head.held.less(released)).ok_or(EntryRefused::HoldClosed)?;
        let is_capture = kind == EntryKind::Debit;
        let balance = if is_capture { head.balance.less(amount) } else { Some(head.balance) };
        let balance = balance.filter(|balance| *balance >= held).ok_or(EntryRefused::InsufficientFunds)?;
        let acts_on = ActsOn {
            origin,
            id: named.entry.id,
            kind: EntryKind::Hold,
            hold: named.hold_after(kind, amount, origin.left),
        };
        self.append(user, Next { acts_on: Some(acts_on), ..frame.next(kind, amount, balance, held) })
    }

    fn reverse(
        &mut self,
        frame: Frame<'_>,
        named: &NamedEntry,
        amount: Option<AmountMinor>,
        back: Option<BackTransfer>,
    ) -> Result<(), EntryRefused> {
        let entry = &named.entry;
        // A capture acts on a hold, and is a debit like any other.
        let is_original = entry.acts_on.as_ref().is_none_or(|acts_on| acts_on.kind == EntryKind::Hold);
        let reversed_by = match entry.kind {
            EntryKind::Credit if is_original => Direction::Debit,
            EntryKind::Debit if is_original && entry.transfer.is_none() => Direction::Credit,
            _ => return Err(EntryRefused::NotReversible),
        };
        let all = AmountMinor::try_new(named.left).map_err(|_| EntryRefused::AlreadyReversed)?;
        let amount = amount.unwrap_or(all);
        let rest = all.cents().checked_sub(amount.cents()).filter(|rest| *rest >= 0);
        let rest = rest.ok_or(EntryRefused::ReversalExceeds)?;
        let acts_on = named.acted_on(rest);
        if entry.transfer.is_none() {
            return self.post(frame, reversed_by, amount, Some(acts_on));
        }
        let BackTransfer { sender, transfer, leg } = back.ok_or(EntryRefused::RecipientNotFound)?;
        let sent = self.wallets.get(&sender).and_then(|wallet| wallet.sent.get(&transfer));
        // Both legs are reversed by the same entries, so the same is left of both.
        let sent = sent.filter(|sent| sent.left == named.left).ok_or(EntryRefused::RecipientNotFound)?;
        let sent = sent.acted_on(rest);
        self.transfer(frame, amount, sender, leg, Some((acts_on, sent)))
    }
}

impl NamedEntry {
    /// The next act on it, which leaves `left`.
    const fn next(&self, left: i64) -> Origin {
        Origin { seq: self.entry.seq, nth: self.acts.saturating_add(1), left }
    }

    /// The same, of an act that is not on a hold.
    const fn acted_on(&self, left: i64) -> ActsOn {
        ActsOn { origin: self.next(left), id: self.entry.id, kind: self.entry.kind, hold: None }
    }

    const fn after(&mut self, origin: Origin, kind: EntryKind) {
        self.acts = origin.nth;
        self.left = origin.left;
        self.last_act = Some(kind);
    }

    /// The hold after an act of `kind` by `amount` that leaves `left`.
    fn hold_after(&self, kind: EntryKind, amount: AmountMinor, left: i64) -> Option<Hold> {
        let captured = captured_after(self.entry.amount, self.left, kind, amount.cents())?;
        self.entry.hold(HoldStatus::after(kind, left), captured, Balance::from_stored(left)?)
    }
}
