//! Places where a test may break the process, and safety measures that a test may leave out to see that something
//! notices.
//!
//! Only the feature `failpoints` gives these functions a body; no release has it, and without it they are empty. What
//! happens where is then said by the variable `FAILPOINTS`, in the language of the crate `fail`:
//! `FAILPOINTS="users.S4=return;wallet.row_lock=return"`.

/// A step that a test may break off at: `return` ends the process on the spot as a kill would, `panic` panics,
/// `sleep(ms)` and `pause` hold the thread.
#[cfg(feature = "failpoints")]
pub fn point(step: &str) {
    fail::eval(step, |_| std::process::abort());
}

/// Nothing, in every build that is not for fault injection.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn point(_step: &str) {}

/// A step with one particular thing: `FAILPOINTS="wallet.provision.<user>=panic"`.
#[cfg(feature = "failpoints")]
pub fn point_of(step: &str, thing: &impl std::fmt::Display) {
    point(&format!("{step}.{thing}"));
}

/// Nothing, in every build that is not for fault injection.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn point_of<T: std::fmt::Display>(_step: &str, _thing: &T) {}

/// Whether a test has taken out this safety measure, by `return`.
#[cfg(feature = "failpoints")]
pub fn left_out(measure: &str) -> bool {
    fail::eval(measure, |_| ()).is_some()
}

/// Never, in every build that is not for fault injection.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn left_out(_measure: &str) -> bool {
    false
}

/// Reads `FAILPOINTS`; what it says holds until the process ends.
#[cfg(feature = "failpoints")]
pub fn set_up() {
    // Dropping the scenario would end it.
    std::mem::forget(fail::FailScenario::setup());
}

/// Nothing, in every build that is not for fault injection.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn set_up() {}
