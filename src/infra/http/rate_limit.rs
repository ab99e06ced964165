//! Rate limits: by client IP before authentication, by user or service after it.
//!
//! A request counts once, or as many times as its handler says ([`Tally`]).
//!
//! GCRA: `max` requests at once, then one more every `window / max`. Counts belong to this process, or are shared by all
//! processes of the role ([`SharedLimit`]) with those of this process as the fallback.

use std::cell::Cell;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use actix_governor::governor::clock::{Clock as _, DefaultClock};
use actix_governor::governor::middleware::StateInformationMiddleware;
use actix_governor::governor::state::keyed::DefaultKeyedStateStore;
use actix_governor::governor::{Quota, RateLimiter};
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpMessage as _, Route};

use crate::infra::http::authenticate::{Authenticated, AuthenticatedService};
use crate::infra::http::limit_policy::LimitPolicy;
use crate::infra::http::{ApiError, SharedLimit, Sweep};
use crate::kernel::{ServiceName, UserId};

/// What requests are counted by.
pub trait CountBy: Clone + 'static {
    /// One count per key.
    type Key: Clone + Hash + Eq + fmt::Debug;

    /// Never fails: a request without a key shares a common one.
    fn key(&self, request: &ServiceRequest) -> Self::Key;

    /// The key as a text, the same in every process.
    fn name(key: &Self::Key) -> String;
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

/// By the service of the token; for routes inside of the authentication middleware.
#[derive(Clone, Copy)]
pub struct ByService;

impl CountBy for ByService {
    type Key = Option<ServiceName>;

    fn key(&self, request: &ServiceRequest) -> Option<ServiceName> {
        request.extensions().get::<AuthenticatedService>().map(|service| service.name().clone())
    }

    fn name(key: &Option<ServiceName>) -> String {
        key.as_ref().map_or_else(String::new, ToString::to_string)
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

    /// Limits a route whose handler counts each request itself, with the [`Tally`] in the extensions of the request.
    pub fn around_tally(&self, route: Route) -> Route {
        let limiter = Arc::new(self.clone());
        route.wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
            let tally =
                Tally { key: limiter.by.key(&request), limiter: Arc::clone(&limiter), remaining: Rc::default() };
            async move {
                request.extensions_mut().insert(tally.clone());
                let mut response = next.call(request).await?;
                if let Some(remaining) = tally.remaining.get() {
                    tally.limiter.policy.add_to(response.headers_mut(), remaining);
                }
                Ok(response)
            }
        }))
    }

    async fn limit(&self, request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
        match self.count(self.by.key(&request), NonZeroU32::MIN).await {
            Err(refusal) => Ok(request.error_response(refusal)),
            Ok(remaining) => {
                let mut response = next.call(request).await?;
                self.policy.add_to(response.headers_mut(), remaining);
                Ok(response)
            }
        }
    }

    /// Counts `units` requests at once, or none of them, and returns how many are left: by the shared count, or by the count of
    /// this process if there is none or it is unreachable.
    async fn count(&self, key: T::Key, units: NonZeroU32) -> Result<u32, ApiError> {
        let shared = match &self.shared {
            Some(shared) => shared.count(&T::name(&key), units).await?,
            None => None,
        };
        // Also counted here, so that the limit does not restart when the shared counts become unreachable.
        // More than the limit allows at once would never be admitted; callers check that before.
        let own = self.own.check_key_n(&key, units).map_err(|_| ApiError::internal())?;
        match (shared, own) {
            (Some(remaining), _) => Ok(remaining),
            (None, Ok(state)) => Ok(state.remaining_burst_capacity()),
            (None, Err(until)) => {
                Err(ApiError::rate_limited(&self.policy, units, until.wait_time_from(self.own.clock().now())))
            }
        }
    }
}

/// Counts a request as many times as its handler says.
#[derive(Clone)]
pub struct Tally<T: CountBy> {
    limiter: Arc<Limiter<T>>,
    key: T::Key,
    /// Once it was counted.
    remaining: Rc<Cell<Option<u32>>>,
}

impl<T: CountBy> Tally<T> {
    /// The most that a request may count at once. `None` if nothing is limited.
    pub fn max(&self) -> Option<u32> {
        self.limiter.enabled.then(|| self.limiter.policy.limit.max.get())
    }

    /// Counts `units`, at most [`max`](Self::max), or nothing.
    ///
    /// # Errors
    /// 429 `RATE_LIMITED`.
    pub async fn count(&self, units: NonZeroU32) -> Result<(), ApiError> {
        if self.limiter.enabled {
            self.remaining.set(Some(self.limiter.count(self.key.clone(), units).await?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::config::RateLimit;
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    /// By the address of the peer.
    #[derive(Clone)]
    struct ByPeer;

    impl CountBy for ByPeer {
        type Key = Option<IpAddr>;

        fn key(&self, request: &ServiceRequest) -> Option<IpAddr> {
            request.peer_addr().map(|peer| peer.ip())
        }

        fn name(key: &Option<IpAddr>) -> String {
            format!("{key:?}")
        }
    }

    fn limiter(max: u32, window: Duration) -> Limiter<ByPeer> {
        let max = NonZeroU32::new(max).expect("not zero");
        let policy = LimitPolicy { name: "test", limit: RateLimit { max, window } };
        Limiter::new(ByPeer, policy, true).expect("a limit")
    }

    #[test]
    fn a_sweep_removes_only_the_counts_of_clients_that_are_no_longer_limited() {
        let (short, long) = (limiter(1, Duration::from_millis(10)), limiter(1, Duration::from_hours(1)));
        for n in 0..1000 {
            let client = Some(IpAddr::from(std::net::Ipv4Addr::from_bits(n)));
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
