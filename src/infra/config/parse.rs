//! Readers of single values. Their errors end a sentence that begins with the value.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// A whole number within bounds.
///
/// # Errors
/// A half sentence with the bounds.
pub fn integer(text: &str, least: u64, most: u64) -> Result<u64, String> {
    text.parse::<u64>()
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

/// The same as `u32`; `most` says that it fits.
///
/// # Errors
/// As [`integer`].
pub fn integer_u32(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = integer(text, least.into(), most.into())?;
    u32::try_from(number).map_err(|e| e.to_string())
}

/// A count that sizes something in memory.
///
/// # Errors
/// As [`integer`].
pub fn count(text: &str, least: u32, most: u32) -> Result<usize, String> {
    let number = integer_u32(text, least, most)?;
    usize::try_from(number).map_err(|e| e.to_string())
}

/// Whole milliseconds within bounds.
///
/// # Errors
/// As [`integer`].
pub fn millis(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    integer(text, least, most).map(Duration::from_millis)
}

/// The beginning of web addresses, `https://wallet.example.com`; a slash at its end is dropped.
///
/// # Errors
/// A half sentence with the form.
pub fn web_address(text: &str) -> Result<String, &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let sound = |rest: &str| {
        let host = rest.split('/').next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '<' | '>' | '\\' | '?' | '#' | '@');
        !host.is_empty() && !host.starts_with(':') && rest.chars().all(plain)
    };
    rest.is_some_and(sound)
        .then(|| text.trim_end_matches('/').to_owned())
        .ok_or("must be an address like https://wallet.example.com, without a query")
}

/// Origins as a browser writes them, `https://app.example.com` or `http://localhost:8080`, separated by commas.
///
/// # Errors
/// A half sentence with the form.
///
/// # Source
/// RFC 6454 §6.2.
pub fn origins(text: &str) -> Result<Vec<String>, &'static str> {
    let origin = |part: &str| {
        let address = web_address(part).ok()?;
        let host = address.split_once("://")?.1;
        // A browser writes it in lower case and without a path; anything else would never match.
        (!host.contains('/') && !address.contains('*') && address == part.to_ascii_lowercase()).then_some(address)
    };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(origin)
        .collect::<Option<_>>()
        .ok_or("must be origins like https://app.example.com separated by commas, without a path or a wildcard")
}

/// Longest duration that a setting may name: a day.
const DURATION_MAX: Duration = Duration::from_hours(24);

/// `500ms`, `10s`, `1m`, `1h`: a whole number and a unit, above zero, at most a day.
///
/// # Errors
/// A half sentence with the form.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refused = || "must be a duration like 500ms, 10s, 1m or 1h, above zero and at most 24h".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refused()),
    };
    let duration = Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(refused)?);
    if duration.is_zero() || duration > DURATION_MAX { Err(refused()) } else { Ok(duration) }
}

/// `true` or `false`.
///
/// # Errors
/// A half sentence with the two words.
pub fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false"),
    }
}

/// An address to listen on.
///
/// # Errors
/// A half sentence with the form.
pub fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "must be an IP address like 0.0.0.0 or ::1")
}

/// Networks separated by commas; a bare address is a network of one.
///
/// # Errors
/// A half sentence with the form.
pub fn networks(text: &str) -> Result<Vec<IpNet>, &'static str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)))
        .collect::<Result<_, _>>()
        .map_err(|_| "must be networks like 10.0.0.0/8 separated by commas")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_origin_is_what_a_browser_writes_and_nothing_wider() {
        let two = ["https://app.example.com".to_owned(), "http://localhost:8080".to_owned()];
        assert_eq!(origins("https://app.example.com, http://localhost:8080"), Ok(two.to_vec()));
        for refused in
            ["*", "https://*.example.com", "app.example.com", "https://a.example/x", "https://A.example", "null"]
        {
            assert!(origins(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1m"), Ok(Duration::from_mins(1)));
        assert_eq!(duration("1h"), Ok(Duration::from_hours(1)));
        for refused in ["", "1", "s", "0s", "-1s", "1.5s", "1 s", "1d", "25h", "99999999999999999999s", "10S"] {
            assert!(duration(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        let networks = networks("10.0.0.0/8, 192.168.1.7,::1").map(|n| n.iter().map(ToString::to_string).collect());
        assert_eq!(networks, Ok(vec!["10.0.0.0/8".to_owned(), "192.168.1.7/32".to_owned(), "::1/128".to_owned()]));
    }

    #[test]
    fn a_web_address_has_a_scheme_and_a_host_and_loses_its_last_slash() {
        assert_eq!(web_address("https://wallet.example.com/"), Ok("https://wallet.example.com".to_owned()));
        assert_eq!(web_address("http://[::1]:3001/money"), Ok("http://[::1]:3001/money".to_owned()));
        for refused in [
            "",
            "wallet",
            "https://",
            "https:///x",
            "http://:80",
            "javascript:alert(1)",
            "http://a b",
            "http://a\"b",
            "http://a?b",
        ] {
            assert!(web_address(refused).is_err(), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in any::<String>()) {
            let _ = (duration(&text), networks(&text), integer(&text, 1, 9), address(&text), boolean(&text));
            let _ = web_address(&text);
        }
    }
}
