//! Responses to failures of a port that real servers do not produce on demand.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use actix_web::{App, HttpMessage as _};
use async_trait::async_trait;
use serde_json::{Value, json};
use slog::{Discard, Logger, o};
use uuid::Uuid;

use super::*;
use crate::infra::config::{RateLimit, TokenConfig};
use crate::infra::health::HealthBoard;
use crate::infra::http::{ByClient, LimitPolicy, Limiter, OtherRole, RequestContext, TextLimiter};
use crate::infra::metrics::Metrics;
use crate::infra::security::access_token::{TokenSigner, TokenVerifier};
use crate::infra::system::System;
use crate::kernel::{DependencyError, FailureClass, IdempotencyKey, RequestId, Secret, Timestamp, TraceParent, UserId};
use crate::users::application::log_in::LogIn;
use crate::users::application::ports::{
    AccessToken, AddUserError, Credentials, EarlierRegistration, HashError, HashRenewal, PasswordCheck, PasswordHash,
    PasswordHasher, Registration, RelayWake, TokenError, TokenIssuer, UserStore,
};
use crate::users::application::queries::{OutboxDepth, UserQueries};
use crate::users::application::register_user::RegisterUser;
use crate::users::domain::{EmailAddress, Password, User};

/// Which port fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    Nothing,
    /// The email address is taken, and the password of its user is another one.
    Refused,
    Store(FailureClass),
    /// The outcome of a commit, which only a registration has.
    Commit,
    HasherQueue,
    Hasher,
    Signer,
}

/// Every port of the role; one of them fails.
struct Ports {
    failing: Failing,
    wakes: AtomicUsize,
}

impl Ports {
    fn stored<T>(&self, value: T) -> Result<T, DependencyError> {
        match self.failing {
            Failing::Store(class) => Err(DependencyError::new("test", class, "on purpose")),
            _ => Ok(value),
        }
    }

    fn hashed<T>(&self, value: T) -> Result<T, HashError> {
        match self.failing {
            Failing::HasherQueue => Err(HashError::Overloaded),
            Failing::Hasher => Err(HashError::Failed("on purpose".into())),
            _ => Ok(value),
        }
    }
}

#[async_trait]
impl UserStore for Ports {
    async fn add(&self, _: Registration) -> Result<(), AddUserError> {
        match self.failing {
            Failing::Refused => Err(AddUserError::EmailExists),
            Failing::Commit => {
                Err(AddUserError::OutcomeUnknown(DependencyError::new("test", FailureClass::Unavailable, "on purpose")))
            }
            _ => Ok(self.stored(())?),
        }
    }
    async fn registered_with(&self, _: &IdempotencyKey) -> Result<Option<EarlierRegistration>, DependencyError> {
        self.stored(None)
    }
    async fn credentials(&self, _: &EmailAddress) -> Result<Option<Credentials>, DependencyError> {
        let password_hash = PasswordHash::new("hash".to_owned());
        self.stored(Some(Credentials { user_id: UserId::from_uuid(Uuid::nil()), password_hash }))
    }
    async fn renew_password_hash(&self, _: HashRenewal) -> Result<(), DependencyError> {
        self.stored(())
    }
}

#[async_trait]
impl PasswordHasher for Ports {
    async fn hash(&self, _: Password) -> Result<PasswordHash, HashError> {
        self.hashed(PasswordHash::new("hash".to_owned()))
    }
    async fn verify(&self, _: Secret, _: Option<PasswordHash>) -> Result<PasswordCheck, HashError> {
        self.hashed(if self.failing == Failing::Refused { PasswordCheck::Wrong } else { PasswordCheck::Correct })
    }
}

impl TokenIssuer for Ports {
    fn issue(&self, _: UserId, _: Timestamp) -> Result<AccessToken, TokenError> {
        match self.failing {
            Failing::Signer => Err(TokenError("on purpose".into())),
            _ => Ok(AccessToken { token: Secret::new("token"), expires_in_s: 60 }),
        }
    }
}

impl RelayWake for Ports {
    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

/// Its users table is empty.
#[async_trait]
impl UserQueries for Ports {
    async fn profile(&self, _: UserId) -> Result<Option<User>, DependencyError> {
        self.stored(None)
    }
    async fn outbox_depth(&self) -> Result<OutboxDepth, DependencyError> {
        self.stored(OutboxDepth { events: 0, oldest_age: Duration::ZERO })
    }
}

/// A response, and how often the request woke the relay.
struct Response {
    status: u16,
    code: Option<String>,
    wakes: usize,
}

/// Sends a request with a valid token.
async fn respond(failing: Failing, request: TestRequest) -> Response {
    let secret = || Secret::new("a key of more than thirty-two bytes");
    let tokens = TokenConfig {
        access_key: secret(),
        previous_access_key: None,
        internal_key: secret(),
        previous_internal_key: None,
    };
    let signer = TokenSigner::new(&tokens, Duration::from_mins(1));
    let token = signer.sign(UserId::from_uuid(Uuid::nil()), Timestamp::now()).expect("a token");
    let metrics = Metrics::try_new().expect("metrics");
    let by_client = || ByClient::new(&[], &metrics, Logger::root(Discard, o!()));
    let policy =
        LimitPolicy { name: "test", limit: RateLimit { max: NonZeroU32::MIN, window: Duration::from_secs(1) } };
    let unlimited = || Limiter::new(by_client(), policy, false).expect("a limit");
    let other = OtherRole { role: Role::Wallet, url: None, port: "1" };
    let ports = Arc::new(Ports { failing, wakes: AtomicUsize::new(0) });
    let api = UsersApi {
        register_user: Arc::new(RegisterUser {
            users: ports.clone(),
            hasher: ports.clone(),
            tokens: ports.clone(),
            relay: ports.clone(),
            clock: Arc::new(System),
            ids: Arc::new(System),
        }),
        log_in: Arc::new(LogIn {
            users: ports.clone(),
            hasher: ports.clone(),
            tokens: ports.clone(),
            clock: Arc::new(System),
        }),
        queries: ports.clone(),
        tokens: Arc::new(TokenVerifier::new(&tokens)),
        register_limit: unlimited(),
        login_limit: unlimited(),
        account_limit: Arc::new(TextLimiter::new(policy, false).expect("a limit")),
        health: HealthBoard::default(),
        docs: DocsPage::try_new(&document().build(), &other).expect("a page"),
    };
    let logger = web::Data::new(Logger::root(Discard, o!()));
    let app = init_service(App::new().app_data(logger).configure(|app| routes(&api, app))).await;
    let request = request.insert_header(("authorization", format!("Bearer {}", token.expose()))).to_request();
    let request_id = RequestId::from_uuid(Uuid::nil());
    request.extensions_mut().insert(RequestContext { request_id, traceparent: TraceParent::begin(&System) });
    let response = call_service(&app, request).await;
    let status = response.status().as_u16();
    let body: Value = read_body_json(response).await;
    Response { status, code: body["code"].as_str().map(str::to_owned), wakes: ports.wakes.load(Ordering::SeqCst) }
}

fn registration() -> TestRequest {
    let body =
        json!({"firstName": "Ada", "lastName": "Lovelace", "email": "ada@example.com", "password": "long enough"});
    TestRequest::post().uri("/v1/auth/register").set_json(body)
}

fn login() -> TestRequest {
    TestRequest::post().uri("/v1/auth/login").set_json(json!({"email": "ada@example.com", "password": "long enough"}))
}

const DEPENDENCY: (u16, Option<&str>) = (503, Some("DEPENDENCY_UNAVAILABLE"));
const OVERLOADED: (u16, Option<&str>) = (503, Some("OVERLOADED"));
const INTERNAL: (u16, Option<&str>) = (500, Some("INTERNAL_ERROR"));

#[actix_web::test]
async fn every_failure_of_a_registration_has_a_status_and_a_code_and_wakes_the_relay_only_if_an_event_is_stored() {
    for (failing, expected, wakes) in [
        (Failing::Nothing, (201, None), 1),
        (Failing::Refused, (409, Some("EMAIL_EXISTS")), 0),
        (Failing::Store(FailureClass::Unavailable), DEPENDENCY, 0),
        (Failing::Store(FailureClass::Transient), DEPENDENCY, 0),
        (Failing::Store(FailureClass::Bug), INTERNAL, 0),
        (Failing::Commit, (503, Some("OUTCOME_UNKNOWN")), 0),
        (Failing::HasherQueue, OVERLOADED, 0),
        (Failing::Hasher, INTERNAL, 0),
        (Failing::Signer, INTERNAL, 1),
    ] {
        let got = respond(failing, registration()).await;
        assert_eq!((got.status, got.code.as_deref()), expected, "{failing:?}");
        assert_eq!(got.wakes, wakes, "{failing:?}");
    }
}

#[actix_web::test]
async fn every_failure_of_a_login_has_a_status_and_a_code() {
    for (failing, expected) in [
        (Failing::Nothing, (200, None)),
        (Failing::Refused, (401, Some("INVALID_CREDENTIALS"))),
        (Failing::Store(FailureClass::Unavailable), DEPENDENCY),
        (Failing::Store(FailureClass::Bug), INTERNAL),
        (Failing::HasherQueue, OVERLOADED),
        (Failing::Hasher, INTERNAL),
        (Failing::Signer, INTERNAL),
    ] {
        let got = respond(failing, login()).await;
        assert_eq!((got.status, got.code.as_deref()), expected, "{failing:?}");
    }
}

#[actix_web::test]
async fn a_profile_that_is_gone_is_a_404_and_a_failed_read_a_503_if_a_retry_may_help_and_else_a_500() {
    for (failing, expected) in [
        (Failing::Nothing, (404, Some("USER_NOT_FOUND"))),
        (Failing::Store(FailureClass::Unavailable), DEPENDENCY),
        (Failing::Store(FailureClass::Transient), DEPENDENCY),
        (Failing::Store(FailureClass::Permanent), INTERNAL),
        (Failing::Store(FailureClass::Bug), INTERNAL),
    ] {
        let got = respond(failing, TestRequest::get().uri("/v1/users/me")).await;
        assert_eq!((got.status, got.code.as_deref()), expected, "{failing:?}");
    }
}
