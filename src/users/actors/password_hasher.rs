//! Hashes passwords on threads of their own.
//!
//! Owns: one argon2 a thread, with the memory that it hashes in.
//! Receives: hash, verify.
//! Sends: nothing.
//! Mailbox: as many jobs as the queue bound allows; past it requests are turned away.
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
use crate::infra::system::step_back;
use crate::kernel::{Secret, fault};
use crate::runtime::{Child, Handle, Lifeline};
use crate::users::actors::metrics::{HashMetrics, show_hash_queue};
use crate::users::application::ports::{HashError, PasswordCheck, PasswordHash, PasswordHasher};
use crate::users::domain::Password;

/// One hashing thread.
pub struct PasswordHasherActor {
    argon2: Argon2id,
    metrics: HashMetrics,
    _lifeline: Arc<Lifeline>,
}

/// A job, and its place in the queue, which is free again when the job is done.
struct Job<T> {
    work: T,
    _place: OwnedSemaphorePermit,
}

struct Hash(Password);

struct Compare {
    candidate: Secret,
    against: Option<PasswordHash>,
}

impl Message for Job<Hash> {
    type Result = Result<PasswordHash, HashError>;
}

impl Message for Job<Compare> {
    type Result = Result<PasswordCheck, HashError>;
}

impl Actor for PasswordHasherActor {
    type Context = SyncContext<Self>;
}

/// A panic must not take the thread with it: the others' jobs wait for it too.
fn guarded<T>(took: &Histogram, work: impl FnOnce() -> Result<T, HashingFailed>) -> Result<T, HashError> {
    let began = Instant::now();
    let work = || {
        fault::point("password_hasher.job");
        work()
    };
    let done = catch_unwind(AssertUnwindSafe(work));
    took.record(began.elapsed());
    match done {
        Ok(done) => done.map_err(|e| HashError::Failed(Box::new(e))),
        Err(_) => Err(HashError::Failed("hashing panicked".into())),
    }
}

impl Handler<Job<Hash>> for PasswordHasherActor {
    type Result = Result<PasswordHash, HashError>;

    fn handle(&mut self, job: Job<Hash>, _: &mut Self::Context) -> Self::Result {
        let argon2 = &mut self.argon2;
        guarded(&self.metrics.hash, || argon2.hash(job.work.0.expose()).map(PasswordHash::new))
    }
}

impl Handler<Job<Compare>> for PasswordHasherActor {
    type Result = Result<PasswordCheck, HashError>;

    fn handle(&mut self, job: Job<Compare>, _: &mut Self::Context) -> Self::Result {
        let (argon2, Compare { candidate, against }) = (&mut self.argon2, &job.work);
        let compared = guarded(&self.metrics.compare, || {
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
        // Every request has been answered before; a thread ends when nobody can send to it any more.
        ready(()).boxed_local()
    }
}

/// Starts `threads` hashing threads behind one address.
pub fn start_hashers(
    argon2: &Argon2id,
    threads: usize,
    metrics: &HashMetrics,
    lifeline: Lifeline,
) -> Addr<PasswordHasherActor> {
    let (argon2, metrics, lifeline) = (argon2.clone(), metrics.clone(), Arc::new(lifeline));
    SyncArbiter::start(threads, move || {
        // A hash takes all of a core for tens of milliseconds; whoever asks for something else should not wait for it.
        step_back();
        PasswordHasherActor { argon2: argon2.clone(), metrics: metrics.clone(), _lifeline: Arc::clone(&lifeline) }
    })
}

/// [`PasswordHasher`] to whichever threads there are at the moment, with a bound on what may wait for them.
pub struct HasherHandle {
    threads: Handle<PasswordHasherActor>,
    places: Arc<Semaphore>,
}

impl HasherHandle {
    /// At most `queue_max` jobs wait or run at once; how many there are is shown in `metrics`.
    pub fn new(threads: Handle<PasswordHasherActor>, queue_max: usize, metrics: &Metrics) -> Self {
        let places = Arc::new(Semaphore::new(queue_max));
        let free = Arc::clone(&places);
        show_hash_queue(metrics, move || queue_max.saturating_sub(free.available_permits()));
        Self { threads, places }
    }

    async fn ask<T>(&self, work: T) -> <Job<T> as Message>::Result
    where
        Job<T>: Message + Send,
        PasswordHasherActor: Handler<Job<T>>,
        T: Send + 'static,
        <Job<T> as Message>::Result: Send + From<HashError>,
    {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let (Ok(place), Some(threads)) = (place, self.threads.get()) else { return HashError::Overloaded.into() };
        match threads.send(Job { work, _place: place }).await {
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
        self.ask(Hash(password)).await
    }

    async fn verify(&self, candidate: Secret, against: Option<PasswordHash>) -> Result<PasswordCheck, HashError> {
        self.ask(Compare { candidate, against }).await
    }
}
