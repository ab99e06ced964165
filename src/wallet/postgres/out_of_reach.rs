//! Shards that batches of other shards leave out for a while.
//!
//! A transfer to a server that does not respond costs its whole batch the time limit of a statement. So the next batches leave out
//! what needs that shard, for several times as long as the failure took.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::infra::postgres::{Shard, Shards};
use crate::wallet::domain::Posting;

/// The pause after a failure, in times of how long that took: batches that only wait for it have at most a fifth of the time.
const PAUSE: u32 = 4;

/// At most one entry per shard.
#[derive(Default)]
pub(super) struct OutOfReach(Mutex<HashMap<Shard, Instant>>);

impl OutOfReach {
    /// A batch found `shard` out of reach, which took it so long.
    pub(super) fn failed(&self, shard: Shard, took: Duration) {
        self.with(|until| until.insert(shard, Instant::now() + took.saturating_mul(PAUSE)));
    }

    /// One that `postings` should leave out now: out of reach, and none of their own.
    pub(super) fn to_leave_out(&self, shards: Shards, postings: &[Posting]) -> Option<Shard> {
        let now = Instant::now();
        let others: Vec<Shard> = self.with(|until| {
            until.retain(|_, until| *until > now);
            until.keys().copied().collect()
        });
        others.into_iter().find(|shard| is_only_named(*shard, shards, postings))
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Shard, Instant>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether some of `postings` change a wallet in `shard`, and none is for a user there.
pub(super) fn is_only_named(shard: Shard, shards: Shards, postings: &[Posting]) -> bool {
    postings.iter().all(|posting| shards.of(posting.user_id) != shard)
        && postings.iter().any(|posting| needs(posting, shard, shards))
}

/// Whether `posting` changes a wallet in `shard`.
pub(super) fn needs(posting: &Posting, shard: Shard, shards: Shards) -> bool {
    posting.wallets().any(|wallet| shards.of(wallet) == shard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{EntryId, UserId};
    use crate::wallet::domain::{Act, AmountMinor, Draft, OtherLeg, Salt};
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn transfer(from: u128, to: u128) -> Posting {
        let id = EntryId::from_uuid(Uuid::nil());
        let leg = OtherLeg { id, salt: Salt::new([0; 16]) };
        let amount = AmountMinor::try_new(1).expect("amount");
        let act = Act::Transfer { amount, recipient: user(to), recipient_exists: true, leg };
        Posting::new(user(from), Draft { id, act, texts: None }.into(), None)
    }

    #[test]
    fn a_shard_is_left_out_for_as_long_as_its_pause_and_only_by_batches_of_others() {
        let shards = Shards::new(4).expect("shards");
        let failed = shards.of(user(1));
        let out_of_reach = OutOfReach::default();
        let to_leave_out = |postings: &[Posting]| out_of_reach.to_leave_out(shards, postings);
        assert_eq!(to_leave_out(&[transfer(0, 1)]), None);
        out_of_reach.failed(failed, Duration::from_mins(1));
        assert_eq!(to_leave_out(&[transfer(0, 4), transfer(0, 1)]), Some(failed));
        assert_eq!(to_leave_out(&[transfer(0, 2)]), None, "none of the batch needs it");
        assert_eq!(to_leave_out(&[transfer(1, 0), transfer(5, 1)]), None, "its own batches try it");
        out_of_reach.failed(failed, Duration::ZERO);
        assert_eq!(to_leave_out(&[transfer(0, 1)]), None, "the pause is over");
    }
}
