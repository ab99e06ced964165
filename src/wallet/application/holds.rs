//! What can be read of holds, and the work that ends those that are due.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use uuid::Uuid;

use crate::kernel::{DependencyError, EntryId, UserId, fault};
use crate::wallet::application::history::HistoryCursor;
use crate::wallet::application::ports::Ledger;
use crate::wallet::domain::{Act, Draft, Hold, Posting};

/// Which holds of a wallet a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldQuery {
    /// Only those whose rest is still held.
    pub open_only: bool,
    /// Only sequence numbers below this one.
    pub before_seq: Option<i64>,
    pub limit: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldPage {
    /// Newest first.
    pub holds: Vec<Hold>,
    /// `None` on the last page.
    pub next: Option<HistoryCursor>,
}

impl HoldPage {
    /// Makes a page of `limit` from up to `limit + 1` holds with their sequence numbers; the extra one means that there is a
    /// next page.
    pub fn cut(mut holds: Vec<(i64, Hold)>, limit: u16) -> Self {
        let more = holds.len() > usize::from(limit);
        holds.truncate(usize::from(limit));
        let next = holds.last().filter(|_| more).map(|(seq, _)| HistoryCursor { before_seq: *seq });
        Self { holds: holds.into_iter().map(|(_, hold)| hold).collect(), next }
    }
}

/// Reads the holds of one user. A hold whose time is over is expired, whether or not the ledger has the entry that ends it.
#[async_trait]
pub trait HoldQueries: Send + Sync {
    async fn page(&self, user: UserId, query: HoldQuery) -> Result<HoldPage, DependencyError>;
    /// `None` also for another user's hold.
    async fn one(&self, user: UserId, id: EntryId) -> Result<Option<Hold>, DependencyError>;
}

/// The holds of all wallets whose time is over although the ledger has no entry that ends them.
#[derive(Debug, Default)]
pub struct DueHolds {
    /// The owners of their wallets, once each, those that have waited longest first.
    pub users: Vec<UserId>,
    /// How long ago the first of them should have ended.
    pub oldest: Duration,
    /// Whether there may be more of them than one pass ends.
    pub more: bool,
    /// Parts of the ledger that could not be read, and why. All others are in the fields above.
    pub unread: Vec<Unread>,
}

/// A shard that could not be read.
#[derive(Debug)]
pub struct Unread {
    /// `None`: the only one.
    pub schema: Option<&'static str>,
    /// `None`: it could not be read before, and was not tried again.
    pub error: Option<DependencyError>,
}

/// Finds the holds that are due in all wallets.
#[async_trait]
pub trait DueHoldQueries: Send + Sync {
    async fn due(&self) -> DueHolds;
    /// The number of open holds in all wallets, counted up to a bound.
    async fn count_open(&self) -> Result<usize, DependencyError>;
}

/// Postings of a pass that are in the queue of the ledger at once.
const IN_FLIGHT_MAX: usize = 64;

/// Writes the entries that end due holds of wallets to which nothing else happens. No rule depends on it: whatever is posted to
/// a wallet ends its due holds first, and reads do not count them.
pub struct ExpireHolds {
    pub holds: Arc<dyn DueHoldQueries>,
    pub ledger: Arc<dyn Ledger>,
}

impl ExpireHolds {
    /// One pass, which gives way to other posts while the queue of the ledger is half full. Returns what was due before it.
    /// The ledger reports its own errors.
    pub async fn execute(&self) -> DueHolds {
        let due = self.holds.due().await;
        if fault::disabled("holds.sweep") {
            return due;
        }
        let posts = futures_util::stream::iter(due.users.iter().copied()).map(|user| self.expire(user));
        posts.buffer_unordered(IN_FLIGHT_MAX).collect::<()>().await;
        due
    }

    async fn expire(&self, user: UserId) {
        if !self.ledger.is_busy() {
            // It becomes no entry, so it needs no id.
            let draft = Draft { id: EntryId::from_uuid(Uuid::nil()), act: Act::ExpireDue, texts: None };
            // What is not done now is done by the next pass.
            let _ = self.ledger.post(Posting::new(user, draft.into(), None)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Timestamp;
    use crate::wallet::application::ports::{PostError, Posted};
    use crate::wallet::domain::{AmountMinor, Balance, HoldStatus, OneOrMore, Texts};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn hold(seq: i64) -> (i64, Hold) {
        let amount = AmountMinor::try_new(1).expect("amount");
        let hold = Hold {
            id: EntryId::from_uuid(Uuid::nil()),
            status: HoldStatus::Open,
            amount,
            captured: Balance::ZERO,
            remaining: Balance::from(amount),
            expires_at: Timestamp::UNIX_EPOCH,
            texts: Texts::default(),
            created_at: Timestamp::UNIX_EPOCH,
            posted_by: None,
        };
        (seq, hold)
    }

    #[test]
    fn a_page_has_a_cursor_at_its_last_hold_only_if_there_is_another_page() {
        let page = HoldPage::cut(vec![hold(9), hold(4)], 2);
        assert_eq!((page.holds.len(), page.next), (2, None));
        let page = HoldPage::cut(vec![hold(9), hold(4), hold(3)], 2);
        assert_eq!((page.holds.len(), page.next), (2, Some(HistoryCursor { before_seq: 4 })));
    }

    struct Due(usize);

    #[async_trait]
    impl DueHoldQueries for Due {
        async fn due(&self) -> DueHolds {
            let users = (0..self.0).map(|n| UserId::from_uuid(Uuid::from_u128(n as u128))).collect();
            DueHolds { users, oldest: Duration::from_secs(1), ..DueHolds::default() }
        }
        async fn count_open(&self) -> Result<usize, DependencyError> {
            Ok(0)
        }
    }

    /// A ledger that is busy once it has taken a number of postings, and knows how many it had at once.
    #[derive(Default)]
    struct CountingLedger {
        busy_after: usize,
        posted: AtomicUsize,
        in_flight: AtomicUsize,
        most_in_flight: AtomicUsize,
    }

    #[async_trait]
    impl Ledger for CountingLedger {
        async fn post(&self, posting: Posting) -> Result<Posted, PostError> {
            assert_eq!(posting.drafts.first().act, Act::ExpireDue);
            self.posted.fetch_add(1, Ordering::Relaxed);
            let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);
            tokio::task::yield_now().await;
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            Err(PostError::Overloaded)
        }

        async fn post_all(&self, postings: OneOrMore<Posting>) -> OneOrMore<Result<Posted, PostError>> {
            postings.map(|_| Err(PostError::Overloaded))
        }

        fn is_busy(&self) -> bool {
            self.posted.load(Ordering::Relaxed) >= self.busy_after
        }
    }

    async fn pass(due: usize, busy_after: usize) -> (usize, usize) {
        let ledger = Arc::new(CountingLedger { busy_after, ..CountingLedger::default() });
        let sweep = ExpireHolds { holds: Arc::new(Due(due)), ledger: ledger.clone() };
        assert_eq!(sweep.execute().await.users.len(), due);
        (ledger.posted.load(Ordering::Relaxed), ledger.most_in_flight.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_pass_posts_once_per_wallet_and_never_more_than_64_at_once() {
        assert_eq!(pass(300, usize::MAX).await, (300, 64));
        assert_eq!(pass(0, usize::MAX).await, (0, 0));
    }

    #[tokio::test]
    async fn a_pass_posts_nothing_more_once_the_ledger_is_busy() {
        assert_eq!(pass(300, 70).await.0, 70);
        assert_eq!(pass(300, 0).await.0, 0);
    }
}
