//! Hashes and verifies passwords on dedicated threads.
//!
//! Owns: one argon2 instance per thread, with the memory that it hashes in.
//! Receives: hash, verify.
//! Sends: nothing.
//! Mailbox: as many jobs as the queue bound allows; further requests are refused.
//! Ends: with the process; a job that panics fails alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Handler, Message, SyncArbiter, SyncContext};
use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::infra::metrics::{Histogram, Metrics};
use crate::infra::security::password_hash::{Argon2id, Compared, HashingFailed};
use crate::infra::system::lower_priority;
use crate::kernel::{Secret, fault};
use crate::runtime::{Child, Handle, Lifeline};
use crate::users::actors::metrics::{HashMetrics, export_hash_queue};
use crate::users::application::ports::{HashError, PasswordCheck, PasswordHash, PasswordHasher};
use crate::users::domain::Password;

/// One hashing thread.
pub(crate) struct PasswordHasherActor {
    argon2: Argon2id,
    metrics: HashMetrics,
    _lifeline: Arc<Lifeline>,
}

/// A job with its slot in the queue, which is freed when the job is dropped.
struct Job<T> {
    work: T,
    _slot: OwnedSemaphorePermit,
}

struct Hash(Password);

struct Verify {
    candidate: Secret,
    against: Option<PasswordHash>,
}

impl Message for Job<Hash> {
    type Result = Result<PasswordHash, HashError>;
}

impl Message for Job<Verify> {
    type Result = Result<PasswordCheck, HashError>;
}

impl Actor for PasswordHasherActor {
    type Context = SyncContext<Self>;
}

/// Runs and times a job. A panic must not end the thread, because other jobs wait for it.
fn run<T>(duration: &Histogram, work: impl FnOnce() -> Result<T, HashingFailed>) -> Result<T, HashError> {
    let began = Instant::now();
    let work = || {
        fault::point("password_hasher.job");
        work()
    };
    let done = catch_unwind(AssertUnwindSafe(work));
    duration.record(began.elapsed());
    match done {
        Ok(done) => done.map_err(|e| HashError::Failed(Box::new(e))),
        Err(_) => Err(HashError::Failed("hashing panicked".into())),
    }
}

impl Handler<Job<Hash>> for PasswordHasherActor {
    type Result = Result<PasswordHash, HashError>;

    fn handle(&mut self, job: Job<Hash>, _: &mut Self::Context) -> Self::Result {
        let argon2 = &mut self.argon2;
        run(&self.metrics.hash, || argon2.hash(job.work.0.expose()).map(PasswordHash::new))
    }
}

impl Handler<Job<Verify>> for PasswordHasherActor {
    type Result = Result<PasswordCheck, HashError>;

    fn handle(&mut self, job: Job<Verify>, _: &mut Self::Context) -> Self::Result {
        let (argon2, Verify { candidate, against }) = (&mut self.argon2, &job.work);
        let compared = run(&self.metrics.verify, || {
            argon2.compare(candidate.expose(), against.as_ref().map(PasswordHash::expose))
        })?;
        Ok(match compared {
            Compared::Different => PasswordCheck::Wrong,
            Compared::Same => PasswordCheck::Correct,
            Compared::SameRehashed(hash) => PasswordCheck::CorrectButOutdated(PasswordHash::new(hash)),
        })
    }
}

impl Child for Addr<PasswordHasherActor> {
    fn shut_down(&self, _: Duration) -> LocalBoxFuture<'static, ()> {
        // The HTTP listener, stopped before, has waited for its requests; threads end when their last sender is dropped.
        ready(()).boxed_local()
    }
}

/// Starts `threads` hashing threads behind one address.
pub(crate) fn start_hashers(
    argon2: &Argon2id,
    threads: usize,
    metrics: &HashMetrics,
    lifeline: Lifeline,
) -> Addr<PasswordHasherActor> {
    let (argon2, metrics, lifeline) = (argon2.clone(), metrics.clone(), Arc::new(lifeline));
    SyncArbiter::start(threads, move || {
        // A hash keeps a core busy for tens of milliseconds; other requests must not wait for it.
        lower_priority();
        PasswordHasherActor { argon2: argon2.clone(), metrics: metrics.clone(), _lifeline: Arc::clone(&lifeline) }
    })
}

/// [`PasswordHasher`] over the running threads, with a bounded queue.
pub(crate) struct HasherHandle {
    threads: Handle<PasswordHasherActor>,
    slots: Arc<Semaphore>,
}

impl HasherHandle {
    /// At most `queue_max` jobs wait or run at once; `metrics` exports their number.
    pub(crate) fn new(threads: Handle<PasswordHasherActor>, queue_max: usize, metrics: &Metrics) -> Self {
        let slots = Arc::new(Semaphore::new(queue_max));
        let free = Arc::clone(&slots);
        export_hash_queue(metrics, move || queue_max.saturating_sub(free.available_permits()));
        Self { threads, slots }
    }

    async fn submit<T>(&self, work: T) -> <Job<T> as Message>::Result
    where
        Job<T>: Message + Send,
        PasswordHasherActor: Handler<Job<T>>,
        T: Send + 'static,
        <Job<T> as Message>::Result: Send + From<HashError>,
    {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let (Ok(slot), Some(threads)) = (slot, self.threads.get()) else { return HashError::Overloaded.into() };
        match threads.send(Job { work, _slot: slot }).await {
            Ok(done) => done,
            Err(e) => HashError::Failed(Box::new(e)).into(),
        }
    }
}

impl<T> From<HashError> for Result<T, HashError> {
    fn from(e: HashError) -> Self {
        Err(e)
    }
}

#[async_trait]
impl PasswordHasher for HasherHandle {
    async fn hash(&self, password: Password) -> Result<PasswordHash, HashError> {
        self.submit(Hash(password)).await
    }

    async fn verify(&self, candidate: Secret, against: Option<PasswordHash>) -> Result<PasswordCheck, HashError> {
        self.submit(Verify { candidate, against }).await
    }
}
