//! `POST /v1/auth/login`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use slog::{Logger, warn};

use crate::infra::http::{ApiError, JsonFields, RequestContext, TextLimiter, read_json};
use crate::kernel::{Secret, chain};
use crate::users::application::log_in::{LogIn, LogInError};
use crate::users::domain::EmailAddress;
use crate::users::http::wire::TokenBody;

/// Longest text that is compared as a password: what is longer cannot be one.
const PASSWORD_BYTES_MAX: usize = 1024;

/// 200 with a token.
///
/// # Errors
/// 400, 401 `INVALID_CREDENTIALS`, 503, 429 by account; 429 by address stands before it.
pub(super) async fn handle(
    request: HttpRequest,
    payload: web::Payload,
    context: web::ReqData<RequestContext>,
    log_in: web::Data<LogIn>,
    account_limit: web::Data<TextLimiter>,
    logger: web::Data<Logger>,
) -> Result<HttpResponse, ApiError> {
    let (email, password) = parse(read_json(&request, payload).await?)?;
    if let Some(email) = &email {
        // Before anybody is looked up or hashed for; whether there is such an account makes no difference.
        account_limit.count(email.as_str())?;
    }
    let logged_in = log_in.execute(email, password).await.map_err(refusal)?;
    if let Some(e) = logged_in.renewal_failed {
        let request_id = context.request_id.as_str().to_owned();
        warn!(logger, "an outdated password hash could not be renewed"; "request_id" => request_id, "error" => chain(&e));
    }
    Ok(HttpResponse::Ok().json(TokenBody::from(&logged_in.access_token)))
}

/// Only the form of the body is checked here. A text that cannot be anybody's address or password is not told apart
/// from a wrong one.
fn parse(mut fields: JsonFields) -> Result<(Option<EmailAddress>, Secret), ApiError> {
    let email = fields.text("email", |text| {
        if text.contains('\0') { Err("must not contain the NUL character") } else { Ok(EmailAddress::parse(text).ok()) }
    });
    let password = fields.text("password", |text| {
        if text.contains('\0') {
            Err("must not contain the NUL character")
        } else if text.len() > PASSWORD_BYTES_MAX {
            Err("must be at most 1024 bytes long")
        } else {
            Ok(Secret::new(text))
        }
    });
    fields.finish(email.zip(password))
}

fn refusal(error: LogInError) -> ApiError {
    match error {
        LogInError::InvalidCredentials => {
            let message = "The email address or the password is wrong.";
            ApiError::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIALS", message).with_header(
                actix_web::http::header::WWW_AUTHENTICATE,
                actix_web::http::header::HeaderValue::from_static("Bearer"),
            )
        }
        LogInError::Overloaded => ApiError::overloaded(),
        other @ (LogInError::Store(_) | LogInError::Hash(_) | LogInError::Token(_)) => ApiError::from_failure(&other),
    }
}
