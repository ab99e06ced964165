//! Standard output for many lines per second, whatever its reader does.
//!
//! A system call per line costs more than everything else about a line, so lines wait for some milliseconds, or until
//! there are many. One thread writes them, and nothing else ever waits for the reader: a line that does not fit into the
//! buffer is dropped and counted. An orderly exit writes the rest; a killed process loses what is in the buffer.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Longest time that a line stays in the buffer while standard output takes lines.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);
/// A buffer of this size is written immediately.
const BATCH_BYTES: usize = 64 * 1024;
/// Lines in the buffer, beside a batch of at most the same size that is being written.
const BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pause after a failed write: a full disk may have space again, a FIFO a new reader.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Interval at which the end of the writer is checked where nothing can be awaited.
const END_POLL: Duration = Duration::from_millis(2);

/// Formats the line that reports how many records were dropped.
pub(super) type DroppedLine = Box<dyn Fn(u64) -> Vec<u8> + Send>;

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    /// Records dropped after the last of `lines`.
    dropped: u64,
    closed: bool,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }

    fn push(&mut self, line: &[u8]) -> bool {
        // Once one is dropped, all are until the next batch, so that the gap is in one place.
        let fits = self.dropped == 0 && self.lines.len().saturating_add(line.len()) <= BUFFER_BYTES_MAX;
        if fits {
            self.lines.extend_from_slice(line);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
        fits
    }
}

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    /// There is a first line, a full batch, or the end.
    changed: Condvar,
    dropped_total: AtomicU64,
    ended: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at most `limit` while `condition` is true.
    fn wait(&self, limit: Duration, condition: impl FnMut(&mut Buffer) -> bool) -> MutexGuard<'_, Buffer> {
        self.changed.wait_timeout_while(self.lock(), limit, condition).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Moves what is to be written next into `batch`; false at the end.
    fn next_batch(&self, batch: &mut Vec<u8>, dropped_line: &DroppedLine) -> bool {
        batch.clear();
        // One batch after an outage may be large.
        batch.shrink_to(BATCH_BYTES);
        let first = self.changed.wait_while(self.lock(), |buffer| buffer.is_empty() && !buffer.closed);
        drop(first.unwrap_or_else(PoisonError::into_inner));
        let mut buffer = self.wait(FLUSH_INTERVAL, |buffer| buffer.lines.len() < BATCH_BYTES && !buffer.closed);
        std::mem::swap(&mut buffer.lines, batch);
        let dropped = std::mem::take(&mut buffer.dropped);
        drop(buffer);
        if dropped > 0 {
            batch.extend(dropped_line(dropped));
        }
        !batch.is_empty()
    }

    /// Retries until everything is written, from the byte at which it failed, so that no line is torn. After the end of
    /// the log an error is final.
    fn write_out(&self, out: &mut impl Write, batch: &[u8]) -> io::Result<()> {
        let mut rest = batch;
        while !rest.is_empty() {
            let error = match out.write(rest) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    continue;
                }
                Err(e) => e,
            };
            match error.kind() {
                ErrorKind::Interrupted => {}
                // Another process has made the shared descriptor non-blocking, and the reader is slow.
                ErrorKind::WouldBlock => thread::sleep(FLUSH_INTERVAL),
                _ if self.lock().closed => return Err(error),
                _ => drop(self.wait(RETRY_AFTER, |buffer| !buffer.closed)),
            }
        }
        Ok(())
    }

    fn run(&self, mut out: impl Write, dropped_line: &DroppedLine) {
        let mut batch = Vec::new();
        while self.next_batch(&mut batch, dropped_line) && self.write_out(&mut out, &batch).is_ok() {}
        self.ended.notify_one();
    }
}

/// Receives lines, and never waits for standard output. Each clone has a line of its own.
#[derive(Clone)]
pub(super) struct LineBuffer {
    line: Vec<u8>,
    shared: Arc<Shared>,
}

impl Write for LineBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        // Both formats escape line ends inside of values.
        if self.line.ends_with(b"\n") {
            let mut buffer = self.shared.lock();
            let before = buffer.lines.len();
            if !buffer.push(&self.line) {
                self.shared.dropped_total.fetch_add(1, Ordering::Relaxed);
            }
            let is_due = before == 0 || (before < BATCH_BYTES && buffer.lines.len() >= BATCH_BYTES);
            drop(buffer);
            if is_due {
                self.shared.changed.notify_all();
            }
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many records were dropped because standard output was blocked.
#[derive(Clone)]
pub(super) struct DroppedCount(Arc<Shared>);

impl DroppedCount {
    pub(super) fn get(&self) -> u64 {
        self.0.dropped_total.load(Ordering::Relaxed)
    }
}

/// The thread that writes the buffer.
pub(super) struct StdoutWriter {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl StdoutWriter {
    pub(super) fn dropped(&self) -> DroppedCount {
        DroppedCount(Arc::clone(&self.shared))
    }

    /// The writer ends when it has written what is in the buffer now.
    pub(super) fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }

    /// Completes when the writer has ended, which is never if standard output stays blocked.
    pub(super) async fn ended(&self) {
        self.shared.ended.notified().await;
    }

    /// The same for a thread that cannot await.
    pub(super) fn wait_for_end(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(END_POLL);
        }
    }
}

/// A buffer of lines for standard output, and the thread that writes it.
///
/// # Errors
/// When the descriptor cannot be duplicated or the thread cannot be started.
pub(super) fn buffered_stdout(dropped_line: DroppedLine) -> io::Result<(LineBuffer, StdoutWriter)> {
    // Not the buffered writer of the standard library: at the end of a process it writes its rest, however long that takes.
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let shared = Arc::new(Shared::default());
    let of_thread = Arc::clone(&shared);
    let thread = thread::Builder::new().name("log-out".into()).spawn(move || of_thread.run(out, &dropped_line))?;
    Ok((LineBuffer { line: Vec::new(), shared: Arc::clone(&shared) }, StdoutWriter { shared, thread }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Fails or writes as scripted, a few bytes at a time.
    struct Scripted {
        failures: Vec<ErrorKind>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let part = bytes.get(..5.min(bytes.len())).expect("a part");
            self.written.send(part.to_vec()).expect("received");
            self.failures.pop().map_or(Ok(part.len()), |kind| {
                self.written.send(b"!".to_vec()).expect("received");
                Err(kind.into())
            })
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn dropped_line() -> DroppedLine {
        Box::new(|dropped| format!("{dropped} dropped\n").into_bytes())
    }

    fn buffer() -> (LineBuffer, Arc<Shared>) {
        let shared = Arc::new(Shared::default());
        (LineBuffer { line: Vec::new(), shared: Arc::clone(&shared) }, shared)
    }

    impl LineBuffer {
        /// A buffer without a writer, and how to look into it.
        pub(in crate::infra::telemetry) fn for_test() -> (Self, impl FnOnce() -> Vec<u8>) {
            let (lines, shared) = buffer();
            (lines, move || shared.lock().lines.clone())
        }
    }

    #[test]
    fn a_failed_write_is_repeated_from_the_byte_at_which_it_failed() {
        let (mut lines, shared) = buffer();
        lines.write_all(b"a line of text\n").expect("buffered");
        shared.lock().closed = true;
        let failures = vec![ErrorKind::Interrupted, ErrorKind::WouldBlock];
        let (written, parts) = mpsc::channel();
        shared.run(Scripted { failures, written }, &dropped_line());
        let parts: Vec<u8> = parts.try_iter().flatten().collect();
        assert_eq!(String::from_utf8(parts).expect("text"), "a lin!a lin!a line of text\n");
    }

    #[test]
    fn a_full_disk_is_tried_again_and_is_final_only_at_the_end() {
        let (mut lines, shared) = buffer();
        lines.write_all(b"kept\n").expect("buffered");
        let (written, parts) = mpsc::channel();
        let out = Scripted { failures: vec![ErrorKind::StorageFull; 2], written };
        let writer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(out, &dropped_line())
        });
        let mut received = Vec::new();
        while !received.ends_with(&[b"kept\n".to_vec(), b"!".to_vec(), b"kept\n".to_vec()]) {
            received.push(parts.recv().expect("a part"));
        }
        shared.lock().closed = true;
        shared.changed.notify_all();
        writer.join().expect("ended");

        let (mut lines, shared) = buffer();
        lines.write_all(b"lost\n").expect("buffered");
        shared.lock().closed = true;
        let (written, parts) = mpsc::channel();
        shared.run(Scripted { failures: vec![ErrorKind::StorageFull], written }, &dropped_line());
        assert_eq!(parts.try_iter().collect::<Vec<_>>(), [b"lost\n".to_vec(), b"!".to_vec()]);
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_reported_where_they_are_missing() {
        let (mut lines, shared) = buffer();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..BUFFER_BYTES_MAX / line.len() {
            lines.write_all(&line).expect("buffered");
        }
        assert_eq!(DroppedCount(Arc::clone(&shared)).get(), 0);
        for line in [&line[..], b"short\n"] {
            lines.write_all(line).expect("dropped");
        }
        assert_eq!(DroppedCount(Arc::clone(&shared)).get(), 2);

        let mut batch = Vec::new();
        assert!(shared.next_batch(&mut batch, &dropped_line()));
        assert_eq!(batch.len(), BUFFER_BYTES_MAX + b"2 dropped\n".len());
        assert!(batch.ends_with(b"x\n2 dropped\n"));
        lines.write_all(b"after\n").expect("buffered");
        assert!(shared.next_batch(&mut batch, &dropped_line()));
        assert_eq!(batch, b"after\n");
    }
}
