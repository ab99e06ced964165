//! Lets a shutdown wait for work in flight.

use tokio::sync::oneshot;

/// Whether an actor has been asked to shut down, and the shutdown that waits for its work.
#[derive(Debug, Default)]
pub(crate) struct Draining {
    begun: bool,
    done: Option<oneshot::Sender<()>>,
}

impl Draining {
    /// Begins the shutdown. The future resolves at [`finish`](Self::finish), or when the actor is gone.
    pub(crate) fn begin(&mut self) -> impl Future<Output = ()> + use<> {
        let (done, finished) = oneshot::channel();
        *self = Self { begun: true, done: Some(done) };
        async move { drop(finished.await) }
    }

    /// Whether no new work may begin.
    pub(crate) const fn has_begun(&self) -> bool {
        self.begun
    }

    /// To be called whenever no work is in flight.
    pub(crate) fn finish(&mut self) {
        if let Some(done) = self.done.take() {
            // The shutdown may have stopped waiting.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_shutdown_waits_until_the_work_is_done_or_the_actor_is_gone() {
        let mut draining = Draining::default();
        draining.finish();
        assert!(!draining.has_begun(), "no shutdown was requested");
        let mut finished = Box::pin(draining.begin());
        assert_eq!((&mut finished).now_or_never(), None, "work is in flight");
        draining.finish();
        finished.await;
        assert!(draining.has_begun(), "nothing new begins afterwards");
        let finished = draining.begin();
        drop(draining);
        finished.await;
    }
}
