//! The gate: an endpoint behind it does not run for a user without a wallet, and its handler gets a [`ReadyWallet`]. The user
//! is that of the token, or the one on whose behalf a service sends the request.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, Route, web};

use crate::infra::http::openapi::{Endpoint, USER_ID};
use crate::infra::http::{ApiError, Authenticated, AuthenticatedService, CountBy, Limiter, OnBehalfOf};
use crate::infra::metrics::{MetricName, Metrics};
use crate::kernel::{DependencyError, IdempotencyKey, SelfPost, ServiceName, Timestamp, UserId};
use crate::wallet::application::await_wallet::AwaitWallet;
use crate::wallet::domain::{Draft, OneOrMore, Posting};

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
    self_post: SelfPost,
    closed: Arc<Closed>,
}

impl Gate {
    pub fn new(wallets: AwaitWallet, self_post: SelfPost, metrics: &Metrics) -> Self {
        let closed = Arc::new(Closed::default());
        let (gauge, shown) = (metrics.gauge(CLOSED, &[]), Arc::clone(&closed));
        metrics.on_scrape(move || gauge.set(shown.longest(Instant::now()).as_secs_f64()));
        Self { wallets, self_post, closed }
    }

    /// Lets a request pass whose user has a wallet. A wallet that was found before is assumed to exist.
    async fn check(&self, user_id: UserId, posted_by: Option<ServiceName>) -> Result<ReadyWallet, ApiError> {
        let is_ready = self.has_wallet(user_id).await?;
        let wallet = ReadyWallet { user_id, posted_by, self_post: self.self_post };
        if wallet.posted_by.is_some() {
            return if is_ready { Ok(wallet) } else { Err(wallet_not_found()) };
        }
        self.decide(user_id, is_ready.then_some(wallet))
    }

    /// Whether a user whom a request names has a wallet.
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
    pub(super) async fn confirm(&self, wallet: &ReadyWallet) -> Result<(), ApiError> {
        if wallet.posted_by.is_none() {
            return self.created_at(wallet.user_id, Duration::ZERO).await.map(drop);
        }
        let found = self.wallets.execute(wallet.user_id, Duration::ZERO).await;
        found.map_err(|e| ApiError::from_failure(&e))?.map(drop).ok_or_else(wallet_not_found)
    }

    /// What a query has found in the wallet. Without it, the wallet itself may be gone.
    ///
    /// # Errors
    /// `absent` if the wallet exists; else those of [`confirm`](Self::confirm).
    pub(super) async fn found<T>(
        &self,
        wallet: &ReadyWallet,
        found: Result<Option<T>, DependencyError>,
        absent: fn() -> ApiError,
    ) -> Result<T, ApiError> {
        if let Some(found) = found.map_err(|e| ApiError::from_failure(&e))? {
            return Ok(found);
        }
        self.confirm(wallet).await?;
        Err(absent())
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

/// Proof that the user has a wallet. Only the gate creates one.
#[derive(Clone, Debug)]
pub(super) struct ReadyWallet {
    pub(super) user_id: UserId,
    /// The service that sends the request on behalf of the user.
    pub(super) posted_by: Option<ServiceName>,
    self_post: SelfPost,
}

impl ReadyWallet {
    /// What the request posts: in the name of its service, or with the permissions of its user. Every endpoint that writes to
    /// the ledger gets its posting from here.
    pub(super) fn posting(&self, drafts: OneOrMore<Draft>, key: Option<IdempotencyKey>) -> Posting {
        let (posted_by, self_post) = (self.posted_by.clone(), self.self_post);
        Posting { posted_by, self_post, ..Posting::new(self.user_id, drafts, key) }
    }

    /// The path under which the sender of the request finds what is at `/v1` and `rest` for the user.
    pub(super) fn path(&self, rest: &str) -> String {
        match &self.posted_by {
            None => format!("/v1{rest}"),
            Some(_) => format!("/v1/wallets/{}{rest}", self.user_id),
        }
    }

    /// The response if the wallet is gone after all.
    pub(super) fn missing(&self) -> ApiError {
        if self.posted_by.is_some() { wallet_not_found() } else { provisioning() }
    }
}

pub(super) fn provisioning() -> ApiError {
    let message = "Wallet is being provisioned. Retry shortly.";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "WALLET_PROVISIONING", message).retry_after_s(RETRY_AFTER_S)
}

/// Also for an id that is not a UUID. A service may ask for any user, so a missing wallet does not mean that one is coming.
fn wallet_not_found() -> ApiError {
    let message = "This user has no wallet. Wallets are created shortly after the registration.";
    ApiError::new(StatusCode::NOT_FOUND, "WALLET_NOT_FOUND", message)
}

/// What only services may do.
pub(super) fn not_allowed() -> ApiError {
    let message = "Users may not do this themselves. A service does it on their behalf.";
    ApiError::new(StatusCode::FORBIDDEN, "NOT_ALLOWED", message)
}

/// An endpoint behind the gate, not yet for anyone.
pub(super) struct GatedEndpoint<Api> {
    endpoint: Endpoint<Api>,
    is_for_services: bool,
}

impl<Api: 'static> GatedEndpoint<Api> {
    /// The endpoint is served a second time, under `/v1/wallets/{userId}`.
    #[must_use]
    pub(super) fn also_for_services(self) -> Self {
        Self { is_for_services: true, ..self }
    }

    pub(super) fn for_users(self) -> Endpoint<Api> {
        let writes = !self.endpoint.is_read();
        self.endpoint.errors([provisioning()]).errors(writes.then(not_allowed))
    }

    /// `None` unless it is also for services.
    pub(super) fn for_services<T: CountBy>(self, limiter: fn(&Api) -> Option<&Limiter<T>>) -> Option<Endpoint<Api>> {
        let Self { endpoint, is_for_services } = self;
        is_for_services.then(|| endpoint.for_services(limiter).errors([wallet_not_found()]))
    }
}

/// Puts an endpoint behind the gate.
pub(super) fn gated<Api: 'static>(endpoint: Endpoint<Api>) -> GatedEndpoint<Api> {
    let endpoint =
        endpoint.guarded(|route: Route| route.wrap(from_fn(pass))).errors([ApiError::dependency_unavailable()]);
    GatedEndpoint { endpoint, is_for_services: false }
}

/// Middleware: responds with an error unless the user has a wallet.
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
    let gate = request.app_data::<web::Data<Gate>>().cloned().ok_or_else(ApiError::internal)?;
    let service = request.extensions().get::<AuthenticatedService>().map(|service| service.name().clone());
    let Some(service) = service else {
        let user_id = request.extract::<Authenticated>().await?.user_id();
        return gate.check(user_id, None).await;
    };
    let user_id = request.match_info().get(USER_ID).and_then(|id| id.parse().ok()).ok_or_else(wallet_not_found)?;
    request.extensions_mut().insert(OnBehalfOf(user_id));
    gate.check(user_id, Some(service)).await
}

impl FromRequest for ReadyWallet {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // Absent only if the endpoint is not behind the gate, which is a bug.
        ready(request.extensions().get::<Self>().cloned().ok_or_else(ApiError::internal))
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
