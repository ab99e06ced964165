//! Groups concurrent posts into few database transactions.
//!
//! Owns: the lanes, each a queue of posts with its batches in flight.
//! Receives: that posts have arrived for a lane, that a batch only waits for its commit, the end of a batch, shutdown.
//! Sends: the result of each post, to its caller.
//! Mailbox: few messages, one for a lane that has nothing to do. The posts are in [inboxes](super::ledger_inbox), with a bound.
//! Ends: on shutdown. A batch in flight is a task of the IO runtime and completes whatever happens to this actor.
//!
//! There is no timer. A post that finds no batch of its lane in flight is written at once, as a batch of its own; while a batch
//! is in flight posts queue up, and all of them are the next one. All posts of a user are in the same lane.
//!
//! Where commits are slow, the lanes of a shard take turns: one executes its statements while the other waits for its commit. Two
//! batches that began together would also commit together.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _,
};
use slog::{Logger, debug, error, warn};
use tokio::runtime;

use crate::infra::metrics::gauge_value;
use crate::kernel::{Classified as _, FailureClass, Reminder, UserId, chain, fault};
use crate::runtime::{Draining, EndReason, Lifeline, Shutdown};
use crate::wallet::actors::ledger_inbox::{LedgerInboxes, PendingPost, PostsArrived};
use crate::wallet::actors::metrics::LedgerMetrics;
use crate::wallet::application::ports::{JournalError, LockWait, OnExecuted};
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
    /// Lanes whose numbers differ by a multiple of this are of the same shard.
    pub(crate) shards: usize,
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
    waits: Waits,
    draining: Draining,
    lifeline: Lifeline,
}

#[derive(Default)]
struct Lane {
    queue: PostingQueue<PendingPost>,
    /// Empty except while the posts of the inbox go into the queue.
    arrived: Vec<PendingPost>,
    in_flight: Option<CommonBatch>,
    /// Whether all that waits needs wallets in the common batches of other lanes. Nothing is tried again before one has ended.
    is_blocked: bool,
}

/// A common batch in flight.
struct CommonBatch {
    wallets: HashSet<UserId>,
    began: Instant,
    /// When its statements had been executed.
    executed: Arc<OnceLock<Instant>>,
}

impl CommonBatch {
    fn is_executing(&self) -> bool {
        self.executed.get().is_none()
    }
}

/// What the last common batches waited for. Older ones count less.
#[derive(Default)]
struct Waits {
    statements: Duration,
    commits: Duration,
}

impl Waits {
    /// Of a batch that has ended now. One that failed says nothing.
    fn add(&mut self, batch: &CommonBatch) {
        let Some(executed) = batch.executed.get() else { return };
        let weighted = |sum: Duration, last: Duration| sum.saturating_sub(sum / 8).saturating_add(last);
        self.statements = weighted(self.statements, executed.saturating_duration_since(batch.began));
        self.commits = weighted(self.commits, executed.elapsed());
    }

    /// Whether lanes that take turns write more than lanes that do not: measured with several delays and loads, they do if commits
    /// take two thirds of the time of the statements.
    fn are_for_commits(&self) -> bool {
        self.commits.saturating_mul(3) > self.statements.saturating_mul(2)
    }
}

impl LedgerWriterActor {
    pub(crate) fn new(deps: Arc<LedgerWriterDeps>, lifeline: Lifeline) -> Self {
        let lanes = deps.metrics.iter().map(|_| Lane::default()).collect();
        // A post may have come when the last writer had cleared them and could still be found.
        deps.inboxes.clear();
        Self { deps, lanes, set_aside_in_flight: 0, waits: Waits::default(), draining: Draining::default(), lifeline }
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
        if self.waits.are_for_commits() && self.is_executing_in_shard_of(number) {
            return;
        }
        let (before, after) = self.lanes.split_at_mut(number);
        let Some((lane, after)) = after.split_first_mut() else { return };
        if lane.in_flight.is_some() || lane.is_blocked {
            return;
        }
        while self.deps.inboxes.take(number, &mut lane.arrived, !lane.queue.has_common()) {
            lane.arrived.drain(..).for_each(|post| lane.queue.push(post));
        }
        if !lane.queue.has_common() {
            return;
        }
        let others: Vec<_> = before.iter().chain(&*after).filter_map(|lane| lane.in_flight.as_ref()).collect();
        let is_busy = |post: &PendingPost| {
            others.iter().any(|batch| post.posting.wallets().any(|wallet| batch.wallets.contains(&wallet)))
        };
        let posts = lane.queue.take_common(self.deps.batch_max, is_busy);
        if posts.is_empty() {
            lane.is_blocked = true;
            return;
        }
        let executed = Arc::new(OnceLock::new());
        let wallets = posts.iter().flat_map(|post| post.posting.wallets()).collect();
        lane.in_flight = Some(CommonBatch { wallets, began: Instant::now(), executed: Arc::clone(&executed) });
        // Nobody waits for this where commits are quick, and a message costs more than the rest.
        let next =
            self.waits.are_for_commits().then(|| (ctx.address(), LaneMayBegin { lane: number.saturating_add(1) }));
        let on_executed = OnExecuted::new(move || {
            executed.get_or_init(Instant::now);
            if let Some((writer, next)) = &next {
                writer.do_send(*next);
            }
        });
        self.begin(number, posts, (LockWait::SkipLocked, on_executed), ctx, move |writer, undecided| {
            let Some(lane) = writer.lanes.get_mut(number) else { return 0 };
            if let Some(batch) = lane.in_flight.take() {
                writer.waits.add(&batch);
            }
            lane.queue.common_ended(undecided)
        });
    }

    /// Whether another lane of the same shard executes the statements of its batch. Another shard may be on another server.
    fn is_executing_in_shard_of(&self, lane: usize) -> bool {
        let lanes = self.lanes.iter().enumerate().skip(lane.checked_rem(self.deps.shards).unwrap_or(0));
        let of_shard = lanes.step_by(self.deps.shards.max(1)).filter(|(number, _)| *number != lane);
        of_shard.filter_map(|(_, lane)| lane.in_flight.as_ref()).any(CommonBatch::is_executing)
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
        self.begin(number, postings, (lock_wait, OnExecuted::default()), ctx, move |writer, undecided| {
            writer.set_aside_in_flight = writer.set_aside_in_flight.saturating_sub(1);
            let still_set_aside = undecided.len();
            if let Some(lane) = writer.lanes.get_mut(number) {
                lane.queue.set_aside_ended(&turn, undecided);
            }
            still_set_aside
        });
        true
    }

    /// `ended` gets what the batch left undecided, and returns how many of these posts are set aside.
    fn begin(
        &self,
        number: usize,
        posts: Vec<PendingPost>,
        (lock_wait, on_executed): (LockWait, OnExecuted),
        ctx: &mut Context<Self>,
        ended: impl FnOnce(&mut Self, Vec<Undecided<PendingPost>>) -> usize + 'static,
    ) {
        let Some(metrics) = self.deps.metrics.get(number).cloned() else { return };
        let (deps, set_aside) = (Arc::clone(&self.deps), metrics.set_aside.clone());
        let batch = async move { run_batch(&deps, &metrics, posts, lock_wait, &on_executed).await };
        ctx.spawn(self.deps.io.spawn(batch).into_actor(self).map(move |undecided, writer, ctx| {
            if let Ok(undecided) = undecided {
                let count = ended(writer, undecided);
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
        let is_idle = |lane: &Lane| lane.in_flight.is_none() && lane.queue.is_empty();
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

/// The statements of a batch have been executed, so the next lane may begin one.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
struct LaneMayBegin {
    lane: usize,
}

impl Handler<LaneMayBegin> for LedgerWriterActor {
    type Result = ();

    fn handle(&mut self, LaneMayBegin { lane }: LaneMayBegin, ctx: &mut Self::Context) {
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
    on_executed: &OnExecuted,
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
    let BatchResult { results, failures } = deps.post_batch.execute(&postings, lock_wait, on_executed).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::metrics::Metrics;
    use crate::wallet::actors::ledger_inbox::tests::post;
    use crate::wallet::actors::ledger_inbox::{PostResult, received};
    use crate::wallet::application::ports::{Journal, PostError};
    use crate::wallet::domain::{Decision, Posting};
    use actix::Addr;
    use async_trait::async_trait;
    use tokio::sync::{Semaphore, mpsc, oneshot};

    /// A journal whose batches wait until the test lets them execute their statements, and then until it lets them commit.
    struct SteppedJournal {
        begun: mpsc::UnboundedSender<u8>,
        execute: [Semaphore; 2],
        commit: [Semaphore; 2],
    }

    #[async_trait]
    impl Journal for SteppedJournal {
        async fn commit(
            &self,
            postings: &[Posting],
            _: LockWait,
            executed: &OnExecuted,
        ) -> Result<Vec<Decision>, JournalError> {
            let lane = postings.first().expect("a posting").user_id.last_byte() % 2;
            self.begun.send(lane).expect("the test listens");
            self.execute[usize::from(lane)].acquire().await.expect("a step").forget();
            executed.call();
            self.commit[usize::from(lane)].acquire().await.expect("a step").forget();
            Ok(vec![Decision::Settled; postings.len()])
        }
    }

    struct Fixture {
        journal: Arc<SteppedJournal>,
        begun: mpsc::UnboundedReceiver<u8>,
        inboxes: LedgerInboxes,
        writer: Addr<LedgerWriterActor>,
    }

    impl Fixture {
        /// Two lanes.
        fn start(shards: usize) -> Self {
            let (sender, begun) = mpsc::unbounded_channel();
            let steps = || [Semaphore::new(0), Semaphore::new(0)];
            let journal = Arc::new(SteppedJournal { begun: sender, execute: steps(), commit: steps() });
            let metrics = Metrics::try_new().expect("metrics");
            let inboxes = LedgerInboxes::new(2);
            let deps = Arc::new(LedgerWriterDeps {
                post_batch: PostBatch { journal: journal.clone() },
                batch_max: 100,
                inboxes: inboxes.clone(),
                io: runtime::Handle::current(),
                shards,
                metrics: (0..2).map(|lane| LedgerMetrics::new(&metrics, lane)).collect(),
                logger: Logger::root(slog::Discard, slog::o!()),
                outages: Reminder::default(),
            });
            let writer = LedgerWriterActor::new(deps, Lifeline::unsupervised()).start();
            Self { journal, begun, inboxes, writer }
        }

        /// A user in this lane posts.
        fn post(&self, lane: u128) -> oneshot::Receiver<PostResult> {
            let (post, result) = post(lane);
            if let Some(arrived) = self.inboxes.push(post) {
                self.writer.do_send(arrived);
            }
            result
        }

        async fn begun(&mut self) -> u8 {
            tokio::time::timeout(Duration::from_mins(1), self.begun.recv()).await.expect("a batch").expect("a journal")
        }

        /// Nothing for a moment.
        async fn none_begins(&mut self) {
            let next = tokio::time::timeout(Duration::from_millis(50), self.begun.recv()).await;
            assert!(next.is_err(), "a batch of lane {next:?} has begun");
        }

        /// Lets the first lane commit, whose statements took at most as long as since `began`.
        async fn commit_slowly(&self, began: Instant) {
            tokio::time::sleep(Duration::from_millis(50) + began.elapsed() * 2).await;
            self.journal.commit[0].add_permits(1);
        }

        /// A batch of the first lane, which waits longer for its commit than for its statements, or not as long.
        async fn write_one(&mut self, is_slow_to_commit: bool) {
            let began = Instant::now();
            drop(self.post(0));
            assert_eq!(self.begun().await, 0);
            let (first, second) = (&self.journal.execute[0], &self.journal.commit[0]);
            if is_slow_to_commit {
                first.add_permits(1);
                self.commit_slowly(began).await;
            } else {
                second.add_permits(1);
                tokio::time::sleep(Duration::from_secs(1)).await;
                first.add_permits(1);
            }
        }
    }

    #[actix::test]
    async fn where_commits_are_slow_the_lanes_of_a_shard_take_turns_with_their_statements() {
        let mut fixture = Fixture::start(1);
        fixture.write_one(true).await;
        let began = Instant::now();
        drop(fixture.post(0));
        assert_eq!(fixture.begun().await, 0);
        drop(fixture.post(1));
        fixture.none_begins().await;
        fixture.journal.execute[0].add_permits(1);
        assert_eq!(fixture.begun().await, 1, "the other one only waits for its commit");
        fixture.commit_slowly(began).await;
        drop(fixture.post(0));
        fixture.none_begins().await;
        fixture.journal.execute[1].add_permits(1);
        assert_eq!(fixture.begun().await, 0);
    }

    #[actix::test]
    async fn where_commits_are_quick_and_in_another_shard_a_batch_begins_beside_the_statements_of_another_one() {
        for (shards, is_slow_to_commit) in [(1, false), (2, true)] {
            let mut fixture = Fixture::start(shards);
            fixture.write_one(is_slow_to_commit).await;
            drop(fixture.post(0));
            assert_eq!(fixture.begun().await, 0);
            drop(fixture.post(1));
            assert_eq!(fixture.begun().await, 1, "{shards} shards");
        }
    }

    #[actix::test]
    async fn a_writer_that_ends_while_a_lane_waits_for_its_turn_answers_its_posts() {
        let mut fixture = Fixture::start(1);
        fixture.write_one(true).await;
        drop(fixture.post(0));
        assert_eq!(fixture.begun().await, 0);
        let waits = fixture.post(1);
        // The journal panics, and the writer ends.
        fixture.journal.execute[0].close();
        assert_eq!(received(waits).await, Err(PostError::NotDone));
    }
}
