//! Turns many concurrent posts into few database transactions.
//!
//! Owns: the queue of posts, the batches in flight.
//! Receives: posts, the end of a batch, shutdown.
//! Sends: each answer to its asker.
//! Mailbox: as many posts as the queue bound allows; past it requests are turned away before they get here.
//! Ends: on shutdown; a batch in flight ends as a task of the IO runtime whatever becomes of this actor.
//!
//! There is no timer. A post that finds no batch in flight is a batch of its own at once; while one is in flight posts
//! gather, and all of them are the next one.

use std::sync::Arc;
use std::time::Instant;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _,
};
use async_trait::async_trait;
use slog::{Logger, error, warn};
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::infra::metrics::{Metrics, number};
use crate::kernel::{Classified as _, FailureClass, UserId, chain, fault};
use crate::runtime::{EndReason, Handle, Lifeline, Shutdown};
use crate::wallet::actors::metrics::{LedgerMetrics, PostMetrics};
use crate::wallet::application::ports::{JournalError, Ledger, LockWait, PostError, Posted};
use crate::wallet::application::post_batch::{BatchResult, DraftResult, PostBatch};
use crate::wallet::application::posting_queue::PostingQueue;
use crate::wallet::domain::Draft;

/// Wallets held by another process that are waited for at once, each on a connection of its own.
const ALONE_MAX: usize = 4;
/// Connections that a writer uses at once: those, one for the common batch, and one to find out a lost outcome.
pub const LEDGER_CONNECTIONS: usize = ALONE_MAX + 2;

/// What a writer is built from, again and again.
pub struct LedgerWriterDeps {
    /// The use case.
    pub post_batch: PostBatch,
    /// Posts of one transaction.
    pub batch_max: usize,
    /// Posts that may wait.
    pub queue_max: usize,
    /// Where batches run.
    pub io: runtime::Handle,
    /// For batches.
    pub metrics: LedgerMetrics,
    /// For batches that fail.
    pub logger: Logger,
}

/// The writer.
pub struct LedgerWriterActor {
    deps: Arc<LedgerWriterDeps>,
    queue: PostingQueue<Waiting>,
    common_in_flight: bool,
    alone_in_flight: usize,
    stopping: Option<oneshot::Sender<()>>,
    lifeline: Lifeline,
}

/// A post that waits.
struct Waiting {
    draft: Draft,
    asker: Asker,
}

/// Who waits for a post, and its place in the queue, which is free again when the post is answered.
struct Asker {
    answer: Option<oneshot::Sender<Result<Posted, PostError>>>,
    /// Whether a batch with this post has begun.
    begun: bool,
    _place: OwnedSemaphorePermit,
}

impl Asker {
    fn tell(mut self, result: Result<Posted, PostError>) {
        if let Some(answer) = self.answer.take() {
            // A client that has hung up does not undo what was written.
            let _ = answer.send(result);
        }
    }
}

impl Drop for Asker {
    /// Something broke down before there was an answer. What is known all the same is told.
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Err(if self.begun { PostError::OutcomeUnknown } else { PostError::NotDone }));
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Post(Waiting);

/// Posts of a batch that have to be tried again alone.
type Held = Vec<(UserId, Waiting)>;

impl LedgerWriterActor {
    /// A writer with an empty queue.
    pub fn new(deps: Arc<LedgerWriterDeps>, lifeline: Lifeline) -> Self {
        Self {
            deps,
            queue: PostingQueue::default(),
            common_in_flight: false,
            alone_in_flight: 0,
            stopping: None,
            lifeline,
        }
    }

    /// Begins whatever can begin.
    fn write(&mut self, ctx: &mut Context<Self>) {
        if !self.common_in_flight {
            let posts = self.queue.take_common(self.deps.batch_max);
            if !posts.is_empty() {
                self.common_in_flight = true;
                self.begin(posts, LockWait::SkipLocked, ctx, |writer, held| {
                    writer.common_in_flight = false;
                    writer.queue.set_aside(held);
                });
            }
        }
        while self.alone_in_flight < ALONE_MAX {
            let Some((user, posts)) = self.queue.take_set_aside(self.deps.batch_max) else { break };
            self.alone_in_flight = self.alone_in_flight.saturating_add(1);
            self.begin(posts, LockWait::Wait, ctx, move |writer, _| {
                writer.alone_in_flight = writer.alone_in_flight.saturating_sub(1);
                writer.queue.served(user);
            });
        }
    }

    fn begin(
        &self,
        posts: Vec<Waiting>,
        patience: LockWait,
        ctx: &mut Context<Self>,
        ended: impl FnOnce(&mut Self, Held) + 'static,
    ) {
        let deps = Arc::clone(&self.deps);
        let batch = self.deps.io.spawn(async move { run_batch(&deps, posts, patience).await });
        ctx.spawn(batch.into_actor(self).map(move |held, writer, ctx| {
            if let Ok(held) = held {
                ended(writer, held);
                writer.write(ctx);
                writer.stop_if_done();
            } else {
                // Those in the batch have been told that their outcome is unknown, and those in the queue are told that
                // nothing was done.
                writer.lifeline.end(EndReason::Panicked);
                ctx.stop();
            }
        }));
    }

    fn stop_if_done(&mut self) {
        if self.common_in_flight || self.alone_in_flight > 0 || !self.queue.is_empty() {
            return;
        }
        if let Some(done) = self.stopping.take() {
            // Who asked may have given up waiting.
            let _ = done.send(());
        }
    }
}

/// Writes a batch, answers its posts, and returns those whose wallet somebody else holds.
async fn run_batch(deps: &LedgerWriterDeps, posts: Vec<Waiting>, patience: LockWait) -> Held {
    let (drafts, askers): (Vec<_>, Vec<_>) = posts
        .into_iter()
        .map(|Waiting { draft, mut asker }| {
            asker.begun = true;
            (draft, asker)
        })
        .unzip();
    fault::point("ledger_writer.batch");
    let began = Instant::now();
    let BatchResult { results, failures } = deps.post_batch.execute(&drafts, patience).await;
    let took = match patience {
        LockWait::SkipLocked => &deps.metrics.commit_common,
        LockWait::Wait => &deps.metrics.commit_set_aside,
    };
    took.record(began.elapsed());
    deps.metrics.batch.record(number(drafts.len()));
    for failure in &failures {
        log(&deps.logger, failure, drafts.len());
    }
    let mut held = Held::new();
    for ((draft, mut asker), result) in drafts.into_iter().zip(askers).zip(results) {
        match result {
            DraftResult::Answer(result) => asker.tell(result),
            DraftResult::Held => {
                asker.begun = false;
                held.push((draft.user_id, Waiting { draft, asker }));
            }
        }
    }
    held
}

fn log(logger: &Logger, failure: &JournalError, posts: usize) {
    let (JournalError::NotDone(e) | JournalError::Unknown(e)) = failure;
    match (failure, e.class()) {
        (JournalError::Unknown(_), _) => {
            error!(logger, "outcome of a batch is unknown"; "posts" => posts, "error" => chain(failure));
        }
        (_, FailureClass::Unavailable | FailureClass::Transient) => {
            warn!(logger, "batch was not written"; "posts" => posts, "error" => chain(failure));
        }
        (_, FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug) => {
            error!(logger, "batch broke down"; "posts" => posts, "error" => chain(failure));
        }
    }
}

impl Actor for LedgerWriterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // As many as there are places in the queue: a post that has a place never finds the mailbox full.
        ctx.set_mailbox_capacity(self.deps.queue_max);
    }
}

impl Handler<Post> for LedgerWriterActor {
    type Result = ();

    fn handle(&mut self, Post(waiting): Post, ctx: &mut Self::Context) {
        fault::point("ledger_writer.post");
        self.queue.push(waiting.draft.user_id, waiting);
        self.write(ctx);
    }
}

impl Handler<Shutdown> for LedgerWriterActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        let (done, all_done) = oneshot::channel();
        self.stopping = Some(done);
        self.stop_if_done();
        Box::pin(async move { drop(all_done.await) })
    }
}

/// [`Ledger`] to whichever writer there is at the moment, with a bound on what may wait for it.
pub struct LedgerHandle {
    writer: Handle<LedgerWriterActor>,
    places: Arc<Semaphore>,
    metrics: PostMetrics,
}

impl LedgerHandle {
    /// At most `queue_max` posts wait or are written at once; how many there are is shown in `metrics`.
    pub fn new(writer: Handle<LedgerWriterActor>, queue_max: usize, metrics: &Metrics) -> Self {
        let places = Arc::new(Semaphore::new(queue_max));
        let free = Arc::clone(&places);
        let metrics = PostMetrics::new(metrics, move || queue_max.saturating_sub(free.available_permits()));
        Self { writer, places, metrics }
    }

    async fn ask(&self, draft: Draft) -> Result<Posted, PostError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| PostError::Overloaded)?;
        let writer = self.writer.get().ok_or(PostError::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let asker = Asker { answer: Some(answer), begun: false, _place: place };
        writer.try_send(Post(Waiting { draft, asker })).map_err(|_| PostError::Overloaded)?;
        // An asker always tells something before it is gone.
        answered.await.unwrap_or(Err(PostError::OutcomeUnknown))
    }
}

#[async_trait]
impl Ledger for LedgerHandle {
    async fn post(&self, draft: Draft) -> Result<Posted, PostError> {
        let result = self.ask(draft).await;
        self.metrics.count(&result);
        result
    }
}
