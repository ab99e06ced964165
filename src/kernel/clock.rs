//! The current time as an argument.

/// A point in time in UTC. Databases store microseconds.
pub use jiff::Timestamp;

/// `2026-01-31T12:00:00.500000Z`: always six digits, so that times sort as text.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// The source of the current time, which a test can replace.
pub trait Clock: Send + Sync {
    /// Truncated to microseconds, the precision of the databases.
    fn now(&self) -> Timestamp;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_is_written_with_six_digits() {
        for (text, written) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z"),
            ("2026-01-31T12:00:00.5Z", "2026-01-31T12:00:00.500000Z"),
            ("2026-01-31T12:00:00.123456999Z", "2026-01-31T12:00:00.123456Z"),
        ] {
            assert_eq!(rfc3339(text.parse().expect("a time")), written);
        }
    }

    proptest! {
        #[test]
        fn times_sort_as_text(seconds in proptest::array::uniform2(0_i64..4_000_000_000), micros in proptest::array::uniform2(0..1_000_000)) {
            let at = |n: usize| Timestamp::new(seconds[n], micros[n] * 1_000).expect("in range");
            prop_assert_eq!(at(0).cmp(&at(1)), rfc3339(at(0)).cmp(&rfc3339(at(1))));
        }
    }
}
