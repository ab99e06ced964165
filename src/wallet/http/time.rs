//! Reads times from queries.

use crate::kernel::Timestamp;

/// 0001-01-01T00:00:00Z: RFC 3339 has no earlier year that a database keeps too.
const EARLIEST_S: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const LATEST_S: i64 = 253_402_300_799;

/// An RFC 3339 time, with an offset or `Z`, of the years 1 to 9999.
pub(super) fn parse(text: &str) -> Result<Timestamp, &'static str> {
    text.parse::<Timestamp>()
        .ok()
        .filter(|_| text.len() <= 40 && text.as_bytes().get(10).is_some_and(|t| matches!(t, b'T' | b't')))
        .filter(|at| (EARLIEST_S..=LATEST_S).contains(&at.as_second()))
        .ok_or("must be an RFC 3339 time like 2026-01-31T12:00:00Z")
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_time_needs_a_date_a_time_and_an_offset() {
        assert_eq!(parse("2026-01-31T12:00:00+02:00").map(|t| t.to_string()), Ok("2026-01-31T10:00:00Z".to_owned()));
        assert!(parse("2026-01-31T12:00:00.123456Z").is_ok());
        for refused in [
            "",
            "now",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-13-31T12:00:00Z",
            "-004713-01-01T00:00:00Z",
            "1",
            "2026-01-31 12:00:00Z",
        ] {
            assert!(parse(refused).is_err(), "{refused:?}");
        }
    }
}
