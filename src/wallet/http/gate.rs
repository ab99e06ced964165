//! The gate: an endpoint behind it does not run for a user without a wallet, and its handler gets a [`ReadyWallet`].

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, Route, web};

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Authenticated};
use crate::infra::metrics::{MetricName, Metrics};
use crate::kernel::{Timestamp, UserId};
use crate::wallet::application::await_wallet::AwaitWallet;

const RETRY_AFTER_S: u64 = 2;

const CLOSED: MetricName = MetricName {
    name: "purse_gate_closed_seconds",
    help: "Longest time between the first and the last WALLET_PROVISIONING response to one user, among users who got one in the last 5 minutes and have no wallet yet; 0 without such users.",
};
/// A user who has not asked for this long no longer counts.
const RECENT: Duration = Duration::from_mins(5);
/// How many users are watched at once, so that memory is bounded. With more, new ones are not watched.
const WATCHED_MAX: usize = 10_000;

/// Distinguishes users with a wallet from users without one, and measures for how long the latter have been rejected.
pub struct Gate {
    wallets: AwaitWallet,
    closed: Arc<Closed>,
}

impl Gate {
    pub fn new(wallets: AwaitWallet, metrics: &Metrics) -> Self {
        let closed = Arc::new(Closed::default());
        let (gauge, shown) = (metrics.gauge(CLOSED, &[]), Arc::clone(&closed));
        metrics.on_scrape(move || gauge.set(shown.longest(Instant::now()).as_secs_f64()));
        Self { wallets, closed }
    }

    /// Lets a user pass who has a wallet. A wallet that was found before is assumed to exist.
    async fn check(&self, user: UserId) -> Result<ReadyWallet, ApiError> {
        let is_ready = self.has_wallet(user).await?;
        self.decide(user, is_ready.then_some(ReadyWallet { user_id: user }))
    }

    /// Whether somebody whom a request names has a wallet.
    pub(super) async fn has_wallet(&self, user: UserId) -> Result<bool, ApiError> {
        self.wallets.is_ready(user).await.map_err(|e| ApiError::from_failure(&e))
    }

    /// When the wallet was created, after waiting for it up to `wait_max`.
    pub(super) async fn created_at(&self, user: UserId, wait_max: Duration) -> Result<Timestamp, ApiError> {
        let found = self.wallets.execute(user, wait_max).await.map_err(|e| ApiError::from_failure(&e))?;
        self.decide(user, found)
    }

    /// Looks up the wallet of a user whose ledger is empty. Such a wallet is gone if the database was restored from a backup
    /// that is older than the wallet.
    pub(super) async fn confirm(&self, wallet: ReadyWallet) -> Result<(), ApiError> {
        self.created_at(wallet.user_id, Duration::ZERO).await.map(drop)
    }

    fn decide<T>(&self, user: UserId, found: Option<T>) -> Result<T, ApiError> {
        if found.is_some() {
            self.closed.remove(user);
        } else {
            self.closed.add(user, Instant::now());
        }
        found.ok_or_else(provisioning)
    }
}

/// When a user was first and last rejected.
struct Rejections {
    first: Instant,
    last: Instant,
}

/// The users who are rejected at the moment.
#[derive(Default)]
struct Closed(Mutex<HashMap<UserId, Rejections>>);

impl Closed {
    fn users(&self) -> MutexGuard<'_, HashMap<UserId, Rejections>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, user: UserId, now: Instant) {
        let mut users = self.users();
        if users.len() >= WATCHED_MAX {
            forget_old(&mut users, now);
        }
        if users.len() < WATCHED_MAX || users.contains_key(&user) {
            users.entry(user).or_insert(Rejections { first: now, last: now }).last = now;
        }
    }

    fn remove(&self, user: UserId) {
        self.users().remove(&user);
    }

    fn longest(&self, now: Instant) -> Duration {
        let mut users = self.users();
        forget_old(&mut users, now);
        users.values().map(|user| user.last.duration_since(user.first)).max().unwrap_or_default()
    }
}

fn forget_old(users: &mut HashMap<UserId, Rejections>, now: Instant) {
    users.retain(|_, user| now.duration_since(user.last) < RECENT);
}

/// Proof that the user of the token has a wallet. Only the gate creates one.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadyWallet {
    pub(super) user_id: UserId,
}

pub(super) fn provisioning() -> ApiError {
    let message = "Wallet is being provisioned. Retry shortly.";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "WALLET_PROVISIONING", message).retry_after_s(RETRY_AFTER_S)
}

/// Puts an endpoint behind the gate.
pub(super) fn gated<Api: 'static>(endpoint: Endpoint<Api>) -> Endpoint<Api> {
    endpoint
        .guarded(|route: Route| route.wrap(from_fn(pass)))
        .errors([provisioning(), ApiError::dependency_unavailable()])
}

/// Middleware: responds with 503 unless the user of the token has a wallet.
async fn pass(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, Error> {
    match ready_wallet(&mut request).await {
        Ok(ready) => {
            request.extensions_mut().insert(ready);
            next.call(request).await.map(ServiceResponse::map_into_left_body)
        }
        Err(refused) => Ok(request.error_response(refused).map_into_right_body()),
    }
}

async fn ready_wallet(request: &mut ServiceRequest) -> Result<ReadyWallet, ApiError> {
    let user_id = request.extract::<Authenticated>().await?.user_id();
    let gate = request.app_data::<web::Data<Gate>>().cloned().ok_or_else(ApiError::internal)?;
    gate.check(user_id).await
}

impl FromRequest for ReadyWallet {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // Absent only if the endpoint is not behind the gate, which is a bug.
        ready(request.extensions().get::<Self>().copied().ok_or_else(ApiError::internal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn the_longest_rejection_counts_until_the_wallet_exists_or_the_user_stops_asking() {
        let (closed, began) = (Closed::default(), Instant::now());
        let at = |second| began + Duration::from_secs(second);
        assert_eq!(closed.longest(at(0)), Duration::ZERO);
        for (number, second) in [(1, 0), (2, 100), (1, 240), (2, 290), (3, 295)] {
            closed.add(user(number), at(second));
        }
        assert_eq!(closed.longest(at(300)), Duration::from_mins(4));
        closed.remove(user(1));
        assert_eq!(closed.longest(at(300)), Duration::from_secs(190));
        assert_eq!(closed.longest(at(589)), Duration::from_secs(190), "user 2 was rejected 299 s ago");
        assert_eq!(closed.longest(at(590)), Duration::ZERO, "and now 300 s ago");
        assert_eq!(closed.users().len(), 1);
    }

    #[test]
    fn the_number_of_watched_users_is_bounded_and_those_who_stopped_asking_make_room() {
        let (closed, began) = (Closed::default(), Instant::now());
        for number in 0..=10_000 {
            closed.add(user(number), began);
        }
        assert_eq!(closed.users().len(), WATCHED_MAX);
        closed.add(user(0), began + Duration::from_mins(1));
        assert_eq!(closed.longest(began + Duration::from_mins(1)), Duration::from_mins(1), "still watched");
        closed.add(user(20_000), began + RECENT);
        assert_eq!(closed.users().len(), 2);
    }
}
