//! Parsers of single values. Bounds and the wording of errors are in the table of settings.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::infra::security::signing_key::SigningKey;

/// A whole number from `min` to `max`.
pub fn integer(text: &str, min: u64, max: u64) -> Option<u64> {
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

/// The start of web addresses, `https://wallet.example.com`; a trailing slash is dropped.
pub(super) fn web_address(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let host = rest.split('/').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '<' | '>' | '\\' | '?' | '#' | '@');
    let valid = !host.is_empty() && !host.starts_with(':') && rest.chars().all(plain);
    valid.then(|| text.trim_end_matches('/').to_owned())
}

/// Origins as a browser sends them, `https://app.example.com` or `http://localhost:8080`, separated by commas.
///
/// # Source
/// RFC 6454 §6.2.
pub(super) fn origins(text: &str) -> Option<Vec<String>> {
    let origin = |part: &str| {
        let address = web_address(part)?;
        let host = address.split_once("://")?.1;
        // A browser sends it in lower case and without a path; anything else would never match.
        (!host.contains('/') && !address.contains('*') && address == part.to_ascii_lowercase()).then_some(address)
    };
    list(text, origin)
}

const DURATION_MAX: Duration = Duration::from_hours(24);
const HOUR_MS: u64 = 3_600_000;
/// The database refuses to delete anything younger.
const RETENTION_MIN: Duration = Duration::from_hours(1);
/// A hundred years: for ever.
const RETENTION_MAX: Duration = Duration::from_hours(36_500 * 24);

/// `500ms`, `10s`, `1m`, `1h`: a whole number and a unit, above zero, at most a day.
pub fn duration(text: &str) -> Option<Duration> {
    let duration = quantity(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", HOUR_MS)])?;
    (!duration.is_zero() && duration <= DURATION_MAX).then_some(duration)
}

/// How long data is kept: `12h`, `30d`, from [`RETENTION_MIN`] to [`RETENTION_MAX`].
pub(super) fn retention(text: &str) -> Option<Duration> {
    quantity(text, &[("h", HOUR_MS), ("d", 24 * HOUR_MS)]).filter(|kept| (RETENTION_MIN..=RETENTION_MAX).contains(kept))
}

/// A whole number and one of these units, each with its length in milliseconds.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = units.iter().find_map(|(name, ms)| (*name == unit).then_some(*ms))?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(unit_ms)?))
}

/// A [`duration`] of whole seconds.
pub(super) fn whole_seconds(text: &str) -> Option<Duration> {
    duration(text).filter(|duration| duration.subsec_nanos() == 0)
}

/// Networks separated by commas; a bare address is a network of one.
pub fn networks(text: &str) -> Option<Vec<IpNet>> {
    list(text, |part| part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)).ok().map(canonical))
}

/// Keys separated by commas.
pub(super) fn signing_keys(text: &str) -> Option<Vec<SigningKey>> {
    list(text, SigningKey::parse)
}

/// An IPv4-mapped network as IPv4: addresses are compared in that form.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::V4)
}

/// The parts between commas. An empty text is an empty list; commas alone are a mistake that must not pass for one.
fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let values: Vec<T> = parts.map(parse).collect::<Option<_>>()?;
    (text.is_empty() || !values.is_empty()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_origin_is_what_a_browser_sends_and_nothing_wider() {
        let two = ["https://app.example.com".to_owned(), "http://localhost:8080".to_owned()];
        assert_eq!(origins("https://app.example.com, http://localhost:8080"), Some(two.to_vec()));
        for refused in
            ["*", "https://*.example.com", "app.example.com", "https://a.example/x", "https://A.example", "null"]
        {
            assert!(origins(refused).is_none(), "{refused:?}");
        }
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("1m"), Some(Duration::from_mins(1)));
        assert_eq!(duration("1h"), Some(Duration::from_hours(1)));
        for refused in ["", "1", "s", "0s", "-1s", "1.5s", "1 s", "1d", "25h", "99999999999999999999s", "10S"] {
            assert!(duration(refused).is_none(), "{refused:?}");
        }
    }

    #[test]
    fn a_retention_is_in_hours_or_days_from_one_hour_to_a_hundred_years() {
        for (text, hours) in [("1h", 1), ("12h", 12), ("30d", 720), ("36500d", 876_000), ("876000h", 876_000)] {
            assert_eq!(retention(text), Some(Duration::from_hours(hours)), "{text}");
        }
        for refused in ["", "30", "0d", "59m", "3600s", "1.5d", "36501d", "876001h", "30D", "99999999999999999999d"] {
            assert!(retention(refused).is_none(), "{refused:?}");
        }
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        let read = |text: &str| networks(text).expect("networks").iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(read("10.0.0.0/8, 192.168.1.7,::1"), ["10.0.0.0/8", "192.168.1.7/32", "::1/128"]);
        // IPv4 in the notation of an IPv6 socket.
        assert_eq!(read("::ffff:10.0.0.0/104,::ffff:192.168.1.7"), ["10.0.0.0/8", "192.168.1.7/32"]);
        assert_eq!(read("::/0"), ["::/0"]);
    }

    #[test]
    fn commas_alone_are_not_an_empty_list() {
        assert_eq!((networks(""), origins("")), (Some(Vec::new()), Some(Vec::new())));
        for commas in [",", " , ", ",,,"] {
            assert_eq!((networks(commas), origins(commas)), (None, None), "{commas:?}");
        }
    }

    #[test]
    fn a_web_address_has_a_scheme_and_a_host_and_loses_its_last_slash() {
        assert_eq!(web_address("https://wallet.example.com/"), Some("https://wallet.example.com".to_owned()));
        assert_eq!(web_address("http://[::1]:3001/money"), Some("http://[::1]:3001/money".to_owned()));
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
            assert!(web_address(refused).is_none(), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let _ = (duration(&text), networks(&text), integer(&text, 1, 9), whole_seconds(&text));
            let _ = (web_address(&text), origins(&text), retention(&text));
        }
    }
}
