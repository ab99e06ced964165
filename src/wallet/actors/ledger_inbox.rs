//! Posts on their way to the ledger writer.
//!
//! A message per post would wake the writer's thread for each of them, which costs more than all of its work. So posts wait in the
//! inbox of their lane, and only a lane that has nothing to do is notified of the first one. The others look when a batch has ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::Message;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::kernel::UserId;
use crate::wallet::actors::metrics::PostMetrics;
use crate::wallet::application::ports::{PostError, Posted};
use crate::wallet::application::posting_queue::Queued;
use crate::wallet::domain::{Draft, Posting};

pub(super) struct PendingPost {
    pub(super) posting: Posting,
    pub(super) reply: Reply,
}

/// Where the result of a post goes, with the post's slots in the queue, one per entry, which are freed before the result is sent.
pub(super) struct Reply {
    caller: Option<oneshot::Sender<Result<Posted, PostError>>>,
    /// Whether the post is in a batch that has begun.
    pub(super) begun: bool,
    slots: Option<OwnedSemaphorePermit>,
    /// Counted here, because the caller may have gone.
    metrics: Arc<PostMetrics>,
}

impl Reply {
    pub(super) fn send(mut self, result: Result<Posted, PostError>) {
        self.send_once(result);
    }

    fn send_once(&mut self, result: Result<Posted, PostError>) {
        // Or the next request of a client that has its response could find the queue full.
        drop(self.slots.take());
        if let Some(caller) = self.caller.take() {
            self.metrics.count(&result);
            // A client that has hung up does not undo what was written.
            let _ = caller.send(result);
        }
    }
}

impl Drop for Reply {
    /// Dropped without a result: something panicked. The caller still learns what is known.
    fn drop(&mut self) {
        self.send_once(Err(if self.begun { PostError::OutcomeUnknown } else { PostError::NotDone }));
    }
}

impl Queued for PendingPost {
    fn initiator(&self) -> UserId {
        self.posting.user_id
    }

    fn rows(&self) -> usize {
        rows(&self.posting)
    }
}

/// The entries that `posting` may become.
pub(super) fn rows(posting: &Posting) -> usize {
    let of_draft = |draft: &Draft| if draft.act.other_wallet().is_some() { 2 } else { 1 };
    posting.drafts.iter().map(of_draft).fold(0, usize::saturating_add)
}

pub(super) type PostResult = Result<Posted, PostError>;

pub(super) fn pending(
    posting: Posting,
    slots: OwnedSemaphorePermit,
    metrics: &Arc<PostMetrics>,
) -> (PendingPost, oneshot::Receiver<PostResult>) {
    let (caller, result) = oneshot::channel();
    let reply = Reply { caller: Some(caller), begun: false, slots: Some(slots), metrics: Arc::clone(metrics) };
    (PendingPost { posting, reply }, result)
}

/// [`Reply`] always sends a result before it is gone.
pub(super) async fn received(result: oneshot::Receiver<PostResult>) -> PostResult {
    result.await.unwrap_or(Err(PostError::OutcomeUnknown))
}

/// The posts that a lane has not taken yet.
struct Inbox {
    posts: Vec<PendingPost>,
    /// Whether the lane does nothing until it is notified of a post.
    is_asleep: bool,
}

/// One per lane. A writer that is restarted finds them empty.
#[derive(Clone)]
pub(crate) struct LedgerInboxes(Arc<[Mutex<Inbox>]>);

/// For a lane that was asleep.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PostsArrived {
    pub(super) lane: usize,
}

impl LedgerInboxes {
    pub(crate) fn new(lanes: usize) -> Self {
        Self((0..lanes).map(|_| Mutex::new(Inbox { posts: Vec::new(), is_asleep: true })).collect())
    }

    fn of_lane(&self, lane: usize) -> Option<MutexGuard<'_, Inbox>> {
        self.0.get(lane).map(|inbox| inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lane of the initiator: that of the last byte of the user's id, which is a random one. The number of lanes is a multiple of
    /// that of shards, so the initiators of a lane are all of one shard.
    fn lane_of(&self, post: &PendingPost) -> usize {
        usize::from(post.posting.user_id.last_byte()).checked_rem(self.0.len()).unwrap_or(0)
    }

    /// Adds a post to its lane. Returns the message if the lane was asleep.
    pub(super) fn push(&self, post: PendingPost) -> Option<PostsArrived> {
        self.add(self.lane_of(&post), [post])
    }

    /// The same for the posts of a request: no other post comes between those of a lane.
    pub(super) fn push_all(&self, posts: Vec<PendingPost>) -> Vec<PostsArrived> {
        let mut of_lanes = BTreeMap::<usize, Vec<PendingPost>>::new();
        for post in posts {
            of_lanes.entry(self.lane_of(&post)).or_default().push(post);
        }
        of_lanes.into_iter().filter_map(|(lane, posts)| self.add(lane, posts)).collect()
    }

    fn add(&self, lane: usize, posts: impl IntoIterator<Item = PendingPost>) -> Option<PostsArrived> {
        let mut inbox = self.of_lane(lane)?;
        inbox.posts.extend(posts);
        std::mem::take(&mut inbox.is_asleep).then_some(PostsArrived { lane })
    }

    /// Moves the posts of a lane to `taken`, which is empty, and returns whether there are any. If there are none and the lane is
    /// `idle`, it falls asleep.
    pub(super) fn take(&self, lane: usize, taken: &mut Vec<PendingPost>, idle: bool) -> bool {
        let Some(mut inbox) = self.of_lane(lane) else { return false };
        std::mem::swap(&mut inbox.posts, taken);
        inbox.is_asleep = idle && taken.is_empty();
        !taken.is_empty()
    }

    /// For want of a writer. The callers get NotDone.
    pub(super) fn clear(&self) {
        for lane in 0..self.0.len() {
            let not_done = self.of_lane(lane).map(|mut inbox| {
                inbox.is_asleep = true;
                std::mem::take(&mut inbox.posts)
            });
            drop(not_done);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::infra::metrics::Metrics;
    use crate::kernel::EntryId;
    use crate::wallet::domain::{Act, AmountMinor, Direction};
    use std::sync::mpsc;
    use std::time::Duration;
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    pub(in crate::wallet::actors) fn posting(user: u128) -> Posting {
        let amount = AmountMinor::try_new(1).expect("amount");
        let act = Act::Post { direction: Direction::Credit, amount };
        let draft = Draft { id: EntryId::from_uuid(Uuid::nil()), act, texts: None };
        Posting::new(UserId::from_uuid(Uuid::from_u128(user)), draft.into(), None)
    }

    pub(in crate::wallet::actors) fn post(user: u128) -> (PendingPost, oneshot::Receiver<PostResult>) {
        let slots = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a slot");
        let metrics = PostMetrics::new(&Metrics::try_new().expect("metrics"), || 0);
        pending(posting(user), slots, &Arc::new(metrics))
    }

    fn notified(inboxes: &LedgerInboxes, user: u128) -> Option<usize> {
        inboxes.push(post(user).0).map(|arrived| arrived.lane)
    }

    #[test]
    fn only_a_lane_that_is_asleep_is_notified_and_only_one_without_posts_falls_asleep() {
        let inboxes = LedgerInboxes::new(2);
        assert_eq!([notified(&inboxes, 4), notified(&inboxes, 6), notified(&inboxes, 5)], [Some(0), None, Some(1)]);
        let mut taken = Vec::new();
        assert!(inboxes.take(0, &mut taken, true));
        assert_eq!(taken.drain(..).map(|post| post.posting.user_id.last_byte()).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(notified(&inboxes, 8), None, "it has not looked since");
        assert!(inboxes.take(0, &mut taken, true));
        taken.clear();
        assert!(!inboxes.take(0, &mut taken, false));
        assert_eq!(notified(&inboxes, 8), None, "it has something else to do");
        assert!(inboxes.take(0, &mut taken, false));
        taken.clear();
        assert!(!inboxes.take(0, &mut taken, true));
        assert_eq!(notified(&inboxes, 8), Some(0));
    }

    #[test]
    fn no_post_is_left_behind_and_requests_are_not_mixed_while_a_lane_falls_asleep_and_wakes() {
        const ITEMS: usize = 20;
        const REQUESTS: usize = 250;
        let inboxes = LedgerInboxes::new(1);
        let (notify, notified) = mpsc::channel();
        let threads: Vec<_> = (1..=4)
            .map(|user| {
                let (inboxes, notify) = (inboxes.clone(), notify.clone());
                std::thread::spawn(move || {
                    for _ in 0..REQUESTS {
                        let request = (0..ITEMS).map(|_| post(user).0).collect();
                        for PostsArrived { lane } in inboxes.push_all(request) {
                            notify.send(lane).expect("the lane listens");
                        }
                    }
                })
            })
            .collect();
        let (mut users, mut taken) = (Vec::new(), Vec::new());
        while users.len() < threads.len() * REQUESTS * ITEMS {
            notified.recv_timeout(Duration::from_mins(1)).expect("the lane is notified of what it has not taken");
            while inboxes.take(0, &mut taken, true) {
                users.extend(taken.drain(..).map(|post| post.posting.user_id));
            }
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert!(!inboxes.take(0, &mut taken, true));
        let is_of_one = |items: &[UserId]| items.iter().all(|user| *user == items[0]);
        assert!(users.chunks(ITEMS).all(is_of_one));
    }
}
