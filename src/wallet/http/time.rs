//! Times in queries.

use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;
use utoipa::openapi::{KnownFormat, ObjectBuilder, SchemaFormat};

use crate::kernel::{Timestamp, has_leap_second};

const EXPECTED: &str = "must be an RFC 3339 time like 2026-01-31T12:00:00Z";

/// 0001-01-01T00:00:00Z: PostgreSQL has no year 0.
const EARLIEST_S: i64 = -62_135_596_800;
/// Longer than any time that is accepted.
const BYTES_MAX: usize = 40;

/// An RFC 3339 time, with an offset or `Z`, of the years 1 to 9999. Leap seconds (`:60`) are refused: the databases have
/// none, and the parser reads them as `:59`, so that a later time would be read as an earlier one.
///
/// # Source
/// RFC 3339 §5.6.
pub(super) fn parse(text: &str) -> Result<Timestamp, &'static str> {
    Some(text)
        .filter(|text| text.len() <= BYTES_MAX && has_the_form(text))
        .and_then(|text| text.parse::<Timestamp>().ok().or_else(|| end_of_time(text)))
        .filter(|at| at.as_second() >= EARLIEST_S)
        .ok_or(EXPECTED)
}

/// The schema of what [`parse`] takes.
pub(super) fn schema(text: ObjectBuilder) -> ObjectBuilder {
    text.format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

/// `2026-01-31T12:00:00`, an optional fraction, then `Z` or `+02:00`. The parser also takes forms that RFC 3339 does not.
fn has_the_form(text: &str) -> bool {
    let fits = |part: &str, form: &str| {
        part.len() == form.len()
            && part.bytes().zip(form.bytes()).all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                other => byte.eq_ignore_ascii_case(&other),
            })
    };
    let Some((seconds, rest)) = text.split_at_checked("2026-01-31T12:00:00".len()) else { return false };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) if fraction.starts_with(|c: char| c.is_ascii_digit()) => {
            fraction.trim_start_matches(|c: char| c.is_ascii_digit())
        }
        Some(_) => return false,
        None => rest,
    };
    fits(seconds, "0000-00-00T00:00:00")
        && !has_leap_second(seconds)
        && ["Z", "+00:00", "-00:00"].into_iter().any(|form| fits(zone, form))
        // The parser takes up to 25:59.
        && zone.get(1..3).is_none_or(|hours| hours < "24")
}

/// The latest [`Timestamp`] is a day before the end of the year 9999. Callers write that end to mean "forever".
fn end_of_time(text: &str) -> Option<Timestamp> {
    let local = text.get(.."9999-12-31T23:59:59".len())?.parse::<jiff::civil::DateTime>().ok()?;
    let offset = Pieces::parse(text).ok()?.to_numeric_offset()?;
    // Not in the year 10000.
    let utc = local.checked_sub(offset.duration_since(Offset::UTC)).ok()?;
    (utc.year() == 9999 && utc.day_of_year() >= 364).then_some(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_needs_a_date_a_time_and_an_offset() {
        assert_eq!(parse("2026-01-31T12:00:00+02:00").map(|t| t.to_string()), Ok("2026-01-31T10:00:00Z".to_owned()));
        assert!(parse("2026-01-31T12:00:00.123456Z").is_ok());
        assert!(parse("2026-01-31t12:00:00z").is_ok());
        for refused in [
            "",
            "now",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-13-31T12:00:00Z",
            "-004713-01-01T00:00:00Z",
            "1",
            "2026-01-31 12:00:00Z",
            // Forms of ISO 8601 that the parser takes.
            "2026-01-31T12:00Z",
            "2026-01-31T12Z",
            "2026-01-31T120000Z",
            "2026-01-31T12:00:00,5Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+0200",
            "2026-01-31T12:00:00+02",
            "2026-01-31T12:00:00Z[UTC]",
            "+002026-01-31T12:00:00Z",
            "2026-01-31T12:00:0é",
            "2026-01-31T12:00:60Z",
            "2016-12-31T23:59:60.5Z",
            "9999-12-31T23:59:60Z",
            "9999-12-32T00:00:00Z",
            "0000-12-31T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T00:00:00-24:00",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00-25:59",
            "2026-01-31T12:00:00+23:60",
        ] {
            assert!(parse(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn the_last_second_of_the_year_9999_is_a_time() {
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999+14:00",
            "9999-12-31T12:00:00-11:59",
            "9999-12-30T23:00:00-12:00",
        ] {
            assert!(parse(text).is_ok_and(|at| at <= Timestamp::MAX), "{text}");
        }
        assert_eq!(parse("9999-01-01T00:00:00Z").map(|at| at.to_string()), Ok("9999-01-01T00:00:00Z".to_owned()));
    }

    proptest! {
        #[test]
        fn every_time_that_we_write_can_be_read(second in EARLIEST_S..=Timestamp::MAX.as_second(), nanos in 0..1_000_000_000) {
            let at = Timestamp::new(second, nanos).expect("in range");
            prop_assert_eq!(parse(&at.to_string()), Ok(at));
        }

        #[test]
        fn the_parser_never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
