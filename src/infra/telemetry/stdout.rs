//! Standard output for many lines per second: lines are buffered and written in batches.
//!
//! A system call per line costs more than everything else about a line, so lines wait for some milliseconds, or until
//! there are many. An orderly exit writes the rest; a killed process loses no more than it would have lost of the log's
//! queue.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest time that a line stays in the buffer.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);
/// A buffer of this size is written immediately.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    closing: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buffers whole lines.
pub(super) struct LineBuffer {
    line: Vec<u8>,
    shared: Arc<Shared>,
}

/// The thread that writes the buffer; dropping it writes the rest.
pub(super) struct StdoutWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A buffer of lines for standard output, and the thread that writes it.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn buffered_stdout() -> io::Result<(LineBuffer, StdoutWriter)> {
    let shared = Arc::new(Shared::default());
    let of_thread = Arc::clone(&shared);
    let thread = thread::Builder::new().name("log-out".into()).spawn(move || {
        let mut buffer = of_thread.lock();
        while !buffer.closed {
            write_out(&mut buffer.lines);
            buffer = of_thread.closing.wait_timeout(buffer, FLUSH_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
    })?;
    Ok((LineBuffer { line: Vec::new(), shared: Arc::clone(&shared) }, StdoutWriter { shared, thread: Some(thread) }))
}

fn write_out(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        // A closed standard output must not stop the process.
        let _ = io::stdout().lock().write_all(lines);
        lines.clear();
    }
}

impl Write for LineBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        // JSON escapes line ends inside of strings.
        if self.line.ends_with(b"\n") {
            let mut buffer = self.shared.lock();
            buffer.lines.append(&mut self.line);
            if buffer.lines.len() >= BUFFER_BYTES_MAX {
                write_out(&mut buffer.lines);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for StdoutWriter {
    fn drop(&mut self) {
        let mut buffer = self.shared.lock();
        buffer.closed = true;
        write_out(&mut buffer.lines);
        drop(buffer);
        self.shared.closing.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do, and cannot panic.
            let _ = thread.join();
        }
        let _ = io::stdout().flush();
    }
}
