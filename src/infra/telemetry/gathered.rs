//! Standard output for many lines a second: they are gathered and written some at a time.
//!
//! A write a line costs more than all the rest of a line, so lines wait for a few milliseconds, or until there are many of
//! them. A process that ends in order writes what waits; one that is killed loses no more than it would have lost of the
//! queue before.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest wait of a line.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// Bytes that are written without waiting any longer.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// What waits to be written.
#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    ending: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where lines go in.
pub(super) struct Gathered {
    line: Vec<u8>,
    shared: Arc<Shared>,
}

/// Writes what waits, in the background, and the rest when it is dropped.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A writer of whole lines to standard output, and what keeps it writing.
///
/// # Errors
/// When the system has no thread for it.
pub(super) fn stdout() -> io::Result<(Gathered, Flusher)> {
    let shared = Arc::new(Shared::default());
    let seen = Arc::clone(&shared);
    let thread = thread::Builder::new().name("log-out".into()).spawn(move || {
        let mut waiting = seen.lock();
        while !waiting.ended {
            write_out(&mut waiting.lines);
            waiting = seen.ending.wait_timeout(waiting, WRITE_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    })?;
    Ok((Gathered { line: Vec::new(), shared: Arc::clone(&shared) }, Flusher { shared, thread: Some(thread) }))
}

fn write_out(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        // A closed standard output is nobody's fault.
        let _ = io::stdout().lock().write_all(lines);
        lines.clear();
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        // In JSON no byte of a text is a line end.
        if self.line.ends_with(b"\n") {
            let mut waiting = self.shared.lock();
            waiting.lines.append(&mut self.line);
            if waiting.lines.len() >= WAITING_BYTES_MAX {
                write_out(&mut waiting.lines);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        waiting.ended = true;
        write_out(&mut waiting.lines);
        drop(waiting);
        self.shared.ending.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do, and cannot panic.
            let _ = thread.join();
        }
        let _ = io::stdout().flush();
    }
}
