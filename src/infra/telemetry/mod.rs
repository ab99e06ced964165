//! Logs: one JSON object a line on stdout, from us and from every dependency, and none lost at the end. And
//! spans, where they are asked for.

mod drain;
mod gathered;
mod level_filter;
mod spans;

pub use drain::{LogGuard, NoLog, init};
pub use spans::{Span, Spans, SpansError, Step};
