//! The interface between the supervisor and its children.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Handler, Message};
use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::mpsc::UnboundedSender;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A dependency is unavailable. The child is restarted until the dependency is back.
    Unavailable(String),
    /// A dependency rejects it permanently. At the child's first start the process ends, because nothing relies on it
    /// yet and a restart cannot help. Later the child is restarted at long intervals, because the rest of the process
    /// works without it.
    Refused(String),
    /// It reported a failure.
    Failed(String),
    /// It panicked, or a task that it started did.
    Panicked,
    /// It stopped without reporting a reason.
    Unexplained,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) name: &'static str,
    pub(super) generation: u64,
    pub(super) reason: EndReason,
}

pub(super) const FIRST_GENERATION: u64 = 1;

/// A guard that a child owns. Dropping it, in whatever way the child ends, notifies the supervisor.
#[derive(Debug)]
pub struct Lifeline {
    pub(super) name: &'static str,
    pub(super) generation: u64,
    pub(super) reason: Option<EndReason>,
    pub(super) ended: UnboundedSender<Ended>,
}

impl Lifeline {
    /// Whether the child was not started before in this process.
    pub const fn is_first_start(&self) -> bool {
        self.generation == FIRST_GENERATION
    }

    /// Sets the reason for the end that follows; only the first call counts.
    pub fn end(&mut self, reason: EndReason) {
        self.reason.get_or_insert(reason);
    }
}

#[cfg(test)]
impl Lifeline {
    /// For an actor without a supervisor.
    pub fn unsupervised() -> Self {
        let (ended, _) = tokio::sync::mpsc::unbounded_channel();
        Self { name: "test", generation: FIRST_GENERATION, reason: None, ended }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let reason = self
            .reason
            .take()
            .unwrap_or_else(|| if std::thread::panicking() { EndReason::Panicked } else { EndReason::Unexplained });
        // The supervisor is gone when the process ends.
        let _ = self.ended.send(Ended { name: self.name, generation: self.generation, reason });
    }
}

/// Requests that a child finish its current work and start nothing new. The reply comes when it is done.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    pub grace: Duration,
}

pub trait Child {
    /// Resolves when the child has finished, or after `grace`.
    fn shut_down(&self, grace: Duration) -> LocalBoxFuture<'static, ()>;
}

impl<A> Child for Addr<A>
where
    A: Actor + Handler<Shutdown>,
    A::Context: actix::dev::ToEnvelope<A, Shutdown>,
{
    fn shut_down(&self, grace: Duration) -> LocalBoxFuture<'static, ()> {
        let done = self.send(Shutdown { grace });
        // A child that has ended already has nothing to finish.
        async move { drop(tokio::time::timeout(grace, done).await) }.boxed_local()
    }
}

/// The address of a child across restarts. Senders keep this, never an `Addr`.
pub struct Handle<A: Actor>(Arc<ArcSwapOption<Addr<A>>>);

impl<A: Actor> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Actor> Default for Handle<A> {
    fn default() -> Self {
        Self(Arc::new(ArcSwapOption::empty()))
    }
}

impl<A: Actor> Handle<A> {
    /// Points to a newly started child, and returns its address.
    pub fn point_to(&self, address: Addr<A>) -> Addr<A> {
        self.0.store(Some(Arc::new(address.clone())));
        address
    }

    /// The current child, if it accepts messages.
    pub fn get(&self) -> Option<Addr<A>> {
        self.0.load().as_ref().filter(|address| address.connected()).map(|address| Addr::clone(address))
    }
}
