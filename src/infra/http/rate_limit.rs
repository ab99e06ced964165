//! Rate limits: by client IP before authentication, by user after it.
//!
//! GCRA: `max` requests at once, then one more every `window / max`. Counts belong to this process, or are shared by all
//! processes of the role ([`SharedLimit`]) with those of this process as the fallback.

use std::convert::Infallible;
use std::fmt;
use std::hash::Hash;
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
    use std::net::IpAddr;
    use std::num::NonZeroU32;
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
        Limiter::new(ByPeer, RateLimit { max, window }, true).expect("a limit")
    }

    #[test]
    fn a_sweep_removes_only_the_counts_of_clients_that_are_no_longer_limited() {
        let (short, long) = (limiter(1, Duration::from_millis(10)), limiter(1, Duration::from_hours(1)));
        for n in 0..1000 {
            let client = Some(IpAddr::from(std::net::Ipv4Addr::from_bits(n)));
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
