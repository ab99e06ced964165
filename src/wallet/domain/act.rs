//! What a posting asks of the ledger.

use crate::kernel::{EntryId, UserId};
use crate::wallet::domain::{AmountMinor, Direction, HoldLifetime, Salt, SaltedTexts};

/// A requested entry, not decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The id of the future entry.
    pub id: EntryId,
    pub act: Act,
    /// For people; no rule depends on them.
    pub texts: Option<SaltedTexts>,
}

/// What a draft does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A credit or debit of the wallet.
    Post { direction: Direction, amount: AmountMinor },
    /// A debit of the wallet and a credit of the recipient's, both or neither.
    Transfer {
        amount: AmountMinor,
        recipient: UserId,
        /// As far as is known without a lock. Without one, the recipient is not locked, and the transfer is refused.
        recipient_exists: bool,
        leg: OtherLeg,
    },
    /// Reserves a part of the balance.
    Hold { amount: AmountMinor, lifetime: HoldLifetime },
    /// A debit of what a hold reserves.
    Capture {
        hold: EntryId,
        /// `None`: all that is left.
        amount: Option<AmountMinor>,
        /// Whether what is left after it is released.
        is_final: bool,
    },
    /// Releases what is left of a hold.
    Void { hold: EntryId },
    /// Undoes an earlier credit or debit, or a part of it.
    Reverse {
        entry: EntryId,
        /// `None`: all that is left.
        amount: Option<AmountMinor>,
        /// Only if the entry is a transfer that the wallet received.
        back: Option<BackTransfer>,
    },
    /// Nothing of its own; like every other act on a wallet it ends the holds that are due.
    ExpireDue,
}

/// The entry that an act writes in another wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherLeg {
    /// The id of that entry.
    pub id: EntryId,
    /// Of its texts.
    pub salt: Salt,
}

/// Where a received transfer goes when it is reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackTransfer {
    /// Who sent it.
    pub sender: UserId,
    /// The id of the original transfer.
    pub transfer: EntryId,
    pub leg: OtherLeg,
}

impl Act {
    /// The owner of the other wallet that this act changes.
    pub const fn other_wallet(&self) -> Option<UserId> {
        match self {
            Self::Transfer { recipient, recipient_exists: true, .. } => Some(*recipient),
            Self::Reverse { back: Some(back), .. } => Some(back.sender),
            _ => None,
        }
    }

    /// The earlier entry of the wallet that this act names.
    pub const fn named_entry(&self) -> Option<EntryId> {
        match self {
            Self::Capture { hold: id, .. } | Self::Void { hold: id } | Self::Reverse { entry: id, .. } => Some(*id),
            Self::Post { .. } | Self::Transfer { .. } | Self::Hold { .. } | Self::ExpireDue => None,
        }
    }
}
