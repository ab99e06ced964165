//! The current time as an argument.

/// A point in time in UTC. Databases store microseconds; the API writes RFC 3339 with a `Z`.
pub use jiff::Timestamp;

/// The source of the current time, which a test can replace.
pub trait Clock: Send + Sync {
    /// Truncated to microseconds, the precision of the databases.
    fn now(&self) -> Timestamp;
}
