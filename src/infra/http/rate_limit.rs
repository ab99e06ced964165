//! Rate limits: by client IP before authentication, by user after it.
//!
//! GCRA: `max` requests at once, then one more every `window / max`. Counts belong to this process, or are shared by all
//! processes of the role ([`SharedLimit`]) with those of this process as the fallback.

use std::convert::Infallible;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use actix_governor::governor::NotUntil;
use actix_governor::governor::clock::{Clock as _, DefaultClock, QuantaInstant};
use actix_governor::governor::middleware::StateInformationMiddleware;
use actix_governor::{Governor, GovernorConfig, GovernorConfigBuilder, KeyExtractor};
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderName;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpMessage as _, HttpResponse, HttpResponseBuilder, ResponseError, Route};
use ipnet::IpNet;

use crate::infra::config::RateLimit;
use crate::infra::http::{ApiError, Authenticated, SharedLimit, Sweep};
use crate::kernel::UserId;

/// What requests are counted by.
pub trait CountBy: Clone + 'static {
    /// One count per key.
    type Key: Clone + Hash + Eq + fmt::Debug;

    /// Never fails: a request without a key shares a common one.
    fn key(&self, request: &ServiceRequest) -> Self::Key;

    /// The key as a text, the same in every process.
    fn name(key: &Self::Key) -> String;
}

/// By client IP, as reported by trusted proxies.
#[derive(Clone)]
pub struct ByClient {
    trusted: Arc<[IpNet]>,
}

impl ByClient {
    /// Trusts `X-Forwarded-For` from these networks only.
    pub fn new(trusted: &[IpNet]) -> Self {
        Self { trusted: trusted.into() }
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The peer, or behind trusted proxies the nearest forwarded address that is not one of them.
    fn client(&self, peer: IpAddr, forwarded: &[&str]) -> IpAddr {
        let mut client = peer.to_canonical();
        // The nearest hop is last, across all headers of that name.
        let hops = forwarded.iter().flat_map(|line| line.split(',')).map(str::trim).collect::<Vec<_>>();
        for hop in hops.into_iter().rev() {
            if !self.is_trusted(client) {
                break;
            }
            match hop.parse::<IpAddr>() {
                Ok(address) => client = address.to_canonical(),
                // Not written by a trusted proxy, so neither it nor what comes before it is trusted.
                Err(_) => break,
            }
        }
        client
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
        let forwarded: Vec<&str> = request.headers().get_all(name).filter_map(|v| v.to_str().ok()).collect();
        bucket(self.client(peer, &forwarded))
    }

    fn name(key: &IpAddr) -> String {
        key.to_string()
    }
}

/// By the user of the access token; for routes inside of the authentication middleware.
#[derive(Clone, Copy)]
pub struct BySubject;

impl CountBy for BySubject {
    type Key = Option<UserId>;

    fn key(&self, request: &ServiceRequest) -> Option<UserId> {
        request.extensions().get::<Authenticated>().map(|user| user.user_id())
    }

    fn name(key: &Option<UserId>) -> String {
        key.map_or_else(String::new, |user| user.to_string())
    }
}

/// A rate limit and its counts, for all threads of the process.
pub struct Limiter<T: CountBy> {
    own: GovernorConfig<Extractor<T>, StateInformationMiddleware>,
    by: T,
    shared: Option<SharedLimit>,
    enabled: bool,
}

impl<T: CountBy> Clone for Limiter<T> {
    fn clone(&self) -> Self {
        Self { own: self.own.clone(), by: self.by.clone(), shared: self.shared.clone(), enabled: self.enabled }
    }
}

impl<T: CountBy + Send + Sync> Sweep for Limiter<T>
where
    T::Key: Send + Sync,
{
    fn sweep(&self) {
        let limiter = self.own.limiter();
        limiter.retain_recent();
        limiter.shrink_to_fit();
    }
}

impl<T: CountBy> Limiter<T> {
    /// Counts nothing unless `enabled`. `None` for a window of zero, which [`RateLimit`] rules out.
    pub fn new(by: T, limit: RateLimit, enabled: bool) -> Option<Self> {
        let own = GovernorConfigBuilder::default()
            .key_extractor(Extractor { by: by.clone(), limit, clock: DefaultClock::default() })
            .period(limit.window / limit.max.get())
            .burst_size(limit.max.get())
            .use_headers()
            .finish()?;
        Some(Self { own, by, shared: None, enabled })
    }

    /// The same limit, counted together with the other processes of the role.
    #[must_use]
    pub fn sharing(mut self, shared: Option<SharedLimit>) -> Self {
        self.shared = shared;
        self
    }

    /// Limits a route.
    pub fn around(&self, route: Route) -> Route {
        if !self.enabled {
            return route;
        }
        let Some(shared) = self.shared.clone() else { return route.wrap(Governor::new(&self.own)) };
        let limiter = Arc::new((self.clone(), shared));
        route.wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
            let limiter = Arc::clone(&limiter);
            async move { limiter.0.limit_shared(&limiter.1, request, next).await }
        }))
    }

    /// Limits a request by the shared count, or by the count of this process while that is unreachable.
    async fn limit_shared(
        &self,
        shared: &SharedLimit,
        request: ServiceRequest,
        next: Next<BoxBody>,
    ) -> Result<ServiceResponse<BoxBody>, Error> {
        let key = self.by.key(&request);
        let remaining = match shared.count(&T::name(&key)).await {
            Ok(Some(remaining)) => {
                // Also counted here, so that the limit does not restart when the shared counts become unreachable.
                let _ = self.own.limiter().check_key(&key);
                Ok(remaining)
            }
            Ok(None) => match self.own.limiter().check_key(&key) {
                Ok(state) => Ok(state.remaining_burst_capacity()),
                Err(until) => {
                    Err(ApiError::rate_limited(shared.limit, until.wait_time_from(self.own.limiter().clock().now())))
                }
            },
            Err(refusal) => Err(refusal),
        };
        match remaining {
            Err(refusal) => Ok(request.error_response(refusal)),
            Ok(remaining) => {
                let mut response = next.call(request).await?;
                let headers = response.headers_mut();
                let (limit_name, remaining_name) = ("ratelimit-limit", "ratelimit-remaining");
                // Headers that are present belong to an inner limit that has rejected the request.
                if !headers.contains_key(limit_name) {
                    headers.insert(HeaderName::from_static(limit_name), shared.limit.max.get().into());
                    headers.insert(HeaderName::from_static(remaining_name), remaining.into());
                }
                Ok(response)
            }
        }
    }
}

/// The key and the error response, for actix-governor.
#[derive(Clone)]
pub struct Extractor<T> {
    by: T,
    limit: RateLimit,
    /// Kept, because creating one executes CPUID, which traps in a virtual machine: tens of microseconds.
    clock: DefaultClock,
}

/// Cannot occur: every request has a key.
#[derive(Debug)]
pub struct KeyError(Infallible);

impl fmt::Display for KeyError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl ResponseError for KeyError {
    fn status_code(&self) -> StatusCode {
        match self.0 {}
    }
}

impl<T: CountBy> KeyExtractor for Extractor<T> {
    type Key = T::Key;
    type KeyExtractionError = KeyError;

    fn extract(&self, request: &ServiceRequest) -> Result<T::Key, KeyError> {
        Ok(self.by.key(request))
    }

    fn exceed_rate_limit_response(&self, until: &NotUntil<QuantaInstant>, _: HttpResponseBuilder) -> HttpResponse {
        ApiError::rate_limited(self.limit, until.wait_time_from(self.clock.now())).error_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, web};
    use std::num::NonZeroU32;
    use std::time::{Duration, Instant};

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let trusted = crate::infra::config::parse::networks(trusted).expect("networks");
        ByClient::new(&trusted).client(peer.parse().expect("peer"), forwarded).to_string()
    }

    #[test]
    fn a_forwarded_address_is_trusted_from_a_trusted_proxy_only() {
        assert_eq!(client("", "1.2.3.4", &["9.9.9.9"]), "1.2.3.4");
        assert_eq!(client("10.0.0.0/8", "1.2.3.4", &["9.9.9.9"]), "1.2.3.4");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
    }

    #[test]
    fn an_address_that_the_client_forged_before_the_proxy_is_not_trusted() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.2"]), "9.9.9.9");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["6.6.6.6", "9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["6.6.6.6, nonsense"]), "10.0.0.1");
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_listener_has_its_own_count() {
        let of = |peer: &str| bucket(peer.parse::<IpAddr>().expect("peer").to_canonical()).to_string();
        assert_eq!(of("::ffff:1.2.3.4"), "1.2.3.4");
        assert_ne!(of("::ffff:1.2.3.4"), of("::ffff:1.2.3.5"));
        assert_eq!(of("2001:db8:1:2:aaaa::1"), of("2001:db8:1:2:bbbb::2"));
    }

    fn limiter(max: u32, window: Duration) -> Limiter<ByClient> {
        let max = NonZeroU32::new(max).expect("not zero");
        Limiter::new(ByClient::new(&[]), RateLimit { max, window }, true).expect("a limit")
    }

    #[actix_web::test]
    async fn ipv4_clients_of_an_ipv6_listener_do_not_share_a_count_and_addresses_of_one_64_do() {
        let limiter = limiter(1, Duration::from_hours(1));
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

    #[test]
    fn a_sweep_removes_only_the_counts_of_clients_that_are_no_longer_limited() {
        let (short, long) = (limiter(1, Duration::from_millis(10)), limiter(1, Duration::from_hours(1)));
        for n in 0..1000 {
            let client = IpAddr::from(std::net::Ipv4Addr::from_bits(n));
            assert!(short.own.limiter().check_key(&client).is_ok() && long.own.limiter().check_key(&client).is_ok());
        }
        let until = Instant::now() + Duration::from_mins(1);
        while !short.own.limiter().is_empty() {
            short.sweep();
            assert!(Instant::now() < until, "{} are left", short.own.limiter().len());
        }
        long.sweep();
        assert_eq!(long.own.limiter().len(), 1000);
    }
}
