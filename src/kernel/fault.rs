//! Fault injection: points at which a test breaks the process, and safeguards that a test disables to show that another
//! test notices.
//!
//! Without the feature `failpoints`, which no release has, these functions do nothing. With it, the variable
//! `FAILPOINTS` selects the faults, in the syntax of the crate `fail`:
//! `FAILPOINTS="users.S4=return;wallet.row_lock=return"`.

use std::fmt::Display;

#[cfg(not(feature = "failpoints"))]
mod fail {
    #[inline]
    pub(super) fn eval<R>(_name: &str, _act: impl FnOnce(Option<String>) -> R) -> Option<R> {
        None
    }
}

/// A point that a test may break: `return` aborts the process as a kill would, `panic` panics, `sleep(ms)` and `pause`
/// block the thread.
#[inline]
pub fn point(name: &str) {
    fail::eval(name, |_| std::process::abort());
}

/// A point for one particular entity: `FAILPOINTS="wallet.provision.<user>=panic"`.
#[inline]
pub fn point_of(name: &str, entity: &impl Display) {
    if cfg!(feature = "failpoints") {
        point(&format!("{name}.{entity}"));
    }
}

/// Whether a test has disabled this safeguard, with `return`.
#[inline]
pub fn disabled(safeguard: &str) -> bool {
    fail::eval(safeguard, |_| ()).is_some()
}

/// Reads `FAILPOINTS`, for the rest of the process.
pub fn set_up() {
    // Dropping the scenario would end it.
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup());
}
