//! Logs: one line per record on stdout, from our code and from every dependency. None makes a request wait, and an orderly exit
//! writes the rest, unless standard output does not take it in time. And spans, where a collector is configured.

mod drain;
mod level_filter;
mod pretty;
mod repeats;
mod spans;
mod stdout;

pub(crate) use drain::{LogCounts, init, mute_libraries};
pub use spans::{Span, SpanName, Spans, SpansError};
