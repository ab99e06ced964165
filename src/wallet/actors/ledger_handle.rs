//! How requests reach the ledger writer.

use std::sync::Arc;

use actix::Addr;
use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::infra::metrics::Metrics;
use crate::runtime::Handle;
use crate::wallet::actors::ledger_inbox::{LedgerInboxes, PostResult, PostsArrived, pending, received, rows};
use crate::wallet::actors::ledger_writer::LedgerWriterActor;
use crate::wallet::actors::metrics::PostMetrics;
use crate::wallet::application::ports::{Ledger, PostError, Posted};
use crate::wallet::domain::{OneOrMore, Posting};

/// [`Ledger`] over the running writer, with a bounded queue.
pub(crate) struct LedgerHandle {
    writer: Handle<LedgerWriterActor>,
    inboxes: LedgerInboxes,
    slots: Arc<Semaphore>,
    queue_max: usize,
    metrics: Arc<PostMetrics>,
}

impl LedgerHandle {
    /// At most `queue_max` entries are queued or being written at once; `metrics` exports their number. A larger group is taken
    /// when nothing else is.
    pub(crate) fn new(
        writer: Handle<LedgerWriterActor>,
        inboxes: LedgerInboxes,
        queue_max: usize,
        metrics: &Metrics,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(queue_max));
        let free = Arc::clone(&slots);
        let metrics = PostMetrics::new(metrics, move || queue_max.saturating_sub(free.available_permits()));
        Self { writer, inboxes, slots, queue_max, metrics: Arc::new(metrics) }
    }

    async fn submit_all(&self, postings: &OneOrMore<Posting>) -> Result<OneOrMore<PostResult>, PostError> {
        let mut slots = self.acquire(postings.iter().map(rows).sum(), postings.count())?;
        let mut posts = Vec::with_capacity(postings.count());
        let results = postings.map(|posting| {
            // The last ones have fewer if all of them are more than the queue has.
            let own = rows(posting).min(slots.num_permits());
            let own = slots.split(own).ok_or(PostError::Bug);
            own.map(|own| {
                let (post, result) = pending(posting.clone(), own, &self.metrics);
                posts.push(post);
                result
            })
        });
        self.notify(self.inboxes.push_all(posts));
        let results = join_all(results.into_vec().into_iter().map(|result| async { received(result?).await })).await;
        OneOrMore::collect(results).ok_or(PostError::Bug)
    }

    /// A lane that has been notified falls asleep only after it has looked, so the mailbox needs no bound.
    fn notify(&self, lanes: impl IntoIterator<Item = PostsArrived>) {
        for arrived in lanes {
            match self.writer.get().filter(Addr::connected) {
                Some(writer) => writer.do_send(arrived),
                None => self.inboxes.clear(),
            }
        }
    }

    /// Slots for the `rows` entries of so many posts, but not more than there are.
    fn acquire(&self, rows: usize, posts: usize) -> Result<OwnedSemaphorePermit, PostError> {
        let rows = u32::try_from(rows.min(self.queue_max)).unwrap_or(u32::MAX);
        Arc::clone(&self.slots).try_acquire_many_owned(rows).map_err(|_| {
            (0..posts).for_each(|_| self.metrics.count(&Err(PostError::Overloaded)));
            PostError::Overloaded
        })
    }
}

#[async_trait]
impl Ledger for LedgerHandle {
    async fn post(&self, posting: Posting) -> Result<Posted, PostError> {
        let slots = self.acquire(rows(&posting), 1)?;
        let (post, result) = pending(posting, slots, &self.metrics);
        self.notify(self.inboxes.push(post));
        received(result).await
    }

    /// While half of the queue is taken.
    fn is_busy(&self) -> bool {
        self.slots.available_permits() <= self.queue_max / 2
    }

    async fn post_all(&self, postings: OneOrMore<Posting>) -> OneOrMore<Result<Posted, PostError>> {
        self.submit_all(&postings).await.unwrap_or_else(|error| postings.map(|_| Err(error.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::actors::ledger_inbox::tests::posting;

    #[tokio::test]
    async fn what_nobody_takes_is_not_done() {
        let ledger =
            LedgerHandle::new(Handle::default(), LedgerInboxes::new(1), 10, &Metrics::try_new().expect("metrics"));
        for _ in 0..2 {
            assert_eq!(ledger.post(posting(1)).await, Err(PostError::NotDone));
        }
        let results = ledger.post_all(OneOrMore::collect((1..=3).map(posting)).expect("three")).await;
        assert_eq!(results.into_vec(), vec![Err(PostError::NotDone); 3]);
        assert_eq!(ledger.slots.available_permits(), 10);
    }
}
