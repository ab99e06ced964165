//! Numbers, times and untrusted text in human-readable form.

use jiff::SignedDuration;

use crate::kernel::{Timestamp, is_invisible};

/// Longest untrusted text in a table; JSON contains all of it.
const CELL_CHARS_MAX: usize = 120;

/// Longest untrusted text of a record that is shown alone; JSON contains all of it.
pub(super) const FIELD_CHARS_MAX: usize = 10_000;

/// Shown for an unknown value.
pub(super) const UNKNOWN: &str = "?";

/// Whole seconds from `then` to `now`; 0 if `then` is later.
pub(super) fn seconds_between(then: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(then).max(SignedDuration::ZERO).as_secs()
}

/// `2d 3h`, `5m 12s`, `7s`: the two largest units.
pub(super) fn duration(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds.max(0);
    let mut parts = Vec::new();
    for (size, unit) in units {
        let count = rest / size;
        rest %= size;
        // From the largest non-zero unit on.
        if count > 0 || !parts.is_empty() {
            parts.push((count, unit));
        }
    }
    let shown: Vec<String> =
        parts.iter().take(2).filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

/// A count with its noun: `1 event`, `2 events`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The same of ledger entries.
pub(super) fn count_entries(number: u64) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}

/// Escapes everything in untrusted text that could control a terminal.
pub(super) fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_invisible(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// The same, shortened to one table cell.
pub(super) fn cell(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(CELL_CHARS_MAX).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    harmless(&short)
}

/// The same for a field of a record, which may be long.
pub(super) fn field(text: &str) -> String {
    let mut chars = text.chars();
    let short: String = chars.by_ref().take(FIELD_CHARS_MAX).collect();
    match chars.count() {
        0 => harmless(&short),
        hidden => format!("{}… ({hidden} more characters; `--format json` shows all)", harmless(&short)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_largest_units() {
        let shown = [0, 7, 60, 312, 3_600, 3_605, 90_061, 864_000, -4].map(duration);
        assert_eq!(shown, ["0s", "7s", "1m", "5m 12s", "1h", "1h", "1d 1h", "10d", "0s"]);
    }

    #[test]
    fn untrusted_text_cannot_control_a_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\nc\u{202e}d"), r"a\u{1b}[2Jb\r\nc\u{202e}d");
        assert_eq!(harmless("über 5 €"), "über 5 €");
        assert_eq!(cell(&"x".repeat(200)).chars().count(), 121);
        assert_eq!(field("a\u{7}b"), r"a\u{7}b");
        assert!(field(&"x".repeat(70_000)).ends_with("x… (60000 more characters; `--format json` shows all)"));
    }
}
