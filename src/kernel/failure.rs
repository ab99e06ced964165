//! What kind of failure an error is: the one question that status codes, log levels and retries ask.

/// The class of an error. A reader decides by the class, never by the text of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// The rules say no to this request; asking again changes nothing. Not our fault, not logged as an error.
    Refused,
    /// A dependency is away as a whole: nothing of this kind works now, so wait for it and spend no attempt.
    Unavailable,
    /// This one may pass if tried again: a lock that was held too long, a deadlock, a time limit.
    Transient,
    /// This one can never pass: a message that no version of us could read.
    Permanent,
    /// Our own fault.
    Bug,
}

/// An error that knows its class.
pub trait Classified {
    /// The class of this very value.
    fn class(&self) -> FailureClass;
}

/// A step on a dependency (a database, the broker) that did not succeed, as the ports of both contexts report it.
///
/// `Display` names the step alone; the cause is the source, for the log and never for a client.
#[derive(Debug, thiserror::Error)]
#[error("{step} did not succeed")]
pub struct DependencyError {
    /// What was being done, as the SQL or the publisher names it: `users.register`.
    pub step: &'static str,
    class: FailureClass,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl DependencyError {
    /// A failed `step` of the given class.
    pub fn new(
        step: &'static str,
        class: FailureClass,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { step, class, source: source.into() }
    }
}

impl Classified for DependencyError {
    fn class(&self) -> FailureClass {
        self.class
    }
}

/// The whole chain of an error in one line, outermost first, for the one place that logs it.
///
/// Of each cause the first line alone: PostgreSQL's second one is `DETAIL: Failing row contains (…)`, a whole person.
pub fn chain(error: &dyn std::error::Error) -> String {
    let first_line = |cause: &dyn std::error::Error| cause.to_string().lines().next().unwrap_or_default().to_owned();
    let mut line = first_line(error);
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&first_line(cause));
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_line_and_has_the_first_line_of_each_cause_alone() {
        let cause = "ERROR: new row violates a_law\nDETAIL: Failing row contains (Ada, ada@example.com)\nHINT: none";
        let error = DependencyError::new("users.register", FailureClass::Bug, cause);
        assert_eq!(chain(&error), "users.register did not succeed: ERROR: new row violates a_law");
        assert_eq!(chain(&DependencyError::new("x", FailureClass::Bug, "")), "x did not succeed: ");
    }
}
