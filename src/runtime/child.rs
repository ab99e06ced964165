//! What the supervisor and a child know of each other.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Handler, Message};
use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::mpsc::UnboundedSender;

/// Why a child has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Something that it needs is away. It is built again for as long as it takes.
    Unavailable(String),
    /// Something that it needs refuses for good. The process ends: no restart can change it.
    Refused(String),
    /// It broke down, by its own word.
    Failed(String),
    /// It panicked, or something it had started did.
    Panicked,
    /// It stopped without a word.
    Silent,
}

/// That a child has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) name: &'static str,
    pub(super) generation: u64,
    pub(super) reason: EndReason,
}

/// A guard that a child holds for as long as it lives. Whatever way the child goes, dropping this tells its supervisor.
#[derive(Debug)]
pub struct Lifeline {
    pub(super) name: &'static str,
    pub(super) generation: u64,
    pub(super) reason: Option<EndReason>,
    pub(super) ended: UnboundedSender<Ended>,
}

impl Lifeline {
    /// Says why the child is about to end; the first word counts.
    pub fn end(&mut self, reason: EndReason) {
        self.reason.get_or_insert(reason);
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let reason = self
            .reason
            .take()
            .unwrap_or_else(|| if std::thread::panicking() { EndReason::Panicked } else { EndReason::Silent });
        // Nobody listens any more once the process ends.
        let _ = self.ended.send(Ended { name: self.name, generation: self.generation, reason });
    }
}

/// Asks a child to finish what it has in hand and to begin nothing new. Answered when it is done.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    /// How long it may take.
    pub grace: Duration,
}

/// A running child.
pub trait Child {
    /// Ends it in order; resolves when it is done.
    fn shut_down(&self, grace: Duration) -> LocalBoxFuture<'static, ()>;
}

impl<A> Child for Addr<A>
where
    A: Actor + Handler<Shutdown>,
    A::Context: actix::dev::ToEnvelope<A, Shutdown>,
{
    fn shut_down(&self, grace: Duration) -> LocalBoxFuture<'static, ()> {
        let asked = self.send(Shutdown { grace });
        // A child that is gone already has nothing left to finish.
        async move { drop(tokio::time::timeout(grace, asked).await) }.boxed_local()
    }
}

/// The address of a child that may be rebuilt: senders hold this, never an address.
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
    /// Points it to a newly built child.
    pub fn point_to(&self, address: Addr<A>) {
        self.0.store(Some(Arc::new(address)));
    }

    /// The child as it is now, if there is one that takes messages.
    pub fn get(&self) -> Option<Addr<A>> {
        self.0.load().as_ref().filter(|address| address.connected()).map(|address| Addr::clone(address))
    }
}
