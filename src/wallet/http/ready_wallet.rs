//! The gate: an endpoint behind it does not run for a user without a wallet, and its handler gets a [`ReadyWallet`].

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, Route, web};

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Authenticated};
use crate::kernel::UserId;
use crate::wallet::application::await_wallet::AwaitWallet;
use crate::wallet::http::WalletApi;

const RETRY_AFTER_S: u64 = 2;

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
pub(super) fn gated(endpoint: Endpoint<WalletApi>) -> Endpoint<WalletApi> {
    endpoint
        .guarded(|route: Route| route.wrap(from_fn(gate)))
        .errors([provisioning(), ApiError::dependency_unavailable()])
}

/// Middleware: responds with 503 unless the user of the token has a wallet.
async fn gate(
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
    let wallets = request.app_data::<web::Data<AwaitWallet>>().cloned().ok_or_else(ApiError::internal)?;
    match wallets.execute(user_id, Duration::ZERO).await {
        Ok(Some(_)) => Ok(ReadyWallet { user_id }),
        Ok(None) => Err(provisioning()),
        Err(e) => Err(ApiError::from_failure(&e)),
    }
}

impl FromRequest for ReadyWallet {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // Absent only if the endpoint is not behind the gate, which is a bug.
        ready(request.extensions().get::<Self>().copied().ok_or_else(ApiError::internal))
    }
}
