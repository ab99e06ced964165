//! What goes on beside a test until it is stopped, and then has a result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

pub struct Watcher<T> {
    end: End,
    task: JoinHandle<T>,
}

/// Whether the watcher is to end.
#[derive(Clone, Default)]
pub struct End(Arc<AtomicBool>);

impl End {
    pub fn has_come(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl<T: Send + 'static> Watcher<T> {
    /// `watch` has to return soon after its end has come.
    pub fn start<F: Future<Output = T> + Send + 'static>(watch: impl FnOnce(End) -> F) -> Self {
        let end = End::default();
        Self { task: tokio::spawn(watch(end.clone())), end }
    }

    /// Fails if the watcher has panicked.
    pub async fn stop(self) -> T {
        self.end.0.store(true, Ordering::SeqCst);
        self.task.await.expect("a watcher")
    }
}
