//! A bar for long work: on a terminal alone, and on standard error, so that it never mixes with the answer.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often it moves while nothing is counted.
const TICK: Duration = Duration::from_millis(120);

/// A bar towards `total`, or a sign of life where the total is not known (0). It vanishes when it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Begins to show `what`.
    pub(super) fn begin(what: &'static str, total: u64) -> Self {
        // indicatif hides by itself where stderr is no terminal; said, because it is promised.
        let shown = std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target((total > 0).then_some(total), target);
        let form = if total > 0 { "{msg} {wide_bar} {pos}/{len} {eta}" } else { "{msg} {spinner} {pos}" };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(what);
        if shown {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// So many more are done. A total that was an estimate is never passed.
    pub(super) fn add(&self, done: u64) {
        self.0.inc(done);
        if self.0.length().is_some_and(|total| total < self.0.position()) {
            self.0.set_length(self.0.position());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
