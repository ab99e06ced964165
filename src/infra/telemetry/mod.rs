//! Logs: one JSON object per line on stdout, from our code and from every dependency, none lost at an orderly exit, and
//! none that makes a request wait. And spans, where a collector is configured.

mod drain;
mod level_filter;
mod pretty;
mod repeats;
mod spans;
mod stdout;

pub(crate) use drain::{LogCounts, init, mute_libraries};
pub use spans::{Span, SpanName, Spans, SpansError};
