//! Error classes, which decide status codes, log levels and retries.

/// The class of an error. Callers decide by the class, never by the text of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// A domain rule rejects the request, and a retry would be rejected too. Not logged as an error.
    Refused,
    /// A whole dependency is unavailable: wait for it, and do not count an attempt.
    Unavailable,
    /// A retry may succeed: lock timeout, deadlock, time limit.
    Transient,
    /// A retry can never succeed: for example a message that no version of purse can read.
    Permanent,
    /// An internal error.
    Bug,
}

/// An error that knows its class.
pub trait Classified {
    /// The class of this value; variants of one type may differ.
    fn class(&self) -> FailureClass;
}

/// A failed operation on a dependency (a database, the broker), as the ports of both contexts report it.
///
/// `Display` names only the operation; the cause is the source, which is logged and never sent to a client.
#[derive(Debug, thiserror::Error)]
#[error("{operation} did not succeed")]
pub struct DependencyError {
    /// As the SQL statement or the publisher names it: `users.register`.
    pub operation: &'static str,
    class: FailureClass,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl DependencyError {
    /// `Display` shows `operation` and hides `source`.
    pub fn new(
        operation: &'static str,
        class: FailureClass,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation, class, source: source.into() }
    }
}

impl Classified for DependencyError {
    fn class(&self) -> FailureClass {
        self.class
    }
}

/// An error and its causes in one line, outermost first, for the one place that logs it.
pub fn chain(error: &dyn std::error::Error) -> String {
    first_lines(error).collect::<Vec<_>>().join(": ")
}

/// The first line of an error and of each of its causes, outermost first. PostgreSQL's second line is `DETAIL: Failing row contains
/// (…)`, which is personal data.
pub fn first_lines(error: &dyn std::error::Error) -> impl Iterator<Item = String> {
    let first_line = |cause: &dyn std::error::Error| cause.to_string().lines().next().unwrap_or_default().to_owned();
    std::iter::successors(Some(error), |cause| cause.source()).map(first_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_line_with_only_the_first_line_of_each_cause() {
        let cause = "ERROR: new row violates a_law\nDETAIL: Failing row contains (Ada, ada@example.com)\nHINT: none";
        let error = DependencyError::new("users.register", FailureClass::Bug, cause);
        assert_eq!(chain(&error), "users.register did not succeed: ERROR: new row violates a_law");
        assert_eq!(chain(&DependencyError::new("x", FailureClass::Bug, "")), "x did not succeed: ");
    }
}
