//! Time as an argument.

/// A moment in UTC. The databases keep microseconds; the API writes RFC 3339 with a `Z`.
pub use jiff::Timestamp;

/// Where the present comes from, so that a test can say what time it is.
pub trait Clock: Send + Sync {
    /// The present moment, rounded down to the microseconds that a database keeps.
    fn now(&self) -> Timestamp;
}
