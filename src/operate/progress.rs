//! A progress bar for long work, on standard error so that it does not mix with the output, and only on a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Interval at which the bar is redrawn.
const TICK: Duration = Duration::from_millis(120);

/// A bar up to `total`, or a spinner if `total` is 0 (unknown). Dropping it removes it from the terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn begin(message: &'static str, total: u64) -> Self {
        // Explicit, although indicatif hides the bar by itself without a terminal.
        let shown = std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target((total > 0).then_some(total), target);
        let template = if total > 0 { "{msg} {wide_bar} {pos}/{len} {eta}" } else { "{msg} {spinner} {pos}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message);
        if shown {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// Raises the total if it was estimated too low.
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
