//! Counts requests by client IP, as reported by trusted proxies in `X-Forwarded-For`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use ipnet::IpNet;
use slog::{Logger, warn};

use crate::infra::http::rate_limit::CountBy;
use crate::infra::metrics::{Counter, MetricName, Metrics};
use crate::kernel::Reminder;

const UNKNOWN: MetricName = MetricName {
    name: "purse_http_client_addresses_unknown_total",
    help: "Rate-limited requests counted as requests of a trusted proxy, because it sent no client address (missing) or none that can be read (unreadable).",
};

/// By client IP, as reported by trusted proxies.
#[derive(Clone)]
pub struct ByClient(Arc<Inner>);

struct Inner {
    trusted: Vec<IpNet>,
    missing: Reports,
    unreadable: Reports,
    logger: Logger,
}

/// Why a trusted proxy counts as the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    Missing,
    Unreadable,
}

impl Unknown {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the proxy sent no X-Forwarded-For",
            Self::Unreadable => "the proxy sent an X-Forwarded-For whose last address is not an IP address",
        })
    }
}

struct Reports {
    count: Counter,
    logged: Reminder,
}

impl Reports {
    fn new(reason: Unknown, metrics: &Metrics) -> Self {
        let count = metrics.counter(UNKNOWN, &[("reason", reason.as_str())]);
        Self { count, logged: Reminder::default() }
    }

    /// Counts a request; whether it is time to log.
    fn add(&self) -> bool {
        self.count.increment(1);
        self.logged.is_due()
    }
}

impl ByClient {
    /// Trusts `X-Forwarded-For` from these networks only.
    pub fn new(trusted: &[IpNet], metrics: &Metrics, logger: Logger) -> Self {
        let reports = |reason| Reports::new(reason, metrics);
        let (missing, unreadable) = (reports(Unknown::Missing), reports(Unknown::Unreadable));
        Self(Arc::new(Inner { trusted: trusted.to_vec(), missing, unreadable, logger }))
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.0.trusted.iter().any(|network| network.contains(&address))
    }

    /// The peer, or behind trusted proxies the nearest forwarded address that is not one of them. If a trusted proxy has
    /// not reported a readable address, that proxy: any key made of what it did send could be varied by the client.
    fn client(&self, peer: IpAddr, lines: &[&[u8]]) -> (IpAddr, Option<Unknown>) {
        let mut client = peer.to_canonical();
        let mut unknown = Some(Unknown::Missing);
        // The nearest hop is last, across all header lines of that name.
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
            if !self.is_trusted(client) {
                break;
            }
            // Recipients ignore empty elements of a list (RFC 9110 §5.6.1).
            if hop.is_empty() {
                continue;
            }
            let Some(address) = address(hop) else {
                // Not an address that a trusted proxy saw, so what comes before it is not trusted either.
                return (client, Some(Unknown::Unreadable));
            };
            (client, unknown) = (address, None);
        }
        (client, unknown.filter(|_| self.is_trusted(client)))
    }

    fn report(&self, unknown: Unknown, proxy: IpAddr) {
        let reports = match unknown {
            Unknown::Missing => &self.0.missing,
            Unknown::Unreadable => &self.0.unreadable,
        };
        if reports.add() {
            warn!(self.0.logger, "a trusted proxy does not report its clients; they share one rate limit"; "proxy" => proxy.to_string(), "error" => unknown.to_string());
        }
    }
}

/// The address of a hop, as proxies write it: with a port, in brackets, with a zone, in quotes.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?.trim_matches(|c: char| c == '"' || c.is_ascii_whitespace());
    let address = match hop.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            if !port.is_empty() && !port.starts_with(':') {
                return None;
            }
            without_zone(address)
        }
        // An address may itself end in a colon and a number.
        None => without_zone(hop).or_else(|| without_zone(hop.rsplit_once(':')?.0)),
    };
    address.map(|address| address.to_canonical())
}

/// An address whose zone, if any, is dropped: it has a meaning only on the proxy.
fn without_zone(text: &str) -> Option<IpAddr> {
    match text.split_once('%') {
        Some((address, _)) => address.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// An IPv6 client owns at least a /64, so the /64 is counted: otherwise a client could evade the limit by changing its
/// address.
fn bucket(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

impl CountBy for ByClient {
    type Key = IpAddr;

    fn key(&self, request: &ServiceRequest) -> IpAddr {
        let peer = request.peer_addr().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.ip());
        let name = HeaderName::from_static("x-forwarded-for");
        // As bytes: one that is not text spoils its own hop only, not those that a proxy added to the same line.
        let lines: Vec<&[u8]> = request.headers().get_all(name).map(HeaderValue::as_bytes).collect();
        let (client, unknown) = self.client(peer, &lines);
        if let Some(unknown) = unknown {
            self.report(unknown, client);
        }
        bucket(client)
    }

    fn name(key: &IpAddr) -> String {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::config::RateLimit;
    use crate::infra::http::LimitPolicy;
    use crate::infra::http::rate_limit::Limiter;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, HttpResponse, web};
    use std::num::NonZeroU32;
    use std::time::Duration;

    fn by_client(trusted: &str) -> ByClient {
        let trusted = crate::infra::config::parse::networks(trusted).expect("networks");
        ByClient::new(&trusted, &Metrics::try_new().expect("metrics"), Logger::root(slog::Discard, slog::o!()))
    }

    fn found(trusted: &str, peer: &str, lines: &[&str]) -> (String, Option<Unknown>) {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let (client, unknown) = by_client(trusted).client(peer.parse().expect("peer"), &lines);
        (client.to_string(), unknown)
    }

    fn client(trusted: &str, peer: &str, lines: &[&str]) -> String {
        let (client, unknown) = found(trusted, peer, lines);
        assert_eq!(unknown, None, "{lines:?}");
        client
    }

    #[test]
    fn a_forwarded_address_is_trusted_from_a_trusted_proxy_only() {
        assert_eq!(client("", "1.2.3.4", &["9.9.9.9"]), "1.2.3.4");
        assert_eq!(client("", "1.2.3.4", &[]), "1.2.3.4");
        assert_eq!(client("10.0.0.0/8", "1.2.3.4", &["9.9.9.9"]), "1.2.3.4");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        // A network in the notation of an IPv6 socket is the IPv4 network.
        assert_eq!(client("::ffff:10.0.0.0/104", "10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("10.0.0.0/8", "::ffff:10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
    }

    #[test]
    fn an_address_that_the_client_forged_before_the_proxy_is_not_trusted() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.2"]), "9.9.9.9");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["6.6.6.6", "9.9.9.9"]), "9.9.9.9");
        for forged in ["nonsense", "", ",", "6.6.6.6:1:2", "\"", "[", "\u{fffd}"] {
            assert_eq!(client("10.0.0.0/8", "10.0.0.1", &[&format!("{forged}, 9.9.9.9")]), "9.9.9.9", "{forged:?}");
        }
    }

    #[test]
    fn the_address_is_read_however_a_proxy_writes_it() {
        for (written, read) in [
            ("203.0.113.5:5112", "203.0.113.5"),
            ("203.0.113.5:", "203.0.113.5"),
            (" \t203.0.113.5 \t", "203.0.113.5"),
            ("\"203.0.113.5\"", "203.0.113.5"),
            ("\" 203.0.113.5:5112 \"", "203.0.113.5"),
            ("203.0.113.5,", "203.0.113.5"),
            (",203.0.113.5, ,\t,", "203.0.113.5"),
            ("::ffff:203.0.113.5", "203.0.113.5"),
            ("[::ffff:203.0.113.5]:5112", "203.0.113.5"),
            ("::ffff:203.0.113.5:5112", "203.0.113.5"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("2001:DB8:1:2:3:4:5:6:443", "2001:db8:1:2:3:4:5:6"),
            ("fe80::1%eth0", "fe80::1"),
            ("fe80::1%25eth0", "fe80::1"),
            ("[fe80::1%eth0]:443", "fe80::1"),
        ] {
            assert_eq!(client("10.0.0.0/8", "10.0.0.1", &[written]), read, "{written:?}");
        }
    }

    #[test]
    fn a_proxy_that_does_not_report_its_client_counts_as_the_client() {
        let nearest = |lines: &[&str]| found("10.0.0.0/8", "10.0.0.1", lines);
        for unreadable in ["unknown", "_hidden", "unix:", "203.0.113", "[2001:db8::1", "[2001:db8::1]5", "1.2.3.4%eth0"]
        {
            let expected = ("10.0.0.1".to_owned(), Some(Unknown::Unreadable));
            assert_eq!(nearest(&[unreadable]), expected, "{unreadable}");
            assert_eq!(nearest(&["6.6.6.6", unreadable]), expected, "what is before {unreadable} is not trusted");
        }
        assert_eq!(nearest(&["6.6.6.6, unknown, 10.0.0.7"]), ("10.0.0.7".to_owned(), Some(Unknown::Unreadable)));
        for lines in [&[][..], &[""], &[" , ,"], &["", ","]] {
            assert_eq!(nearest(lines), ("10.0.0.1".to_owned(), Some(Unknown::Missing)), "{lines:?}");
        }
        // A client inside of a trusted network has an address of its own.
        assert_eq!(nearest(&["10.0.0.9"]), ("10.0.0.9".to_owned(), None));
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_listener_has_its_own_count() {
        let of = |peer: &str| bucket(peer.parse::<IpAddr>().expect("peer").to_canonical()).to_string();
        assert_eq!(of("::ffff:1.2.3.4"), "1.2.3.4");
        assert_ne!(of("::ffff:1.2.3.4"), of("::ffff:1.2.3.5"));
        assert_eq!(of("2001:db8:1:2:aaaa::1"), of("2001:db8:1:2:bbbb::2"));
    }

    #[actix_web::test]
    async fn ipv4_clients_of_an_ipv6_listener_do_not_share_a_count_and_addresses_of_one_64_do() {
        let limit = RateLimit { max: NonZeroU32::MIN, window: Duration::from_hours(1) };
        let policy = LimitPolicy { name: "test", limit };
        let limiter = Limiter::new(by_client(""), policy, true).expect("a limit");
        let route = limiter.around(web::get().to(HttpResponse::Ok));
        let app = init_service(App::new().service(web::resource("/").route(route))).await;
        for (peer, status) in [
            ("[::ffff:192.0.2.1]:1", 200),
            ("[::ffff:192.0.2.2]:1", 200),
            ("[::ffff:192.0.2.1]:2", 429),
            ("192.0.2.1:3", 429),
            ("192.0.2.3:3", 200),
            ("[2001:db8:0:1::1]:1", 200),
            ("[2001:db8:0:1:ffff::2]:1", 429),
            ("[2001:db8:0:2::1]:1", 200),
        ] {
            let request = TestRequest::get().peer_addr(peer.parse().expect("peer")).to_request();
            assert_eq!(call_service(&app, request).await.status().as_u16(), status, "{peer}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_changes_the_count_of_a_client_whose_address_a_proxy_reported(line in proptest::collection::vec(0_u8.., 0..60)) {
            let by_client = by_client("10.0.0.0/8");
            let reported = [&line, &b", 9.9.9.9"[..]].concat();
            let peer = "10.0.0.1".parse().expect("peer");
            let client = ("9.9.9.9".parse().expect("address"), None);
            proptest::prop_assert_eq!(by_client.client(peer, &[&reported]), client);
            proptest::prop_assert_eq!(by_client.client(peer, &[&line, b"9.9.9.9"]), client);
        }
    }
}
