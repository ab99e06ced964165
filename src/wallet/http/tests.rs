//! Responses to failures of a port that real servers do not produce on demand.

use std::sync::Arc;

use actix_web::App;
use actix_web::test::{TestRequest, call_service, init_service};
use async_trait::async_trait;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::infra::config::{RateLimit, TokenConfig};
use crate::infra::health::HealthBoard;
use crate::infra::http::{BySubject, LimitPolicy, Limiter, OtherRole};
use crate::infra::metrics::Metrics;
use crate::infra::security::access_token::{TokenSigner, TokenVerifier};
use crate::infra::security::service_token::ServiceVerifier;
use crate::kernel::{DependencyError, EntryId, FailureClass, Secret, SelfPost, Timestamp, UserId};
use crate::wallet::application::announcements::WalletAnnouncements;
use crate::wallet::application::await_wallet::AwaitWallet;
use crate::wallet::application::history::{HistoryPage, HistoryQuery};
use crate::wallet::application::holds::{HoldPage, HoldQueries, HoldQuery};
use crate::wallet::application::ports::{Ledger, PostError, Posted, Provisioned, WalletStore};
use crate::wallet::application::queries::{EntryDetails, WalletQueries};
use crate::wallet::application::receipts::{ChainPage, ChainQuery, ReceiptQueries};
use crate::wallet::application::statement::{Statement, StatementPeriod};
use crate::wallet::domain::{Entry, EntryRefused, Funds, Hold, OneOrMore, Posting, Receipt};

/// Fails every post with the same error.
struct FailingLedger(PostError);

#[async_trait]
impl Ledger for FailingLedger {
    async fn post(&self, _: Posting) -> Result<Posted, PostError> {
        Err(self.0.clone())
    }

    fn is_busy(&self) -> bool {
        false
    }

    async fn post_all(&self, postings: OneOrMore<Posting>) -> OneOrMore<Result<Posted, PostError>> {
        postings.map(|_| Err(self.0.clone()))
    }
}

/// Fails every read with an error of the same class.
#[derive(Clone, Copy)]
struct FailingStore(FailureClass);

impl FailingStore {
    fn fail<T>(self) -> Result<T, DependencyError> {
        Err(DependencyError::new("test", self.0, "on purpose"))
    }
}

#[async_trait]
impl ReceiptQueries for FailingStore {
    async fn receipt(&self, _: UserId, _: EntryId) -> Result<Option<Receipt>, DependencyError> {
        self.fail()
    }
    async fn head(&self, _: UserId) -> Result<Option<Receipt>, DependencyError> {
        self.fail()
    }
    async fn chain(&self, _: UserId, _: ChainQuery) -> Result<ChainPage, DependencyError> {
        self.fail()
    }
}

#[async_trait]
impl WalletQueries for FailingStore {
    async fn balance(&self, _: UserId) -> Result<Funds, DependencyError> {
        self.fail()
    }
    async fn balance_at(&self, _: UserId, _: Timestamp) -> Result<Funds, DependencyError> {
        self.fail()
    }
    async fn history(&self, _: UserId, _: HistoryQuery) -> Result<HistoryPage, DependencyError> {
        self.fail()
    }
    async fn statement(&self, _: UserId, _: StatementPeriod) -> Result<Statement, DependencyError> {
        self.fail()
    }
    async fn entries(&self, _: UserId, _: i64, _: i64) -> Result<Vec<Entry>, DependencyError> {
        self.fail()
    }
    async fn entry(&self, _: UserId, _: EntryId) -> Result<Option<EntryDetails>, DependencyError> {
        self.fail()
    }
    async fn transfer(&self, _: UserId, _: EntryId) -> Result<Option<EntryDetails>, DependencyError> {
        self.fail()
    }
}

#[async_trait]
impl HoldQueries for FailingStore {
    async fn page(&self, _: UserId, _: HoldQuery) -> Result<HoldPage, DependencyError> {
        self.fail()
    }
    async fn one(&self, _: UserId, _: EntryId) -> Result<Option<Hold>, DependencyError> {
        self.fail()
    }
}

/// Every user has a wallet.
struct ReadyWallets;

#[async_trait]
impl WalletStore for ReadyWallets {
    async fn provision(&self, _: Vec<UserId>) -> Result<Provisioned, DependencyError> {
        Ok(Provisioned::default())
    }
    async fn ping(&self) -> Result<(), DependencyError> {
        Ok(())
    }
    async fn created_at(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError> {
        self.look_up(user).await
    }
    async fn look_up(&self, _: UserId) -> Result<Option<Timestamp>, DependencyError> {
        Ok(Some(Timestamp::UNIX_EPOCH))
    }
}

/// Status and body of the response to a request with a valid token.
async fn respond(error: PostError, class: FailureClass, request: TestRequest) -> (u16, serde_json::Value) {
    let secret = || Secret::new("a key of more than thirty-two bytes");
    let tokens = TokenConfig {
        access_key: secret(),
        previous_access_key: None,
        internal_key: secret(),
        previous_internal_key: None,
    };
    let signer = TokenSigner::new(&tokens, std::time::Duration::from_mins(1));
    let token = signer.sign(UserId::from_uuid(Uuid::from_u128(7)), Timestamp::now()).expect("a token");
    let limit = RateLimit { max: std::num::NonZeroU32::MIN, window: std::time::Duration::from_secs(1) };
    let other = OtherRole { role: Role::Users, url: None, port: "1" };
    let api = WalletApi {
        ledger: Arc::new(FailingLedger(error)),
        queries: Arc::new(FailingStore(class)),
        holds: Arc::new(FailingStore(class)),
        receipts: Arc::new(FailingStore(class)),
        signing_keys: Arc::default(),
        gate: Arc::new(Gate::new(
            AwaitWallet { wallets: Arc::new(ReadyWallets), announcements: WalletAnnouncements::default() },
            SelfPost::CreditAndDebit,
            &Metrics::try_new().expect("metrics"),
        )),
        services: Arc::new(ServiceVerifier::new(&tokens)),
        service_limit: None,
        tokens: Arc::new(TokenVerifier::new(&tokens)),
        bulk_limit: Limiter::new(BySubject, LimitPolicy { name: "bulk", limit }, false).expect("a limit"),
        post_limit: Limiter::new(BySubject, LimitPolicy { name: "transactions", limit }, false).expect("a limit"),
        export_limit: Limiter::new(BySubject, LimitPolicy { name: "statements", limit }, false).expect("a limit"),
        statements: StatementSlots::new(&Metrics::try_new().expect("metrics")),
        health: HealthBoard::default(),
        docs: DocsPage::try_new(&document().build(), &other).expect("a page"),
    };
    let app = init_service(App::new().configure(|app| routes(&api, app))).await;
    let request = request.insert_header(("authorization", format!("Bearer {}", token.expose())));
    let response = call_service(&app, request.to_request()).await;
    (response.status().as_u16(), actix_web::test::read_body_json(response).await)
}

#[actix_web::test]
async fn every_failure_of_the_ledger_has_a_status_and_a_code() {
    for (error, status, code) in [
        (PostError::Refused { reason: EntryRefused::InsufficientFunds, draft: 0 }, 409, "INSUFFICIENT_FUNDS"),
        (PostError::Refused { reason: EntryRefused::BalanceLimit, draft: 0 }, 409, "BALANCE_LIMIT"),
        (PostError::Refused { reason: EntryRefused::IdempotencyKeyReused, draft: 0 }, 422, "IDEMPOTENCY_KEY_REUSED"),
        (PostError::NoWallet, 503, "WALLET_PROVISIONING"),
        (PostError::Overloaded, 503, "OVERLOADED"),
        (PostError::NotDone, 503, "DEPENDENCY_UNAVAILABLE"),
        (PostError::OutcomeUnknown, 503, "OUTCOME_UNKNOWN"),
        (PostError::Bug, 500, "INTERNAL_ERROR"),
    ] {
        let request = TestRequest::post().uri("/v1/transactions/credit").set_json(json!({"amountMinor": 5}));
        let (got, body) = respond(error, FailureClass::Bug, request).await;
        assert_eq!((got, body["code"].as_str()), (status, Some(code)));
    }
}

#[actix_web::test]
async fn a_failed_read_is_a_503_if_a_retry_may_help_and_else_a_500() {
    let id = Uuid::nil();
    for path in [
        "/v1/balance",
        "/v1/balance?at=2026-01-31T12:00:00Z",
        "/v1/transactions",
        "/v1/statements?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z",
        &format!("/v1/transactions/{id}"),
        &format!("/v1/transactions/{id}/receipt"),
        "/v1/ledger/head",
        "/v1/ledger/chain",
        &format!("/v1/transfers/{id}"),
        "/v1/holds",
        &format!("/v1/holds/{id}"),
    ] {
        for (class, status, code) in [
            (FailureClass::Unavailable, 503, "DEPENDENCY_UNAVAILABLE"),
            (FailureClass::Transient, 503, "DEPENDENCY_UNAVAILABLE"),
            (FailureClass::Permanent, 500, "INTERNAL_ERROR"),
            (FailureClass::Bug, 500, "INTERNAL_ERROR"),
        ] {
            let (got, body) = respond(PostError::Bug, class, TestRequest::get().uri(path)).await;
            assert_eq!((got, body["code"].as_str()), (status, Some(code)), "{path}");
        }
    }
}
