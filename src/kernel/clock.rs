//! The current time as an argument.

/// A point in time in UTC. Databases store microseconds.
pub use jiff::Timestamp;

/// `2026-01-31T12:00:00.500000Z`: always six digits, so that times sort as text.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// Whether the seconds of a time of day are 60, in the extended or the basic form of ISO 8601.
pub fn has_leap_second(text: &str) -> bool {
    let Some((_, time)) = text.split_once(['T', 't', ' ', '_']) else { return false };
    let digits = |time: &str| time.bytes().take_while(u8::is_ascii_digit).count();
    match digits(time) {
        2 => time.get(2..).is_some_and(|rest| rest.starts_with(':')) && time.get(5..8) == Some(":60"),
        6 => time.get(4..6) == Some("60"),
        _ => false,
    }
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

    #[test]
    fn a_leap_second_is_found_in_every_form_that_the_parser_takes() {
        for time in ["2026-01-31T12:00:60Z", "2026-01-31 12:00:60.5+02:00", "20260131T120060Z", "2026-01-31t23:59:60z"]
        {
            assert!(has_leap_second(time), "{time}");
        }
        for time in ["2026-01-31T12:00:59Z", "2026-01-31T12:60:00Z", "2026-01-31T12:00:00.60Z", "2026-01-31", "", "T"] {
            assert!(!has_leap_second(time), "{time}");
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
