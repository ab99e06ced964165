//! Rate limits: by client IP before authentication, by user after it.
//!
//! GCRA: `max` requests at once, then one more every `window / max`. Counts belong to this process, or are shared by all
//! processes of the role ([`SharedLimit`]) with those of this process as the fallback.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use actix_governor::governor::clock::{Clock as _, DefaultClock};
use actix_governor::governor::middleware::StateInformationMiddleware;
use actix_governor::governor::state::keyed::DefaultKeyedStateStore;
use actix_governor::governor::{Quota, RateLimiter};
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderName;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpMessage as _, Route};
use ipnet::IpNet;

use crate::infra::http::limit_policy::LimitPolicy;
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

type Counts<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// A rate limit and its counts, for all threads of the process.
pub struct Limiter<T: CountBy> {
    own: Arc<Counts<T::Key>>,
    by: T,
    policy: LimitPolicy,
    shared: Option<SharedLimit>,
    enabled: bool,
}

impl<T: CountBy> Clone for Limiter<T> {
    fn clone(&self) -> Self {
        let Self { own, by, policy, shared, enabled } = self;
        Self { own: Arc::clone(own), by: by.clone(), policy: *policy, shared: shared.clone(), enabled: *enabled }
    }
}

impl<T: CountBy + Send + Sync> Sweep for Limiter<T>
where
    T::Key: Send + Sync,
{
    fn sweep(&self) {
        self.own.retain_recent();
        self.own.shrink_to_fit();
    }
}

impl<T: CountBy> Limiter<T> {
    /// Counts nothing unless `enabled`. `None` for a window of zero, which the configuration rules out.
    pub fn new(by: T, policy: LimitPolicy, enabled: bool) -> Option<Self> {
        let LimitPolicy { limit, .. } = policy;
        let quota = Quota::with_period(limit.window / limit.max.get())?.allow_burst(limit.max);
        let own = Arc::new(RateLimiter::keyed(quota).with_middleware());
        Some(Self { own, by, policy, shared: None, enabled })
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
        let limiter = Arc::new(self.clone());
        route.wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
            let limiter = Arc::clone(&limiter);
            async move { limiter.limit(request, next).await }
        }))
    }

    async fn limit(&self, request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
        match self.count(self.by.key(&request)).await {
            Err(refusal) => Ok(request.error_response(refusal)),
            Ok(remaining) => {
                let mut response = next.call(request).await?;
                self.policy.add_to(response.headers_mut(), remaining);
                Ok(response)
            }
        }
    }

    /// Counts a request and returns how many are left: by the shared count, or by the count of this process if there is none or
    /// it is unreachable.
    async fn count(&self, key: T::Key) -> Result<u32, ApiError> {
        let shared = match &self.shared {
            Some(shared) => shared.count(&T::name(&key)).await?,
            None => None,
        };
        // Also counted here, so that the limit does not restart when the shared counts become unreachable.
        let own = self.own.check_key(&key);
        match (shared, own) {
            (Some(remaining), _) => Ok(remaining),
            (None, Ok(state)) => Ok(state.remaining_burst_capacity()),
            (None, Err(until)) => {
                Err(ApiError::rate_limited(&self.policy, until.wait_time_from(self.own.clock().now())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::config::RateLimit;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, HttpResponse, web};
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
        let policy = LimitPolicy { name: "test", limit: RateLimit { max, window } };
        Limiter::new(ByClient::new(&[]), policy, true).expect("a limit")
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
            assert!(short.own.check_key(&client).is_ok() && long.own.check_key(&client).is_ok());
        }
        let until = Instant::now() + Duration::from_mins(1);
        while !short.own.is_empty() {
            short.sweep();
            assert!(Instant::now() < until, "{} are left", short.own.len());
        }
        long.sweep();
        assert_eq!(long.own.len(), 1000);
    }
}
