//! The gate: a handler with a [`ReadyWallet`] argument does not run for a user without a wallet.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use crate::infra::http::{ApiError, Authenticated};
use crate::kernel::UserId;
use crate::wallet::application::await_wallet::AwaitWallet;

const RETRY_AFTER_S: u64 = 2;

/// Proof that the user of the token has a wallet.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadyWallet {
    pub(super) user_id: UserId,
}

pub(super) fn provisioning() -> ApiError {
    let message = "Wallet is being provisioned. Retry shortly.";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "WALLET_PROVISIONING", message).retry_after_s(RETRY_AFTER_S)
}

impl FromRequest for ReadyWallet {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let bearer = Authenticated::from_request(request, payload);
        let wallets = request.app_data::<web::Data<AwaitWallet>>().cloned();
        async move {
            let user_id = bearer.await?.user_id();
            let wallets = wallets.ok_or_else(ApiError::internal)?;
            match wallets.execute(user_id, Duration::ZERO).await {
                Ok(Some(_)) => Ok(Self { user_id }),
                Ok(None) => Err(provisioning()),
                Err(e) => Err(ApiError::from_failure(&e)),
            }
        }
        .boxed_local()
    }
}
