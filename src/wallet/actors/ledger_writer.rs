//! Groups concurrent posts into few database transactions.
//!
//! Owns: the lanes, each a queue of posts with its batches in flight.
//! Receives: that posts have arrived for a lane, the end of a batch, shutdown.
//! Sends: the result of each post, to its caller.
//! Mailbox: few messages, one for a lane that has nothing to do. The posts are in [inboxes](super::ledger_inbox), with a bound.
//! Ends: on shutdown. A batch in flight is a task of the IO runtime and completes whatever happens to this actor.
//!
//! There is no timer. A post that finds no batch of its lane in flight is written at once, as a batch of its own; while a batch
//! is in flight posts queue up, and all of them are the next one. All posts of a user are in the same lane.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use slog::{Logger, debug, error, warn};
use tokio::runtime;

use crate::infra::metrics::gauge_value;
use crate::kernel::{Classified as _, FailureClass, Reminder, UserId, chain, fault};
use crate::runtime::{Draining, EndReason, Lifeline, Shutdown};
use crate::wallet::actors::ledger_inbox::{LedgerInboxes, PendingPost, PostsArrived};
use crate::wallet::actors::metrics::LedgerMetrics;
use crate::wallet::application::ports::{JournalError, LockWait};
use crate::wallet::application::post_batch::{BatchResult, PostBatch, PostingResult};
use crate::wallet::application::posting_queue::{PostingQueue, SetAsideBatch, Undecided};

/// Set-aside batches in flight at once; each waits for its lock on a connection of its own.
const SET_ASIDE_IN_FLIGHT_MAX: usize = 4;

/// Connections that are used at once: those, one for the common batch of each lane, one to look up an unknown outcome, and the
/// sweeper's.
pub(crate) const fn ledger_connections(lanes: usize) -> usize {
    SET_ASIDE_IN_FLIGHT_MAX.saturating_add(lanes).saturating_add(2)
}

pub(crate) struct LedgerWriterDeps {
    pub(crate) post_batch: PostBatch,
    /// Entries of one database transaction. Its last posting may be a group that passes this bound.
    pub(crate) batch_max: usize,
    pub(crate) inboxes: LedgerInboxes,
    pub(crate) io: runtime::Handle,
    /// One per lane.
    pub(crate) metrics: Vec<LedgerMetrics>,
    pub(crate) logger: Logger,
    /// For batches that could not be written.
    pub(crate) outages: Reminder,
}

pub(crate) struct LedgerWriterActor {
    deps: Arc<LedgerWriterDeps>,
    lanes: Vec<Lane>,
    /// Of all lanes, each on a connection of its own.
    set_aside_in_flight: usize,
    draining: Draining,
    lifeline: Lifeline,
}

#[derive(Default)]
struct Lane {
    queue: PostingQueue<PendingPost>,
    /// Empty except while the posts of the inbox go into the queue.
    arrived: Vec<PendingPost>,
    /// The wallets of the common batch in flight.
    in_common: Option<HashSet<UserId>>,
    /// Whether all that waits needs wallets in the common batches of other lanes. Nothing is tried again before one has ended.
    is_blocked: bool,
}

impl LedgerWriterActor {
    pub(crate) fn new(deps: Arc<LedgerWriterDeps>, lifeline: Lifeline) -> Self {
        let lanes = deps.metrics.iter().map(|_| Lane::default()).collect();
        // A post may have come when the last writer had cleared them and could still be found.
        deps.inboxes.clear();
        Self { deps, lanes, set_aside_in_flight: 0, draining: Draining::default(), lifeline }
    }

    /// Begins every batch that can begin, beginning with `first`: lanes that wait for each other's wallets take turns.
    fn write(&mut self, first: usize, ctx: &mut Context<Self>) {
        let count = self.lanes.len();
        for lane in (first..count).chain(0..first.min(count)) {
            self.write_common(lane, ctx);
        }
        // One at a time of each lane, until none has another.
        let mut had_any = true;
        while had_any {
            had_any = false;
            for lane in (first..count).chain(0..first.min(count)) {
                had_any |= self.write_set_aside(lane, ctx);
            }
        }
    }

    fn write_common(&mut self, number: usize, ctx: &mut Context<Self>) {
        let (before, after) = self.lanes.split_at_mut(number);
        let Some((lane, after)) = after.split_first_mut() else { return };
        if lane.in_common.is_some() || lane.is_blocked {
            return;
        }
        while self.deps.inboxes.take(number, &mut lane.arrived, !lane.queue.has_common()) {
            lane.arrived.drain(..).for_each(|post| lane.queue.push(post));
        }
        if !lane.queue.has_common() {
            return;
        }
        let others: Vec<_> = before.iter().chain(&*after).filter_map(|lane| lane.in_common.as_ref()).collect();
        let is_busy =
            |post: &PendingPost| others.iter().any(|busy| post.posting.wallets().any(|wallet| busy.contains(&wallet)));
        let posts = lane.queue.take_common(self.deps.batch_max, is_busy);
        if posts.is_empty() {
            lane.is_blocked = true;
            return;
        }
        lane.in_common = Some(posts.iter().flat_map(|post| post.posting.wallets()).collect());
        self.begin(number, posts, LockWait::SkipLocked, ctx, |_, lane, undecided| {
            lane.in_common = None;
            lane.queue.common_ended(undecided)
        });
    }

    /// Whether a batch has begun.
    fn write_set_aside(&mut self, number: usize, ctx: &mut Context<Self>) -> bool {
        if self.set_aside_in_flight >= SET_ASIDE_IN_FLIGHT_MAX {
            return false;
        }
        let batch = self.lanes.get_mut(number).and_then(|lane| lane.queue.take_set_aside(self.deps.batch_max));
        let Some(SetAsideBatch { postings, turn }) = batch else { return false };
        self.set_aside_in_flight = self.set_aside_in_flight.saturating_add(1);
        let lock_wait = if turn.last_resort { LockWait::WaitForAll } else { LockWait::WaitForOne(turn.wallet) };
        self.begin(number, postings, lock_wait, ctx, move |in_flight, lane, undecided| {
            *in_flight = in_flight.saturating_sub(1);
            let still_set_aside = undecided.len();
            lane.queue.set_aside_ended(&turn, undecided);
            still_set_aside
        });
        true
    }

    /// `ended` gets the number of set-aside batches in flight, the lane, and what the batch left undecided. It returns how many of
    /// these are set aside.
    fn begin(
        &self,
        number: usize,
        posts: Vec<PendingPost>,
        lock_wait: LockWait,
        ctx: &mut Context<Self>,
        ended: impl FnOnce(&mut usize, &mut Lane, Vec<Undecided<PendingPost>>) -> usize + 'static,
    ) {
        let Some(metrics) = self.deps.metrics.get(number).cloned() else { return };
        let (deps, set_aside) = (Arc::clone(&self.deps), metrics.set_aside.clone());
        let batch = self.deps.io.spawn(async move { run_batch(&deps, &metrics, posts, lock_wait).await });
        ctx.spawn(batch.into_actor(self).map(move |undecided, writer, ctx| {
            let lane = writer.lanes.get_mut(number);
            if let (Ok(undecided), Some(lane)) = (undecided, lane) {
                let count = ended(&mut writer.set_aside_in_flight, lane, undecided);
                set_aside.increment(count.try_into().unwrap_or(u64::MAX));
                writer.lanes.iter_mut().for_each(|lane| lane.is_blocked = false);
                writer.write(number.saturating_add(1), ctx);
                writer.finish_if_idle();
            } else {
                // Callers in the batch have got OutcomeUnknown; those in the queue get NotDone when it is dropped.
                writer.lifeline.end(EndReason::Panicked);
                ctx.stop();
            }
        }));
    }

    fn finish_if_idle(&mut self) {
        let is_idle = |lane: &Lane| lane.in_common.is_none() && lane.queue.is_empty();
        if self.set_aside_in_flight == 0 && self.lanes.iter().all(is_idle) {
            self.draining.finish();
        }
    }
}

impl Actor for LedgerWriterActor {
    type Context = Context<Self>;
}

impl Drop for LedgerWriterActor {
    fn drop(&mut self) {
        self.deps.inboxes.clear();
    }
}

impl Handler<PostsArrived> for LedgerWriterActor {
    type Result = ();

    fn handle(&mut self, PostsArrived { lane }: PostsArrived, ctx: &mut Self::Context) {
        fault::point("ledger_writer.post");
        self.write(lane, ctx);
    }
}

impl Handler<Shutdown> for LedgerWriterActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        let drained = self.draining.begin();
        self.finish_if_idle();
        Box::pin(drained)
    }
}

/// Writes a batch, replies to its callers, and returns the posts that it could not decide.
async fn run_batch(
    deps: &LedgerWriterDeps,
    metrics: &LedgerMetrics,
    posts: Vec<PendingPost>,
    lock_wait: LockWait,
) -> Vec<Undecided<PendingPost>> {
    let (postings, replies): (Vec<_>, Vec<_>) = posts
        .into_iter()
        .map(|PendingPost { posting, mut reply }| {
            reply.begun = true;
            (posting, reply)
        })
        .unzip();
    fault::point("ledger_writer.batch");
    let began = Instant::now();
    let BatchResult { results, failures } = deps.post_batch.execute(&postings, lock_wait).await;
    let duration = match lock_wait {
        LockWait::SkipLocked => &metrics.commit_common,
        LockWait::WaitForOne(_) => &metrics.commit_set_aside,
        LockWait::WaitForAll => &metrics.commit_last_resort,
    };
    duration.record(began.elapsed());
    metrics.batch.record(gauge_value(postings.len()));
    for failure in &failures {
        log(&deps.logger, &deps.outages, failure, postings.len());
    }
    let mut undecided = Vec::new();
    for ((posting, mut reply), result) in postings.into_iter().zip(replies).zip(results) {
        match result {
            PostingResult::Reply(result) => reply.send(result),
            PostingResult::Undecided { contested } => {
                reply.begun = false;
                undecided.push(Undecided { posting: PendingPost { posting, reply }, contested });
            }
        }
    }
    undecided
}

fn log(logger: &Logger, outages: &Reminder, failure: &JournalError, posts: usize) {
    let (e, posts) = match failure {
        JournalError::NotDone(e) | JournalError::Unknown(e) => (e, posts),
        JournalError::PartNotDone { source, needs_it } => {
            (source, needs_it.iter().filter(|needs_it| **needs_it).count())
        }
    };
    match (failure, e.class()) {
        (JournalError::Unknown(_), _) => {
            error!(logger, "outcome of a batch is unknown"; "posts" => posts, "error" => chain(failure));
        }
        (_, FailureClass::Unavailable | FailureClass::Transient) if outages.is_due() => {
            warn!(logger, "batch was not written"; "posts" => posts, "error" => chain(failure));
        }
        (_, FailureClass::Unavailable | FailureClass::Transient) => {
            debug!(logger, "another batch was not written"; "posts" => posts, "error" => chain(failure));
        }
        (_, FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug) => {
            error!(logger, "batch failed"; "posts" => posts, "error" => chain(failure));
        }
    }
}
